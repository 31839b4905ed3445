// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// made books an adjustment of one credit under a key.
func (f *fixture) made(account quota.AccountID, key string, event quota.ID) {
	f.t.Helper()
	if err := f.tryMake(account, key, event); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) tryMake(account quota.AccountID, key string, event quota.ID) error {
	f.t.Helper()
	keys := ledger.Keys{
		Accounts:    []quota.AccountID{account},
		Idempotency: []ledger.AccountKey{{Account: account, Key: key}},
	}
	return f.tryChange(f.t.Context(), keys, func(_ ledger.Batch, l *ledger.Ledger) {
		f.roll(l)
		c, err := l.Chain().Adjust(quota.Credit, l.Now)
		if err != nil {
			f.t.Fatal(err)
		}
		l.Booked = append(l.Booked, ledger.Made{BodyHash: []byte{1}, Event: &ledger.Event{
			ID: event, Account: account, Kind: ledger.EventAdjustment, UsageType: quota.UsageAdjustment, Key: key,
			OccurredAt: l.Now, RecordedAt: l.Now, PeriodNo: c.PeriodNo, Seq: c.Seq, Credits: c.Credits, Alloc: c.Alloc,
			Currency: "USD", CostCurrency: "USD", PlanName: "free", PlanVersion: 1, Quantity: 1,
		}})
	})
}

// found returns the event that a key made, as far as it is remembered.
func (f *fixture) found(account quota.AccountID, key string) (id quota.ID) {
	f.t.Helper()
	keys := ledger.Keys{
		Accounts:    []quota.AccountID{account},
		Idempotency: []ledger.AccountKey{{Account: account, Key: key}},
	}
	f.change(keys, func(_ ledger.Batch, l *ledger.Ledger) {
		if m, ok := l.Made[key]; ok {
			id = m.ID
		}
	})
	return id
}

func (f *fixture) keyPartitions() []string {
	f.t.Helper()
	rows, err := f.Pool().Query(f.t.Context(), `SELECT c.relname FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid
		WHERE inhparent = 'idempotency_keys'::regclass ORDER BY 1`)
	if err != nil {
		f.t.Fatal(err)
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			f.t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

func TestKeysAreKeptAndDropped(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice := f.register("alice")
	ensure := func() {
		t.Helper()
		if err := f.EnsurePartitions(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// 2026-03-10 is a Tuesday. Nobody has made its partition: the key goes to the default one, and moves when it is
	// made.
	f.made(alice, "first", quota.ID{1})
	if n := f.count("SELECT count(*) FROM idempotency_keys_default"); n != 1 {
		t.Errorf("%d keys in the default partition, want 1", n)
	}
	ensure()
	if n := f.count("SELECT count(*) FROM idempotency_keys_20260309"); n != 1 {
		t.Errorf("%d keys in the week's partition, want 1", n)
	}
	for _, week := range []string{"20260309", "20260316", "20260323", "20260330", "20260406"} {
		if !slices.Contains(f.keyPartitions(), "idempotency_keys_"+week) {
			t.Errorf("no partition of the week of %s: %v", week, f.keyPartitions())
		}
	}
	f.clock.advance(35 * 24 * time.Hour)
	ensure()
	f.made(alice, "second", quota.ID{2})
	if f.found(alice, "first") != (quota.ID{1}) {
		t.Error("a key was forgotten after 35 days")
	}
	// The week ended on March 16; 36 days later nothing of it is needed any more.
	f.clock.advance(7 * 24 * time.Hour)
	ensure()
	if names := f.keyPartitions(); slices.Contains(names, "idempotency_keys_20260309") ||
		f.found(alice, "first") != (quota.ID{}) {
		t.Errorf("the old week is still there: %v", names)
	}
	if f.found(alice, "second") != (quota.ID{2}) {
		t.Error("the second key was dropped with the first")
	}
	// Forgotten means usable again.
	f.made(alice, "first", quota.ID{3})
	if f.found(alice, "first") != (quota.ID{3}) {
		t.Error("the key is not that of the last event")
	}
}

// A CloudEvent's key is taken for all users, as long as it is kept.
func TestEventKeysAreForAllUsers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice, bob := f.register("alice"), f.register("bob")
	const key = "/exporter 7"
	f.made(alice, key, quota.ID{1})
	f.made(alice, "named", quota.ID{2})
	f.made(bob, "named", quota.ID{3})
	if err := f.tryMake(bob, key, quota.ID{4}); !errors.Is(err, ledger.ErrKeyReused) ||
		!errors.Is(err, ledger.ErrData) {
		t.Errorf("bob's event with alice's key: got %v, want ErrKeyReused, and ErrData for its batch", err)
	}
	f.clock.advance(37 * 24 * time.Hour)
	if err := f.EnsurePartitions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.count("SELECT count(*) FROM event_keys"); n != 0 {
		t.Errorf("%d keys of events are kept, want none", n)
	}
	f.made(bob, key, quota.ID{4})
}

// Every replica looks after the partitions.
func TestKeyPartitionsByMany(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	replicas := []*ledgerdb.Store{f.open(), f.open(), f.open()}
	for range 5 {
		var all sync.WaitGroup
		for _, r := range replicas {
			all.Go(func() {
				if err := r.EnsurePartitions(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		f.clock.advance(14 * 24 * time.Hour)
	}
}

// undo reverses an event as if it had not been reversed before.
func (f *fixture) undo(account quota.AccountID, key string, event, id quota.ID) {
	f.t.Helper()
	if err := f.tryUndo(account, key, event, id); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) tryUndo(account quota.AccountID, key string, event, id quota.ID) error {
	keys := ledger.Keys{
		Accounts: []quota.AccountID{account}, Idempotency: []ledger.AccountKey{{Account: account, Key: key}},
		Events: []quota.EventID{event},
	}
	return f.tryChange(f.t.Context(), keys, func(_ ledger.Batch, l *ledger.Ledger) {
		e, before := l.Events[event], l.Account.AuditBalance(l.Now)
		rev, err := l.Chain().Reverse(e.ID,
			&quota.Charge{PeriodNo: e.PeriodNo, Credits: e.Credits, Alloc: e.Alloc}, quota.Closed{l.Closed}, l.Now)
		if err != nil {
			f.t.Fatal(err)
		}
		l.Booked = append(l.Booked, ledger.Made{BodyHash: []byte{1}, Event: &ledger.Event{
			ID: id, Account: account, Kind: ledger.EventReversal, UsageType: e.UsageType, Key: key, Reverses: e.ID,
			OccurredAt: l.Now, RecordedAt: l.Now, PeriodNo: rev.PeriodNo, Seq: rev.Seq, Credits: rev.Credits,
			Alloc:    rev.Alloc,
			Currency: "USD", CostCurrency: "USD", PlanName: "free", PlanVersion: 1, Quantity: 1,
		}})
		l.Audit = append(l.Audit, quota.AuditRow{
			Actor: quota.SystemActor, Action: quota.AuditUsageReversed, Object: quota.EventID(id).String(),
			Before: before, After: l.Account.AuditBalance(l.Now),
		})
	})
}

// The database is the last guard of "reversed once", over all partitions.
func TestSecondReversalIsRefusedByTheDatabase(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice := f.register("alice")
	f.made(alice, "k", quota.ID{1})
	f.made(alice, "k2", quota.ID{4}) // so that the second reversal does not fail for a negative balance
	f.undo(alice, "a", quota.ID{1}, quota.ID{2})
	f.clock.advance(20 * 24 * time.Hour)
	if err := f.tryUndo(alice, "b", quota.ID{1}, quota.ID{3}); !errors.Is(err, ledger.ErrData) {
		t.Errorf("a charge was reversed twice: %v", err)
	}
}
