// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"cmp"
	"slices"
)

// Amounts is the money of one currency. Amounts of different currencies are never added.
type Amounts struct {
	// Currency is an ISO 4217 code.
	Currency string
	// Cost is the provider's cost of a period, Charged what the user owes for overage in it.
	Cost, Charged Money
	// DayCost is the provider's cost of Balance.Day, ReservedCost the estimated cost of everything that runs.
	DayCost, ReservedCost Money
}

func (m Amounts) empty() bool { return m == Amounts{Currency: m.Currency} }

// plus returns the sums of both, which are of one currency.
func (m Amounts) plus(n Amounts) Amounts {
	m.Cost, m.DayCost = m.Cost.Add(n.Cost), m.DayCost.Add(n.DayCost)
	// A sum that saturated does not come back to zero by itself.
	m.Charged = max(0, m.Charged.Add(n.Charged))
	m.ReservedCost = max(0, m.ReservedCost.Add(n.ReservedCost))
	return m
}

// OtherAmounts are the amounts in currencies besides an account's or a period's own: what was booked or reserved while
// the plan had those. Nil means none. It is never changed, only replaced, so the pointer tells whether it is the same.
type OtherAmounts struct {
	// List is in the order of the currencies. Each is there once, and has something above zero.
	List []Amounts
}

// in returns the amounts of a currency.
func (o *OtherAmounts) in(currency string) Amounts {
	if o != nil {
		if i, there := slices.BinarySearchFunc(o.List, currency, byCurrency); there {
			return o.List[i]
		}
	}
	return Amounts{Currency: currency}
}

// with returns o with m in place of the amounts of m's currency.
func (o *OtherAmounts) with(m Amounts) *OtherAmounts {
	var list []Amounts
	if o != nil {
		list = slices.Clone(o.List)
	}
	i, there := slices.BinarySearchFunc(list, m.Currency, byCurrency)
	switch {
	case m.empty() && there:
		list = slices.Delete(list, i, i+1)
	case m.empty():
		return o
	case there:
		list[i] = m
	default:
		list = slices.Insert(list, i, m)
	}
	if len(list) == 0 {
		return nil
	}
	return &OtherAmounts{List: list}
}

// each returns what change makes of all of them.
func (o *OtherAmounts) each(change func(m *Amounts)) *OtherAmounts {
	out := o
	if o != nil {
		for _, m := range o.List {
			was := m
			if change(&m); m != was {
				out = out.with(m)
			}
		}
	}
	return out
}

// above returns, by currency, an amount of all of them that is above zero; nil if there is none.
func (o *OtherAmounts) above(of func(m Amounts) Money) map[string]Money {
	if o == nil {
		return nil
	}
	var found map[string]Money
	for _, m := range o.List {
		if amount := of(m); amount > 0 {
			if found == nil {
				found = map[string]Money{}
			}
			found[m.Currency] = amount
		}
	}
	return found
}

func byCurrency(m Amounts, currency string) int { return cmp.Compare(m.Currency, currency) }

// Money returns the amounts of all currencies in which the open period has cost or owes something, the plan's first.
func (b *Balance) Money() []Amounts { return listed(b.Amounts, b.Other) }

// Money returns the amounts of all currencies in which the period has cost or owes something, its own first.
func (p *ClosedPeriod) Money() []Amounts {
	return listed(Amounts{Currency: p.Currency, Cost: p.Cost, Charged: p.Charged}, p.Other)
}

func listed(own Amounts, other *OtherAmounts) []Amounts {
	all := []Amounts{own}
	if other != nil {
		all = append(all, other.List...)
	}
	return slices.DeleteFunc(all, func(m Amounts) bool { return m.Cost == 0 && m.Charged == 0 })
}

// in returns the amounts of a currency.
func (b *Balance) in(currency string) Amounts {
	if currency == b.Currency {
		return b.Amounts
	}
	return b.Other.in(currency)
}

// add adds amounts to those of their currency.
func (b *Balance) add(m Amounts) {
	switch {
	case m.empty():
	case m.Currency == b.Currency:
		b.Amounts = b.Amounts.plus(m)
	default:
		b.Other = b.Other.with(b.Other.in(m.Currency).plus(m))
	}
}

// keepIn makes a currency the one that the balance's own amounts are of.
func (b *Balance) keepIn(currency string) {
	if currency == b.Currency {
		return
	}
	was := b.Amounts
	b.Amounts = b.Other.in(currency)
	b.Other = b.Other.with(Amounts{Currency: currency}).with(was)
}

// add adds the cost and the price of a charge to those of their currency.
func (p *ClosedPeriod) add(m Amounts) {
	switch {
	case m.empty():
	case m.Currency == p.Currency:
		p.Cost, p.Charged = p.Cost.Add(m.Cost), max(0, p.Charged.Add(m.Charged))
	default:
		p.Other = p.Other.with(p.Other.in(m.Currency).plus(m))
	}
}
