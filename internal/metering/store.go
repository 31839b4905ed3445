// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Store is the database. Its methods return errors that wrap the errors of this package: ErrUnavailable, ErrNotFound,
// ErrConflict, and the three below.
type Store interface {
	// Begin opens a transaction, locks the accounts in the order of their ids, then reads everything that hangs from them
	// under a fresh snapshot. Unless keys.Wait, accounts that somebody else holds are left out and named by Busy.
	Begin(ctx context.Context, keys Keys) (Batch, error)

	// Register makes the account of a user who has none, on the plan of that name (empty: the default plan), and returns its
	// id; it returns the id of the one that is there otherwise. ErrNotFound if there is no such plan, or it is retired.
	Register(ctx context.Context, userID, plan string) (quota.ID, error)
	// Lookup returns a user's account id, or ErrNotFound.
	Lookup(ctx context.Context, userID string) (quota.ID, error)

	// Admission reads one admission without locks, with its place in the queue.
	Admission(ctx context.Context, id quota.ID) (*Admission, error)
	// MaybeStuck reads, ordered by account and id after the given one, at most limit admitted admissions, among them all that are
	// stuck.
	MaybeStuck(ctx context.Context, after Candidate, limit int) ([]*Admission, error)
	// EndedAdmissions returns those of the admissions that are neither queued nor admitted any more.
	EndedAdmissions(ctx context.Context, ids []quota.ID) ([]quota.ID, error)
	// LiveJobs reads all queued and admitted admissions of Jobs, without queue positions.
	LiveJobs(ctx context.Context) ([]*Admission, error)
	// Event reads one event without locks, or ErrNotFound.
	Event(ctx context.Context, id quota.ID) (*Event, error)
	// Accounts reads standings without locks; users that are not known are missing from the result. Not rolled.
	Accounts(ctx context.Context, userIDs []string) (map[string]Usage, error)
	// Plans reads all plans, retired ones included.
	Plans(ctx context.Context) ([]*Plan, error)

	// ApplyPlan writes a plan's row if it differs, raising its version, with an audit row. ErrConflict if the plan wants to
	// be default and another is.
	ApplyPlan(ctx context.Context, p Plan, actor string) error
	// RetirePlan marks the plan retired if uid still owns it (zero: whoever owns it).
	RetirePlan(ctx context.Context, name string, uid quota.ID, actor string) error
	// PlanStatus counts a plan's users. ErrNotFound if there is no such plan.
	PlanStatus(ctx context.Context, name string) (PlanStatus, error)
	// QuotaOwner returns the account that the UserQuota with this UID owns, or ErrNotFound.
	QuotaOwner(ctx context.Context, uid quota.ID) (quota.ID, error)

	// Grants returns the names of the grants that each of the users has ever had; users without any are missing from the result.
	Grants(ctx context.Context, userIDs []string) (map[string][]string, error)
	// QuotaOwners returns the UIDs of all UserQuotas that own an account.
	QuotaOwners(ctx context.Context) ([]quota.ID, error)

	// Periods reads a standing and, in the same snapshot, at most limit closed periods with numbers below before, the newest
	// first. ErrNotFound if the user is not known.
	Periods(ctx context.Context, userID string, before int64, limit int) (Usage, []StoredPeriod, error)

	// DueAccounts counts the accounts of a plan whose open period ended at or before an instant (zero: the present), and says
	// when the first of these periods ended.
	DueAccounts(ctx context.Context, plan string, until time.Time) (accounts int64, oldest time.Time, err error)
	// Others counts the sessions that are at work in the database at this moment, except those of programs with this one's name.
	Others(ctx context.Context) (int, error)
	// BeginReset writes the row of a run that begins; runs of the plan whose process died are marked Lost. SaveReset writes how
	// far it has come.
	BeginReset(ctx context.Context, run ResetRun) error
	SaveReset(ctx context.Context, run ResetRun) error
	// LastReset reads the run of a plan's reset that started last, nil before the first, and when one last succeeded.
	LastReset(ctx context.Context, plan string) (run *ResetRun, succeeded time.Time, err error)

	// EnsurePartitions makes the partitions of the events and the idempotency keys ahead of time, and drops those of keys that
	// are older than KeyRetention.
	EnsurePartitions(ctx context.Context) error

	// Due looks for accounts, without locks, in pages ordered by id after the given one.
	Due(ctx context.Context, what Due, after quota.ID, limit int) ([]Candidate, error)
	// DuePeriods looks for accounts of a plan whose open period has ended, likewise.
	DuePeriods(ctx context.Context, plan string, after quota.ID, limit int) ([]quota.ID, error)

	// Notify tells other processes that admissions changed; Listen calls back for each of them until ctx ends or the
	// connection is lost.
	Notify(ctx context.Context, changes []Change) error
	Listen(ctx context.Context, each func(Change)) error

	// LeaseKey is the key that lease tokens are signed with, the same for all replicas.
	LeaseKey(ctx context.Context) ([]byte, error)
	// Ping reports whether the database answers.
	Ping(ctx context.Context) error
}

// Keys say what a batch needs to see.
type Keys struct {
	// Accounts to lock and load, each once.
	Accounts []quota.ID
	// Admissions to load besides the queues of the accounts; those of other accounts are ignored.
	Admissions []quota.ID
	// Plans to load besides those of the accounts, by name; an empty name stands for the default plan.
	Plans []string
	// Idempotency are keys to look up, with what they made, in accounts of which the recently closed periods are loaded too.
	Idempotency []AccountKey
	// Events to load, with the lots that paid for them and the closed periods that they are booked in.
	Events []quota.ID
	// Wait for locks instead of leaving busy accounts out.
	Wait bool
}

// AccountKey is an idempotency key in its scope.
type AccountKey struct {
	Account quota.ID
	Key     string
}

// Batch is an open transaction.
type Batch interface {
	// Ledgers are the accounts that were locked, by id. Those in Busy are locked by others; an account in neither does not
	// exist.
	Ledgers() map[quota.ID]*Ledger
	Busy() map[quota.ID]bool
	// Plan returns a plan asked for by Keys.Plans, or nil.
	Plan(name string) *quota.Plan
	// Commit writes what changed in the ledgers, and commits. If the outcome is not known it returns ErrUnknownOutcome: the
	// same calls must then be run again before anybody is answered.
	Commit(ctx context.Context) error
	// Rollback ends the transaction without a trace. After Commit it does nothing.
	Rollback()
}

// Ledger is everything of one account that a batch may read and change. Commit compares it with what was loaded and writes what
// differs.
type Ledger struct {
	Account *quota.Account
	// Now is the one clock that decides: the database's, never before the account's last decision.
	Now time.Time
	// Admissions that were asked for, those of Queue, which is in QueueOrder, and new ones. One in both is the same pointer.
	Admissions map[quota.ID]*Admission
	Queue      []*Admission
	// Made is what the idempotency keys made that were asked for, and Events are those that were asked for.
	Made   map[string]Made
	Events map[quota.ID]*Event
	// Closed are the closed periods that the admissions and events belong to and those of the last weeks where a key was asked
	// for, by number, and those that this batch has closed, which Rolled counts.
	Closed map[int64]*quota.ClosedPeriod
	Rolled int
	// HadLots names every lot that the account ever got, spent and expired ones included. It is loaded only where Keys.Plans
	// asks for plans, that is for changes of settings.
	HadLots map[quota.ID]bool
	// Settings are the columns of the account that a UserQuota declares.
	Settings Settings

	// Booked are the events of this batch, and Audit tells what else it changed. Neither is ever changed once written.
	Booked []Made
	Audit  []AuditRow
}

// QueueOrder compares queued admissions of one account: higher priority first, then who arrived first.
func QueueOrder(x, y *Admission) int {
	return cmp.Or(cmp.Compare(y.Priority, x.Priority), cmp.Compare(x.ArrivedSeq, y.ArrivedSeq))
}

// Made is an event, and where an idempotency key made it what tells two requests with that key apart.
type Made struct {
	*Event

	// BodyHash is nil for the charge of an admission, which has no key.
	BodyHash []byte
}

// Settings are what a UserQuota declares about an account, beyond what quota.Account holds already.
type Settings struct {
	QuotaUID  quota.ID // zero: no object owns the account's settings
	QuotaName string
	ZoneName  string
}

// AuditRow tells a change that is neither an admission nor an event. Before and After are encoded as JSON.
type AuditRow struct {
	Actor, Action, Kind, Name string
	Before, After             any
}

// Due names a reason for an account to be looked at.
type Due string

// The reasons for which Store.Due looks.
const (
	// DueLease: an admission of SourceAPI has outlived its lease.
	DueLease Due = "lease"
	// DueQueue: something is queued and the period has ended, or it is parked for a cost ceiling of an earlier day.
	DueQueue Due = "queue"
	// DueQueued: something is queued.
	DueQueued Due = "queued"
)

// Candidate is an account, and for DueLease an admission of it.
type Candidate struct {
	Account, Admission quota.ID
}

// Change tells that an admission changed by the operation of somebody who does not hold it. The zero value tells that changes may
// have been missed, whatever they were: the database was away, and may be another one now.
type Change struct {
	ID quota.ID
	// Namespace and Name of the Job whose admission it is; empty for others.
	Namespace, Name string
	State           quota.State
}

// The errors by which a Store tells the engine what to do with a batch.
var (
	// ErrData: some call of the batch has data that the database refuses; the others are to be run without it.
	ErrData = errors.New("the database refused the data")
	// ErrRetry: the transaction did not happen and is to be run again (serialization failure, deadlock).
	ErrRetry = errors.New("the transaction is to be run again")
	// ErrUnknownOutcome: the connection was lost while the commit was under way.
	ErrUnknownOutcome = errors.New("the outcome of the transaction is not known")
)
