// SPDX-License-Identifier: Apache-2.0

package rollupdb

import (
	"context"

	"github.com/cantonesescribe/usage-operator/internal/outlook"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

var _ outlook.Store = (*Store)(nil)

// DueForecasts implements outlook.Store.
func (s *Store) DueForecasts(ctx context.Context, after quota.AccountID, limit int) ([]outlook.Candidate, error) {
	rows, err := s.db.Queries().DueForecasts(ctx,
		dbsqlc.DueForecastsParams{Now: s.db.Now(), After: quota.ID(after), Most: int32(limit)})
	due := make([]outlook.Candidate, len(rows))
	for i, r := range rows {
		due[i] = outlook.Candidate{
			Account: r.UserID, Level: quota.Level{Kind: quota.LevelUser, Name: r.ExternalID}, Day: r.Day,
		}
		if r.Team != "" {
			due[i].Level = quota.Level{Kind: quota.LevelTeam, Name: r.Team}
		}
	}
	return due, postgres.MapError(err)
}

// Foretold implements outlook.Store.
func (s *Store) Foretold(ctx context.Context, looked []outlook.Candidate) error {
	if len(looked) == 0 {
		return nil
	}
	var marks dbsqlc.MarkForecastsParams
	for i := range looked {
		marks.Ids = append(marks.Ids, quota.ID(looked[i].Account))
		marks.Days = append(marks.Days, looked[i].Day)
	}
	return postgres.MapError(s.db.Queries().MarkForecasts(ctx, marks))
}
