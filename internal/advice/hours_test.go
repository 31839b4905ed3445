// SPDX-License-Identifier: Apache-2.0

package advice_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/advice"
)

type waitDays = [advice.WaitDays + advice.Looks - 1]advice.DayWaits

func everyDay(change func(*advice.DayWaits)) *waitDays {
	var days waitDays
	for i := range days {
		days[i].Own[9] = advice.Waits{Admissions: 2, Waited: 2}
		days[i].All[9] = advice.Waits{Admissions: 10, Waited: 6}
		days[i].All[13] = advice.Waits{Admissions: 10, Waited: 1}
		change(&days[i])
	}
	return &days
}

func TestBetterHours(t *testing.T) {
	t.Parallel()
	same := func(*advice.DayWaits) {}
	want := []advice.BetterHour{{Hour: 9, Better: 13, Own: advice.Waits{Admissions: 28, Waited: 28},
		Now: advice.Waits{Admissions: 140, Waited: 84}, Then: advice.Waits{Admissions: 140, Waited: 14}}}
	if diff := cmp.Diff(want, advice.BetterHours(everyDay(same))); diff != "" {
		t.Error(diff)
	}
	for name, tc := range map[string]struct {
		change func(*advice.DayWaits)
		want   int // the other hour; 0: no advice
	}{
		"nearer":              {func(d *advice.DayWaits) { d.All[7] = d.All[13] }, 7},
		"the later of two":    {func(d *advice.DayWaits) { d.All[5] = d.All[13] }, 13},
		"across midnight":     {func(d *advice.DayWaits) { d.All[23], d.All[13] = d.All[13], advice.Waits{} }, 23},
		"own do not wait":     {func(d *advice.DayWaits) { d.Own[9].Waited = 0 }, 0},
		"others do not wait":  {func(d *advice.DayWaits) { d.All[9].Waited = 4 }, 0},
		"no large difference": {func(d *advice.DayWaits) { d.All[13].Waited = 2 }, 0},
		"not enough of own":   {func(d *advice.DayWaits) { d.Own[9] = advice.Waits{} }, 0},
		"not enough then":     {func(d *advice.DayWaits) { d.All[13] = advice.Waits{Admissions: 2} }, 0},
		"not enough now":      {func(d *advice.DayWaits) { d.All[9] = advice.Waits{Admissions: 2, Waited: 2} }, 0},
	} {
		got := advice.BetterHours(everyDay(tc.change))
		if tc.want == 0 && len(got) > 0 || tc.want > 0 && (len(got) != 1 || got[0].Better != tc.want) {
			t.Errorf("%s: got %+v, want %d", name, got, tc.want)
		}
	}
}

// While waits stay between the bounds advice does not come and go: what begins holds for a week, and names the same
// hour, whatever those do that are further away. Without it one of these may be told.
func TestBetterHoursDoNotFlip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := everyDay(func(*advice.DayWaits) {})[:]
		held := advice.Looks // for how many days the nearer hour has been told
		for range 40 {
			d := advice.DayWaits{}
			d.Own[9] = advice.Waits{Admissions: 10, Waited: rapid.Int64Range(3, 10).Draw(t, "own")}
			d.All[9] = advice.Waits{Admissions: 20, Waited: rapid.Int64Range(6, 20).Draw(t, "now")}
			d.All[13] = advice.Waits{Admissions: 20, Waited: rapid.Int64Range(0, 4).Draw(t, "then")}
			// Nearer, but never clearly better.
			d.All[10] = advice.Waits{Admissions: 20, Waited: rapid.Int64Range(3, 20).Draw(t, "nearer")}
			// Better now and then, but further away.
			d.All[20] = advice.Waits{Admissions: 20, Waited: rapid.Int64Range(0, 20).Draw(t, "further")}
			all = append(all, d)
			var days waitDays
			copy(days[:], all[len(all)-len(days):])
			got := advice.BetterHours(&days)
			if len(got) > 1 || len(got) == 1 && (got[0].Hour != 9 || got[0].Better != 13 && got[0].Better != 20) {
				t.Fatalf("got %+v", got)
			}
			switch {
			case len(got) == 1 && got[0].Better == 13:
				held++
			case held > 0 && held < advice.Looks:
				t.Fatalf("it held for %d days only, then there was %+v", held, got)
			default:
				held = 0
			}
		}
	})
}
