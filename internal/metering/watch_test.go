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
	// most is the largest number of accounts that was asked for at once.
	most atomic.Int64
}

func (c *counting) Changes(ctx context.Context, known metering.Versions) (metering.VersionChanges, error) {
	c.changes.Add(1)
	c.most.Store(max(c.most.Load(), int64(len(known.Accounts))))
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

// watching are some users who are watched.
type watching struct {
	t       *testing.T
	store   *counting
	service *metering.Service
	*metering.Watcher
}

func newWatching(t *testing.T, users ...string) *watching {
	t.Helper()
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
	var registered sync.WaitGroup
	for _, user := range users {
		registered.Go(func() {
			if _, err := service.Account(t.Context(), user, true); err != nil {
				t.Error(err)
			}
		})
	}
	registered.Wait()
	w := &watching{t: t, store: store, service: service, Watcher: metering.NewWatcher(service, used())}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return w
}

func (w *watching) watch(user string) *metering.Watch {
	return w.Watch(quota.Level{Kind: quota.LevelUser, Name: user})
}

func (w *watching) sees(watch *metering.Watch, want string) {
	w.t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case <-watch.Changed():
			if frame, _, err := watch.Look(); err == nil && frame.ID == want {
				return
			}
		case <-late:
			frame, _, err := watch.Look()
			w.t.Fatalf("sees %+v, %v, want %s", frame, err, want)
		}
	}
}

// charge charges a user a credit, and returns what the user has used then, as it is shown.
func (w *watching) charge(user string) string {
	w.t.Helper()
	adjusted, err := w.service.Adjust(w.t.Context(), metering.AdjustRequest{
		UserID: user, Key: "k", Credits: quota.WholeCredits(1), Reason: "r", Actor: "test", BodyHash: []byte{1},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprint("used ", adjusted.On.User().Used)
}

// polls waits until changes were asked for so many times more.
func (w *watching) polls(n int64) {
	for until := w.store.changes.Load() + n; w.store.changes.Load() < until; {
		time.Sleep(10 * time.Millisecond)
	}
}

// Many who watch one user cost one read, and those who watch others none when nothing happens to these.
func TestWatchersShareTheirReads(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "alice", "bob")
	var alices, bobs []*metering.Watch
	for range 50 {
		alices, bobs = append(alices, w.watch("alice")), append(bobs, w.watch("bob"))
	}
	for i := range alices {
		w.sees(alices[i], "used 0")
		w.sees(bobs[i], "used 0")
	}
	if got := w.Watched(); got != 2 {
		t.Errorf("%d are watched", got)
	}
	// What is new is read once more, when its version is asked for the first time.
	w.polls(3)
	before := w.store.users.Load()
	now := w.charge("alice")
	for _, alice := range alices {
		w.sees(alice, now)
	}
	for _, bob := range bobs {
		select {
		case <-bob.Changed():
			t.Error("one who watches bob is told of alice")
		default:
		}
	}
	if got := w.store.users.Load() - before; got > 2 {
		t.Errorf("50 who watch had %d standings read", got)
	}
	for i := range alices {
		alices[i].Stop()
		bobs[i].Stop()
	}
	if got := w.Watched(); got != 0 {
		t.Errorf("%d are watched when nobody does", got)
	}
}

// Where many are watched, a part of them is asked for at once, each in its turn.
func TestWatchersAskInParts(t *testing.T) {
	t.Parallel()
	const all = 2100 // four parts
	users := make([]string, all)
	for i := range users {
		users[i] = fmt.Sprintf("user-%d", i)
	}
	w := newWatching(t, users...)
	watches := make([]*metering.Watch, all)
	for i, user := range users {
		watches[i] = w.watch(user)
	}
	for _, watch := range watches {
		w.sees(watch, "used 0")
	}
	w.polls(6) // that each is asked for once is behind us
	w.store.most.Store(0)
	w.polls(6)
	if most := w.store.most.Load(); most > all/2 {
		t.Errorf("%d of %d were asked for at once", most, all)
	}
	for i := 0; i < all; i += all / 7 {
		w.sees(watches[i], w.charge(users[i]))
	}
}
