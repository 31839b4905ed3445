// SPDX-License-Identifier: Apache-2.0

package deliverydb

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Preferences implements delivery.Wishes.
func (s *Store) Preferences(ctx context.Context, userID string) (delivery.Preferences, error) {
	row, err := s.db.Queries().Preferences(ctx, userID)
	if err != nil {
		return delivery.Preferences{}, postgres.MapError(missing(err, "user %q", userID))
	}
	return delivery.Preferences{Muted: kindsOf(row.Muted), UpdatedAt: instant(row.UpdatedAt)}, nil
}

// PutPreferences implements delivery.Wishes.
func (s *Store) PutPreferences(
	ctx context.Context, userID string, muted []quota.AlertKind, by quota.Actor,
) (p delivery.Preferences, err error) {
	err = s.within(ctx, func(tx pgx.Tx, q *dbsqlc.Queries, now time.Time) error {
		account, err := q.LockUser(ctx, userID)
		if err != nil {
			return missing(err, "user %q", userID)
		}
		was, err := q.Preferences(ctx, userID)
		if err != nil {
			return err
		}
		p = delivery.Preferences{Muted: kindsOf(was.Muted), UpdatedAt: instant(was.UpdatedAt)}
		if slices.Equal(p.Muted, muted) {
			return nil
		}
		before := quota.AuditPreferences{Muted: p.Muted}
		p = delivery.Preferences{Muted: muted, UpdatedAt: now}
		err = q.PutPreferences(ctx,
			dbsqlc.PutPreferencesParams{Account: account, Muted: texts(muted), Now: now})
		if err != nil {
			return err
		}
		return postgres.TellAudit(ctx, tx, now, postgres.Audited{Account: account, AuditRow: quota.AuditRow{
			Actor: by, Action: quota.AuditPreferencesChanged, Object: quota.AccountID(account).String(),
			Before: before, After: quota.AuditPreferences{Muted: muted},
		}})
	})
	return p, err
}
