// SPDX-License-Identifier: Apache-2.0

// Package access says who calls and what they may do to a user's quota, by asking the API server whose RBAC it is.
package access

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
)

// The virtual resources that RBAC grants rights on. The names of Resource are user ids, those of ResourceTeams teams',
// ResourceQueue is all that waits, whosever it is, ResourceAudit the audit log, ResourceDeliveries all that is sent and
// ResourceSystem what the service itself does: these have no names. The names of ResourceKeys are ids of endpoints.
const (
	Group         = "usage.cantonesescribe.io"
	Resource      = "users"
	ResourceTeams = "teams"
	ResourceQueue = "queue"

	ResourceAudit      = "audit"
	ResourceDeliveries = "deliveries"
	ResourceKeys       = "notificationkeys"
	ResourceSystem     = "system"
)

// The verbs on a user's quota: VerbSpend, VerbGet, VerbAdjust, VerbGrant, and VerbAdmin, which is for the account
// itself; on a team: VerbGet, and VerbManage, which is for its members and lets read it too; VerbList on what is
// everybody's, and VerbAdmin to act on it. VerbAnalytics on all users reads their sums together.
const (
	VerbSpend  = "spend"
	VerbGet    = "get"
	VerbAdjust = "adjust"
	VerbGrant  = "grant"
	VerbAdmin  = "admin"
	VerbManage = "manage"
	VerbList   = "list"

	VerbAnalytics = "analytics"
)

// Caches of the API server's answers. A right that is given works at once or within DenyTTL, one that is withdrawn
// stops working within AllowTTL. The authorizer keeps the last 8192 answers and no answer to a question that failed.
const (
	AllowTTL = 30 * time.Second
	DenyTTL  = 5 * time.Second
)

// backoff is how a question is asked again while the API server does not answer.
func backoff() *wait.Backoff {
	return &wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 3}
}

// NewAuthorizer asks by SubjectAccessReview, and caches what it is told. It needs the rights of ClusterRole
// system:auth-delegator.
func NewAuthorizer(reviews authorizationclient.AuthorizationV1Interface) (authorizer.Authorizer, error) {
	authz, err := authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: reviews, AllowCacheTTL: AllowTTL, DenyCacheTTL: DenyTTL,
		WebhookRetryBackoff: backoff(),
	}.New()
	if err != nil {
		return nil, fmt.Errorf("authorization by SubjectAccessReview: %w", err)
	}
	return authz, nil
}

// Spending says which service accounts may spend whose quota, as the admission policies say it for the same Jobs.
type Spending struct {
	Authorizer authorizer.Authorizer
}

// MaySpend reports whether a service account may spend the user's quota by what it runs in its namespace. An error
// means that nobody knows: it is no permission.
func (s Spending) MaySpend(ctx context.Context, namespace, account, userID string) (bool, error) {
	who := serviceaccount.UserInfo(namespace, account, "")
	allowed, err := allows(ctx, s.Authorizer, who, namespace, VerbSpend, Resource, userID)
	if err != nil {
		return false, fmt.Errorf("ask whether service account %s/%s may spend the quota of user %q: %w", namespace,
			account, userID, err)
	}
	return allowed, nil
}

// allows asks one question. An error that comes with a yes is another authorizer's of a union.
func allows(
	ctx context.Context, authz authorizer.Authorizer, who user.Info, namespace, verb, resource, name string,
) (bool, error) {
	decision, _, err := authz.Authorize(ctx, authorizer.AttributesRecord{
		User: who, Verb: verb, Namespace: namespace, APIGroup: Group, APIVersion: "*", Resource: resource, Name: name,
		ResourceRequest: true,
	})
	if decision == authorizer.DecisionAllow {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w: verb %s: %w", ErrUndecided, verb, err)
	}
	return false, nil
}
