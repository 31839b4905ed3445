// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Many who ask at once are answered from shared snapshots, each with the standing of its own user.
func TestChecksAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const users = 20
	for i := range users {
		if _, err := w.Admit(t.Context(),
			request(fmt.Sprintf("user-%d", i), "k", quota.Credits(i+1)*quota.Credit)); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for n := range 400 {
		wg.Go(func() {
			i := n % users
			res, err := w.Check(t.Context(), fmt.Sprintf("user-%d", i), quota.Request{Estimate: quota.Credit}, 0)
			if err != nil || res.On.User().UserID != fmt.Sprintf("user-%d", i) ||
				res.On.User().Reserved != quota.Credits(i+1)*quota.Credit {
				t.Errorf("user-%d: %+v, %v", i, res.On.User(), err)
			}
		})
	}
	wg.Wait()
}

// An account that cannot be read fails whoever asks for it, and nobody else.
func TestCheckBesideABrokenAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, user := range []string{"alice", "mallory"} {
		if _, err := w.Admit(t.Context(), request(user, "k", quota.Credit)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.open(t).Pool().Exec(t.Context(), `UPDATE usage_quotas SET time_zone = 'Nowhere/Land'
		WHERE user_id = (SELECT id FROM users WHERE user_id = 'mallory')`); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for n := range 100 {
		wg.Go(func() {
			user := []string{"alice", "mallory"}[n%2]
			_, err := w.Check(t.Context(), user, quota.Request{Estimate: quota.Credit}, 0)
			if (err != nil) != (user == "mallory") || errors.Is(err, ledger.ErrUnavailable) {
				t.Errorf("%s: %v", user, err)
			}
		})
	}
	wg.Wait()
	if _, err := w.open(t).Pool().Exec(t.Context(), `UPDATE usage_quotas SET time_zone = 'UTC'`); err != nil {
		t.Fatal(err)
	}
}
