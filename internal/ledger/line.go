// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"math"
	"slices"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// QueuePage is how much of a queue a batch looks at besides what its operations may start: of those that wait for a
// slot, and of those that are parked. What is behind waits for its turn, or for a follow-up if nothing of the page is
// left.
const QueuePage = 32

// Place is one in a queue.
type Place struct {
	Priority int32
	Arrived  int64
}

// front is in front of everything.
var front = Place{Priority: math.MaxInt32}

func placeOf(a *Admission) Place { return Place{Priority: a.Priority, Arrived: a.ArrivedSeq} }

// compare orders places as QueueOrder does.
func (p Place) compare(o Place) int {
	return cmp.Or(cmp.Compare(o.Priority, p.Priority), cmp.Compare(p.Arrived, o.Arrived))
}

// Search is a look for parked work that more means may help.
type Search struct {
	Account quota.AccountID
	// After is the place behind which it goes on, and Credits are the most that what it looks for may need.
	After   Place
	Credits quota.Credits
}

// line says how much of a queue is in Ledger.Queue.
type line struct {
	// cut says that more wait for a slot than those up to the place end; nothing that waits for one is behind last.
	cut       bool
	end, last Place
	// behind are parked admissions that were loaded and have others in front of them that were not.
	behind []*Admission
	// parked is how many parked ones were loaded. means is what the account had then, nil if there were no others.
	parked int32
	means  *quota.Means
	// next is where a search goes on that this batch did not finish; nil without one.
	next *Place
}

// Line makes the queue out of what was loaded of it, in any order: of those that wait for a slot the first n, and if
// there are more the last one; of those that are parked the first ones and those that were searched for.
func (l *Ledger) Line(loaded []*Admission, n int) {
	slices.SortFunc(loaded, QueueOrder)
	l.Queue, l.line = loaded, line{}
	end, waiting := len(loaded), 0
	for i, a := range loaded {
		if a.Parked {
			l.line.parked++
			continue
		}
		if waiting++; waiting == n {
			l.line.end, end = placeOf(a), i+1
		}
		l.line.last = placeOf(a)
	}
	if waiting <= n {
		return
	}
	l.line.cut = true
	for _, a := range loaded[end:] {
		if a.Parked {
			l.line.behind = append(l.line.behind, a)
		}
	}
	l.Queue = slices.Clip(loaded[:end])
}

// Searched takes note that a search ended in a full page, with the place of its last one.
func (l *Ledger) Searched(last *Admission) { l.line.next = new(placeOf(last)) }

// reaches reports whether the admission is where the whole queue is loaded.
func (n *line) reaches(adm *Admission) bool { return !n.cut || placeOf(adm).compare(n.end) <= 0 }

// isLast reports whether nothing that waits for a slot is behind the admission.
func (n *line) isLast(adm *Admission) bool { return placeOf(adm).compare(n.last) >= 0 }

// joined takes note of an admission that may wait for a slot from now on.
func (n *line) joined(adm *Admission) {
	if adm.State == quota.Queued && !adm.Parked && n.isLast(adm) {
		n.last = placeOf(adm)
	}
}

// usedUp reports whether work may be able to start that was not looked at: all that was has left its place.
func (l *Ledger) usedUp() bool {
	return l.line.cut && !slices.ContainsFunc(l.Queue, func(a *Admission) bool { return !a.Parked })
}

// remember takes note of what parked work could spend when the batch began, if not all of the queue was loaded.
func (l *Ledger) remember() {
	if l.Account.Team != nil {
		l.rememberTeam()
		return // what waits below a team is in the queues of its users
	}
	if l.line.cut || l.Account.Parked > l.line.parked {
		l.line.means = new(l.Chain().Means(l.Now))
	}
}

// followUp returns the operation that the batch leaves to do, or nil. recheck says that what keeps work parked may have
// changed apart from the account.
func (l *Ledger) followUp(recheck bool) *Op {
	var search *Search
	more := Search{Account: l.Account.ID, Credits: quota.MaxCredits}
	chain := l.Chain()
	if remaining := chain.Remaining(l.Now); !remaining.Unlimited {
		more.Credits = remaining.Max
	}
	switch m := l.line.means; {
	case m != nil && l.Account.Parked > 0 && (recheck || l.rolled() || chain.Means(l.Now).Help(*m)):
		more.After, search = front, &more
	case l.line.next != nil:
		more.After, search = *l.line.next, &more
	}
	if search == nil && !l.usedUp() {
		return nil
	}
	return &Op{Account: l.Account.ID, Search: search, Apply: func(*Ledger, Batch) error { return nil }}
}
