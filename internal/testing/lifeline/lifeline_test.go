// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package lifeline_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/testing/lifeline"
)

const helperFolder = "LIFELINE_TEST_FOLDER"

// TestMain lets the test binary play the program that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(helperFolder); dir != "" {
		if err := helper(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// helper registers a child and two folders, takes one of each back, says which child remains, and waits to be killed.
func helper(dir string) error {
	for _, name := range []string{"removed folder", "kept folder"} {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		forget, err := lifeline.Folder(path)
		if err != nil {
			return err
		}
		if name == "kept folder" {
			if err := forget(); err != nil {
				return err
			}
		}
	}
	var pids []string
	for _, kept := range []bool{true, false} {
		child := exec.Command("sleep", "600")
		child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := child.Start(); err != nil {
			return err
		}
		forget, err := lifeline.Process(child.Process.Pid, lifeline.Kill)
		if err != nil {
			return err
		}
		if kept {
			if err := forget(); err != nil {
				return err
			}
		}
		pids = append(pids, strconv.Itoa(child.Process.Pid))
	}
	fmt.Println(strings.Join(pids, " "))
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func TestNothingOutlivesAKilledProcess(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperFolder+"="+dir)
	cmd.Stderr = os.Stderr
	// Held open, so that the helper waits for its end.
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var forgotten, registered int
	if _, err := fmt.Sscan(line, &forgotten, &registered); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(forgotten, syscall.SIGKILL) }()

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	eventually(t, "the registered folder is removed", func() bool {
		_, err := os.Stat(filepath.Join(dir, "removed folder"))
		return os.IsNotExist(err)
	})
	if _, err := os.Stat(filepath.Join(dir, "kept folder")); err != nil {
		t.Errorf("the folder that was taken off the list: %v", err)
	}
	if running(registered) {
		t.Errorf("the registered process %d still runs", registered)
	}
	if !running(forgotten) {
		t.Errorf("process %d was taken off the list and is gone", forgotten)
	}
}

func TestFolderNameWithLineBreak(t *testing.T) {
	if _, err := lifeline.Folder("/tmp/a\nb"); err == nil || !strings.Contains(err.Error(), "line break") {
		t.Errorf("got %v, want an error about the line break", err)
	}
}

// running tells a live process from a zombie that no one has waited for.
func running(pid int) bool {
	out, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(out)), "Z")
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); !condition(); {
		select {
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		case <-tick.C:
		}
	}
}
