// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"encoding/csv"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// zones have every kind of offset and transition that exists: of an hour, half an hour and a whole day, at midnight, in
// both hemispheres, negative daylight saving, and none.
var zones = []string{
	"UTC", "Asia/Hong_Kong", "America/New_York", "America/Los_Angeles", "America/Sao_Paulo", "America/Havana",
	"America/St_Johns",
	"Europe/London", "Europe/Dublin", "Europe/Berlin", "Europe/Moscow", "Asia/Kolkata", "Asia/Kathmandu", "Asia/Tehran",
	"Asia/Beirut",
	"Australia/Sydney", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Kwajalein", "Pacific/Chatham",
	"Africa/Casablanca",
}

func TestBoundariesAsPostgreSQL(t *testing.T) {
	f, err := os.Open("testdata/postgres_periods.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) < 300 {
		t.Fatalf("only %d rows", len(rows))
	}
	for _, row := range rows {
		months, err := strconv.Atoi(row[2])
		if err != nil {
			t.Fatal(err)
		}
		if months == 0 {
			continue // the anchor itself is an instant, not a local time
		}
		c := Calendar{Anchor: at(t, row[1]), Zone: zone(t, row[0])}
		if got, want := c.boundary(months), at(t, row[3]); !got.Equal(want) {
			t.Errorf("%s in %s and %d months: %s, PostgreSQL says %s", row[1], row[0], months,
				got.Format(time.RFC3339), row[3])
		}
	}
}

func TestPeriodAt(t *testing.T) {
	tests := map[string]struct {
		anchor, zone, now string
		calendarMonth     bool
		start, end        string
	}{
		"the first": {anchor: "2026-11-23T10:00:00Z", now: "2026-11-23T10:00:00Z",
			start: "2026-11-23T10:00:00Z", end: "2026-12-23T10:00:00Z"},
		"the end belongs to the next": {anchor: "2026-11-23T10:00:00Z", now: "2026-12-23T10:00:00Z",
			start: "2026-12-23T10:00:00Z", end: "2027-01-23T10:00:00Z"},
		"before the anchor": {anchor: "2026-11-23T10:00:00Z", now: "2026-11-23T09:59:59Z",
			start: "2026-10-23T10:00:00Z", end: "2026-11-23T10:00:00Z"},
		"clamped": {anchor: "2026-01-31T00:00:00Z", now: "2026-02-28T00:00:00Z",
			start: "2026-02-28T00:00:00Z", end: "2026-03-31T00:00:00Z"},
		"the day before the clamped one": {anchor: "2026-01-31T00:00:00Z", now: "2026-02-27T23:59:59Z",
			start: "2026-01-31T00:00:00Z", end: "2026-02-28T00:00:00Z"},
		"calendar month": {anchor: "2026-11-23T10:00:00Z", now: "2026-11-23T10:00:00Z",
			calendarMonth: true, start: "2026-11-01T00:00:00Z", end: "2026-12-01T00:00:00Z"},
		"calendar month in the user's zone": {anchor: "2026-11-23T10:00:00Z", zone: "Asia/Hong_Kong",
			now: "2026-11-30T16:00:00Z", calendarMonth: true, start: "2026-11-30T16:00:00Z",
			end: "2026-12-31T16:00:00Z"},
		"anchor in the first of two hours": {anchor: "2026-11-01T05:30:00Z", zone: "America/New_York",
			now: "2026-11-01T05:30:00Z", start: "2026-11-01T05:30:00Z", end: "2026-12-01T06:30:00Z"},
		"calendar month without its midnight": {anchor: "2020-01-01T00:00:00Z", zone: "America/Asuncion",
			now: "2017-10-05T00:00:00Z", calendarMonth: true, start: "2017-10-01T04:00:00Z",
			end: "2017-11-01T03:00:00Z"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c := Calendar{Anchor: at(t, tc.anchor), CalendarMonth: tc.calendarMonth}
			if tc.zone != "" {
				c.Zone = zone(t, tc.zone)
			}
			got := c.At(at(t, tc.now))
			if !got.Start.Equal(at(t, tc.start)) || !got.End.Equal(at(t, tc.end)) {
				t.Errorf("At(%s) = [%s, %s), want [%s, %s)", tc.now, got.Start.Format(time.RFC3339),
					got.End.Format(time.RFC3339), tc.start, tc.end)
			}
			if got.Start.Location() != time.UTC || got.End.Location() != time.UTC {
				t.Errorf("boundaries in %s and %s, want UTC", got.Start.Location(), got.End.Location())
			}
		})
	}
}

func anyInstant() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0: // around the day that Samoa skipped
			return time.Date(2011, time.December, 30, 10, 0, 0, 0,
				time.UTC).Add(time.Duration(rapid.Int64Range(-72*3600, 72*3600).Draw(t, "s")) * time.Second)
		case 1: // at the end of a month, on the half hour
			y, m := rapid.IntRange(1950, 2150).Draw(t, "year"), time.Month(rapid.IntRange(1, 12).Draw(t, "month"))
			return time.Date(y, m, rapid.IntRange(28, 32).Draw(t, "day"), 0, 30*rapid.IntRange(0, 47).Draw(t, "half"),
				0, 0, time.UTC)
		default:
			return time.Unix(rapid.Int64Range(-631152000, 5680281600).Draw(t, "s"),
				1000*rapid.Int64Range(0, 999_999).Draw(t, "us")).UTC()
		}
	})
}

func anyCalendar(t *testing.T) *rapid.Generator[Calendar] {
	t.Helper()
	locations := make([]*time.Location, len(zones))
	for i, name := range zones {
		locations[i] = zone(t, name)
	}
	return rapid.Custom(func(t *rapid.T) Calendar {
		return Calendar{
			Anchor:        anyInstant().Draw(t, "anchor"),
			Zone:          rapid.SampledFrom(locations).Draw(t, "zone"),
			CalendarMonth: rapid.Bool().Draw(t, "calendarMonth"),
		}
	})
}

func TestPeriodsTile(t *testing.T) {
	calendars := anyCalendar(t)
	rapid.Check(t, func(t *rapid.T) {
		c, now := calendars.Draw(t, "calendar"), anyInstant().Draw(t, "now")
		p := c.At(now)
		if !p.Contains(now) {
			t.Fatalf("At(%s) = %v does not contain it", now, p)
		}
		// The longest are months of 31 days that lose a day or regain an hour, the shortest Februaries cut by daylight
		// saving; where a zone skipped a day, a month is a day shorter on the clock.
		if d := p.End.Sub(p.Start); d < 27*24*time.Hour-2*time.Hour || d > 32*24*time.Hour+2*time.Hour {
			t.Fatalf("At(%s) = %v lasts %s", now, p, d)
		}
		for _, same := range []time.Time{p.Start, p.End.Add(-1), now} {
			if got := c.At(same); got != p {
				t.Fatalf("At(%s) = %v, but %s lies in %v", now, p, same, got)
			}
		}
		if next := c.At(p.End); !next.Start.Equal(p.End) {
			t.Fatalf("after %v comes %v", p, next)
		}
		if before := c.At(p.Start.Add(-1)); !before.End.Equal(p.Start) {
			t.Fatalf("before %v comes %v", p, before)
		}
	})
}

func TestPeriodsAreMonotonic(t *testing.T) {
	calendars := anyCalendar(t)
	rapid.Check(t, func(t *rapid.T) {
		c, x, y := calendars.Draw(t, "calendar"), anyInstant().Draw(t, "x"), anyInstant().Draw(t, "y")
		if y.Before(x) {
			x, y = y, x
		}
		if p, q := c.At(x), c.At(y); q.Start.Before(p.Start) || q.End.Before(p.End) {
			t.Fatalf("%s lies in %v, the later %s in %v", x, p, y, q)
		}
	})
}

// Two hundred years of periods, one after the other: none starts on another day than the anchor's, clamped.
func TestPeriodsDoNotDrift(t *testing.T) {
	calendars := anyCalendar(t)
	rapid.Check(t, func(t *rapid.T) {
		c := calendars.Draw(t, "calendar")
		anchor := c.Anchor.In(c.Zone)
		p := c.At(c.Anchor)
		for range 200 * 12 {
			p = c.At(p.End)
			local := p.Start.In(c.Zone)
			day, h, m, s := min(anchor.Day(), daysIn(local.Year(), local.Month())), anchor.Hour(), anchor.Minute(),
				anchor.Second()
			if c.CalendarMonth {
				day, h, m, s = 1, 0, 0, 0
			}
			want := time.Date(local.Year(), local.Month(), day, h, m, s, local.Nanosecond(), time.UTC)
			got := time.Date(local.Year(), local.Month(), local.Day(), local.Hour(), local.Minute(), local.Second(),
				local.Nanosecond(), time.UTC)
			if got.Equal(want) {
				continue
			}
			// Another local time than the anchor's is right only where that is skipped, and then by the length of the
			// gap.
			gap := got.Sub(want)
			if _, exists := wallClock(want, c.Zone); exists || gap <= 0 || gap > 24*time.Hour {
				t.Fatalf("a period of %s starts on %s, want %s", c.Anchor, local, want)
			}
		}
	})
}

// wallClock returns the last instant at which a clock in zone shows what wall shows in UTC, found by trying every
// offset that the zone has around it.
func wallClock(wall time.Time, zone *time.Location) (last time.Time, exists bool) {
	var offsets []int
	for d := -48 * time.Hour; d <= 48*time.Hour; d += 30 * time.Minute {
		if _, offset := wall.Add(d).In(zone).Zone(); !slices.Contains(offsets, offset) {
			offsets = append(offsets, offset)
		}
	}
	for _, offset := range offsets {
		instant := wall.Add(-time.Duration(offset) * time.Second)
		if _, really := instant.In(zone).Zone(); really == offset && (!exists || instant.After(last)) {
			last, exists = instant, true
		}
	}
	return last, exists
}

func TestLocalInstant(t *testing.T) {
	calendars := anyCalendar(t)
	rapid.Check(t, func(t *rapid.T) {
		zone, wall := calendars.Draw(t, "calendar").Zone, anyInstant().Draw(t, "wall")
		if rapid.Bool().Draw(t, "transition") { // look for one nearby
			_, from := wall.In(zone).Zone()
			for range 400 {
				wall = wall.Add(12 * time.Hour)
				if _, to := wall.In(zone).Zone(); to != from {
					wall = wall.Add(time.Duration(from+rapid.IntRange(-30*3600, 30*3600).Draw(t, "off")) * time.Second)
					break
				}
			}
		}
		y, m, d := wall.Date()
		got := localInstant(y, m, d, wall.Sub(time.Date(y, m, d, 0, 0, 0, 0, time.UTC)), zone)
		if want, exists := wallClock(wall, zone); exists {
			if !got.Equal(want) {
				t.Fatalf("%s in %s is %s, want %s", wall, zone, got, want)
			}
			return
		}
		// Skipped: it comes out as much later on the clock as the gap is long, so it lies beyond the gap.
		_, before := got.Add(-25 * time.Hour).In(zone).Zone()
		_, after := got.In(zone).Zone()
		if gap := time.Duration(after-before) * time.Second; gap <= 0 ||
			!got.Equal(wall.Add(-time.Duration(before)*time.Second)) {
			t.Fatalf("%s in %s is skipped and comes out as %s", wall, zone, got.In(zone))
		}
	})
}
