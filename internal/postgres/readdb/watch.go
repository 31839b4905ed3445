// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// The version of an account is the transaction that has written its row: whatever changes a standing writes that. Each
// row is compared with what was known of it, and not with a horizon, which a long transaction would hold back.
const (
	changedAccounts = `
SELECT a.user_id, a.xmin::text::bigint FROM unnest($1::uuid[], $2::bigint[]) AS w (id, version)
JOIN usage_quotas AS a ON a.user_id = w.id WHERE a.xmin::text::bigint <> w.version`
	newUsers = `SELECT user_id FROM users WHERE user_id = ANY ($1::text[])`
	// Rows of plans and teams are few. Each write of one raises the sum.
	declaredNow = `
SELECT (SELECT count(*) || ' ' || coalesce(sum(xmin::text::bigint), 0) FROM user_plan_limits) || ' ' ||
    (SELECT count(*) || ' ' || coalesce(sum(xmin::text::bigint), 0) FROM teams),
    coalesce($1::timestamptz, clock_timestamp())`
)

// Changes implements metering.Store, in one round trip.
func (s *Store) Changes(ctx context.Context, known metering.Versions) (metering.VersionChanges, error) {
	var c metering.VersionChanges
	var b pgx.Batch
	b.Queue(changedAccounts, postgres.IDs[quota.ID](known.Accounts), known.Known).Query(func(rows pgx.Rows) error {
		var id quota.ID
		var version int64
		_, err := pgx.ForEachRow(rows, []any{&id, &version}, func() error {
			c.Accounts, c.Versions = append(c.Accounts, id), append(c.Versions, version)
			return nil
		})
		return err
	})
	if len(known.Users) > 0 {
		b.Queue(newUsers, known.Users).Query(func(rows pgx.Rows) (err error) {
			c.Users, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
	}
	b.Queue(declaredNow, s.Now()).QueryRow(func(row pgx.Row) error { return row.Scan(&c.Declared, &c.Now) })
	return c, postgres.MapError(s.Pool().SendBatch(ctx, &b).Close())
}

// NewAlerts implements metering.Store.
func (s *Store) NewAlerts(
	ctx context.Context, accounts []quota.AccountID, since time.Duration,
) (map[quota.AccountID][]ledger.Alert, error) {
	if len(accounts) == 0 {
		return nil, nil
	}
	now, err := s.Queries().Clock(ctx, s.Now())
	if err != nil {
		return nil, postgres.MapError(err)
	}
	rows, err := s.Queries().NewAlerts(ctx, dbsqlc.NewAlertsParams{
		Accounts: postgres.IDs[quota.ID](accounts), Since: now.Add(-since),
	})
	out := make(map[quota.AccountID][]ledger.Alert, len(rows))
	for i := range rows {
		a := alertOf((*dbsqlc.AlertRow)(&rows[i]), now)
		out[a.Account] = append(out[a.Account], a)
	}
	return out, postgres.MapError(err)
}

// Work implements metering.Store.
func (s *Store) Work(ctx context.Context) (metering.Work, error) {
	row, err := s.Queries().CountWork(ctx)
	return metering.Work{Running: row.Running, Queued: row.Queued}, postgres.MapError(err)
}
