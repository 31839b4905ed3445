// SPDX-License-Identifier: Apache-2.0

// Package usagedtest serves the HTTP API over a database of the test's own, for tests of what calls it.
package usagedtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
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
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// patience bounds every wait.
const patience = time.Minute

// Usaged is the service, which can be killed and started again on its port. When the test ends, the ledger is checked
// against the invariants.
type Usaged struct {
	// Addr is where it listens, on the loopback interface.
	Addr string
	// Service is what it serves, since the last start.
	Service *metering.Service
	// Database is the way to it, which can be cut.
	Database *cutproxy.Proxy
	// Around is put around the handler by the next start.
	Around func(http.Handler) http.Handler

	t    testing.TB
	dsn  string
	kill func()

	mu     sync.Mutex
	tokens map[string]bool
	later  time.Duration
}

// New serves. Users are registered at first use on a free plan of 30 credits, one slot and a queue of ten, which lets
// work start while the database is away. Callers with an accepted token may spend for alice.
func New(tb testing.TB, tokens ...string) *Usaged {
	tb.Helper()
	u := &Usaged{t: tb, Addr: "127.0.0.1:0"}
	u.Accept(tokens...)
	dsn := ledgertest.New(tb)
	server, err := url.Parse(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	if u.Database, err = cutproxy.Start(server.Host); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = u.Database.Close() })
	if u.dsn, err = u.Database.DSN(dsn); err != nil {
		tb.Fatal(err)
	}
	u.Start()
	tb.Cleanup(func() { u.Kill() })
	free := plans.Free(func(p *metering.Plan) {
		p.Limits.Queued, p.AdmitWhenUnavailable = quota.AtMost[int32](10), true
	})
	if _, err := u.Service.ApplyPlan(tb.Context(), free, "test"); err != nil {
		tb.Fatal(err)
	}
	return u
}

// URL is where it is reached.
func (u *Usaged) URL() string { return "http://" + u.Addr }

// Accept makes these bearer tokens the only valid ones.
func (u *Usaged) Accept(tokens ...string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tokens = map[string]bool{}
	for _, token := range tokens {
		u.tokens[token] = true
	}
}

// Advance puts the database's clock ahead.
func (u *Usaged) Advance(d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.later += d
}

func (u *Usaged) now() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return time.Now().Add(u.later)
}

// Start serves, on the port that was served before.
func (u *Usaged) Start() {
	u.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	store, err := ledgerdb.Open(ctx, u.dsn, postgres.Options{AllowUnsafe: true, Now: u.now})
	if err != nil {
		u.t.Fatal(err)
	}
	signer := access.NewSigner(store)
	service := metering.New(ledger.New(store, ledger.Options{}), store, signer, metering.Options{
		AutoRegister: true, ReapInterval: 100 * time.Millisecond, OfflineTickets: 10, Replica: "r",
		Log: func(error, string) {},
	})
	listener, err := net.Listen("tcp", u.Addr)
	for deadline := time.Now().Add(patience); err != nil; listener, err = net.Listen("tcp", u.Addr) {
		if time.Now().After(deadline) {
			u.t.Fatalf("the port is not free after %s: %v", patience, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	watcher := metering.NewWatcher(service, httpapi.Shown())
	handler := httpapi.New(httpapi.Options{
		Watch: func(of quota.Level) httpapi.Watching { return watcher.Watch(of) },
		Usage: service, Admissions: service, Tickets: service, Events: service,
		Queue:  queue.New(store),
		Leases: signer, Auth: u.auth(), Database: store.Ping, Log: slog.New(slog.DiscardHandler),
		Registry: prometheus.NewRegistry(),
		Draining: ctx,
	})
	if u.Around != nil {
		handler = u.Around(handler)
	}
	server := &http.Server{Handler: handler} //nolint:gosec // only the test calls
	var running sync.WaitGroup
	running.Go(func() { _ = service.Run(ctx) })
	running.Go(func() { watcher.Run(ctx) })
	running.Go(func() { _ = server.Serve(listener) })
	u.Service, u.Addr = service, listener.Addr().String()
	u.kill = sync.OnceFunc(func() {
		_ = server.Close() // cuts what is under way
		cancel()
		running.Wait()
		store.Close()
	})
}

// Kill ends it at once, with all that is under way.
func (u *Usaged) Kill() { u.kill() }

func (u *Usaged) auth() *access.Auth {
	return &access.Auth{
		Audiences: authenticator.Audiences{"usaged"},
		Authenticator: authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
			u.mu.Lock()
			defer u.mu.Unlock()
			if !u.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")] {
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

// Standing checks where alice stands.
func (u *Usaged) Standing(used, reserved quota.Credits, active int32) {
	u.t.Helper()
	usage, err := u.Service.Current(u.t.Context(), "alice")
	if err != nil {
		u.t.Fatal(err)
	}
	if a := usage.Account; a.Used != used || a.Reserved != reserved || a.Active != active {
		u.t.Errorf("alice: got used %s, reserved %s, active %d; want %s, %s, %d", a.Used, a.Reserved, a.Active, used,
			reserved, active)
	}
}

// Waiting is how many of alice's admissions are queued.
func (u *Usaged) Waiting() int32 {
	u.t.Helper()
	usage, err := u.Service.Current(u.t.Context(), "alice")
	if err != nil {
		u.t.Fatal(err)
	}
	return usage.Account.Queued
}

// Example is New for an example, which has no test: what goes wrong is a panic. Whoever calls it must call end.
func Example(tokens ...string) (u *Usaged, end func()) {
	t := &example{}
	return New(t, tokens...), t.end
}

// example is as much of a test as New and what it calls need.
type example struct {
	testing.TB

	ends []func()
}

func (e *example) Helper()                        {}
func (e *example) Context() context.Context       { return context.Background() }
func (e *example) Cleanup(f func())               { e.ends = append(e.ends, f) }
func (e *example) Error(args ...any)              { panic(fmt.Sprint(args...)) }
func (e *example) Errorf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }
func (e *example) Fatal(args ...any)              { panic(fmt.Sprint(args...)) }
func (e *example) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

func (e *example) end() {
	for _, f := range slices.Backward(e.ends) {
		f()
	}
}
