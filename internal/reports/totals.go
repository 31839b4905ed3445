// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"iter"
	"time"
)

// Totals are what all users used together.
type Totals struct {
	Rollup
	Span

	Total    Figures
	Buckets  []Bucket
	Refusals []RefusalTotal
}

// Totals sums up what all users used, in groups, by days of UTC.
func (s *Service) Totals(ctx context.Context, by By, span Span) (Totals, error) {
	r, asked, covered, err := s.totalsSpan(ctx, span)
	if err != nil {
		return Totals{}, err
	}
	out := Totals{Rollup: r, Span: asked}
	var rows []Total
	if covered.From.Before(covered.To) {
		if rows, err = s.summed.Totals(ctx, "", covered.From, covered.To); err != nil {
			return Totals{}, err
		}
	}
	sums := make([]Sum, len(rows))
	for i := range rows {
		sums[i] = rows[i].Sum
		if by == ByPlan {
			// It is grouped by this name.
			sums[i].UsageType = rows[i].Plan
		}
		out.Total.Add(&sums[i].Figures)
	}
	if by == ByType || by == ByPlan {
		out.Buckets = byName(sums, covered, func(s *Sum) string { return s.UsageType })
	} else {
		out.Buckets = byTime(sums, covered, by)
	}
	out.Refusals, err = s.summed.AllRefusals(ctx, out.From, out.To)
	return out, err
}

// totalsSpan says how far totals are, which days were asked for, and which of them the totals cover.
func (s *Service) totalsSpan(ctx context.Context, span Span) (r Rollup, asked, covered Span, err error) {
	if r, err = s.totalsRollup(ctx); err != nil {
		return r, asked, covered, err
	}
	asked, covered, err = span.within(&r)
	return r, asked, covered, err
}

// pageDays is how many days of totals are read at once where their rows are asked for.
const pageDays = 7

// TotalsRows returns what Totals are made of, in the order of the days and a page at a time, and the moment up to which
// it is complete. A page is read when it is asked for, and nothing is held in between, so the rows of two pages may be
// of two rollups.
func (s *Service) TotalsRows(
	ctx context.Context, span Span,
) (asOf time.Time, pages iter.Seq2[[]Total, error], err error) {
	r, _, covered, err := s.totalsSpan(ctx, span)
	return r.AsOf, func(yield func([]Total, error) bool) {
		for from := covered.From; from.Before(covered.To); from = from.Add(pageDays) {
			rows, err := s.summed.Totals(ctx, "", from, earlier(from.Add(pageDays), covered.To))
			if !yield(rows, err) || err != nil {
				return
			}
		}
	}, err
}
