// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/advice"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// Subjects implements reports.SimulationStore.
func (s *Store) Subjects(
	ctx context.Context, plan string, since reports.Day, after quota.AccountID, limit int,
) ([]advice.Subject, *quota.AccountID, error) {
	users, err := s.Queries().SimulationUsers(ctx,
		dbsqlc.SimulationUsersParams{After: quota.ID(after), Plan: plan, Most: int32(limit)})
	if err != nil {
		return nil, nil, postgres.MapError(err)
	}
	who, at := make([]advice.Subject, len(users)), make(map[quota.ID]int, len(users))
	ids := make([]quota.ID, len(users))
	all, err := s.Plans(ctx)
	if err != nil {
		return nil, nil, err
	}
	plans := make(map[string]*quota.Plan, len(all))
	for _, p := range all {
		plans[p.Name] = &p.Plan
	}
	if plan != "" && plans[plan] == nil {
		return nil, nil, quota.NotFound("plan %q", plan)
	}
	for i, u := range users {
		who[i] = advice.Subject{
			Plan: plans[u.PlanName], Since: reports.DayOf(u.CreatedAt, time.UTC).Since(since),
		}
		ids[i], at[u.UserID] = u.UserID, i
	}
	// A day of UTC lies in two of some users.
	from, to := time.Time(since), time.Time(since.Add(advice.Spans*advice.SpanDays))
	days, err := s.Queries().SimulationDays(ctx, dbsqlc.SimulationDaysParams{
		Ids: ids, FromDay: from.AddDate(0, 0, -1), ToDay: to, Since: from, Until: to,
	})
	for _, d := range days {
		w := &who[at[d.UserID]]
		day := reports.Day(d.Day).Since(since)
		w.Since = min(w.Since, day)
		w.Days = append(w.Days, advice.UseOfDay{
			Day: day, Credits: quota.Credits(d.Credits), Transcribed: quota.Credits(d.Transcribed),
			Audio: milliseconds(d.AudioMs), Bytes: d.Bytes,
		})
	}
	if err != nil || len(users) < limit {
		return who, nil, postgres.MapError(err)
	}
	last := quota.AccountID(users[len(users)-1].UserID)
	return who, &last, nil
}
