// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Admission is an admission with what its holder wants to know about it.
type Admission struct {
	quota.Admission
	UserID          string
	Namespace, Name string
	RequestedBy     string
	BodyHash        []byte
	// Position is the 1-based place in the user's queue, and Waiting the queue's length; zero unless Queued. In the
	// answer to an operation Position is zero too where it is neither near the front nor the last.
	Position, Waiting int
	// Stuck says why it seems to have lost its holder; only in what is read, not in the answers to operations.
	Stuck quota.Stuck
}

// QueueOrder compares queued admissions of one account: higher priority first, then who arrived first.
func QueueOrder(x, y *Admission) int {
	return cmp.Or(cmp.Compare(y.Priority, x.Priority), cmp.Compare(x.ArrivedSeq, y.ArrivedSeq))
}

// Usage is a user's standing for reports, rolled to Now.
type Usage struct {
	Account *quota.Account
	Now     time.Time
	// Last is the period that closed last, nil before the first.
	Last *quota.ClosedPeriod
	// QuotaUID is the UserQuota that owns the account's settings, zero without one.
	QuotaUID quota.ID
	// Unreadable says that the account is not known as a whole, and why; nil if it is. Account then tells its ids only.
	Unreadable *UnreadableError
}

// ValidateUserID returns an ErrInvalid unless the id has the grammar of user ids.
func ValidateUserID(id string) error {
	if err := quota.UserIDs.Check(id); err != nil {
		return quota.Invalid("user id", "%v", err)
	}
	return nil
}
