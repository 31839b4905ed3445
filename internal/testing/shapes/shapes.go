// SPDX-License-Identifier: Apache-2.0

// Package shapes makes up users for tests and benchmarks, by what they use from day to day. What is made is the same
// whenever it is made.
package shapes

import (
	"math"
	"math/rand/v2"
)

// Shape is a kind of user, by how much one uses from day to day.
type Shape struct {
	Name string
	// Days makes the use of somebody of that kind, on that many days that follow each other, the first of them with
	// any use.
	Days func(r *rand.Rand, days int) []int64
}

// All are kinds of users: who uses about the same every day, who does so on working days, who uses more from month
// to month, who has bursts, who stops for a while or for good, and who comes by at times only.
func All() []Shape {
	return []Shape{
		{"steady", func(r *rand.Rand, days int) []int64 {
			mean, spread := scale(r), 0.2+0.4*r.Float64()
			return daily(days, func(int) float64 { return mean * lognormalFactor(r, spread) })
		}},
		{"weekday", func(r *rand.Rand, days int) []int64 {
			mean, spread, weekend := scale(r), 0.2+0.4*r.Float64(), 0.3*r.Float64()
			first := r.IntN(5)
			return daily(days, func(day int) float64 {
				use := mean * lognormalFactor(r, spread)
				if (first+day)%7 >= 5 {
					use *= weekend
				}
				return use
			})
		}},
		{"growth", func(r *rand.Rand, days int) []int64 {
			mean, spread, weekend := scale(r), 0.2+0.3*r.Float64(), 0.3+0.7*r.Float64()
			// Each month so much of the first one's more.
			growth := (0.05 + 0.25*r.Float64()) / 30
			first := r.IntN(5)
			return daily(days, func(day int) float64 {
				use := mean * lognormalFactor(r, spread) * (1 + growth*float64(day))
				if (first+day)%7 >= 5 {
					use *= weekend
				}
				return use
			})
		}},
		{"burst", func(r *rand.Rand, days int) []int64 {
			mean, spread := scale(r), 0.2+0.4*r.Float64()
			// Every twelve days on the average something that lasts for one to five and takes two to six times as
			// much.
			rest, factor := 0, 1.0
			return daily(days, func(int) float64 {
				if rest--; rest < 0 {
					factor = 1
					if r.IntN(12) == 0 {
						rest, factor = r.IntN(5), 2+4*r.Float64()
					}
				}
				return mean * factor * lognormalFactor(r, spread)
			})
		}},
		{"lapse", func(r *rand.Rand, days int) []int64 {
			mean, spread := scale(r), 0.2+0.4*r.Float64()
			// One in 120 days is the last one of somebody who then comes back after two weeks on the average, and
			// one in four of them never.
			away, gone := false, false
			return daily(days, func(day int) float64 {
				switch {
				case day == 0, gone:
				case !away && r.IntN(120) == 0:
					away, gone = true, r.IntN(4) == 0
				case away && r.IntN(14) == 0:
					away = false
				}
				if away {
					return 0
				}
				return mean * lognormalFactor(r, spread)
			})
		}},
		{"zero-inflated", func(r *rand.Rand, days int) []int64 {
			mean, often := scale(r), 0.15+0.35*r.Float64()
			return daily(days, func(day int) float64 {
				if day > 0 && r.Float64() > often {
					return 0
				}
				return mean * r.ExpFloat64()
			})
		}},
	}
}

// scale is how much somebody uses on a day: from ten to some ten thousand.
func scale(r *rand.Rand) float64 { return 10 * math.Exp(7*r.Float64()) }

// lognormalFactor is 1 on the average.
func lognormalFactor(r *rand.Rand, sigma float64) float64 {
	return math.Exp(r.NormFloat64()*sigma - sigma*sigma/2)
}

func daily(days int, use func(day int) float64) []int64 {
	out := make([]int64, days)
	for day := range out {
		out[day] = int64(math.Round(use(day)))
	}
	out[0] = max(1, out[0])
	return out
}
