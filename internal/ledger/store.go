// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Store is the database as the engine sees it. Its errors wrap those of this package.
type Store interface {
	// Begin opens a transaction, locks the accounts in the order of their ids, then reads everything that hangs from
	// them under a fresh snapshot. Unless keys.Wait, accounts that somebody else holds are left out and named by Busy.
	Begin(ctx context.Context, keys Keys) (Batch, error)
}

// Notifier passes changes between processes.
type Notifier interface {
	// Notify tells other processes that admissions changed.
	Notify(ctx context.Context, changes []Change) error
	// Listen calls back for each change of another process until ctx ends or the connection is lost, and first with the
	// zero Change once it listens.
	Listen(ctx context.Context, each func(Change)) error
}

// Keys say what a batch needs to see.
type Keys struct {
	// Accounts to lock and load, each once.
	Accounts []quota.AccountID
	// Register are users to make accounts for. Those who have one already are left out of the ledgers.
	Register []Registration
	// Most is how many operations any one account has. So many more than QueuePage are loaded of its queue.
	Most int
	// Admissions to load besides the first of the queues of the accounts; those of other accounts are ignored.
	Admissions []quota.AdmissionID
	// Searches are for parked admissions, at most one in each account.
	Searches []Search
	// Walks are through those that wait below teams, at most one through each.
	Walks []Walk
	// Plans to load besides those of the accounts, by name; an empty name stands for the default plan.
	Plans []string
	// Tree has all teams read, and kept by all others as they are until the end. Join are teams to be read that must
	// not be retired meanwhile.
	Tree bool
	Join []string
	// Idempotency are keys to look up, with what they made, in accounts of which the recently closed periods are loaded
	// too.
	Idempotency []AccountKey
	// Events to load, with the lots that paid for them and the closed periods that they are booked in.
	Events []quota.EventID
	// Wait for locks instead of leaving busy accounts out.
	Wait bool
}

// Registration is a user or a team without an account, and the id that it is to have.
type Registration struct {
	Account      quota.AccountID
	UserID, Team string
}

// AccountKey is an idempotency key in its scope.
type AccountKey struct {
	Account quota.AccountID
	Key     string
}

// Batch is an open transaction.
type Batch interface {
	// Ledgers are the accounts that were locked, and those to be made, by id. Those in Busy are locked by others; an
	// account in neither does not exist.
	Ledgers() map[quota.AccountID]*Ledger
	Busy() map[quota.AccountID]bool
	// Plan returns a plan asked for by Keys.Plans, or nil.
	Plan(name string) *quota.Plan
	// Teams returns those asked for by Keys.Tree and Keys.Join that there are.
	Teams() Teams
	// Commit writes what changed in the ledgers with the alerts that follow from it, and commits. If the outcome is not
	// known it returns ErrUnknownOutcome: the same calls must then be run again before anybody is answered.
	Commit(ctx context.Context) error
	// Rollback ends the transaction without a trace. After Commit it does nothing.
	Rollback()
}

// Made is an event, and where an idempotency key made it what tells two requests with that key apart.
type Made struct {
	*Event

	// BodyHash is nil for the charge of an admission, which has no key.
	BodyHash []byte
}

// Settings are what a UserQuota declares about an account, beyond what quota.Account holds already.
type Settings struct {
	QuotaUID  quota.ObjectUID // zero: no object owns the account's settings
	QuotaName string
	ZoneName  string
	// Home is the cluster that declared them, or has adopted them; zero if no object does.
	Home quota.ClusterUID
	// MemberOf is the team that a user is in or, of a team, its parent, as it was declared; zero if none was.
	// MemberDeclared says that the user's UserQuota names it.
	MemberOf       quota.AccountID
	MemberDeclared bool
}

// TeamSettings are what a UsageTeam declares about a team beyond what quota.Account and Settings hold.
type TeamSettings struct {
	ObjectUID quota.ObjectUID
	// Home is the cluster that declared it, or has adopted it; zero for the first one.
	Home          quota.ClusterUID
	DisplayName   string
	Root, Retired bool
	// Currency of the team's own amounts as long as it has no plan.
	Currency string
}

// Teams are teams by name.
type Teams map[string]TeamNode

// TeamNode is a team as the others see it.
type TeamNode struct {
	ID quota.AccountID
	// MemberOf is the parent that it names; zero if it names none.
	MemberOf      quota.AccountID
	Root, Retired bool
	// Home is the cluster whose it is, the first one where none is named; zero before any has registered.
	Home quota.ClusterUID
}

// Change tells that an admission changed by the operation of somebody who does not hold it. The zero value tells that
// changes may have been missed, whatever they were: the database was away, and may be another one now.
type Change struct {
	ID quota.AdmissionID
	// Namespace and Name of the Job whose admission it is; empty for others.
	Namespace, Name string
	// Cluster that the Job is in; zero where that is not known.
	Cluster quota.ClusterUID
	State   quota.State
}
