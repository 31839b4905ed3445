// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"time"

	openapi_types "github.com/oapi-codegen/runtime/types"

	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// GetUsageAnalytics implements GET /api/v1/analytics/usage.
func (s *server) GetUsageAnalytics(
	ctx context.Context, r GetUsageAnalyticsRequestObject,
) (GetUsageAnalyticsResponseObject, error) {
	user := r.Params.UserId
	if err := checkUserID(user); err != nil {
		return nil, err
	}
	by, err := groups(string(r.Params.By))
	if err != nil {
		return nil, err
	}
	span, err := spanOf(r.Params.From, r.Params.To)
	if err != nil {
		return nil, err
	}
	if err := s.may(ctx, user); err != nil {
		return nil, err
	}
	a, err := s.analytics.Analytics(ctx, user, by, span)
	if err != nil {
		return nil, err
	}
	out := usageAnalytics(&a)
	out.UserId = user
	return GetUsageAnalytics200JSONResponse(out), nil
}

// GetTeamAnalytics implements GET /api/v1/teams/{name}/analytics.
func (s *server) GetTeamAnalytics(
	ctx context.Context, r GetTeamAnalyticsRequestObject,
) (GetTeamAnalyticsResponseObject, error) {
	if err := s.mayTeam(ctx, r.Name); err != nil {
		return nil, err
	}
	by, err := groups(string(r.Params.By))
	if err != nil {
		return nil, err
	}
	span, err := spanOf(r.Params.From, r.Params.To)
	if err != nil {
		return nil, err
	}
	a, err := s.analytics.TeamAnalytics(ctx, r.Name, by, span)
	if err != nil {
		return nil, err
	}
	out := usageAnalytics(&a)
	out.Team = r.Name
	return GetTeamAnalytics200JSONResponse(out), nil
}

// groups reads how sums are to be grouped, by days unless given.
func groups(given string) (reports.By, error) {
	switch by := reports.By(given); by {
	case "":
		return reports.ByDay, nil
	case reports.ByDay, reports.ByWeek, reports.ByMonth, reports.ByType:
		return by, nil
	default:
		return "", invalid("by: %.40q must be day, week, month or type", given)
	}
}

func usageAnalytics(a *reports.Analytics) UsageAnalytics {
	out := UsageAnalytics{
		TimeZone: a.Zone.String(), From: date(a.From), To: date(a.To), Total: figures(&a.Total),
		Groups: make([]UsageGroup, len(a.Buckets)), Refusals: make([]RefusalCount, len(a.Refusals)), AsOf: a.AsOf,
	}
	for i, n := range a.Refusals {
		out.Refusals[i] = RefusalCount{Reason: n.Reason, Refusals: n.Count, Credits: credits(n.Credits)}
	}
	for i := range a.Buckets {
		b := &a.Buckets[i]
		out.Groups[i] = UsageGroup{
			From: date(b.From), To: date(b.To), UsageType: b.Name, Figures: figures(&b.Figures),
		}
	}
	return out
}

// spanOf reads days, each of which may be left out.
func spanOf(from, to string) (span reports.Span, err error) {
	if span.From, err = dayOf("from", from); err != nil {
		return span, err
	}
	span.To, err = dayOf("to", to)
	return span, err
}

func dayOf(name, given string) (reports.Day, error) {
	if given == "" {
		return reports.Day{}, nil
	}
	d, err := reports.ParseDay(given)
	if y := time.Time(d).Year(); err != nil || y < 2000 || y > 9998 {
		return d, invalid("%s: %.40q must be a day from 2000-01-01 to 9998-12-31, such as 2026-03-14", name, given)
	}
	return d, nil
}

func date(d reports.Day) openapi_types.Date { return openapi_types.Date{Time: time.Time(d)} }

func figures(f *reports.Figures) UsageFigures {
	return UsageFigures{
		Events: f.Events, Reversals: f.Reversals, Credits: credits(f.Credits), CreditsMs: int64(f.Credits),
		RefundedCredits: credits(f.Refunded), PlanCredits: credits(f.Plan), OverageCredits: credits(f.Overage),
		GrantCredits: credits(f.Grants), CarryOverCredits: credits(f.CarryOver), AudioSeconds: seconds(f.Audio),
		Bytes: f.Bytes, Tokens: f.Tokens, Quantity: f.Quantity, Amounts: amounts(f.Amounts),
		Admissions: f.Admissions, Uncharged: f.Uncharged, WaitedSeconds: seconds(f.Waited),
		RunningSeconds: seconds(f.Running),
	}
}

// activityDays is the span of GET /api/v1/analytics/activity: eight of each day of the week.
const activityDays = 56

// GetUsageActivity implements GET /api/v1/analytics/activity.
func (s *server) GetUsageActivity(
	ctx context.Context, r GetUsageActivityRequestObject,
) (GetUsageActivityResponseObject, error) {
	user := r.Params.UserId
	if err := checkUserID(user); err != nil {
		return nil, err
	}
	span, err := spanOf(r.Params.From, r.Params.To)
	if err != nil {
		return nil, err
	}
	span.Days = activityDays
	if err := s.may(ctx, user); err != nil {
		return nil, err
	}
	a, err := s.analytics.Activity(ctx, user, span)
	if err != nil {
		return nil, err
	}
	out := GetUsageActivity200JSONResponse{
		UserId: user, TimeZone: a.Zone.String(), From: date(a.From), To: date(a.To), AsOf: a.AsOf,
		Weekdays: []ActivityDay{},
	}
	for n := 1; n <= 7; n++ {
		d := n % 7
		if a.Days[d] == 0 {
			continue
		}
		day := ActivityDay{Weekday: int32(n), Days: int32(a.Days[d]), Hours: make([]ActivityHour, len(a.Hours[d]))}
		for h, sum := range a.Hours[d] {
			day.Hours[h] = ActivityHour{Events: sum.Events, Credits: credits(sum.Credits)}
		}
		out.Weekdays = append(out.Weekdays, day)
	}
	return out, nil
}

// GetUsageEngagement implements GET /api/v1/analytics/engagement.
func (s *server) GetUsageEngagement(
	ctx context.Context, r GetUsageEngagementRequestObject,
) (GetUsageEngagementResponseObject, error) {
	user := r.Params.UserId
	if err := s.mayUser(ctx, user); err != nil {
		return nil, err
	}
	e, err := s.analytics.Engagement(ctx, user)
	if err != nil {
		return nil, err
	}
	out := GetUsageEngagement200JSONResponse{
		UserId: user, TimeZone: e.Zone.String(), ActiveDays: int32(e.ActiveDays),
		CurrentStreakDays: int32(e.CurrentStreak), LongestStreakDays: int32(e.LongestStreak),
		CostPerTranscription: make([]MeanCost, len(e.Transcriptions)), OpenPeriod: period(&e.Open), AsOf: e.AsOf,
	}
	if e.FirstUse != nil {
		out.FirstUse, out.LastUse = date(*e.FirstUse), date(*e.LastUse)
	}
	if e.Recent != nil {
		out.RecentCredits = credits(e.Recent.Figures.Credits)
	}
	if e.Previous != nil {
		before := e.Previous.Figures.Credits
		out.PreviousCredits = credits(before)
		if e.Recent != nil && before > 0 {
			out.TrendPercent = new(percent(e.Recent.Figures.Credits.Sub(before), before))
		}
	}
	for i, m := range e.Transcriptions {
		out.CostPerTranscription[i] = MeanCost{
			Currency: m.Currency, Transcriptions: m.Count, ProviderCost: money(m.Cost),
		}
	}
	lasts := e.Open.Period.End.Sub(e.Open.Period.Start)
	lasted := min(max(0, e.Now.Sub(e.Open.Period.Start)), lasts)
	out.OpenPeriodElapsedPercent = int32(100 * (lasted / time.Second) / max(1, lasts/time.Second))
	if limit := e.Open.PlanLimit; !limit.Unlimited && limit.Max > 0 {
		out.OpenPeriodUsedPercent = new(percent(e.Open.Used, limit.Max))
	}
	return out, nil
}

// percent is a share of credits, as percentOf has it.
func percent(part, of quota.Credits) int32 { return percentOf(int64(part), int64(of)) }
