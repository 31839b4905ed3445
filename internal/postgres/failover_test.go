// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgserver"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// A connection string may name several servers. The store works with the one that is no standby, and finds the one that
// is promoted by itself.
func TestFailover(t *testing.T) {
	t.Parallel()
	primary, err := pgserver.Start(t.Context(), pgserver.Options{Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = primary.Stop() })
	if err := postgres.Migrate(t.Context(), primary.DSN("postgres")); err != nil {
		t.Fatal(err)
	}
	standby, err := primary.Standby(t.Context(), "second", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = standby.Stop() })
	if err := primary.Synchronous(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}
	both, err := url.Parse(standby.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledgerdb.Open(t.Context(), both.String(), postgres.Options{}); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("open a standby alone: got %v, want ErrUnavailable", err)
	}
	both.Host += "," + primary.Addr()
	news := make(chan bool, 100)
	store, err := ledgerdb.Open(t.Context(), both.String(),
		postgres.Options{Reachable: func(up bool, _ error) { news <- up }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	if up := <-news; !up {
		t.Fatal("not reachable at first")
	}
	if err := store.ApplyPlan(t.Context(), plans.Free(), "test"); err != nil {
		t.Fatalf("write, with the standby named first: %v", err)
	}
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	// The first question may still find a connection that has died.
	for told := false; !told; {
		if err := store.Ping(t.Context()); !errors.Is(err, ledger.ErrUnavailable) {
			t.Fatalf("with a standby only: got %v, want ErrUnavailable", err)
		}
		select {
		case up := <-news:
			if told = true; up {
				t.Error("reachable with a standby only")
			}
		default:
		}
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case up := <-news:
		if !up {
			t.Error("told twice that it is away")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the promoted server was not found")
	}
	if _, err := ledgertest.Register(t.Context(), store, "alice", ""); err != nil {
		t.Errorf("write after the promotion: %v", err)
	}
}
