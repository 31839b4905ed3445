// SPDX-License-Identifier: Apache-2.0

// Package readdb reads what the database holds, without locks: what the rows of its tables mean is known here.
package readdb

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// Store answers what the use cases ask of a database. It is safe for concurrent use.
type Store struct {
	*postgres.DB

	zones sync.Map // name -> *time.Location
	plans planCache
}

var _ reports.Store = (*Store)(nil)

// New returns the Store of a database.
func New(db *postgres.DB) *Store {
	s := &Store{DB: db}
	db.OnConnect(s.plans.forget)
	return s
}

// zone returns a time zone by its IANA name.
func (s *Store) zone(name string) (*time.Location, error) {
	if z, ok := s.zones.Load(name); ok {
		return z.(*time.Location), nil //nolint:forcetypeassert // nothing else is stored
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return nil, err
	}
	s.zones.Store(name, z)
	return z, nil
}

func (s *Store) reportError(err error) {
	if unreadable, ok := errors.AsType[*ledger.UnreadableError](err); ok {
		s.Report(unreadable)
	}
}

// LeaseKey is the key that lease tokens are signed with, the same for all replicas.
func (s *Store) LeaseKey(ctx context.Context) ([]byte, error) {
	key, err := s.Queries().LeaseKey(ctx)
	return key, postgres.MapError(err)
}
