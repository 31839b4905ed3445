// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"time"
)

// Totals are what all users used together.
type Totals struct {
	Rollup
	Span

	Total   Figures
	Buckets []Bucket
	// Rows are what Total and Buckets are made of.
	Rows     []Total
	Refusals []RefusalTotal
}

// Totals sums up what all users used, in groups, by days of UTC.
func (s *Service) Totals(ctx context.Context, by By, span Span) (Totals, error) {
	r, err := s.store.TotalsRollup(ctx)
	if err != nil {
		return Totals{}, err
	}
	r.Zone = time.UTC
	out := Totals{Rollup: r}
	var covered Span
	if out.Span, covered, err = span.within(&r); err != nil {
		return Totals{}, err
	}
	if covered.From.Before(covered.To) {
		if out.Rows, err = s.store.Totals(ctx, covered.From, covered.To); err != nil {
			return Totals{}, err
		}
	}
	sums := make([]Sum, len(out.Rows))
	for i := range out.Rows {
		sums[i] = out.Rows[i].Sum
		if by == ByPlan {
			// It is grouped by this name.
			sums[i].UsageType = out.Rows[i].Plan
		}
		out.Total.Add(&sums[i].Figures)
	}
	if by == ByType || by == ByPlan {
		out.Buckets = byName(sums, covered, func(s *Sum) string { return s.UsageType })
	} else {
		out.Buckets = byTime(sums, covered, by)
	}
	out.Refusals, err = s.store.AllRefusals(ctx, out.From, out.To)
	return out, err
}
