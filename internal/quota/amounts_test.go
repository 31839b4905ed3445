// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func inCurrency(currency string) func(*Plan) { return func(p *Plan) { p.Currency = currency } }

func dollars(change ...func(*Plan)) *Plan {
	p := plan(credits(10), overageOf(100, 1_000_000), slots(5))
	for _, f := range change {
		f(p)
	}
	return p
}

// euros is a plan like that of dollars, with prices of its own.
func euros(change ...func(*Plan)) *Plan {
	p := dollars(append(change, inCurrency("EUR"))...)
	p.ProviderCost, p.OveragePrice = 5_000, 900_000
	return p
}

// move puts an account on a plan, and brings it to the present.
func move(t *testing.T, a *Account, p *Plan, now time.Time) {
	t.Helper()
	a.Plan = p
	roll(t, a, now, 0)
}

func checkMoney(t *testing.T, what string, got []Amounts, want ...Amounts) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// What was reserved in dollars is given back in dollars, and what it cost is a cost in dollars, whatever the plan says
// by then; what is beyond the plan's credits is owed in the currency of the plan that charges it.
func TestAnAdmissionKeepsItsCurrency(t *testing.T) {
	a := account(dollars())
	first, second := enter(t, a, 20, start), enter(t, a, 5, start)
	move(t, a, euros(), start)
	if a.ReservedCost != 0 || a.in("USD").ReservedCost != 150_000 {
		t.Errorf("reserved: %s euros and %s dollars, want 0.15 dollars", a.ReservedCost, a.in("USD").ReservedCost)
	}
	third := enter(t, a, 2, start)
	c := settle(t, a, first, 20, nil, start)
	if c.CostCurrency != "USD" || c.Cost != 120_000 || c.Currency != "EUR" || c.Price != 9_000_000 {
		t.Errorf("charged %+v", c)
	}
	if err := a.End(second, Released, "", nil, start); err != nil {
		t.Fatal(err)
	}
	if a.ReservedCost != 10_000 || a.in("USD").ReservedCost != 0 {
		t.Errorf("reserved: %s euros and %s dollars, want 0.01 euros", a.ReservedCost, a.in("USD").ReservedCost)
	}
	settle(t, a, third, 2, nil, start)
	checkMoney(t, "the period", a.Money(),
		Amounts{Currency: "EUR", Cost: 10_000, DayCost: 10_000, Charged: 10_800_000},
		Amounts{Currency: "USD", Cost: 120_000, DayCost: 120_000})
}

// An admission of a release that did not write its currency down has that of the plan when it was admitted.
func TestCurrencyThatWasNotRecorded(t *testing.T) {
	a := account(dollars())
	adm := enter(t, a, 5, start)
	adm.Currency = ""
	p := euros()
	p.Past = []PastTerms{{Terms: a.Plan.TermsAt(start), Until: start.Add(time.Hour)}}
	move(t, a, p, start.Add(2*time.Hour))
	if c := settle(t, a, adm, 5, nil, start.Add(2*time.Hour)); c.CostCurrency != "USD" {
		t.Errorf("its cost is in %q", c.CostCurrency)
	}
	// The user was moved to another plan meanwhile: nothing runs, so nothing stays reserved.
	a = account(dollars())
	adm = enter(t, a, 5, start)
	adm.Currency = ""
	move(t, a, euros(), start)
	settle(t, a, adm, 5, nil, start)
	if a.ReservedCost != 0 || a.in("USD").ReservedCost != 0 {
		t.Errorf("%s euros and %s dollars stay reserved", a.ReservedCost, a.in("USD").ReservedCost)
	}
}

// The daily ceiling counts its own currency only. Who returns to the first one within the day finds what was spent in
// it.
func TestCeilingCountsItsOwnCurrency(t *testing.T) {
	now := start
	a := account(dollars(credits(1000), ceiling(60_000)))
	settle(t, a, enter(t, a, 8, now), 8, nil, now)
	enter(t, a, 1, now)
	refused := func(n int64) Bound {
		t.Helper()
		d := Decide(a, request(n), now)
		if d.Reason != DailyCostCeiling {
			t.Fatalf("%d credits: %+v", n, d)
		}
		return d.Bound
	}
	want := Bound{
		Unit: UnitMoney, Currency: "USD", Limit: 60_000, Used: 48_000, Reserved: 6_000, Requested: 12_000,
		Remaining: 6_000,
	}
	if got := refused(2); got != want {
		t.Errorf("in dollars: %+v, want %+v", got, want)
	}
	before := a.Means(now)
	move(t, a, euros(credits(1000), ceiling(60_000)), now)
	if !a.Means(now).Help(before) {
		t.Error("what the ceiling kept waiting is not looked at again")
	}
	settle(t, a, enter(t, a, 10, now), 10, nil, now)
	want = Bound{Unit: UnitMoney, Currency: "EUR", Limit: 60_000, Used: 50_000, Requested: 15_000, Remaining: 10_000}
	if got := refused(3); got != want {
		t.Errorf("in euros: %+v, want %+v", got, want)
	}
	held := Outstanding{Tickets: 1, Credits: 2 * Credit}
	if d := DecideOffline(a, request(1), held, now); d.Reason != DailyCostCeiling || d.Bound.Reserved != 10_000 {
		t.Errorf("with a ticket for the rest: %+v", d)
	}
	move(t, a, dollars(credits(1000), ceiling(60_000)), now)
	if got := refused(2); got.Used != 48_000 || got.Reserved != 6_000 {
		t.Errorf("back in dollars: %+v", got)
	}
	// Tomorrow nothing of that counts, but what still runs.
	now = now.AddDate(0, 0, 1)
	move(t, a, euros(credits(1000), ceiling(60_000)), now)
	settle(t, a, enter(t, a, 1, now), 1, nil, now)
	if a.DayCost != 5_000 || a.in("USD") != (Amounts{Currency: "USD", Cost: 48_000, ReservedCost: 6_000}) {
		t.Errorf("tomorrow: %s euros and %+v", a.DayCost, a.in("USD"))
	}
}

// A closed period has the currency of what its plan said when it ended. Late work is owed in that, what it costs is in
// the admission's, and a reversal takes off what the charge had put on.
func TestLateWorkOfAnotherCurrency(t *testing.T) {
	a := account(dollars())
	settle(t, a, enter(t, a, 12, start), 12, nil, start)
	late := enter(t, a, 3, start)
	end := a.Period.End
	p := euros()
	p.Past = []PastTerms{{Terms: a.Plan.TermsAt(start), Until: end.Add(time.Second)}}
	a.Plan = p
	closed := roll(t, a, end.Add(time.Hour), 1)[0]
	if closed.Currency != "USD" || closed.Charged != 2_000_000 || closed.Other != nil {
		t.Fatalf("closed: %+v", closed)
	}
	if money := a.Money(); len(money) > 0 {
		t.Errorf("the new period: %+v", money)
	}
	now := end.Add(time.Hour)
	c := settle(t, a, late, 4, &closed, now)
	if c.Currency != "USD" || c.Price != 4_000_000 || c.CostCurrency != "USD" || c.Cost != 24_000 {
		t.Errorf("late: %+v", c)
	}
	// A use of that period which is recorded now: what it cost is in the plan's currency.
	use := Use{Type: UsageTranscription, Audio: time.Minute, Quantity: 1, OccurredAt: start}
	r, period, err := a.Record(use, map[int64]*ClosedPeriod{0: &closed}, now)
	if err != nil || period != &closed || r.Currency != "USD" || r.CostCurrency != "EUR" {
		t.Fatalf("recorded: %+v, %v", r, err)
	}
	checkMoney(t, "the closed period", closed.Money(),
		Amounts{Currency: "USD", Cost: 96_000, Charged: 7_000_000}, Amounts{Currency: "EUR", Cost: 5_000})
	if a.DayCost != 5_000 || a.in("USD").DayCost != 24_000 {
		t.Errorf("today: %s euros and %s dollars", a.DayCost, a.in("USD").DayCost)
	}
	if rev := a.Reverse(id(7), c, &closed, now); rev.Currency != "USD" || closed.Charged != 3_000_000 {
		t.Errorf("reversed: %+v, the period has charged %s", rev, closed.Charged)
	}
	// Once it is final the open one pays, in euros.
	adjusted, _, err := a.Record(use, map[int64]*ClosedPeriod{0: &closed}, closed.FinalAt())
	if err != nil || !adjusted.Adjustment || adjusted.Currency != "EUR" {
		t.Errorf("%+v, %v", adjusted, err)
	}
}

// What was owed in dollars is given back in dollars after the plan has changed to euros.
func TestReversalOfAnotherCurrency(t *testing.T) {
	a := account(dollars())
	c := settle(t, a, enter(t, a, 20, start), 20, nil, start)
	move(t, a, euros(), start)
	debit, err := a.Adjust(3*Credit, start)
	if err != nil || debit.Currency != "EUR" || debit.Price != 2_700_000 {
		t.Fatalf("%+v, %v", debit, err)
	}
	if r := a.Reverse(id(7), c, nil, start); r.Currency != "USD" || r.Price != 10_000_000 {
		t.Errorf("%+v", r)
	}
	checkMoney(t, "the period", a.Money(),
		Amounts{Currency: "EUR", Charged: 2_700_000}, Amounts{Currency: "USD", Cost: 120_000, DayCost: 120_000})
}

// A period that ended in dollars is closed in dollars, also where the plan had been in euros in its middle and is in
// yen when somebody looks.
func TestPeriodsAreClosedInTheirCurrency(t *testing.T) {
	a := account(euros())
	settle(t, a, enter(t, a, 12, start), 12, nil, start)
	move(t, a, dollars(), start)
	settle(t, a, enter(t, a, 1, start), 1, nil, start)
	running := enter(t, a, 1, start)
	p := dollars(inCurrency("JPY"))
	p.Past = []PastTerms{{Terms: a.Plan.TermsAt(start), Until: a.Period.End.Add(time.Second)}}
	inTime := clone(a)
	a.Plan = p
	closed := roll(t, a, a.Period.End.Add(time.Hour), 1)[0]
	checkMoney(t, "the closed period", closed.Money(),
		Amounts{Currency: "USD", Cost: 6_000, Charged: 1_000_000},
		Amounts{Currency: "EUR", Cost: 60_000, Charged: 1_800_000})
	if a.Currency != "JPY" || a.in("USD").ReservedCost != running.EstimatedCost || a.in("USD").Cost != 0 {
		t.Errorf("the open period: %+v and %+v", a.Amounts, a.Other)
	}
	if diff := cmp.Diff(closed, roll(t, inTime, inTime.Period.End, 1)[0]); diff != "" {
		t.Errorf("closed in time (-late +in time):\n%s", diff)
	}
}

// Whoever holds an OtherAmounts sees it as it was.
func TestOtherAmountsAreNeverChanged(t *testing.T) {
	var none *OtherAmounts
	one := none.with(Amounts{Currency: "USD", Cost: 1})
	two := one.with(Amounts{Currency: "EUR", Cost: 2})
	three := two.with(Amounts{Currency: "USD", Cost: 3})
	for name, tc := range map[string]struct {
		got  *OtherAmounts
		want []Amounts
	}{
		"one":     {one, []Amounts{{Currency: "USD", Cost: 1}}},
		"two":     {two, []Amounts{{Currency: "EUR", Cost: 2}, {Currency: "USD", Cost: 1}}},
		"three":   {three, []Amounts{{Currency: "EUR", Cost: 2}, {Currency: "USD", Cost: 3}}},
		"changed": {two.each(func(m *Amounts) { m.Cost-- }), []Amounts{{Currency: "EUR", Cost: 1}}},
	} {
		if diff := cmp.Diff(tc.want, tc.got.List); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if got := one.with(Amounts{Currency: "USD"}); got != nil {
		t.Errorf("nothing is left, and %+v is kept", got)
	}
	if two.with(Amounts{Currency: "JPY"}) != two || two.each(func(*Amounts) {}) != two {
		t.Error("no change makes another one")
	}
}

// Overage in dollars, the plan is changed to one in euros, overage again: ten of each are owed, and twenty of nothing.
func TestOverageInTwoCurrencies(t *testing.T) {
	a := account(plan(credits(10), overageOf(100, 1_000_000), providerCost(6_000)))
	settle(t, a, enter(t, a, 20, start), 20, nil, start)
	a.Plan = plan(credits(10), overageOf(100, 1_000_000), providerCost(6_000), inCurrency("EUR"))
	roll(t, a, start, 0)
	settle(t, a, enter(t, a, 10, start), 10, nil, start)
	if a.Charged != 10_000_000 || a.Cost != 60_000 || a.DayCost != 60_000 {
		t.Errorf("in euros: charged %s, cost %s, today %s; want 10, 0.06, 0.06", a.Charged, a.Cost, a.DayCost)
	}
}
