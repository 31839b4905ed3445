// SPDX-License-Identifier: Apache-2.0

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Kill ends the server and all its processes with SIGKILL, at one moment: nobody gets to write or say a last word. It
// returns when they are gone. What the operating system holds of the files survives, as it does not when power fails.
func (s *Server) Kill() error {
	if s.cmd == nil {
		return errors.New("kill PostgreSQL: it does not run")
	}
	main := s.cmd.Process.Pid
	// Stopped first, so that it starts no more children while these are listed.
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	children, err := childrenOf(main)
	if err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	for _, pid := range append(children, main) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill process %d of PostgreSQL: %w", pid, err)
		}
	}
	<-s.exited
	forget := s.forgetProcess
	s.cmd = nil
	// A server does not start while a process of the one before it is attached to its memory.
	for deadline := time.Now().Add(stopTimeout); ; time.Sleep(5 * time.Millisecond) {
		alive, err := anyAlive(children)
		if err != nil || !alive {
			return errors.Join(err, forget())
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("kill PostgreSQL: some of its processes %v are still there", children),
				forget())
		}
	}
}

// Restart starts the server again after Kill, and returns when it has recovered and answers. Its address may be another
// one.
func (s *Server) Restart(ctx context.Context) error {
	if s.cmd != nil {
		return errors.New("restart PostgreSQL: it runs")
	}
	return s.start(ctx)
}

// processes lists the processes of this machine: number, parent and whether it is alive (no zombie).
func processes() ([][3]int, error) {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,stat=").Output()
	if err != nil {
		return nil, err
	}
	var list [][3]int
	for line := range strings.Lines(string(out)) {
		var pid, parent int
		var state string
		if _, err := fmt.Sscan(line, &pid, &parent, &state); err != nil {
			return nil, fmt.Errorf("%q from ps: %w", strings.TrimSpace(line), err)
		}
		alive := 1
		if strings.HasPrefix(state, "Z") {
			alive = 0
		}
		list = append(list, [3]int{pid, parent, alive})
	}
	return list, nil
}

func childrenOf(parent int) ([]int, error) {
	list, err := processes()
	var children []int
	for _, p := range list {
		if p[1] == parent {
			children = append(children, p[0])
		}
	}
	return children, err
}

func anyAlive(pids []int) (bool, error) {
	list, err := processes()
	return slices.ContainsFunc(list, func(p [3]int) bool { return p[2] == 1 && slices.Contains(pids, p[0]) }), err
}
