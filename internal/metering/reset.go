// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// ResetState says how a run of the reset stands.
type ResetState string

// The states of a run.
const (
	ResetRunning ResetState = "Running"
	// ResetSucceeded: all that was due is closed.
	ResetSucceeded ResetState = "Succeeded"
	// ResetFailed: some accounts could not be closed, or the run gave up before it had seen all.
	ResetFailed ResetState = "Failed"
	// ResetInterrupted: it was asked to end.
	ResetInterrupted ResetState = "Interrupted"
	// ResetLost: its process died.
	ResetLost ResetState = "Lost"
)

// ResetRun is one run of the reset over the accounts of a plan.
type ResetRun struct {
	ID    quota.ID
	Plan  string
	Actor string
	State ResetState
	// StartedAt, UpdatedAt and FinishedAt are the database's clock; FinishedAt is zero while it runs.
	StartedAt, UpdatedAt, FinishedAt time.Time
	// Accounts that had something to close, Periods that were closed, and Failures: accounts that could not be closed.
	Accounts, Periods, Failures int64
	Message                     string
}

// ResetOptions say how to reset a plan.
type ResetOptions struct {
	// Plan by its name, and Actor who asks.
	Plan, Actor string
	// BatchSize is how many accounts one transaction closes (the plan's if zero), Workers how many transactions run at once (2
	// if zero).
	BatchSize, Workers int
	// RetryFor bounds how long the run waits for a database that does not answer; 5 min if zero.
	RetryFor time.Duration
	// FullSpeed keeps the run from making way for others who are at work in the database.
	FullSpeed bool
	// DryRun counts what would be closed, and writes nothing.
	DryRun bool
	// Progress is told now and then how far the run has come; nil is told nothing.
	Progress func(ResetResult)
}

// ResetResult counts what a reset did, or with DryRun would do.
type ResetResult struct {
	// Due is how many accounts had an ended period when the run began.
	Due int64
	// Accounts of which something was closed, and Periods in all. An account that somebody else closed meanwhile is in neither.
	Accounts, Periods int64
	// Seen are the accounts that the run is done with, in whatever way.
	Seen int64
	// Failed accounts could not be closed. Failures names some of them.
	Failed   int64
	Failures []ResetFailure
}

// ResetFailure is an account that could not be closed.
type ResetFailure struct {
	Account quota.ID
	Err     error
}

func (f ResetFailure) String() string {
	return fmt.Sprintf("account %s: %v", uuid.UUID(f.Account), f.Err)
}

// ErrAccountsFailed says that a reset closed all accounts but some.
var ErrAccountsFailed = errors.New("accounts could not be closed")

const (
	// maxFailures bounds how many accounts a result names.
	maxFailures = 20
	// maxDeferred bounds how many accounts wait for another try before the run goes on.
	maxDeferred = 10_000
	// resetTries is how often an account is tried that fails by itself, with growing pauses in between.
	resetTries = 3
	// resetPause is the first pause of a back-off that doubles.
	resetPause = 500 * time.Millisecond
	maxPause   = 15 * time.Second
	// resetSaveInterval is how often a run writes how far it has come. A run that is silent for much longer is Lost.
	resetSaveInterval = 5 * time.Second
)

// Reset closes the ended periods of all accounts of a plan, a batch a transaction, through the same writer path as everything
// else. It looks for what is due without locks, in pages by account id, and whoever holds an account closes it: so running it
// twice, beside itself, or again after it was killed changes nothing more. An account that fails is tried again and then left
// behind, and ErrAccountsFailed says so at the end. If ctx ends, the batches under way are finished and its cause is returned.
func (s *Service) Reset(ctx context.Context, o ResetOptions) (ResetResult, error) {
	r := &reset{s: s, o: o.withDefaults(), run: ResetRun{ID: quota.ID(uuid.New()), Plan: o.Plan, Actor: o.Actor, State: ResetRunning}}
	if err := r.begin(ctx); err != nil {
		return ResetResult{}, err
	}
	beside, stop := context.WithCancel(ctx)
	var besides sync.WaitGroup
	besides.Go(func() { r.report(beside) })
	if !r.o.FullSpeed {
		besides.Go(func() { r.watchOthers(beside) })
	}
	err := r.closeAll(ctx)
	stop()
	besides.Wait()
	res := r.result()
	if err == nil && res.Failed > 0 {
		err = fmt.Errorf("%d %w", res.Failed, ErrAccountsFailed)
	}
	return res, errors.Join(err, r.end(ctx, res, err))
}

func (o ResetOptions) withDefaults() ResetOptions {
	if o.Workers <= 0 {
		o.Workers = 2
	}
	if o.RetryFor <= 0 {
		o.RetryFor = 5 * time.Minute
	}
	if o.Progress == nil {
		o.Progress = func(ResetResult) {}
	}
	return o
}

// reset is a run under way.
type reset struct {
	s   *Service
	o   ResetOptions
	run ResetRun

	// others says whether others are at work in the database.
	others atomic.Bool

	mu       sync.Mutex
	res      ResetResult
	deferred []quota.ID
}

func (r *reset) result() ResetResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	res := r.res
	res.Failures = append([]ResetFailure(nil), r.res.Failures...)
	return res
}

func (r *reset) begin(ctx context.Context) error {
	return r.patiently(ctx, func() error {
		plan, err := r.s.storedPlan(ctx, r.o.Plan)
		if err != nil {
			return err
		}
		if r.o.BatchSize <= 0 {
			r.o.BatchSize = int(plan.ResetBatchSize)
		}
		due, _, err := r.s.store.DueAccounts(ctx, r.o.Plan, time.Time{})
		if err != nil {
			return err
		}
		r.res.Due = due
		if r.o.DryRun {
			return nil
		}
		return r.s.store.BeginReset(ctx, r.run)
	})
}

// report says now and then how far the run has come: to the database, to who started it, and to the other processes which
// waiting work has started.
func (r *reset) report(ctx context.Context) {
	for last := time.Now(); ; {
		pause(ctx, resetPause)
		if ctx.Err() != nil {
			return
		}
		res := r.result()
		r.o.Progress(res)
		r.notify(ctx)
		if time.Since(last) >= resetSaveInterval && !r.o.DryRun {
			last = time.Now()
			// The next one tells as much.
			if err := r.s.store.SaveReset(ctx, r.runOf(ResetRunning, res, nil)); err != nil && ctx.Err() == nil {
				r.s.opts.Log(err, "writing down how far the reset has come failed")
			}
		}
	}
}

func (r *reset) notify(ctx context.Context) {
	if changes := r.s.hub.takeOutgoing(); len(changes) > 0 {
		if err := r.s.store.Notify(ctx, changes); err != nil {
			r.s.opts.Log(err, "notifying other processes failed; they find the changes by polling")
		}
	}
}

func (r *reset) runOf(state ResetState, res ResetResult, err error) ResetRun {
	run := r.run
	run.State, run.Accounts, run.Periods, run.Failures = state, res.Accounts, res.Periods, res.Failed
	if err != nil {
		run.Message = err.Error()
	}
	return run
}

// endTimeout bounds how long the end of a run waits for the database.
const endTimeout = 10 * time.Second

// end writes down how the run ended, also where it was asked to end.
func (r *reset) end(ctx context.Context, res ResetResult, err error) error {
	r.o.Progress(res)
	if r.o.DryRun {
		return nil
	}
	state := ResetSucceeded
	switch {
	case ctx.Err() != nil:
		state = ResetInterrupted
	case err != nil:
		state = ResetFailed
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	r.notify(ctx)
	return r.s.store.SaveReset(ctx, r.runOf(state, res, err))
}

// closeAll feeds pages of due accounts to the workers.
func (r *reset) closeAll(ctx context.Context) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	batches := make(chan []quota.ID)
	var workers sync.WaitGroup
	for range r.o.Workers {
		workers.Go(func() {
			for batch := range batches {
				if err := r.closePolitely(ctx, batch); err != nil {
					giveUp(err)
				}
			}
		})
	}
	err := r.feed(ctx, batches)
	close(batches)
	workers.Wait()
	if err == nil && ctx.Err() == nil {
		err = r.again(ctx)
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (r *reset) feed(ctx context.Context, batches chan<- []quota.ID) error {
	var after quota.ID
	for {
		var page []quota.ID
		err := r.patiently(ctx, func() (err error) {
			page, err = r.s.store.DuePeriods(ctx, r.o.Plan, after, r.o.BatchSize)
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		select {
		case batches <- page:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if len(page) < r.o.BatchSize {
			return nil
		}
		after = page[len(page)-1]
		if r.waiting() >= maxDeferred {
			if err := r.again(ctx); err != nil {
				return err
			}
		}
	}
}

func (r *reset) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.deferred)
}

const (
	// watchInterval is how often a run looks whether others are at work.
	watchInterval = 100 * time.Millisecond
	othersLinger  = time.Second
	// While they are, a transaction closes at most politeBatch accounts, so that nobody waits long for one of them, and is
	// followed by a pause of yield times its own length.
	politeBatch = 20
	yield       = 4
)

// watchOthers keeps an eye on whether others are at work. They are for a while after they were seen last, because most work is
// shorter than the time between two looks.
func (r *reset) watchOthers(ctx context.Context) {
	var seen time.Time
	for ; ctx.Err() == nil; pause(ctx, watchInterval) {
		// A database that does not answer is the workers' business.
		if n, err := r.s.store.Others(ctx); err == nil && n > 0 {
			seen = time.Now()
		}
		r.others.Store(time.Since(seen) < othersLinger)
	}
}

// closePolitely closes a batch at once if nobody else is at work, else in small parts with pauses: users come first.
func (r *reset) closePolitely(ctx context.Context, batch []quota.ID) error {
	for len(batch) > 0 && ctx.Err() == nil {
		n := len(batch)
		others := r.others.Load()
		if others {
			n = min(n, politeBatch)
		}
		started := time.Now()
		if err := r.closeBatch(ctx, batch[:n], false, r.deferOne); err != nil {
			return err
		}
		batch = batch[n:]
		if others {
			pause(ctx, yield*time.Since(started))
		}
	}
	return nil
}

// closeBatch closes the periods of accounts, waiting for those whom somebody else holds if wait says so. It tells left of each that
// failed, or that it did not wait for; the lock is held then. It fails if the database does not answer for too long.
func (r *reset) closeBatch(ctx context.Context, batch []quota.ID, wait bool, left func(quota.ID, error)) error {
	return r.patiently(ctx, func() error {
		results := r.attempt(batch, wait)
		var away error
		var unanswered []quota.ID
		r.mu.Lock()
		defer r.mu.Unlock()
		for i, res := range results {
			switch {
			case res.err == nil:
				r.closedOne(res.periods)
			case errors.Is(res.err, ErrUnavailable):
				unanswered, away = append(unanswered, batch[i]), res.err
			default:
				left(batch[i], res.err)
			}
		}
		batch = unanswered
		return away
	})
}

// deferOne leaves an account for later. The caller holds the lock.
func (r *reset) deferOne(id quota.ID, _ error) { r.deferred = append(r.deferred, id) }

// failedOne gives an account up. The caller holds the lock.
func (r *reset) failedOne(id quota.ID, err error) {
	r.res.Seen++
	r.res.Failed++
	if len(r.res.Failures) < maxFailures {
		r.res.Failures = append(r.res.Failures, ResetFailure{Account: id, Err: err})
	}
}

// closedOne counts an account that the run is done with. The caller holds the lock.
func (r *reset) closedOne(periods int) {
	r.res.Seen++
	if periods > 0 {
		r.res.Accounts++
		r.res.Periods += int64(periods)
	}
}

// again works through the accounts that were left for later, waiting for those whom somebody holds.
func (r *reset) again(ctx context.Context) error {
	r.mu.Lock()
	left := r.deferred
	r.deferred = nil
	r.mu.Unlock()
	for try := 1; len(left) > 0; try++ {
		var failed []quota.ID
		onFailure := r.failedOne
		if try < resetTries {
			onFailure = func(id quota.ID, _ error) { failed = append(failed, id) }
		}
		for len(left) > 0 && ctx.Err() == nil {
			n := min(len(left), r.o.BatchSize)
			batch := left[:n]
			left = left[n:]
			if err := r.closeBatch(ctx, batch, true, onFailure); err != nil {
				return err
			}
		}
		if left = failed; len(left) > 0 {
			pause(ctx, resetPause<<(try-1))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// accountReset is what became of one account of a batch.
type accountReset struct {
	periods int
	err     error
}

// attempt runs accounts through the engine, all in one transaction unless one of them makes it fail.
func (r *reset) attempt(accounts []quota.ID, wait bool) []accountReset {
	if r.o.DryRun {
		return r.attemptDry(accounts)
	}
	results := make([]accountReset, len(accounts))
	calls := make([]*call, len(accounts))
	for i, id := range accounts {
		calls[i] = &call{account: id, unlessBusy: !wait, done: make(chan struct{}), apply: func(l *Ledger, _ Batch) error {
			// It may run again: only the last time counts.
			results[i].periods = l.Rolled
			return nil
		}}
	}
	r.s.engine.run(calls, wait)
	for i, c := range calls {
		<-c.done
		results[i].err = c.err
	}
	return results
}

// attemptDry rolls the accounts in a transaction that is not committed.
func (r *reset) attemptDry(accounts []quota.ID) []accountReset {
	results := make([]accountReset, len(accounts))
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	b, err := r.s.store.Begin(ctx, Keys{Accounts: accounts, Wait: true})
	if errors.Is(err, ErrData) && len(accounts) > 1 {
		half := len(accounts) / 2
		return append(r.attemptDry(accounts[:half]), r.attemptDry(accounts[half:])...)
	}
	if err != nil {
		for i := range results {
			results[i].err = err
		}
		return results
	}
	defer b.Rollback()
	for i, id := range accounts {
		if l := b.Ledgers()[id]; l != nil {
			results[i].periods = len(l.Account.Roll(l.Now))
		}
	}
	return results
}

// patiently does something again, with growing pauses, while the database does not answer, for as long as the options say.
func (r *reset) patiently(ctx context.Context, do func() error) error {
	wait := resetPause
	for started := time.Now(); ; {
		err := do()
		if err == nil || ctx.Err() != nil || !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrRetry) {
			return err
		}
		if time.Since(started)+wait > r.o.RetryFor {
			return fmt.Errorf("gave up after %s: %w", r.o.RetryFor, err)
		}
		r.s.opts.Log(err, "the database does not answer, trying again")
		pause(ctx, wait)
		wait = min(2*wait, maxPause)
	}
}

// LastReset returns the run of a plan's reset that started last, nil before the first, and when one last closed all that was
// due, zero before.
func (s *Service) LastReset(ctx context.Context, plan string) (run *ResetRun, succeeded time.Time, err error) {
	return s.store.LastReset(ctx, plan)
}

// Overdue says how far the resets of a plan are behind.
type Overdue struct {
	Plan string
	// Accounts whose open period ended before a run of the reset that should have closed it; Oldest is when the first of these
	// periods ended, zero without any.
	Accounts int64
	Oldest   time.Time
}

// OverdueResets counts, for a plan, the accounts whose period ended at or before the instant and is open still.
func (s *Service) OverdueResets(ctx context.Context, plan string, before time.Time) (Overdue, error) {
	n, oldest, err := s.store.DueAccounts(ctx, plan, before)
	if err != nil || n == 0 {
		return Overdue{Plan: plan}, err
	}
	return Overdue{Plan: plan, Accounts: n, Oldest: oldest}, nil
}
