// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Store is the database. Its methods return errors that wrap those of package ledger.
type Store interface {
	ledger.Notifier

	// Lookup returns a user's account id, or ErrNotFound.
	Lookup(ctx context.Context, userID string) (quota.AccountID, error)

	// Admission reads one admission without locks, with its place in the queue.
	Admission(ctx context.Context, id quota.AdmissionID) (*ledger.Admission, error)
	// MaybeStuck reads, ordered by account and id after the given one, at most limit admitted admissions, among them
	// all that are stuck.
	MaybeStuck(ctx context.Context, after ledger.Candidate, limit int) ([]*ledger.Admission, error)
	// EndedAdmissions returns those of the admissions that are neither queued nor admitted any more.
	EndedAdmissions(ctx context.Context, ids []quota.AdmissionID) ([]quota.AdmissionID, error)
	// LiveJobs reads all queued and admitted admissions of a cluster's Jobs, without queue positions. Those that cannot
	// be read are missing.
	LiveJobs(ctx context.Context, cluster quota.ClusterUID) ([]*ledger.Admission, error)
	// RunningJobs reads the admitted admissions of a cluster's Jobs, likewise.
	RunningJobs(ctx context.Context, cluster quota.ClusterUID) ([]*ledger.Admission, error)
	// Waiting reads at most limit queued admissions of any source behind the place, without queue positions. Of those
	// that cannot be read it tells their ids and their place.
	Waiting(ctx context.Context, after ledger.Turn, limit int) ([]*ledger.Admission, error)
	// QuotaChanges finds the users with a UserQuota whose standing may have changed since the mark.
	QuotaChanges(ctx context.Context, since ledger.Mark) (ledger.QuotaChanges, error)
	// Event reads one event without locks, or ErrNotFound.
	Event(ctx context.Context, id quota.EventID) (*ledger.Event, error)
	// Accounts reads standings without locks; users that are not known are missing from the result, those that cannot
	// be read say so in theirs. Not rolled.
	Accounts(ctx context.Context, userIDs []string) (map[string]ledger.Usage, error)
	// Plans reads all plans, retired ones included.
	Plans(ctx context.Context) ([]*Plan, error)

	// ApplyPlan writes a plan's row if it differs, raising its version, with an audit row. ErrConflict if the plan
	// wants to be default and another is, and an OwnedError if it is another cluster's.
	ApplyPlan(ctx context.Context, p Plan, actor string) error
	// RetirePlan marks the plan retired if it is that cluster's.
	RetirePlan(ctx context.Context, name string, cluster quota.ClusterUID, actor string) error
	// PlanStatus counts a plan's users. ErrNotFound if there is no such plan.
	PlanStatus(ctx context.Context, name string) (PlanStatus, error)
	// QuotaOwner returns the account that the UserQuota with this UID owns, or ErrNotFound.
	QuotaOwner(ctx context.Context, uid quota.ObjectUID) (quota.AccountID, error)

	// Grants returns the names of the grants that each of the users has ever had; users without any are missing from
	// the result.
	Grants(ctx context.Context, userIDs []string) (map[string][]string, error)
	// QuotaOwners returns the UIDs of the UserQuotas of a cluster that own an account.
	QuotaOwners(ctx context.Context, cluster quota.ClusterUID) ([]quota.ObjectUID, error)

	// EnsurePartitions makes the partitions of the events and the idempotency keys ahead of time, and drops those of
	// keys that are older than KeyRetention.
	EnsurePartitions(ctx context.Context) error

	// Due looks for accounts, without locks, in pages ordered by id after the given one.
	Due(ctx context.Context, what ledger.Due, after quota.AccountID, limit int) ([]ledger.Candidate, error)

	// Ping reports whether the database answers.
	Ping(ctx context.Context) error
}
