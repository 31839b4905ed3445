// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/advice"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// SimulationStore reads for whom a plan is tried.
type SimulationStore interface {
	// Subjects reads at most limit users who pay for themselves, on a plan or all of them, behind one and in the order
	// of their ids, with what they used since a day; the last one is nil behind them all. ErrNotFound if there is no
	// such plan.
	Subjects(
		ctx context.Context, plan string, since Day, after quota.AccountID, limit int,
	) (who []advice.Subject, last *quota.AccountID, err error)
}

// Simulated is what the last 90 whole days would have been on a plan.
type Simulated struct {
	*advice.Simulation

	// From the first of these days on and before To.
	From, To Day
	// OfPlan is whose users it was tried for; empty: everybody who pays.
	OfPlan string
	AsOf   time.Time
}

const (
	simulationPage = 1000
	// MaxSimulated is for how many users a plan is tried while somebody waits for the answer.
	MaxSimulated = 50_000
)

// Simulate tries a plan for the users of a plan, or all of them if that is empty, who pay for themselves. More than
// most are refused, where that is not zero. ErrNotFound if there is no such plan.
func (s *Service) Simulate(ctx context.Context, plan *quota.Plan, of string, most int64) (Simulated, error) {
	r, err := s.totalsRollup(ctx)
	if err != nil {
		return Simulated{}, err
	}
	if r.AsOf.IsZero() {
		return Simulated{}, quota.Conflict("the simulation",
			"nothing is rolled up yet: there is no use to try plans on")
	}
	to := DayOf(r.AsOf, time.UTC)
	out := Simulated{
		Simulation: advice.NewSimulation(plan), OfPlan: of, AsOf: r.AsOf, To: to,
		From: to.Add(-advice.Spans * advice.SpanDays),
	}
	var after quota.AccountID
	for {
		who, last, err := s.summed.Subjects(ctx, of, out.From, after, simulationPage)
		if err != nil {
			return Simulated{}, err
		}
		for i := range who {
			out.Add(&who[i])
		}
		if n := out.Outcome.Users; most > 0 && n > most {
			return Simulated{}, quota.Invalid("of_plan",
				"more than %d users are on it, the most that can be waited for: use usage-batch simulate", most)
		}
		if last == nil {
			return out, nil
		}
		after = *last
	}
}
