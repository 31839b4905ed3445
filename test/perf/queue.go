// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// slots of the user with a queue.
	slots = 10
	// shortQueue and longQueue are how many wait behind them.
	shortQueue = 10
	longQueue  = 10_000
)

// queueDepth measures how fast the work of a user with a queue turns over, and what its neighbours make beside it.
func (b *bench) queueDepth(ctx context.Context) error {
	turnover, bystanders, err := b.queueTrial(ctx, longQueue)
	if err != nil {
		return err
	}
	shortTurnover, shortBystanders, err := b.queueTrial(ctx, shortQueue)
	if err != nil {
		return err
	}
	b.report.rate("queue_depth_turnover", turnover, shortTurnover, 0.8)
	b.report.rate("queue_depth_bystanders", bystanders, shortBystanders, 0.9)
	return nil
}

// queueTrial keeps so many waiting behind a user's slots: each that ends is followed by another one, while others make
// pairs.
func (b *bench) queueTrial(ctx context.Context, depth int) (turnover, bystanders result, err error) {
	database, err := b.lab.fresh(ctx)
	if err != nil {
		return turnover, bystanders, err
	}
	e, stop, err := startEngine(ctx, b.lab.server.DSN(database))
	if err != nil {
		return turnover, bystanders, err
	}
	defer func() {
		if err = errors.Join(err, stop()); err == nil {
			err = b.lab.drop(ctx, database)
		}
	}()
	q := &queue{engine: e, running: make(chan *ledger.Admission, slots)}
	if err := q.fill(ctx, depth); err != nil {
		return turnover, bystanders, err
	}
	l := load{clients: some, users: b.opts.users - 1, spread: uniform, warmup: b.opts.warmup, duration: b.opts.duration}
	if err := e.warm(ctx, l); err != nil {
		return turnover, bystanders, err
	}
	turning, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	var trouble error
	group.Go(func() { trouble = q.turn(turning) })
	type mark struct {
		turned int64
		at     time.Time
	}
	warm := make(chan mark, 1)
	time.AfterFunc(l.warmup, func() { warm <- mark{q.turned.Load(), time.Now()} })
	bystanders, err = b.try(ctx, fmt.Sprintf("engine beside a queue of %d", depth), neighbours{e}, l, &books{})
	from, turned := <-warm, q.turned.Load()
	turnover = result{pairs: int(turned), perSecond: float64(turned-from.turned) / time.Since(from.at).Seconds()}
	cancel()
	group.Wait()
	b.report.trial(fmt.Sprintf("turnover with %d queued", depth), load{clients: slots, spread: hot}, turnover)
	return turnover, bystanders, errors.Join(err, trouble)
}

// neighbours are all users but the one with the queue.
type neighbours struct{ *engine }

func (n neighbours) pair(ctx context.Context, client, user int) error {
	return n.engine.pair(ctx, client, user+1)
}

// queue is the work of user-1.
type queue struct {
	*engine

	running chan *ledger.Admission
	turned  atomic.Int64
}

func (q *queue) fill(ctx context.Context, depth int) error {
	if err := q.service.ApplyQuota(ctx, metering.Quota{
		ObjectUID: quota.ID{1}, ObjectName: "user-1", UserID: "user-1", Zone: "UTC", Overrides: quota.Overrides{
			Concurrent: new(quota.AtMost[int32](slots)), Queued: &quota.Limit[int32]{Unlimited: true},
			Credits: &quota.Limit[quota.Credits]{Unlimited: true},
		},
	}, "bench"); err != nil {
		return err
	}
	return everyone(many, slots+depth, func(int, int) error { return q.add(ctx) })
}

// add asks for one more, and takes note of it if it runs.
func (q *queue) add(ctx context.Context) error {
	key := q.run + "-queue-" + strconv.FormatInt(q.serial.Add(1), 10)
	res, err := q.service.Admit(ctx, metering.AdmitRequest{
		UserID: "user-1", Key: key, BodyHash: []byte(key), Source: quota.SourceAPI,
		RequestedBy: "system:serviceaccount:bench:queue",
		Estimate:    quota.Credits(declared.Milliseconds()), FileSize: fileSize, Lease: quota.MaxLease, Queue: true,
	})
	switch {
	case err != nil:
		return err
	case res.Admission == nil:
		return fmt.Errorf("user-1 was refused: %s", res.Decision.Message())
	case res.Admission.State == quota.Admitted:
		select {
		case q.running <- res.Admission:
		case <-ctx.Done():
		}
	}
	return nil
}

// turn completes what runs, each after it has asked for another one, until ctx ends.
func (q *queue) turn(ctx context.Context) error {
	changes := q.service.Subscribe(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		for c := range changes {
			if c.State == quota.Admitted {
				// One that was completed as ctx ended has a successor that nobody takes.
				select {
				case q.running <- &ledger.Admission{Admission: quota.Admission{ID: c.ID}}:
				case <-ctx.Done():
				}
			}
		}
	})
	err := everyone(slots, slots, func(int, int) error {
		for {
			select {
			case adm := <-q.running:
				if err := q.add(ctx); err != nil {
					return endedIs(ctx, err)
				}
				if _, err := q.service.Complete(ctx, adm.Account, adm.ID,
					quota.Credits(used.Milliseconds())); err != nil {
					return endedIs(ctx, err)
				}
				q.turned.Add(1)
			case <-ctx.Done():
				return nil
			}
		}
	})
	group.Wait()
	return err
}

// endedIs is no error once ctx has ended.
func endedIs(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // whoever ended it wants no error
	}
	return err
}
