// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// faulty is a real store whose transactions fail where a test says so.
type faulty struct {
	storage
	mu sync.Mutex
	// before the batch begins, and instead of or after its commit; nil means no fault.
	begin  func(ledger.Keys) error
	commit func(keys ledger.Keys, really func() error) error
	begun  []ledger.Keys
	// others stands in for Others; nil means the database's.
	others func() int
	// notified is told of what other processes are; nil means that they are.
	notified func([]ledger.Change)
}

func (f *faulty) Notify(ctx context.Context, changes []ledger.Change) error {
	if f.notified == nil || ctx.Err() != nil {
		return f.storage.Notify(ctx, changes)
	}
	f.notified(changes)
	return nil
}

func (f *faulty) Others(ctx context.Context) (int, error) {
	if f.others != nil {
		return f.others(), nil
	}
	return f.storage.Others(ctx)
}

func (f *faulty) Begin(ctx context.Context, keys ledger.Keys) (ledger.Batch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun = append(f.begun, keys)
	if f.begin != nil {
		if err := f.begin(keys); err != nil {
			return nil, err
		}
	}
	b, err := f.storage.Begin(ctx, keys)
	if err != nil {
		return nil, err
	}
	return &faultyBatch{Batch: b, store: f, keys: keys}, nil
}

type faultyBatch struct {
	ledger.Batch
	store *faulty
	keys  ledger.Keys
}

func (b *faultyBatch) Commit(ctx context.Context) error {
	really := func() error { return b.Batch.Commit(ctx) }
	if b.store.commit == nil {
		return really()
	}
	return b.store.commit(b.keys, really)
}

// times fails the first n times with err, whoever calls.
func times(n int32, err error) func() error {
	var called atomic.Int32
	return func() error {
		if called.Add(1) <= n {
			return err
		}
		return nil
	}
}

func TestEngineTriesAgain(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*faulty){
		"serialization failure": func(f *faulty) {
			fail := times(3, ledger.ErrRetry)
			f.begin = func(ledger.Keys) error { return fail() }
		},
		"commit did not happen": func(f *faulty) {
			fail := times(2, ledger.ErrUnknownOutcome)
			f.commit = func(_ ledger.Keys, really func() error) error {
				if err := fail(); err != nil {
					return err
				}
				return really()
			}
		},
		"commit happened and nobody heard of it": func(f *faulty) {
			fail := times(2, ledger.ErrUnknownOutcome)
			f.commit = func(_ ledger.Keys, really func() error) error {
				return errors.Join(really(), fail())
			}
		},
	}
	for name, inject := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &faulty{}
			w := newWorldOn(t, f)
			inject(f)
			res := w.admit("alice", "k", 10*quota.Credit)
			if res.Admission == nil || res.Admission.State != quota.Admitted {
				t.Fatalf("got %+v", res)
			}
			inject(f)
			if _, err := w.Complete(t.Context(), quota.ID{}, res.Admission.ID, 6*quota.Credit); err != nil {
				t.Fatal(err)
			}
			w.wantUsage("alice", 6*quota.Credit, 0, 0)
		})
	}
}

func TestEngineIsolatesTheCallThatTheDatabaseRefuses(t *testing.T) {
	t.Parallel()
	f := &faulty{}
	w := newWorldOn(t, f)
	bad := w.register("bad")
	hasBad := func(k ledger.Keys) bool { return slices.Contains(k.Accounts, bad) }
	var users []string
	for i := range 20 {
		users = append(users, fmt.Sprintf("user-%d", i))
		w.register(users[i])
	}
	f.commit = func(k ledger.Keys, really func() error) error {
		if hasBad(k) {
			return fmt.Errorf("%w: by the test", ledger.ErrData)
		}
		return really()
	}
	var wg sync.WaitGroup
	for _, user := range append(users, "bad") {
		wg.Go(func() {
			_, err := w.Admit(t.Context(), request(user, "k", quota.Credit))
			if got := errors.Is(err, ledger.ErrData); got != (user == "bad") || (err != nil && user != "bad") {
				t.Errorf("%s: %v", user, err)
			}
		})
	}
	wg.Wait()
	f.commit = nil
	w.wantUsage("bad", 0, 0, 0)
}

func TestEngineLetsBystandersPassABusyAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	busy := w.register("busy")
	holder, err := w.store.Begin(t.Context(), ledger.Keys{Accounts: []quota.AccountID{busy}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	for i := range 2 {
		go func() {
			_, err := w.Admit(t.Context(), request("busy", fmt.Sprint(i), quota.Credit))
			done <- err
		}()
	}
	for i := range 10 {
		w.admit(fmt.Sprintf("bystander-%d", i), "k", quota.Credit)
	}
	select {
	case err := <-done:
		t.Fatalf("a call got past another transaction's lock: %v", err)
	default:
	}
	holder.Rollback()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if a := w.usage("busy").Account; a.Active != 1 || a.Queued != 1 {
		t.Errorf("got %d active, %d queued", a.Active, a.Queued)
	}
}

// TestEngineMovesWhatIsHeld has a batch find alice in a team that the engine did not know of, run again, and then meet
// somebody who holds her: her calls wait for the lock.
func TestEngineMovesWhatIsHeld(t *testing.T) {
	t.Parallel()
	f := &faulty{}
	w := newWorldOn(t, f)
	alice := w.register("alice")
	if _, err := w.ApplyTeam(t.Context(), capped("newsroom", ""), "test"); err != nil {
		t.Fatal(err)
	}
	if err := w.AddMember(t.Context(), "newsroom", "alice", tester); err != nil {
		t.Fatal(err)
	}
	engine := ledger.New(f, ledger.Options{Lanes: 1})
	look := ledger.Op{Account: alice, Apply: func(*ledger.Ledger, ledger.Batch) error { return nil }}
	var holder ledger.Batch
	var behind *ledger.Call
	var batches int
	f.begin = func(keys ledger.Keys) (err error) {
		batches++
		switch {
		case batches == 2:
			if behind, err = engine.Start(t.Context(), look); err == nil {
				holder, err = f.storage.Begin(t.Context(), ledger.Keys{Accounts: []quota.AccountID{alice}})
			}
		case keys.Wait:
			holder.Rollback()
		}
		return err
	}
	f.commit = func(_ ledger.Keys, really func() error) error {
		if batches == 1 {
			return ledger.ErrRetry
		}
		return really()
	}
	if err := engine.Do(t.Context(), look); err != nil {
		t.Error(err)
	}
	if err := behind.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	engine.Drain()
}

func TestEngineRefusesMoreThanItCanHold(t *testing.T) {
	t.Parallel()
	f := &faulty{}
	w := newWorldOn(t, f)
	w.register("alice")
	small := newServiceOn(f, ledger.Options{Lanes: 1, MaxPending: 2}, metering.Options{})
	release := make(chan struct{})
	begun := make(chan struct{}, 1)
	f.begin = func(ledger.Keys) error {
		select {
		case begun <- struct{}{}:
		default:
		}
		<-release
		return nil
	}
	results := make(chan error, 8)
	ask := func(i int) {
		_, err := small.Admit(t.Context(), request("alice", fmt.Sprint(i), quota.Credit))
		results <- err
	}
	go ask(0)
	<-begun
	for i := 1; i < 8; i++ {
		go ask(i)
	}
	// One runs, two wait: the other five are turned away at once, before anything is released.
	for range 5 {
		if err := <-results; !errors.Is(err, ledger.ErrOverloaded) {
			t.Errorf("want ErrOverloaded, got %v", err)
		}
	}
	close(release)
	for range 3 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestEngineKeepsAnAccountsCallsInOneBatchAtATime(t *testing.T) {
	t.Parallel()
	f := &faulty{}
	w := newWorldOn(t, f)
	users := []string{"alice", "bob", "carol"}
	for _, user := range users {
		w.register(user)
	}
	wide := newServiceOn(f, ledger.Options{Lanes: 8, MaxBatch: 3}, metering.Options{})
	var mu sync.Mutex
	running := map[quota.ID]bool{}
	f.begin = func(k ledger.Keys) error {
		mu.Lock()
		defer mu.Unlock()
		for _, id := range k.Accounts {
			if running[id] {
				t.Errorf("account %x is in two batches at once", id)
			}
			running[id] = true
		}
		if len(k.Accounts) > 3 || len(k.Admissions) > 3 {
			t.Errorf("a batch of %d accounts and %d admissions", len(k.Accounts), len(k.Admissions))
		}
		return nil
	}
	f.commit = func(k ledger.Keys, really func() error) error {
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			for _, id := range k.Accounts {
				delete(running, id)
			}
		}()
		return really()
	}
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			if _, err := wide.Admit(t.Context(), request(users[i%3], fmt.Sprint(i), quota.Credit)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestEngineFinishesWhatItsCallerLeft(t *testing.T) {
	t.Parallel()
	f := &faulty{}
	w := newWorldOn(t, f)
	w.register("alice")
	ctx, cancel := context.WithCancel(t.Context())
	begun, release := make(chan struct{}), make(chan struct{})
	f.begin = func(ledger.Keys) error {
		close(begun)
		<-release
		return nil
	}
	left := make(chan error)
	go func() {
		_, err := w.Admit(ctx, request("alice", "k", quota.Credit))
		left <- err
	}()
	<-begun
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("want the caller let go, got %v", err)
	}
	f.begin = nil
	close(release)
	if res := w.admit("alice", "k", quota.Credit); res.Created {
		t.Error("the call of the caller who left did not take effect")
	}
	w.wantUsage("alice", 0, quota.Credit, 1)
}

// Who does not wait for the answer gets none, also of an operation that has been applied and not committed: it may be
// applied once more.
func TestNoAnswerIsGivenBeforeTheCommit(t *testing.T) {
	t.Parallel()
	type gate struct{ applied, release chan struct{} }
	var next atomic.Pointer[gate]
	w := newWorldOn(t, &faulty{commit: func(_ ledger.Keys, really func() error) error {
		if g := next.Swap(nil); g != nil {
			close(g.applied)
			<-g.release
		}
		return really()
	}})
	alice := w.register("alice")
	adm := w.admit("alice", "k", quota.Credit).Admission
	charge := w.record(use("alice", "charge", 1)).Event
	calls := []struct {
		name string
		call func(context.Context) (answer any, err error)
		none any
	}{
		{"heartbeat", func(ctx context.Context) (any, error) {
			return w.Heartbeat(ctx, alice, adm.ID)
		}, (*ledger.Admission)(nil)},
		{"record", func(ctx context.Context) (any, error) {
			return w.Record(ctx, use("alice", "other", 1))
		}, metering.RecordResult{}},
		{"adjust", func(ctx context.Context) (any, error) {
			return w.Adjust(ctx, metering.AdjustRequest{
				UserID: "alice", Key: "adjust", Credits: quota.Credit, Reason: "test", Actor: "test"})
		}, metering.RecordResult{}},
		{"reverse", func(ctx context.Context) (any, error) {
			return w.Reverse(ctx, metering.ReverseRequest{
				Account: alice, Event: charge.ID, Key: "reverse", Reason: "test", Actor: "test"})
		}, metering.RecordResult{}},
		{"complete", func(ctx context.Context) (any, error) {
			return w.Complete(ctx, alice, adm.ID, quota.Credit)
		}, (*ledger.Admission)(nil)},
	}
	for _, c := range calls {
		ctx, cancel := context.WithCancel(t.Context())
		g := &gate{applied: make(chan struct{}), release: make(chan struct{})}
		next.Store(g)
		type answer struct {
			found any
			err   error
		}
		left := make(chan answer)
		go func() {
			found, err := c.call(ctx)
			left <- answer{found, err}
		}()
		<-g.applied
		cancel()
		got := <-left
		close(g.release)
		if !errors.Is(got.err, context.Canceled) || !reflect.DeepEqual(got.found, c.none) {
			t.Errorf("%s: %+v, %v; want nothing and that the context ended", c.name, got.found, got.err)
		}
	}
	if got := w.admit("alice", "k", quota.Credit).Admission.State; got != quota.Settled {
		t.Errorf("the admission is %s after all of them", got)
	}
	w.wantUsage("alice", 3*quota.Credit, 0, 0)
}

// TestRunEndsWhileCallsArrive is for the race detector: a process drains while its last requests come in.
func TestRunEndsWhileCallsArrive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register("alice")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	var calls sync.WaitGroup
	for i := range 8 {
		calls.Go(func() {
			for j := range 10 {
				if _, err := w.Admit(t.Context(), request("alice", fmt.Sprint(i, j), quota.Credit)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	calls.Wait()
}

// What the last batches of a process have changed the others are told before it ends, though it is at its end already.
func TestRunTellsOfItsLastBatches(t *testing.T) {
	t.Parallel()
	f := &faulty{}
	w := newWorldOn(t, f)
	running, waiting := w.admit("alice", "running", quota.Credit), w.admit("alice", "waiting", quota.Credit)
	ctx, cancel := context.WithCancel(t.Context())
	var told []ledger.Change
	f.notified = func(changes []ledger.Change) { told = append(told, changes...) }
	f.commit = func(_ ledger.Keys, really func() error) error {
		cancel()
		return really()
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	if _, err := w.Complete(t.Context(), quota.ID{}, running.Admission.ID, quota.Credit); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !slices.ContainsFunc(told, func(c ledger.Change) bool {
		return c == (ledger.Change{}) || c.ID == waiting.Admission.ID
	}) {
		t.Errorf("told of %v, want what waited to be among it, or that something was missed", told)
	}
}
