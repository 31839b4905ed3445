// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// GetUsageForecast implements GET /api/v1/usage/forecast.
func (s *server) GetUsageForecast(
	ctx context.Context, r GetUsageForecastRequestObject,
) (GetUsageForecastResponseObject, error) {
	user := r.Params.UserId
	if err := s.mayUser(ctx, user); err != nil {
		return nil, err
	}
	f, err := s.forecasts.Forecast(ctx, user)
	if err != nil {
		return nil, err
	}
	out := usageForecast(&f)
	out.UserId = user
	return GetUsageForecast200JSONResponse(out), nil
}

// GetTeamForecast implements GET /api/v1/teams/{name}/forecast.
func (s *server) GetTeamForecast(
	ctx context.Context, r GetTeamForecastRequestObject,
) (GetTeamForecastResponseObject, error) {
	if err := s.mayTeam(ctx, r.Name); err != nil {
		return nil, err
	}
	f, err := s.forecasts.TeamForecast(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	out := usageForecast(&f)
	out.Team = r.Name
	return GetTeamForecast200JSONResponse(out), nil
}

// GetTotalsForecast implements GET /api/v1/analytics/forecast.
func (s *server) GetTotalsForecast(
	ctx context.Context, r GetTotalsForecastRequestObject,
) (GetTotalsForecastResponseObject, error) {
	if err := s.mayAll(ctx, access.Resource); err != nil {
		return nil, err
	}
	days := int32(reports.DefaultAhead)
	if given := r.Params.Days; given != nil {
		days = *given
	}
	f, err := s.forecasts.TotalForecast(ctx, r.Params.Plan, int(days))
	if err != nil {
		return nil, err
	}
	out := TotalsForecast{
		Plan: r.Params.Plan, Answer: TotalsForecastAnswerForecast, Reason: TotalsForecastReason(f.Reason),
		Method: TotalsForecastMethod(f.Method), Backtest: backtest(&f.Told), Days: daysOfUse(f.Days),
		Until: date(f.Until), DaysAsOf: f.AsOf, AsOf: f.Now,
	}
	if f.Reason != "" {
		out.Answer = TotalsForecastAnswerInsufficientHistory
		return GetTotalsForecast200JSONResponse(out), nil
	}
	out.Used = expectedCredits(f.Used)
	return GetTotalsForecast200JSONResponse(out), nil
}

func usageForecast(f *reports.Forecast) UsageForecast {
	out := UsageForecast{
		Answer: UsageForecastAnswerForecast, Reason: UsageForecastReason(f.Reason),
		OpenPeriod: period(&f.Open), Method: UsageForecastMethod(f.Method), Backtest: backtest(&f.Told),
		Days: daysOfUse(f.Days), DaysAsOf: f.AsOf, AsOf: f.Now,
	}
	if f.Allowance != nil {
		out.AllowanceCredits = credits(*f.Allowance)
	}
	if f.Reason != "" {
		out.Answer = UsageForecastAnswerInsufficientHistory
		return out
	}
	out.UsedAtEnd = expectedCredits(f.Used)
	if e := f.Exhausted; e != nil {
		out.Exhausted = ExpectedExhaustion(*e)
	}
	return out
}

// backtest is empty where none was made; what it covered is known only of what is told.
func backtest(t *reports.Told) Backtest {
	if t.Method == "" {
		return Backtest{}
	}
	out := Backtest{Origins: int32(t.Backtest.Origins), Mase: t.Backtest.MASE}
	if t.Reason == "" {
		out.Coverage = &t.Backtest.Coverage
	}
	return out
}

func daysOfUse(days []reports.UseOfDay) []DayOfUse {
	out := make([]DayOfUse, len(days))
	for i, d := range days {
		out[i] = DayOfUse{Date: d.Day.String(), Credits: credits(d.Credits)}
	}
	return out
}

func expectedCredits(r reports.Range) ExpectedCredits {
	return ExpectedCredits{Low: credits(r.Low), Expected: credits(r.Expected), High: credits(r.High)}
}
