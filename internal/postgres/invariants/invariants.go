// SPDX-License-Identifier: Apache-2.0

// Package invariants finds where the stored ledger contradicts itself.
package invariants

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/postgres"
)

// Violation is one way in which the ledger contradicts itself.
type Violation struct {
	// Invariant is its number in the design, such as "I1".
	Invariant string
	// UserID names the account; empty where no account is concerned.
	UserID string
	// What is wrong, and what was expected and found.
	What, Expected, Found string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s user %q: %s: expected %s, found %s", v.Invariant, v.UserID, v.What, v.Expected, v.Found)
}

// Querier begins transactions: a pool or a connection.
type Querier interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// Option adds to what Check looks at.
type Option func(*options)

type options struct {
	leases, quiet bool
	// now is nil for the database's clock.
	now  *time.Time
	reap time.Duration
}

// WithLeases also checks that nothing outlives its lease by more than reap (I6): the interval of the reaper that runs,
// and what its work may take. Without a reaper that runs there is nothing to hold. A zero now is the database's clock.
func WithLeases(now time.Time, reap time.Duration) Option {
	return func(o *options) {
		o.leases, o.reap = true, reap
		if !now.IsZero() {
			o.now = &now
		}
	}
}

// WithQuiet also checks that nothing waits below a team that could start (I7). That holds once no batch runs or is
// about to.
func WithQuiet() Option { return func(o *options) { o.quiet = true } }

const (
	// mostViolations bounds what one statement reports: a ledger that is broken everywhere is not told in full.
	mostViolations = 1000
	// settings have sorts of a million admissions stay in memory. What an admission holds above its user is kept in
	// lists, of which the planner expects a hundred entries each, so every statement seems worth compiling first: with
	// a few thousand admissions that took seconds of each, and the statements milliseconds.
	settings = "SET LOCAL work_mem = '128MB'; SET LOCAL jit = off"
)

// Check looks for contradictions in the ledger, all in one snapshot, so it can run beside the service. It
// reads each table a few times, whole and in no index's order: time and memory grow with their size, n log n for the
// replays. It reports at most a thousand violations of a kind.
func Check(ctx context.Context, db Querier, opts ...Option) ([]Violation, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	var found []Violation
	readOnly := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, db, readOnly, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, settings); err != nil {
			return err
		}
		for _, c := range slices.Concat(balances, replays, records, audits, order, alerts, rollups) {
			some, err := violations(ctx, tx, c)
			if err != nil {
				return err
			}
			found = append(found, some...)
		}
		some, err := trails(ctx, tx)
		if err != nil {
			return err
		}
		found = append(found, some...)
		if o.quiet {
			if some, err = violations(ctx, tx, idle); err != nil {
				return err
			}
			found = append(found, some...)
		}
		if !o.leases {
			return nil
		}
		some, err = violations(ctx, tx, leases, o.now, o.reap)
		found = append(found, some...)
		return err
	})
	return found, postgres.MapError(err)
}

// violations runs a statement that selects invariant, who, what, expected, found.
func violations(ctx context.Context, tx pgx.Tx, check string, args ...any) ([]Violation, error) {
	sql := fmt.Sprintf(
		"SELECT invariant, coalesce(who, ''), what, coalesce(expected, 'NULL'), coalesce(found, 'NULL') FROM (%s) AS "+
			"v LIMIT %d",
		check, mostViolations)
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Violation])
}
