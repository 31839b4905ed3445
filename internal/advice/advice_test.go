// SPDX-License-Identifier: Apache-2.0

package advice_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/advice"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const c = quota.Credit

func sold(name string, rank int32, credits quota.Credits, price, overage quota.Money) *quota.Plan {
	p := &quota.Plan{Name: name, Rank: rank, Currency: "USD", PeriodPrice: price, OveragePrice: overage}
	p.Limits.Credits = quota.AtMost(credits)
	if overage > 0 {
		p.OverageMax = 1000 * c
	}
	return p
}

func periods(used ...quota.Credits) []advice.PeriodUse {
	var out []advice.PeriodUse
	for i, u := range used {
		out = append(out, advice.PeriodUse{No: int64(i), Used: u, FromPlan: u})
	}
	return out
}

func TestPlanChange(t *testing.T) {
	t.Parallel()
	free := sold("free", 0, 30*c, 0, 0)
	small := sold("small", 10, 100*c, 10_000_000, 200_000)
	large := sold("large", 20, 300*c, 25_000_000, 100_000)
	euro := sold("euro", 30, 1000*c, 1, 0)
	euro.Currency = "EUR"
	gone := sold("gone", 30, 1000*c, 1, 0)
	gone.Retired = true
	offers := []*quota.Plan{free, small, large, euro, gone}
	for name, tc := range map[string]struct {
		on     *quota.Plan
		used   []advice.PeriodUse
		reason advice.Reason
		plan   string
		saving quota.Money
	}{
		"too young":         {large, periods(1*c, 1*c), "", "", 0},
		"unused":            {large, periods(20*c, 1*c, 30*c), advice.PlanUnused, "free", 75_000_000},
		"a smaller one":     {large, periods(80*c, 100*c, 30*c), advice.PlanUnused, "small", 45_000_000},
		"with its overage":  {large, periods(80*c, 110*c, 30*c), advice.OverageIsCheaper, "small", 43_000_000},
		"overage":           {small, periods(300*c, 250*c, 280*c), advice.OverageCostsMore, "large", 61_000_000},
		"right":             {small, periods(90*c, 120*c, 100*c), "", "", 0},
		"would be refused":  {small, periods(31*c, 1*c, 1*c), "", "", 0},
		"less than a tenth": {small, periods(176*c, 176*c, 176*c), "", "", 0},
		// 0.2 of 25.2 is saved a period: less than a tenth, but more has been before, and nothing never.
		"held":      {small, periods(280*c, 176*c, 176*c, 176*c), advice.OverageCostsMore, "large", 600_000},
		"withdrawn": {small, periods(280*c, 100*c, 100*c, 176*c, 176*c, 176*c), "", "", 0},
	} {
		got := advice.PlanChange(tc.on, offers, tc.used)
		if got == nil {
			got = &advice.Change{Plan: &quota.Plan{}}
		}
		if got.Reason != tc.reason || got.Plan.Name != tc.plan || got.Saving != tc.saving {
			t.Errorf("%s: got %s %s, saving %s", name, got.Reason, got.Plan.Name, got.Saving)
		}
	}
}

// No advice costs more than what it replaces in the last three periods, nor would have refused anything.
func TestAdviceNeverCostsMore(t *testing.T) {
	t.Parallel()
	given := 0
	rapid.Check(t, func(t *rapid.T) {
		on := plan(t)
		on.Rank = rapid.Int32Range(0, 5).Draw(t, "rank")
		var offers []*quota.Plan
		for i := range rapid.IntRange(1, 4).Draw(t, "offers") {
			p := plan(t)
			p.Name, p.Rank = string(rune('a'+i)), rapid.Int32Range(0, 5).Draw(t, "rank")
			offers = append(offers, p)
		}
		var used []advice.PeriodUse
		for i := range rapid.IntRange(0, advice.MaxPeriods).Draw(t, "periods") {
			u := quota.Credits(rapid.Int64Range(0, 80*int64(c)).Draw(t, "used"))
			used = append(used, advice.PeriodUse{No: int64(i), Used: u,
				FromPlan: u - quota.Credits(rapid.Int64Range(0, int64(u)).Draw(t, "from lots"))})
		}
		got := advice.PlanChange(on, offers, used)
		if got == nil {
			return
		}
		given++
		now, then := quota.Money(0), quota.Money(0)
		for _, p := range used[len(used)-advice.Window:] {
			b := got.Plan.Bill(p.Used, p.FromPlan)
			now, then = now+on.Bill(p.Used, p.FromPlan).Total, then+b.Total
			if b.Refused > 0 {
				t.Fatalf("it would have refused %s", b.Refused)
			}
		}
		if then >= now || got.Saving != now-then {
			t.Fatalf("it costs %s instead of %s, and says that it saves %s", then, now, got.Saving)
		}
	})
	if given == 0 {
		t.Error("no advice was ever given")
	}
}

// Advice on plans flips at most as often as what is saved crosses the whole band between a tenth and nothing.
func TestPlanChangeDoesNotFlip(t *testing.T) {
	t.Parallel()
	small, large := sold("small", 10, 100*c, 10_000_000, 200_000), sold("large", 20, 300*c, 25_000_000, 100_000)
	rapid.Check(t, func(t *rapid.T) {
		// 75 credits beyond the plan's cost as much as the larger plan: around that, and a little above, something is
		// saved, but never a tenth and never nothing once it has begun.
		used := periods(250*c, 250*c, 250*c)
		for range rapid.IntRange(0, 9).Draw(t, "periods") {
			used = append(used, advice.PeriodUse{No: int64(len(used)),
				Used: quota.Credits(rapid.Int64Range(int64(176*c), int64(260*c)).Draw(t, "used"))})
			used[len(used)-1].FromPlan = used[len(used)-1].Used
		}
		for n := advice.Window; n <= len(used); n++ {
			if advice.PlanChange(small, []*quota.Plan{large}, used[:n]) == nil {
				t.Fatalf("something is saved in every period, and the advice is withdrawn after %d", n)
			}
		}
	})
}

// Whether a grant lapses does not flip from day to day while the pace moves between its bounds.
func TestGrantLapseDoesNotFlip(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		lot := quota.Lot{Kind: quota.LotGrant, Name: "gift", Credits: 100 * c, ExpiresAt: now.AddDate(0, 0, 28)}
		flips, was := 0, false
		var all []quota.Credits
		for range 28 + 6 {
			all = append(all, 70*c/28) // 30 of 100 would be left
		}
		for day := range 40 {
			// From then on 11 to 19 of 100 would be left, or more for as long as the past counts.
			per := quota.Credits(rapid.Int64Range(int64(81*c), int64(89*c)).Draw(t, "pace")) / 28
			all = append(all, per)
			var days [advice.PaceDays + advice.Looks - 1]quota.Credits
			copy(days[:], all[len(all)-len(days):])
			is := advice.GrantLapse(lot, days, now) != nil
			if day > 0 && is != was {
				flips++
			}
			was = is
		}
		if flips > 1 {
			t.Fatalf("it flipped %d times", flips)
		}
	})
}

func TestGrantLapse(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var days [advice.PaceDays + advice.Looks - 1]quota.Credits
	for i := range days {
		days[i] = 2 * c // 56 in 28 days
	}
	lot := quota.Lot{
		Kind: quota.LotGrant, Name: "gift", Credits: 100 * c, Used: 10 * c, ExpiresAt: now.AddDate(0, 0, 14),
	}
	got := advice.GrantLapse(lot, days, now)
	if got == nil || got.Remaining != 90*c || got.Recent != 56*c || got.DaysLeft != 14 || got.Unused != 62*c {
		t.Errorf("got %+v", got)
	}
	for name, change := range map[string]func(*quota.Lot){
		"used up":    func(l *quota.Lot) { l.Used = 75 * c },
		"far ahead":  func(l *quota.Lot) { l.ExpiresAt = now.AddDate(0, 0, 61) },
		"over":       func(l *quota.Lot) { l.ExpiresAt = now },
		"never ends": func(l *quota.Lot) { l.ExpiresAt = time.Time{} },
		"carry-over": func(l *quota.Lot) { l.Kind = quota.LotCarryOver },
	} {
		l := lot
		change(&l)
		if got := advice.GrantLapse(l, days, now); got != nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestFitsNobody(t *testing.T) {
	t.Parallel()
	use := func(periods, within int64) advice.PlanUse { return advice.PlanUse{Periods: periods, Within: within} }
	for name, tc := range map[string]struct {
		looks []advice.PlanUse
		want  bool
	}{
		"nothing known": {nil, false},
		"too few":       {[]advice.PlanUse{use(19, 0)}, false},
		"nobody":        {[]advice.PlanUse{use(20, 1)}, true},
		"some":          {[]advice.PlanUse{use(20, 2)}, false},
		"held":          {[]advice.PlanUse{use(20, 1), use(20, 2), use(20, 2)}, true},
		"no longer":     {[]advice.PlanUse{use(20, 1), use(20, 3), use(20, 2)}, false},
	} {
		if got := advice.FitsNobody(tc.looks); got != tc.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}
