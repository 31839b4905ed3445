// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"strings"
	"testing"
)

const endpoint = `
apiVersion: usage.cantonesescribe.io/v1alpha1
kind: NotificationEndpoint
metadata: {generateName: endpoint-}
spec: {url: "https://hooks.example/usage"}`

func TestNotificationEndpointValidation(t *testing.T) {
	t.Parallel()
	const noParts = "without user, password and fragment"
	testValidation(t, endpoint, map[string]validationCase{
		"as it is": {},
		"all of it": {patch: `spec: {url: "http://10.1.2.3:8080/x?y=z", kinds: [Overdrawn],
  allowedCIDRs: [10.0.0.0/8, "fd00::/8"], selector: {plans: [pro], teams: [newsroom], users: [alice]},
  signing: {method: hmac, secretRef: {name: keys}}}`},
		"no url":   {"spec: {url: null}", []string{"spec.url: Required"}},
		"long url": {"spec: {url: https://" + strings.Repeat("x", 2048) + "}", []string{"spec.url: Too long"}},
		"no TLS": {`spec: {url: "http://hooks.example/"}`,
			[]string{"url is http://hooks.example/: it must be https"}},
		"another scheme": {`spec: {url: "ftp://hooks.example/"}`, []string{"url must be http or https with a host"}},
		"a password":     {`spec: {url: "https://a:b@hooks.example/"}`, []string{noParts}},
		"a fragment":     {`spec: {url: "https://hooks.example/#a"}`, []string{noParts}},
		"no such kind":   {"spec: {kinds: [Boom]}", []string{"spec.kinds", "Unsupported value", "CreditsPercent"}},
		"no kinds":       {"spec: {kinds: []}", []string{"spec.kinds", "at least 1 items"}},
		"a plan's name":  {"spec: {selector: {plans: [P]}}", []string{"each must be the name of a UsagePlan"}},
		"a team's name":  {"spec: {selector: {teams: [News]}}", []string{"each must be the name of a UsageTeam"}},
		"a user's id":    {`spec: {selector: {users: ["a b"]}}`, []string{"each must be a user id"}},
		"no network":     {"spec: {allowedCIDRs: [10.0.0.1/8]}", []string{"each must be a network with no bits set"}},
		"no CIDR":        {"spec: {allowedCIDRs: [here]}", []string{"each must be a network with no bits set"}},
		"hmac without a secret": {"spec: {signing: {method: hmac}}",
			[]string{"spec.signing.secretRef", "secretRef is missing"}},
		"another method": {"spec: {signing: {method: rsa}}", []string{"spec.signing.method", "ed25519"}},
		"name too long": {"metadata: {generateName: null, name: " + long(64) + "}",
			[]string{"metadata.name must have at most 63 characters"}},
	})
}
