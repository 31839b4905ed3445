// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
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
	// floodEnough is the part of floodRate below which it was none.
	floodEnough = 0.95
	// floodRounds are measured with and without the flood, in turn. The medians are compared.
	floodRounds = 3
)

// refusals is a target whose calls are refused by the user's rate limit: answered with the status.
type refusals struct {
	*overHTTP

	status int
}

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
		workFor(user), t.status, &struct{}{})
}

// rateLimits measures what a refusal takes, and what a flood of them does to others.
func (b *bench) rateLimits(ctx context.Context) (err error) {
	s, err := b.start(ctx, 1, limitedPlan)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	limited := refusals{newOverHTTP(s.target.addresses, one), http.StatusTooManyRequests}
	defer limited.close()

	refused, err := b.try(ctx, "refused checks over HTTP", limited, b.load(one, hot), &books{})
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
		for i, beside := range []flooded{{}, {"that is refused", s.target.addresses[0], http.StatusTooManyRequests},
			{"of a bare handler", bare.addresses[0], http.StatusOK}} {
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

// flooded is what one user's calls go to, nothing without an address, and the status that they are answered with.
type flooded struct {
	name, address string
	status        int
}

// besideFlood puts the load on the service, and beside it one user's calls on what is flooded. They come from a process
// of their own, and one that leaves the processors to the others, as if it were on another machine: it is not the
// sender's work that is measured, nor may the callers whose latency is measured wait for the same scheduler.
func (b *bench) besideFlood(ctx context.Context, s *running, flood flooded, l load) (_ result, err error) {
	if flood.address == "" {
		return b.try(ctx, "HTTP, open loop", s.target, l, s.books)
	}
	self, err := os.Executable()
	if err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var said bytes.Buffer
	sender := exec.CommandContext(ctx, "nice", "-n", "19", self, "-flood="+flood.address,
		"-flood-status="+strconv.Itoa(flood.status), "-duration="+(l.duration+l.warmup).String())
	sender.Stdout, sender.Stderr = &said, &said
	if err := sender.Start(); err != nil {
		return result{}, err
	}
	r, err := b.try(ctx, "HTTP, open loop, beside a flood "+flood.name, s.target, l, s.books)
	if err != nil {
		cancel()
	}
	if ended := sender.Wait(); err == nil && ended != nil {
		err = fmt.Errorf("the flood %s: %w: %s", flood.name, ended, &said)
	}
	b.report.progressf("the flood %s: %s", flood.name, strings.TrimSpace(said.String()))
	return r, err
}

// sendFlood calls the address at floodRate for so long, each call answered with the status, and prints the rate.
func sendFlood(ctx context.Context, address string, status int, duration time.Duration) error {
	t := refusals{newOverHTTP([]string{address}, some), status}
	defer t.close()
	l := load{clients: some, users: some, spread: hot, rate: floodRate, duration: duration}
	if err := t.warm(ctx, l); err != nil {
		return err
	}
	r, err := put(ctx, t, l)
	if err == nil && r.perSecond < floodEnough*floodRate {
		err = fmt.Errorf("only %.0f calls/s were sent", r.perSecond)
	}
	if err == nil {
		_, err = fmt.Printf("%.0f calls/s, p99 %s\n", r.perSecond, millis(r.p99))
	}
	return err
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
