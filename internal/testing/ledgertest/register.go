// SPDX-License-Identifier: Apache-2.0

package ledgertest

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Accounts is a store that knows the accounts that there are.
type Accounts interface {
	ledger.Store

	Locate(ctx context.Context, userID string) (account, top quota.AccountID, err error)
}

// Register returns the user's account, and makes it, as the engine does, where there is none: on the plan of that name
// (empty: the default plan). It fails with ledger.ErrNotFound if there is no such plan.
func Register(ctx context.Context, store Accounts, userID, plan string) (quota.AccountID, error) {
	id := quota.AccountID(uuid.New())
	err := open(ctx, store, id, userID, plan)
	if errors.Is(err, ledger.ErrRegistered) {
		known, _, err := store.Locate(ctx, userID)
		return known, err
	}
	return id, err
}

func open(ctx context.Context, store ledger.Store, id quota.AccountID, userID, plan string) error {
	b, err := store.Begin(ctx, ledger.Keys{Register: []ledger.Registration{{Account: id, UserID: userID}},
		Plans: []string{plan}})
	if err != nil {
		return err
	}
	defer b.Rollback()
	l := b.Ledgers()[id]
	switch {
	case l == nil:
		return ledger.ErrRegistered
	case b.Plan(plan) == nil:
		return ledger.ErrNotFound
	}
	l.Open(b.Plan(plan), quota.SystemActor)
	return b.Commit(ctx)
}
