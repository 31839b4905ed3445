// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

func TestMigrateTwiceAndAtOnce(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t, nil)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := postgres.Migrate(t.Context(), dsn); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := postgres.Migrate(t.Context(), dsn); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestOpenRefusesUnsafeServers(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t, nil)
	// Whatever the server of the tests is like, this session's commits are not safe.
	unsafe := dsn + "?options=-c%20synchronous_commit%3Doff"
	if strings.Contains(dsn, "?") {
		unsafe = dsn + "&options=-c%20synchronous_commit%3Doff"
	}
	_, err := ledgerdb.Open(t.Context(), unsafe, postgres.Options{})
	if !errors.Is(err, postgres.ErrUnsafe) || !strings.Contains(err.Error(), "synchronous_commit") {
		t.Errorf("want a refusal that names synchronous_commit, got %v", err)
	}
	s, err := ledgerdb.Open(t.Context(), unsafe, postgres.Options{AllowUnsafe: true, AnySchema: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	_, err := ledgerdb.Open(t.Context(), "postgres://nobody@127.0.0.1:1/none?connect_timeout=1", postgres.Options{})
	if !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("want unavailable, got %v", err)
	}
}

func TestPlans(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	version := func() int64 {
		st, err := f.PlanStatus(ctx, "free")
		if err != nil {
			t.Fatal(err)
		}
		return st.Version
	}
	if err := f.ApplyPlan(ctx, plan("free"), "test"); err != nil || version() != 1 {
		t.Errorf("unchanged: version %d, %v", version(), err)
	}
	stored, err := f.Plans(ctx)
	want := plan("free")
	want.Version = 1
	if diff := cmp.Diff([]*metering.Plan{&want}, stored); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}

	changed := plan("free")
	changed.Limits.Credits, changed.DailyCostCeiling = quota.Limit[quota.Credits]{Unlimited: true},
		quota.Limit[quota.Money]{Unlimited: true}
	if err := f.ApplyPlan(ctx, changed, "test"); err != nil || version() != 2 {
		t.Errorf("changed: version %d, %v", version(), err)
	}

	second := plan("pro")
	second.Default = true
	if err := f.ApplyPlan(ctx, second, "test"); !errors.Is(err, ledger.ErrConflict) ||
		!strings.Contains(err.Error(), `plan "free" is the default already`) {
		t.Errorf("a second default: %v", err)
	}

	if err := f.RetirePlan(ctx, "free", quota.ClusterUID{9}, "test"); err != nil || version() != 2 {
		t.Errorf("retired by a stranger: version %d, %v", version(), err)
	}
	if err := f.RetirePlan(ctx, "free", changed.Cluster, "test"); err != nil || version() != 3 {
		t.Errorf("retired: version %d, %v", version(), err)
	}
	if _, err := ledgertest.Register(ctx, f, "alice", ""); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("registered without a default plan: %v", err)
	}
	changed.ObjectUID = quota.ID{8}
	if err := f.ApplyPlan(ctx, changed, "test"); err != nil || version() != 4 {
		t.Errorf("applied again: version %d, %v", version(), err)
	}
	if stored, err := f.Plans(ctx); err != nil || stored[0].Retired || stored[0].ObjectUID != changed.ObjectUID {
		t.Errorf("the new object does not own the plan: %+v, %v", stored[0], err)
	}
	if _, err := f.PlanStatus(ctx, "none"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("an unknown plan: %v", err)
	}
	if err := f.RetirePlan(ctx, "none", quota.ClusterUID{}, "test"); err != nil {
		t.Errorf("an unknown plan retired: %v", err)
	}
}

// TestPlansAreStoredWhole shows that no field is lost on the way in and out, neither of a new plan nor of a changed
// one.
func TestPlansAreStoredWhole(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	if err := f.RetirePlan(ctx, "free", plan("free").Cluster, "test"); err != nil {
		t.Fatal(err)
	}
	small := metering.Plan{
		Plan: quota.Plan{
			Name: "full", Currency: "EUR", RateRequests: 1, RateWindow: time.Second,
			Limits: quota.Limits{FileSize: quota.AtMost[int64](1), Audio: quota.AtMost(time.Second),
				Concurrent: quota.AtMost[int32](9)},
		},
		Cluster: plans.Full().Cluster, ResetSchedule: "1 1 * * *", ResetBatchSize: 1,
	}
	for i, p := range []metering.Plan{plans.Full(), small, plans.Full()} {
		if err := f.ApplyPlan(ctx, p, "test"); err != nil {
			t.Fatal(err)
		}
		if err := f.RetirePlan(ctx, "full", p.Cluster, "test"); err != nil {
			t.Fatal(err)
		}
		stored, err := f.Plans(ctx)
		at := slices.IndexFunc(stored, func(p *metering.Plan) bool { return p.Name == "full" })
		if err != nil || at < 0 {
			t.Fatalf("%v: no plan full", err)
		}
		if i == 1 {
			continue // what it leaves out has defaults
		}
		want := p
		want.Version, want.Past = stored[at].Version, nil // the database's own
		if diff := cmp.Diff(&want, stored[at]); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

func TestPlanAppliedAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := f.ApplyPlan(t.Context(), plan("pro"), "test"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if st, err := f.PlanStatus(t.Context(), "pro"); err != nil || st.Version != 1 {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestRegister(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if _, err := f.Lookup(t.Context(), "alice"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("want not found, got %v", err)
	}
	ids := make([]quota.ID, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() { ids[i] = f.register("alice") })
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("two accounts: %x and %x", ids[0], id)
		}
	}
	if id, err := f.Lookup(t.Context(), "alice"); err != nil || id != ids[0] {
		t.Errorf("%x, %v", id, err)
	}
	a := f.usage("alice").Account
	now := f.clock.read()
	if want := (quota.Period{Start: now, End: now.AddDate(0, 1, 0)}); a.Period != want || a.Plan.Name != "free" ||
		a.Anchor != now {
		t.Errorf("got %+v", a)
	}
	if st, err := f.PlanStatus(t.Context(), "free"); err != nil || st.Users != 1 || len(st.FirstUsers) != 1 ||
		st.FirstUsers[0] != "alice" {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := ledgertest.Register(t.Context(), f, "bob", "none"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("registered on a plan that is not there: %v", err)
	}
	if _, err := ledgertest.Register(t.Context(), f, "not a user id!", ""); !errors.Is(err, ledger.ErrData) {
		t.Errorf("a wrong user id: %v", err)
	}
}

func TestAdmissionsAreStoredWhole(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice := f.register("alice")
	first, second, third, parked := quota.ID{1}, quota.ID{2}, quota.ID{3}, quota.ID{4}
	f.enter(alice, first, 10*quota.Credit)
	f.enter(alice, second, quota.Credit, func(a *ledger.Admission) { a.Source = quota.SourceJob })
	f.enter(alice, third, quota.Credit, func(a *ledger.Admission) { a.Priority = 5 })
	f.enter(alice, parked, 59*quota.Credit, func(a *ledger.Admission) { a.Priority = 9 })

	adm, err := f.Admission(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	now := f.clock.read()
	want := &ledger.Admission{
		Admission: quota.Admission{
			ID: first, Account: alice, Source: quota.SourceAPI, State: quota.Admitted,
			Request: quota.Request{Estimate: 10 * quota.Credit, FileSize: 7}, Enforced: true,
			PeriodEnd: now.AddDate(0, 1, 0),
			Alloc:     quota.Allocation{Plan: 10 * quota.Credit}, EstimatedCost: 60_000, ProviderCost: 6_000,
			Currency:  "USD",
			CreatedAt: now, AdmittedAt: now, Lease: time.Minute, LeaseUntil: now.Add(time.Minute), ArrivedSeq: 1,
			AdmittedSeq: 1,
			Seen:        quota.Seen{Remaining: quota.AtMost(65 * quota.Credit), Concurrent: quota.AtMost[int32](1)},
		},
		UserID: "alice", Namespace: "jobs", Name: "one", RequestedBy: "system:serviceaccount:jobs:default",
		BodyHash: []byte{1, 2},
	}
	if diff := cmp.Diff(want, adm); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for id, want := range map[quota.ID][3]any{
		second: {quota.Queued, 2, 2}, third: {quota.Queued, 1, 2}, parked: {quota.Queued, 0, 2},
	} {
		if adm, err := f.Admission(t.Context(), id); err != nil ||
			[3]any{adm.State, adm.Position, adm.Waiting} != want {
			t.Errorf("admission %x: want %v, got %+v, %v", id[0], want, adm, err)
		}
	}
	if _, err := f.Admission(t.Context(), quota.ID{9}); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("an unknown admission: %v", err)
	}
	jobs, err := f.LiveJobs(t.Context(), quota.ID{})
	if err != nil || len(jobs) != 1 || jobs[0].ID != second || jobs[0].UserID != "alice" {
		t.Errorf("live jobs: %+v, %v", jobs, err)
	}

	keys := ledger.Keys{Accounts: []quota.AccountID{alice}, Admissions: []quota.AdmissionID{first, third, {9}},
		Plans: []string{"", "none"}}
	f.change(keys, func(b ledger.Batch, l *ledger.Ledger) {
		var order []byte
		for _, q := range l.Queue {
			order = append(order, q.ID[0])
		}
		if string(order) != "\x04\x03\x02" || l.Queue[1] != l.Admissions[third] || len(l.Admissions) != 4 {
			t.Errorf("queue %v, admissions %v", order, l.Admissions)
		}
		if b.Plan("").Name != "free" || b.Plan("none") != nil || b.Plan("free") != nil {
			t.Errorf("plans: %v", b.Plan(""))
		}
	})

	f.settle(alice, first, 7*quota.Credit)
	adm, err = f.Admission(t.Context(), first)
	if err != nil || adm.State != quota.Settled || *adm.Actual != 7*quota.Credit || adm.EndedSeq == 0 {
		t.Errorf("%+v, %v", adm, err)
	}
	if got := f.count("SELECT count(*) FROM usage_tracking WHERE id = $1 AND kind = 'charge' AND duration_ms = 420000",
		ledger.ChargeID(alice, first)); got != 1 {
		t.Errorf("%d events", got)
	}
	if u := f.usage("alice"); u.Account.Used != 7*quota.Credit || u.Account.Active != 1 || u.Account.Cost != 42_000 {
		t.Errorf("%+v", u.Account)
	}
}

func TestPeriodsLotsAndSettings(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice := f.register("alice")
	keys := ledger.Keys{Accounts: []quota.AccountID{alice}, Plans: []string{""}}
	gift := quota.Lot{
		ID: quota.NewLotID(alice, quota.LotGrant, "gift"), Kind: quota.LotGrant, Name: "gift",
		Credits: 3 * quota.Credit, ExpiresAt: f.clock.read().Add(time.Hour),
	}
	overrides := quota.Overrides{
		Credits: &quota.Limit[quota.Credits]{Unlimited: true}, FileSize: new(quota.AtMost[int64](5)),
		Audio: new(quota.AtMost(time.Minute)), Concurrent: new(quota.AtMost[int32](2)),
		Queued: &quota.Limit[int32]{Unlimited: true},
	}
	settings := ledger.Settings{QuotaUID: quota.ID{7}, QuotaName: "alice", ZoneName: "Asia/Hong_Kong"}
	f.declare(alice, func(l *ledger.Ledger) {
		l.Account.Lots = append(l.Account.Lots, gift)
		l.Settings, l.Account.Suspended, l.Account.Overrides = settings, true, overrides
		l.Tell(quota.SystemActor, quota.AuditGrantGiven, nil, gift.Audit())
	})
	f.declare(alice, func(l *ledger.Ledger) {
		a := l.Account
		if diff := cmp.Diff(overrides, a.Overrides); diff != "" || l.Settings != settings || !a.Suspended ||
			a.Zone.String() != "Asia/Hong_Kong" {
			t.Errorf("settings %+v, account %+v\n%s", l.Settings, a, diff)
		}
		if len(a.Lots) != 1 || a.Lots[0] != gift || !l.HadLots[gift.ID] {
			t.Errorf("lots %+v, had %v", a.Lots, l.HadLots)
		}
		a.Suspended, a.Overrides = false, quota.Overrides{}
	})
	if id, err := f.QuotaOwner(t.Context(), settings.QuotaUID); err != nil || id != alice {
		t.Errorf("owner %x, %v", id, err)
	}
	if _, err := f.QuotaOwner(t.Context(), quota.ID{6}); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("no owner: %v", err)
	}

	f.enter(alice, quota.ID{1}, 5*quota.Credit)
	f.clock.advance(31 * 24 * time.Hour)
	f.settle(alice, quota.ID{1}, 4*quota.Credit)
	u := f.usage("alice")
	if u.Last == nil || u.Last.Used != 4*quota.Credit || u.Last.Reserved != 0 || u.Account.PeriodNo != 1 ||
		u.Account.Used != 0 || u.QuotaUID != settings.QuotaUID {
		t.Errorf("last %+v, account %+v", u.Last, u.Account)
	}
	if len(u.Account.Lots) != 1 || u.Account.Lots[0].Kind != quota.LotCarryOver {
		t.Errorf("want the carry-over alone, got %+v", u.Account.Lots)
	}
	f.change(keys, func(_ ledger.Batch, l *ledger.Ledger) {
		if !l.HadLots[gift.ID] {
			t.Error("the expired grant is forgotten")
		}
	})
	if got := f.count("SELECT revision FROM usage_periods WHERE period_no = 0"); got != 0 {
		t.Errorf("revision %d of a period that was closed and settled in one batch", got)
	}
}

func TestBusyAccountsAreSkippedOrWaitedFor(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice, bob := f.register("alice"), f.register("bob")
	held, err := f.Begin(t.Context(), ledger.Keys{Accounts: []quota.AccountID{alice}})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Rollback()
	b, err := f.Begin(t.Context(), ledger.Keys{Accounts: []quota.AccountID{alice, bob, {1}}})
	if err != nil {
		t.Fatal(err)
	}
	if !b.Busy()[alice] || len(b.Busy()) != 1 || b.Ledgers()[bob] == nil || len(b.Ledgers()) != 1 {
		t.Errorf("busy %v, ledgers %v", b.Busy(), b.Ledgers())
	}
	b.Rollback()

	used := make(chan quota.Credits)
	go func() {
		defer close(used)
		b, err := f.Begin(t.Context(), ledger.Keys{Accounts: []quota.AccountID{alice}, Wait: true})
		if err != nil {
			t.Error(err)
			return
		}
		defer b.Rollback()
		used <- quota.Credits(b.Ledgers()[alice].Account.Seq)
	}()
	for f.count(
		"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") == 0 {
		if t.Context().Err() != nil {
			t.Fatal("nobody waits")
		}
	}
	l := held.Ledgers()[alice]
	l.Account.Seq = 41
	if err := held.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := <-used; got != 41 {
		t.Errorf("who waited saw the state before: %d", got)
	}
}

// A batch that panics while it begins leaves no transaction behind: nobody else could end it.
func TestBeginLeavesNothingWhenItPanics(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice := f.register("alice")
	broken := false
	s, err := ledgerdb.Open(t.Context(), f.dsn, postgres.Options{AllowUnsafe: true, Now: func() time.Time {
		if broken {
			panic("by the test")
		}
		return f.clock.read()
	}})
	if err != nil {
		t.Fatal(err)
	}
	ledgertest.Close(t, s)
	broken = true
	func() {
		defer func() {
			if recover() == nil {
				t.Error("it did not panic")
			}
		}()
		_, _ = s.Begin(t.Context(), ledger.Keys{Accounts: []quota.AccountID{alice}})
	}()
	if n := s.Pool().Stat().AcquiredConns(); n > 0 {
		t.Errorf("%d connections are not given back", n)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice, bob := f.register("alice"), f.register("bob")
	keys := ledger.Keys{Accounts: []quota.AccountID{alice}}

	err := f.tryChange(t.Context(), keys, func(_ ledger.Batch, l *ledger.Ledger) { l.Account.Used = -1 })
	if !errors.Is(err, ledger.ErrData) {
		t.Errorf("a negative balance: want a data error, got %v", err)
	}
	own := func(l *ledger.Ledger) { l.Settings.QuotaUID = quota.ID{5} }
	f.declare(bob, own)
	second := func(_ ledger.Batch, l *ledger.Ledger) { own(l) }
	if err := f.tryChange(t.Context(), keys, second); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("one object for two accounts: want a conflict, got %v", err)
	}
	err = f.tryChange(t.Context(), keys, func(ledger.Batch, *ledger.Ledger) {
		f.exec(
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND state = " +
				"'idle in transaction'")
	})
	if !errors.Is(err, ledger.ErrUnknownOutcome) {
		t.Errorf("a lost connection: want an unknown outcome, got %v", err)
	}
	// The process of the connection that was lost may have its locks a moment longer.
	waiting := ledger.Keys{Accounts: keys.Accounts, Wait: true}
	f.change(waiting, func(ledger.Batch, *ledger.Ledger) {})

	// A lock that does not come in time is to be tried again.
	held, err := f.Begin(t.Context(), waiting)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Rollback()
	if second, err := f.Begin(t.Context(), waiting); err == nil {
		second.Rollback()
		t.Error("a lock timeout: want a retry, got a batch")
	} else if !errors.Is(err, ledger.ErrRetry) {
		t.Errorf("a lock timeout: want a retry, got %v", err)
	}
	b, err := f.Begin(t.Context(), ledger.Keys{Accounts: []quota.AccountID{bob}})
	if err != nil {
		t.Fatal(err)
	}
	b.Rollback()
	b.Rollback()
	if err := b.Commit(t.Context()); err == nil {
		t.Error("a commit after a rollback succeeded")
	}
	f.exec("UPDATE usage_quotas SET time_zone = 'Nowhere/Land' WHERE user_id = $1", bob)
	all, err := f.Accounts(t.Context(), []string{"bob"})
	if why := all["bob"].Unreadable; err != nil || why == nil ||
		!strings.Contains(why.Error(), `user "bob" cannot be read by this release: time zone "Nowhere/Land"`) {
		t.Errorf("an unknown zone: %v, %v", why, err)
	}
	f.exec("UPDATE usage_quotas SET time_zone = 'UTC' WHERE user_id = $1", bob)
}

func TestClockNeverGoesBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice := f.register("alice")
	f.clock.advance(time.Hour)
	f.enter(alice, quota.ID{1}, quota.Credit)
	f.clock.advance(-time.Minute)
	f.change(ledger.Keys{Accounts: []quota.AccountID{alice}}, func(_ ledger.Batch, l *ledger.Ledger) {
		if want := f.clock.read().Add(time.Minute); !l.Now.Equal(want) {
			t.Errorf("now %s, the last decision was at %s", l.Now, want)
		}
	})
}

func TestDue(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 5 {
		id := f.register(fmt.Sprintf("user-%d", i))
		f.enter(id, quota.ID{byte(i), 1}, quota.Credit)
		f.enter(id, quota.ID{byte(i), 2}, quota.Credit)
	}
	all := func(what ledger.Due) (accounts, total int) {
		var after quota.ID
		seen := map[quota.ID]bool{}
		for {
			page, err := f.Due(t.Context(), what, after, 2)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				return len(seen), total
			}
			for _, c := range page {
				seen[c.Account] = true
			}
			total += len(page)
			after = page[len(page)-1].Account
		}
	}
	expect := func(what ledger.Due, accounts, total int) {
		t.Helper()
		if a, n := all(what); a != accounts || n != total {
			t.Errorf("%v: want %d in %d accounts, got %d in %d", what, total, accounts, n, a)
		}
	}
	expect(ledger.DueLease, 0, 0)
	expect(ledger.DueQueue, 0, 0)
	expect(ledger.DueQueued, 5, 5)
	ended := func(plan string, want int) {
		t.Helper()
		first, err := f.DuePeriods(t.Context(), plan, quota.ID{}, 2)
		if err != nil {
			t.Fatal(err)
		}
		rest := []quota.AccountID{}
		if len(first) > 0 {
			if rest, err = f.DuePeriods(t.Context(), plan, first[len(first)-1], 9); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(first) + len(rest); got != want {
			t.Errorf("ended periods of plan %s: want %d, got %d", plan, want, got)
		}
	}
	ended("free", 0)
	f.clock.advance(2 * time.Minute)
	expect(ledger.DueLease, 5, 10)
	f.clock.advance(40 * 24 * time.Hour)
	expect(ledger.DueQueue, 5, 5)
	ended("free", 5)
	ended("pro", 0)
	if _, err := f.Due(t.Context(), "nonsense", quota.ID{}, 1); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestDueQueueAtTheNextDay(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p := plan("free")
	p.DailyCostCeiling = quota.AtMost[quota.Money](6_000)
	if err := f.ApplyPlan(t.Context(), p, "test"); err != nil {
		t.Fatal(err)
	}
	alice := f.register("alice")
	f.enter(alice, quota.ID{1}, quota.Credit)
	f.enter(alice, quota.ID{2}, quota.Credit)
	f.settle(alice, quota.ID{1}, quota.Credit)
	if due, err := f.Due(t.Context(), ledger.DueQueue, quota.ID{}, 9); err != nil || len(due) != 0 {
		t.Errorf("the same day: %v, %v", due, err)
	}
	f.clock.advance(12 * time.Hour)
	if due, err := f.Due(t.Context(), ledger.DueQueue, quota.ID{}, 9); err != nil || len(due) != 1 ||
		due[0].Account != alice {
		t.Errorf("the next day: %v, %v", due, err)
	}
}

func TestNotify(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan ledger.Change, 1000)
	ended := make(chan error, 1)
	go func() { ended <- f.Listen(ctx, func(c ledger.Change) { got <- c }) }()
	if c := <-got; c != (ledger.Change{}) {
		t.Fatalf("who begins to listen is told %+v, not that changes may have been missed", c)
	}
	// Far more than fit one notification.
	var changes []ledger.Change
	for i := range 500 {
		changes = append(changes, ledger.Change{
			ID: quota.ID{byte(i), byte(i >> 8)}, Namespace: "jobs", Name: strings.Repeat("n", 60),
			State: quota.Admitted,
		})
	}
	if err := f.Notify(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	for i, want := range changes {
		if c := <-got; c != want {
			t.Fatalf("change %d: want %+v, got %+v", i, want, c)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("listening ended with %v", err)
	}
}

func TestLeaseKeyAndPing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first, err := f.LeaseKey(t.Context())
	if err != nil || len(first) < 32 {
		t.Fatalf("%x, %v", first, err)
	}
	if second, err := f.open().LeaseKey(t.Context()); err != nil || string(second) != string(first) {
		t.Errorf("another replica has another key: %v", err)
	}
	if err := f.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// Behind a transaction pooler statements cannot be kept prepared by name; these modes of the driver do without.
func TestWithoutPreparedStatements(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"cache_describe", "describe_exec"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			separator := "?"
			if strings.Contains(f.dsn, "?") {
				separator = "&"
			}
			f.dsn += separator + "default_query_exec_mode=" + mode
			f.Store = f.open()
			alice := f.register("alice")
			f.enter(alice, quota.ID{1}, quota.Credit)
			f.enter(alice, quota.ID{2}, quota.Credit)
			f.settle(alice, quota.ID{1}, quota.Credit)
			f.clock.advance(31 * 24 * time.Hour)
			f.settle(alice, quota.ID{2}, 0)
			if u := f.usage("alice"); u.Last == nil || u.Last.Used != quota.Credit {
				t.Errorf("%+v", u)
			}
			if n := f.count("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''"); n != 0 {
				t.Errorf("%d statements stay prepared in the session", n)
			}
			if err := f.Notify(t.Context(), []ledger.Change{{ID: quota.ID{1}, State: quota.Settled}}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEnsurePartitions(t *testing.T) {
	t.Parallel()
	s := newFixture(t).Store
	ctx := t.Context()
	next := "usage_tracking_" + time.Now().UTC().AddDate(0, 1, 1-time.Now().UTC().Day()).Format("200601")
	for range 2 { // the second time there is nothing to do
		if err := s.EnsurePartitions(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Pool().Exec(ctx, "DROP TABLE "+next); err != nil {
		t.Fatal(err)
	}
	if err := s.EnsurePartitions(ctx); err != nil {
		t.Fatal(err)
	}
	var there bool
	if err := s.Pool().QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", next).Scan(&there); err != nil || !there {
		t.Errorf("the partition %s is missing: %v", next, err)
	}
}

// TestEnsurePartitionsTakesInWhatCameEarly: events of a month without a partition go to the default one, and its
// partition is made all the same.
func TestEnsurePartitionsTakesInWhatCameEarly(t *testing.T) {
	t.Parallel()
	f := newCorruptible(t)
	now := time.Now().UTC()
	current := "usage_tracking_" + now.Format("200601")
	f.exec("DROP TABLE " + current)
	f.exec(`INSERT INTO usage_tracking (id, recorded_at, user_id, period_id, kind, usage_type, admission_id,
	    occurred_at, credits, plan_part, currency, plan_name, plan_version, seq)
		SELECT gen_random_uuid(), at, gen_random_uuid(), 0, 'charge', 'transcription', gen_random_uuid(), at, 1, 1,
		    'USD', 'free', 1, 1
		FROM unnest($1::timestamptz[]) AS at`, []time.Time{now, now.AddDate(-1, 0, 0)})
	if err := f.EnsurePartitions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.count("SELECT count(*) FROM " + current); n != 1 {
		t.Errorf("want this month's event in its partition, got %d there", n)
	}
	if n := f.count("SELECT count(*) FROM usage_tracking_default"); n != 1 {
		t.Errorf("want last year's event left alone, got %d in the default partition", n)
	}
}

// A call that is made again while the commit of its first try is still under way finds the account made.
func TestRegisteredByAnEarlierTry(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := quota.AccountID{7}
	keys := ledger.Keys{Register: []ledger.Registration{{Account: id, UserID: "alice"}}, Plans: []string{""}}
	var tries [2]ledger.Batch
	for i := range tries {
		b, err := f.Begin(t.Context(), keys)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Rollback()
		b.Ledgers()[id].Open(b.Plan(""), quota.SystemActor)
		tries[i] = b
	}
	if err := tries[0].Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := tries[1].Commit(t.Context()); !errors.Is(err, ledger.ErrRegistered) {
		t.Errorf("got %v, want %v", err, ledger.ErrRegistered)
	}
}
