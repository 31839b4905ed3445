// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// What every pair asks for and uses, the same as in the scripts of pgbench.
const (
	declared = 3 * time.Minute
	used     = 2*time.Minute + 45*time.Second
	fileSize = 12 << 20
)

// load is what a trial puts on its target.
type load struct {
	clients int
	// users that the pairs are spread over.
	users  int
	spread spread
	// warmup is not measured. Both in whole seconds, for pgbench.
	warmup, duration time.Duration
	// rate of pairs per second in all, arriving at random (Poisson) whether earlier ones have been answered or not, as
	// far as there are clients; their latency counts from when they should have started. Zero: each client as fast as
	// it can.
	rate float64
}

// result of a trial.
type result struct {
	// pairs that were acknowledged, those of the warm-up included.
	pairs int
	// perSecond, p50 and p99 are of the measured time. A pair's latency is that of both calls.
	perSecond float64
	p50, p99  time.Duration
}

func (r *result) setLatencies(latencies []time.Duration) {
	if len(latencies) == 0 {
		return
	}
	slices.Sort(latencies)
	r.p50, r.p99 = latencies[len(latencies)/2], latencies[len(latencies)*99/100]
}

// target makes an admission for a user and completes it, once warm has made all ready. Users count from 1, clients from
// 0.
type target interface {
	warm(ctx context.Context, l load) error
	pair(ctx context.Context, client, user int) error
}

// put puts the load on t. All pairs that it started have been answered when it returns.
func put(ctx context.Context, t target, l load) (result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	start := time.Now()
	measure, end := start.Add(l.warmup), start.Add(l.warmup+l.duration)
	var (
		group     sync.WaitGroup
		total     atomic.Int64
		latencies = make([][]time.Duration, l.clients)
	)
	for client := range l.clients {
		pick := l.picker(client)
		group.Go(func() {
			due := start
			for {
				if l.rate > 0 {
					due = due.Add(time.Duration(rand.ExpFloat64() * float64(l.clients) / l.rate * float64(time.Second)))
					if !due.Before(end) || !sleepUntil(ctx, due) {
						return
					}
				} else if due = time.Now(); !due.Before(end) {
					return
				}
				if err := t.pair(ctx, client, pick()); err != nil {
					cancel(fmt.Errorf("client %d: %w", client, err))
					return
				}
				total.Add(1)
				if now := time.Now(); !now.Before(measure) && now.Before(end) {
					latencies[client] = append(latencies[client], now.Sub(due))
				}
			}
		})
	}
	group.Wait()
	if err := context.Cause(ctx); err != nil {
		return result{}, err
	}
	all := slices.Concat(latencies...)
	r := result{pairs: int(total.Load()), perSecond: float64(len(all)) / l.duration.Seconds()}
	if len(all) == 0 {
		return result{}, errors.New("no pair was answered within the measured time")
	}
	r.setLatencies(all)
	return r, nil
}

// picker returns a function that chooses one of the client's users at random.
func (l load) picker(client int) func() int {
	switch l.spread {
	case hot:
		return func() int { return 1 }
	case zipf:
		z := rand.NewZipf(rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), zipfExponent, 1, uint64(l.users-1))
		return func() int { return 1 + int(z.Uint64()) }
	case uniform:
	}
	first, count, step := l.own(client)
	return func() int { return first + step*rand.IntN(count) }
}

// everyone shares the users out among clients that call at once.
func everyone(clients, users int, do func(client, user int) error) error {
	var group errgroup.Group
	for client := range clients {
		group.Go(func() error {
			for user := client + 1; user <= users; user += clients {
				if err := do(client, user); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// own returns a client's users: the first, how many, and how far apart they are.
func (l load) own(client int) (first, count, step int) {
	return 1 + client, (l.users - client + l.clients - 1) / l.clients, l.clients
}

func sleepUntil(ctx context.Context, t time.Time) bool {
	wait := time.Until(t)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
