// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"strings"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// ListUsers implements GET /api/v1/users.
func (s *server) ListUsers(ctx context.Context, r ListUsersRequestObject) (ListUsersResponseObject, error) {
	if err := s.mayAll(ctx, access.Resource); err != nil {
		return nil, err
	}
	limit, err := pageLimit(r.Params.Limit)
	if err != nil {
		return nil, err
	}
	prefix := r.Params.Prefix
	// What begins an id is one as soon as it ends with a letter or a digit.
	if prefix != "" && quota.UserIDs.Check(strings.TrimRight(prefix, "._-")+"0") != nil {
		return nil, invalid(
			"prefix: %.80q must be the beginning of a user id: at most 63 letters, digits, '-', '_' and '.', "+
				"the first of them a letter or a digit",
			prefix,
		)
	}
	after, err := parsePageCursor(cursorUsers, r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	users, more, err := s.search.Users(ctx, prefix, after, limit)
	if err != nil {
		return nil, err
	}
	out := ListUsers200JSONResponse{Users: make([]User, len(users))}
	for i := range users {
		out.Users[i] = encodeUser(&users[i])
	}
	if more {
		out.NextCursor = pageCursor(cursorUsers, users[len(users)-1].UserID)
	}
	return out, nil
}

// CreateUser implements POST /api/v1/users.
func (s *server) CreateUser(ctx context.Context, r CreateUserRequestObject) (CreateUserResponseObject, error) {
	if err := s.mayUser(ctx, r.Body.UserId); err != nil {
		return nil, err
	}
	created, err := s.users.RegisterUser(
		ctx,
		r.Body.UserId,
		r.Body.Plan,
		r.Body.TimeZone,
		by(ctx, r.Body.Reason),
	)
	if err != nil {
		return nil, err
	}
	user, err := s.user(ctx, r.Body.UserId)
	if err != nil {
		return nil, err
	}
	if !created {
		return CreateUser200JSONResponse(user), nil
	}
	return CreateUser201JSONResponse{Body: user,
		Headers: CreateUser201ResponseHeaders{Location: "/api/v1/users/" + r.Body.UserId}}, nil
}

// by returns who calls, and why.
func by(ctx context.Context, reason string) metering.By {
	return metering.By{Actor: callerFrom(ctx).user.GetName(), Reason: reason}
}

// why returns who calls, and why if a body says so.
func why(ctx context.Context, body *ActRequest) metering.By {
	if body == nil {
		return by(ctx, "")
	}
	return by(ctx, body.Reason)
}

// GetUser implements GET /api/v1/users/{id}.
func (s *server) GetUser(ctx context.Context, r GetUserRequestObject) (GetUserResponseObject, error) {
	if err := s.mayPathsUser(ctx, r.Id); err != nil {
		return nil, err
	}
	user, err := s.user(ctx, r.Id)
	return GetUser200JSONResponse(user), err
}

// UpdateUser implements PATCH /api/v1/users/{id}.
func (s *server) UpdateUser(ctx context.Context, r UpdateUserRequestObject) (UpdateUserResponseObject, error) {
	if err := s.mayPathsUser(ctx, r.Id); err != nil {
		return nil, err
	}
	b := r.Body
	switch {
	case b.Plan == nil && b.Suspended == nil && b.TimeZone == nil:
		return nil, invalid("the body must have plan, suspended or time_zone")
	case b.Plan != nil && *b.Plan == "":
		return nil, invalid("plan: is empty, it must be the name of a plan on offer")
	}
	change := metering.UserChange{Plan: b.Plan, Suspended: b.Suspended, Zone: b.TimeZone}
	if err := s.users.ChangeUser(ctx, r.Id, change, by(ctx, b.Reason)); err != nil {
		return nil, err
	}
	user, err := s.user(ctx, r.Id)
	return UpdateUser200JSONResponse(user), err
}

// PutUserGrant implements PUT /api/v1/users/{id}/grants/{name}.
func (s *server) PutUserGrant(ctx context.Context, r PutUserGrantRequestObject) (PutUserGrantResponseObject, error) {
	if err := s.mayPathsUser(ctx, r.Id); err != nil {
		return nil, err
	}
	if err := quota.GrantNames.Check(r.Name); err != nil {
		return nil, invalid("name: %v", err)
	}
	if n := int64(r.Body.Credits); n < 1 || n > maxGrant {
		return nil, invalid("credits: %d must be between 1 and %d", n, maxGrant)
	}
	grant := metering.Grant{Credits: quota.WholeCredits(int64(r.Body.Credits)), ExpiresAt: r.Body.ExpiresAt.UTC()}
	given, err := s.users.GrantCredits(ctx, r.Id, r.Name, grant, by(ctx, r.Body.Reason))
	if err != nil {
		return nil, err
	}
	body := Grant{UserId: r.Id, Name: r.Name, Credits: int64(r.Body.Credits),
		ExpiresAt: grant.ExpiresAt.Truncate(time.Microsecond)}
	if !given {
		return PutUserGrant200JSONResponse(body), nil
	}
	return PutUserGrant201JSONResponse(body), nil
}

// maxGrant is the most credits of one grant, as in a UserQuota.
const maxGrant = 10_000_000

func (s *server) user(ctx context.Context, userID string) (User, error) {
	u, err := s.search.User(ctx, userID)
	return encodeUser(&u), err
}

func encodeUser(u *reports.User) User {
	return User{
		UserId: u.UserID, Plan: u.Plan, Suspended: u.Suspended, TimeZone: u.Zone, Team: u.Team, DeclaredBy: u.QuotaName,
		RegisteredAt: u.RegisteredAt,
	}
}
