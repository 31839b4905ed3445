// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"fmt"
	"slices"
	"time"
)

// State is where an admission stands: Queued -> Admitted -> Settled | Released | Expired, Queued -> Cancelled, and
// Expired -> Settled by a late report.
type State string

// The states of an admission.
const (
	Queued    State = "Queued"
	Admitted  State = "Admitted"
	Settled   State = "Settled"
	Released  State = "Released"
	Expired   State = "Expired"
	Cancelled State = "Cancelled"
)

// Live reports whether the admission holds a slot or a place in the queue.
func (s State) Live() bool { return s == Queued || s == Admitted }

// Source says who holds an admission and therefore who returns it.
type Source string

// The sources of admissions.
const (
	// SourceAPI admissions belong to an HTTP caller: its lease alone keeps them alive.
	SourceAPI Source = "api"
	// SourceJob admissions belong to a Kubernetes Job: only the Job controller, which sees the Job, settles or expires
	// them.
	SourceJob Source = "job"
)

// Admission is one piece of paid work from its request to its charge.
type Admission struct {
	ID      AdmissionID
	Account AccountID
	Source  Source
	State   State
	// Reason says why it is Queued, or why it ended without a charge.
	Reason   Reason
	Request  Request
	Priority int32
	// Enforced is false in namespaces that only warn: the admission is metered, and exempt from limits.
	Enforced bool
	// Offline marks work that began while the ledger could not be reached, on an offline ticket, or without its
	// knowing, since it was restored to an earlier moment. It is exempt from limits too.
	Offline bool
	// PeriodNo and PeriodEnd are the period that the reservation is pinned to, Alloc the lots that it holds.
	PeriodNo  int64
	PeriodEnd time.Time
	Alloc     Allocation
	// EstimatedCost is the provider's cost that it reserves, ProviderCost the rate per credit at that time, both in
	// Currency. That is empty where it was not recorded: then it is the plan's at AdmittedAt.
	EstimatedCost, ProviderCost Money
	Currency                    string
	// Reported is what a Job's pod said it used, before the controller settles.
	Reported *Credits
	// Actual is what was charged; nil before Settled.
	Actual *Credits
	// Late marks a charge that came after the lease had expired.
	Late bool
	// Parked says that a queued admission waits for something other than a slot; EverParked that it once did.
	Parked, EverParked bool

	CreatedAt, AdmittedAt, EndedAt time.Time
	// RequeuedAt is when it last went back to the queue; zero for one that never did.
	RequeuedAt time.Time
	// WaitedFor and MaxWait are the reason for which it waited and the bound of its plan, where that refused it.
	WaitedFor Reason
	MaxWait   time.Duration
	// Lease is how long the admission lives without a heartbeat, LeaseUntil when it ends.
	Lease      time.Duration
	LeaseUntil time.Time
	// ArrivedSeq, AdmittedSeq and EndedSeq place its transitions in the account's order of decisions. EndedAt and
	// EndedSeq tell when it gave its slot back; a late charge does not move them.
	ArrivedSeq, AdmittedSeq, EndedSeq int64
	// Seen are the facts that the admission was decided on.
	Seen Seen
}

// Equal reports whether two admissions agree in everything.
func (adm *Admission) Equal(other *Admission) bool {
	return adm.ID == other.ID && adm.Account == other.Account && adm.Source == other.Source &&
		adm.State == other.State &&
		adm.Reason == other.Reason && adm.Request == other.Request && adm.Priority == other.Priority &&
		adm.Enforced == other.Enforced && adm.Offline == other.Offline && adm.PeriodNo == other.PeriodNo &&
		adm.PeriodEnd.Equal(other.PeriodEnd) && adm.Alloc.Plan == other.Alloc.Plan &&
		slices.Equal(adm.Alloc.Lots, other.Alloc.Lots) && adm.EstimatedCost == other.EstimatedCost &&
		adm.Currency == other.Currency &&
		adm.ProviderCost == other.ProviderCost && same(adm.Reported, other.Reported) &&
		same(adm.Actual, other.Actual) &&
		adm.Late == other.Late && adm.Parked == other.Parked && adm.EverParked == other.EverParked &&
		adm.CreatedAt.Equal(other.CreatedAt) && adm.AdmittedAt.Equal(other.AdmittedAt) &&
		adm.EndedAt.Equal(other.EndedAt) && adm.RequeuedAt.Equal(other.RequeuedAt) &&
		adm.WaitedFor == other.WaitedFor && adm.MaxWait == other.MaxWait &&
		adm.Lease == other.Lease && adm.LeaseUntil.Equal(other.LeaseUntil) && adm.ArrivedSeq == other.ArrivedSeq &&
		adm.AdmittedSeq == other.AdmittedSeq && adm.EndedSeq == other.EndedSeq && adm.Seen == other.Seen
}

// SameRequest reports whether two states of an admission agree in what was asked for. Nothing changes that afterwards,
// except that work which was done on an offline ticket is no longer held against the limits, and that what goes back to
// the queue arrives there anew.
func (adm *Admission) SameRequest(other *Admission) bool {
	return adm.ID == other.ID && adm.Account == other.Account && adm.Source == other.Source &&
		adm.Request == other.Request &&
		adm.Priority == other.Priority && (adm.Enforced == other.Enforced || other.Offline && !adm.Offline) &&
		adm.CreatedAt.Equal(other.CreatedAt) && adm.Lease == other.Lease
}

// Seen are the facts that let an admission pass, kept so that the decision can be replayed.
type Seen struct {
	// Remaining credits and slots at the decision, each with its explicit "unlimited".
	Remaining      Limit[Credits]
	Concurrent     Limit[int32]
	Used, Reserved Credits
	Active         int32
}

// Charge is an event to be recorded: of a settled admission, of a recorded use or of an adjustment.
type Charge struct {
	// Adjustment is true where the charge's own period was final and the open one was charged instead, and for
	// Account.Adjust.
	Adjustment bool
	// Seq places the charge in the account's order of decisions.
	Seq      int64
	PeriodNo int64
	Credits  Credits
	Alloc    Allocation
	// Overage is the part of Credits beyond the plan's; Price is what the user owes for it, Cost what the provider
	// takes.
	Overage     Credits
	Price, Cost Money
	// Currency of Price, and CostCurrency of Cost: that of the plan when the admission reserved it may be another one.
	Currency, CostCurrency string
	// Rate is the plan's price of a unit where it made the Credits, else nil.
	Rate *Rate
}

// Enter decides on a new admission and books it: it becomes Admitted or Queued and the account changes with it, or it
// is refused and nothing changes. Where the admission is not enforced, refusals and waits are reported but it is
// admitted. One that has entered before is not booked again, the answer says where it stands.
func (a *Account) Enter(adm *Admission, now time.Time) Decision {
	switch adm.State {
	case "":
	case Queued:
		return Decision{Outcome: Wait, Reason: adm.Reason}
	case Cancelled:
		return Decision{Outcome: Refuse, Reason: adm.Reason}
	case Admitted, Settled, Released, Expired:
		return Decision{Outcome: Admit}
	}
	d := Decide(a, adm.Request, now)
	adm.Account, adm.CreatedAt = a.ID, now
	switch {
	case d.Outcome == Admit || !adm.Enforced:
		a.Seq++
		adm.ArrivedSeq = a.Seq
		a.admit(adm, now)
	case d.Outcome == Wait:
		a.Seq++
		adm.ArrivedSeq = a.Seq
		adm.State, adm.Reason = Queued, d.Reason
		adm.LeaseUntil = now.Add(adm.Lease)
		a.Queued++
	}
	return d
}

// Park books a new admission that credits, cost or a suspension keep from running as Queued, for a holder that stays (a
// Job) and wants to start when they change. Limits that no waiting cures (file size, length, a full queue) still
// refuse.
func (a *Account) Park(adm *Admission, d Decision, now time.Time) bool {
	if adm.State != "" || !curable(d.Reason) || !a.Limits().Queued.Allows(a.Queued+1) {
		return false
	}
	a.Seq++
	adm.Account, adm.CreatedAt, adm.ArrivedSeq = a.ID, now, a.Seq
	adm.State, adm.Reason, adm.Parked, adm.EverParked = Queued, d.Reason, true, true
	adm.LeaseUntil = now.Add(adm.Lease)
	a.Queued++
	a.Parked++
	return true
}

func curable(r Reason) bool {
	retry := r.Info().Retry
	return retry == RetryTime || retry == RetryChange
}

// Promote goes through the first of the account's queued admissions, which must be in the order (priority descending,
// arrival), and admits those that may start. What only credits, cost or a suspension keep back is parked: it stays
// queued and lets those behind it pass, because it does not wait for their slots. What has waited for longer than the
// plan lets work wait is refused, whether it could start now or not. It returns the admissions that changed.
func (a *Account) Promote(queue []*Admission, now time.Time) []*Admission {
	return a.look(queue, now, true)
}

// Unpark goes through queued admissions that have others in front of them: what could start now waits for a slot like
// those, and what could not is parked, or refused as by Promote. It returns the admissions that changed.
func (a *Account) Unpark(queue []*Admission, now time.Time) []*Admission {
	return a.look(queue, now, false)
}

func (a *Account) look(queue []*Admission, now time.Time, first bool) []*Admission {
	var changed []*Admission
	for _, adm := range queue {
		if adm.State != Queued {
			continue
		}
		if a.RefuseOverdue(adm, now) {
			changed = append(changed, adm)
			continue
		}
		d := decideSpending(a, adm.Request, now)
		blocked := d.Outcome != Admit
		if !blocked && (!first || !a.Limits().Concurrent.Allows(a.Active+1)) {
			if adm.Parked {
				a.Parked--
			}
			if adm.Parked || adm.Reason != ConcurrencyLimit {
				adm.Parked, adm.Reason = false, ConcurrencyLimit
				changed = append(changed, adm)
			}
			continue
		}
		if !blocked {
			a.leaveQueue(adm)
			a.Seq++
			a.admit(adm, now)
			changed = append(changed, adm)
			continue
		}
		if !adm.Parked || adm.Reason != d.Reason {
			if !adm.Parked {
				a.Parked++
			}
			adm.Parked, adm.EverParked, adm.Reason = true, true, d.Reason
			changed = append(changed, adm)
		}
	}
	return changed
}

// WaitingSince is when the admission arrived where it waits, or waited last.
func (adm *Admission) WaitingSince() time.Time {
	if adm.RequeuedAt.IsZero() {
		return adm.CreatedAt
	}
	return adm.RequeuedAt
}

// RefuseOverdue ends a queued admission that has waited for longer than the account's plan lets work wait, and reports
// whether it did. The time that its holder has it renewed for does not count, nor what it waits for. One that is exempt
// from limits is exempt from this one.
func (a *Account) RefuseOverdue(adm *Admission, now time.Time) bool {
	most := a.Plan.MaxWait
	if most <= 0 || adm.State != Queued || !adm.Enforced || now.Sub(adm.WaitingSince()) <= most {
		return false
	}
	adm.WaitedFor, adm.MaxWait = adm.Reason, most
	a.leaveQueue(adm)
	a.Seq++
	adm.State, adm.Reason, adm.EndedAt, adm.EndedSeq = Cancelled, WaitedTooLong, now, a.Seq
	return true
}

// Overdue is the decision that refused an admission because it had waited for too long. It follows from the admission
// alone, so that it is the same whenever it is told.
func (adm *Admission) Overdue() Decision {
	return Decision{Reason: WaitedTooLong, WaitedFor: adm.WaitedFor, Bound: Bound{
		Unit: UnitWait, Limit: adm.MaxWait.Milliseconds(), Used: adm.EndedAt.Sub(adm.WaitingSince()).Milliseconds(),
	}}
}

// Means are what can keep work parked. Two of them can be compared.
type Means struct {
	plan      *Plan
	limits    Limits
	suspended bool
	remaining Limit[Credits]
	spare     Limit[Money]
}

// Means returns those of the account, which must have been rolled to now.
func (a *Account) Means(now time.Time) Means {
	spare := a.Plan.DailyCostCeiling
	spare.Max = spare.Max.Sub(a.dayCost(now)).Sub(a.reservedCost())
	return Means{plan: a.Plan, limits: a.Limits(), suspended: a.Suspended, remaining: a.Remaining(now), spare: spare}
}

// Help reports whether work that was parked with the means before may start with these.
func (m Means) Help(before Means) bool {
	return !m.suspended && (before.suspended || m.plan != before.plan || m.limits != before.limits ||
		!before.remaining.Allows(m.remaining.Max) || !before.spare.Allows(m.spare.Max))
}

func (a *Account) admit(adm *Admission, now time.Time) {
	limits := a.Limits()
	adm.Seen = Seen{
		Remaining: a.Remaining(now), Concurrent: limits.Concurrent, Used: a.Used, Reserved: a.Reserved,
		Active: a.Active,
	}
	adm.State, adm.Reason = Admitted, ""
	adm.AdmittedAt, adm.AdmittedSeq = now, a.Seq
	adm.PeriodNo, adm.PeriodEnd = a.PeriodNo, a.Period.End
	adm.Alloc = a.allocate(adm.Request.Estimate, now)
	adm.ProviderCost, adm.Currency = a.Plan.ProviderCost, a.Plan.Currency
	adm.EstimatedCost = Price(adm.Request.Estimate, a.Plan.ProviderCost)
	adm.LeaseUntil = now.Add(adm.Lease)

	a.Active++
	a.Reserved = a.Reserved.Add(adm.Request.Estimate)
	a.PlanReserved = a.PlanReserved.Add(adm.Alloc.Plan)
	a.add(Amounts{Currency: adm.Currency, ReservedCost: adm.EstimatedCost})
	for _, s := range adm.Alloc.Lots {
		lot := a.lot(s.Lot)
		lot.Reserved = lot.Reserved.Add(s.Credits)
	}
}

func (a *Account) leaveQueue(adm *Admission) {
	a.Queued--
	if adm.Parked {
		a.Parked--
		adm.Parked = false
	}
}

// Heartbeat renews the lease of a live admission.
func (adm *Admission) Heartbeat(now time.Time) error {
	if !adm.State.Live() {
		return Unfit(adm.State, "only a queued or admitted one has a lease to renew")
	}
	adm.LeaseUntil = now.Add(adm.Lease)
	return nil
}

// maxActual is what the longest audio costs: no job can use more.
const maxActual = Credits(MaxAudio / time.Millisecond)

func checkActual(actual Credits) error {
	if actual < 0 || actual > maxActual {
		return Invalid("actual use", "%s credits must lie between 0 and %s", actual, maxActual)
	}
	return nil
}

// Report records what a Job's pod says it used, for the controller to settle later. The first report wins.
func (adm *Admission) Report(actual Credits) error {
	if err := checkActual(actual); err != nil {
		return err
	}
	switch {
	case adm.State == Settled && *adm.Actual == actual, adm.Reported != nil && *adm.Reported == actual:
		return nil
	case adm.State == Settled:
		return Unfit(adm.State, "%s", alreadyCharged(*adm.Actual, actual))
	case adm.Reported != nil:
		x, y := distinct(*adm.Reported, actual)
		return Unfit(adm.State, "%s credits were reported before, not %s", x, y)
	case adm.State != Admitted && adm.State != Expired:
		return Unfit(adm.State, "only an admitted one can report its use")
	}
	adm.Reported = &actual
	return nil
}

// Settle ends an admission with a charge of actual (zero included) and returns the charge, or nil where the same actual
// was charged before. period is the admission's own period if it has closed, else nil. Nothing changes if it fails.
func (a *Account) Settle(adm *Admission, actual Credits, period *ClosedPeriod, now time.Time) (*Charge, error) {
	if err := checkActual(actual); err != nil {
		return nil, err
	}
	switch adm.State {
	case Settled:
		if *adm.Actual == actual {
			return nil, nil
		}
		return nil, Unfit(adm.State, "%s", alreadyCharged(*adm.Actual, actual))
	case Queued, Cancelled, Released:
		return nil, Unfit(adm.State, "only an admitted one can be completed")
	case Expired:
		// Its lots were given back when it expired and others may hold them by now: it is charged like new work.
		adm.Late, adm.Alloc = true, Allocation{}
		a.Seq++
	case Admitted:
		a.unreserve(adm, period)
		a.Seq++
		adm.EndedAt, adm.EndedSeq = now, a.Seq
	}
	adm.State, adm.Reason, adm.Actual = Settled, "", &actual

	c := &Charge{
		PeriodNo: adm.PeriodNo, Seq: a.Seq, Credits: actual,
		Cost: Price(actual, adm.ProviderCost), CostCurrency: a.currencyOf(adm),
	}
	a.charge(c, pinned(adm, a.lotExpiry, min(actual, adm.Alloc.Total())), period, now)
	return c, nil
}

// charge books c, whose period, credits and cost are known: what is held for it pays first, the rest is paid as new
// work would be. period is the closed period that it belongs to, nil where that is open; once it is final the open one
// pays.
func (a *Account) charge(c *Charge, held Allocation, period *ClosedPeriod, now time.Time) {
	a.spend(c.CostCurrency, c.Cost, now)
	if period != nil && period.Final(now) {
		// The plan's lot that it held went with its period, which keeps what it did not use; the open one pays.
		a.topUp(period)
		c.Adjustment, c.PeriodNo = true, a.PeriodNo
		held.Plan, period = 0, nil
	}
	a.book(c, held, period)
	if rest := c.Credits.Sub(held.Total()); rest > 0 {
		// An overrun, or what nothing is held for, is paid as new work would be.
		var al Allocation
		if period == nil {
			al = a.allocate(rest, now)
		} else {
			al = a.allocateLate(rest, period, now)
		}
		a.book(c, al, period)
	}
	price, currency := a.Plan.OveragePrice, a.Plan.Currency
	if period != nil && period.OveragePrice != nil {
		price, currency = *period.OveragePrice, period.Currency
	}
	c.Price, c.Currency = Price(c.Overage, price), currency
	cost, owed := Amounts{Currency: c.CostCurrency, Cost: c.Cost}, Amounts{Currency: currency, Charged: c.Price}
	if period == nil {
		a.add(cost)
		a.add(owed)
		return
	}
	period.add(cost)
	period.add(owed)
	a.topUp(period)
}

func alreadyCharged(charged, actual Credits) string {
	x, y := distinct(charged, actual)
	return fmt.Sprintf("it was charged %s credits, not %s", x, y)
}

// End ends a live admission without a charge: Released by its holder or Expired by the reaper where it ran, Cancelled
// where it only waited. Ending one that has ended without a charge changes nothing.
func (a *Account) End(adm *Admission, to State, reason Reason, period *ClosedPeriod, now time.Time) error {
	switch adm.State {
	case Settled:
		return Unfit(adm.State, "it has been charged already")
	case Released, Expired, Cancelled:
		return nil
	case Queued:
		a.leaveQueue(adm)
		adm.State = Cancelled
	case Admitted:
		a.unreserve(adm, period)
		if period != nil {
			a.topUp(period)
		}
		adm.State = to
	}
	a.Seq++
	adm.Reason, adm.EndedAt, adm.EndedSeq = reason, now, a.Seq
	return nil
}

// Requeue puts an admitted admission behind everything that waits, for a holder that could not begin (a Job of which no
// pod starts), and returns what it held. The stay that ends so is returned as an admission of its own, Released, under
// an id that follows from it; what has seen it can be replayed. One that waits is left as it is, and nil is returned.
func (a *Account) Requeue(adm *Admission, period *ClosedPeriod, now time.Time) (*Admission, error) {
	switch {
	case adm.State == Queued:
		return nil, nil
	case adm.State != Admitted:
		return nil, Unfit(adm.State, "only an admitted one can go back to the queue")
	case adm.Reported != nil:
		return nil, Unfit(adm.State, "it has reported its use, so it has begun")
	}
	stay := *adm
	stay.ID = NameID("stay", a.ID, fmt.Sprintf("%x/%d", [16]byte(adm.ID), adm.AdmittedSeq))
	if err := a.End(&stay, Released, "", period, now); err != nil {
		return nil, err
	}
	// It waited from when this stay began, which is not when the first one did.
	stay.CreatedAt, stay.RequeuedAt = adm.WaitingSince(), time.Time{}
	a.Seq++
	*adm = Admission{
		ID: adm.ID, Account: adm.Account, Source: adm.Source, State: Queued, Reason: ConcurrencyLimit,
		Request:  adm.Request,
		Priority: adm.Priority, Enforced: adm.Enforced, CreatedAt: adm.CreatedAt, Lease: adm.Lease,
		RequeuedAt: now,
		LeaseUntil: now.Add(adm.Lease),
		ArrivedSeq: a.Seq,
	}
	a.Queued++
	return &stay, nil
}

// currencyOf returns the currency of an admission's costs.
func (a *Account) currencyOf(adm *Admission) string {
	if adm.Currency == "" {
		return a.Plan.TermsAt(adm.AdmittedAt).Currency
	}
	return adm.Currency
}

// unreserve returns everything that an admitted admission holds.
func (a *Account) unreserve(adm *Admission, period *ClosedPeriod) {
	a.Active--
	a.add(Amounts{Currency: a.currencyOf(adm), ReservedCost: -adm.EstimatedCost})
	if a.Active == 0 {
		// Something may be left of a sum that saturated, or of reservations whose currency was not recorded.
		a.ReservedCost = 0
		a.Other = a.Other.each(func(m *Amounts) { m.ReservedCost = 0 })
	}
	for _, s := range adm.Alloc.Lots {
		lot := a.lot(s.Lot)
		lot.Reserved = lot.Reserved.Sub(s.Credits)
	}
	if period == nil {
		a.Reserved = a.Reserved.Sub(adm.Request.Estimate)
		a.PlanReserved = a.PlanReserved.Sub(adm.Alloc.Plan)
		return
	}
	period.Reserved = period.Reserved.Sub(adm.Request.Estimate)
	period.PlanReserved = period.PlanReserved.Sub(adm.Alloc.Plan)
}

// book adds part of a charge to the lots that pay for it and to its period: the closed one, or the open one where that
// is nil.
func (a *Account) book(c *Charge, al Allocation, period *ClosedPeriod) {
	limit, used, planUsed := a.Limits().Credits, &a.Used, &a.PlanUsed
	if period != nil {
		limit, used, planUsed = period.PlanLimit, &period.Used, &period.PlanUsed
	}
	// What others have reserved does not count: whoever settles last would pay for the same excess again.
	c.Overage = c.Overage.Add(overage(limit, *planUsed, al.Plan))
	*used, *planUsed = used.Add(al.Total()), planUsed.Add(al.Plan)
	for _, s := range al.Lots {
		lot := a.lot(s.Lot)
		lot.Used = lot.Used.Add(s.Credits)
	}
	c.Alloc = Allocation{Plan: c.Alloc.Plan.Add(al.Plan), Lots: mergeShares(c.Alloc.Lots, al.Lots)}
}

// overage returns how much of amount lies beyond limit where used has been used before.
func overage(limit Limit[Credits], used, amount Credits) Credits {
	if limit.Unlimited {
		return 0
	}
	return max(0, used.Add(amount).Sub(limit.Max)).Sub(max(0, used.Sub(limit.Max)))
}

// topUp raises the carry-over that a closed period left behind to what it turned out not to use. It never lowers it.
func (a *Account) topUp(p *ClosedPeriod) {
	carry := p.unused()
	if carry <= p.CarryOver {
		return
	}
	id := NewLotID(a.ID, LotCarryOver, carryOverName(p.No))
	lot := a.lot(id)
	if lot == nil {
		if a.PeriodNo != p.No+1 {
			return // the period that the carry-over was for has ended too
		}
		a.Lots = append(a.Lots, Lot{ID: id, Kind: LotCarryOver, Name: carryOverName(p.No), ExpiresAt: a.Period.End})
		lot = &a.Lots[len(a.Lots)-1]
	}
	lot.Credits = lot.Credits.Add(carry.Sub(p.CarryOver))
	p.CarryOver = carry
}

// pinned distributes amount, which must not exceed the reservation, over the lots that an admission holds, in the order
// in which they expire, so that what remains returns to the latest-expiring of them.
func pinned(adm *Admission, expiry func(LotID) int64, amount Credits) Allocation {
	var al Allocation
	left, plan := amount, adm.Alloc.Plan
	takePlan := func() {
		part := min(left, plan)
		al.Plan, left, plan = al.Plan.Add(part), left.Sub(part), 0
	}
	for _, s := range adm.Alloc.Lots {
		if expiry(s.Lot) > expiryKey(adm.PeriodEnd) {
			takePlan()
		}
		if part := min(left, s.Credits); part > 0 {
			al.Lots = append(al.Lots, Share{Lot: s.Lot, Credits: part})
			left = left.Sub(part)
		}
	}
	takePlan()
	return al
}

func (a *Account) lotExpiry(id LotID) int64 { return expiryKey(a.lot(id).ExpiresAt) }

func mergeShares(into, from []Share) []Share {
next:
	for _, s := range from {
		for i := range into {
			if into[i].Lot == s.Lot {
				into[i].Credits = into[i].Credits.Add(s.Credits)
				continue next
			}
		}
		into = append(into, s)
	}
	return into
}
