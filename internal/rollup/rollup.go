// SPDX-License-Identifier: Apache-2.0

// Package rollup keeps the sums from which questions about use are answered, so that nobody reads events for them.
//
// Sums are made anew for whole days, and never added to: whatever was late, reversed or counted by a run that was
// killed comes right with the next run, and running twice, beside itself or again changes nothing more.
package rollup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/loop"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Options say how to roll up.
type Options struct {
	// BatchSize is how many accounts one transaction rolls up at most; 200 if zero, 100,000 if all are made anew at
	// full speed. It takes fewer where they have decided much.
	BatchSize int
	// RetryFor bounds how long the run waits for a database that does not answer; 5 min if zero.
	RetryFor time.Duration
	// Rebuild makes the sums of all accounts anew, not only of those that have changed.
	Rebuild bool
	// PeriodsEvery is how old what periods come to may be before it is made anew, which Rebuild does in any case; an
	// hour if zero.
	PeriodsEvery time.Duration
	// FullSpeed keeps the run from making way for others who are at work in the database: two transactions are under
	// way at once, and where all sums are made anew they are so large that reading all events for each is the cheapest.
	FullSpeed bool
	// Progress is told after each transaction how far the run has come, once at a time; nil is told nothing.
	Progress func(Result)
}

// Page is what one transaction did.
type Page struct {
	// Accounts that were brought up to date, Days of theirs that were made anew, and Rows that these have. An account
	// whose days are made anew as a whole counts as one day.
	Accounts, Days, Rows int64
	// Held are accounts that somebody else is rolling up at the moment.
	Held []quota.AccountID
}

// Result counts what a run did.
type Result struct {
	// Accounts, Days and Rows, as of a page.
	Accounts, Days, Rows int64
	// Failed accounts could not be rolled up. Failures names some of them.
	Failed   int64
	Failures []Failure
	// AsOf is the instant before which everything that was answered is in the sums of all accounts; zero as long as
	// the run has not come to its end.
	AsOf time.Time
}

// Failure is an account that could not be rolled up.
type Failure struct {
	Account quota.AccountID
	Err     error
}

func (f Failure) String() string { return fmt.Sprintf("account %s: %v", f.Account, f.Err) }

// Store finds what is to be rolled up, and does it. Its errors wrap those of package ledger.
type Store interface {
	Users
	Totals
	Periods

	// Clock reads the database's clock.
	Clock(ctx context.Context) (time.Time, error)
	// Complete writes down that the sums of all accounts have what was answered before an instant.
	Complete(ctx context.Context, asOf time.Time) error
	// Others counts the sessions that are at work in the database at this moment, except those of programs with this
	// one's name.
	Others(ctx context.Context) (int, error)
}

// Users makes the sums of users.
type Users interface {
	// Changed looks, without locks, for users who have decided something that their sums do not have, or all who have
	// decided anything: with ids behind one, in their order, as many as the batch may have.
	Changed(ctx context.Context, after quota.AccountID, rebuild bool, b Batch) ([]quota.AccountID, error)
	// RollUp makes the days anew that changed, or all days, in one snapshot and one transaction.
	RollUp(ctx context.Context, accounts []quota.AccountID, rebuild bool) (Page, error)
}

// Batch bounds what one transaction does.
type Batch struct {
	// Accounts at most, which have decided at most so often together what their sums do not have: one of them may have
	// more. An event takes one or two decisions.
	Accounts  int
	Decisions int64
}

// Totals makes the totals of all users.
type Totals interface {
	// StaleDays are the days of UTC whose totals are older than the sums of users, and Total makes those of one anew.
	StaleDays(ctx context.Context) ([]time.Time, error)
	Total(ctx context.Context, day time.Time) error
}

// Periods makes what the periods of all accounts come to: how much of their credits they used, what they were sold for,
// and who came back month by month.
type Periods interface {
	// PeriodsSummed is when that was made last; zero: never.
	PeriodsSummed(ctx context.Context) (time.Time, error)
	// SumPeriods makes all of it anew.
	SumPeriods(ctx context.Context, asOf time.Time) error
}

// ErrAccountsFailed says that all accounts were rolled up but some.
var ErrAccountsFailed = errors.New("accounts could not be rolled up")

const (
	defaultBatch = 200
	// decisions of a batch, which take a fraction of a second.
	decisions = 10_000
	// What all is made anew by at full speed: each transaction reads the tables of events from end to end, which costs
	// less than looking for its events one by one as long as it has a good share of them.
	rebuildBatch     = 100_000
	rebuildDecisions = 2_000_000
	// workers is how many transactions are under way at once at full speed.
	workers         = 2
	defaultRetryFor = 5 * time.Minute
	defaultPeriods  = time.Hour
	// heldPause is how long those are left alone whom others are rolling up.
	heldPause = 200 * time.Millisecond
	// Beside others a transaction is followed by a pause of yield times its own length: a twentieth of a
	// processor is taken.
	yield = 19
	// maxFailures bounds how many accounts a result names.
	maxFailures = 20
)

// Run rolls up the accounts that have changed, a batch a transaction. An account that fails is left behind, and
// ErrAccountsFailed says so at the end. If ctx ends, the transaction under way is given up, and the cause is returned:
// what was done stays done.
func Run(ctx context.Context, store Store, o Options) (Result, error) {
	r := &run{store: store, o: o, batch: Batch{Accounts: defaultBatch, Decisions: decisions}, workers: 1}
	if o.FullSpeed {
		r.workers = workers
	}
	if o.FullSpeed && o.Rebuild {
		r.batch = Batch{Accounts: rebuildBatch, Decisions: rebuildDecisions}
	}
	if o.BatchSize > 0 {
		r.batch.Accounts = o.BatchSize
	}
	if r.o.RetryFor <= 0 {
		r.o.RetryFor = defaultRetryFor
	}
	if r.o.PeriodsEvery <= 0 {
		r.o.PeriodsEvery = defaultPeriods
	}
	err := r.all(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return r.res, err
}

type run struct {
	store   Store
	o       Options
	batch   Batch
	workers int

	// mu guards what the workers count.
	mu  sync.Mutex
	res Result
	// held are for the end: others were at work on them.
	held []quota.AccountID
}

func (r *run) all(ctx context.Context) error {
	var asOf time.Time
	err := r.patiently(ctx, func() (err error) {
		asOf, err = r.store.Clock(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if err := r.users(ctx); err != nil {
		return err
	}
	if err := r.again(ctx); err != nil {
		return err
	}
	if err := r.total(ctx); err != nil {
		return err
	}
	if err := r.periods(ctx, asOf); err != nil {
		return err
	}
	if r.res.Failed > 0 {
		return fmt.Errorf("%d %w", r.res.Failed, ErrAccountsFailed)
	}
	r.res.AsOf = asOf
	return r.patiently(ctx, func() error { return r.store.Complete(ctx, asOf) })
}

// users has the workers take batches of accounts in their order, until there are no more.
func (r *run) users(ctx context.Context) error {
	var after quota.AccountID
	return r.share(ctx, func(ctx context.Context) (work func() error, err error) {
		var accounts []quota.AccountID
		err = r.patiently(ctx, func() (err error) {
			accounts, err = r.store.Changed(ctx, after, r.o.Rebuild, r.batch)
			return err
		})
		if err != nil || len(accounts) == 0 {
			return nil, err
		}
		after = accounts[len(accounts)-1]
		return func() error { return r.rollUp(ctx, accounts, r.o.Rebuild) }, nil
	})
}

// total makes the totals of all users anew of the days on which sums of users have changed, whoever has changed them.
func (r *run) total(ctx context.Context) error {
	var days []time.Time
	err := r.patiently(ctx, func() (err error) {
		days, err = r.store.StaleDays(ctx)
		return err
	})
	if err != nil {
		return err
	}
	return r.share(ctx, func(ctx context.Context) (work func() error, err error) {
		if len(days) == 0 {
			return nil, nil
		}
		// One of them does all days of a month, which has a sum of its own.
		n := 1
		for n < len(days) && days[n].Month() == days[0].Month() && days[n].Year() == days[0].Year() {
			n++
		}
		month := days[:n]
		days = days[n:]
		return func() error { return r.totalDays(ctx, month) }, nil
	})
}

func (r *run) totalDays(ctx context.Context, days []time.Time) error {
	for _, day := range days {
		started := time.Now()
		if err := r.patiently(ctx, func() error { return r.store.Total(ctx, day) }); err != nil {
			return err
		}
		r.makeWay(ctx, time.Since(started))
	}
	return nil
}

// share has the workers do what next says, which is asked by one at a time, until that is nothing or somebody fails.
func (r *run) share(ctx context.Context, next func(ctx context.Context) (work func() error, err error)) error {
	all, ctx := errgroup.WithContext(ctx)
	var asking sync.Mutex
	ask := func() (work func() error, err error) {
		asking.Lock()
		defer asking.Unlock()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return next(ctx)
	}
	for range r.workers {
		all.Go(func() error {
			for {
				work, err := ask()
				if work == nil || err != nil {
					return err
				}
				if err := work(); err != nil {
					return err
				}
			}
		})
	}
	return all.Wait()
}

// periods makes what periods come to anew, where that is old. It reads every period, so not each run does.
func (r *run) periods(ctx context.Context, now time.Time) error {
	var last time.Time
	err := r.patiently(ctx, func() (err error) {
		last, err = r.store.PeriodsSummed(ctx)
		return err
	})
	if err != nil || !r.o.Rebuild && now.Before(last.Add(r.o.PeriodsEvery)) {
		return err
	}
	return r.patiently(ctx, func() error { return r.store.SumPeriods(ctx, now) })
}

// makeWay pauses while others are at work.
func (r *run) makeWay(ctx context.Context, took time.Duration) {
	if r.o.FullSpeed {
		return
	}
	// A database that does not answer is the next transaction's business.
	if n, err := r.store.Others(ctx); err == nil && n > 0 {
		loop.Pause(ctx, yield*took)
	}
}

// again waits for those whom others were at work on: what they have done may be older than this run.
func (r *run) again(ctx context.Context) error {
	deadline := time.Now().Add(r.o.RetryFor)
	for len(r.held) > 0 {
		loop.Pause(ctx, heldPause)
		if time.Now().After(deadline) {
			return fmt.Errorf("somebody else has been at work on %d accounts for %s", len(r.held), r.o.RetryFor)
		}
		n := min(len(r.held), r.batch.Accounts)
		accounts := r.held[:n]
		r.held = r.held[n:]
		if err := r.rollUp(ctx, accounts, false); err != nil {
			return err
		}
	}
	return nil
}

// rollUp does a batch, in halves if it fails for what one of its accounts has.
func (r *run) rollUp(ctx context.Context, accounts []quota.AccountID, rebuild bool) error {
	if len(accounts) == 0 {
		return nil
	}
	var page Page
	started := time.Now()
	err := r.patiently(ctx, func() (err error) {
		started = time.Now()
		page, err = r.store.RollUp(ctx, accounts, rebuild)
		return err
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case errors.Is(err, ledger.ErrData) && len(accounts) > 1:
		half := len(accounts) / 2
		if err := r.rollUp(ctx, accounts[:half], rebuild); err != nil {
			return err
		}
		return r.rollUp(ctx, accounts[half:], rebuild)
	case errors.Is(err, ledger.ErrData):
		r.mu.Lock()
		defer r.mu.Unlock()
		r.res.Failed++
		if len(r.res.Failures) < maxFailures {
			r.res.Failures = append(r.res.Failures, Failure{Account: accounts[0], Err: err})
		}
		return nil
	case err != nil:
		return err
	}
	r.count(page)
	r.makeWay(ctx, time.Since(started))
	return nil
}

func (r *run) count(page Page) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Accounts, r.res.Days, r.res.Rows = r.res.Accounts+page.Accounts, r.res.Days+page.Days, r.res.Rows+page.Rows
	r.held = append(r.held, page.Held...)
	if r.o.Progress != nil {
		r.o.Progress(r.res)
	}
}

// patiently does something again while the database does not answer, or asks for it, for RetryFor at most.
func (r *run) patiently(ctx context.Context, do func() error) error {
	return ledger.Patiently(ctx, r.o.RetryFor, nil, do)
}
