// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// forwarded are the signals that are passed on to the command. SIGKILL and SIGSTOP cannot be; SIGCHLD, SIGPIPE and
// those of faults are each process's own.
var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGWINCH, syscall.SIGCONT,
}

// ends reports whether a signal asks to end.
func ends(s os.Signal) bool {
	switch s {
	case syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM:
		return true
	}
	return false
}

// catch takes over the signals. A reader of our messages that goes away must not end us before the charge is recorded,
// so SIGPIPE is caught as well; it is not ignored, because the command would inherit that.
func catch() (signals <-chan os.Signal, release func()) {
	c, pipe := make(chan os.Signal, 16), make(chan os.Signal, 1)
	signal.Notify(c, forwarded...)
	signal.Notify(pipe, syscall.SIGPIPE)
	return c, func() {
		signal.Stop(c)
		signal.Stop(pipe)
	}
}

// execute runs the command with our standard streams and returns its exit code, or an error if it could not be started.
func execute(command []string, streams streams, signals <-chan os.Signal) (code int, err error) {
	cmd := exec.Command(command[0], command[1:]...) //nolint:noctx // it is ended by signals, not by a context
	cmd.Stdin, cmd.Stdout, cmd.Stderr = streams.in, streams.out, streams.err
	if err := cmd.Start(); err != nil {
		return 0, notStarted(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	fromTerminal := term.IsTerminal(int(os.Stdin.Fd()))
	for {
		select {
		case err := <-ended:
			return exitCode(cmd.ProcessState, err)
		case s := <-signals:
			// A terminal sends these to both of us.
			if fromTerminal && (s == syscall.SIGINT || s == syscall.SIGQUIT) {
				continue
			}
			_ = cmd.Process.Signal(s) // it may have ended just now
		}
	}
}

func exitCode(state *os.ProcessState, err error) (int, error) {
	if state == nil {
		return 0, err
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitSignal + int(status.Signal()), nil
	}
	return state.ExitCode(), nil
}

// notStarted gives the reason why a command cannot be started the exit code that shells give it.
func notStarted(err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return refused(exitNotFound, err)
	}
	return refused(exitNotExecutable, err)
}
