// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// told returns the changes as a test writes them: "+80" was raised, "~80" holds again, "-80" holds no longer, each with
// how often it had been re-armed.
func told(changes []AlertChange) []string {
	out := []string{}
	for i := range changes {
		c := &changes[i]
		sign := "-"
		switch {
		case c.New:
			sign = "+"
		case c.State == AlertOpen:
			sign = "~"
		}
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s%s %d #%d %s", sign, c.Kind, c.Threshold, c.Number,
			c.Subject)))
	}
	slices.Sort(out)
	return out
}

func thresholds(percent ...int32) func(*Plan) { return func(p *Plan) { p.AlertThresholds = percent } }

// use has the account use credits of its plan.
func use(a *Account, credits int64) {
	a.Used, a.PlanUsed = WholeCredits(credits), WholeCredits(credits)
}

func TestAlert(t *testing.T) {
	soon := start.Add(GrantNotice)
	type step struct {
		do       func(*Account)
		foretold func(*Account) Foretold
		at       time.Duration
		want     []string
	}
	uses := func(credits int64, want ...string) step {
		return step{do: func(a *Account) { use(a, credits) }, want: want}
	}
	limit := func(credits int64, want ...string) step {
		return step{do: func(a *Account) { a.Plan.Limits.Credits = AtMost(WholeCredits(credits)) }, want: want}
	}
	costs := func(cost Money, at time.Duration, want ...string) step {
		now := start.Add(at)
		return step{do: func(a *Account) { a.spend("USD", cost-a.dayCost("USD", now), now) }, at: at, want: want}
	}
	// 0 days: used up in no case. -1: only if much is used.
	foretells := func(days int, want ...string) step {
		return step{foretold: func(a *Account) Foretold {
			f := Foretold{PeriodNo: a.PeriodNo, Allowance: a.Allowance(start).Max, Possible: days != 0}
			if days > 0 {
				f.Expected = start.AddDate(0, 0, days)
			}
			return f
		}, want: want}
	}
	tests := map[string]struct {
		account *Account
		steps   []step
	}{
		"once, however often it is looked": {account(plan(thresholds(80, 100))), []step{
			uses(23), uses(24, "+CreditsPercent 80 #0"), uses(24), uses(29),
			uses(30, "+CreditsPercent 100 #0"), uses(30),
		}},
		"two at once, and overdrawn": {account(plan(thresholds(80, 100))), []step{
			uses(31, "+CreditsPercent 100 #0", "+CreditsPercent 80 #0", "+Overdrawn 0 #0"),
		}},
		"a reversal opens and closes the same one": {account(plan(thresholds(80))), []step{
			uses(25, "+CreditsPercent 80 #0"), uses(20, "-CreditsPercent 80 #0"), uses(20),
			uses(25, "~CreditsPercent 80 #0"), uses(20, "-CreditsPercent 80 #0"),
		}},
		"a limit that rises above the use re-arms it": {account(plan(thresholds(80))), []step{
			uses(25, "+CreditsPercent 80 #0"), limit(31), limit(100, "-CreditsPercent 80 #0"), uses(79),
			uses(80, "+CreditsPercent 80 #1"), limit(90), limit(200, "-CreditsPercent 80 #1"),
			limit(100, "+CreditsPercent 80 #2"),
		}},
		"it re-arms what a reversal has closed as well": {account(plan(thresholds(80))), []step{
			uses(25, "+CreditsPercent 80 #0"), uses(20, "-CreditsPercent 80 #0"), limit(100),
			uses(80, "+CreditsPercent 80 #1"),
		}},
		"no limit at all is above the use": {account(plan(thresholds(80))), []step{
			uses(25, "+CreditsPercent 80 #0"),
			{do: func(a *Account) { a.Overrides.Credits = &Limit[Credits]{Unlimited: true} },
				want: []string{"-CreditsPercent 80 #0"}},
			{do: func(a *Account) { a.Overrides = Overrides{} }, want: []string{"+CreditsPercent 80 #1"}},
		}},
		"a new period": {account(plan(thresholds(80))), []step{
			uses(25, "+CreditsPercent 80 #0"),
			{do: func(a *Account) { a.Roll(start.AddDate(0, 1, 0)); use(a, 25) }, at: 30 * 24 * time.Hour,
				want: []string{"+CreditsPercent 80 #0"}},
		}},
		"a plan of no thresholds, and one of no credits": {account(plan()), []step{
			uses(30), limit(0, "+Overdrawn 0 #0"),
		}},
		"the cost of a day, each day": {account(plan()), []step{
			costs(39_999_999, 0), costs(40_000_000, 0, "+DailyCostPercent 80 #0 2026-11-01 USD"),
			costs(50_000_000, time.Hour, "+DailyCostPercent 100 #0 2026-11-01 USD"),
			{at: 15 * time.Hour}, // midnight: both are over
			costs(40_000_000, 16*time.Hour, "+DailyCostPercent 80 #0 2026-11-02 USD"),
		}},
		"a grant that ends": {account(plan(), grant("g", 5, soon.Add(time.Hour)), grant("spent", 0, soon)), []step{
			{}, {at: time.Hour, want: []string{"+GrantExpiring 0 #0 g"}}, {at: 2 * time.Hour},
			{do: func(a *Account) { a.Lots[0].Used = 5 * Credit }, at: 2 * time.Hour,
				want: []string{"-GrantExpiring 0 #0 g"}},
			{at: GrantNotice + time.Hour},
		}},
		"what was foretold": {account(plan(thresholds(100))), []step{
			uses(10), foretells(20, "+ExhaustionForecast 0 #0"), uses(12),
			foretells(18), // sooner is the same
			foretells(-1), // no more expected, but possible
			foretells(0, "-ExhaustionForecast 0 #0"), uses(13),
			foretells(15, "~ExhaustionForecast 0 #0"),
			limit(31, "-ExhaustionForecast 0 #0"), uses(14),
			foretells(24, "+ExhaustionForecast 0 #1"),
			{do: func(a *Account) { a.Overrides.Credits = &Limit[Credits]{Unlimited: true} },
				want: []string{"-ExhaustionForecast 0 #1"}},
			foretells(24), // there is nothing that could be used up
			{do: func(a *Account) { a.Overrides = Overrides{} }}, uses(32, "+CreditsPercent 100 #0", "+Overdrawn 0 #0"),
			foretells(24), // it is by now
		}},
		"what was foretold ends with the period": {account(plan(thresholds(100))), []step{
			uses(10), foretells(20, "+ExhaustionForecast 0 #0"),
			{do: func(a *Account) { a.Roll(start.AddDate(0, 1, 0)); use(a, 5) }, at: 30 * 24 * time.Hour},
			{do: func(a *Account) {
				if c := Alone(a).Foretell(Foretold{Allowance: 30 * Credit, Expected: start}, start); len(c) > 0 {
					panic("a forecast of the period before was told")
				}
			}, at: 30 * 24 * time.Hour},
		}},
		"a team without a plan": {
			&Account{ID: id(7), Plan: CapOnly("USD"), Anchor: start, Zone: time.UTC,
				Balance: Balance{Period: Period{Start: start, End: start.AddDate(0, 1, 0)}},
				Team: &Team{Name: "news", Caps: Caps{Credits: new(AtMost(10 * Credit)),
					DailyCost: &Ceiling{Limit: AtMost(Money(1_000_000)), Currency: "EUR"}}}},
			[]step{
				uses(7), uses(8, "+TeamShare 80 #0"), uses(11, "+TeamShare 100 #0"),
				{do: func(a *Account) { a.add(Amounts{Currency: "EUR", DayCost: 900_000}); a.Day = utcDay(start) },
					want: []string{"+DailyCostPercent 80 #0 2026-11-01 EUR"}},
				{do: func(a *Account) { a.Team = &Team{Name: "news"} }, want: []string{
					"-DailyCostPercent 80 #0 2026-11-01 EUR", "-TeamShare 100 #0", "-TeamShare 80 #0"}},
			},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			a := tc.account
			for i, s := range tc.steps {
				if s.do != nil {
					s.do(a)
				}
				var changes []AlertChange
				if s.foretold != nil {
					changes = Alone(a).Foretell(s.foretold(a), start)
				}
				changes = append(changes, Alone(a).Alert(start.Add(s.at))...)
				if diff := cmp.Diff(append([]string{}, s.want...), told(changes)); diff != "" {
					t.Fatalf("step %d (-want +got):\n%s", i, diff)
				}
				again, err := ParseRaised(a.Alerts.String())
				if diff := cmp.Diff(a.Alerts, again); err != nil || diff != "" {
					t.Fatalf("step %d: read back (-want +got), %v:\n%s", i, err, diff)
				}
			}
		})
	}
}

// What a member may have is its teams' to say, and whose plan pays tells at which percentages.
func TestAlertOfMember(t *testing.T) {
	user := account(plan(thresholds(10)))
	team := &Account{ID: id(7), Plan: plan(thresholds(50), credits(1000)), Anchor: start, Zone: time.UTC,
		Balance: Balance{Period: user.Period},
		Team:    &Team{Name: "news", MemberDefaults: Caps{Credits: new(AtMost(10 * Credit))}}}
	c := Under(user, Ancestors{team})
	use(user, 4)
	if got := told(c.Alert(start)); len(got) > 0 {
		t.Errorf("below the team's threshold: %v", got)
	}
	use(user, 31) // more than the plan has that does not pay
	if diff := cmp.Diff([]string{"+TeamShare 50 #0"}, told(c.Alert(start))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Whatever is used and however limits change: what is open is what the state says, each key is raised once until it is
// re-armed, and an id is never told of twice as new.
func TestAlertsFollowTheState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := account(plan(thresholds(50, 80, 100)), grant("g", 5, start.Add(40*24*time.Hour)))
		now := start
		open := map[AlertID]bool{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			var changes []AlertChange
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0, 1:
				use(a, rapid.Int64Range(0, 60).Draw(t, "used"))
			case 2:
				a.Plan.Limits.Credits = AtMost(WholeCredits(rapid.Int64Range(0, 50).Draw(t, "limit")))
			case 3:
				a.Plan.AlertThresholds = rapid.SampledFrom([][]int32{nil, {80}, {50, 80, 100}}).Draw(t, "thresholds")
			case 4:
				now = now.Add(time.Duration(rapid.IntRange(0, 9*24).Draw(t, "hours")) * time.Hour)
				a.Roll(now)
			case 5:
				a.spend("USD", Money(rapid.Int64Range(0, 30_000_000).Draw(t, "cost")), now)
			case 6:
				f := Foretold{PeriodNo: a.PeriodNo, Allowance: a.Allowance(now).Max}
				if rapid.Bool().Draw(t, "expected") {
					f.Expected, f.Possible = now.Add(time.Hour), true
				}
				changes = Alone(a).Foretell(f, now)
			}
			// As the database has it: nothing but the text is left between two batches.
			a.Alerts, _ = ParseRaised(a.Alerts.String())
			for _, c := range append(changes, Alone(a).Alert(now)...) {
				id := c.ID(a.ID)
				was, there := open[id]
				if c.New == there || there && was == (c.State == AlertOpen) {
					t.Fatalf("told %v of %v, which was open: %v", c, id, was)
				}
				open[id] = c.State == AlertOpen
			}
			if again := Alone(a).Alert(now); len(again) > 0 {
				t.Fatalf("looked at again: %v", again)
			}
			wantOpen(t, a, now)
		}
	})
}

// wantOpen compares what the account remembers with what its numbers say, by another way than the account's.
func wantOpen(t *rapid.T, a *Account, now time.Time) {
	t.Helper()
	want := map[AlertKey]bool{}
	limit, used := a.Limits().Credits.Max, a.Used
	left := Credits(0)
	if lot := a.Lots[0]; now.Before(lot.ExpiresAt) {
		left = lot.Credits.Sub(lot.Used)
	}
	allowance := limit + left
	for _, percent := range a.Plan.AlertThresholds {
		if allowance > 0 && used >= allowance*Credits(percent)/100 {
			want[AlertKey{Kind: AlertCreditsPercent, Threshold: percent}] = true
		}
	}
	if used > allowance {
		want[AlertKey{Kind: AlertOverdrawn}] = true
	}
	for _, percent := range []int32{80, 100} {
		if a.Day.Equal(utcDay(now)) && a.DayCost >= 50_000_000*Money(percent)/100 {
			want[AlertKey{Kind: AlertDailyCost, Threshold: percent, Subject: now.Format("2006-01-02") + " USD"}] = true
		}
	}
	if left > 0 && a.Lots[0].ExpiresAt.Sub(now) <= 7*24*time.Hour {
		want[AlertKey{Kind: AlertGrantExpiring, Subject: "g"}] = true
	}
	got := map[AlertKey]bool{}
	for _, e := range a.Alerts.list() {
		if e.State != AlertOpen || e.Kind == AlertExhaustion && e.Limit >= int64(allowance) {
			continue // what was foretold of at least this allowance stays for the next forecast
		}
		if got[e.AlertKey] {
			t.Fatalf("%v is open twice", e.AlertKey)
		}
		got[e.AlertKey] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("open (-want +got):\n%s", diff)
	}
}

func TestParseRaisedRefuses(t *testing.T) {
	for _, text := range []string{
		"x", "CreditsPercent|80||0|0|open|1", "CreditsPercent|80||0|0|shut|1|2", "CreditsPercent|80||0|0|open|1|2|3",
		"CreditsPercent|many||0|0|open|1|2", "CreditsPercent|80||0|0|open|1|2\n\n",
	} {
		if r, err := ParseRaised(text); err == nil {
			t.Errorf("%q was read as %v", text, r)
		}
	}
}

func TestAlertTexts(t *testing.T) {
	team := Level{Kind: LevelTeam, Name: "news"}
	tests := map[string]struct {
		facts AlertFacts
		want  string
	}{
		"percent": {AlertFacts{AlertKey: AlertKey{Kind: AlertCreditsPercent, Threshold: 80}, Used: int64(25 * Credit),
			Limit: int64(30 * Credit)}, "80 % of the credits are used: 25 of 30 in this period"},
		"team": {AlertFacts{AlertKey: AlertKey{Kind: AlertTeamShare, Threshold: 100}, Level: team,
			Used: int64(10 * Credit), Limit: int64(10 * Credit)},
			"100 % of the team's share is used: 10 of 10 credits in this period"},
		"member": {AlertFacts{AlertKey: AlertKey{Kind: AlertTeamShare, Threshold: 80},
			Level: Level{Kind: LevelUser, Name: "ada"}, Used: int64(8 * Credit), Limit: int64(10 * Credit)},
			"80 % of what the team lets the user have is used: 8 of 10 credits in this period"},
		"cost": {AlertFacts{AlertKey: AlertKey{Kind: AlertDailyCost, Threshold: 80}, Used: 4_000_000,
			Limit: 5_000_000, Currency: "USD"}, "80 % of the daily cost ceiling is used: 4 of 5 USD today"},
		"overdrawn, by little": {AlertFacts{AlertKey: AlertKey{Kind: AlertOverdrawn}, Used: int64(30*Credit) + 1,
			Limit: int64(30 * Credit)}, "30.00002 credits are used in this period, more than the allowance of 30"},
		"grant": {AlertFacts{AlertKey: AlertKey{Kind: AlertGrantExpiring, Subject: "welcome"}, Used: int64(2 * Credit),
			Limit: int64(5 * Credit)}, `3 of the 5 credits of the grant "welcome" are left, and end soon`},
		"foretold": {AlertFacts{AlertKey: AlertKey{Kind: AlertExhaustion}, Used: int64(12 * Credit),
			Limit: int64(30 * Credit), Expected: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)},
			"going by the last weeks the credits are used up at 2026-11-21T09:00:00Z, before the period ends: " +
				"12 of 30 are used by now"},
		"reset": {AlertFacts{AlertKey: AlertKey{Kind: AlertPeriodReset}, Used: int64(2 * Credit),
			Limit: int64(5 * Credit)},
			"a new period has begun; 2 of the plan's 5 credits were used in the last one"},
		"reset without a limit": {AlertFacts{AlertKey: AlertKey{Kind: AlertPeriodReset}, Used: int64(2 * Credit),
			Unlimited: true}, "a new period has begun; 2 credits were used in the last one"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tc.facts.Message(); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
			if tc.facts.Action() == "" {
				t.Error("no action")
			}
		})
	}
}

// What nothing crosses costs a batch next to nothing.
func TestAlertAllocatesNothing(t *testing.T) {
	a := account(plan(thresholds(80, 100)))
	use(a, 10)
	c := Alone(a)
	if n := testing.AllocsPerRun(100, func() { c.Alert(start) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
