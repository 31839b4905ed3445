// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/testing/lifeline"
)

const (
	// restartAfter is how long a program that ended stays down, as it would under a kubelet.
	restartAfter = 250 * time.Millisecond
	// A program may end by itself while it starts, such as for want of a database, and is started again. Later it may
	// not: it has to live through whatever happens to the database.
	settledAfter = 20 * time.Second
	stopTimeout  = 30 * time.Second
)

// program is one that is started again whenever it ends.
type program struct {
	name, path, log string
	env, args       []string
	// unasked is told when it ended by itself although it had started well.
	unasked func(name string, after time.Duration, err error)

	mu      sync.Mutex
	cmd     *exec.Cmd
	killed  bool
	stopped bool
	ended   chan struct{}
}

// start runs the program until stop.
func (p *program) start() error {
	p.ended = make(chan struct{})
	wait, err := p.launch()
	if err != nil {
		return err
	}
	go p.supervise(wait)
	return nil
}

func (p *program) launch() (wait func() error, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return nil, nil
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(p.path, p.args...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	forget, err := lifeline.Process(cmd.Process.Pid, lifeline.Kill)
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill())
	}
	p.cmd, p.killed = cmd, false
	return func() error {
		err := cmd.Wait()
		_ = forget() // a number more on the watchdog's list, at worst
		return err
	}, nil
}

func (p *program) supervise(wait func() error) {
	defer close(p.ended)
	for wait != nil {
		started := time.Now()
		err := wait()
		p.mu.Lock()
		asked := p.killed || p.stopped
		p.cmd = nil
		p.mu.Unlock()
		if after := time.Since(started); !asked && after > settledAfter {
			p.unasked(p.name, after, err)
		}
		time.Sleep(restartAfter)
		if wait, err = p.launch(); err != nil {
			p.unasked(p.name, 0, err)
			return
		}
	}
}

// kill ends it with SIGKILL; it comes back by itself. It reports whether there was a process to kill.
func (p *program) kill() (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return false, nil
	}
	p.killed = true
	err := p.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		return false, nil
	}
	return err == nil, err
}

// stop ends it for good.
func (p *program) stop() error {
	p.mu.Lock()
	p.stopped = true
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be gone
	}
	p.mu.Unlock()
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTimeout):
	}
	_, err := p.kill()
	<-p.ended
	return errors.Join(err, fmt.Errorf("%s did not end within %s of SIGTERM", p.name, stopTimeout))
}

// Ports of programs that come back after a kill are below those that connections are given, else one of these might
// have taken the port meanwhile.
const lowestPort, portsBelow = 20_000, 32_000

func quietAddress() (string, error) {
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowestPort+rand.IntN(portsBelow-lowestPort)))
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", fmt.Errorf("no free port between %d and %d", lowestPort, portsBelow)
}
