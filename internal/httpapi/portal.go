// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"cmp"
	"context"
	"time"

	"github.com/google/uuid"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// CreatePortalToken implements POST /api/v1/users/{id}/portal-tokens.
func (s *server) CreatePortalToken(
	ctx context.Context, r CreatePortalTokenRequestObject,
) (CreatePortalTokenResponseObject, error) {
	if err := s.mayPathsUser(ctx, r.Id); err != nil {
		return nil, err
	}
	scope, ttl, err := parsePortalToken(r.Body)
	if err != nil {
		return nil, err
	}
	account, err := s.usage.Account(ctx, r.Id, true)
	if err != nil {
		return nil, err
	}
	given, err := s.auth.Portal.Mint(ctx, account, r.Id, scope, ttl, actor(ctx))
	if err != nil {
		return nil, err
	}
	return CreatePortalToken201JSONResponse{
		Headers: CreatePortalToken201ResponseHeaders{CacheControl: "no-store"},
		Body: PortalToken{
			Id: uuid.UUID(given.ID), Token: given.Token, UserId: r.Id, Scope: scope, ExpiresAt: given.ExpiresAt,
		},
	}, nil
}

// RevokePortalTokens implements DELETE /api/v1/users/{id}/portal-tokens.
func (s *server) RevokePortalTokens(
	ctx context.Context, r RevokePortalTokensRequestObject,
) (RevokePortalTokensResponseObject, error) {
	if err := s.revokePortal(ctx, r.Id, nil); err != nil {
		return nil, err
	}
	return RevokePortalTokens204Response{}, nil
}

// RevokePortalToken implements DELETE /api/v1/users/{id}/portal-tokens/{tokenId}.
func (s *server) RevokePortalToken(
	ctx context.Context, r RevokePortalTokenRequestObject,
) (RevokePortalTokenResponseObject, error) {
	if err := s.revokePortal(ctx, r.Id, new(quota.PortalTokenID(r.TokenId))); err != nil {
		return nil, err
	}
	return RevokePortalToken204Response{}, nil
}

func (s *server) revokePortal(ctx context.Context, userID string, id *quota.PortalTokenID) error {
	if err := s.mayPathsUser(ctx, userID); err != nil {
		return err
	}
	account, err := s.usage.Account(ctx, userID, false)
	if err != nil {
		return err
	}
	return s.auth.Portal.Revoke(ctx, account, id, actor(ctx))
}

// mayPathsUser is mayUser where the field is the path's id.
func (s *server) mayPathsUser(ctx context.Context, id string) error {
	if err := quota.UserIDs.Check(id); err != nil {
		return invalid("id: user id %v", err)
	}
	return s.may(ctx, id)
}

// actor is the caller as the audit log knows it.
func actor(ctx context.Context) quota.Actor { return quota.CallerActor(callerFrom(ctx).user.GetName()) }

func parsePortalToken(b *PortalTokenRequest) (quota.PortalScope, time.Duration, error) {
	scope, ttl := cmp.Or(b.Scope, quota.PortalRead), quota.DefaultPortalTTL
	if given := b.TtlSeconds; given != nil {
		least, most := Integer(quota.MinPortalTTL/time.Second), Integer(quota.MaxPortalTTL/time.Second)
		if *given < least || *given > most {
			return "", 0, invalid("ttl_seconds: %d must be between %d and %d", *given, least, most)
		}
		ttl = time.Duration(*given) * time.Second
	}
	return scope, ttl, quota.CheckPortal(scope, ttl)
}

// mayPortal says whether the operation is one that the caller's portal token is good for, if it is one: whatever else
// the operation asks for comes after that.
func mayPortal(who user.Info, op *operation) error {
	browser, is := who.(*access.PortalUser)
	if !is {
		return nil
	}
	switch taken, checks := op.inPortal(); {
	case !taken:
		return forbidden("a portal token reads what is its user's, and is not good for %s", op.pattern)
	case checks && browser.Scope != quota.PortalCheck:
		return forbidden("%s takes a portal token of scope %q, this one has %q", op.pattern, quota.PortalCheck,
			browser.Scope)
	}
	return nil
}
