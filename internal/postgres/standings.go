// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Accounts implements metering.Store.
func (s *Store) Accounts(ctx context.Context, userIDs []string) (map[string]metering.Usage, error) {
	out, err := s.standings(ctx, userIDs, func(*pgx.Batch) {}, func(*dbsqlc.Queries) error { return nil })
	return out, mapError(err)
}

// standings reads users' accounts, and what else the caller queues and then reads, in one round trip. All is of one snapshot,
// so balances, lots and periods agree.
func (s *Store) standings(ctx context.Context, userIDs []string, queue func(*pgx.Batch), also func(*dbsqlc.Queries) error) (
	map[string]metering.Usage, error,
) {
	var q pgx.Batch
	q.Queue("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
	q.Queue(planOnce)
	q.Queue(dbsqlc.ReadAccounts, s.now(), userIDs)
	q.Queue(dbsqlc.ReadLots, userIDs, s.now())
	q.Queue(dbsqlc.LastPeriods, userIDs)
	queue(&q)
	q.Queue("COMMIT")
	out, plans, err := s.readStandings(ctx, &q, also)
	if err != nil {
		return nil, err
	}
	if err := s.plansFor(ctx, s.queries, plans); err != nil {
		return nil, err
	}
	return out, nil
}

// readStandings sends the statements and reads their answers in the same order.
func (s *Store) readStandings(ctx context.Context, q *pgx.Batch, also func(*dbsqlc.Queries) error) (
	out map[string]metering.Usage, plans map[*quota.Account]planKey, err error,
) {
	answers := s.pool.SendBatch(ctx, q)
	defer func() { err = errors.Join(err, answers.Close()) }()
	read := dbsqlc.New(results{answers})
	for range 2 {
		if _, err := answers.Exec(); err != nil {
			return nil, nil, err
		}
	}
	rows, err := read.ReadAccounts(ctx, dbsqlc.ReadAccountsParams{})
	if err != nil {
		return nil, nil, err
	}
	accounts := make(map[quota.ID]*quota.Account, len(rows))
	out, plans = make(map[string]metering.Usage, len(rows)), make(map[*quota.Account]planKey, len(rows))
	for i := range rows {
		r := &rows[i]
		a, settings, err := s.account(&r.UsageQuota, r.ExternalID)
		if err != nil {
			return nil, nil, err
		}
		accounts[a.ID], plans[a] = a, planKey{name: r.UsageQuota.PlanName, version: r.PlanVersion}
		out[a.UserID] = metering.Usage{Account: a, Now: r.Now.UTC(), QuotaUID: settings.QuotaUID}
	}
	lots, err := read.ReadLots(ctx, dbsqlc.ReadLotsParams{})
	if err != nil {
		return nil, nil, err
	}
	for i := range lots {
		a := accounts[lots[i].UserID]
		a.Lots = append(a.Lots, lotOf(&lots[i]))
	}
	periods, err := read.LastPeriods(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	for i := range periods {
		userID := accounts[periods[i].UserID].UserID
		u := out[userID]
		u.Last = periodOf(&periods[i])
		out[userID] = u
	}
	if err := also(read); err != nil {
		return nil, nil, err
	}
	_, err = answers.Exec()
	return out, plans, err
}
