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

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// slots of the team whose users have a queue, and how many users it has at most.
	slots     = 10
	teamUsers = 1000
	// shortQueue and longQueue are how many wait behind them.
	shortQueue = 10
	longQueue  = 10_000
)

// queueDepth measures how fast the work of a team's users that waits turns over, and what others make beside it.
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

// queueTrial keeps so many waiting behind a team's slots: each that ends is followed by another one of the same user,
// while others make pairs.
func (b *bench) queueTrial(ctx context.Context, depth int) (turnover, bystanders result, err error) {
	database, err := b.lab.fresh(ctx)
	if err != nil {
		return turnover, bystanders, err
	}
	users := min(teamUsers, b.opts.users/2)
	if err := b.lab.gather(ctx, database, users, slots); err != nil {
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
	q := &queue{engine: e, users: users, running: make(chan started, slots)}
	if err := q.fill(ctx, depth); err != nil {
		return turnover, bystanders, err
	}
	l := load{
		clients: some, users: b.opts.users - users, spread: uniform, warmup: b.opts.warmup, duration: b.opts.duration,
	}
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
	bystanders, err = b.try(ctx, fmt.Sprintf("engine beside a queue of %d", depth), neighbours{e, users}, l, &books{})
	from, turned := <-warm, q.turned.Load()
	turnover = result{pairs: int(turned), perSecond: float64(turned-from.turned) / time.Since(from.at).Seconds()}
	cancel()
	group.Wait()
	b.report.trial(fmt.Sprintf("turnover with %d queued", depth), load{clients: slots, spread: hot}, turnover)
	return turnover, bystanders, errors.Join(err, trouble)
}

// neighbours are all users but those of the team.
type neighbours struct {
	*engine

	team int
}

func (n neighbours) pair(ctx context.Context, client, user int) error {
	return n.engine.pair(ctx, client, user+n.team)
}

// queue is the work of the first users, who are below one team.
type queue struct {
	*engine

	users   int
	running chan started
	// owners are the users of the admissions that wait, by quota.AdmissionID.
	owners sync.Map
	turned atomic.Int64
}

// started is work that runs, and whose it is.
type started struct {
	account quota.AccountID
	id      quota.AdmissionID
	user    int
}

func (q *queue) fill(ctx context.Context, depth int) error {
	return everyone(many, slots+depth, func(_, n int) error { return q.add(ctx, 1+n%q.users) })
}

// add asks for one more of a user's, and takes note of it if it runs.
func (q *queue) add(ctx context.Context, user int) error {
	key := q.run + "-queue-" + strconv.FormatInt(q.serial.Add(1), 10)
	id := quota.AdmissionID(quota.NameID("admission", quota.AccountID{}, key))
	q.owners.Store(id, user)
	res, err := q.service.Admit(ctx, metering.AdmitRequest{
		UserID: "user-" + strconv.Itoa(user), ID: id, BodyHash: []byte(key), Source: quota.SourceAPI,
		RequestedBy: "system:serviceaccount:bench:queue",
		Estimate:    quota.Credits(declared.Milliseconds()), FileSize: fileSize, Lease: quota.MaxLease, Queue: true,
	})
	switch {
	case err != nil:
		return err
	case res.Admission == nil:
		return fmt.Errorf("user-%d was refused: %s", user, res.Decision.Message())
	case res.Admission.State == quota.Admitted:
		select {
		case q.running <- started{res.Admission.Account, id, user}:
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
			if c.State != quota.Admitted {
				continue
			}
			if user, known := q.owners.LoadAndDelete(c.ID); known {
				// One that was completed as ctx ended has a successor that nobody takes.
				select {
				case q.running <- started{id: c.ID, user: user.(int)}:
				case <-ctx.Done():
				}
			}
		}
	})
	err := everyone(slots, slots, func(int, int) error {
		for {
			select {
			case r := <-q.running:
				if err := q.add(ctx, r.user); err != nil {
					return endedIs(ctx, err)
				}
				if _, err := q.service.Complete(ctx, r.account, r.id,
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
