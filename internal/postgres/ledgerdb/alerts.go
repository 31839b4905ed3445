// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"context"

	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// AcknowledgeAlert implements metering.Store.
func (s *Store) AcknowledgeAlert(ctx context.Context, id quota.AlertID, by string) error {
	return postgres.MapError(s.Queries().AcknowledgeAlert(ctx,
		dbsqlc.AcknowledgeAlertParams{Now: s.Now(), By: by, ID: id}))
}
