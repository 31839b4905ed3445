// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// pairsToRefusal is how many pairs there are to one admission that is refused, and refusedUsers which share of the
	// users asks for these: one of so many.
	pairsToRefusal = 4
	refusedUsers   = 10
	// refusalTurns is how often each side is measured, and refusalTrial for how long at least: what is counted is
	// written down every five seconds.
	refusalTurns = 5
	refusalTrial = 10 * time.Second
	// tooLarge is a file that the plan does not allow.
	tooLarge = 64 << 20
)

// refusalStore writes down what was refused, and how long that took, or nothing of it.
type refusalStore struct {
	*ledgerdb.Store

	written bool
	took    atomic.Int64
}

func (s *refusalStore) AddRefusals(ctx context.Context, counted []metering.Refusals) error {
	if !s.written {
		return nil
	}
	began := time.Now()
	defer func() { s.took.Add(int64(time.Since(began))) }()
	return s.Store.AddRefusals(ctx, counted)
}

// withRefusals is a target some of whose admissions are refused, which no pair is counted for.
type withRefusals struct{ *engine }

func (t withRefusals) pair(ctx context.Context, client, user int) error {
	if t.serial.Load()%pairsToRefusal == 0 {
		result, err := t.admit(ctx, client, 1+user/refusedUsers, tooLarge)
		if err != nil {
			return err
		}
		if got := result.Decision; got.Outcome != quota.Refuse || got.Reason != quota.FileTooLarge {
			return fmt.Errorf("a file of %d bytes: %s, want that it is refused", tooLarge, got.Message())
		}
	}
	return t.engine.pair(ctx, client, user)
}

// refusalRecording compares the engine with one that does not write down what it has refused.
func (b *bench) refusalRecording(ctx context.Context) error {
	l := b.load(many, uniform)
	l.duration = max(l.duration, refusalTrial)
	recording, stop, err := b.refusing(ctx, "engine, refusals recorded", true)
	if err != nil {
		return err
	}
	not, stopNot, err := b.refusing(ctx, "engine, not recorded", false)
	if err != nil {
		return errors.Join(err, stop(nil))
	}
	err = b.inTurn(ctx, "refusal_recording_cost", 0.99, l, refusalTurns, [2]contender{recording, not})
	return errors.Join(stop(err), stopNot(err))
}

// refusing starts an engine on a database of its own, which writes down what it has refused or does not. stop looks
// into the database, unless something has failed before.
func (b *bench) refusing(
	ctx context.Context, what string, written bool,
) (_ contender, stop func(failed error) error, err error) {
	database, err := b.lab.fresh(ctx)
	if err != nil {
		return contender{}, nil, err
	}
	dsn := b.lab.server.DSN(database)
	store, err := ledgerdb.Open(ctx, dsn, postgres.Options{})
	if err != nil {
		return contender{}, nil, err
	}
	beside := &refusalStore{Store: store, written: written}
	began := time.Now()
	e, end := startEngineOn(ctx, store, beside)
	c := contender{what, withRefusals{e}, &books{}}
	return c, func(failed error) error {
		err, ran := end(), time.Since(began)
		if failed != nil || err != nil {
			return errors.Join(failed, err)
		}
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			return err
		}
		var refused, rows int64
		err = conn.QueryRow(ctx, "SELECT coalesce(sum(refusals), 0)::bigint, count(*) FROM usage_refusals").
			Scan(&refused, &rows)
		if err = errors.Join(err, conn.Close(ctx)); err != nil {
			return err
		}
		b.report.progressf("%s: %d refusals in %d rows, which took %s of %s", what, refused, rows,
			time.Duration(beside.took.Load()).Round(time.Millisecond), ran.Round(time.Second))
		if err := b.check(ctx, what, database, c.books); err != nil {
			return err
		}
		return b.lab.drop(ctx, database)
	}, nil
}
