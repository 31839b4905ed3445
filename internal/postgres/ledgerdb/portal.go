// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// portalKept is how long keys and tokens outlive what they are good for: more than clocks of replicas differ.
	portalKept = time.Minute
	// portalSwept is how many tokens that have ended go with a new one.
	portalSwept = 8
)

// IssuePortalToken writes a portal token down that begins now, with its audit row, and returns it with what it is to be
// signed with. generate makes a new key where one is needed: the first one, and the next before the last one ends.
func (s *Store) IssuePortalToken(
	ctx context.Context, t ledger.PortalToken, ttl time.Duration, actor quota.Actor,
	generate func() (ledger.PortalKey, error),
) (ledger.PortalToken, ledger.PortalKey, error) {
	var key ledger.PortalKey
	err := s.Transaction(ctx, func(tx pgx.Tx, q *dbsqlc.Queries) error {
		now, err := q.Clock(ctx, s.Now())
		if err != nil {
			return err
		}
		if key, err = portalSigner(ctx, q, now, generate); err != nil {
			return err
		}
		// Whole seconds, as the token says them.
		t.IssuedAt = now.UTC().Truncate(time.Second)
		t.ExpiresAt = t.IssuedAt.Add(ttl)
		err = q.InsertPortalToken(ctx, dbsqlc.InsertPortalTokenParams{
			ID: t.ID, Account: t.Account, Scope: string(t.Scope), IssuedAt: t.IssuedAt, ExpiresAt: t.ExpiresAt,
		})
		if err != nil {
			return err
		}
		err = q.DropPortalTokens(ctx,
			dbsqlc.DropPortalTokensParams{Before: now.Add(-portalKept), Most: portalSwept})
		if err != nil {
			return err
		}
		return tellPortal(ctx, tx, now, actor, quota.AuditPortalMinted, t)
	})
	return t, key, err
}

// portalSigner returns the key that signs now, and has the next one made when it is time.
func portalSigner(
	ctx context.Context, q *dbsqlc.Queries, now time.Time, generate func() (ledger.PortalKey, error),
) (ledger.PortalKey, error) {
	until, err := q.NewestPortalKey(ctx)
	if err != nil {
		return ledger.PortalKey{}, err
	}
	if until.Before(now.Add(quota.PortalKeyAhead)) {
		if err := addPortalKey(ctx, q, now, generate); err != nil {
			return ledger.PortalKey{}, err
		}
	}
	row, err := q.PortalSigner(ctx, now)
	return ledger.PortalKey{ID: row.ID, Seed: row.Seed}, err
}

// addPortalKey makes the next key, which signs from the end of the last one on, unless somebody else has just done so.
func addPortalKey(
	ctx context.Context, q *dbsqlc.Queries, now time.Time, generate func() (ledger.PortalKey, error),
) error {
	if err := q.LockPortalKeys(ctx); err != nil {
		return err
	}
	until, err := q.NewestPortalKey(ctx)
	if err != nil || !until.Before(now.Add(quota.PortalKeyAhead)) {
		return err
	}
	if until.Before(now) {
		until = now
	}
	key, err := generate()
	if err != nil {
		return err
	}
	err = q.InsertPortalKey(ctx, dbsqlc.InsertPortalKeyParams{
		ID: key.ID, PublicKey: key.Public, SignsFrom: until, SignsUntil: until.Add(quota.PortalKeyLife),
	})
	if err != nil {
		return err
	}
	if err := q.InsertPortalSecret(ctx, dbsqlc.InsertPortalSecretParams{KeyID: key.ID, Seed: key.Seed}); err != nil {
		return err
	}
	return q.DropPortalKeys(ctx, now.Add(-quota.MaxPortalTTL-portalKept))
}

// RevokePortalTokens revokes one token of an account or, with nil, all of them that have not ended. One that has ended,
// or was revoked, stays as it is; one that the account never had is ErrNotFound.
func (s *Store) RevokePortalTokens(
	ctx context.Context, account quota.AccountID, id *quota.PortalTokenID, actor quota.Actor,
) error {
	return s.Transaction(ctx, func(tx pgx.Tx, q *dbsqlc.Queries) error {
		now, err := q.Clock(ctx, s.Now())
		if err != nil {
			return err
		}
		params := dbsqlc.RevokePortalTokensParams{At: &now, Account: account}
		if id != nil {
			params.ID = new(quota.ID(*id))
		}
		rows, err := q.RevokePortalTokens(ctx, params)
		if err != nil {
			return err
		}
		if len(rows) == 0 && id != nil {
			had, err := q.HasPortalToken(ctx, dbsqlc.HasPortalTokenParams{Account: account, ID: *id})
			if err == nil && !had {
				err = ledger.ErrNotFound
			}
			return err
		}
		tokens := make([]ledger.PortalToken, len(rows))
		for i := range rows {
			tokens[i] = ledger.PortalToken{ID: rows[i].ID, Account: account, Scope: quota.PortalScope(rows[i].Scope),
				ExpiresAt: rows[i].ExpiresAt.UTC()}
		}
		return tellPortal(ctx, tx, now, actor, quota.AuditPortalRevoked, tokens...)
	})
}

// tellPortal writes the audit rows of tokens.
func tellPortal(
	ctx context.Context, tx pgx.Tx, now time.Time, actor quota.Actor, action quota.AuditAction,
	tokens ...ledger.PortalToken,
) error {
	rows := make([]postgres.Audited, len(tokens))
	for i, t := range tokens {
		told := quota.AuditRow{Actor: actor, Action: action, Object: t.ID.String()}
		what := quota.AuditPortal{Scope: t.Scope, ExpiresAt: quota.AuditTime(t.ExpiresAt)}
		if action == quota.AuditPortalRevoked {
			told.Before = what
		} else {
			told.After = what
		}
		rows[i] = postgres.Audited{Account: t.Account, AuditRow: told}
	}
	return postgres.TellAudit(ctx, tx, now, rows...)
}
