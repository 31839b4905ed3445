// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/postgres"
)

const (
	boundaryDatabase = "bench_boundary"
	// boundaries is how many months' ends are measured, and nights with a reset; the figures are the medians.
	boundaries = 3
)

// measureBoundary compares admissions right after the instant at which the periods of all accounts end at once, as
// those of a calendar-month plan do, with the same load on the same accounts in the middle of their periods. No reset
// helps: each account is rolled by the first call that touches it.
func (b *bench) measureBoundary(ctx context.Context) (err error) {
	accounts := b.opts.accounts
	b.report.progressf("a database of %d accounts whose periods end at once", accounts)
	if err := b.lab.exec(ctx, "CREATE DATABASE "+boundaryDatabase); err != nil {
		return err
	}
	n := &night{bench: b, dsn: b.lab.server.DSN(boundaryDatabase)}
	if err := postgres.Migrate(ctx, n.dsn); err != nil {
		return err
	}
	if err := n.exec(ctx, boundarySeed(accounts)...); err != nil {
		return err
	}
	e, stop, err := startEngineAt(ctx, n.dsn, n.now)
	if err != nil {
		return err
	}
	var quietRate, afterRate, quietP99, afterP99 []result
	l := b.load(many, uniform)
	l.users = accounts
	right := l
	right.warmup = 0 // what comes right after the instant is what is measured
	books := &books{}
	measure := func(what string, l load, into *[]result) {
		if err != nil {
			return
		}
		var r result
		if r, err = n.try(ctx, what, e, l, books); err == nil {
			*into = append(*into, r)
		}
	}
	for range boundaries {
		measure("engine, quiet", l, &quietRate)
		n.next()
		measure("engine, right after the boundary", right, &afterRate)
		if err != nil {
			break
		}
		l.rate = quietRate[len(quietRate)-1].perSecond / 2
		right.rate = l.rate
		// Whatever the trial before has not rolled.
		if _, err = n.reset(ctx, -1); err != nil {
			break
		}
		measure("engine, open loop, quiet", l, &quietP99)
		n.next()
		measure("engine, open loop, right after the boundary", right, &afterP99)
		if err == nil {
			_, err = n.reset(ctx, -1)
		}
		l.rate, right.rate = 0, 0
	}
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	b.report.rate("month_boundary_rate", medianRate(afterRate), medianRate(quietRate), 0.5)
	b.report.latency("month_boundary_p99", medianP99(afterP99), medianP99(quietP99), 1.0/3)
	if err := b.lab.verify(ctx, boundaryDatabase, books); err != nil {
		return err
	}
	if err := b.lab.checkInvariants(ctx, boundaryDatabase); err != nil {
		return err
	}
	b.report.progressf("boundary: all %d acknowledged pairs are in the database, and the invariants hold", books.pairs)
	return b.lab.drop(ctx, boundaryDatabase)
}

func medianRate(rs []result) result {
	slices.SortFunc(rs, func(x, y result) int { return int(x.perSecond - y.perSecond) })
	return rs[len(rs)/2]
}

func medianP99(rs []result) time.Duration {
	slices.SortFunc(rs, func(x, y result) int { return int(x.p99 - y.p99) })
	return rs[len(rs)/2].p99
}

func boundarySeed(accounts int) []string {
	return []string{
		"SET session_replication_role = replica; SET synchronous_commit = off",
		benchPlan(true),
		benchUsers(accounts),
		`INSERT INTO usage_quotas (user_id, plan_name, currency, anchor_at, period_start, period_end,
		    last_decided_at)
		 SELECT id, 'bench', 'USD', month AT TIME ZONE 'UTC', month AT TIME ZONE 'UTC', (month
		     + interval '1 month') AT TIME ZONE 'UTC', month AT TIME ZONE 'UTC'
		 FROM users, date_trunc('month', now() AT TIME ZONE 'UTC') AS month`,
		benchRegistered,
		vacuumAnalyze,
	}
}

// benchPlan has limits that are checked but never reached, and its audit row.
func benchPlan(calendarMonth bool) string {
	return fmt.Sprintf(`WITH told AS (
	    INSERT INTO audit_log (actor, action, object_kind, object_name, version, after)
	    VALUES ('system', 'plan.created', 'UsagePlan', 'bench', 2, '{"display_name": "Bench"}'))
	INSERT INTO user_plan_limits (name, display_name, is_default, credits_limit, file_size_limit, audio_ms_limit,
	    concurrent_limit, queued_limit, provider_cost_micros, daily_cost_ceiling_micros, rate_requests, calendar_month)
	VALUES ('bench', 'Bench', true, 600000000000, 26214400, 86400000, 10000, 100, 6000, 900000000000000, 2147483647,
	    %t)`, calendarMonth)
}

// benchUsers have ids that follow from their numbers.
func benchUsers(n int) string {
	return fmt.Sprintf(`INSERT INTO users (id, user_id) SELECT md5('bench-' || n)::uuid, 'user-' || n FROM
	    generate_series(1, %d) AS n`, n)
}

const benchRegistered = `INSERT INTO audit_log (actor, action, object_kind, object_name, user_id, version, after)
	SELECT 'system', 'account.registered', 'Account', user_id::text, user_id, 2, jsonb_build_object('quota_uid', null,
	    'plan', plan_name,
	    'suspended', false, 'anchor', to_char(anchor_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
	    'time_zone', time_zone, 'overrides', jsonb_build_object())
	FROM usage_quotas`
