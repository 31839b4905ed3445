// SPDX-License-Identifier: Apache-2.0

package ledgertest

import (
	"context"
	"fmt"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Join declares that a user or a team is below a team, below none if that is zero, whatever else would have to be
// checked. What waits moves with the account's next batch. A team's audit row is left out, for a test makes teams by
// rows.
func Join(ctx context.Context, store ledger.Store, account, team quota.AccountID) error {
	b, err := store.Begin(ctx, ledger.Keys{Accounts: []quota.AccountID{account}, Wait: true})
	if err != nil {
		return err
	}
	defer b.Rollback()
	l := b.Ledgers()[account]
	if l == nil {
		return fmt.Errorf("account %s: %w", account, ledger.ErrNotFound)
	}
	before := l.AuditSettings()
	l.Settings.MemberOf = team
	if l.Team == nil {
		l.Tell(quota.SystemActor, quota.AuditMemberAdded, before, l.AuditSettings())
	}
	return b.Commit(ctx)
}
