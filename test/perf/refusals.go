// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	// refusalPairs is how many pairs of turns are compared. A turn is what lies between two times at which it is due to
	// write down what was refused, longestTurn at most: so each has the cost of one, or none.
	refusalPairs = 24
	longestTurn  = 5500 * time.Millisecond
	// writtenTimes is how often all of it is written down, and what that takes is divided by: so is then what the
	// processor time of a pair scatters by.
	writtenTimes = 10
	// tooLarge is a file that the plan does not allow.
	tooLarge = 64 << 20
)

// refusalStore writes down what was refused, or nothing of it, in turn.
type refusalStore struct {
	*ledgerdb.Store

	// written says in which turns it does. Before the first one there is one that is not measured.
	written []bool
	warm    bool
	// read says what has been spent, and at has that of the beginning of each turn and of the end of the last one.
	read func() (spent, error)
	at   []spent
	// took is how long writing took, and failed what kept read from saying it.
	took   time.Duration
	failed error
}

// AddRefusals begins the next turn. One calls it at a time.
func (s *refusalStore) AddRefusals(ctx context.Context, counted []metering.Refusals) error {
	turn := len(s.at)
	switch {
	case !s.warm:
		s.warm = true
		return nil
	case turn > len(s.written):
		return nil // it is over
	}
	now, err := s.read()
	s.at, s.failed = append(s.at, now), errors.Join(s.failed, err)
	if turn == len(s.written) || !s.written[turn] {
		return nil
	}
	began := time.Now()
	defer func() { s.took += time.Since(began) }()
	for range writtenTimes {
		if err := s.Store.AddRefusals(ctx, counted); err != nil {
			return err
		}
	}
	return nil
}

// withRefusals is a target some of whose admissions are refused, which no pair is counted for.
type withRefusals struct {
	*engine

	pairs atomic.Int64
}

func (t *withRefusals) pair(ctx context.Context, client, user int) error {
	if t.serial.Load()%pairsToRefusal == 0 {
		result, err := t.admit(ctx, client, 1+user/refusedUsers, tooLarge)
		if err != nil {
			return err
		}
		if got := result.Decision; got.Outcome != quota.Refuse || got.Reason != quota.FileTooLarge {
			return fmt.Errorf("a file of %d bytes: %s, want that it is refused", tooLarge, got.Message())
		}
	}
	err := t.engine.pair(ctx, client, user)
	if err == nil {
		t.pairs.Add(1)
	}
	return err
}

// refusalRecording compares the processor time of a pair in turns in which what was refused is written down with that
// in turns in which it is not, on one engine: which other work on the machine moves less than rates, and two turns that
// follow each other alike.
func (b *bench) refusalRecording(ctx context.Context) error {
	database, err := b.lab.fresh(ctx)
	if err != nil {
		return err
	}
	store, err := ledgerdb.Open(ctx, b.lab.server.DSN(database), postgres.Options{})
	if err != nil {
		return err
	}
	target := &withRefusals{}
	beside := &refusalStore{Store: store, written: inPairs(refusalPairs), read: func() (spent, error) {
		pairs := target.pairs.Load()
		own, err := processorTime(os.Getpid())
		databases, errDatabases := processorTime(b.lab.server.PID())
		return spent{pairs, own + databases}, errors.Join(err, errDatabases)
	}}
	e, stop := startEngineOn(ctx, store, beside)
	target.engine = e
	l, books := b.load(many, uniform), &books{}
	l.warmup, l.duration = 0, longestTurn*time.Duration(len(beside.written)+2)
	_, err = b.try(ctx, "engine, refusals recorded in every second turn", target, l, books)
	if err := errors.Join(err, stop(), beside.failed); err != nil {
		return err
	}
	if err := b.compareTurns(ctx, database, beside); err != nil {
		return err
	}
	if err := b.check(ctx, "engine, refusals recorded", database, books); err != nil {
		return err
	}
	return b.lab.drop(ctx, database)
}

func (b *bench) compareTurns(ctx context.Context, database string, of *refusalStore) error {
	if got, want := len(of.at), len(of.written)+1; got != want {
		return fmt.Errorf("%d turns have begun, want %d", got, want)
	}
	cost := turnCosts{times: writtenTimes}
	for i, written := range of.written {
		cost.add(written, of.at[i+1].each(of.at[i]))
	}
	conn, err := pgx.Connect(ctx, b.lab.server.DSN(database))
	if err != nil {
		return err
	}
	var refused, rows int64
	err = conn.QueryRow(ctx, "SELECT coalesce(sum(refusals), 0)::bigint, count(*) FROM usage_refusals").
		Scan(&refused, &rows)
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return err
	}
	b.report.progressf("%d refusals in %d rows written down %d times in %d turns, which took %s", refused/writtenTimes,
		rows, writtenTimes, len(of.written)/2, of.took.Round(time.Millisecond))
	b.report.turns("refusal_recording_cost", cost, 0.99)
	return nil
}
