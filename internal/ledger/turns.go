// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"slices"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// NextPage is how many of those that are next below a team, and none of the batch, a batch knows of.
const NextPage = 16

// turns are the order of those that wait below the teams of a batch. Whoever changes anything below a top has it
// locked: the order that was loaded is the order until the batch ends, and who of others is next is certain.
type turns struct {
	nodes map[quota.AccountID]*node
	tops  []*node
}

// node is an account of the batch with something above or below it.
type node struct {
	*quota.Waiting

	l  *Ledger
	up *node
	// runnable counts the children that could run if the node let them, whether they are of the batch or not.
	runnable int
}

// some stands for the work of a user that could run. Which of it that is the user's queue tells.
var some = []quota.Place{{}}

// Outside returns a child of a team that could run and is none of the batch.
func Outside(id quota.AccountID, turn quota.Turn, weight int32) *quota.Waiting {
	return &quota.Waiting{ID: id, Turn: turn, Weight: weight, Heads: some}
}

func newTurns(ledgers map[quota.AccountID]*Ledger) *turns {
	t := &turns{}
	for _, l := range ledgers {
		if !l.Cut && (l.below() || l.Account.Team != nil) {
			t.add(l)
		}
	}
	for _, n := range t.nodes {
		n.Below = append(n.Below, n.l.Below...)
		n.runnable += len(n.l.Below)
		if n.up != nil && n.l.Turn.Runnable {
			n.up.runnable++
		}
	}
	return t
}

func (t *turns) add(l *Ledger) *node {
	if n := t.nodes[l.Account.ID]; n != nil {
		return n
	}
	if t.nodes == nil {
		t.nodes = map[quota.AccountID]*node{}
	}
	n := &node{Waiting: &quota.Waiting{ID: l.Account.ID, Turn: l.Turn.Turn}, l: l}
	t.nodes[n.ID] = n
	if !l.below() {
		t.tops = append(t.tops, n)
		return n
	}
	n.up = t.add(l.Above[0])
	n.up.Below = append(n.up.Below, n.Waiting)
	return n
}

// begin takes note of what has changed since the turns were written, by time or by settings, and starts what may start.
func (t *turns) begin(changes []Change) []Change {
	t.refresh()
	for _, top := range t.tops {
		changes = t.serve(top, changes)
	}
	return changes
}

// after takes note of what an operation has changed, which may have been about the admission, and starts what may start
// by it.
func (t *turns) after(l *Ledger, id quota.AdmissionID, changes []Change) []Change {
	n := t.nodes[l.Account.ID]
	if n != nil {
		changes = l.look(changes)
	}
	if l.Account.Team != nil {
		t.refresh() // also what bounds each of its members may be another limit now
	}
	n.settle()
	var others []*node
	if adm := l.Admissions[id]; adm != nil {
		// Its slots may have been those of others than are above it now.
		for i := range adm.Levels {
			if other := t.nodes[adm.Levels[i].Account]; other != nil {
				other.settle()
				others = append(others, other.top())
			}
		}
	}
	if n != nil {
		changes = t.serve(n.top(), changes)
	}
	for _, top := range others {
		changes = t.serve(top, changes)
	}
	return changes
}

// refresh has all nodes look at their accounts anew.
func (t *turns) refresh() {
	for _, n := range t.nodes {
		if n.l.Account.Team == nil {
			n.refresh()
		}
	}
	for _, n := range t.nodes {
		n.refresh()
	}
}

// settle has the node and those above it look at their accounts anew.
func (n *node) settle() {
	for ; n != nil; n = n.up {
		n.refresh()
	}
}

// refresh takes note of what the account's balance and settings, and the node's children, let it do.
func (n *node) refresh() {
	l, a := n.l, n.l.Account
	readable := l.unreadable() == nil
	if l.Unreadable == nil {
		l.Turn.Weight = a.Weight()
	}
	n.Weight = max(1, l.Turn.Weight)
	var could bool
	if a.Team != nil {
		a.Contended = n.runnable > 0
		n.Full = !readable || !a.TeamSlots().Allows(1)
		could = !n.Full && n.runnable > 0
	} else {
		could = readable && a.Queued > a.Parked && l.Chain().Slots().Allows(1)
		n.Heads = nil
		if could {
			n.Heads = some
		}
	}
	if could == l.Turn.Runnable {
		return
	}
	l.Turn.Runnable = could
	switch {
	case n.up == nil:
		return
	case could:
		n.Enter(n.up.Turn)
		n.up.runnable++
	default:
		n.up.runnable--
	}
	n.up.refresh()
}

func (n *node) top() *node {
	for n.up != nil {
		n = n.up
	}
	return n
}

// serve starts what may start below a top, in order, up to the first whose account is none of the batch.
func (t *turns) serve(top *node, changes []Change) []Change {
	for top.l.Turn.Runnable {
		path, _ := top.Next()
		if len(path) == 0 {
			break
		}
		n := t.nodes[path[len(path)-1].ID]
		if n == nil {
			break
		}
		before := len(changes)
		var started bool
		if changes, started = n.l.promoteFirst(changes); started {
			path.Admitted()
		}
		if len(changes) == before {
			break // what was loaded of its queue is used up, and it has a follow-up
		}
		n.settle()
	}
	return changes
}

// store writes the turns into the ledgers.
func (t *turns) store() {
	for _, n := range t.nodes {
		n.l.Turn.Turn = n.Turn
	}
}

// next are accounts below a top in the order in which it is their turn.
type next struct {
	top      quota.AccountID
	accounts []quota.AccountID
	// now says that they may have what is free; else something has to end first.
	now bool
}

// left returns who is next below each top, as many as could start at once, for a batch of their own. It comes last:
// what it goes through is not the order any more.
func (t *turns) left() []next {
	var all []next
	for _, top := range t.tops {
		if top.runnable == 0 {
			continue
		}
		n := next{top: top.ID, now: top.l.Turn.Runnable}
		if n.accounts = t.upcoming(top, n.now); len(n.accounts) > 0 {
			all = append(all, n)
		}
	}
	return all
}

// upcoming goes through the order below a top as if each had one piece of work, within what is free or as if nothing
// were full.
func (t *turns) upcoming(top *node, free bool) []quota.AccountID {
	taken := map[*node]int32{}
	if !free {
		for _, n := range t.nodes {
			n.Full = n.Full && (n.l.Account.Suspended || n.l.unreadable() != nil)
		}
	}
	var accounts []quota.AccountID
	for len(accounts) < NextPage {
		path, _ := top.Next()
		if len(path) == 0 {
			break
		}
		path.Admitted()
		last := path[len(path)-1]
		last.Heads = nil
		accounts = append(accounts, last.ID)
		for _, w := range path[:len(path)-1] {
			if n := t.nodes[w.ID]; n != nil && free {
				taken[n]++
				n.Full = !n.l.Account.TeamSlots().Allows(taken[n] + 1)
			}
		}
	}
	return accounts
}

// Walk goes through those below a team that have something that waits and does not run for want of what the team has
// got more of.
type Walk struct {
	Team quota.AccountID
	// After is the account behind which it goes on, and Credits are the most that what it looks for may need.
	After   quota.AccountID
	Credits quota.Credits
	// Again has it begin anew at its end, since the team has got more again in the meantime.
	Again bool
}

const (
	// WalkPage is how many accounts a walk has looked at anew by one batch.
	WalkPage = 32
	// WalkLook is how many it goes past at most to find them: of many that wait few may be what it looks for.
	WalkLook = 256
)

// Seen is an account that a walk has come to. Helped says that it is what the walk looks for, More that it was the last
// that was looked at, and others may be behind it.
type Seen struct {
	Account      quota.AccountID
	Helped, More bool
}

// walk is what a batch of a walk has found.
type walk struct {
	Walk

	found []quota.AccountID
	// last is where the walk goes on, zero at its end.
	last quota.AccountID
}

// Walked takes note of what a walk has come to behind its place: all that it looks for, in order, and the last one if
// there may be more.
func (l *Ledger) Walked(w Walk, seen []Seen) {
	l.walk = &walk{Walk: w}
	for _, s := range seen {
		if s.Helped {
			l.walk.found = append(l.walk.found, s.Account)
		}
		if s.More {
			l.walk.last = s.Account
		}
	}
}

// rememberTeam takes note of what work below the team could spend when the batch began.
func (l *Ledger) rememberTeam() {
	l.active = l.Account.Active
	if l.Account.Queued > 0 {
		l.teamMeans = new(l.Account.TeamMeans(l.Now))
	}
}

// walkOn returns the operations that a batch leaves for those below a team. recheck says that what keeps their work
// from running may have changed apart from the account.
func (l *Ledger) walkOn(recheck bool) []*Op {
	means := l.Account.TeamMeans(l.Now)
	more := l.Account.Queued > 0 &&
		(recheck || l.Rolled > 0 || l.teamMeans != nil && means.Help(*l.teamMeans))
	var ops []*Op
	w := Walk{Team: l.Account.ID, Credits: means.Credits()}
	if l.walk != nil {
		for _, id := range l.walk.found {
			op := touch(id)
			op.Recheck = true
			ops = append(ops, op)
		}
		if last := l.walk.last; last != (quota.AccountID{}) {
			w.After, w.Again = last, l.walk.Again || more
			more = true
		} else {
			more = more || l.walk.Again
		}
	}
	switch {
	case more:
		op := touch(l.Account.ID)
		op.Walk = &w
		ops = append(ops, op)
	case l.Cut && l.Account.Active < l.active:
		// A slot of a former team is free, and who of those below it is next the batch could not tell.
		ops = append(ops, touch(l.Account.ID))
	}
	return ops
}

// touch is an operation that has an account looked at, as every batch does.
func touch(id quota.AccountID) *Op {
	return &Op{Account: id, Apply: func(*Ledger, Batch) error { return nil }}
}

// walk adds a walk. Of two through the same team the one that is further behind goes on, and another follows it.
func (k *Keys) walk(w *Walk) {
	if w == nil {
		return
	}
	i := slices.IndexFunc(k.Walks, func(o Walk) bool { return o.Team == w.Team })
	if i < 0 {
		k.Walks = append(k.Walks, *w)
		return
	}
	o := &k.Walks[i]
	o.Again = o.Again || w.Again || o.After != w.After
	o.Credits = max(o.Credits, w.Credits)
	if slices.Compare(w.After[:], o.After[:]) > 0 {
		o.After = w.After
	}
}
