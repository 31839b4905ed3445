// SPDX-License-Identifier: Apache-2.0

package advice

import (
	"cmp"
	"math/big"
	"slices"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// A simulation is of Spans spans of SpanDays days, each as a period: the last 90 days.
const (
	Spans    = 3
	SpanDays = 30
)

// UseOfDay is what a user used on a day and paid for itself.
type UseOfDay struct {
	// Day counts from the first one of the simulation, from 0 to Spans*SpanDays-1.
	Day int
	// Credits used, Transcribed of them for transcriptions: only these cost the provider's price.
	Credits, Transcribed quota.Credits
	// Audio and Bytes of the largest work.
	Audio time.Duration
	Bytes int64
}

// Subject is somebody for whom a plan is tried.
type Subject struct {
	// Plan that they are on.
	Plan *quota.Plan
	// Since is the day from which on they were a user; one below zero is before the first.
	Since int
	Days  []UseOfDay
}

// Outcome is what some time on plans would have been. All money is in the currency of the plan.
type Outcome struct {
	Currency string
	// Users who had been there, and Periods of theirs.
	Users, Periods int64
	// Served are the credits of what would have been admitted, Overage of them beyond the plan's, and Refused the rest.
	Served, Overage, Refused quota.Credits
	// Revenue of periods and of overage, and what the provider would have taken.
	PeriodPrice, OveragePrice, Cost quota.Money
}

// Revenue is that of periods and of overage.
func (o *Outcome) Revenue() quota.Money { return o.PeriodPrice.Add(o.OveragePrice) }

// Margin is the revenue less the cost.
func (o *Outcome) Margin() quota.Money { return o.Revenue().Sub(o.Cost) }

// Simulation is what the last days would have been on a plan.
type Simulation struct {
	Plan    *quota.Plan
	Outcome Outcome
	// Fits are the users all of whose work would have been admitted. Refused counts the others by what would have
	// refused some of it; who has several reasons is counted under each.
	Fits    int64
	Refused map[quota.Reason]int64
	// Present is the same for the plans that they are on, by the plans' currencies.
	Present []Outcome
}

// NewSimulation begins to try a plan.
func NewSimulation(plan *quota.Plan) *Simulation {
	return &Simulation{
		Plan: plan, Outcome: Outcome{Currency: plan.Currency}, Refused: map[quota.Reason]int64{},
	}
}

// Add tries the plan for somebody. Days without any use may be left out.
func (s *Simulation) Add(who *Subject) {
	s.Outcome.add(s.Plan, who)
	at, there := slices.BinarySearchFunc(s.Present, who.Plan.Currency,
		func(o Outcome, currency string) int { return cmp.Compare(o.Currency, currency) })
	if !there {
		s.Present = slices.Insert(s.Present, at, Outcome{Currency: who.Plan.Currency})
	}
	s.Present[at].add(who.Plan, who)
	reasons := Misfits(s.Plan, who)
	if len(reasons) == 0 {
		s.Fits++
	}
	for _, r := range reasons {
		s.Refused[r]++
	}
}

// add adds up somebody's time on a plan. A span before somebody was there is none.
func (o *Outcome) add(plan *quota.Plan, who *Subject) {
	spans := spansOf(who)
	o.Users++
	for i := range spans {
		if (i+1)*SpanDays <= who.Since {
			continue
		}
		b := plan.Bill(spans[i].Credits, spans[i].Credits)
		served := b.Used.Sub(b.Refused)
		o.Periods++
		o.Served, o.Overage, o.Refused = o.Served.Add(served), o.Overage.Add(b.Overage), o.Refused.Add(b.Refused)
		o.PeriodPrice, o.OveragePrice = o.PeriodPrice.Add(b.PeriodPrice), o.OveragePrice.Add(b.OverageCost)
		o.Cost = o.Cost.Add(quota.Price(share(spans[i].Transcribed, served, b.Used), plan.ProviderCost))
	}
}

func spansOf(who *Subject) (spans [Spans]UseOfDay) {
	for _, d := range who.Days {
		s := &spans[d.Day/SpanDays]
		s.Credits, s.Transcribed = s.Credits.Add(d.Credits), s.Transcribed.Add(d.Transcribed)
	}
	return spans
}

// share is so much of whole as part is of it, rounded down.
func share(of, part, whole quota.Credits) quota.Credits {
	if part == whole || whole <= 0 {
		return of
	}
	n := new(big.Int).Mul(big.NewInt(int64(of)), big.NewInt(int64(part)))
	return quota.Credits(n.Quo(n, big.NewInt(int64(whole))).Int64())
}

// Misfits are the reasons for which a plan would have refused some of somebody's work, in the order in which it is
// looked at: how large it was, how long, the credits of a span, and the provider's cost of a day. How many jobs ran at
// once is not known from sums.
func Misfits(plan *quota.Plan, who *Subject) []quota.Reason {
	var large, long, costly bool
	for _, d := range who.Days {
		large = large || !plan.Limits.FileSize.Allows(d.Bytes)
		long = long || !plan.Limits.Audio.Allows(d.Audio)
		costly = costly || !plan.DailyCostCeiling.Allows(quota.Price(d.Transcribed, plan.ProviderCost))
	}
	exhausted := false
	for _, s := range spansOf(who) {
		exhausted = exhausted || plan.Bill(s.Credits, s.Credits).Refused > 0
	}
	var reasons []quota.Reason
	for _, r := range []struct {
		refuses bool
		reason  quota.Reason
	}{
		{large, quota.FileTooLarge}, {long, quota.AudioTooLong}, {exhausted, quota.CreditsExhausted},
		{costly, quota.DailyCostCeiling},
	} {
		if r.refuses {
			reasons = append(reasons, r.reason)
		}
	}
	return reasons
}
