// SPDX-License-Identifier: Apache-2.0

package quota_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

func TestBill(t *testing.T) {
	t.Parallel()
	pro := &quota.Plan{Name: "pro", Currency: "USD", PeriodPrice: 29_000_000, OveragePrice: 60_000,
		OverageMax: quota.WholeCredits(100), Limits: quota.Limits{Credits: quota.AtMost(quota.WholeCredits(500))}}
	for name, tc := range map[string]struct {
		used, fromPlan, overage, refused quota.Credits
		cost                             quota.Money
	}{
		"nothing":             {0, 0, 0, 0, 0},
		"within the plan":     {quota.WholeCredits(500), quota.WholeCredits(500), 0, 0, 0},
		"grants do not count": {quota.WholeCredits(700), quota.WholeCredits(500), 0, 0, 0},
		"overage":             {quota.WholeCredits(512), quota.WholeCredits(512), quota.WholeCredits(12), 0, 720_000},
		"beyond the overage": {quota.WholeCredits(650), quota.WholeCredits(650), quota.WholeCredits(100),
			quota.WholeCredits(50), 6_000_000},
		"a millisecond, half-even": {quota.WholeCredits(500) + 1, quota.WholeCredits(500) + 1, 1, 0, 1},
	} {
		got := pro.Bill(tc.used, tc.fromPlan)
		want := quota.Bill{
			Plan: pro, Currency: "USD", Used: tc.used, FromLots: tc.used - tc.fromPlan, FromPlan: tc.fromPlan,
			Included: pro.Limits.Credits, Overage: tc.overage, Refused: tc.refused, PeriodPrice: 29_000_000,
			OveragePrice: 60_000, OverageCost: tc.cost, Total: 29_000_000 + tc.cost,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	pro.Limits.Credits = quota.Limit[quota.Credits]{Unlimited: true}
	if got := pro.Bill(
		quota.WholeCredits(9999),
		quota.WholeCredits(9999),
	); got.Overage != 0 ||
		got.Total != 29_000_000 {
		t.Errorf("an unlimited plan asks for its price only: %+v", got)
	}
}

// All that was used is somewhere: paid by lots, within the plan, beyond it at a price, or refused.
func TestBillAddsUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		amount := rapid.Int64Range(0, int64(quota.WholeCredits(5000)))
		fromPlan := quota.Credits(amount.Draw(t, "from the plan"))
		used := fromPlan + quota.Credits(amount.Draw(t, "from lots"))
		p := &quota.Plan{
			Limits:       quota.Limits{Credits: quota.AtMost(quota.Credits(amount.Draw(t, "included")))},
			OverageMax:   quota.Credits(amount.Draw(t, "overage")),
			OveragePrice: quota.Money(rapid.Int64Range(0, 1_000_000).Draw(t, "price")),
			PeriodPrice:  quota.Money(rapid.Int64Range(0, 1_000_000_000).Draw(t, "plan's price")),
		}
		b := p.Bill(used, fromPlan)
		within := min(b.FromPlan, b.Included.Max)
		if b.FromLots+within+b.Overage+b.Refused != b.Used || b.Overage > p.OverageMax ||
			b.Total != b.PeriodPrice+b.OverageCost || (b.Refused > 0 && b.Overage != p.OverageMax) {
			t.Fatalf("%+v", b)
		}
	})
}
