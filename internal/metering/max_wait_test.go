// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// patient gives the free plan a longest wait, room for a long queue and leases that outlive the test's steps.
func (w *world) patient(most time.Duration) {
	w.t.Helper()
	w.plan(plans.Free(func(p *metering.Plan) {
		p.MaxWait, p.Limits.Queued = most, quota.AtMost[int32](2*longQueue)
		p.DailyCostCeiling.Unlimited = true
	}))
}

// sends asks for work with the longest lease, which is to come to that state.
func (w *world) sends(
	state quota.State, key string, estimate quota.Credits, edit ...func(*metering.AdmitRequest),
) *ledger.Admission {
	w.t.Helper()
	req := request("alice", key, estimate)
	req.Lease = quota.MaxLease
	for _, e := range edit {
		e(&req)
	}
	res, err := w.Admit(w.t.Context(), req)
	if err != nil || res.Admission == nil || res.Admission.State != state {
		w.t.Fatalf("%s: got %+v, %v", key, res, err)
	}
	return res.Admission
}

func asJob(n byte) func(*metering.AdmitRequest) {
	return func(r *metering.AdmitRequest) {
		r.ID, r.Key, r.BodyHash = quota.ID{0x0b, n}, "", nil
		r.Source, r.Park, r.Namespace, r.Name = quota.SourceJob, true, "jobs", fmt.Sprint(n)
	}
}

func TestWhatWaitsTooLongIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.patient(30 * time.Minute)
	w.sends(quota.Admitted, "running", 20*quota.Credit)
	waiting := w.sends(quota.Queued, "waiting", quota.Credit)
	parked := w.sends(quota.Queued, "", 25*quota.Credit, asJob(1))
	w.advance(30 * time.Minute)
	later := w.sends(quota.Queued, "later", quota.Credit)
	changes := w.Subscribe(t.Context())
	heard := make(chan *ledger.Admission, 1)
	go func() {
		// Hears of it from the batch, not from the clock: the poll comes every 5 s only.
		adm, err := w.Wait(t.Context(), waiting.ID, time.Now().Add(time.Minute))
		if err != nil {
			t.Error(err)
		}
		heard <- adm
	}()
	w.reap()
	w.wantState(waiting.ID, quota.Queued) // exactly as long as it may

	w.advance(time.Microsecond)
	w.reap()
	w.reap()
	for id, reason := range map[quota.AdmissionID]quota.Reason{
		waiting.ID: quota.ConcurrencyLimit, parked.ID: quota.CreditsExhausted,
	} {
		adm, err := w.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("it waited 30m0s (%s), the plan lets work wait 30m0s at most", reason)
		if adm.State != quota.Cancelled || adm.Reason != quota.WaitedTooLong || adm.Overdue().Message() != want {
			t.Errorf("got %s, %s, %q, want %q", adm.State, adm.Reason, adm.Overdue().Message(), want)
		}
		again, err := w.Admit(t.Context(), request("alice", "waiting", quota.Credit))
		if err != nil || again.Created || again.Admission.State != quota.Cancelled {
			t.Errorf("the same again: %+v, %v", again, err)
		}
	}
	w.wantState(later.ID, quota.Queued)
	if a := w.usage("alice").Account; a.Active != 1 || a.Queued != 1 || a.Parked != 0 {
		t.Errorf("got %d running, %d queued, %d parked", a.Active, a.Queued, a.Parked)
	}
	if adm := <-heard; adm.State != quota.Cancelled {
		t.Errorf("who waited heard %s", adm.State)
	}
	wantTold(t, changes, map[quota.AdmissionID]string{waiting.ID: "", parked.ID: "jobs/1"})
}

// wantTold reads what subscribers were told: that these were cancelled, each once and with its Job, and nothing else.
func wantTold(t *testing.T, changes <-chan ledger.Change, want map[quota.AdmissionID]string) {
	t.Helper()
	for len(changes) > 0 {
		c := <-changes
		job, ok := want[c.ID]
		if told := c.Namespace + "/" + c.Name; !ok || c.State != quota.Cancelled || job != "" && told != job {
			t.Errorf("told %+v", c)
		}
		delete(want, c.ID)
	}
	if len(want) > 0 {
		t.Errorf("nobody was told of %v", want)
	}
}

// What is deep in a long queue is found as well, whoever looks, and by several at once it is refused once.
func TestLongQueueIsRefusedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.patient(30 * time.Minute)
	w.sends(quota.Admitted, "running", quota.Credit)
	first := w.sends(quota.Queued, "first", quota.Credit)
	w.advance(time.Minute)
	told := map[quota.AdmissionID]string{}
	for i := range longQueue {
		req := func(r *metering.AdmitRequest) { r.Priority = 1 }
		if i >= 2*ledger.QueuePage {
			req = func(*metering.AdmitRequest) {}
		}
		told[w.sends(quota.Queued, fmt.Sprint(i), quota.Credit, req).ID] = ""
	}
	other := newService(w.open(t), metering.Options{})
	changes, others := w.Subscribe(t.Context()), other.Subscribe(t.Context())

	w.advance(29*time.Minute + time.Second) // only the first one has waited for too long, and it is in the midst now
	w.reap()
	wantTold(t, changes, map[quota.AdmissionID]string{first.ID: ""})
	if a := w.usage("alice").Account; a.Queued != longQueue {
		t.Errorf("%d are queued, want %d", a.Queued, longQueue)
	}

	w.advance(time.Minute)
	var both sync.WaitGroup
	for _, s := range []*metering.Service{w.Service, other} {
		both.Go(func() {
			if err := s.Reap(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if a := w.usage("alice").Account; a.Active != 1 || a.Queued != 0 {
		t.Errorf("%d are running, %d queued", a.Active, a.Queued)
	}
	merged := make(chan ledger.Change, len(changes)+len(others))
	for _, from := range []<-chan ledger.Change{changes, others} {
		for len(from) > 0 {
			merged <- <-from
		}
	}
	if len(merged) != longQueue {
		t.Errorf("%d changes were told, want %d", len(merged), longQueue)
	}
	wantTold(t, merged, told)
}

// The wait begins with the arrival, after a return to the queue with that. What is metered only is not refused, and a
// shorter bound holds for what waits already.
func TestWhenTheWaitBegins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.patient(30 * time.Minute)
	job := request("alice", "", quota.Credit)
	asJob(1)(&job)
	started, err := w.Admit(t.Context(), job)
	if err != nil || started.Admission.State != quota.Admitted {
		t.Fatalf("got %+v, %v", started, err)
	}
	w.sends(quota.Queued, "next", quota.Credit)
	w.advance(20 * time.Minute)
	back, err := w.Requeue(t.Context(), started.Admission.ID, started.Admission.AdmittedSeq)
	if err != nil || back.State != quota.Queued {
		t.Fatalf("got %+v, %v", back, err)
	}
	w.advance(30 * time.Minute) // 50 since it was created
	w.reap()
	w.wantState(back.ID, quota.Queued)

	w.patient(25 * time.Minute)
	w.wantState(back.ID, quota.Cancelled)
	adm, err := w.Get(t.Context(), back.ID)
	if want := "it waited 30m0s (ConcurrencyLimit), the plan lets work wait 25m0s at most"; err != nil ||
		adm.Overdue().Message() != want {
		t.Errorf("got %q, %v, want %q", adm.Overdue().Message(), err, want)
	}
}
