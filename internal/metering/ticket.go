// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"encoding/json"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// ticketLife is how long after the audio's own length a ticket can be completed: an outage, and whoever was asleep
// during it, must be over by then.
const ticketLife = 24 * time.Hour

// Ticket allows one piece of work that was admitted while the database could not be reached, and pays for it when that
// is over.
type Ticket struct {
	ID      quota.TicketID  `json:"-"`
	UserID  string          `json:"user"`
	Account quota.AccountID `json:"-"`
	// Key and BodyHash are the idempotency key and what tells two requests with it apart: online, the same key is the
	// same admission.
	Key      string        `json:"key"`
	BodyHash []byte        `json:"hash"`
	Estimate quota.Credits `json:"estimate"`
	FileSize int64         `json:"size"`
	// Namespace, Name and RequestedBy of the caller who asked for it.
	Namespace   string `json:"ns,omitempty"`
	Name        string `json:"name,omitempty"`
	RequestedBy string `json:"by"`
	// Plan that it was given under, as the replica knew it.
	Plan        string    `json:"plan"`
	PlanVersion int64     `json:"plan_version"`
	Replica     string    `json:"replica"`
	IssuedAt    time.Time `json:"issued"`
	ExpiresAt   time.Time `json:"expires"`
}

// ticketOnWire is a ticket with its ids as short text.
type ticketOnWire struct {
	*Ticket

	ID      []byte `json:"id"`
	Account []byte `json:"account"`
}

// AdmissionID is the admission that the ticket becomes. It is that of the same user and key online.
func (t *Ticket) AdmissionID() quota.AdmissionID { return quota.NameID("admission", t.Account, t.Key) }

// audit returns the ticket as the audit log tells it once its work was charged. Who it was for stands in the row
// already.
func (t *Ticket) audit(offline bool, actual quota.Credits) quota.AuditTicket {
	return quota.AuditTicket{
		Ticket:      t.ID,
		Replica:     t.Replica,
		IssuedAt:    quota.AuditTime(t.IssuedAt),
		ExpiresAt:   quota.AuditTime(t.ExpiresAt),
		Estimate:    t.Estimate,
		Actual:      actual,
		Plan:        t.Plan,
		PlanVersion: t.PlanVersion,
		Offline:     offline,
	}
}

// admission is the ticket as an admission that the ledger has not heard of.
func (t *Ticket) admission(now time.Time, state quota.State) *ledger.Admission {
	if state == quota.Admitted && !now.Before(t.ExpiresAt) {
		state = quota.Expired
	}
	return &ledger.Admission{
		Admission: quota.Admission{
			ID: t.AdmissionID(), Account: t.Account, Source: quota.SourceAPI, State: state, Offline: true,
			Request:   quota.Request{Estimate: t.Estimate, FileSize: t.FileSize},
			CreatedAt: t.IssuedAt, AdmittedAt: t.IssuedAt, Lease: t.ExpiresAt.Sub(t.IssuedAt), LeaseUntil: t.ExpiresAt,
		},
		UserID: t.UserID, Namespace: t.Namespace, Name: t.Name, RequestedBy: t.RequestedBy, BodyHash: t.BodyHash,
	}
}

// sign returns the ticket as its holder carries it.
func (s *Service) sign(ctx context.Context, t *Ticket) (string, error) {
	payload, err := json.Marshal(ticketOnWire{t, t.ID[:], t.Account[:]})
	if err != nil {
		return "", err
	}
	return s.sealer.Seal(ctx, payload)
}

// VerifyTicket returns the ticket that the token is, if a replica of this service gave it. Whether it can still be
// completed is decided then.
func (s *Service) VerifyTicket(ctx context.Context, token string) (*Ticket, bool, error) {
	payload, ok, err := s.sealer.Unseal(ctx, token)
	if err != nil || !ok {
		return nil, false, err
	}
	wire := ticketOnWire{Ticket: &Ticket{}}
	if err := json.Unmarshal(payload, &wire); err != nil {
		return nil, false, err
	}
	copy(wire.Ticket.ID[:], wire.ID)
	copy(wire.Ticket.Account[:], wire.Account)
	return wire.Ticket, true, nil
}
