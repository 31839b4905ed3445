// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

func day(t *testing.T, s string) Day {
	t.Helper()
	d, err := ParseDay(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// used is one use a day, of a credit each.
func used(t *testing.T, days ...string) []Sum {
	t.Helper()
	var sums []Sum
	for _, d := range days {
		sums = append(sums, Sum{Day: day(t, d), UsageType: quota.UsageTranscription, CostCurrency: "USD",
			Figures: Figures{Events: 1, Credits: quota.Credit,
				Amounts: []quota.Amounts{{Currency: "USD", Cost: 5}}}})
	}
	return sums
}

func TestGroups(t *testing.T) {
	t.Parallel()
	// A Thursday, and the last day but one of its month.
	span := Span{From: day(t, "2026-01-29"), To: day(t, "2026-02-10")}
	sums := used(t, "2026-01-29", "2026-02-01", "2026-02-02", "2026-02-02", "2026-02-09")
	for by, want := range map[By][]string{
		ByWeek:  {"2026-01-29 2026-02-02 2", "2026-02-02 2026-02-09 2", "2026-02-09 2026-02-10 1"},
		ByMonth: {"2026-01-29 2026-02-01 1", "2026-02-01 2026-02-10 4"},
		ByType:  {"2026-01-29 2026-02-10 5"},
	} {
		groups := byTime(sums, span, by)
		if by == ByType {
			groups = byName(sums, span, func(s *Sum) string { return s.UsageType })
		}
		var got []string
		for _, b := range groups {
			got = append(got, fmt.Sprint(b.From, " ", b.To, " ", b.Figures.Events))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", by, diff)
		}
	}
	days := byTime(sums, span, ByDay)
	if len(days) != 12 || days[4].Figures.Events != 2 || days[1].Figures.Events != 0 {
		t.Errorf("days: %v", days)
	}
}

func TestStreaks(t *testing.T) {
	t.Parallel()
	reversed := used(t, "2026-03-08")
	reversed[0].Figures.Reversals = 1
	for name, tc := range map[string]struct {
		sums                     []Sum
		today                    string
		active, current, longest int
	}{
		"never":      {nil, "2026-03-10", 0, 0, 0},
		"today":      {used(t, "2026-03-10"), "2026-03-10", 1, 1, 1},
		"yesterday":  {used(t, "2026-03-08", "2026-03-09"), "2026-03-10", 2, 2, 2},
		"over":       {used(t, "2026-03-07", "2026-03-08"), "2026-03-10", 2, 0, 2},
		"two a day":  {used(t, "2026-03-09", "2026-03-10", "2026-03-10"), "2026-03-10", 2, 2, 2},
		"a gap":      {used(t, "2026-01-01", "2026-01-02", "2026-01-03", "2026-03-10"), "2026-03-10", 1, 1, 3},
		"30 days":    {used(t, "2026-02-08", "2026-02-09"), "2026-03-10", 1, 0, 2},
		"a mistake":  {slices.Concat(used(t, "2026-03-07"), reversed, used(t, "2026-03-09")), "2026-03-10", 2, 1, 1},
		"leap years": {used(t, "2028-02-28", "2028-02-29", "2028-03-01"), "2028-03-01", 3, 3, 3},
	} {
		var e Engagement
		e.streaks(tc.sums, day(t, tc.today))
		if e.ActiveDays != tc.active || e.CurrentStreak != tc.current || e.LongestStreak != tc.longest {
			t.Errorf("%s: got %d, %d, %d", name, e.ActiveDays, e.CurrentStreak, e.LongestStreak)
		}
	}
}

// A trend compares days that are over, and only days of which something is known.
func TestTrend(t *testing.T) {
	t.Parallel()
	today := day(t, "2026-03-10")
	sums := used(t, "2026-01-13", "2026-02-09", "2026-02-10", "2026-03-09", "2026-03-10")
	for name, tc := range map[string]struct {
		covered          Span
		recent, previous int64
	}{
		"both":       {Span{From: day(t, "2026-01-13"), To: today.Add(1)}, 2, 2},
		"too young":  {Span{From: day(t, "2026-01-14"), To: today.Add(1)}, 2, -1},
		"not so far": {Span{From: day(t, "2026-01-13"), To: today.Add(-1)}, -1, 2},
	} {
		var e Engagement
		e.trend(sums, tc.covered, today)
		for which, got := range map[*Bucket]int64{e.Recent: tc.recent, e.Previous: tc.previous} {
			if (which == nil) != (got < 0) || which != nil && which.Figures.Events != got {
				t.Errorf("%s: want %d, got %v", name, got, which)
			}
		}
	}
	var e Engagement
	e.trend(sums, Span{From: day(t, "2026-01-13"), To: today.Add(1)}, today)
	want := []PerTranscription{{Currency: "USD", Count: 2, Cost: 5}}
	if diff := cmp.Diff(want, e.Transcriptions); diff != "" {
		t.Error(diff)
	}
}

func TestHalfEven(t *testing.T) {
	t.Parallel()
	for _, tc := range [][3]int64{{5, 2, 2}, {7, 2, 4}, {8, 3, 3}, {7, 3, 2}, {0, 9, 0}} {
		if got := halfEven(quota.Money(tc[0]), tc[1]); int64(got) != tc[2] {
			t.Errorf("%d/%d: got %d, want %d", tc[0], tc[1], got, tc[2])
		}
	}
}

// What the sums cover ends with the day of AsOf, and begins with the user's first.
func TestCovered(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 10, 20, 0, 0, 0, time.UTC)
	zone := time.FixedZone("east", 8*3600)
	r := Rollup{Zone: zone, Now: now, AsOf: now.Add(-5 * time.Hour), First: day(t, "2026-03-01")}
	asked, covered, err := Span{}.within(&r)
	if err != nil || asked != (Span{From: day(t, "2026-02-10"), To: day(t, "2026-03-12")}) ||
		covered != (Span{From: day(t, "2026-03-01"), To: day(t, "2026-03-11")}) {
		t.Errorf("%v, %v, %v", asked, covered, err)
	}
	r.AsOf = time.Time{}
	if _, covered, err = (Span{}).within(&r); err != nil || covered.To != covered.From {
		t.Errorf("nothing is rolled up: %v, %v", covered, err)
	}
	to := day(t, "2026-03-11")
	for want, span := range map[string]Span{
		"from: 2026-03-11 must be before to, which is 2026-03-11": {From: to, To: to},
		"from: 2025-01-01 must be at most 400 days before to":     {From: day(t, "2025-01-01"), To: to},
	} {
		if _, _, err := span.within(&r); err == nil || err.Error()[:len(want)] != want {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestWaitPercentile(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		within  [len(WaitBounds)]int64
		percent int64
		want    time.Duration
		longer  bool
	}{
		"all at once":           {[...]int64{10, 10, 10, 10}, 50, 500 * time.Millisecond, false},
		"all of them":           {[...]int64{10, 10, 10, 10}, 100, time.Second, false},
		"at a bound":            {[...]int64{5, 10, 10, 10}, 50, time.Second, false},
		"between two":           {[...]int64{0, 4, 8, 10}, 60, 5*time.Minute + 30*time.Second, false},
		"bounds without anyone": {[...]int64{0, 0, 0, 10}, 10, 15 * time.Minute, false},
		"longer than an hour":   {[...]int64{5, 6, 7, 8}, 90, time.Hour, true},
		"nobody within an hour": {[...]int64{0, 0, 0, 0}, 1, time.Hour, true},
	} {
		e := Endings{Charged: 10, Within: tc.within}
		if got, longer := e.WaitPercentile(tc.percent); got != tc.want || longer != tc.longer {
			t.Errorf("%s: want %s (longer: %t), got %s (%t)", name, tc.want, tc.longer, got, longer)
		}
	}
}
