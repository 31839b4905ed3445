// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// ApplyPlan implements metering.Store.
func (s *Store) ApplyPlan(ctx context.Context, p metering.Plan, actor string) error {
	err := s.Transaction(ctx, func(tx pgx.Tx, q *dbsqlc.Queries) error {
		params := planParams(&p)
		before, err := q.LockPlan(ctx, p.Name)
		if errors.Is(err, pgx.ErrNoRows) {
			inserted := params
			inserted.Now = s.Now()
			created, err := q.InsertPlan(ctx, inserted)
			if err == nil {
				return auditPlan(ctx, tx, quota.AuditPlanCreated, actor, nil, &created)
			}
			if !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
			// Somebody else has just created it.
			before, err = q.LockPlan(ctx, p.Name)
			if err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
		home, err := homeOf(ctx, q, &before)
		if err != nil {
			return err
		}
		if home != (quota.ID{}) && home != p.Cluster {
			return &ledger.OwnedError{Subject: fmt.Sprintf("plan %q", p.Name), Cluster: home}
		}
		stored := before
		stored.HomeCluster = idColumn(home)
		if reflect.DeepEqual(planParams(readdb.MeteringPlan(&stored)), params) && !before.Retired {
			return nil
		}
		params.Now = s.Now()
		after, err := q.UpdatePlan(ctx, dbsqlc.UpdatePlanParams(params))
		if err != nil {
			return err
		}
		return auditPlan(ctx, tx, quota.AuditPlanChanged, actor, &before, &after)
	})
	if _, owned := errors.AsType[*ledger.OwnedError](err); owned {
		return err
	}
	if errors.Is(err, ledger.ErrConflict) {
		current, lookErr := s.Queries().PlanOnOffer(ctx, "")
		if lookErr == nil && current.Name != p.Name {
			return quota.Conflict(fmt.Sprintf("plan %q", p.Name), "plan %q is the default already", current.Name)
		}
	}
	if err != nil {
		return fmt.Errorf("plan %q: %w", p.Name, err)
	}
	return nil
}

// RetirePlan implements metering.Store.
func (s *Store) RetirePlan(ctx context.Context, name string, cluster quota.ClusterUID, actor string) error {
	err := s.Transaction(ctx, func(tx pgx.Tx, q *dbsqlc.Queries) error {
		before, err := q.LockPlan(ctx, name)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		home, err := homeOf(ctx, q, &before)
		if err != nil {
			return err
		}
		if before.Retired || home != cluster {
			return nil
		}
		after, err := q.RetirePlan(ctx, dbsqlc.RetirePlanParams{Name: name, Now: s.Now()})
		if err != nil {
			return err
		}
		return auditPlan(ctx, tx, quota.AuditPlanRetired, actor, &before, &after)
	})
	if err != nil {
		return fmt.Errorf("plan %q: %w", name, err)
	}
	return nil
}

// auditPlan writes the audit row of a change of a plan. before is nil for a plan that is new.
func auditPlan(
	ctx context.Context, tx pgx.Tx, action quota.AuditAction, actor string, before, after *dbsqlc.UserPlanLimit,
) error {
	told := postgres.Audited{AuditRow: quota.AuditRow{
		Actor: quota.Actor{Name: actor}, Action: action, Object: after.Name, After: readdb.MeteringPlan(after).Audit(),
	}}
	if before != nil {
		told.Before = readdb.MeteringPlan(before).Audit()
	}
	return postgres.TellAudit(ctx, tx, after.UpdatedAt, told)
}
