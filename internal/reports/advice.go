// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"slices"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/advice"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Advice is what would be better for a user.
type Advice struct {
	// Rollup says how far the sums are.
	Rollup
	// Change of the plan; nil: there is none that has paid.
	Change *advice.Change
	// Lapses are grants that will lapse, in the order of their ends.
	Lapses []advice.Lapse
	// Hours of the user's own clock at which work waits, with others at which it would hardly.
	Hours []advice.BetterHour
}

// Advice says what would be better for a user, of the plans on offer. There is none for a user for whom a team pays:
// neither the plan nor the grants are the user's.
func (s *Service) Advice(ctx context.Context, userID string, offers []*quota.Plan) (Advice, error) {
	r, err := s.rollup(ctx, userID)
	if err != nil {
		return Advice{}, err
	}
	u, err := s.standings.Current(ctx, userID)
	if err != nil {
		return Advice{}, err
	}
	out := Advice{Rollup: r}
	out.Now = u.Now
	if u.Chain().Payer() != u.Account {
		return out, nil
	}
	h, err := s.History(ctx, userID, 0, advice.MaxPeriods+1)
	if err != nil {
		return Advice{}, err
	}
	out.Change = planChange(u.Account, offers, h.Periods)
	if out.Lapses, err = s.lapses(ctx, &r, u.Account, u.Now); err != nil {
		return Advice{}, err
	}
	out.Hours, err = s.betterHours(ctx, &r, u.Account.Plan.Name, u.Now)
	return out, err
}

// betterHours needs the sums of all days before today.
func (s *Service) betterHours(ctx context.Context, r *Rollup, plan string, now time.Time) ([]advice.BetterHour, error) {
	var days [advice.WaitDays + advice.Looks - 1]advice.DayWaits
	today := DayOf(now, r.Zone)
	from := today.Add(-len(days))
	everybody, err := s.store.TotalsRollup(ctx)
	if err != nil || everybody.AsOf.IsZero() || DayOf(everybody.AsOf, r.Zone).Before(today) ||
		DayOf(r.AsOf, r.Zone).Before(today) {
		return nil, err
	}
	waits, err := s.store.Waits(ctx, r.Account, plan, r.Zone, from, today)
	for _, w := range waits {
		d := &days[w.Day.Since(from)]
		of := &d.All[w.Hour]
		if w.Own {
			of = &d.Own[w.Hour]
		}
		of.Add(w.Waits)
	}
	return advice.BetterHours(&days), err
}

// planChange asks for the user's own limits, which would replace another plan's as well.
func planChange(a *quota.Account, offers []*quota.Plan, history []HistoryPeriod) *advice.Change {
	own := func(p *quota.Plan) *quota.Plan {
		with := *p
		with.Limits = a.Overrides.Apply(p.Limits)
		return &with
	}
	var others []*quota.Plan
	for _, p := range offers {
		others = append(others, own(p))
	}
	var closed []advice.PeriodUse
	for _, p := range slices.Backward(history) {
		if p.State != PeriodOpen && len(closed) < advice.MaxPeriods {
			closed = append(closed, advice.PeriodUse{No: p.No, Used: p.Used, FromPlan: p.PlanUsed})
		}
	}
	return advice.PlanChange(own(a.Plan), others, closed)
}

// lapses needs whole days of four weeks and of the six days before that.
func (s *Service) lapses(ctx context.Context, r *Rollup, a *quota.Account, now time.Time) ([]advice.Lapse, error) {
	var days [advice.PaceDays + advice.Looks - 1]quota.Credits
	today := DayOf(now, r.Zone)
	from := today.Add(-len(days))
	if r.AsOf.IsZero() || DayOf(r.AsOf, r.Zone).Before(today) || from.Before(r.First) {
		return nil, nil
	}
	sums, err := s.sums(ctx, r, Span{From: from, To: today})
	if err != nil {
		return nil, err
	}
	for i := range sums {
		d := &days[sums[i].Day.Since(from)]
		*d = d.Add(sums[i].Figures.Credits)
	}
	var out []advice.Lapse
	for _, lot := range a.Lots {
		if l := advice.GrantLapse(lot, days, now); l != nil {
			out = append(out, *l)
		}
	}
	slices.SortStableFunc(out, func(a, b advice.Lapse) int { return a.ExpiresAt.Compare(b.ExpiresAt) })
	return out, nil
}

// PlanAdvice is the advice to look at a plan.
type PlanAdvice struct {
	Plan string
	// Use of the periods that ended in the last 90 days.
	advice.PlanUse
}

// PlansAdvice is what is to be said about plans.
type PlansAdvice struct {
	// Span is the last 90 days.
	Span

	AsOf  time.Time
	Plans []PlanAdvice
}

// utilisationDays is how far back the periods are that a plan is judged by.
const utilisationDays = 90

// withinPercent is from which share of its credits on a plan was of use to a period.
const withinPercent = 20

// PlansAdvice says which plans fit nobody.
func (s *Service) PlansAdvice(ctx context.Context) (PlansAdvice, error) {
	asOf, span, _, err := s.periodsSpan(ctx, Span{Days: utilisationDays})
	out := PlansAdvice{Span: span, AsOf: asOf}
	if err != nil || asOf.IsZero() {
		return out, err
	}
	looks := map[string][]advice.PlanUse{}
	for back := advice.Looks - 1; back >= 0; back-- {
		counts, err := s.store.Utilisation(ctx, span.From.Add(-back), span.To.Add(-back))
		if err != nil {
			return out, err
		}
		for plan, use := range planUses(counts) {
			// Of a plan that had no periods yet there are no looks.
			looks[plan] = append(looks[plan], use)
		}
	}
	for plan, of := range looks {
		if advice.FitsNobody(of) {
			out.Plans = append(out.Plans, PlanAdvice{Plan: plan, PlanUse: of[len(of)-1]})
		}
	}
	slices.SortFunc(out.Plans, func(a, b PlanAdvice) int {
		if a.Plan < b.Plan {
			return -1
		}
		return 1
	})
	return out, nil
}

func planUses(counts []PeriodCount) map[string]advice.PlanUse {
	uses := map[string]advice.PlanUse{}
	for _, c := range counts {
		u := uses[c.Plan]
		if c.Percent != Unlimited {
			u.Periods += c.Periods
		}
		if c.Percent >= withinPercent && c.Percent < Exhausted {
			u.Within += c.Periods
		}
		uses[c.Plan] = u
	}
	return uses
}

// Churn is how much speaks for a user's leaving.
type Churn struct {
	Rollup
	// Customer is what it follows from, and Score what follows; nil where there is nothing to compare.
	Customer advice.Customer
	Score    *advice.Score
}

// Churn scores a user by the days before today, of its own calendar. Without sums up to yesterday there is no score.
func (s *Service) Churn(ctx context.Context, userID string) (Churn, error) {
	r, err := s.rollup(ctx, userID)
	if err != nil {
		return Churn{}, err
	}
	out := Churn{Rollup: r}
	today := DayOf(r.Now, r.Zone)
	if r.Account == (quota.AccountID{}) || r.AsOf.IsZero() || DayOf(r.AsOf, r.Zone).Before(today) {
		return out, nil
	}
	from, recent := today.Add(-advice.ChurnDays), today.Add(-advice.PaceDays)
	sums, err := s.sums(ctx, &r, Span{From: from, To: today})
	if err != nil {
		return Churn{}, err
	}
	for i := range sums {
		u := &sums[i]
		d := &out.Customer.Days[u.Day.Since(from)]
		*d = d.Add(u.Figures.Credits)
		if !u.Day.Before(recent) {
			out.Customer.Failed += u.Figures.Uncharged
			out.Customer.Ended += u.Figures.Uncharged + u.Figures.Admissions
		}
	}
	refusals, err := s.store.Refusals(ctx, r.Account, r.Zone, recent, today)
	for _, n := range refusals {
		out.Customer.Refusals += n.Count
	}
	out.Score = advice.Churn(&out.Customer)
	return out, err
}
