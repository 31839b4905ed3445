// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"context"
	"errors"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/cutproxy"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// remote is a store that reaches its database through a proxy, and what it was told about that.
type remote struct {
	*ledgerdb.Store

	proxy *cutproxy.Proxy
	news  chan bool

	mu    sync.Mutex
	cause error
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	dsn := ledgertest.New(t)
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	r := &remote{news: make(chan bool, 100)}
	if r.proxy, err = cutproxy.Start(u.Host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.proxy.Close() })
	through, err := r.proxy.DSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	r.Store, err = ledgerdb.Open(t.Context(), through,
		postgres.Options{AllowUnsafe: true, Reachable: func(up bool, cause error) {
			r.mu.Lock()
			r.cause = cause
			r.mu.Unlock()
			r.news <- up
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	r.wait(t, true)
	if err := r.ApplyPlan(t.Context(), plans.Free(), "test"); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *remote) wait(t *testing.T, want bool) {
	t.Helper()
	select {
	case up := <-r.news:
		if up != want {
			t.Fatalf("told that the database is reachable: %t, want %t", up, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("not told that the database is reachable: %t", want)
	}
}

func (r *remote) fails(t *testing.T) {
	t.Helper()
	if err := r.Ping(t.Context()); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("Ping = %v, want ErrUnavailable", err)
	}
}

// A server that refuses connections: callers are refused at once, the prober alone looks, and then all is well again.
func TestRefusedConnectionsShutTheGate(t *testing.T) {
	r := newRemote(t)
	r.proxy.Refuse(true)
	r.proxy.CutAll()
	for up := true; up; {
		// A connection that was idle for less than a second is only found broken when it is used.
		r.fails(t)
		select {
		case up = <-r.news:
		default:
		}
	}
	if r.mu.Lock(); r.cause == nil {
		t.Error("the cause was not told")
	}
	r.mu.Unlock()

	tried := r.proxy.Stats().Refused
	began := time.Now()
	const calls = 1000
	for range calls {
		r.fails(t)
	}
	// The prober looks at most 10 times a second at first, and less and less often. Four connections may have been on
	// their way when the gate was shut, and are counted late.
	if more, most := r.proxy.Stats().Refused-tried, 6+int(time.Since(began)/(50*time.Millisecond)); more > most {
		t.Errorf("%d calls made %d attempts to connect, want at most %d", calls, more, most)
	}

	r.proxy.Refuse(false)
	r.wait(t, true)
	if err := r.Ping(t.Context()); err != nil {
		t.Errorf("Ping after the outage: %v", err)
	}
}

// A server that is there and does not answer: what is under way is cut off within seconds, later calls are refused at
// once.
func TestSilenceShutsTheGate(t *testing.T) {
	r := newRemote(t)
	id, err := ledgertest.Register(t.Context(), r, "alice", "")
	if err != nil {
		t.Fatal(err)
	}
	open, err := r.Begin(t.Context(), ledger.Keys{Accounts: []quota.AccountID{id}})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Rollback()

	r.proxy.Stall(true)
	began := time.Now()
	var waiting sync.WaitGroup
	for range 40 {
		waiting.Go(func() {
			// The callers would wait for ever.
			if _, err := r.Lookup(context.Background(), "alice"); !errors.Is(err, ledger.ErrUnavailable) {
				t.Errorf("Lookup = %v, want ErrUnavailable", err)
			}
		})
	}
	waiting.Go(func() {
		if err := open.Commit(context.Background()); !errors.Is(err, ledger.ErrUnknownOutcome) {
			t.Errorf("Commit = %v, want ErrUnknownOutcome", err)
		}
	})
	waiting.Wait()
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("the calls were given up after %s", took)
	}
	r.wait(t, false)
	began = time.Now()
	r.fails(t)
	if took := time.Since(began); took > time.Second {
		t.Errorf("the next call was refused after %s only", took)
	}
	r.proxy.Stall(false)
	r.wait(t, true)
	if _, err := r.Lookup(t.Context(), "alice"); err != nil {
		t.Errorf("Lookup after the outage: %v", err)
	}
}

// One connection that is lost is no outage, and neither is a lock that somebody holds for longer than the prober's
// patience.
func TestTroubleThatIsNoOutage(t *testing.T) {
	r := newRemote(t)
	id, err := ledgertest.Register(t.Context(), r, "alice", "")
	if err != nil {
		t.Fatal(err)
	}
	holder, err := r.Begin(t.Context(), ledger.Keys{Accounts: []quota.AccountID{id}})
	if err != nil {
		t.Fatal(err)
	}
	// It waits until the server gives up for it, which is 5 s.
	_, err = r.Begin(t.Context(), ledger.Keys{Accounts: []quota.AccountID{id}, Wait: true})
	if !errors.Is(err, ledger.ErrRetry) {
		t.Errorf("Begin under a lock = %v, want ErrRetry", err)
	}
	holder.Rollback()
	r.proxy.CutAll()
	eventually(t, func() bool { return r.Ping(t.Context()) == nil })
	select {
	case up := <-r.news:
		t.Errorf("told that the database is reachable: %t", up)
	default:
	}
}

// Not all who need a connection open one at the same instant.
func TestConnectionsAreOpenedFewAtATime(t *testing.T) {
	r := newRemote(t)
	r.Pool().Reset()
	before := r.proxy.Stats().Accepted
	// Every attempt to connect stays under way until it is given up.
	r.proxy.Stall(true)
	var waiting sync.WaitGroup
	for range 40 {
		waiting.Go(func() { r.fails(t) })
	}
	r.wait(t, false)
	// Four, four more when those are given up, and the prober.
	if n := r.proxy.Stats().Accepted - before; n > 9 {
		t.Errorf("%d attempts to connect, want 9 at most", n)
	}
	waiting.Wait()
	r.proxy.Stall(false)
	r.wait(t, true)
	for range 40 {
		waiting.Go(func() {
			if err := r.Ping(t.Context()); err != nil {
				t.Errorf("Ping after the outage: %v", err)
			}
		})
	}
	waiting.Wait()
}

func eventually(t *testing.T, what func() bool) {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !what() {
		select {
		case <-deadline:
			t.Fatal("it did not come to that")
		case <-tick.C:
		}
	}
}
