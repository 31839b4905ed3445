// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/reset"
)

const (
	resetDatabase = "bench_reset"
	closedPeriods = 12
	// resetUsers are those of the accounts that are used while a reset goes on.
	resetUsers = 10_000
)

// night is a database of accounts with a year of closed periods behind them, and the clock of everything that uses it.
type night struct {
	*bench

	dsn    string
	offset atomic.Int64
	months int
}

// now is the present of the bench: the machine's clock, moved to the night that is played.
func (n *night) now() time.Time { return time.Now().Add(time.Duration(n.offset.Load())) }

// next moves the clock to the first instant of the next month, when the periods of all accounts have ended that have
// not been closed since the last time.
func (n *night) next() {
	n.months++
	today := time.Now().UTC()
	to := time.Date(today.Year(), today.Month()+time.Month(n.months), 1, 0, 0, 0, 0, time.UTC)
	n.offset.Store(int64(time.Until(to)))
}

func (b *bench) newNight(ctx context.Context, accounts int) (*night, error) {
	if err := b.lab.exec(ctx, "CREATE DATABASE "+resetDatabase); err != nil {
		return nil, err
	}
	n := &night{bench: b, dsn: b.lab.server.DSN(resetDatabase)}
	if err := postgres.Migrate(ctx, n.dsn); err != nil {
		return nil, err
	}
	return n, n.exec(ctx, resetSeed(accounts)...)
}

// resetSeed makes accounts whose anniversaries are spread over the month, each with a year of closed periods: not over
// its first day, because a reset that begins with the month would close two periods of those whose next one ends while
// it runs. Nothing checks the references that these statements make, so that a million accounts take minutes.
func resetSeed(accounts int) []string {
	return []string{
		"SET session_replication_role = replica; SET synchronous_commit = off",
		// Sorted once instead of filled at random.
		"ALTER TABLE usage_periods DROP CONSTRAINT usage_periods_pkey",
		"DROP INDEX audit_log_object_idx; DROP INDEX audit_log_user_idx",
		benchPlan(false),
		benchUsers(accounts),
		fmt.Sprintf(`INSERT INTO usage_quotas (user_id, plan_name, currency, anchor_at, period_no, period_start,
		    period_end, last_decided_at)
		 SELECT id, 'bench', 'USD', at AT TIME ZONE 'UTC', %[1]d, (at + interval '%[1]d months') AT TIME ZONE 'UTC',
		     (at + interval '%[2]d months') AT TIME ZONE 'UTC', (at + interval '%[1]d months') AT TIME ZONE 'UTC'
		 FROM users, LATERAL (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') - interval '%[2]d months'
		     + interval '1 day' + (hashtext(user_id) & 65535) / 65536.0 * interval '26 days' AS at) AS a`,
			closedPeriods, closedPeriods+1),
		fmt.Sprintf(`INSERT INTO usage_periods (user_id, period_no, period_start, period_end, used, reserved,
		    plan_used, plan_reserved,
		     cost_micros, charged_micros, plan_name, plan_version, plan_credits, carry_over, carry_over_max, closed_at)
		 SELECT user_id, n, anchor_at + n * interval '1 month', anchor_at + (n + 1) * interval '1 month', 0, 0, 0, 0,
		     0, 0, 'bench', 1,
		     600000000000, 0, 0, anchor_at + (n + 1) * interval '1 month'
		 FROM usage_quotas, generate_series(0, %d) AS n`, closedPeriods-1),
		benchRegistered,
		`INSERT INTO audit_log (at, actor, action, object_kind, object_name, user_id, version, after)
		 SELECT closed_at, 'system', 'period.closed', 'Account', user_id::text, user_id, 2,
		     jsonb_build_object('period_no', period_no, 'start', period_start, 'end', period_end)
		 FROM usage_periods`,
		"ALTER TABLE usage_periods ADD PRIMARY KEY (user_id, period_no)",
		"CREATE INDEX audit_log_object_idx ON audit_log (object_kind, object_name, id)",
		"CREATE INDEX audit_log_user_idx ON audit_log (user_id, id) WHERE user_id IS NOT NULL",
		vacuumAnalyze,
	}
}

// exec runs statements one after the other on one connection.
func (n *night) exec(ctx context.Context, statements ...string) error {
	return execAll(ctx, n.dsn, statements)
}

// bareReset is one statement that writes the rows that a reset writes: the closed period, its audit row and the
// account.
const bareReset = `WITH due AS (
    SELECT a.*, p.version, p.credits_limit, p.carry_over_max, p.final_after_seconds, p.overage_price_micros,
        ((a.anchor_at AT TIME ZONE 'UTC') + (a.period_no + 2) * interval '1 month') AT TIME ZONE 'UTC' AS next_end
    FROM usage_quotas AS a JOIN user_plan_limits AS p ON p.name = a.plan_name
    WHERE a.plan_name = 'bench' AND a.period_end <= $1
), closed AS (
    INSERT INTO usage_periods (user_id, period_no, period_start, period_end, used, reserved, plan_used, plan_reserved,
        cost_micros, charged_micros, plan_name, plan_version, plan_credits, carry_over, carry_over_max, closed_at,
        final_after_seconds, currency, overage_price_micros)
    SELECT user_id, period_no, period_start, period_end, used, reserved, plan_used, plan_reserved, cost_micros,
        charged_micros,
        plan_name, version, credits_limit, 0, carry_over_max, $1, final_after_seconds, currency,
        overage_price_micros
    FROM due
), told AS (
    INSERT INTO audit_log (at, actor, action, object_kind, object_name, user_id, version, after)
    SELECT $1, 'system', 'period.closed', 'Account', user_id::text, user_id, 2,
        jsonb_build_object('period_no', period_no, 'start', period_start, 'end', period_end)
    FROM due
)
UPDATE usage_quotas AS a SET period_no = a.period_no + 1, period_start = a.period_end, period_end = due.next_end, used
    = 0,
    reserved = 0, plan_used = 0, plan_reserved = 0, cost_micros = 0, charged_micros = 0, last_decided_at = $1
FROM due WHERE a.user_id = due.user_id`

// bare closes the night's periods by the bare statement.
func (n *night) bare(ctx context.Context, accounts int) (time.Duration, error) {
	conn, err := pgx.Connect(ctx, n.dsn)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(ctx) }()
	started := time.Now()
	tag, err := conn.Exec(ctx, bareReset, n.now())
	took := time.Since(started)
	if err == nil && tag.RowsAffected() != int64(accounts) {
		err = fmt.Errorf("the bare statement closed the periods of %d accounts, want %d", tag.RowsAffected(), accounts)
	}
	n.report.progressf("one bare statement closes the periods of %d accounts in %.1f s", tag.RowsAffected(),
		took.Seconds())
	return took, err
}

// reset closes the night's periods by the product's reset, as `usage-batch reset` does. It fails unless it closes those
// of as many accounts as given, if that is not negative.
func (n *night) reset(ctx context.Context, accounts int) (time.Duration, error) {
	store, err := ledgerdb.Open(ctx, n.dsn, postgres.Options{Now: n.now, Name: "usage-batch reset"})
	if err != nil {
		return 0, err
	}
	defer store.Close()
	service := reset.New(ledger.New(store, ledger.Options{}), store, nil)
	var memory runtime.MemStats
	var early, late uint64
	started := time.Now()
	res, err := service.Run(ctx, reset.Options{Plan: "bench", Actor: "bench", Progress: func(r reset.Result) {
		runtime.ReadMemStats(&memory)
		if r.Seen < r.Due/2 {
			early = max(early, memory.HeapInuse)
		} else {
			late = max(late, memory.HeapInuse)
		}
	}})
	took := time.Since(started)
	if err == nil && accounts >= 0 && res.Accounts != int64(accounts) {
		err = fmt.Errorf("the reset closed the periods of %d accounts, want %d", res.Accounts, accounts)
	}
	n.report.progressf(
		"the reset closes the periods of %d accounts in %.1f s; the heap has at most %d MiB in its first half, %d "+
			"MiB in its second",
		res.Accounts, took.Seconds(), early>>20, late>>20)
	return took, err
}

// measureResets compares the reset with a bare statement, and admissions during it with those of a quiet night.
func (b *bench) measureResets(ctx context.Context) error {
	accounts := b.opts.accounts
	b.report.progressf("a database of %d accounts with %d closed periods each", accounts, closedPeriods)
	n, err := b.newNight(ctx, accounts)
	if err != nil {
		return err
	}
	// Each statement leaves the tables larger than it found them: the bare one is measured before and after ours.
	var times [3]time.Duration
	for i, closeAll := range []func(context.Context, int) (time.Duration, error){n.bare, n.reset, n.bare} {
		if err := errors.Join(n.exec(ctx, vacuumAnalyze), b.lab.exec(ctx, "CHECKPOINT")); err != nil {
			return err
		}
		n.next()
		if times[i], err = closeAll(ctx, accounts); err != nil {
			return err
		}
	}
	b.report.latency("reset_1m", times[1], (times[0]+times[2])/2, 0.5)
	if err := n.admitDuringReset(ctx, accounts); err != nil {
		return err
	}
	if err := b.lab.checkInvariants(ctx, resetDatabase); err != nil {
		return err
	}
	b.report.progressf("resets: every period was closed once, and the invariants hold")
	return b.lab.drop(ctx, resetDatabase)
}

// admitDuringReset has the same load on the engine in a night without a reset, and in one in which it goes on all the
// time. In both the periods of those who are used have ended, and are closed by their first calls.
func (n *night) admitDuringReset(ctx context.Context, accounts int) error {
	e, stop, err := startEngineAt(ctx, n.dsn, n.now)
	if err != nil {
		return err
	}
	l := n.load(many, uniform)
	l.users = min(accounts, resetUsers)
	books := &books{}
	most, err := n.try(ctx, "engine, before the resets", e, l, books)
	if err != nil {
		return errors.Join(err, stop())
	}
	l.rate = most.perSecond / 4
	var quiet, during []result
	for range boundaries {
		if err := n.oneReset(ctx, e, l, books, &quiet, &during); err != nil {
			return errors.Join(err, stop())
		}
	}
	if err := stop(); err != nil {
		return err
	}
	n.report.latency("reset_admission_p99_ms", medianP99(during), medianP99(quiet), 1/1.5)
	return nil
}

func (n *night) oneReset(ctx context.Context, e *engine, l load, books *books, quiet, during *[]result) error {
	n.next()
	r, err := n.try(ctx, "engine, open loop, a night without a reset", e, l, books)
	if err != nil {
		return err
	}
	*quiet = append(*quiet, r)
	n.next()
	resetting, enough := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		// Those who are used meanwhile close their own periods.
		_, err := n.reset(resetting, -1)
		done <- err
	}()
	r, err = n.try(ctx, "engine, open loop, during a reset", e, l, books)
	enough()
	*during = append(*during, r)
	if reset := <-done; !errors.Is(reset, context.Canceled) {
		return errors.Join(err, reset)
	}
	n.report.progressf("the reset went on for the whole time")
	return err
}
