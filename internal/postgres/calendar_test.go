// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"path"
	"regexp"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
)

const (
	calendarTriples = 100_000
	// The years that anchors and instants are of. Go and the server have rules for all of them.
	calendarFrom, calendarTo = 1950, 2150
)

// The periods of a hundred thousand random accounts, computed by quota and by one statement of PostgreSQL that knows
// nothing of how quota does it: of all local times that are a whole number of months from the anchor it takes the last
// before an instant and the first after it.
//
// Go and the server may have different releases of the IANA database, and a zone that changed its rules in between
// would be a difference of data, not of calculus. So Go is given the very files that the server computes with, read by
// the server.
func TestCalendarAsPostgreSQL(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.New(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	zones := serverZones(t, conn)
	seed := rand.Uint64()
	t.Logf("seed %d, %d zones", seed, len(zones))
	random := rand.New(rand.NewPCG(seed, 0))

	type triple struct {
		calendar quota.Calendar
		at       time.Time
	}
	triples := make([]triple, calendarTriples)
	rows := make([][]any, calendarTriples)
	for i := range triples {
		zone := zones[random.IntN(len(zones))]
		tr := triple{calendar: quota.Calendar{Anchor: anyTime(random), Zone: zone, CalendarMonth: i%5 == 0},
			at: anyTime(random)}
		if i%2 == 0 {
			tr.calendar.Anchor, tr.at = nearTransition(random, zone, tr.calendar.Anchor, tr.at)
		}
		triples[i] = tr
		rows[i] = []any{i, tr.calendar.Anchor, zone.String(), tr.at, tr.calendar.CalendarMonth}
	}
	if _, err := conn.Exec(t.Context(), `CREATE TABLE triples (id integer, anchor timestamptz, zone text, at
	    timestamptz, calendar_month boolean)`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.CopyFrom(t.Context(), pgx.Identifier{"triples"},
		[]string{"id", "anchor", "zone", "at", "calendar_month"}, pgx.CopyFromRows(rows)); err != nil {
		t.Fatal(err)
	}
	answers, err := conn.Query(t.Context(), `
		SELECT id, max(boundary) FILTER (WHERE boundary <= at), min(boundary) FILTER (WHERE boundary > at)
		FROM triples
		CROSS JOIN LATERAL (SELECT anchor AT TIME ZONE zone AS born, at AT TIME ZONE zone AS local) AS l
		CROSS JOIN LATERAL (SELECT (date_part('year', local) - date_part('year', born)) * 12
		    + date_part('month', local) - date_part('month', born) AS months) AS m
		CROSS JOIN LATERAL generate_series(months::integer - 2, months::integer + 2) AS n
		CROSS JOIN LATERAL (SELECT CASE
		    WHEN calendar_month THEN (date_trunc('month', born) + n * interval '1 month') AT TIME ZONE zone
		    WHEN n = 0 THEN anchor
		    ELSE (born + n * interval '1 month') AT TIME ZONE zone END AS boundary) AS b
		GROUP BY id`)
	if err != nil {
		t.Fatal(err)
	}
	seen, wrong := 0, 0
	var id int
	var start, end time.Time
	if _, err := pgx.ForEachRow(answers, []any{&id, &start, &end}, func() error {
		seen++
		tr := triples[id]
		if got := tr.calendar.At(tr.at); !got.Start.Equal(start) || !got.End.Equal(end) {
			if wrong++; wrong <= 10 {
				t.Errorf(
					"anchor %s, zone %s, calendar month %t, at %s: the period is [%s, %s), PostgreSQL says [%s, %s)",
					tr.calendar.Anchor.Format(time.RFC3339Nano), tr.calendar.Zone, tr.calendar.CalendarMonth,
					tr.at.Format(time.RFC3339Nano),
					got.Start.Format(time.RFC3339Nano), got.End.Format(time.RFC3339Nano),
					start.UTC().Format(time.RFC3339Nano), end.UTC().Format(time.RFC3339Nano))
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if seen != calendarTriples || wrong > 0 {
		t.Errorf("%d of %d periods differ", wrong, seen)
	}
}

// serverZones returns the zones that the server knows, from the files that it reads them from. A few old names are left
// out: CET, EET, MET and WET are zones with daylight saving in the IANA database, and to AT TIME ZONE abbreviations of
// an offset.
func serverZones(t *testing.T, conn *pgx.Conn) []*time.Location {
	t.Helper()
	var share, configure string
	if err := conn.QueryRow(t.Context(), `SELECT (SELECT setting FROM pg_config WHERE name = 'SHAREDIR'),
		(SELECT setting FROM pg_config WHERE name = 'CONFIGURE')`).Scan(&share, &configure); err != nil {
		t.Fatal(err)
	}
	folder := path.Join(share, "timezone")
	if system := regexp.MustCompile(`--with-system-tzdata=([^' ]+)`).FindStringSubmatch(configure); system != nil {
		folder = system[1]
	}
	rows, err := conn.Query(t.Context(), `SELECT name, pg_read_binary_file($1 || '/' || name) FROM pg_timezone_names
		WHERE name ~ '^[A-Z]' AND name !~ '^(posix|right)/' AND name <> 'Factory'
		  AND name NOT IN (SELECT abbrev FROM pg_timezone_abbrevs) ORDER BY name`, folder)
	if err != nil {
		t.Fatal(err)
	}
	var zones []*time.Location
	var name string
	var data []byte
	if _, err := pgx.ForEachRow(rows, []any{&name, &data}, func() error {
		zone, err := time.LoadLocationFromTZData(name, data)
		if err != nil {
			return fmt.Errorf("zone %s: %w", name, err)
		}
		zones = append(zones, zone)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(zones) < 300 {
		t.Fatalf("the server knows %d zones only", len(zones))
	}
	return zones
}

// anyTime returns an instant to the microsecond, often at the end of a month.
func anyTime(random *rand.Rand) time.Time {
	year, month := calendarFrom+random.IntN(calendarTo-calendarFrom), time.Month(1+random.IntN(12))
	day := 1 + random.IntN(31)
	if random.IntN(3) == 0 {
		day = 28 + random.IntN(4)
	}
	return time.Date(year, month, day, random.IntN(24), random.IntN(60), random.IntN(60),
		1000*random.IntN(1_000_000), time.UTC)
}

// nearTransition moves an anchor and an instant so that, some months after the anchor, a period starts about where the
// zone's offset changes, and the instant lies there. Where the zone has no transition near, they stay as they are.
func nearTransition(random *rand.Rand, zone *time.Location, anchor, at time.Time) (time.Time, time.Time) {
	offset := func(t time.Time) int {
		_, seconds := t.In(zone).Zone()
		return seconds
	}
	from := anchor
	to := from.AddDate(0, 6, 0)
	if offset(from) == offset(to) {
		return anchor, at
	}
	for to.Sub(from) > time.Second {
		if half := from.Add(to.Sub(from) / 2); offset(half) == offset(from) {
			from = half
		} else {
			to = half
		}
	}
	start := to.Add(time.Duration(random.IntN(4*3600)-2*3600) * time.Second).Truncate(time.Second).In(zone)
	y, m, d := start.Date()
	h, mi, s := start.Clock()
	anchor = time.Date(y, m-time.Month(1+random.IntN(36)), d, h, mi, s, 0, zone).UTC()
	return anchor, to.Add(time.Duration(random.IntN(6*3600)-3*3600) * time.Second).Truncate(time.Microsecond)
}
