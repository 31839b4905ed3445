// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// The verbs on a user's quota.
const (
	verbSpend  = access.VerbSpend
	verbGet    = "get"
	verbAdjust = "adjust"
)

const reviewTimeout = 5 * time.Second

// Auth says who calls and what they may do.
type Auth struct {
	Authenticator authenticator.Request
	Authorizer    authorizer.Authorizer
	// Audiences that a token must be for, at least one of them.
	Audiences authenticator.Audiences
}

// NewKubernetesAuth asks the API server that config leads to, by TokenReview and SubjectAccessReview, and caches what
// it says. It needs the rights of ClusterRole system:auth-delegator.
func NewKubernetesAuth(config *rest.Config, audiences []string) (*Auth, error) {
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	authn, _, err := authenticatorfactory.DelegatingAuthenticatorConfig{
		TokenAccessReviewClient: clients.AuthenticationV1(), TokenAccessReviewTimeout: reviewTimeout,
		WebhookRetryBackoff: access.Backoff(), CacheTTL: access.AllowTTL, APIAudiences: audiences,
	}.New()
	if err != nil {
		return nil, fmt.Errorf("authentication by TokenReview: %w", err)
	}
	authz, err := access.NewAuthorizer(clients.AuthorizationV1())
	if err != nil {
		return nil, err
	}
	return &Auth{Authenticator: authn, Authorizer: authz, Audiences: audiences}, nil
}

// caller is who sent a request: somebody with a token, or whoever holds a lease or an offline ticket. The operation
// says what the caller needs.
type caller struct {
	user          user.Info
	lease, ticket string
	operation     *operation
}

type callerKey struct{}

func callerFrom(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// identify finds out who calls. A lease or a ticket is only taken note of: it is for one admission, which the handler
// knows.
func (a *Auth) identify(r *http.Request) (caller, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	switch {
	case strings.EqualFold(scheme, "Lease") && token != "":
		return caller{lease: token}, nil
	case strings.EqualFold(scheme, "Ticket") && token != "":
		return caller{ticket: token}, nil
	case !strings.EqualFold(scheme, "Bearer") || token == "":
		return caller{}, unauthorized(
			"the header Authorization must carry a bearer token, or the lease or ticket of the admission")
	}
	r = r.WithContext(authenticator.WithAudiences(r.Context(), a.Audiences))
	resp, ok, err := a.Authenticator.AuthenticateRequest(r)
	switch {
	case err != nil && unreachable(err):
		return caller{}, fmt.Errorf("%w: %w", unavailable(retrySoon, "the token cannot be checked at the moment"), err)
	case err != nil || !ok || !acceptable(a.Audiences, resp.Audiences):
		return caller{}, unauthorized("the bearer token is not valid for audience %s", strings.Join(a.Audiences, ", "))
	}
	return caller{user: resp.User}, nil
}

func acceptable(want, got authenticator.Audiences) bool {
	return len(want) == 0 || len(want.Intersect(got)) > 0
}

// unreachable tells a reviewer that did not answer from one that refused.
func unreachable(err error) bool {
	if all, ok := errors.AsType[utilerrors.Aggregate](err); ok {
		return slices.ContainsFunc(all.Errors(), unreachable)
	}
	_, network := errors.AsType[*url.Error](err)
	_, status := errors.AsType[*apierrors.StatusError](err)
	return network || status || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// may says whether the caller has one of the rights on the user that the operation asks for. A service account's rights
// are those that it has in its own namespace, as for the Jobs there.
func (a *Auth) may(ctx context.Context, userID string) error {
	c := callerFrom(ctx)
	verbs := c.operation.verbs
	namespace, _, err := serviceaccount.SplitUsername(c.user.GetName())
	if err != nil {
		namespace = ""
	}
	// The right on all users is asked first: a backend has it, and its answer is one cache entry instead of one per
	// user.
	for _, name := range []string{"", userID} {
		for _, verb := range verbs {
			decision, _, err := a.Authorizer.Authorize(ctx, authorizer.AttributesRecord{
				User: c.user, Verb: verb, Namespace: namespace, APIGroup: access.Group, APIVersion: "*",
				Resource: access.Resource, Name: name,
				ResourceRequest: true,
			})
			if decision == authorizer.DecisionAllow {
				return nil
			}
			if err != nil {
				return fmt.Errorf("%w: %w", unavailable(retrySoon, "the right to %s cannot be checked at the moment",
					verb), err)
			}
		}
	}
	return forbidden("%s may not %s for user %q: that needs verb %s on resource users.%s with that name",
		c.user.GetName(), verbs[0], userID, strings.Join(verbs, " or "), access.Group)
}

// holder returns the account of an admission that the caller holds: by its lease, or by the operation's right on its
// user.
func (s *server) holder(ctx context.Context, id uuid.UUID) (account quota.ID, err error) {
	if lease := callerFrom(ctx).lease; lease != "" {
		account, ok, err := s.leases.VerifyLease(ctx, lease, quota.ID(id))
		if err == nil && !ok {
			err = forbidden("the lease is not that of admission %s", id)
		}
		return account, err
	}
	adm, err := s.service.Get(ctx, quota.ID(id))
	if err != nil {
		return quota.ID{}, err
	}
	return adm.Account, s.auth.may(ctx, adm.UserID)
}
