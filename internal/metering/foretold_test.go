// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/forecast"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/outlook"
	"github.com/cantonesescribe/usage-operator/internal/postgres/rollupdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// foresee looks at everybody's forecast, of whom so many are due.
func (w *world) foresee(due int) {
	w.t.Helper()
	store := rollupdb.New(w.open(w.t).Store)
	found, err := store.DueForecasts(w.t.Context(), quota.AccountID{}, 10)
	if err != nil || len(found) != due {
		w.t.Fatalf("%v are due, want %d, %v", found, due, err)
	}
	watch := outlook.Watch{Store: store, Forecasts: reports.New(w.store, w.Service), Alerts: w.Service}
	if err := watch.Once(w.t.Context()); err != nil {
		w.t.Fatalf("looked at forecasts: %v", err)
	}
}

func TestExhaustionIsToldOfAheadOfTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	limited := func(credits int64) metering.Plan {
		return plans.Free(func(p *metering.Plan) { p.Limits.Credits = quota.AtMost(quota.WholeCredits(credits)) })
	}
	w.plan(limited(40))
	w.quota(metering.Quota{ObjectUID: quota.ObjectUID{7}, ObjectName: "alice", UserID: "alice", PlanName: "free",
		Zone: "UTC", Anchor: w.now()})
	w.foresee(0)
	for day := range 45 {
		w.record(use("alice", fmt.Sprint(day), 1))
		w.advance(24 * time.Hour)
	}
	w.plan(limited(20))
	w.foresee(1)
	w.wantAlerts(userLevel("alice"), "PeriodReset 0 of 0 #0") // nobody has summed up yesterday
	w.rollUp()
	w.foresee(1)
	told := w.wantAlerts(userLevel("alice"), "ExhaustionForecast 0 of 1 #0", "PeriodReset 0 of 0 #0")
	// 14 of 20 are used at noon on the 24th.
	gone := time.Date(2026, 4, 30, 12, 0, 0, 0, time.UTC)
	if a := told[0]; !a.Expected.Equal(gone) || a.Used != int64(14*quota.Credit) ||
		a.Limit != int64(20*quota.Credit) || !a.Until.Equal(w.usage("alice").Account.Period.End) ||
		a.Severity() != quota.AlertWarning {
		t.Errorf("told %+v", a)
	}
	w.foresee(0) // once a day

	// It is told once, whatever the next days say, and is over when there is room.
	w.record(use("alice", "more", 1))
	w.advance(24 * time.Hour)
	w.rollUp()
	w.foresee(1)
	w.wantAlerts(userLevel("alice"), "ExhaustionForecast 0 of 1 #0", "PeriodReset 0 of 0 #0")
	w.plan(limited(60))
	w.record(use("alice", "room", 1))
	w.wantAlerts(userLevel("alice"), "ExhaustionForecast 0 of 1 #0 resolved", "PeriodReset 0 of 0 #0")
	w.advance(24 * time.Hour)
	w.rollUp()
	w.foresee(1)
	w.wantAlerts(userLevel("alice"), "ExhaustionForecast 0 of 1 #0 resolved", "PeriodReset 0 of 0 #0")
	w.plan(limited(25))
	w.record(use("alice", "less", 1))
	w.advance(24 * time.Hour)
	w.rollUp()
	w.foresee(1)
	w.wantAlerts(userLevel("alice"), "ExhaustionForecast 0 of 1 #1", "ExhaustionForecast 0 of 1 #0 resolved",
		"PeriodReset 0 of 0 #0")
}

// A team that pays has a forecast and sums of its own, by what it paid for, whoever is a member now.
func TestTeamForecast(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	team := w.team(2, "newsroom", new("free"), w.now().AddDate(0, 0, -7), "")
	w.plan(plans.Free(func(p *metering.Plan) { p.Limits.Credits = quota.AtMost(50 * quota.Credit) }))
	w.record(use("bob", "own", 3))
	w.record(use("carol", "own", 1))
	for _, member := range []string{"bob", "carol"} {
		w.move(w.usage(member).Account.ID, team)
	}
	for day := range 40 {
		w.record(use("bob", fmt.Sprint(day), 1))
		w.record(use("carol", fmt.Sprint(day), 1))
		w.advance(24 * time.Hour)
	}
	past := reports.New(w.store, w.Service)
	if f, err := past.TeamForecast(t.Context(), "newsroom"); err != nil || f.Reason != reports.SumsBehind {
		t.Errorf("before a rollup: %+v, %v", f, err)
	}
	w.rollUp()
	f, err := past.TeamForecast(t.Context(), "newsroom")
	if err != nil || f.Method != forecast.RunRate || f.Reason != "" || len(f.Days) != 40 ||
		f.Days[0].Credits != 2*quota.Credit || *f.Allowance != 50*quota.Credit || f.Exhausted == nil {
		t.Fatalf("got %+v, %v", f, err)
	}
	stand, err := w.TeamUsage(t.Context(), []string{"newsroom"})
	if err != nil {
		t.Fatal(err)
	}
	u := stand["newsroom"].Usage.Account
	left := u.Period.End.Sub(w.now())
	if will := u.Used + quota.Credits(float64(2*quota.Credit)*left.Hours()/24); f.Used.Expected != will {
		t.Errorf("%s by the end, want %s", f.Used.Expected, will)
	}

	a, err := past.TeamAnalytics(t.Context(), "newsroom", reports.ByType, reports.Span{Days: 100})
	if err != nil || len(a.Buckets) != 1 || a.Total.Events != 80 || a.Total.Credits != 80*quota.Credit {
		t.Errorf("paid for %+v, %v", a, err)
	}
	all, err := past.TotalForecast(t.Context(), "", 10)
	if err != nil || all.Reason != "" || all.Used.Expected != 19*quota.Credit {
		t.Errorf("of all: %+v, %v", all, err)
	}
	if none, err := past.TotalForecast(t.Context(), "pro", 10); err != nil || none.Reason != forecast.TooFewDays {
		t.Errorf("of a plan that nobody has: %+v, %v", none, err)
	}
	if _, err := past.TotalForecast(t.Context(), "", 91); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("91 days ahead: %v", err)
	}
	w.team(3, "caps", nil, w.now(), "credits_cap = 60000")
	if _, err := past.TeamForecast(t.Context(), "caps"); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("of a team without a plan: %v", err)
	}
	if _, err := past.TeamAnalytics(t.Context(), "none", reports.ByDay, reports.Span{}); !errors.Is(err,
		ledger.ErrNotFound) {
		t.Errorf("of a team that there is not: %v", err)
	}
	w.foresee(3) // the members, for whom the team pays, are told nothing
	w.wantAlerts(quota.Level{Kind: quota.LevelTeam, Name: "newsroom"}, "ExhaustionForecast 0 of 1 #0",
		"PeriodReset 0 of 0 #0")
	w.wantAlerts(userLevel("bob"), "PeriodReset 0 of 0 #0")
}
