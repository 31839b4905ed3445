// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// use is a transcription of so many minutes, now.
func use(user, key string, minutes int) metering.RecordRequest {
	return metering.RecordRequest{
		UserID: user, Key: key, BodyHash: fmt.Append(nil, user, minutes), RecordedBy: "test",
		Use: quota.Use{Type: quota.UsageTranscription, Audio: time.Duration(minutes) * time.Minute},
	}
}

// typed is a use that the plan or the caller prices.
func typed(user, key, usageType string, edit ...func(*metering.RecordRequest)) metering.RecordRequest {
	r := metering.RecordRequest{UserID: user, Key: key, BodyHash: []byte(usageType), RecordedBy: "test",
		Use: quota.Use{Type: usageType}}
	for _, e := range edit {
		e(&r)
	}
	return r
}

func (w *world) record(req metering.RecordRequest) metering.RecordResult {
	w.t.Helper()
	res, err := w.Record(w.t.Context(), req)
	if err != nil {
		w.t.Fatalf("record: %v", err)
	}
	return res
}

func (w *world) reverse(e *ledger.Event, key string) metering.RecordResult {
	w.t.Helper()
	res, err := w.Reverse(w.t.Context(), reversal(e, key))
	if err != nil {
		w.t.Fatalf("reverse: %v", err)
	}
	return res
}

func reversal(e *ledger.Event, key string) metering.ReverseRequest {
	return metering.ReverseRequest{Account: e.Account, Event: e.ID, Key: key, BodyHash: []byte("reverse"),
		Reason: "a mistake", Actor: "admin"}
}

func (w *world) event(id quota.ID) *ledger.Event {
	w.t.Helper()
	e, err := w.Event(w.t.Context(), id)
	if err != nil {
		w.t.Fatalf("event: %v", err)
	}
	return e
}

func TestRecordIsChargedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.record(use("alice", "k", 5))
	if !first.Created || first.Event.Credits != 5*quota.Credit || first.Event.Cost != 30_000 ||
		first.On.User().Used != 5*quota.Credit {
		t.Fatalf("got %+v", first.Event)
	}
	again := w.record(use("alice", "k", 5))
	if again.Created {
		t.Error("the same again made another event")
	}
	if diff := cmp.Diff(first.Event, again.Event); diff != "" {
		t.Errorf("the same again (-first +again):\n%s", diff)
	}
	if diff := cmp.Diff(first.Event, w.event(first.Event.ID)); diff != "" {
		t.Errorf("read again (-first +read):\n%s", diff)
	}
	if _, err := w.Record(t.Context(), use("alice", "k", 6)); !errors.Is(err, ledger.ErrKeyReused) {
		t.Errorf("the same key with another body: got %v", err)
	}
	w.record(use("bob", "k", 1))
	w.wantUsage("alice", 5*quota.Credit, 0, 0)
	w.wantUsage("bob", quota.Credit, 0, 0)
}

// Many senders of the same event, over two replicas that contend for the account's lock.
func TestRecordOfOneKeyByMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	replicas := []*metering.Service{w.Service, newService(w.open(t), metering.Options{AutoRegister: true})}
	var created atomic.Int32
	var senders sync.WaitGroup
	for i := range 32 {
		senders.Go(func() {
			for key := range 4 {
				res, err := replicas[i%2].Record(t.Context(), use("alice", fmt.Sprint(key), 1))
				if err != nil {
					t.Error(err)
				}
				if res.Created {
					created.Add(1)
				}
			}
		})
	}
	senders.Wait()
	if n := created.Load(); n != 4 {
		t.Errorf("4 keys made %d events", n)
	}
	w.wantUsage("alice", 4*quota.Credit, 0, 0)
}

func TestRecordWhoseCommitWasLost(t *testing.T) {
	t.Parallel()
	for name, commit := range map[string]func(fail error, really func() error) error{
		"before": func(fail error, really func() error) error {
			if fail != nil {
				return fail
			}
			return really()
		},
		"after": func(fail error, really func() error) error { return errors.Join(really(), fail) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &faulty{}
			w := newWorldOn(t, f)
			w.register("alice")
			inject := func() {
				fail := times(2, ledger.ErrUnknownOutcome)
				f.commit = func(_ ledger.Keys, really func() error) error { return commit(fail(), really) }
			}
			inject()
			res := w.record(use("alice", "k", 3))
			w.wantUsage("alice", 3*quota.Credit, 0, 0)
			inject()
			w.reverse(res.Event, "undo")
			w.wantUsage("alice", 0, 0, 0)
			inject()
			if _, err := w.Adjust(t.Context(), metering.AdjustRequest{UserID: "alice", Key: "a", BodyHash: []byte("a"),
				Credits: 2 * quota.Credit, Reason: "r", Actor: "admin"}); err != nil {
				t.Fatal(err)
			}
			w.wantUsage("alice", 2*quota.Credit, 0, 0)
		})
	}
}

func TestRecordAllReportsEachItem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reqs := []metering.RecordRequest{
		use("alice", "1", 1),
		typed("alice", "2", "hologram"),
		use("bob", "3", 2),
		use("-nobody", "4", 1),
		use("alice", "1", 1),
		use("alice", "1", 9),
		use("alice", "5", 4),
		typed("bob", "6", quota.UsageExport, func(r *metering.RecordRequest) { r.Currency = "EUR" }),
		typed("bob", "7", quota.UsageExport,
			func(r *metering.RecordRequest) { r.Use.OccurredAt = w.now().Add(-36 * 24 * time.Hour) }),
		typed("bob", "8", quota.UsageExport),
	}
	results, errs := w.RecordAll(t.Context(), reqs)
	for i, want := range []error{
		nil, ledger.ErrInvalid, nil, ledger.ErrInvalid, nil, ledger.ErrKeyReused, nil, ledger.ErrInvalid,
		ledger.ErrInvalid, nil,
	} {
		if !errors.Is(errs[i], want) || (want == nil) != (results[i].Event != nil) {
			t.Errorf("item %d: want %v, got %v with %+v", i, want, errs[i], results[i].Event)
		}
	}
	if errs[1] == nil || !strings.Contains(errs[1].Error(),
		`"hologram" must be one of api_call, export, transcription`) {
		t.Errorf("the unknown type: got %v", errs[1])
	}
	if results[0].Event.ID != results[4].Event.ID || !results[0].Created || results[4].Created {
		t.Error("the same item twice in one batch is not one event")
	}
	w.wantUsage("alice", 5*quota.Credit, 0, 0)
	w.wantUsage("bob", 2*quota.Credit, 0, 0)
}

// A use of one user is booked after those in front of it, which decides what is overage.
func TestRecordAllKeepsTheOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reqs := make([]metering.RecordRequest, 1000)
	for i := range reqs {
		reqs[i] = use(fmt.Sprint("user", i%3), fmt.Sprint(i), 1)
	}
	results, errs := w.RecordAll(t.Context(), reqs)
	last := map[string]int64{}
	for i, r := range results {
		if errs[i] != nil {
			t.Fatalf("item %d: %v", i, errs[i])
		}
		if r.Event.Seq <= last[r.Event.UserID] {
			t.Fatalf("item %d was booked as decision %d, after %d", i, r.Event.Seq, last[r.Event.UserID])
		}
		last[r.Event.UserID] = r.Event.Seq
	}
	w.wantUsage("user0", 334*quota.Credit, 0, 0)
}

func TestPlanPricesUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := plans.Free()
	p.UsageTypes = map[string]quota.Rate{"export": 1_500_000, "summary": 250_000}
	status, err := w.ApplyPlan(t.Context(), p, "test")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.ApplyPlan(t.Context(), p, "test"); err != nil || again.Version != status.Version {
		t.Errorf("the same plan again: version %d became %d, %v", status.Version, again.Version, err)
	}
	export := w.record(typed("alice", "1", "export", func(r *metering.RecordRequest) {
		r.FileSize, r.Tokens, r.Metadata = 123, 456, map[string]string{"format": "srt"}
	})).Event
	if export.Credits != 90_000 || *export.Rate != 1_500_000 || export.PlanVersion != status.Version ||
		export.Cost != 0 {
		t.Errorf("export: got %+v", export)
	}
	if got := w.event(export.ID); got.FileSize != 123 || got.Tokens != 456 || got.Metadata["format"] != "srt" ||
		got.RecordedBy != "test" {
		t.Errorf("what was stored of it: got %+v", got)
	}
	if e := w.record(typed("alice", "2", "summary",
		func(r *metering.RecordRequest) { r.Use.Quantity = 3 })).Event; e.Credits != 45_000 || e.Quantity != 3 {
		t.Errorf("3 summaries: got %+v", e)
	}
	if e := w.record(typed("alice", "3", "api_call")).Event; e.Credits != 0 {
		t.Errorf("a call that the plan does not price: got %+v", e)
	}
	given, cost := 2*quota.Credit, quota.Money(7)
	e := w.record(typed("alice", "4", "summary",
		func(r *metering.RecordRequest) { r.Use.Credits, r.Use.Cost, r.Currency = &given, &cost, "USD" })).Event
	if e.Credits != given || e.Cost != cost || e.Rate != nil {
		t.Errorf("credits and cost given: got %+v", e)
	}
	w.wantUsage("alice", 90_000+45_000+2*quota.Credit, 0, 0)
}

// The use has happened, so it is charged beyond the limit; what is new is then refused, until a reversal makes room.
func TestRecordBeyondTheLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.record(use("alice", "1", 25))
	res := w.record(use("alice", "2", 10))
	if res.On.User().Overdrawn() != 5*quota.Credit {
		t.Errorf("overdrawn: got %s", res.On.User().Overdrawn())
	}
	if a := w.admit("alice", "a", quota.Credit); a.Decision.Reason != quota.CreditsExhausted {
		t.Errorf("an admission: got %+v", a.Decision)
	}
	parked := request("alice", "", quota.Credit)
	parked.ID, parked.Source, parked.Park = quota.ID{9}, quota.SourceJob, true
	if got, err := w.Admit(t.Context(), parked); err != nil || got.Admission.State != quota.Queued {
		t.Fatalf("a Job: got %+v, %v", got, err)
	}
	w.reverse(res.Event, "undo")
	w.wantState(quota.ID{9}, quota.Admitted)
	w.wantUsage("alice", 25*quota.Credit, quota.Credit, 1)
}

func TestLateRecordGoesToItsPeriod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register("alice") // 2026-03-10T12:00Z
	happened := w.now().Add(30 * 24 * time.Hour)
	w.advance(32 * 24 * time.Hour) // the period ended on April 10, it is final from April 13
	late := func(key string) metering.RecordRequest {
		r := use("alice", key, 4)
		r.Use.OccurredAt = happened
		return r
	}
	closed := w.record(late("in time")).Event
	if closed.Kind != ledger.EventCharge || closed.PeriodNo != 0 || !closed.OccurredAt.Equal(happened) {
		t.Errorf("before the period is final: got %+v", closed)
	}
	w.wantUsage("alice", 0, 0, 0)
	// The first one closed the period on its way, the second one finds it closed.
	w.record(late("in time, too"))
	if last := w.usage("alice").Last; last.Used != 8*quota.Credit {
		t.Errorf("the closed period has %s used", last.Used)
	}
	w.advance(3 * 24 * time.Hour)
	adjusted := w.record(late("too late")).Event
	if adjusted.Kind != ledger.EventAdjustment || adjusted.PeriodNo != 1 {
		t.Errorf("after the period is final: got %+v", adjusted)
	}
	w.wantUsage("alice", 4*quota.Credit, 0, 0)
	// The key holds on, although nothing would be booked there any more.
	if again := w.record(late("in time")); again.Created || again.Event.ID != closed.ID {
		t.Errorf("the same again: got %+v", again.Event)
	}
	// What was before the account belongs to its first period.
	before := use("bob", "k", 1)
	before.Use.OccurredAt = w.now().Add(-time.Hour)
	if e := w.record(before).Event; e.PeriodNo != 0 || e.Kind != ledger.EventCharge {
		t.Errorf("before the account was there: got %+v", e)
	}
}

func TestReversal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.quota(metering.Quota{ObjectUID: quota.ID{1}, ObjectName: "alice", UserID: "alice", Zone: "UTC",
		Grants: map[string]metering.Grant{
			"soon": {Credits: 2 * quota.Credit, ExpiresAt: w.now().Add(time.Hour)},
		}})
	charged := w.record(use("alice", "1", 5)).Event
	if charged.Alloc.Plan != 3*quota.Credit || len(charged.Alloc.Lots) != 1 {
		t.Fatalf("the charge: got %+v", charged.Alloc)
	}
	w.advance(2 * time.Hour) // the grant has expired
	undone := w.reverse(charged, "undo")
	if e := undone.Event; e.Kind != ledger.EventReversal || e.Reverses != charged.ID || e.Credits != 5*quota.Credit ||
		e.Cost != 0 || e.Reason != "a mistake" {
		t.Errorf("got %+v", e)
	}
	a := w.usage("alice").Account
	if a.Used != 0 || a.PlanUsed != 0 || a.Cost != charged.Cost || a.Remaining(w.now()).Max != 30*quota.Credit {
		t.Errorf("after: used %s, cost %s, remaining %s", a.Used, a.Cost, a.Remaining(w.now()).Max)
	}
	if e := w.event(charged.ID); e.ReversedBy != undone.Event.ID {
		t.Errorf("the charge does not know its reversal: %+v", e)
	}
	if again := w.reverse(charged, "undo"); again.Created || again.Event.ID != undone.Event.ID {
		t.Errorf("the same again: got %+v", again.Event)
	}
	if again := w.record(use("alice", "1", 5)); again.Created || again.Event.ReversedBy != undone.Event.ID {
		t.Errorf("the charge's key after its reversal: got %+v", again.Event)
	}
	for name, tc := range map[string]struct {
		event *ledger.Event
		want  error
	}{
		"twice":         {charged, ledger.ErrConflict},
		"of a reversal": {undone.Event, ledger.ErrConflict},
		"of nothing":    {&ledger.Event{Account: charged.Account, ID: quota.ID{7}}, ledger.ErrNotFound},
	} {
		if _, err := w.Reverse(t.Context(), reversal(tc.event, name)); !errors.Is(err, tc.want) {
			t.Errorf("%s: want %v, got %v", name, tc.want, err)
		}
	}
	noReason := reversal(charged, "k")
	noReason.Reason = " "
	if _, err := w.Reverse(t.Context(), noReason); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("without a reason: got %v", err)
	}
	w.wantUsage("alice", 0, 0, 0)
}

// Two who reverse the same charge at once, on two replicas: one does, the other is told.
func TestReversalByTwo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := newService(w.open(t), metering.Options{})
	for i := range 20 {
		e := w.record(use("alice", fmt.Sprint(i), 1)).Event
		var done, refused atomic.Int32
		var admins sync.WaitGroup
		for n, s := range []*metering.Service{w.Service, other} {
			admins.Go(func() {
				switch _, err := s.Reverse(t.Context(), reversal(e, fmt.Sprint("undo", i, n))); {
				case err == nil:
					done.Add(1)
				case errors.Is(err, ledger.ErrConflict):
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		admins.Wait()
		if done.Load() != 1 || refused.Load() != 1 {
			t.Fatalf("%d reversed, %d were refused", done.Load(), refused.Load())
		}
	}
	w.wantUsage("alice", 0, 0, 0)
}

func TestReversalAcrossPeriods(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	admitted := w.admit("alice", "a", 6*quota.Credit).Admission
	if _, err := w.Complete(t.Context(), quota.ID{}, admitted.ID, 6*quota.Credit); err != nil {
		t.Fatal(err)
	}
	first, second := w.record(use("alice", "1", 4)).Event, w.record(use("alice", "2", 3)).Event
	w.advance(32 * 24 * time.Hour)
	w.reverse(first, "while it is closed")
	if last := w.usage("alice").Last; last.Used != 9*quota.Credit {
		t.Errorf("the closed period has %s used", last.Used)
	}
	w.wantUsage("alice", 0, 0, 0)
	w.advance(3 * 24 * time.Hour)
	refund := w.reverse(second, "when it is final").Event
	if refund.RefundLot == (quota.ID{}) || refund.PeriodNo != 1 {
		t.Errorf("got %+v", refund)
	}
	u := w.usage("alice")
	if u.Last.Used != 9*quota.Credit || u.Account.Remaining(w.now()).Max != 33*quota.Credit {
		t.Errorf("the final period has %s used, %s remain", u.Last.Used, u.Account.Remaining(w.now()).Max)
	}
	// What is given instead pays like any grant.
	if res := w.admit("alice", "b", 33*quota.Credit); res.Decision.Outcome != quota.Admit {
		t.Errorf("got %+v", res.Decision)
	}
}

func TestAdjustment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	adjust := metering.AdjustRequest{UserID: "alice", Key: "k", BodyHash: []byte("a"), Credits: 7 * quota.Credit,
		Reason: "shared an account", Actor: "admin"}
	if _, err := w.Adjust(t.Context(), adjust); err == nil {
		t.Error("an adjustment made an account")
	}
	w.register("alice")
	for range 2 {
		res, err := w.Adjust(t.Context(), adjust)
		if err != nil {
			t.Fatal(err)
		}
		if e := res.Event; e.Kind != ledger.EventAdjustment || e.Credits != 7*quota.Credit ||
			e.Reason != "shared an account" || e.RecordedBy != "admin" {
			t.Errorf("got %+v", e)
		}
	}
	w.wantUsage("alice", 7*quota.Credit, 0, 0)
	// A key is one for all that is recorded.
	if _, err := w.Record(t.Context(), use("alice", "k", 1)); !errors.Is(err, ledger.ErrKeyReused) {
		t.Errorf("a record with the adjustment's key: got %v", err)
	}
	adjust.Key, adjust.Credits = "none", 0
	if _, err := w.Adjust(t.Context(), adjust); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("nothing to adjust: got %v", err)
	}
}

func TestRecordRefusesWhatIsNotBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	many := map[string]string{}
	for i := range 17 {
		many[fmt.Sprint("k", i)] = "v"
	}
	long := map[string]string{}
	for i := range 16 {
		long[fmt.Sprint("k", i)] = strings.Repeat("v", 256)
	}
	for name, edit := range map[string]func(*metering.RecordRequest){
		"no key":          func(r *metering.RecordRequest) { r.Key = "" },
		"long key":        func(r *metering.RecordRequest) { r.Key = strings.Repeat("k", 256) },
		"NUL in the key":  func(r *metering.RecordRequest) { r.Key = "a\x00b" },
		"file size":       func(r *metering.RecordRequest) { r.FileSize = 1<<40 + 1 },
		"tokens":          func(r *metering.RecordRequest) { r.Tokens = -1 },
		"duration":        func(r *metering.RecordRequest) { r.Use.Audio = -time.Second },
		"metadata keys":   func(r *metering.RecordRequest) { r.Metadata = many },
		"metadata in all": func(r *metering.RecordRequest) { r.Metadata = long },
		"metadata value": func(r *metering.RecordRequest) {
			r.Metadata = map[string]string{
				"k": strings.Repeat("v", 257)}
		},
		"metadata key": func(r *metering.RecordRequest) {
			r.Metadata = map[string]string{
				strings.Repeat("k", 64): ""}
		},
		"empty metadata key":  func(r *metering.RecordRequest) { r.Metadata = map[string]string{"": ""} },
		"NUL in the metadata": func(r *metering.RecordRequest) { r.Metadata = map[string]string{"k": "\x00"} },
	} {
		r := use("alice", "k", 1)
		edit(&r)
		if _, err := w.Record(t.Context(), r); !errors.Is(err, ledger.ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// A refusal is not remembered: the key is still free.
	w.record(use("alice", "k", 1))
}
