// SPDX-License-Identifier: Apache-2.0

package advice_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/advice"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

func plan(t *rapid.T) *quota.Plan {
	p := &quota.Plan{
		Name: "p", Currency: "USD", PeriodPrice: quota.Money(rapid.Int64Range(0, 50_000_000).Draw(t, "price")),
		OverageMax:   quota.Credits(rapid.Int64Range(0, 20*int64(quota.Credit)).Draw(t, "overage")),
		OveragePrice: quota.Money(rapid.Int64Range(0, 100_000).Draw(t, "overage price")), ProviderCost: 6000,
	}
	p.Limits.Credits = quota.AtMost(quota.Credits(rapid.Int64Range(0, 60*int64(quota.Credit)).Draw(t, "credits")))
	p.Limits.FileSize = quota.AtMost(rapid.Int64Range(1, 100).Draw(t, "file size"))
	p.Limits.Audio = quota.AtMost(time.Duration(rapid.IntRange(1, 100).Draw(t, "audio")) * time.Minute)
	p.DailyCostCeiling = quota.AtMost(quota.Money(rapid.Int64Range(0, 100_000).Draw(t, "ceiling")))
	return p
}

func subject(t *rapid.T) advice.Subject {
	who := advice.Subject{Plan: plan(t), Since: rapid.IntRange(-10, 89).Draw(t, "since")}
	for day := max(0, who.Since); day < advice.Spans*advice.SpanDays; day += rapid.IntRange(1, 30).Draw(t, "pause") {
		used := quota.Credits(rapid.Int64Range(0, 20*int64(quota.Credit)).Draw(t, "used"))
		who.Days = append(who.Days, advice.UseOfDay{
			Day: day, Credits: used, Transcribed: used / quota.Credits(rapid.IntRange(1, 3).Draw(t, "part")),
			Audio: used.Audio(), Bytes: rapid.Int64Range(0, 120).Draw(t, "bytes"),
		})
	}
	return who
}

// What is served and what is refused is what was used; who fits is refused nothing; on the same plan it is what it was;
// and in which order users come makes no difference.
func TestSimulation(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := plan(t)
		users := rapid.SliceOfN(rapid.Custom(subject), 1, 8).Draw(t, "users")
		s, back := advice.NewSimulation(p), advice.NewSimulation(p)
		used, misfits := quota.Credits(0), int64(0)
		for i := range users {
			s.Add(&users[i])
			back.Add(&users[len(users)-1-i])
			for _, d := range users[i].Days {
				used += d.Credits
			}
			if len(advice.Misfits(p, &users[i])) > 0 {
				misfits++
			}
		}
		if diff := cmp.Diff(s, back); diff != "" {
			t.Fatalf("the order matters: %s", diff)
		}
		if o := s.Outcome; o.Served+o.Refused != used || o.Overage > o.Served || o.Users != int64(len(users)) ||
			o.Cost > quota.Price(o.Served, p.ProviderCost)+quota.Money(o.Periods) {
			t.Fatalf("of %s: %+v", used, o)
		}
		if s.Fits+misfits != int64(len(users)) || s.Fits == int64(len(users)) && s.Outcome.Refused > 0 {
			t.Fatalf("%d of %d users fit, %s is refused", s.Fits, len(users), s.Outcome.Refused)
		}
		same := advice.NewSimulation(users[0].Plan)
		same.Add(&users[0])
		if diff := cmp.Diff(same.Outcome, same.Present[0]); diff != "" {
			t.Fatalf("on the plan that they are on: %s", diff)
		}
		larger := *p
		larger.Limits.Credits = quota.Limit[quota.Credits]{Unlimited: true}
		all := advice.NewSimulation(&larger)
		for i := range users {
			all.Add(&users[i])
		}
		if all.Outcome.Refused != 0 || all.Fits < s.Fits || all.Outcome.OveragePrice != 0 {
			t.Fatalf("without a limit: %+v after %+v", all.Outcome, s.Outcome)
		}
	})
}
