// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

func jobRequest(user string, id quota.ID, estimate quota.Credits) metering.AdmitRequest {
	return metering.AdmitRequest{
		UserID: user, ID: id, Source: quota.SourceJob, Namespace: "ns", Name: "job", RequestedBy: "test",
		Estimate: estimate, Queue: true, Park: true, Lease: metering.JobLease,
	}
}

// A holder that is lost: its slot is back as soon as the reaper has come by after the end of its lease, and not before.
func TestLostHolder(t *testing.T) {
	w := newWorld(t)
	lost := w.admit("alice", "lost", quota.Credit).Admission
	next := w.admit("alice", "next", quota.Credit).Admission
	w.advance(quota.DefaultLease)
	if _, err := w.Heartbeat(t.Context(), next.Account, next.ID); err != nil {
		t.Fatal(err)
	}
	w.reap()
	w.wantState(lost.ID, quota.Admitted)
	w.wantState(next.ID, quota.Queued)
	w.advance(time.Millisecond)
	w.reap()
	w.wantState(lost.ID, quota.Expired)
	w.wantState(next.ID, quota.Admitted)
	w.wantUsage("alice", 0, quota.Credit, 1)
}

// A manager that was away does not expire the Jobs that ran on; meanwhile it shows that nobody sees them.
func TestJobsOutliveAManagerThatIsAway(t *testing.T) {
	w := newWorld(t)
	id := quota.ID{7}
	if _, err := w.Admit(t.Context(), jobRequest("alice", id, 20*quota.Credit)); err != nil {
		t.Fatal(err)
	}
	w.advance(29 * time.Minute)
	w.wantStuck(id, "")
	w.advance(2 * time.Minute)
	w.wantStuck(id, quota.StuckNoHeartbeat)
	w.advance(5 * time.Hour)
	w.reap()
	w.wantState(id, quota.Admitted)
	w.wantUsage("alice", 0, 20*quota.Credit, 1)

	// It is back, and sees the Job.
	jobs, err := w.store.LiveJobs(t.Context(), quota.ID{})
	if err != nil || len(jobs) != 1 || jobs[0].Stuck != quota.StuckNoHeartbeat {
		t.Fatalf("LiveJobs = %+v, %v", jobs, err)
	}
	if err := w.RenewJobs(t.Context(), jobs); err != nil {
		t.Fatal(err)
	}
	w.wantStuck(id, quota.StuckOverEstimate)
	w.settleJob(id, 20*quota.Credit)
	w.wantStuck(id, "")
	w.wantUsage("alice", 20*quota.Credit, 0, 0)
}

func (w *world) wantStuck(id quota.ID, want quota.Stuck) {
	w.t.Helper()
	adm, err := w.Get(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	if adm.Stuck != want {
		w.t.Errorf("stuck: got %q, want %q", adm.Stuck, want)
	}
	counts, err := w.Stuck(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, reason := range quota.StuckReasons {
		n := 0
		if reason == want {
			n = 1
		}
		if got, ok := counts[reason]; got != n || !ok {
			w.t.Errorf("stuck for %s: got %d, want %d", reason, got, n)
		}
	}
}

// What the database finds stuck is what StuckAt takes for it, to the microsecond; first comes what was admitted first.
func TestStuckIsFoundByTheRule(t *testing.T) {
	w := newWorld(t)
	var admitted []*ledger.Admission
	var turns []time.Time
	for i, of := range []struct {
		lease    time.Duration
		estimate quota.Credits
	}{
		{time.Minute, quota.Credit}, {time.Minute, 20 * quota.Credit}, {4 * time.Minute, 3 * quota.Credit},
		{time.Hour, 1}, {time.Hour, quota.Credit}, {time.Hour, 10 * quota.Credit / 3},
		{time.Hour, 10*quota.Credit/3 + 1}, {time.Hour, 29 * quota.Credit},
	} {
		req := request(fmt.Sprintf("user%d", i%2), fmt.Sprint(i), of.estimate)
		req.WarnOnly, req.Lease = true, of.lease
		res, err := w.Admit(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		adm := res.Admission
		admitted = append(admitted, adm)
		turns = append(turns, adm.LeaseUntil.Add(2*of.lease), adm.AdmittedAt.Add(quota.StuckAfter),
			adm.AdmittedAt.Add(3*of.estimate.Audio()))
		if i%3 > 0 {
			w.advance(time.Second) // some at the same instant
		}
	}
	slices.SortFunc(admitted, func(a, b *ledger.Admission) int {
		return cmp.Or(a.AdmittedAt.Compare(b.AdmittedAt), bytes.Compare(a.ID[:], b.ID[:]))
	})
	slices.SortFunc(turns, time.Time.Compare)
	for _, turn := range turns {
		for _, at := range []time.Time{turn.Add(-time.Microsecond), turn, turn.Add(time.Microsecond)} {
			w.advance(max(0, at.Sub(w.now())))
			for _, user := range []string{"", "user0", "user1"} {
				var want, got []string
				for _, adm := range admitted {
					if why := adm.StuckAt(w.now()); why != "" && (user == "" || user == adm.UserID) {
						want = append(want, fmt.Sprint(adm.ID, why))
					}
				}
				for after := new(ledger.Admission); after != nil; {
					page, err := w.store.StuckAdmissions(t.Context(), user, after.AdmittedAt, after.ID, 3)
					if err != nil {
						t.Fatal(err)
					}
					after = nil
					for _, adm := range page {
						got, after = append(got, fmt.Sprint(adm.ID, adm.Stuck)), adm
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s after the first, of %q: got %q, want %q", w.now().Sub(admitted[0].AdmittedAt), user,
						got, want)
				}
			}
		}
	}
}

// The count goes through any number of rows, of one account or of many.
func TestStuckIsCountedToTheEnd(t *testing.T) {
	w := newWorld(t)
	const each, users = 700, 2
	var admitted sync.WaitGroup
	for i := range each * users {
		admitted.Go(func() {
			req := request(fmt.Sprintf("user%d", i%users), fmt.Sprint(i), quota.Credit)
			req.WarnOnly = true
			if _, err := w.Admit(t.Context(), req); err != nil {
				t.Error(err)
			}
		})
	}
	admitted.Wait()
	w.advance(time.Hour)
	counts, err := w.Stuck(t.Context())
	if err != nil || counts[quota.StuckNoHeartbeat] != each*users {
		t.Errorf("got %v, %v, want %d", counts, err, each*users)
	}
	w.reap()
	if counts, err = w.Stuck(t.Context()); err != nil || counts[quota.StuckNoHeartbeat] != 0 {
		t.Errorf("after the reaper: %v, %v, want none", counts, err)
	}
}
