// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Limit is an upper bound, or the explicit absence of one. The zero value forbids everything.
type Limit[T ~int32 | ~int64] struct {
	Max       T
	Unlimited bool
}

// AtMost returns a limit of n.
func AtMost[T ~int32 | ~int64](n T) Limit[T] { return Limit[T]{Max: n} }

// Allows reports whether n is within the limit.
func (l Limit[T]) Allows(n T) bool { return l.Unlimited || n <= l.Max }

// unlimitedText stands for a limit that is none in JSON; any other is its number.
const unlimitedText = `"unlimited"`

// MarshalJSON returns the number, or "unlimited".
func (l Limit[T]) MarshalJSON() ([]byte, error) {
	if l.Unlimited {
		return []byte(unlimitedText), nil
	}
	return strconv.AppendInt(nil, int64(l.Max), 10), nil
}

// UnmarshalJSON is MarshalJSON's inverse.
func (l *Limit[T]) UnmarshalJSON(data []byte) error {
	if string(data) == unlimitedText {
		*l = Limit[T]{Unlimited: true}
		return nil
	}
	var most T
	if err := json.Unmarshal(data, &most); err != nil {
		return fmt.Errorf("a limit is a whole number or %s: %w", unlimitedText, err)
	}
	*l = AtMost(most)
	return nil
}

// Limits are what one user may use.
type Limits struct {
	// Credits per period.
	Credits Limit[Credits]
	// FileSize of one job's input, in bytes.
	FileSize Limit[int64]
	// Audio is the longest audio of one job.
	Audio Limit[time.Duration]
	// Concurrent jobs that run at once, over all periods.
	Concurrent Limit[int32]
	// Queued jobs that may wait for a slot.
	Queued Limit[int32]
}

// Overrides replace single limits of a plan for one user; nil keeps the plan's.
type Overrides struct {
	Credits    *Limit[Credits]
	FileSize   *Limit[int64]
	Audio      *Limit[time.Duration]
	Concurrent *Limit[int32]
	Queued     *Limit[int32]
}

// Equal reports whether both replace the same limits by the same.
func (o Overrides) Equal(p Overrides) bool {
	return same(o.Credits, p.Credits) && same(o.FileSize, p.FileSize) && same(o.Audio, p.Audio) &&
		same(o.Concurrent, p.Concurrent) && same(o.Queued, p.Queued)
}

// same reports whether two optional values are both absent, or both there and equal.
func same[T comparable](x, y *T) bool {
	if x == nil || y == nil {
		return x == y
	}
	return *x == *y
}

// Apply returns the limits that bind a user: the override where there is one, else the plan's.
func (o Overrides) Apply(l Limits) Limits {
	override(&l.Credits, o.Credits)
	override(&l.FileSize, o.FileSize)
	override(&l.Audio, o.Audio)
	override(&l.Concurrent, o.Concurrent)
	override(&l.Queued, o.Queued)
	return l
}

func override[T ~int32 | ~int64](limit *Limit[T], with *Limit[T]) {
	if with != nil {
		*limit = *with
	}
}

// Terms are what a plan decides about a period when it ends.
type Terms struct {
	Version       int64
	Credits       Limit[Credits]
	CarryOverMax  Credits
	FinalAfter    time.Duration
	CalendarMonth bool
	OveragePrice  Money
	Currency      string
}

// PastTerms are those that held until an instant.
type PastTerms struct {
	Terms

	Until time.Time
}

// TermsAt returns the terms that held, or hold, at an instant: those of the first version before it was made.
func (p *Plan) TermsAt(t time.Time) Terms {
	for _, past := range p.Past {
		if t.Before(past.Until) {
			return past.Terms
		}
	}
	return Terms{
		Version: p.Version, Credits: p.Limits.Credits, CarryOverMax: p.CarryOverMax, FinalAfter: p.FinalAfter,
		CalendarMonth: p.CalendarMonth, OveragePrice: p.OveragePrice, Currency: p.Currency,
	}
}

// Plan is what is sold, as far as decisions depend on it.
type Plan struct {
	Name        string
	DisplayName string
	// Version counts the changes of the plan; each event records the version that it was charged under.
	Version int64
	// Past are the terms of the versions before, in the order of time.
	Past []PastTerms
	// Rank orders plans for upgrades: a higher one allows more.
	Rank    int32
	Default bool
	// Retired plans keep serving their users but are never offered.
	Retired       bool
	Features      []string
	CalendarMonth bool
	// FinalAfter is how long after its end a period takes late charges; zero means quota.FinalAfter.
	FinalAfter time.Duration
	Limits     Limits
	// MaxWait is how long work may wait, for a slot or parked; zero means that there is no bound.
	MaxWait time.Duration
	// Weight is a user's share, 1 to MaxWeight, in what it and others below the same parent wait for; zero means 1.
	Weight int32
	// OverageMax is how far the plan's credits may be exceeded in a period; zero blocks.
	OverageMax Credits
	// OveragePrice is charged per credit beyond the plan's.
	OveragePrice Money
	// CarryOverMax caps the unused plan credits that the next period keeps.
	CarryOverMax Credits
	// ProviderCost is what a credit (a minute of audio) costs us.
	ProviderCost Money
	// Currency (ISO 4217) of all money in the plan, and PeriodPrice what one period of it costs the user.
	Currency    string
	PeriodPrice Money
	// DailyCostCeiling bounds the provider cost, reserved plus settled, of one user and UTC day.
	DailyCostCeiling Limit[Money]
	// RateRequests per RateWindow are allowed to one user's API calls.
	RateRequests int32
	RateWindow   time.Duration
	// UsageTypes are the prices of the types of use that the plan names; see Plan.UsageRate.
	UsageTypes map[string]Rate
	// AlertThresholds are percentages of the credit limit, ascending.
	AlertThresholds []int32
	// AdmitWhenUnavailable lets work start while the database cannot be reached.
	AdmitWhenUnavailable bool
}
