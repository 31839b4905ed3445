// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// ledger drives one account as the engine does, with everything that the engine keeps: periods that have closed,
// admissions, charges. Its check compares the account with what follows from those.
type ledger struct {
	a          *Account
	now        time.Time
	closed     map[int64]*ClosedPeriod
	admissions []*Admission
	charges    []booked
	// steady is true while no limit has changed, which makes the overage of a period predictable.
	steady bool
	grants int
}

type booked struct {
	*Charge
	// adm is nil for what was recorded directly or adjusted.
	adm *Admission
	at  time.Time
	// event is what a reversal names it by, and undone its reversal if there is one.
	event  ID
	undone *Reversal
}

func newLedger(t *rapid.T, calendars *rapid.Generator[Calendar]) *ledger {
	p := plan()
	randomLimits(t, p)
	c := calendars.Draw(t, "calendar")
	p.CalendarMonth = c.CalendarMonth
	l := &ledger{
		a:      &Account{ID: id(1), Plan: p, Anchor: c.Anchor, Zone: c.Zone},
		now:    anyInstant().Draw(t, "now"),
		closed: map[int64]*ClosedPeriod{},
		steady: true,
	}
	l.a.Period, l.a.Currency = l.a.Calendar().At(l.now), p.Currency
	return l
}

func randomLimits(t *rapid.T, p *Plan) {
	p.Limits.Credits = AtMost(WholeCredits(rapid.Int64Range(0, 60).Draw(t, "limit")))
	p.Limits.Credits.Unlimited = rapid.IntRange(0, 9).Draw(t, "unlimited") == 0
	p.Limits.Concurrent = AtMost(rapid.Int32Range(1, 4).Draw(t, "slots"))
	p.Limits.Queued = AtMost(rapid.Int32Range(0, 5).Draw(t, "places"))
	p.CarryOverMax = WholeCredits(rapid.Int64Range(0, 40).Draw(t, "carry-over"))
	p.OverageMax = WholeCredits(rapid.SampledFrom([]int64{0, 0, 20}).Draw(t, "overage"))
	p.OveragePrice = Money(rapid.Int64Range(0, 50_000).Draw(t, "overage price"))
	p.ProviderCost = Money(rapid.Int64Range(0, 12_345).Draw(t, "provider cost"))
	p.Currency = rapid.SampledFrom([]string{"USD", "USD", "EUR", "JPY"}).Draw(t, "currency")
	p.DailyCostCeiling = AtMost(Money(rapid.Int64Range(0, 1_000_000).Draw(t, "ceiling")))
	p.MaxWait = rapid.SampledFrom([]time.Duration{0, 0, time.Hour, 100 * time.Hour}).Draw(t, "longest wait")
}

func (l *ledger) roll() {
	for _, p := range l.a.Roll(l.now) {
		l.closed[p.No] = &p
	}
}

// period returns what Settle and End want: the admission's period if it has closed.
func (l *ledger) period(adm *Admission) *ClosedPeriod {
	if adm.AdmittedAt.IsZero() || adm.PeriodNo == l.a.PeriodNo {
		return nil
	}
	return l.closed[adm.PeriodNo]
}

func (l *ledger) pick(t *rapid.T) *Admission {
	if len(l.admissions) == 0 {
		t.Skip("nothing has entered")
	}
	return rapid.SampledFrom(l.admissions).Draw(t, "admission")
}

func (l *ledger) queue() []*Admission {
	var q []*Admission
	for _, adm := range l.admissions {
		if adm.State == Queued {
			q = append(q, adm)
		}
	}
	slices.SortFunc(q, func(x, y *Admission) int {
		return cmp.Or(cmp.Compare(y.Priority, x.Priority), cmp.Compare(x.ArrivedSeq, y.ArrivedSeq))
	})
	return q
}

func (l *ledger) enter(t *rapid.T) {
	l.roll()
	adm := &Admission{
		ID:       id(uint64(len(l.admissions)) + 10),
		Enforced: rapid.IntRange(0, 9).Draw(t, "enforced") > 0,
		Priority: rapid.Int32Range(-1, 1).Draw(t, "priority"),
		Lease:    time.Minute,
		Request: Request{
			Estimate: Credits(rapid.Int64Range(1, int64(40*Credit)).Draw(t, "estimate")),
			FileSize: rapid.Int64Range(0, 26<<20).Draw(t, "size"),
			Queue:    rapid.Bool().Draw(t, "queue"),
		},
	}
	before := clone(l.a)
	d := l.a.Enter(adm, l.now)
	if d.Outcome == Refuse && rapid.Bool().Draw(t, "park") {
		l.a.Park(adm, d, l.now)
	}
	if adm.State == "" {
		mustEqual(t, "a refused admission changed the account", before, l.a)
		if d.Outcome != Refuse {
			t.Fatalf("%+v, but the admission has no state", d)
		}
		return
	}
	l.admissions = append(l.admissions, adm)
}

func (l *ledger) promote(t *rapid.T) {
	l.roll()
	q := l.queue()
	for _, adm := range l.a.Promote(q, l.now) {
		overdue := adm.State == Cancelled && adm.Reason == WaitedTooLong && l.a.Plan.MaxWait > 0
		if adm.State != Admitted && adm.State != Queued && !overdue {
			t.Fatalf("promotion made an admission %s", adm.State)
		}
	}
	// I7: nobody passed one in front that was not kept back by something other than a slot.
	passed := false
	for _, adm := range slices.Backward(q) {
		if adm.State == Admitted {
			passed = true
		} else if passed && !adm.Parked {
			t.Fatalf("an admission was promoted past one that waits for %s", adm.Reason)
		}
	}
	// What waits for a slot could have had one otherwise.
	for _, adm := range l.queue() {
		if !adm.Parked && l.a.Limits().Concurrent.Allows(l.a.Active+1) {
			t.Fatalf("a slot is free, yet an admission waits for it")
		}
	}
}

func (l *ledger) settle(t *rapid.T) {
	l.roll()
	adm := l.pick(t)
	actual := adm.Request.Estimate
	switch rapid.IntRange(0, 3).Draw(t, "actual") {
	case 0:
		actual = Credits(rapid.Int64Range(0, int64(actual)).Draw(t, "less"))
	case 1:
		actual += Credits(rapid.Int64Range(1, int64(30*Credit)).Draw(t, "more"))
	case 2:
		if adm.Actual != nil {
			actual = *adm.Actual
		}
	}
	was, before, wasAdm := adm.State, clone(l.a), *adm
	c, err := l.a.Settle(adm, actual, l.period(adm), l.now)
	switch {
	case err != nil:
		if !errors.Is(err, ErrConflict) {
			t.Fatalf("Settle: %v", err)
		}
		mustEqual(t, "a conflict changed the account", before, l.a)
		mustEqual(t, "a conflict changed the admission", wasAdm, *adm)
		if was == Admitted || was == Expired {
			t.Fatalf("an admission that was %s cannot be settled: %v", was, err)
		}
	case c == nil:
		mustEqual(t, "settling again changed the account", before, l.a)
		if was != Settled {
			t.Fatalf("no charge for an admission that was %s", was)
		}
	default:
		if was != Admitted && was != Expired || c.Credits != actual || c.Alloc.Total() != actual {
			t.Fatalf("settled from %s with %s: charge %+v", was, actual, c)
		}
		if adm.Late != (was == Expired) {
			t.Fatalf("settled from %s, late %t", was, adm.Late)
		}
		own := l.period(adm)
		if c.Adjustment != (own != nil && own.Final(l.now)) {
			t.Fatalf("adjustment is %t at %s, its period: %+v", c.Adjustment, l.now, own)
		}
		l.book(c, adm)
	}
}

func (l *ledger) book(c *Charge, adm *Admission) {
	l.charges = append(l.charges, booked{Charge: c, adm: adm, at: l.now, event: id(uint64(len(l.charges)) + 100_000)})
}

func (l *ledger) record(t *rapid.T) {
	l.roll()
	u := Use{
		Type:     rapid.SampledFrom([]string{UsageTranscription, UsageExport, "hologram"}).Draw(t, "type"),
		Quantity: rapid.Int64Range(0, 3).Draw(t, "quantity"),
		OccurredAt: l.now.Add(-time.Duration(
			rapid.Int64Range(int64(-6*time.Minute), int64(36*24*time.Hour)).Draw(t, "ago"))),
	}
	if rapid.Bool().Draw(t, "priced by the caller") {
		u.Credits = new(Credits(rapid.Int64Range(-1, int64(40*Credit)).Draw(t, "credits")))
	} else {
		u.Audio = time.Duration(rapid.Int64Range(0, int64(40*Credit)).Draw(t, "audio")) * time.Millisecond
	}
	before := clone(l.a)
	c, period, err := l.a.Record(u, l.closed, l.now)
	inTime := !u.OccurredAt.Before(l.now.Add(-MaxRecordAge)) && !u.OccurredAt.After(l.now.Add(MaxRecordAhead))
	if err != nil {
		if inTime && u.Type != "hologram" && u.Quantity > 0 && (u.Credits != nil && *u.Credits >= 0 || u.Audio > 0) {
			t.Fatalf("%+v: %v", u, err)
		}
		mustEqual(t, "a refused use changed the account", before, l.a)
		return
	}
	if !inTime || u.Type == "hologram" || c.Alloc.Total() != c.Credits {
		t.Fatalf("%+v was charged: %+v", u, c)
	}
	// Its own period: the newest that had begun, else the first one.
	var own *ClosedPeriod
	for no := l.a.PeriodNo - 1; no >= 0 && u.OccurredAt.Before(l.a.Period.Start); no-- {
		if own = l.closed[no]; !u.OccurredAt.Before(own.Period.Start) {
			break
		}
	}
	if own != nil && !own.Final(l.now) {
		if period != own || c.PeriodNo != own.No || c.Adjustment {
			t.Fatalf("a use of period %d at %s: charge %+v of %+v", own.No, l.now, c, period)
		}
	} else if period != nil || c.PeriodNo != l.a.PeriodNo || c.Adjustment != (own != nil) {
		t.Fatalf("a use of %s at %s: charge %+v of %+v", u.OccurredAt, l.now, c, period)
	}
	l.book(c, nil)
}

func (l *ledger) adjust(t *rapid.T) {
	l.roll()
	c, err := l.a.Adjust(Credits(rapid.Int64Range(1, int64(20*Credit)).Draw(t, "debit")), l.now)
	if err != nil || !c.Adjustment || c.PeriodNo != l.a.PeriodNo {
		t.Fatalf("%+v, %v", c, err)
	}
	l.book(c, nil)
}

func (l *ledger) reverse(t *rapid.T) {
	l.roll()
	if len(l.charges) == 0 {
		t.Skip("nothing is charged")
	}
	c := &l.charges[rapid.IntRange(0, len(l.charges)-1).Draw(t, "charge")]
	if c.undone != nil {
		t.Skip("reversed before")
	}
	period, before := l.closed[c.PeriodNo], l.a.Remaining(l.now)
	c.undone = l.a.Reverse(c.event, c.Charge, period, l.now)
	l.steady = false
	if refunded := period != nil && period.Final(l.now) && c.Credits > 0; refunded != (c.undone.Refund != nil) {
		t.Fatalf("reversed at %s in period %+v: %+v", l.now, period, c.undone)
	}
	if after := l.a.Remaining(l.now); after.Max < before.Max {
		t.Fatalf("a reversal of %s took from what remains: %s became %s", c.Credits, before.Max, after.Max)
	}
}

func (l *ledger) end(t *rapid.T) {
	l.roll()
	adm := l.pick(t)
	to := rapid.SampledFrom([]State{Released, Expired}).Draw(t, "to")
	was, before, wasAdm := adm.State, clone(l.a), *adm
	err := l.a.End(adm, to, "", l.period(adm), l.now)
	want := map[State]State{Queued: Cancelled, Admitted: to}[was]
	switch {
	case err != nil && was != Settled, err == nil && was == Settled:
		t.Fatalf("End from %s: %v", was, err)
	case want == "":
		mustEqual(t, "ending what has ended changed the account", before, l.a)
		mustEqual(t, "ending what has ended changed the admission", wasAdm, *adm)
	case adm.State != want:
		t.Fatalf("End from %s led to %s, want %s", was, adm.State, want)
	}
}

func (l *ledger) requeue(t *rapid.T) {
	l.roll()
	adm := l.pick(t)
	was, before := *adm, clone(l.a)
	stay, err := l.a.Requeue(adm, l.period(adm), l.now)
	if stay == nil {
		mustEqual(t, "what is not requeued changed the account", before, l.a)
		mustEqual(t, "what is not requeued changed", was, *adm)
		if (err != nil) != (was.State != Queued) || was.State == Admitted && was.Reported == nil {
			t.Fatalf("Requeue from %s: %v", was.State, err)
		}
		return
	}
	if stay.ID == adm.ID || stay.State != Released || stay.Seen != was.Seen || stay.AdmittedSeq != was.AdmittedSeq {
		t.Fatalf("Requeue of %+v left %+v", was, stay)
	}
	for _, other := range l.admissions {
		if adm.State != Queued || other != adm && other.State == Queued && other.ArrivedSeq >= adm.ArrivedSeq ||
			other.ID == stay.ID {
			t.Fatalf("Requeue led to %+v, beside %+v", adm, other)
		}
	}
	l.admissions = append(l.admissions, stay)
}

func (l *ledger) report(t *rapid.T) {
	adm := l.pick(t)
	before := clone(l.a)
	err := adm.Report(Credits(rapid.Int64Range(0, int64(40*Credit)).Draw(t, "reported")))
	if err != nil && !errors.Is(err, ErrConflict) {
		t.Fatalf("Report: %v", err)
	}
	mustEqual(t, "a report changed the account", before, l.a)
}

func (l *ledger) heartbeat(t *rapid.T) {
	adm := l.pick(t)
	if err := adm.Heartbeat(l.now); (err == nil) != adm.State.Live() {
		t.Fatalf("Heartbeat of one that is %s: %v", adm.State, err)
	}
}

func (l *ledger) wait(t *rapid.T) {
	step := time.Hour
	if rapid.IntRange(0, 2).Draw(t, "long") == 0 {
		step = 30 * 24 * time.Hour
	}
	later := l.now.Add(time.Duration(rapid.Int64Range(0, int64(3*step)).Draw(t, "wait")).Truncate(time.Microsecond))
	// Whoever touches the account on the way rolls it on; in the end that makes no difference.
	atOnce, inSteps := clone(l.a), clone(l.a)
	closed := atOnce.Roll(later)
	stepped := inSteps.Roll(l.now.Add(later.Sub(l.now) / 3))
	stepped = append(stepped, inSteps.Roll(l.now.Add(later.Sub(l.now)/3*2))...)
	stepped = append(stepped, inSteps.Roll(later)...)
	mustEqual(t, "rolling in steps leads elsewhere", atOnce, inSteps)
	mustEqual(t, "rolling in steps closes other periods", closed, stepped)
	if again := atOnce.Roll(later); len(again) != 0 {
		t.Fatalf("rolling twice closed %d periods more", len(again))
	}
	l.now = later
}

func (l *ledger) give(t *rapid.T) {
	g := Lot{Kind: LotGrant, Name: fmt.Sprint("g", l.grants),
		Credits: WholeCredits(rapid.Int64Range(1, 30).Draw(t, "grant"))}
	g.ID = NewLotID(l.a.ID, g.Kind, g.Name)
	if rapid.Bool().Draw(t, "expires") {
		g.ExpiresAt = l.now.Add(time.Duration(rapid.Int64Range(0, int64(60*24*time.Hour)).Draw(t, "in")))
	}
	l.grants++
	l.a.Lots = append(l.a.Lots, g)
}

func (l *ledger) change(t *rapid.T) {
	l.roll()
	switch rapid.IntRange(0, 3).Draw(t, "change") {
	case 0:
		l.a.Suspended = !l.a.Suspended
	case 1:
		l.a.Anchor = anyInstant().Draw(t, "anchor")
	default:
		p := *l.a.Plan
		randomLimits(t, &p)
		if rapid.Bool().Draw(t, "edited") {
			// A period that ends in a while is closed by what the plan says until then.
			past := PastTerms{
				Terms: l.a.Plan.TermsAt(l.now.AddDate(100, 0, 0)),
				Until: l.now.Add(time.Duration(rapid.Int64Range(0, int64(40*24*time.Hour)).Draw(t, "held until"))),
			}
			if n := len(p.Past); n > 0 && past.Until.Before(p.Past[n-1].Until) {
				past.Until = p.Past[n-1].Until
			}
			p.Past = append(slices.Clip(p.Past), past)
		}
		l.a.Plan, l.steady = &p, false
	}
}

// totals are what rows add up to, per period.
type totals struct {
	Used, Reserved, PlanUsed, PlanReserved Credits
}

// sums are amounts by currency.
type sums map[string]Amounts

func (s sums) add(m Amounts) {
	if !m.empty() {
		s[m.Currency] = s[m.Currency].plus(m)
	}
}

// kept are the amounts that an account or a period has in all currencies.
func kept(own Amounts, other *OtherAmounts) sums {
	all := sums{}
	list := []Amounts{own}
	if other != nil {
		list = append(list, other.List...)
	}
	for _, m := range list {
		if !m.empty() {
			all[m.Currency] = m
		}
	}
	return all
}

// checkMoney is I1 and I2 for each currency: what an account and its periods have is the sum of their events and
// reservations.
func (l *ledger) checkMoney(t *rapid.T) {
	want := map[int64]sums{l.a.PeriodNo: {}}
	for no := range l.closed {
		want[no] = sums{}
	}
	open := want[l.a.PeriodNo]
	for _, c := range l.charges {
		want[c.PeriodNo].add(Amounts{Currency: c.CostCurrency, Cost: c.Cost})
		want[c.PeriodNo].add(Amounts{Currency: c.Currency, Charged: c.Price})
		if r := c.undone; r != nil && r.Refund == nil {
			want[r.PeriodNo].add(Amounts{Currency: r.Currency, Charged: -r.Price})
		}
		if utcDay(c.at).Equal(utcDay(l.now)) {
			open.add(Amounts{Currency: c.CostCurrency, DayCost: c.Cost})
		}
	}
	for _, adm := range l.admissions {
		if adm.State == Admitted {
			open.add(Amounts{Currency: adm.Currency, ReservedCost: adm.EstimatedCost})
		}
	}
	for _, s := range want {
		for currency, m := range s {
			m.Currency = currency
			if s[currency] = m; m.empty() {
				delete(s, currency)
			}
		}
	}
	a := clone(l.a)
	if !a.Day.Equal(utcDay(l.now)) {
		a.spend(a.Currency, 0, l.now) // yesterday's
	}
	mustEqual(t, "the open period's money", open, kept(a.Amounts, a.Other))
	if a.Currency != a.Plan.Currency {
		t.Fatalf("the account is kept in %s, its plan is in %s", a.Currency, a.Plan.Currency)
	}
	for no, p := range l.closed {
		own := Amounts{Currency: p.Currency, Cost: p.Cost, Charged: p.Charged}
		mustEqual(t, fmt.Sprintf("the money of period %d", no), want[no], kept(own, p.Other))
	}
}

// check is the shared invariants I1 to I4 and I7's counters, in the terms of this package.
func (l *ledger) check(t *rapid.T) {
	want := map[int64]totals{l.a.PeriodNo: {}}
	for no := range l.closed {
		want[no] = totals{}
	}
	lots := map[LotID][2]Credits{}
	overages := map[int64]Credits{}
	charged := map[*Admission]int{}
	for _, c := range l.charges {
		w := want[c.PeriodNo]
		w.Used, w.PlanUsed = w.Used+c.Credits, w.PlanUsed+c.Alloc.Plan
		want[c.PeriodNo] = w
		overages[c.PeriodNo] += c.Overage
		for _, s := range c.Alloc.Lots {
			lots[s.Lot] = [2]Credits{lots[s.Lot][0] + s.Credits, lots[s.Lot][1]}
		}
		if r := c.undone; r != nil && r.Refund == nil {
			w := want[r.PeriodNo]
			w.Used, w.PlanUsed = w.Used-r.Credits, w.PlanUsed-r.Alloc.Plan
			want[r.PeriodNo] = w
			for _, s := range r.Alloc.Lots {
				lots[s.Lot] = [2]Credits{lots[s.Lot][0] - s.Credits, lots[s.Lot][1]}
			}
		}
		if charged[c.adm]++; c.adm != nil && charged[c.adm] > 1 {
			t.Fatalf("I4: an admission was charged twice")
		}
		if c.Credits < 0 || c.Alloc.Plan < 0 || c.Overage < 0 || c.Price < 0 || c.Cost < 0 {
			t.Fatalf("a negative charge: %+v", c.Charge)
		}
		if c.adm != nil && c.Cost != Price(c.Credits, c.adm.ProviderCost) {
			t.Fatalf("%s credits cost %s, the rate at admission was %s", c.Credits, c.Cost, c.adm.ProviderCost)
		}
	}
	var active, queued, parked int32
	for _, adm := range l.admissions {
		switch adm.State {
		case Queued:
			queued++
			if adm.Parked {
				parked++
			}
		case Admitted:
			active++
			w := want[adm.PeriodNo]
			w.Reserved, w.PlanReserved = w.Reserved+adm.Request.Estimate, w.PlanReserved+adm.Alloc.Plan
			want[adm.PeriodNo] = w
			for _, s := range adm.Alloc.Lots {
				lots[s.Lot] = [2]Credits{lots[s.Lot][0], lots[s.Lot][1] + s.Credits}
			}
		case Settled, Released, Expired, Cancelled:
			if (adm.State == Settled) != (charged[adm] == 1) || (adm.State == Settled) != (adm.Actual != nil) {
				t.Fatalf("I4: an admission is %s with %d charges", adm.State, charged[adm])
			}
		}
		if adm.Parked && (adm.State != Queued || !adm.EverParked) {
			t.Fatalf("a %s admission is parked", adm.State)
		}
	}
	a := l.a
	mustEqual(t, "I1, I2: the open period", want[a.PeriodNo],
		totals{a.Used, a.Reserved, a.PlanUsed, a.PlanReserved})
	for no, p := range l.closed {
		mustEqual(t, fmt.Sprintf("I1, I2: period %d", no), want[no],
			totals{p.Used, p.Reserved, p.PlanUsed, p.PlanReserved})
		if p.CarryOver < 0 || p.CarryOver > p.CarryOverMax {
			t.Fatalf("period %d carried %s over, the cap is %s", no, p.CarryOver, p.CarryOverMax)
		}
		if l.steady {
			checkOverage(t, p.PlanLimit, p.PlanUsed, overages[no])
		}
	}
	if l.steady {
		checkOverage(t, a.Limits().Credits, a.PlanUsed, overages[a.PeriodNo])
	}
	mustEqual(t, "I2: active, queued, parked", [3]int32{active, queued, parked}, [3]int32{a.Active, a.Queued, a.Parked})
	l.checkMoney(t)
	for _, lot := range a.Lots {
		mustEqual(t, "lot "+lot.Name, lots[lot.ID], [2]Credits{lot.Used, lot.Reserved})
		if lot.Used < 0 || lot.Reserved < 0 || lot.Used+lot.Reserved > lot.Credits {
			t.Fatalf("lot %s is overdrawn: %+v", lot.Name, lot)
		}
	}
	l.replay(t)
}

func checkOverage(t *rapid.T, limit Limit[Credits], planUsed, got Credits) {
	want := max(0, planUsed-limit.Max)
	if limit.Unlimited {
		want = 0
	}
	if got != want {
		t.Fatalf("an overage of %s was charged where the plan's %s were exceeded by %s", got, limit.Max, want)
	}
}

// replay is I3: what each admission saw follows from the decisions before its own, and it was within the limits.
func (l *ledger) replay(t *rapid.T) {
	for _, adm := range l.admissions {
		if adm.AdmittedSeq == 0 {
			continue
		}
		var want Seen
		for _, other := range l.admissions {
			if other.AdmittedSeq == 0 || other.AdmittedSeq >= adm.AdmittedSeq ||
				(other.EndedSeq != 0 && other.EndedSeq < adm.AdmittedSeq) {
				continue
			}
			want.Active++
			if other.PeriodNo == adm.PeriodNo {
				want.Reserved += other.Request.Estimate
			}
		}
		for _, c := range l.charges {
			if c.Seq < adm.AdmittedSeq && c.PeriodNo == adm.PeriodNo {
				want.Used += c.Credits
			}
			if r := c.undone; r != nil && r.Refund == nil && r.Seq < adm.AdmittedSeq && r.PeriodNo == adm.PeriodNo {
				want.Used -= r.Credits
			}
		}
		want.Remaining, want.Concurrent = adm.Seen.Remaining, adm.Seen.Concurrent
		mustEqual(t, "I3: what an admission saw", want, adm.Seen)
		if adm.Enforced && (!adm.Seen.Remaining.Allows(adm.Request.Estimate) ||
			!adm.Seen.Concurrent.Allows(adm.Seen.Active+1)) {
			t.Fatalf("I3: admitted beyond the limits that it saw: %s with %+v", adm.Request.Estimate, adm.Seen)
		}
	}
}

func mustEqual[T any](t *rapid.T, what string, want, got T) {
	if diff := gocmp.Diff(want, got, gocmp.Comparer(sameZone)); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

func TestAnyOperations(t *testing.T) {
	calendars := anyCalendar(t)
	rapid.Check(t, func(t *rapid.T) {
		l := newLedger(t, calendars)
		carried := map[int64]Credits{}
		t.Repeat(map[string]func(*rapid.T){
			"enter": l.enter, "enter another": l.enter, "promote": l.promote, "settle": l.settle,
			"settle another": l.settle,
			"end":            l.end, "requeue": l.requeue, "report": l.report, "heartbeat": l.heartbeat, "wait": l.wait,
			"give": l.give, "change": l.change,
			"record": l.record, "adjust": l.adjust, "reverse": l.reverse,
			"": func(t *rapid.T) {
				l.roll()
				l.check(t)
				for no, p := range l.closed {
					if p.CarryOver < carried[no] {
						t.Fatalf("the carry-over of period %d fell from %s to %s", no, carried[no], p.CarryOver)
					}
					carried[no] = p.CarryOver
				}
			},
		})
	})
}
