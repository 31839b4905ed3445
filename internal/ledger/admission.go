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
	// ReleaseReason is why somebody else than its holder released it; empty if nobody did.
	ReleaseReason string
	BodyHash      []byte
	// Cluster that the Job is in; zero for other admissions, and where only one cluster has ever been.
	Cluster quota.ClusterUID
	// Position is the 1-based place in the user's queue, and Waiting the queue's length; zero unless Queued. In the
	// answer to an operation Position is zero too where it is neither near the front nor the last.
	Position, Waiting int
	// Stuck says why it seems to have lost its holder; only in what is read, not in the answers to operations.
	Stuck quota.Stuck
	// PayerTeam is the name of the team that pays for it; empty if the user does, and where it holds nothing yet.
	PayerTeam string
}

// PaidBy says who pays: a team above the user, or the user.
func (a *Admission) PaidBy() quota.Level { return paidBy(a.PayerTeam, a.UserID) }

// QueueOrder compares queued admissions of one account: higher priority first, then who arrived first.
func QueueOrder(x, y *Admission) int {
	return cmp.Or(cmp.Compare(y.Priority, x.Priority), cmp.Compare(x.ArrivedSeq, y.ArrivedSeq))
}

// Usage is a user's standing for reports, rolled to Now.
type Usage struct {
	Account *quota.Account
	// Parent is the account that it hangs below, zero if it is alone, and Above are those above it, rolled likewise.
	Parent quota.AccountID
	Above  quota.Ancestors
	// Retired says that the team right above is retired: it takes nobody else.
	Retired bool
	Now     time.Time
	// Last is the period that closed last, nil before the first.
	Last *quota.ClosedPeriod
	// QuotaUID is the UserQuota that owns the account's settings, zero without one.
	QuotaUID quota.ObjectUID
	// Home is the cluster that declared the settings, zero if none has.
	Home quota.ClusterUID
	// Unreadable says that the account is not known as a whole, and why; nil if it is. Account then tells its ids only.
	Unreadable *UnreadableError
}

// Chain returns the user's account with those above it.
func (u *Usage) Chain() quota.Chain { return quota.Under(u.Account, u.Above) }

// Top returns the account at the top of the tree that the account hangs from: itself, if it is alone.
func (u *Usage) Top() quota.AccountID {
	top := u.Account
	for _, a := range u.Above {
		if a != nil {
			top = a
		}
	}
	return top.ID
}

// MovesAt is when the standing next changes though nothing happens to the account: its period ends, or a lot expires.
func (u *Usage) MovesAt() time.Time {
	at := u.Account.Period.End
	for i := range u.Account.Lots {
		if e := u.Account.Lots[i].ExpiresAt; e.After(u.Now) && e.Before(at) {
			at = e
		}
	}
	return at
}

// Mark is a moment of a database, for asking what has changed since. The zero value is before everything.
type Mark struct {
	Transaction int64
	Server      string
}

// QuotaChanges are the users with a UserQuota of whom something may have changed since a mark.
type QuotaChanges struct {
	// Users are all of them if Everything is true: the mark is none of this database, or too old.
	Users      []string
	Everything bool
	// Owned is how many accounts have a UserQuota.
	Owned int
	// Now is the ledger's clock, and Mark what to ask with the next time.
	Now  time.Time
	Mark Mark
}

// ValidateUserID returns an ErrInvalid unless the id has the grammar of user ids.
func ValidateUserID(id string) error {
	if err := quota.UserIDs.Check(id); err != nil {
		return quota.Invalid("user id", "%v", err)
	}
	return nil
}
