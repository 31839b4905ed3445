// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/lifeline"
	"github.com/cantonesescribe/usage-operator/internal/testing/usagedtest"
)

// asProgram makes the test's binary usage-run itself: signals and exit codes are those of a real process.
const asProgram = "USAGE_RUN_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// patience bounds every wait of a test.
const patience = time.Minute

// tone is 1.234 s of audio in an MP3 of variable bit rate.
const (
	toneFile    = "../../internal/audio/testdata/vbr.mp3"
	toneCredits = quota.Credits(1234)
)

// world is usaged, and what a pod has to call it.
type world struct {
	*usagedtest.Usaged

	t   *testing.T
	dir string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Usaged: usagedtest.New(t), t: t, dir: t.TempDir()}
	w.token("pod-1")
	return w
}

func (w *world) tokenFile() string { return filepath.Join(w.dir, "token") }

// token writes a token of the pod as the kubelet would, and makes it the only valid one.
func (w *world) token(pod string) {
	w.t.Helper()
	claims := fmt.Sprintf(`{"sub":"transcriber","kubernetes.io":{"pod":{"name":"p","uid":%q}},"n":%d}`, pod,
		time.Now().UnixNano())
	token := "h." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".s"
	w.Accept(token)
	next := w.tokenFile() + ".next"
	if err := errors.Join(os.WriteFile(next, []byte(token+"\n"), 0o600), os.Rename(next, w.tokenFile())); err != nil {
		w.t.Fatal(err)
	}
}

// process is a usage-run.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bytes.Buffer

	mu       sync.Mutex
	messages bytes.Buffer
	ended    chan struct{}
}

// Write takes what it says on stderr.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.messages.Write(b)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.messages.String()
}

// launch starts usage-run for alice with these arguments behind the usual ones.
func (w *world) launch(args ...string) *process {
	w.t.Helper()
	return w.launchIn(w.t, args...)
}

// launchIn does it for a part of the test.
func (w *world) launchIn(t *testing.T, args ...string) *process {
	t.Helper()
	args = append([]string{
		"--server=" + w.URL(), "--token-file=" + w.tokenFile(), "--user=alice", "--labels-file=",
		"--termination-log=",
	}, args...)
	p := &process{t: t, cmd: exec.Command(os.Args[0], args...), out: &bytes.Buffer{}, ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = strings.NewReader("from stdin"), p.out, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that the command ends with it
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	forget, err := lifeline.Process(p.cmd.Process.Pid, lifeline.Kill)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		_ = forget()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
	})
	return p
}

// code waits for the end and returns the exit code.
func (p *process) code() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("usage-run did not end; it said:\n%s", p.said())
	}
	return p.cmd.ProcessState.ExitCode()
}

// ends checks exit code and messages.
func (p *process) ends(code int, said ...string) {
	p.t.Helper()
	if got := p.code(); got != code {
		p.t.Errorf("exit code: got %d, want %d; it said:\n%s", got, code, p.said())
	}
	for _, want := range said {
		if !strings.Contains(p.said(), want) {
			p.t.Errorf("it did not say %q but:\n%s", want, p.said())
		}
	}
}

func (p *process) says(text string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("usage-run says %q", text), func() bool { return strings.Contains(p.said(), text) })
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after %s: %s", patience, what)
		}
	}
}

// gate is a file that a command waits for: `until` is a shell's loop, open makes it go on.
func (w *world) gate(name string) (until string, open func()) {
	path := filepath.Join(w.dir, name)
	return fmt.Sprintf("until [ -e %s ]; do sleep 0.01; done", path), func() {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
}
