// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// AcknowledgeAlert notes that somebody has read an alert. The first one who has stays.
func (s *Service) AcknowledgeAlert(ctx context.Context, id quota.AlertID, by string) error {
	return s.store.AcknowledgeAlert(ctx, id, by)
}

// Foretell has an account take note of what a forecast says about its allowance.
func (s *Service) Foretell(ctx context.Context, account quota.AccountID, f quota.Foretold) error {
	return s.engine.Do(ctx, ledger.Op{Account: account, Apply: func(l *ledger.Ledger, _ ledger.Batch) error {
		l.Foretell(f)
		return nil
	}})
}

// Upgrade returns the plan that would give whoever pays for a chain, rolled to now, more room, as a refusal names it;
// nil if there is none, or nobody pays.
func (s *Service) Upgrade(ctx context.Context, on quota.Chain, now time.Time) *quota.Plan {
	if !on.Payer().Plan.Sells() {
		return nil
	}
	return s.upgrade(ctx, on, quota.Request{Estimate: quota.Credit},
		quota.Decision{Outcome: quota.Refuse, Reason: quota.CreditsExhausted}, now)
}
