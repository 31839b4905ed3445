// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"slices"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Whoever asks what has changed since a mark hears of those whose account or plan was written since, in whatever order
// the transactions ended, and of nobody else.
func TestQuotaChanges(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	accounts := map[string]quota.ID{}
	for i, user := range []string{"alice", "bob", "carol"} {
		accounts[user] = f.register(user)
		f.declare(accounts[user], func(l *ledger.Ledger) { l.Settings.QuotaUID = quota.ID{byte(i + 1)} })
	}
	f.register("dora") // has no UserQuota
	var mark ledger.Mark
	ask := func(everything bool, owned int, users ...string) {
		t.Helper()
		got, err := f.QuotaChanges(t.Context(), mark)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(got.Users)
		if got.Everything != everything || got.Owned != owned || !slices.Equal(got.Users, users) ||
			!got.Now.Equal(f.clock.read()) {
			t.Errorf("got %+v, want everything %t, %d owned, %v", got, everything, owned, users)
		}
		mark = got.Mark
	}
	// quiet waits for the end of what other tests do at this moment, until when the same are named again.
	quiet := func(owned int) {
		t.Helper()
		for {
			got, err := f.QuotaChanges(t.Context(), mark)
			if err != nil || got.Everything || got.Owned != owned {
				t.Fatalf("got %+v, %v, want some of %d", got, err, owned)
			}
			mark = got.Mark
			if len(got.Users) == 0 {
				return
			}
		}
	}
	all := []string{"alice", "bob", "carol"}
	ask(true, 3, all...)
	quiet(3)
	f.enter(accounts["alice"], quota.ID{1}, quota.Credit)
	f.enter(f.register("erin"), quota.ID{2}, quota.Credit)
	ask(false, 3, "alice")
	quiet(3)

	// One that was under way at the mark, and commits after others.
	tx, err := f.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "UPDATE usage_quotas SET time_zone = time_zone WHERE user_id = $1",
		accounts["bob"]); err != nil {
		t.Fatal(err)
	}
	f.settle(accounts["alice"], quota.ID{1}, quota.Credit)
	ask(false, 3, "alice")
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	ask(false, 3, "alice", "bob")
	quiet(3)

	changed := plan("free")
	changed.Limits.Credits = quota.AtMost(1000 * quota.Credit)
	if err := f.ApplyPlan(t.Context(), changed, "test"); err != nil {
		t.Fatal(err)
	}
	ask(false, 3, all...)
	f.declare(accounts["carol"], func(l *ledger.Ledger) { l.Settings.QuotaUID = quota.ID{} })
	quiet(2)

	// Another server, or one whose transactions are not those of the mark.
	mark.Server = "another"
	ask(true, 2, "alice", "bob")
	mark.Transaction += 1_000_000
	ask(true, 2, "alice", "bob")
}
