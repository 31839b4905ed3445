// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/reset"
)

const (
	// A run of the reset writes its row every few seconds; after so much silence it is taken for dead.
	resetSilence = 2 * time.Minute
	// resetRunDays is how long the rows of runs are kept.
	resetRunDays = 400
)

// Periods implements reports.Store.
func (s *Store) Periods(
	ctx context.Context, userID string, before int64, limit int,
) (ledger.Usage, []reports.StoredPeriod, error) {
	var periods []reports.StoredPeriod
	all, err := s.standings(ctx, []string{userID}, func(q *dbsqlc.Queries) error {
		rows, err := q.PeriodsBefore(ctx,
			dbsqlc.PeriodsBeforeParams{UserID: userID, Before: before, Most: int32(limit)})
		periods = make([]reports.StoredPeriod, len(rows))
		for i := range rows {
			periods[i] = reports.StoredPeriod{ClosedPeriod: *periodOf(&rows[i]), Revision: rows[i].Revision}
		}
		return err
	})
	usage, known := all[userID]
	if err == nil && !known {
		err = pgx.ErrNoRows
	}
	if err != nil {
		return ledger.Usage{}, nil, fmt.Errorf("user %q: %w", userID, mapError(err))
	}
	if usage.Unreadable != nil {
		return ledger.Usage{}, nil, usage.Unreadable
	}
	return usage, periods, nil
}

// DueAccounts implements reset.Store.
func (s *Store) DueAccounts(
	ctx context.Context, plan string, until time.Time,
) (accounts int64, oldest time.Time, err error) {
	if until.IsZero() {
		if until, err = s.queries.Clock(ctx, s.now()); err != nil {
			return 0, time.Time{}, mapError(err)
		}
	}
	row, err := s.queries.DueAccounts(ctx, dbsqlc.DueAccountsParams{Plan: plan, Until: until})
	return row.Accounts, row.Oldest.UTC(), mapError(err)
}

// Others implements reset.Store.
func (s *Store) Others(ctx context.Context) (int, error) {
	// Not among the queries, because sqlc does not know the view. Sessions of other roles are counted only where this
	// one may see their state.
	var n int
	err := s.pool.QueryRow(ctx, `SELECT count(*) FROM pg_catalog.pg_stat_activity
		WHERE datname = current_database() AND backend_type = 'client backend' AND state = 'active'
		  AND application_name <> current_setting('application_name') AND pid <> pg_backend_pid()`).Scan(&n)
	return n, mapError(err)
}

// BeginReset implements reset.Store.
func (s *Store) BeginReset(ctx context.Context, run reset.Run) error {
	return s.transaction(ctx, func(_ pgx.Tx, q *dbsqlc.Queries) error {
		return errors.Join(
			q.LoseResetRuns(ctx, dbsqlc.LoseResetRunsParams{PlanName: run.Plan, SilentSeconds: resetSilence.Seconds()}),
			q.PruneResetRuns(ctx, dbsqlc.PruneResetRunsParams{PlanName: run.Plan, Days: resetRunDays}),
			q.SaveResetRun(ctx, resetRunParams(run)))
	})
}

// SaveReset implements reset.Store.
func (s *Store) SaveReset(ctx context.Context, run reset.Run) error {
	return mapError(s.queries.SaveResetRun(ctx, resetRunParams(run)))
}

func resetRunParams(run reset.Run) dbsqlc.SaveResetRunParams {
	return dbsqlc.SaveResetRunParams{
		ID: run.ID, PlanName: run.Plan, Actor: run.Actor, State: string(cmp.Or(run.State, reset.Running)),
		Accounts: run.Accounts, Periods: run.Periods, Failures: run.Failures, Message: run.Message,
	}
}

// LastReset implements reset.Store.
func (s *Store) LastReset(ctx context.Context, plan string) (run *reset.Run, succeeded time.Time, err error) {
	r, err := s.queries.LastResetRun(ctx, plan)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, mapError(err)
	}
	run = &reset.Run{
		ID: r.ID, Plan: r.PlanName, Actor: r.Actor, State: reset.State(r.State),
		StartedAt: r.StartedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), FinishedAt: timeOf(r.FinishedAt),
		Accounts: r.Accounts, Periods: r.Periods, Failures: r.Failures, Message: r.Message,
	}
	succeeded, err = s.queries.LastResetSuccess(ctx, plan)
	if errors.Is(err, pgx.ErrNoRows) {
		return run, time.Time{}, nil
	}
	return run, succeeded.UTC(), mapError(err)
}
