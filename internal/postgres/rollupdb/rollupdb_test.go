// SPDX-License-Identifier: Apache-2.0

package rollupdb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/rollupdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/rollup"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// world is a ledger on a clock that the test moves. When the test ends, what is not rolled up yet is, and all is held
// against the invariants.
type world struct {
	*metering.Service
	t      *testing.T
	dsn    string
	ledger *ledgerdb.Store
	store  *rollupdb.Store

	mu    sync.Mutex
	clock time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dsn: ledgertest.New(t), clock: time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)}
	w.ledger = w.open(t)
	w.store = rollupdb.New(w.ledger.Store)
	w.Service = metering.New(ledger.New(w.ledger, ledger.Options{}), w.ledger, access.NewSigner(w.ledger),
		metering.Options{AutoRegister: true})
	plan := plans.Free(func(p *metering.Plan) {
		p.Limits.Credits, p.Limits.Concurrent = quota.AtMost(20*quota.Credit), quota.AtMost[int32](3)
		p.OverageMax, p.OveragePrice, p.CarryOverMax = 1000*quota.Credit, 20_000, 5*quota.Credit
		p.UsageTypes = map[string]quota.Rate{"export": 250_000}
		p.DailyCostCeiling.Unlimited = true
	})
	if _, err := w.ApplyPlan(t.Context(), plan, "test"); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) open(t *testing.T) *ledgerdb.Store {
	t.Helper()
	store, err := ledgerdb.Open(t.Context(), w.dsn, postgres.Options{AllowUnsafe: true, Now: w.now, Name: "rollup"})
	if err != nil {
		t.Fatal(err)
	}
	ledgertest.Close(t, store)
	return store
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(d)
}

func (w *world) rollUp(o rollup.Options) rollup.Result {
	w.t.Helper()
	o.FullSpeed = true
	res, err := rollup.Run(w.t.Context(), w.store, o)
	if err != nil {
		w.t.Fatalf("roll up: %v", err)
	}
	return res
}

// zoned gives a user days of a zone, and a grant.
func (w *world) zoned(user, zone string) {
	w.t.Helper()
	q := metering.Quota{
		ObjectUID: quota.NameID("test", quota.ID{}, user), ObjectName: user, UserID: user, PlanName: "free",
		Anchor: time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC), Zone: zone,
		Grants: map[string]metering.Grant{"gift": {Credits: 3 * quota.Credit}},
	}
	if err := w.ApplyQuota(w.t.Context(), q, "test"); err != nil {
		w.t.Fatal(err)
	}
}

// newsroom makes a team that pays for its members.
func (w *world) newsroom() {
	w.t.Helper()
	if _, err := w.ApplyTeam(w.t.Context(), metering.Team{
		Team: quota.Team{Name: "newsroom"}, PlanName: "free", Zone: "UTC",
	}, "test"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) record(user, key string, use quota.Use) (*ledger.Event, error) {
	res, err := w.Record(w.t.Context(), metering.RecordRequest{
		UserID: user, Key: key, BodyHash: []byte(key), Use: use, FileSize: 1000, Tokens: 10, RecordedBy: "test",
	})
	return res.Event, err
}

func (w *world) mustRecord(user, key string, at time.Time, audio time.Duration) *ledger.Event {
	w.t.Helper()
	e, err := w.record(user, key, quota.Use{Type: quota.UsageTranscription, Audio: audio, OccurredAt: at})
	if err != nil {
		w.t.Fatalf("record: %v", err)
	}
	return e
}

func (w *world) reverse(e *ledger.Event) error {
	_, err := w.Reverse(w.t.Context(), metering.ReverseRequest{
		Account: e.Account, Event: e.ID, Key: "reverse-" + e.ID.String(), BodyHash: []byte{1}, Reason: "test",
		Actor: "test",
	})
	return err
}

// rows are all that is rolled up, as text and in order.
func (w *world) rows(sql string) []string {
	w.t.Helper()
	rows, err := w.ledger.Pool().Query(w.t.Context(), "SELECT t::text FROM ("+sql+") AS t ORDER BY 1")
	if err != nil {
		w.t.Fatal(err)
	}
	var all []string
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, row)
	}
	if err := rows.Err(); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// A day is the user's own, an hour lies within one of both clocks, and what comes later corrects the day that it
// belongs to.
func TestDays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.zoned("kolkata", "Asia/Kolkata")
	w.zoned("vienna", "Europe/Vienna")
	at := func(month time.Month, day, hour, minute int) time.Time {
		return time.Date(2026, month, day, hour, minute, 0, 0, time.UTC)
	}
	w.mustRecord("kolkata", "a", at(3, 9, 18, 10), time.Minute) // 23:40 there
	w.mustRecord("kolkata", "b", at(3, 9, 18, 20), time.Minute) // 23:50
	w.mustRecord("kolkata", "c", at(3, 9, 18, 40), time.Minute) // 0:10 on the next day
	w.mustRecord("kolkata", "d", at(3, 9, 19, 10), time.Minute) // 0:40
	w.mustRecord("kolkata", "e", at(3, 9, 23, 59), time.Minute) // 5:29
	w.mustRecord("kolkata", "f", at(3, 10, 0, 0), time.Minute)  // 5:30
	w.advance(20 * 24 * time.Hour)
	// The night in which 2:00 is followed by 3:00.
	w.mustRecord("vienna", "g", at(3, 28, 22, 59), time.Minute) // 23:59
	w.mustRecord("vienna", "h", at(3, 28, 23, 0), time.Minute)  // 0:00
	wrong := w.mustRecord("vienna", "i", at(3, 29, 21, 59), time.Minute)
	w.mustRecord("vienna", "j", at(3, 29, 22, 0), time.Minute) // 0:00 on the day after, that of 23 hours being over
	w.rollUp(rollup.Options{})
	const all = `SELECT u.user_id, day, at AT TIME ZONE 'UTC' AS at, events, reversals, credits, audio_ms
		FROM usage_analytics AS s JOIN users AS u ON u.id = s.user_id`
	want := []string{
		`(kolkata,2026-03-09,"2026-03-09 18:00:00",2,0,120000,120000)`,
		`(kolkata,2026-03-10,"2026-03-09 18:30:00",1,0,60000,60000)`,
		`(kolkata,2026-03-10,"2026-03-09 19:00:00",1,0,60000,60000)`,
		`(kolkata,2026-03-10,"2026-03-09 23:30:00",1,0,60000,60000)`,
		`(kolkata,2026-03-10,"2026-03-10 00:00:00",1,0,60000,60000)`,
		`(vienna,2026-03-28,"2026-03-28 22:00:00",1,0,60000,60000)`,
		`(vienna,2026-03-29,"2026-03-28 23:00:00",1,0,60000,60000)`,
		`(vienna,2026-03-29,"2026-03-29 21:00:00",1,0,60000,60000)`,
		`(vienna,2026-03-30,"2026-03-29 22:00:00",1,0,60000,60000)`,
	}
	if diff := cmp.Diff(want, w.rows(all)); diff != "" {
		t.Error(diff)
	}
	w.advance(48 * time.Hour)
	if err := w.reverse(wrong); err != nil {
		t.Fatal(err)
	}
	w.mustRecord("vienna", "k", at(3, 28, 22, 30), 2*time.Minute)
	if res := w.rollUp(rollup.Options{}); res.Accounts != 1 || res.Days != 2 {
		t.Errorf("one account has two days that changed, rolled up: %+v", res)
	}
	want[5] = `(vienna,2026-03-28,"2026-03-28 22:00:00",2,0,180000,180000)`
	want[7] = `(vienna,2026-03-29,"2026-03-29 21:00:00",1,1,0,0)`
	if diff := cmp.Diff(want, w.rows(all)); diff != "" {
		t.Error(diff)
	}
	// Another zone has other days.
	w.zoned("vienna", "Pacific/Auckland")
	w.rollUp(rollup.Options{})
	want = append(want[:5:5],
		`(vienna,2026-03-29,"2026-03-28 22:00:00",2,0,180000,180000)`,
		`(vienna,2026-03-29,"2026-03-28 23:00:00",1,0,60000,60000)`,
		`(vienna,2026-03-30,"2026-03-29 21:00:00",1,1,0,0)`,
		`(vienna,2026-03-30,"2026-03-29 22:00:00",1,0,60000,60000)`)
	if diff := cmp.Diff(want, w.rows(all)); diff != "" {
		t.Error(diff)
	}
	if res := w.rollUp(rollup.Options{}); res.Accounts != 0 {
		t.Errorf("nothing has changed, rolled up: %+v", res)
	}
}

// What has waited, run and ended without a charge is counted with the hour in which it ended.
func TestAdmissions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.zoned("alice", "UTC")
	var ids []quota.AdmissionID
	var account quota.AccountID
	for i := range 6 {
		res, err := w.Admit(t.Context(), metering.AdmitRequest{
			UserID: "alice", Key: fmt.Sprint(i), BodyHash: []byte{1}, Source: quota.SourceAPI, RequestedBy: "test",
			Estimate: quota.Credit, FileSize: 1, Queue: true, Lease: time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		ids, account = append(ids, res.Admission.ID), res.Admission.Account
	}
	w.advance(10 * time.Minute)
	if _, err := w.Complete(t.Context(), account, ids[0], quota.Credit); err != nil {
		t.Fatal(err)
	}
	w.rollUp(rollup.Options{})
	w.advance(5 * time.Minute)
	if _, err := w.Release(t.Context(), account, ids[3]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Release(t.Context(), account, ids[5]); err != nil {
		t.Fatal(err)
	}
	w.rollUp(rollup.Options{})
	const all = `SELECT plan_name, period_no, events, admissions, uncharged, waited_ms / 60000, running_ms / 60000
		FROM usage_analytics`
	want := []string{
		`("",-1,0,0,1,15,0)`,
		`("",0,0,0,1,10,5)`, // the one that had started
		`(free,0,1,1,0,0,10)`,
	}
	if diff := cmp.Diff(want, w.rows(all)); diff != "" {
		t.Error(diff)
	}
	// The others' leases end; a late report of one is a charge in the hour in which its lease ended.
	w.advance(30 * time.Hour)
	if err := w.Reap(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.rollUp(rollup.Options{})
	if _, err := w.Complete(t.Context(), account, ids[1], quota.Credit); err != nil {
		t.Fatal(err)
	}
	w.rollUp(rollup.Options{})
	const days = `SELECT day, sum(events), sum(admissions), sum(uncharged) FROM usage_analytics GROUP BY day`
	want = []string{`(2026-03-10,1,1,2)`, `(2026-03-11,1,1,2)`}
	if diff := cmp.Diff(want, w.rows(days)); diff != "" {
		t.Error(diff)
	}
}

// TestRollupsEqualTheEvents plays random operations: late work, corrections, closed and final periods, other zones and
// the rollup at any moment in between. At the end the rows are what a rebuild makes of the events, and the check of the
// invariants, which adds the events up in another way, finds nothing.
func TestRollupsEqualTheEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.newsroom()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		s := &sequence{T: rt, w: w, user: fmt.Sprintf("user-%d", runs)}
		s.zone()
		for range rapid.IntRange(4, 25).Draw(rt, "operations") {
			s.step()
		}
		w.rollUp(rollup.Options{BatchSize: rapid.IntRange(1, 3).Draw(rt, "batch")})
		tables := []string{allRows, "usage_months", "usage_totals", "usage_refusal_totals", "usage_payer_largest"}
		got := make([][]string, len(tables))
		for i, table := range tables {
			got[i] = w.rows("SELECT * FROM " + table)
		}
		w.rollUp(rollup.Options{Rebuild: true})
		for i, table := range tables {
			if diff := cmp.Diff(w.rows("SELECT * FROM "+table), got[i]); diff != "" {
				rt.Fatalf("a rebuild says otherwise of %s: %s", table, diff)
			}
		}
	})
}

// allRows are those of users, with the largest pieces of work, which are in no order, in one.
const allRows = `(SELECT to_jsonb(u) - 'largest', ARRAY(SELECT w FROM unnest(u.largest) AS w
	ORDER BY w.credits DESC, w.at, w.id) FROM usage_analytics AS u) AS u`

type sequence struct {
	*rapid.T
	w      *world
	user   string
	n      int
	events []*ledger.Event
	alive  []*ledger.Admission
}

func (s *sequence) zone() {
	s.w.zoned(s.user, rapid.SampledFrom([]string{"UTC", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe",
		"Pacific/Chatham"}).Draw(s.T, "zone"))
}

func (s *sequence) step() {
	s.n++
	key := fmt.Sprintf("%s-%d", s.user, s.n)
	ctx := s.w.t.Context()
	var err error
	switch rapid.SampledFrom([]string{"record", "record", "record", "many", "admit", "end", "reverse", "reverse",
		"adjust", "advance", "roll up", "roll up", "zone", "export", "refuse", "team"}).Draw(s.T, "operation") {
	case "record":
		var e *ledger.Event
		ago := time.Duration(rapid.Int64Range(0, int64(34*24*time.Hour)).Draw(s.T, "ago"))
		if rapid.Bool().Draw(s.T, "lately") {
			ago %= time.Hour
		}
		e, err = s.w.record(s.user, key, quota.Use{
			Type: quota.UsageTranscription, OccurredAt: s.w.now().Add(-ago),
			Audio: time.Duration(rapid.Int64Range(1, 20*60_000).Draw(s.T, "audio")) * time.Millisecond,
		})
		s.events = append(s.events, e)
	case "many":
		err = s.many(key)
	case "team":
		if rapid.Bool().Draw(s.T, "joins") {
			err = s.w.AddMember(ctx, "newsroom", s.user, metering.By{Actor: "test"})
		} else {
			err = s.w.RemoveMember(ctx, "newsroom", s.user, metering.By{Actor: "test"})
		}
	case "export":
		var e *ledger.Event
		n := rapid.Int64Range(1, 9).Draw(s.T, "quantity")
		e, err = s.w.record(s.user, key, quota.Use{Type: "export", Quantity: n})
		s.events = append(s.events, e)
	case "admit":
		var res metering.AdmitResult
		if res, err = s.w.Admit(ctx, metering.AdmitRequest{
			UserID: s.user, Key: key, BodyHash: []byte{1}, Source: quota.SourceAPI, RequestedBy: "test",
			Estimate: quota.Credit, FileSize: 5, Queue: true, Lease: time.Hour,
		}); err == nil && res.Admission != nil {
			s.alive = append(s.alive, res.Admission)
		}
	case "end":
		s.end()
	case "reverse":
		if len(s.events) > 0 {
			i := rapid.IntRange(0, len(s.events)-1).Draw(s.T, "event")
			err = s.w.reverse(s.events[i])
			s.events = append(s.events[:i:i], s.events[i+1:]...)
		}
	case "adjust":
		_, err = s.w.Adjust(ctx, metering.AdjustRequest{UserID: s.user, Key: key, BodyHash: []byte{1},
			Credits: quota.Credits(rapid.Int64Range(1, 100_000).Draw(s.T, "credits")), Reason: "test", Actor: "test"})
	case "advance":
		s.w.advance(rapid.SampledFrom([]time.Duration{time.Minute, 45 * time.Minute, 20 * time.Hour,
			12 * 24 * time.Hour, 40 * 24 * time.Hour}).Draw(s.T, "by"))
		err = s.w.Reap(ctx)
	case "refuse":
		ago := time.Duration(rapid.Int64Range(0, int64(60*time.Hour)).Draw(s.T, "ago"))
		err = s.w.refuse(s.user, ago, rapid.SampledFrom([]string{"free", "pro"}).Draw(s.T, "plan"))
	case "roll up":
		s.w.rollUp(rollup.Options{})
	case "zone":
		s.zone()
	}
	if err != nil && !errors.Is(err, ledger.ErrConflict) {
		s.Fatal(err)
	}
}

// many records more in an hour than are kept of the largest, many of which are as large as others.
func (s *sequence) many(key string) error {
	ago := time.Duration(rapid.Int64Range(0, 34).Draw(s.T, "ago")) * 24 * time.Hour
	for i, minutes := range rapid.SliceOfN(rapid.Int64Range(1, 6), 8, 16).Draw(s.T, "minutes") {
		e, err := s.w.record(s.user, fmt.Sprintf("%s-%d", key, i), quota.Use{
			Type: quota.UsageTranscription, OccurredAt: s.w.now().Add(-ago).Add(-time.Duration(i/2) * time.Minute),
			Audio: time.Duration(minutes) * time.Minute,
		})
		if err != nil {
			return err
		}
		s.events = append(s.events, e)
	}
	return nil
}

// end ends an admission, which may have expired or wait still.
func (s *sequence) end() {
	if len(s.alive) == 0 {
		return
	}
	i := rapid.IntRange(0, len(s.alive)-1).Draw(s.T, "admission")
	adm := s.alive[i]
	s.alive = append(s.alive[:i:i], s.alive[i+1:]...)
	var err error
	if rapid.Bool().Draw(s.T, "charged") {
		_, err = s.w.Complete(s.w.t.Context(), adm.Account, adm.ID, quota.Credit/2)
	} else {
		_, err = s.w.Release(s.w.t.Context(), adm.Account, adm.ID)
	}
	if err != nil && !errors.Is(err, ledger.ErrConflict) {
		s.Fatal(err)
	}
}

// Several runs at once, some of them ended in the middle, beside writers: nothing is counted twice or lost.
func TestBesideEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const users, each = 20, 15
	var all, writers sync.WaitGroup
	for u := range users {
		writers.Go(func() {
			for n := range each {
				key := fmt.Sprintf("%d-%d", u, n)
				if _, err := w.record(fmt.Sprintf("user-%d", u), key, quota.Use{
					Type: quota.UsageTranscription, Audio: time.Minute,
					OccurredAt: w.now().Add(-time.Duration(n) * 7 * time.Hour)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	written := make(chan struct{})
	for i := range 4 {
		store := rollupdb.New(w.open(t).Store)
		all.Go(func() {
			for n := 0; ; n++ {
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if i%2 == 1 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(n%7)*3*time.Millisecond)
				}
				_, err := rollup.Run(ctx, store, rollup.Options{BatchSize: 1 + n%5, FullSpeed: true, Rebuild: n%3 == 2})
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				cancel()
				select {
				case <-written:
					return
				default:
				}
			}
		})
	}
	writers.Wait()
	close(written)
	all.Wait()
	ledgertest.Check(t.Context(), t, w.dsn)
	w.rollUp(rollup.Options{})
	want := []string{fmt.Sprintf("(%d,%d)", users*each, users*each*int64(quota.Credit))}
	if diff := cmp.Diff(want, w.rows(`SELECT sum(events), sum(credits) FROM usage_analytics`)); diff != "" {
		t.Error(diff)
	}
}

// An account that cannot be rolled up is named; all others are, and nobody says that all are up to date.
func TestAccountsThatFail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for u := range 5 {
		w.mustRecord(fmt.Sprintf("user-%d", u), "a", w.now(), time.Minute)
	}
	broken := func(zone string) {
		if _, err := w.ledger.Pool().Exec(t.Context(), `UPDATE usage_quotas AS a SET time_zone = $1
			FROM users AS u WHERE u.id = a.user_id AND u.user_id = 'user-3'`, zone); err != nil {
			t.Fatal(err)
		}
	}
	broken("Nowhere/At_All")
	res, err := rollup.Run(t.Context(), w.store, rollup.Options{})
	if !errors.Is(err, rollup.ErrAccountsFailed) || res.Accounts != 4 || res.Failed != 1 || !res.AsOf.IsZero() ||
		!strings.Contains(res.Failures[0].String(), "Nowhere/At_All") {
		t.Errorf("want one that fails for its zone, got %+v, %v", res, err)
	}
	const complete = `SELECT * FROM usage_rollups_complete`
	if got := w.rows(complete); len(got) != 0 {
		t.Errorf("complete as of %s although one has failed", got)
	}
	broken("UTC")
	if res := w.rollUp(rollup.Options{}); res.Accounts != 1 || !res.AsOf.Equal(w.now()) || len(w.rows(complete)) != 1 {
		t.Errorf("want the one that had failed, got %+v", res)
	}
}

// refuse has it written down that a user was refused something, so long ago.
func (w *world) refuse(user string, ago time.Duration, plan string) error {
	account, _, err := w.ledger.Locate(w.t.Context(), user)
	if err != nil {
		return err
	}
	return w.ledger.AddRefusals(w.t.Context(), []metering.Refusals{{Refused: metering.Refused{
		Account: account, Hour: w.now().Add(-ago).Truncate(time.Hour), Reason: quota.CreditsExhausted, Plan: plan,
	}, Count: 2, Credits: quota.Credit}})
}

func (w *world) mustRefuse(user string, ago time.Duration) {
	w.t.Helper()
	if err := w.refuse(user, ago, "free"); err != nil {
		w.t.Fatal(err)
	}
}

const refusalTotals = `SELECT day, users, refusals, credits / 60000 FROM usage_refusal_totals`

// What is refused is in the totals of its day with the next run, also where it comes late and nothing else has happened
// on that day. A user who is refused something in two hours is one of the day.
func TestRefusalsAreTotalled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.zoned("alice", "Asia/Kolkata")
	w.zoned("bob", "UTC")
	w.mustRefuse("alice", 0)
	w.mustRefuse("alice", 12*time.Hour) // the day of UTC begins with this hour
	w.mustRefuse("alice", 13*time.Hour)
	w.rollUp(rollup.Options{})
	want := []string{"(2026-03-09,1,2,1.00000000000000000000)", "(2026-03-10,1,4,2.0000000000000000)"}
	if diff := cmp.Diff(want, w.rows(refusalTotals)); diff != "" {
		t.Error(diff)
	}
	w.mustRefuse("bob", 40*time.Hour)
	w.mustRefuse("bob", 13*time.Hour)
	w.rollUp(rollup.Options{})
	want[0] = "(2026-03-09,2,4,2.0000000000000000)"
	want = append([]string{"(2026-03-08,1,2,1.00000000000000000000)"}, want...)
	if diff := cmp.Diff(want, w.rows(refusalTotals)); diff != "" {
		t.Error(diff)
	}
}

// Refusals that nobody can ask for any more are forgotten, those of the last 400 days are not. What a day came to
// stays, also if all sums are made anew, or something of it comes much too late.
func TestRefusalsAreForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustRecord("alice", "a", w.now(), time.Minute)
	for days := range 5 {
		w.mustRefuse("alice", time.Duration(398+days)*24*time.Hour)
	}
	var totals []string
	for _, o := range []rollup.Options{{}, {}, {Rebuild: true}} {
		w.rollUp(o)
		if left := w.rows("SELECT at FROM usage_refusals"); len(left) != 3 {
			t.Errorf("left are those of %v", left)
		}
		if totals = w.rows(refusalTotals); len(totals) != 5 {
			t.Errorf("left are the totals of %v", totals)
		}
	}
	w.mustRefuse("alice", 401*24*time.Hour)
	w.mustRefuse("alice", 410*24*time.Hour)
	w.advance(24 * time.Hour)
	w.rollUp(rollup.Options{})
	if diff := cmp.Diff(totals, w.rows(refusalTotals)); diff != "" {
		t.Error(diff)
	}
}

// The migration makes the totals that the release before did not have, or not by type, as a rollup would.
func TestMigrationMakesTotals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.newsroom()
	w.zoned("alice", "Asia/Kolkata")
	if err := w.AddMember(t.Context(), "newsroom", "alice", metering.By{Actor: "test"}); err != nil {
		t.Fatal(err)
	}
	w.mustRecord("alice", "a", w.now(), time.Minute)
	w.mustRecord("alice", "b", w.now().Add(-10*time.Hour), time.Minute)
	if _, err := w.record("alice", "c", quota.Use{Type: "export", Quantity: 4}); err != nil {
		t.Fatal(err)
	}
	w.mustRefuse("alice", 0)
	w.mustRefuse("alice", 13*time.Hour)
	w.rollUp(rollup.Options{})
	const refused, paid = "SELECT * FROM usage_refusal_totals", "SELECT * FROM usage_payer_totals"
	wantRefused, wantPaid := w.rows(refused), w.rows(paid)
	if len(wantRefused) != 2 || len(wantPaid) != 2 {
		t.Errorf("want two days and two types, got %v and %v", wantRefused, wantPaid)
	}
	for _, sql := range []string{
		"DELETE FROM usage_refusal_totals",
		`WITH old AS (DELETE FROM usage_payer_totals RETURNING *)
		INSERT INTO usage_payer_totals (day, plan_name, team_id, currency, cost_currency, users, events, credits,
		    price_micros, cost_micros)
		SELECT day, plan_name, team_id, currency, cost_currency, 1, sum(events), sum(credits), sum(price_micros),
		    sum(cost_micros) FROM old GROUP BY 1, 2, 3, 4, 5`,
		"DELETE FROM goose_db_version WHERE version_id >= 29",
	} {
		if _, err := w.ledger.Pool().Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := postgres.Migrate(t.Context(), w.dsn); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantRefused, w.rows(refused)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(wantPaid, w.rows(paid)); diff != "" {
		t.Error(diff)
	}
}

// A batch has as many accounts as have decided so much, and one at least. Nothing is left out between two of them.
func TestBatchesAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 6 {
		user := fmt.Sprintf("user-%d", i)
		w.zoned(user, "UTC")
		for n := range 3 {
			w.mustRecord(user, fmt.Sprintf("%s-%d", user, n), w.now(), time.Second)
		}
	}
	var seq int64
	if err := w.ledger.Pool().QueryRow(t.Context(), "SELECT max(seq) FROM usage_quotas").Scan(&seq); err != nil {
		t.Fatal(err)
	}
	for want, b := range map[int]rollup.Batch{
		1: {Accounts: 10, Decisions: 1},
		2: {Accounts: 10, Decisions: 3*seq - 1},
		3: {Accounts: 3, Decisions: 100 * seq},
		6: {Accounts: 10, Decisions: 6 * seq},
	} {
		seen := map[quota.AccountID]bool{}
		for after := (quota.AccountID{}); ; {
			batch, err := w.store.Changed(t.Context(), after, true, b)
			if err != nil {
				t.Fatal(err)
			}
			if len(batch) == 0 {
				break
			}
			if len(batch) != want {
				t.Fatalf("%+v: want %d accounts, got %d", b, want, len(batch))
			}
			for _, id := range batch {
				seen[id] = true
			}
			after = batch[len(batch)-1]
		}
		if len(seen) != 6 {
			t.Errorf("%+v: want all 6 accounts, got %d", b, len(seen))
		}
	}
}
