// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package quota

import "time"

// The kinds of parcels that are no lots of their own: they are fields of the plan.
const (
	ParcelPlan    LotKind = "plan"
	ParcelOverage LotKind = "overage"
)

// Parcel tells how a parcel of credits stands: a lot, the plan's own credits or its overage.
type Parcel struct {
	Kind LotKind
	// Name is a lot's.
	Name           string
	Credits        Limit[Credits]
	Used, Reserved Credits
	// ExpiresAt is the instant from which it pays for nothing new; zero means never.
	ExpiresAt time.Time
}

// Remaining returns what a parcel can still pay.
func (p *Parcel) Remaining() Limit[Credits] {
	if p.Credits.Unlimited {
		return p.Credits
	}
	return AtMost(max(0, p.Credits.Max.Sub(p.Used).Sub(p.Reserved)))
}

// Parcels returns what pays for the open period, in the order in which it is taken: the plan's credits always, its
// overage where it has one, and of the other lots those with something that is left or reserved. The account must have
// been rolled to now.
func (a *Account) Parcels(now time.Time) []Parcel {
	plan := Parcel{
		Kind: ParcelPlan, Credits: a.Limits().Credits, Used: a.PlanUsed, Reserved: a.PlanReserved,
		ExpiresAt: a.Period.End,
	}
	over := Parcel{Kind: ParcelOverage, Credits: AtMost(a.Plan.OverageMax), ExpiresAt: a.Period.End}
	if most := plan.Credits; !most.Unlimited && a.Plan.OverageMax > 0 {
		plan.Used = min(a.PlanUsed, most.Max)
		plan.Reserved = min(a.PlanReserved, most.Max.Sub(plan.Used))
		over.Used, over.Reserved = a.PlanUsed.Sub(plan.Used), a.PlanReserved.Sub(plan.Reserved)
	}
	var first, after []Parcel
	for _, lot := range payOrder(a.Lots) {
		if lot.available(now) == 0 && lot.Reserved == 0 {
			continue
		}
		p := Parcel{
			Kind: lot.Kind, Name: lot.Name, Credits: AtMost(lot.Credits), Used: lot.Used, Reserved: lot.Reserved,
			ExpiresAt: lot.ExpiresAt,
		}
		if expiryKey(lot.ExpiresAt) > expiryKey(a.Period.End) {
			after = append(after, p)
		} else {
			first = append(first, p)
		}
	}
	out := append(append(first, plan), after...)
	if a.Plan.OverageMax > 0 && !plan.Credits.Unlimited {
		out = append(out, over)
	}
	return out
}
