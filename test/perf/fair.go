// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// equals are the users of the team of fair_jain_1000, and the window of its index.
	equals = 1000
	// jainStarts and weightStarts are how many starts are looked at.
	jainStarts   = 4 * equals
	weightStarts = 200 * 18
)

// fairWeights are the weights of the users of fair_weights.
var fairWeights = []int{1, 2, 5, 10}

// gather puts the first users below a team without a plan that has so many slots. What declares teams is not measured.
func (l *lab) gather(ctx context.Context, database string, users, slots int) error {
	return l.on(ctx, database, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, fmt.Sprintf(`WITH team AS (
		    INSERT INTO teams (id, name, cap_currency, concurrent_cap)
		        VALUES (md5('bench-team')::uuid, 'bench', 'USD', %d)
		    RETURNING id)
		INSERT INTO usage_quotas (user_id, currency, anchor_at, period_start, period_end)
		SELECT id, 'USD', month AT TIME ZONE 'UTC', month AT TIME ZONE 'UTC',
		    (month + interval '1 month') AT TIME ZONE 'UTC'
		FROM team, date_trunc('month', now() AT TIME ZONE 'UTC') AS month`, slots))
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, fmt.Sprintf(`UPDATE usage_quotas SET member_of = md5('bench-team')::uuid
		    WHERE user_id IN (SELECT md5('bench-' || n)::uuid FROM generate_series(1, %d) AS n)`, users))
		return err
	})
}

// on connects to a database for as long as do takes.
func (l *lab) on(ctx context.Context, database string, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, l.server.DSN(database))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	return do(conn)
}

// fairJain measures how evenly equal users are served who all have more work than slots.
func (b *bench) fairJain(ctx context.Context) error {
	starts, err := b.contend(ctx, equals, 3, jainStarts, nil)
	if err != nil {
		return err
	}
	worst := 1.0
	for i := 0; i+equals <= len(starts); i++ {
		worst = min(worst, jain(starts[i:i+equals], equals))
	}
	b.report.figure(figure{name: "fair_jain_1000", ours: worst, baseline: 1, ratio: worst, goal: 0.99})
	return nil
}

// jain returns Jain's index of how often each of n users is among the starts: 1 if all are equally often, 1/n if it is
// always the same one.
func jain(starts []int, n int) float64 {
	served := map[int]float64{}
	for _, user := range starts {
		served[user]++
	}
	var sum, squares float64
	for _, s := range served {
		sum += s
		squares += s * s
	}
	return sum * sum / (float64(n) * squares)
}

// fairByWeight measures how far service is from what the weights say.
func (b *bench) fairByWeight(ctx context.Context) error {
	starts, err := b.contend(ctx, len(fairWeights), 60, weightStarts, fairWeights)
	if err != nil {
		return err
	}
	served := map[int]float64{}
	for _, user := range starts {
		served[user]++
	}
	worst := 0.0
	for i, weight := range fairWeights {
		want := float64(len(starts)) * float64(weight) / 18
		worst = max(worst, math.Abs(served[i+1]-want)/want)
	}
	// Less is better: it is met if the goal divided by the error is at least 1.
	b.report.figure(figure{name: "fair_weights", ours: worst, baseline: 0.02, ratio: 0.02 / max(worst, 1e-9), goal: 1})
	return nil
}

// contend has the users of a team wait for its slots, each of them always with something that waits, and returns whose
// work started, in order. weights are those of the users, nil for equal ones.
func (b *bench) contend(ctx context.Context, users, backlog, starts int, weights []int) (order []int, err error) {
	database, err := b.lab.fresh(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.lab.gather(ctx, database, users, slots); err != nil {
		return nil, err
	}
	if err := b.lab.weigh(ctx, database, weights); err != nil {
		return nil, err
	}
	e, stop, err := startEngine(ctx, b.lab.server.DSN(database))
	if err != nil {
		return nil, err
	}
	q := &queue{engine: e, users: users, running: make(chan started, slots)}
	if err := errors.Join(q.fill(ctx, users*backlog), q.turnUntil(ctx, int64(starts)), stop()); err != nil {
		return nil, err
	}
	if order, err = b.lab.starts(ctx, database, starts); err != nil {
		return nil, err
	}
	b.report.progressf("%d starts of %d users below one team", len(order), users)
	return order, errors.Join(b.lab.checkInvariants(ctx, database), b.lab.drop(ctx, database))
}

// weigh gives the first users plans of these weights.
func (l *lab) weigh(ctx context.Context, database string, weights []int) error {
	return l.on(ctx, database, func(conn *pgx.Conn) error {
		for i, weight := range weights {
			if _, err := conn.Exec(ctx, fmt.Sprintf(`WITH plan AS (
			    INSERT INTO user_plan_limits (name, display_name, is_default, credits_limit, file_size_limit,
			        audio_ms_limit,
			        concurrent_limit, queued_limit, provider_cost_micros, daily_cost_ceiling_micros, rate_requests,
			        calendar_month, weight)
			    SELECT 'bench-%[1]d', display_name, false, credits_limit, file_size_limit, audio_ms_limit,
			        concurrent_limit,
			        queued_limit, provider_cost_micros, daily_cost_ceiling_micros, rate_requests, calendar_month, %[1]d
			    FROM user_plan_limits WHERE name = 'bench'),
			told AS (
			    INSERT INTO audit_log (actor, action, object_kind, object_name, user_id, version, before, after)
			    VALUES ('system', 'plan.created', 'UsagePlan', 'bench-%[1]d', NULL, 2, NULL,
			        '{"display_name": "Bench"}'),
			        ('system', 'quota.applied', 'Account', md5('bench-%[2]d')::uuid::text, md5('bench-%[2]d')::uuid, 2,
			            '{"plan": "bench"}', '{"plan": "bench-%[1]d"}'))
			UPDATE usage_quotas SET plan_name = 'bench-%[1]d' WHERE user_id = md5('bench-%[2]d')::uuid`,
				weight, i+1)); err != nil {
				return err
			}
		}
		return nil
	})
}

// starts returns whose work was the first to start after it had waited, in the team's order of decisions.
func (l *lab) starts(ctx context.Context, database string, most int) (order []int, err error) {
	err = l.on(ctx, database, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT substr(u.user_id, 6)::integer FROM concurrent_processing AS c
		    JOIN users AS u ON u.id = c.user_id
		    WHERE c.admitted_at IS NOT NULL AND c.admitted_seq <> c.arrived_seq
		    ORDER BY (c.levels -> 0 ->> 'admitted_seq')::bigint LIMIT $1`, most)
		if err != nil {
			return err
		}
		order, err = pgx.CollectRows(rows, pgx.RowTo[int])
		return err
	})
	return order, err
}

// turnUntil has the queue turn over until so much has been completed.
func (q *queue) turnUntil(ctx context.Context, most int64) error {
	turning, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() {
		for tick := time.NewTicker(10 * time.Millisecond); turning.Err() == nil && q.turned.Load() < most; {
			select {
			case <-tick.C:
			case <-turning.Done():
			}
		}
		cancel()
	})
	err := q.turn(turning)
	cancel()
	group.Wait()
	return err
}
