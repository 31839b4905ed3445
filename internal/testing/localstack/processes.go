// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package localstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/testing/lifeline"
)

const (
	// stopGrace is how long a process may take to end by itself.
	stopGrace = 15 * time.Second
	logLines  = 12
)

// Processes are programs that run beside this one: each logs to a file of its own, and none outlives this process.
type Processes struct {
	logs string
	fail context.CancelCauseFunc

	mu      sync.Mutex
	running []*process
}

type process struct {
	name     string
	cmd      *exec.Cmd
	log      string
	forget   func() error
	exited   chan struct{}
	stopping bool
}

// NewProcesses returns an empty set that logs to the folder. The returned context is cancelled, its cause telling which
// one and why, as soon as a process ends unasked.
func NewProcesses(ctx context.Context, logs string) (context.Context, *Processes) {
	ctx, fail := context.WithCancelCause(ctx)
	return ctx, &Processes{logs: logs, fail: fail}
}

// Start runs a program. Its environment is this process's, with env added.
func (p *Processes) Start(name, path string, env []string, args ...string) error {
	proc := &process{name: name, log: filepath.Join(p.logs, name+".log"), exited: make(chan struct{})}
	log, err := os.OpenFile(proc.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	proc.cmd = exec.Command(path, args...)
	proc.cmd.Env = append(os.Environ(), env...)
	proc.cmd.Stdout, proc.cmd.Stderr = log, log
	// A group of its own: Ctrl-C in the terminal is for us, and we end them in order.
	proc.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := proc.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	if proc.forget, err = lifeline.Process(proc.cmd.Process.Pid, lifeline.Kill); err != nil {
		return errors.Join(err, proc.cmd.Process.Kill())
	}
	p.mu.Lock()
	p.running = append(p.running, proc)
	p.mu.Unlock()
	go p.watch(proc)
	return nil
}

func (p *Processes) watch(proc *process) {
	err := proc.cmd.Wait()
	close(proc.exited)
	p.mu.Lock()
	defer p.mu.Unlock()
	if proc.stopping {
		return
	}
	if err == nil {
		err = errors.New("exit status 0")
	}
	p.fail(fmt.Errorf("%s ended unasked (%w); the end of its log %s:\n%s", proc.name, err, proc.log, tail(proc.log)))
}

// Log is the file that the named program writes to.
func (p *Processes) Log(name string) string { return filepath.Join(p.logs, name+".log") }

// PID is the number of the named program's process.
func (p *Processes) PID(name string) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.running, func(proc *process) bool { return proc.name == name })
	if i < 0 {
		return 0, fmt.Errorf("no process named %s runs", name)
	}
	return p.running[i].cmd.Process.Pid, nil
}

// Restart ends the named program with the signal and starts it again with the same arguments.
func (p *Processes) Restart(name string, signal syscall.Signal) error {
	proc, err := p.take(name)
	if err != nil {
		return err
	}
	if err := proc.stop(signal); err != nil {
		return err
	}
	return p.Start(name, proc.cmd.Path, proc.cmd.Env, proc.cmd.Args[1:]...)
}

// Stop ends one program.
func (p *Processes) Stop(name string) error {
	proc, err := p.take(name)
	if err != nil {
		return err
	}
	return proc.stop(syscall.SIGTERM)
}

func (p *Processes) take(name string) (*process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.running, func(proc *process) bool { return proc.name == name })
	if i < 0 {
		return nil, fmt.Errorf("no process named %s runs", name)
	}
	proc := p.running[i]
	proc.stopping = true
	p.running = slices.Delete(p.running, i, i+1)
	return proc, nil
}

// StopAll ends the programs, the latest started first.
func (p *Processes) StopAll() error {
	p.mu.Lock()
	running := p.running
	p.running = nil
	for _, proc := range running {
		proc.stopping = true
	}
	p.mu.Unlock()
	var errs []error
	for _, proc := range slices.Backward(running) {
		errs = append(errs, proc.stop(syscall.SIGTERM))
	}
	return errors.Join(errs...)
}

func (proc *process) stop(signal syscall.Signal) error {
	for _, s := range []syscall.Signal{signal, syscall.SIGKILL} {
		if err := proc.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop %s: %w", proc.name, err)
		}
		select {
		case <-proc.exited:
			return proc.forget()
		case <-time.After(stopGrace):
		}
	}
	return fmt.Errorf("stop %s: process %d is still there after SIGKILL", proc.name, proc.cmd.Process.Pid)
}

func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-logLines):], "\n  ")
}
