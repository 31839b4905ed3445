// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
)

// Session returns the session whose id has this hash, and the time by the clock that says that it is not over. It is
// ErrNotFound if it is over, or never was.
func (s *Store) Session(ctx context.Context, hash []byte) (ledger.Session, time.Time, error) {
	row, err := s.Queries().FindSession(ctx, dbsqlc.FindSessionParams{Now: s.Now(), IDHash: hash})
	if errors.Is(err, pgx.ErrNoRows) {
		return ledger.Session{}, time.Time{}, ledger.ErrNotFound
	}
	if err != nil {
		return ledger.Session{}, time.Time{}, postgres.MapError(err)
	}
	r := row.Session
	out := ledger.Session{
		Hash: r.IDHash, Issuer: r.Issuer, Username: r.Username, UID: r.Uid, Groups: r.Groups, UserID: r.ExternalID,
		BeganAt: r.BeganAt.UTC(), SeenAt: r.SeenAt.UTC(), IdleEndsAt: r.IdleEndsAt.UTC(), EndsAt: r.EndsAt.UTC(),
	}
	if err := json.Unmarshal(r.Extra, &out.Extra); err != nil {
		return ledger.Session{}, time.Time{}, fmt.Errorf("sessions.extra: %w", err)
	}
	return out, row.Now.UTC(), nil
}
