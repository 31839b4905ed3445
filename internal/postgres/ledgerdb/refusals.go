// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// AddRefusals implements metering.Store.
func (s *Store) AddRefusals(ctx context.Context, counted []metering.Refusals) error {
	var p dbsqlc.AddRefusalsParams
	for i := range counted {
		n := &counted[i]
		p.Accounts = append(p.Accounts, quota.ID(n.Account))
		p.Hours = append(p.Hours, n.Hour)
		p.Reasons = append(p.Reasons, string(n.Reason))
		p.Plans = append(p.Plans, n.Plan)
		p.ServedBy = append(p.ServedBy, n.ServedBy)
		p.Refusals = append(p.Refusals, n.Count)
		p.Credits = append(p.Credits, int64(n.Credits))
	}
	return s.Transaction(ctx, func(_ pgx.Tx, q *dbsqlc.Queries) error { return q.AddRefusals(ctx, p) })
}
