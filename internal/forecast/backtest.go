// SPDX-License-Identifier: Apache-2.0

package forecast

import "math"

// backtest asks every method at the beginning of each day from the first origin on for what is to come until the
// horizon, by nothing but what was before, and of today last: that is what the paths are at the end.
func (f *Forecaster) backtest(horizon int) {
	days := len(f.use)
	factors := true
	for _, use := range f.use {
		// Of a day of the week without any use there is no saying by how much another one is more.
		factors = factors && use > 0
	}
	f.run.begin(f.use, f.season)
	f.holt.begin(holtRates, f.use, f.season, f.first)
	rates := weeklyRates
	if factors {
		rates = weeklyAndFactorRates
	}
	f.weekly.begin(rates, f.use, f.season, f.first)
	f.absolute = [len(methods)]float64{}
	for k := range methods {
		f.paths[k] = resized(f.paths[k], horizon)
		f.missed[k] = resized(f.missed[k], (days-f.first)*horizon)
	}
	for day := f.season; day < days; day++ {
		if day >= f.first {
			f.tell(day, min(horizon, days-day))
			f.judge(day, min(horizon, days-day), horizon)
		}
		f.run.see(day, f.use[day])
		f.holt.see(day, f.use[day])
		f.weekly.see(day, f.use[day])
	}
	f.tell(days, horizon)
}

// tell has each method tell so many days from that one on.
func (f *Forecaster) tell(day, length int) {
	f.run.tell(day, f.paths[runRate][:length])
	naive := f.paths[seasonalNaive][:length]
	for h := copy(naive, f.use[day-f.season:day]); h < length; h++ {
		naive[h] = naive[h-f.season]
	}
	f.holt.tell(day, f.paths[dampedHolt][:length])
	f.weekly.tell(day, f.paths[weeklySmoothing][:length])
}

// judge notes by how much each method is wrong.
func (f *Forecaster) judge(day, length, horizon int) {
	came := f.use[day : day+length]
	for k := range methods {
		missed := f.missed[k][(day-f.first)*horizon:][:length]
		sum, absolute := 0.0, 0.0
		for h, use := range f.paths[k][:length] {
			e := came[h] - use
			absolute += math.Abs(e)
			sum += e
			missed[h] = sum
		}
		f.absolute[k] += absolute
	}
}

// mase returns the mean absolute scaled error of a method.
func (f *Forecaster) mase(method, horizon int) float64 {
	if f.absolute[method] == 0 {
		return 0
	}
	scale := 0.0
	for day := f.season; day < len(f.use); day++ {
		scale += math.Abs(f.use[day] - f.use[day-f.season])
	}
	told := 0
	for day := f.first; day < len(f.use); day++ {
		told += min(horizon, len(f.use)-day)
	}
	return f.absolute[method] / float64(told) / (scale / float64(len(f.use)-f.season))
}

const (
	// trust is how many sums of the length that is asked about say as much of how these vary as those over a season do.
	trust = 3
	// halvings is how many times the weight of what was missed halves from now back to the first origin: a method that
	// has learned more, or a life that has changed, is not to be judged by what was.
	halvings = 5
)

// bound is by how much sums of a length are missed: the variance of those that are too high and of those that are too
// low, and how many deviations one in ten exceeds.
type bound struct{ below, above, deviations float64 }

// spread learns from the backtest how much the sums over each horizon vary about what was told, be it by chance,
// because the level changes or because the method is wrong to the same side again and again.
//
// Of the long ones few have been seen that share no days, and how much those vary is mostly chance. So what sums over a
// season vary by counts as well, as if days knew nothing of each other, and the less the more of the long ones there
// were; where the long ones vary by more than that, they do depend on each other, and only the long ones count. Few of
// them say less than their variance does, which widens the interval as in Student's distribution.
func (f *Forecaster) spread(method, horizon int) {
	origins := float64(len(f.use) - f.first)
	f.bounds = f.bounds[:0]
	for h := 1; h <= horizon; h++ {
		below, above := f.variances(method, h, horizon)
		separate := origins / float64(h)
		if h <= f.season {
			f.bounds = append(f.bounds, bound{below, above, ninth(separate)})
			continue
		}
		b := f.bounds[f.season-1]
		depends := false
		combined := func(short, seen float64) float64 {
			alone := short * float64(h) / float64(f.season)
			if seen > alone {
				depends = true
				return seen
			}
			return (trust*alone + (separate-1)*seen) / (trust + separate - 1)
		}
		b.below, b.above = combined(b.below, below), combined(b.above, above)
		if depends {
			b.deviations = max(b.deviations, ninth(trust+separate-1))
		}
		f.bounds = append(f.bounds, b)
	}
}

// variances returns the mean square of what sums over so many days were missed by, the latest weighing most. That of
// all is three quarters of either side's; the last one is that of those on this side, as if the others were like them.
func (f *Forecaster) variances(method, h, horizon int) (below, above float64) {
	origins := len(f.use) - f.first
	gain := math.Exp2(halvings / float64(origins))
	weight, weights := 1.0, 0.0
	for i := range origins - h + 1 {
		e := f.missed[method][i*horizon+h-1]
		square := weight * e * e
		if method == weeklySmoothing {
			// It goes on learning how the days of a week differ: a mean of n days is off by a variance of 1/n for
			// each day of the sum, on top of the day's own.
			square *= float64(f.first+i) / float64(f.first+i+h)
		}
		if e > 0 {
			above += square
		} else {
			below += square
		}
		weights += weight
		weight *= gain
	}
	if method == weeklySmoothing {
		weights *= float64(len(f.use)) / float64(len(f.use)+h)
	}
	all := (below + above) / weights
	return 0.75*all + 0.25*2*below/weights, 0.75*all + 0.25*2*above/weights
}

// coverage returns the share of the sums over the whole horizon that lie within the bounds of now about what was told.
func (f *Forecaster) coverage(method, horizon int) float64 {
	within, sums := 0, len(f.use)-f.first-horizon+1
	for i := range sums {
		use := 0.0
		for _, u := range f.use[f.first+i:][:horizon] {
			use += u
		}
		low, high := f.bounds[horizon-1].around(use - f.missed[method][i*horizon+horizon-1])
		// Whole units are told, and rounding makes none of them wrong.
		if use >= math.Floor(low) && use <= math.Ceil(high) {
			within++
		}
	}
	return float64(within) / float64(sums)
}

// course returns how use goes on from now, day by day, bounds included. None of it ever falls.
func (f *Forecaster) course(q Question, method, horizon int) []point {
	course := make([]point, 1, horizon+1)
	course[0].at = q.Passed
	sum := 0.0
	for h, use := range f.paths[method] {
		at := min(float64(h+1), q.Ahead)
		sum += use * (at - max(float64(h), q.Passed))
		// What lies between now and then is as uncertain as the same length from the beginning of a day.
		low, high := f.between(at - q.Passed).around(sum)
		last := course[h]
		course = append(course, point{
			at: at, low: max(last.low, low), expected: max(last.expected, sum), high: max(last.high, high),
		})
	}
	return course
}

// between returns the bound of a length that is no whole number of days.
func (f *Forecaster) between(length float64) bound {
	above := max(0, int(math.Ceil(length))-1)
	to := f.bounds[above]
	var from bound
	if above > 0 {
		from = f.bounds[above-1]
	} else {
		from.deviations = to.deviations
	}
	share := length - float64(above)
	between := func(from, to float64) float64 { return from + share*(to-from) }
	return bound{
		between(from.below, to.below), between(from.above, to.above), between(from.deviations, to.deviations),
	}
}

// around returns the bounds of a sum of which so much is expected. Sums of few large amounts are skewed: their upper
// bound is the further one away of what it would be with the gamma and with the normal distribution, the lower bound is
// the former's.
func (b bound) around(expected float64) (low, high float64) {
	low = min(expected, quantile(expected, b.below, -b.deviations))
	high = max(quantile(expected, b.above, b.deviations), expected+b.deviations*math.Sqrt(b.above))
	return low, high
}

// ninth returns what nine in ten stay below in Student's distribution of so many degrees of freedom, at least two, by
// the expansion of Cornish and Fisher.
func ninth(freedom float64) float64 {
	n := max(2, freedom)
	const z3, z5, z7 = z * z * z, z * z * z * z * z, z * z * z * z * z * z * z
	return z + (z3+z)/(4*n) + (5*z5+16*z3+3*z)/(96*n*n) + (3*z7+19*z5+17*z3-15*z)/(384*n*n*n)
}
