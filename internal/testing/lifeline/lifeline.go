// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Package lifeline makes sure that nothing which this process starts outlives it: not even when it is killed with
// SIGKILL or when `go test` ends it at its timeout, where no deferred call runs.
//
// It works by one shell process per program that reads from a pipe. The kernel closes the pipe when this process ends,
// whatever the reason; the shell then kills the registered processes and removes the registered folders.
package lifeline

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

//go:embed watchdog.sh
var watchdog string

// Signal names how a process is ended once this one is gone.
type Signal string

// What the watchdog can send.
const (
	// Kill ends a whole process group; the process has to be the leader of one.
	Kill Signal = "KILL"
	// Quit asks the single process; PostgreSQL's postmaster takes its children, which have sessions of their own, with
	// it.
	Quit Signal = "QUIT"
)

var (
	mu   sync.Mutex
	pipe io.Writer
)

// Process registers a process that has to end with this one. The returned function takes it off the list and is to be
// called as soon as the process has been waited for: its number may belong to another one afterwards.
func Process(pid int, signal Signal) (forget func() error, err error) {
	if err := send("kill", fmt.Sprintf("%s %d", signal, pid)); err != nil {
		return nil, err
	}
	return func() error { return send("forget", fmt.Sprintf("%s %d", signal, pid)) }, nil
}

// Children registers the processes with one of these names that this process has started as leaders of their own
// groups, for libraries that start servers and hand out no process: controller-runtime's envtest does.
func Children(names ...string) (forget func() error, err error) {
	pids, err := children(names)
	if err != nil {
		return nil, fmt.Errorf("look for the processes %s: %w", strings.Join(names, ", "), err)
	}
	var all []func() error
	forget = func() error {
		var errs []error
		for _, f := range all {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	for _, pid := range pids {
		f, err := Process(pid, Kill)
		if err != nil {
			return nil, errors.Join(err, forget())
		}
		all = append(all, f)
	}
	return forget, nil
}

func children(names []string) ([]int, error) {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,pgid=,comm=").Output()
	if err != nil {
		return nil, err
	}
	var pids []int
	for line := range strings.Lines(string(out)) {
		var pid, parent, group int
		var name string
		if _, err := fmt.Sscan(line, &pid, &parent, &group, &name); err != nil {
			return nil, fmt.Errorf("%q from ps: %w", strings.TrimSpace(line), err)
		}
		if parent == os.Getpid() && group == pid && slices.Contains(names, filepath.Base(name)) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Folder registers a folder that is removed with everything in it once this process and the registered ones are gone.
func Folder(path string) (forget func() error, err error) {
	if strings.ContainsRune(path, '\n') {
		return nil, fmt.Errorf("folder %q: a line break in the name cannot be watched", path)
	}
	if err := send("remove", path); err != nil {
		return nil, err
	}
	return func() error { return send("keep", path) }, nil
}

func send(verb, argument string) error {
	mu.Lock()
	defer mu.Unlock()
	if pipe == nil {
		w, err := start()
		if err != nil {
			return fmt.Errorf("start the watchdog: %w", err)
		}
		pipe = w
	}
	if _, err := fmt.Fprintf(pipe, "%s %s\n", verb, argument); err != nil {
		return fmt.Errorf("tell the watchdog to %s %s: %w", verb, argument, err)
	}
	return nil
}

func start() (io.Writer, error) {
	cmd := exec.Command("/bin/sh", "-c", watchdog)
	// A group of its own: Ctrl-C in the terminal must not end it before its work is done. Its output goes nowhere,
	// because `go test` would wait for everybody who holds the test's output.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Dir = "/"
	w, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return w, nil
}
