// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Alert is an alert as it is stored.
type Alert struct {
	quota.AlertFacts

	ID       quota.AlertID
	Account  quota.AccountID
	PeriodNo int64
	// Number is how often it had been re-armed in the period.
	Number   int32
	RaisedAt time.Time
	// Seq is the account's decision that raised it, or the last one before.
	Seq int64
	// ResolvedAt is zero while it holds, AcknowledgedAt until somebody has read it.
	ResolvedAt, AcknowledgedAt time.Time
	AcknowledgedBy             string
	// Closed is what the period of quota.AlertPeriodReset has come to by now; nil of other kinds.
	Closed *quota.ClosedPeriod
}

// Alert takes note of what the account has to be told of, as it is about to be written. Whoever commits a batch calls
// it once for each ledger. Of what cannot be read whole nothing is told.
func (l *Ledger) Alert() {
	if !l.New && l.unreadable() == nil {
		l.Alerts = append(l.Alerts, l.alerting().Alert(l.Now)...)
	}
}

// Foretell takes note of a forecast that the account has to be told of.
func (l *Ledger) Foretell(f quota.Foretold) {
	l.Alerts = append(l.Alerts, l.alerting().Foretell(f, l.Now)...)
}

// alerting returns the chain by which alerts are decided: a team is told of its own.
func (l *Ledger) alerting() quota.Chain {
	if l.Team != nil {
		return quota.Alone(l.Account)
	}
	return l.Chain().Chain
}
