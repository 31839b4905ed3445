// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
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
				return audit(ctx, tx, s.Now(), planAudit("plan.created", actor, nil, &created))
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
		if reflect.DeepEqual(planParams(readdb.MeteringPlan(&before)), params) && !before.Retired {
			return nil
		}
		params.Now = s.Now()
		after, err := q.UpdatePlan(ctx, dbsqlc.UpdatePlanParams(params))
		if err != nil {
			return err
		}
		return audit(ctx, tx, s.Now(), planAudit("plan.changed", actor, &before, &after))
	})
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
func (s *Store) RetirePlan(ctx context.Context, name string, uid quota.ID, actor string) error {
	err := s.Transaction(ctx, func(tx pgx.Tx, q *dbsqlc.Queries) error {
		before, err := q.LockPlan(ctx, name)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if before.Retired || (uid != quota.ID{} && readdb.MeteringPlan(&before).ObjectUID != uid) {
			return nil
		}
		after, err := q.RetirePlan(ctx, dbsqlc.RetirePlanParams{Name: name, Now: s.Now()})
		if err != nil {
			return err
		}
		return audit(ctx, tx, s.Now(), planAudit("plan.retired", actor, &before, &after))
	})
	if err != nil {
		return fmt.Errorf("plan %q: %w", name, err)
	}
	return nil
}

// auditEntry is an audit row of an account, or of none.
type auditEntry struct {
	ledger.AuditRow

	account quota.ID
}

func planAudit(action, actor string, before, after *dbsqlc.UserPlanLimit) auditEntry {
	row := ledger.AuditRow{Actor: actor, Action: action, Kind: "UsagePlan", Name: after.Name, After: after}
	if before != nil {
		row.Before = before
	}
	return auditEntry{AuditRow: row}
}

// audit writes one audit row. A nil clock means the database's.
func audit(ctx context.Context, tx pgx.Tx, now *time.Time, e auditEntry) error {
	before, err := jsonColumn(e.Before)
	if err != nil {
		return err
	}
	after, err := jsonColumn(e.After)
	if err != nil {
		return err
	}
	return dbsqlc.New(tx).InsertAuditRow(ctx, dbsqlc.InsertAuditRowParams{
		Now: now, Actor: e.Actor, Action: e.Action, ObjectKind: e.Kind, ObjectName: e.Name, UserID: idColumn(e.account),
		Before: before, After: after,
	})
}
