// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// ticket returns the offline ticket by which the caller holds the admission; nil where the caller has come with
// something else.
func (s *server) ticket(ctx context.Context, id uuid.UUID) (*metering.Ticket, error) {
	token := callerFrom(ctx).ticket
	if token == "" {
		return nil, nil
	}
	ticket, ok, err := s.tickets.VerifyTicket(ctx, token)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, unauthorized("the ticket was not given by this service")
	case ticket.AdmissionID() != quota.AdmissionID(id):
		return nil, forbidden("the ticket is not that of admission %s", id)
	}
	return ticket, nil
}
