// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"encoding/json"
	"net/url"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

func TestHistory(t *testing.T) {
	period := func(no int64, state reports.PeriodState, limit quota.Limit[quota.Credits]) reports.HistoryPeriod {
		start := nextMonth.AddDate(0, int(no)-5, 0)
		p := quota.ClosedPeriod{
			No: no, Period: quota.Period{Start: start, End: start.AddDate(0, 1, 0)}, Used: 90_000, Reserved: 60_000,
			Cost:    9_000,
			Charged: 20_000, CarryOver: 30_000, PlanLimit: limit, PlanName: "free", Currency: "HKD",
			Other: &quota.OtherAmounts{List: []quota.Amounts{{Currency: "USD", Charged: 1_500_000}}},
		}
		return reports.HistoryPeriod{StoredPeriod: reports.StoredPeriod{ClosedPeriod: p, Revision: 2}, State: state,
			FinalAt: p.FinalAt()}
	}
	f := &fake{past: reports.History{
		Periods: []reports.HistoryPeriod{
			period(4, reports.PeriodOpen, quota.AtMost(30*quota.Credit)),
			period(3, reports.PeriodClosed, quota.Limit[quota.Credits]{Unlimited: true}),
		}, Before: 3, Now: noon,
	}}
	h := handler(t, f)
	get := request{method: "GET", path: "/api/v1/usage/history?user_id=alice", token: "Bearer reader"}
	w := do(h, get)
	const rest = `"revision":2,"plan":"free","used_credits":1.5,"reserved_credits":1,"carry_over_credits":0.5,
		"provider_cost":0.009,"price":0.02,"currency":"HKD",
		"amounts":[{"currency":"HKD","provider_cost":0.009,"price":0.02},
		    {"currency":"USD","provider_cost":0,"price":1.5}]`
	equalJSON(t, w.Body.String(), `{"user_id":"alice","as_of":"2026-03-14T12:00:00Z","next_cursor":"aGlzdG9yeS8xLzM",
	    "periods":[
		{"number":4,"state":"Open","limit_credits":30,"start":"2026-03-01T00:00:00Z","end":"2026-04-01T00:00:00Z",
		    "final_at":"2026-04-04T00:00:00Z",`+rest+`},
		{"number":3,"state":"Closed","start":"2026-02-01T00:00:00Z","end":"2026-03-01T00:00:00Z",
		    "final_at":"2026-03-04T00:00:00Z",`+rest+`}]}`)
	if f.before != 0 || f.limit != 12 {
		t.Errorf("without parameters the service was asked for %d periods below %d", f.limit, f.before)
	}
	get.path += "&limit=100&cursor=aGlzdG9yeS8xLzM"
	f.past = reports.History{Now: noon}
	equalJSON(t, do(h, get).Body.String(), `{"user_id":"alice","as_of":"2026-03-14T12:00:00Z","periods":[]}`)
	if f.before != 3 || f.limit != 100 {
		t.Errorf("the service was asked for %d periods below %d", f.limit, f.before)
	}
}

func TestHistoryOnTheRealStore(t *testing.T) {
	h := onStore(t)
	must(t, h, request{body: work(3)}, 201)
	got := must(t, h, request{method: "GET",
		path: "/api/v1/usage/history?user_id=alice&limit=1&cursor=" + url.QueryEscape(cursor(1))}, 200)
	periods, _ := got["periods"].([]any)
	if len(periods) != 1 || got["next_cursor"] != nil {
		t.Fatalf("got %v", got)
	}
	open, _ := periods[0].(map[string]any)
	if open["state"] != "Open" || open["reserved_credits"] != json.Number("3") ||
		open["limit_credits"] != json.Number("30") {
		t.Errorf("the open period: %v", open)
	}
	if end, err := time.Parse(time.RFC3339, open["end"].(string)); err != nil || !end.After(time.Now()) {
		t.Errorf("the open period ends at %v, %v", open["end"], err)
	}
}
