// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// team returns the account of a team without a plan, on a calendar of its own: its periods begin on the 15th.
func team(n uint64, name string, change ...func(*Account)) *Account {
	a := &Account{ID: id(n), Team: &Team{Name: name}, Plan: CapOnly("USD"), Zone: time.UTC,
		Anchor: time.Date(2026, time.October, 15, 0, 0, 0, 0, time.UTC)}
	for _, f := range change {
		f(a)
	}
	a.Period, a.Currency = a.Calendar().At(start), a.Plan.Currency
	return a
}

func pays(p *Plan) func(*Account)      { return func(a *Account) { a.Plan = p } }
func capped(c Caps) func(*Account)     { return func(a *Account) { a.Team.Caps = c } }
func eachMember(c Caps) func(*Account) { return func(a *Account) { a.Team.MemberDefaults = c } }
func creditCap(n int64) Caps           { return Caps{Credits: new(AtMost(WholeCredits(n)))} }
func slotCap(n int32) Caps             { return Caps{Concurrent: new(AtMost(n))} }
func costCap(m Money, in string) Caps {
	return Caps{DailyCost: &Ceiling{Limit: AtMost(m), Currency: in}}
}
func userLevel(name string) Level        { return Level{Kind: LevelUser, Name: name} }
func teamLevel(name string) Level        { return Level{Kind: LevelTeam, Name: name} }
func below(u *Account, t *Account) Chain { return Under(u, Ancestors{t}) }

func TestWhoPays(t *testing.T) {
	sells := func(a *Account) { a.Plan = plan() }
	for name, tc := range map[string]struct {
		above Ancestors
		want  int
	}{
		"alone":               {},
		"teams without plans": {above: Ancestors{team(2, "a"), team(3, "b"), team(4, "c")}},
		"the team":            {above: Ancestors{team(2, "a", sells)}, want: 1},
		"the root":            {above: Ancestors{team(2, "a"), team(3, "b"), team(4, "c", sells)}, want: 3},
		"the nearest of several": {
			above: Ancestors{team(2, "a"), team(3, "b", sells), team(4, "c", sells)}, want: 2,
		},
		"a suspended one pays as well": {
			above: Ancestors{team(2, "a", sells, func(a *Account) { a.Suspended = true })}, want: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			user := account(plan())
			c := Under(user, tc.above)
			want := user
			if tc.want > 0 {
				want = tc.above[tc.want-1]
			}
			if c.Payer() != want || c.User() != user {
				t.Errorf("%s pays for %s, want %s", c.Payer().Level(), c.User().Level(), want.Level())
			}
		})
	}
}

// What a decision tells, where several limits say no.
func TestDecideOverLevels(t *testing.T) {
	const day = 24 * time.Hour
	ends, teamEnds := account(plan()).Period.End, team(2, "a").Period.End
	own := func(change ...func(*Account)) *Account {
		a := account(plan(credits(100), slots(9)))
		for _, f := range change {
			f(a)
		}
		return a
	}
	used := func(n int64) func(*Account) { return func(a *Account) { a.Used = WholeCredits(n) } }
	active := func(n int32) func(*Account) { return func(a *Account) { a.Active = n } }
	queued := func(n int32) func(*Account) { return func(a *Account) { a.Queued = n } }
	suspended := func(a *Account) { a.Suspended = true }
	overrides := func(o Overrides) func(*Account) { return func(a *Account) { a.Overrides = o } }
	jobs := func(limit, taken int64) Bound {
		return Bound{Unit: UnitJobs, Limit: limit, Used: taken, Requested: 1, Remaining: max(0, limit-taken)}
	}
	amount := func(limit, taken, requested int64) Bound {
		return Bound{Unit: UnitCredits, Limit: int64(WholeCredits(limit)), Used: int64(WholeCredits(taken)),
			Requested: int64(WholeCredits(requested)), Remaining: int64(WholeCredits(max(0, limit-taken)))}
	}
	for name, tc := range map[string]struct {
		user  *Account
		above Ancestors
		req   Request
		want  Decision
	}{
		"a team within its caps": {
			user: own(), above: Ancestors{team(2, "a", capped(creditCap(10)))}, req: request(10),
			want: Decision{Outcome: Admit},
		},
		"a team's credits": {
			user: own(), above: Ancestors{team(2, "a", capped(creditCap(10)), used(4))}, req: request(7),
			want: Decision{Reason: CreditsExhausted, Level: teamLevel("a"), Bound: amount(10, 4, 7), RetryAt: teamEnds},
		},
		"a cap that never is enough outlasts one that is": {
			user:  own(used(95), func(a *Account) { a.PlanUsed = a.Used }),
			above: Ancestors{team(2, "a", capped(creditCap(5)))}, req: request(7),
			want: Decision{Reason: CreditsExhausted, Level: teamLevel("a"), Bound: amount(5, 0, 7)},
		},
		"of two periods the one that ends later": {
			user:  own(used(95), func(a *Account) { a.PlanUsed = a.Used }),
			above: Ancestors{team(2, "a", capped(creditCap(10)), used(5))}, req: request(7),
			want: Decision{Reason: CreditsExhausted, Level: userLevel("alice"),
				Bound: amount(100, 95, 7), RetryAt: ends},
		},
		"of equals the nearest": {
			user: own(), req: request(7),
			above: Ancestors{
				team(2, "a", capped(creditCap(10)), used(5)), team(3, "b", capped(creditCap(9)), used(5)),
			},
			want: Decision{Reason: CreditsExhausted, Level: teamLevel("a"), Bound: amount(10, 5, 7), RetryAt: teamEnds},
		},
		"the paying team's plan": {
			user: own(), above: Ancestors{team(2, "a", pays(plan(credits(20))))}, req: request(21),
			want: Decision{Reason: CreditsExhausted, Level: teamLevel("a"), Bound: amount(20, 0, 21)},
		},
		"the plan of a user whose team pays does not bind": {
			user: own(used(500), active(50)), above: Ancestors{team(2, "a", pays(plan(credits(20), slots(99))))},
			req: request(20), want: Decision{Outcome: Admit},
		},
		"what a member may take": {
			user: own(used(4)), req: request(7),
			above: Ancestors{team(2, "a", pays(plan(credits(20))), eachMember(creditCap(10)))},
			want: Decision{Reason: CreditsExhausted, Level: userLevel("alice"),
				Bound: amount(10, 4, 7), RetryAt: ends},
		},
		"a member's override": {
			user: own(used(4), overrides(Overrides{Credits: new(AtMost(WholeCredits(11)))})), req: request(7),
			above: Ancestors{team(2, "a", pays(plan(credits(20))), eachMember(creditCap(10)))},
			want:  Decision{Outcome: Admit},
		},
		"a member's file size is the payer's": {
			user: own(), req: Request{Estimate: Credit, FileSize: 30 << 20},
			above: Ancestors{team(2, "a", pays(plan(slots(9))))},
			want: Decision{Reason: FileTooLarge, Level: teamLevel("a"), Bound: Bound{
				Unit: UnitBytes, Limit: 25 << 20, Requested: 30 << 20, Remaining: 25 << 20}},
		},
		"a member's own file size": {
			user: own(overrides(Overrides{FileSize: new(AtMost(int64(30 << 20)))})),
			req:  Request{Estimate: Credit, FileSize: 30 << 20}, above: Ancestors{team(2, "a", pays(plan(slots(9))))},
			want: Decision{Outcome: Admit},
		},
		"what no waiting cures before credits": {
			user:  own(used(100), func(a *Account) { a.PlanUsed = a.Used }),
			above: Ancestors{team(2, "a"), team(3, "b", suspended)}, req: request(7),
			want: Decision{Reason: UserSuspended, Level: teamLevel("b")},
		},
		"credits before slots": {
			user: own(active(9)), above: Ancestors{team(2, "a", capped(creditCap(10)), used(5))}, req: request(7),
			want: Decision{Reason: CreditsExhausted, Level: teamLevel("a"), Bound: amount(10, 5, 7), RetryAt: teamEnds},
		},
		"a team's slots": {
			user: own(active(1)), above: Ancestors{team(2, "a", capped(slotCap(3)), active(3))}, req: request(7),
			want: Decision{Outcome: Wait, Reason: ConcurrencyLimit, Level: teamLevel("a"), Bound: jobs(3, 3)},
		},
		"the user's slots before the team's": {
			user: own(active(9)), above: Ancestors{team(2, "a", capped(slotCap(3)), active(3))}, req: request(7),
			want: Decision{Outcome: Wait, Reason: ConcurrencyLimit, Level: userLevel("alice"),
				Bound: jobs(9, 9)},
		},
		"the stricter of a paying team's plan and cap": {
			user: own(), req: request(7),
			above: Ancestors{team(2, "a", pays(plan(slots(5))), capped(slotCap(3)), active(3))},
			want:  Decision{Outcome: Wait, Reason: ConcurrencyLimit, Level: teamLevel("a"), Bound: jobs(3, 3)},
		},
		"a queue that is full above": {
			user: own(active(9)), req: request(7),
			above: Ancestors{team(2, "a", capped(Caps{Queued: new(AtMost(int32(4)))}), queued(4))},
			want:  Decision{Reason: QueueFull, Level: teamLevel("a"), Bound: jobs(4, 4)},
		},
		"others of the team that wait are no queue of the user's": {
			user: own(), above: Ancestors{team(2, "a", queued(4))}, req: request(7), want: Decision{Outcome: Admit},
		},
		"a team's daily cost": {
			user: own(), above: Ancestors{team(2, "a", capped(costCap(40_000, "USD")))}, req: request(7),
			want: Decision{Reason: DailyCostCeiling, Level: teamLevel("a"), Bound: Bound{
				Unit: UnitMoney, Currency: "USD", Limit: 40_000, Requested: 42_000, Remaining: 40_000}},
		},
		"a daily cost in another currency": {
			user: own(), above: Ancestors{team(2, "a", capped(costCap(1, "EUR")))}, req: request(7),
			want: Decision{Outcome: Admit},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := Under(tc.user, tc.above).Decide(tc.req, start)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if ends.Sub(teamEnds) < day {
		t.Fatalf("the user's period ends at %s, the team's at %s", ends, teamEnds)
	}
}

func TestMessagesNameTeams(t *testing.T) {
	three, alice := Bound{Used: 3, Limit: 3}, userLevel("alice")
	for want, d := range map[string]Decision{
		`team "newsroom" is suspended`:              {Reason: UserSuspended, Level: teamLevel("newsroom")},
		`team "a": 3 of 3 jobs are running`:         {Reason: ConcurrencyLimit, Level: teamLevel("a"), Bound: three},
		"the user is suspended":                     {Reason: UserSuspended, Level: userLevel("alice")},
		"3 of 3 jobs are running":                   {Reason: ConcurrencyLimit, Level: alice, Bound: three},
		"other jobs of the user wait in front":      {Reason: NotFirst, Level: userLevel("alice")},
		`team "a": 3 of 3 jobs are waiting already`: {Reason: QueueFull, Level: teamLevel("a"), Bound: three},
	} {
		if got := d.Message(); got != want {
			t.Errorf("%+v: got %q, want %q", d, got, want)
		}
	}
}

func TestSuspendedTeamParks(t *testing.T) {
	user, above := account(plan()), team(2, "a", func(a *Account) { a.Suspended = true })
	c, adm := below(user, above), admission(1, 7)
	d := c.Enter(adm, start)
	if d.Reason != UserSuspended || !c.Park(adm, d, start) || above.Queued != 1 || above.Parked != 1 ||
		user.Parked != 1 {
		t.Fatalf("%+v: %+v, the team has %d of %d parked", d, adm, above.Parked, above.Queued)
	}
	before := c.Means(start)
	if c.Promote([]*Admission{adm}, start); adm.State != Queued {
		t.Fatalf("it is %s below a suspended team", adm.State)
	}
	above.Suspended = false
	if !c.Means(start).Help(before) || before.Help(c.Means(start)) {
		t.Error("work below a team is not woken when the team's suspension is lifted")
	}
	if c.Promote([]*Admission{adm}, start); adm.State != Admitted || above.Queued+above.Parked != 0 ||
		above.Active != 1 {
		t.Errorf("it is %s, the team has %+v", adm.State, above)
	}
}

func TestMeansOfLevels(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(user, above *Account)
		want   bool
	}{
		"nothing":              {change: func(_, _ *Account) {}},
		"less is used":         {change: func(_, a *Account) { a.Used = 0 }, want: true},
		"more is used":         {change: func(_, a *Account) { a.Used = WholeCredits(6) }},
		"a higher cap":         {change: func(_, a *Account) { a.Team.Caps = creditCap(11) }, want: true},
		"no cap":               {change: func(_, a *Account) { a.Team.Caps = Caps{} }, want: true},
		"another payer":        {change: func(_, a *Account) { a.Plan = plan() }, want: true},
		"the team's grant":     {change: func(_, a *Account) { a.Lots = append(a.Lots, grant("g", 9, time.Time{})) }},
		"a higher daily cost":  {change: func(_, a *Account) { a.Team.MemberDefaults = costCap(2, "USD") }, want: true},
		"the user's suspended": {change: func(u, a *Account) { u.Suspended, a.Used = true, 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			user := account(plan())
			above := team(2, "a", capped(creditCap(10)), eachMember(costCap(1, "USD")))
			above.Used = WholeCredits(5)
			before := below(user, above).Means(start)
			tc.change(user, above)
			if got := below(user, above).Means(start).Help(before); got != tc.want {
				t.Errorf("helps: %t, want %t", got, tc.want)
			}
		})
	}
}

// Where late work is booked at each level, by what has become of each level's own period.
func TestLateWorkAtEachLevel(t *testing.T) {
	// The team's period ends on November 15, the user's on December 1; each is final 72 hours later.
	for name, tc := range map[string]struct {
		settled          time.Time
		team, user       int64
		adjustment       bool
		reversed         time.Time
		voidTeam, voidBy bool // voidBy is the user's
	}{
		"both open":         {settled: start.AddDate(0, 0, 1), reversed: start.AddDate(0, 0, 2)},
		"the team's closed": {settled: start.AddDate(0, 0, 15), reversed: start.AddDate(0, 0, 15)},
		"the team's final, the user's open": {
			settled: start.AddDate(0, 0, 20), team: 1, adjustment: true, reversed: start.AddDate(0, 0, 20),
		},
		"both closed, the team's final": {
			settled: start.AddDate(0, 0, 31), team: 1, adjustment: true, reversed: start.AddDate(0, 0, 31),
		},
		"both final": {settled: start.AddDate(0, 0, 35), team: 1, user: 1, adjustment: true,
			reversed: start.AddDate(0, 0, 35)},
		"reversed when the team's is final": {
			settled: start.AddDate(0, 0, 1), reversed: start.AddDate(0, 0, 20), voidTeam: true,
		},
		"reversed when both are final": {
			settled: start.AddDate(0, 0, 1), reversed: start.AddDate(0, 0, 40), voidTeam: true, voidBy: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			user, above := account(plan()), team(2, "a", pays(plan(credits(50))))
			closed := Closed{{}, {}}
			c, adm := below(user, above), admission(1, 7)
			if d := c.Enter(adm, start); d.Outcome != Admit {
				t.Fatal(d.Message())
			}
			to := func(now time.Time) {
				for i, a := range c.Accounts() {
					for _, p := range a.Roll(now) {
						closed[i][p.No] = &p
					}
				}
			}
			to(tc.settled)
			ch, err := c.Settle(adm, WholeCredits(5), closed, tc.settled)
			if err != nil {
				t.Fatal(err)
			}
			if ch.PeriodNo != tc.user || ch.Levels[0].PeriodNo != tc.team || ch.Adjustment != tc.adjustment {
				t.Errorf("charged in period %d and %+v, adjustment %t", ch.PeriodNo, ch.Levels, ch.Adjustment)
			}
			to(tc.reversed)
			r, err := c.Reverse(id(9), ch, closed, tc.reversed)
			if err != nil {
				t.Fatal(err)
			}
			if r.Void != tc.voidBy || r.Levels[0].Void != tc.voidTeam || (r.Refund != nil) != tc.voidTeam {
				t.Errorf("reversed: %+v", r)
			}
			if r.Refund != nil && (len(above.Lots) != 1 || len(user.Lots) != 0) {
				t.Errorf("the refund went to %+v and %+v", user.Lots, above.Lots)
			}
		})
	}
}

func TestMovedInMidFlight(t *testing.T) {
	user, from, to := account(plan(slots(1))), team(2, "a", pays(plan(slots(1)))), team(3, "b", capped(slotCap(9)))
	runs, waits := admission(1, 7), admission(2, 3)
	c := below(user, from)
	c.Enter(runs, start)
	if d := c.Enter(waits, start); d.Outcome != Wait || from.Queued != 1 {
		t.Fatalf("%+v", d)
	}
	Move(user, []*Account{from}, []*Account{to})
	if from.Queued != 0 || to.Queued != 1 || from.Active != 1 || to.Active != 0 || from.Reserved != WholeCredits(7) {
		t.Fatalf("after the move: %+v and %+v", from.Balance, to.Balance)
	}
	c = below(user, to)
	find := func(a AccountID) *Account { return map[AccountID]*Account{from.ID: from, to.ID: to}[a] }
	on, err := runs.Chain(c, find)
	if err != nil || on.Payer() != from {
		t.Fatalf("%s pays for what began before the move: %v", on.Payer().Level(), err)
	}
	if _, err := on.Settle(runs, WholeCredits(6), Closed{}, start); err != nil {
		t.Fatal(err)
	}
	if from.Used != WholeCredits(6) || from.Active != 0 || to.Used != 0 || user.PlanUsed != 0 ||
		user.Used != from.Used {
		t.Errorf("after its end: %+v and %+v", from.Balance, to.Balance)
	}
	c.Promote([]*Admission{waits}, start)
	if waits.State != Admitted || waits.Payer != (AccountID{}) || to.Active != 1 || from.Active != 0 || to.Queued != 0 {
		t.Errorf("what waited is %s, paid by %s: %+v", waits.State, waits.Payer, to.Balance)
	}
	if _, err := runs.Chain(c, func(AccountID) *Account { return nil }); err == nil {
		t.Error("no error without the account that it is booked on")
	}
}

// A period that is missing fails the operation before anything has changed.
func TestMissingPeriodOfALevel(t *testing.T) {
	user, above := account(plan()), team(2, "a")
	c, adm := below(user, above), admission(1, 7)
	c.Enter(adm, start)
	later := start.AddDate(0, 0, 16)
	above.Roll(later)
	before, was := [2]Account{*clone(user), *clone(above)}, *adm
	_, err := c.Settle(adm, Credit, Closed{}, later)
	if err == nil || c.End(adm, Released, "", Closed{}, later) == nil {
		t.Errorf("no error without the period: %v", err)
	}
	if diff := cmp.Diff(before, [2]Account{*user, *above}, cmp.Comparer(sameZone)); diff != "" {
		t.Error(diff)
	}
	if !was.Equal(adm) {
		t.Errorf("%+v became %+v", was, *adm)
	}
}

func TestUpgradeOfThePayersPlan(t *testing.T) {
	bigger := plan(credits(100), func(p *Plan) { p.Name, p.Rank = "bigger", 1 })
	for name, tc := range map[string]struct {
		above *Account
		want  *Plan
	}{
		"the payer's plan":  {above: team(2, "a", pays(plan(credits(20)))), want: bigger},
		"no plan lifts cap": {above: team(2, "a", pays(plan(credits(20))), capped(creditCap(30)))},
	} {
		t.Run(name, func(t *testing.T) {
			c := below(account(bigger), tc.above)
			d := c.Decide(request(40), start)
			if got := c.Upgrade(request(40), d, []*Plan{bigger}, start); got != tc.want {
				t.Errorf("%s: got %+v", d.Message(), got)
			}
		})
	}
}

// A team's tickets are all of its members'.
func TestTicketsOfATeam(t *testing.T) {
	c := below(account(plan(slots(9))), team(2, "a", capped(Caps{
		Credits: new(AtMost(WholeCredits(20))), Concurrent: new(AtMost(int32(3))),
	})))
	for name, tc := range map[string]struct {
		held Outstanding
		want Decision
	}{
		"room":  {held: Outstanding{Tickets: 2, Credits: WholeCredits(13)}, want: Decision{Outcome: Admit}},
		"slots": {held: Outstanding{Tickets: 3}, want: Decision{Reason: ConcurrencyLimit, Level: teamLevel("a")}},
		"credits": {held: Outstanding{Tickets: 1, Credits: WholeCredits(14)}, want: Decision{
			Reason: CreditsExhausted, Level: teamLevel("a"),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := c.DecideOffline(request(7), [MaxDepth]Outstanding{{}, tc.held}, start)
			d.Bound = Bound{}
			if d != tc.want {
				t.Errorf("got %+v, want %+v", d, tc.want)
			}
		})
	}
}

// Whoever is alone pays nothing for the tree.
func TestAloneAllocatesNothing(t *testing.T) {
	a, req := account(plan(unlimitedCredits, slots(1_000_000))), request(1)
	if n := testing.AllocsPerRun(100, func() {
		if d := Alone(a).Decide(req, start); d.Outcome != Admit {
			t.Fatal(d.Message())
		}
	}); n != 0 {
		t.Errorf("a decision makes %v allocations", n)
	}
	adm := admission(1, 1)
	if n := testing.AllocsPerRun(100, func() {
		*adm = Admission{Request: req, Enforced: true, Lease: time.Minute}
		Alone(a).Enter(adm, start)
		if err := Alone(a).End(adm, Released, "", Closed{}, start); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("an admission and its end make %v allocations", n)
	}
}
