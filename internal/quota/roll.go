// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"cmp"
	"strconv"
	"time"
)

// FinalAfter is how long after its end a period takes late charges where its plan says nothing else; afterwards they
// become adjustments in the current one.
const FinalAfter = 72 * time.Hour

// ClosedPeriod is a period whose end has passed, with its totals. Reserved can still fall and Used still rise until the
// work that it holds has settled.
type ClosedPeriod struct {
	No                     int64
	Period                 Period
	Used, Reserved         Credits
	PlanUsed, PlanReserved Credits
	Cost, Charged          Money
	// PlanLimit, PlanName and PlanVersion are what was in force when it ended.
	PlanLimit   Limit[Credits]
	PlanName    string
	PlanVersion int64
	// CarryOver is the lot that the next period got, and CarryOverMax the cap that bounds its top-ups.
	CarryOver, CarryOverMax Credits
	// Grace is how long after its end the period takes late charges, as the plan said when it ended; zero means
	// FinalAfter.
	Grace time.Duration
	// Currency of Cost and Charged, that of the plan when it ended; Other is what it has in others. OveragePrice is
	// what late work beyond the plan's credits costs a credit, in Currency; nil where it was not recorded.
	Currency     string
	Other        *OtherAmounts
	OveragePrice *Money
}

// Final reports whether the period takes no more charges.
func (p *ClosedPeriod) Final(now time.Time) bool {
	return !now.Before(p.FinalAt())
}

// FinalAt returns the instant from which the period takes no more charges.
func (p *ClosedPeriod) FinalAt() time.Time { return p.Period.End.Add(cmp.Or(p.Grace, FinalAfter)) }

func (p *ClosedPeriod) unused() Credits {
	if p.PlanLimit.Unlimited {
		return 0
	}
	return min(p.CarryOverMax, max(0, p.PlanLimit.Max.Sub(p.PlanUsed).Sub(p.PlanReserved)))
}

// Roll moves the account to the period that contains now and returns the periods that it closed on the way: none if the
// open one still lasts, several for an account that slept. Each is closed by the terms that held when it ended, however
// late that is found out. Open reservations count as used when the carry-over is computed. The
// account's own amounts are in the currency of its plan afterwards.
func (a *Account) Roll(now time.Time) []ClosedPeriod {
	var closed []ClosedPeriod
	for !now.Before(a.Period.End) {
		terms := a.Plan.TermsAt(a.Period.End)
		override(&terms.Credits, a.Overrides.Credits)
		a.keepIn(terms.Currency)
		p := ClosedPeriod{
			No: a.PeriodNo, Period: a.Period,
			Used: a.Used, Reserved: a.Reserved, PlanUsed: a.PlanUsed, PlanReserved: a.PlanReserved,
			Cost: a.Cost, Charged: a.Charged,
			PlanLimit: terms.Credits, PlanName: a.Plan.Name, PlanVersion: terms.Version,
			CarryOverMax: terms.CarryOverMax,
			Grace:        terms.FinalAfter,
			Currency:     terms.Currency,
			Other:        a.Other.each(func(m *Amounts) { m.DayCost, m.ReservedCost = 0, 0 }),
			OveragePrice: &terms.OveragePrice,
		}
		p.CarryOver = p.unused()
		calendar := Calendar{Anchor: a.Anchor, Zone: a.Zone, CalendarMonth: terms.CalendarMonth}
		next := Period{Start: a.Period.End, End: calendar.At(a.Period.End).End}
		if p.CarryOver > 0 {
			a.Lots = append(a.Lots, Lot{
				ID: NewLotID(a.ID, LotCarryOver, carryOverName(p.No)), Kind: LotCarryOver, Name: carryOverName(p.No),
				Credits: p.CarryOver, ExpiresAt: next.End,
			})
		}
		closed = append(closed, p)
		a.Period, a.PeriodNo = next, a.PeriodNo+1
		a.Used, a.Reserved, a.PlanUsed, a.PlanReserved, a.Cost, a.Charged = 0, 0, 0, 0, 0, 0
		a.Other = a.Other.each(func(m *Amounts) { m.Cost, m.Charged = 0, 0 })
	}
	a.keepIn(a.Plan.Currency)
	return closed
}

// carryOverName names the lot that carries period no's unused credits over.
func carryOverName(no int64) string { return strconv.FormatInt(no, 10) }
