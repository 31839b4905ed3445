// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// woods are a Store without a database: accounts, who is above whom, and who holds which. Its batches stop where they
// begin and where they commit, until the test has a word for them: so the test alone says what happens when, and the
// clock of its bubble stands still meanwhile. Accounts are named by letters, teams by capitals.
type woods struct {
	now time.Time

	mu sync.Mutex
	// parents are who is above an account; root, a team, is above all others that nobody is above, zero if there is
	// none. missing are accounts that do not exist.
	parents map[quota.AccountID]quota.AccountID
	root    quota.AccountID
	missing map[quota.AccountID]bool
	// holders have the lock of an account: a batch, or stranger.
	holders map[quota.AccountID]*fell
	// below are whom the next batch with a team finds next below it, and full says that it has no slot for them.
	below map[quota.AccountID][]quota.AccountID
	full  map[quota.AccountID]bool
	// suspended are accounts of which something is parked behind what batches load, and whether they are suspended.
	suspended map[quota.AccountID]bool
	// shared are accounts that the engine may ask for twice at once: what it asks for nobody's sake, or runs beside all
	// others.
	shared map[quota.AccountID]bool
	// felling are the batches that have begun to begin, and stopped those of them that wait for a word.
	felling []*fell
	stopped []*fell
	calls   map[quota.AdmissionID]*asked
	// last is the last call of each account that took effect.
	last   map[quota.AccountID]int
	faults []string
}

// stranger is another process that holds accounts.
var stranger = &fell{}

// fell is a batch of woods.
type fell struct {
	*woods

	keys    Keys
	ledgers map[quota.AccountID]*Ledger
	busy    map[quota.AccountID]bool
	locked  []quota.AccountID
	// commits says that the batch has stopped before its commit, and word is what it waits for.
	commits bool
	word    chan error
	// applied are the calls whose operations have run, in order.
	applied []*asked
}

// what an operation of the test does.
type deed string

const (
	does    deed = "does"    // what it is to do
	refuses deed = "refuses" // to do it
	panics  deed = "panics"  // in the middle of it
	frees   deed = "frees"   // what is parked, since the account is no longer suspended
	spoils  deed = "spoils"  // the batch, whose data the database refuses
)

// asked is a call of the test's, with what may become of it.
type asked struct {
	account quota.AccountID
	no      int
	deed    deed
	// beside says that it is one of Together's, whose order with others is not promised.
	beside bool
	// began is when it was asked for.
	began time.Time
	// effects counts how often it took effect, and saw are the errors that batches with it met.
	effects int
	saw     map[error]bool
	// answered has the answer.
	answered chan error
}

func (c *asked) String() string { return fmt.Sprintf("%c%d %s", c.account[0], c.no, c.deed) }

var errRefuses = errors.New("the operation refuses")

func (w *woods) faultf(format string, args ...any) {
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

func (w *woods) of(keys Keys) []*asked {
	calls := make([]*asked, len(keys.Admissions))
	for i, id := range keys.Admissions {
		calls[i] = w.calls[id]
	}
	return calls
}

// Begin implements Store.
func (w *woods) Begin(_ context.Context, keys Keys) (Batch, error) {
	b := &fell{woods: w, keys: keys, word: make(chan error)}
	w.mu.Lock()
	for _, other := range w.felling {
		for _, id := range keys.Accounts {
			if slices.Contains(other.keys.Accounts, id) && !w.shared[id] {
				w.faultf("account %c is in two batches at once: %v and %v", id[0], w.of(keys), w.of(other.keys))
			}
		}
	}
	w.felling = append(w.felling, b)
	w.mu.Unlock()
	begun := false
	defer func() {
		if !begun {
			b.Rollback()
		}
	}()
	if err := b.stop(); err != nil {
		return nil, err
	}
	begun = true
	return b, nil
}

// stop waits for the word of the test.
func (b *fell) stop() error {
	b.mu.Lock()
	b.stopped = append(b.stopped, b)
	b.mu.Unlock()
	word := <-b.word
	if errors.Is(word, errDefect) {
		panic("by the store")
	}
	return word
}

// path are an account and those above it.
func (w *woods) path(id quota.AccountID) []quota.AccountID {
	path := []quota.AccountID{id}
	for {
		up, ok := w.parents[id]
		if !ok && w.root != id {
			up = w.root
		}
		if up == (quota.AccountID{}) {
			return path
		}
		path, id = append(path, up), up
	}
}

// waits reports whether a batch that is to begin has to wait for a lock.
func (w *woods) waits(b *fell) bool {
	if b.commits || !b.keys.Wait {
		return false
	}
	return slices.ContainsFunc(b.keys.Accounts, w.held)
}

// held reports whether somebody holds an account, or one above it.
func (w *woods) held(id quota.AccountID) bool {
	return slices.ContainsFunc(w.path(id), func(up quota.AccountID) bool { return w.holders[up] != nil })
}

// load locks the accounts of a batch that nobody holds, and makes their ledgers.
func (w *woods) load(b *fell) {
	b.ledgers, b.busy = map[quota.AccountID]*Ledger{}, map[quota.AccountID]bool{}
	for _, id := range slices.SortedFunc(slices.Values(b.keys.Accounts), byID) {
		switch {
		case w.missing[id]:
		case w.held(id):
			b.busy[id] = true
		default:
			b.locked = append(b.locked, w.path(id)...)
		}
	}
	for _, id := range b.locked {
		w.holders[id] = b
	}
	for _, id := range b.locked {
		w.ledger(b, id)
	}
	for _, c := range w.of(b.keys) {
		c.saw[ErrBusy] = c.saw[ErrBusy] || b.busy[c.account]
	}
}

func (w *woods) ledger(b *fell, id quota.AccountID) *Ledger {
	if l := b.ledgers[id]; l != nil {
		return l
	}
	l := &Ledger{Around: b.ledgers, Now: w.now, Admissions: map[quota.AdmissionID]*Admission{},
		Closed: map[int64]*quota.ClosedPeriod{}}
	b.ledgers[id] = l
	if isTeam(id) {
		l.Account = quota.Open(id, "", quota.CapOnly("USD"), w.now)
		l.Account.Team = &quota.Team{Name: string(id[:1]), Weight: 1,
			Caps: quota.Caps{Concurrent: new(quota.AtMost[int32](1))}}
		l.Team = &TeamSettings{Root: id == w.root}
		for i, next := range w.below[id] {
			l.Below = append(l.Below, Outside(next, quota.Turn{Start: quota.Virtual{Units: int64(i)}}, 1))
		}
		if delete(w.below, id); w.full[id] {
			l.Account.Active = 1
		}
	} else {
		l.Account = quota.Open(id, string(id[:1]), quota.CapOnly("USD"), w.now)
	}
	if suspended, parked := w.suspended[id]; parked {
		l.Account.Suspended, l.Account.Queued, l.Account.Parked = suspended, 1, 1
	}
	for i, up := range w.path(id)[1:] {
		l.Above[i] = w.ledger(b, up)
	}
	return l
}

func isTeam(id quota.AccountID) bool { return id[0] < 'a' }

// Ledgers implements Batch.
func (b *fell) Ledgers() map[quota.AccountID]*Ledger { return b.ledgers }

// Busy implements Batch.
func (b *fell) Busy() map[quota.AccountID]bool { return b.busy }

// Plan implements Batch.
func (b *fell) Plan(string) *quota.Plan { return nil }

// Teams implements Batch.
func (b *fell) Teams() Teams { return nil }

// Commit implements Batch.
func (b *fell) Commit(context.Context) error {
	b.commits = true
	return b.stop()
}

// Rollback implements Batch.
func (b *fell) Rollback() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.felling = slices.DeleteFunc(b.felling, func(o *fell) bool { return o == b })
	for _, id := range b.locked {
		delete(b.holders, id)
	}
	b.locked = nil
}

// commit has what a batch has done take effect.
func (w *woods) commit(b *fell) {
	for id := range w.suspended {
		if l := b.ledgers[id]; l != nil {
			w.suspended[id] = l.Account.Suspended
		}
	}
	for _, c := range b.applied {
		if c.effects++; c.effects > 1 {
			continue
		}
		if c.beside {
			continue
		}
		if c.no < w.last[c.account] {
			w.faultf("%s took effect after call %d of its account", c, w.last[c.account])
		}
		w.last[c.account] = c.no
	}
}

// The words for a batch that has stopped: an error, or nil if it is to go on. With errDefect it panics. What these say
// nobody knows in the engine: whether the commit happened.
var (
	errHappened = fmt.Errorf("%w: it happened", ErrUnknownOutcome)
	errDidNot   = fmt.Errorf("%w: it did not happen", ErrUnknownOutcome)
)

// tell gives a batch that has stopped its word.
func (w *woods) tell(b *fell, word error) {
	w.mu.Lock()
	w.stopped = slices.DeleteFunc(w.stopped, func(o *fell) bool { return o == b })
	calls := w.of(b.keys)
	happens := word == nil || errors.Is(word, errHappened)
	if b.commits && happens && slices.ContainsFunc(b.applied, func(c *asked) bool { return c.deed == spoils }) {
		word, happens = ErrData, false
	}
	switch {
	case happens && b.commits:
		w.commit(b)
	case happens:
		w.load(b)
	}
	alone := len(b.keys.Accounts) == 1 && len(calls) == 1
	for _, c := range calls {
		for _, err := range []error{ErrRetry, ErrUnknownOutcome, ErrUnavailable, ErrData, errDefect} {
			// Of several the call that spoils it is still to be found.
			if errors.Is(word, err) && (alone || !errors.Is(err, ErrData) && !errors.Is(err, errDefect)) {
				c.saw[err] = true
			}
		}
	}
	w.mu.Unlock()
	b.word <- word
	synctest.Wait()
}

// stops are the batches that have stopped and need not wait for a lock, in an order that does not depend on the
// scheduler's.
func (w *woods) stops() []*fell {
	w.mu.Lock()
	defer w.mu.Unlock()
	stops := slices.DeleteFunc(slices.Clone(w.stopped), w.waits)
	slices.SortStableFunc(stops, func(x, y *fell) int {
		return strings.Compare(fmt.Sprint(w.of(x.keys), x.keys.Accounts), fmt.Sprint(w.of(y.keys), y.keys.Accounts))
	})
	return stops
}

// fits returns why an answer is none that the call may have; empty if it may.
func (w *woods) fits(c *asked, err error) string {
	var may bool
	switch {
	case err == nil:
		may = (c.deed == does || c.deed == frees) && c.effects > 0
	case errors.Is(err, errRefuses):
		may = c.deed == refuses
	case errors.Is(err, ErrNotFound):
		may = w.missing[c.account]
	case errors.Is(err, ErrBusy):
		may = c.beside && c.saw[ErrBusy]
	case errors.Is(err, ErrData):
		may = c.saw[ErrData]
	case errors.Is(err, ErrOverloaded):
		may = c.saw[ErrRetry] && time.Since(c.began) >= retryFor
	case errors.Is(err, ErrUnknownOutcome):
		may = c.saw[ErrUnknownOutcome] && time.Since(c.began) >= retryFor
	case errors.Is(err, ErrUnavailable):
		may = c.saw[ErrUnavailable]
	case errors.Is(err, errDefect):
		may = c.deed == panics || c.saw[errDefect]
	}
	switch {
	case !may:
		return "the answer does not fit"
	case err != nil && c.deed == does && c.effects > 0 && !c.saw[ErrUnknownOutcome]:
		return "it took effect all the same"
	case c.effects > 1 && !c.saw[ErrUnknownOutcome]:
		return "it took effect more than once"
	}
	return ""
}

// forest is an engine over woods, with the calls that a test makes.
type forest struct {
	*woods
	engine *Engine
	// waiting are the calls that are not answered yet, and no is how many there were.
	waiting []*asked
	no      int
}

func newForest(opts Options) *forest {
	w := &woods{
		now: time.Now(), parents: map[quota.AccountID]quota.AccountID{}, missing: map[quota.AccountID]bool{{'x'}: true},
		holders: map[quota.AccountID]*fell{}, below: map[quota.AccountID][]quota.AccountID{},
		full: map[quota.AccountID]bool{}, suspended: map[quota.AccountID]bool{}, shared: map[quota.AccountID]bool{},
		calls: map[quota.AdmissionID]*asked{}, last: map[quota.AccountID]int{},
	}
	return &forest{woods: w, engine: New(w, opts)}
}

// op makes a call of the test.
func (f *forest) op(account quota.AccountID, d deed, beside bool) (Op, *asked) {
	f.no++
	c := &asked{account: account, no: f.no, deed: d, beside: beside, began: time.Now(), saw: map[error]bool{},
		answered: make(chan error, 1)}
	id := quota.AdmissionID{byte(f.no >> 8), byte(f.no)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[id] = c
	if beside {
		f.shared[account] = true
	}
	f.waiting = append(f.waiting, c)
	return Op{Account: account, Admission: id, Apply: func(l *Ledger, b Batch) error {
		switch d {
		case frees:
			l.Account.Suspended = false
		case refuses:
			return errRefuses
		case panics:
			panic("by the test")
		case does, spoils:
		}
		b.(*fell).applied = append(b.(*fell).applied, c)
		return nil
	}}, c
}

// call has accounts called, one after the other.
func (f *forest) call(d deed, accounts ...quota.AccountID) {
	for _, account := range accounts {
		op, c := f.op(account, d, false)
		call, err := f.engine.Start(context.Background(), op)
		if err != nil {
			f.waiting = f.waiting[:len(f.waiting)-1]
			if !errors.Is(err, ErrOverloaded) || f.engine.waiting < f.engine.maxPending {
				f.failf("%s: %v", c, err)
			}
			continue
		}
		go func() { c.answered <- call.Wait(context.Background()) }()
		synctest.Wait()
	}
}

// together runs operations beside all others.
func (f *forest) together(wait bool, d []deed, accounts []quota.AccountID) {
	ops, calls := make([]Op, len(d)), make([]*asked, len(d))
	for i := range d {
		ops[i], calls[i] = f.op(accounts[i], d[i], true)
	}
	go func() {
		for i, err := range f.engine.Together(ops, wait) {
			calls[i].answered <- err
		}
	}()
	synctest.Wait()
}

// goOn gives the batch with an account one word after the other, and what comes after it there.
func (f *forest) goOn(account quota.AccountID, words ...error) {
	for _, word := range words {
		stops := f.stops()
		i := slices.IndexFunc(stops, func(b *fell) bool { return slices.Contains(b.keys.Accounts, account) })
		if i < 0 {
			f.failf("no batch with %c has stopped", account[0])
		}
		f.tell(stops[i], word)
	}
}

// move has an account be below a team, or below none.
func (f *forest) move(account, team quota.AccountID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if delete(f.parents, account); team != (quota.AccountID{}) {
		f.parents[account] = team
	}
}

// hold has a stranger hold an account, or let go of it.
func (f *forest) hold(account quota.AccountID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.holders[account] == stranger {
		delete(f.holders, account)
	} else {
		f.holders[account] = stranger
	}
}

// check looks at what an engine that rests has answered and holds.
func (f *forest) check() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = slices.DeleteFunc(f.waiting, func(c *asked) bool {
		select {
		case err := <-c.answered:
			if why := f.fits(c, err); why != "" {
				f.faultf("%s: %s (took effect %d times): %v", c, why, c.effects, err)
			}
			return true
		default:
			return false
		}
	})
	f.faults = append(f.faults, f.engine.contradictions()...)
	if len(f.faults) > 0 {
		f.failf("%s", strings.Join(f.faults, "\n"))
	}
}

// end lets everything come to its end, and looks that nothing is left.
func (f *forest) end() {
	f.mu.Lock()
	maps.DeleteFunc(f.holders, func(_ quota.AccountID, b *fell) bool { return b == stranger })
	f.mu.Unlock()
	for idle := 0; idle < 2; idle++ {
		for stops := f.stops(); len(stops) > 0; stops = f.stops() {
			f.tell(stops[0], nil)
			f.check()
			idle = 0
		}
		time.Sleep(2 * retryFor)
		synctest.Wait()
	}
	e := f.engine
	e.running.mu.Lock()
	running := e.running.n
	e.running.mu.Unlock()
	if f.check(); len(f.waiting) > 0 || running > 0 {
		f.failf("nothing goes on, and there is no answer for %v", f.waiting)
	}
	e.Drain()
	left := maps.Clone(e.groups)
	// Who is next is kept for the next batch below a team.
	maps.DeleteFunc(left, func(_ quota.AccountID, p *pending) bool { return len(p.next) > 0 })
	if e.waiting > 0 || e.busy > 0 || len(e.ready) > 0 || len(e.lockSlots) > 0 || len(left) > 0 ||
		len(f.felling) > 0 || len(f.holders) > 0 {
		f.failf("something is left")
	}
}

// fault is what a forest panics with when it finds one.
type fault string

// failf ends the run with what is wrong, and what the engine holds.
func (f *forest) failf(format string, args ...any) {
	panic(fault(fmt.Sprintf(format, args...) + "\n" + f.engine.describe()))
}

// inForest runs something with a forest in a bubble, and returns what it panicked with. What is left in the bubble then
// is blocked for ever.
func inForest(t *testing.T, opts Options, do func(f *forest)) (panicked any) {
	t.Helper()
	defer func() {
		if p := recover(); panicked == nil {
			panicked = p
		}
	}()
	synctest.Test(t, func(*testing.T) {
		defer func() { panicked = recover() }()
		f := newForest(opts)
		do(f)
		f.end()
	})
	return panicked
}

// play runs a test's steps in a forest.
func play(t *testing.T, opts Options, do func(f *forest)) {
	t.Helper()
	switch p := inForest(t, opts, do).(type) {
	case nil:
	case fault:
		t.Error(p)
	default:
		panic(p)
	}
}

// contradictions are where the state of an engine that rests contradicts itself.
func (e *Engine) contradictions() (all []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	waiting := 0
	in := map[quota.AccountID]*pending{}
	for top, p := range e.groups {
		waiting += len(p.calls)
		ready := 0
		for _, r := range e.ready {
			if r == p {
				ready++
			}
		}
		switch {
		case p.top != top:
			add("group %c is that of %c", p.top[0], top[0])
		case ready != 0 && (p.taken || len(p.calls) == 0), ready != 1 && !p.taken && len(p.calls) > 0:
			add("group %c: %d calls, taken %t, and %d times ready", top[0], len(p.calls), p.taken, ready)
		case !p.taken && len(p.calls) == 0 && len(p.next) == 0:
			add("group %c is there for nothing", top[0])
		}
		for _, c := range slices.Concat(p.running, p.calls) {
			if c.group != p {
				add("a call of %c is in group %c and takes it for another", c.Account[0], top[0])
			}
			if other := in[c.Account]; other != nil && other != p {
				add("calls of %c are in groups %c and %c", c.Account[0], top[0], other.top[0])
			}
			in[c.Account] = p
		}
	}
	if waiting != e.waiting {
		add("%d calls wait, and %d are counted", waiting, e.waiting)
	}
	if e.busy < 0 || e.busy > e.lanes || len(e.ready) > 0 && e.busy < e.lanes {
		add("%d lanes are busy, %d groups ready", e.busy, len(e.ready))
	}
	return all
}

// describe tells what an engine holds.
func (e *Engine) describe() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var s strings.Builder
	fmt.Fprintf(&s, "%d wait, %d lanes busy, %d wait for locks, %d goroutines\n", e.waiting, e.busy, len(e.lockSlots),
		e.running.n)
	for _, top := range slices.SortedFunc(maps.Keys(e.groups), byID) {
		p := e.groups[top]
		fmt.Fprintf(&s, "group %c: taken %t, ready %t, next %q, calls of", top[0], p.taken, slices.Contains(e.ready, p),
			names(p.next))
		for _, c := range p.calls {
			fmt.Fprintf(&s, " %c", c.Account[0])
		}
		s.WriteByte('\n')
	}
	return s.String()
}

func byID(x, y quota.AccountID) int { return bytes.Compare(x[:], y[:]) }

func names(ids []quota.AccountID) string {
	var s strings.Builder
	for _, id := range ids {
		s.WriteByte(id[0])
	}
	return s.String()
}

func named(name byte) quota.AccountID { return quota.AccountID{name} }

// A group is there for calls. That an account was found in another tree is none.
func TestEngineKeepsNoGroupForNobody(t *testing.T) {
	play(t, Options{Lanes: 1}, func(f *forest) {
		f.move(named('a'), named('T'))
		f.call(does, named('a'))
	})
}

// Where new calls of an account would go may change while others of it wait or run, by whatever the engine hears. They
// come behind those all the same.
func TestEngineKeepsTheCallsOfAnAccountInOrder(t *testing.T) {
	a, b, root, team := named('a'), named('b'), named('R'), named('T')
	tests := map[string]func(f *forest){
		"a read finds it in another tree": func(f *forest) {
			f.call(does, a)
			f.engine.Place(a, team)
		},
		"a read finds it in another tree than the one that it was found in": func(f *forest) {
			f.engine.Place(a, team)
			f.call(does, a)
			f.engine.Place(a, root)
		},
		"a batch finds that there is a root team": func(f *forest) {
			f.call(does, a, b)
			f.root = root
			f.goOn(b, nil, nil)
		},
		"a batch finds that there is no root team any more": func(f *forest) {
			f.root = root
			f.call(does, b)
			f.goOn(b, nil, nil)
			f.engine.Place(b, team)
			f.call(does, a, b)
			f.root = quota.AccountID{}
			f.goOn(b, nil, nil)
		},
		"another account is found below it": func(f *forest) {
			f.engine.Place(team, root)
			f.call(does, team)
			f.engine.Place(b, team)
			f.call(does, b, team)
			f.goOn(b, nil, nil)
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			play(t, Options{Lanes: 3}, func(f *forest) {
				change(f)
				f.call(does, a)
				f.check()
			})
		})
	}
}

// A batch that the database refuses is run in halves. What the second has of an account that was held when the first
// met it waits behind that.
func TestEngineSplitsInOrder(t *testing.T) {
	play(t, Options{Lanes: 1}, func(f *forest) {
		a, b := named('a'), named('b')
		f.call(does, b, a, a)
		f.goOn(b, nil, nil)
		f.goOn(a, nil, ErrData)
		f.hold(a)
		f.goOn(a, nil, nil)
		f.hold(a)
	})
}

// What a run found of an account that the next one does not get any more, for somebody holds it, says nothing of where
// it is. A group from which such a call was taken was ready without calls, and taken for good by the lane that met it.
func TestEngineForgetsWhereItFoundWhatIsHeld(t *testing.T) {
	a, b, one, other := named('a'), named('b'), named('T'), named('U')
	for name, halves := range map[string][]error{"run again": nil, "not even run again": {nil, ErrData}} {
		t.Run(name, func(t *testing.T) {
			play(t, Options{Lanes: 2}, func(f *forest) {
				f.call(does, other, b, a, a)
				if len(halves) > 0 {
					f.call(does, a, a)
				}
				f.move(a, other)
				f.goOn(b, nil, nil)
				f.goOn(a, nil, ErrData)
				f.move(a, one)
				f.goOn(a, halves...)
				f.goOn(a, nil, nil)
				f.hold(a)
				f.goOn(a, nil, nil)
				f.check()
				f.call(does, one)
			})
		})
	}
}

// Few groups wait for a lock at once. One that always has calls does not keep the others from it.
func TestEngineWaitsForLocksInTurn(t *testing.T) {
	play(t, Options{Lanes: 1}, func(f *forest) {
		a, b := named('a'), named('b')
		f.hold(a)
		f.hold(b)
		f.call(does, a)
		f.goOn(a, nil, nil)
		f.call(does, b)
		f.goOn(b, nil, nil)
		f.hold(a)
		f.hold(b)
		f.call(does, a)
		f.goOn(a, nil, nil)
		f.goOn(b, nil, nil)
	})
}

// What follows from a change follows as well where the commit had to be done again, and had happened: the second run
// changes nothing, and would leave nothing to do.
func TestEngineFollowsUpWhatMayHaveHappened(t *testing.T) {
	for _, words := range [][]error{{nil, nil}, {nil, errHappened, nil, nil}, {nil, errDidNot, nil, nil}} {
		play(t, Options{Lanes: 1}, func(f *forest) {
			a := named('a')
			f.suspended[a] = true
			f.call(frees, a)
			for _, word := range words {
				f.goOn(a, word)
				time.Sleep(time.Second)
				synctest.Wait()
			}
			if stops := f.stops(); len(stops) != 1 || len(stops[0].keys.Searches) != 1 {
				f.failf("nobody looks for what is parked after %v", words)
			}
		})
	}
}

// A defect that an account brings to light, before its operation or behind it, ends no process: only who calls that
// account hears of it.
func TestEngineOutlivesDefects(t *testing.T) {
	for _, commits := range []bool{false, true} {
		play(t, Options{Lanes: 1}, func(f *forest) {
			a, b, c := named('a'), named('b'), named('c')
			f.call(does, c)
			f.call(does, a, b)
			f.goOn(c, nil, nil)
			for {
				f.check()
				stops := f.stops()
				if len(stops) == 0 {
					break
				}
				var word error
				if stops[0].commits == commits && slices.Contains(stops[0].keys.Accounts, b) {
					word = errDefect
				}
				f.tell(stops[0], word)
			}
			if got := f.calls[quota.AdmissionID{0, 2}].effects; got != 1 {
				f.failf("%d of the calls beside it took effect", got)
			}
		})
	}
}

// A store that names an account busy though it was to wait for the lock is asked again: nobody else would answer the
// call.
func TestEngineAsksAgainWhoDidNotWait(t *testing.T) {
	play(t, Options{Lanes: 1}, func(f *forest) {
		a, b := named('a'), named('b')
		f.hold(a)
		f.hold(b)
		f.call(does, a)
		f.goOn(a, nil, nil)
		f.together(true, []deed{does}, []quota.AccountID{b})
		for range 2 {
			f.tell(f.stopped[0], nil)
		}
	})
}

// known are the accounts of the forest by name. There is an x besides, which does not exist.
var known = []string{"a", "b", "c", "d", "R", "T", "U"}

func drawAccount(t *rapid.T, what string, more ...string) quota.AccountID {
	return quota.AccountID{rapid.SampledFrom(append(more, known...)).Draw(t, what)[0]}
}

func drawDeed(t *rapid.T) deed {
	return rapid.SampledFrom([]deed{does, does, does, does, does, refuses, panics, spoils}).Draw(t, "deed")
}

func (f *forest) drawCall(t *rapid.T) { f.call(drawDeed(t), drawAccount(t, "account", "x")) }

func (f *forest) drawTogether(t *rapid.T) {
	var deeds []deed
	var accounts []quota.AccountID
	for range rapid.IntRange(1, 3).Draw(t, "operations") {
		deeds, accounts = append(deeds, drawDeed(t)), append(accounts, drawAccount(t, "account", "x"))
	}
	f.together(rapid.Bool().Draw(t, "wait"), deeds, accounts)
}

func (f *forest) drawBatch(t *rapid.T) *fell {
	stops := f.stops()
	if len(stops) == 0 {
		t.Skip("none has stopped")
	}
	return stops[rapid.IntRange(0, len(stops)-1).Draw(t, "batch")]
}

func (f *forest) drawGoOn(t *rapid.T) { f.tell(f.drawBatch(t), nil) }

func (f *forest) drawFailure(t *rapid.T) {
	b := f.drawBatch(t)
	words := []error{ErrRetry, ErrData, ErrUnavailable, errDefect}
	if b.commits {
		words = []error{ErrRetry, ErrData, errHappened, errDidNot, errDefect}
	}
	f.tell(b, words[rapid.IntRange(0, len(words)-1).Draw(t, "failure")])
}

func (f *forest) drawHold(t *rapid.T) {
	account := drawAccount(t, "account")
	if holder := f.holders[account]; holder != nil && holder != stranger {
		t.Skip("a batch holds it")
	}
	f.hold(account)
}

func (f *forest) drawMove(t *rapid.T) {
	account := drawAccount(t, "account")
	if f.held(account) {
		t.Skip("somebody holds it")
	}
	var team quota.AccountID
	if to := rapid.SampledFrom([]string{"", "T", "U"}).Draw(t, "team"); to != "" {
		team = quota.AccountID{to[0]}
		// R is nowhere but at the top, and U not below T.
		if isTeam(account) && (account[0] != 'T' || to != "U") {
			t.Skip("it cannot be there")
		}
	}
	f.move(account, team)
}

// drawRoot has the root team appear, or go.
func (f *forest) drawRoot(*rapid.T) {
	if f.root == (quota.AccountID{}) {
		f.root = quota.AccountID{'R'}
	} else {
		f.root = quota.AccountID{}
	}
}

// drawPlace has the engine be told where an account is, rightly or not.
func (f *forest) drawPlace(t *rapid.T) {
	f.engine.Place(drawAccount(t, "account"), drawAccount(t, "top"))
}

// drawNext has users be next below a team.
func (f *forest) drawNext(t *rapid.T) {
	team := quota.AccountID{rapid.SampledFrom([]string{"R", "T", "U"}).Draw(t, "team")[0]}
	var next []quota.AccountID
	for range rapid.IntRange(1, 3).Draw(t, "users") {
		id := quota.AccountID{rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "user")[0]}
		if !slices.Contains(next, id) {
			next, f.shared[id] = append(next, id), true
		}
	}
	f.below[team], f.full[team] = next, rapid.Bool().Draw(t, "full")
}

// drawTime has time pass: until the next try of a batch, or until it is not tried again.
func (f *forest) drawTime(t *rapid.T) {
	time.Sleep([]time.Duration{time.Second, retryFor}[rapid.IntRange(0, 1).Draw(t, "long")])
	synctest.Wait()
}

// Whatever becomes of its batches and in which order, the engine answers each call once and as it may, has the calls of
// an account take effect in the order in which they came, never has two of them in two batches at once, and has nothing
// left in the end.
func TestEngineAnswersEachCallOnce(t *testing.T) {
	for _, o := range []Options{{Lanes: 1, MaxBatch: 2}, {Lanes: 1, MaxBatch: 4}, {Lanes: 2, MaxBatch: 2},
		{Lanes: 2, MaxBatch: 4}, {Lanes: 3, MaxBatch: 1}, {Lanes: 3, MaxBatch: 4}} {
		o.MaxPending = 12
		t.Run(fmt.Sprintf("lanes=%d,most=%d", o.Lanes, o.MaxBatch), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				switch p := inForest(t, o, func(f *forest) {
					// Some come more often than others.
					rt.Repeat(map[string]func(*rapid.T){
						"": func(*rapid.T) { f.check() }, "call": f.drawCall, "call again": f.drawCall,
						"call once more": f.drawCall, "go on": f.drawGoOn, "go on again": f.drawGoOn,
						"go on once more": f.drawGoOn, "fail": f.drawFailure, "together": f.drawTogether,
						"hold": f.drawHold, "move": f.drawMove, "root": f.drawRoot, "place": f.drawPlace,
						"next": f.drawNext, "time": f.drawTime,
					})
				}).(type) {
				case nil:
				case fault:
					rt.Fatal(p)
				default:
					panic(p) // rapid's own
				}
			})
		})
	}
}
