// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// tree drives users and teams as the engine does. It notes by itself where each operation has to be booked, from who is
// above whom at that moment and from each account's own periods; its check compares all balances with the sums of
// those notes.
type tree struct {
	now time.Time
	// accounts are the users first, then the teams; parent is the number of the account above, -1 without one.
	accounts []*Account
	users    int
	parent   []int
	closed   []map[int64]*ClosedPeriod
	stays    []*stay
	entries  []*entry
	grants   int
}

// place is where something is booked in one account.
type place struct {
	account   int
	period    int64
	seq, left int64
	seen      Seen
	void      bool
}

// stay is an admission, and where it was booked when it was admitted: in the accounts of on, the user's first. Payer is
// one of these by its number.
type stay struct {
	*Admission

	user  int
	on    []place
	payer int
}

// entry is a charge, and its reversal if it has one.
type entry struct {
	*Charge

	adm      *stay
	at       time.Time
	user     int
	on       []place
	payer    int
	event    ID
	undone   *Reversal
	undoneOn []place
}

func newTree(t *rapid.T, calendars *rapid.Generator[Calendar]) *tree {
	w := &tree{now: anyInstant().Draw(t, "now"), users: rapid.IntRange(1, 3).Draw(t, "users")}
	teams := rapid.IntRange(1, 4).Draw(t, "teams")
	for n := range w.users + teams {
		c := calendars.Draw(t, "calendar")
		p := plan()
		randomLimits(t, p)
		p.CalendarMonth = c.CalendarMonth
		a := &Account{ID: id(uint64(n) + 1), Plan: p, Anchor: c.Anchor, Zone: c.Zone}
		if n < w.users {
			a.UserID = fmt.Sprint("user", n)
		} else {
			a.Team = &Team{Name: fmt.Sprint("team", n)}
			w.limitTeam(t, a)
		}
		a.Period, a.Currency = a.Calendar().At(w.now), a.Plan.Currency
		w.accounts, w.parent = append(w.accounts, a), append(w.parent, -1)
		w.closed = append(w.closed, map[int64]*ClosedPeriod{})
	}
	for n := range w.accounts {
		w.parent[n] = w.anyParent(t, n)
	}
	return w
}

func (w *tree) limitTeam(t *rapid.T, a *Account) {
	if rapid.Bool().Draw(t, "without a plan") {
		a.Plan = CapOnly(rapid.SampledFrom([]string{"USD", "EUR"}).Draw(t, "currency"))
	} else {
		p := plan()
		randomLimits(t, p)
		a.Plan = p
	}
	a.Team = &Team{Name: a.Team.Name, Caps: anyCaps(t), MemberDefaults: anyCaps(t)}
}

func anyCaps(t *rapid.T) Caps {
	var c Caps
	if rapid.IntRange(0, 2).Draw(t, "credits capped") == 0 {
		c.Credits = new(AtMost(WholeCredits(rapid.Int64Range(0, 90).Draw(t, "cap"))))
		c.Credits.Unlimited = rapid.IntRange(0, 4).Draw(t, "lifted") == 0
	}
	if rapid.IntRange(0, 2).Draw(t, "slots capped") == 0 {
		c.Concurrent = new(AtMost(rapid.Int32Range(1, 4).Draw(t, "cap")))
	}
	if rapid.IntRange(0, 2).Draw(t, "places capped") == 0 {
		c.Queued = new(AtMost(rapid.Int32Range(0, 4).Draw(t, "cap")))
	}
	if rapid.IntRange(0, 3).Draw(t, "cost capped") == 0 {
		c.DailyCost = &Ceiling{Limit: AtMost(Money(rapid.Int64Range(0, 900_000).Draw(t, "cap"))),
			Currency: rapid.SampledFrom([]string{"USD", "EUR"}).Draw(t, "currency")}
	}
	return c
}

// anyParent draws a team that an account can hang below, or none.
func (w *tree) anyParent(t *rapid.T, n int) int {
	fits := []int{-1}
	for team := w.users; team < len(w.accounts); team++ {
		if path := w.path(team); !slices.Contains(path, n) && len(path)+w.height(n) <= MaxDepth-1 {
			fits = append(fits, team)
		}
	}
	return rapid.SampledFrom(fits).Draw(t, "parent")
}

// path returns an account and those above it.
func (w *tree) path(n int) []int {
	var path []int
	for ; n >= 0; n = w.parent[n] {
		path = append(path, n)
	}
	return path
}

// height returns how many teams stand above each other in a team and below it; 0 of a user.
func (w *tree) height(n int) int {
	if n < w.users {
		return 0
	}
	most := 0
	for child, p := range w.parent {
		if p == n {
			most = max(most, w.height(child))
		}
	}
	return most + 1
}

func (w *tree) above(n int) Ancestors {
	var above Ancestors
	for i, up := range w.path(n)[1:] {
		above[i] = w.accounts[up]
	}
	return above
}

// chain returns a user's chain, and what is expected of it: the numbers of the accounts and of the payer.
func (w *tree) chain(user int) (c Chain, path []int, payer int) {
	path = w.path(user)
	payer = user
	for _, n := range path[1:] {
		if w.accounts[n].Plan.Name != "" {
			payer = n
			break
		}
	}
	return Under(w.accounts[user], w.above(user)), path, payer
}

func (w *tree) number(id AccountID) int {
	return slices.IndexFunc(w.accounts, func(a *Account) bool { return a.ID == id })
}

func (w *tree) find(id AccountID) *Account {
	if n := w.number(id); n >= 0 {
		return w.accounts[n]
	}
	return nil
}

func (w *tree) closedOf(c Chain) Closed {
	var closed Closed
	for i, a := range c.Accounts() {
		closed[i] = w.closed[w.number(a.ID)]
	}
	return closed
}

func (w *tree) roll() {
	for n, a := range w.accounts {
		for _, p := range a.Roll(w.now) {
			w.closed[n][p.No] = &p
		}
	}
}

// all copies every account and closed period, to see that nothing has changed, or only some of it.
func (w *tree) all() []any {
	var copies []any
	for n, a := range w.accounts {
		copies = append(copies, clone(a))
		for _, no := range slices.Sorted(maps.Keys(w.closed[n])) {
			copies = append(copies, *w.closed[n][no])
		}
	}
	return copies
}

func (w *tree) pick(t *rapid.T) *stay {
	if len(w.stays) == 0 {
		t.Skip("nothing has entered")
	}
	return rapid.SampledFrom(w.stays).Draw(t, "admission")
}

func (w *tree) anyUser(t *rapid.T) int { return rapid.IntRange(0, w.users-1).Draw(t, "user") }

func (w *tree) chainOf(t *rapid.T, s *stay) Chain {
	present, _, _ := w.chain(s.user)
	c, err := s.Chain(present, w.find)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// payerID returns how an admission or a charge names who pays for a user: not at all if that is the user.
func (w *tree) payerID(user, payer int) AccountID {
	if payer == user {
		return AccountID{}
	}
	return w.accounts[payer].ID
}

// note takes down where an admission that was just admitted has to be booked, and holds what it says against that.
func (w *tree) note(t *rapid.T, s *stay) {
	if s.on != nil || s.AdmittedAt.IsZero() {
		return
	}
	_, path, payer := w.chain(s.user)
	s.payer = payer
	for i, n := range path {
		p := place{account: n, period: w.accounts[n].PeriodNo, seq: s.AdmittedSeq, seen: s.Seen}
		if i > 0 {
			p.seq, p.seen = s.Levels[i-1].AdmittedSeq, s.Levels[i-1].Seen
		}
		s.on = append(s.on, p)
	}
	w.holds(t, s)
}

// holds compares what an admission says of its places with the notes: whoever has been moved since, it stays there.
func (w *tree) holds(t *rapid.T, s *stay) {
	if len(s.Levels) != len(s.on)-1 || s.Payer != w.payerID(s.user, s.payer) ||
		s.Account != w.accounts[s.on[0].account].ID ||
		s.PeriodNo != s.on[0].period || s.AdmittedSeq != s.on[0].seq {
		t.Fatalf("an admission is booked at %+v by %s; want %+v by account %d", s.Levels, s.Payer, s.on, s.payer)
	}
	s.on[0].left = s.EndedSeq
	for i := range s.Levels {
		h, p := &s.Levels[i], &s.on[i+1]
		p.left = h.EndedSeq
		if h.Account != w.accounts[p.account].ID || h.PeriodNo != p.period || h.AdmittedSeq != p.seq ||
			h.Seen != p.seen ||
			(h.EndedSeq != 0) != (s.EndedSeq != 0) {
			t.Fatalf("an admission says that it is booked at %+v; want %+v", *h, *p)
		}
	}
}

func (w *tree) enter(t *rapid.T) {
	w.roll()
	user := w.anyUser(t)
	c, _, _ := w.chain(user)
	s := &stay{user: user, Admission: &Admission{
		ID:       id(uint64(len(w.stays)) + 100),
		Enforced: rapid.IntRange(0, 9).Draw(t, "enforced") > 0,
		Priority: rapid.Int32Range(-1, 1).Draw(t, "priority"),
		Lease:    time.Minute,
		Request: Request{
			Estimate: Credits(rapid.Int64Range(1, int64(40*Credit)).Draw(t, "estimate")),
			FileSize: rapid.Int64Range(0, 26<<20).Draw(t, "size"),
			Queue:    rapid.Bool().Draw(t, "queue"),
		},
	}}
	before, was := w.all(), c.Copy()
	d := c.Enter(s.Admission, w.now)
	if d.Outcome != Admit {
		w.justified(t, was, s.Request, d)
	}
	if d.Outcome == Refuse && rapid.Bool().Draw(t, "park") {
		c.Park(s.Admission, d, w.now)
	}
	if s.State == "" {
		mustEqual(t, "a refused admission changed an account", before, w.all())
		return
	}
	w.stays = append(w.stays, s)
	w.note(t, s)
	if s.State == Admitted && s.Enforced {
		w.withinLimits(t, s)
	}
}

// justified holds a refusal or a wait against the limit that it names.
func (w *tree) justified(t *rapid.T, c Chain, req Request, d Decision) {
	i := slices.IndexFunc(c.Accounts(), func(a *Account) bool { return a.Level() == d.Level })
	if i < 0 {
		t.Fatalf("%+v names none of the chain", d)
	}
	a, b := c.Accounts()[i], d.Bound
	taken := b.Used + b.Reserved
	switch d.Reason {
	case UserSuspended:
		if !a.Suspended {
			t.Fatalf("%+v", d)
		}
	case CreditsExhausted:
		if taken+b.Requested <= b.Limit || b.Used != int64(a.Used) || b.Reserved != int64(a.Reserved) ||
			b.Requested != int64(req.Estimate) || !d.RetryAt.IsZero() && !d.RetryAt.After(w.now) {
			t.Fatalf("%+v of %+v", d, a)
		}
	case DailyCostCeiling:
		if taken+b.Requested <= b.Limit {
			t.Fatalf("%+v of %+v", d, a)
		}
	case ConcurrencyLimit:
		if b.Used < b.Limit || b.Used != int64(a.Active) {
			t.Fatalf("%+v of %+v", d, a)
		}
	case QueueFull:
		if b.Used < b.Limit || b.Used != int64(a.Queued) {
			t.Fatalf("%+v of %+v", d, a)
		}
	case NotFirst:
		if i != 0 || a.Queued == a.Parked {
			t.Fatalf("%+v of %+v", d, a)
		}
	case FileTooLarge, AudioTooLong:
		if b.Requested <= b.Limit {
			t.Fatalf("%+v", d)
		}
	case WaitedTooLong, UnknownUser, UnknownPlan, RateLimited:
		t.Fatalf("%+v", d)
	}
}

// withinLimits fails if an account where something was just admitted has more than it may have. It derives the limits
// on its own.
func (w *tree) withinLimits(t *rapid.T, s *stay) {
	payer := w.accounts[s.payer].Plan
	for i, p := range s.on {
		a := w.accounts[p.account]
		caps := Caps{}
		if i > 0 {
			caps = a.Team.Caps
		}
		for _, up := range slices.Backward(s.on[1:]) {
			if i > 0 {
				break
			}
			// The nearest has the last word.
			d := w.accounts[up.account].Team.MemberDefaults
			if d.Credits != nil {
				caps.Credits = d.Credits
			}
			if d.Concurrent != nil {
				caps.Concurrent = d.Concurrent
			}
			if d.DailyCost != nil {
				caps.DailyCost = d.DailyCost
			}
		}
		if i == 0 && a.Overrides.Credits != nil {
			caps.Credits = a.Overrides.Credits
			if s.payer == s.user {
				caps.Credits = nil
			}
		}
		if i == 0 && a.Overrides.Concurrent != nil {
			caps.Concurrent = a.Overrides.Concurrent
		}
		if caps.Credits != nil && !caps.Credits.Allows(a.Used+a.Reserved) {
			t.Fatalf("%s has %s used and %s reserved, may have %+v", a.Level(), a.Used, a.Reserved, *caps.Credits)
		}
		if caps.Concurrent != nil && !caps.Concurrent.Allows(a.Active) {
			t.Fatalf("%s runs %d, may run %+v", a.Level(), a.Active, *caps.Concurrent)
		}
		if most := caps.DailyCost; most != nil && most.Currency == payer.Currency &&
			!most.Allows(a.dayCost(most.Currency, w.now)+a.in(most.Currency).ReservedCost) {
			t.Fatalf("%s costs more than %+v a day", a.Level(), *most)
		}
		if p.account != s.payer {
			continue
		}
		l := a.Limits()
		if !l.Concurrent.Allows(a.Active) ||
			s.Alloc.Plan > 0 && !l.Credits.Unlimited && a.PlanUsed+a.PlanReserved > l.Credits.Max+payer.OverageMax ||
			!payer.DailyCostCeiling.Allows(a.dayCost(payer.Currency, w.now)+a.in(payer.Currency).ReservedCost) {
			t.Fatalf("%s pays beyond its plan: %+v", a.Level(), a)
		}
	}
}

func (w *tree) queue(user int) []*Admission {
	var q []*Admission
	for _, s := range w.stays {
		if s.user == user && s.State == Queued {
			q = append(q, s.Admission)
		}
	}
	slices.SortFunc(q, func(x, y *Admission) int {
		return cmp.Or(cmp.Compare(y.Priority, x.Priority), cmp.Compare(x.ArrivedSeq, y.ArrivedSeq))
	})
	return q
}

func (w *tree) promote(t *rapid.T) {
	w.roll()
	user := w.anyUser(t)
	c, _, _ := w.chain(user)
	c.Promote(w.queue(user), w.now)
	for _, s := range w.stays {
		if s.State == Admitted && s.on == nil {
			w.note(t, s)
			w.withinLimits(t, s)
		}
	}
	for _, adm := range w.queue(user) {
		if !adm.Parked && c.full() < 0 {
			t.Fatal("every level has a free slot, yet an admission waits for one")
		}
	}
}

// booked returns where a charge has to be booked that belongs to these places: in its own period, or the open one once
// that is final.
func (w *tree) booked(on []place) []place {
	var want []place
	for _, p := range on {
		a := w.accounts[p.account]
		if own := w.closed[p.account][p.period]; own != nil && own.Final(w.now) {
			p.period = a.PeriodNo
		}
		want = append(want, place{account: p.account, period: p.period, seq: a.Seq})
	}
	return want
}

func (w *tree) charged(t *rapid.T, c *Charge, s *stay, user, payer int, own []place) {
	want := w.booked(own)
	got := []Booking{{Account: w.accounts[user].ID, PeriodNo: c.PeriodNo, Seq: c.Seq}}
	got = append(got, c.Levels...)
	for i, p := range want {
		if i >= len(got) || got[i] != (Booking{Account: w.accounts[p.account].ID, PeriodNo: p.period, Seq: p.seq}) {
			t.Fatalf("a charge is booked at %+v, want %+v", got, want)
		}
		final := w.closed[own[i].account][own[i].period]
		if p.account == payer && s != nil && c.Adjustment != (final != nil && final.Final(w.now)) {
			t.Fatalf("a charge of period %+v is an adjustment: %t", final, c.Adjustment)
		}
	}
	if len(got) != len(want) || c.Payer != w.payerID(user, payer) || c.Alloc.Total() != c.Credits {
		t.Fatalf("a charge is booked at %+v, paid by %s: %+v; want %+v", got, c.Payer, c, want)
	}
	w.entries = append(w.entries, &entry{Charge: c, adm: s, at: w.now, user: user, on: want, payer: payer,
		event: id(uint64(len(w.entries)) + 100_000)})
}

func (w *tree) settle(t *rapid.T) { w.settleBy(t, Chain.Settle) }

func (w *tree) settleOffline(t *rapid.T) { w.settleBy(t, Chain.SettleOffline) }

func (w *tree) settleBy(
	t *rapid.T, settle func(Chain, *Admission, Credits, Closed, time.Time) (*Charge, error),
) {
	w.roll()
	s := w.pick(t)
	actual := s.Request.Estimate
	switch rapid.IntRange(0, 3).Draw(t, "actual") {
	case 0:
		actual = Credits(rapid.Int64Range(0, int64(actual)).Draw(t, "less"))
	case 1:
		actual += Credits(rapid.Int64Range(1, int64(30*Credit)).Draw(t, "more"))
	}
	c := w.chainOf(t, s)
	before, was := w.all(), *s.Admission
	charge, err := settle(c, s.Admission, actual, w.closedOf(c), w.now)
	if err != nil || charge == nil {
		if err != nil && !errors.Is(err, ErrConflict) {
			t.Fatal(err)
		}
		mustEqual(t, "what was not settled changed an account", before, w.all())
		mustEqual(t, "what was not settled changed", was, *s.Admission)
		return
	}
	w.note(t, s)
	w.charged(t, charge, s, s.user, s.payer, s.on)
}

func (w *tree) end(t *rapid.T) {
	w.roll()
	s := w.pick(t)
	c := w.chainOf(t, s)
	to := rapid.SampledFrom([]State{Released, Expired}).Draw(t, "to")
	// What differs from a copy of before is written.
	before, levels := *s.Admission, slices.Clone(s.Levels)
	if err := c.End(s.Admission, to, "", w.closedOf(c), w.now); err != nil && !errors.Is(err, ErrConflict) {
		t.Fatal(err)
	}
	mustEqual(t, "the levels of a copy", levels, before.Levels)
}

func (w *tree) requeue(t *rapid.T) {
	w.roll()
	s := w.pick(t)
	on := w.chainOf(t, s)
	present, _, _ := w.chain(s.user)
	ended, err := present.Requeue(s.Admission, on, w.closedOf(on), w.now)
	if err != nil && !errors.Is(err, ErrConflict) {
		t.Fatal(err)
	}
	if ended != nil {
		w.stays = append(w.stays, &stay{Admission: ended, user: s.user, on: s.on, payer: s.payer})
		s.on = nil
	}
}

func (w *tree) resume(t *rapid.T) {
	w.roll()
	s := w.pick(t)
	c, _, _ := w.chain(s.user)
	c.Resume(s.Admission, w.now)
	w.note(t, s)
}

// ownPeriods returns the periods of a user's accounts that contain an instant: the newest that had begun, else the
// first.
func (w *tree) ownPeriods(path []int, at time.Time) []place {
	var on []place
	for _, n := range path {
		a := w.accounts[n]
		no := a.PeriodNo
		if at.Before(a.Period.Start) {
			for no > 0 && w.closed[n][no-1] != nil {
				no--
				if !at.Before(w.closed[n][no].Period.Start) {
					break
				}
			}
		}
		on = append(on, place{account: n, period: no})
	}
	return on
}

func (w *tree) record(t *rapid.T) {
	w.roll()
	user := w.anyUser(t)
	c, path, payer := w.chain(user)
	u := Use{
		Type: UsageExport, Quantity: 1, Credits: new(Credits(rapid.Int64Range(0, int64(40*Credit)).Draw(t, "credits"))),
		Cost: new(Money(rapid.Int64Range(0, 100_000).Draw(t, "cost"))),
		OccurredAt: w.now.Add(-time.Duration(
			rapid.Int64Range(int64(-6*time.Minute), int64(36*24*time.Hour)).Draw(t, "ago"))),
	}
	before := w.all()
	charge, err := c.Record(u, w.closedOf(c), w.now)
	if err != nil {
		mustEqual(t, "a refused use changed an account", before, w.all())
		return
	}
	w.charged(t, charge, nil, user, payer, w.ownPeriods(path, u.OccurredAt))
}

func (w *tree) adjust(t *rapid.T) {
	w.roll()
	user := w.anyUser(t)
	c, path, payer := w.chain(user)
	charge, err := c.Adjust(Credits(rapid.Int64Range(1, int64(20*Credit)).Draw(t, "debit")), w.now)
	if err != nil || !charge.Adjustment {
		t.Fatalf("%+v, %v", charge, err)
	}
	w.charged(t, charge, nil, user, payer, w.ownPeriods(path, w.now))
}

func (w *tree) reverse(t *rapid.T) {
	w.roll()
	if len(w.entries) == 0 {
		t.Skip("nothing is charged")
	}
	e := rapid.SampledFrom(w.entries).Draw(t, "charge")
	if e.undone != nil {
		t.Skip("reversed before")
	}
	c, err := e.Chain(w.accounts[e.user], w.find)
	if err != nil {
		t.Fatal(err)
	}
	if e.undone, err = c.Reverse(e.event, e.Charge, w.closedOf(c), w.now); err != nil {
		t.Fatal(err)
	}
	got := []Booking{{
		Account: w.accounts[e.user].ID, PeriodNo: e.undone.PeriodNo, Seq: e.undone.Seq, Void: e.undone.Void,
	}}
	got = append(got, e.undone.Levels...)
	for i, p := range e.on {
		a, own := w.accounts[p.account], w.closed[p.account][p.period]
		p.seq = a.Seq
		if p.void = own != nil && own.Final(w.now) && e.Credits > 0; p.void {
			p.period = a.PeriodNo
		}
		if got[i] != (Booking{Account: a.ID, PeriodNo: p.period, Seq: p.seq, Void: p.void}) {
			t.Fatalf("reversed at %+v, want %+v", got, p)
		}
		if p.account == e.payer && p.void != (e.undone.Refund != nil) {
			t.Fatalf("reversed in period %+v: %+v", own, e.undone)
		}
		e.undoneOn = append(e.undoneOn, p)
	}
}

func (w *tree) wait(t *rapid.T) {
	step := time.Hour
	if rapid.IntRange(0, 2).Draw(t, "long") == 0 {
		step = 30 * 24 * time.Hour
	}
	w.now = w.now.Add(time.Duration(rapid.Int64Range(0, int64(3*step)).Draw(t, "wait")).Truncate(time.Microsecond))
}

func (w *tree) give(t *rapid.T) {
	a := rapid.SampledFrom(w.accounts).Draw(t, "account")
	g := Lot{Kind: LotGrant, Name: fmt.Sprint("g", w.grants),
		Credits: WholeCredits(rapid.Int64Range(1, 30).Draw(t, "grant"))}
	g.ID = NewLotID(a.ID, g.Kind, g.Name)
	if rapid.Bool().Draw(t, "expires") {
		g.ExpiresAt = w.now.Add(time.Duration(rapid.Int64Range(0, int64(60*24*time.Hour)).Draw(t, "in")))
	}
	w.grants++
	a.Lots = append(a.Lots, g)
}

// change edits a user or a team: payers appear and go by it.
func (w *tree) change(t *rapid.T) {
	w.roll()
	n := rapid.IntRange(0, len(w.accounts)-1).Draw(t, "account")
	a := w.accounts[n]
	switch rapid.IntRange(0, 3).Draw(t, "change") {
	case 0:
		a.Suspended = !a.Suspended
	case 1:
		a.Anchor = anyInstant().Draw(t, "anchor")
	case 2:
		if n >= w.users {
			w.limitTeam(t, a)
			return
		}
		caps := anyCaps(t)
		a.Overrides = Overrides{Credits: caps.Credits, Concurrent: caps.Concurrent, Queued: caps.Queued}
	default:
		if n >= w.users {
			w.limitTeam(t, a)
			return
		}
		p := *a.Plan
		randomLimits(t, &p)
		a.Plan = &p
	}
}

// move hangs a user or a team below another team, or below none.
func (w *tree) move(t *rapid.T) {
	w.roll()
	n := rapid.IntRange(0, len(w.accounts)-1).Draw(t, "who")
	to := w.anyParent(t, n)
	before := w.above(n)
	were := w.all()
	w.parent[n] = to
	there := func(above Ancestors) []*Account {
		return slices.DeleteFunc(above[:], func(a *Account) bool { return a == nil })
	}
	Move(w.accounts[n], there(before), there(w.above(n)))
	are := w.all()
	for i := range were {
		was, ok := were[i].(*Account)
		if !ok {
			continue
		}
		is, _ := are[i].(*Account)
		was.Queued, was.Parked = is.Queued, is.Parked
	}
	mustEqual(t, "a move changed more than who waits", were, are)
}

// balances are what an account or a closed period of it has.
type balances struct {
	Credits totals
	Money   sums
}

func (w *tree) check(t *rapid.T) {
	w.roll()
	// What the notes add up to, by account and period.
	want := make([]map[int64]balances, len(w.accounts))
	for n, a := range w.accounts {
		want[n] = map[int64]balances{a.PeriodNo: {Money: sums{}}}
		for no := range w.closed[n] {
			want[n][no] = balances{Money: sums{}}
		}
	}
	type counts struct{ active, queued, parked int32 }
	wantCounts := make([]counts, len(w.accounts))
	lots := map[LotID][2]Credits{}
	add := func(p place, change func(b *balances)) {
		b := want[p.account][p.period]
		change(&b)
		want[p.account][p.period] = b
	}
	for _, s := range w.stays {
		if s.State == Queued {
			for _, n := range w.path(s.user) {
				wantCounts[n].queued++
				if s.Parked {
					wantCounts[n].parked++
				}
			}
		}
		if s.on != nil {
			w.holds(t, s)
		}
		if s.State != Admitted {
			continue
		}
		for _, p := range s.on {
			wantCounts[p.account].active++
			open := want[p.account][w.accounts[p.account].PeriodNo]
			open.Money.add(Amounts{Currency: s.Currency, ReservedCost: s.EstimatedCost})
			add(p, func(b *balances) {
				b.Credits.Reserved += s.Request.Estimate
				if p.account == s.payer {
					b.Credits.PlanReserved += s.Alloc.Plan
				}
			})
		}
		for _, share := range s.Alloc.Lots {
			lots[share.Lot] = [2]Credits{lots[share.Lot][0], lots[share.Lot][1] + share.Credits}
		}
	}
	for _, e := range w.entries {
		for _, p := range e.on {
			open := want[p.account][w.accounts[p.account].PeriodNo]
			if utcDay(e.at).Equal(utcDay(w.now)) {
				open.Money.add(Amounts{Currency: e.CostCurrency, DayCost: e.Cost})
			}
			add(p, func(b *balances) {
				b.Credits.Used += e.Credits
				b.Money.add(Amounts{Currency: e.CostCurrency, Cost: e.Cost})
				if p.account == e.payer {
					b.Credits.PlanUsed += e.Alloc.Plan
					b.Money.add(Amounts{Currency: e.Charge.Currency, Charged: e.Price})
				}
			})
		}
		for _, share := range e.Alloc.Lots {
			lots[share.Lot] = [2]Credits{lots[share.Lot][0] + share.Credits, lots[share.Lot][1]}
		}
		for _, p := range e.undoneOn {
			if p.void {
				continue
			}
			add(p, func(b *balances) {
				b.Credits.Used -= e.Credits
				if p.account == e.payer {
					b.Credits.PlanUsed -= e.Alloc.Plan
					b.Money.add(Amounts{Currency: e.Charge.Currency, Charged: -e.Price})
				}
			})
			if p.account == e.payer {
				for _, share := range e.Alloc.Lots {
					lots[share.Lot] = [2]Credits{lots[share.Lot][0] - share.Credits, lots[share.Lot][1]}
				}
			}
		}
	}
	for n, a := range w.accounts {
		if got := (counts{a.Active, a.Queued, a.Parked}); got != wantCounts[n] {
			t.Fatalf("I2: %s has %+v running, waiting and parked; want %+v", a.Level(), got, wantCounts[n])
		}
		today := clone(a)
		today.spend(a.Currency, 0, w.now)
		mustEqual(t, "I1, I2: the open period of "+a.Level().String(), want[n][a.PeriodNo].tidy(), balances{
			Credits: totals{a.Used, a.Reserved, a.PlanUsed, a.PlanReserved}, Money: kept(today.Amounts, today.Other),
		})
		for no, p := range w.closed[n] {
			mustEqual(t, fmt.Sprintf("I1, I2: period %d of %s", no, a.Level()), want[n][no].tidy(), balances{
				Credits: totals{p.Used, p.Reserved, p.PlanUsed, p.PlanReserved},
				Money:   kept(Amounts{Currency: p.Currency, Cost: p.Cost, Charged: p.Charged}, p.Other),
			})
		}
		for _, lot := range a.Lots {
			mustEqual(t, "lot "+lot.Name, lots[lot.ID], [2]Credits{lot.Used, lot.Reserved})
			if lot.Used < 0 || lot.Reserved < 0 || lot.Used+lot.Reserved > lot.Credits {
				t.Fatalf("lot %s is overdrawn: %+v", lot.Name, lot)
			}
		}
	}
	w.replay(t)
}

// tidy drops what is zero.
func (b balances) tidy() balances {
	money := sums{}
	for currency, m := range b.Money {
		if m.Currency = currency; !m.empty() {
			money[currency] = m
		}
	}
	b.Money = money
	return b
}

// replay is I3 at every level: what an admission saw follows from the decisions of that account before its own, and it
// was within the limits.
func (w *tree) replay(t *rapid.T) {
	type booking struct {
		place
		s *stay
	}
	held := make([][]booking, len(w.accounts))
	for _, s := range w.stays {
		for _, p := range s.on {
			held[p.account] = append(held[p.account], booking{p, s})
		}
	}
	for n, all := range held {
		for _, b := range all {
			var want Seen
			for _, o := range all {
				if o.seq >= b.seq || o.left != 0 && o.left < b.seq {
					continue
				}
				want.Active++
				if o.period == b.period {
					want.Reserved += o.s.Request.Estimate
				}
			}
			for _, e := range w.entries {
				for i, p := range e.on {
					if p.account == n && p.period == b.period && p.seq < b.seq {
						want.Used += e.Credits
					}
					if i < len(e.undoneOn) {
						if u := e.undoneOn[i]; u.account == n && u.period == b.period && u.seq < b.seq && !u.void {
							want.Used -= e.Credits
						}
					}
				}
			}
			want.Remaining, want.Concurrent = b.seen.Remaining, b.seen.Concurrent
			mustEqual(t, "I3: what an admission saw of "+w.accounts[n].Level().String(), want, b.seen)
			if b.s.Enforced && (!b.seen.Remaining.Allows(b.s.Request.Estimate) ||
				!b.seen.Concurrent.Allows(b.seen.Active+1)) {
				t.Fatalf("I3: admitted beyond the limits of %s: %s with %+v", w.accounts[n].Level(),
					b.s.Request.Estimate, b.seen)
			}
		}
	}
}

func TestAnyOperationsInATree(t *testing.T) {
	calendars := anyCalendar(t)
	rapid.Check(t, func(t *rapid.T) {
		w := newTree(t, calendars)
		t.Repeat(map[string]func(*rapid.T){
			"enter": w.enter, "enter another": w.enter, "enter a third": w.enter, "promote": w.promote,
			"settle": w.settle, "settle another": w.settle, "settle offline": w.settleOffline, "end": w.end,
			"requeue": w.requeue, "resume": w.resume, "record": w.record, "adjust": w.adjust, "reverse": w.reverse,
			"wait": w.wait, "give": w.give, "change": w.change, "move": w.move,
			"": w.check,
		})
	})
}
