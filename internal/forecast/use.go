// SPDX-License-Identifier: Apache-2.0

package forecast

import (
	"fmt"
	"math"
)

const (
	// Week is the season of what people use.
	Week = 7
	// MinSeasons is how many seasons of history there must be: with fewer nothing has ever repeated.
	MinSeasons = 2
	// MaxDays is how many days before the present one are looked at.
	MaxDays = 1000
	// MaxAhead is how many days ahead anybody may ask.
	MaxAhead = 400
	// maxSeason bounds the season; longer ones hardly ever come twice.
	maxSeason = 100
)

// Method is a way to foretell.
type Method string

// The methods, the simpler first.
const (
	// RunRate takes it that each day is what days have been lately on the average.
	RunRate Method = "run_rate"
	// SeasonalNaive takes it that each day is what the same day of the week was last.
	SeasonalNaive Method = "seasonal_naive"
	// DampedHolt smooths a level and a trend that fades.
	DampedHolt Method = "damped_holt"
	// WeeklySmoothing smooths them with what the days of the week differ by.
	WeeklySmoothing Method = "weekly_smoothing"
)

// methods are all, the simpler first: of those that have been as good, the first one tells.
var methods = [...]Method{RunRate, SeasonalNaive, DampedHolt, WeeklySmoothing}

// The places of the methods.
const (
	runRate = iota
	seasonalNaive
	dampedHolt
	weeklySmoothing
)

// Reason says why there is no forecast.
type Reason string

// The reasons.
const (
	// TooFewDays have passed since the first use: fewer than MinSeasons seasons.
	TooFewDays Reason = "too_few_days"
	// NoRecentUse in as long: what was before says nothing of when it comes back.
	NoRecentUse Reason = "no_recent_use"
	// TooFarAhead for so few days: nothing of that length could be tried on the past even once.
	TooFarAhead Reason = "too_far_ahead"
	// NoneBetter than SeasonalNaive: who knows the last week knows as much.
	NoneBetter Reason = "none_better"
)

// Day is what was used on a day.
type Day struct {
	// Index numbers the days; those that follow each other differ by one.
	Index int
	// Used is what was, in whole units that are nobody's business here; never negative.
	Used int64
}

// Question is what somebody wants to know.
type Question struct {
	// Days are those with any use, in ascending order; what is missing in between is a day without. What was before
	// the first use is no history. At most MaxDays before Today are looked at.
	Days []Day
	// Today is the index of the day that is not over. No day of the history has it, or comes behind it.
	Today int
	// Season is how many days it takes until they repeat, from 2 to 100; Week if it is 0.
	Season int
	// Passed is how much of today has, from 0 to less than 1.
	Passed float64
	// Ahead is where the time that is asked about ends, in days since today began: more than Passed, at most MaxAhead.
	Ahead float64
}

// Outlook is what is to be expected from now on, or why nothing is.
type Outlook struct {
	// Reason is why there is no forecast; empty if there is one.
	Reason Reason
	// Method is the one that was best in the backtest, empty where that was not made.
	Method Method
	// Backtest is what the method was worth.
	Backtest Backtest
	// Days is how long the history is, from the first use to yesterday.
	Days int

	course []point
}

// Backtest is what a method would have been worth if it had been asked on the days before.
type Backtest struct {
	// Origins is on how many days it was asked.
	Origins int
	// MASE is by how much it was wrong on a day on the average, against how much a day differs from the one a season
	// before: below 1 is better than that.
	MASE float64
	// Coverage is the share of those times of the length asked about whose use lies within what the interval of now
	// would have been then.
	Coverage float64
}

// Interval is an amount that is expected, and bounds that one in ten stays below and one in ten exceeds.
type Interval struct{ Low, Expected, High int64 }

// Exhaustion is when an amount is used up, in days since today began; infinite where that is not before the end of
// what was asked about. Earliest is when one in ten would have, Latest when nine in ten would.
type Exhaustion struct{ Earliest, Expected, Latest float64 }

// point is the use since now, some days after the beginning of today.
type point struct{ at, low, expected, high float64 }

// Forecaster makes forecasts one after the other in memory that it keeps. The zero value is ready. It is not for
// several goroutines at once, and what it made before makes no difference to what it makes.
type Forecaster struct {
	use      []float64
	season   int
	first    int // origin
	run      average
	holt     smoothing
	weekly   smoothing
	paths    [len(methods)][]float64
	absolute [len(methods)]float64
	missed   [len(methods)][]float64 // by origin and horizon: what was used beyond the forecast until then
	bounds   []bound
}

// Use says what is to be expected of the question. The same question has the same answer.
func Use(q Question) (Outlook, error) {
	var f Forecaster
	return f.Use(q)
}

// Use is the function of that name.
func (f *Forecaster) Use(q Question) (Outlook, error) {
	if q.Season == 0 {
		q.Season = Week
	}
	if err := q.validate(); err != nil {
		return Outlook{}, err
	}
	f.take(q)
	o := Outlook{Days: len(f.use)}
	horizon := int(math.Ceil(q.Ahead))
	f.first = firstOrigin(o.Days, q.Season)
	switch {
	case o.Days < MinSeasons*q.Season:
		o.Reason = TooFewDays
	case !f.usedLately():
		o.Reason = NoRecentUse
	case horizon > o.Days-f.first:
		o.Reason = TooFarAhead
	}
	if o.Reason != "" {
		return o, nil
	}
	f.backtest(horizon)
	best := least(f.absolute[:])
	o.Method = methods[best]
	o.Backtest = Backtest{Origins: o.Days - f.first, MASE: f.mase(best, horizon)}
	if best == seasonalNaive && f.absolute[best] > 0 {
		o.Reason = NoneBetter
		return o, nil
	}
	f.spread(best, horizon)
	o.Backtest.Coverage = f.coverage(best, horizon)
	o.course = f.course(q, best, horizon)
	return o, nil
}

func (q Question) validate() error {
	switch {
	case q.Season < 2 || q.Season > maxSeason:
		return fmt.Errorf("season: %d, want 2 to %d days", q.Season, maxSeason)
	case math.IsNaN(q.Passed) || q.Passed < 0 || q.Passed >= 1:
		return fmt.Errorf("passed: %g of today, want 0 to less than 1", q.Passed)
	case math.IsNaN(q.Ahead) || q.Ahead <= q.Passed || q.Ahead > MaxAhead:
		return fmt.Errorf("ahead: %g days, want more than the %g that have passed and at most %d", q.Ahead, q.Passed,
			MaxAhead)
	}
	for i, d := range q.Days {
		switch {
		case d.Used < 0:
			return fmt.Errorf("days[%d]: %d used, want at least 0", i, d.Used)
		case i > 0 && d.Index <= q.Days[i-1].Index:
			return fmt.Errorf("days[%d]: index %d, want more than the %d before it", i, d.Index, q.Days[i-1].Index)
		case d.Index >= q.Today:
			return fmt.Errorf("days[%d]: index %d, want less than today's, %d", i, d.Index, q.Today)
		}
	}
	return nil
}

// take lays the days side by side, from the first use to yesterday.
func (f *Forecaster) take(q Question) {
	days := q.Days
	for len(days) > 0 && (days[0].Used == 0 || days[0].Index < q.Today-MaxDays) {
		days = days[1:]
	}
	f.season, f.use = q.Season, f.use[:0]
	if len(days) == 0 {
		return
	}
	first := days[0].Index
	f.use = resized(f.use, q.Today-first)
	clear(f.use)
	for _, d := range days {
		f.use[d.Index-first] = float64(d.Used)
	}
}

func (f *Forecaster) usedLately() bool {
	for _, use := range f.use[len(f.use)-MinSeasons*f.season:] {
		if use > 0 {
			return true
		}
	}
	return false
}

// firstOrigin is the first day at whose beginning the methods are asked in the backtest: after a third of the history,
// so that they have learned what they are judged by, after two seasons if it leaves as many, and after one at least.
func firstOrigin(days, season int) int {
	return max(season, min(2*season, days-2*season), days/3)
}

// At returns what is used from now on until so many days after the beginning of today. There is nothing before now, and
// no more after the end of what was asked about.
func (o Outlook) At(days float64) Interval {
	before := point{at: math.Inf(-1)}
	for _, p := range o.course {
		if p.at >= days {
			share := 0.0
			if p.at > before.at && !math.IsInf(before.at, -1) {
				share = (days - before.at) / (p.at - before.at)
			}
			between := func(from, to float64) float64 { return from + share*(to-from) }
			return whole(between(before.low, p.low), between(before.expected, p.expected), between(before.high, p.high))
		}
		before = p
	}
	return whole(before.low, before.expected, before.high)
}

// End returns what is used from now on until the end of what was asked about.
func (o Outlook) End() Interval { return o.At(math.Inf(1)) }

// Exhaustion returns when that much has been used from now on. What is none is used up by now.
func (o Outlook) Exhaustion(left int64) Exhaustion {
	return Exhaustion{
		Earliest: o.reach(left, func(p point) float64 { return p.high }),
		Expected: o.reach(left, func(p point) float64 { return p.expected }),
		Latest:   o.reach(left, func(p point) float64 { return p.low }),
	}
}

func (o Outlook) reach(left int64, use func(point) float64) float64 {
	for i, p := range o.course {
		if use(p) < float64(left) {
			continue
		}
		if i == 0 {
			return p.at
		}
		before := o.course[i-1]
		return before.at + (p.at-before.at)*(float64(left)-use(before))/(use(p)-use(before))
	}
	return math.Inf(1)
}

func whole(low, expected, high float64) Interval {
	return Interval{
		Low: saturated(math.Floor(low)), Expected: saturated(math.Round(expected)), High: saturated(math.Ceil(high)),
	}
}

func saturated(x float64) int64 {
	if x >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(x)
}
