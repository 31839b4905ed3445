// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/reset"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// world is a service over a database of the test's own, with a clock that the test moves. When the test ends, the
// ledger is checked against the invariants.
type world struct {
	*metering.Service
	t     *testing.T
	dsn   string
	store storage

	mu    sync.Mutex
	clock time.Time
}

// tester is who changes members in tests.
var tester = metering.By{Actor: "test"}

// storage is everything that the use cases ask of a database.
type storage interface {
	ledger.Store
	metering.Store
	reset.Store
	reports.Store
	access.Keys

	LiveJobs(ctx context.Context, cluster quota.ClusterUID) ([]*ledger.Admission, error)
}

func newService(store storage, opts metering.Options) *metering.Service {
	return newServiceOn(store, ledger.Options{}, opts)
}

func newServiceOn(store storage, engine ledger.Options, opts metering.Options) *metering.Service {
	return metering.New(ledger.New(store, engine), store, access.NewSigner(store), opts)
}

// newReset returns resets in a process of their own.
func newReset(store storage) *reset.Service {
	return reset.New(ledger.New(store, ledger.Options{}), store, nil)
}

func (w *world) reset(ctx context.Context, o reset.Options) (reset.Result, error) {
	return newReset(w.store).Run(ctx, o)
}

func (w *world) tryHistory(user string, before int64, limit int) (reports.History, error) {
	return reports.New(w.store, w.Service).History(w.t.Context(), user, before, limit)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, nil)
}

// newWorldOn puts f, if there is one, between the service and the store.
func newWorldOn(t *testing.T, f *faulty) *world {
	t.Helper()
	w := &world{t: t, dsn: ledgertest.New(t), clock: time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)}
	w.store = w.open(t)
	if f != nil {
		f.storage = w.store
		w.store = f
	}
	w.Service = newService(w.store, metering.Options{AutoRegister: true})
	for _, p := range []metering.Plan{plans.Free(), proPlan()} {
		if _, err := w.ApplyPlan(t.Context(), p, "test"); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func proPlan() metering.Plan {
	pro := plans.Free()
	pro.Name, pro.ObjectUID, pro.Default, pro.Rank = "pro", quota.ID{2}, false, 20
	pro.Limits.Credits, pro.Limits.Concurrent = quota.AtMost(500*quota.Credit), quota.AtMost(int32(5))
	return pro
}

// open opens the world's database once more, as another replica would, on the world's clock.
func (w *world) open(t *testing.T) *ledgerdb.Store {
	t.Helper()
	store, err := ledgerdb.Open(t.Context(), w.dsn, postgres.Options{AllowUnsafe: true, Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	ledgertest.Close(t, store)
	return store
}

func request(user, key string, estimate quota.Credits) metering.AdmitRequest {
	return metering.AdmitRequest{
		UserID: user, Key: key, BodyHash: []byte(user + estimate.String()), Source: quota.SourceAPI,
		RequestedBy: "test",
		Estimate:    estimate, FileSize: 1 << 20, Queue: true,
	}
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(d)
}

func (w *world) admit(user, key string, estimate quota.Credits) metering.AdmitResult {
	w.t.Helper()
	res, err := w.Admit(w.t.Context(), request(user, key, estimate))
	if err != nil {
		w.t.Fatalf("admit: %v", err)
	}
	return res
}

func (w *world) register(user string) quota.ID {
	w.t.Helper()
	id, err := ledgertest.Register(w.t.Context(), w.store, user, "")
	if err != nil {
		w.t.Fatalf("register: %v", err)
	}
	return id
}

func (w *world) plan(p metering.Plan) {
	w.t.Helper()
	if _, err := w.ApplyPlan(w.t.Context(), p, "test"); err != nil {
		w.t.Fatalf("apply plan: %v", err)
	}
}

func (w *world) quota(q metering.Quota) {
	w.t.Helper()
	if err := w.ApplyQuota(w.t.Context(), q, "test"); err != nil {
		w.t.Fatalf("apply quota: %v", err)
	}
}

func (w *world) settleJob(id quota.ID, fallback quota.Credits) {
	w.t.Helper()
	if _, err := w.SettleJob(w.t.Context(), id, fallback); err != nil {
		w.t.Fatalf("settle job: %v", err)
	}
}

func (w *world) reap() {
	w.t.Helper()
	if err := w.Reap(w.t.Context()); err != nil {
		w.t.Fatalf("reap: %v", err)
	}
}

func (w *world) usage(user string) ledger.Usage {
	w.t.Helper()
	u, err := w.Current(w.t.Context(), user)
	if err != nil {
		w.t.Fatalf("current: %v", err)
	}
	return u
}

func (w *world) wantUsage(user string, used, reserved quota.Credits, active int32) {
	w.t.Helper()
	a := w.usage(user).Account
	if a.Used != used || a.Reserved != reserved || a.Active != active {
		w.t.Errorf("%s: want %s used, %s reserved, %d active; got %s, %s, %d", user, used, reserved, active, a.Used,
			a.Reserved, a.Active)
	}
}

func (w *world) wantState(id quota.ID, want quota.State) {
	w.t.Helper()
	adm, err := w.Get(w.t.Context(), id)
	if err != nil {
		w.t.Fatalf("get: %v", err)
	}
	if adm.State != want {
		w.t.Errorf("admission %x: want %s, got %s (%s)", id[:2], want, adm.State, adm.Reason)
	}
}
