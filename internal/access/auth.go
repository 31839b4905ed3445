// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
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
	// ErrForbidden says that somebody lacks a right.
	ErrForbidden = errors.New("not allowed")
	// ErrUndecided says that the API server, or the issuer of a token, could not be asked: that is neither a yes nor a
	// no.
	ErrUndecided = errors.New("whoever knows does not answer")
)

// Auth says who sends a request and what they may do to a user's quota.
type Auth struct {
	Authenticator authenticator.Request
	Authorizer    authorizer.Authorizer
	// Audiences that a token must be for, at least one of them.
	Audiences authenticator.Audiences
	// People are those whom issuers outside the cluster name; nil if there are none.
	People *PeopleFile
	// Portal knows the tokens of users' browsers; nil if there are none.
	Portal *Portal
	// Sessions are those of people's browsers; nil if nobody can sign in here.
	Sessions *Sessions
	// Scrapers knows the tokens of whoever reads metrics, which are for the API server itself, as Prometheus has them.
	Scrapers authenticator.Request
}

// NewAuth asks the API server that config leads to, by TokenReview and SubjectAccessReview, and caches what it says. It
// needs the rights of ClusterRole system:auth-delegator.
func NewAuth(config *rest.Config, audiences []string) (*Auth, error) {
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	review := func(audiences []string) (authenticator.Request, error) {
		authn, _, err := authenticatorfactory.DelegatingAuthenticatorConfig{
			TokenAccessReviewClient: clients.AuthenticationV1(), TokenAccessReviewTimeout: reviewTimeout,
			WebhookRetryBackoff: backoff(), CacheTTL: AllowTTL, APIAudiences: audiences,
		}.New()
		if err != nil {
			return nil, fmt.Errorf("authentication by TokenReview: %w", err)
		}
		return authn, nil
	}
	authn, err := review(audiences)
	if err != nil {
		return nil, err
	}
	scrapers, err := review(nil)
	if err != nil {
		return nil, err
	}
	authz, err := NewAuthorizer(clients.AuthorizationV1())
	if err != nil {
		return nil, err
	}
	return &Auth{Authenticator: authn, Authorizer: authz, Audiences: audiences, Scrapers: scrapers}, nil
}

// Who returns the subject of a request's bearer token, a *Person, a *PortalUser or another one. The error is
// ErrUnauthenticated, which says more where somebody else than the API server has made the token, or ErrUndecided.
func (a *Auth) Who(r *http.Request) (user.Info, error) {
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if a.Portal != nil {
		if browser, err := a.Portal.Who(r.Context(), token); err != nil {
			return nil, err
		} else if browser != nil {
			return browser, nil
		}
	}
	if a.People != nil {
		if person, err := a.People.Who(r.Context(), token); err != nil {
			return nil, err
		} else if person != nil {
			return person, nil
		}
	}
	return reviewed(a.Authenticator, r, a.Audiences)
}

// reviewed asks the API server whose token it is, which is for one of the audiences or, without any, for itself.
func reviewed(by authenticator.Request, r *http.Request, audiences authenticator.Audiences) (user.Info, error) {
	ctx := r.Context()
	if len(audiences) > 0 {
		ctx = authenticator.WithAudiences(ctx, audiences)
	}
	// The authenticator takes the token out of the header of what it is given, and a stream's is looked at again.
	alike := r.WithContext(ctx)
	alike.Header = http.Header{"Authorization": r.Header["Authorization"]}
	resp, ok, err := by.AuthenticateRequest(alike)
	switch {
	case err != nil && unreachable(err):
		return nil, fmt.Errorf("%w: %w", ErrUndecided, err)
	case err != nil || !ok || len(audiences) > 0 && len(audiences.Intersect(resp.Audiences)) == 0:
		return nil, ErrUnauthenticated
	}
	return resp.User, nil
}

// MayScrape returns nil if the request's sender has verb get on its path, as RBAC's nonResourceURLs give it. The error
// is ErrUnauthenticated, ErrForbidden or ErrUndecided.
func (a *Auth) MayScrape(r *http.Request) error {
	who, err := reviewed(a.Scrapers, r, nil)
	if err != nil {
		return err
	}
	decision, _, err := a.Authorizer.Authorize(r.Context(),
		authorizer.AttributesRecord{User: who, Verb: VerbGet, Path: r.URL.Path})
	switch {
	case decision == authorizer.DecisionAllow:
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUndecided, err)
	}
	return fmt.Errorf("%w: %s needs verb get on the nonResourceURL %s", ErrForbidden, who.GetName(), r.URL.Path)
}

// Owns reports whether a user's usage is the caller's own, who may then read it without a right.
func Owns(who user.Info, userID string) bool {
	switch who := who.(type) {
	case *Person:
		return who.UserID == userID
	case *PortalUser:
		return who.UserID == userID
	}
	return false
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

// May reports whether who has one of the verbs on what the resource names so, a user's quota or a team, and whether on
// all of them, or ErrUndecided. A service account's rights are those that it has in its own namespace, as for the Jobs
// there. A portal token has none, whatever RBAC says of its name.
func (a *Auth) May(
	ctx context.Context, who user.Info, verbs []string, resource, name string,
) (allowed, onAll bool, err error) {
	if _, browser := who.(*PortalUser); browser {
		return false, false, nil
	}
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
				return allowed, allowed && on == "", err
			}
		}
	}
	return false, false, nil
}

// MayAll reports whether who has one of the verbs on all of a resource, or ErrUndecided. That is no namespace's to
// give: a service account too needs a ClusterRoleBinding.
func (a *Auth) MayAll(ctx context.Context, who user.Info, verbs []string, resource string) (bool, error) {
	if _, browser := who.(*PortalUser); browser {
		return false, nil
	}
	for _, verb := range verbs {
		if allowed, err := allows(ctx, a.Authorizer, who, "", verb, resource, ""); allowed || err != nil {
			return allowed, err
		}
	}
	return false, nil
}
