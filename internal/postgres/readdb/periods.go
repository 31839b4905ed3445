// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/reset"
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
			p, wrong := PeriodOf(&rows[i])
			err = errors.Join(err, wrong)
			periods[i] = reports.StoredPeriod{ClosedPeriod: *p, Revision: rows[i].Revision}
		}
		return err
	})
	usage, known := all[userID]
	if err == nil && !known {
		err = pgx.ErrNoRows
	}
	if err != nil {
		return ledger.Usage{}, nil, fmt.Errorf("user %q: %w", userID, postgres.MapError(err))
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
		if until, err = s.Queries().Clock(ctx, s.Now()); err != nil {
			return 0, time.Time{}, postgres.MapError(err)
		}
	}
	row, err := s.Queries().DueAccounts(ctx, dbsqlc.DueAccountsParams{Plan: &plan, Until: until})
	return row.Accounts, row.Oldest.UTC(), postgres.MapError(err)
}

// Others implements reset.Store.
func (s *Store) Others(ctx context.Context) (int, error) {
	// Not among the queries, because sqlc does not know the view. Sessions of other roles are counted only where this
	// one may see their state.
	var n int
	err := s.Pool().QueryRow(ctx, `SELECT count(*) FROM pg_catalog.pg_stat_activity
		WHERE datname = current_database() AND backend_type = 'client backend' AND state = 'active'
		  AND application_name <> current_setting('application_name') AND pid <> pg_backend_pid()`).Scan(&n)
	return n, postgres.MapError(err)
}

// LastReset implements reset.Store.
func (s *Store) LastReset(ctx context.Context, plan string) (run *reset.Run, succeeded time.Time, err error) {
	r, err := s.Queries().LastResetRun(ctx, plan)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, postgres.MapError(err)
	}
	run = &reset.Run{
		ID: r.ID, Plan: r.PlanName, Actor: r.Actor, State: reset.State(r.State),
		StartedAt: r.StartedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), FinishedAt: timeOf(r.FinishedAt),
		Accounts: r.Accounts, Periods: r.Periods, Failures: r.Failures, Message: r.Message,
	}
	succeeded, err = s.Queries().LastResetSuccess(ctx, plan)
	if errors.Is(err, pgx.ErrNoRows) {
		return run, time.Time{}, nil
	}
	return run, succeeded.UTC(), postgres.MapError(err)
}

// overdueBy returns, plan by plan, the instant up to which a period must have ended to be overdue at now. A plan whose
// schedule somebody wrote past all checks is missing: it has no runs that could be overdue.
func (s *Store) overdueBy(ctx context.Context, now time.Time) (plans []string, by []time.Time, err error) {
	all, err := s.Plans(ctx)
	for _, p := range all {
		if at, err := reset.OverdueBy(p.ResetSchedule, now); err == nil {
			plans, by = append(plans, p.Name), append(by, at)
		}
	}
	return plans, by, err
}

// Resets implements reports.ResetStore.
func (s *Store) Resets(
	ctx context.Context, f reports.ResetFilter, behind reports.Place, limit int,
) ([]reports.Reset, time.Time, error) {
	now, err := s.Queries().Clock(ctx, s.Now())
	if err != nil {
		return nil, time.Time{}, postgres.MapError(err)
	}
	p := dbsqlc.ListResetsParams{
		Scope: "all", Plan: f.Plan, AfterEnd: behind.At, After: behind.ID, Until: now, Most: int32(limit),
	}
	switch {
	case f.Coming:
		p.Until = endOfTime
		if behind == (reports.Place{}) {
			p.AfterEnd, p.After = now, lastID
		}
	case f.Overdue:
		p.Overdue = true
		if p.Plans, p.OverdueBy, err = s.overdueBy(ctx, now); err != nil {
			return nil, time.Time{}, err
		}
	}
	switch {
	case f.UserID != "":
		p.Scope = "account"
		if p.Account, err = s.known(ctx, f.UserID); err != nil {
			return nil, time.Time{}, err
		}
	case f.Team != "":
		p.Scope = "team"
		if p.Account, err = s.teamID(ctx, f.Team); err != nil {
			return nil, time.Time{}, err
		}
	}
	rows, err := s.Queries().ListResets(ctx, p)
	out := make([]reports.Reset, len(rows))
	for i := range rows {
		r := &rows[i]
		of := quota.Level{Kind: quota.LevelUser, Name: r.Name}
		if r.IsTeam {
			of.Kind = quota.LevelTeam
		}
		out[i] = reports.Reset{
			Account: r.Account, Level: of, Plan: r.PlanName, Team: r.Team, No: r.PeriodNo,
			Period: quota.Period{Start: r.PeriodStart.UTC(), End: r.PeriodEnd.UTC()}, Used: quota.Credits(r.Used),
		}
	}
	return out, now.UTC(), postgres.MapError(err)
}

// ResetRuns implements reports.ResetStore.
func (s *Store) ResetRuns(
	ctx context.Context, plan string, before reports.Place, limit int,
) ([]reports.ResetRun, error) {
	if before.At.IsZero() {
		before.At = endOfTime
	}
	rows, err := s.Queries().ListResetRuns(ctx, dbsqlc.ListResetRunsParams{
		Plan: plan, BeforeStart: before.At, Before: before.ID, Most: int32(limit),
	})
	out := make([]reports.ResetRun, len(rows))
	for i := range rows {
		r := &rows[i]
		out[i] = reports.ResetRun{
			ID: r.ID, Plan: r.PlanName, Actor: r.Actor, State: r.State, StartedAt: r.StartedAt.UTC(),
			UpdatedAt: r.UpdatedAt.UTC(), FinishedAt: timeOf(r.FinishedAt), Accounts: r.Accounts, Periods: r.Periods,
			Failures: r.Failures, Message: r.Message,
		}
	}
	return out, postgres.MapError(err)
}
