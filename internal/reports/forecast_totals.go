// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/forecast"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// DefaultAhead is how many days ahead a forecast of totals looks unless told otherwise.
	DefaultAhead = 30
	// MaxAhead is how many it can look ahead at most.
	MaxAhead = 90
)

// TotalForecast is what all users, or those of a plan, will use.
type TotalForecast struct {
	// Rollup says how far the days are, which are those of UTC.
	Rollup
	Told
	// Until is the day behind the last one that is foretold.
	Until Day
	// Used is what is used from now on until then.
	Used Range
}

// TotalForecast says what all users, or those of a plan unless that is empty, will use within so many days (1 to
// MaxAhead, DefaultAhead for 0), today's rest included.
func (s *Service) TotalForecast(ctx context.Context, plan string, ahead int) (TotalForecast, error) {
	if ahead == 0 {
		ahead = DefaultAhead
	}
	if ahead < 1 || ahead > MaxAhead {
		return TotalForecast{}, quota.Invalid("days", "%d must be between 1 and %d", ahead, MaxAhead)
	}
	r, err := s.totalsRollup(ctx)
	if err != nil {
		return TotalForecast{}, err
	}
	c := calendar{zone: time.UTC, today: DayOf(r.Now, time.UTC)}
	rows, err := s.summed.Totals(ctx, plan, c.today.Add(-ForecastDays), c.today)
	if err != nil {
		return TotalForecast{}, err
	}
	sums := make([]Sum, len(rows))
	for i := range rows {
		sums[i] = rows[i].Sum
	}
	out := TotalForecast{Rollup: r, Until: c.today.Add(ahead)}
	o, err := out.Told.by(&r, false, sums, forecast.Question{Passed: c.since(r.Now), Ahead: float64(ahead)})
	if err != nil || o.Reason != "" {
		return out, err
	}
	out.Used = rangeOf(o.End())
	return out, nil
}

func rangeOf(i forecast.Interval) Range {
	return Range{Low: quota.Credits(i.Low), Expected: quota.Credits(i.Expected), High: quota.Credits(i.High)}
}

// TeamAnalytics sums up what others used that a team paid for, in groups, by days of UTC. What was refused is counted
// by user only.
func (s *Service) TeamAnalytics(ctx context.Context, team string, by By, span Span) (Analytics, error) {
	account, err := s.store.TeamAccount(ctx, team)
	if err != nil {
		return Analytics{}, err
	}
	r, asked, covered, err := s.totalsSpan(ctx, span)
	if err != nil {
		return Analytics{}, err
	}
	r.Account = account
	out := Analytics{Rollup: r, Span: asked}
	sums, err := s.summed.Paid(ctx, account, covered.From, covered.To)
	if err != nil {
		return Analytics{}, err
	}
	out.group(sums, covered, by)
	return out, nil
}

// totalsRollup says how far the days of UTC are that all users are summed up by.
func (s *Service) totalsRollup(ctx context.Context) (Rollup, error) {
	r, err := s.summed.TotalsRollup(ctx)
	r.Zone = time.UTC
	return r, err
}
