// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/testing/doctable"
)

// known is the use that is reported or charged in the states that have one, another a different one.
const known, another = 4 * Credit, 5 * Credit

// tableStates bring an account and its one admission to each state of the table.
var tableStates = map[string]func(*testing.T, *Account, *Admission){
	"Queued": func(t *testing.T, a *Account, adm *Admission) {
		t.Helper()
		a.Active = 1
		if d := a.Enter(adm, start); d.Outcome != Wait {
			t.Fatalf("Enter = %+v, want Wait", d)
		}
		a.Active = 0
	},
	"Parked": func(t *testing.T, a *Account, adm *Admission) {
		t.Helper()
		if !a.Park(adm, Decision{Reason: CreditsExhausted}, start) {
			t.Fatal("does not park")
		}
	},
	"Admitted": tableAdmit,
	"Reported": func(t *testing.T, a *Account, adm *Admission) {
		t.Helper()
		tableAdmit(t, a, adm)
		if err := adm.Report(known); err != nil {
			t.Fatal(err)
		}
	},
	"Settled": func(t *testing.T, a *Account, adm *Admission) {
		t.Helper()
		tableAdmit(t, a, adm)
		tableSettle(t, a, adm)
	},
	"Settled late": func(t *testing.T, a *Account, adm *Admission) {
		t.Helper()
		tableEnd(t, a, adm, Expired)
		tableSettle(t, a, adm)
	},
	"Released": func(t *testing.T, a *Account, adm *Admission) { t.Helper(); tableEnd(t, a, adm, Released) },
	"Expired":  func(t *testing.T, a *Account, adm *Admission) { t.Helper(); tableEnd(t, a, adm, Expired) },
	"Cancelled": func(t *testing.T, a *Account, adm *Admission) {
		t.Helper()
		a.Active = 1
		a.Enter(adm, start)
		a.Active = 0
		if err := a.End(adm, Released, "", nil, start); err != nil {
			t.Fatal(err)
		}
	},
}

func tableAdmit(t *testing.T, a *Account, adm *Admission) {
	t.Helper()
	if d := a.Enter(adm, start); d.Outcome != Admit {
		t.Fatalf("Enter = %+v, want Admit", d)
	}
}

func tableSettle(t *testing.T, a *Account, adm *Admission) {
	t.Helper()
	if _, err := a.Settle(adm, known, nil, start); err != nil {
		t.Fatal(err)
	}
}

func tableEnd(t *testing.T, a *Account, adm *Admission, to State) {
	t.Helper()
	tableAdmit(t, a, adm)
	if err := a.End(adm, to, "", nil, start); err != nil {
		t.Fatal(err)
	}
}

// tableOperations are the rows of the table.
var tableOperations = map[string]func(*Account, *Admission, time.Time) (*Charge, error){
	"admit again": func(a *Account, adm *Admission, now time.Time) (*Charge, error) {
		a.Enter(adm, now)
		return nil, nil
	},
	"promote, a slot is free": func(a *Account, adm *Admission, now time.Time) (*Charge, error) {
		a.Promote([]*Admission{adm}, now)
		return nil, nil
	},
	"promote, the user is suspended": func(a *Account, adm *Admission, now time.Time) (*Charge, error) {
		a.Suspended = true
		a.Promote([]*Admission{adm}, now)
		a.Suspended = false
		return nil, nil
	},
	"promote, a team above is suspended": func(a *Account, adm *Admission, now time.Time) (*Charge, error) {
		above := team(2, "newsroom", func(t *Account) {
			t.Suspended, t.Queued, t.Parked = true, a.Queued, a.Parked
		})
		below(a, above).Promote([]*Admission{adm}, now)
		return nil, nil
	},
	"promote, it has waited too long": func(a *Account, adm *Admission, now time.Time) (*Charge, error) {
		was := a.Plan
		a.Plan = plan(func(p *Plan) { p.MaxWait = 59 * time.Second })
		a.Promote([]*Admission{adm}, now)
		a.Plan = was
		return nil, nil
	},
	"heartbeat": func(_ *Account, adm *Admission, now time.Time) (*Charge, error) { return nil, adm.Heartbeat(now) },
	"report (a Job's pod)": func(_ *Account, adm *Admission, _ time.Time) (*Charge, error) {
		err := adm.Report(known)
		return nil, err
	},
	"report another use": func(_ *Account, adm *Admission, _ time.Time) (*Charge, error) {
		err := adm.Report(another)
		return nil, err
	},
	"complete": func(a *Account, adm *Admission, now time.Time) (*Charge, error) {
		return a.Settle(adm, known, nil, now)
	},
	"complete with another use": func(a *Account, adm *Admission, now time.Time) (*Charge, error) {
		return a.Settle(adm, another, nil, now)
	},
	"complete with an offline ticket": func(a *Account, adm *Admission, now time.Time) (*Charge, error) {
		return a.SettleOffline(adm, known, nil, now)
	},
	"back to the queue (a Job without a pod)": func(a *Account, adm *Admission, now time.Time) (*Charge, error) {
		_, err := a.Requeue(adm, nil, now)
		return nil, err
	},
	"release": func(a *Account, adm *Admission, now time.Time) (*Charge, error) {
		return nil, a.End(adm, Released, "", nil, now)
	},
	"expire": func(a *Account, adm *Admission, now time.Time) (*Charge, error) {
		return nil, a.End(adm, Expired, "", nil, now)
	},
}

func TestStateTable(t *testing.T) {
	rows := doctable.Read(t, "../../docs/admissions.md", "operation", "Queued", "Parked")
	if len(rows) != len(tableOperations) {
		t.Errorf("the table has %d operations, want %d", len(rows), len(tableOperations))
	}
	for _, row := range rows {
		operation := tableOperations[row.Cells["operation"]]
		if operation == nil {
			t.Errorf("the table's operation %q is not known", row.Cells["operation"])
			continue
		}
		if len(row.Cells) != len(tableStates)+1 {
			t.Errorf("the table has %d states, want %d", len(row.Cells)-1, len(tableStates))
		}
		for state, enter := range tableStates {
			t.Run(row.Cells["operation"]+"/"+state, func(t *testing.T) {
				cell, ok := row.Cells[state]
				if !ok {
					t.Fatalf("the table has no state %q", state)
				}
				a, adm := account(plan()), admission(1, 6)
				enter(t, a, adm)
				before, was := clone(a), *adm
				charge, err := operation(a, adm, start.Add(time.Minute))
				checkCell(t, cell, tableCase{before, a, &was, adm, charge, err})
			})
		}
	}
}

type tableCase struct {
	before, after *Account
	was, adm      *Admission
	charge        *Charge
	err           error
}

// checkCell applies what the cell promises to the state before and compares the whole of it with the state after.
func checkCell(t *testing.T, cell string, c tableCase) {
	t.Helper()
	now := start.Add(time.Minute)
	a, adm := c.before, *c.was
	wantErr, wantCharge := false, false
	estimate := adm.Request.Estimate
	leave := func() {
		a.Queued--
		if adm.Parked {
			a.Parked--
			adm.Parked = false
		}
	}
	end := func(state State) {
		a.Seq++
		adm.State, adm.Reason, adm.EndedAt, adm.EndedSeq = state, "", now, a.Seq
	}
	giveBack := func() {
		a.Active--
		a.Reserved, a.PlanReserved, a.ReservedCost = a.Reserved-estimate, a.PlanReserved-estimate,
			a.ReservedCost-adm.EstimatedCost
	}
	settled := func() {
		wantCharge = true
		adm.State, adm.Actual = Settled, c.adm.Actual
		if adm.Actual == nil {
			t.Fatal("no actual")
		}
		used := *adm.Actual
		a.Used, a.PlanUsed, a.Cost, a.DayCost, a.Day = used, used, Price(used, 6_000), Price(used, 6_000), utcDay(now)
	}
	admit := func() {
		leave()
		a.Seq++
		adm.State, adm.Reason, adm.AdmittedAt, adm.AdmittedSeq, adm.LeaseUntil = Admitted, "", now, a.Seq,
			now.Add(adm.Lease)
		adm.Seen = Seen{Remaining: AtMost(30 * Credit), Concurrent: AtMost(int32(1))}
		adm.PeriodEnd, adm.Alloc = a.Period.End, Allocation{Plan: estimate}
		adm.ProviderCost, adm.EstimatedCost, adm.Currency = 6_000, Price(estimate, 6_000), "USD"
		a.Active++
		a.Reserved, a.PlanReserved, a.ReservedCost = estimate, estimate, adm.EstimatedCost
	}
	switch cell {
	case "=":
	case "409":
		wantErr = true
	case "renewed":
		adm.LeaseUntil = now.Add(adm.Lease)
	case "recorded":
		adm.Reported = c.adm.Reported
		if adm.Reported == nil {
			t.Error("nothing is recorded")
		}
	case "parked":
		if !adm.Parked {
			a.Parked++
		}
		adm.Parked, adm.EverParked, adm.Reason = true, true, UserSuspended
	case "→ Admitted":
		admit()
	case "→ Settled offline":
		admit()
		adm.Enforced, adm.Offline = false, true
		giveBack()
		end(Settled)
		settled()
	case "→ Settled":
		giveBack()
		end(Settled)
		settled()
	case "→ Settled late":
		a.Seq++
		adm.Late, adm.Alloc = true, Allocation{}
		settled()
	case "→ Queued, behind the others":
		giveBack()
		a.Queued++
		a.Seq += 2 // the end of the stay, and its arrival
		adm = Admission{
			ID: adm.ID, Account: adm.Account, Source: adm.Source, State: Queued, Reason: ConcurrencyLimit,
			Request:  adm.Request,
			Priority: adm.Priority, Enforced: adm.Enforced, CreatedAt: adm.CreatedAt, Lease: adm.Lease,
			LeaseUntil: now.Add(adm.Lease), RequeuedAt: now,
			ArrivedSeq: a.Seq,
		}
	case "→ Released":
		giveBack()
		end(Released)
	case "→ Expired":
		giveBack()
		end(Expired)
	case "→ Cancelled":
		leave()
		end(Cancelled)
	case "→ Cancelled, refused":
		leave()
		reason := adm.Reason
		end(Cancelled)
		adm.Reason, adm.WaitedFor, adm.MaxWait = WaitedTooLong, reason, 59*time.Second
	default:
		t.Fatalf("the cell %q is not known", cell)
	}
	if (c.err != nil) != wantErr || wantErr && !errors.Is(c.err, ErrConflict) {
		t.Errorf("error %v, want conflict: %t", c.err, wantErr)
	}
	if wantErr && c.err != nil && !strings.Contains(c.err.Error(), string(adm.State)) {
		t.Errorf("error %q does not name the state %s", c.err, adm.State)
	}
	if (c.charge != nil) != wantCharge || wantCharge && c.charge.Credits != *c.adm.Actual {
		t.Errorf("charge %+v, want one: %t", c.charge, wantCharge)
	}
	if diff := cmp.Diff(a, c.after, cmp.Comparer(sameZone)); diff != "" {
		t.Errorf("account (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&adm, c.adm); diff != "" {
		t.Errorf("admission (-want +got):\n%s", diff)
	}
}
