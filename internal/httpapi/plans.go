// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"cmp"
	"context"
	"slices"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// ListPlans implements GET /api/v1/plans.
func (s *server) ListPlans(ctx context.Context, _ ListPlansRequestObject) (ListPlansResponseObject, error) {
	plans, err := s.usage.Plans(ctx)
	if err != nil {
		return nil, err
	}
	return ListPlans200JSONResponse{Plans: offers(plans)}, nil
}

// GetUsageWhatIf implements GET /api/v1/usage/what-if.
func (s *server) GetUsageWhatIf(
	ctx context.Context, r GetUsageWhatIfRequestObject,
) (GetUsageWhatIfResponseObject, error) {
	if err := checkPeriod(r.Params.Period); err != nil {
		return nil, err
	}
	u, err := s.current(ctx, r.Params.UserId, 0)
	if err != nil {
		return nil, err
	}
	if on := u.Chain(); on.Payer() != on.User() {
		return nil, quota.Conflict(
			"user \""+r.Params.UserId+"\"",
			"%s pays for the user, whose own plan changes nothing",
			on.Payer().Level(),
		)
	}
	plans, err := s.usage.Plans(ctx)
	if err != nil {
		return nil, err
	}
	plans = onOffer(plans)
	if name := r.Params.Plan; name != "" {
		plans = slices.DeleteFunc(plans, func(p *metering.Plan) bool { return p.Name != name })
		if len(plans) == 0 {
			return nil, quota.NotFound("plan %q on offer", name)
		}
	}
	past, now, err := s.history.Period(ctx, r.Params.UserId, r.Params.Period)
	if err != nil {
		return nil, err
	}
	out := GetUsageWhatIf200JSONResponse{
		UserId: r.Params.UserId, Period: period(&past), Bills: make([]Bill, len(plans)), AsOf: now,
	}
	for i, p := range plans {
		out.Bills[i] = encodeBill(p.Bill(past.Used, past.PlanUsed))
	}
	return out, nil
}

// checkPeriod checks the number of a period, which may be absent.
func checkPeriod(no *int64) error {
	if no != nil && (*no < 0 || *no > maxPeriod) {
		return invalid("period: %d must be between 0 and %d", *no, maxPeriod)
	}
	return nil
}

func encodeBill(b quota.Bill) Bill {
	out := Bill{
		Plan: planName(
			b.Plan,
		),
		Currency:            b.Currency,
		UsedCredits:         credits(b.Used),
		PaidByGrantsCredits: credits(b.FromLots),
		PlanCredits:         credits(b.FromPlan),
		OverageCredits:      credits(b.Overage),
		RefusedCredits:      credits(b.Refused),
		PricePerPeriod:      money(b.PeriodPrice),
		PricePerCredit:      money(b.OveragePrice),
		OveragePrice:        money(b.OverageCost),
		Total:               money(b.Total),
	}
	if !b.Included.Unlimited {
		out.IncludedCredits = credits(b.Included.Max)
	}
	return out
}

// onOffer returns the plans that can be bought, in upgrade order.
func onOffer(plans []*metering.Plan) []*metering.Plan {
	out := slices.DeleteFunc(slices.Clone(plans), func(p *metering.Plan) bool { return p.Retired })
	slices.SortFunc(out, func(p, q *metering.Plan) int {
		return cmp.Or(cmp.Compare(p.Rank, q.Rank), cmp.Compare(p.Name, q.Name))
	})
	return out
}

// offers tells what can be bought, in upgrade order.
func offers(plans []*metering.Plan) []OfferedPlan {
	out := []OfferedPlan{}
	for _, p := range onOffer(plans) {
		offer := OfferedPlan{
			Name: p.Name, DisplayName: cmp.Or(p.DisplayName, p.Name), Rank: p.Rank, Default: p.Default,
			Currency: p.Currency, PricePerPeriod: money(p.PeriodPrice), Limits: encodeLimits(p.Plan.Limits),
			Features: append([]string{}, p.Features...),
		}
		if p.CarryOverMax > 0 {
			offer.CarryOverCredits = credits(p.CarryOverMax)
		}
		if p.OverageMax > 0 {
			offer.Overage = Overage{MaxCredits: credits(p.OverageMax), PricePerCredit: money(p.OveragePrice)}
		}
		out = append(out, offer)
	}
	return out
}
