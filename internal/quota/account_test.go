// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAllocationOrder(t *testing.T) {
	end := start.AddDate(0, 1, 0)
	lots := func(ls ...Lot) []Lot { return ls }
	carry := func(n int64, expires time.Time) Lot {
		return Lot{ID: NewLotID(id(1), LotCarryOver, "0"), Kind: LotCarryOver, Name: "0", Credits: WholeCredits(n),
			ExpiresAt: expires}
	}
	type shares map[string]int64
	tests := map[string]struct {
		lots   []Lot
		used   int64
		plan   *Plan
		amount int64
		want   shares
	}{
		"no other lots": {amount: 20, want: shares{"plan": 20}},
		"a grant that ends before the period": {lots: lots(grant("g", 10, end.Add(-time.Hour))), amount: 20,
			want: shares{"g": 10, "plan": 10}},
		"a grant that ends with the period": {lots: lots(grant("g", 10, end)), amount: 20,
			want: shares{"g": 10, "plan": 10}},
		"a grant that ends after the period": {lots: lots(grant("g", 10, end.Add(time.Microsecond))), amount: 35,
			want: shares{"plan": 30, "g": 5}},
		"a grant that never ends": {lots: lots(grant("g", 10, time.Time{})), amount: 35,
			want: shares{"plan": 30, "g": 5}},
		"an expired grant": {lots: lots(grant("g", 10, start)), amount: 20,
			want: shares{"plan": 20}},
		"soonest expiry first": {
			lots: lots(grant("never", 10, time.Time{}), grant("late", 10, end.Add(2*time.Hour)),
				grant("soon", 10, end.Add(-time.Hour)), grant("sooner", 10, end.Add(-2*time.Hour))),
			amount: 55, want: shares{"sooner": 10, "soon": 10, "plan": 30, "late": 5},
		},
		"carry-over, grant, plan on a tie": {
			lots: lots(grant("g", 10, end), carry(10, end)), amount: 25, want: shares{"0": 10, "g": 10, "plan": 5},
		},
		"overage after every lot": {
			plan: plan(overageOf(50, 10_000)), lots: lots(grant("never", 10, time.Time{})), used: 30, amount: 15,
			want: shares{"never": 10, "plan": 5},
		},
		"an unlimited plan lets sooner lots pay first": {
			plan: plan(unlimitedCredits), lots: lots(grant("g", 10, end), grant("never", 10, time.Time{})), amount: 500,
			want: shares{"g": 10, "plan": 490},
		},
		"what nothing can pay falls to the plan": {
			lots: lots(grant("g", 10, time.Time{})), amount: 50, want: shares{"g": 10, "plan": 40},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if tc.plan == nil {
				tc.plan = plan()
			}
			a := account(tc.plan, tc.lots...)
			a.Used, a.PlanUsed = WholeCredits(tc.used), WholeCredits(tc.used)
			al := a.allocate(WholeCredits(tc.amount), start)
			got := shares{}
			if al.Plan != 0 {
				got["plan"] = int64(al.Plan / Credit)
			}
			for _, s := range al.Lots {
				got[a.lot(s.Lot).Name] += int64(s.Credits / Credit)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("shares (-want +got):\n%s", diff)
			}
			if al.Total() != WholeCredits(tc.amount) {
				t.Errorf("Total() = %s, want %d", al.Total(), tc.amount)
			}
		})
	}
}

func TestReservationPinsItsLots(t *testing.T) {
	end := start.AddDate(0, 1, 0)
	expires := start.Add(time.Hour)
	a := account(plan(slots(10)), grant("soon", 10, expires), grant("late", 10, end.AddDate(0, 1, 0)))
	adm := enter(t, a, 45, start) // 10 soon, 30 plan, 5 late
	other := enter(t, a, 5, start)

	c := settle(t, a, adm, 15, nil, expires.Add(time.Minute))
	want := Allocation{Plan: WholeCredits(5), Lots: []Share{{NewLotID(a.ID, LotGrant, "soon"), WholeCredits(10)}}}
	if diff := cmp.Diff(want, c.Alloc); diff != "" {
		t.Errorf("the charge is paid by the pinned lots, the expired one among them (-want +got):\n%s", diff)
	}
	if got := a.lot(NewLotID(a.ID, LotGrant, "late")); got.Reserved != WholeCredits(5) || got.Used != 0 {
		t.Errorf("lot late = %+v, want only the other admission's 5 reserved", got)
	}
	if err := a.End(other, Released, "", nil, expires.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got := a.Remaining(expires.Add(time.Minute)).Max; got != WholeCredits(35) {
		t.Errorf("Remaining = %s, want 25 of the plan and 10 of the late grant", got)
	}
}

func TestOverrun(t *testing.T) {
	end := start.AddDate(0, 1, 0)
	tests := map[string]struct {
		plan                *Plan
		lots                []Lot
		estimate, actual    int64
		wantPlan, wantGrant int64
		wantOverage         int64
		wantPrice           Money
	}{
		"within the plan":           {plan: plan(), estimate: 10, actual: 12, wantPlan: 12},
		"beyond a plan that blocks": {plan: plan(), estimate: 30, actual: 33, wantPlan: 33, wantOverage: 3},
		"a grant pays before overage": {plan: plan(overageOf(10, 20_000)), lots: []Lot{grant("g", 2, time.Time{})},
			estimate: 30, actual: 33, wantPlan: 31, wantGrant: 2, wantOverage: 1, wantPrice: 20_000},
		"beyond the overage's cap too": {plan: plan(overageOf(1, 20_000)), estimate: 30, actual: 33, wantPlan: 33,
			wantOverage: 3, wantPrice: 60_000},
		"a grant that ends first pays first": {
			plan: plan(), lots: []Lot{grant("g", 12, end)}, estimate: 10, actual: 15, wantPlan: 3, wantGrant: 12,
		},
		"unlimited": {plan: plan(unlimitedCredits), estimate: 10, actual: 1000, wantPlan: 1000},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			a := account(tc.plan, tc.lots...)
			c := settle(t, a, enter(t, a, tc.estimate, start), tc.actual, nil, start.Add(time.Hour))
			if a.PlanUsed != WholeCredits(tc.wantPlan) || a.Used-a.PlanUsed != WholeCredits(tc.wantGrant) {
				t.Errorf("plan pays %s and lots %s, want %d and %d", a.PlanUsed, a.Used-a.PlanUsed, tc.wantPlan,
					tc.wantGrant)
			}
			if c.Overage != WholeCredits(tc.wantOverage) || c.Price != tc.wantPrice || a.Charged != tc.wantPrice {
				t.Errorf("overage %s at %s (charged %s), want %d at %s", c.Overage, c.Price, a.Charged, tc.wantOverage,
					tc.wantPrice)
			}
			if a.Reserved != 0 || a.Active != 0 || a.ReservedCost != 0 {
				t.Errorf("left reserved: %+v", a)
			}
		})
	}
}

// Two jobs that together exceed the plan: whichever settles first, the user pays for the excess once.
func TestOverageIsPaidOnce(t *testing.T) {
	for name, first := range map[string]int{"in the order of admission": 0, "the other way round": 1} {
		t.Run(name, func(t *testing.T) {
			a := account(plan(credits(100), slots(2), overageOf(50, 10_000)))
			jobs := []*Admission{enter(t, a, 90, start), enter(t, a, 60, start)}
			now := start.Add(time.Hour)
			one, two := jobs[first], jobs[1-first]
			c1 := settle(t, a, one, int64(one.Request.Estimate/Credit), nil, now)
			c2 := settle(t, a, two, int64(two.Request.Estimate/Credit), nil, now)
			if got := c1.Overage + c2.Overage; got != WholeCredits(50) {
				t.Errorf("overage = %s + %s, want 50 in all", c1.Overage, c2.Overage)
			}
			if a.Charged != 500_000 {
				t.Errorf("Charged = %s, want 0.5", a.Charged)
			}
		})
	}
}

func TestLateWork(t *testing.T) {
	end := start.AddDate(0, 1, 0)
	tests := map[string]struct {
		plan             *Plan
		lots             []Lot
		estimate, actual int64
		expire           bool
		settledAt        time.Time

		wantAdjustment                   bool
		wantClosed, wantOpen             int64 // used
		wantClosedPlan                   int64
		wantCarryOver                    int64
		wantRemaining                    int64
		wantOverage                      int64
		wantPricedClosed, wantPricedOpen Money
	}{
		"before Final: its own period": {
			plan: plan(carryOver(100)), estimate: 20, actual: 20, settledAt: end.Add(FinalAfter - time.Microsecond),
			wantClosed: 20, wantClosedPlan: 20, wantCarryOver: 10, wantRemaining: 40,
		},
		"a late refund tops the carry-over up": {
			plan: plan(carryOver(100)), estimate: 20, actual: 5, settledAt: end.Add(time.Hour),
			wantClosed: 5, wantClosedPlan: 5, wantCarryOver: 25, wantRemaining: 55,
		},
		"a late refund up to the cap": {
			plan: plan(carryOver(12)), estimate: 20, actual: 5, settledAt: end.Add(time.Hour),
			wantClosed: 5, wantClosedPlan: 5, wantCarryOver: 12, wantRemaining: 42,
		},
		"a late overrun claws nothing back": {
			plan: plan(carryOver(100)), estimate: 20, actual: 28, settledAt: end.Add(time.Hour),
			wantClosed: 28, wantClosedPlan: 28, wantCarryOver: 10, wantRemaining: 40,
		},
		"nor beyond the limit, from the carry-over": {
			plan: plan(carryOver(100)), estimate: 20, actual: 35, settledAt: end.Add(time.Hour),
			wantClosed: 35, wantClosedPlan: 35, wantCarryOver: 10, wantRemaining: 40, wantOverage: 5,
		},
		"a late overrun is paid by grants before overage": {
			plan: plan(overageOf(10, 20_000)), lots: []Lot{grant("g", 3, time.Time{})}, estimate: 30, actual: 35,
			settledAt: end.Add(time.Hour), wantClosed: 35, wantClosedPlan: 32, wantRemaining: 40, wantOverage: 2,
			wantPricedClosed: 40_000,
		},
		"an expired grant pays for no overrun": {
			plan: plan(), lots: []Lot{grant("g", 3, end)}, estimate: 30, actual: 35, settledAt: end.Add(time.Hour),
			wantClosed: 35, wantClosedPlan: 32, wantRemaining: 30, wantOverage: 2,
		},
		"after Final: an adjustment, and the old period gets its reservation back": {
			plan: plan(carryOver(100)), estimate: 20, actual: 20, settledAt: end.Add(FinalAfter), wantAdjustment: true,
			wantOpen: 20, wantCarryOver: 30, wantRemaining: 40,
		},
		"after Final, beyond what the open period has": {
			plan: plan(overageOf(10, 20_000)), estimate: 30, actual: 35, settledAt: end.Add(FinalAfter),
			wantAdjustment: true,
			wantOpen:       35, wantRemaining: 5, wantOverage: 5, wantPricedOpen: 100_000,
		},
		"expired, then reported in its period's grace": {
			plan: plan(carryOver(100)), estimate: 20, actual: 20, expire: true, settledAt: end.Add(time.Hour),
			wantClosed: 20, wantClosedPlan: 20, wantCarryOver: 30, wantRemaining: 60,
		},
		"expired, then reported after Final": {
			plan: plan(carryOver(100)), estimate: 20, actual: 20, expire: true, settledAt: end.Add(FinalAfter),
			wantAdjustment: true,
			wantOpen:       20, wantCarryOver: 30, wantRemaining: 40,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			a := account(tc.plan, tc.lots...)
			adm := enter(t, a, tc.estimate, start)
			if tc.expire {
				if err := a.End(adm, Expired, "", nil, start.Add(time.Hour)); err != nil {
					t.Fatal(err)
				}
			}
			closed := &roll(t, a, tc.settledAt, 1)[0]
			c := settle(t, a, adm, tc.actual, closed, tc.settledAt)
			type result struct {
				Adjustment           bool
				Closed, Open         Credits
				ClosedPlan           Credits
				CarryOver, Remaining Credits
				Overage              Credits
				PricedClosed         Money
				PricedOpen           Money
				Reserved             Credits
				Late                 bool
			}
			want := result{
				tc.wantAdjustment, WholeCredits(tc.wantClosed), WholeCredits(tc.wantOpen),
				WholeCredits(tc.wantClosedPlan),
				WholeCredits(tc.wantCarryOver), WholeCredits(tc.wantRemaining), WholeCredits(tc.wantOverage),
				tc.wantPricedClosed, tc.wantPricedOpen, 0, tc.expire,
			}
			got := result{
				c.Adjustment, closed.Used, a.Used, closed.PlanUsed, closed.CarryOver,
				a.Remaining(tc.settledAt).Max, c.Overage,
				closed.Charged, a.Charged, closed.Reserved + closed.PlanReserved + a.Reserved, adm.Late,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if lot := a.lot(NewLotID(a.ID, LotCarryOver, "0")); lot != nil && lot.Credits != closed.CarryOver {
				t.Errorf("the carry-over's lot has %s, the closed period says %s", lot.Credits, closed.CarryOver)
			}
			wantNo := int64(0)
			if tc.wantAdjustment {
				wantNo = 1
			}
			if c.PeriodNo != wantNo {
				t.Errorf("charged to period %d, want %d", c.PeriodNo, wantNo)
			}
		})
	}
}

func TestTopUpOnRelease(t *testing.T) {
	for _, to := range []State{Released, Expired} {
		for name, after := range map[string]time.Duration{"closed": time.Hour, "final": FinalAfter} {
			t.Run(string(to)+"/"+name, func(t *testing.T) {
				a := account(plan(carryOver(25)))
				adm := enter(t, a, 10, start)
				now := a.Period.End.Add(after)
				closed := &roll(t, a, now, 1)[0]
				if got := a.Remaining(now).Max; got != 50*Credit {
					t.Fatalf("Remaining = %s, want 50", got)
				}
				if err := a.End(adm, to, "", closed, now); err != nil {
					t.Fatal(err)
				}
				if got := a.Remaining(now).Max; got != 55*Credit || closed.CarryOver != 25*Credit {
					t.Errorf("Remaining = %s, carried over %s; want 55 and 25", got, closed.CarryOver)
				}
			})
		}
	}
}

// What others hold of the closed period's plan is theirs: a late overrun is paid by a grant before that.
func TestLateOverrunLeavesOthersTheirReservation(t *testing.T) {
	a := account(plan(slots(2)), grant("g", 10, time.Time{}))
	long, other := enter(t, a, 10, start), enter(t, a, 15, start)
	now := a.Period.End.Add(time.Hour)
	closed := &roll(t, a, now, 1)[0]
	c := settle(t, a, long, 18, closed, now)
	want := Allocation{Plan: 15 * Credit, Lots: []Share{{NewLotID(a.ID, LotGrant, "g"), 3 * Credit}}}
	if diff := cmp.Diff(want, c.Alloc); diff != "" {
		t.Errorf("the first charge (-want +got):\n%s", diff)
	}
	if c := settle(t, a, other, 15, closed, now); c.Overage != 0 || c.Alloc.Plan != 15*Credit {
		t.Errorf("the other charge is %+v, want its 15 of the plan", c)
	}
}

func TestTopUpOfAPeriodBeforeTheLast(t *testing.T) {
	a := account(plan(carryOver(100)))
	adm := enter(t, a, 30, start)
	now := start.AddDate(0, 2, 1)
	closed := roll(t, a, now, 2)
	if closed[0].CarryOver != 0 || closed[1].CarryOver != WholeCredits(30) {
		t.Fatalf("carried over %s and %s, want 0 and 30", closed[0].CarryOver, closed[1].CarryOver)
	}
	if err := a.End(adm, Released, "", &closed[0], now); err != nil {
		t.Fatal(err)
	}
	if got := a.Remaining(now).Max; got != WholeCredits(60) {
		t.Errorf("Remaining = %s, want 60: the carry-over of two periods ago would have ended by now", got)
	}
}

// The slot came back when the admission expired. The late charge must not move that in the order of decisions, or a
// replay would see the slot taken while others were admitted into it.
func TestLateChargeLeavesTheEndWhereItWas(t *testing.T) {
	a := account(plan())
	late := enter(t, a, 5, start)
	expired := start.Add(time.Hour)
	if err := a.End(late, Expired, "", nil, expired); err != nil {
		t.Fatal(err)
	}
	next := enter(t, a, 5, expired.Add(time.Minute))
	c := settle(t, a, late, 4, nil, expired.Add(2*time.Minute))
	if late.EndedSeq >= next.AdmittedSeq || !late.EndedAt.Equal(expired) {
		t.Errorf("EndedSeq = %d, EndedAt = %s, want before %d and %s", late.EndedSeq, late.EndedAt,
			next.AdmittedSeq, expired)
	}
	if c.Seq != a.Seq || c.Seq <= next.AdmittedSeq {
		t.Errorf("Charge.Seq = %d, want the account's last decision, %d", c.Seq, a.Seq)
	}
}

func TestEnterTwiceBooksOnce(t *testing.T) {
	a := account(plan())
	adm := enter(t, a, 5, start)
	before := clone(a)
	if d := a.Enter(adm, start.Add(time.Minute)); d.Outcome != Admit {
		t.Errorf("Enter again = %+v, want Admit", d)
	}
	waits := admission(2, 5)
	if d := a.Enter(waits, start); d.Outcome != Wait {
		t.Fatalf("Enter the second = %+v, want Wait", d)
	}
	before.Queued, before.Seq = 1, before.Seq+1
	if d := a.Enter(waits, start); d.Outcome != Wait || d.Reason != ConcurrencyLimit {
		t.Errorf("Enter the waiting one again = %+v, want Wait for a slot", d)
	}
	if diff := cmp.Diff(before, a, cmp.Comparer(sameZone)); diff != "" {
		t.Errorf("account (-want +got):\n%s", diff)
	}
	if err := a.End(waits, Released, "", nil, start); err != nil {
		t.Fatal(err)
	}
	d := a.Enter(waits, start)
	if d.Outcome != Refuse || a.Park(waits, Decision{Reason: CreditsExhausted}, start) || waits.State != Cancelled {
		t.Errorf("a cancelled admission came back: %+v, %s", d, waits.State)
	}
}

func sameZone(x, y *time.Location) bool { return x.String() == y.String() }

func TestActualOutOfRange(t *testing.T) {
	for name, actual := range map[string]Credits{
		"negative": -1, "beyond the longest audio": maxActual + 1, "beyond everything": math.MaxInt64,
	} {
		t.Run(name, func(t *testing.T) {
			a := account(plan())
			adm := enter(t, a, 5, start)
			before := clone(a)
			if _, err := a.Settle(adm, actual, nil, start); !errors.Is(err, ErrInvalid) {
				t.Errorf("Settle: %v, want ErrInvalid", err)
			}
			if err := adm.Report(actual); !errors.Is(err, ErrInvalid) {
				t.Errorf("Report: %v, want ErrInvalid", err)
			}
			if diff := cmp.Diff(before, a, cmp.Comparer(sameZone)); diff != "" || adm.State != Admitted ||
				adm.Reported != nil {
				t.Errorf("something changed: %s, %+v", diff, adm)
			}
		})
	}
}

func TestAllowanceOfAnOverdrawnAccount(t *testing.T) {
	a := account(plan(), grant("g", 10, start.Add(time.Hour)))
	settle(t, a, enter(t, a, 35, start), 45, nil, start)
	if got := a.Allowance(start).Max; got != WholeCredits(40) {
		t.Errorf("Allowance = %s, want 30 of the plan and the 10 that the grant paid, whatever was used beyond", got)
	}
	if got := a.Remaining(start).Max; got != 0 {
		t.Errorf("Remaining = %s, want 0", got)
	}
}

func TestReservedCostNeverFallsBelowZero(t *testing.T) {
	a := account(plan(providerCost(MaxMoney), slots(10), unlimitedCredits,
		func(p *Plan) { p.DailyCostCeiling.Unlimited = true }))
	jobs := []*Admission{enter(t, a, 100, start), enter(t, a, 100, start), enter(t, a, 100, start)}
	for _, adm := range jobs {
		if err := a.End(adm, Released, "", nil, start); err != nil {
			t.Fatal(err)
		}
		if a.ReservedCost < 0 {
			t.Fatalf("ReservedCost = %s after a sum that saturated", a.ReservedCost)
		}
	}
}
