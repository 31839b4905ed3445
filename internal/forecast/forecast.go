// SPDX-License-Identifier: Apache-2.0

// Package forecast says what is to be expected by what has been, and nothing where too little has been: when a turn in
// a queue comes (Turn), and how much will be used (Use). It knows neither users nor limits: times and amounts go in,
// ranges come out, the same for the same.
package forecast

import (
	"math"
	"slices"
	"time"
)

const (
	// MinGaps is how many gaps between starts there must have been. The ends of a range are passed by one in ten each:
	// with fewer than ten none of them has been passed by any, on the average, and the range would be made up.
	MinGaps = 10
	// fewRecent is how many of the latest gaps tell how fast places are given now, at least; for a place further back
	// it is as many as there are in front. With fewer the mean would be more chance than rate, with more it would lag
	// behind.
	fewRecent = 40
	// MaxStarts is how many starts a history needs at most: what was before the latest of them is not the recent rate.
	MaxStarts = 200
)

// z is the standard normal deviation that nine in ten stay below. Between it and its opposite lie 80 %.
const z = 1.2816

// Start is a start of work that had waited for a slot.
type Start struct {
	// Since is when it began to wait, and At when it started.
	Since, At time.Time
}

// History is how a queue has moved.
type History struct {
	// Starts are its latest, at most MaxStarts, the latest first.
	Starts []Start
	// Last is when anything last started, also what had not waited; long ago where nothing runs.
	Last time.Time
}

// Range is when a start is to be expected.
type Range struct {
	// Earliest and Latest bound it: of ten starts one is expected before, and one after them.
	Earliest, Latest time.Time
	// Gaps is how many gaps between starts it was drawn from, and Since when the first of them began.
	Gaps  int
	Since time.Time
}

// Turn says when the turn of who is at the place comes, from 1, in a queue with that history. It knows only how fast
// places have been given: that work of a higher priority comes in between, that somebody leaves, or that limits change,
// it does not foresee.
//
// There is no answer where history is thin: where there were fewer than MinGaps gaps, or fewer than there are places in
// front, since the past says nothing of longer than it lasted; where nothing has taken as long as the present start has
// already; and where all started at once.
func Turn(h History, place int, now time.Time) (Range, bool) {
	gaps, since := h.gaps()
	n := len(gaps)
	if n < MinGaps || place < 1 || place > n {
		return Range{}, false
	}
	all, variance := moments(gaps)
	rest, restVariance, ok := remaining(gaps, now.Sub(h.last()).Seconds())
	if !ok || all <= 0 {
		return Range{}, false
	}
	var low, high, sum float64
	summed := 0
	for k := 1; k <= place; k++ {
		for ; summed < min(n, max(fewRecent, k)); summed++ {
			sum += gaps[summed]
		}
		mean, more := sum/float64(summed), float64(k-1)
		// What varies is the rest of the present gap, each of the gaps behind it, and what these are on the average: by
		// how much the rate has moved lately it may move again, and so many gaps tell their mean so well.
		doubt := (mean-all)*(mean-all) + variance/float64(summed)
		m, v := rest+more*mean, restVariance+more*variance+more*more*doubt
		// Nobody starts before those in front.
		low, high = max(low, quantile(m, v, -z)), max(high, quantile(m, v, z))
	}
	return Range{
		Earliest: now.Add(seconds(low)), Latest: now.Add(seconds(high)), Gaps: n, Since: since,
	}, true
}

// gaps returns the times between starts through all of which somebody waited, in seconds, the latest first, and when
// the first of them began. What starts ends such a gap if it waited when the start before came.
func (h History) gaps() (gaps []float64, since time.Time) {
	starts := h.Starts[:min(len(h.Starts), MaxStarts)]
	for i := 1; i < len(starts); i++ {
		if late, early := starts[i-1], starts[i]; !late.Since.After(early.At) && !late.At.Before(early.At) {
			gaps, since = append(gaps, late.At.Sub(early.At).Seconds()), early.At
		}
	}
	return gaps, since
}

// last returns when the present gap began.
func (h History) last() time.Time {
	if len(h.Starts) > 0 && h.Starts[0].At.After(h.Last) {
		return h.Starts[0].At
	}
	return h.Last
}

// moments returns the mean of the gaps and their variance. Where slow and fast times take turns, sums of several gaps
// vary more than gaps that know nothing of each other would: the variance is then that of such sums, for each gap.
func moments(gaps []float64) (mean, variance float64) {
	mean, variance = spread(gaps)
	width := len(gaps) / MinGaps
	if width < 2 {
		return mean, variance
	}
	sums := make([]float64, 0, len(gaps)-width+1)
	for i := range len(gaps) - width + 1 {
		sum := 0.0
		for _, g := range gaps[i : i+width] {
			sum += g
		}
		sums = append(sums, sum)
	}
	_, together := spread(sums)
	return mean, max(variance, together/float64(width))
}

// spread returns the mean and the variance of a sample of two or more.
func spread(sample []float64) (mean, variance float64) {
	for _, x := range sample {
		mean += x
	}
	mean /= float64(len(sample))
	for _, x := range sample {
		variance += (x - mean) * (x - mean)
	}
	return mean, variance / float64(len(sample)-1)
}

// fewAlike is how many gaps that lasted for longer than the present one tell how much their rests vary.
const fewAlike = 5

// remaining returns the mean and the variance of what is left of a gap that has lasted so long, by those of the gaps
// that lasted for longer. Where these are few their rests are taken to vary as much as what has no memory.
func remaining(gaps []float64, elapsed float64) (mean, variance float64, ok bool) {
	rests := slices.Clone(gaps)
	rests = slices.DeleteFunc(rests, func(g float64) bool { return g <= elapsed })
	if len(rests) == 0 {
		return 0, 0, false
	}
	for i := range rests {
		rests[i] -= max(0, elapsed)
	}
	if len(rests) < fewAlike {
		for _, r := range rests {
			mean += r / float64(len(rests))
		}
		return mean, mean * mean, true
	}
	mean, variance = spread(rests)
	return mean, variance, true
}

// quantile returns that of the gamma distribution with such a mean and variance, by the approximation of Wilson and
// Hilferty. Sums of times are distributed so, or nearly.
func quantile(mean, variance, deviation float64) float64 {
	if variance <= 0 || mean <= 0 {
		return max(0, mean)
	}
	ninth := variance / (9 * mean * mean)
	root := max(0, 1-ninth+deviation*math.Sqrt(ninth))
	return mean * root * root * root
}

func seconds(s float64) time.Duration { return time.Duration(math.Round(s * float64(time.Second))) }
