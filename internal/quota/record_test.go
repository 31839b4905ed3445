// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"errors"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

func usageTypes(p *Plan) { p.UsageTypes = map[string]Rate{"export": 250_000, "summary": 1} }

func TestRecordPrices(t *testing.T) {
	for name, tc := range map[string]struct {
		use         Use
		wantCredits Credits
		wantCost    Money
		wantRate    *Rate
	}{
		"audio": {Use{Type: UsageTranscription, Audio: 90 * time.Second}, 90_000, 9_000, nil},
		"audio, credits given": {Use{Type: UsageTranscription, Audio: 90 * time.Second, Credits: new(2 * Credit)},
			2 * Credit, 12_000, nil},
		"audio, cost given": {Use{Type: UsageTranscription, Audio: time.Minute, Cost: new(Money(5))},
			Credit, 5, nil},
		"transcription for free": {Use{Type: UsageTranscription, Credits: new(Credits(0))}, 0, 0, nil},
		"export":                 {Use{Type: UsageExport}, Credit / 4, 0, new(Rate(250_000))},
		"3 exports":              {Use{Type: UsageExport, Quantity: 3}, 45_000, 0, new(Rate(250_000))},
		"an export of audio":     {Use{Type: UsageExport, Audio: time.Hour}, Credit / 4, 0, new(Rate(250_000))},
		"export, credits given":  {Use{Type: UsageExport, Quantity: 3, Credits: new(Credits(7))}, 7, 0, nil},
		"a millionth":            {Use{Type: "summary"}, 0, 0, new(Rate(1))},
		// 1.5 units, to the even one
		"25 millionths":    {Use{Type: "summary", Quantity: 25}, 2, 0, new(Rate(1))},
		"75 millionths":    {Use{Type: "summary", Quantity: 75}, 4, 0, new(Rate(1))}, // 4.5 units, likewise
		"a call":           {Use{Type: UsageAPICall, Cost: new(Money(5))}, 0, 5, new(Rate(0))},
		"the most credits": {Use{Type: UsageAPICall, Credits: new(MaxRecordCredits)}, MaxRecordCredits, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			a := account(plan(usageTypes))
			tc.use.Quantity, tc.use.OccurredAt = max(tc.use.Quantity, 1), start
			c, period, err := a.Record(tc.use, nil, start)
			if err != nil || period != nil {
				t.Fatalf("%+v, %v", period, err)
			}
			if c.Credits != tc.wantCredits || c.Cost != tc.wantCost || a.Used != c.Credits || a.Cost != c.Cost ||
				a.DayCost != c.Cost || c.Seq != 1 {
				t.Errorf("got %+v", c)
			}
			if diff := gocmp.Diff(tc.wantRate, c.Rate); diff != "" {
				t.Errorf("the rate (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRecordRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Use)
		want   string
	}{
		"unknown type": {func(u *Use) { u.Type = "hologram" },
			`usage_type: "hologram" must be one of api_call, export, summary, transcription`},
		"an adjustment": {func(u *Use) { u.Type = UsageAdjustment }, "usage_type"},
		"no audio":      {func(u *Use) { u.Type = UsageTranscription }, "a transcription needs it, or credits"},
		"long audio": {func(u *Use) { u.Type, u.Audio = UsageTranscription, MaxAudio+time.Millisecond },
			"above the limit of 720h"},
		"no unit":    {func(u *Use) { u.Quantity = 0 }, "quantity: 0 must be between 1 and 1000000"},
		"many units": {func(u *Use) { u.Quantity = MaxQuantity + 1 }, "quantity: 1000001"},
		"dear units": {func(u *Use) { u.Type, u.Quantity = "dear", MaxQuantity },
			"must be between 0 and 10000000"},
		"negative":     {func(u *Use) { u.Credits = new(-Credit) }, "credits: -1 must be between 0 and 10000000"},
		"many credits": {func(u *Use) { u.Credits = new(MaxRecordCredits + Credit) }, "credits: 10000001"},
		"negative cost": {func(u *Use) { u.Cost = new(Money(-1)) },
			"cost: -0.000001 must be between 0 and 1000000000"},
		"too long ago": {func(u *Use) { u.OccurredAt = start.Add(-MaxRecordAge - 1) },
			"occurred_at: 2026-09-27T08:59:59Z must be at most 35 days before now, which is 2026-11-01T09:00:00Z"},
		"in the future": {func(u *Use) { u.OccurredAt = start.Add(MaxRecordAhead + 1) },
			"must be at most 5 minutes after now"},
		"years in future": {func(u *Use) { u.OccurredAt = start.AddDate(9, 0, 0) },
			"must be at most 5 minutes after now"},
	} {
		t.Run(name, func(t *testing.T) {
			a := account(plan(usageTypes))
			if name == "dear units" {
				a.Plan.UsageTypes["dear"] = MaxRate
			}
			before := clone(a)
			u := Use{Type: UsageExport, Quantity: 1, OccurredAt: start}
			tc.change(&u)
			_, _, err := a.Record(u, nil, start)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v, want it to contain %q", err, tc.want)
			}
			if diff := gocmp.Diff(before, a, gocmp.Comparer(sameZone)); diff != "" {
				t.Errorf("the account changed:\n%s", diff)
			}
		})
	}
	// The bounds themselves are within.
	a := account(plan(usageTypes))
	for _, at := range []time.Time{start.Add(-MaxRecordAge), start.Add(MaxRecordAhead)} {
		if _, _, err := a.Record(Use{Type: UsageExport, Quantity: 1, OccurredAt: at}, nil, start); err != nil {
			t.Error(err)
		}
	}
}

// Lots pay soonest expiry first, and a reversal gives back to those that paid, to an expired one too.
func TestRecordAndReverseOverLots(t *testing.T) {
	soon, late := grant("soon", 2, start.Add(time.Hour)), grant("late", 50, start.AddDate(0, 3, 0))
	a := account(plan(overageOf(10, 50_000)), soon, late)
	use := Use{Type: UsageTranscription, Credits: new(35 * Credit), Quantity: 1, OccurredAt: start}
	c, _, err := a.Record(use, nil, start)
	if err != nil {
		t.Fatal(err)
	}
	want := Allocation{Plan: 30 * Credit, Lots: []Share{{soon.ID, 2 * Credit}, {late.ID, 3 * Credit}}}
	if diff := gocmp.Diff(want, c.Alloc); diff != "" {
		t.Errorf("allocation (-want +got):\n%s", diff)
	}
	use.Credits = new(60 * Credit)
	over, _, err := a.Record(use, nil, start)
	if err != nil || over.Overage != 13*Credit || over.Price != 650_000 || a.Overdrawn() != 3*Credit {
		t.Fatalf("beyond everything: %+v, overdrawn %s, %v", over, a.Overdrawn(), err)
	}
	now := start.Add(2 * time.Hour)
	cost := a.Cost
	if r := a.Reverse(id(1), over, nil, now); r.Credits != 60*Credit || r.Price != 650_000 || a.Charged != 0 ||
		a.Overdrawn() != 0 {
		t.Errorf("the reversal of what was beyond: %+v, charged %s", r, a.Charged)
	}
	if r := a.Reverse(id(2), c, nil, now); r.Refund != nil || a.Used != 0 || a.PlanUsed != 0 || a.Cost != cost {
		t.Errorf("the reversal: %+v, used %s, cost %s", r, a.Used, a.Cost)
	}
	if got := a.Remaining(now).Max; got != 90*Credit {
		t.Errorf("%s remain, want 90: the lot that expired gives nothing more", got)
	}
}

// A reversal in a closed period tops its carry-over up; once it is final the credits come as a lot of their own.
func TestReverseAcrossPeriods(t *testing.T) {
	a := account(plan(carryOver(10)))
	use := Use{Type: UsageTranscription, Credits: new(25 * Credit), Quantity: 1, OccurredAt: start}
	first, _, err := a.Record(use, nil, start)
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := a.Record(Use{Type: UsageExport, Credits: new(Credit), Quantity: 1, OccurredAt: start}, nil, start)
	if err != nil {
		t.Fatal(err)
	}
	now := a.Period.End.Add(time.Hour)
	p := roll(t, a, now, 1)[0]
	if p.CarryOver != 4*Credit {
		t.Fatalf("carried over: %s", p.CarryOver)
	}
	if r := a.Reverse(id(1), first, &p, now); r.PeriodNo != 0 || p.Used != Credit || p.CarryOver != 10*Credit ||
		a.Remaining(now).Max != 40*Credit {
		t.Errorf("while it is closed: %+v, period %+v, remaining %s", r, p, a.Remaining(now).Max)
	}
	now = p.FinalAt()
	r := a.Reverse(id(2), second, &p, now)
	if r.Refund == nil || r.PeriodNo != 1 || p.Used != Credit || a.Used != 0 || a.Remaining(now).Max != 41*Credit ||
		!r.Refund.ExpiresAt.IsZero() {
		t.Errorf("when it is final: %+v, period %+v, remaining %s", r, p, a.Remaining(now).Max)
	}
}

// Of several closed periods the one in which it happened pays, if it is not final.
func TestRecordFindsItsPeriod(t *testing.T) {
	a := account(plan())
	closed := map[int64]*ClosedPeriod{}
	now := start.AddDate(0, 2, 0).Add(time.Hour)
	for _, p := range roll(t, a, now, 2) {
		closed[p.No] = &p
	}
	for name, tc := range map[string]struct {
		ago            time.Duration
		wantPeriod     int64
		wantAdjustment bool
	}{
		"the open one":     {0, 2, false},
		"its beginning":    {time.Hour, 2, false},
		"the last one":     {time.Hour + 1, 1, false},
		"a final one":      {33 * 24 * time.Hour, 2, true},
		"ahead of its end": {-MaxRecordAhead, 2, false},
	} {
		c, _, err := a.Record(Use{Type: UsageExport, Quantity: 1, OccurredAt: now.Add(-tc.ago)}, closed, now)
		if err != nil || c.PeriodNo != tc.wantPeriod || c.Adjustment != tc.wantAdjustment {
			t.Errorf("%s: got %+v, %v", name, c, err)
		}
	}
}

func TestAdjustRefuses(t *testing.T) {
	a := account(plan())
	for _, n := range []Credits{0, -1, MaxRecordCredits + 1} {
		if _, err := a.Adjust(n, start); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d: got %v", n, err)
		}
	}
	if a.Used != 0 || a.Seq != 0 {
		t.Errorf("the account changed: %+v", a)
	}
}

func TestParseRate(t *testing.T) {
	for s, want := range map[string]Rate{"0": 0, "0.25": 250_000, "0.000001": 1, "1000000": MaxRate} {
		if got, err := ParseRate(s); err != nil || got != want || got.String() != s {
			t.Errorf("%s: got %s, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "-1", "1e3", "0.0000001", "1000000.000001"} {
		if got, err := ParseRate(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %s, %v", s, got, err)
		}
	}
	if got := MaxRate.Of(MaxQuantity); got != 60_000_000_000_000_000 {
		t.Errorf("the dearest: got %d", got)
	}
}
