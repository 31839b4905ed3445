// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"testing"
	"time"
)

func TestDecideOffline(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*Account)
		request Request
		held    Outstanding
		now     time.Time
		want    Reason
		// remaining is what the refusal says.
		remaining int64
	}{
		"within all limits": {request: request(10)},
		"all that remains":  {request: request(30)},
		"more than remains": {request: request(31), want: CreditsExhausted,
			remaining: int64(30 * Credit)},
		"what runs is not known": {change: func(a *Account) { a.Active, a.Queued, a.Parked = 1, 5, 2 },
			request: request(10)},
		"tickets are": {request: request(10), held: Outstanding{Tickets: 1, Credits: Credit},
			want: ConcurrencyLimit},
		"nobody waits": {request: Request{Estimate: Credit, Queue: true},
			held: Outstanding{Tickets: 1, Credits: Credit}, want: ConcurrencyLimit},
		"suspended": {change: func(a *Account) { a.Suspended = true }, request: request(10),
			want: UserSuspended},
		"what was reserved stays reserved": {change: func(a *Account) {
			a.Reserved, a.PlanReserved = 25*Credit,
				25*Credit
		}, request: request(10), want: CreditsExhausted, remaining: int64(5 * Credit)},
		"with what tickets hold": {
			change:  func(a *Account) { a.Plan.Limits.Concurrent = AtMost(int32(5)) },
			request: request(11), held: Outstanding{Tickets: 1, Credits: 20 * Credit}, want: CreditsExhausted,
			remaining: int64(10 * Credit),
		},
		"exactly what tickets leave": {
			change:  func(a *Account) { a.Plan.Limits.Concurrent = AtMost(int32(5)) },
			request: request(10), held: Outstanding{Tickets: 1, Credits: 20 * Credit},
		},
		"the cost of tickets counts": {
			change: func(a *Account) {
				a.Plan.Limits.Concurrent, a.Plan.DailyCostCeiling = AtMost(int32(5)),
					AtMost(Price(12*Credit, a.Plan.ProviderCost))
			},
			request: request(10), held: Outstanding{Tickets: 1, Credits: 5 * Credit}, want: DailyCostCeiling,
			remaining: int64(Price(7*Credit, 6_000)),
		},
		"unlimited credits": {
			change: func(a *Account) {
				a.Plan.Limits.Credits, a.Plan.Limits.Concurrent = Limit[Credits]{Unlimited: true}, AtMost(int32(5))
			},
			request: request(1000), held: Outstanding{Tickets: 1, Credits: 1000 * Credit},
		},
		"the next period has credits again": {
			change: func(a *Account) { a.Used, a.PlanUsed = 30*Credit, 30*Credit }, request: request(10),
			now: start.AddDate(0, 1, 1),
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := account(plan())
			if tc.change != nil {
				tc.change(a)
			}
			if tc.now.IsZero() {
				tc.now = start
			}
			before := clone(a)
			d := DecideOffline(a, tc.request, tc.held, tc.now)
			if d.Reason != tc.want || (d.Outcome == Admit) != (tc.want == "") ||
				tc.remaining != 0 && d.Bound.Remaining != tc.remaining {
				t.Errorf("got %+v, want %q with %d remaining", d, tc.want, tc.remaining)
			}
			if before.PeriodNo != a.PeriodNo || before.Active != a.Active || before.Used != a.Used ||
				len(before.Lots) != len(a.Lots) {
				t.Errorf("the account changed: %+v", a)
			}
		})
	}
}

func TestSettleOfflineOfWhatIsNew(t *testing.T) {
	a := account(plan())
	a.Suspended = true
	adm := &Admission{ID: ID{1}, Request: Request{Estimate: 100 * Credit}, Lease: time.Minute}
	if _, err := a.SettleOffline(adm, -1, nil, start); err == nil || adm.State != "" || a.Seq != 0 {
		t.Errorf("an impossible use: %v, %+v", err, adm)
	}
	charge, err := a.SettleOffline(adm, 40*Credit, nil, start)
	if err != nil || charge == nil || charge.Credits != 40*Credit {
		t.Fatalf("got %+v, %v", charge, err)
	}
	if adm.State != Settled || !adm.Offline || adm.Enforced || adm.ArrivedSeq == 0 ||
		adm.AdmittedSeq < adm.ArrivedSeq || adm.EndedSeq <= adm.AdmittedSeq {
		t.Errorf("got %+v", adm)
	}
	if a.Used != 40*Credit || a.Reserved != 0 || a.Active != 0 {
		t.Errorf("got %+v", a)
	}
	if again, err := a.SettleOffline(adm, 40*Credit, nil, start); again != nil || err != nil {
		t.Errorf("again: %+v, %v", again, err)
	}
}
