// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// snapshot measures beside a session that holds its snapshot for as long as the option says, as an analyst's query or a
// dump does: no version of a row that has been replaced since can go. The figures are of the last seconds of it, one
// half for each.
func (b *bench) snapshot(ctx context.Context) (err error) {
	database, err := b.lab.fresh(ctx)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, b.lab.server.DSN(database))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	holder, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	if _, err := holder.Exec(ctx, "SELECT count(*) FROM usage_quotas"); err != nil {
		return err
	}
	b.report.progressf("a session holds its snapshot for %s", b.opts.snapshot)
	books := &books{}
	for _, f := range []struct {
		name   string
		spread spread
		goal   float64
	}{{"admit_engine_snapshot_uniform_256", uniform, 0.8}, {"admit_engine_snapshot_hot_256", hot, 0.2}} {
		l := b.load(many, f.spread)
		l.warmup = (b.opts.snapshot/2 - l.duration).Truncate(time.Second)
		r, err := b.engineOn(ctx, "engine beside a snapshot", database, l, books)
		if err != nil {
			return err
		}
		without, err := b.engineTrial(ctx, many, f.spread)
		if err != nil {
			return err
		}
		b.report.rate(f.name, r, without, f.goal)
	}
	if err := holder.Rollback(ctx); err != nil {
		return err
	}
	if err := b.check(ctx, "beside a snapshot", database, books); err != nil {
		return err
	}
	return b.lab.drop(ctx, database)
}

// full measures on tables that hold millions of admissions and events already.
func (b *bench) full(ctx context.Context) error {
	empty, err := b.engineTrial(ctx, many, uniform)
	if err != nil {
		return err
	}
	database, err := b.lab.fresh(ctx)
	if err != nil {
		return err
	}
	b.report.progressf("making %d admissions with their events", b.opts.events)
	books, err := b.lab.fill(ctx, database, b.opts.events)
	if err != nil {
		return err
	}
	r, err := b.engineOn(ctx, "engine on full tables", database, b.load(many, uniform), books)
	if err != nil {
		return err
	}
	b.report.rate("admit_engine_full_256", r, empty, 0.8)
	if err := b.lab.verify(ctx, database, books); err != nil {
		return err
	}
	return b.lab.drop(ctx, database)
}
