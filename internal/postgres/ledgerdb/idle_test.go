// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

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

// The pages of what waits have all of it once, each queue in the order in which it starts.
func TestWaitingIsReadInPages(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var want []*ledger.Admission
	for _, user := range []string{"alice", "bob", "carol"} {
		account := f.register(user)
		f.enter(account, quota.ID{user[0], 0xff}, 20*quota.Credit) // runs
		for n := range 9 {
			id := quota.ID{user[0], byte(n)}
			f.enter(account, id, quota.Credit+quota.Credits(n%3/2)*58*quota.Credit, func(a *ledger.Admission) {
				a.Priority = int32(n % 4)
				if n%2 == 0 {
					a.Source = quota.SourceJob
				}
			})
			adm, err := f.Admission(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, adm)
		}
	}
	slices.SortFunc(want, func(x, y *ledger.Admission) int {
		parked := func(a *ledger.Admission) int {
			if a.Parked {
				return 1
			}
			return 0
		}
		return cmp.Or(slices.Compare(x.Account[:], y.Account[:]), cmp.Compare(parked(x), parked(y)),
			ledger.QueueOrder(x, y))
	})
	ids := func(admissions []*ledger.Admission) (out []string) {
		for _, adm := range admissions {
			out = append(out, fmt.Sprintf("%s %x parked %t", adm.UserID, adm.ID[:2], adm.Parked))
		}
		return out
	}
	for _, size := range []int{1, 2, 5, 100} {
		var got []*ledger.Admission
		var after ledger.Turn
		for {
			page, err := f.Waiting(t.Context(), after, size)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
			last := page[len(page)-1]
			after.Account, after.Parked = last.Account, last.Parked
			after.Priority, after.Arrived = last.Priority, last.ArrivedSeq
		}
		if diff := gocmp.Diff(ids(want), ids(got)); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", size, diff)
		}
	}
	running, err := f.RunningJobs(t.Context(), quota.ID{})
	if err != nil || len(running) != 0 {
		t.Errorf("running Jobs: %v, %v", running, err)
	}
}
