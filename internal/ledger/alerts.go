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
	if l.New || l.unreadable() != nil {
		return
	}
	chain := quota.Alone(l.Account)
	if l.Team == nil {
		chain = l.Chain().Chain
	}
	l.Alerts = append(l.Alerts, chain.Alert(l.Now)...)
}
