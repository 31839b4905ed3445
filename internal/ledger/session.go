// SPDX-License-Identifier: Apache-2.0

package ledger

import "time"

// Session is a person who has signed in with a browser: who it is, as the token said that they have signed in with, and
// until when that is believed. Nothing of the token is kept.
type Session struct {
	// Hash is the SHA-256 of the session's id, 32 bytes. The id itself is in the browser's cookie only.
	Hash []byte
	// Issuer is whose token it was; Username, UID, Groups and Extra are whom RBAC knows, and UserID is whose usage is
	// theirs.
	Issuer, Username, UID string
	Groups                []string
	Extra                 map[string][]string
	UserID                string
	// BeganAt, SeenAt, IdleEndsAt and EndsAt are by the ledger's clock. The session is over at IdleEndsAt, which use
	// puts off, to EndsAt at most.
	BeganAt, SeenAt, IdleEndsAt, EndsAt time.Time
}
