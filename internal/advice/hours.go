// SPDX-License-Identifier: Apache-2.0

package advice

// WaitDays is over how many days it is looked at when work waits.
const WaitDays = 14

// Waits is how many admissions there were, and how many of them had waited for more than a minute.
type Waits struct{ Admissions, Waited int64 }

// Add adds others.
func (w *Waits) Add(o Waits) {
	w.Admissions += o.Admissions
	w.Waited += o.Waited
}

// DayWaits are those of a day by the hours of the user's clock: the user's own, and everybody's on the user's plan.
type DayWaits struct{ Own, All [24]Waits }

// BetterHour is the advice to have work done at another hour of the day.
type BetterHour struct {
	// Hour is when the user's work waits, and Better when work hardly does.
	Hour, Better int
	// Own is how the user's work at Hour had waited in the last WaitDays, Now everybody's at Hour, and Then at Better.
	Own, Now, Then Waits
}

// How many admissions it takes to say something about an hour, and how many for it to stay said.
const (
	enoughOwn           = 5
	enoughAll, stillAll = 30, 20
)

// look compares two hours: it enters where half or more of the user's work and of everybody's had waited at the one,
// and at most a tenth at the other; it leaves where that is less than three tenths, or more than a fifth.
func (b *BetterHour) look() signal {
	busy := func(w Waits) bool { return 2*w.Waited >= w.Admissions }
	calm := func(w Waits) bool { return 10*w.Waited < 3*w.Admissions }
	return between(
		b.Own.Admissions >= enoughOwn && b.Now.Admissions >= enoughAll && b.Then.Admissions >= enoughAll &&
			busy(b.Own) && busy(b.Now) && 10*b.Then.Waited <= b.Then.Admissions,
		b.Own.Admissions == 0 || b.Now.Admissions < stillAll || b.Then.Admissions < stillAll ||
			calm(b.Own) || calm(b.Now) || 5*b.Then.Waited > b.Then.Admissions)
}

// BetterHours says at which hours the user's work waits, and for each the nearest one at which work hardly does, the
// later one of two, given each of the WaitDays+Looks-1 days before today, the oldest first. It holds for two hours
// until it is clearly not so any more, by the last WaitDays as of today or of the latest of the six days before by
// which it is clear; so neither of them changes from day to day.
func BetterHours(days *[WaitDays + Looks - 1]DayWaits) (all []BetterHour) {
	// looks are the sums of each hour, the oldest first.
	var looks [Looks]DayWaits
	for i := range looks {
		for day := range days[i : i+WaitDays] {
			for hour := range 24 {
				looks[i].Own[hour].Add(days[i+day].Own[hour])
				looks[i].All[hour].Add(days[i+day].All[hour])
			}
		}
	}
	for hour := range 24 {
		for _, better := range nearest(hour) {
			var last BetterHour
			var signals []signal
			for i := range looks {
				l := &looks[i]
				last = BetterHour{Hour: hour, Better: better, Own: l.Own[hour], Now: l.All[hour], Then: l.All[better]}
				signals = append(signals, last.look())
			}
			if held(signals) {
				all = append(all, last)
				break
			}
		}
	}
	return all
}

// nearest are the other hours of the day, the nearest first, the later one of two.
func nearest(hour int) (others []int) {
	for apart := 1; apart <= 12; apart++ {
		others = append(others, (hour+apart)%24)
		if apart < 12 {
			others = append(others, (hour+24-apart)%24)
		}
	}
	return others
}
