// SPDX-License-Identifier: Apache-2.0

// Package metering holds the use cases of the product: check, admit, heartbeat, settle, release, reset, and the changes of
// plans and quotas. Everything that changes an account, whoever asks, goes through one Engine; the database behind it is a
// Store. It knows neither HTTP nor Kubernetes.
package metering

import (
	"errors"
	"fmt"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// The errors of this package, to be tested with errors.Is. Refusals by a limit are not errors but decisions.
var (
	// ErrNotFound says that there is no such admission, user or plan.
	ErrNotFound = errors.New("not found")
	// ErrOverloaded says that too many calls wait already; the same call may succeed a little later.
	ErrOverloaded = errors.New("too many calls are waiting, try again in a second")
	// ErrUnavailable says that the database cannot be reached; the same call may succeed later.
	ErrUnavailable = errors.New("the database cannot be reached")
	// ErrServer comes with ErrUnavailable where the database was reached and answered that it cannot do its work.
	ErrServer = errors.New("the database server cannot do its work")
	// ErrKeyReused says that an idempotency key was used before with another body.
	ErrKeyReused = errors.New("the idempotency key was used before with a different request")
	// ErrInvalid says that the request itself is wrong; the text names the field, the value and the limit.
	ErrInvalid = errors.New("invalid request")
	// ErrTicketExpired says that an offline ticket was not completed in time; nothing was charged.
	ErrTicketExpired = errors.New("the offline ticket has expired")
	// ErrConflict says that an object's claim collides with an older one; the text names both.
	ErrConflict = errors.New("conflict")
)

// SchemaError says that the database's schema is older than this release, or not there at all: version 0. It is an
// ErrUnavailable: the same call succeeds once the schema has been migrated. A newer schema is no error.
type SchemaError struct{ Has, Needs int64 }

func (e *SchemaError) Error() string {
	return fmt.Sprintf("the database has schema version %d, this needs %d", e.Has, e.Needs)
}

// Is makes errors.Is(err, ErrUnavailable) true.
func (e *SchemaError) Is(target error) bool { return target == ErrUnavailable }

// GCPercent is what a process that serves many calls should set the garbage collector's GOGC to, unless told otherwise: its
// live data are a few megabytes, and calls make a lot of garbage. At 100 collecting took a third of the engine's time.
const GCPercent = 400

// RefusedError is the error of a caller whose user or plan is not known: there was no account to decide on.
type RefusedError struct {
	Reason quota.Reason
	UserID string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("user %q: %s", e.UserID, quota.Decision{Reason: e.Reason}.Message())
}

// JobLease is how long a Job's admission would live without the controller; only the controller enforces it.
const JobLease = 10 * time.Minute

// AdmitRequest asks for a slot and a reservation.
type AdmitRequest struct {
	UserID string
	// ID of the admission where its holder has one by nature (a Job's UID); zero where Key makes it.
	ID quota.ID
	// Key is the caller's idempotency key: the same user and key are the same admission.
	Key string
	// BodyHash tells two requests with the same Key apart. Nil for Jobs.
	BodyHash []byte
	Source   quota.Source
	// Namespace and Name of the Job, or of the caller.
	Namespace, Name string
	// RequestedBy is the authenticated caller.
	RequestedBy string
	Estimate    quota.Credits
	FileSize    int64
	// Queue says whether to wait for a slot; Park also for credits, the next day or a lifted suspension.
	Queue, Park bool
	Priority    int32
	// WarnOnly meters and reports refusals, and admits all the same.
	WarnOnly bool
	// Running says that the work runs already, so that it can only be metered, even where the ledger has it in the queue.
	Running bool
	Lease   time.Duration
}

// Admission is an admission with what its holder wants to know about it.
type Admission struct {
	quota.Admission
	UserID          string
	Namespace, Name string
	RequestedBy     string
	BodyHash        []byte
	// Position is the 1-based place in the user's queue, and Waiting the queue's length; zero unless Queued.
	Position, Waiting int
	// Stuck says why it seems to have lost its holder; only in what is read, not in the answers to operations.
	Stuck quota.Stuck
}

// AdmitResult is the answer to an AdmitRequest. Admission is nil where Decision refuses.
type AdmitResult struct {
	Decision  quota.Decision
	Admission *Admission
	// Account is the standing that was decided on, and Upgrade the cheapest plan that would have allowed a refused request.
	Account *quota.Account
	Upgrade *quota.Plan
	// Created is false for a repeated request.
	Created bool
	// Ticket is what its holder completes the admission with, where the database could not be reached: the ledger does not
	// know it then.
	Ticket string
}

// CheckResult is the answer to a pre-flight check. Nothing is reserved by it.
type CheckResult struct {
	Decision quota.Decision
	Account  *quota.Account
	Upgrade  *quota.Plan
	Now      time.Time
}

// Plan is a plan as its object declares it, with what only the database and the reset need.
type Plan struct {
	quota.Plan
	// ObjectUID of the UsagePlan that owns the row.
	ObjectUID      quota.ID
	ResetSchedule  string
	ResetBatchSize int32
}

// PlanStatus is what the database knows about a plan.
type PlanStatus struct {
	Version int64
	Users   int64
	// FirstUsers are at most ten user ids on the plan, in order.
	FirstUsers []string
	// LastReset is the run of the reset that started last, nil before the first; ResetSucceededAt when one last closed all that
	// was due, zero before.
	LastReset        *ResetRun
	ResetSucceededAt time.Time
}

// Grant is a one-time gift of credits.
type Grant struct {
	Credits   quota.Credits
	ExpiresAt time.Time // zero: never
}

// Quota is what a UserQuota declares about one user.
type Quota struct {
	// ObjectUID and ObjectName of the UserQuota.
	ObjectUID  quota.ID
	ObjectName string
	UserID     string
	// PlanName is empty for the default plan.
	PlanName string
	// Anchor is zero where the object names none: an account keeps what it has, a new one is anchored at its creation.
	Anchor    time.Time
	Zone      string
	Overrides quota.Overrides
	Suspended bool
	Grants    map[string]Grant
}

// Usage is a user's standing for reports, rolled to Now.
type Usage struct {
	Account *quota.Account
	Now     time.Time
	// Last is the period that closed last, nil before the first.
	Last *quota.ClosedPeriod
	// QuotaUID is the UserQuota that owns the account's settings, zero without one.
	QuotaUID quota.ID
}
