// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"strconv"
	"time"
)

// Excess is a limit of a team that allows more than the same limit of a team above it does, so that the other one
// binds.
type Excess struct {
	Limit LimitName
	// Own and Over are the two values, for people.
	Own, Over string
}

// Above returns what the caps allow beyond those of a team above. Amounts of different currencies cannot be compared,
// and are not.
func (c Caps) Above(over *Caps) []Excess {
	var all []Excess
	add := func(name LimitName, above bool, own, limit string) {
		if above {
			all = append(all, Excess{Limit: name, Own: own, Over: limit})
		}
	}
	if own, limit := c.Credits, over.Credits; own != nil && limit != nil {
		add(LimitCredits, exceeds(*own, *limit), orUnlimited(*own, own.Max.String()), limit.Max.String())
	}
	jobs := func(name LimitName, own, limit *Limit[int32]) {
		if own != nil && limit != nil {
			add(name, exceeds(*own, *limit), orUnlimited(*own, strconv.Itoa(int(own.Max))),
				strconv.Itoa(int(limit.Max)))
		}
	}
	jobs(LimitConcurrent, c.Concurrent, over.Concurrent)
	jobs(LimitQueued, c.Queued, over.Queued)
	if own, limit := c.DailyCost, over.DailyCost; own != nil && limit != nil &&
		(own.Unlimited || own.Currency == limit.Currency) {
		add(LimitDailyCost, exceeds(own.Limit, limit.Limit), orUnlimited(own.Limit, own.String()), limit.String())
	}
	return all
}

func exceeds[T ~int32 | ~int64](own, over Limit[T]) bool {
	return !over.Unlimited && (own.Unlimited || own.Max > over.Max)
}

func orUnlimited[T ~int32 | ~int64](l Limit[T], value string) string {
	if l.Unlimited {
		return "unlimited"
	}
	return value
}

// String returns the amount with its currency, as in "50 USD".
func (c *Ceiling) String() string { return c.Max.String() + " " + c.Currency }

// EffectiveLimit is the strictest of one limit over a chain, and the level that sets it.
type EffectiveLimit struct {
	Limit LimitName
	Level Level
	// Value is for people; Max is in the limit's own unit, and Currency that of an amount of money.
	Value    string
	Max      int64
	Currency string
}

// Effective returns what binds the user's new work: of credits, running and waiting jobs and the cost of a day the
// strictest of the user and the accounts above, each for what it counts itself, of equals the nearest. What nothing
// bounds is left out. The accounts must have been rolled to now.
func (c Chain) Effective(now time.Time) []EffectiveLimit {
	var all []EffectiveLimit
	add := func(name LimitName, currency string, limit func(i int) (unlimited bool, most int64, value string)) {
		var e EffectiveLimit
		for i := range c.n {
			if free, most, value := limit(i); !free && (e.Value == "" || most < e.Max) {
				e = EffectiveLimit{Limit: name, Level: c.nodes[i].Level(), Value: value, Max: most, Currency: currency}
			}
		}
		if e.Value != "" {
			all = append(all, e)
		}
	}
	add(LimitCredits, "", func(i int) (bool, int64, string) {
		limit := c.Credits(i, now)
		return limit.Unlimited, int64(limit.Max), limit.Max.String()
	})
	jobs := func(limit Limit[int32]) (bool, int64, string) {
		return limit.Unlimited, int64(limit.Max), strconv.Itoa(int(limit.Max))
	}
	add(LimitConcurrent, "", func(i int) (bool, int64, string) { return jobs(c.concurrent(i)) })
	add(LimitQueued, "", func(i int) (bool, int64, string) { return jobs(c.queued(i)) })
	plan := c.Payer().Plan
	add(LimitDailyCost, plan.Currency, func(i int) (bool, int64, string) {
		limit := noLimit[Money]()
		if i == c.payer {
			limit = plan.DailyCostCeiling
		}
		if most := c.caps(i).DailyCost; most != nil && most.Currency == plan.Currency {
			limit = stricter(limit, most.Limit)
		}
		return limit.Unlimited, int64(limit.Max), limit.Max.String() + " " + plan.Currency
	})
	return all
}

// Credits returns the credits of the open period that the account at an index may take: what it can pay if it pays, and
// what caps it. It must have been rolled to now.
func (c Chain) Credits(i int, now time.Time) Limit[Credits] {
	limit := noLimit[Credits]()
	if i == c.payer {
		limit = c.nodes[i].Allowance(now)
	}
	if most := c.caps(i).Credits; most != nil {
		limit = stricter(limit, *most)
	}
	return limit
}

// TeamLimits are what a team by itself bounds all below it to, whatever is above it.
type TeamLimits struct {
	// Credits of the open period, and what of them is neither used nor reserved: of the caps and, where the team pays,
	// its lots the stricter.
	Credits, Remaining Limit[Credits]
	Concurrent, Queued Limit[int32]
}

// TeamLimits returns what the team bounds all below it to. The account must have been rolled to now.
func (a *Account) TeamLimits(now time.Time) TeamLimits {
	c := Under(&Account{Plan: a.Plan}, Ancestors{a})
	return TeamLimits{
		Credits: c.Credits(1, now), Remaining: c.remaining(1, now), Concurrent: c.concurrent(1), Queued: c.queued(1),
	}
}
