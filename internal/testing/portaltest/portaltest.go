// SPDX-License-Identifier: Apache-2.0

// Package portaltest keeps portal tokens in memory, for tests of what is before the database.
package portaltest

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Store has one key, which it makes at the first token. It is safe for concurrent use.
type Store struct {
	mu      sync.Mutex
	now     time.Time
	err     error
	reads   int
	key     ledger.PortalKey
	tokens  map[quota.PortalTokenID]ledger.PortalToken
	revoked map[quota.PortalTokenID]bool
}

// New returns a store whose clock stands at now, or is that of the machine if now is zero.
func New(now time.Time) *Store {
	return &Store{now: now, tokens: map[quota.PortalTokenID]ledger.PortalToken{},
		revoked: map[quota.PortalTokenID]bool{}}
}

// Clock is the store's.
func (s *Store) Clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock()
}

func (s *Store) clock() time.Time {
	if s.now.IsZero() {
		return time.Now().UTC()
	}
	return s.now
}

// Advance moves the clock.
func (s *Store) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

// Fail has all calls fail with err, or none if it is nil.
func (s *Store) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// Reads is how often the state was read.
func (s *Store) Reads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

// Key is what tokens are signed with.
func (s *Store) Key() ledger.PortalKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.key
}

// PortalState implements access.PortalStore.
func (s *Store) PortalState(context.Context) (ledger.PortalState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	out := ledger.PortalState{Revoked: slices.Collect(maps.Keys(s.revoked)), Now: s.clock()}
	if s.key.Seed != nil {
		out.Keys = []ledger.PortalKey{{ID: s.key.ID, Public: s.key.Public}}
	}
	return out, s.err
}

// IssuePortalToken implements access.PortalStore.
func (s *Store) IssuePortalToken(
	_ context.Context, t ledger.PortalToken, ttl time.Duration, _ quota.Actor,
	generate func() (ledger.PortalKey, error),
) (ledger.PortalToken, ledger.PortalKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return t, s.key, s.err
	}
	if s.key.Seed == nil {
		var err error
		if s.key, err = generate(); err != nil {
			return t, s.key, err
		}
	}
	t.IssuedAt = s.clock().Truncate(time.Second)
	t.ExpiresAt = t.IssuedAt.Add(ttl)
	s.tokens[t.ID] = t
	return t, s.key, nil
}

// RevokePortalTokens implements access.PortalStore.
func (s *Store) RevokePortalTokens(
	_ context.Context, account quota.AccountID, id *quota.PortalTokenID, _ quota.Actor,
) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if id != nil && s.tokens[*id].Account != account {
		return ledger.ErrNotFound
	}
	for _, t := range s.tokens {
		if t.Account == account && (id == nil || *id == t.ID) {
			s.revoked[t.ID] = true
		}
	}
	return nil
}
