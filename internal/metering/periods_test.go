// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// to moves the clock to an instant, given to the day.
func (w *world) to(day string) {
	w.t.Helper()
	at, err := time.Parse(time.DateOnly, day)
	if err != nil {
		w.t.Fatal(err)
	}
	w.advance(at.Sub(w.now()))
}

func (w *world) complete(id quota.ID, actual quota.Credits) {
	w.t.Helper()
	if _, err := w.Complete(w.t.Context(), quota.ID{}, id, actual); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) wantRemaining(user string, want quota.Credits) {
	w.t.Helper()
	u := w.usage(user)
	if got := u.Account.Remaining(u.Now); got != quota.AtMost(want) {
		w.t.Errorf("%s: %s of %s credits remain, want %s", w.now().Format(time.DateOnly), got.Max, user, want)
	}
}

func (w *world) wantPeriodEnds(user, day string) {
	w.t.Helper()
	if got := w.usage(user).Account.Period.End.Format(time.DateOnly); got != day {
		w.t.Errorf("%s: the period of %s ends on %s, want %s", w.now().Format(time.DateOnly), user, got, day)
	}
}

func quotaOf(user string, uid byte) metering.Quota {
	return metering.Quota{ObjectUID: quota.ID{uid}, ObjectName: user, UserID: user, Zone: "UTC"}
}

// An account that slept five months closes five periods, each once, however many replicas wake it at the same moment.
func TestSleeperIsWokenOnceByManyReplicas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register("alice")
	w.to("2026-08-12") // since March 10
	services := []*metering.Service{w.Service, metering.New(w.open(t), metering.Options{}), metering.New(w.open(t), metering.Options{})}
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
	if len(h.Periods) != 6 || h.Periods[0].State != metering.PeriodOpen {
		t.Fatalf("%d periods: %v", len(h.Periods), lines(h))
	}
	for i, p := range h.Periods[1:] {
		if p.State != metering.PeriodFinal && i > 0 || !p.Period.End.Equal(h.Periods[i].Period.Start) || p.No != int64(4-i) {
			t.Errorf("period %d: %+v", i, p)
		}
	}
}

// The open period keeps its end, whatever is edited, and nobody gets its credits twice.
func TestCalendarEditedInMidPeriod(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		edit func(*metering.Quota)
		next string
	}{
		"anchor": {func(q *metering.Quota) { q.Anchor = time.Date(2026, 3, 25, 0, 0, 0, 0, time.UTC) }, "2026-04-25"},
		"zone":   {func(q *metering.Quota) { q.Zone = "Asia/Hong_Kong" }, "2026-05-10"},
		"plan":   {func(q *metering.Quota) { q.PlanName = "monthly" }, "2026-05-01"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			monthly := freePlan()
			monthly.Name, monthly.ObjectUID, monthly.Default, monthly.CalendarMonth = "monthly", quota.ID{3}, false, true
			if _, err := w.ApplyPlan(t.Context(), monthly, "test"); err != nil {
				t.Fatal(err)
			}
			q := quotaOf("alice", 1)
			w.quota(q)
			w.complete(w.admit("alice", "1", 12*quota.Credit).Admission.ID, 12*quota.Credit)
			w.to("2026-03-20")
			tc.edit(&q)
			w.quota(q)
			w.wantPeriodEnds("alice", "2026-04-10")
			w.wantRemaining("alice", 18*quota.Credit)
			w.to("2026-04-11")
			w.wantPeriodEnds("alice", tc.next)
			w.wantRemaining("alice", 30*quota.Credit)
		})
	}
}

// A UserQuota that is deleted and made again gives nothing a second time: neither the period's credits nor its grants.
func TestQuotaMadeAgainGivesNothingTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	q := quotaOf("alice", 1)
	q.PlanName = "pro"
	q.Grants = map[string]metering.Grant{"welcome": {Credits: 10 * quota.Credit}}
	w.quota(q)
	w.complete(w.admit("alice", "1", 40*quota.Credit).Admission.ID, 40*quota.Credit)
	w.wantRemaining("alice", 470*quota.Credit)
	for uid := byte(2); uid < 4; uid++ {
		if err := w.RemoveQuota(t.Context(), q.ObjectUID, "test"); err != nil {
			t.Fatal(err)
		}
		// On the default plan 40 of 30 are used: of the grant, which never lapses, 10 are left.
		w.wantRemaining("alice", 10*quota.Credit)
		q.ObjectUID = quota.ID{uid}
		w.quota(q)
		w.wantRemaining("alice", 470*quota.Credit)
		w.wantPeriodEnds("alice", "2026-04-10")
	}
}

// Less than what is used already blocks new work and breaks nothing: what runs goes on, and the next period is a whole one.
func TestDowngradeBelowUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	q := quotaOf("alice", 1)
	q.PlanName = "pro"
	w.quota(q)
	w.complete(w.admit("alice", "1", 100*quota.Credit).Admission.ID, 100*quota.Credit)
	running := w.admit("alice", "2", 50*quota.Credit)
	q.PlanName = ""
	w.quota(q)
	w.wantRemaining("alice", 0)
	if res := w.admit("alice", "3", quota.Credit); res.Decision.Reason != quota.CreditsExhausted {
		t.Errorf("new work: %+v", res.Decision)
	}
	w.complete(running.Admission.ID, 45*quota.Credit)
	w.wantUsage("alice", 145*quota.Credit, 0, 0)
	w.to("2026-04-11")
	w.wantRemaining("alice", 30*quota.Credit)
}

// A suspension lets what runs go on, over the period's end as well, and takes nothing away.
func TestSuspendedOverThePeriodsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	q := quotaOf("alice", 1)
	w.quota(q)
	running := w.admit("alice", "1", 10*quota.Credit)
	q.Suspended = true
	w.quota(q)
	w.to("2026-04-11")
	if res := w.admit("alice", "2", quota.Credit); res.Decision.Reason != quota.UserSuspended {
		t.Errorf("while suspended: %+v", res.Decision)
	}
	w.complete(running.Admission.ID, 10*quota.Credit)
	q.Suspended = false
	w.quota(q)
	w.wantRemaining("alice", 30*quota.Credit)
	if p := w.history("alice", 1, 1).Periods[0]; p.Used != 10*quota.Credit || p.Revision != 1 {
		t.Errorf("the period that it belongs to: %+v", p)
	}
}

// A retired plan goes on in the next period as it last was.
func TestRetiredInMidPeriod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	q := quotaOf("alice", 1)
	q.PlanName = "pro"
	w.quota(q)
	running := w.admit("alice", "1", 100*quota.Credit)
	if err := w.RetirePlan(t.Context(), "pro", quota.ID{}, "test"); err != nil {
		t.Fatal(err)
	}
	w.wantRemaining("alice", 400*quota.Credit)
	w.to("2026-04-11")
	w.complete(running.Admission.ID, 90*quota.Credit)
	w.wantRemaining("alice", 500*quota.Credit)
}

// A grant pays for the job that reserved it, though it lapses while the job runs; what the job leaves of it is lost.
func TestGrantLapsesInMidJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	q := quotaOf("alice", 1)
	q.Grants = map[string]metering.Grant{"trial": {Credits: 10 * quota.Credit, ExpiresAt: w.now().Add(time.Hour)}}
	w.quota(q)
	running := w.admit("alice", "1", 25*quota.Credit) // 10 of the grant, 15 of the plan
	w.advance(2 * time.Hour)
	w.wantRemaining("alice", 15*quota.Credit)
	w.complete(running.Admission.ID, 12*quota.Credit) // 10 of the grant, 2 of the plan
	w.wantRemaining("alice", 28*quota.Credit)
}

// Work that ends after its period is Final is charged to the open one, by the grace that was in force when the period closed.
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
			short := freePlan()
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
			if _, err := w.Reset(t.Context(), resetOf("free", 10)); err != nil {
				t.Fatal(err)
			}
			// What the plan says now is for the periods to come.
			if _, err := w.ApplyPlan(t.Context(), freePlan(), "test"); err != nil {
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
