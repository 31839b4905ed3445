// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"

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
	f, err := s.history.Forecast(ctx, user)
	if err != nil {
		return nil, err
	}
	return GetUsageForecast200JSONResponse(usageForecast(user, &f)), nil
}

func usageForecast(user string, f *reports.Forecast) UsageForecast {
	out := UsageForecast{
		UserId: user, Answer: UsageForecastAnswerForecast, Reason: UsageForecastReason(f.Reason),
		OpenPeriod: period(&f.Open), Method: UsageForecastMethod(f.Method), Days: make([]DayOfUse, len(f.Days)),
		DaysAsOf: f.AsOf, AsOf: f.Now,
	}
	if f.Allowance != nil {
		out.AllowanceCredits = credits(*f.Allowance)
	}
	for i, d := range f.Days {
		out.Days[i] = DayOfUse{Date: d.Day.String(), Credits: credits(d.Credits)}
	}
	if f.Method != "" {
		out.Backtest = Backtest{Origins: int32(f.Backtest.Origins), Mase: f.Backtest.MASE}
	}
	if f.Reason != "" {
		out.Answer = UsageForecastAnswerInsufficientHistory
		return out
	}
	out.Backtest.Coverage = &f.Backtest.Coverage
	out.UsedAtEnd = ExpectedCredits{
		Low: credits(f.Used.Low), Expected: credits(f.Used.Expected), High: credits(f.Used.High),
	}
	if e := f.Exhausted; e != nil {
		out.Exhausted = ExpectedExhaustion(*e)
	}
	return out
}
