// SPDX-License-Identifier: Apache-2.0

package quota

import "time"

// Calendar lays the billing periods of an account: month n starts at the anchor plus n months in the account's zone,
// with the day clamped to the month's length. Every boundary is computed from the anchor, never from the previous
// boundary, so an account created on January 31 has periods starting on Jan 31, Feb 28, Mar 31.
//
// A local time that daylight saving skips is moved forward by the gap; one that it repeats means its second occurrence.
// These are the answers that PostgreSQL's AT TIME ZONE gives, so SQL consumers compute the same boundaries.
type Calendar struct {
	// Anchor is the instant at which period 0 starts. For a calendar-month plan only its zone's month matters.
	Anchor time.Time
	// Zone is the account's time zone; nil means UTC.
	Zone *time.Location
	// CalendarMonth makes periods start at midnight of each month's first day instead of on the anniversary.
	CalendarMonth bool
}

// Period is a half-open span [Start, End) of an account's time.
type Period struct {
	Start, End time.Time
}

// Contains reports whether t lies in the period.
func (p Period) Contains(t time.Time) bool { return !t.Before(p.Start) && t.Before(p.End) }

// At returns the period of the calendar that contains t. Periods before the anchor exist too: they tile all of time.
func (c Calendar) At(t time.Time) Period {
	local, anchor := t.In(c.zone()), c.Anchor.In(c.zone())
	n := (local.Year()-anchor.Year())*12 + int(local.Month()) - int(anchor.Month())
	for c.boundary(n).After(t) {
		n--
	}
	for !c.boundary(n + 1).After(t) {
		n++
	}
	return Period{Start: c.boundary(n), End: c.boundary(n + 1)}
}

// boundary returns the instant at which month n after the anchor begins, in UTC.
func (c Calendar) boundary(n int) time.Time {
	zone := c.zone()
	a := c.Anchor.In(zone)
	first := time.Date(a.Year(), a.Month()+time.Month(n), 1, 0, 0, 0, 0, time.UTC)
	year, month := first.Year(), first.Month()
	if c.CalendarMonth {
		return localInstant(year, month, 1, 0, zone)
	}
	if n == 0 {
		// Not recomputed from its wall clock: an anchor in the first pass of a repeated hour would move by an hour.
		return c.Anchor.UTC()
	}
	day := min(a.Day(), daysIn(year, month))
	clock := time.Duration(a.Hour())*time.Hour + time.Duration(a.Minute())*time.Minute +
		time.Duration(a.Second())*time.Second + time.Duration(a.Nanosecond())
	return localInstant(year, month, day, clock, zone)
}

func (c Calendar) zone() *time.Location {
	if c.Zone == nil {
		return time.UTC
	}
	return c.Zone
}

// localInstant resolves a wall-clock time in zone: a skipped one with the offset before the gap (which moves it
// forward), a repeated one to its second occurrence.
func localInstant(year int, month time.Month, day int, clock time.Duration, zone *time.Location) time.Time {
	wall := time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Add(clock)
	offset := func(t time.Time) time.Duration {
		_, seconds := t.In(zone).Zone()
		return time.Duration(seconds) * time.Second
	}
	// Two days around the wall time cover every transition near it, also those that skip a whole day (Apia 2011).
	before, after := offset(wall.Add(-36*time.Hour)), offset(wall.Add(36*time.Hour))
	if late := wall.Add(-after); offset(late) == after {
		return late
	}
	return wall.Add(-before)
}

func daysIn(year int, month time.Month) int {
	return time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
}
