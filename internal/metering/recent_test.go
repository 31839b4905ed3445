// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Who accepts an older answer is told of when it is; nobody else sees one.
func TestMaxAge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ask := func(maxAge time.Duration, queued int32) time.Time {
		t.Helper()
		res, err := w.Check(t.Context(), "alice", quota.Request{Estimate: quota.Credit}, maxAge)
		if err != nil || res.On.User().Queued != queued {
			t.Errorf("at most %s: got %+v, %v; want %d queued", maxAge, res.On.User(), err, queued)
		}
		return res.Now
	}
	admit := func(key string) {
		t.Helper()
		if _, err := w.Admit(t.Context(), request("alice", key, quota.Credit)); err != nil {
			t.Fatal(err)
		}
	}
	admit("first")
	first := ask(time.Minute, 0)
	admit("second")
	if again := ask(time.Minute, 0); !again.Equal(first) {
		t.Errorf("an older answer says that it is of %s, it is of %s", again, first)
	}
	if now := ask(0, 1); now.Before(first) {
		t.Errorf("the answer is of %s, before %s", now, first)
	}
	u, err := w.Recent(t.Context(), "alice", time.Minute)
	if err != nil || !u.Now.Equal(first) {
		t.Errorf("got %+v, %v; want the one of %s", u, err, first)
	}
}
