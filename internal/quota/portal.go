// SPDX-License-Identifier: Apache-2.0

package quota

import "time"

// PortalScope says what a portal token is good for, besides reading what is its user's.
type PortalScope string

// The scopes of portal tokens.
const (
	// PortalRead is for nothing besides.
	PortalRead PortalScope = "read"
	// PortalCheck is for asking what would be allowed as well.
	PortalCheck PortalScope = "check"
)

// The life of a portal token.
const (
	MinPortalTTL     = 10 * time.Second
	DefaultPortalTTL = 15 * time.Minute
	MaxPortalTTL     = time.Hour
)

// PortalKeyLife is how long portal tokens are signed with one key. The next is made PortalKeyAhead before its end.
const (
	PortalKeyLife  = 7 * 24 * time.Hour
	PortalKeyAhead = 24 * time.Hour
)

// CheckPortal says which of what a portal token is asked for is out of its bounds.
func CheckPortal(scope PortalScope, ttl time.Duration) error {
	switch {
	case scope != PortalRead && scope != PortalCheck:
		return Invalid("scope", "%q must be %q or %q", scope, PortalRead, PortalCheck)
	case ttl < MinPortalTTL || ttl > MaxPortalTTL:
		return Invalid("ttl", "%s must be between %s and %s", ttl, MinPortalTTL, MaxPortalTTL)
	}
	return nil
}
