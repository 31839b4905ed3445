// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/cutproxy"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

// The faults of this file are the real database's own, provoked from a second connection or on the way to it. Where a
// test puts something between service and store, that only holds a moment still.

// answered bounds how long any caller may wait for an answer, whatever is broken, on a slow machine.
const answered = 40 * time.Second

// outsider is a connection that does not belong to the service.
type outsider struct {
	*pgx.Conn
	t *testing.T
}

func (w *world) outsider() *outsider {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return &outsider{Conn: conn, t: w.t}
}

func (o *outsider) exec(sql string, args ...any) {
	o.t.Helper()
	if _, err := o.Exec(o.t.Context(), sql, args...); err != nil {
		o.t.Fatalf("%s: %v", sql, err)
	}
}

// until asks the database again and again whether something has come about.
func (o *outsider) until(sql string, args ...any) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), answered)
	defer cancel()
	for there := false; !there; {
		if err := o.QueryRow(ctx, "SELECT EXISTS ("+sql+")", args...).Scan(&there); err != nil {
			o.t.Fatalf("%s: %v", sql, err)
		}
	}
}

const waitsForLock = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' " +
	"AND query LIKE $1"

// admitAll admits for each user at once and wants every answer to be an admission, within bounded time.
func (w *world) admitAll(s *metering.Service, users int, key string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), answered)
	defer cancel()
	var wg sync.WaitGroup
	for i := range users {
		wg.Go(func() {
			res, err := s.Admit(ctx, request(fmt.Sprintf("user-%d", i), key, quota.Credit))
			if err != nil || res.Admission == nil || res.Admission.State != quota.Admitted {
				w.t.Errorf("user-%d: %+v, %v", i, res.Decision, err)
			}
		})
	}
	wg.Wait()
}

func TestDeadlockIsRunAgain(t *testing.T) {
	t.Parallel()
	f := &faulty{}
	w := newWorldOn(t, f)
	w.quota(metering.Quota{ObjectUID: quota.ID{1}, ObjectName: "alice", UserID: "alice", Zone: "UTC",
		Grants: map[string]metering.Grant{
			"gift": {Credits: 5 * quota.Credit},
		}})
	alice := w.register("alice")
	other := w.outsider()
	// The outsider takes the locks in the other order, and does not find out itself.
	other.exec("SET deadlock_timeout = '1min'")
	other.exec("BEGIN")
	other.exec("SELECT FROM credit_lots WHERE user_id = $1 FOR UPDATE", alice)
	reversed := make(chan error, 1)
	var commits int
	f.commit = func(_ ledger.Keys, really func() error) error {
		if commits++; commits > 1 {
			return really()
		}
		go func() {
			_, err := other.Exec(t.Context(), "UPDATE usage_quotas SET suspended = suspended WHERE user_id = $1", alice)
			reversed <- errors.Join(err, rollback(t, other.Conn))
		}()
		w.outsider().until(waitsForLock, "UPDATE usage_quotas SET suspended%")
		err := really()
		if !errors.Is(err, ledger.ErrRetry) {
			t.Errorf("the server found no deadlock: %v", err)
		}
		return err
	}
	// More than the plan gives, so that it takes from the grant's row.
	if res := w.admit("alice", "k", 32*quota.Credit); res.Admission == nil || res.Admission.State != quota.Admitted {
		t.Errorf("got %+v", res.Decision)
	}
	if err := <-reversed; err != nil {
		t.Errorf("the outsider: %v", err)
	}
	// The second run passes the account by if the outsider still holds it, and a third one waits for it.
	if commits < 2 {
		t.Errorf("the batch was run %d times, not again", commits)
	}
	w.wantUsage("alice", 0, 32*quota.Credit, 1)
}

func rollback(t *testing.T, conn *pgx.Conn) error {
	t.Helper()
	_, err := conn.Exec(t.Context(), "ROLLBACK")
	return err
}

func TestSerializationFailureIsRunAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := w.outsider()
	// A sequence counts also what is rolled back.
	other.exec(`CREATE SEQUENCE failures;
		CREATE FUNCTION fail_twice() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF nextval('failures') <= 2 THEN RAISE SQLSTATE '40001'; END IF;
			RETURN NULL;
		END $$;
		CREATE TRIGGER fail_twice AFTER INSERT ON concurrent_processing EXECUTE FUNCTION fail_twice()`)
	w.admitAll(w.Service, 20, "k")
	var tries int
	if err := other.QueryRow(t.Context(), "SELECT last_value FROM failures").Scan(&tries); err != nil || tries < 3 {
		t.Errorf("want at least three tries, got %d, %v", tries, err)
	}
}

func TestBadRowFailsAlone(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]string{
		"of class 22": "not\xffUTF-8", // 22021, found by the server as it reads the parameter
		"of class 23": "refused",      // 23514, found as it writes the row
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			other := w.outsider()
			other.exec("ALTER TABLE concurrent_processing ADD CONSTRAINT test_check CHECK (name <> 'refused')")
			// One at a time, so that whatever comes while the first one waits for a lock goes together.
			s := newServiceOn(w.store, ledger.Options{Lanes: 1}, metering.Options{AutoRegister: true})
			const users = 24
			for i := range users {
				w.register(fmt.Sprintf("user-%d", i))
			}
			other.exec("BEGIN")
			other.exec("LOCK TABLE concurrent_processing IN ACCESS EXCLUSIVE MODE")
			var wg sync.WaitGroup
			for i := range users {
				wg.Go(func() {
					req := request(fmt.Sprintf("user-%d", i), "k", quota.Credit)
					if i%8 == 3 {
						req.Name = bad
					}
					res, err := s.Admit(t.Context(), req)
					switch {
					case i%8 == 3 && !errors.Is(err, ledger.ErrData):
						t.Errorf("user-%d: want the data refused, got %+v, %v", i, res.Decision, err)
					case i%8 != 3 && (err != nil || res.Admission == nil || res.Admission.State != quota.Admitted):
						t.Errorf("user-%d: %+v, %v", i, res.Decision, err)
					}
				})
			}
			w.outsider().until(waitsForLock, "%concurrent_processing%")
			other.exec("ROLLBACK")
			wg.Wait()
			w.wantUsage("user-3", 0, 0, 0)
		})
	}
}

// proxied is another replica of the world's service, that reaches the database through a proxy.
func (w *world) proxied(f *faulty) (*metering.Service, *cutproxy.Proxy) {
	w.t.Helper()
	u, err := url.Parse(w.dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	proxy, err := cutproxy.Start(u.Host)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = proxy.Close() })
	dsn, err := proxy.DSN(w.dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	store, err := ledgerdb.Open(w.t.Context(), dsn, postgres.Options{AllowUnsafe: true, Now: w.now})
	if err != nil {
		w.t.Fatal(err)
	}
	ledgertest.Close(w.t, store)
	f.storage = store
	return newService(f, metering.Options{AutoRegister: true}), proxy
}

func TestConnectionLostAroundCommit(t *testing.T) {
	t.Parallel()
	for _, at := range []cutproxy.Point{cutproxy.BeforeCommit, cutproxy.DuringCommit, cutproxy.AfterCommit} {
		t.Run(at.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			replica, proxy := w.proxied(&faulty{})
			const users = 16
			for i := range users {
				w.register(fmt.Sprintf("user-%d", i))
			}
			for round := range 3 {
				cut := proxy.CutCommit(at)
				key := fmt.Sprint(round)
				w.retryAll(users, func(ctx context.Context, user string) error {
					res, err := replica.Admit(ctx, request(user, key, quota.Credit))
					if err == nil && (res.Admission == nil || res.Admission.State != quota.Admitted) {
						t.Errorf("%s: %+v", user, res.Decision)
					}
					return err
				})
				<-cut
				cut = proxy.CutCommit(at)
				w.retryAll(users, func(ctx context.Context, user string) error {
					id := quota.NameID("admission", w.register(user), key)
					_, err := replica.Complete(ctx, quota.ID{}, id, quota.Credit/2)
					return err
				})
				<-cut
				for i := range users {
					w.wantUsage(fmt.Sprintf("user-%d", i), quota.Credits(round+1)*quota.Credit/2, 0, 0)
				}
			}
		})
	}
}

// retryAll calls do for each user at once, again while the database cannot be reached, as a client would.
func (w *world) retryAll(users int, do func(ctx context.Context, user string) error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), answered)
	defer cancel()
	var wg sync.WaitGroup
	for i := range users {
		wg.Go(func() {
			err := do(ctx, fmt.Sprintf("user-%d", i))
			for errors.Is(err, ledger.ErrUnavailable) && ctx.Err() == nil {
				err = do(ctx, fmt.Sprintf("user-%d", i))
			}
			if err != nil {
				w.t.Errorf("user-%d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// TestClientThatStopsWithLocksHeld: a replica's host goes away between locking accounts and writing them. No packet
// tells the server, so it has to find out by itself.
func TestClientThatStopsWithLocksHeld(t *testing.T) {
	t.Parallel()
	f := &faulty{}
	w := newWorld(t)
	replica, proxy := w.proxied(f)
	w.register("alice")
	stalled := make(chan struct{})
	var once sync.Once
	f.commit = func(_ ledger.Keys, really func() error) error {
		once.Do(func() {
			proxy.Stall(true)
			close(stalled)
		})
		return really()
	}
	gone := make(chan error, 1)
	go func() {
		_, err := replica.Admit(t.Context(), request("alice", "gone", quota.Credit))
		gone <- err
	}()
	<-stalled
	w.outsider().until(
		"SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'")

	start := time.Now()
	w.admitAll(w.Service, 20, "k")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("bystanders were held up for %s", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), answered)
	defer cancel()
	if res, err := w.Admit(ctx, request("alice", "k", quota.Credit)); err != nil || res.Admission == nil {
		t.Errorf("alice: %+v, %v after %s", res.Decision, err, time.Since(start))
	}
	proxy.Stall(false)
	if err := <-gone; err != nil && !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("the replica that was away: %v", err)
	}
	// Whatever its caller was told, asking again settles it.
	w.admit("alice", "gone", quota.Credit)
	if a := w.usage("alice").Account; a.Active != 1 || a.Queued != 1 {
		t.Errorf("want one admitted and one queued, got %d and %d", a.Active, a.Queued)
	}
}

func TestEventsWithoutAPartition(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := w.outsider()
	// The world's clock is in a month that nobody has made a partition for.
	month := "usage_tracking_" + w.now().Format("200601")
	other.exec("DROP TABLE IF EXISTS " + month)
	res := w.admit("alice", "k", quota.Credit)
	if _, err := w.Complete(t.Context(), quota.ID{}, res.Admission.ID, quota.Credit); err != nil {
		t.Fatal(err)
	}
	w.wantUsage("alice", quota.Credit, 0, 0)
	other.until("SELECT FROM usage_tracking_default WHERE admission_id = $1", res.Admission.ID)
	other.exec("SELECT ensure_usage_partition($1)", w.now())
	other.until("SELECT FROM "+month+" WHERE admission_id = $1", res.Admission.ID)
}

func TestCancelledCallerDoesNotDisturbItsBatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newServiceOn(w.store, ledger.Options{Lanes: 1}, metering.Options{AutoRegister: true})
	const users = 12
	for i := range users {
		w.register(fmt.Sprintf("user-%d", i))
	}
	w.register("gone")
	other := w.outsider()
	other.exec("BEGIN")
	other.exec("LOCK TABLE concurrent_processing IN ACCESS EXCLUSIVE MODE")
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := s.Admit(ctx, request("gone", "k", quota.Credit))
		left <- err
	}()
	w.outsider().until(waitsForLock, "%concurrent_processing%")
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("want the caller let go at once, got %v", err)
	}
	other.exec("ROLLBACK")
	w.admitAll(s, users, "k")
	// Its call had been sent: it took effect, once.
	if res := w.admit("gone", "k", quota.Credit); res.Created || res.Admission.State != quota.Admitted {
		t.Errorf("got %+v", res)
	}
	w.wantUsage("gone", 0, quota.Credit, 1)
}

// TestAccountThatIsHeldForLong: somebody else, whom we cannot bound, holds an account.
func TestAccountThatIsHeldForLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice := w.register("alice")
	other := w.outsider()
	other.exec("BEGIN")
	other.exec("SELECT FROM usage_quotas WHERE user_id = $1 FOR UPDATE", alice)
	start := time.Now()
	told := make(chan error, 1)
	go func() {
		_, err := w.Admit(t.Context(), request("alice", "k", quota.Credit))
		told <- err
	}()
	w.outsider().until(waitsForLock, "%FOR NO KEY UPDATE%")
	w.admitAll(w.Service, 20, "k")
	if err := <-told; !errors.Is(err, ledger.ErrOverloaded) {
		t.Errorf("want the caller told to come back, got %v", err)
	}
	if took := time.Since(start); took > answered {
		t.Errorf("the caller waited for %s", took)
	}
	other.exec("ROLLBACK")
	w.wantUsage("alice", 0, 0, 0)
}
