// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// waitingAlerts are those of the endpoint that is dead, sentAlerts those that are raised one after the other, an
	// interval apart, for one that is not.
	waitingAlerts, sentAlerts = 100_000, 200
	sentInterval              = 100 * time.Millisecond
	deliveryPatience          = time.Minute
)

// alertRow makes an alert that no account remembers, which has to go before the books are checked.
const alertRow = `INSERT INTO usage_alerts (id, user_id, period_no, kind, threshold, subject, number, severity, used,
	raised_at, seq, ends_at, dispatched)
	SELECT gen_random_uuid(), (SELECT min(user_id::text)::uuid FROM usage_quotas), 0, '%s', 0, 'bench', n, 'info', 0,
	clock_timestamp(), 0, clock_timestamp() + interval '1 day', %t FROM generate_series(%d, %d) AS n`

// endpoints are one that hangs, with alerts that wait for it, and one that takes what it gets.
func endpoints(hangs, takes string) []string {
	declared := func(name, url, kind string) []string {
		return []string{
			fmt.Sprintf(`INSERT INTO notification_endpoints (id, name, url, kinds, plans, teams, users, allowed_cidrs,
				signing, suspended, version, created_at, updated_at) VALUES (gen_random_uuid(), '%s', '%s', '{%s}',
				'{}', '{}', '{}', '{127.0.0.1/32}', 'ed25519', false, 1, clock_timestamp(), clock_timestamp())`,
				name, url, kind),
			fmt.Sprintf(`INSERT INTO notification_keys (endpoint_id, name, signing, secret, created_at)
				SELECT id, 'bench', 'ed25519', decode(repeat('61', 32), 'hex'), clock_timestamp()
				FROM notification_endpoints WHERE name = '%s'`, name),
		}
	}
	return slices.Concat(declared("dead", hangs, "PeriodReset"), declared("alive", takes, "GrantExpiring"), []string{
		fmt.Sprintf(alertRow, "PeriodReset", true, 1, waitingAlerts),
		`INSERT INTO deliveries (id, endpoint_id, alert_id, state, created_at, expires_at, next_attempt_at)
			SELECT gen_random_uuid(), e.id, a.id, 'waiting', a.raised_at, a.raised_at + interval '3 days', a.raised_at
			FROM usage_alerts AS a, notification_endpoints AS e WHERE e.name = 'dead' AND a.subject = 'bench'`,
		vacuum,
	})
}

// arrivals are how long after they were raised alerts came to a receiver.
type arrivals struct {
	mu   sync.Mutex
	took []time.Duration
}

// ServeHTTP takes an alert.
func (a *arrivals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var event struct {
		Time time.Time `json:"time"`
	}
	if err := json.NewDecoder(r.Body).Decode(&event); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.took = append(a.took, time.Since(event.Time))
}

func (a *arrivals) sorted() []time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(slices.Values(a.took))
}

// deliveries measures, beside an endpoint that is dead and has much waiting, how soon another one gets what is raised,
// and what admissions still do.
func (b *bench) deliveries(ctx context.Context) error {
	without, err := b.shared(ctx)
	if err != nil {
		return err
	}
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer hangs.Close()
	got := &arrivals{}
	takes := httptest.NewServer(got)
	defer takes.Close()
	start := func(ctx context.Context) (*running, error) {
		return b.start(ctx, 1, endpoints(hangs.URL, takes.URL)...)
	}
	return b.using(ctx, "HTTP, dead endpoint", start, func(ctx context.Context, with side) error {
		if err := b.firstAttempts(ctx, with.database, got); err != nil {
			return err
		}
		if err := b.between(ctx, "delivery_dead_endpoint", 0.95,
			[2]side{with, {"HTTP, no endpoint", without}}); err != nil {
			return err
		}
		return b.lab.set(ctx, with.database, []string{"DELETE FROM usage_alerts WHERE subject = 'bench'"})
	})
}

// firstAttempts raises alerts as another process does, which the one that sends them has to find.
func (b *bench) firstAttempts(ctx context.Context, database string, got *arrivals) (err error) {
	conn, err := pgx.Connect(ctx, b.lab.server.DSN(database))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	tick := time.NewTicker(sentInterval)
	defer tick.Stop()
	for n := 1; n <= sentAlerts; n++ {
		if _, err := conn.Exec(ctx, fmt.Sprintf(alertRow, "GrantExpiring", false, n, n)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	for end := time.Now().Add(deliveryPatience); len(got.sorted()) < sentAlerts; {
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d alerts came to the receiver", len(got.sorted()), sentAlerts)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	b.report.latency("delivery_first_attempt_p99_ms", got.sorted()[sentAlerts*99/100], time.Second, 1)
	return nil
}
