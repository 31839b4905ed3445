// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"
)

const (
	// limitedClient begins the names of clients that may spend for limitedUser only: its calls count.
	limitedClient = "limited-"
	limitedUser   = "user-1"
	// limitedPlan makes the limit one that is used up before anything is measured, and lets nothing through after that.
	limitedPlan = "UPDATE user_plan_limits SET rate_requests = 1, rate_window_seconds = 86400"
	// floodRate is how many calls the user makes in a second, bystandersRate how many pairs the others.
	floodRate      = 5000
	bystandersRate = 200
	// floodRounds are measured with and without the flood, in turn. The medians are compared.
	floodRounds = 3
)

// refusals is a target whose calls are refused by the user's rate limit.
type refusals struct{ *overHTTP }

func (t refusals) warm(ctx context.Context, l load) error {
	for client := range l.clients {
		if err := t.connect(ctx, client); err != nil {
			return err
		}
		err := errors.New("not asked")
		for tries := 0; err != nil; tries++ {
			if err = t.pair(ctx, client, 1); err != nil && tries == 1000 {
				return err
			}
		}
	}
	return nil
}

func (t refusals) pair(ctx context.Context, client, user int) error {
	return t.post(ctx, client, "/api/v1/usage/check", "Bearer "+tokenPrefix+limitedClient+strconv.Itoa(client),
		workFor(user), http.StatusTooManyRequests, &struct{}{})
}

// rateLimits measures what a refusal takes, and what a flood of them does to others.
func (b *bench) rateLimits(ctx context.Context) (err error) {
	s, err := b.start(ctx, 1, limitedPlan)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	flood := refusals{newOverHTTP(s.target.addresses, some)}
	defer flood.close()

	refused, err := b.try(ctx, "refused checks over HTTP", flood, b.load(one, hot), &books{})
	if err != nil {
		return err
	}
	let, err := b.try(ctx, "checks over HTTP", checks{s.target, 0}, b.load(one, uniform), &books{})
	if err != nil {
		return err
	}
	f := figure{name: "rate_limited_refusal_us", ours: micros(refused.p50), baseline: micros(let.p50), goal: 1.5}
	f.ratio = f.baseline / f.ours
	b.report.figure(f)

	bare, stop, err := b.startBare(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	bystanders := b.load(some, uniform)
	bystanders.rate = bystandersRate
	var p99 [3][]time.Duration
	for range floodRounds {
		for i, beside := range []flooded{{}, {"that is refused", flood}, {"of a bare handler", checks{bare, 0}}} {
			r, err := b.besideFlood(ctx, s, beside, bystanders)
			if err != nil {
				return err
			}
			p99[i] = append(p99[i], r.p99)
		}
	}
	var median [3]time.Duration
	for i := range p99 {
		slices.Sort(p99[i])
		median[i] = p99[i][floodRounds/2]
	}
	b.report.latency("rate_limited_flood_p99_ms", median[1], median[0], 1/1.2)
	b.report.latency("rate_limited_flood_bare_p99_ms", median[1], median[2], 1/1.2)
	return b.check(ctx, "rate limits", s.database, s.books)
}

// flooded is what one user's calls go to, nothing without a target.
type flooded struct {
	name string
	target
}

// besideFlood puts the load on the service, and beside it one user's calls on what is flooded.
func (b *bench) besideFlood(ctx context.Context, s *running, flood flooded, l load) (result, error) {
	if flood.target == nil {
		return b.try(ctx, "HTTP, open loop", s.target, l, s.books)
	}
	f := b.load(some, hot)
	f.rate, f.duration = floodRate, l.duration+l.warmup
	if err := flood.warm(ctx, f); err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		result result
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		r, err := put(ctx, flood, f)
		answers <- answer{r, err}
	}()
	r, err := b.try(ctx, "HTTP, open loop, beside a flood "+flood.name, s.target, l, s.books)
	if err != nil {
		cancel()
	}
	of := <-answers
	b.report.progressf("the flood: %.0f calls/s, p99 %s", of.result.perSecond, millis(of.result.p99))
	return r, errors.Join(err, of.err)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
