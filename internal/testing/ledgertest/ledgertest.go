// SPDX-License-Identifier: Apache-2.0

// Package ledgertest gives tests a ledger of their own and holds whatever they do to it against the invariants.
package ledgertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

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
