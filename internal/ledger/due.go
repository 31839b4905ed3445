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
	// DueQueue: something is queued and the period has ended, or it waits for a slot and one is free, or that is so for
	// all that the account's own limits say and its turn below a team does not tell, or it is parked for a cost ceiling
	// of an earlier day.
	DueQueue Due = "queue"
	// DueParked: something is parked, which what others have done may let start.
	DueParked Due = "parked"
	// DueQueued: something is queued.
	DueQueued Due = "queued"
	// DueMoved: something is queued and counted below others than those who are declared to be above, or it is a team
	// without a plan, and so without a plan's reset, whose period has ended.
	DueMoved Due = "moved"
	// DueGrant: a grant with credits left ends soon, and its account was not told.
	DueGrant Due = "grant"
)

// Candidate is an account, and for DueLease and DueWait an admission of it.
type Candidate struct {
	Account   quota.AccountID
	Admission quota.AdmissionID
}
