// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// maxConnecting is how long all clients of pgbench may take to connect.
const maxConnecting = 30 * time.Second

// bench measures for all scenarios, and what several of them need only once.
type bench struct {
	opts    options
	dir     string
	lab     *lab
	pgbench *pgbench
	report  *report

	// measured are the trials of baselines, and of our own that others are compared with, by what they measured.
	measured map[string]result
	program  *usaged
	kube     *cluster
	// service is usaged on a database of its own, for the trials over HTTP that can share one.
	service *running
}

func (b *bench) load(clients int, s spread) load {
	return load{clients: clients, users: b.opts.users, spread: s, warmup: b.opts.warmup, duration: b.opts.duration}
}

// close ends what scenarios have shared, after a last look at its books.
func (b *bench) close() (err error) {
	if b.service != nil {
		err = b.service.stop()
	}
	if b.kube != nil {
		b.report.progressf("usaged asked for %d token reviews and %d access reviews, its caches answered the rest",
			b.kube.tokens.Load(), b.kube.spenders.Load())
		b.kube.close()
	}
	return err
}

// compare prints what a trial of ours is against naive with as many clients, and against the best of all variants. A
// figure without a name is left out.
func (b *bench) compare(
	ctx context.Context, ours result, clients int, s spread, toNaive string, goal float64, toBest string,
	bestGoal float64,
) error {
	if toNaive != "" {
		naive, err := b.naive(ctx, clients, s)
		if err != nil {
			return err
		}
		b.report.rate(toNaive, ours, naive, goal)
	}
	if toBest != "" {
		best, err := b.best(ctx, s)
		if err != nil {
			return err
		}
		b.report.rate(toBest, ours, best, bestGoal)
	}
	return nil
}

// naive is what one transaction per call makes with so many clients.
func (b *bench) naive(ctx context.Context, clients int, s spread) (result, error) {
	return b.variant(ctx, prepared, clients, s)
}

// best is the most that any variant reaches at any number of clients.
func (b *bench) best(ctx context.Context, s spread) (result, error) {
	var best result
	for _, variant := range variants {
		for _, clients := range []int{some, 64, many} {
			r, err := b.variant(ctx, variant, clients, s)
			if err != nil {
				return result{}, err
			}
			if r.perSecond > best.perSecond {
				best = r
			}
		}
	}
	return best, nil
}

func (b *bench) variant(ctx context.Context, variant string, clients int, s spread) (result, error) {
	key := fmt.Sprintf("%s %s %d", variant, s, clients)
	if r, ok := b.measured[key]; ok {
		return r, nil
	}
	r, err := b.baseline(ctx, "pgbench "+variant, variant, b.load(clients, s))
	b.measured[key] = r
	return r, err
}

func (b *bench) baseline(ctx context.Context, what, variant string, l load) (result, error) {
	// Usually enough for connecting; on a busy machine it takes longer.
	connecting := time.Duration(l.clients/100) * time.Second
	for {
		database, err := b.lab.fresh(ctx)
		if err != nil {
			return result{}, err
		}
		r, err := b.pgbench.run(ctx, b.lab.server.DSN(database), variant, l, connecting)
		if errors.Is(err, errTooShort) && connecting < maxConnecting {
			connecting += maxConnecting / 3
			b.report.progressf("again with %s for connecting: %v", connecting, err)
			continue
		}
		if err != nil {
			return result{}, err
		}
		b.report.trial(what, l, r)
		if err := b.lab.verify(ctx, database, &books{pairs: r.pairs}); err != nil {
			return result{}, err
		}
		return r, b.lab.drop(ctx, database)
	}
}

// try puts a load on a target of ours, and enters what was acknowledged in the books of its database.
func (b *bench) try(ctx context.Context, what string, t target, l load, books *books) (result, error) {
	if err := t.warm(ctx, l); err != nil {
		return result{}, err
	}
	if err := b.lab.exec(ctx, "CHECKPOINT"); err != nil {
		return result{}, err
	}
	r, err := put(ctx, t, l)
	if err != nil {
		return result{}, fmt.Errorf("%s, %d clients, %s: %w", what, l.clients, l.spread, err)
	}
	books.pairs += r.pairs
	b.report.trial(what, l, r)
	return r, nil
}

// engineTrial runs the service in this process on a fresh database, once for each kind of load.
func (b *bench) engineTrial(ctx context.Context, clients int, s spread) (result, error) {
	key := fmt.Sprintf("engine %s %d", s, clients)
	if r, ok := b.measured[key]; ok {
		return r, nil
	}
	database, err := b.lab.fresh(ctx)
	if err != nil {
		return result{}, err
	}
	books := &books{}
	r, err := b.engineOn(ctx, "engine", database, b.load(clients, s), books)
	if err != nil {
		return result{}, err
	}
	b.measured[key] = r
	if err := b.check(ctx, "engine", database, books); err != nil {
		return result{}, err
	}
	return r, b.lab.drop(ctx, database)
}

func (b *bench) engineOn(ctx context.Context, what, database string, l load, books *books) (result, error) {
	e, stop, err := startEngine(ctx, b.lab.server.DSN(database))
	if err != nil {
		return result{}, err
	}
	profiled, err := b.startProfile(ctx, fmt.Sprintf("engine_%s_%d", l.spread, l.clients))
	if err != nil {
		return result{}, errors.Join(err, stop())
	}
	r, err := b.try(ctx, what, e, l, books)
	return r, errors.Join(err, profiled(ctx), stop())
}

// httpTrial runs on the shared service.
func (b *bench) httpTrial(ctx context.Context, what string, l load) (result, error) {
	s, err := b.shared(ctx)
	if err != nil {
		return result{}, err
	}
	return b.try(ctx, what, s.target, l, s.books)
}

// shared starts usaged on a database of its own, once.
func (b *bench) shared(ctx context.Context) (*running, error) {
	if b.service != nil {
		return b.service, nil
	}
	s, err := b.start(ctx, 1)
	if err != nil {
		return nil, err
	}
	stop := s.stop
	s.stop = func() error {
		return errors.Join(b.check(context.WithoutCancel(ctx), "HTTP", s.database, s.books), stop())
	}
	b.service = s
	return s, nil
}

// withReplicas runs several processes of usaged on one fresh database while do uses them.
func (b *bench) withReplicas(ctx context.Context, do func(context.Context, *overHTTP, *books) error) (err error) {
	s, err := b.start(ctx, replicas)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := do(ctx, s.target, s.books); err != nil {
		return err
	}
	return b.check(ctx, "three replicas", s.database, s.books)
}

// start runs usaged on a fresh database, in which the statements have been run.
func (b *bench) start(ctx context.Context, processes int, statements ...string) (*running, error) {
	if err := b.buildService(ctx); err != nil {
		return nil, err
	}
	database, err := b.lab.fresh(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.lab.set(ctx, database, statements); err != nil {
		return nil, err
	}
	return b.program.start(ctx, b.lab.server.DSN(database), database, processes)
}

// startWith runs one process with further arguments, under a name of its own, on a fresh database.
func (b *bench) startWith(ctx context.Context, name string, args ...string) (*running, error) {
	if err := b.buildService(ctx); err != nil {
		return nil, err
	}
	database, err := b.lab.fresh(ctx)
	if err != nil {
		return nil, err
	}
	special := *b.program
	special.path, special.name, special.args, special.started = b.program.binary(), name, args, 0
	return special.start(ctx, b.lab.server.DSN(database), database, 1)
}

// buildService makes all ready that usaged needs, once.
func (b *bench) buildService(ctx context.Context) error {
	if b.program == nil {
		kubeconfig := filepath.Join(b.dir, "kubeconfig")
		b.kube = newCluster()
		if err := b.kube.writeKubeconfig(kubeconfig); err != nil {
			return err
		}
		b.report.progressf("building usaged")
		program := &usaged{dir: b.dir, kubeconfig: kubeconfig}
		if err := program.build(ctx); err != nil {
			return err
		}
		b.program = program
	}
	return nil
}

// check looks into the database for all that was acknowledged, and replays every decision. What was filled in before
// nobody has decided.
func (b *bench) check(ctx context.Context, what, database string, books *books) error {
	if err := b.lab.verify(ctx, database, books); err != nil {
		return err
	}
	if books.events > 0 {
		b.report.progressf("%s: all %d acknowledged pairs are in the database", what, books.pairs)
		return nil
	}
	if err := b.lab.checkInvariants(ctx, database); err != nil {
		return err
	}
	b.report.progressf("%s: all %d acknowledged pairs are in the database, and the invariants hold", what, books.pairs)
	return nil
}
