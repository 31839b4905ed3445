// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"fmt"
	"math"
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
	// PeriodNo and PeriodEnd are the user's own period that the reservation is pinned to.
	PeriodNo  int64
	PeriodEnd time.Time
	// Payer is the account above the user that pays; zero if the user's own does, and until it is admitted. Alloc are
	// the lots of the payer that it holds.
	Payer AccountID
	Alloc Allocation
	// Levels are what it holds in the accounts above its user's, the nearest first; nil of a user who had none above.
	// They are never changed, only replaced.
	Levels []Held
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
	// ArrivedSeq, AdmittedSeq and EndedSeq place its transitions in the user's order of decisions. EndedAt and EndedSeq
	// tell when it gave its slot back; a late charge does not move them.
	ArrivedSeq, AdmittedSeq, EndedSeq int64
	// Seen are the facts about the user's account that the admission was decided on.
	Seen Seen
}

// Equal reports whether two admissions agree in everything.
func (adm *Admission) Equal(other *Admission) bool {
	return adm.ID == other.ID && adm.Account == other.Account && adm.Source == other.Source &&
		adm.State == other.State &&
		adm.Reason == other.Reason && adm.Request == other.Request && adm.Priority == other.Priority &&
		adm.Enforced == other.Enforced && adm.Offline == other.Offline && adm.PeriodNo == other.PeriodNo &&
		adm.PeriodEnd.Equal(other.PeriodEnd) && adm.Payer == other.Payer && adm.Alloc.Plan == other.Alloc.Plan &&
		slices.Equal(adm.Levels, other.Levels) &&
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
	// Adjustment is true where the payer's period was final and its open one was charged instead, and for Chain.Adjust.
	Adjustment bool
	// Seq places the charge in the user's order of decisions, and PeriodNo is the user's period that it is booked in.
	Seq      int64
	PeriodNo int64
	// Levels are where it is booked above the user, the nearest first; nil of a user who has none above.
	Levels  []Booking
	Credits Credits
	// Payer is the account above the user that pays, zero if the user's own does, and Alloc are its lots that do.
	Payer AccountID
	Alloc Allocation
	// Overage is the part of Credits beyond the plan's; Price is what the user owes for it, Cost what the provider
	// takes.
	Overage     Credits
	Price, Cost Money
	// Currency of Price, and CostCurrency of Cost: that of the plan when the admission reserved it may be another one.
	Currency, CostCurrency string
	// Rate is the plan's price of a unit where it made the Credits, else nil.
	Rate *Rate
}

// Enter decides on a new admission and books it: it becomes Admitted or Queued and the accounts change with it, or it
// is refused and nothing changes. Where it is not enforced, refusals and waits are reported but it is
// admitted. One that has entered before is not booked again, the answer says where it stands.
func (c Chain) Enter(adm *Admission, now time.Time) Decision {
	switch adm.State {
	case "":
	case Queued:
		return Decision{Outcome: Wait, Reason: adm.Reason}
	case Cancelled:
		return Decision{Outcome: Refuse, Reason: adm.Reason}
	case Admitted, Settled, Released, Expired:
		return Decision{Outcome: Admit}
	}
	d := c.Decide(adm.Request, now)
	adm.Account, adm.CreatedAt = c.User().ID, now
	switch {
	case d.Outcome == Admit || !adm.Enforced:
		c.decided()
		adm.ArrivedSeq = c.User().Seq
		c.admit(adm, now)
	case d.Outcome == Wait:
		c.decided()
		adm.ArrivedSeq = c.User().Seq
		adm.State, adm.Reason = Queued, d.Reason
		adm.LeaseUntil = now.Add(adm.Lease)
		c.enqueue(1, 0)
	}
	return d
}

// Park books a new admission that credits, cost or a suspension keep from running as Queued, for a holder that stays (a
// Job) and wants to start when they change. Limits that no waiting cures (file size, length, a full queue) still
// refuse.
func (c Chain) Park(adm *Admission, d Decision, now time.Time) bool {
	if adm.State != "" || !curable(d.Reason) || c.crowded() >= 0 {
		return false
	}
	c.decided()
	adm.Account, adm.CreatedAt, adm.ArrivedSeq = c.User().ID, now, c.User().Seq
	adm.State, adm.Reason, adm.Parked, adm.EverParked = Queued, d.Reason, true, true
	adm.LeaseUntil = now.Add(adm.Lease)
	c.enqueue(1, 1)
	return true
}

func curable(r Reason) bool {
	retry := r.Info().Retry
	return retry == RetryTime || retry == RetryChange
}

// Promote goes through the first of the user's queued admissions, which must be in the order (priority descending,
// arrival), and admits those that may start. What only credits, cost or a suspension keep back is parked: it stays
// queued and lets those behind it pass, because it does not wait for their slots. What has waited for longer than the
// payer's plan lets work wait is refused, whether it could start now or not. It returns the admissions that changed.
func (c Chain) Promote(queue []*Admission, now time.Time) []*Admission {
	return c.look(queue, now, math.MaxInt)
}

// PromoteFirst is Promote for one slot, where others may be next: it goes as far as the first that starts.
func (c Chain) PromoteFirst(queue []*Admission, now time.Time) (changed []*Admission, started bool) {
	changed = c.look(queue, now, 1)
	return changed, len(changed) > 0 && changed[len(changed)-1].State == Admitted
}

// Unpark goes through queued admissions that have others in front of them: what could start now waits for a slot like
// those, and what could not is parked, or refused as by Promote. It returns the admissions that changed.
func (c Chain) Unpark(queue []*Admission, now time.Time) []*Admission {
	return c.look(queue, now, 0)
}

// look admits as many as most, and ends with the last of these.
func (c Chain) look(queue []*Admission, now time.Time, most int) []*Admission {
	var changed []*Admission
	for _, adm := range queue {
		if adm.State != Queued {
			continue
		}
		if c.RefuseOverdue(adm, now) {
			changed = append(changed, adm)
			continue
		}
		d := c.decideSpending(adm.Request, now)
		blocked := d.Outcome != Admit
		if !blocked && (most == 0 || c.full() >= 0) {
			if adm.Parked {
				c.enqueue(0, -1)
			}
			if adm.Parked || adm.Reason != ConcurrencyLimit {
				adm.Parked, adm.Reason = false, ConcurrencyLimit
				changed = append(changed, adm)
			}
			continue
		}
		if !blocked {
			c.leaveQueue(adm)
			c.decided()
			c.admit(adm, now)
			changed = append(changed, adm)
			if most--; most == 0 {
				return changed
			}
			continue
		}
		if !adm.Parked || adm.Reason != d.Reason {
			if !adm.Parked {
				c.enqueue(0, 1)
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

// RefuseOverdue ends a queued admission that has waited for longer than the payer's plan lets work wait, and reports
// whether it did. The time that its holder has it renewed for does not count, nor what it waits for. One that is exempt
// from limits is exempt from this one.
func (c Chain) RefuseOverdue(adm *Admission, now time.Time) bool {
	most := c.Payer().Plan.MaxWait
	if most <= 0 || adm.State != Queued || !adm.Enforced || now.Sub(adm.WaitingSince()) <= most {
		return false
	}
	adm.WaitedFor, adm.MaxWait = adm.Reason, most
	c.leaveQueue(adm)
	c.decided()
	c.ended(adm, now)
	adm.State, adm.Reason = Cancelled, WaitedTooLong
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
type Means [MaxDepth]means

// means are those of one account of a chain. The id is zero where there is none.
type means struct {
	account   AccountID
	plan      *Plan
	limits    Limits
	suspended bool
	remaining Limit[Credits]
	spare     Limit[Money]
	capped    Limit[Money]
}

// Means returns those of the accounts, which must have been rolled to now.
func (c Chain) Means(now time.Time) Means {
	var all Means
	for i := range c.n {
		a := c.nodes[i]
		m := means{
			account: a.ID, suspended: a.Suspended, remaining: c.remaining(i, now), spare: noLimit[Money](),
			capped: noLimit[Money](),
		}
		if i == 0 {
			m.limits = a.Limits()
		}
		if i == c.payer {
			m.plan, m.limits = a.Plan, a.Limits()
			m.spare = a.spare(Ceiling{Limit: a.Plan.DailyCostCeiling, Currency: a.Plan.Currency}, now)
		}
		if most := c.caps(i).DailyCost; most != nil {
			m.capped = a.spare(*most, now)
		}
		all[i] = m
	}
	return all
}

// spare returns what is left of a ceiling.
func (a *Account) spare(ceiling Ceiling, now time.Time) Limit[Money] {
	ceiling.Max = ceiling.Max.Sub(a.dayCost(ceiling.Currency, now)).Sub(a.in(ceiling.Currency).ReservedCost)
	return ceiling.Limit
}

// Help reports whether work that was parked with the means before may start with these.
func (m Means) Help(before Means) bool {
	helps := false
	for i := range m {
		if m[i].suspended {
			return false
		}
		helps = helps || m[i].help(&before[i])
	}
	return helps
}

func (m *means) help(was *means) bool {
	return was.suspended || m.account != was.account || m.plan != was.plan || m.limits != was.limits ||
		!was.remaining.Allows(m.remaining.Max) || m.remaining.Unlimited && !was.remaining.Unlimited ||
		!was.spare.Allows(m.spare.Max) || !was.capped.Allows(m.capped.Max) ||
		m.capped.Unlimited && !was.capped.Unlimited
}

// TeamMeans are what of a team can keep from running what waits below it, besides the team's own slots.
type TeamMeans struct {
	means

	members Caps
}

// TeamMeans returns those of a team, which must have been rolled to now.
func (a *Account) TeamMeans(now time.Time) TeamMeans {
	m := TeamMeans{members: a.Team.MemberDefaults, means: means{
		account: a.ID, plan: a.Plan, limits: a.Limits(), suspended: a.Suspended, remaining: a.Remaining(now),
		spare:  a.spare(Ceiling{Limit: a.Plan.DailyCostCeiling, Currency: a.Plan.Currency}, now),
		capped: noLimit[Money](),
	}}
	if most := a.Team.Caps.Credits; most != nil && !most.Unlimited {
		m.remaining = stricter(m.remaining, AtMost(max(0, most.Max.Sub(a.Used).Sub(a.Reserved))))
	}
	if most := a.Team.Caps.DailyCost; most != nil {
		m.capped = a.spare(*most, now)
	}
	return m
}

// Help reports whether what did not run below the team with the means before may run with these.
func (m TeamMeans) Help(before TeamMeans) bool {
	return !m.suspended && (m.help(&before.means) || !m.members.equal(before.members))
}

// Credits returns the most that anything below the team could take.
func (m TeamMeans) Credits() Credits {
	if m.remaining.Unlimited {
		return MaxCredits
	}
	return m.remaining.Max
}

func (c Caps) equal(o Caps) bool {
	return same(c.Credits, o.Credits) && same(c.Concurrent, o.Concurrent) && same(c.Queued, o.Queued) &&
		same(c.DailyCost, o.DailyCost)
}

// admit books that an admission runs from now on: its slot and its credits in each account, its lots with the payer.
func (c Chain) admit(adm *Admission, now time.Time) {
	user, payer := c.User(), c.Payer()
	adm.Seen = c.seen(0, now)
	adm.State, adm.Reason = Admitted, ""
	adm.AdmittedAt, adm.AdmittedSeq = now, user.Seq
	adm.PeriodNo, adm.PeriodEnd = user.PeriodNo, user.Period.End
	if c.n > 1 {
		adm.Levels = make([]Held, c.n-1)
	}
	for i := range adm.Levels {
		a := c.nodes[i+1]
		adm.Levels[i] = Held{Account: a.ID, PeriodNo: a.PeriodNo, AdmittedSeq: a.Seq, Seen: c.seen(i+1, now)}
	}
	adm.Payer = c.above()
	adm.Alloc = payer.allocate(adm.Request.Estimate, now)
	adm.ProviderCost, adm.Currency = payer.Plan.ProviderCost, payer.Plan.Currency
	adm.EstimatedCost = Price(adm.Request.Estimate, payer.Plan.ProviderCost)
	adm.LeaseUntil = now.Add(adm.Lease)

	for i := range c.n {
		a := c.nodes[i]
		a.Active++
		a.Reserved = a.Reserved.Add(adm.Request.Estimate)
		a.add(Amounts{Currency: adm.Currency, ReservedCost: adm.EstimatedCost})
	}
	payer.PlanReserved = payer.PlanReserved.Add(adm.Alloc.Plan)
	for _, s := range adm.Alloc.Lots {
		lot := payer.lot(s.Lot)
		lot.Reserved = lot.Reserved.Add(s.Credits)
	}
}

func (c Chain) leaveQueue(adm *Admission) {
	c.enqueue(-1, 0)
	if adm.Parked {
		c.enqueue(0, -1)
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
// was charged before. The chain must be the admission's, and closed have the periods that it is booked in and that have
// closed. Nothing changes if it fails.
func (c Chain) Settle(adm *Admission, actual Credits, closed Closed, now time.Time) (*Charge, error) {
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
	case Admitted, Expired:
	}
	in, err := c.belongs(closed, adm.periodNo)
	if err != nil {
		return nil, err
	}
	if adm.State == Expired {
		// Its lots were given back when it expired and others may hold them by now: it is charged like new work.
		adm.Late, adm.Alloc = true, Allocation{}
		c.decided()
	} else {
		c.unreserve(adm, in)
		c.decided()
		c.ended(adm, now)
	}
	adm.State, adm.Reason, adm.Actual = Settled, "", &actual

	payer := c.Payer()
	ch := &Charge{Credits: actual, Cost: Price(actual, adm.ProviderCost), CostCurrency: payer.currencyOf(adm)}
	end := payer.Period.End
	if p := in[c.payer]; p != nil {
		end = p.Period.End
	}
	c.charge(ch, pinned(adm, end, payer.lotExpiry, min(actual, adm.Alloc.Total())), in, now)
	return ch, nil
}

// periodNo returns the number of the period that an admission belongs to, in the account at an index of its chain.
func (adm *Admission) periodNo(i int) int64 {
	if i == 0 {
		return adm.PeriodNo
	}
	return adm.Levels[i-1].PeriodNo
}

// ended writes down when an admission gave its slots back.
func (c Chain) ended(adm *Admission, now time.Time) {
	adm.EndedAt, adm.EndedSeq = now, c.User().Seq
	adm.Levels = slices.Clone(adm.Levels)
	for i := range adm.Levels {
		adm.Levels[i].EndedSeq = c.nodes[i+1].Seq
	}
}

// charge books ch, whose credits and cost are known, in all accounts: the payer's lots pay, the others count it. in are
// the periods that it belongs to.
func (c Chain) charge(ch *Charge, held Allocation, in periods, now time.Time) {
	ch.Seq, ch.Payer = c.User().Seq, c.above()
	if c.n > 1 {
		ch.Levels = make([]Booking, c.n-1)
	}
	for i := range c.n {
		a := c.nodes[i]
		var no int64
		if i == c.payer {
			no = a.charge(ch, held, in[i], now)
		} else {
			no = a.count(ch, in[i], now)
		}
		if i == 0 {
			ch.PeriodNo = no
			continue
		}
		ch.Levels[i-1] = Booking{Account: a.ID, PeriodNo: no, Seq: a.Seq}
	}
}

// count books a charge that another account pays, and returns the number of the period that it is booked in: the closed
// one that it belongs to, nil where that is open, or the open one once that is final.
func (a *Account) count(ch *Charge, period *ClosedPeriod, now time.Time) int64 {
	a.spend(ch.CostCurrency, ch.Cost, now)
	cost := Amounts{Currency: ch.CostCurrency, Cost: ch.Cost}
	if period == nil || period.Final(now) {
		a.Used = a.Used.Add(ch.Credits)
		a.add(cost)
		return a.PeriodNo
	}
	period.Used = period.Used.Add(ch.Credits)
	period.add(cost)
	return period.No
}

// charge books c, which the account pays: what is held for it pays first, the rest is paid as new work would be. period
// is the closed period that it belongs to, nil where that is open; once it is final the open one pays. It returns the
// number of the period that does.
func (a *Account) charge(c *Charge, held Allocation, period *ClosedPeriod, now time.Time) int64 {
	a.spend(c.CostCurrency, c.Cost, now)
	if period != nil && period.Final(now) {
		// The plan's lot that it held went with its period, which keeps what it did not use; the open one pays.
		a.topUp(period)
		c.Adjustment = true
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
		return a.PeriodNo
	}
	period.add(cost)
	period.add(owed)
	a.topUp(period)
	return period.No
}

func alreadyCharged(charged, actual Credits) string {
	x, y := distinct(charged, actual)
	return fmt.Sprintf("it was charged %s credits, not %s", x, y)
}

// End ends a live admission without a charge: Released by its holder or Expired by the reaper where it ran, Cancelled
// where it only waited. Ending one that has ended without a charge changes nothing. The chain must be the admission's,
// and closed have the periods that it is booked in and that have closed. Nothing changes if it fails.
func (c Chain) End(adm *Admission, to State, reason Reason, closed Closed, now time.Time) error {
	switch adm.State {
	case Settled:
		return Unfit(adm.State, "it has been charged already")
	case Released, Expired, Cancelled:
		return nil
	case Queued:
		c.leaveQueue(adm)
		adm.State = Cancelled
	case Admitted:
		in, err := c.belongs(closed, adm.periodNo)
		if err != nil {
			return err
		}
		c.unreserve(adm, in)
		if p := in[c.payer]; p != nil {
			c.Payer().topUp(p)
		}
		adm.State = to
	}
	c.decided()
	adm.Reason = reason
	c.ended(adm, now)
	return nil
}

// Requeue puts an admitted admission behind everything that waits, for a holder that could not begin (a Job of which no
// pod starts), and returns what it held on the chain that it is booked on. The stay that ends so is returned as an
// admission of its own, Released, under an id that follows from it; what has seen it can be replayed. One that waits is
// left as it is, and nil is returned.
func (c Chain) Requeue(adm *Admission, on Chain, closed Closed, now time.Time) (*Admission, error) {
	switch {
	case adm.State == Queued:
		return nil, nil
	case adm.State != Admitted:
		return nil, Unfit(adm.State, "only an admitted one can go back to the queue")
	case adm.Reported != nil:
		return nil, Unfit(adm.State, "it has reported its use, so it has begun")
	}
	stay := *adm
	stay.ID = NameID("stay", c.User().ID, fmt.Sprintf("%x/%d", [16]byte(adm.ID), adm.AdmittedSeq))
	if err := on.End(&stay, Released, "", closed, now); err != nil {
		return nil, err
	}
	// It waited from when this stay began, which is not when the first one did.
	stay.CreatedAt, stay.RequeuedAt = adm.WaitingSince(), time.Time{}
	c.decided()
	*adm = Admission{
		ID: adm.ID, Account: adm.Account, Source: adm.Source, State: Queued, Reason: ConcurrencyLimit,
		Request:  adm.Request,
		Priority: adm.Priority, Enforced: adm.Enforced, CreatedAt: adm.CreatedAt, Lease: adm.Lease,
		RequeuedAt: now,
		LeaseUntil: now.Add(adm.Lease),
		ArrivedSeq: c.User().Seq,
	}
	c.enqueue(1, 0)
	return &stay, nil
}

// currencyOf returns the currency of an admission's costs.
func (a *Account) currencyOf(adm *Admission) string {
	if adm.Currency == "" {
		return a.Plan.TermsAt(adm.AdmittedAt).Currency
	}
	return adm.Currency
}

// unreserve returns everything that an admitted admission holds, to the periods that it belongs to.
func (c Chain) unreserve(adm *Admission, in periods) {
	payer := c.Payer()
	currency := payer.currencyOf(adm)
	for i := range c.n {
		c.nodes[i].release(adm, currency, in[i])
	}
	for _, s := range adm.Alloc.Lots {
		lot := payer.lot(s.Lot)
		lot.Reserved = lot.Reserved.Sub(s.Credits)
	}
	planReserved := &payer.PlanReserved
	if p := in[c.payer]; p != nil {
		planReserved = &p.PlanReserved
	}
	*planReserved = planReserved.Sub(adm.Alloc.Plan)
}

// release returns an admission's slot and credits to one account, and to the closed period that it belongs to there,
// nil where that is open.
func (a *Account) release(adm *Admission, currency string, period *ClosedPeriod) {
	a.Active--
	a.add(Amounts{Currency: currency, ReservedCost: -adm.EstimatedCost})
	if a.Active == 0 {
		// Something may be left of a sum that saturated, or of reservations whose currency was not recorded.
		a.ReservedCost = 0
		a.Other = a.Other.each(func(m *Amounts) { m.ReservedCost = 0 })
	}
	reserved := &a.Reserved
	if period != nil {
		reserved = &period.Reserved
	}
	*reserved = reserved.Sub(adm.Request.Estimate)
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
// in which they expire, so that what remains returns to the latest-expiring of them. The plan's expires at end, with
// the payer's period.
func pinned(adm *Admission, end time.Time, expiry func(LotID) int64, amount Credits) Allocation {
	var al Allocation
	left, plan := amount, adm.Alloc.Plan
	takePlan := func() {
		part := min(left, plan)
		al.Plan, left, plan = al.Plan.Add(part), left.Sub(part), 0
	}
	for _, s := range adm.Alloc.Lots {
		if expiry(s.Lot) > expiryKey(end) {
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
