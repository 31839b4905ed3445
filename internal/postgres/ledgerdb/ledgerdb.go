// SPDX-License-Identifier: Apache-2.0

// Package ledgerdb writes the ledger: the batches of the engine, and what plans and resets leave in rows of their own.
// It reads through readdb. The invariants of what it writes are in package invariants; their tests are here, where
// ledgers can be made and broken.
package ledgerdb

import (
	"context"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/reset"
)

// Store is all that the engine and the use cases ask of a database. It is safe for concurrent use.
type Store struct {
	*readdb.Store

	trees trees
	// alerted is told that a batch has raised alerts; nil if nobody wants to know.
	alerted func()
}

// OnAlert has f called after each commit that has raised alerts. It must not block, and is set before the first batch.
func (s *Store) OnAlert(f func()) { s.alerted = f }

var (
	_ ledger.Store   = (*Store)(nil)
	_ metering.Store = (*Store)(nil)
	_ reset.Store    = (*Store)(nil)
)

// Open connects to the database that dsn names, as postgres.Open does. The caller closes the Store.
func Open(ctx context.Context, dsn string, opts postgres.Options) (*Store, error) {
	db, err := postgres.Open(ctx, dsn, opts)
	if err != nil {
		return nil, err
	}
	return &Store{Store: readdb.New(db)}, nil
}
