// SPDX-License-Identifier: Apache-2.0

package rollupdb_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/rollup"
)

// largest are the minutes of the largest pieces of work of a user, as they are read.
func (w *world) largest(user, from, to string) []string {
	w.t.Helper()
	l, err := reports.New(w.ledger, w).Largest(w.t.Context(), user, w.span(from, to),
		reports.MaxLargest)
	return w.minutes(&l, err)
}

func (w *world) span(from, to string) (span reports.Span) {
	w.t.Helper()
	var err error
	if span.From, err = reports.ParseDay(from); err != nil {
		w.t.Fatal(err)
	}
	if span.To, err = reports.ParseDay(to); err != nil {
		w.t.Fatal(err)
	}
	return span
}

// minutes tells when each piece was and how many minutes it took; nothing of what is not known.
func (w *world) minutes(l *reports.Largest, err error) []string {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	if l.AsOf.IsZero() {
		return nil
	}
	all := []string{}
	for _, p := range l.Work {
		all = append(all, fmt.Sprintf("%s %s%d", p.At.Format("01-02 15:04"), p.UserID, p.Credits/quota.Credit))
	}
	return all
}

// The list is that of the days, by the user's calendar: late work, reversals and another zone change it.
func TestLargestWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.zoned("vienna", "Europe/Vienna")
	w.advance(25 * 24 * time.Hour)
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 3, day, hour, minute, 0, 0, time.UTC) }
	var hourly []*ledger.Event
	for i := range 14 {
		audio := time.Duration(5+i/2) * time.Minute
		hourly = append(hourly, w.mustRecord("vienna", fmt.Sprint("hour-", i), at(20, 10, i), audio))
	}
	// The days around the night in which 2:00 is followed by 3:00, and the last hour of the month.
	w.mustRecord("vienna", "before", at(28, 22, 59), 20*time.Minute)
	w.mustRecord("vienna", "short", at(28, 23, 0), 21*time.Minute)
	wrong := w.mustRecord("vienna", "after", at(29, 22, 0), 22*time.Minute)
	w.mustRecord("vienna", "april", at(31, 22, 0), 23*time.Minute)
	w.mustRecord("vienna", "march", at(31, 21, 59), 24*time.Minute)
	export := quota.Use{Type: "export", Quantity: 1, OccurredAt: at(5, 0, 0)}
	if _, err := w.record("vienna", "export", export); err != nil {
		t.Fatal(err)
	}
	if got := w.largest("vienna", "2026-03-01", "2026-04-01"); got != nil {
		t.Errorf("nothing is rolled up, got %v", got)
	}
	w.rollUp(rollup.Options{})
	want := []string{"03-31 21:59 24", "03-29 22:00 22", "03-28 23:00 21", "03-28 22:59 20",
		"03-20 10:12 11", "03-20 10:13 11", "03-20 10:10 10", "03-20 10:11 10", "03-20 10:08 9", "03-20 10:09 9"}
	compare := func(what string, from, to string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, w.largest("vienna", from, to)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", what, diff)
		}
	}
	compare("March", "2026-03-01", "2026-04-01", want...)
	compare("the short day", "2026-03-29", "2026-03-30", "03-28 23:00 21")
	compare("April", "2026-04-01", "2026-05-01", "03-31 22:00 23")
	// Of the hour with 14 ten are kept. Two of them go, so the next ones of the events come.
	hour := []string{"03-20 10:12 11", "03-20 10:13 11", "03-20 10:10 10", "03-20 10:11 10", "03-20 10:08 9",
		"03-20 10:09 9", "03-20 10:06 8", "03-20 10:07 8", "03-20 10:04 7", "03-20 10:05 7"}
	compare("an hour", "2026-03-20", "2026-03-21", hour...)
	for _, e := range []*ledger.Event{hourly[12], hourly[4], wrong} {
		if err := w.reverse(e); err != nil {
			t.Fatal(err)
		}
	}
	w.mustRecord("vienna", "late", at(20, 10, 30), 10*time.Minute)
	if res := w.rollUp(rollup.Options{}); res.Days != 2 {
		t.Errorf("want two days made anew, got %+v", res)
	}
	hour = []string{"03-20 10:13 11", "03-20 10:10 10", "03-20 10:11 10", "03-20 10:30 10", "03-20 10:08 9",
		"03-20 10:09 9", "03-20 10:06 8", "03-20 10:07 8", "03-20 10:05 7", "03-20 10:02 6"}
	compare("the hour, corrected", "2026-03-20", "2026-03-21", hour...)
	compare("the end of March, corrected", "2026-03-28", "2026-04-01", "03-31 21:59 24", "03-28 23:00 21",
		"03-28 22:59 20")
	// By the days of another zone the last hour of March was one of April.
	w.zoned("vienna", "Asia/Hong_Kong")
	w.rollUp(rollup.Options{})
	compare("the end of March, elsewhere", "2026-03-28", "2026-04-01", "03-28 23:00 21", "03-28 22:59 20")
	compare("April, elsewhere", "2026-04-01", "2026-05-01", "03-31 21:59 24", "03-31 22:00 23")
}

// What a team paid for is listed by days of UTC, also of members whose own days are others, and of those who left.
func TestLargestWorkOfATeam(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.newsroom()
	largest := func(from, to string) []string {
		t.Helper()
		l, err := reports.New(w.ledger, w).TeamLargest(t.Context(), "newsroom", w.span(from, to), 3)
		return w.minutes(&l, err)
	}
	if got := largest("2026-03-01", "2026-04-01"); got != nil {
		t.Errorf("nothing is rolled up, got %v", got)
	}
	for n, zone := range []string{"Pacific/Chatham", "Asia/Kolkata"} {
		user := []string{"ada", "bo"}[n]
		w.zoned(user, zone)
		w.mustRecord(user, user+"-own", w.now(), time.Hour)
		if err := w.AddMember(t.Context(), "newsroom", user, metering.By{Actor: "test"}); err != nil {
			t.Fatal(err)
		}
		for i := range 12 {
			w.mustRecord(user, fmt.Sprintf("%s-%d", user, i), w.now().Add(time.Duration(i-20)*time.Hour),
				time.Duration(2*i+n+1)*time.Minute)
		}
	}
	if err := w.RemoveMember(t.Context(), "newsroom", "bo", metering.By{Actor: "test"}); err != nil {
		t.Fatal(err)
	}
	w.rollUp(rollup.Options{})
	for span, want := range map[[2]string][]string{
		{"2026-03-01", "2026-04-01"}: {"03-10 03:00 bo24", "03-10 03:00 ada23", "03-10 02:00 bo22"},
		{"2026-03-09", "2026-03-10"}: {"03-09 23:00 bo16", "03-09 23:00 ada15", "03-09 22:00 bo14"},
		{"2026-03-11", "2026-03-12"}: {},
	} {
		if diff := cmp.Diff(want, largest(span[0], span[1])); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", span, diff)
		}
	}
}

// What the release before has rolled up has no lists. They are said not to be known, the check finds nothing wrong with
// that, and the next rollup makes them.
func TestMigrationHasListsMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustRecord("alice", "a", w.now(), time.Minute)
	w.rollUp(rollup.Options{})
	const rows = "SELECT * FROM " + allRows
	want := w.rows(rows)
	for _, sql := range []string{
		"DROP TABLE usage_payer_largest", "ALTER TABLE usage_rollups_complete DROP COLUMN listed",
		"ALTER TABLE usage_rollups DROP COLUMN listed_seq", "ALTER TABLE usage_analytics DROP COLUMN largest",
	} {
		if _, err := w.ledger.Pool().Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the type is there the first time, and all of it the second time
		_, err := w.ledger.Pool().Exec(t.Context(), "DELETE FROM goose_db_version WHERE version_id >= 32")
		if err == nil {
			err = postgres.Migrate(t.Context(), w.dsn)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := w.largest("alice", "2026-03-01", "2026-04-01"); got != nil {
		t.Errorf("nothing is listed, got %v", got)
	}
	if res := w.rollUp(rollup.Options{}); res.Accounts != 1 {
		t.Errorf("want alice rolled up, got %+v", res)
	}
	if diff := cmp.Diff(want, w.rows(rows)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"03-10 12:00 1"}, w.largest("alice", "2026-03-01", "2026-04-01")); diff != "" {
		t.Error(diff)
	}
	if res := w.rollUp(rollup.Options{}); res.Accounts != 0 {
		t.Errorf("nothing has changed, rolled up: %+v", res)
	}
}
