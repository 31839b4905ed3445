// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// call is one operation on one account, waiting for its batch.
type call struct {
	account quota.ID
	// admission and plans that the operation needs to see; zero and nil if none.
	admission quota.ID
	plans     []string
	// key is the idempotency key under which the operation makes something once, and event what it is about; empty if none.
	key   string
	event quota.ID
	// apply changes the ledger, or returns the caller's error and leaves the ledger as it was. It may run more than once,
	// each time on fresh facts, and only the last run counts.
	apply func(l *Ledger, b Batch) error
	// unlessBusy has the call answered with errBusy where somebody else holds the account, instead of waiting for the lock.
	unlessBusy bool
	// err is the answer, valid once done is closed.
	err  error
	done chan struct{}
}

func (c *call) answer(err error) {
	c.err = err
	close(c.done)
}

const (
	// batchTimeout bounds one attempt at a batch, so that a database that hangs does not hang its callers.
	batchTimeout = 10 * time.Second
	// retryFor bounds how long a batch is tried again after serialization failures and lost connections.
	retryFor = 30 * time.Second
)

// engine coalesces calls into batches. A batch is whatever arrived while all the lanes were busy: no delay is ever added. The
// calls of one account run one batch after another, in the order in which they came.
type engine struct {
	store Store
	// lanes is how many batches may be in the database at once.
	lanes, maxBatch, maxPending int
	// promoted is told, after the commit, what changed in the queues.
	promoted func([]Change)
	running  inflight

	mu sync.Mutex
	// accounts are those of which calls wait or run, ready those of them that no batch has, in the order of arrival.
	accounts map[quota.ID]*pending
	ready    []*pending
	// waiting calls in all, and lanes that are busy.
	waiting, busy int

	// lockSlots bounds how many connections may wait for the lock of an account that another process holds.
	lockSlots chan struct{}
}

// pending are the calls of one account that wait, in order. While taken, a batch has others of the account, or waits for its
// lock.
type pending struct {
	account quota.ID
	calls   []*call
	taken   bool
}

// inflight counts what runs. Unlike a sync.WaitGroup it may be waited for while more is being started.
type inflight struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when n falls to 0; nil unless somebody waits
}

func (f *inflight) start(do func()) {
	f.mu.Lock()
	f.n++
	f.mu.Unlock()
	go func() {
		defer f.end()
		do()
	}()
}

func (f *inflight) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
}

// wait returns at a moment at which nothing runs.
func (f *inflight) wait() {
	f.mu.Lock()
	if f.n == 0 {
		f.mu.Unlock()
		return
	}
	if f.idle == nil {
		f.idle = make(chan struct{})
	}
	idle := f.idle
	f.mu.Unlock()
	<-idle
}

func newEngine(store Store, opts Options, promoted func([]Change)) *engine {
	return &engine{
		store: store, lanes: opts.Lanes, maxBatch: opts.MaxBatch, maxPending: opts.MaxPending, promoted: promoted,
		accounts: map[quota.ID]*pending{}, lockSlots: make(chan struct{}, opts.Lanes),
	}
}

// do runs c in a batch and returns its answer. If ctx ends first the caller is let go; the call may still take effect.
func (e *engine) do(ctx context.Context, c *call) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := e.enqueue(c); err != nil {
		return err
	}
	return c.wait(ctx)
}

// wait returns the call's answer, or the context's error if that ends first.
func (c *call) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enqueue takes note of a call, behind those of its account that are there. If no batch has the account it is ready, and opens a
// lane if one is free.
func (e *engine) enqueue(c *call) error {
	c.done = make(chan struct{})
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waiting >= e.maxPending {
		return ErrOverloaded
	}
	e.waiting++
	p := e.accounts[c.account]
	if p == nil {
		p = &pending{account: c.account}
		e.accounts[c.account] = p
	}
	p.calls = append(p.calls, c)
	if p.taken || len(p.calls) > 1 {
		return nil
	}
	e.ready = append(e.ready, p)
	if e.busy < e.lanes {
		e.busy++
		e.running.start(e.lane)
	}
	return nil
}

// lane runs batches until nothing is ready.
func (e *engine) lane() {
	for {
		// Whoever has just been answered and asks again at once is in the next batch, not in the one after it.
		runtime.Gosched()
		batch, accounts := e.take()
		if len(batch) == 0 {
			return
		}
		e.done(accounts, e.run(batch, false))
	}
}

// take makes a batch of what is ready. Without any it closes the lane.
func (e *engine) take() (batch []*call, accounts []*pending) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.ready) > 0 && len(batch) < e.maxBatch {
		p := e.ready[0]
		e.ready[0], e.ready = nil, e.ready[1:]
		p.taken = true
		accounts = append(accounts, p)
		batch = append(batch, e.some(p, e.maxBatch-len(batch))...)
	}
	if len(batch) == 0 {
		e.busy--
	}
	return batch, accounts
}

// some takes the first calls of an account, at most n.
func (e *engine) some(p *pending, n int) []*call {
	n = min(n, len(p.calls))
	calls := p.calls[:n:n]
	p.calls = p.calls[n:]
	e.waiting -= n
	return calls
}

// done gives the accounts of a batch free for the next one, except those of the calls that found their account held by another
// process: these wait for its lock in a transaction of their own, so that bystanders do not.
func (e *engine) done(accounts []*pending, held []*call) {
	e.mu.Lock()
	defer e.mu.Unlock()
	again := make(map[quota.ID][]*call, len(held))
	for _, c := range held {
		again[c.account] = append(again[c.account], c)
	}
	for _, p := range accounts {
		if calls := again[p.account]; calls != nil {
			e.waiting += len(calls)
			p.calls = append(calls, p.calls...)
			e.running.start(func() { e.waitFor(p) })
			continue
		}
		e.free(p)
	}
}

// free lets go of an account, whose calls may be taken from now on.
func (e *engine) free(p *pending) {
	p.taken = false
	if len(p.calls) == 0 {
		delete(e.accounts, p.account)
		return
	}
	e.ready = append(e.ready, p)
	if e.busy < e.lanes {
		e.busy++
		e.running.start(e.lane)
	}
}

// waitFor runs the calls of an account whose lock another process has, until none is left.
func (e *engine) waitFor(p *pending) {
	e.lockSlots <- struct{}{}
	defer func() { <-e.lockSlots }()
	for {
		e.mu.Lock()
		batch := e.some(p, e.maxBatch)
		if len(batch) == 0 {
			e.free(p)
			e.mu.Unlock()
			return
		}
		e.mu.Unlock()
		e.run(batch, true)
	}
}

// run answers every call of the batch, trying again and splitting it as the store's errors ask. It returns those that it did not
// answer because somebody else holds their account: none if it waits for locks.
func (e *engine) run(calls []*call, wait bool) (held []*call) {
	deadline := time.Now().Add(retryFor)
	for attempt := 0; ; attempt++ {
		out, err := e.attempt(calls, wait)
		switch {
		case err == nil:
			e.promoted(out.changes)
			for i, c := range calls {
				if out.errs[i] == errBusy && !c.unlessBusy { //nolint:errorlint // a mark of our own, never wrapped
					held = append(held, c)
					continue
				}
				c.answer(out.errs[i])
			}
			return held
		case out != nil && out.panicked != nil:
			// The others have nothing to do with it: they run again without it.
			out.panicked.answer(err)
			if calls = slices.DeleteFunc(calls, func(c *call) bool { return c == out.panicked }); len(calls) == 0 {
				return nil
			}
			continue
		case errors.Is(err, ErrData) && len(calls) > 1:
			half := len(calls) / 2
			return append(e.run(calls[:half:half], wait), e.run(calls[half:], wait)...)
		case (errors.Is(err, ErrRetry) || errors.Is(err, ErrUnknownOutcome)) && time.Now().Before(deadline):
			time.Sleep(min(time.Second, time.Duration(attempt+1)*10*time.Millisecond))
			continue
		case errors.Is(err, ErrUnknownOutcome):
			err = fmt.Errorf("%w, and whether the call took effect is not known: repeat it as it is: %w", ErrUnavailable, err)
		case errors.Is(err, ErrRetry):
			// The database answers, so it is not unavailable; somebody else holds what the batch needs.
			err = fmt.Errorf("%w: %w", ErrOverloaded, err)
		}
		for _, c := range calls {
			c.answer(err)
		}
		return nil
	}
}

// outcome of an attempt: the answer of each call by its index, and the call that broke it if one did.
type outcome struct {
	errs     []error
	changes  []Change
	panicked *call
}

func (e *engine) attempt(calls []*call, wait bool) (*outcome, error) {
	// Not the callers' context: one of them going away must not abort the others' transaction.
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	b, err := e.store.Begin(ctx, keysOf(calls, wait))
	if err != nil {
		return nil, err
	}
	defer b.Rollback()

	out := &outcome{errs: make([]error, len(calls))}
	ledgers := b.Ledgers()
	for _, l := range ledgers {
		roll(l)
		out.changes = promote(l, out.changes)
	}
	for i, c := range calls {
		l, ok := ledgers[c.account]
		if !ok {
			if b.Busy()[c.account] {
				out.errs[i] = errBusy
				continue
			}
			out.errs[i] = fmt.Errorf("%w %x: %w", errNoAccount, c.account, ErrNotFound)
			continue
		}
		if out.errs[i], err = applySafely(c, l, b); err != nil {
			out.panicked = c
			return out, err
		}
		if out.errs[i] == nil {
			out.changes = promote(l, out.changes)
		}
	}
	if err := b.Commit(ctx); err != nil {
		return nil, err
	}
	return out, nil
}

// errNoAccount marks a call whose account is not there.
var errNoAccount = errors.New("account")

// errBusy marks a call whose account somebody else holds. No caller outside this package sees it.
var errBusy = errors.New("busy")

// applySafely keeps a defect in one operation from taking down the calls that happen to share its batch.
func applySafely(c *call, l *Ledger, b Batch) (answer, panicked error) {
	defer func() {
		if p := recover(); p != nil {
			panicked = fmt.Errorf("internal error on account %x: %v\n%s", c.account, p, debug.Stack())
		}
	}()
	return c.apply(l, b), nil
}

func keysOf(calls []*call, wait bool) Keys {
	keys := Keys{Wait: wait, Accounts: make([]quota.ID, 0, len(calls)), Admissions: make([]quota.ID, 0, len(calls))}
	seen := make(map[quota.ID]bool, len(calls))
	for _, c := range calls {
		if !seen[c.account] {
			seen[c.account] = true
			keys.Accounts = append(keys.Accounts, c.account)
		}
		if c.admission != (quota.ID{}) {
			keys.Admissions = append(keys.Admissions, c.admission)
		}
		if c.key != "" {
			keys.Idempotency = append(keys.Idempotency, AccountKey{Account: c.account, Key: c.key})
		}
		if c.event != (quota.ID{}) {
			keys.Events = append(keys.Events, c.event)
		}
		keys.Plans = append(keys.Plans, c.plans...)
	}
	return keys
}

// roll closes the periods that have ended.
func roll(l *Ledger) {
	closed := l.Account.Roll(l.Now)
	for i := range closed {
		p := &closed[i]
		l.Closed[p.No] = p
		l.Rolled++
		l.Audit = append(l.Audit, AuditRow{
			Actor: "system", Action: "period.closed", Kind: "Account", Name: l.Account.UserID,
			After: map[string]any{
				"period_no": p.No, "start": p.Period.Start, "end": p.Period.End, "used": p.Used, "reserved": p.Reserved, "carry_over": p.CarryOver,
			},
		})
	}
}

// promote lets waiting work start where it may now, and adds what changed to changes.
func promote(l *Ledger, changes []Change) []Change {
	if len(l.Queue) == 0 {
		return changes
	}
	queue := make([]*quota.Admission, len(l.Queue))
	for i, a := range l.Queue {
		queue[i] = &a.Admission
	}
	for _, adm := range l.Account.Promote(queue, l.Now) {
		i := slices.Index(queue, adm)
		c := Change{ID: adm.ID, State: adm.State}
		if adm.Source == quota.SourceJob {
			c.Namespace, c.Name = l.Queue[i].Namespace, l.Queue[i].Name
		}
		changes = append(changes, c)
	}
	l.Queue = slices.DeleteFunc(l.Queue, func(a *Admission) bool { return a.State != quota.Queued })
	return changes
}

// closed returns the closed period that the admission belongs to; nil if its period is open or none yet.
func (l *Ledger) closed(a *Admission) (*quota.ClosedPeriod, error) {
	if a.State == quota.Queued || a.State == quota.Cancelled || a.PeriodNo == l.Account.PeriodNo {
		return nil, nil
	}
	return l.closedPeriod(a.PeriodNo)
}

// closedPeriod returns a closed period, or ErrNotFound.
func (l *Ledger) closedPeriod(no int64) (*quota.ClosedPeriod, error) {
	p := l.Closed[no]
	if p == nil {
		return nil, fmt.Errorf("period %d of user %q: %w", no, l.Account.UserID, ErrNotFound)
	}
	return p, nil
}
