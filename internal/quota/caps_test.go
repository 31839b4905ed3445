// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCapsAboveOthers(t *testing.T) {
	credits := func(n int64) *Limit[Credits] { return new(AtMost(WholeCredits(n))) }
	jobs := func(n int32) *Limit[int32] { return new(AtMost(n)) }
	usd := func(n int64) *Ceiling {
		return &Ceiling{Limit: AtMost(Money(n * 1_000_000)), Currency: "USD"}
	}
	everything := Caps{Credits: credits(200), Concurrent: jobs(5), Queued: jobs(50), DailyCost: usd(70)}
	for name, tc := range map[string]struct {
		own, over Caps
		want      []Excess
	}{
		"none":       {},
		"no parent":  {own: everything},
		"says none":  {over: everything},
		"the same":   {own: everything, over: everything},
		"below each": {own: Caps{Credits: credits(199), Concurrent: jobs(1)}, over: everything},
		"above each": {
			own:  everything,
			over: Caps{Credits: credits(100), Concurrent: jobs(4), Queued: jobs(0), DailyCost: usd(50)},
			want: []Excess{
				{LimitCredits, "200", "100"}, {LimitConcurrent, "5", "4"}, {LimitQueued, "50", "0"},
				{LimitDailyCost, "70 USD", "50 USD"},
			},
		},
		"unlimited below a limit": {
			own: Caps{
				Concurrent: &Limit[int32]{Unlimited: true},
				DailyCost:  &Ceiling{Limit: Limit[Money]{Unlimited: true}},
			},
			over: everything,
			want: []Excess{
				{LimitConcurrent, "unlimited", "5"}, {LimitDailyCost, "unlimited", "70 USD"},
			},
		},
		"a limit below unlimited": {
			own: everything, over: Caps{Credits: &Limit[Credits]{Unlimited: true}},
		},
		"another currency": {
			own: everything, over: Caps{DailyCost: &Ceiling{Limit: AtMost[Money](1), Currency: "EUR"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.own.Above(&tc.over)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestEffectiveLimits(t *testing.T) {
	own := plan(slots(2))
	for name, tc := range map[string]struct {
		above Ancestors
		want  []string
	}{
		"alone": {
			want: []string{"credits 30 alice", "concurrent 2 alice", "queued 100 alice", "daily_cost 50 USD alice"},
		},
		"the team pays": {
			above: Ancestors{team(2, "newsroom", pays(plan(credits(500), slots(5))))},
			want: []string{
				"credits 500 newsroom", "concurrent 5 newsroom", "queued 100 newsroom", "daily_cost 50 USD newsroom",
			},
		},
		"the team pays, and bounds its members": {
			above: Ancestors{team(2, "newsroom", pays(plan(credits(500), slots(5))), eachMember(creditCap(40)))},
			want: []string{
				"credits 40 alice", "concurrent 5 newsroom", "queued 100 newsroom", "daily_cost 50 USD newsroom",
			},
		},
		"tighter above": {
			above: Ancestors{
				team(2, "newsroom", capped(creditCap(20))),
				team(3, "platform", capped(Caps{
					Concurrent: slotCap(1).Concurrent, DailyCost: costCap(7_500_000, "USD").DailyCost,
				})),
			},
			want: []string{
				"credits 20 newsroom", "concurrent 1 platform", "queued 100 alice", "daily_cost 7.5 USD platform",
			},
		},
		"the same: the nearest": {
			above: Ancestors{team(2, "newsroom", capped(creditCap(30))), team(3, "platform", capped(slotCap(2)))},
			want:  []string{"credits 30 alice", "concurrent 2 alice", "queued 100 alice", "daily_cost 50 USD alice"},
		},
		"another currency bounds nothing": {
			above: Ancestors{team(2, "newsroom", capped(costCap(1, "EUR")))},
			want:  []string{"credits 30 alice", "concurrent 2 alice", "queued 100 alice", "daily_cost 50 USD alice"},
		},
		"nothing": {
			above: Ancestors{team(2, "newsroom", pays(&Plan{Name: "all", Currency: "USD", Limits: CapOnly("USD").Limits,
				DailyCostCeiling: noLimit[Money]()}))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, e := range Under(account(own), tc.above).Effective(start) {
				got = append(got, string(e.Limit)+" "+e.Value+" "+e.Level.Name)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestTeamLimits(t *testing.T) {
	caps := Caps{Credits: creditCap(100).Credits, Concurrent: slotCap(3).Concurrent}
	for name, tc := range map[string]struct {
		team            *Account
		used            int64
		credits, remain string
		slots, queued   int32
	}{
		"pays for nobody": {team(2, "a", capped(caps), eachMember(creditCap(5))), 40, "100", "60", 3, 0},
		"bounds nothing":  {team(2, "a"), 40, "unlimited", "unlimited", 0, 0},
		"pays":            {team(2, "a", pays(plan(credits(50), slots(2)))), 40, "50", "10", 2, 100},
		"pays more than the cap": {
			team(2, "a", pays(plan(credits(500), slots(9))), capped(caps)), 40, "100", "60", 3, 100,
		},
		"has used more than the cap": {team(2, "a", capped(caps)), 140, "100", "0", 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			tc.team.Used, tc.team.PlanUsed = WholeCredits(tc.used), WholeCredits(tc.used)
			l := tc.team.TeamLimits(start)
			text := func(l Limit[Credits]) string { return orUnlimited(l, l.Max.String()) }
			if text(l.Credits) != tc.credits || text(l.Remaining) != tc.remain || l.Concurrent.Max != tc.slots ||
				l.Queued.Max != tc.queued || l.Concurrent.Unlimited != (tc.slots == 0) ||
				l.Queued.Unlimited != (tc.queued == 0) {
				t.Errorf("got %+v, want %s, %s, %d, %d", l, tc.credits, tc.remain, tc.slots, tc.queued)
			}
		})
	}
}
