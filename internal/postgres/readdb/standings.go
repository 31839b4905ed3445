// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"
	"errors"
	"slices"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Accounts implements metering.Store.
func (s *Store) Accounts(ctx context.Context, userIDs []string) (map[string]ledger.Usage, error) {
	out, err := s.standings(ctx, userIDs)
	return out, postgres.MapError(err)
}

// standings reads users' accounts, and what else the caller asks for, in one round trip. All is of one snapshot, so
// balances, lots and periods agree.
func (s *Store) standings(
	ctx context.Context, userIDs []string, also ...func(q *dbsqlc.Queries) error,
) (map[string]ledger.Usage, error) {
	var t postgres.RoundTrip
	t.Queue("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
	t.Queue(postgres.PlanOnce)
	out, plans := make(map[string]ledger.Usage, len(userIDs)), make(map[*quota.Account]ServedBy, len(userIDs))
	err := s.AskStandings(ctx, &t, userIDs, out, plans)
	for _, read := range also {
		err = errors.Join(err, t.Ask(read))
	}
	t.Queue("COMMIT")
	if err := errors.Join(err, t.Send(ctx, s.Pool())); err != nil {
		return nil, err
	}
	if err := s.readAbove(ctx, out, plans); err != nil {
		return nil, err
	}
	return out, s.PlansFor(ctx, s.Queries(), plans, func(a *quota.Account, err error) {
		for _, u := range out {
			if u.Account == a || slices.Contains(u.Above[:], a) {
				s.unreadable(out, u.Account, err, true)
			}
		}
	})
}

// readAbove reads the teams above the users, if there are any. They are of a snapshot of their own: whoever decides
// does so under locks.
func (s *Store) readAbove(ctx context.Context, out map[string]ledger.Usage, plans map[*quota.Account]ServedBy) error {
	var parents []quota.ID
	for _, u := range out {
		if parent := u.Parent; parent != (quota.AccountID{}) {
			parents = append(parents, parent)
		}
	}
	if len(parents) == 0 {
		return nil
	}
	rows, err := s.Queries().ReadAbove(ctx, parents)
	if err != nil {
		return err
	}
	teams, above := map[quota.AccountID]*quota.Account{}, map[quota.AccountID]quota.AccountID{}
	retired := map[quota.AccountID]bool{}
	var ids []quota.ID
	for i := range rows {
		r := &rows[i]
		a, _, unreadable := s.Account(&r.UsageQuota, "", quota.ClusterUID{})
		if unreadable != nil {
			return unreadable
		}
		TeamOf(a, &r.Team)
		a.Contended = r.Contended
		if name := r.UsageQuota.PlanName; name != nil {
			plans[a] = ServedBy{
				PlanKey:   PlanKey{Name: *name, Version: r.PlanVersion},
				DecidedAt: r.UsageQuota.LastDecidedAt,
			}
		}
		teams[a.ID], above[a.ID], retired[a.ID] = a, r.Parent, r.Team.Retired
		ids = append(ids, a.ID)
	}
	lots, err := s.Queries().LoadLots(ctx, dbsqlc.LoadLotsParams{Ids: ids, Now: s.Now()})
	if err != nil {
		return err
	}
	for i := range lots {
		lot, err := LotOf(&lots[i])
		if err != nil {
			return err
		}
		a := teams[lots[i].UserID]
		a.Lots = append(a.Lots, lot)
	}
	for name, u := range out {
		at := u.Parent
		u.Retired = retired[at]
		for i := 0; i < len(u.Above) && teams[at] != nil; i++ {
			u.Above[i], at = teams[at], above[at]
		}
		out[name] = u
	}
	return nil
}

// AskStandings queues the statements that read users' accounts, and notes what they answer.
func (s *Store) AskStandings(
	ctx context.Context, t *postgres.RoundTrip, userIDs []string, out map[string]ledger.Usage,
	plans map[*quota.Account]ServedBy,
) error {
	accounts := make(map[quota.ID]*quota.Account, len(userIDs))
	return errors.Join(
		t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.ReadAccounts(ctx, dbsqlc.ReadAccountsParams{Now: s.Now(), UserIds: userIDs})
			for i := range rows {
				r := &rows[i]
				a, settings, unreadable := s.Account(&r.UsageQuota, r.ExternalID, r.Home)
				accounts[a.ID], plans[a] = a, ServedBy{
					PlanKey:   PlanKey{Name: Text(r.UsageQuota.PlanName), Version: r.PlanVersion},
					DecidedAt: r.UsageQuota.LastDecidedAt,
				}
				out[a.UserID] = ledger.Usage{
					Account: a, Now: r.Now.UTC(), QuotaUID: settings.QuotaUID, Home: settings.Home,
					Parent: r.Parent,
				}
				if unreadable != nil {
					s.unreadable(out, a, unreadable, true)
				}
			}
			return err
		}),
		t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.ReadLots(ctx, dbsqlc.ReadLotsParams{UserIds: userIDs, Now: s.Now()})
			for i := range rows {
				a := accounts[rows[i].UserID]
				lot, err := LotOf(&rows[i])
				if err != nil {
					s.unreadable(out, a, err, false)
				}
				a.Lots = append(a.Lots, lot)
			}
			return err
		}),
		t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LastPeriods(ctx, userIDs)
			for i := range rows {
				a := accounts[rows[i].UserID]
				last, err := PeriodOf(&rows[i])
				if err != nil {
					s.unreadable(out, a, err, false)
				}
				u := out[a.UserID]
				u.Last = last
				out[a.UserID] = u
			}
			return err
		}))
}

// quotaChanges finds the accounts with a UserQuota that were written since a mark, or whose plan or team was declared
// since: a row says by its transaction id that it is not older than the oldest transaction that was under way at the
// mark. So no index has to change with each admission, and no clock decides. Of the server and the database that the
// mark was made on nothing must have changed: another one counts transactions on its own, and it may be a copy of an
// earlier moment.
const quotaChanges = `
WITH here AS MATERIALIZED (
    SELECT here.*, server <> $2 OR $1 > mark OR mark - $1 > 1000000000 AS everything,
        age(($1 % 4294967296)::text::xid) AS behind
    FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS mark,
        (SELECT oid FROM pg_database WHERE datname = current_database()) || ' ' ||
            extract(epoch FROM pg_postmaster_start_time()) AS server) AS here),
plans AS MATERIALIZED (
    SELECT array_agg(p.name) AS changed FROM user_plan_limits AS p, here WHERE age(p.xmin) <= here.behind),
declared AS MATERIALIZED (
    SELECT array_agg(t.id) AS changed FROM teams AS t, here WHERE age(t.xmin) <= here.behind),
owned AS MATERIALIZED (
    SELECT count(*) AS accounts, array_agg(a.user_id) FILTER (WHERE here.everything OR age(a.xmin) <= here.behind
        OR a.plan_name = ANY (plans.changed) OR a.member_of = ANY (declared.changed)) AS changed
    FROM usage_quotas AS a, here, plans, declared WHERE a.quota_uid IS NOT NULL)
SELECT here.mark, here.server, here.everything, owned.accounts, coalesce($3::timestamptz, clock_timestamp()),
    ARRAY(SELECT u.user_id FROM users AS u WHERE u.id = ANY (owned.changed))
FROM here, owned`

// QuotaChanges finds the users with a UserQuota whose standing may have changed since the mark.
func (s *Store) QuotaChanges(ctx context.Context, since ledger.Mark) (ledger.QuotaChanges, error) {
	var c ledger.QuotaChanges
	err := s.Pool().QueryRow(ctx, quotaChanges, since.Transaction, since.Server, s.Now()).
		Scan(&c.Mark.Transaction, &c.Mark.Server, &c.Everything, &c.Owned, &c.Now, &c.Users)
	return c, postgres.MapError(err)
}

// unreadable notes in a standing that something of the account cannot be read.
func (s *Store) unreadable(out map[string]ledger.Usage, a *quota.Account, err error, declared bool) {
	u := out[a.UserID]
	if u.Unreadable != nil && !u.Unreadable.Declared {
		return
	}
	u.Unreadable = &ledger.UnreadableError{UserID: a.UserID, What: err.Error(), Declared: declared}
	if known, ok := errors.AsType[*ledger.UnreadableError](err); ok {
		u.Unreadable = known
	}
	out[a.UserID] = u
	s.Report(u.Unreadable)
}
