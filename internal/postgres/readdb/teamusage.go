// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// TeamAccount implements metering.Store and reports.TeamStore.
func (s *Store) TeamAccount(ctx context.Context, name string) (quota.AccountID, error) {
	return s.teamID(ctx, name)
}

// Teams implements metering.Store.
func (s *Store) Teams(ctx context.Context, names []string) (map[string]metering.TeamUsage, error) {
	out, err := s.teams(ctx, names, true)
	return out, postgres.MapError(err)
}

// TeamStandings implements metering.Store.
func (s *Store) TeamStandings(ctx context.Context, names []string) (map[string]metering.TeamUsage, error) {
	out, err := s.teams(ctx, names, false)
	return out, postgres.MapError(err)
}

// teams reads the teams, and those above them, each from a snapshot of its own: whoever decides does so under locks.
// How many are below them is counted if that is asked for.
func (s *Store) teams(ctx context.Context, names []string, counted bool) (map[string]metering.TeamUsage, error) {
	q := s.Queries()
	rows, err := q.ReadTeams(ctx, dbsqlc.ReadTeamsParams{Now: s.Now(), Names: names})
	if err != nil || len(rows) == 0 {
		return map[string]metering.TeamUsage{}, err
	}
	byID := make(map[quota.AccountID]*metering.TeamUsage, len(rows))
	standings, plans := make(map[string]ledger.Usage, len(rows)), make(map[*quota.Account]ServedBy, len(rows))
	ids := make([]quota.ID, len(rows))
	for i := range rows {
		r := &rows[i]
		a, _, unreadable := s.Account(&r.UsageQuota, "", quota.ClusterUID{})
		TeamOf(a, &r.Team)
		if name := r.UsageQuota.PlanName; name != nil {
			plans[a] = ServedBy{
				PlanKey: PlanKey{Name: *name, Version: r.PlanVersion}, DecidedAt: r.UsageQuota.LastDecidedAt,
			}
		}
		ids[i] = a.ID
		settings := TeamSettingsOf(&r.Team)
		standings[r.Team.Name] = ledger.Usage{
			Account: a, Now: r.Now.UTC(), Parent: r.Parent, QuotaUID: settings.ObjectUID, Home: r.Home,
			Unreadable: unreadable,
		}
		byID[a.ID] = &metering.TeamUsage{
			TeamStatus:  metering.TeamStatus{Account: a.ID},
			DisplayName: settings.DisplayName, Weight: r.Team.Weight, Root: settings.Root, Retired: settings.Retired,
		}
	}
	if err := s.readMore(ctx, ids, standings, byID, counted); err != nil {
		return nil, err
	}
	if err := s.readAbove(ctx, standings, plans); err != nil {
		return nil, err
	}
	err = s.PlansFor(ctx, q, plans, func(a *quota.Account, err error) {
		if a.Team == nil {
			return
		}
		u := standings[a.Team.Name]
		if u.Account == a {
			u.Unreadable = &ledger.UnreadableError{What: err.Error(), Declared: true}
			standings[a.Team.Name] = u
		}
	})
	out := make(map[string]metering.TeamUsage, len(rows))
	for name, u := range standings {
		team := byID[u.Account.ID]
		team.Usage = u
		if up := u.Above[0]; up != nil {
			team.TeamStatus.Parent = up.Team.Name
		}
		out[name] = *team
	}
	return out, err
}

// readMore reads the teams' lots, their last closed periods, and how many are below them if that is asked for.
func (s *Store) readMore(
	ctx context.Context, ids []quota.ID, standings map[string]ledger.Usage,
	byID map[quota.AccountID]*metering.TeamUsage, counted bool,
) error {
	q := s.Queries()
	lots, err := q.LoadLots(ctx, dbsqlc.LoadLotsParams{Ids: ids, Now: s.Now()})
	if err != nil {
		return err
	}
	last, err := q.TeamLastPeriods(ctx, ids)
	if err != nil {
		return err
	}
	var members []dbsqlc.CountBelowRow
	if counted {
		if members, err = q.CountBelow(ctx, ids); err != nil {
			return err
		}
	}
	names := make(map[quota.ID]string, len(standings))
	for name, u := range standings {
		names[u.Account.ID] = name
	}
	for i := range lots {
		lot, err := LotOf(&lots[i])
		if err != nil {
			return err
		}
		a := standings[names[lots[i].UserID]].Account
		a.Lots = append(a.Lots, lot)
	}
	for i := range last {
		p, err := PeriodOf(&last[i])
		if err != nil {
			return err
		}
		u := standings[names[last[i].UserID]]
		u.Last = p
		standings[names[last[i].UserID]] = u
	}
	for _, m := range members {
		team := byID[m.ID]
		team.Members, team.DirectMembers, team.Teams = m.Members, m.Direct, m.Teams
	}
	return nil
}

// teamChanges finds the teams that were written since a mark, as quotaChanges finds accounts. There are few teams, and
// each bounds what is below it: if a declaration has changed it is all of them.
const teamChanges = `
WITH here AS MATERIALIZED (
    SELECT here.*, server <> $2 OR $1 > mark OR mark - $1 > 1000000000 AS everything,
        age(($1 % 4294967296)::text::xid) AS behind
    FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS mark,
        (SELECT oid FROM pg_database WHERE datname = current_database()) || ' ' ||
            extract(epoch FROM pg_postmaster_start_time()) AS server) AS here),
declared AS MATERIALIZED (
    SELECT here.everything OR EXISTS (SELECT FROM teams AS t WHERE age(t.xmin) <= here.behind)
        OR EXISTS (SELECT FROM user_plan_limits AS p WHERE age(p.xmin) <= here.behind) AS everything
    FROM here)
SELECT here.mark, here.server, declared.everything, coalesce($3::timestamptz, clock_timestamp()),
    ARRAY(SELECT t.name FROM teams AS t JOIN usage_quotas AS a ON a.user_id = t.id
        WHERE declared.everything OR age(a.xmin) <= here.behind)
FROM here, declared`

// TeamChanges implements metering.Store.
func (s *Store) TeamChanges(ctx context.Context, since ledger.Mark) (metering.TeamChanges, error) {
	var c metering.TeamChanges
	err := s.Pool().QueryRow(ctx, teamChanges, since.Transaction, since.Server, s.Now()).
		Scan(&c.Mark.Transaction, &c.Mark.Server, &c.Everything, &c.Now, &c.Teams)
	return c, postgres.MapError(err)
}
