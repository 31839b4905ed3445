// SPDX-License-Identifier: Apache-2.0

package advice

import "github.com/cantonesescribe/usage-operator/internal/quota"

// ChurnDays is of how many whole days before today a score is made: the latest 28, the 28 before, and the 28 before
// those.
const ChurnDays = 3 * PaceDays

// AtRisk is the score from which somebody is taken to be about to leave.
const AtRisk = 50

// Customer is what is known of a user.
type Customer struct {
	// Days are the credits of each day, the oldest first, of ChurnDays; a day of which nothing is known is 0.
	Days [ChurnDays]quota.Credits
	// Refusals of the latest 28 days, and of the admissions that ended in these, how many there were and how many were
	// not charged.
	Refusals, Ended, Failed int64
}

// Factor is a part of a score.
type Factor struct {
	Name string
	// Points of at most Max.
	Points, Max int
	// Value and Usual are what was compared, in days, credits' units or counts.
	Value, Usual int64
}

// Score is how much speaks for a user's leaving, from 0 to 100: the sum of its factors. It is no probability.
type Score struct {
	Points  int
	Factors []Factor
}

// Churn scores a user, by five factors: recency (days since the last use, beside the usual pause between days of use),
// frequency (days of use in the latest 28, beside the mean of the 56 before), trend (credits in these), refusals and
// failures. Nil: nothing was used in the 84 days, or only in the latest 28, so that there is nothing to compare with.
func Churn(c *Customer) *Score {
	var active [3]int64
	var credits [3]quota.Credits
	last, pauses, gaps := -1, int64(0), int64(0)
	for i, used := range c.Days {
		if used <= 0 {
			continue
		}
		active[i/PaceDays]++
		credits[i/PaceDays] = credits[i/PaceDays].Add(used)
		if last >= 0 {
			pauses, gaps = pauses+int64(i-last), gaps+1
		}
		last = i
	}
	if active[0]+active[1] == 0 {
		return nil
	}
	// The usual pause, at least a day.
	usual := int64(1)
	if gaps > 0 {
		usual = max(1, (pauses+gaps-1)/gaps)
	}
	since := int64(ChurnDays - last)
	const recency, frequency, trend, refusals, failures = 40, 25, 20, 10, 5
	s := &Score{}
	add := func(name string, points int64, most int, value, usual int64) {
		f := Factor{Name: name, Points: int(min(max(0, points), int64(most))), Max: most, Value: value, Usual: usual}
		s.Points, s.Factors = s.Points+f.Points, append(s.Factors, f)
	}
	// Nothing up to twice the usual pause, all of it from six times on.
	add("recency", recency*(since-2*usual)/(4*usual), recency, since, usual)
	days := (active[0] + active[1] + 1) / 2
	add("frequency", lost(active[2], days, frequency), frequency, active[2], days)
	before := credits[0].Add(credits[1]) / 2
	add("trend", lost(int64(credits[2]), int64(before), trend), trend, int64(credits[2]), int64(before))
	add("refusals", 2*c.Refusals, refusals, c.Refusals, 0)
	failed := int64(0)
	if c.Ended > 0 {
		failed = failures * c.Failed / c.Ended
	}
	add("failures", failed, failures, c.Failed, c.Ended)
	return s
}

// lost is the part of most that is missing of what was usual; a quarter less is no loss.
func lost(value, usual, most int64) int64 {
	if usual <= 0 {
		return 0
	}
	share := quota.Credits(usual).Sub(quota.Credits(value)).Sub(quota.Credits(usual / 4))
	return int64(times(share, int(most), 1)) / max(1, usual-usual/4)
}
