// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestRateLimit(t *testing.T) {
	type call struct {
		at   time.Duration
		want Allowance
	}
	hourly := RateLimit{Requests: 100, Window: time.Hour}
	thirds := RateLimit{Requests: 3, Window: time.Second}
	told := func(l RateLimit, taken bool, left int32, next time.Duration) Allowance {
		return Allowance{Limit: l, Taken: taken, Remaining: left, Next: next}
	}
	for name, tc := range map[string]struct {
		limit RateLimit
		calls []call
	}{
		"none": {RateLimit{}, []call{{0, Allowance{Taken: true}}, {0, Allowance{Taken: true}}}},
		"the first calls of an hour": {hourly, []call{
			{time.Minute, told(hourly, true, 99, 36*time.Second)},
			{time.Minute, told(hourly, true, 98, 36*time.Second)},
			{time.Minute + 36*time.Second, told(hourly, true, 98, 36*time.Second)},
			{time.Minute + 37*time.Second, told(hourly, true, 97, 35*time.Second)},
			{3 * time.Hour, told(hourly, true, 99, 36*time.Second)},
		}},
		"a third of a second, not rounded": {thirds, []call{
			{0, told(thirds, true, 2, 333_333_334)},
			{0, told(thirds, true, 1, 333_333_334)},
			{0, told(thirds, true, 0, 333_333_334)},
			{0, told(thirds, false, 0, 333_333_334)},
			{333_333_333, told(thirds, false, 0, 1)},
			{333_333_334, told(thirds, true, 0, 333_333_333)},
			{666_666_666, told(thirds, false, 0, 1)},
			{666_666_667, told(thirds, true, 0, 333_333_333)},
			// Three of them are a second again.
			{time.Second, told(thirds, true, 0, 333_333_334)},
			{time.Second, told(thirds, false, 0, 333_333_334)},
		}},
		"one": {RateLimit{1, MaxRateWindow}, []call{
			{5, told(RateLimit{1, MaxRateWindow}, true, 0, MaxRateWindow)},
			{4 + MaxRateWindow, told(RateLimit{1, MaxRateWindow}, false, 0, 1)},
			{5 + MaxRateWindow, told(RateLimit{1, MaxRateWindow}, true, 0, MaxRateWindow)},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var calls Calls
			for i, c := range tc.calls {
				if got := tc.limit.Look(calls, c.at); got != c.want {
					t.Errorf("look %d, at %s: got %+v, want %+v", i, c.at, got, c.want)
				}
				var got Allowance
				if calls, got = tc.limit.Take(calls, c.at); got != c.want {
					t.Errorf("call %d, at %s: got %+v, want %+v", i, c.at, got, c.want)
				}
			}
		})
	}
}

// Who has used half of the old limit's window waits as long under the new one, but never longer than that lasts.
func TestRateLimitChanges(t *testing.T) {
	hourly := RateLimit{Requests: 100, Window: time.Hour}
	var used Calls
	for range 50 {
		used, _ = hourly.Take(used, 0)
	}
	for name, tc := range map[string]struct {
		limit RateLimit
		want  int32
	}{
		"ten times as many":  {RateLimit{1000, time.Hour}, 499},
		"in a tenth of it":   {RateLimit{100, 6 * time.Minute}, 0},
		"as many in a day":   {RateLimit{100, MaxRateWindow}, 96},
		"no limit any more":  {RateLimit{}, 0},
		"the same as before": {hourly, 49},
	} {
		t.Run(name, func(t *testing.T) {
			_, got := tc.limit.Take(used, 0)
			if got.Remaining != tc.want || got.Taken != (name != "in a tenth of it") {
				t.Errorf("got %+v, want %d remaining", got, tc.want)
			}
		})
	}
	calls, _ := RateLimit{100, 6 * time.Minute}.Take(used, 0)
	if _, got := (RateLimit{100, 6 * time.Minute}).Take(calls, 3600*time.Millisecond); !got.Taken {
		t.Errorf("a hundredth of the new window later: got %+v", got)
	}
}

func TestRateLimitCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		limit RateLimit
		want  string // after the field
	}{
		"least":          {RateLimit{1, time.Second}, ""},
		"most":           {RateLimit{MaxRateRequests, MaxRateWindow}, ""},
		"none":           {RateLimit{}, ""},
		"no calls":       {RateLimit{0, time.Second}, "0 calls must be between 1 and 1000000"},
		"too many":       {RateLimit{1_000_001, time.Second}, "1000001 calls must be between 1 and 1000000"},
		"too short":      {RateLimit{1, time.Millisecond}, "a window of 1ms must be whole seconds between 1s"},
		"not whole":      {RateLimit{1, 1500 * time.Millisecond}, "a window of 1.5s must be whole seconds between 1s"},
		"beyond the day": {RateLimit{1, 25 * time.Hour}, "a window of 25h0m0s must be whole seconds between 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			if err := tc.limit.Check("--rate"); err != nil {
				got = err.Error()
			}
			if !strings.HasPrefix(strings.TrimPrefix(got, "--rate: "), tc.want) || (got == "") != (tc.want == "") {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// bucket is the model, in whole numbers however large: one call takes Window units of Requests*Window, and Requests of
// them come back in each nanosecond.
type bucket struct {
	limit RateLimit
	level *big.Int
	at    time.Duration
}

func (b *bucket) units(factor int64) *big.Int {
	return new(big.Int).Mul(big.NewInt(int64(b.limit.Window)), big.NewInt(factor))
}

func (b *bucket) to(now time.Duration) *big.Int {
	back := new(big.Int).Mul(big.NewInt(int64(now-b.at)), big.NewInt(int64(b.limit.Requests)))
	level, most := new(big.Int).Add(b.level, back), b.units(int64(b.limit.Requests))
	if level.Cmp(most) > 0 {
		return most
	}
	return level
}

func (b *bucket) take(now time.Duration) (taken bool, left int64) {
	b.level, b.at = b.to(now), now
	if taken = b.level.Cmp(b.units(1)) >= 0; taken {
		b.level.Sub(b.level, b.units(1))
	}
	return taken, new(big.Int).Div(b.level, b.units(1)).Int64()
}

// The limit decides as the model does, says exactly when the next call is let through, and in no span of time lets more
// through than it promises.
func TestRateLimitIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := RateLimit{
			Requests: rapid.OneOf(rapid.Int32Range(1, 12), rapid.Int32Range(1, MaxRateRequests)).Draw(t, "requests"),
			Window: time.Duration(rapid.OneOf(rapid.Int64Range(1, 3), rapid.Int64Range(1, 86_400)).Draw(t, "seconds")) *
				time.Second,
		}
		step := limit.Window / time.Duration(limit.Requests)
		model := &bucket{limit: limit, level: new(big.Int)}
		model.level = model.units(int64(limit.Requests))
		now := time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "start"))
		model.at = now
		var calls Calls
		var through []time.Duration
		for range rapid.IntRange(1, 60).Draw(t, "calls") {
			wait := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, int64(2*step)+2),
				rapid.Int64Range(max(0, int64(step)-1), int64(step)+1), rapid.Int64Range(0, int64(2*limit.Window)))
			now += time.Duration(wait.Draw(t, "wait"))
			taken, left := model.take(now)
			var got Allowance
			if calls, got = limit.Take(calls, now); got.Taken != taken || int64(got.Remaining) != left {
				t.Fatalf("at %d: got %+v, the model says %t, %d left", now, got, taken, left)
			}
			if taken {
				through = append(through, now)
			}
			if got.Next <= 0 {
				t.Fatalf("at %d: got %+v, though something is used", now, got)
			}
			more := model.units(left + 1)
			if model.to(now+got.Next).Cmp(more) < 0 || model.to(now+got.Next-1).Cmp(more) >= 0 {
				t.Fatalf("at %d: %s is not when one more is let through", now, got.Next)
			}
			if calls.Full(now) {
				t.Fatalf("at %d: all calls have come back, just after one", now)
			}
		}
		for i, from := range through {
			for j := i; j < len(through); j++ {
				// n <= Requests * (1 + t/Window), without a division.
				span := big.NewInt(int64(through[j]-from) + int64(limit.Window))
				most := span.Mul(span, big.NewInt(int64(limit.Requests)))
				if model.units(int64(j-i+1)).Cmp(most) > 0 {
					t.Fatalf("%d calls in %s", j-i+1, through[j]-from)
				}
			}
		}
	})
}
