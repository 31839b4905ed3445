// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// EventKind says what an event does to its account.
type EventKind string

// The kinds of events.
const (
	// EventCharge debits the period that the use belongs to.
	EventCharge EventKind = "charge"
	// EventReversal gives one whole charge or adjustment back.
	EventReversal EventKind = "reversal"
	// EventAdjustment debits the open period: for a use whose own period was final, or for a reason that an admin gave.
	EventAdjustment EventKind = "adjustment"
)

// Event is one entry of the ledger. Events are never changed.
type Event struct {
	ID        quota.EventID
	Account   quota.AccountID
	UserID    string
	Kind      EventKind
	UsageType string
	// Admission that was settled by it; zero for what was recorded directly, which has a Key instead.
	Admission quota.AdmissionID
	Key       string
	// Reverses is the event that a reversal undoes. RefundLot is the lot that it gave for that where the period was
	// final.
	Reverses  quota.EventID
	RefundLot quota.LotID
	// OccurredAt is when the use happened, RecordedAt when the ledger took it.
	OccurredAt, RecordedAt time.Time
	// PeriodNo is the user's period that it is booked in, Seq its place in the user's order of decisions. Void says
	// that nothing was booked there; Levels are where it is booked above the user, the nearest first.
	PeriodNo, Seq int64
	Void          bool
	Levels        []quota.Booking
	// Payer is the account above the user that pays; zero if the user's own does. PayerTeam is that team's name.
	Payer     quota.AccountID
	PayerTeam string
	// Credits and the payer's lots that paid them; Overage is the part beyond the plan's, Price what the user owes for
	// it.
	Credits     quota.Credits
	Alloc       quota.Allocation
	Overage     quota.Credits
	Price, Cost quota.Money
	// Currency of Price, and CostCurrency of Cost.
	Currency, CostCurrency string
	// Duration, FileSize in bytes, Tokens and Quantity measure the use.
	Duration                   time.Duration
	FileSize, Tokens, Quantity int64
	// Rate is the plan's price of a unit where that made the credits.
	Rate        *quota.Rate
	PlanName    string
	PlanVersion int64
	Late        bool
	Metadata    map[string]string
	// RecordedBy is who sent it; empty for admissions, which know their holder. Reason is an admin's.
	RecordedBy, Reason string
	// ReversedBy is the event that undid this one, zero if none has.
	ReversedBy quota.EventID
}

// Charge returns the booking of a charge or adjustment.
func (e *Event) Charge() *quota.Charge {
	return &quota.Charge{
		Adjustment: e.Kind == EventAdjustment, Seq: e.Seq, PeriodNo: e.PeriodNo, Credits: e.Credits, Alloc: e.Alloc,
		Overage: e.Overage, Price: e.Price, Cost: e.Cost, Rate: e.Rate,
		Currency: e.Currency, CostCurrency: e.CostCurrency, Payer: e.Payer, Levels: e.Levels,
	}
}

// ChargeEvent is the event of a charge that an account of the plan pays.
func ChargeEvent(id quota.EventID, c *quota.Charge, plan *quota.Plan) *Event {
	e := &Event{
		ID: id, Kind: EventCharge, PeriodNo: c.PeriodNo, Seq: c.Seq, Credits: c.Credits, Alloc: c.Alloc,
		Overage: c.Overage,
		Price:   c.Price, Cost: c.Cost, Rate: c.Rate, Currency: c.Currency, CostCurrency: c.CostCurrency,
		PlanName:    plan.Name,
		PlanVersion: plan.Version, Quantity: 1, Payer: c.Payer, Levels: c.Levels,
	}
	if c.Adjustment {
		e.Kind = EventAdjustment
	}
	return e
}

// Charge books the one event that an admission can make.
func (l *Ledger) Charge(adm *Admission, c *quota.Charge, plan *quota.Plan) {
	e := ChargeEvent(ChargeID(l.Account.ID, adm.ID), c, plan)
	e.Account, e.UserID, e.UsageType, e.Admission = l.Account.ID, l.Account.UserID, quota.UsageTranscription, adm.ID
	e.OccurredAt, e.RecordedAt, e.Duration, e.FileSize, e.Late = adm.EndedAt, l.Now, c.Credits.Audio(),
		adm.Request.FileSize, adm.Late
	e.PayerTeam = l.teamOf(e.Payer)
	l.Booked = append(l.Booked, Made{Event: e})
}

// PaidBy says who paid: a team above the user, or the user.
func (e *Event) PaidBy() quota.Level { return paidBy(e.PayerTeam, e.UserID) }

func paidBy(team, user string) quota.Level {
	if team != "" {
		return quota.Level{Kind: quota.LevelTeam, Name: team}
	}
	return quota.Level{Kind: quota.LevelUser, Name: user}
}

// teamOf returns the name of the team that has the account, if that is one of the batch.
func (l *Ledger) teamOf(account quota.AccountID) string {
	if account == (quota.AccountID{}) {
		return ""
	}
	if a := l.find(account); a != nil && a.Team != nil {
		return a.Team.Name
	}
	return ""
}

// ChargeID is the id of the one charge that an admission can have.
func ChargeID(account quota.AccountID, admission quota.AdmissionID) quota.EventID {
	return quota.NameID("charge", account, admission.String())
}
