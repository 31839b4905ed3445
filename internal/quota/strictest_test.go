// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What bounds a user is the strictest of each limit along the chain, and of those that are the same the nearest.
func TestStrictest(t *testing.T) {
	user := func(n int64) *Account { return account(plan(credits(n), slots(9))) }
	one := func(limit LimitName, unit Unit, value int64, level Level) Strictest {
		return Strictest{Limit: limit, Unit: unit, Value: value, Level: level}
	}
	amount := func(n int64, level Level) Strictest {
		return one(LimitCredits, UnitCredits, int64(WholeCredits(n)), level)
	}
	jobs := func(n int64, level Level) Strictest { return one(LimitConcurrent, UnitJobs, n, level) }
	day := func(m Money, in string, level Level) Strictest {
		s := one(LimitDailyCost, UnitMoney, int64(m), level)
		s.Currency = in
		return s
	}
	alice, a, b := userLevel("alice"), teamLevel("a"), teamLevel("b")
	for name, tc := range map[string]struct {
		chain Chain
		want  []Strictest
	}{
		"alone": {Alone(user(30)), []Strictest{amount(30, alice), jobs(9, alice), day(50_000_000, "USD", alice)}},
		"a cap above is stricter": {
			below(user(30), team(2, "a", capped(creditCap(10)))),
			[]Strictest{amount(10, a), jobs(9, alice), day(50_000_000, "USD", alice)},
		},
		"of two that are the same the nearest": {
			Under(user(30), Ancestors{team(2, "a", capped(slotCap(3))), team(3, "b", capped(slotCap(3)))}),
			[]Strictest{amount(30, alice), jobs(3, a), day(50_000_000, "USD", alice)},
		},
		"the farther is stricter": {
			Under(user(30), Ancestors{team(2, "a", capped(slotCap(3))), team(3, "b", capped(slotCap(2)))}),
			[]Strictest{amount(30, alice), jobs(2, b), day(50_000_000, "USD", alice)},
		},
		"a team that pays, and what it lets a member take": {
			below(user(30), team(2, "a", pays(plan(credits(300), slots(5))), eachMember(creditCap(60)))),
			[]Strictest{amount(60, alice), jobs(5, a), day(50_000_000, "USD", a)},
		},
		"money in the payer's currency": {
			below(user(30), team(2, "a", capped(costCap(7_000_000, "USD")))),
			[]Strictest{amount(30, alice), jobs(9, alice), day(7_000_000, "USD", a)},
		},
		"money in another currency": {
			below(user(30), team(2, "a", capped(costCap(7_000_000, "EUR")))),
			[]Strictest{amount(30, alice), jobs(9, alice), day(50_000_000, "USD", alice)},
		},
		"a team that nobody pays for": {
			Over(team(2, "a", capped(costCap(7_000_000, "EUR"))),
				Ancestors{team(3, "b", capped(costCap(8_000_000, "EUR")))}),
			[]Strictest{day(7_000_000, "EUR", a)},
		},
		"a team pays before the one above it": {
			Over(team(2, "a", pays(plan(credits(300), slots(5)))),
				Ancestors{team(3, "b", pays(plan(credits(20), slots(4))))}),
			[]Strictest{amount(300, a), jobs(4, b), day(50_000_000, "USD", a)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []Strictest
			for _, s := range tc.chain.Strictest() {
				if s.Limit == LimitCredits || s.Limit == LimitConcurrent || s.Limit == LimitDailyCost {
					got = append(got, s)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got, want := Alone(user(30)).Limits(), user(30).Limits(); got != want {
		t.Errorf("the limits of one alone: got %+v, want %+v", got, want)
	}
	if got := below(user(30), team(2, "a", capped(creditCap(10)))).Limits(); got.Credits != AtMost(WholeCredits(10)) ||
		got.FileSize != AtMost[int64](25<<20) {
		t.Errorf("got %+v", got)
	}
}

func TestLevels(t *testing.T) {
	used := func(n int64) func(*Account) { return func(a *Account) { a.Used = WholeCredits(n) } }
	user := account(plan(credits(100), slots(9)))
	user.Used = WholeCredits(2)
	a := team(2, "a", pays(plan(credits(300), slots(5))), capped(creditCap(40)), eachMember(creditCap(10)), used(35))
	b := team(3, "b", capped(slotCap(50)), used(90))
	amount := func(n int64) Limit[Credits] { return AtMost(WholeCredits(n)) }
	c := Under(user, Ancestors{a, b})
	got := c.Levels(start)
	if len(got) != 3 || got[0].Account != user || got[1].Account != a || got[2].Account != b {
		t.Fatalf("got %+v", got)
	}
	for i, want := range []Stands{
		{Account: user, Allowance: amount(10), Remaining: amount(8), Concurrent: noLimit[int32](),
			Queued: noLimit[int32]()},
		{Account: a, Pays: true, Allowance: amount(40), Remaining: amount(5), Concurrent: AtMost[int32](5),
			Queued: AtMost[int32](100)},
		{Account: b, Allowance: noLimit[Credits](), Remaining: noLimit[Credits](), Concurrent: AtMost[int32](50),
			Queued: noLimit[int32]()},
	} {
		if got[i] != want {
			t.Errorf("%s: got %+v, want %+v", want.Account.Level(), got[i], want)
		}
	}
	// Nobody pays for a team without a plan as such.
	for _, s := range Over(b, Ancestors{}).Levels(start) {
		if s.Pays {
			t.Errorf("%s pays", s.Account.Level())
		}
	}
}

// What remains changes by itself when the period ends of whoever leaves the least.
func TestScarcest(t *testing.T) {
	user := func() *Account { return account(plan(credits(30))) }
	for name, tc := range map[string]struct {
		chain Chain
		want  Level
	}{
		"alone":                         {Alone(user()), userLevel("alice")},
		"the user leaves less":          {below(user(), team(2, "a", capped(creditCap(40)))), userLevel("alice")},
		"the team leaves less":          {below(user(), team(2, "a", capped(creditCap(20)))), teamLevel("a")},
		"the same of both: the nearest": {below(user(), team(2, "a", capped(creditCap(30)))), userLevel("alice")},
		"nobody bounds them: the payer": {
			below(user(), team(2, "a", pays(plan(unlimitedCredits)))), teamLevel("a"),
		},
		"the farthest": {
			Under(user(), Ancestors{team(2, "a", capped(creditCap(20))), team(3, "b", capped(creditCap(19)))}),
			teamLevel("b"),
		},
	} {
		if got := tc.chain.Scarcest(start).Level(); got != tc.want {
			t.Errorf("%s: got %s, want %s", name, got, tc.want)
		}
	}
}
