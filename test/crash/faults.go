// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/testing/cutproxy"
)

const (
	// recoverWithin bounds how long nobody may get an answer after the database is back.
	recoverWithin = time.Minute
	// disturbEvery is how far apart, on average, two disturbances of the network are.
	disturbEvery = 150 * time.Millisecond
	// resetEvery is how often the reset runs beside everything else.
	resetEvery = 5 * time.Second
	// rollupEvery is how often the rollup does, and rollupKilled how long every second run of it lives at most.
	rollupEvery  = 2 * time.Second
	rollupKilled = time.Second
)

// kill is one way to kill something.
type kill struct {
	what string
	do   func(ctx context.Context) error
}

// disturb kills and cuts until the run has seen enough of it, and leaves everything whole.
func (s *stack) disturb(ctx context.Context, o options) error {
	random := rand.New(rand.NewPCG(o.seed, 1<<32))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var network sync.WaitGroup
	defer func() {
		cancel()
		network.Wait()
		for _, way := range s.ways {
			way.Refuse(false)
			way.Stall(false)
		}
	}()
	// Its own source of chance: the network and the kills run side by side.
	network.Go(func() { s.disturbNetwork(ctx, rand.New(rand.NewPCG(o.seed, 2<<32))) })
	network.Go(func() { s.resetNowAndThen(ctx) })
	// Two at once: they meet, now and then.
	for n := range 2 {
		random := rand.New(rand.NewPCG(o.seed, uint64(n+4)<<32))
		network.Go(func() { s.rollUpNowAndThen(ctx, random) })
	}
	network.Go(func() { s.moveMembers(ctx, rand.New(rand.NewPCG(o.seed, 3<<32))) })

	plan := s.plan(random, o.kills)
	for n := 0; ; n++ {
		if err := s.reach(ctx, o, n); err != nil {
			return err
		}
		if n >= o.kills && s.report.operations.Load() >= int64(o.operations) &&
			time.Since(s.report.start) >= o.duration {
			return nil
		}
		k := plan[n%len(plan)]
		s.report.progressf("kill %d: %s", n+1, k.what)
		if err := k.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", k.what, err)
		}
	}
}

// reach waits until it is time for the kill of that number: they are spread over the operations, and over the duration.
func (s *stack) reach(ctx context.Context, o options, n int) error {
	share := float64(n+1) / float64(o.kills+1)
	if n >= o.kills {
		share = 1
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	begin := time.Now()
	for {
		enough := float64(s.report.operations.Load()) >= share*float64(o.operations)
		long := time.Since(s.report.start) >= time.Duration(share*float64(o.duration))
		// Beyond its number, kills go on every few seconds until the time is over.
		if enough && (long || (n >= o.kills && time.Since(begin) > 5*time.Second)) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// plan says in which order things are killed. Of every twelve kills one is for good and followed by a promotion.
func (s *stack) plan(random *rand.Rand, kills int) []kill {
	dozen := []kill{{"the primary, for good; the standby is promoted", s.failOver}}
	for range 4 {
		dozen = append(dozen, kill{"the primary", s.killPrimary})
	}
	for i := range replicas {
		dozen = append(dozen, kill{fmt.Sprintf("usaged-%d", i),
			func(context.Context) error { return s.killProgram(s.usaged[i]) }})
	}
	dozen = append(dozen,
		kill{"all replicas of usaged at once", s.killAllReplicas},
		kill{"the manager", func(context.Context) error { return s.killProgram(s.manager) }},
		kill{"the manager", func(context.Context) error { return s.killProgram(s.manager) }},
		kill{"the standby", s.killStandby})
	var plan []kill
	for len(plan) < max(kills, len(dozen)) {
		random.Shuffle(len(dozen), func(i, j int) { dozen[i], dozen[j] = dozen[j], dozen[i] })
		plan = append(plan, dozen...)
	}
	// However few they are, the promotion is one of them.
	for i := range plan[:len(dozen)] {
		if plan[i].what == "the primary, for good; the standby is promoted" && i >= kills {
			plan[i], plan[kills-1] = plan[kills-1], plan[i]
		}
	}
	return plan
}

func (s *stack) killProgram(p *program) error {
	killed, err := p.kill()
	if killed {
		s.report.kills.Add(1)
	}
	return err
}

func (s *stack) killAllReplicas(context.Context) error {
	var errs []error
	for _, p := range s.usaged {
		errs = append(errs, s.killProgram(p))
	}
	return errors.Join(errs...)
}

func (s *stack) killPrimary(ctx context.Context) error {
	if err := s.database.primary.Kill(); err != nil {
		return err
	}
	s.report.kills.Add(1)
	return s.recovery(ctx, "recovery after the crash", func(back func()) error {
		if err := s.database.primary.Restart(ctx); err != nil {
			return err
		}
		s.database.point()
		back()
		return nil
	})
}

func (s *stack) failOver(ctx context.Context) error {
	if err := s.database.primary.Kill(); err != nil {
		return err
	}
	s.report.kills.Add(1)
	return s.recovery(ctx, "promotion", func(back func()) error { return s.database.promote(ctx, back) })
}

func (s *stack) killStandby(ctx context.Context) error {
	if err := s.database.standby.Kill(); err != nil {
		return err
	}
	s.report.kills.Add(1)
	// Commits wait for it.
	return s.database.standby.Restart(ctx)
}

// recovery measures how long nobody gets an answer although the database is back, and how hard it is knocked at.
func (s *stack) recovery(ctx context.Context, what string, repair func(back func()) error) error {
	down, before := time.Now(), s.database.accepted()
	var back time.Time
	var while int
	var next <-chan time.Time
	if err := repair(func() {
		back, while = time.Now(), s.database.accepted()-before
		next = s.report.next()
	}); err != nil {
		return err
	}
	var after time.Duration
	select {
	case at := <-next:
		after = at.Sub(back)
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(recoverWithin):
		s.report.violationf("after the %s nobody got an answer for %s", what, recoverWithin)
		return nil
	}
	s.report.recovered(after)
	s.report.progressf(
		"%s took %s (%d connections tried meanwhile); the first operation was acknowledged within %s of it",
		what, back.Sub(down).Round(time.Millisecond), while, after.Round(time.Millisecond))
	return nil
}

// disturbNetwork breaks connections until ctx ends.
func (s *stack) disturbNetwork(ctx context.Context, random *rand.Rand) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(random.ExpFloat64() * float64(disturbEvery))):
		}
		way := s.ways[random.IntN(len(s.ways))]
		switch n := random.IntN(100); {
		case n < 75:
			points := []cutproxy.Point{cutproxy.BeforeCommit, cutproxy.DuringCommit, cutproxy.AfterCommit}
			s.cutCommit(ctx, way, points[random.IntN(len(points))])
		case n < 85:
			if way.CutOne() {
				s.report.cuts.Add(1)
			}
		case n < 90:
			s.report.cuts.Add(int64(way.CutAll()))
		case n < 98:
			s.stall(way, time.Duration(random.ExpFloat64()*float64(500*time.Millisecond)))
		case n < 99:
			// Longer than a batch may take.
			s.stall(way, 12*time.Second)
		default:
			way.Refuse(true)
			time.AfterFunc(time.Duration(random.ExpFloat64()*float64(time.Second)), func() { way.Refuse(false) })
		}
	}
}

// cutCommit cuts the next commit, if there is one soon.
func (s *stack) cutCommit(ctx context.Context, way *cutproxy.Proxy, at cutproxy.Point) {
	select {
	case <-way.CutCommit(at):
		s.report.cuts.Add(1)
	case <-time.After(time.Second):
		// It is left to whoever commits there next.
	case <-ctx.Done():
	}
}

func (s *stack) stall(way *cutproxy.Proxy, d time.Duration) {
	s.report.stalls.Add(1)
	way.Stall(true)
	time.AfterFunc(d, func() { way.Stall(false) })
}

// rollUpNowAndThen brings the sums up to date as the CronJob does. Every second run is killed after a while, and each
// may fail while the database is away. Whatever is left behind, the sums have to be those of the events up to their
// watermarks, which the check at the end compares.
func (s *stack) rollUpNowAndThen(ctx context.Context, random *rand.Rand) {
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(random.Int64N(int64(2 * rollupEvery)))):
		}
		lives := recoverWithin
		if n%2 == 1 {
			lives = time.Duration(random.Int64N(int64(rollupKilled)))
		}
		life, cancel := context.WithTimeout(ctx, lives)
		args := []string{"rollup", "--full-speed", "--retry-for=5s"}
		if n%5 == 4 {
			args = append(args, "--rebuild")
		}
		out, err := s.run(life, s.batch, args...)
		if err != nil && life.Err() == nil {
			s.report.progressf("usage-batch rollup failed, as it may: %s", out)
		}
		cancel()
	}
}

// resetNowAndThen closes ended periods as the CronJob does. It may fail while the database is away: the next one does
// it.
func (s *stack) resetNowAndThen(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(resetEvery):
		}
		if out, err := s.run(ctx, s.batch, "reset", "--plan=poor"); err != nil && ctx.Err() == nil {
			s.report.progressf("usage-batch reset failed, as it may: %s", out)
		}
	}
}
