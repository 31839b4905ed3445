// SPDX-License-Identifier: Apache-2.0

package quota

import "time"

// Over returns the chain of a team, for telling where it stands and what bounds all below it: nothing is decided or
// booked on it. The nearest that has a plan pays for what is below, the team itself before those above it.
func Over(team *Account, above Ancestors) Chain {
	c := Under(team, above)
	if team.Plan.Sells() {
		c.payer = 0
	}
	return c
}

// Strictest is the strictest of one limit along a chain.
type Strictest struct {
	Limit LimitName
	// Unit tells what Value counts, as in a Bound, and Currency is that of an amount of money.
	Unit     Unit
	Currency string
	Value    int64
	// Level sets it; of several that set the same, the nearest.
	Level Level
}

// set is a limit with the level that sets it, if there is one.
type set[T ~int32 | ~int64] struct {
	Limit[T]

	level Level
}

func (s *set[T]) and(l Limit[T], level Level) {
	if !l.Unlimited && (s.Unlimited || l.Max < s.Max) {
		s.Limit, s.level = l, level
	}
}

func (s *set[T]) effective(list []Strictest, name LimitName, unit Unit, value func(T) int64) []Strictest {
	if s.Unlimited {
		return list
	}
	return append(list, Strictest{Limit: name, Unit: unit, Value: value(s.Max), Level: s.level})
}

// bounds are the strictest limits along a chain.
type bounds struct {
	credits            set[Credits]
	fileSize           set[int64]
	audio              set[time.Duration]
	concurrent, queued set[int32]
	// dailyCost has one for each currency that somebody bounds, in the order in which they come along the chain.
	dailyCost []Strictest
}

func (c Chain) bounds() bounds {
	b := bounds{
		credits: set[Credits]{Limit: noLimit[Credits]()}, fileSize: set[int64]{Limit: noLimit[int64]()},
		audio:      set[time.Duration]{Limit: noLimit[time.Duration]()},
		concurrent: set[int32]{Limit: noLimit[int32]()}, queued: set[int32]{Limit: noLimit[int32]()},
	}
	payer := c.Payer()
	b.fileSize.and(perJob(c, payer.Limits().FileSize, c.User().Overrides.FileSize))
	b.audio.and(perJob(c, payer.Limits().Audio, c.User().Overrides.Audio))
	for i := range c.n {
		a, caps := c.nodes[i], c.caps(i)
		level := a.Level()
		if i == c.payer {
			b.credits.and(a.Limits().Credits, level)
			b.ceiling(Ceiling{Limit: a.Plan.DailyCostCeiling, Currency: a.Plan.Currency}, level)
		}
		if caps.Credits != nil {
			b.credits.and(*caps.Credits, level)
		}
		b.concurrent.and(c.concurrent(i), level)
		b.queued.and(c.queued(i), level)
		if most := caps.DailyCost; most != nil && (!payer.Plan.Sells() || most.Currency == payer.Plan.Currency) {
			b.ceiling(*most, level)
		}
	}
	return b
}

func (b *bounds) ceiling(most Ceiling, level Level) {
	if most.Unlimited {
		return
	}
	e := Strictest{
		Limit: LimitDailyCost, Unit: UnitMoney, Currency: most.Currency, Value: int64(most.Max), Level: level,
	}
	for i := range b.dailyCost {
		if known := &b.dailyCost[i]; known.Currency == e.Currency {
			if e.Value < known.Value {
				*known = e
			}
			return
		}
	}
	b.dailyCost = append(b.dailyCost, e)
}

// Limits returns what binds new work of the user: of each limit the strictest along the chain. Those of a chain of one
// are the account's.
func (c Chain) Limits() Limits {
	b := c.bounds()
	return Limits{
		Credits: b.credits.Limit, FileSize: b.fileSize.Limit, Audio: b.audio.Limit, Concurrent: b.concurrent.Limit,
		Queued: b.queued.Limit,
	}
}

// Strictest returns the same with the levels that set them, and what a day may cost. What nothing bounds is not there.
func (c Chain) Strictest() []Strictest {
	b := c.bounds()
	list := b.credits.effective(nil, LimitCredits, UnitCredits, func(v Credits) int64 { return int64(v) })
	list = b.fileSize.effective(list, LimitFileSize, UnitBytes, func(v int64) int64 { return v })
	list = b.audio.effective(list, LimitAudioDuration, UnitAudio, time.Duration.Milliseconds)
	list = b.concurrent.effective(list, LimitConcurrent, UnitJobs, func(v int32) int64 { return int64(v) })
	list = b.queued.effective(list, LimitQueued, UnitJobs, func(v int32) int64 { return int64(v) })
	return append(list, b.dailyCost...)
}

// Stands is where one account of a chain stands, with what bounds it there.
type Stands struct {
	Account *Account
	// Pays says that the account's lots pay for the user.
	Pays bool
	// Allowance are the credits of its open period in all, and Remaining what new work could still reserve there.
	Allowance, Remaining Limit[Credits]
	Concurrent, Queued   Limit[int32]
}

// Levels returns where each account of the chain stands at now, to which they must have been rolled. Nobody pays for a
// team without a plan that has none above it: each member does so itself.
func (c Chain) Levels(now time.Time) []Stands {
	out := make([]Stands, c.n)
	for i := range c.n {
		a := c.nodes[i]
		out[i] = Stands{
			Account: a, Pays: i == c.payer && a.Plan.Sells(), Allowance: c.Credits(i, now),
			Remaining: c.remaining(i, now), Concurrent: c.concurrent(i), Queued: c.queued(i),
		}
	}
	return out
}

// Scarcest returns the account that leaves the least credits for new work at now: what remains for the user changes by
// itself when its period ends. The payer's, where none bounds them.
func (c Chain) Scarcest(now time.Time) *Account {
	at, least := c.payer, noLimit[Credits]()
	for i := range c.n {
		if left := c.remaining(i, now); !left.Unlimited && (least.Unlimited || left.Max < least.Max) {
			at, least = i, left
		}
	}
	return c.nodes[at]
}

// At returns the account of the level, the user's where it is none of the chain's.
func (c Chain) At(level Level) *Account {
	for i := range c.n {
		if c.nodes[i].Level() == level {
			return c.nodes[i]
		}
	}
	return c.nodes[0]
}

// SlotLimit names the limit that work waits for which only slots keep back: the nearest one that is reached, and where
// none is the nearest that there is. ok is false if nothing bounds how much runs at once.
func (c Chain) SlotLimit() (level Level, limit int32, ok bool) {
	at := c.full()
	for i := 0; at < 0 && i < c.n; i++ {
		if !c.concurrent(i).Unlimited {
			at = i
		}
	}
	if at < 0 {
		return c.nodes[0].Level(), 0, false
	}
	return c.nodes[at].Level(), c.concurrent(at).Max, true
}

// Overdrawn returns by how many credits the account that is over its limit the most is, zero if none is.
func (c Chain) Overdrawn() Credits {
	var most Credits
	for i := range c.n {
		a := c.nodes[i]
		var over Credits
		if i == c.payer {
			over = a.Overdrawn()
		}
		if limit := c.caps(i).Credits; limit != nil && !limit.Unlimited {
			over = max(over, a.Used.Add(a.Reserved).Sub(limit.Max))
		}
		most = max(most, over)
	}
	return most
}
