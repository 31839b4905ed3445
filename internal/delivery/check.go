// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Bounds of what an endpoint says.
const (
	MaxURL       = 2048
	MaxSelectors = 100
	MaxCIDRs     = 32
	// MaxTeamEndpoints is how many a team may have of its own.
	MaxTeamEndpoints = 20
)

// Kinds are those of alerts that an endpoint can ask for.
var Kinds = []quota.AlertKind{quota.AlertCreditsPercent, quota.AlertTeamShare, quota.AlertDailyCost,
	quota.AlertOverdrawn, quota.AlertExhaustion, quota.AlertGrantExpiring, quota.AlertPeriodReset}

// Check says what of an endpoint is no good, by the field's name. That its URL leads nowhere forbidden is found out at
// each attempt; here it is refused if it says so itself.
func (e *Endpoint) Check() error {
	if err := quota.TeamNames.Check(e.Name); err != nil {
		return quota.Invalid("name", "%v", err)
	}
	if len(e.AllowedCIDRs) > MaxCIDRs {
		return quota.Invalid("allowedCIDRs", "%d entries: must be at most %d", len(e.AllowedCIDRs), MaxCIDRs)
	}
	if _, err := parseURL(e.URL, e.AllowedCIDRs); err != nil {
		return err
	}
	if e.Signing != Ed25519 && e.Signing != HMAC {
		return quota.Invalid("signing", "%.20q must be %s or %s", string(e.Signing), Ed25519, HMAC)
	}
	if e.Audience != ForOperators && e.Audience != ForUsers {
		return quota.Invalid("audience", "%.20q must be %s or %s", string(e.Audience), ForOperators, ForUsers)
	}
	for _, kind := range e.Kinds {
		if !slices.Contains(Kinds, kind) {
			return quota.Invalid("kinds", "%.40q must be one of %s", string(kind), join(Kinds))
		}
	}
	for _, list := range []struct {
		field   string
		values  []string
		grammar *quota.Grammar
	}{
		{"plans", e.Plans, quota.PlanNames}, {"teams", e.Teams, quota.TeamNames}, {"users", e.Users, quota.UserIDs},
	} {
		if len(list.values) > MaxSelectors {
			return quota.Invalid(list.field, "%d entries: must be at most %d", len(list.values), MaxSelectors)
		}
		for _, value := range list.values {
			if err := list.grammar.Check(value); err != nil {
				return quota.Invalid(list.field, "%v", err)
			}
		}
	}
	return nil
}

func join(kinds []quota.AlertKind) string {
	all := make([]string, len(kinds))
	for i, kind := range kinds {
		all[i] = string(kind)
	}
	return strings.Join(all, ", ")
}

// ParseCIDR reads an entry of AllowedCIDRs.
func ParseCIDR(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() || p != p.Masked() {
		return netip.Prefix{}, quota.Invalid("allowedCIDRs",
			"%.60q must be a network with no bits set behind its prefix, for example 10.20.0.0/16 or fd00:1::/32", text)
	}
	return p, nil
}

// parseURL reads where an endpoint's deliveries go.
func parseURL(text string, allowed []netip.Prefix) (*url.URL, error) {
	if len(text) > MaxURL {
		return nil, quota.Invalid("url", "has %d bytes: must have at most %d", len(text), MaxURL)
	}
	for _, r := range text {
		if r <= ' ' || r > '~' {
			return nil, quota.Invalid("url", "%.100q must be printable ASCII without spaces: encode the rest as %%XX",
				text)
		}
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, quota.Invalid("url", "%.100q must be a URL such as https://hooks.example/usage", text)
	case u.User != nil:
		return nil, quota.Invalid("url", "must not have a user or a password in it: deliveries are signed")
	case u.Fragment != "" || strings.Contains(text, "#"):
		return nil, quota.Invalid("url", "%.100q must not have a fragment", text)
	case u.Scheme == "http" && len(allowed) == 0:
		return nil, quota.Invalid("url", "%.100q must be https: without TLS only allowedCIDRs can be called", text)
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, quota.Invalid("url", "port %.10q must be between 1 and 65535", port)
		}
	}
	host := u.Hostname()
	if address, err := netip.ParseAddr(host); err == nil {
		if err := judge(address, u.Scheme, allowed); err != nil {
			return nil, quota.Invalid("url", "%v", err)
		}
		return u, nil
	}
	if !isName(host) {
		return nil, quota.Invalid("url", "host %.100q must be a name or an address", host)
	}
	if name := strings.TrimSuffix(strings.ToLower(host), "."); len(allowed) == 0 &&
		(name == "localhost" || strings.HasSuffix(name, ".localhost")) {
		return nil, quota.Invalid("url", "host %s is this machine: it would have to be in allowedCIDRs", host)
	}
	return u, nil
}

// isName reports whether a host is a name in DNS that is no number in disguise: resolvers take 127.1 and 0x7f000001
// for addresses.
func isName(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 {
		return false
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, "-") != label ||
			strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	last := labels[len(labels)-1]
	return last[0] < '0' || last[0] > '9'
}
