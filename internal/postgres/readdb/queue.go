// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"
	"fmt"

	"github.com/cantonesescribe/usage-operator/internal/forecast"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/queue"
)

var _ queue.Store = (*Store)(nil)

// mostRunning is how many running admissions are looked at for the latest start.
const mostRunning = 256

// Look implements queue.Store: one round trip and one snapshot.
func (s *Store) Look(ctx context.Context, adm *ledger.Admission) (queue.Look, error) {
	var look queue.Look
	all, err := s.standings(ctx, []string{adm.UserID},
		func(q *dbsqlc.Queries) error {
			r, err := q.PlaceOf(ctx, dbsqlc.PlaceOfParams{
				Account: adm.Account, Parked: adm.Parked, Reason: string(adm.Reason), Priority: adm.Priority,
				Arrived: adm.ArrivedSeq,
			})
			look.Position, look.Waiting = int(r.Position), int(r.Waiting)
			return err
		},
		func(q *dbsqlc.Queries) error {
			rows, err := q.RecentStarts(ctx,
				dbsqlc.RecentStartsParams{Account: adm.Account, Most: forecast.MaxStarts})
			look.History.Starts = make([]forecast.Start, len(rows))
			for i, r := range rows {
				look.History.Starts[i] = forecast.Start{Since: r.Since.UTC(), At: r.At.UTC()}
			}
			return err
		},
		func(q *dbsqlc.Queries) error {
			at, err := q.LastStart(ctx, dbsqlc.LastStartParams{Account: adm.Account, Most: mostRunning})
			look.History.Last = at.UTC()
			return err
		})
	if err != nil {
		return queue.Look{}, postgres.MapError(err)
	}
	usage, known := all[adm.UserID]
	if !known {
		return queue.Look{}, fmt.Errorf("user %q: %w", adm.UserID, ledger.ErrNotFound)
	}
	look.Usage = usage
	return look, nil
}
