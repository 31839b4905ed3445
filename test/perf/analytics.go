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
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/rollup"
)

const (
	// analyticsDays is over how many days the rows are spread.
	analyticsDays = 90
	// analyticsBudget is what a page may take.
	analyticsBudget = 50 * time.Millisecond
	// userReads and allReads are how often each page is read: of another user each time, and of all users together.
	userReads = 200
	allReads  = 40
)

// analyticsSeed makes the sums that accounts have after so many events, each in an hour of its own, as a rollup would
// have. The events themselves are not made: no page reads them, so there would be an answer missing if one did.
func analyticsSeed(accounts, events int) []string {
	each := max(1, events/accounts)
	return []string{
		// Nothing checks the references that these statements make, and nobody waits for the log.
		"SET synchronous_commit = off",
		"SET session_replication_role = replica",
		"DELETE FROM usage_quotas", "DELETE FROM users",
		benchUsers(accounts),
		fmt.Sprintf(`INSERT INTO usage_quotas (user_id, plan_name, currency, anchor_at, period_start, period_end, seq,
		    last_decided_at)
		 SELECT id, 'bench', 'USD', month AT TIME ZONE 'UTC', month AT TIME ZONE 'UTC',
		    (month + interval '1 month') AT TIME ZONE 'UTC', %d, now()
		 FROM users, date_trunc('month', now() AT TIME ZONE 'UTC') AS month`, 2*each),
		fmt.Sprintf(`INSERT INTO usage_analytics (user_id, day, at, period_no, payer_id, plan_name, usage_type,
		    currency, cost_currency, events, reversals, credits, refunded, plan_credits, overage, grant_credits,
		    carry_over, price_micros, cost_micros, audio_ms, bytes, tokens, quantity, admissions, uncharged,
		    waited_ms, running_ms, waited_1s, waited_1m, waited_10m, waited_1h, largest_audio_ms, largest_bytes)
		 SELECT a.user_id, (h.at AT TIME ZONE 'UTC')::date, h.at, 0, a.user_id, 'bench', 'transcription', 'USD', 'USD',
		    1, 0, 60000, 0, 60000, 0, 0, 0, 0, 6000, 60000, 1000, 0, 0, 1, 0, 500, 60000, 1, 1, 1, 1, 60000, 1000
		 FROM (SELECT q.user_id, row_number() OVER () AS n FROM usage_quotas AS q) AS a
		 CROSS JOIN generate_series(0, %d) AS i
		 CROSS JOIN LATERAL (SELECT date_trunc('hour', now(), 'UTC')
		    - (a.n * 7 + i::bigint * %d) %% %d * interval '1 hour' AS at) AS h
		 ORDER BY a.user_id, h.at`, each-1, max(1, analyticsDays*24/each), analyticsDays*24),
		`INSERT INTO usage_rollups (user_id, seq, decided_at, time_zone, as_of)
		 SELECT user_id, seq, last_decided_at, time_zone, now() FROM usage_quotas`,
		`INSERT INTO usage_months (user_id, month, currency, uses, credits, price_micros, cost_micros, previous_credits)
		 SELECT user_id, date_trunc('month', at AT TIME ZONE 'UTC')::date, 'USD', sum(events), sum(credits),
		    sum(price_micros), sum(cost_micros), 0 FROM usage_analytics GROUP BY 1, 2`,
		`INSERT INTO usage_refusals (user_id, at, reason, plan_name, served_by, refusals, credits)
		 SELECT user_id, min(at), 'CreditsExhausted', 'bench', '', 1, 60000 FROM usage_analytics GROUP BY 1`,
		`INSERT INTO usage_totals_stale (day) SELECT DISTINCT day FROM usage_analytics`,
		"VACUUM (ANALYZE)", "CHECKPOINT",
	}
}

// analyticsPage is one that somebody looks at: of a user, or of all users.
type analyticsPage struct {
	name string
	user bool
	read func(ctx context.Context, r *reports.Service, user string) error
}

// analyticsPages are all of those that read sums.
func analyticsPages() []analyticsPage {
	year := reports.Span{Days: 365}
	pages := []analyticsPage{
		{"activity of a user", true, func(ctx context.Context, r *reports.Service, user string) error {
			_, err := r.Activity(ctx, user, year)
			return err
		}},
		{"engagement of a user", true, func(ctx context.Context, r *reports.Service, user string) error {
			_, err := r.Engagement(ctx, user)
			return err
		}},
		{"churn of a user", true, func(ctx context.Context, r *reports.Service, user string) error {
			_, err := r.Churn(ctx, user)
			return err
		}},
		{"forecast of a user", true, func(ctx context.Context, r *reports.Service, user string) error {
			_, err := r.Forecast(ctx, user)
			return err
		}},
		{"stats of a user", true, func(ctx context.Context, r *reports.Service, user string) error {
			_, err := r.Stats(ctx, user, 12)
			return err
		}},
		{"utilisation", false, func(ctx context.Context, r *reports.Service, _ string) error {
			_, err := r.Utilisation(ctx, year)
			return err
		}},
		{"margins", false, func(ctx context.Context, r *reports.Service, _ string) error {
			_, err := r.Margins(ctx, false, year)
			return err
		}},
		{"cohorts", false, func(ctx context.Context, r *reports.Service, _ string) error {
			_, err := r.Cohorts(ctx, reports.Day{}, reports.Day{})
			return err
		}},
		{"work by day", false, func(ctx context.Context, r *reports.Service, _ string) error {
			_, err := r.Work(ctx, reports.ByDay, year)
			return err
		}},
		{"forecast of all", false, func(ctx context.Context, r *reports.Service, _ string) error {
			_, err := r.TotalForecast(ctx, "", 0)
			return err
		}},
	}
	for _, by := range []reports.By{reports.ByDay, reports.ByMonth, reports.ByType} {
		pages = append(pages,
			analyticsPage{"a user by " + string(by), true,
				func(ctx context.Context, r *reports.Service, user string) error {
					_, err := r.Analytics(ctx, user, by, year)
					return err
				}},
			analyticsPage{"totals by " + string(by), false,
				func(ctx context.Context, r *reports.Service, _ string) error {
					_, err := r.Totals(ctx, by, year)
					return err
				}})
	}
	for _, by := range []reports.Rank{reports.ByCredits, reports.ByPrice, reports.ByCost, reports.ByGrowth} {
		pages = append(pages, analyticsPage{"spenders by " + string(by), false,
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
	if err := execAll(ctx, dsn, analyticsSeed(b.opts.accounts, b.opts.events)); err != nil {
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
	if err := execAll(ctx, dsn, []string{"VACUUM (ANALYZE)"}); err != nil {
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
	for _, p := range analyticsPages() {
		reads := allReads
		if p.user {
			reads = userReads
		}
		took := make([]time.Duration, reads)
		for i := range took {
			// Users far from each other, none of whom was asked about before.
			user := fmt.Sprintf("user-%d", 1+i*(b.opts.accounts/reads))
			began := time.Now()
			if err := p.read(ctx, r, user); err != nil {
				return 0, fmt.Errorf("%s: %w", p.name, err)
			}
			took[i] = time.Since(began)
		}
		p50, p95 := percentile(took, 50), percentile(took, 95)
		b.report.progressf("%-20s p50 %9s  p95 %9s", p.name, millis(p50), millis(p95))
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
	for _, sql := range statements {
		if _, err = conn.Exec(ctx, sql); err != nil {
			err = fmt.Errorf("%.60s...: %w", sql, err)
			break
		}
	}
	return errors.Join(err, conn.Close(ctx))
}
