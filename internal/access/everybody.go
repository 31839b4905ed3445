// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"

	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
)

// ActsForAll reports whether who has one of the verbs on all that the resource has, users or teams, or ErrUndecided:
// the first half of what May asks, so its answers are in the same caches.
func (a *Auth) ActsForAll(ctx context.Context, who user.Info, verbs []string, resource string) (bool, error) {
	namespace, _, err := serviceaccount.SplitUsername(who.GetName())
	if err != nil {
		namespace = ""
	}
	for _, verb := range verbs {
		if allowed, err := allows(ctx, a.Authorizer, who, namespace, verb, resource, ""); allowed || err != nil {
			return allowed, err
		}
	}
	return false, nil
}
