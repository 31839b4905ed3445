// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// teamID finds a team's account.
func (s *Store) teamID(ctx context.Context, team string) (quota.AccountID, error) {
	id, err := s.Queries().TeamID(ctx, team)
	if err != nil {
		err = postgres.MapError(err)
		if errors.Is(err, ledger.ErrNotFound) {
			err = quota.NotFound("team %q", team)
		}
	}
	return id, err
}

// TeamNames implements reports.TeamStore.
func (s *Store) TeamNames(ctx context.Context, after string, limit int) ([]string, error) {
	names, err := s.Queries().TeamNames(ctx, dbsqlc.TeamNamesParams{After: after, Most: int32(limit)})
	return names, postgres.MapError(err)
}

// TeamPeriods implements reports.TeamStore: one snapshot.
func (s *Store) TeamPeriods(
	ctx context.Context, team string, before int64, limit, shares int,
) (ledger.Usage, []reports.StoredPeriod, map[int64][]reports.Share, error) {
	id, err := s.teamID(ctx, team)
	if err != nil {
		return ledger.Usage{}, nil, nil, err
	}
	var periods []reports.StoredPeriod
	byPeriod := map[int64][]reports.Share{}
	u, err := s.teamStanding(ctx, id, readPeriodsOf(ctx, id, before, limit, &periods),
		func(q *dbsqlc.Queries) error {
			rows, err := q.SharesBefore(ctx, dbsqlc.SharesBeforeParams{
				Team: id, Before: before, Most: int32(limit), Shares: int32(shares),
			})
			for _, r := range rows {
				byPeriod[r.PeriodNo] = append(byPeriod[r.PeriodNo], reports.Share{
					Account: r.UserID, UserID: r.ExternalID, Used: quota.Credits(r.Used),
				})
			}
			return err
		})
	return u, periods, byPeriod, err
}

// TeamShares implements reports.TeamStore: one snapshot.
func (s *Store) TeamShares(
	ctx context.Context, team string, period *int64, after quota.AccountID, limit int,
) (ledger.Usage, []reports.StoredPeriod, []reports.Share, error) {
	id, err := s.teamID(ctx, team)
	if err != nil {
		return ledger.Usage{}, nil, nil, err
	}
	var periods []reports.StoredPeriod
	var shares []reports.Share
	before := int64(0)
	if period != nil {
		before = *period + 1
	}
	u, err := s.teamStanding(ctx, id, readPeriodsOf(ctx, id, before, 1, &periods),
		func(q *dbsqlc.Queries) error {
			rows, err := q.Shares(ctx, dbsqlc.SharesParams{Team: id, After: after, Period: period, Most: int32(limit)})
			shares = make([]reports.Share, len(rows))
			for i, r := range rows {
				shares[i] = reports.Share{Account: r.UserID, UserID: r.ExternalID, Used: quota.Credits(r.Used)}
			}
			return err
		})
	return u, periods, shares, err
}

// TeamMembers implements reports.TeamStore.
func (s *Store) TeamMembers(
	ctx context.Context, team string, after quota.AccountID, limit int,
) ([]reports.Member, time.Time, error) {
	id, err := s.teamID(ctx, team)
	if err != nil {
		return nil, time.Time{}, err
	}
	now, err := s.Queries().Clock(ctx, s.Now())
	if err != nil {
		return nil, time.Time{}, postgres.MapError(err)
	}
	rows, err := s.Queries().TeamMembers(ctx, dbsqlc.TeamMembersParams{Team: id, After: after, Most: int32(limit)})
	out := make([]reports.Member, len(rows))
	for i, r := range rows {
		out[i] = reports.Member{
			Share: reports.Share{Account: r.UserID, UserID: r.ExternalID, Used: quota.Credits(r.Used)},
			Team:  r.Team, Running: r.Active, Queued: r.Queued,
		}
	}
	return out, now.UTC(), postgres.MapError(err)
}

func readPeriodsOf(
	ctx context.Context, account quota.AccountID, before int64, limit int, into *[]reports.StoredPeriod,
) func(q *dbsqlc.Queries) error {
	return func(q *dbsqlc.Queries) error {
		rows, err := q.PeriodsOf(ctx, dbsqlc.PeriodsOfParams{Account: account, Before: before, Most: int32(limit)})
		*into = make([]reports.StoredPeriod, len(rows))
		for i := range rows {
			p, wrong := PeriodOf(&rows[i])
			err = errors.Join(err, wrong)
			(*into)[i] = reports.StoredPeriod{ClosedPeriod: *p, Revision: rows[i].Revision}
		}
		return err
	}
}

// teamStanding reads a team's account, not rolled, and what else the caller asks for, as of one snapshot.
func (s *Store) teamStanding(
	ctx context.Context, id quota.AccountID, also ...func(q *dbsqlc.Queries) error,
) (ledger.Usage, error) {
	var t postgres.RoundTrip
	t.Queue("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
	t.Queue(postgres.PlanOnce)
	var u ledger.Usage
	var lots []quota.Lot
	plans := map[*quota.Account]ServedBy{}
	err := errors.Join(
		t.Ask(func(q *dbsqlc.Queries) error {
			now, err := q.Clock(ctx, s.Now())
			u.Now = now.UTC()
			return err
		}),
		t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.ReadAbove(ctx, []quota.ID{id})
			for i := range rows {
				if r := &rows[i]; r.UsageQuota.UserID == id {
					err = errors.Join(err, s.readTeam(r, &u, plans))
				}
			}
			return err
		}),
		t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadLots(ctx, dbsqlc.LoadLotsParams{Ids: []quota.ID{id}, Now: s.Now()})
			for i := range rows {
				lot, wrong := LotOf(&rows[i])
				err = errors.Join(err, wrong)
				lots = append(lots, lot)
			}
			return err
		}))
	for _, read := range also {
		err = errors.Join(err, t.Ask(read))
	}
	t.Queue("COMMIT")
	if err := errors.Join(err, t.Send(ctx, s.Pool())); err != nil {
		return ledger.Usage{}, postgres.MapError(err)
	}
	if u.Account == nil {
		return ledger.Usage{}, fmt.Errorf("account of team %s: %w", id, ledger.ErrNotFound)
	}
	u.Account.Lots = lots
	err = s.PlansFor(ctx, s.Queries(), plans, func(_ *quota.Account, lacks error) {
		u.Unreadable = s.teamLacks(&u, lacks)
	})
	if err == nil && u.Unreadable != nil {
		return ledger.Usage{}, u.Unreadable
	}
	return u, postgres.MapError(err)
}

// readTeam reads the row of a team's account. Nothing is decided later than now.
func (s *Store) readTeam(r *dbsqlc.ReadAboveRow, u *ledger.Usage, plans map[*quota.Account]ServedBy) error {
	a, _, unreadable := s.Account(&r.UsageQuota, "", quota.ClusterUID{})
	if unreadable != nil {
		return unreadable
	}
	TeamOf(a, &r.Team)
	if name := r.UsageQuota.PlanName; name != nil {
		plans[a] = ServedBy{
			PlanKey:   PlanKey{Name: *name, Version: r.PlanVersion},
			DecidedAt: r.UsageQuota.LastDecidedAt,
		}
	}
	if at := r.UsageQuota.LastDecidedAt.UTC(); at.After(u.Now) {
		u.Now = at
	}
	u.Account = a
	return nil
}

func (s *Store) teamLacks(u *ledger.Usage, err error) *ledger.UnreadableError {
	lacks := &ledger.UnreadableError{UserID: u.Account.Team.Name, What: err.Error(), Declared: true}
	s.Report(lacks)
	return lacks
}
