// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// spent is what processors have been used for so many pairs, up to an instant.
type spent struct {
	pairs     int64
	processor time.Duration
}

// each is what a pair took since an earlier instant, in microseconds.
func (s spent) each(since spent) float64 {
	return micros(s.processor-since.processor) / float64(s.pairs-since.pairs)
}

// turnCosts are what a pair took in turns with something and in turns without it, in microseconds of processor time.
// One of each makes a pair of turns, in either order.
type turnCosts struct {
	with, without []float64
	// times is how often it was done in a turn with it, which what it takes is divided by; at least 1.
	times float64
}

func (c *turnCosts) add(with bool, each float64) {
	if with {
		c.with = append(c.with, each)
	} else {
		c.without = append(c.without, each)
	}
}

// turns compares turns that are next to each other, which other work on the machine moves alike.
func (r *report) turns(name string, c turnCosts, goal float64) {
	ratios := make([]float64, len(c.with))
	for i := range ratios {
		c.with[i] = c.without[i] + (c.with[i]-c.without[i])/c.times
		ratios[i] = c.without[i] / c.with[i]
	}
	ours, _, _ := medianOf(c.with)
	baseline, _, _ := medianOf(c.without)
	ratio, low, high := medianOf(ratios)
	r.figure(figure{name: name, ours: ours, baseline: baseline, ratio: ratio, goal: goal, low: low, high: high})
}

// inPairs says of so many pairs of turns, at random in each pair, which of the two is the first.
func inPairs(n int) []bool {
	var turns []bool
	for range n {
		first := rand.N(2) == 0
		turns = append(turns, first, !first)
	}
	return turns
}

// medianOf returns the median of some values, and bounds between which that of all of their kind is with a probability
// of 95 %, whatever their distribution: of so many values that so few are beyond it by chance. Of fewer than six
// nothing is known.
func medianOf(values []float64) (median, low, high float64) {
	slices.Sort(values)
	n := len(values)
	median = (values[(n-1)/2] + values[n/2]) / 2
	// The probability that no more than so many of the values are below the median of all.
	below, beyond := math.Pow(0.5, float64(n)), 0
	for term := below; below <= 0.025; beyond++ {
		term *= float64(n-beyond) / float64(beyond+1)
		below += term
	}
	if beyond == 0 {
		return median, math.Inf(-1), math.Inf(1)
	}
	return median, values[beyond-1], values[n-beyond]
}
