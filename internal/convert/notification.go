// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Endpoint returns what a NotificationEndpoint declares. Errors name the field, its value and what would do.
func Endpoint(n *v1alpha1.NotificationEndpoint) (delivery.Endpoint, error) {
	spec := &n.Spec
	e := delivery.Endpoint{
		Name: n.Name, URL: spec.URL, Signing: delivery.Ed25519, Suspended: spec.Suspended,
		Audience: delivery.ForOperators,
	}
	for _, kind := range spec.Kinds {
		e.Kinds = append(e.Kinds, quota.AlertKind(kind))
	}
	if spec.Audience != "" {
		e.Audience = delivery.Audience(spec.Audience)
	}
	if s := spec.Selector; s != nil {
		e.Plans, e.Teams, e.Users = s.Plans, s.Teams, s.Users
	}
	if s := spec.Signing; s != nil && s.Method != "" {
		e.Signing = delivery.Signing(s.Method)
	}
	for _, text := range spec.AllowedCIDRs {
		prefix, err := delivery.ParseCIDR(text)
		if err != nil {
			return delivery.Endpoint{}, err
		}
		e.AllowedCIDRs = append(e.AllowedCIDRs, prefix)
	}
	return e, e.Check()
}

// SigningKeys returns the keys that the entries of a Secret are.
func SigningKeys(data map[string][]byte, signing delivery.Signing) ([]delivery.Key, error) {
	if len(data) == 0 || len(data) > delivery.MaxKeys {
		return nil, fmt.Errorf("the Secret has %d entries, each of which is a key: it must have 1 to %d", len(data),
			delivery.MaxKeys)
	}
	var keys []delivery.Key
	var all error
	for _, name := range slices.Sorted(maps.Keys(data)) {
		key, err := delivery.ParseKey(name, string(data[name]), signing)
		keys, all = append(keys, key), errors.Join(all, err)
	}
	return keys, all
}
