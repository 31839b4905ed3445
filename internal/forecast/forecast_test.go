// SPDX-License-Identifier: Apache-2.0

package forecast_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/forecast"
	"github.com/cantonesescribe/usage-operator/internal/testing/loads"
)

var noon = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

// history is a queue that was never empty, whose starts came with these gaps, the last one at noon.
func history(gaps ...time.Duration) forecast.History {
	at := noon
	h := forecast.History{Starts: []forecast.Start{{Since: noon.Add(-1000 * time.Hour), At: at}}}
	for i := range gaps {
		at = at.Add(-gaps[len(gaps)-1-i])
		h.Starts = append(h.Starts, forecast.Start{Since: noon.Add(-1000 * time.Hour), At: at})
	}
	return h
}

func repeat(n int, gap time.Duration) []time.Duration {
	out := make([]time.Duration, n)
	for i := range out {
		out[i] = gap
	}
	return out
}

func TestTurn(t *testing.T) {
	even := history(repeat(20, 10*time.Minute)...)
	ran := func(edit func(*forecast.History)) forecast.History {
		h := history(repeat(20, 10*time.Minute)...)
		edit(&h)
		return h
	}
	for name, tc := range map[string]struct {
		h                forecast.History
		place            int
		after            time.Duration
		earliest, latest time.Duration
		thin             bool
	}{
		"what is always the same is known": {
			h: even, place: 1, earliest: 10 * time.Minute, latest: 10 * time.Minute,
		},
		"by place": {h: even, place: 3, earliest: 30 * time.Minute, latest: 30 * time.Minute},
		"some of it has passed": {
			h: even, place: 2, after: 4 * time.Minute, earliest: 20 * time.Minute, latest: 20 * time.Minute,
		},
		"longer than ever":      {h: even, place: 1, after: 10 * time.Minute, thin: true},
		"no place":              {h: even, place: 0, thin: true},
		"as far as the past":    {h: even, place: 20, earliest: 200 * time.Minute, latest: 200 * time.Minute},
		"further than the past": {h: even, place: 21, thin: true},
		"nothing has started":   {place: 1, thin: true},
		"too little has":        {h: history(repeat(forecast.MinGaps-1, time.Minute)...), place: 1, thin: true},
		"just enough has": {
			h: history(repeat(forecast.MinGaps, time.Minute)...), place: 1, earliest: time.Minute, latest: time.Minute,
		},
		"all at once": {h: history(repeat(20, 0)...), place: 1, thin: true},
		"something started without waiting": {
			h:     ran(func(h *forecast.History) { h.Last = noon.Add(5 * time.Minute) }),
			place: 1, after: 6 * time.Minute, earliest: 15 * time.Minute, latest: 15 * time.Minute,
		},
		"nobody waited in between": {h: ran(func(h *forecast.History) {
			for i := range h.Starts {
				h.Starts[i].Since = h.Starts[i].At.Add(-time.Minute)
			}
		}), place: 1, thin: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := forecast.Turn(tc.h, tc.place, noon.Add(tc.after))
			if ok == tc.thin {
				t.Fatalf("got %+v, %t", got, ok)
			}
			if ok && (!got.Earliest.Equal(noon.Add(tc.earliest)) || !got.Latest.Equal(noon.Add(tc.latest))) {
				t.Errorf("got %s to %s", got.Earliest.Sub(noon), got.Latest.Sub(noon))
			}
		})
	}
	if got, _ := forecast.Turn(even, 1, noon); got.Gaps != 20 || !got.Since.Equal(noon.Add(-200*time.Minute)) {
		t.Errorf("drawn from %d gaps since %s", got.Gaps, got.Since)
	}
}

// Whatever has been, a range lies ahead, who stands behind comes no earlier, and neither the date nor the unit of time
// makes a difference.
func TestTurnProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 60).Draw(t, "gaps")
		gaps := make([]time.Duration, n)
		for i := range gaps {
			gaps[i] = time.Duration(rapid.IntRange(0, 100_000).Draw(t, "gap")) * time.Millisecond
		}
		h := history(gaps...)
		if rapid.Bool().Draw(t, "idle at times") {
			for i := range h.Starts {
				if rapid.Bool().Draw(t, "late") {
					h.Starts[i].Since = h.Starts[i].At
				}
			}
		}
		now := noon.Add(time.Duration(rapid.IntRange(0, 120_000).Draw(t, "elapsed")) * time.Millisecond)
		place := rapid.IntRange(1, 70).Draw(t, "place")
		got, ok := forecast.Turn(h, place, now)
		behind, further := forecast.Turn(h, place+1, now)
		if further && !ok {
			t.Fatal("who stands behind is told more")
		}
		if !ok {
			return
		}
		if got.Earliest.Before(now) || got.Latest.Before(got.Earliest) || got.Gaps < place || got.Gaps > n {
			t.Fatalf("got %+v at %s", got, now)
		}
		if further && (behind.Earliest.Before(got.Earliest) || behind.Latest.Before(got.Latest)) {
			t.Fatalf("place %d: %+v, behind it %+v", place, got, behind)
		}
		shifted, scaled := h, h
		shifted.Starts, scaled.Starts = nil, nil
		const shift, factor = 400 * 24 * time.Hour, 7
		scale := func(at time.Time) time.Time { return noon.Add(factor * at.Sub(noon)) }
		for _, s := range h.Starts {
			shifted.Starts = append(shifted.Starts, forecast.Start{Since: s.Since.Add(shift), At: s.At.Add(shift)})
			scaled.Starts = append(scaled.Starts, forecast.Start{Since: scale(s.Since), At: scale(s.At)})
		}
		if same, _ := forecast.Turn(shifted, place, now.Add(shift)); !same.Latest.Equal(got.Latest.Add(shift)) ||
			!same.Earliest.Equal(got.Earliest.Add(shift)) {
			t.Fatalf("another day: %+v, want %+v", same, got)
		}
		longer, _ := forecast.Turn(scaled, place, scale(now))
		for _, both := range [][2]time.Time{{longer.Earliest, got.Earliest}, {longer.Latest, got.Latest}} {
			if d := both[0].Sub(scale(both[1])); math.Abs(float64(d)) > float64(time.Microsecond) {
				t.Fatalf("in longer units: off by %s", d)
			}
		}
	})
}

// Of the starts on three recorded loads about four in five lie in the range that was told before.
func TestCoverage(t *testing.T) {
	t.Parallel()
	for _, r := range loads.All() {
		c := loads.Measure(r)
		t.Logf("%s: %s", r.Name, c)
		if share := c.Share(); share < 0.75 || share > 0.85 {
			t.Errorf("%s: %.3f of the starts lie within, want 0.75 to 0.85: %s", r.Name, share, c)
		}
		if c.Told < c.Asked/2 || c.Told < 500 {
			t.Errorf("%s: only %d of %d were told anything", r.Name, c.Told, c.Asked)
		}
	}
}
