// Package lifeline makes sure that nothing which this process starts outlives it: not even when it is killed with
// SIGKILL or when `go test` ends it at its timeout, where no deferred call runs.
//
// It works by one shell process per program that reads from a pipe. The kernel closes the pipe when this process ends,
// whatever the reason; the shell then kills the registered processes and removes the registered folders.
package lifeline

import (
	_ "embed"
	"fmt"
	"io"
	"os/exec"
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
	// Quit asks the single process; PostgreSQL's postmaster takes its children, which have sessions of their own, with it.
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
