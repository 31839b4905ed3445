// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"strings"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// A period is closed by what its plan said when it ended, whoever closes it and when: in time, after an edit, or after
// several edits and periods. History says the same.
func TestPeriodsAreClosedByWhatHeldWhenTheyEnded(t *testing.T) {
	t.Parallel()
	// The accounts begin on March 10 at noon.
	const month = 31 * 24 * time.Hour
	for name, look := range map[string]func(w *world){
		"nobody looks before the edit": func(*world) {},
		"a look before the edit":       func(w *world) { w.usage("alice") },
		"a call before the edit":       func(w *world) { w.admit("alice", "early", quota.Credit) },
		"a reset before the edit": func(w *world) {
			if _, err := w.reset(w.t.Context(), resetOf("free", 10)); err != nil {
				w.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := plans.Free()
			p.CarryOverMax, p.FinalAfter, p.OveragePrice = 25*quota.Credit, 24*time.Hour, 10_000
			w.plan(p)
			first := w.admit("alice", "first", 30*quota.Credit).Admission
			if _, err := w.Complete(t.Context(), first.Account, first.ID, 30*quota.Credit); err != nil {
				t.Fatal(err)
			}
			w.advance(month)
			look(w)
			edited := p
			edited.Limits.Credits, edited.CarryOverMax, edited.FinalAfter = quota.AtMost(100*quota.Credit),
				5*quota.Credit, 48*time.Hour
			edited.CalendarMonth, edited.OveragePrice = true, 77_000
			w.advance(time.Minute)
			w.plan(edited)
			w.advance(time.Minute)

			a := w.usage("alice").Account
			if len(a.Lots) != 0 || a.Period.End != time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC) {
				t.Errorf("carried over %+v, the open period is %v", a.Lots, a.Period)
			}
			if _, err := w.reset(t.Context(), resetOf("free", 10)); err != nil {
				t.Fatal(err)
			}
			h, err := w.tryHistory("alice", 0, 10)
			if err != nil || len(h.Periods) != 2 {
				t.Fatalf("%+v, %v", h, err)
			}
			closed := h.Periods[1]
			if closed.PlanLimit != quota.AtMost(30*quota.Credit) || closed.CarryOverMax != 25*quota.Credit ||
				closed.Grace != 24*time.Hour || *closed.OveragePrice != 10_000 || closed.PlanVersion != 2 {
				t.Errorf("the closed period has %+v", closed.ClosedPeriod)
			}

			// The next one ends under the edited plan.
			w.advance(month)
			if a := w.usage("alice").Account; len(a.Lots) != 1 || a.Lots[0].Credits != 5*quota.Credit ||
				a.Period.End != time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC) {
				t.Errorf("carried over %+v, the open period is %v", a.Lots, a.Period)
			}
		})
	}
}

// Three periods end while nobody looks, with an edit in each: each is closed by its own.
func TestPeriodsThatEndedUnseenKeepTheirPlans(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register("alice")
	for i := range 3 {
		p := plans.Free()
		p.CarryOverMax = quota.Credits(i+1) * quota.Credit
		w.plan(p)
		w.advance(31 * 24 * time.Hour)
	}
	p := plans.Free()
	p.CarryOverMax = 20 * quota.Credit
	w.plan(p)
	h, err := w.tryHistory("alice", 0, 10)
	if err != nil || len(h.Periods) != 4 {
		t.Fatalf("%+v, %v", h, err)
	}
	for i, closed := range h.Periods[1:] {
		if want := quota.Credits(3-i) * quota.Credit; closed.CarryOver != want {
			t.Errorf("period %d carried %s over, want %s", closed.No, closed.CarryOver, want)
		}
	}
}

// A version of a plan that cannot be read is the matter of those on that plan, and of nobody who is read together with
// them.
func TestPlanWhosePastCannotBeRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register("alice")
	w.quota(metering.Quota{ObjectUID: quota.ID{1}, ObjectName: "petra", UserID: "petra", PlanName: "pro", Zone: "UTC"})
	root := w.outsider()
	root.exec(`CREATE TABLE kept AS SELECT * FROM plan_versions`)
	root.exec(`UPDATE plan_versions SET definition = '{"credits_limit": "many"}' WHERE plan_name = 'pro'`)

	fresh := newService(w.open(t), metering.Options{})
	all, err := fresh.UsageOf(t.Context(), []string{"alice", "petra"})
	if err != nil || all["alice"].Unreadable != nil || all["petra"].Unreadable == nil {
		t.Fatalf("%+v, %v", all, err)
	}
	if says := all["petra"].Unreadable.Error(); !strings.Contains(says, `version 1 of plan "pro"`) {
		t.Errorf("petra hears %q", says)
	}
	if _, err := fresh.Admit(t.Context(), request("alice", "k", quota.Credit)); err != nil {
		t.Errorf("alice: %v", err)
	}

	root.exec(`UPDATE plan_versions AS v SET definition = k.definition FROM kept AS k
		WHERE (k.plan_name, k.version) = (v.plan_name, v.version)`)
	root.exec(`DROP TABLE kept`)
	if _, err := fresh.Admit(t.Context(), request("petra", "k", quota.Credit)); err != nil {
		t.Errorf("petra: %v", err)
	}
}
