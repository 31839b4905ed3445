// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRollSeveralPeriods(t *testing.T) {
	a := account(plan(carryOver(12)), grant("g", 5, time.Time{}))
	a.Plan.Version = 7
	settle(t, a, enter(t, a, 20, start), 20, nil, start)
	now := start.AddDate(0, 3, 2)
	closed := roll(t, a, now, 3)
	month := func(n int) time.Time { return start.AddDate(0, n, 0) }
	want := []ClosedPeriod{
		{No: 0, Period: Period{month(0), month(1)}, Used: 20 * Credit, PlanUsed: 20 * Credit, Cost: 120_000,
			CarryOver: 10 * Credit},
		{No: 1, Period: Period{month(1), month(2)}, CarryOver: 12 * Credit},
		{No: 2, Period: Period{month(2), month(3)}, CarryOver: 12 * Credit},
	}
	for i := range want {
		want[i].PlanLimit, want[i].PlanName, want[i].PlanVersion, want[i].CarryOverMax = AtMost(30*Credit), "free",
			7, 12*Credit
		want[i].Currency, want[i].OveragePrice = "USD", new(Money)
	}
	if diff := cmp.Diff(want, closed); diff != "" {
		t.Errorf("closed (-want +got):\n%s", diff)
	}
	if a.PeriodNo != 3 || a.Period != (Period{month(3), month(4)}) || a.Used != 0 || a.Cost != 0 {
		t.Errorf("the open period is %d, %v, used %s", a.PeriodNo, a.Period, a.Used)
	}
	// The plan's 30, the grant's 5 and the last period's carry-over: those before it have ended.
	if got := a.Remaining(now).Max; got != 47*Credit {
		t.Errorf("Remaining = %s, want 47", got)
	}
	roll(t, a, now, 0)
}

func TestRollAtTheEdge(t *testing.T) {
	a := account(plan())
	roll(t, a, a.Period.End.Add(-1), 0)
	roll(t, a, a.Period.End, 1)
	if !a.Period.Contains(start.AddDate(0, 1, 0)) {
		t.Errorf("the period is %v", a.Period)
	}
}

// The open period keeps its end whatever changes; the next one leads to the first boundary of the new calendar.
func TestRollAfterTheCalendarChanged(t *testing.T) {
	tests := map[string]struct {
		change func(*Account)
		want   []string // boundaries after the end of the first period, 2026-12-01T09:00Z
	}{
		"nothing": {func(*Account) {}, []string{"2027-01-01T09:00:00Z", "2027-02-01T09:00:00Z"}},
		"the anchor, to a later day": {func(a *Account) { a.Anchor = start.AddDate(0, 0, 14) },
			[]string{"2026-12-15T09:00:00Z", "2027-01-15T09:00:00Z"}},
		"the anchor, to an earlier day": {func(a *Account) { a.Anchor = start.AddDate(0, 0, -1) },
			[]string{"2026-12-31T09:00:00Z", "2027-01-31T09:00:00Z"}},
		"the anchor, by an hour": {func(a *Account) { a.Anchor = start.Add(time.Hour) },
			[]string{"2026-12-01T10:00:00Z", "2027-01-01T10:00:00Z"}},
		"to calendar months": {func(a *Account) { a.Plan.CalendarMonth = true },
			[]string{"2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"}},
		"the zone, for calendar months": {
			func(a *Account) { a.Plan.CalendarMonth, a.Zone = true, time.FixedZone("", 8*3600) },
			[]string{"2026-12-31T16:00:00Z", "2027-01-31T16:00:00Z"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			a := account(plan())
			end := a.Period.End
			tc.change(a)
			roll(t, a, start.AddDate(0, 0, 20), 0)
			if !a.Period.End.Equal(end) {
				t.Fatalf("the open period's end moved from %s to %s", end, a.Period.End)
			}
			for i, want := range tc.want {
				if p := roll(t, a, a.Period.End, 1)[0]; !a.Period.Start.Equal(p.Period.End) ||
					a.PeriodNo != int64(i+1) {
					t.Errorf("period %d starts at %s, the one before ends at %s", a.PeriodNo, a.Period.Start,
						p.Period.End)
				}
				if got := a.Period.End.Format(time.RFC3339); got != want {
					t.Errorf("period %d ends at %s, want %s", i+1, got, want)
				}
			}
		})
	}
}

func TestCarryOver(t *testing.T) {
	tests := map[string]struct {
		plan           *Plan
		used, reserved int64
		want           int64
	}{
		"nothing by default":              {plan: plan()},
		"all that is unused":              {plan: plan(carryOver(100)), used: 12, want: 18},
		"up to the cap":                   {plan: plan(carryOver(10)), used: 12, want: 10},
		"what is reserved counts as used": {plan: plan(carryOver(100)), used: 12, reserved: 8, want: 10},
		"nothing of what was exceeded":    {plan: plan(carryOver(100), overageOf(50, 1)), used: 40},
		"not from an unlimited plan":      {plan: plan(carryOver(100), unlimitedCredits), used: 5},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			tc.plan.Limits.Concurrent = AtMost(int32(9))
			a := account(tc.plan)
			if tc.used > 0 {
				settle(t, a, enter(t, a, tc.used, start), tc.used, nil, start)
			}
			if tc.reserved > 0 {
				enter(t, a, tc.reserved, start)
			}
			closed := roll(t, a, start.AddDate(0, 1, 0), 1)[0]
			var lot Credits
			if len(a.Lots) > 0 {
				lot = a.Lots[0].Credits
				if !a.Lots[0].ExpiresAt.Equal(a.Period.End) || a.Lots[0].Kind != LotCarryOver ||
					a.Lots[0].ID != NewLotID(a.ID, LotCarryOver, "0") {
					t.Errorf("lot = %+v", a.Lots[0])
				}
			}
			if closed.CarryOver != WholeCredits(tc.want) || lot != WholeCredits(tc.want) {
				t.Errorf("carried %s over in a lot of %s, want %d", closed.CarryOver, lot, tc.want)
			}
		})
	}
}

// What is carried over is the plan's own unused credits, never what was carried over before.
func TestCarryOverDoesNotPileUp(t *testing.T) {
	a := account(plan(carryOver(1000)))
	now := start
	for range 24 {
		now = now.AddDate(0, 1, 0)
		roll(t, a, now, 1)
		if got := a.Remaining(now).Max; got != 60*Credit {
			t.Fatalf("Remaining = %s at %s, want 60", got, now)
		}
	}
}

func TestCeilingAcrossDays(t *testing.T) {
	a := account(plan(credits(1000), slots(9), ceiling(600_000))) // 100 credits a day at 0.006
	night := time.Date(2026, time.November, 5, 23, 50, 0, 0, time.UTC)
	long, short := enter(t, a, 60, night), enter(t, a, 40, night)
	if d := Decide(a, request(1), night); d.Reason != DailyCostCeiling {
		t.Fatalf("Decide = %+v, want the ceiling", d)
	}
	settle(t, a, short, 40, nil, night.Add(5*time.Minute))
	if d := Decide(a, request(1), night.Add(5*time.Minute)); d.Reason != DailyCostCeiling || d.Bound.Used != 240_000 ||
		d.Bound.Reserved != 360_000 {
		t.Fatalf("Decide = %+v, want the ceiling: settled plus reserved", d)
	}
	// After midnight the settled part is yesterday's, what still runs will be today's.
	morning := night.Add(20 * time.Minute)
	if d := Decide(a, request(41), morning); d.Reason != DailyCostCeiling || d.Bound.Remaining != 240_000 {
		t.Fatalf("Decide(41) = %+v, want 0.24 left", d)
	}
	if d := Decide(a, request(40), morning); d.Outcome != Admit {
		t.Fatalf("Decide(40) = %+v, want admitted", d)
	}
	settle(t, a, long, 60, nil, morning)
	if a.DayCost != 360_000 || !a.Day.Equal(utcDay(morning)) || a.Cost != 600_000 {
		t.Errorf("DayCost %s of %s, Cost %s; want 0.36 of the new day, 0.6 of the period", a.DayCost, a.Day, a.Cost)
	}
}

func TestGraceIsASetting(t *testing.T) {
	p := ClosedPeriod{Period: Period{End: start}}
	if p.Final(start.Add(FinalAfter-1)) || !p.Final(start.Add(FinalAfter)) {
		t.Error("without a setting a period must be final 72 h after its end")
	}
	p.Grace = time.Hour
	if p.Final(start.Add(time.Hour-1)) || !p.Final(start.Add(time.Hour)) {
		t.Error("a period with a grace of an hour must be final an hour after its end")
	}
}

func TestNameID(t *testing.T) {
	x := NameID("admission", id(1), "key")
	if x != NameID("admission", id(1), "key") {
		t.Error("the same name must be the same id")
	}
	for name, other := range map[string]ID{
		"name": NameID("admission", id(1), "key2"), "account": NameID("admission", id(2), "key"),
		"kind": NameID("lot", id(1), "key"),
	} {
		if other == x {
			t.Errorf("another %s gives the same id", name)
		}
	}
	if x[6]>>4 != 8 || x[8]>>6 != 2 {
		t.Errorf("% x is no UUID of version 8", x)
	}
}

// Each period is closed by the terms that held when it ended, with the user's own credits in place of the plan's.
func TestRollByPastTerms(t *testing.T) {
	a := account(plan(carryOver(12)))
	a.Plan.Version = 3
	at := func(month int) time.Time { return start.AddDate(0, month, 0) }
	terms := func(version int64, credits, carry Credits) Terms {
		return Terms{Version: version, Credits: AtMost(credits), CarryOverMax: carry, Currency: "USD"}
	}
	a.Plan.Past = []PastTerms{
		{Terms: terms(1, 10*Credit, 4*Credit), Until: at(1).Add(time.Second)},
		{Terms: terms(2, 20*Credit, 25*Credit), Until: at(3)},
	}
	override := AtMost(15 * Credit)
	for name, tc := range map[string]struct {
		overrides     Overrides
		wantCarryOver []Credits
	}{
		"the plan's credits":   {wantCarryOver: []Credits{4 * Credit, 20 * Credit, 12 * Credit}},
		"credits of their own": {Overrides{Credits: &override}, []Credits{4 * Credit, 15 * Credit, 12 * Credit}},
	} {
		t.Run(name, func(t *testing.T) {
			a := clone(a)
			a.Overrides = tc.overrides
			for i, p := range roll(t, a, at(3), 3) {
				if p.PlanVersion != int64(i+1) || p.CarryOver != tc.wantCarryOver[i] {
					t.Errorf("period %d: version %d, carried over %s, want version %d, %s",
						i, p.PlanVersion, p.CarryOver, i+1, tc.wantCarryOver[i])
				}
			}
		})
	}
}
