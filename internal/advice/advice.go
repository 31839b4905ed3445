// SPDX-License-Identifier: Apache-2.0

package advice

import (
	"cmp"
	"math/big"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Reason is the code of a piece of advice.
type Reason string

// The reasons. Each names a rule; docs/advice.md has them with their arithmetic.
const (
	// OverageCostsMore: a larger plan would have cost less than the overage.
	OverageCostsMore Reason = "overage_costs_more"
	// PlanUnused: a smaller plan would have been enough.
	PlanUnused Reason = "plan_unused"
	// OverageIsCheaper: a smaller plan with its overage would have cost less.
	OverageIsCheaper Reason = "overage_is_cheaper"
	// GrantLapses: a grant ends before it is used up at the present pace.
	GrantLapses Reason = "grant_lapses"
	// HourIsBetter: work waits at an hour of the day at which the user's does, and hardly at another one.
	HourIsBetter Reason = "better_hour"
	// PlanFitsNobody: next to none of a plan's periods used a sensible part of its credits.
	PlanFitsNobody Reason = "plan_fits_nobody"
)

// Window is of how many periods a change of plan must have paid.
const Window = 3

// MaxPeriods is how many periods are looked at, so that what once held is known to hold still.
const MaxPeriods = 12

// PeriodUse is what a closed period used, and what of it the plan paid with its credits and overage.
type PeriodUse struct {
	No             int64
	Used, FromPlan quota.Credits
}

// Change is the advice to change the plan.
type Change struct {
	Reason Reason
	Plan   *quota.Plan
	// Now and Then are the bills of the latest periods, the oldest first, on the present plan and on the other one.
	Periods   []PeriodUse
	Now, Then []quota.Bill
	// Saving is by how much Then is below Now, together. It is above zero.
	Saving quota.Money
}

// trial is what another plan would have been in some periods.
type trial struct {
	now, then []quota.Bill
	// refused is what the other plan would not have admitted.
	refused quota.Credits
}

func try(plan, other *quota.Plan, periods []PeriodUse) (t trial) {
	for _, p := range periods {
		t.now = append(t.now, plan.Bill(p.Used, p.FromPlan))
		b := other.Bill(p.Used, p.FromPlan)
		t.then, t.refused = append(t.then, b), t.refused.Add(b.Refused)
	}
	return t
}

func total(bills []quota.Bill) (m quota.Money) {
	for i := range bills {
		m = m.Add(bills[i].Total)
	}
	return m
}

func (t *trial) saving() quota.Money { return total(t.now).Sub(total(t.then)) }

// look says whether the change would have paid: it enters where a tenth of the bills is saved, and leaves where nothing
// is, or something would have been refused.
func (t *trial) look() signal {
	saving := t.saving()
	return between(t.refused == 0 && saving > 0 && 10*saving >= total(t.now), t.refused > 0 || saving <= 0)
}

// PlanChange says which of the plans on offer would have cost less in the last three closed periods, given the latest
// ones, the oldest first: at most MaxPeriods, and nil if there are fewer than three or no such plan. Plans of another
// currency are not compared. Where several would have, the one that saves most, of the lowest rank, is it. Advice
// begins where a tenth is saved and holds until nothing is, so it changes when a period ends and not from day to day.
func PlanChange(plan *quota.Plan, offers []*quota.Plan, periods []PeriodUse) *Change {
	if len(periods) < Window {
		return nil
	}
	var best *Change
	for _, other := range offers {
		if other.Name == plan.Name || other.Retired || other.Currency != plan.Currency {
			continue
		}
		var looks []signal
		var last trial
		for end := Window; end <= len(periods); end++ {
			last = try(plan, other, periods[end-Window:end])
			looks = append(looks, last.look())
		}
		if !held(looks) {
			continue
		}
		c := &Change{
			Reason: changeReason(plan, other, last.then), Plan: other, Periods: periods[len(periods)-Window:],
			Now: last.now, Then: last.then, Saving: last.saving(),
		}
		if best == nil || cmp.Or(cmp.Compare(c.Saving, best.Saving), cmp.Compare(best.Plan.Rank, other.Rank),
			cmp.Compare(best.Plan.Name, other.Name)) > 0 {
			best = c
		}
	}
	return best
}

func changeReason(plan, other *quota.Plan, then []quota.Bill) Reason {
	if other.Rank > plan.Rank {
		return OverageCostsMore
	}
	for i := range then {
		if then[i].Overage > 0 {
			return OverageIsCheaper
		}
	}
	return PlanUnused
}

const (
	// PaceDays is over how many days a pace is measured.
	PaceDays = 28
	// Looks is how many of them are looked at: those until today, and until each of the six days before.
	Looks = 7
	// lapseAhead is how far ahead a grant's end is looked at.
	lapseAhead = 60
)

// Lapse is the advice to use a grant before it ends.
type Lapse struct {
	Name      string
	ExpiresAt time.Time
	// Remaining of it, Recent the credits of the last 28 days before today, and DaysLeft until it ends, begun ones
	// counted.
	Remaining, Recent quota.Credits
	DaysLeft          int
	// Unused is what will be left of it: Remaining less Recent times DaysLeft by 28.
	Unused quota.Credits
}

// GrantLapse says whether a grant will lapse, given the credits of each of the PaceDays+Looks-1 days before today,
// the oldest first. It begins where a fifth of what remains would be left, and holds until a tenth would not, by the
// pace of today or of the latest of the six days before by which it is clear. Nil: it will not, or that is not clear,
// or it ends in more than 60 days.
func GrantLapse(lot quota.Lot, days [PaceDays + Looks - 1]quota.Credits, now time.Time) *Lapse {
	left := lot.ExpiresAt.Sub(now)
	l := &Lapse{
		Name: lot.Name, ExpiresAt: lot.ExpiresAt, Remaining: lot.Credits.Sub(lot.Used).Sub(lot.Reserved),
		DaysLeft: int((left + 24*time.Hour - 1) / (24 * time.Hour)),
	}
	if lot.Kind != quota.LotGrant || lot.ExpiresAt.IsZero() || left <= 0 || l.DaysLeft > lapseAhead ||
		l.Remaining <= 0 {
		return nil
	}
	var looks []signal
	for end := PaceDays; end <= len(days); end++ {
		l.Recent = 0
		for _, used := range days[end-PaceDays : end] {
			l.Recent = l.Recent.Add(used)
		}
		l.Unused = max(0, l.Remaining.Sub(times(l.Recent, l.DaysLeft, PaceDays)))
		looks = append(looks, between(5*l.Unused >= l.Remaining, 10*l.Unused < l.Remaining))
	}
	if !held(looks) {
		return nil
	}
	return l
}

// times is credits times n by of, rounded down.
func times(c quota.Credits, n, of int) quota.Credits {
	p := new(big.Int).Mul(big.NewInt(int64(c)), big.NewInt(int64(n)))
	if p.Quo(p, big.NewInt(int64(of))); !p.IsInt64() {
		return quota.MaxCredits
	}
	return quota.Credits(p.Int64()).Add(0)
}

// PlanUse is how many of a plan's periods with a limit ended in some time.
type PlanUse struct {
	Periods int64
	// Within are those that used a fifth or more of the plan's credits and did not use them up.
	Within int64
}

// minPeriods is of how many periods something is said about a plan.
const minPeriods = 20

// FitsNobody reports whether a plan fits nobody, by the last 90 days as of each of the last days, the oldest first: it
// begins where fewer than a tenth of the periods were within, and holds until three in twenty are.
func FitsNobody(looks []PlanUse) bool {
	var signals []signal
	for _, u := range looks {
		signals = append(signals, between(
			u.Periods >= minPeriods && 10*u.Within < u.Periods, u.Periods < minPeriods || 20*u.Within >= 3*u.Periods))
	}
	return held(signals)
}
