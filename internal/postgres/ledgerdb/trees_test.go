// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

// team makes a team on the plan, none if that is nil. Caps are the columns of teams and their values.
func (f *fixture) team(n byte, name string, plan *string, caps string) quota.AccountID {
	f.t.Helper()
	id, now := quota.AccountID{n}, f.clock.read()
	f.exec("INSERT INTO teams (id, name, cap_currency) VALUES ($1, $2, 'USD')", [16]byte(id), name)
	if caps != "" {
		f.exec("UPDATE teams SET "+caps+" WHERE id = $1", [16]byte(id))
	}
	f.exec(`INSERT INTO usage_quotas (user_id, plan_name, anchor_at, period_start, period_end, last_decided_at,
			currency)
		VALUES ($1, $2, $3, $3, $4, $3, 'USD')`, [16]byte(id), plan, now, now.AddDate(0, 1, 0))
	return id
}

func (f *fixture) hang(account, parent quota.AccountID) {
	f.t.Helper()
	if err := ledgertest.Join(f.t.Context(), f.Store, account, parent); err != nil {
		f.t.Fatal(err)
	}
}

// touch has an engine look at the account, which keeps the turns of whoever waits.
func (f *fixture) touch(account quota.AccountID) {
	f.t.Helper()
	e := ledger.New(f.Store, ledger.Options{})
	if err := e.Do(f.t.Context(), ledger.Op{Account: account, Apply: func(*ledger.Ledger, ledger.Batch) error {
		return nil
	}}); err != nil {
		f.t.Fatal(err)
	}
	e.Drain()
}

func TestLevelsAreStoredWhole(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice := f.register("alice")
	root := f.team(8, "root", nil, "concurrent_cap = 7")
	desk := f.team(9, "desk", nil, `credits_cap = 1200000, daily_cost_cap_micros = 500000, member_credits = 900000,
		member_queued = 3`)
	f.hang(alice, desk)
	f.hang(desk, root)
	id := quota.ID{1}
	f.enter(alice, id, 10*quota.Credit)

	unlimited := quota.Limit[quota.Credits]{Unlimited: true}
	want := []quota.Held{
		{Account: desk, AdmittedSeq: 1, Seen: quota.Seen{
			Remaining: quota.AtMost(20 * quota.Credit), Concurrent: quota.Limit[int32]{Unlimited: true},
		}},
		{Account: root, AdmittedSeq: 1, Seen: quota.Seen{Remaining: unlimited, Concurrent: quota.AtMost(int32(7))}},
	}
	keys := ledger.Keys{Accounts: []quota.AccountID{alice}, Admissions: []quota.AdmissionID{id}}
	l := f.load(keys)
	if diff := cmp.Diff(want, l.Admissions[id].Levels); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if l.Above[0].Account.ID != desk || l.Above[1].Account.ID != root || l.Above[2] != nil || l.Top() != root {
		t.Errorf("above alice: %v", l.Above)
	}
	money := quota.AtMost[quota.Money](500_000)
	team := &quota.Team{
		Name: "desk", Weight: 1,
		Caps: quota.Caps{
			Credits: new(quota.AtMost(20 * quota.Credit)), DailyCost: &quota.Ceiling{Limit: money, Currency: "USD"},
		},
		MemberDefaults: quota.Caps{Credits: new(quota.AtMost(15 * quota.Credit)), Queued: new(quota.AtMost(int32(3)))},
	}
	if diff := cmp.Diff(team, l.Above[0].Account.Team); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if u := f.usage("alice"); u.Above[0] == nil || u.Above[1] == nil || u.Above[1].ID != root ||
		cmp.Diff(team, u.Above[0].Team) != "" {
		t.Errorf("the standing has %v above it", u.Above)
	}
}

// Whoever is moved between two batches is locked with whoever is above it then, and what it holds with those that it is
// booked on.
func TestMovedBetweenBatches(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice := f.register("alice")
	one, other := f.team(8, "one", nil, ""), f.team(9, "other", nil, "")
	id := quota.ID{1}
	keys := ledger.Keys{Accounts: []quota.AccountID{alice}, Admissions: []quota.AdmissionID{id}}
	for _, team := range []quota.AccountID{one, other, one} {
		f.hang(alice, team)
		if l := f.load(keys); l.Above[0].Account.ID != team {
			t.Fatalf("above alice: %s, want %s", l.Above[0].Account.ID, team)
		}
	}
	f.enter(alice, id, quota.Credit)
	f.hang(alice, other)
	l := f.load(keys)
	on, err := l.ChainOf(l.Admissions[id])
	if err != nil || on.Accounts()[1].ID != one || l.Chain().Accounts()[1].ID != other {
		t.Errorf("booked on %v, below %v: %v", on.Accounts(), l.Chain().Accounts(), err)
	}
	f.hang(alice, quota.AccountID{})
	if l := f.load(ledger.Keys{Accounts: []quota.AccountID{alice}}); l.Above[0] != nil {
		t.Errorf("above alice: %v", l.Above)
	}
}

// Who is below a team that somebody else holds is busy, as who is held is.
func TestTeamThatIsHeld(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice, bob := f.register("alice"), f.register("bob")
	team := f.team(9, "team", nil, "")
	f.hang(alice, team)
	keys := ledger.Keys{Accounts: []quota.AccountID{alice, bob}}
	f.load(keys) // who is above alice is known from now on
	held, err := f.Begin(t.Context(), ledger.Keys{Accounts: []quota.AccountID{team}})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Rollback()
	b, err := f.Begin(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Rollback()
	if !b.Busy()[alice] || b.Ledgers()[alice] != nil || b.Busy()[bob] || b.Ledgers()[bob] == nil {
		t.Errorf("busy: %v, ledgers: %v", b.Busy(), b.Ledgers())
	}
	keys.Wait = true
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := f.Begin(ctx, keys); err == nil || errors.Is(err, ledger.ErrRetry) {
		t.Errorf("a batch that waits did not wait for the team: %v", err)
	}
}

// An account that is moved while a batch begins is looked for again, a few times: after that the whole batch is tried
// again, as after any conflict with others.
func TestMovedWhileABatchBegins(t *testing.T) {
	t.Parallel()
	f := newCorruptible(t) // of moves by rows the audit log does not tell
	alice := f.register("alice")
	teams := []quota.AccountID{f.team(7, "one", nil, ""), f.team(8, "another", nil, ""), f.team(9, "other", nil, "")}
	moves := 0
	for most, want := range map[int]error{3: nil, 1000: ledger.ErrRetry} {
		moves = 0
		s, err := ledgerdb.Open(t.Context(), f.dsn, postgres.Options{AllowUnsafe: true, Now: func() time.Time {
			// It is asked while a batch makes its statements, and once more when it has its locks.
			if moves < most {
				tag, err := f.Pool().Exec(t.Context(), `UPDATE usage_quotas SET member_of = $2 WHERE user_id IN (
					SELECT user_id FROM usage_quotas WHERE user_id = $1 FOR UPDATE SKIP LOCKED)`, alice,
					[16]byte(teams[(moves+1)%3]))
				if err != nil {
					t.Error(err)
				}
				moves += int(tag.RowsAffected())
			}
			return f.clock.read()
		}})
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.Begin(t.Context(), ledger.Keys{Accounts: []quota.AccountID{alice}})
		if !errors.Is(err, want) {
			t.Errorf("moved %d times: %v, want %v", moves, err, want)
		}
		if err == nil {
			if up := b.Ledgers()[alice].Above[0]; up == nil || up.Account.ID != teams[moves%3] {
				t.Errorf("above alice: %v", up)
			}
			b.Rollback()
		}
		s.Close()
	}
	// The audit log knows of none of these moves.
	f.exec("UPDATE usage_quotas SET member_of = NULL WHERE user_id = $1", alice)
}

// counting opens the database once more, by a store that counts how often the clock is asked for, which each try at a
// batch does anew.
func (f *fixture) counting() (store *ledgerdb.Store, asked *int) {
	f.t.Helper()
	asked = new(int)
	store, err := ledgerdb.Open(f.t.Context(), f.dsn, postgres.Options{AllowUnsafe: true, Now: func() time.Time {
		*asked++
		return f.clock.read()
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	ledgertest.Close(f.t, store)
	return store, asked
}

// Who has been located, or whose standing was read, is locked with all above it by the first batch: it begins once.
func TestFirstBatchOfAUserThatWasReadBeginsOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice, desk, newsroom := f.register("alice"), f.team(7, "desk", nil, ""), f.team(8, "newsroom", nil, "")
	f.hang(alice, desk)
	f.hang(desk, newsroom)
	root := f.team(9, "platform", nil, "is_root = true")
	f.load(ledger.Keys{Accounts: []quota.AccountID{alice}}) // it is moved below the root
	for name, find := range map[string]func(s *ledgerdb.Store) (account, top quota.AccountID, err error){
		"located": func(s *ledgerdb.Store) (account, top quota.AccountID, err error) {
			return s.Locate(t.Context(), "alice")
		},
		"read": func(s *ledgerdb.Store) (account, top quota.AccountID, err error) {
			all, err := s.Accounts(t.Context(), []string{"alice"})
			u := all["alice"]
			return u.Account.ID, u.Top(), err
		},
	} {
		s, asked := f.counting()
		account, top, err := find(s)
		if err != nil || account != alice || top != root {
			t.Fatalf("%s as %s below %s: %v, want %s below %s", name, account, top, err, alice, root)
		}
		var tries [2]int
		for i := range tries {
			*asked = 0
			b, err := s.Begin(t.Context(), ledger.Keys{Accounts: []quota.AccountID{alice}})
			if err != nil {
				t.Fatal(err)
			}
			b.Rollback()
			tries[i] = *asked
		}
		if tries[0] != tries[1] {
			t.Errorf("%s: the clock was asked for %d times at first, then %d times: the first batch begins twice", name,
				tries[0], tries[1])
		}
	}
	if _, _, err := f.Locate(t.Context(), "nobody"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("nobody is located: %v", err)
	}
}

// What a batch below a root needs is known to those of others that follow, whoever they are of.
func TestFirstBatchBelowTheRootBeginsOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice, bob, carol, dave := f.register("alice"), f.register("bob"), f.register("carol"), f.register("dave")
	root := f.team(9, "platform", nil, "is_root = true")
	s, asked := f.counting()
	// begin returns how often the clock is asked for.
	begin := func(account, top quota.AccountID) int {
		t.Helper()
		*asked = 0
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		b, err := s.Begin(ctx, ledger.Keys{Accounts: []quota.AccountID{account}, Wait: true})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Rollback()
		if l := b.Ledgers()[account]; l == nil || l.Top() != top {
			t.Errorf("account %s has not %s on top", account, top)
		}
		return *asked
	}
	first, once := begin(alice, root), begin(alice, root)
	if first <= once {
		t.Errorf("the clock was asked for %d times at first, then %d times: the first of all begins twice", first, once)
	}
	if got := begin(bob, root); got != once {
		t.Errorf("the clock was asked for %d times, want %d, as in one try", got, once)
	}
	f.exec("UPDATE teams SET retired = true WHERE id = $1", [16]byte(root))
	begin(carol, carol)
	// Nobody waits for a root that is above nobody any more.
	held, err := f.Begin(t.Context(), ledger.Keys{Accounts: []quota.AccountID{root}, Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Rollback()
	begin(dave, dave)
}
