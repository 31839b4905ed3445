// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParcels(t *testing.T) {
	end := start.AddDate(0, 1, 0)
	type standing struct {
		Kind                          LotKind
		Name                          string
		Used, Reserved, Credits, Left int64
	}
	const unlimited = -1
	used := func(l Lot, used, reserved int64) Lot {
		l.Used, l.Reserved = WholeCredits(used), WholeCredits(reserved)
		return l
	}
	tests := map[string]struct {
		plan           *Plan
		lots           []Lot
		used, reserved int64
		want           []standing
	}{
		"the plan alone": {plan: plan(), used: 10, reserved: 5, want: []standing{{"plan", "", 10, 5, 30, 15}}},
		"in the order in which they pay": {
			plan: plan(overageOf(20, 10_000)), used: 30, reserved: 5,
			lots: []Lot{
				grant("never", 10, time.Time{}), used(grant("soon", 10, end.Add(-time.Hour)), 4, 1),
				grant("late", 10, end.Add(time.Hour)),
			},
			want: []standing{
				{"grant", "soon", 4, 1, 10, 5}, {"plan", "", 30, 0, 30, 0}, {"grant", "late", 0, 0, 10, 10},
				{"grant", "never", 0, 0, 10, 10}, {"overage", "", 0, 5, 20, 15},
			},
		},
		"what is used up or has ended is left out, unless something is reserved of it": {
			plan: plan(), want: []standing{{"grant", "held", 1, 2, 10, 7}, {"plan", "", 0, 0, 30, 30}},
			lots: []Lot{
				used(grant("used up", 10, end), 10, 0), grant("ended", 10, start), used(grant("held", 10, start), 1, 2),
			},
		},
		"overdrawn beyond the overage": {
			plan: plan(overageOf(5, 10_000)), used: 40,
			want: []standing{{"plan", "", 30, 0, 30, 0}, {"overage", "", 10, 0, 5, 0}},
		},
		"overdrawn without an overage": {plan: plan(), used: 40, want: []standing{{"plan", "", 40, 0, 30, 0}}},
		"unlimited": {
			plan: plan(unlimitedCredits, overageOf(5, 10_000)), used: 40,
			want: []standing{{"plan", "", 40, 0, unlimited, unlimited}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			a := account(tc.plan, tc.lots...)
			a.PlanUsed, a.PlanReserved = WholeCredits(tc.used), WholeCredits(tc.reserved)
			whole := func(l Limit[Credits]) int64 {
				if l.Unlimited {
					return unlimited
				}
				return int64(l.Max / WholeCredits(1))
			}
			var got []standing
			for _, p := range a.Parcels(start) {
				got = append(got, standing{
					p.Kind, p.Name, int64(p.Used / WholeCredits(1)), int64(p.Reserved / WholeCredits(1)),
					whole(p.Credits), whole(p.Remaining()),
				})
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("parcels (-want +got):\n%s", diff)
			}
		})
	}
}
