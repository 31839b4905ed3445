// SPDX-License-Identifier: Apache-2.0

package advice_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/advice"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/shapes"
)

// cohort makes users of a kind, half of whom are leaving: since somewhere in the latest four weeks they use less from
// day to day, and nothing from a day on.
func cohort(r *rand.Rand, shape shapes.Shape, n int) (who []advice.Customer, leaving []bool) {
	for i := range n {
		var c advice.Customer
		leaves := i%2 == 0
		from, fade := advice.ChurnDays-28+r.IntN(21), 1+r.IntN(10)
		for day, used := range shape.Days(r, advice.ChurnDays) {
			if leaves && day >= from {
				used = used * int64(max(0, fade-(day-from))) / int64(fade)
			}
			c.Days[day] = quota.Credits(used)
		}
		c.Ended, c.Failed = 20, int64(r.IntN(3))
		if leaves {
			c.Refusals, c.Failed = int64(r.IntN(4)), int64(r.IntN(8))
		} else if r.IntN(4) == 0 {
			c.Refusals = int64(r.IntN(3))
		}
		who, leaving = append(who, c), append(leaving, leaves)
	}
	return who, leaving
}

// The table in docs/advice.md is what the rule finds among users of whom it is known whether they are leaving.
func TestChurnFindsWhoLeaves(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	table.WriteString("| kind of user | users | leaving | score of 50 or more | of these leaving | precision | " +
		"recall |\n|---|---|---|---|---|---|---|\n")
	for _, shape := range shapes.All() {
		if shape.Name == "lapse" {
			continue // some of them leave by themselves
		}
		r := rand.New(rand.NewPCG(14, 5))
		who, leaving := cohort(r, shape, 2000)
		all, found, right := 0, 0, 0
		for i := range who {
			if leaving[i] {
				all++
			}
			if s := advice.Churn(&who[i]); s != nil && s.Points >= advice.AtRisk {
				found++
				if leaving[i] {
					right++
				}
			}
		}
		fmt.Fprintf(&table, "| %s | %d | %d | %d | %d | %.1f %% | %.1f %% |\n", shape.Name, len(who), all, found, right,
			100*float64(right)/float64(max(1, found)), 100*float64(right)/float64(all))
	}
	page, err := os.ReadFile("../../docs/advice.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "\n\n"+table.String()+"\n") {
		t.Errorf("docs/advice.md does not have this table:\n%s", &table)
	}
}

// A score is the sum of its factors, within its bounds, and whoever uses the same as ever has none.
func TestScores(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := advice.Customer{Refusals: rapid.Int64Range(0, 100).Draw(t, "refusals"), Ended: 50,
			Failed: rapid.Int64Range(0, 50).Draw(t, "failed")}
		for i := range c.Days {
			used := rapid.Int64Range(0, 1).Draw(t, "used")
			c.Days[i] = quota.Credits(rapid.Int64Range(-1, 1e12).Draw(t, "day") * used)
		}
		s := advice.Churn(&c)
		if s == nil {
			return
		}
		sum := 0
		for _, f := range s.Factors {
			if f.Points < 0 || f.Points > f.Max {
				t.Fatalf("%+v", f)
			}
			sum += f.Points
		}
		if sum != s.Points || s.Points > 100 || len(s.Factors) != 5 {
			t.Fatalf("%+v", s)
		}
	})
	var same, none, gone advice.Customer
	for i := range same.Days {
		same.Days[i] = quota.Credit
		if i < 60 {
			gone.Days[i] = quota.Credit
		}
	}
	if s := advice.Churn(&same); s == nil || s.Points != 0 {
		t.Errorf("the same every day: %+v", s)
	}
	if s := advice.Churn(&gone); s == nil || s.Points < 70 {
		t.Errorf("nothing for 24 days: %+v", s)
	}
	if s := advice.Churn(&none); s != nil {
		t.Errorf("nothing is known: %+v", s)
	}
}
