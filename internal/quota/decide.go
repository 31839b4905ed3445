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

// Decision is the answer to one request on one account.
type Decision struct {
	Outcome Outcome
	// Reason and Bound are set unless the outcome is Admit.
	Reason Reason
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

// Decide says whether req may run on the account now. The account must have been rolled to now. It is the only place
// where limits are compared: admission, the pre-flight check, the Job webhook and the promotion of waiting work all ask
// it.
func Decide(a *Account, req Request, now time.Time) Decision {
	if d := decideSpending(a, req, now); d.Outcome != Admit {
		return d
	}
	limits := a.Limits()
	waiting := a.Queued - a.Parked
	free := limits.Concurrent.Allows(a.Active + 1)
	if free && waiting <= 0 {
		return Decision{Outcome: Admit}
	}
	slots := a.slots()
	reason := ConcurrencyLimit
	if free {
		reason = NotFirst
	}
	if !req.Queue {
		return Decision{Reason: reason, Bound: slots}
	}
	if !limits.Queued.Allows(a.Queued + 1) {
		return Decision{Reason: QueueFull, Bound: Bound{
			Unit: UnitJobs, Limit: int64(limits.Queued.Max), Used: int64(a.Queued), Requested: 1,
			Remaining: max(0, int64(limits.Queued.Max)-int64(a.Queued)),
		}}
	}
	return Decision{Outcome: Wait, Reason: reason, Bound: slots}
}

// Binding says what keeps a queued admission from starting now, with the numbers. It may be something else than when it
// was last looked at, of which its Reason tells. The account must have been rolled to now.
func Binding(a *Account, adm *Admission, now time.Time) Decision {
	d := decideSpending(a, adm.Request, now)
	if d.Outcome == Admit {
		d = Decision{Reason: ConcurrencyLimit, Bound: a.slots()}
		if a.Limits().Concurrent.Allows(a.Active + 1) {
			d.Reason = NotFirst
		}
	}
	d.Outcome = Wait
	return d
}

func (a *Account) slots() Bound {
	limit := a.Limits().Concurrent.Max
	return Bound{
		Unit: UnitJobs, Limit: int64(limit), Used: int64(a.Active), Requested: 1,
		Remaining: max(0, int64(limit)-int64(a.Active)),
	}
}

// decideSpending checks everything but slots: what no waiting for other jobs can cure.
func decideSpending(a *Account, req Request, now time.Time) Decision {
	limits := a.Limits()
	if a.Suspended {
		return Decision{Reason: UserSuspended}
	}
	if !limits.FileSize.Allows(req.FileSize) {
		return Decision{Reason: FileTooLarge, Bound: Bound{
			Unit: UnitBytes, Limit: limits.FileSize.Max, Requested: req.FileSize, Remaining: limits.FileSize.Max,
		}}
	}
	if !limits.Audio.Allows(req.Estimate.Audio()) {
		return Decision{Reason: AudioTooLong, Bound: Bound{
			Unit: UnitAudio, Limit: limits.Audio.Max.Milliseconds(), Requested: int64(req.Estimate),
			Remaining: limits.Audio.Max.Milliseconds(),
		}}
	}
	if remaining := a.Remaining(now); !remaining.Allows(req.Estimate) {
		d := Decision{
			Reason: CreditsExhausted,
			Bound: Bound{
				Unit: UnitCredits, Limit: int64(a.Allowance(now).Max), Used: int64(a.Used), Reserved: int64(a.Reserved),
				Requested: int64(req.Estimate), Remaining: int64(remaining.Max),
			},
		}
		if a.mostNextPeriod() >= req.Estimate {
			d.RetryAt = a.Period.End
		}
		return d
	}
	ceiling, cost := a.Plan.DailyCostCeiling, Price(req.Estimate, a.Plan.ProviderCost)
	settled, reserved := a.dayCost(now), a.reservedCost()
	if taken := settled.Add(reserved); !ceiling.Allows(taken.Add(cost)) {
		d := Decision{
			Reason: DailyCostCeiling,
			Bound: Bound{
				Unit: UnitMoney, Currency: a.Plan.Currency, Limit: int64(ceiling.Max), Used: int64(settled),
				Reserved: int64(reserved), Requested: int64(cost), Remaining: int64(max(0, ceiling.Max.Sub(taken))),
			},
		}
		if ceiling.Allows(cost) {
			d.RetryAt = utcDay(now).Add(24 * time.Hour)
		}
		return d
	}
	return Decision{Outcome: Admit}
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

// Upgrade returns the lowest-ranked plan above the account's (of several the cheapest) that would have allowed req,
// which d did not, or nil. What others of the user's jobs take at the moment counts only where slots are what was
// missing.
func Upgrade(a *Account, req Request, d Decision, plans []*Plan, now time.Time) *Plan {
	var best *Plan
	for _, p := range plans {
		if p.Retired || p.Rank <= a.Plan.Rank || (best != nil && compareOffers(p, best) >= 0) {
			continue
		}
		// What the plan sells is what counts: the user's own exceptions may not outlive the change.
		with := *a
		with.Plan, with.Overrides = p, Overrides{}
		if with.wouldAllow(req, d.Reason, now) {
			best = p
		}
	}
	return best
}

func compareOffers(p, q *Plan) int {
	return cmp.Or(cmp.Compare(p.Rank, q.Rank), cmp.Compare(p.PeriodPrice, q.PeriodPrice), cmp.Compare(p.Name, q.Name))
}

func (a *Account) wouldAllow(req Request, refused Reason, now time.Time) bool {
	if decideSpending(a, req, now).Outcome != Admit {
		return false
	}
	switch refused {
	case ConcurrencyLimit, NotFirst:
		// Those that wait would start before it.
		return a.Limits().Concurrent.Allows(a.Active + a.Queued - a.Parked + 1)
	case QueueFull:
		return Decide(a, req, now).Outcome != Refuse
	case UserSuspended, FileTooLarge, AudioTooLong, CreditsExhausted, DailyCostCeiling, WaitedTooLong, UnknownUser,
		UnknownPlan:
	}
	return true
}

// Message says the decision in a sentence for people. It names the limit, what was asked and what remains, and contains
// no instant, so that it is stable while nothing changes.
func (d Decision) Message() string {
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
