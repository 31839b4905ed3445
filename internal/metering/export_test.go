// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// TellOfGrants does what the service does by itself every ten minutes.
func (s *Service) TellOfGrants(ctx context.Context) error { return s.tellOfGrants(ctx) }

// TicketAudit returns the ticket as the audit log tells it.
func TicketAudit(t *Ticket) quota.AuditTicket { return t.audit(false, 0) }
