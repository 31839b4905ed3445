// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
)

// BeginSession writes down a session that begins now and lasts for so long, idle without use, and returns it with its
// times. The one whose id has the hash before, if there is one, ends with that.
func (s *Store) BeginSession(
	ctx context.Context, session ledger.Session, idle, longest time.Duration, before []byte,
) (ledger.Session, error) {
	extra, err := json.Marshal(session.Extra)
	if err != nil {
		return session, err
	}
	err = s.Transaction(ctx, func(_ pgx.Tx, q *dbsqlc.Queries) error {
		now, err := q.Clock(ctx, s.Now())
		if err != nil {
			return err
		}
		now = now.UTC()
		session.BeganAt, session.SeenAt, session.EndsAt = now, now, now.Add(longest)
		session.IdleEndsAt = now.Add(min(idle, longest))
		if err := q.EndSession(ctx, before); err != nil {
			return err
		}
		return q.InsertSession(ctx, dbsqlc.InsertSessionParams{
			IDHash: session.Hash, Issuer: session.Issuer, Username: session.Username, Uid: session.UID,
			Groups: session.Groups, Extra: extra, ExternalID: session.UserID, BeganAt: now, SeenAt: now,
			IdleEndsAt: session.IdleEndsAt, EndsAt: session.EndsAt,
		})
	})
	return session, err
}

// TouchSession says that a session was used at an instant of the ledger's clock, and so does not end before that plus
// idle for want of use.
func (s *Store) TouchSession(ctx context.Context, hash []byte, at time.Time, idle time.Duration) error {
	return postgres.MapError(s.Queries().TouchSession(ctx,
		dbsqlc.TouchSessionParams{IDHash: hash, At: at, IdleEndsAt: at.Add(idle)}))
}

// EndSession ends a session. One that is over already is no error.
func (s *Store) EndSession(ctx context.Context, hash []byte) error {
	return postgres.MapError(s.Queries().EndSession(ctx, hash))
}

// EndSessions ends all sessions of whoever RBAC knows by this name.
func (s *Store) EndSessions(ctx context.Context, username string) error {
	return postgres.MapError(s.Queries().EndSessions(ctx, username))
}

// DropSessions forgets the sessions that are over.
func (s *Store) DropSessions(ctx context.Context) error {
	now, err := s.Queries().Clock(ctx, s.Now())
	if err != nil {
		return postgres.MapError(err)
	}
	return postgres.MapError(s.Queries().DropSessions(ctx, now))
}
