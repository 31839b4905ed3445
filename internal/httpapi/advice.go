// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/advice"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// GetUsageAdvice implements GET /api/v1/usage/advice.
func (s *server) GetUsageAdvice(
	ctx context.Context, r GetUsageAdviceRequestObject,
) (GetUsageAdviceResponseObject, error) {
	user := r.Params.UserId
	if err := s.mayUser(ctx, user); err != nil {
		return nil, err
	}
	plans, err := s.usage.Plans(ctx)
	if err != nil {
		return nil, err
	}
	var offers []*quota.Plan
	for _, p := range onOffer(plans) {
		offers = append(offers, &p.Plan)
	}
	a, err := s.advice.Advice(ctx, user, offers)
	if err != nil {
		return nil, err
	}
	out := GetUsageAdvice200JSONResponse{UserId: user, Advice: []AdviceItem{}, DaysAsOf: a.AsOf, AsOf: a.Now}
	if a.Change != nil {
		out.Advice = append(out.Advice, changeAdvice(a.Change))
	}
	for _, l := range a.Lapses {
		out.Advice = append(out.Advice, AdviceItem{
			Reason: AdviceItemReason(advice.GrantLapses), Grant: LapsingGrant{
				Name: l.Name, ExpiresAt: l.ExpiresAt, RemainingCredits: credits(l.Remaining),
				RecentCredits: credits(l.Recent), DaysLeft: int32(l.DaysLeft), UnusedCredits: credits(l.Unused),
			},
		})
	}
	if len(a.Hours) > 0 {
		item := AdviceItem{Reason: AdviceItemReason(advice.HourIsBetter), Hours: make([]AdviceHour, len(a.Hours))}
		for i, h := range a.Hours {
			item.Hours[i] = AdviceHour{Hour: int32(h.Hour), BetterHour: int32(h.Better),
				OwnAdmissions: h.Own.Admissions, OwnWaited: h.Own.Waited, Admissions: h.Now.Admissions,
				Waited: h.Now.Waited, BetterAdmissions: h.Then.Admissions, BetterWaited: h.Then.Waited}
		}
		out.Advice = append(out.Advice, item)
	}
	return out, nil
}

func changeAdvice(c *advice.Change) AdviceItem {
	item := AdviceItem{
		Reason: AdviceItemReason(c.Reason), Plan: planName(c.Plan), Currency: c.Plan.Currency, Saving: money(c.Saving),
		Periods: make([]AdvicePeriod, len(c.Periods)),
	}
	for i, p := range c.Periods {
		item.Periods[i] = AdvicePeriod{
			Period: p.No, UsedCredits: credits(p.Used), PlanCredits: credits(p.FromPlan), Now: money(c.Now[i].Total),
			Then: money(c.Then[i].Total),
		}
	}
	return item
}

// GetPlanAdvice implements GET /api/v1/analytics/advice.
func (s *server) GetPlanAdvice(
	ctx context.Context, _ GetPlanAdviceRequestObject,
) (GetPlanAdviceResponseObject, error) {
	if err := s.mayAll(ctx, access.Resource); err != nil {
		return nil, err
	}
	a, err := s.advice.PlansAdvice(ctx)
	if err != nil {
		return nil, err
	}
	out := GetPlanAdvice200JSONResponse{
		From: date(a.From), To: date(a.To), Plans: make([]PlanAdvice, len(a.Plans)), AsOf: a.AsOf,
	}
	for i, p := range a.Plans {
		out.Plans[i] = PlanAdvice{
			Plan: p.Plan, Reason: PlanAdviceReason(advice.PlanFitsNobody), Periods: p.Periods, Within: p.Within,
		}
	}
	return out, nil
}

// GetChurnScore implements GET /api/v1/analytics/churn.
func (s *server) GetChurnScore(
	ctx context.Context, r GetChurnScoreRequestObject,
) (GetChurnScoreResponseObject, error) {
	if err := s.mayAll(ctx, access.Resource); err != nil {
		return nil, err
	}
	user := r.Params.UserId
	if err := checkUserID(user); err != nil {
		return nil, err
	}
	c, err := s.advice.Churn(ctx, user)
	if err != nil {
		return nil, err
	}
	out := GetChurnScore200JSONResponse{UserId: user, AsOf: c.AsOf}
	if c.Score == nil {
		return out, nil
	}
	out.Score, out.AtRisk = new(int32(c.Score.Points)), new(c.Score.Points >= advice.AtRisk)
	for _, f := range c.Score.Factors {
		out.Factors = append(out.Factors, ChurnFactor{
			Factor: ChurnFactorFactor(f.Name), Points: int32(f.Points), MaxPoints: int32(f.Max), Value: f.Value,
			Usual: f.Usual,
		})
	}
	return out, nil
}
