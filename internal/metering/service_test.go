// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
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

func TestAdmitCompleteChargesWhatWasUsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	res := w.admit("alice", "k1", 10*quota.Credit)
	if res.Decision.Outcome != quota.Admit || !res.Created {
		t.Fatalf("want a new admission, got %+v", res.Decision)
	}
	w.wantUsage("alice", 0, 10*quota.Credit, 1)
	adm, err := w.Complete(t.Context(), res.Admission.Account, res.Admission.ID, 7*quota.Credit)
	if err != nil || adm.State != quota.Settled {
		t.Fatalf("complete: %+v, %v", adm, err)
	}
	w.wantUsage("alice", 7*quota.Credit, 0, 0)

	t.Run("again", func(t *testing.T) {
		if _, err := w.Complete(t.Context(), quota.ID{}, res.Admission.ID, 7*quota.Credit); err != nil {
			t.Errorf("the same actual again: %v", err)
		}
		if _, err := w.Complete(t.Context(), quota.ID{}, res.Admission.ID, 8*quota.Credit); !errors.Is(err,
			quota.ErrConflict) {
			t.Errorf("another actual: want a conflict, got %v", err)
		}
		w.wantUsage("alice", 7*quota.Credit, 0, 0)
	})
}

func TestKeyIsOneAdmission(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.admit("alice", "k", quota.Credit)
	again := w.admit("alice", "k", quota.Credit)
	if again.Created || again.Admission.ID != first.Admission.ID {
		t.Errorf("the same key made a second admission: %+v", again.Admission)
	}
	other := request("alice", "k", quota.Credit)
	other.BodyHash = []byte("another body")
	if _, err := w.Admit(t.Context(), other); !errors.Is(err, ledger.ErrKeyReused) {
		t.Errorf("the same key with another body: want ErrKeyReused, got %v", err)
	}
	if elsewhere := w.admit("bob", "k", quota.Credit); elsewhere.Admission.ID == first.Admission.ID {
		t.Error("two users share an admission by their key")
	}
	w.wantUsage("alice", 0, quota.Credit, 1)
}

func TestRefusalBooksNothingAndNamesTheUpgrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	res := w.admit("alice", "k", 31*quota.Credit)
	if res.Admission != nil || res.Decision.Reason != quota.CreditsExhausted {
		t.Fatalf("want a refusal for credits, got %+v", res.Decision)
	}
	if res.Upgrade == nil || res.Upgrade.Name != "pro" {
		t.Errorf("want the upgrade to pro, got %+v", res.Upgrade)
	}
	w.wantUsage("alice", 0, 0, 0)
	// Refusals are not remembered: after a grant the same key succeeds.
	w.quota(metering.Quota{ObjectUID: quota.ID{1}, ObjectName: "alice", UserID: "alice", Zone: "UTC",
		Grants: map[string]metering.Grant{
			"sorry": {Credits: 5 * quota.Credit},
		}})
	if res := w.admit("alice", "k", 31*quota.Credit); res.Admission == nil {
		t.Errorf("after the grant: %+v", res.Decision)
	}
}

func TestQueueIsServedInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.admit("alice", "0", quota.Credit)
	var waiting []metering.AdmitResult
	for i := 1; i <= 3; i++ {
		res := w.admit("alice", fmt.Sprint(i), quota.Credit)
		if res.Decision.Outcome != quota.Wait || res.Admission.Position != i {
			t.Fatalf("want place %d in the queue, got %+v at %d", i, res.Decision, res.Admission.Position)
		}
		waiting = append(waiting, res)
	}
	changes := w.Subscribe(t.Context())
	if _, err := w.Complete(t.Context(), quota.ID{}, first.Admission.ID, quota.Credit); err != nil {
		t.Fatal(err)
	}
	if c := <-changes; c.ID != waiting[0].Admission.ID || c.State != quota.Admitted {
		t.Errorf("want the first of the queue admitted, got %+v", c)
	}
	// One that leaves the queue moves those behind it up, and a freed slot passes it by.
	if _, err := w.Release(t.Context(), quota.ID{}, waiting[1].Admission.ID); err != nil {
		t.Fatal(err)
	}
	if adm, err := w.Get(t.Context(), waiting[2].Admission.ID); err != nil || adm.Position != 1 {
		t.Errorf("want place 1, got %+v, %v", adm, err)
	}
	if _, err := w.Release(t.Context(), quota.ID{}, waiting[0].Admission.ID); err != nil {
		t.Fatal(err)
	}
	if adm, err := w.Wait(t.Context(), waiting[2].Admission.ID, time.Now().Add(time.Minute)); err != nil ||
		adm.State != quota.Admitted {
		t.Errorf("want the last one admitted, got %+v, %v", adm, err)
	}
}

// Who does not hold an admission gives back what it holds, once and for a reason.
func TestForceRelease(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	res := w.admit("alice", "1", 20*quota.Credit)
	waiting := w.admit("alice", "2", quota.Credit)
	release := func(id quota.AdmissionID, reason string) (*ledger.Admission, error) {
		return w.ForceRelease(t.Context(), quota.ID{}, id, reason, "oda")
	}
	for reason, want := range map[string]string{
		"": "reason: must not be empty", strings.Repeat("x", quota.MaxReason+1): "reason: has 257 ",
	} {
		if _, err := release(res.Admission.ID, reason); !errors.Is(err, ledger.ErrInvalid) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%.5q: got %v, want %s", reason, err, want)
		}
	}
	for _, tc := range []struct {
		adm  *ledger.Admission
		want quota.State
	}{{waiting.Admission, quota.Cancelled}, {res.Admission, quota.Released}} {
		adm, want := tc.adm, tc.want
		got, err := release(adm.ID, "its worker is gone")
		if err != nil || got.State != want || got.ReleaseReason != "its worker is gone" {
			t.Errorf("got %+v, %v, want %s", got, err, want)
		}
		if got, err = w.Get(t.Context(), adm.ID); err != nil || got.ReleaseReason != "its worker is gone" {
			t.Errorf("read again: %+v, %v", got, err)
		}
		if _, err := release(adm.ID, "again"); !errors.Is(err, quota.ErrConflict) {
			t.Errorf("again: got %v, want a conflict", err)
		}
	}
	if u := w.usage("alice"); u.Account.Reserved != 0 || u.Account.Active != 0 || u.Account.Queued != 0 {
		t.Errorf("held still: %+v", u.Account)
	}
	if n := count(t, w.dsn, "SELECT count(*) FROM audit_log WHERE action = 'admission.released'"); n != 2 {
		t.Errorf("%d audit rows, want 2", n)
	}
}

func TestWaitWakesUpOnAnotherReplicasChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := newService(w.open(t), metering.Options{AutoRegister: true})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, s := range []*metering.Service{w.Service, other} {
		running.Go(func() { _ = s.Run(ctx) })
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	first := w.admit("alice", "1", quota.Credit)
	second := w.admit("alice", "2", quota.Credit)
	done := make(chan quota.State)
	go func() {
		adm, err := other.Wait(ctx, second.Admission.ID, time.Now().Add(time.Minute))
		if err != nil {
			t.Error(err)
		}
		done <- adm.State
	}()
	if _, err := w.Complete(ctx, quota.ID{}, first.Admission.ID, 0); err != nil {
		t.Fatal(err)
	}
	if got := <-done; got != quota.Admitted {
		t.Errorf("want Admitted, got %s", got)
	}
}

func TestLapsedLeaseReturnsTheSlot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	res := w.admit("alice", "1", 2*quota.Credit)
	queued := w.admit("alice", "2", quota.Credit)
	w.advance(quota.DefaultLease - time.Second)
	if _, err := w.Heartbeat(t.Context(), quota.ID{}, queued.Admission.ID); err != nil {
		t.Fatal(err)
	}
	w.reap()
	w.wantState(res.Admission.ID, quota.Admitted)
	w.advance(2 * time.Second)
	w.reap()
	w.wantState(res.Admission.ID, quota.Expired)
	w.wantState(queued.Admission.ID, quota.Admitted)
	adm, err := w.Complete(t.Context(), quota.ID{}, res.Admission.ID, quota.Credit)
	if err != nil || !adm.Late {
		t.Errorf("want a late charge, got %+v, %v", adm, err)
	}
	w.wantUsage("alice", quota.Credit, quota.Credit, 1)
}

func TestJobReportIsChargedByTheController(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	job := func(id byte) quota.ID {
		req := request("alice", "", 3*quota.Credit)
		req.ID, req.Source, req.BodyHash, req.Lease = quota.ID{id}, quota.SourceJob, nil, metering.JobLease
		res, err := w.Admit(t.Context(), req)
		if err != nil || res.Decision.Outcome != quota.Admit {
			t.Fatalf("%+v, %v", res.Decision, err)
		}
		return req.ID
	}
	reported := job(1)
	if adm, err := w.Complete(t.Context(), quota.ID{}, reported, 2*quota.Credit); err != nil ||
		adm.State != quota.Admitted {
		t.Fatalf("a report must not end a Job's admission: %+v, %v", adm, err)
	}
	w.settleJob(reported, 3*quota.Credit)
	w.wantUsage("alice", 2*quota.Credit, 0, 0)
	completed := job(2)
	w.settleJob(completed, 3*quota.Credit)
	w.settleJob(completed, 3*quota.Credit)
	w.wantUsage("alice", 5*quota.Credit, 0, 0)
	failed := job(3)
	w.advance(time.Hour)
	w.reap()
	w.wantState(failed, quota.Admitted) // only the controller ends a Job's admission
	w.settleJob(failed, 0)
	w.wantState(failed, quota.Released)
	w.wantUsage("alice", 5*quota.Credit, 0, 0)
}

// An HTTP caller that is a service account has a namespace and a name as a Job has. The controller must neither hear of
// its admission as of a Job, nor be able to end it as one that is gone.
func TestAdmissionsOverHTTPAreNotJobs(t *testing.T) {
	w := newWorld(t)
	changes := w.Subscribe(t.Context())
	first := w.admit("alice", "first", quota.Credit)
	req := request("alice", "second", quota.Credit)
	req.Namespace, req.Name = "transcripts", "transcriber"
	second, err := w.Admit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Complete(t.Context(), quota.ID{}, first.Admission.ID, quota.Credit); err != nil {
		t.Fatal(err)
	}
	want := ledger.Change{ID: second.Admission.ID, State: quota.Admitted}
	if got := <-changes; got != want {
		t.Errorf("the change of an admission over HTTP: got %+v, want %+v", got, want)
	}
	if _, err := w.SettleJob(t.Context(), second.Admission.ID, 0); !errors.Is(err, quota.ErrConflict) {
		t.Errorf("settle it as a Job: got %v, want a conflict", err)
	}
	w.wantState(second.Admission.ID, quota.Admitted)
}

func TestPeriodRollsWhenItIsTouched(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	used := w.admit("alice", "1", 20*quota.Credit)
	if _, err := w.Complete(t.Context(), quota.ID{}, used.Admission.ID, 20*quota.Credit); err != nil {
		t.Fatal(err)
	}
	across := w.admit("alice", "2", 10*quota.Credit)
	w.advance(31 * 24 * time.Hour)
	u := w.usage("alice")
	if u.Account.Used != 0 || u.Last == nil || u.Last.Used != 20*quota.Credit {
		t.Errorf("reads must roll by themselves: %+v", u)
	}
	if _, err := w.Complete(t.Context(), quota.ID{}, across.Admission.ID, 4*quota.Credit); err != nil {
		t.Fatal(err)
	}
	w.wantUsage("alice", 0, 0, 0)
	if u := w.usage("alice"); u.Last.Used != 24*quota.Credit || u.Last.Reserved != 0 {
		t.Errorf("late work belongs to its own period, got %+v", u.Last)
	}
}

func TestQuota(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	two := quota.AtMost(int32(2))
	q := metering.Quota{
		ObjectUID: quota.ID{1}, ObjectName: "alice", UserID: "alice", PlanName: "pro", Zone: "Asia/Hong_Kong",
		Overrides: quota.Overrides{Concurrent: &two}, Anchor: w.now().AddDate(0, -3, -7),
		Grants: map[string]metering.Grant{"welcome": {Credits: 5 * quota.Credit, ExpiresAt: w.now().Add(time.Hour)}},
	}
	w.quota(q)
	w.quota(q)
	a := w.usage("alice").Account
	if a.Plan.Name != "pro" || a.Limits().Concurrent.Max != 2 || len(a.Lots) != 1 ||
		a.Zone.String() != "Asia/Hong_Kong" {
		t.Errorf("got %+v", a)
	}
	if want := (quota.Calendar{Anchor: q.Anchor, Zone: a.Zone}).At(w.now()); !cmp.Equal(a.Period, want) {
		t.Errorf("want the period %+v, got %+v", want, a.Period)
	}
	second := q
	second.ObjectUID, second.ObjectName = quota.ID{2}, "usurper"
	if err := w.ApplyQuota(t.Context(), second, "test"); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("a second object for one user: want a conflict, got %v", err)
	}
	unknown := q
	unknown.PlanName = "gold"
	if err := w.ApplyQuota(t.Context(), unknown, "test"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("an unknown plan: want ErrNotFound, got %v", err)
	}

	w.advance(2 * time.Hour)
	if err := w.RemoveQuota(t.Context(), q.ObjectUID, "test"); err != nil {
		t.Fatal(err)
	}
	if a := w.usage("alice").Account; a.Plan.Name != "free" || a.Limits().Concurrent.Max != 1 {
		t.Errorf("after the object is gone: %+v", a)
	}
	w.quota(second)
	if a := w.usage("alice").Account; a.Remaining(w.now()).Max != 500*quota.Credit {
		t.Errorf("a grant that has expired was given again: %+v", a.Lots)
	}
}

func TestRetiredPlanKeepsItsUsersAndTakesNoOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	on := func(user string, uid byte) metering.Quota {
		return metering.Quota{ObjectUID: quota.ID{uid}, ObjectName: user, UserID: user, PlanName: "pro", Zone: "UTC"}
	}
	w.quota(on("alice", 1))
	if err := w.RetirePlan(t.Context(), "pro", quota.ID{}, "test"); err != nil {
		t.Fatal(err)
	}
	w.quota(on("alice", 1))
	if err := w.ApplyQuota(t.Context(), on("bob", 2), "test"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("want ErrNotFound, got %v", err)
	}
	if a := w.usage("alice").Account; a.Plan.Name != "pro" {
		t.Errorf("alice lost her plan: %s", a.Plan.Name)
	}
}

func TestSuspendedUserParksJobsUntilLifted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	q := metering.Quota{ObjectUID: quota.ID{1}, ObjectName: "alice", UserID: "alice", Zone: "UTC", Suspended: true}
	w.quota(q)
	req := request("alice", "k", quota.Credit)
	req.Park = true
	res, err := w.Admit(t.Context(), req)
	if err != nil || res.Admission == nil || !res.Admission.Parked || res.Decision.Reason != quota.UserSuspended {
		t.Fatalf("want it parked, got %+v, %v", res, err)
	}
	q.Suspended = false
	w.quota(q)
	w.wantState(res.Admission.ID, quota.Admitted)
}

func TestSecondDefaultPlan(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := plans.Free()
	p.Name, p.ObjectUID = "other", quota.ID{9}
	if _, err := w.ApplyPlan(t.Context(), p, "test"); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("want a conflict, got %v", err)
	}
}

func TestPlanChangeStartsWhoWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.admit("alice", "1", quota.Credit)
	queued := w.admit("alice", "2", quota.Credit)
	p := plans.Free()
	p.Limits.Concurrent.Max = 2
	st, err := w.ApplyPlan(t.Context(), p, "test")
	if err != nil || st.Version != 2 || st.Users != 1 || !cmp.Equal(st.FirstUsers, []string{"alice"}) {
		t.Errorf("got %+v, %v", st, err)
	}
	w.wantState(queued.Admission.ID, quota.Admitted)
}

// TestManyClients lets many clients fight for the slots and credits of few users over two replicas, with every call
// made twice. The invariant checker does the rest.
func TestManyClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	replicas := []*metering.Service{w.Service, newService(w.open(t), metering.Options{AutoRegister: true})}
	var wg sync.WaitGroup
	var charged atomic.Int64
	for c := range 24 {
		wg.Go(func() {
			for i := range 12 {
				user, key := fmt.Sprintf("user-%d", (c+i)%3), fmt.Sprintf("%d/%d", c, i)
				req := request(user, key, quota.Credit/2)
				req.Queue = c%2 == 0
				res, err := replicas[i%2].Admit(t.Context(), req)
				again, err2 := replicas[(i+1)%2].Admit(t.Context(), req)
				if err != nil || err2 != nil {
					t.Errorf("admit: %v, %v", err, err2)
					return
				}
				if again.Admission != nil {
					res = again
				}
				if res.Admission == nil {
					continue
				}
				id := res.Admission.ID
				if res.Admission.State == quota.Queued {
					if _, err := replicas[c%2].Release(t.Context(), quota.ID{}, id); err != nil &&
						!errors.Is(err, quota.ErrConflict) {
						t.Errorf("release: %v", err)
					}
					continue
				}
				for _, r := range replicas {
					if _, err := r.Complete(t.Context(), quota.ID{}, id, quota.Credit/4); err != nil {
						t.Errorf("complete: %v", err)
					}
				}
				charged.Add(int64(quota.Credit / 4))
			}
		})
	}
	wg.Wait()
	var used quota.Credits
	for i := range 3 {
		used += w.usage(fmt.Sprintf("user-%d", i)).Account.Used
	}
	if int64(used) != charged.Load() {
		t.Errorf("clients were told of %s credits, the accounts have %s", quota.Credits(charged.Load()), used)
	}
}
