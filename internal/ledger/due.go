// SPDX-License-Identifier: Apache-2.0

package ledger

import "github.com/cantonesescribe/usage-operator/internal/quota"

// Due names a reason for an account to be looked at.
type Due string

// The reasons for which a store looks.
const (
	// DueLease: an admission of SourceAPI has outlived its lease.
	DueLease Due = "lease"
	// DueWait: an admission has waited for longer than its plan lets work wait.
	DueWait Due = "wait"
	// DueQueue: something is queued and the period has ended, or it waits for a slot and one is free, or it is parked
	// for a cost ceiling of an earlier day.
	DueQueue Due = "queue"
	// DueParked: more is parked than a batch looks at.
	DueParked Due = "parked"
	// DueQueued: something is queued.
	DueQueued Due = "queued"
)

// Candidate is an account, and for DueLease and DueWait an admission of it.
type Candidate struct {
	Account   quota.AccountID
	Admission quota.AdmissionID
}
