// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"context"
	"errors"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
)

// EnsurePartitions implements metering.Store. Two at once may both find one missing: the second one's error is the
// first one's success, and found out by looking again.
func (s *Store) EnsurePartitions(ctx context.Context) error {
	return errors.Join(s.ensureEventPartitions(ctx), s.ensureKeyPartitions(ctx))
}

func (s *Store) ensureEventPartitions(ctx context.Context) error {
	missing, err := s.Queries().MissingPartitions(ctx)
	if err != nil || !missing {
		return postgres.MapError(err)
	}
	if err = s.Queries().EnsurePartitions(ctx); err == nil {
		return nil
	}
	if missing, again := s.Queries().MissingPartitions(ctx); again == nil && !missing {
		return nil
	}
	return postgres.MapError(err)
}

// ensureKeyPartitions makes the partitions of the idempotency keys ahead and drops what is older than their retention.
func (s *Store) ensureKeyPartitions(ctx context.Context) error {
	now, err := s.Queries().Clock(ctx, s.Now())
	if err != nil {
		return postgres.MapError(err)
	}
	olderThan := now.Add(-metering.KeyRetention)
	due, err := s.Queries().KeyPartitionsDue(ctx, dbsqlc.KeyPartitionsDueParams{Now: now, OlderThan: olderThan})
	if err != nil || due == nil || !*due {
		return postgres.MapError(err)
	}
	// Of several at once one does it, the others wait and find it done.
	if err := s.Queries().EnsureKeyPartitions(ctx, now); err != nil {
		return postgres.MapError(err)
	}
	return postgres.MapError(s.Queries().DropKeyPartitions(ctx, olderThan))
}
