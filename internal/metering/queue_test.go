// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// longQueue is several times what a batch looks at.
const longQueue = 5 * ledger.QueuePage

// roomy gives the free plan so many slots and credits, and room for a long queue.
func (w *world) roomy(slots int32, credits quota.Credits) {
	w.t.Helper()
	w.plan(plans.Free(func(p *metering.Plan) {
		p.Limits.Concurrent, p.Limits.Credits, p.Limits.Queued = quota.AtMost(slots), quota.AtMost(credits),
			quota.AtMost[int32](2*longQueue)
		p.DailyCostCeiling.Unlimited = true
	}))
}

// wantStanding waits until so many of alice's admissions run, wait for a slot and are parked.
func (w *world) wantStanding(active, waiting, parked int32) {
	w.t.Helper()
	var a *quota.Account
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		u, err := w.Current(w.t.Context(), "alice")
		if err != nil {
			w.t.Fatal(err)
		}
		if a = u.Account; a.Active == active && a.Queued-a.Parked == waiting && a.Parked == parked {
			return
		}
	}
	w.t.Fatalf("want %d running, %d waiting, %d parked; got %d, %d, %d", active, waiting, parked, a.Active,
		a.Queued-a.Parked, a.Parked)
}

// A place is the same whether the queue is short or long, and those who start do so in the order of the queue.
func TestLongQueueIsServedInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.roomy(1, 1000*quota.Credit)
	w.admit("alice", "running", quota.Credit)
	queue := make([]quota.AdmissionID, 0, longQueue+1)
	for i := range longQueue {
		res := w.admit("alice", fmt.Sprint(i), quota.Credit)
		if res.Admission.Position != i+1 || res.Admission.Waiting != i+1 {
			t.Fatalf("want place %d, got %d of %d", i+1, res.Admission.Position, res.Admission.Waiting)
		}
		queue = append(queue, res.Admission.ID)
	}
	for _, c := range []struct {
		priority int32
		place    int
	}{{-1, longQueue + 1}, {0, longQueue + 1}, {1, 1}} {
		req := request("alice", fmt.Sprintf("of priority %d", c.priority), quota.Credit)
		req.Priority = c.priority
		res, err := w.Admit(t.Context(), req)
		if err != nil || res.Admission.Position != c.place {
			t.Fatalf("priority %d: want place %d, got %+v, %v", c.priority, c.place, res.Admission, err)
		}
		queue = slices.Insert(queue, c.place-1, res.Admission.ID)
	}
	// One in the midst of it that leaves, and one that is renewed, move nobody else.
	if _, err := w.Release(t.Context(), quota.ID{}, queue[longQueue/2]); err != nil {
		t.Fatal(err)
	}
	queue = slices.Delete(queue, longQueue/2, longQueue/2+1)
	adm, err := w.Heartbeat(t.Context(), quota.ID{}, queue[longQueue/2])
	if err != nil || adm.State != quota.Queued || adm.Waiting != len(queue) {
		t.Errorf("the heartbeat of one in the midst: %+v, %v", adm, err)
	}

	// All start at once: by the pages that follow the first one.
	w.roomy(longQueue*2, 1000*quota.Credit)
	w.wantStanding(int32(len(queue)+1), 0, 0)
	last := int64(0)
	for i, id := range queue {
		adm, err := w.Get(t.Context(), id)
		if err != nil || adm.State != quota.Admitted || adm.AdmittedSeq <= last {
			t.Fatalf("number %d of the queue: %+v after decision %d, %v", i+1, adm, last, err)
		}
		last = adm.AdmittedSeq
	}
}

// Nothing that fits is held up by what does not, however much of that is in front.
func TestLongQueueLetsPassWhatFits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.roomy(1, 100*quota.Credit)
	running := w.admit("alice", "running", 40*quota.Credit).Admission
	for i := range longQueue {
		if _, err := w.Admit(t.Context(), jobRequest("alice", quota.ID{1, byte(i)}, 60*quota.Credit)); err != nil {
			t.Fatal(err)
		}
	}
	small := w.admit("alice", "small", quota.Credit).Admission
	w.wantStanding(1, longQueue+1, 0)
	if _, err := w.Complete(t.Context(), quota.ID{}, running.ID, 41*quota.Credit); err != nil {
		t.Fatal(err)
	}
	w.wantStanding(1, 0, longQueue)
	w.wantState(small.ID, quota.Admitted)
}

// What is parked starts or waits for a slot as soon as something helps it, however much is parked in front.
func TestManyParked(t *testing.T) {
	t.Parallel()
	for name, help := range map[string]func(w *world, running quota.AdmissionID){
		"a grant": func(w *world, _ quota.AdmissionID) {
			w.quota(metering.Quota{ObjectUID: quota.ID{1}, ObjectName: "alice", UserID: "alice", Zone: "UTC",
				Grants: map[string]metering.Grant{
					"sorry": {Credits: 10 * quota.Credit},
				}})
		},
		"the plan":   func(w *world, _ quota.AdmissionID) { w.roomy(2, 60*quota.Credit) },
		"the period": func(w *world, _ quota.AdmissionID) { w.advance(31 * 24 * time.Hour); w.reap() },
		"the end of what ran": func(w *world, running quota.AdmissionID) {
			if _, err := w.SettleJob(w.t.Context(), running, 0); err != nil {
				w.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.roomy(2, 50*quota.Credit)
			running := jobRequest("alice", quota.ID{9}, 45*quota.Credit)
			if _, err := w.Admit(t.Context(), running); err != nil {
				t.Fatal(err)
			}
			for i := range longQueue {
				if _, err := w.Admit(t.Context(),
					jobRequest("alice", quota.ID{1, byte(i)}, 100*quota.Credit)); err != nil {
					t.Fatal(err)
				}
			}
			fits := quota.ID{2}
			if _, err := w.Admit(t.Context(), jobRequest("alice", fits, 10*quota.Credit)); err != nil {
				t.Fatal(err)
			}
			w.wantStanding(1, 0, longQueue+1)
			help(w, running.ID)
			for deadline := time.Now().Add(30 * time.Second); ; {
				if adm, err := w.Get(t.Context(), fits); err != nil || adm.State == quota.Admitted {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("what fits has not started")
				}
			}
		})
	}
}
