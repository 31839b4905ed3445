// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/rollupdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/rollup"
)

const (
	// analyticsDays is over how many days the rows are spread.
	analyticsDays = 90
	// analyticsBudget is what a page may take.
	analyticsBudget = 50 * time.Millisecond
	// userReads and allReads are how often each page is read: of another user or team each time, and of all users.
	userReads = 200
	allReads  = 40
)

// seedAnalytics makes the sums that accounts have after so many events, each in an hour of its own, as a rollup would
// have, and three periods before the open one. The first tenth of the users are in one team, which pays; of the others
// every second one is in a team of a hundred. The events themselves are not made: no page reads them, so there would be
// an answer missing if one did. A million accounts with ten million events take minutes.
func seedAnalytics(ctx context.Context, dsn string, accounts, events int) (err error) {
	each := max(1, events/accounts)
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := execIn(ctx, conn, []string{
		// Nothing checks the references that these statements make, and nobody waits for the log.
		"SET synchronous_commit = off; SET session_replication_role = replica; SET work_mem = '512MB'",
		"DELETE FROM usage_quotas", "DELETE FROM users",
		benchUsers(accounts),
		fmt.Sprintf(`INSERT INTO teams (id, name, cap_currency)
		 SELECT md5('team-' || n)::uuid, 'team-' || n, 'USD' FROM generate_series(0, %d) AS n`, smallTeams(accounts)),
		fmt.Sprintf(`INSERT INTO usage_quotas (user_id, plan_name, currency, anchor_at, period_start, period_end,
		    period_no, seq, last_decided_at, member_of, parent_id)
		 SELECT a.id, 'bench', 'USD', month AT TIME ZONE 'UTC', month AT TIME ZONE 'UTC',
		    (month + interval '1 month') AT TIME ZONE 'UTC', 3, %[2]d, now(), a.team, a.team
		 FROM (
		    SELECT id, CASE WHEN n <= %[1]d THEN md5('team-0')::uuid
		        WHEN n %% 2 = 0 THEN md5('team-' || (n - %[1]d + 199) / 200)::uuid END AS team
		    FROM (SELECT id, substr(user_id, 6)::integer AS n FROM users) AS u
		    UNION ALL SELECT id, NULL FROM teams ORDER BY id) AS a,
		    date_trunc('month', now() AT TIME ZONE 'UTC') AS month`, accounts/10, 2*each),
		`INSERT INTO usage_rollups (user_id, seq, decided_at, listed_seq, time_zone, as_of)
		 SELECT a.user_id, a.seq, a.last_decided_at, a.seq, a.time_zone, now()
		 FROM usage_quotas AS a JOIN users AS u ON u.id = a.user_id ORDER BY a.user_id`,
		// The hours in which users used something.
		fmt.Sprintf(`CREATE TEMPORARY VIEW hours AS SELECT a.user_id, a.payer, a.n %% %[1]d = a.i AS refused,
		    date_trunc('hour', now(), 'UTC') - (a.n * 7 + a.i * %[2]d) %% %[3]d * interval '1 hour' AS at
		 FROM (SELECT v.*, generate_series(0, %[1]d - 1) AS i
		    FROM (SELECT q.user_id, coalesce(q.member_of, q.user_id) AS payer,
		            row_number() OVER (ORDER BY q.user_id) AS n
		        FROM usage_quotas AS q JOIN users AS u ON u.id = q.user_id ORDER BY q.user_id) AS v) AS a`,
			each, max(1, analyticsDays*24/each), analyticsDays*24),
	}); err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		behind, err := emptied(ctx, tx, "usage_periods", "usage_analytics", "usage_months", "usage_refusals")
		if err != nil {
			return err
		}
		return execIn(ctx, tx, append([]string{
			`INSERT INTO usage_periods (user_id, period_no, period_start, period_end, used, reserved, plan_used,
			    plan_reserved, cost_micros, charged_micros, plan_name, plan_version, plan_credits, carry_over,
			    carry_over_max, closed_at, currency)
			 SELECT a.user_id, n, (month - (3 - n) * interval '1 month') AT TIME ZONE 'UTC',
			    (month - (2 - n) * interval '1 month') AT TIME ZONE 'UTC', 240000, 0, 240000, 0, 24000, 0, 'bench', 1,
			    600000000000, 0, 0, now(), 'USD'
			 FROM usage_quotas AS a, generate_series(0, 2) AS n,
			    date_trunc('month', now() AT TIME ZONE 'UTC') AS month`,
			`INSERT INTO usage_analytics (user_id, day, at, period_no, payer_id, plan_name, usage_type,
			    currency, cost_currency, events, reversals, credits, refunded, plan_credits, overage, grant_credits,
			    carry_over, price_micros, cost_micros, audio_ms, bytes, tokens, quantity, admissions, uncharged,
			    waited_ms, running_ms, waited_1s, waited_1m, waited_10m, waited_1h, largest_audio_ms, largest_bytes,
			    largest)
			 SELECT user_id, (at AT TIME ZONE 'UTC')::date, at, 0, payer, 'bench', 'transcription', 'USD', 'USD',
			    1, 0, 60000, 0, 60000, 0, 0, 0, 0, 6000, 60000, 1000, 0, 0, 1, 0, 500, 60000, 1, 1, 1, 1, 60000, 1000,
			    ARRAY[ROW(gen_random_uuid(), at, 60000, 60000, 0, 6000)::usage_work]
			 FROM hours`,
			`INSERT INTO usage_months (user_id, month, currency, uses, credits, price_micros, cost_micros,
			    previous_credits)
			 SELECT user_id, date_trunc('month', at AT TIME ZONE 'UTC')::date, 'USD', sum(events), sum(credits),
			    sum(price_micros), sum(cost_micros), 0 FROM usage_analytics GROUP BY 1, 2`,
			`INSERT INTO usage_refusals (user_id, at, reason, plan_name, served_by, refusals, credits)
			 SELECT user_id, at, 'CreditsExhausted', 'bench', '', 1, 60000 FROM hours WHERE refused`,
		}, behind...))
	})
	if err != nil {
		return err
	}
	return execIn(ctx, conn, []string{
		`INSERT INTO usage_totals_stale (day) SELECT DISTINCT (at AT TIME ZONE 'UTC')::date FROM usage_analytics`,
		vacuumAnalyze, "CHECKPOINT",
	})
}

// smallTeams is how many teams there are besides the large one.
func smallTeams(accounts int) int { return (accounts - accounts/10 + 199) / 200 }

// analyticsPage is one that somebody looks at, of one of so many: users or teams that are far from each other, none of
// whom was asked about before. Of one it is read allReads times.
type analyticsPage struct {
	name string
	of   func(i int) string
	read func(ctx context.Context, r *reports.Service, who string) error
}

// analyticsPages are all of those that read sums.
func analyticsPages(accounts int) []analyticsPage {
	year := reports.Span{Days: 365}
	user := func(i int) string { return fmt.Sprintf("user-%d", 1+i*max(1, accounts/userReads)) }
	team := func(i int) string { return fmt.Sprintf("team-%d", 1+i%smallTeams(accounts)) }
	large := func(int) string { return "team-0" }
	offers := []*quota.Plan{{Name: "bench", Rank: 1}, {Name: "more", Rank: 2}}
	pages := []analyticsPage{
		{"activity of a user", user, func(ctx context.Context, r *reports.Service, user string) error {
			_, err := r.Activity(ctx, user, year)
			return err
		}},
		{"largest work of a user", user, func(ctx context.Context, r *reports.Service, user string) error {
			_, err := r.Largest(ctx, user, year, reports.MaxLargest)
			return err
		}},
		{"largest of a team", team, func(ctx context.Context, r *reports.Service, team string) error {
			_, err := r.TeamLargest(ctx, team, year, reports.MaxLargest)
			return err
		}},
		{"largest of a large team", large, func(ctx context.Context, r *reports.Service, team string) error {
			_, err := r.TeamLargest(ctx, team, year, reports.MaxLargest)
			return err
		}},
		{"engagement of a user", user, func(ctx context.Context, r *reports.Service, user string) error {
			_, err := r.Engagement(ctx, user)
			return err
		}},
		{"churn of a user", user, func(ctx context.Context, r *reports.Service, user string) error {
			_, err := r.Churn(ctx, user)
			return err
		}},
		{"forecast of a user", user, func(ctx context.Context, r *reports.Service, user string) error {
			_, err := r.Forecast(ctx, user)
			return err
		}},
		{"stats of a user", user, func(ctx context.Context, r *reports.Service, user string) error {
			_, err := r.Stats(ctx, user, 12)
			return err
		}},
		{"advice of a user", user, func(ctx context.Context, r *reports.Service, user string) error {
			_, err := r.Advice(ctx, user, offers)
			return err
		}},
		{"forecast of a team", team, func(ctx context.Context, r *reports.Service, team string) error {
			_, err := r.TeamForecast(ctx, team)
			return err
		}},
		{"forecast of a large team", large, func(ctx context.Context, r *reports.Service, team string) error {
			_, err := r.TeamForecast(ctx, team)
			return err
		}},
		{"utilisation", nil, func(ctx context.Context, r *reports.Service, _ string) error {
			_, err := r.Utilisation(ctx, year)
			return err
		}},
		{"plans that fit nobody", nil, func(ctx context.Context, r *reports.Service, _ string) error {
			_, err := r.PlansAdvice(ctx)
			return err
		}},
		{"margins by plan", nil, func(ctx context.Context, r *reports.Service, _ string) error {
			_, err := r.Margins(ctx, reports.ByPlan, year)
			return err
		}},
		{"margins by team", nil, func(ctx context.Context, r *reports.Service, _ string) error {
			_, err := r.Margins(ctx, reports.ByTeam, year)
			return err
		}},
		{"margins by day", nil, func(ctx context.Context, r *reports.Service, _ string) error {
			_, err := r.Margins(ctx, reports.ByDay, year)
			return err
		}},
		{"cohorts", nil, func(ctx context.Context, r *reports.Service, _ string) error {
			_, err := r.Cohorts(ctx, reports.Day{}, reports.Day{})
			return err
		}},
		{"forecast of all", nil, func(ctx context.Context, r *reports.Service, _ string) error {
			_, err := r.TotalForecast(ctx, "", 0)
			return err
		}},
		{"forecast of a plan", nil, func(ctx context.Context, r *reports.Service, _ string) error {
			_, err := r.TotalForecast(ctx, "bench", 0)
			return err
		}},
	}
	for _, by := range []reports.By{reports.ByDay, reports.ByWeek, reports.ByMonth, reports.ByType, reports.ByPlan} {
		pages = append(pages,
			analyticsPage{"totals by " + string(by), nil,
				func(ctx context.Context, r *reports.Service, _ string) error {
					_, err := r.Totals(ctx, by, year)
					return err
				}},
			analyticsPage{"work by " + string(by), nil,
				func(ctx context.Context, r *reports.Service, _ string) error {
					_, err := r.Work(ctx, by, year)
					return err
				}})
		if by == reports.ByPlan {
			continue // there is no such page of a user or a team
		}
		ofTeam := func(ctx context.Context, r *reports.Service, team string) error {
			_, err := r.TeamAnalytics(ctx, team, by, year)
			return err
		}
		pages = append(pages,
			analyticsPage{"a user by " + string(by), user,
				func(ctx context.Context, r *reports.Service, user string) error {
					_, err := r.Analytics(ctx, user, by, year)
					return err
				}},
			analyticsPage{"a team by " + string(by), team, ofTeam},
			analyticsPage{"a large team by " + string(by), large, ofTeam})
	}
	for _, by := range []reports.Rank{reports.ByCredits, reports.ByPrice, reports.ByCost, reports.ByGrowth} {
		pages = append(pages, analyticsPage{"spenders by " + string(by), nil,
			func(ctx context.Context, r *reports.Service, _ string) error {
				_, err := r.Spenders(ctx, reports.SpendersQuery{By: by}, 100)
				return err
			}})
	}
	return pages
}

// analytics measures how long each page takes on the sums of so many accounts and events, without the HTTP around it.
// The figure is the slowest page's 95th percentile.
func (b *bench) analytics(ctx context.Context) error {
	database, err := b.lab.fresh(ctx)
	if err != nil {
		return err
	}
	dsn := b.lab.server.DSN(database)
	b.report.progressf("making the sums of %d accounts and %d events", b.opts.accounts, b.opts.events)
	if err := seedAnalytics(ctx, dsn, b.opts.accounts, b.opts.events); err != nil {
		return fmt.Errorf("make the sums: %w", err)
	}
	db, err := postgres.Open(ctx, dsn, postgres.Options{Name: "analytics"})
	if err != nil {
		return err
	}
	defer db.Close()
	started := time.Now()
	store := rollupdb.New(readdb.New(db))
	if _, err := rollup.Run(ctx, store, rollup.Options{FullSpeed: true}); err != nil {
		return err
	}
	b.report.progressf("the totals made of them in %.1f s", time.Since(started).Seconds())
	if err := execAll(ctx, dsn, []string{vacuumAnalyze}); err != nil {
		return err
	}
	e, stop, err := startEngine(ctx, dsn)
	if err != nil {
		return err
	}
	worst, err := b.readPages(ctx, reports.New(readdb.New(db), e.service))
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	b.within("analytics_p95_ms", worst.Seconds()*1000, analyticsBudget.Seconds()*1000)
	return b.lab.drop(ctx, database)
}

// readPages reads each page again and again, and returns the slowest one's 95th percentile.
func (b *bench) readPages(ctx context.Context, r *reports.Service) (worst time.Duration, err error) {
	for _, p := range analyticsPages(b.opts.accounts) {
		reads := userReads
		if p.of == nil || p.of(0) == p.of(1) {
			reads = allReads
		}
		took := make([]time.Duration, reads)
		for i := range took {
			var who string
			if p.of != nil {
				who = p.of(i)
			}
			began := time.Now()
			if err := p.read(ctx, r, who); err != nil {
				return 0, fmt.Errorf("%s: %w", p.name, err)
			}
			took[i] = time.Since(began)
		}
		p50, p95 := percentile(took, 50), percentile(took, 95)
		b.report.progressf("%-24s p50 %9s  p95 %9s", p.name, millis(p50), millis(p95))
		worst = max(worst, p95)
	}
	return worst, nil
}

// execAll runs statements one after the other in one session.
func execAll(ctx context.Context, dsn string, statements []string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	return errors.Join(execIn(ctx, conn, statements), conn.Close(ctx))
}
