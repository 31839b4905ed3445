// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/httpapi"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/queue"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/cutproxy"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/lifeline"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
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

// world is usaged over a database of the test's own, which can be killed and started again on its port. When the test
// ends, the ledger is checked against the invariants.
type world struct {
	t    *testing.T
	dsn  string
	addr string
	dir  string

	mu sync.Mutex
	// tokens are those that are valid, later is how far the database's clock is ahead.
	tokens map[string]bool
	later  time.Duration
	// around is put around the handler.
	around func(http.Handler) http.Handler

	// database is the way to it, which can be cut.
	database *cutproxy.Proxy
	service  *metering.Service
	kill     func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, addr: "127.0.0.1:0", dir: t.TempDir(), tokens: map[string]bool{}}
	dsn := ledgertest.New(t)
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if w.database, err = cutproxy.Start(u.Host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.database.Close() })
	if w.dsn, err = w.database.DSN(dsn); err != nil {
		t.Fatal(err)
	}
	w.start()
	t.Cleanup(func() { w.kill() })
	free := plans.Free(func(p *metering.Plan) {
		p.Limits.Queued, p.AdmitWhenUnavailable = quota.AtMost[int32](10), true
	})
	if _, err := w.service.ApplyPlan(t.Context(), free, "test"); err != nil {
		t.Fatal(err)
	}
	w.token("pod-1")
	return w
}

// start serves, on the port that was served before.
func (w *world) start() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	store, err := ledgerdb.Open(ctx, w.dsn, postgres.Options{AllowUnsafe: true, Now: w.now})
	if err != nil {
		w.t.Fatal(err)
	}
	signer := access.NewSigner(store)
	service := metering.New(ledger.New(store, ledger.Options{}), store, signer, metering.Options{
		AutoRegister: true, ReapInterval: 100 * time.Millisecond, OfflineTickets: 10, Replica: "r",
		Log: func(error, string) {},
	})
	var listener net.Listener
	eventually(w.t, "the port is free again", func() bool {
		listener, err = net.Listen("tcp", w.addr)
		return err == nil
	})
	handler := httpapi.New(httpapi.Options{
		Usage: service, Admissions: service, Tickets: service, Events: service,
		Queue:  queue.New(store),
		Leases: signer, Auth: w.auth(), Database: store.Ping, Log: slog.New(slog.DiscardHandler),
		Registry: prometheus.NewRegistry(),
		Draining: ctx,
	})
	if w.around != nil {
		handler = w.around(handler)
	}
	server := &http.Server{Handler: handler}
	var running sync.WaitGroup
	running.Go(func() { _ = service.Run(ctx) })
	running.Go(func() { _ = server.Serve(listener) })
	w.service, w.addr = service, listener.Addr().String()
	w.kill = sync.OnceFunc(func() {
		_ = server.Close() // cuts what is under way
		cancel()
		running.Wait()
		store.Close()
	})
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.later)
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.later += d
}

// auth lets those with a valid token spend for alice.
func (w *world) auth() *access.Auth {
	return &access.Auth{
		Audiences: authenticator.Audiences{"usaged"},
		Authenticator: authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if !w.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")] {
				return nil, false, errors.New("invalid bearer token")
			}
			who := &user.DefaultInfo{Name: "system:serviceaccount:transcripts:transcriber"}
			return &authenticator.Response{Audiences: authenticator.Audiences{"usaged"}, User: who}, true, nil
		}),
		Authorizer: authorizer.AuthorizerFunc(
			func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
				if a.GetName() == "alice" {
					return authorizer.DecisionAllow, "", nil
				}
				return authorizer.DecisionNoOpinion, "", nil
			}),
	}
}

func (w *world) tokenFile() string { return filepath.Join(w.dir, "token") }

// token writes a token of the pod as the kubelet would, and makes it the only valid one.
func (w *world) token(pod string) {
	w.t.Helper()
	claims := fmt.Sprintf(`{"sub":"transcriber","kubernetes.io":{"pod":{"name":"p","uid":%q}},"n":%d}`, pod,
		time.Now().UnixNano())
	token := "h." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".s"
	w.mu.Lock()
	w.tokens = map[string]bool{token: true}
	w.mu.Unlock()
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
		"--server=http://" + w.addr, "--token-file=" + w.tokenFile(), "--user=alice", "--labels-file=",
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

// standing of alice.
func (w *world) standing(used, reserved quota.Credits, active int32) {
	w.t.Helper()
	usage, err := w.service.Current(w.t.Context(), "alice")
	if err != nil {
		w.t.Fatal(err)
	}
	if a := usage.Account; a.Used != used || a.Reserved != reserved || a.Active != active {
		w.t.Errorf("alice: got used %s, reserved %s, active %d; want %s, %s, %d", a.Used, a.Reserved, a.Active, used,
			reserved, active)
	}
}

// waiting is how many of alice's admissions are queued.
func (w *world) waiting() int32 {
	w.t.Helper()
	usage, err := w.service.Current(w.t.Context(), "alice")
	if err != nil {
		w.t.Fatal(err)
	}
	return usage.Account.Queued
}
