// SPDX-License-Identifier: Apache-2.0

package quota

// Bill is what a period's use costs the user on a plan, and how that comes about. All money is in Currency.
type Bill struct {
	Plan     *Plan
	Currency string
	// Used is all of the period; FromLots of that was paid by grants and carry-over, and the plan has to pay FromPlan.
	Used, FromLots, FromPlan Credits
	// Included are the plan's credits. Overage is what FromPlan exceeds them by, as far as the plan lets them be
	// exceeded, and Refused is the rest: the plan would not have admitted it.
	Included         Limit[Credits]
	Overage, Refused Credits
	// PeriodPrice is the plan's own price, OverageCost that of Overage at OveragePrice a credit, and Total their sum.
	PeriodPrice, OveragePrice, OverageCost, Total Money
}

// Bill returns what the use would cost of which fromPlan, at most used, was paid by a plan's own credits and overage.
// What grants and carry-over paid they would have paid too. The price of overage is rounded half-even once, where each
// charge rounds its own, so it may differ from what was charged by less than a micro-unit an event.
func (p *Plan) Bill(used, fromPlan Credits) Bill {
	b := Bill{
		Plan: p, Currency: p.Currency, Used: used, FromLots: used.Sub(fromPlan), FromPlan: fromPlan,
		Included: p.Limits.Credits, PeriodPrice: p.PeriodPrice, OveragePrice: p.OveragePrice,
	}
	if !b.Included.Unlimited {
		beyond := max(0, fromPlan.Sub(b.Included.Max))
		b.Overage = min(beyond, p.OverageMax)
		b.Refused = beyond.Sub(b.Overage)
	}
	b.OverageCost = Price(b.Overage, p.OveragePrice)
	b.Total = b.PeriodPrice.Add(b.OverageCost)
	return b
}
