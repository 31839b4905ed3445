// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Store is the database, beside the engine's own access to it. Its methods return errors that wrap those of package
// ledger.
type Store interface {
	ledger.Notifier
	Accounts
	Admissions
	Declarations
	Teams
	Upkeep
}

// Accounts finds accounts, reads where their users stand and what of it changes, and keeps who has read what they were
// told.
type Accounts interface {
	Watched

	// Locate returns a user's account id and that of the account at the top of its tree, itself if it is alone; or
	// ErrNotFound.
	Locate(ctx context.Context, userID string) (account, top quota.AccountID, err error)
	// Accounts reads standings without locks; users that are not known are missing from the result, those that cannot
	// be read say so in theirs. Not rolled.
	Accounts(ctx context.Context, userIDs []string) (map[string]ledger.Usage, error)
	// Due looks for accounts, without locks, in pages ordered by id after the given one.
	Due(ctx context.Context, what ledger.Due, after quota.AccountID, limit int) ([]ledger.Candidate, error)
	// Grant reads what was given once under a lot's id, spent or not, or ErrNotFound.
	Grant(ctx context.Context, id quota.LotID) (Grant, error)
	// AcknowledgeAlert notes who has read an alert, unless somebody has done so before.
	AcknowledgeAlert(ctx context.Context, id quota.AlertID, by string) error
}

// Admissions reads admissions, and the events that they ended with, without locks.
type Admissions interface {
	// Admission reads one admission, with its place in the queue.
	Admission(ctx context.Context, id quota.AdmissionID) (*ledger.Admission, error)
	// StuckAdmissions reads at most limit admissions that seem stuck, a user's or for "" everybody's, those that were
	// admitted first first, behind an instant and, of what was admitted then, an id; or ErrNotFound. One that cannot be
	// read says no reason.
	StuckAdmissions(
		ctx context.Context, userID string, admittedAfter time.Time, after quota.AdmissionID, limit int,
	) ([]*ledger.Admission, error)
	// EndedAdmissions returns those of the admissions that are neither queued nor admitted any more.
	EndedAdmissions(ctx context.Context, ids []quota.AdmissionID) ([]quota.AdmissionID, error)
	// Event reads one event, or ErrNotFound.
	Event(ctx context.Context, id quota.EventID) (*ledger.Event, error)
}

// Declarations keeps what objects declare: plans as rows of their own, UserQuotas as the accounts that they own.
type Declarations interface {
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
}

// Teams finds teams and reads where they stand.
type Teams interface {
	// TeamAccount returns the account of a team, or ErrNotFound.
	TeamAccount(ctx context.Context, name string) (quota.AccountID, error)
	// Teams reads standings of teams without locks; those that there are not are missing. Not rolled.
	Teams(ctx context.Context, names []string) (map[string]TeamUsage, error)
	// TeamChanges finds the teams whose standing may have changed since the mark.
	TeamChanges(ctx context.Context, since ledger.Mark) (TeamChanges, error)
}

// Watched finds out what has changed of those who are watched.
type Watched interface {
	// Changes compares accounts with what was known of them.
	Changes(ctx context.Context, known Versions) (VersionChanges, error)
	// TeamStandings is Teams without how many are below each.
	TeamStandings(ctx context.Context, names []string) (map[string]TeamUsage, error)
	// NewAlerts reads what accounts were told lately, the oldest first, and what nobody has acknowledged and still
	// holds.
	NewAlerts(ctx context.Context, accounts []quota.AccountID, since time.Duration) (
		map[quota.AccountID][]ledger.Alert, error)
	// Work counts what runs and what waits.
	Work(ctx context.Context) (Work, error)
}

// Work is how much there is to do, of everybody.
type Work struct{ Running, Queued int64 }

// Upkeep is what the database itself needs, and whether it is there.
type Upkeep interface {
	// EnsurePartitions makes the partitions of the events and the idempotency keys ahead of time, and drops those of
	// keys that are older than KeyRetention.
	EnsurePartitions(ctx context.Context) error
	// Ping reports whether the database answers.
	Ping(ctx context.Context) error
	// AddRefusals adds to what was counted before.
	AddRefusals(ctx context.Context, counted []Refusals) error
}
