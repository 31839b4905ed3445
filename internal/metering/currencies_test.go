// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// sells is a plan of 10 credits that sells overage at 1 a credit, in a currency.
func sells(currency string) metering.Plan {
	return plans.Free(func(p *metering.Plan) {
		p.Limits.Credits, p.OverageMax, p.OveragePrice = quota.AtMost(10*quota.Credit), 100*quota.Credit, 1_000_000
		p.Currency = currency
	})
}

func (w *world) used(user, key string, credits quota.Credits) {
	w.t.Helper()
	adm := w.admit(user, key, credits).Admission
	if _, err := w.Complete(w.t.Context(), adm.Account, adm.ID, credits); err != nil {
		w.t.Fatal(err)
	}
}

// Overage in dollars, the plan is changed to one in euros, overage again: ten of each are owed, and twenty of nothing.
func TestOverageInTwoCurrencies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.plan(sells("USD"))
	w.used("alice", "1", 20*quota.Credit)
	w.plan(sells("EUR"))
	w.used("alice", "2", 10*quota.Credit)
	inEuros := quota.Amounts{Currency: "EUR", Cost: 60_000, Charged: 10_000_000, DayCost: 60_000}
	inDollars := quota.Amounts{Currency: "USD", Cost: 120_000, Charged: 10_000_000, DayCost: 120_000}
	w.wantMoney("alice", inEuros, inDollars)

	// A period that has ended says the same, and that of today begins with nothing.
	w.advance(31 * 24 * time.Hour)
	inEuros.DayCost, inDollars.DayCost = 0, 0
	for range 2 {
		h := w.history("alice", 0, 10)
		if diff := cmp.Diff([]quota.Amounts{inEuros, inDollars}, h.Periods[1].Money()); diff != "" {
			t.Errorf("closed (-want +got):\n%s", diff)
		}
		if money := h.Periods[0].Money(); len(money) > 0 {
			t.Errorf("the open period has %+v", money)
		}
		if _, err := w.reset(t.Context(), resetOf("free", 10)); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *world) wantMoney(user string, want ...quota.Amounts) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.usage(user).Account.Money()); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", user, diff)
	}
}

// Work that was admitted in dollars costs dollars, what it owes beyond the credits is in euros by then, and a reversal
// takes off what the charge had put on. The event says each.
func TestEventsNameTheirCurrencies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.plan(sells("USD"))
	adm := w.admit("alice", "1", 20*quota.Credit).Admission
	w.plan(sells("EUR"))
	if _, err := w.Complete(t.Context(), adm.Account, adm.ID, 20*quota.Credit); err != nil {
		t.Fatal(err)
	}
	dollars := quota.Amounts{Currency: "USD", Cost: 120_000, DayCost: 120_000}
	w.wantMoney("alice", quota.Amounts{Currency: "EUR", Charged: 10_000_000}, dollars)
	e := w.event(ledger.ChargeID(adm.Account, adm.ID))
	if e.Currency != "EUR" || e.Price != 10_000_000 || e.CostCurrency != "USD" || e.Cost != 120_000 {
		t.Errorf("the charge: %+v", e)
	}
	recorded := w.record(use("alice", "2", 1)).Event
	if recorded.Currency != "EUR" || recorded.CostCurrency != "EUR" {
		t.Errorf("recorded: %+v", recorded)
	}
	w.plan(sells("JPY"))
	if undone := w.reverse(e, "undo").Event; undone.Currency != "EUR" || undone.Price != 10_000_000 {
		t.Errorf("reversed: %+v", undone)
	}
	w.wantMoney("alice", quota.Amounts{Currency: "EUR", Cost: 6_000, Charged: 1_000_000, DayCost: 6_000}, dollars)
}

// The user is moved between plans of two currencies, and the ceiling of each counts its own.
func TestCeilingsOfTwoPlans(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, currency := range map[string]string{"free": "USD", "pro": "EUR"} {
		p := sells(currency)
		p.DailyCostCeiling, p.Name, p.Default = quota.AtMost[quota.Money](60_000), name, name == "free"
		p.ObjectUID = map[string]quota.ID{"free": {1}, "pro": {2}}[name]
		w.plan(p)
	}
	on := func(plan string) {
		w.quota(metering.Quota{
			ObjectUID: quota.ID{9}, ObjectName: "alice", UserID: "alice", PlanName: plan, Zone: "UTC",
		})
	}
	refused := func(key string) {
		t.Helper()
		if d := w.admit("alice", key, 2*quota.Credit).Decision; d.Reason != quota.DailyCostCeiling {
			t.Errorf("%s: %+v", key, d)
		}
	}
	on("free")
	w.used("alice", "1", 9*quota.Credit)
	refused("2")
	on("pro")
	w.used("alice", "3", 9*quota.Credit)
	refused("4")
	on("free")
	refused("5")
	w.advance(24 * time.Hour)
	w.used("alice", "6", 2*quota.Credit)
}

// What the release before this one wrote says no currency: it is that of the plan at that time, whatever the plan says
// now.
func TestRowsWithoutACurrency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.plan(sells("USD"))
	w.used("alice", "1", 12*quota.Credit)
	adm := w.admit("alice", "2", 3*quota.Credit).Admission
	root := w.outsider()
	root.exec(`UPDATE usage_quotas SET currency = NULL`)
	root.exec(`UPDATE concurrent_processing SET currency = NULL`)
	root.exec(`UPDATE usage_tracking SET cost_currency = NULL`)
	w.advance(time.Minute)
	w.plan(sells("EUR"))
	w.wantMoney("alice", quota.Amounts{
		Currency: "USD", Cost: 72_000, Charged: 2_000_000, DayCost: 72_000, ReservedCost: 18_000,
	})
	ledgertest.Check(t.Context(), t, w.dsn)
	if _, err := w.Complete(t.Context(), adm.Account, adm.ID, 3*quota.Credit); err != nil {
		t.Fatal(err)
	}
	w.wantMoney("alice", quota.Amounts{Currency: "EUR", Charged: 3_000_000},
		quota.Amounts{Currency: "USD", Cost: 90_000, Charged: 2_000_000, DayCost: 90_000})
}

// The migration gives the periods that were closed without a currency that of the version that closed them.
func TestPeriodsWithoutACurrency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.plan(sells("EUR"))
	w.used("alice", "1", 12*quota.Credit)
	w.advance(31 * 24 * time.Hour)
	w.used("alice", "2", quota.Credit)
	w.plan(sells("USD"))
	migration, err := os.ReadFile("../postgres/migrations/00010_currencies.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, up, _ := strings.Cut(string(migration), "-- +goose Up")
	backfill, _, _ := strings.Cut(up, ";")
	root := w.outsider()
	root.exec(`UPDATE usage_periods SET currency = NULL`)
	root.exec(backfill)
	h := w.history("alice", 0, 10)
	want := []quota.Amounts{{Currency: "EUR", Cost: 72_000, Charged: 2_000_000}}
	if diff := cmp.Diff(want, h.Periods[1].Money()); diff != "" {
		t.Errorf("closed (-want +got):\n%s", diff)
	}
}
