// SPDX-License-Identifier: Apache-2.0

// Package ledgertest gives tests a ledger of their own and holds whatever they do to it against the invariants.
package ledgertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/invariants"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/rollupdb"
	"github.com/cantonesescribe/usage-operator/internal/rollup"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
)

// checkTimeout bounds the check that runs after a test, whose own context is cancelled by then.
const checkTimeout = time.Minute

// New returns the DSN of a migrated database of the test's own, as pgtest.New does. When the test ends its ledger is
// checked, and each violation of an invariant is an error of the test. What is left is rolled up before: so each test
// that books something is one of the rollup as well.
func New(tb testing.TB) string {
	tb.Helper()
	dsn := pgtest.New(tb, postgres.Migrate)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
		defer cancel()
		RollUp(ctx, tb, dsn)
		Check(ctx, tb, dsn)
	})
	return dsn
}

// Store is one that tests open: *ledgerdb.Store.
type Store interface {
	Close()
	Pool() *pgxpool.Pool
}

// Close closes the store when the test ends. Where a test that fails has left a batch open, the store would wait for
// its connection for ever, and nobody would see what failed: then the test says, after a minute, what is still open.
func Close(tb testing.TB, store Store) {
	tb.Helper()
	tb.Cleanup(func() {
		closed := make(chan struct{})
		go func() {
			store.Close()
			close(closed)
		}()
		select {
		case <-closed:
		case <-time.After(time.Minute):
			of := store.Pool().Stat()
			tb.Errorf("after a minute the pool is not closed: %d connections, %d acquired, %d idle, %d being made",
				of.TotalConns(), of.AcquiredConns(), of.IdleConns(), of.ConstructingConns())
		}
	})
}

// RollUp brings the sums of all accounts in the database up to date, but for those that a test has broken on purpose,
// so that nothing can be made of them.
func RollUp(ctx context.Context, tb testing.TB, dsn string) {
	tb.Helper()
	db, err := postgres.Open(ctx, dsn, postgres.Options{AllowUnsafe: true, Name: "rollup"})
	if err != nil {
		tb.Errorf("roll up the ledger: %v", err)
		return
	}
	defer db.Close()
	store := rollupdb.New(readdb.New(db))
	if _, err := rollup.Run(ctx, store, rollup.Options{FullSpeed: true, RetryFor: checkTimeout}); err != nil &&
		!errors.Is(err, rollup.ErrAccountsFailed) {
		tb.Errorf("roll up the ledger: %v", err)
	}
}

// Check reports each violation of an invariant in the database as an error of the test.
func Check(ctx context.Context, tb testing.TB, dsn string) {
	tb.Helper()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		tb.Errorf("check the ledger: %v", err)
		return
	}
	violations, err := invariants.Check(ctx, conn)
	if err != nil {
		tb.Errorf("check the ledger: %v", err)
	}
	for _, v := range violations {
		tb.Error(v)
	}
	if err := conn.Close(ctx); err != nil {
		tb.Errorf("check the ledger: %v", err)
	}
}
