// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
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

// Op is one operation on one account: a user's, with those above it, or a team's.
type Op struct {
	Account quota.AccountID
	// Register is the id of a user who has no account yet; Account is then the id that it is to have. If somebody else
	// makes the account first, the operation fails with ErrRegistered.
	Register string
	// Found is the name of a team that has no account yet, in place of Register; the operation asks for the Tree.
	Found string
	// Tree has the operation see all teams, and nobody else change one of them meanwhile. Join is a team that somebody
	// is to be below: it is seen, and not retired meanwhile; empty if none.
	Tree bool
	Join string
	// Admission and Plans that the operation needs to see; zero and nil if none.
	Admission quota.AdmissionID
	Plans     []string
	// Key is the idempotency key under which the operation makes something once, and Event what it is about; empty if
	// none.
	Key   string
	Event quota.EventID
	// Search looks for parked work behind what every batch looks at; nil for most operations. Recheck starts such a
	// search: the plan of the account has changed, or the day.
	Search  *Search
	Recheck bool
	// Walk goes through those that wait below the account, a team; nil for most operations.
	Walk *Walk
	// Apply changes the ledger, or returns the caller's error and leaves the ledger as it was. It may run more than
	// once, each time on fresh facts, and only the last run counts.
	Apply func(l *Ledger, b Batch) error
	// Repairs has the operation applied to an account whose declared settings cannot be read, because it replaces them.
	Repairs bool
}

// Call is an operation that waits for its batch.
type Call struct {
	Op

	// unlessBusy has the call answered with ErrBusy where somebody else holds the account, instead of waiting for the
	// lock.
	unlessBusy bool
	// group is the one whose calls it waits with, and top the account at the top of the tree in which its batch has
	// found the account; zero as long as it waits, and if it was not found. root says that this is the root team.
	group *pending
	top   quota.AccountID
	root  bool
	// unsure says that an earlier run may have taken effect, and what it left to do is not known.
	unsure bool
	// err is the answer, valid once done is closed.
	err  error
	done chan struct{}
}

func newCall(op Op) *Call { return &Call{Op: op, done: make(chan struct{})} }

func (c *Call) answer(err error) {
	c.err = err
	close(c.done)
}

const (
	// BatchTimeout bounds one attempt at a batch, so that a database that hangs does not hang its callers.
	BatchTimeout = 10 * time.Second
	// retryFor bounds how long a batch is tried again after serialization failures and lost connections.
	retryFor = 30 * time.Second
)

// Options of an Engine. The zero value is usable.
type Options struct {
	// Lanes is how many batches may be in the database at once; if zero as many as there are processors, but at least
	// 2, so that one can wait for its commit, and at most 8. MaxBatch bounds the calls of one batch (512), MaxPending
	// those that wait (16,384): beyond it calls fail with ErrOverloaded.
	Lanes, MaxBatch, MaxPending int
}

// GCPercent is what a process that serves many calls should set the garbage collector's GOGC to, unless told otherwise:
// its live data are a few megabytes, and calls make a lot of garbage. At 100 collecting took a third of the engine's
// time.
const GCPercent = 400

// Engine coalesces calls into batches. A batch is whatever arrived while all the lanes were busy: no delay is ever
// added. The calls of one account run one batch after another, in the order in which they came, and so do those of all
// accounts below one top: they lock it all the same, so they had better meet in one batch.
type Engine struct {
	store Store
	// lanes is how many batches may be in the database at once.
	lanes, maxBatch, maxPending int
	// hub is told, after the commit, what changed in the queues.
	hub     *hub
	running inflight

	mu sync.Mutex
	// groups are those of which calls wait or run, by the account at their top, ready those of them that no batch has,
	// in the order of arrival.
	groups map[quota.AccountID]*pending
	ready  []*pending
	// tops are the tops of accounts that are not alone, as the last batch found them. An error costs a meeting in one
	// batch and no more: who is above whom is read under the locks.
	tops map[quota.AccountID]quota.AccountID
	// root is the root team as the last batch below one found it, zero if there is none: an account that nothing is
	// known of is below it.
	root quota.AccountID
	// waiting calls in all, and lanes that are busy.
	waiting, busy int

	// lockSlots bounds how many connections may wait for the lock of an account that another process holds.
	lockSlots chan struct{}
}

// pending are the calls of one group that wait, in order: those of an account alone, or of all below one top. While
// taken, a batch has others of the group, or waits for a lock of it.
type pending struct {
	top   quota.AccountID
	calls []*Call
	taken bool
	// running are those of its calls that a batch has.
	running []*Call
	// next are those whose turn it is below the top as soon as a slot is free, as the last batch found them. Each call
	// may free one, so as many of them come with the calls that are taken.
	next []quota.AccountID
}

// mostTops bounds of how many accounts the top is known. The calls of others are grouped by themselves.
const mostTops = 1 << 18

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

// New returns an engine over the store. It is safe for concurrent use.
func New(store Store, opts Options) *Engine {
	lanes := cmp.Or(opts.Lanes, min(max(runtime.GOMAXPROCS(0), 2), 8))
	return &Engine{
		store: store, lanes: lanes, maxBatch: cmp.Or(opts.MaxBatch, 512), maxPending: cmp.Or(opts.MaxPending, 16_384),
		hub:    newHub(),
		groups: map[quota.AccountID]*pending{}, tops: map[quota.AccountID]quota.AccountID{},
		lockSlots: make(chan struct{}, lanes),
	}
}

// Do runs an operation in a batch and returns its answer. If ctx ends first the caller is let go; the operation may
// still take effect, and what Apply writes is not to be read.
func (e *Engine) Do(ctx context.Context, op Op) error {
	c, err := e.Start(ctx, op)
	if err != nil {
		return err
	}
	return c.Wait(ctx)
}

// Start takes note of an operation, whose answer Call.Wait returns. It fails if ctx has ended, or with ErrOverloaded.
func (e *Engine) Start(ctx context.Context, op Op) (*Call, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := newCall(op)
	return c, e.enqueue(c)
}

// Wait returns the operation's answer, or the context's error if that ends first.
func (c *Call) Wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Together runs operations beside all others in one transaction, unless one of them makes it fail, and returns their
// answers by index. An account that another process holds is waited for if wait says so; its operation fails with
// ErrBusy otherwise.
func (e *Engine) Together(ops []Op, wait bool) []error {
	calls, answers := make([]*Call, len(ops)), make([]error, len(ops))
	for i, op := range ops {
		calls[i] = newCall(op)
		calls[i].unlessBusy = !wait
	}
	e.run(calls, wait)
	for i, c := range calls {
		<-c.done
		answers[i] = c.err
	}
	return answers
}

// Drain returns once no batch is under way.
func (e *Engine) Drain() { e.running.wait() }

// enqueue takes note of a call, behind those of its group that are there. If no batch has the group it is ready, and
// opens a lane if one is free.
func (e *Engine) enqueue(c *Call) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waiting >= e.maxPending {
		return ErrOverloaded
	}
	e.add(c)
	return nil
}

// has reports whether calls of an account wait in the group or run.
func (p *pending) has(account quota.AccountID) bool {
	of := func(c *Call) bool { return c.Account == account }
	return p != nil && (slices.ContainsFunc(p.calls, of) || slices.ContainsFunc(p.running, of))
}

// add has a call wait with those of its account, if there are any, and else with those of its tree. All of an account
// are in one group: in its own, or in that of the top that is known of it. So that is not changed while they are there.
func (e *Engine) add(c *Call) {
	top := e.top(c.Account)
	if top != c.Account && e.groups[c.Account].has(c.Account) {
		top = c.Account
	}
	e.append(e.group(top), c)
}

func (e *Engine) group(top quota.AccountID) *pending {
	p := e.groups[top]
	if p == nil {
		p = &pending{top: top}
		e.groups[top] = p
	}
	return p
}

func (e *Engine) append(p *pending, c *Call) {
	e.waiting++
	c.group = p
	p.calls = append(p.calls, c)
	if p.taken || len(p.calls) > 1 {
		return
	}
	e.ready = append(e.ready, p)
	if e.busy < e.lanes {
		e.busy++
		e.running.start(e.lane)
	}
}

// lane runs batches until nothing is ready.
func (e *Engine) lane() {
	for {
		// Whoever has just been answered and asks again at once is in the next batch, not in the one after it.
		runtime.Gosched()
		batch, groups := e.take()
		if len(batch) == 0 {
			return
		}
		e.done(groups, batch, e.run(batch, false))
	}
}

// take makes a batch of what is ready. Without any it closes the lane.
func (e *Engine) take() (batch []*Call, groups []*pending) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.ready) > 0 && len(batch) < e.maxBatch {
		p := e.ready[0]
		e.ready[0], e.ready = nil, e.ready[1:]
		p.taken = true
		groups = append(groups, p)
		batch = append(batch, e.some(p, e.maxBatch-len(batch))...)
	}
	if len(batch) == 0 {
		e.busy--
	}
	return batch, groups
}

// some takes the first calls of a group, at most n.
func (e *Engine) some(p *pending, n int) []*Call {
	n = min(n, len(p.calls))
	calls := p.calls[:n:n]
	p.calls, p.running = p.calls[n:], calls
	e.waiting -= n
	for _, id := range p.next[:min(len(p.next), n)] {
		c := newCall(*touch(id))
		c.group, c.unlessBusy = p, true
		calls = append(calls, c)
	}
	p.next = nil
	return calls
}

// done gives the groups of a batch free for the next one, except those of the calls that found their account held by
// another process: these wait for its lock in a transaction of their own, so that bystanders do not.
func (e *Engine) done(groups []*pending, batch, held []*Call) {
	e.mu.Lock()
	defer e.mu.Unlock()
	again := make(map[*pending][]*Call, len(held))
	for _, c := range held {
		// An earlier run of the batch may have found it. That is past: somebody has the account now.
		c.top, c.root = quota.AccountID{}, false
		again[c.group] = append(again[c.group], c)
	}
	for _, p := range groups {
		p.running = nil
		if calls := again[p]; calls != nil {
			e.waiting += len(calls)
			p.calls = append(calls, p.calls...)
		}
	}
	e.learn(batch)
	for _, p := range groups {
		if again[p] != nil {
			e.running.start(func() { e.waitFor(p) })
			continue
		}
		e.free(p)
	}
}

// Place takes note of the account at the top of the tree that an account was found in, so that its first call meets
// those of the others there.
func (e *Engine) Place(account, top quota.AccountID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.place(account, top)
}

// place does so unless calls of the account are where it was found before: whoever comes has to come behind them, and
// their batch will find it where it is.
func (e *Engine) place(account, top quota.AccountID) {
	if was := e.top(account); was == top || e.groups[was].has(account) {
		return
	}
	delete(e.tops, account)
	if e.top(account) != top && len(e.tops) < mostTops {
		e.tops[account] = top
	}
}

// rooted takes note of the root team, zero if there is none. The calls of the accounts that were only thought to be
// below the one before stay together there.
func (e *Engine) rooted(root quota.AccountID) {
	if e.root == root {
		return
	}
	if p := e.groups[e.root]; p != nil {
		for _, c := range slices.Concat(p.calls, p.running) {
			if _, known := e.tops[c.Account]; !known {
				e.tops[c.Account] = p.top
			}
		}
	}
	e.root = root
}

// learn takes note of where the calls of a batch found their accounts. What waits behind them goes over to the other
// group with them, in its order.
func (e *Engine) learn(batch []*Call) {
	for _, c := range batch {
		switch {
		case c.top == (quota.AccountID{}):
			continue
		case c.root:
			e.rooted(c.top)
		default:
			e.rooted(quota.AccountID{}) // with a root nobody is below none
		}
		// The call is answered, so its group is one of the batch: it is not ready, and may be left without calls.
		from := c.group
		var others []*Call
		if from.top != c.top {
			from.calls = slices.DeleteFunc(from.calls, func(o *Call) bool {
				if o.Account == c.Account {
					others = append(others, o)
				}
				return o.Account == c.Account
			})
		}
		e.waiting -= len(others)
		e.place(c.Account, c.top)
		for _, o := range others {
			e.add(o)
		}
	}
}

// top returns the top of the tree that an account was last found in.
func (e *Engine) top(account quota.AccountID) quota.AccountID {
	if len(e.tops) > 0 {
		if top, known := e.tops[account]; known {
			return top
		}
	}
	if e.root != (quota.AccountID{}) {
		return e.root
	}
	return account
}

// free lets go of a group, whose calls may be taken from now on.
func (e *Engine) free(p *pending) {
	p.taken = false
	if len(p.calls) == 0 {
		if len(p.next) == 0 {
			delete(e.groups, p.top)
		}
		return
	}
	e.ready = append(e.ready, p)
	if e.busy < e.lanes {
		e.busy++
		e.running.start(e.lane)
	}
}

// waitFor runs the calls of a group of which another process has a lock, until none is left. For each batch it takes
// its turn among the groups that do: one that always has calls would keep the others from theirs.
func (e *Engine) waitFor(p *pending) {
	for more := true; more; {
		e.lockSlots <- struct{}{}
		e.mu.Lock()
		batch := e.some(p, e.maxBatch)
		e.mu.Unlock()
		if len(batch) > 0 {
			e.run(batch, true)
		}
		e.mu.Lock()
		p.running = nil
		e.learn(batch)
		if more = len(p.calls) > 0; !more {
			e.free(p)
		}
		e.mu.Unlock()
		<-e.lockSlots
	}
}

// run answers every call of the batch, trying again and splitting it as the store's errors ask. It returns those that
// it did not answer because somebody else holds their account: none if it waits for locks.
func (e *Engine) run(calls []*Call, wait bool) (held []*Call) {
	deadline := time.Now().Add(retryFor)
	for attempt := 0; ; attempt++ {
		out, err := e.attempt(calls, wait)
		switch {
		case err == nil:
			e.hub.publish(out.changes)
			e.followUp(out.left, out.next)
			for i, c := range calls {
				if out.errs[i] == ErrBusy && !c.unlessBusy { //nolint:errorlint // a mark of our own, never wrapped
					held = append(held, c)
					continue
				}
				c.answer(out.errs[i])
			}
			return held
		case out != nil && out.panicked != nil:
			// The others have nothing to do with it: they run again without it.
			out.panicked.answer(err)
			calls = slices.DeleteFunc(slices.Clone(calls), func(c *Call) bool { return c == out.panicked })
			if len(calls) == 0 {
				return nil
			}
			continue
		case (errors.Is(err, ErrData) || errors.Is(err, errDefect)) && len(calls) > 1:
			half := len(calls) / 2
			held = e.run(calls[:half:half], wait)
			held, calls = behind(held, calls[half:])
			if len(calls) == 0 {
				return held
			}
			return append(held, e.run(calls, wait)...)
		case (errors.Is(err, ErrRetry) || errors.Is(err, ErrUnknownOutcome)) && time.Now().Before(deadline):
			for _, c := range calls {
				c.unsure = c.unsure || errors.Is(err, ErrUnknownOutcome)
			}
			time.Sleep(min(time.Second, time.Duration(attempt+1)*10*time.Millisecond))
			continue
		case errors.Is(err, ErrUnknownOutcome):
			err = fmt.Errorf("%w, and whether the call took effect is not known: repeat it as it is: %w",
				ErrUnavailable, err)
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

// behind adds to calls that were not answered, for somebody holds their accounts, those of further calls that are on
// the same accounts: they come after them. It returns the rest of them as well.
func behind(held, calls []*Call) (_, rest []*Call) {
	if len(held) == 0 {
		return nil, calls
	}
	before := make(map[quota.AccountID]bool, len(held))
	for _, c := range held {
		before[c.Account] = true
	}
	for _, c := range calls {
		switch {
		case !before[c.Account]:
			rest = append(rest, c)
		case c.unlessBusy:
			c.answer(ErrBusy)
		default:
			held = append(held, c)
		}
	}
	return held, rest
}

// outcome of an attempt: the answer of each call by its index, and the call that broke it if one did.
type outcome struct {
	errs     []error
	changes  []Change
	panicked *Call
	// left is what the batch leaves to do for others.
	left []*Op
	// next are those whose turn it is, below each top of the batch.
	next []next
}

// errDefect says that something about a batch has panicked, and no operation of it has.
var errDefect = errors.New("internal error")

func (e *Engine) attempt(calls []*Call, wait bool) (out *outcome, err error) {
	// A defect that one account brings to light is not to end the process, and the next one that the account is called
	// in: it is looked for as data are that the database refuses.
	defer func() {
		if p := recover(); p != nil {
			out, err = nil, fmt.Errorf("%w about account %x: %v\n%s", errDefect, calls[0].Account, p, debug.Stack())
		}
	}()
	// Not the callers' context: one of them going away must not abort the others' transaction.
	ctx, cancel := context.WithTimeout(context.Background(), BatchTimeout)
	defer cancel()
	b, err := e.store.Begin(ctx, keysOf(calls, wait))
	if err != nil {
		return nil, err
	}
	defer b.Rollback()

	ledgers := b.Ledgers()
	out = &outcome{errs: make([]error, len(calls)), changes: openAll(ledgers)}
	turns := newTurns(ledgers)
	out.changes = turns.begin(out.changes)
	recheck := map[quota.AccountID]bool{}
	for i, c := range calls {
		l, ok := ledgers[c.Account]
		if !ok {
			if out.errs[i] = noLedger(c, b); wait && b.Busy()[c.Account] {
				return nil, fmt.Errorf("%w: %w, and was waited for", ErrRetry, out.errs[i])
			}
			continue
		}
		if !l.New {
			c.top, c.root = l.Top(), l.top().isRoot()
		}
		unreadable := l.Unreadable
		if all := l.unreadable(); all != nil && (all != unreadable || !c.Repairs || !all.Declared) {
			out.errs[i] = all
			continue
		}
		if out.errs[i], err = applySafely(c, l, b); err != nil {
			out.panicked = c
			return out, err
		}
		if out.errs[i] == nil {
			if unreadable != nil {
				l.Unreadable = nil
				l.roll()
				l.remember()
			}
			out.changes = applied(l, c, turns, out.changes)
		}
		recheck[c.Account] = recheck[c.Account] || c.Recheck || unreadable != nil
	}
	turns.store()
	if slices.ContainsFunc(calls, func(c *Call) bool { return c.unsure }) {
		// What follows from a change is not seen by who finds it made.
		for id := range ledgers {
			recheck[id] = true
		}
	}
	out.left, out.next = leftIn(ledgers, recheck), turns.left()
	if err := b.Commit(ctx); err != nil {
		return nil, err
	}
	return out, nil
}

// openAll brings the ledgers of a batch up to now, and returns what has changed by that.
func openAll(ledgers map[quota.AccountID]*Ledger) []Change {
	var changes []Change
	for _, l := range ledgers {
		if l.New || l.unreadable() != nil {
			continue
		}
		l.roll()
		l.remember()
		if l.below() {
			changes = l.look(changes)
		} else {
			changes = l.promote(changes)
		}
	}
	return changes
}

// noLedger returns why the batch has no ledger for the call.
func noLedger(c *Call, b Batch) error {
	switch {
	case b.Busy()[c.Account]:
		return ErrBusy
	case c.Register != "" || c.Found != "":
		return ErrRegistered
	default:
		return fmt.Errorf("%w %s: %w", ErrNoAccount, c.Account, ErrNotFound)
	}
}

// applied lets waiting work start where it may after a call has succeeded, and adds to changes what has changed by
// that.
func applied(l *Ledger, c *Call, t *turns, changes []Change) []Change {
	if !l.below() {
		changes = l.promote(changes)
	}
	if t.nodes != nil {
		changes = t.after(l, c.Admission, changes)
	}
	return changes
}

// applySafely keeps a defect in one operation from taking down the calls that happen to share its batch.
func applySafely(c *Call, l *Ledger, b Batch) (answer, panicked error) {
	defer func() {
		if p := recover(); p != nil {
			panicked = fmt.Errorf("%w on account %x: %v\n%s", errDefect, c.Account, p, debug.Stack())
		}
	}()
	return c.Apply(l, b), nil
}

// leftIn returns what a batch leaves to do in its ledgers.
func leftIn(ledgers map[quota.AccountID]*Ledger, recheck map[quota.AccountID]bool) []*Op {
	var left []*Op
	for id, l := range ledgers {
		if l.New || l.unreadable() != nil {
			continue
		}
		if op := l.followUp(recheck[id]); op != nil {
			left = append(left, op)
		}
		if l.Account.Team != nil {
			left = append(left, l.walkOn(recheck[id])...)
		}
	}
	return left
}

// followUp takes note of operations that nobody waits for. Whatever becomes of them: the reaper looks for accounts that
// have a slot free and work that waits for one.
func (e *Engine) followUp(ops []*Op, order []next) {
	if len(ops) == 0 && len(order) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range order {
		for _, id := range n.accounts {
			e.place(id, n.top)
		}
		if !n.now {
			// Who frees a slot has the next one started in the same batch.
			if p := e.groups[n.top]; p != nil {
				p.next = n.accounts
			}
			continue
		}
		for _, id := range n.accounts {
			e.add(newCall(*touch(id)))
		}
	}
	for _, op := range ops {
		e.add(newCall(*op))
	}
}

func keysOf(calls []*Call, wait bool) Keys {
	keys := Keys{
		Wait:       wait,
		Accounts:   make([]quota.AccountID, 0, len(calls)),
		Admissions: make([]quota.AdmissionID, 0, len(calls)),
	}
	seen := make(map[quota.AccountID]int, len(calls))
	for _, c := range calls {
		keys.Tree = keys.Tree || c.Tree
		if c.Join != "" {
			keys.Join = append(keys.Join, c.Join)
		}
		if c.Register != "" || c.Found != "" {
			keys.Register = append(keys.Register, Registration{Account: c.Account, UserID: c.Register, Team: c.Found})
			keys.Plans = append(keys.Plans, c.Plans...)
			continue
		}
		if seen[c.Account]++; seen[c.Account] == 1 {
			keys.Accounts = append(keys.Accounts, c.Account)
		}
		keys.Most = max(keys.Most, seen[c.Account])
		keys.search(c.Search)
		keys.walk(c.Walk)
		if c.Admission != (quota.AdmissionID{}) {
			keys.Admissions = append(keys.Admissions, c.Admission)
		}
		if c.Key != "" {
			keys.Idempotency = append(keys.Idempotency, AccountKey{Account: c.Account, Key: c.Key})
		}
		if c.Event != (quota.EventID{}) {
			keys.Events = append(keys.Events, c.Event)
		}
		keys.Plans = append(keys.Plans, c.Plans...)
	}
	return keys
}

// search adds a search. Of two in one account the one that begins further in front finds what the other would.
func (k *Keys) search(s *Search) {
	if s == nil {
		return
	}
	i := slices.IndexFunc(k.Searches, func(o Search) bool { return o.Account == s.Account })
	switch {
	case i < 0:
		k.Searches = append(k.Searches, *s)
	case s.After.compare(k.Searches[i].After) < 0:
		k.Searches[i] = Search{Account: s.Account, After: s.After, Credits: max(s.Credits, k.Searches[i].Credits)}
	default:
		k.Searches[i].Credits = max(s.Credits, k.Searches[i].Credits)
	}
}
