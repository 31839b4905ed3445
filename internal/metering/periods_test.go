// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// An account that slept five months closes five periods, each once, however many replicas wake it at the same moment.
func TestSleeperIsWokenOnceByManyReplicas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register("alice")
	w.advance(155 * 24 * time.Hour) // from March 10 to August 12
	services := []*metering.Service{w.Service, newService(w.open(t), metering.Options{}),
		newService(w.open(t), metering.Options{})}
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() {
			if _, err := services[i%3].Admit(t.Context(), request("alice", fmt.Sprint(i), quota.Credit)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	h := w.history("alice", 0, 100)
	if len(h.Periods) != 6 || h.Periods[0].State != reports.PeriodOpen {
		t.Fatalf("%d periods: %v", len(h.Periods), lines(h))
	}
	for i, p := range h.Periods[1:] {
		if p.State != reports.PeriodFinal && i > 0 || !p.Period.End.Equal(h.Periods[i].Period.Start) ||
			p.No != int64(4-i) {
			t.Errorf("period %d: %+v", i, p)
		}
	}
}

// Work that ends after its period is Final is charged to the open one, by the grace that was in force when the period
// closed.
func TestLateWorkByThePlansGrace(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		after          time.Duration
		before, inOpen quota.Credits
	}{
		"within the grace": {23 * time.Hour, 10 * quota.Credit, 0},
		"after it":         {24 * time.Hour, 0, 10 * quota.Credit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			short := plans.Free()
			short.FinalAfter = 24 * time.Hour
			if _, err := w.ApplyPlan(t.Context(), short, "test"); err != nil {
				t.Fatal(err)
			}
			job := request("alice", "", 10*quota.Credit)
			job.ID, job.Source, job.Lease = quota.ID{7}, quota.SourceJob, metering.JobLease
			if _, err := w.Admit(t.Context(), job); err != nil {
				t.Fatal(err)
			}
			end := w.usage("alice").Account.Period.End
			w.advance(end.Sub(w.now()))
			if _, err := w.reset(t.Context(), resetOf("free", 10)); err != nil {
				t.Fatal(err)
			}
			// What the plan says now is for the periods to come.
			if _, err := w.ApplyPlan(t.Context(), plans.Free(), "test"); err != nil {
				t.Fatal(err)
			}
			w.advance(tc.after)
			w.settleJob(job.ID, 10*quota.Credit)
			h := w.history("alice", 0, 2)
			if h.Periods[0].Used != tc.inOpen || h.Periods[1].Used != tc.before {
				t.Errorf("%v", lines(h))
			}
		})
	}
}
