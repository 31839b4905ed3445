// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// caller is who sent a request: somebody with a token, or whoever holds a lease or an offline ticket. The operation
// says what the caller needs, and the answer what its limits have left.
type caller struct {
	user          user.Info
	lease, ticket string
	operation     *operation
	rates         *rates
	// request is what it sent, for answers that go on and find out once more who it is; nil for others.
	request *http.Request
}

type callerKey struct{}

func callerFrom(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// identify finds out who calls. A lease or a ticket is only taken note of: it is for one admission, which the handler
// knows. A session's cookie is looked at where there is no header Authorization, and a request that is one again, for
// an answer that goes on, does not put off the session's end.
func (s *server) identify(r *http.Request, again bool) (caller, error) {
	if strings.Contains(r.URL.RawQuery, "access_token") && r.URL.Query().Has("access_token") {
		return caller{}, problem(http.StatusBadRequest, "malformed-request",
			"access_token: a token in a URL ends up in logs and histories, and is not read: send it in the header "+
				"Authorization, and make another one in place of this")
	}
	authorization := r.Header.Get("Authorization")
	scheme, token, _ := strings.Cut(authorization, " ")
	token = strings.TrimSpace(token)
	switch {
	case authorization == "" && s.auth.Sessions.Has(r):
		return s.inSession(r, !again)
	case strings.EqualFold(scheme, "Lease") && token != "":
		return caller{lease: token}, nil
	case strings.EqualFold(scheme, "Ticket") && token != "":
		return caller{ticket: token}, nil
	case !strings.EqualFold(scheme, "Bearer") || token == "":
		return caller{}, unauthorized(
			"the header Authorization must carry a bearer token, or the lease or ticket of the admission")
	}
	who, err := s.auth.Who(r)
	switch {
	case errors.Is(err, access.ErrUndecided):
		return caller{}, fmt.Errorf("%w: %w", unavailable(retrySoon, "the token cannot be checked at the moment"), err)
	case err == access.ErrUnauthenticated: //nolint:errorlint // alone, it says no more
		return caller{}, unauthorized("the bearer token is not valid for audience %s",
			strings.Join(s.auth.Audiences, ", "))
	case err != nil:
		return caller{}, unauthorized("%v", err)
	}
	return caller{user: who}, nil
}

// inSession finds out whose session a request is of.
func (s *server) inSession(r *http.Request, use bool) (caller, error) {
	who, _, err := s.auth.Sessions.Who(r, use)
	switch {
	case errors.Is(err, access.ErrUndecided):
		return caller{}, fmt.Errorf("%w: %w", unavailable(retrySoon, "the session cannot be checked at the moment"),
			err)
	case errors.Is(err, access.ErrCrossOrigin):
		return caller{}, forbidden("%v: a session is good for the pages of this service only; a page of another "+
			"origin needs a token, in the header Authorization", err)
	case err != nil:
		return caller{}, unauthorized("%v: sign in again at /auth/login", err)
	}
	return caller{user: who}, nil
}

// mayScrape stands before the metrics.
func (s *server) mayScrape(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := s.auth.MayScrape(r)
		switch {
		case errors.Is(err, access.ErrUndecided):
			err = fmt.Errorf("%w: %w", unavailable(retrySoon, "the right to get %s cannot be checked", r.URL.Path), err)
		case errors.Is(err, access.ErrForbidden):
			err = forbidden("%v", err)
		case err != nil:
			err = unauthorized("the header Authorization must carry a bearer token for the API server")
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// mayOn says whether the caller has one of the rights on what the resource names so.
func (s *server) mayOn(ctx context.Context, verbs []string, resource, name string) error {
	_, err := s.rightOn(ctx, verbs, resource, name)
	return err
}

// rightOn is mayOn, and reports whether the right is one on all of the resource.
func (s *server) rightOn(ctx context.Context, verbs []string, resource, name string) (onAll bool, err error) {
	c, either := callerFrom(ctx), strings.Join(verbs, " or ")
	allowed, onAll, err := s.auth.May(ctx, c.user, verbs, resource, name)
	switch {
	case err != nil:
		return false, fmt.Errorf("%w: %w",
			unavailable(retrySoon, "the right to %s cannot be checked at the moment", either), err)
	case !allowed:
		return false, forbidden("%s may not %s for %s %q: that needs verb %s on resource %s.%s with that name",
			c.user.GetName(), either, strings.TrimSuffix(resource, "s"), name, either, resource, access.Group)
	}
	return onAll, nil
}

// mayAll says whether the caller has one of the operation's rights on all of a resource.
func (s *server) mayAll(ctx context.Context, resource string) error {
	c := callerFrom(ctx)
	either := strings.Join(c.operation.verbs, " or ")
	allowed, err := s.auth.MayAll(ctx, c.user, c.operation.verbs, resource)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w",
			unavailable(retrySoon, "the right to %s cannot be checked at the moment", either), err)
	case !allowed:
		return forbidden("%s may not %s the %s: that needs verb %s on resource %s.%s in all namespaces",
			c.user.GetName(), either, resource, either, resource, access.Group)
	}
	return nil
}

// mayUser says whether the id can be a user's and the caller has the operation's right on it.
func (s *server) mayUser(ctx context.Context, userID string) error {
	if err := checkUserID(userID); err != nil {
		return err
	}
	return s.may(ctx, userID)
}

// holder returns the account of an admission that the caller holds: by its lease, or by the operation's right on its
// user.
func (s *server) holder(ctx context.Context, id uuid.UUID) (account quota.AccountID, err error) {
	if lease := callerFrom(ctx).lease; lease != "" {
		account, ok, err := s.leases.VerifyLease(ctx, lease, quota.AdmissionID(id))
		if err == nil && !ok {
			err = forbidden("the lease is not that of admission %s", id)
		}
		return account, err
	}
	adm, err := s.admissions.Get(ctx, quota.AdmissionID(id))
	if err != nil {
		return quota.AccountID{}, err
	}
	return adm.Account, s.may(ctx, adm.UserID)
}
