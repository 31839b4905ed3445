// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/forecast"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/rollupdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/rollup"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// rollUp brings the sums up to date, on the world's clock.
func (w *world) rollUp() {
	w.t.Helper()
	store := rollupdb.New(w.open(w.t).Store)
	if _, err := rollup.Run(w.t.Context(), store, rollup.Options{FullSpeed: true}); err != nil {
		w.t.Fatalf("roll up: %v", err)
	}
}

func (w *world) forecast(user string) reports.Forecast {
	w.t.Helper()
	f, err := reports.New(w.store, w.Service).Forecast(w.t.Context(), user)
	if err != nil {
		w.t.Fatalf("forecast: %v", err)
	}
	return f
}

// What was used a credit a day is used on at a credit a day, by the user's own days, one of which has 23 hours.
func TestForecast(t *testing.T) {
	w := newWorld(t)
	limited := func(p *metering.Plan) { p.Limits.Credits = quota.AtMost(20 * quota.Credit) }
	w.plan(plans.Free(limited, func(p *metering.Plan) { p.OverageMax = 20 * quota.Credit }))
	w.quota(metering.Quota{
		ObjectUID: quota.ObjectUID{7}, ObjectName: "alice", UserID: "alice", PlanName: "free", Zone: "Europe/London",
		Anchor: w.now(),
	})
	if f := w.forecast("alice"); f.Reason != forecast.TooFewDays || !f.AsOf.Equal(w.now()) || f.Allowance == nil {
		t.Errorf("before there is anything: %+v", f)
	}
	const days = 45
	var last *ledger.Event
	for day := range days {
		last = w.record(use("alice", fmt.Sprint(day), 1)).Event
		w.advance(24 * time.Hour)
	}
	if f := w.forecast("alice"); f.Reason != reports.SumsBehind || f.Method != "" || f.Exhausted != nil {
		t.Errorf("nothing was rolled up: %+v", f)
	}
	w.rollUp()

	// The period has begun on 10 April at noon, and it is 13:00 on the 24th: 14 credits are used, and there are sixteen
	// and a half days less thirteen hours to come.
	f := w.forecast("alice")
	at := func(month time.Month, day, hour int) time.Time {
		return time.Date(2026, month, day, hour, 0, 0, 0, time.UTC)
	}
	will := 14*quota.Credit + 16*quota.Credit + quota.Credit/2 - 13*quota.Credit/24
	allowance := 40 * quota.Credit
	want := reports.Forecast{
		Rollup: f.Rollup, Open: f.Open, Allowance: &allowance,
		Told: reports.Told{Days: f.Days, Method: forecast.RunRate,
			Backtest: forecast.Backtest{Origins: 30, Coverage: 1}},
		Used: reports.Range{Low: will, Expected: will, High: will}, Exhausted: &reports.Exhaustion{},
	}
	if !reflect.DeepEqual(want, f) {
		t.Errorf("got %+v\nwant %+v", f, want)
	}
	if f.Open.Used != 14*quota.Credit || !f.Open.Period.End.Equal(at(time.May, 10, 11)) || !f.AsOf.Equal(w.now()) {
		t.Errorf("%s used until %s, by days as of %s", f.Open.Used, f.Open.Period.End, f.AsOf)
	}
	if n := len(f.Days); n != days || f.Days[0].Day.String() != "2026-03-10" ||
		f.Days[n-1].Day.String() != "2026-04-23" || f.Days[n-1].Credits != quota.Credit {
		t.Errorf("drawn from %v", f.Days)
	}

	// Six credits are left of what the plan has without its overage.
	w.plan(plans.Free(limited))
	gone := at(time.April, 30, 12)
	if diff := cmp.Diff(&reports.Exhaustion{Earliest: gone, Expected: gone, Latest: gone},
		w.forecast("alice").Exhausted); diff != "" {
		t.Errorf("used up (-want +got):\n%s", diff)
	}

	// What is used today needs no rollup, what was used yesterday does. A reversal corrects its day.
	w.reverse(last, "undo")
	w.record(use("alice", "today", 2))
	if f := w.forecast("alice"); f.Reason != "" || f.Open.Used != 15*quota.Credit || len(f.Days) != days {
		t.Errorf("today: %+v", f)
	}
	w.advance(24 * time.Hour)
	if f := w.forecast("alice"); f.Reason != reports.SumsBehind || len(f.Days) != 0 ||
		!f.AsOf.Equal(w.now().AddDate(0, 0, -1)) {
		t.Errorf("a day later: %+v", f)
	}
	w.rollUp()
	f = w.forecast("alice")
	if n := len(f.Days); n != days || f.Days[n-2].Day.String() != "2026-04-22" ||
		f.Days[n-1].Credits != 2*quota.Credit {
		t.Errorf("rolled up again: %+v", f)
	}
	// Whoever expected what there was a week before was wrong as seldom.
	if f.Reason != forecast.NoneBetter || f.Method != forecast.SeasonalNaive || f.Used != (reports.Range{}) {
		t.Errorf("by two odd days: %+v", f)
	}

	// In another zone the days are others.
	w.quota(metering.Quota{
		ObjectUID: quota.ObjectUID{7}, ObjectName: "alice", UserID: "alice", PlanName: "free", Zone: "Asia/Hong_Kong",
		Anchor: w.usage("alice").Account.Anchor,
	})
	if f := w.forecast("alice"); f.Reason != reports.SumsBehind {
		t.Errorf("moved: %+v", f)
	}
	w.rollUp()
	if f := w.forecast("alice"); f.Reason != forecast.NoneBetter {
		t.Errorf("moved and rolled up: %+v", f)
	}

	if f := w.forecast("nobody"); f.Reason != forecast.TooFewDays || f.Open.PlanName != "free" {
		t.Errorf("of who would get an account: %+v", f)
	}
	if _, err := reports.New(w.store, w.Service).Forecast(t.Context(), ""); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("of nobody: %v", err)
	}
}

// What a team pays for, its others use as well: it says nothing of when that is used up.
func TestForecastBelowATeam(t *testing.T) {
	w := newTeams(t)
	w.move(w.register("bob"), w.team(2, "newsroom", new("pro"), w.now().AddDate(0, 0, -7), ""))
	for day := range 20 {
		w.record(use("bob", fmt.Sprint(day), 1))
		w.advance(24 * time.Hour)
	}
	w.rollUp()
	if f := w.forecast("bob"); f.Reason != "" || f.Allowance != nil || f.Exhausted != nil || f.Used.Expected == 0 {
		t.Errorf("got %+v", f)
	}
}
