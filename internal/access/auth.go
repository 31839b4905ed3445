// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const reviewTimeout = 5 * time.Second

var (
	// ErrUnauthenticated says that a bearer token is nobody's, or is for another audience.
	ErrUnauthenticated = errors.New("the bearer token is not valid")
	// ErrUndecided says that the API server could not be asked: that is neither a yes nor a no.
	ErrUndecided = errors.New("the API server does not answer")
)

// Auth says who sends a request and what they may do to a user's quota.
type Auth struct {
	Authenticator authenticator.Request
	Authorizer    authorizer.Authorizer
	// Audiences that a token must be for, at least one of them.
	Audiences authenticator.Audiences
}

// NewAuth asks the API server that config leads to, by TokenReview and SubjectAccessReview, and caches what it says. It
// needs the rights of ClusterRole system:auth-delegator.
func NewAuth(config *rest.Config, audiences []string) (*Auth, error) {
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	authn, _, err := authenticatorfactory.DelegatingAuthenticatorConfig{
		TokenAccessReviewClient: clients.AuthenticationV1(), TokenAccessReviewTimeout: reviewTimeout,
		WebhookRetryBackoff: backoff(), CacheTTL: AllowTTL, APIAudiences: audiences,
	}.New()
	if err != nil {
		return nil, fmt.Errorf("authentication by TokenReview: %w", err)
	}
	authz, err := NewAuthorizer(clients.AuthorizationV1())
	if err != nil {
		return nil, err
	}
	return &Auth{Authenticator: authn, Authorizer: authz, Audiences: audiences}, nil
}

// Who returns the subject of a request's bearer token, ErrUnauthenticated or ErrUndecided.
func (a *Auth) Who(r *http.Request) (user.Info, error) {
	r = r.WithContext(authenticator.WithAudiences(r.Context(), a.Audiences))
	resp, ok, err := a.Authenticator.AuthenticateRequest(r)
	switch {
	case err != nil && unreachable(err):
		return nil, fmt.Errorf("%w: %w", ErrUndecided, err)
	case err != nil || !ok || len(a.Audiences) > 0 && len(a.Audiences.Intersect(resp.Audiences)) == 0:
		return nil, ErrUnauthenticated
	}
	return resp.User, nil
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

// May reports whether who has one of the verbs on what the resource names so, a user's quota or a team, or
// ErrUndecided. A service account's rights are those that it has in its own namespace, as for the Jobs there.
func (a *Auth) May(ctx context.Context, who user.Info, verbs []string, resource, name string) (bool, error) {
	namespace, _, err := serviceaccount.SplitUsername(who.GetName())
	if err != nil {
		namespace = ""
	}
	// The right on all of them is asked first: a backend has it, and its answer is one cache entry instead of one per
	// user.
	for _, on := range []string{"", name} {
		for _, verb := range verbs {
			allowed, err := allows(ctx, a.Authorizer, who, namespace, verb, resource, on)
			if allowed || err != nil {
				return allowed, err
			}
		}
	}
	return false, nil
}

// MayAll reports whether who has the verb on all of a resource, or ErrUndecided. That is no namespace's to give: a
// service account too needs a ClusterRoleBinding.
func (a *Auth) MayAll(ctx context.Context, who user.Info, verb, resource string) (bool, error) {
	return allows(ctx, a.Authorizer, who, "", verb, resource, "")
}
