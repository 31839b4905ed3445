// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"cmp"
	"fmt"
	"time"
)

// Outcome is what a decision comes to.
type Outcome int

// The outcomes of a decision.
const (
	Refuse Outcome = iota
	Wait
	Admit
)

// Unit tells what the numbers of a Bound count.
type Unit string

// The units of bounds.
const (
	UnitCredits Unit = "credits" // in units of 1/60000
	UnitBytes   Unit = "bytes"
	UnitAudio   Unit = "audio" // in milliseconds
	UnitJobs    Unit = "jobs"
	UnitMoney   Unit = "money" // in micro-units
	UnitWait    Unit = "wait"  // in milliseconds
)

// Bound is the limit that decided, with what it is made of. Remaining is never negative.
type Bound struct {
	Unit Unit
	// Currency of the amounts where they are money.
	Currency                                    string
	Limit, Used, Reserved, Requested, Remaining int64
}

// Decision is the answer to one request.
type Decision struct {
	Outcome Outcome
	// Reason, Level and Bound are set unless the outcome is Admit. Level is whose limit it is.
	Reason Reason
	Level  Level
	Bound  Bound
	// WaitedFor is the reason that work waited for until it was refused as WaitedTooLong; empty otherwise.
	WaitedFor Reason
	// RetryAt is the earliest instant at which the same request could succeed by itself; zero where none is known.
	RetryAt time.Time
}

// Request is what somebody wants to run.
type Request struct {
	Estimate Credits
	FileSize int64
	// Queue says whether the caller would wait for a slot.
	Queue bool
}

// Decide says whether req may run now. The accounts must have been rolled to now. It is the only place where limits are
// compared: admission, the pre-flight check, the Job webhook and the promotion of waiting work all ask it.
//
// Where several limits say no, it tells what is hardest to cure: what no waiting cures, then credits and money, then
// slots. Of one kind it tells the account that says no for longest, and of several the one nearest to the user.
func (c Chain) Decide(req Request, now time.Time) Decision {
	if d := c.decideSpending(req, now); d.Outcome != Admit {
		return d
	}
	before := c.behind()
	if c.full() < 0 && before < 0 {
		return Decision{Outcome: Admit}
	}
	d := c.slots(max(before, 0))
	if !req.Queue {
		return d
	}
	if i := c.crowded(); i >= 0 {
		d.Reason = QueueFull
		d.Level, d.Bound = c.nodes[i].Level(), jobs(c.queued(i), c.nodes[i].Queued)
		return d
	}
	d.Outcome = Wait
	return d
}

func jobs(limit Limit[int32], taken int32) Bound {
	return Bound{
		Unit: UnitJobs, Limit: int64(limit.Max), Used: int64(taken), Requested: 1,
		Remaining: max(0, int64(limit.Max)-int64(taken)),
	}
}

// spending are the rules about everything but slots, the hardest to cure first. Each goes over the whole chain.
var spending = [...]func(c Chain, req Request, now time.Time) Decision{
	Chain.decideSuspension, Chain.decideFileSize, Chain.decideAudio, Chain.decideCredits, Chain.decideCost,
}

// Binding says what keeps a queued admission from starting now, with the numbers. It may be something else than when it
// was last looked at, of which its Reason tells. The accounts must have been rolled to now.
func (c Chain) Binding(adm *Admission, now time.Time) Decision {
	d := c.decideSpending(adm.Request, now)
	if d.Outcome == Admit {
		d = c.slots(0)
	}
	d.Outcome = Wait
	return d
}

// behind returns the index of the nearest account of whose slots others wait for the next one, -1 if there is none.
// What waits below a team for a limit of its own is in front of nobody.
func (c Chain) behind() int {
	if c.nodes[0].Queued > c.nodes[0].Parked {
		return 0
	}
	for i := 1; i < c.n; i++ {
		if c.nodes[i].Contended {
			return i
		}
	}
	return -1
}

// slots names the nearest account without a free slot, or where all have one that of which others wait in front.
func (c Chain) slots(before int) Decision {
	d, at := Decision{Reason: ConcurrencyLimit}, c.full()
	if at < 0 {
		d.Reason, at = NotFirst, before
	}
	d.Level, d.Bound = c.nodes[at].Level(), jobs(c.concurrent(at), c.nodes[at].Active)
	return d
}

// decideSpending checks everything but slots: what no waiting for other jobs can cure.
func (c Chain) decideSpending(req Request, now time.Time) Decision {
	for _, rule := range spending {
		if d := rule(c, req, now); d.Outcome != Admit {
			return d
		}
	}
	return Decision{Outcome: Admit}
}

func (c Chain) decideSuspension(Request, time.Time) Decision {
	for i := range c.n {
		if a := c.nodes[i]; a.Suspended {
			return Decision{Reason: UserSuspended, Level: a.Level()}
		}
	}
	return Decision{Outcome: Admit}
}

func (c Chain) decideFileSize(req Request, _ time.Time) Decision {
	limit, level := perJob(c, c.Payer().Limits().FileSize, c.User().Overrides.FileSize)
	if limit.Allows(req.FileSize) {
		return Decision{Outcome: Admit}
	}
	return Decision{Reason: FileTooLarge, Level: level, Bound: Bound{
		Unit: UnitBytes, Limit: limit.Max, Requested: req.FileSize, Remaining: limit.Max,
	}}
}

func (c Chain) decideAudio(req Request, _ time.Time) Decision {
	limit, level := perJob(c, c.Payer().Limits().Audio, c.User().Overrides.Audio)
	if limit.Allows(req.Estimate.Audio()) {
		return Decision{Outcome: Admit}
	}
	return Decision{Reason: AudioTooLong, Level: level, Bound: Bound{
		Unit: UnitAudio, Limit: limit.Max.Milliseconds(), Requested: int64(req.Estimate),
		Remaining: limit.Max.Milliseconds(),
	}}
}

// perJob returns what bounds each single job of the user, and whose limit it is: the user's override where there is
// one, else the payer's.
func perJob[T ~int32 | ~int64](c Chain, payers Limit[T], own *Limit[T]) (Limit[T], Level) {
	if own != nil {
		return *own, c.User().Level()
	}
	return payers, c.Payer().Level()
}

func (c Chain) decideCredits(req Request, now time.Time) Decision {
	d := Decision{Outcome: Admit}
	for i := range c.n {
		a := c.nodes[i]
		if i == c.payer {
			d = d.or(a.affords(req.Estimate, now))
		}
		if most := c.caps(i).Credits; most != nil {
			d = d.or(a.within(*most, req.Estimate))
		}
	}
	return d
}

// affords decides whether the account's lots can pay the credits.
func (a *Account) affords(credits Credits, now time.Time) Decision {
	remaining := a.Remaining(now)
	if remaining.Allows(credits) {
		return Decision{Outcome: Admit}
	}
	d := Decision{
		Reason: CreditsExhausted, Level: a.Level(),
		Bound: Bound{
			Unit: UnitCredits, Limit: int64(a.Allowance(now).Max), Used: int64(a.Used), Reserved: int64(a.Reserved),
			Requested: int64(credits), Remaining: int64(remaining.Max),
		},
	}
	if a.mostNextPeriod() >= credits {
		d.RetryAt = a.Period.End
	}
	return d
}

// within decides whether a cap of the account leaves room for the credits.
func (a *Account) within(most Limit[Credits], credits Credits) Decision {
	taken := a.Used.Add(a.Reserved)
	if most.Allows(taken.Add(credits)) {
		return Decision{Outcome: Admit}
	}
	d := Decision{
		Reason: CreditsExhausted, Level: a.Level(),
		Bound: Bound{
			Unit: UnitCredits, Limit: int64(most.Max), Used: int64(a.Used), Reserved: int64(a.Reserved),
			Requested: int64(credits), Remaining: int64(max(0, most.Max.Sub(taken))),
		},
	}
	if most.Allows(credits) {
		d.RetryAt = a.Period.End
	}
	return d
}

func (c Chain) decideCost(req Request, now time.Time) Decision {
	d, plan := Decision{Outcome: Admit}, c.Payer().Plan
	cost := Price(req.Estimate, plan.ProviderCost)
	for i := range c.n {
		a := c.nodes[i]
		if i == c.payer {
			d = d.or(a.costs(Ceiling{Limit: plan.DailyCostCeiling, Currency: plan.Currency}, cost, now))
		}
		if most := c.caps(i).DailyCost; most != nil && most.Currency == plan.Currency {
			d = d.or(a.costs(*most, cost, now))
		}
	}
	return d
}

// costs decides whether a ceiling of the account leaves room for a cost in its currency.
func (a *Account) costs(ceiling Ceiling, cost Money, now time.Time) Decision {
	settled, reserved := a.dayCost(ceiling.Currency, now), a.in(ceiling.Currency).ReservedCost
	taken := settled.Add(reserved)
	if ceiling.Allows(taken.Add(cost)) {
		return Decision{Outcome: Admit}
	}
	d := Decision{
		Reason: DailyCostCeiling, Level: a.Level(),
		Bound: Bound{
			Unit: UnitMoney, Currency: ceiling.Currency, Limit: int64(ceiling.Max), Used: int64(settled),
			Reserved: int64(reserved), Requested: int64(cost), Remaining: int64(max(0, ceiling.Max.Sub(taken))),
		},
	}
	if ceiling.Allows(cost) {
		d.RetryAt = utcDay(now).Add(24 * time.Hour)
	}
	return d
}

// or returns the decision that says no for longer, d if neither does so.
func (d Decision) or(e Decision) Decision {
	switch {
	case e.Outcome == Admit:
	case d.Outcome == Admit, !d.RetryAt.IsZero() && (e.RetryAt.IsZero() || e.RetryAt.After(d.RetryAt)):
		return e
	}
	return d
}

// mostNextPeriod returns the most credits that the next period can start with, whatever happens in this one.
func (a *Account) mostNextPeriod() Credits {
	limit := a.Limits().Credits.Max
	sum := limit.Add(a.Plan.OverageMax).Add(min(limit, a.Plan.CarryOverMax))
	for i := range a.Lots {
		sum = sum.Add(a.Lots[i].available(a.Period.End))
	}
	return sum
}

// Upgrade returns the lowest-ranked plan above the payer's (of several the cheapest) that would have allowed req, which
// d did not, or nil: also where a cap is what refused, as no plan lifts it. What others of the user's jobs take at the
// moment counts only where slots are what was missing.
func (c Chain) Upgrade(req Request, d Decision, plans []*Plan, now time.Time) *Plan {
	var best *Plan
	for _, p := range plans {
		if p.Retired || p.Rank <= c.Payer().Plan.Rank || (best != nil && compareOffers(p, best) >= 0) {
			continue
		}
		// What the plan sells is what counts: the payer's own exceptions may not outlive the change.
		with, payer := c, *c.Payer()
		payer.Plan, payer.Overrides = p, Overrides{}
		with.nodes[c.payer] = &payer
		if with.wouldAllow(req, d.Reason, now) {
			best = p
		}
	}
	return best
}

func compareOffers(p, q *Plan) int {
	return cmp.Or(cmp.Compare(p.Rank, q.Rank), cmp.Compare(p.PeriodPrice, q.PeriodPrice), cmp.Compare(p.Name, q.Name))
}

func (c Chain) wouldAllow(req Request, refused Reason, now time.Time) bool {
	if c.decideSpending(req, now).Outcome != Admit {
		return false
	}
	switch refused {
	case ConcurrencyLimit, NotFirst:
		// Those that wait would start before it.
		for i := range c.n {
			if a := c.nodes[i]; !c.concurrent(i).Allows(a.Active + a.Queued - a.Parked + 1) {
				return false
			}
		}
	case QueueFull:
		return c.Decide(req, now).Outcome != Refuse
	case UserSuspended, FileTooLarge, AudioTooLong, CreditsExhausted, DailyCostCeiling, WaitedTooLong, UnknownUser,
		UnknownPlan, RateLimited:
	}
	return true
}

// Message says the decision in a sentence for people. It names the limit, what was asked and what remains, the team if
// the limit is a team's, and contains no instant, so that it is stable while nothing changes.
func (d Decision) Message() string {
	switch {
	case d.Level.Kind != LevelTeam:
		return d.message()
	case d.Reason == UserSuspended:
		return d.Level.String() + " is suspended"
	}
	return d.Level.String() + ": " + d.message()
}

func (d Decision) message() string {
	b := d.Bound
	switch d.Reason {
	case "":
		return "within all limits"
	case UserSuspended:
		return "the user is suspended"
	case FileTooLarge:
		requested, limit := Bytes(b.Requested), Bytes(b.Limit)
		if requested == limit {
			requested, limit = fmt.Sprintf("%d bytes", b.Requested), fmt.Sprintf("%d bytes", b.Limit)
		}
		return fmt.Sprintf("the file has %s, the limit is %s per file", requested, limit)
	case AudioTooLong:
		return fmt.Sprintf("the audio lasts %s, the limit is %s per job", Credits(b.Requested).Audio(),
			Credits(b.Limit).Audio())
	case CreditsExhausted:
		requested, remaining := distinct(Credits(b.Requested), Credits(b.Remaining))
		return fmt.Sprintf("%s credits are needed, %s of %s remain in this period (%s used, %s reserved)",
			requested, remaining, Credits(b.Limit), Credits(b.Used), Credits(b.Reserved))
	case DailyCostCeiling:
		return fmt.Sprintf("the job would cost %s %s, %s of the daily ceiling of %s remain", Money(b.Requested),
			b.Currency, Money(b.Remaining), Money(b.Limit))
	case ConcurrencyLimit:
		return fmt.Sprintf("%d of %d jobs are running", b.Used, b.Limit)
	case NotFirst:
		if d.Level.Kind == LevelTeam {
			return "jobs of others wait in front"
		}
		return "other jobs of the user wait in front"
	case QueueFull:
		return fmt.Sprintf("%d of %d jobs are waiting already", b.Used, b.Limit)
	case WaitedTooLong:
		// Down to the second, but never so that the one seems to be within the other.
		waited, most := milliseconds(b.Used), milliseconds(b.Limit)
		if whole := waited.Truncate(time.Second); whole > most {
			waited = whole
		}
		return fmt.Sprintf("it waited %s (%s), the plan lets work wait %s at most", waited, d.WaitedFor, most)
	case UnknownUser:
		return "the user is not known"
	case UnknownPlan:
		return "the user's plan is not known and there is no default plan"
	case RateLimited:
		return "too many calls were made of late"
	}
	return string(d.Reason)
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// Bytes formats n with the largest binary unit below it, rounded half-even to two decimals: "26Mi", "1.5Gi".
func Bytes(n int64) string {
	const units = "KMGTP"
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	// In hundredths, in integers: no amount of this package passes through a float.
	hundredths := func(unit int64) int64 { return n/unit*100 + roundHalfEven(n%unit*100, unit) }
	unit, i := int64(1024), 0
	for hundredths(unit) >= 1024*100 && i < len(units)-1 {
		unit *= 1024
		i++
	}
	return formatDecimal(hundredths(unit), 2) + string(units[i]) + "i"
}
