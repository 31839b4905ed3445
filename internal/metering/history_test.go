// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

func (w *world) history(user string, before int64, limit int) reports.History {
	w.t.Helper()
	h, err := w.tryHistory(user, before, limit)
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

// lines are what a history says, a period a line.
func lines(h reports.History) []string {
	out := []string{}
	for _, p := range h.Periods {
		out = append(out, fmt.Sprintf("%d %s until %s: %s used, %s reserved, %s carried over, revision %d",
			p.No, p.State, p.Period.End.Format(time.DateOnly), p.Used, p.Reserved, p.CarryOver, p.Revision))
	}
	return out
}

func TestHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	free := plans.Free()
	free.CarryOverMax, free.FinalAfter, free.Currency = 5*quota.Credit, 48*time.Hour, "HKD"
	if _, err := w.ApplyPlan(t.Context(), free, "test"); err != nil {
		t.Fatal(err)
	}
	across := w.admit("alice", "1", 10*quota.Credit) // on March 10
	w.advance(31*24*time.Hour + 24*time.Hour)
	want := []string{
		"1 Open until 2026-05-10: 0 used, 0 reserved, 0 carried over, revision 0",
		"0 Closed until 2026-04-10: 0 used, 10 reserved, 5 carried over, revision 0",
	}
	// Whether the row has been rolled or only the read is makes no difference.
	if diff := cmp.Diff(want, lines(w.history("alice", 0, 10))); diff != "" {
		t.Errorf("virtually rolled (-want +got):\n%s", diff)
	}
	if _, err := w.reset(t.Context(), resetOf("free", 10)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, lines(w.history("alice", 0, 10))); diff != "" {
		t.Errorf("after the reset (-want +got):\n%s", diff)
	}
	// Late work changes its own period, and the revision tells.
	if _, err := w.Complete(t.Context(), quota.ID{}, across.Admission.ID, 4*quota.Credit); err != nil {
		t.Fatal(err)
	}
	want[1] = "0 Closed until 2026-04-10: 4 used, 0 reserved, 5 carried over, revision 1"
	h := w.history("alice", 0, 10)
	if diff := cmp.Diff(want, lines(h)); diff != "" {
		t.Errorf("after late work (-want +got):\n%s", diff)
	}
	if p := h.Periods[1]; p.Cost != 24_000 || p.Currency != "HKD" || !p.FinalAt.Equal(p.Period.End.Add(48*time.Hour)) {
		t.Errorf("closed period %+v", p)
	}
	// The plan's grace in force at the close stays the period's.
	free.FinalAfter = 72 * time.Hour
	if _, err := w.ApplyPlan(t.Context(), free, "test"); err != nil {
		t.Fatal(err)
	}
	w.advance(24 * time.Hour)
	if p := w.history("alice", 1, 1).Periods[0]; p.State != reports.PeriodFinal {
		t.Errorf("48 hours after its end the period is %s", p.State)
	}

	t.Run("pages", func(t *testing.T) {
		w.advance(200 * 24 * time.Hour) // sleeps through six more periods, none of them written down
		var whole []string
		for before, pages := int64(0), 0; ; pages++ {
			page := w.history("alice", before, 3)
			whole = append(whole, lines(page)...)
			if before = page.Before; before == 0 {
				break
			}
			if pages == 0 { // somebody writes them down between two pages
				if _, err := w.reset(t.Context(), resetOf("free", 10)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if diff := cmp.Diff(lines(w.history("alice", 0, 100)), whole); diff != "" || len(whole) != 8 {
			t.Errorf("%d periods, the pages together (-all at once +pages):\n%s", len(whole), diff)
		}
	})
	t.Run("bad requests", func(t *testing.T) {
		for name, err := range map[string]error{
			"limit 0":   func() error { _, err := w.tryHistory("alice", 0, 0); return err }(),
			"limit 101": func() error { _, err := w.tryHistory("alice", 0, 101); return err }(),
			"below 0":   func() error { _, err := w.tryHistory("alice", -1, 1); return err }(),
			"user":      func() error { _, err := w.tryHistory("a b", 0, 1); return err }(),
		} {
			if !errors.Is(err, ledger.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestHistoryOfNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.history("nobody", 0, 5)
	if len(h.Periods) != 1 || h.Periods[0].State != reports.PeriodOpen || h.Before != 0 {
		t.Errorf("want the period that an account would begin with, got %+v", h)
	}
	if _, err := reports.New(w.store, newService(w.store, metering.Options{})).History(t.Context(), "nobody", 0,
		5); quota.ReasonOf(err) != quota.UnknownUser {
		t.Errorf("without auto-registration: %v", err)
	}
}
