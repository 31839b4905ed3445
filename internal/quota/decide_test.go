// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDecide(t *testing.T) {
	now := start.Add(time.Hour)
	end := start.AddDate(0, 1, 0)
	midnight := time.Date(2026, time.November, 2, 0, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		plan *Plan
		lots []Lot
		set  func(*Account)
		req  Request
		want Decision
	}{
		"within all limits": {req: request(30), want: Decision{Outcome: Admit}},
		"a file of exactly the limit": {req: Request{Estimate: Credit, FileSize: 25 << 20},
			want: Decision{Outcome: Admit}},
		"suspended": {set: func(a *Account) { a.Suspended = true }, req: request(1),
			want: Decision{Reason: UserSuspended}},
		"a file a byte above the limit": {
			req: Request{Estimate: Credit, FileSize: 25<<20 + 1},
			want: Decision{Reason: FileTooLarge,
				Bound: Bound{Unit: UnitBytes, Limit: 25 << 20, Requested: 25<<20 + 1, Remaining: 25 << 20}},
		},
		"audio too long": {
			plan: plan(func(p *Plan) { p.Limits.Audio = AtMost(time.Minute) }), req: Request{Estimate: Credit + 1},
			want: Decision{Reason: AudioTooLong,
				Bound: Bound{Unit: UnitAudio, Limit: 60_000, Requested: 60_001, Remaining: 60_000}},
		},
		"an absurd estimate does not wrap": {
			plan: plan(unlimitedCredits), req: Request{Estimate: math.MaxInt64},
			want: Decision{Reason: AudioTooLong,
				Bound: Bound{Unit: UnitAudio, Limit: 86_400_000, Requested: math.MaxInt64, Remaining: 86_400_000}},
		},
		"credits exhausted until the period ends": {
			set: func(a *Account) {
				a.Used, a.PlanUsed, a.Reserved, a.PlanReserved = 20*Credit, 20*Credit, 4*Credit, 4*Credit
			},
			req: request(7),
			want: Decision{
				Reason: CreditsExhausted, RetryAt: end,
				Bound: Bound{Unit: UnitCredits, Limit: int64(30 * Credit), Used: int64(20 * Credit),
					Reserved: int64(4 * Credit), Requested: int64(7 * Credit), Remaining: int64(6 * Credit)},
			},
		},
		"more than any period has": {
			req: request(31),
			want: Decision{
				Reason: CreditsExhausted,
				Bound: Bound{Unit: UnitCredits, Limit: int64(30 * Credit), Requested: int64(31 * Credit),
					Remaining: int64(30 * Credit)},
			},
		},
		"more than a period has, but not with what could be carried over": {
			plan: plan(carryOver(5)), req: request(31),
			want: Decision{
				Reason: CreditsExhausted, RetryAt: end,
				Bound: Bound{Unit: UnitCredits, Limit: int64(30 * Credit), Requested: int64(31 * Credit),
					Remaining: int64(30 * Credit)},
			},
		},
		"more than a period has, but not with a grant that outlives it": {
			lots: []Lot{grant("g", 5, time.Time{})},
			set:  func(a *Account) { a.Used, a.PlanUsed = 30*Credit, 30*Credit }, req: request(35),
			want: Decision{
				Reason: CreditsExhausted, RetryAt: end,
				Bound: Bound{Unit: UnitCredits, Limit: int64(35 * Credit), Used: int64(30 * Credit),
					Requested: int64(35 * Credit), Remaining: int64(5 * Credit)},
			},
		},
		"overdrawn": {
			set: func(a *Account) { a.Used, a.PlanUsed = 33*Credit, 33*Credit }, req: request(1),
			want: Decision{
				Reason: CreditsExhausted, RetryAt: end,
				Bound: Bound{Unit: UnitCredits, Limit: int64(30 * Credit), Used: int64(33 * Credit),
					Requested: int64(Credit)},
			},
		},
		"overage allows": {plan: plan(overageOf(5, 10_000)), req: request(35), want: Decision{Outcome: Admit}},
		"an override replaces the plan's limit": {
			set: func(a *Account) { a.Overrides.Credits = &Limit[Credits]{Max: WholeCredits(2)} }, req: request(3),
			want: Decision{Reason: CreditsExhausted, Bound: Bound{Unit: UnitCredits, Limit: int64(2 * Credit),
				Requested: int64(3 * Credit), Remaining: int64(2 * Credit)}},
		},
		"an unlimited override": {
			set: func(a *Account) { a.Overrides.Credits = &Limit[Credits]{Unlimited: true} }, req: request(1000),
			want: Decision{Outcome: Admit},
		},
		"the ceiling is reached": {
			plan: plan(ceiling(60_000)), req: request(6),
			set: func(a *Account) { a.Day, a.DayCost, a.ReservedCost = utcDay(now), 20_000, 5_000 },
			want: Decision{
				Reason: DailyCostCeiling, RetryAt: midnight,
				Bound: Bound{Unit: UnitMoney, Currency: "USD", Limit: 60_000, Used: 20_000, Reserved: 5_000,
					Requested: 36_000,
					Remaining: 35_000},
			},
		},
		"the ceiling is exactly met": {
			plan: plan(ceiling(61_000)), req: request(6),
			set:  func(a *Account) { a.Day, a.DayCost, a.ReservedCost = utcDay(now), 20_000, 5_000 },
			want: Decision{Outcome: Admit},
		},
		"yesterday's cost does not count, what still runs does": {
			plan: plan(ceiling(60_000)), req: request(6),
			set:  func(a *Account) { a.Day, a.DayCost, a.ReservedCost = utcDay(now).AddDate(0, 0, -1), 60_000, 24_000 },
			want: Decision{Outcome: Admit},
		},
		"a job above the ceiling never runs": {
			plan: plan(ceiling(30_000)), req: request(6),
			want: Decision{Reason: DailyCostCeiling,
				Bound: Bound{Unit: UnitMoney, Currency: "USD", Limit: 30_000, Requested: 36_000, Remaining: 30_000}},
		},
		"waits for a slot": {
			set: func(a *Account) { a.Active = 1 }, req: request(1),
			want: Decision{Outcome: Wait, Reason: ConcurrencyLimit,
				Bound: Bound{Unit: UnitJobs, Limit: 1, Used: 1, Requested: 1}},
		},
		"would not wait": {
			set: func(a *Account) { a.Active = 1 }, req: Request{Estimate: Credit},
			want: Decision{Reason: ConcurrencyLimit, Bound: Bound{Unit: UnitJobs, Limit: 1, Used: 1, Requested: 1}},
		},
		"a slot is free, but others wait": {
			set: func(a *Account) { a.Queued = 1 }, req: request(1),
			want: Decision{Outcome: Wait, Reason: NotFirst,
				Bound: Bound{Unit: UnitJobs, Limit: 1, Requested: 1, Remaining: 1}},
		},
		"a slot is free, others wait, the caller would not": {
			set: func(a *Account) { a.Queued = 1 }, req: Request{Estimate: Credit},
			want: Decision{Reason: NotFirst, Bound: Bound{Unit: UnitJobs, Limit: 1, Requested: 1, Remaining: 1}},
		},
		"a slot is free, those that wait are parked": {
			set: func(a *Account) { a.Queued, a.Parked = 3, 3 }, req: request(1), want: Decision{Outcome: Admit},
		},
		"the queue is full, the parked among them": {
			plan: plan(func(p *Plan) { p.Limits.Queued = AtMost(int32(2)) }),
			set:  func(a *Account) { a.Active, a.Queued, a.Parked = 1, 2, 1 }, req: request(1),
			want: Decision{Reason: QueueFull, Bound: Bound{Unit: UnitJobs, Limit: 2, Used: 2, Requested: 1}},
		},
		"more run than a lowered limit allows": {
			set: func(a *Account) { a.Active = 5 }, req: Request{Estimate: Credit},
			want: Decision{Reason: ConcurrencyLimit, Bound: Bound{Unit: UnitJobs, Limit: 1, Used: 5, Requested: 1}},
		},
		"no limit on slots": {
			plan: plan(func(p *Plan) { p.Limits.Concurrent = Limit[int32]{Unlimited: true} }),
			set:  func(a *Account) { a.Active = math.MaxInt32 - 1 }, req: request(1), want: Decision{Outcome: Admit},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if tc.plan == nil {
				tc.plan = plan()
			}
			a := account(tc.plan, tc.lots...)
			if tc.set != nil {
				tc.set(a)
			}
			if diff := cmp.Diff(tc.want, Decide(a, tc.req, now)); diff != "" {
				t.Errorf("Decide (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMessage(t *testing.T) {
	tests := map[string]struct {
		d    Decision
		want string
	}{
		"admitted":  {Decision{Outcome: Admit}, "within all limits"},
		"suspended": {Decision{Reason: UserSuspended}, "the user is suspended"},
		"file": {Decision{Reason: FileTooLarge, Bound: Bound{Requested: 26 << 20, Limit: 25 << 20}},
			"the file has 26Mi, the limit is 25Mi per file"},
		"file, by a byte": {
			Decision{Reason: FileTooLarge, Bound: Bound{Requested: 25<<20 + 1, Limit: 25 << 20}},
			"the file has 26214401 bytes, the limit is 26214400 bytes per file",
		},
		"audio": {Decision{Reason: AudioTooLong, Bound: Bound{Requested: 60_001, Limit: 60_000}},
			"the audio lasts 1m0.001s, the limit is 1m0s per job"},
		"credits": {
			Decision{Reason: CreditsExhausted, Bound: Bound{Requested: int64(7 * Credit),
				Remaining: int64(5*Credit + Credit/2), Limit: int64(30 * Credit), Used: int64(20 * Credit),
				Reserved: int64(4*Credit + Credit/2)}},
			"7 credits are needed, 5.5 of 30 remain in this period (20 used, 4.5 reserved)",
		},
		"credits, by a unit": {
			Decision{Reason: CreditsExhausted, Bound: Bound{Requested: int64(30*Credit + 1),
				Remaining: int64(30 * Credit), Limit: int64(30 * Credit)}},
			"30.00002 credits are needed, 30 of 30 remain in this period (0 used, 0 reserved)",
		},
		"ceiling": {
			Decision{Reason: DailyCostCeiling, Bound: Bound{
				Requested: 36_000, Remaining: 30_000, Limit: 50_000_000, Currency: "USD",
			}},
			"the job would cost 0.036 USD, 0.03 of the daily ceiling of 50 remain",
		},
		"slots": {Decision{Reason: ConcurrencyLimit, Bound: Bound{Used: 5, Limit: 5}},
			"5 of 5 jobs are running"},
		"not first": {Decision{Reason: NotFirst}, "other jobs of the user wait in front"},
		"queue": {Decision{Reason: QueueFull, Bound: Bound{Used: 100, Limit: 100}},
			"100 of 100 jobs are waiting already"},
		"wait": {
			Decision{Reason: WaitedTooLong, WaitedFor: CreditsExhausted,
				Bound: Bound{Limit: 3_600_000, Used: 3_603_210}},
			"it waited 1h0m3s (CreditsExhausted), the plan lets work wait 1h0m0s at most",
		},
		"wait, by a moment": {
			Decision{Reason: WaitedTooLong, WaitedFor: ConcurrencyLimit,
				Bound: Bound{Limit: 60_000, Used: 60_001}},
			"it waited 1m0.001s (ConcurrencyLimit), the plan lets work wait 1m0s at most",
		},
		"unknown user": {Decision{Reason: UnknownUser}, "the user is not known"},
		"unknown plan": {Decision{Reason: UnknownPlan}, "the user's plan is not known and there is no default plan"},
		"foreign":      {Decision{Reason: "Other"}, "Other"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tc.d.Message(); got != tc.want {
				t.Errorf("Message() = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestUpgrade(t *testing.T) {
	ranked := func(name string, rank int32, change ...func(*Plan)) *Plan {
		p := plan(change...)
		p.Name, p.Rank = name, rank
		return p
	}
	file := func(n int64) func(*Plan) { return func(p *Plan) { p.Limits.FileSize = AtMost(n << 20) } }
	price := func(m Money) func(*Plan) { return func(p *Plan) { p.PeriodPrice = m } }
	retired := func(p *Plan) { p.Retired = true }
	starter := ranked("starter", 10, credits(300), slots(2), file(100))
	pro := ranked("pro", 20, credits(1200), slots(5), file(200))
	enterprise := ranked("enterprise", 30, unlimitedCredits, slots(50), file(500))
	tests := map[string]struct {
		plan  *Plan
		set   func(*Account)
		req   Request
		plans []*Plan
		want  string
	}{
		"the lowest that allows":    {req: request(31), plans: []*Plan{enterprise, pro, starter}, want: "starter"},
		"not one that is too small": {req: request(301), plans: []*Plan{starter, enterprise, pro}, want: "pro"},
		"no plan allows": {req: Request{Estimate: Credit, FileSize: 1 << 40},
			plans: []*Plan{starter, pro, enterprise}},
		"nobody is offered a way down": {plan: pro, req: request(1201), plans: []*Plan{starter, pro}},
		"retired plans are not offered": {
			req: request(31), plans: []*Plan{ranked("old", 5, credits(300), retired), starter}, want: "starter",
		},
		"one that would refuse for another reason is not offered": {
			req: Request{Estimate: WholeCredits(400), FileSize: 26 << 20}, plans: []*Plan{starter, pro}, want: "pro",
		},
		"a full slot does not hide an upgrade for credits": {
			set: func(a *Account) { a.Active = 2 }, req: Request{Estimate: WholeCredits(31)},
			plans: []*Plan{starter, pro}, want: "starter",
		},
		"more slots": {
			set: func(a *Account) { a.Active = 1 }, req: Request{Estimate: Credit}, plans: []*Plan{starter, pro},
			want: "starter",
		},
		"more slots than are taken and waited for": {
			set: func(a *Account) { a.Active, a.Queued = 1, 3 }, req: Request{Estimate: Credit},
			plans: []*Plan{starter, pro}, want: "pro",
		},
		"a longer queue": {
			plan: plan(func(p *Plan) { p.Limits.Queued = AtMost(int32(1)) }),
			set:  func(a *Account) { a.Active, a.Queued = 9, 1 }, req: request(1), plans: []*Plan{starter, pro},
			want: "starter",
		},
		"no plan lifts a suspension": {
			set: func(a *Account) { a.Suspended = true }, req: request(1), plans: []*Plan{starter, pro},
		},
		"what the user has in exception is not counted on": {
			set: func(a *Account) {
				a.Overrides.FileSize = &Limit[int64]{Unlimited: true}
			},
			req: Request{Estimate: WholeCredits(31), FileSize: 150 << 20}, plans: []*Plan{starter, pro}, want: "pro",
		},
		"grants go with the user": {
			set: func(a *Account) { a.Lots = []Lot{grant("g", 10, time.Time{})} }, req: request(305),
			plans: []*Plan{starter, pro}, want: "starter",
		},
		"of two with the same rank the cheaper": {
			req: request(31), plans: []*Plan{ranked("b", 10, credits(300), price(9)),
				ranked("c", 10, credits(300), price(8)), ranked("a", 10, credits(300), price(9))}, want: "c",
		},
		"and at the same price by name": {
			req: request(31), plans: []*Plan{ranked("b", 10, credits(300)), ranked("a", 10, credits(300))}, want: "a",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if tc.plan == nil {
				tc.plan = plan()
			}
			a := account(tc.plan)
			if tc.set != nil {
				tc.set(a)
			}
			d := Decide(a, tc.req, start)
			if d.Outcome == Admit {
				t.Fatal("the request is admitted, there is nothing to upgrade for")
			}
			got := ""
			if p := Upgrade(a, tc.req, d, tc.plans, start); p != nil {
				got = p.Name
			}
			if got != tc.want {
				t.Errorf("Upgrade = %q, want %q (refused for %s)", got, tc.want, d.Reason)
			}
		})
	}
}

func TestPromote(t *testing.T) {
	type want struct {
		state  State
		reason Reason
		parked bool
	}
	tests := map[string]struct {
		plan    *Plan
		set     func(*Account)
		sizes   []int64 // of the queue, in its order
		want    []want
		changed int
	}{
		"in order, as many as there are slots": {
			plan: plan(slots(2)), sizes: []int64{5, 6, 7}, changed: 2,
			want: []want{{state: Admitted}, {state: Admitted}, {state: Queued, reason: ConcurrencyLimit}},
		},
		"what credits keep back lets the others pass": {
			plan: plan(slots(2)), set: func(a *Account) { a.Used, a.PlanUsed = 20*Credit, 20*Credit },
			sizes: []int64{15, 4, 5, 1}, changed: 3,
			want: []want{{Queued, CreditsExhausted, true}, {state: Admitted}, {state: Admitted},
				{state: Queued, reason: ConcurrencyLimit}},
		},
		"credits are used up in order": {
			plan: plan(slots(9)), sizes: []int64{20, 15, 10}, changed: 3,
			want: []want{{state: Admitted}, {Queued, CreditsExhausted, true}, {state: Admitted}},
		},
		"suspended: all park": {
			plan: plan(slots(9)), set: func(a *Account) { a.Suspended = true }, sizes: []int64{1, 1}, changed: 2,
			want: []want{{Queued, UserSuspended, true}, {Queued, UserSuspended, true}},
		},
		"the ceiling parks": {
			plan: plan(slots(9), ceiling(60_000)), sizes: []int64{10, 1}, changed: 2,
			want: []want{{state: Admitted}, {Queued, DailyCostCeiling, true}},
		},
		"a limit that was lowered meanwhile parks": {
			plan: plan(slots(9)), set: func(a *Account) { a.Overrides.FileSize = &Limit[int64]{Max: 1} },
			sizes: []int64{1}, changed: 1,
			want: []want{{Queued, FileTooLarge, true}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			a := account(tc.plan)
			a.Active = 100 // so that everything has to wait
			var queue []*Admission
			for i, n := range tc.sizes {
				adm := admission(uint64(i), n)
				if d := a.Enter(adm, start); d.Outcome != Wait {
					t.Fatalf("Enter = %+v, want Wait", d)
				}
				queue = append(queue, adm)
			}
			a.Active = 0
			if tc.set != nil {
				tc.set(a)
			}
			changed := a.Promote(queue, start.Add(time.Hour))
			for i, adm := range queue {
				got := want{adm.State, adm.Reason, adm.Parked}
				if got != tc.want[i] {
					t.Errorf("queue[%d] is %+v, want %+v", i, got, tc.want[i])
				}
			}
			if len(changed) != tc.changed {
				t.Errorf("%d changed, want %d", len(changed), tc.changed)
			}
			checkQueue(t, a, queue)
			if again := a.Promote(queue, start.Add(time.Hour)); len(again) != 0 {
				t.Errorf("promoting again changed %d admissions, want none", len(again))
			}
		})
	}
}

func checkQueue(t *testing.T, a *Account, queue []*Admission) {
	t.Helper()
	var queued, parked int32
	for _, adm := range queue {
		if adm.State == Queued {
			queued++
			if adm.Parked {
				parked++
			}
		} else if adm.Parked {
			t.Errorf("%s admission is parked", adm.State)
		}
	}
	if a.Queued != queued || a.Parked != parked {
		t.Errorf("Queued %d, Parked %d; want %d, %d", a.Queued, a.Parked, queued, parked)
	}
}

func TestParkedComesBack(t *testing.T) {
	a := account(plan())
	first := enter(t, a, 20, start)
	parked := admission(8, 15)
	if d := a.Enter(parked, start); d.Reason != CreditsExhausted || !a.Park(parked, d, start) {
		t.Fatalf("Enter = %+v, want refused for credits and parked", d)
	}
	behind := admission(9, 5)
	if d := a.Enter(behind, start); d.Outcome != Wait || d.Reason != ConcurrencyLimit {
		t.Fatalf("Enter = %+v, want Wait for a slot", d)
	}
	queue := []*Admission{parked, behind}

	// The first one ends cheaply: now there are credits for the parked one, and it comes before what arrived later.
	settle(t, a, first, 1, nil, start.Add(time.Minute))
	changed := a.Promote(queue, start.Add(time.Minute))
	if len(changed) != 1 || parked.State != Admitted || parked.Parked || !parked.EverParked || behind.State != Queued {
		t.Fatalf("parked is %s, behind is %s", parked.State, behind.State)
	}
	checkQueue(t, a, queue)

	// Parked for a suspension, then lifted while the slot is taken: it waits for the slot like all others.
	a.Suspended = true
	a.Promote(queue, start.Add(time.Minute))
	if !behind.Parked || behind.Reason != UserSuspended {
		t.Fatalf("behind is %+v, want parked for the suspension", behind)
	}
	a.Suspended = false
	a.Promote(queue, start.Add(time.Minute))
	if behind.Parked || behind.Reason != ConcurrencyLimit {
		t.Errorf("behind is %+v, want waiting for a slot", behind)
	}
	checkQueue(t, a, queue)
}

func TestPark(t *testing.T) {
	tests := map[string]struct {
		reason Reason
		queued int32
		want   bool
	}{
		"credits":              {reason: CreditsExhausted, want: true},
		"ceiling":              {reason: DailyCostCeiling, want: true},
		"suspension":           {reason: UserSuspended, want: true},
		"a full queue":         {reason: CreditsExhausted, queued: 100},
		"file":                 {reason: FileTooLarge},
		"audio":                {reason: AudioTooLong},
		"slots are waited for": {reason: ConcurrencyLimit},
		"the queue's limit":    {reason: QueueFull},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			a := account(plan())
			a.Queued = tc.queued
			adm := admission(1, 1)
			if got := a.Park(adm, Decision{Reason: tc.reason}, start); got != tc.want {
				t.Fatalf("Park = %t, want %t", got, tc.want)
			}
			if tc.want != (adm.State == Queued && adm.Parked && adm.EverParked && a.Queued == tc.queued+1 &&
				a.Parked == 1) {
				t.Errorf("admission %+v, account %+v", adm, a)
			}
			if !tc.want && (adm.State != "" || a.Queued != tc.queued || a.Parked != 0 || a.Seq != 0) {
				t.Errorf("something changed: admission %+v, account %+v", adm, a)
			}
		})
	}
}

func TestNotEnforced(t *testing.T) {
	a := account(plan())
	a.Suspended = true
	adm := admission(1, 31)
	adm.Enforced = false
	if d := a.Enter(adm, start); d.Outcome != Refuse || d.Reason != UserSuspended || adm.State != Admitted {
		t.Fatalf("Enter = %+v, %s; want the refusal reported and the work admitted", d, adm.State)
	}
	if a.Reserved != WholeCredits(31) || a.Active != 1 {
		t.Errorf("Reserved %s, Active %d; want it metered", a.Reserved, a.Active)
	}
}
