// SPDX-License-Identifier: Apache-2.0

package metering

import "github.com/cantonesescribe/usage-operator/internal/quota"

// TicketAudit returns the ticket as the audit log tells it.
func TicketAudit(t *Ticket) quota.AuditTicket { return t.audit(false, 0) }
