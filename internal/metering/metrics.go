// SPDX-License-Identifier: Apache-2.0

package metering

import "github.com/cantonesescribe/usage-operator/internal/quota"

// TicketEvent is what can become of an offline ticket, or of the wish for one.
type TicketEvent string

// The events of offline tickets.
const (
	TicketIssued   TicketEvent = "issued"
	TicketSettled  TicketEvent = "settled"
	TicketReleased TicketEvent = "released"
	// TicketRefusedUser: this replica does not know the user, or the user's plan refuses while the database is away.
	// TicketRefusedLimit: the request, or all of the outstanding tickets with it, would be over a limit.
	TicketRefusedUser  TicketEvent = "refused_user"
	TicketRefusedLimit TicketEvent = "refused_limit"
)

// TicketEvents are all of them.
var TicketEvents = []TicketEvent{
	TicketIssued, TicketSettled, TicketReleased, TicketRefusedUser, TicketRefusedLimit,
}

// Metrics is told what operators want to count. Its methods must not block.
type Metrics interface {
	// Ticket counts an event of an offline ticket.
	Ticket(event TicketEvent)
	// Outstanding is how many offline tickets this process has given and not seen the end of.
	Outstanding(n int)
	// Stuck is how many admissions seem stuck for the reason, in the whole database.
	Stuck(reason quota.Stuck, n int)
}

type noMetrics struct{}

func (noMetrics) Ticket(TicketEvent) {}
func (noMetrics) Outstanding(int)    {}

func (noMetrics) Stuck(quota.Stuck, int) {}
