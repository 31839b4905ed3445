// SPDX-License-Identifier: Apache-2.0

// Package metering holds the use cases of the product: check, admit, heartbeat, settle, release, record, and the
// changes of plans and quotas. What changes an account goes through ledger's Engine; what is only read, or belongs to
// no account, is in its Store. It knows neither HTTP nor Kubernetes.
package metering

import (
	"errors"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// ErrTicketExpired says that an offline ticket was not completed in time; nothing was charged.
var ErrTicketExpired = errors.New("the offline ticket has expired")

// JobLease is how long a Job's admission would live without the controller; only the controller enforces it.
const JobLease = 10 * time.Minute

// AdmitRequest asks for a slot and a reservation.
type AdmitRequest struct {
	UserID string
	// ID of the admission where its holder has one by nature (a Job's UID); zero where Key makes it.
	ID quota.AdmissionID
	// Key is the caller's idempotency key: the same user and key are the same admission.
	Key string
	// BodyHash tells two requests with the same Key apart. Nil for Jobs.
	BodyHash []byte
	Source   quota.Source
	// Namespace and Name of the Job, or of the caller.
	Namespace, Name string
	// Cluster of the Job; zero for others.
	Cluster quota.ClusterUID
	// RequestedBy is the authenticated caller.
	RequestedBy string
	Estimate    quota.Credits
	FileSize    int64
	// Queue says whether to wait for a slot; Park also for credits, the next day or a lifted suspension.
	Queue, Park bool
	Priority    int32
	// WarnOnly meters and reports refusals, and admits all the same.
	WarnOnly bool
	// Running says that the work runs already, so that it can only be metered, even where the ledger has it in the
	// queue.
	Running bool
	Lease   time.Duration
}

// AdmitResult is the answer to an AdmitRequest. Admission is nil where Decision refuses.
type AdmitResult struct {
	Decision  quota.Decision
	Admission *ledger.Admission
	// On are the accounts that were decided on, as they stood then, and Upgrade is the cheapest plan that would have
	// allowed a refused request, if the payer had it.
	On      quota.Chain
	Upgrade *quota.Plan
	// Created is false for a repeated request.
	Created bool
	// Ticket is what its holder completes the admission with, where the database could not be reached: the ledger does
	// not know it then.
	Ticket string
}

// CheckResult is the answer to a pre-flight check. Nothing is reserved by it.
type CheckResult struct {
	Decision quota.Decision
	// On and Upgrade are as in AdmitResult.
	On      quota.Chain
	Upgrade *quota.Plan
	Now     time.Time
}

// Plan is a plan as its object declares it, with what only the database and the reset need.
type Plan struct {
	quota.Plan
	// ObjectUID of the UsagePlan that owns the row, and the cluster that this is in.
	ObjectUID      quota.ObjectUID
	Cluster        quota.ClusterUID
	ResetSchedule  string
	ResetBatchSize int32
}

// PlanStatus is what the database knows about a plan.
type PlanStatus struct {
	Version int64
	Users   int64
	// FirstUsers are at most ten user ids on the plan, in order.
	FirstUsers []string
}

// Grant is a one-time gift of credits.
type Grant struct {
	Credits   quota.Credits
	ExpiresAt time.Time // zero: never
}

// Quota is what a UserQuota declares about one user.
type Quota struct {
	// ObjectUID and ObjectName of the UserQuota, and the cluster that it is in.
	ObjectUID  quota.ObjectUID
	ObjectName string
	Cluster    quota.ClusterUID
	UserID     string
	// PlanName is empty for the default plan, TeamName where the object says nothing of a team.
	PlanName, TeamName string
	// Anchor is zero where the object names none: an account keeps what it has, a new one is anchored at its creation.
	Anchor    time.Time
	Zone      string
	Overrides quota.Overrides
	Suspended bool
	Grants    map[string]Grant
}
