// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"strings"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/forecast"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

func TestTotalsForecast(t *testing.T) {
	yesterday := reports.DayOf(noon.AddDate(0, 0, -1), time.UTC)
	f := &fake{totalForetold: reports.TotalForecast{
		Told: reports.Told{
			Days:   []reports.UseOfDay{{Day: yesterday, Credits: 60_000}},
			Method: forecast.RunRate, Backtest: forecast.Backtest{Origins: 30, MASE: 0.75, Coverage: 0.5},
		},
		Used:  reports.Range{Low: 30 * quota.Credit, Expected: 35 * quota.Credit, High: 45 * quota.Credit},
		Until: yesterday.Add(31), Rollup: reports.Rollup{Now: noon, AsOf: noon.Add(-time.Minute)},
	}}
	h := handler(t, f)
	get := request{method: "GET", path: "/api/v1/analytics/forecast?plan=pro&days=30", token: "Bearer analyst"}
	equalJSON(t, do(h, get).Body.String(), `{"plan":"pro","answer":"forecast","until":"2026-04-13",
		"used":{"low":30,"expected":35,"high":45},"method":"run_rate",
		"backtest":{"origins":30,"mase":0.75,"coverage":0.5},"days":[{"date":"2026-03-13","credits":1}],
		"days_as_of":"2026-03-14T11:59:00Z","as_of":"2026-03-14T12:00:00Z"}`)
	f.totalForetold = reports.TotalForecast{
		Told: reports.Told{Reason: forecast.TooFewDays}, Until: yesterday.Add(31), Rollup: reports.Rollup{Now: noon},
	}
	get.path = "/api/v1/analytics/forecast"
	equalJSON(t, do(h, get).Body.String(), `{"answer":"insufficient_history","reason":"too_few_days",
		"until":"2026-04-13","days":[],"as_of":"2026-03-14T12:00:00Z"}`)
}

func TestForecast(t *testing.T) {
	open := quota.ClosedPeriod{
		No: 4, Period: quota.Period{Start: nextMonth.AddDate(0, -1, 0), End: nextMonth}, Used: 90_000,
		PlanLimit: quota.AtMost(30 * quota.Credit), PlanName: "free", Currency: "USD",
	}
	allowance, yesterday := 40*quota.Credit, reports.DayOf(noon.AddDate(0, 0, -1), time.UTC)
	f := &fake{foretold: reports.Forecast{
		Open: reports.HistoryPeriod{
			StoredPeriod: reports.StoredPeriod{ClosedPeriod: open}, State: reports.PeriodOpen,
		},
		Allowance: &allowance,
		Told: reports.Told{
			Days:   []reports.UseOfDay{{Day: yesterday, Credits: 60_000}},
			Method: forecast.WeeklySmoothing, Backtest: forecast.Backtest{Origins: 30, MASE: 0.75, Coverage: 0.5},
		},
		Used:      reports.Range{Low: 30 * quota.Credit, Expected: 35 * quota.Credit, High: 45 * quota.Credit},
		Exhausted: &reports.Exhaustion{Earliest: noon.Add(time.Hour)},
		Rollup:    reports.Rollup{Now: noon, AsOf: noon.Add(-time.Minute)},
	}}
	h := handler(t, f)
	get := request{method: "GET", path: "/api/v1/usage/forecast?user_id=alice", token: "Bearer reader"}
	const period = `"open_period":{"number":4,"start":"2026-03-01T00:00:00Z","end":"2026-04-01T00:00:00Z",
		"state":"Open","final_at":"0001-01-01T00:00:00Z","revision":0,"plan":"free","limit_credits":30,
		"used_credits":1.5,"reserved_credits":0,
		"carry_over_credits":0,"provider_cost":0,"price":0,"currency":"USD","amounts":[]}`
	equalJSON(t, do(h, get).Body.String(), `{"user_id":"alice","answer":"forecast",`+period+`,"allowance_credits":40,
		"used_at_end":{"low":30,"expected":35,"high":45},"exhausted":{"earliest":"2026-03-14T13:00:00Z"},
		"method":"weekly_smoothing","backtest":{"origins":30,"mase":0.75,"coverage":0.5},
		"days":[{"date":"2026-03-13","credits":1}],
		"days_as_of":"2026-03-14T11:59:00Z","as_of":"2026-03-14T12:00:00Z"}`)

	ofTeam := request{method: "GET", path: "/api/v1/teams/newsroom/forecast", token: "Bearer manager"}
	equalJSON(t, do(h, ofTeam).Body.String(), strings.Replace(do(h, get).Body.String(), `"user_id":"alice"`,
		`"team":"newsroom"`, 1))

	f.foretold.Allowance, f.foretold.Exhausted, f.foretold.Days = nil, nil, nil
	f.foretold.Used, f.foretold.Reason, f.foretold.Backtest.Coverage = reports.Range{}, forecast.NoneBetter, 0
	equalJSON(t, do(h, get).Body.String(), `{"user_id":"alice","answer":"insufficient_history","reason":"none_better",`+
		period+`,"method":"weekly_smoothing","backtest":{"origins":30,"mase":0.75},"days":[],
		"days_as_of":"2026-03-14T11:59:00Z","as_of":"2026-03-14T12:00:00Z"}`)

	get.path = "/api/v1/usage/forecast?user_id=a%20b"
	if w := do(h, get); w.Code != 400 && w.Code != 422 {
		t.Errorf("a user that cannot be: %d %s", w.Code, w.Body)
	}
}
