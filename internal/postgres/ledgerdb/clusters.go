// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"context"
	"errors"
	"math"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/clusters"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

var (
	_ clusters.Registry = (*Store)(nil)
	_ clusters.Adopter  = (*Store)(nil)
)

// RegisterCluster implements clusters.Registry.
func (s *Store) RegisterCluster(ctx context.Context, uid quota.ClusterUID, name string) (clusters.Cluster, error) {
	var row dbsqlc.Cluster
	err := s.Transaction(ctx, func(_ pgx.Tx, q *dbsqlc.Queries) (err error) {
		row, err = q.SeeCluster(ctx, dbsqlc.SeeClusterParams{Name: name, Now: s.Now(), Uid: uid})
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if err := q.LockClusters(ctx); err != nil {
			return err
		}
		row, err = q.InsertCluster(ctx, dbsqlc.InsertClusterParams{Uid: uid, Name: name, Now: s.Now()})
		return err
	})
	return readdb.ClusterOf(&row), err
}

// homeOf returns the cluster that a plan belongs to, zero if none has registered.
func homeOf(ctx context.Context, q *dbsqlc.Queries, p *dbsqlc.UserPlanLimit) (quota.ClusterUID, error) {
	if p.HomeCluster != nil {
		return *p.HomeCluster, nil
	}
	return readdb.FirstCluster(ctx, q)
}

// ClaimUnowned implements clusters.Registry.
func (s *Store) ClaimUnowned(ctx context.Context, uid quota.ClusterUID, actor string) (clusters.Owned, error) {
	var owned clusters.Owned
	err := s.Transaction(ctx, func(tx pgx.Tx, q *dbsqlc.Queries) error {
		owned = clusters.Owned{}
		if first, err := readdb.FirstCluster(ctx, q); err != nil || first != uid {
			return err
		}
		plans, err := q.PlansOf(ctx, uid)
		if err != nil {
			return err
		}
		for i := range plans {
			if plans[i].HomeCluster != nil {
				continue
			}
			if err := s.movePlan(ctx, tx, q, &plans[i], dbsqlc.MovePlanParams{Cluster: uid}, quota.AuditPlanClaimed,
				actor); err != nil {
				return err
			}
			owned.Plans = append(owned.Plans, plans[i].Name)
		}
		teams, err := q.TeamsOf(ctx, uid)
		if err != nil {
			return err
		}
		for i := range teams {
			if teams[i].Team.HomeCluster != nil {
				continue
			}
			if err := s.moveTeam(ctx, tx, q, &teams[i], dbsqlc.MoveTeamParams{Cluster: uid}, quota.AuditTeamClaimed,
				actor); err != nil {
				return err
			}
			owned.Teams = append(owned.Teams, teams[i].Team.Name)
		}
		// No cluster has the UID zero: these are rows that name none.
		accounts, err := q.LockQuotasOf(ctx, dbsqlc.LockQuotasOfParams{WithUnnamed: true, Most: math.MaxInt32})
		if err != nil {
			return err
		}
		err = s.moveQuotas(ctx, tx, q, dbsqlc.MoveQuotasParams{Cluster: uid, Ids: accounts},
			quota.AuditQuotaClaimed, actor)
		if err != nil {
			return err
		}
		withJobs, err := q.LockAccountsWithJobsOf(ctx,
			dbsqlc.LockAccountsWithJobsOfParams{WithUnnamed: true, Most: math.MaxInt32})
		if err != nil {
			return err
		}
		// Whose a Job is does not change, and of its admission nothing else does: no row tells that it is said now.
		jobs, err := q.MoveJobs(ctx, dbsqlc.MoveJobsParams{Cluster: uid, Ids: withJobs, WithUnnamed: true})
		owned.Quotas, owned.Jobs = int64(len(accounts)), int64(len(jobs))
		return err
	})
	return owned, err
}

// MovePlans implements clusters.Adopter.
func (s *Store) MovePlans(ctx context.Context, m clusters.Move) ([]string, error) {
	var names []string
	err := s.Transaction(ctx, func(tx pgx.Tx, q *dbsqlc.Queries) error {
		names = nil
		plans, err := q.PlansOf(ctx, m.From)
		if err != nil {
			return err
		}
		for i := range plans {
			to := dbsqlc.MovePlanParams{Cluster: m.To, Disown: true}
			if err := s.movePlan(ctx, tx, q, &plans[i], to, quota.AuditPlanAdopted, m.Actor); err != nil {
				return err
			}
			names = append(names, plans[i].Name)
		}
		return nil
	})
	return names, err
}

// movePlan makes a plan another cluster's. It has another version then: whoever remembers the plan reads it again, and
// the audit log tells each version of it.
func (s *Store) movePlan(
	ctx context.Context, tx pgx.Tx, q *dbsqlc.Queries, before *dbsqlc.UserPlanLimit, to dbsqlc.MovePlanParams,
	action quota.AuditAction, actor string,
) error {
	to.Name, to.Now = before.Name, s.Now()
	after, err := q.MovePlan(ctx, to)
	if err != nil {
		return err
	}
	return auditPlan(ctx, tx, action, actor, before, &after)
}

// MoveTeams implements clusters.Adopter. With the teams go the endpoints that notifications are sent to.
func (s *Store) MoveTeams(ctx context.Context, m clusters.Move) ([]string, error) {
	var names []string
	err := s.Transaction(ctx, func(tx pgx.Tx, q *dbsqlc.Queries) error {
		names = nil
		teams, err := q.TeamsOf(ctx, m.From)
		if err != nil {
			return err
		}
		for i := range teams {
			to := dbsqlc.MoveTeamParams{Cluster: m.To, Disown: true}
			if err := s.moveTeam(ctx, tx, q, &teams[i], to, quota.AuditTeamAdopted, m.Actor); err != nil {
				return err
			}
			names = append(names, teams[i].Team.Name)
		}
		_, err = q.MoveEndpoints(ctx, dbsqlc.MoveEndpointsParams{Cluster: (*quota.ID)(&m.To),
			FromCluster: (*quota.ID)(&m.From)})
		return err
	})
	return names, err
}

// moveTeam makes a team another cluster's. What is below it, and what it pays for, stays as it is.
func (s *Store) moveTeam(
	ctx context.Context, tx pgx.Tx, q *dbsqlc.Queries, before *dbsqlc.TeamsOfRow, to dbsqlc.MoveTeamParams,
	action quota.AuditAction, actor string,
) error {
	to.ID, to.Now = before.Team.ID, s.Now()
	after, err := q.MoveTeam(ctx, to)
	if err != nil {
		return err
	}
	return s.tellMoved(ctx, tx, []postgres.Audited{{Account: before.Team.ID, AuditRow: quota.AuditRow{
		Actor: quota.Actor{Name: actor}, Action: action, Object: before.Team.Name,
		Before: readdb.AuditTeam(&before.Team, &before.UsageQuota), After: readdb.AuditTeam(&after, &before.UsageQuota),
	}}})
}

// moveQuotas makes what UserQuotas declared about the accounts another cluster's, or names the cluster whose it is.
func (s *Store) moveQuotas(
	ctx context.Context, tx pgx.Tx, q *dbsqlc.Queries, to dbsqlc.MoveQuotasParams, action quota.AuditAction,
	actor string,
) error {
	rows, err := q.MoveQuotas(ctx, to)
	if err != nil {
		return err
	}
	told := make([]postgres.Audited, len(rows))
	for i := range rows {
		after := &rows[i].UsageQuota
		before := *after
		before.HomeCluster, before.QuotaUid = rows[i].WasHome, rows[i].WasQuotaUid
		told[i] = postgres.Audited{Account: after.UserID, AuditRow: quota.AuditRow{
			Actor: quota.Actor{Name: actor}, Action: action, Object: quota.AccountID(after.UserID).String(),
			Before: readdb.AuditSettings(&before), After: readdb.AuditSettings(after),
		}}
	}
	return s.tellMoved(ctx, tx, told)
}

// tellMoved writes the audit rows of what became another cluster's.
func (s *Store) tellMoved(ctx context.Context, tx pgx.Tx, all []postgres.Audited) error {
	now, err := dbsqlc.New(tx).Clock(ctx, s.Now())
	if err != nil {
		return err
	}
	return postgres.TellAudit(ctx, tx, now, all...)
}

// MoveQuotas implements clusters.Adopter.
func (s *Store) MoveQuotas(
	ctx context.Context, m clusters.Move, after quota.AccountID, limit int,
) (quotas int, last quota.AccountID, err error) {
	err = s.Transaction(ctx, func(tx pgx.Tx, q *dbsqlc.Queries) error {
		first, err := readdb.FirstCluster(ctx, q)
		if err != nil {
			return err
		}
		accounts, err := q.LockQuotasOf(ctx, dbsqlc.LockQuotasOfParams{
			Cluster: m.From, WithUnnamed: first == m.From, After: after, Most: int32(limit),
		})
		if quotas = len(accounts); err != nil || quotas == 0 {
			return err
		}
		last = accounts[quotas-1]
		to := dbsqlc.MoveQuotasParams{Cluster: m.To, Disown: true, Ids: accounts}
		return s.moveQuotas(ctx, tx, q, to, quota.AuditQuotaAdopted, m.Actor)
	})
	return quotas, last, err
}

// MoveJobs implements clusters.Adopter.
func (s *Store) MoveJobs(
	ctx context.Context, m clusters.Move, after quota.AccountID, limit int,
) (jobs, accounts int, last quota.AccountID, err error) {
	err = s.Transaction(ctx, func(tx pgx.Tx, q *dbsqlc.Queries) error {
		first, err := readdb.FirstCluster(ctx, q)
		if err != nil {
			return err
		}
		ids, err := q.LockAccountsWithJobsOf(ctx, dbsqlc.LockAccountsWithJobsOfParams{
			Cluster: m.From, WithUnnamed: first == m.From, After: after, Most: int32(limit),
		})
		if jobs, accounts = 0, len(ids); err != nil || accounts == 0 {
			return err
		}
		last = ids[accounts-1]
		rows, err := q.MoveJobs(ctx, dbsqlc.MoveJobsParams{Cluster: m.To, Ids: ids, FromCluster: m.From,
			WithUnnamed: first == m.From})
		if err != nil {
			return err
		}
		told := make([]postgres.Audited, len(rows))
		for i := range rows {
			told[i] = postgres.Audited{Account: rows[i].UserID, AuditRow: quota.AuditRow{
				Actor: quota.Actor{Name: m.Actor}, Action: quota.AuditJobAdopted,
				Object: quota.AdmissionID(rows[i].ID).String(),
				Before: quota.AuditJob{Cluster: m.From},
				After:  quota.AuditJob{Cluster: m.To},
			}}
		}
		jobs = len(rows)
		return s.tellMoved(ctx, tx, told)
	})
	return jobs, accounts, last, err
}
