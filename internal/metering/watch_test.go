// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// counting counts what is asked of the store.
type counting struct {
	*ledgerdb.Store

	changes, users atomic.Int64
}

func (c *counting) Changes(ctx context.Context, known metering.Versions) (metering.VersionChanges, error) {
	c.changes.Add(1)
	return c.Store.Changes(ctx, known)
}

func (c *counting) Accounts(ctx context.Context, ids []string) (map[string]ledger.Usage, error) {
	c.users.Add(int64(len(ids)))
	return c.Store.Accounts(ctx, ids)
}

// used shows what a user has used.
func used() metering.Show {
	return metering.Show{
		Standing: func(s *metering.Standing) (metering.Frame, error) {
			return metering.Frame{ID: fmt.Sprint("used ", s.Account.Used), Body: []byte(s.Account.UserID)}, nil
		},
		Alert: func(*ledger.Alert) ([]byte, error) { return nil, nil },
	}
}

// Many who watch one user cost one read, and those who watch others none when nothing happens to these.
func TestWatchersShareTheirReads(t *testing.T) {
	t.Parallel()
	inner, err := ledgerdb.Open(t.Context(), ledgertest.New(t), postgres.Options{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(inner.Close)
	store := &counting{Store: inner}
	service := metering.New(ledger.New(store, ledger.Options{}), store, nil, metering.Options{AutoRegister: true})
	plan := plans.Full(func(p *metering.Plan) { p.Default, p.Version, p.Past, p.Retired = true, 0, nil, false })
	if _, err := service.ApplyPlan(t.Context(), plan, "test"); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"alice", "bob"} {
		if _, err := service.Account(t.Context(), user, true); err != nil {
			t.Fatal(err)
		}
	}
	watcher := metering.NewWatcher(service, used())
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { watcher.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	watch := func(user string) *metering.Watch {
		return watcher.Watch(quota.Level{Kind: quota.LevelUser, Name: user})
	}
	sees := func(w *metering.Watch, want string) {
		t.Helper()
		late := time.After(20 * time.Second)
		for {
			select {
			case <-w.Changed():
				if frame, _, err := w.Look(); err == nil && frame.ID == want {
					return
				}
			case <-late:
				frame, _, err := w.Look()
				t.Fatalf("sees %+v, %v, want %s", frame, err, want)
			}
		}
	}
	var alices, bobs []*metering.Watch
	for range 50 {
		alices, bobs = append(alices, watch("alice")), append(bobs, watch("bob"))
	}
	for i := range alices {
		sees(alices[i], "used 0")
		sees(bobs[i], "used 0")
	}
	if got := watcher.Watched(); got != 2 {
		t.Errorf("%d are watched", got)
	}
	// What is new is read once more, when its version is asked for the first time.
	settled := store.changes.Load() + 3
	for store.changes.Load() < settled {
		time.Sleep(10 * time.Millisecond)
	}
	before := store.users.Load()
	adjusted, err := service.Adjust(t.Context(), metering.AdjustRequest{
		UserID: "alice", Key: "k", Credits: quota.WholeCredits(1), Reason: "r", Actor: "test", BodyHash: []byte{1},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range alices {
		sees(w, fmt.Sprint("used ", adjusted.On.User().Used))
	}
	for _, w := range bobs {
		select {
		case <-w.Changed():
			t.Error("one who watches bob is told of alice")
		default:
		}
	}
	if got := store.users.Load() - before; got > 2 {
		t.Errorf("50 who watch had %d standings read", got)
	}
	for i := range alices {
		alices[i].Stop()
		bobs[i].Stop()
	}
	if got := watcher.Watched(); got != 0 {
		t.Errorf("%d are watched when nobody does", got)
	}
}
