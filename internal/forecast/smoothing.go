// SPDX-License-Identifier: Apache-2.0

package forecast

import "slices"

// rates are how fast a smoothing follows what it sees: its level and its trend, how much of the trend is left after a
// day, and its season. With factors the days of a season are so many times the level, else so much above or below it.
type rates struct {
	level, trend, damping, season float64
	factors                       bool
}

// What is tried. Which of the rates tell, is what they would have foretold best so far.
var (
	trends       = [][2]float64{{0, 0}, {0.02, 0.995}, {0.05, 0.9}, {0.2, 0.98}}
	weeklyLevels = []float64{0.03, 0.1, 0.3, 0.6}
	seasons      = []float64{0.05, 0.2}

	holtRates            = grid([]float64{0.05, 0.1, 0.2, 0.35, 0.5, 0.8}, []float64{0}, false)
	weeklyRates          = grid(weeklyLevels, seasons, false)
	weeklyAndFactorRates = append(grid(weeklyLevels, seasons, false), grid(weeklyLevels, seasons, true)...)
)

func grid(levels, seasons []float64, factors bool) []rates {
	var out []rates
	for _, level := range levels {
		for _, season := range seasons {
			for _, trend := range trends {
				out = append(out, rates{level, level * trend[0], trend[1], season, factors})
			}
		}
	}
	return out
}

// smoothing is exponential smoothing with all its rates at once, after some day.
type smoothing struct {
	rates        []rates
	level, trend []float64
	season       []float64 // by day of the season, then by rates
	length       int       // of the season
	factors      int       // the first of the rates that have factors
	errors       []float64 // sums of squares, one day ahead
}

// begin takes the first season for what things are like, and the second one, where the backtest begins behind it, for
// where they go.
func (s *smoothing) begin(tried []rates, use []float64, season, first int) {
	n := len(tried)
	s.rates, s.length, s.factors = tried, season, slices.IndexFunc(tried, func(r rates) bool { return r.factors })
	if s.factors < 0 {
		s.factors = n
	}
	s.level, s.trend, s.errors = resized(s.level, n), resized(s.trend, n), resized(s.errors, n)
	s.season = resized(s.season, season*n)
	mean, trend := 0.0, 0.0
	for d, u := range use[:season] {
		mean += u / float64(season)
		if first >= 2*season {
			trend += (use[season+d] - u) / float64(season*season)
		}
	}
	for i, r := range tried {
		slope := trend
		if r.trend == 0 {
			slope = 0
		}
		middle := float64(season-1) / 2
		s.level[i], s.trend[i], s.errors[i] = mean+slope*middle, slope, 0
		for d, u := range use[:season] {
			switch level := mean + slope*(float64(d)-middle); {
			case r.season == 0:
				s.season[d*n+i] = 0
			case r.factors:
				s.season[d*n+i] = u / max(level, mean/2)
			default:
				s.season[d*n+i] = u - level
			}
		}
	}
}

// see learns what was used on a day behind the first season.
func (s *smoothing) see(day int, use float64) {
	n := len(s.rates)
	season := s.season[day%s.length*n:][:n]
	// A season begins as the mean of those that were.
	mean := 1 / float64(day/s.length+1)
	if s.rates[0].season == 0 {
		s.seeLevel(use)
		return
	}
	s.seeSeason(season, use, mean)
	s.seeFactors(season, use, mean)
}

// seeLevel learns where days of the season do not differ.
func (s *smoothing) seeLevel(use float64) {
	n := len(s.rates)
	level, trend, errors := s.level[:n], s.trend[:n], s.errors[:n]
	for i := range s.rates {
		r := &s.rates[i]
		slope := r.damping * trend[i]
		l := level[i] + slope
		e := use - l
		errors[i] += e * e
		level[i] = l + r.level*e
		trend[i] = slope + r.trend*e
	}
}

// seeSeason learns with the rates that add a season.
func (s *smoothing) seeSeason(season []float64, use, mean float64) {
	rates := s.rates[:s.factors]
	n := len(rates)
	season, level, trend, errors := season[:n], s.level[:n], s.trend[:n], s.errors[:n]
	for i := range rates {
		r := &rates[i]
		slope := r.damping * trend[i]
		l, c := level[i]+slope, season[i]
		e := use - l - c
		errors[i] += e * e
		level[i] = l + r.level*e
		trend[i] = slope + r.trend*e
		season[i] = c + max(mean, r.season)*e
	}
}

// seeFactors learns with the rates that multiply by it.
func (s *smoothing) seeFactors(season []float64, use, mean float64) {
	rates := s.rates[s.factors:]
	n, most := len(rates), float64(s.length)
	season, level, trend, errors := season[s.factors:][:n], s.level[s.factors:][:n], s.trend[s.factors:][:n],
		s.errors[s.factors:][:n]
	for i := range rates {
		r := &rates[i]
		slope := r.damping * trend[i]
		l, c := max(0, level[i]+slope), season[i]
		e := use - l*c
		errors[i] += e * e
		// On a day of little use the level shows less.
		shown := e * c
		if c > 1 {
			shown = e / c
		}
		level[i] = l + r.level*shown
		trend[i] = slope + r.trend*shown
		if l > 0 {
			season[i] = min(max(0, c+max(mean, r.season)*e/l), most)
		}
	}
}

// tell lays what is to come from that day on into the path. Nobody uses less than nothing.
func (s *smoothing) tell(day int, path []float64) {
	i, n := least(s.errors), len(s.rates)
	r, level, slope := s.rates[i], s.level[i], s.trend[i]
	at := day % s.length
	for h := range path {
		slope *= r.damping
		level += slope
		if c := s.season[at*n+i]; r.factors {
			path[h] = max(0, level) * c
		} else {
			path[h] = max(0, level+c)
		}
		if at++; at == s.length {
			at = 0
		}
	}
}

// average is the mean of the last four, two or one season, whichever would have foretold best so far.
type average struct {
	errors [3]float64
	length [3]int
	before []float64 // all that was before a day
}

func (a *average) begin(use []float64, season int) {
	a.length, a.errors = [...]int{4 * season, 2 * season, season}, [3]float64{}
	a.before = append(a.before[:0], 0)
	for i, u := range use {
		a.before = append(a.before, a.before[i]+u)
	}
}

func (a *average) mean(window, day int) float64 {
	first := max(0, day-a.length[window])
	return (a.before[day] - a.before[first]) / float64(day-first)
}

func (a *average) see(day int, use float64) {
	for i := range a.length {
		e := use - a.mean(i, day)
		a.errors[i] += e * e
	}
}

func (a *average) tell(day int, path []float64) {
	mean := a.mean(least(a.errors[:]), day)
	for h := range path {
		path[h] = mean
	}
}

// least returns the index of the least, and of those that are as good but for rounding the first.
func least(of []float64) int {
	best := 0
	for i, e := range of {
		if e < of[best]*(1-1e-9) {
			best = i
		}
	}
	return best
}

// resized returns a slice of that length with whatever in it.
func resized(s []float64, n int) []float64 {
	if cap(s) < n {
		return make([]float64, n)
	}
	return s[:n]
}
