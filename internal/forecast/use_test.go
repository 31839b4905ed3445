// SPDX-License-Identifier: Apache-2.0

package forecast_test

import (
	"encoding/csv"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/forecast"
	"github.com/cantonesescribe/usage-operator/internal/testing/shapes"
)

// question is about what follows the days of the series.
func question(series []int64, ahead float64) forecast.Question {
	q := forecast.Question{Today: len(series), Ahead: ahead}
	for i, used := range series {
		if used > 0 {
			q.Days = append(q.Days, forecast.Day{Index: i, Used: used})
		}
	}
	return q
}

func ask(t *testing.T, q forecast.Question) forecast.Outlook {
	t.Helper()
	o, err := forecast.Use(q)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// series repeats a pattern for so many days.
func series(days int, pattern ...int64) []int64 {
	out := make([]int64, days)
	for i := range out {
		out[i] = pattern[i%len(pattern)]
	}
	return out
}

func TestUse(t *testing.T) {
	week := []int64{70, 80, 90, 100, 110, 10, 0}
	beginning := func(first int, days []int64) forecast.Question {
		q := question(days, 7)
		q.Today += first
		for i := range q.Days {
			q.Days[i].Index += first
		}
		return q
	}
	exactly := func(used int64) forecast.Interval { return forecast.Interval{Low: used, Expected: used, High: used} }
	var weekly []forecast.Day
	for i := range 6 {
		weekly = append(weekly, forecast.Day{Index: 7 * i, Used: 5})
	}
	for name, tc := range map[string]struct {
		q      forecast.Question
		reason forecast.Reason
		method forecast.Method
		days   int
		end    forecast.Interval
	}{
		"nothing was ever used":    {q: question(nil, 7), reason: forecast.TooFewDays},
		"nothing but days without": {q: question(make([]int64, 50), 7), reason: forecast.TooFewDays},
		"a day too few":            {q: question(series(13, 10), 1), reason: forecast.TooFewDays, days: 13},
		"days before the first use": {
			q: question(append(make([]int64, 30), series(13, 10)...), 1), reason: forecast.TooFewDays, days: 13,
		},
		"just enough": {
			q: question(series(14, 10), 7), method: forecast.RunRate, days: 14, end: exactly(70),
		},
		"further than could be tried": {q: question(series(14, 10), 7.5), reason: forecast.TooFarAhead, days: 14},
		"nothing of late": {
			q: question(append(series(40, 10), make([]int64, 14)...), 7), reason: forecast.NoRecentUse, days: 54,
		},
		"always the same": {
			q: question(series(60, 10), 30), method: forecast.RunRate, days: 60, end: exactly(300),
		},
		"the same week again and again": {
			q: question(series(63, week...), 14), method: forecast.SeasonalNaive, days: 63, end: exactly(920),
		},
		"gaps are days without use": {
			q:      forecast.Question{Today: 42, Ahead: 7, Days: weekly},
			method: forecast.SeasonalNaive, days: 42, end: exactly(5),
		},
		"numbers of days mean nothing": {
			q: beginning(-1000, series(60, 10)), method: forecast.RunRate, days: 60, end: exactly(70),
		},
		"only so many days back": {
			q: question(append(series(40, 1000), series(forecast.MaxDays, 10)...), 7), method: forecast.RunRate,
			days: forecast.MaxDays, end: exactly(70),
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := ask(t, tc.q)
			if o.Reason != tc.reason || o.Method != tc.method || o.Days != tc.days || o.End() != tc.end {
				t.Errorf("got %q, %q of %d days, %+v", o.Reason, o.Method, o.Days, o.End())
			}
		})
	}
}

// How far ahead anybody can ask, as the page says.
func TestUseAhead(t *testing.T) {
	for days, most := range map[int]float64{14: 7, 20: 13, 21: 14, 28: 14, 35: 21, 46: 31, 91: 61} {
		if o := ask(t, question(series(days, 10), most)); o.Reason != "" || o.Backtest.Origins < int(most) {
			t.Errorf("%d days ahead by %d: %q, asked on %d days", int(most), days, o.Reason, o.Backtest.Origins)
		}
		if o := ask(t, question(series(days, 10), most+0.01)); o.Reason != forecast.TooFarAhead {
			t.Errorf("further ahead than %d days by %d: %q", int(most), days, o.Reason)
		}
	}
}

// Who knows the last week of such a user knows as much as any method.
func TestUseNoneBetter(t *testing.T) {
	// The pattern of the week changes to another one every month.
	days := append(series(42, 100, 0, 0, 0, 0, 0, 0), series(42, 0, 0, 0, 100, 0, 0, 0)...)
	o := ask(t, question(append(days, series(21, 0, 0, 0, 0, 0, 100, 0)...), 7))
	if o.Reason != forecast.NoneBetter || o.Method != forecast.SeasonalNaive || o.End() != (forecast.Interval{}) {
		t.Errorf("got %q, %q, %+v", o.Reason, o.Method, o.End())
	}
	if o.Backtest.MASE <= 0 || o.Backtest.Origins == 0 {
		t.Errorf("nothing was tried: %+v", o.Backtest)
	}
}

func TestUseFromNow(t *testing.T) {
	q := question(series(60, 96), 10.5)
	q.Passed = 0.25
	o := ask(t, q)
	for days, want := range map[float64]int64{
		-1: 0, 0: 0, 0.25: 0, 0.5: 24, 1: 72, 2: 168, 10: 936, 10.5: 984, 400: 984,
	} {
		if got := o.At(days); got != (forecast.Interval{Low: want, Expected: want, High: want}) {
			t.Errorf("after %g days: %+v, want %d", days, got, want)
		}
	}
	never := math.Inf(1)
	for left, want := range map[int64]float64{0: 0.25, -5: 0.25, 24: 0.5, 168: 2, 984: 10.5, 985: never} {
		if got := o.Exhaustion(left); got != (forecast.Exhaustion{Earliest: want, Expected: want, Latest: want}) {
			t.Errorf("%d left: used up at %+v, want %g", left, got, want)
		}
	}
	if got := (forecast.Outlook{}).Exhaustion(0); !math.IsInf(got.Earliest, 1) {
		t.Errorf("without a forecast something is used up at %+v", got)
	}
}

func TestUseErrors(t *testing.T) {
	type edit = func(*forecast.Question)
	for want, edit := range map[string]edit{
		"season: 1, want 2 to 100 days":             func(q *forecast.Question) { q.Season = 1 },
		"season: 101, want 2 to 100 days":           func(q *forecast.Question) { q.Season = 101 },
		"passed: 1 of today, want 0 to less than 1": func(q *forecast.Question) { q.Passed = 1 },
		"passed: NaN of today, want 0 to less than": func(q *forecast.Question) { q.Passed = math.NaN() },
		"ahead: 0.5 days, want more than the 0.5 that have passed": func(q *forecast.Question) {
			q.Passed, q.Ahead = 0.5, 0.5
		},
		"ahead: 401 days, want more than the 0 that have passed and at most 400": func(q *forecast.Question) {
			q.Ahead = 401
		},
		"ahead: NaN days":                                  func(q *forecast.Question) { q.Ahead = math.NaN() },
		"days[3]: -1 used, want at least 0":                func(q *forecast.Question) { q.Days[3].Used = -1 },
		"days[3]: index 2, want more than the 2 before it": func(q *forecast.Question) { q.Days[3].Index = 2 },
		"days[19]: index 20, want less than today's, 20":   func(q *forecast.Question) { q.Days[19].Index = 20 },
	} {
		q := question(series(20, 10), 3)
		edit(&q)
		if _, err := forecast.Use(q); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// Amounts that no float tells from each other are no worse than others.
func TestUseIsBounded(t *testing.T) {
	o := ask(t, question(series(60, math.MaxInt64), 30))
	if got := o.End(); got.Expected != math.MaxInt64 || got.Low < math.MaxInt64/2 || got.High != math.MaxInt64 {
		t.Errorf("got %+v", got)
	}
}

// Whatever was used: an interval contains what is expected, nothing is negative, nothing falls; what is twice as much
// is foretold twice as much; the more is left the later it is used up; and what a forecaster did before is no matter.
func TestUseProperties(t *testing.T) {
	t.Parallel()
	var kept forecast.Forecaster
	rapid.Check(t, func(t *rapid.T) {
		q := forecast.Question{
			Today:  rapid.IntRange(10, 120).Draw(t, "today"),
			Season: rapid.SampledFrom([]int{0, 2, 4, 7, 12}).Draw(t, "season"),
			Passed: rapid.SampledFrom([]float64{0, 0.3, 0.99}).Draw(t, "passed"),
		}
		q.Ahead = q.Passed + rapid.Float64Range(0.001, 32).Draw(t, "ahead")
		most := rapid.SampledFrom([]int64{1, 10, 1_000_000_000_000}).Draw(t, "most")
		idle := rapid.IntRange(0, 9).Draw(t, "idle")
		for i := range q.Today {
			if rapid.IntRange(0, 9).Draw(t, "uses") >= idle {
				q.Days = append(q.Days, forecast.Day{Index: i, Used: rapid.Int64Range(0, most).Draw(t, "used")})
			}
		}
		o, err := forecast.Use(q)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := kept.Use(q); err != nil || !reflect.DeepEqual(again, o) {
			t.Fatalf("another time: %+v, %v, want %+v", again, err, o)
		}
		if b := o.Backtest; !(b.MASE >= 0 && b.Coverage >= 0 && b.Coverage <= 1) {
			t.Fatalf("backtest %+v", b)
		}
		if o.Reason != "" {
			if o.End() != (forecast.Interval{}) {
				t.Fatalf("%s, and yet %+v", o.Reason, o.End())
			}
			return
		}
		var before forecast.Interval
		for at := 0.0; at < q.Ahead+1; at += 0.25 {
			i := o.At(at)
			if i.Low < before.Low || i.Expected < before.Expected || i.High < before.High {
				t.Fatalf("it falls: %+v after %+v", i, before)
			}
			if before = i; i.Low < 0 || i.Expected < i.Low || i.High < i.Expected {
				t.Fatalf("after %g days: %+v", at, i)
			}
		}
		left := rapid.Int64Range(0, 1+o.End().High).Draw(t, "left")
		sooner, later := o.Exhaustion(left), o.Exhaustion(left+1)
		if sooner.Earliest > sooner.Expected || sooner.Expected > sooner.Latest || sooner.Earliest < q.Passed ||
			later.Earliest < sooner.Earliest || later.Expected < sooner.Expected || later.Latest < sooner.Latest {
			t.Fatalf("%d left: %+v, one more: %+v", left, sooner, later)
		}
		if end := o.End(); left > end.High && !math.IsInf(sooner.Earliest, 1) {
			t.Fatalf("%d left of at most %d: %+v", left, end.High, sooner)
		}
		twice := q
		twice.Days = slices.Clone(q.Days)
		for i := range twice.Days {
			twice.Days[i].Used *= 2
		}
		double, err := forecast.Use(twice)
		if err != nil || double.Method != o.Method || double.Backtest.MASE != o.Backtest.MASE {
			t.Fatalf("twice as much: %+v, %v, want %+v", double, err, o)
		}
		// Whole units are told: rounding may differ by two.
		if one, two := o.End(), double.End(); math.Abs(float64(two.Low-2*one.Low)) > 2 ||
			math.Abs(float64(two.Expected-2*one.Expected)) > 2 || math.Abs(float64(two.High-2*one.High)) > 2 {
			t.Fatalf("twice as much: %+v, want twice %+v", two, one)
		}
	})
}

// scaledError is how much each of the days that came was missed by on the average, against what days differ by from
// those a season before in what had been.
func scaledError(told func(day int) float64, past, future []int64, season int) float64 {
	scale, missed := 0.0, 0.0
	for i := season; i < len(past); i++ {
		scale += math.Abs(float64(past[i]-past[i-season])) / float64(len(past)-season)
	}
	for h, came := range future {
		missed += math.Abs(float64(came)-told(h)) / float64(len(future))
	}
	return missed / scale
}

// daily returns what is expected of each day that follows.
func daily(o forecast.Outlook) func(day int) float64 {
	return func(day int) float64 {
		return float64(o.At(float64(day+1)).Expected - o.At(float64(day)).Expected)
	}
}

func sum(days []int64) (all int64) {
	for _, d := range days {
		all += d
	}
	return all
}

// page holds the tables that are measured here.
const page = "../../docs/forecasts.md"

func documented(t *testing.T, table string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\n\n"+table+"\n") {
		t.Errorf("%s does not have this table:\n%s", page, table)
	}
}

// Of users of every kind about four in five use what lies in the interval, and the days are foretold better than by the
// week before.
func TestShapes(t *testing.T) {
	t.Parallel()
	const users = 2000
	var f forecast.Forecaster
	table := "| shape | asked | told | within | below | above | MASE | seasonal naive |\n" +
		"|---|---|---|---|---|---|---|---|\n"
	for _, s := range shapes.All() {
		r := rand.New(rand.NewPCG(201, 77))
		var told, within, below int
		var mase, naive float64
		for range users {
			days, ahead := 28+r.IntN(64), 1+r.IntN(30)
			all := s.Days(r, days+ahead)
			past, future := all[:days], all[days:]
			o, err := f.Use(question(past, float64(ahead)))
			if err != nil {
				t.Fatal(err)
			}
			if o.Reason != "" {
				continue
			}
			told++
			mase += scaledError(daily(o), past, future, forecast.Week)
			lastWeek := past[days-forecast.Week:]
			naive += scaledError(func(day int) float64 { return float64(lastWeek[day%forecast.Week]) }, past, future,
				forecast.Week)
			switch used := sum(future); {
			case used < o.End().Low:
				below++
			case used <= o.End().High:
				within++
			}
		}
		n := float64(told)
		share, mase, naive := float64(within)/n, mase/n, naive/n
		if share < 0.75 || share > 0.85 {
			t.Errorf("%s: %.3f lie within, want 0.75 to 0.85", s.Name, share)
		}
		if mase >= 1 || mase >= naive {
			t.Errorf("%s: MASE %.3f, want less than 1 and the %.3f of the week before", s.Name, mase, naive)
		}
		if told < users/2 {
			t.Errorf("%s: only %d of %d were told anything", s.Name, told, users)
		}
		table += fmt.Sprintf("| %s | %d | %d | %.1f %% | %.1f %% | %.1f %% | %.2f | %.2f |\n", s.Name, users, told,
			100*share, 100*float64(below)/n, 100*float64(told-within-below)/n, mase, naive)
	}
	documented(t, table)
}

// rows reads a file that testdata/ets.R writes, by the names of its columns.
func rows(t *testing.T, name string) []map[string]string {
	t.Helper()
	file, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	lines, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]string
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, column := range lines[0] {
			row[column] = line[i]
		}
		out = append(out, row)
	}
	return out
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// worse are the series of which ets knows more than a tenth more, as the page says.
var worse = []string{"ldeaths"}

// On public series we are no more than a tenth worse than R's ets with the same past.
func TestPublicSeries(t *testing.T) {
	t.Parallel()
	table := "| series | season | origins | told | methods | MASE | ets | ratio | within | ets |\n" +
		"|---|---|---|---|---|---|---|---|---|---|\n"
	ets, told := rows(t, "ets.csv"), 0
	for _, s := range rows(t, "series.csv") {
		season := int(number(t, s["season"]))
		var all []int64
		for value := range strings.FieldsSeq(s["values"]) {
			all = append(all, int64(number(t, value)))
		}
		var ours, theirs, within, theirWithin, sums float64
		var origins, answers int
		var methods []string
		for _, e := range ets {
			if e["name"] != s["name"] {
				continue
			}
			origins++
			given, ahead := int(number(t, e["given"])), int(number(t, e["ahead"]))
			q := question(all[:given], float64(ahead))
			q.Season = season
			o := ask(t, q)
			if o.Reason != "" {
				continue
			}
			answers++
			if m := "`" + string(o.Method) + "`"; !slices.Contains(methods, m) {
				methods = append(methods, m)
			}
			past, future := all[:given], all[given:given+ahead]
			ours += scaledError(daily(o), past, future, season)
			theirs += number(t, e["mase"])
			theirWithin += number(t, e["within"])
			for h := range future {
				sums++
				if used, i := sum(future[:h+1]), o.At(float64(h+1)); used >= i.Low && used <= i.High {
					within++
				}
			}
		}
		if answers == 0 {
			table += fmt.Sprintf("| %s | %d | %d | 0 | | | | | | |\n", s["name"], season, origins)
			continue
		}
		told++
		n, ratio := float64(answers), ours/theirs
		if listed := slices.Contains(worse, s["name"]); listed != (ratio > 1.1) {
			t.Errorf("%s: MASE %.3f, ets %.3f, ratio %.3f, said to be worse: %t", s["name"], ours/n, theirs/n, ratio,
				listed)
		}
		slices.Sort(methods)
		table += fmt.Sprintf("| %s | %d | %d | %d | %s | %.2f | %.2f | %.2f | %.0f %% | %.0f %% |\n", s["name"], season,
			origins, answers, strings.Join(methods, ", "), ours/n, theirs/n, ratio, 100*within/sums,
			100*theirWithin/sums)
	}
	if told < 8 {
		t.Errorf("only %d series were told anything of, want 8", told)
	}
	documented(t, table)
}

func BenchmarkUse(b *testing.B) {
	var f forecast.Forecaster
	for _, s := range shapes.All() {
		b.Run(s.Name, func(b *testing.B) {
			q := question(s.Days(rand.New(rand.NewPCG(1, 2)), 90), 30)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Use(q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
