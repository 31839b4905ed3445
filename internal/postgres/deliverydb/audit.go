// SPDX-License-Identifier: Apache-2.0

package deliverydb

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// auditOf is what the audit log tells of an endpoint as it is now.
func auditOf(
	ctx context.Context, q *dbsqlc.Queries, row *dbsqlc.NotificationEndpoint, now time.Time,
) (*quota.AuditEndpoint, error) {
	keys, err := q.EndpointKeys(ctx, dbsqlc.EndpointKeysParams{Endpoint: row.ID, Now: now})
	a := &quota.AuditEndpoint{
		Version: row.Version, Kinds: kindsOf(row.Kinds), Audience: row.Audience, Signing: row.Signing,
		Suspended: row.Suspended, Keys: int32(len(keys)),
	}
	if row.TeamID != nil {
		a.Team = new(quota.AccountID(*row.TeamID))
	}
	if row.HomeCluster != nil {
		a.Home = new(quota.ClusterUID(*row.HomeCluster))
	}
	return a, err
}

// tellEndpoint writes the audit row of an endpoint that was made, where there is no before, or changed.
func tellEndpoint(
	ctx context.Context, tx pgx.Tx, q *dbsqlc.Queries, by delivery.Act, before *quota.AuditEndpoint,
	row *dbsqlc.NotificationEndpoint, now time.Time,
) error {
	after, err := auditOf(ctx, q, row, now)
	if err != nil {
		return err
	}
	told := quota.AuditRow{Action: quota.AuditEndpointCreated, After: *after}
	if before != nil {
		told.Action, told.Before = quota.AuditEndpointChanged, *before
	}
	return postgres.TellAudit(ctx, tx, now, audited(row, by, told))
}

// audited is a row about what somebody did to an endpoint, of the account of the team whose own it is.
func audited(row *dbsqlc.NotificationEndpoint, by delivery.Act, told quota.AuditRow) postgres.Audited {
	told.Actor, told.Reason, told.Object = by.By, by.Reason, delivery.EndpointID(row.ID).String()
	out := postgres.Audited{AuditRow: told}
	if row.TeamID != nil {
		out.Account = *row.TeamID
	}
	return out
}

func kindsOf(texts []string) []quota.AlertKind {
	kinds := make([]quota.AlertKind, len(texts))
	for i, text := range texts {
		kinds[i] = quota.AlertKind(text)
	}
	return kinds
}
