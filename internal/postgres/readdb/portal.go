// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// PortalState reads what portal tokens are checked with, in one round trip.
func (s *Store) PortalState(ctx context.Context) (ledger.PortalState, error) {
	var t postgres.RoundTrip
	var out ledger.PortalState
	err := t.Ask(func(q *dbsqlc.Queries) error {
		rows, err := q.PortalKeys(ctx, dbsqlc.PortalKeysParams{
			Now: s.Now(), Longest: pgtype.Interval{Microseconds: quota.MaxPortalTTL.Microseconds(), Valid: true},
		})
		out.Keys = make([]ledger.PortalKey, len(rows))
		for i, r := range rows {
			out.Keys[i] = ledger.PortalKey{ID: r.ID, Public: r.PublicKey, SignsUntil: r.SignsUntil.UTC()}
		}
		return err
	})
	if err != nil {
		return out, err
	}
	err = t.Ask(func(q *dbsqlc.Queries) error {
		ids, err := q.RevokedPortalTokens(ctx, s.Now())
		out.Revoked = make([]quota.PortalTokenID, len(ids))
		for i, id := range ids {
			out.Revoked[i] = id
		}
		return err
	})
	if err != nil {
		return out, err
	}
	err = t.Ask(func(q *dbsqlc.Queries) (err error) {
		out.Now, err = q.Clock(ctx, s.Now())
		return err
	})
	if err != nil {
		return out, err
	}
	return out, postgres.MapError(t.Send(ctx, s.Pool()))
}
