// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/json"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/advice"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// SimulatePlan implements POST /api/v1/analytics/simulate.
func (s *server) SimulatePlan(
	ctx context.Context, r SimulatePlanRequestObject,
) (SimulatePlanResponseObject, error) {
	if err := s.mayAll(ctx, access.Resource); err != nil {
		return nil, err
	}
	manifest := []byte(r.Body.Plan)
	if text := ""; json.Unmarshal(manifest, &text) == nil {
		manifest = []byte(text)
	}
	plan, err := s.readPlan(ctx, manifest)
	if err != nil {
		return nil, invalid("plan: %.2000s", err)
	}
	done, err := s.simulations.Simulate(ctx, plan, r.Body.OfPlan, reports.MaxSimulated)
	if err != nil {
		return nil, err
	}
	return SimulatePlan200JSONResponse(planSimulation(&done)), nil
}

func planSimulation(s *reports.Simulated) PlanSimulation {
	out := PlanSimulation{
		Plan: s.Plan.Name, OfPlan: s.OfPlan, From: date(s.From), To: date(s.To),
		Outcome: simulatedOutcome(&s.Outcome), UsersThatFit: s.Fits, Refused: []SimulatedRefusal{},
		Present: make([]SimulatedOutcome, len(s.Present)), AsOf: s.AsOf,
	}
	for _, info := range quota.Reasons {
		if n := s.Refused[info.Reason]; n > 0 {
			out.Refused = append(out.Refused, SimulatedRefusal{Reason: info.Reason, Users: n})
		}
	}
	for i := range s.Present {
		out.Present[i] = simulatedOutcome(&s.Present[i])
	}
	return out
}

func simulatedOutcome(o *advice.Outcome) SimulatedOutcome {
	return SimulatedOutcome{
		Currency: o.Currency, Users: o.Users, Periods: o.Periods, ServedCredits: credits(o.Served),
		OverageCredits: credits(o.Overage), RefusedCredits: credits(o.Refused), PeriodPrice: money(o.PeriodPrice),
		OveragePrice: money(o.OveragePrice), Revenue: money(o.Revenue()), ProviderCost: money(o.Cost),
		Margin: money(o.Margin()),
	}
}
