// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// PortalKey is a key pair of Ed25519 that portal tokens are signed with.
type PortalKey struct {
	ID quota.ID
	// Public has 32 bytes; Seed, the private half, likewise, or none where the key only verifies.
	Public, Seed []byte
	// SignsUntil is the end of its use for new tokens. What it has signed is good until that ends.
	SignsUntil time.Time
}

// PortalToken is what the ledger keeps of a portal token: nothing that the token could be made of.
type PortalToken struct {
	ID        quota.PortalTokenID
	Account   quota.AccountID
	Scope     quota.PortalScope
	IssuedAt  time.Time
	ExpiresAt time.Time
}

// PortalState is what tokens are checked with.
type PortalState struct {
	// Keys have no seeds.
	Keys []PortalKey
	// Revoked are the tokens that were, and have not ended.
	Revoked []quota.PortalTokenID
	// Now is the ledger's clock.
	Now time.Time
}
