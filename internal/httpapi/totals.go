// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// GetUsageTotals implements GET /api/v1/analytics/totals.
func (s *server) GetUsageTotals(
	ctx context.Context, r GetUsageTotalsRequestObject,
) (GetUsageTotalsResponseObject, error) {
	if err := s.mayAll(ctx, access.Resource); err != nil {
		return nil, err
	}
	by, err := totalsBy(string(r.Params.By))
	if err != nil {
		return nil, err
	}
	span, err := spanOf(r.Params.From, r.Params.To)
	if err != nil {
		return nil, err
	}
	rows, err := asRows(string(r.Params.Format))
	if err != nil {
		return nil, err
	}
	if rows {
		asOf, pages, err := s.analytics.TotalsRows(ctx, span)
		if err != nil {
			return nil, err
		}
		return newDownload(ctx, string(r.Params.Format), asOf, totalsColumns, pages), nil
	}
	t, err := s.analytics.Totals(ctx, by, span)
	if err != nil {
		return nil, err
	}
	return usageTotals(&t, by), nil
}

// totalsBy reads how totals are grouped.
func totalsBy(given string) (reports.By, error) {
	switch by := reports.By(given); by {
	case "":
		return reports.ByDay, nil
	case reports.ByDay, reports.ByWeek, reports.ByMonth, reports.ByType, reports.ByPlan:
		return by, nil
	case reports.ByTeam:
	}
	return "", invalid("by: %.40q must be day, week, month, plan or type", given)
}

func usageTotals(t *reports.Totals, by reports.By) GetUsageTotals200JSONResponse {
	out := GetUsageTotals200JSONResponse{
		From: date(t.From), To: date(t.To), Total: figures(&t.Total), Groups: make([]TotalsGroup, len(t.Buckets)),
		Refusals: make([]RefusalTotal, len(t.Refusals)), AsOf: t.AsOf,
	}
	for i := range t.Buckets {
		b := &t.Buckets[i]
		g := TotalsGroup{From: date(b.From), To: date(b.To), Figures: figures(&b.Figures)}
		if by == reports.ByPlan {
			g.Plan = b.Name
		} else {
			g.UsageType = b.Name
		}
		out.Groups[i] = g
	}
	for i, n := range t.Refusals {
		out.Refusals[i] = RefusalTotal{
			Plan: n.Plan, Reason: n.Reason, ServedBy: n.ServedBy, Refusals: n.Count, UserDays: n.UserDays,
			PeakUsers: n.PeakUsers, Credits: credits(n.Credits),
		}
	}
	return out
}

// totalsColumns are the columns of a row under their names in usage_totals.
var totalsColumns = []column[reports.Total]{
	{"day", func(t *reports.Total) any { return t.Day.String() }},
	{"plan_name", func(t *reports.Total) any { return t.Plan }},
	{"usage_type", func(t *reports.Total) any { return t.UsageType }},
	{"currency", func(t *reports.Total) any { return t.Currency }},
	{"cost_currency", func(t *reports.Total) any { return t.CostCurrency }},
	{"users", func(t *reports.Total) any { return t.Users }},
	{"events", func(t *reports.Total) any { return t.Figures.Events }},
	{"reversals", func(t *reports.Total) any { return t.Figures.Reversals }},
	{"credits", func(t *reports.Total) any { return int64(t.Figures.Credits) }},
	{"refunded", func(t *reports.Total) any { return int64(t.Figures.Refunded) }},
	{"plan_credits", func(t *reports.Total) any { return int64(t.Figures.Plan) }},
	{"overage", func(t *reports.Total) any { return int64(t.Figures.Overage) }},
	{"grant_credits", func(t *reports.Total) any { return int64(t.Figures.Grants) }},
	{"carry_over", func(t *reports.Total) any { return int64(t.Figures.CarryOver) }},
	{"price_micros", func(t *reports.Total) any { return int64(amountIn(t, t.Currency).Charged) }},
	{"cost_micros", func(t *reports.Total) any { return int64(amountIn(t, t.CostCurrency).Cost) }},
	{"audio_ms", func(t *reports.Total) any { return t.Figures.Audio.Milliseconds() }},
	{"bytes", func(t *reports.Total) any { return t.Figures.Bytes }},
	{"tokens", func(t *reports.Total) any { return t.Figures.Tokens }},
	{"quantity", func(t *reports.Total) any { return t.Figures.Quantity }},
	{"admissions", func(t *reports.Total) any { return t.Figures.Admissions }},
	{"uncharged", func(t *reports.Total) any { return t.Figures.Uncharged }},
	{"waited_ms", func(t *reports.Total) any { return t.Figures.Waited.Milliseconds() }},
	{"running_ms", func(t *reports.Total) any { return t.Figures.Running.Milliseconds() }},
	{"expired", func(t *reports.Total) any { return t.Expired }},
	{"cancelled", func(t *reports.Total) any { return t.Cancelled }},
	{"waited_1s", func(t *reports.Total) any { return t.Within[0] }},
	{"waited_1m", func(t *reports.Total) any { return t.Within[1] }},
	{"waited_10m", func(t *reports.Total) any { return t.Within[2] }},
	{"waited_1h", func(t *reports.Total) any { return t.Within[3] }},
}

func amountIn(t *reports.Total, currency string) quota.Amounts {
	for _, m := range t.Figures.Amounts {
		if m.Currency == currency {
			return m
		}
	}
	return quota.Amounts{}
}
