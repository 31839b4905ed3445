// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/rollupdb"
	"github.com/cantonesescribe/usage-operator/internal/rollup"
)

const (
	// rebuildEvents is what the time of a rebuild is scaled to, and rebuildBudget what it may take.
	rebuildEvents = 10_000_000
	rebuildBudget = 5 * time.Minute
)

// rollUp makes the sums of all accounts anew, as `usage-batch rollup --rebuild` does.
func (b *bench) rollUp(ctx context.Context, database string, fullSpeed bool) (rollup.Result, error) {
	db, err := postgres.Open(ctx, b.lab.server.DSN(database), postgres.Options{Name: "usage-batch rollup"})
	if err != nil {
		return rollup.Result{}, err
	}
	defer db.Close()
	return rollup.Run(ctx, rollupdb.New(readdb.New(db)), rollup.Options{Rebuild: true, FullSpeed: fullSpeed})
}

// rollups measures how long all sums take to be made anew, by themselves, and what admissions notice of it. The events
// are of thirty days, in another hour each until there are more than hours.
func (b *bench) rollups(ctx context.Context) error {
	database, err := b.lab.fresh(ctx)
	if err != nil {
		return err
	}
	b.report.progressf("making %d admissions with their events", b.opts.events)
	books, err := b.lab.fill(ctx, database, b.opts.events)
	if err != nil {
		return err
	}
	stop, err := b.startProfile(ctx, "rollup_rebuild")
	if err != nil {
		return err
	}
	started := time.Now()
	res, err := b.rollUp(ctx, database, true)
	took := time.Since(started)
	if err := errors.Join(err, stop(ctx)); err != nil {
		return err
	}
	b.report.progressf("%d accounts rolled up in %.1f s: %d rows of %d events", res.Accounts, took.Seconds(), res.Rows,
		books.events)
	scaled := took.Seconds() * rebuildEvents / float64(books.events)
	b.report.figure(figure{name: "rollup_rebuild_10m_s", ours: scaled, baseline: rebuildBudget.Seconds(),
		ratio: rebuildBudget.Seconds() / scaled, goal: 1})

	// As autovacuum does within a minute, which the trials should not have to share the processors with.
	if err := execAll(ctx, b.lab.server.DSN(database), []string{vacuumAnalyze, "CHECKPOINT"}); err != nil {
		return err
	}
	// The load is measured before and after, because each trial leaves the tables larger than it found them.
	alone := func(when string) (result, error) {
		return b.engineOn(ctx, "engine "+when+" a rebuild of the rollups", database, b.load(many, uniform), books)
	}
	before, err := alone("before")
	if err != nil {
		return err
	}
	beside, err := b.besideRollups(ctx, database, books)
	if err != nil {
		return err
	}
	after, err := alone("after")
	if err != nil {
		return err
	}
	before.perSecond = (before.perSecond + after.perSecond) / 2
	b.report.rate("rollup_beside_load", beside, before, 0.95)
	if err := b.lab.verify(ctx, database, books); err != nil {
		return err
	}
	return b.lab.drop(ctx, database)
}

// besideRollups has the load while all sums are made anew, again and again.
func (b *bench) besideRollups(ctx context.Context, database string, books *books) (result, error) {
	rebuilding, enough := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := b.rollUp(rebuilding, database, false); err != nil || rebuilding.Err() != nil {
				done <- err
				return
			}
		}
	}()
	r, err := b.engineOn(ctx, "engine beside a rebuild of the rollups", database, b.load(many, uniform), books)
	enough()
	if rebuild := <-done; rebuild != nil && !errors.Is(rebuild, context.Canceled) {
		err = errors.Join(err, rebuild)
	}
	return r, err
}
