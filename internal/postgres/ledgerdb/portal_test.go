// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

func somePortalKey() (ledger.PortalKey, error) {
	id := quota.ID(uuid.New())
	return ledger.PortalKey{ID: id, Public: bytes.Repeat(id[:], 2), Seed: bytes.Repeat(id[8:], 4)}, nil
}

func (f *fixture) issue(s *ledgerdb.Store, account quota.AccountID) (ledger.PortalToken, ledger.PortalKey) {
	f.t.Helper()
	t, key, err := s.IssuePortalToken(f.t.Context(),
		ledger.PortalToken{ID: quota.PortalTokenID(uuid.New()), Account: account, Scope: quota.PortalRead},
		time.Hour, quota.CallerActor("sue"), somePortalKey)
	if err != nil {
		f.t.Fatal(err)
	}
	return t, key
}

func (f *fixture) portal() ledger.PortalState {
	f.t.Helper()
	state, err := f.PortalState(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	return state
}

func TestPortalTokensAreKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice, bob := f.register("alice"), f.register("bob")
	first, _ := f.issue(f.Store, alice)
	second, _ := f.issue(f.Store, alice)
	others, _ := f.issue(f.Store, bob)
	if first.IssuedAt != f.clock.read() || first.ExpiresAt != f.clock.read().Add(time.Hour) {
		t.Errorf("given out: %+v", first)
	}
	revoke := func(account quota.AccountID, id *quota.PortalTokenID) error {
		return f.RevokePortalTokens(t.Context(), account, id, quota.CallerActor("sue"))
	}
	if err := revoke(bob, &first.ID); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("another account's token: %v", err)
	}
	for range 2 {
		if err := revoke(alice, &first.ID); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.portal().Revoked; !slices.Equal(got, []quota.PortalTokenID{first.ID}) {
		t.Errorf("revoked: %v", got)
	}
	if err := revoke(alice, nil); err != nil {
		t.Fatal(err)
	}
	if got := f.portal().Revoked; len(got) != 2 || slices.Contains(got, others.ID) {
		t.Errorf("all of alice's are revoked: %v", got)
	}
	type told struct {
		Action, Object, Actor string
		Before, After         string
	}
	rows, err := f.Pool().Query(t.Context(), `SELECT action, object_name, coalesce(p.name, actor),
		coalesce(before ->> 'scope', ''), coalesce(after ->> 'scope', '') FROM audit_log AS l
		LEFT JOIN actors AS p ON 'person:' || p.id = l.actor
		WHERE object_kind = 'PortalToken' AND user_id = $1 ORDER BY l.id`, alice)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[told])
	want := []told{
		{"portal.minted", first.ID.String(), "sue", "", "read"},
		{"portal.minted", second.ID.String(), "sue", "", "read"},
		{"portal.revoked", first.ID.String(), "sue", "read", ""},
		{"portal.revoked", second.ID.String(), "sue", "read", ""},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("told: %v, %v", got, err)
	}

	f.clock.advance(time.Hour)
	if got := f.portal().Revoked; len(got) > 0 {
		t.Errorf("what has ended is told still: %v", got)
	}
	f.clock.advance(2 * time.Minute)
	f.issue(f.Store, bob)
	var kept int
	err = f.Pool().QueryRow(t.Context(), "SELECT count(*) FROM portal_tokens").Scan(&kept)
	if err != nil || kept != 1 {
		t.Errorf("%d tokens are kept, %v", kept, err)
	}
}

// Each key is known long before it signs, and until what it has signed has ended; whenever somebody asks, one signs.
func TestPortalKeysRotate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice := f.register("alice")
	if got := f.portal().Keys; len(got) > 0 {
		t.Fatalf("keys that nobody has needed: %v", got)
	}
	signed := map[quota.ID]time.Time{} // until when a token of the key is good
	known := map[quota.ID]time.Time{}  // since when
	var used []quota.ID
	for range 24 * 40 {
		token, key := f.issue(f.Store, alice)
		signed[key.ID] = token.ExpiresAt
		if !slices.Contains(used, key.ID) {
			used = append(used, key.ID)
			if since, there := known[key.ID]; len(used) > 1 && (!there || f.clock.read().Sub(since) < time.Hour) {
				t.Fatalf("key %d signs at %s and is known since %s", len(used), f.clock.read(), since)
			}
		}
		state := f.portal()
		here := map[quota.ID]bool{}
		for _, k := range state.Keys {
			here[k.ID] = true
			if _, there := known[k.ID]; !there {
				known[k.ID] = f.clock.read()
			}
			if k.Seed != nil {
				t.Fatal("what verifies has the private half")
			}
		}
		for id, until := range signed {
			if until.After(f.clock.read()) && !here[id] {
				t.Fatalf("at %s a token that is good until %s cannot be verified", f.clock.read(), until)
			}
		}
		if len(state.Keys) > 3 {
			t.Fatalf("%d keys at once", len(state.Keys))
		}
		f.clock.advance(time.Hour)
	}
	if len(used) != 6 {
		t.Errorf("%d keys in 40 days", len(used))
	}
	f.clock.advance(90 * 24 * time.Hour)
	f.issue(f.Store, alice)
	var secrets int
	if err := f.Pool().QueryRow(t.Context(), "SELECT count(*) FROM portal_secrets").Scan(&secrets); err != nil ||
		secrets != 1 {
		t.Errorf("after a long pause %d secrets are there, %v", secrets, err)
	}
}

func TestReplicasMakeOnePortalKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice := f.register("alice")
	stores := []*ledgerdb.Store{f.Store, f.open(), f.open()}
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() { f.issue(stores[i%len(stores)], alice) })
	}
	all.Wait()
	if got := f.portal().Keys; len(got) != 1 {
		t.Errorf("%d keys", len(got))
	}
}

// A login that may read everything cannot sign.
func TestReadersDoNotSeePortalSecrets(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.issue(f.Store, f.register("alice"))
	count := func(role, grant string) (n int) {
		t.Helper()
		tx, err := f.Pool().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(t.Context()) }()
		for _, sql := range []string{"CREATE ROLE " + role, fmt.Sprintf(grant, role), "SET LOCAL ROLE " + role} {
			if _, err := tx.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		if err := tx.QueryRow(t.Context(), "SELECT count(*) FROM portal_secrets").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got := count("portal_reader", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO %s"); got != 0 {
		t.Errorf("a reader sees %d", got)
	}
	if got := count("portal_writer", "GRANT ALL ON ALL TABLES IN SCHEMA public TO %s"); got != 1 {
		t.Errorf("a writer sees %d", got)
	}
}
