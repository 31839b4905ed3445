// SPDX-License-Identifier: Apache-2.0

// Package reset closes the ended periods of a plan's accounts in bulk, through the same writer path as everything else.
package reset

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/loop"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// State says how a run of the reset stands.
type State string

// The states of a run.
const (
	Running State = "Running"
	// Succeeded: all that was due is closed.
	Succeeded State = "Succeeded"
	// Failed: some accounts could not be closed, or the run gave up before it had seen all.
	Failed State = "Failed"
	// Interrupted: it was asked to end.
	Interrupted State = "Interrupted"
	// Lost: its process died.
	Lost State = "Lost"
)

// RunID is the id of a run.
type RunID = quota.UUID[Run]

// Run is one run of the reset over the accounts of a plan.
type Run struct {
	ID    RunID
	Plan  string
	Actor string
	State State
	// StartedAt, UpdatedAt and FinishedAt are the database's clock; FinishedAt is zero while it runs.
	StartedAt, UpdatedAt, FinishedAt time.Time
	// Accounts that had something to close, Periods that were closed, and Failures: accounts that could not be closed.
	Accounts, Periods, Failures int64
	Message                     string
}

// Options say how to reset a plan.
type Options struct {
	// Plan by its name, and Actor who asks.
	Plan, Actor string
	// BatchSize is how many accounts one transaction closes (the plan's if zero), Workers how many transactions run at
	// once (2 if zero).
	BatchSize, Workers int
	// RetryFor bounds how long the run waits for a database that does not answer; 5 min if zero.
	RetryFor time.Duration
	// FullSpeed keeps the run from making way for others who are at work in the database.
	FullSpeed bool
	// DryRun counts what would be closed, and writes nothing.
	DryRun bool
	// Progress is told now and then how far the run has come; nil is told nothing.
	Progress func(Result)
}

// Result counts what a reset did, or with DryRun would do.
type Result struct {
	// Due is how many accounts had an ended period when the run began.
	Due int64
	// Accounts of which something was closed, and Periods in all. An account that somebody else closed meanwhile is in
	// neither.
	Accounts, Periods int64
	// Seen are the accounts that the run is done with, in whatever way.
	Seen int64
	// Failed accounts could not be closed. Failures names some of them.
	Failed   int64
	Failures []Failure
}

// Failure is an account that could not be closed.
type Failure struct {
	Account quota.AccountID
	Err     error
}

func (f Failure) String() string {
	return fmt.Sprintf("account %s: %v", f.Account, f.Err)
}

// Store is what a reset reads, and where it writes down how far it has come. Its errors wrap those of package ledger.
type Store interface {
	ledger.Store
	ledger.Notifier
	DueStore
	RunStore
}

// DueStore finds what a reset has to do, without locks.
type DueStore interface {
	// ResetBatchSize returns how many accounts of a plan one transaction closes, or ErrNotFound.
	ResetBatchSize(ctx context.Context, plan string) (int32, error)
	// DuePeriods looks for accounts of a plan whose open period has ended, in pages ordered by id after the given one.
	DuePeriods(ctx context.Context, plan string, after quota.AccountID, limit int) ([]quota.AccountID, error)
	// DueAccounts counts the accounts of a plan whose open period ended at or before an instant (zero: the present),
	// and says when the first of these periods ended.
	DueAccounts(ctx context.Context, plan string, until time.Time) (accounts int64, oldest time.Time, err error)
	// Others counts the sessions that are at work in the database at this moment, except those of programs with this
	// one's name.
	Others(ctx context.Context) (int, error)
}

// RunStore keeps the runs of the resets.
type RunStore interface {
	// BeginReset writes the row of a run that begins; runs of the plan whose process died are marked Lost. SaveReset
	// writes how far it has come.
	BeginReset(ctx context.Context, run Run) error
	SaveReset(ctx context.Context, run Run) error
	// LastReset reads the run of a plan's reset that started last, nil before the first, and when one last succeeded.
	LastReset(ctx context.Context, plan string) (run *Run, succeeded time.Time, err error)
}

// Service resets plans. It is safe for concurrent use.
type Service struct {
	engine *ledger.Engine
	store  Store
	log    func(err error, message string)
}

// New returns a service that closes periods through the engine. It tells log what it could not do; nil keeps silent.
func New(engine *ledger.Engine, store Store, log func(err error, message string)) *Service {
	if log == nil {
		log = func(error, string) {}
	}
	return &Service{engine: engine, store: store, log: log}
}

// ErrAccountsFailed says that a reset closed all accounts but some.
var ErrAccountsFailed = errors.New("accounts could not be closed")

const (
	// maxFailures bounds how many accounts a result names.
	maxFailures = 20
	// maxDeferred bounds how many accounts wait for another try before the run goes on.
	maxDeferred = 10_000
	// tries is how often an account is tried that fails by itself, with growing pauses in between.
	tries = 3
	// firstPause is the first pause of a back-off that doubles.
	firstPause = 500 * time.Millisecond
	// saveInterval is how often a run writes how far it has come. A run that is silent for much longer is Lost.
	saveInterval = 5 * time.Second
)

// Run closes the ended periods of all accounts of a plan, a batch a transaction, through the same writer path as
// everything else. It looks for what is due without locks, in pages by account id, and whoever holds an account closes
// it: so running it twice, beside itself, or again after it was killed changes nothing more. An account that fails is
// tried again and then left behind, and ErrAccountsFailed says so at the end. If ctx ends, the batches under way are
// finished and its cause is returned.
func (s *Service) Run(ctx context.Context, o Options) (Result, error) {
	r := &run{s: s, o: o.withDefaults(),
		row: Run{ID: RunID(uuid.New()), Plan: o.Plan, Actor: o.Actor, State: Running}}
	if err := r.begin(ctx); err != nil {
		return Result{}, err
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

func (o Options) withDefaults() Options {
	if o.Workers <= 0 {
		o.Workers = 2
	}
	if o.RetryFor <= 0 {
		o.RetryFor = 5 * time.Minute
	}
	if o.Progress == nil {
		o.Progress = func(Result) {}
	}
	return o
}

// reset is a run under way.
type run struct {
	s   *Service
	o   Options
	row Run

	// others says whether others are at work in the database.
	others atomic.Bool

	mu       sync.Mutex
	res      Result
	deferred []quota.AccountID
}

func (r *run) result() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	res := r.res
	res.Failures = append([]Failure(nil), r.res.Failures...)
	return res
}

func (r *run) begin(ctx context.Context) error {
	return r.patiently(ctx, func() error {
		batchSize, err := r.s.store.ResetBatchSize(ctx, r.o.Plan)
		if err != nil {
			return err
		}
		if r.o.BatchSize <= 0 {
			r.o.BatchSize = int(batchSize)
		}
		due, _, err := r.s.store.DueAccounts(ctx, r.o.Plan, time.Time{})
		if err != nil {
			return err
		}
		r.res.Due = due
		if r.o.DryRun {
			return nil
		}
		return r.s.store.BeginReset(ctx, r.row)
	})
}

// report says now and then how far the run has come: to the database, to who started it, and to the other processes
// which waiting work has started.
func (r *run) report(ctx context.Context) {
	for last := time.Now(); ; {
		loop.Pause(ctx, firstPause)
		if ctx.Err() != nil {
			return
		}
		res := r.result()
		r.o.Progress(res)
		r.notify(ctx)
		if time.Since(last) >= saveInterval && !r.o.DryRun {
			last = time.Now()
			// The next one tells as much.
			if err := r.s.store.SaveReset(ctx, r.runOf(Running, res, nil)); err != nil && ctx.Err() == nil {
				r.s.log(err, "writing down how far the reset has come failed")
			}
		}
	}
}

func (r *run) notify(ctx context.Context) {
	if err := r.s.engine.Tell(ctx, r.s.store); err != nil {
		r.s.log(err, "notifying other processes failed; they find the changes by polling")
	}
}

func (r *run) runOf(state State, res Result, err error) Run {
	run := r.row
	run.State, run.Accounts, run.Periods, run.Failures = state, res.Accounts, res.Periods, res.Failed
	if err != nil {
		run.Message = err.Error()
	}
	return run
}

// endTimeout bounds how long the end of a run waits for the database.
const endTimeout = 10 * time.Second

// end writes down how the run ended, also where it was asked to end.
func (r *run) end(ctx context.Context, res Result, err error) error {
	r.o.Progress(res)
	if r.o.DryRun {
		return nil
	}
	state := Succeeded
	switch {
	case ctx.Err() != nil:
		state = Interrupted
	case err != nil:
		state = Failed
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	r.notify(ctx)
	return r.s.store.SaveReset(ctx, r.runOf(state, res, err))
}

// closeAll feeds pages of due accounts to the workers.
func (r *run) closeAll(ctx context.Context) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	batches := make(chan []quota.AccountID)
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

func (r *run) feed(ctx context.Context, batches chan<- []quota.AccountID) error {
	var after quota.AccountID
	for {
		var page []quota.AccountID
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

func (r *run) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.deferred)
}

const (
	// watchInterval is how often a run looks whether others are at work.
	watchInterval = 100 * time.Millisecond
	othersLinger  = time.Second
	// While they are, a transaction closes at most politeBatch accounts, so that nobody waits long for one of them, and
	// is followed by a pause of yield times its own length.
	politeBatch = 20
	yield       = 4
)

// watchOthers keeps an eye on whether others are at work. They are for a while after they were seen last, because most
// work is shorter than the time between two looks.
func (r *run) watchOthers(ctx context.Context) {
	var seen time.Time
	for ; ctx.Err() == nil; loop.Pause(ctx, watchInterval) {
		// A database that does not answer is the workers' business.
		if n, err := r.s.store.Others(ctx); err == nil && n > 0 {
			seen = time.Now()
		}
		r.others.Store(time.Since(seen) < othersLinger)
	}
}

// closePolitely closes a batch at once if nobody else is at work, else in small parts with pauses: users come first.
func (r *run) closePolitely(ctx context.Context, batch []quota.AccountID) error {
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
			loop.Pause(ctx, yield*time.Since(started))
		}
	}
	return nil
}

// closeBatch closes the periods of accounts, waiting for those whom somebody else holds if wait says so. It tells left
// of each that failed, or that it did not wait for; the lock is held then. It fails if the database does not answer for
// too long.
func (r *run) closeBatch(
	ctx context.Context,
	batch []quota.AccountID,
	wait bool,
	left func(quota.AccountID, error),
) error {
	return r.patiently(ctx, func() error {
		results := r.attempt(batch, wait)
		var away error
		var unanswered []quota.AccountID
		r.mu.Lock()
		defer r.mu.Unlock()
		for i, res := range results {
			switch {
			case res.err == nil:
				r.closedOne(res.periods)
			case errors.Is(res.err, ledger.ErrUnavailable):
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
func (r *run) deferOne(id quota.AccountID, _ error) { r.deferred = append(r.deferred, id) }

// failedOne gives an account up. The caller holds the lock.
func (r *run) failedOne(id quota.AccountID, err error) {
	r.res.Seen++
	r.res.Failed++
	if len(r.res.Failures) < maxFailures {
		r.res.Failures = append(r.res.Failures, Failure{Account: id, Err: err})
	}
}

// closedOne counts an account that the run is done with. The caller holds the lock.
func (r *run) closedOne(periods int) {
	r.res.Seen++
	if periods > 0 {
		r.res.Accounts++
		r.res.Periods += int64(periods)
	}
}

// again works through the accounts that were left for later, waiting for those whom somebody holds.
func (r *run) again(ctx context.Context) error {
	r.mu.Lock()
	left := r.deferred
	r.deferred = nil
	r.mu.Unlock()
	for try := 1; len(left) > 0; try++ {
		var failed []quota.AccountID
		onFailure := r.failedOne
		if try < tries {
			onFailure = func(id quota.AccountID, _ error) { failed = append(failed, id) }
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
			loop.Pause(ctx, firstPause<<(try-1))
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
func (r *run) attempt(accounts []quota.AccountID, wait bool) []accountReset {
	if r.o.DryRun {
		return r.attemptDry(accounts)
	}
	results := make([]accountReset, len(accounts))
	ops := make([]ledger.Op, len(accounts))
	for i, id := range accounts {
		ops[i] = ledger.Op{Account: id, Apply: func(l *ledger.Ledger, _ ledger.Batch) error {
			// It may run again: only the last time counts.
			results[i].periods = l.Rolled
			return nil
		}}
	}
	for i, err := range r.s.engine.Together(ops, wait) {
		results[i].err = err
	}
	return results
}

// attemptDry rolls the accounts in a transaction that is not committed.
func (r *run) attemptDry(accounts []quota.AccountID) []accountReset {
	results := make([]accountReset, len(accounts))
	ctx, cancel := context.WithTimeout(context.Background(), ledger.BatchTimeout)
	defer cancel()
	b, err := r.s.store.Begin(ctx, ledger.Keys{Accounts: accounts, Wait: true})
	if errors.Is(err, ledger.ErrData) && len(accounts) > 1 {
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
		switch l := b.Ledgers()[id]; {
		case l != nil && l.Unreadable != nil:
			results[i].err = l.Unreadable
		case l != nil:
			results[i].periods = len(l.Account.Roll(l.Now))
		}
	}
	return results
}

// patiently does something again while the database does not answer, for as long as the options say.
func (r *run) patiently(ctx context.Context, do func() error) error {
	return ledger.Patiently(ctx, r.o.RetryFor, func(err error) {
		r.s.log(err, "the database does not answer, trying again")
	}, do)
}

// Last returns the run of a plan's reset that started last, nil before the first, and when one last closed all that was
// due, zero before.
func (s *Service) Last(ctx context.Context, plan string) (run *Run, succeeded time.Time, err error) {
	return s.store.LastReset(ctx, plan)
}

// Overdue says how far the resets of a plan are behind.
type Overdue struct {
	Plan string
	// Accounts whose open period ended before a run of the reset that should have closed it; Oldest is when the first
	// of these periods ended, zero without any.
	Accounts int64
	Oldest   time.Time
}

// Overdue counts, for a plan, the accounts whose period ended at or before the instant and is open still.
func (s *Service) Overdue(ctx context.Context, plan string, before time.Time) (Overdue, error) {
	n, oldest, err := s.store.DueAccounts(ctx, plan, before)
	if err != nil || n == 0 {
		return Overdue{Plan: plan}, err
	}
	return Overdue{Plan: plan, Accounts: n, Oldest: oldest}, nil
}
