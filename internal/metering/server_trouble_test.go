// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"errors"
	"fmt"
	"net/url"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// A server that answers, and answers that it cannot do its work, is away like one that does not answer: callers are
// told so, those whose plan says so get a ticket, and all is well again by itself once it can. Nothing is booked twice.
func TestServerThatCannotWork(t *testing.T) {
	for _, tc := range []struct {
		code, what string
		// shuts is false where only what meets the trouble is refused.
		shuts bool
	}{
		{"53100", "disk full", true},
		{"53200", "out of memory, or of locks", true},
		{"53400", "a limit of the configuration", true},
		{"55000", "not in a state to", true},
		{"57P03", "cannot connect now", true},
		{"58030", "input or output failed", true},
		{"F0000", "the configuration is broken", true},
		{"25006", "read-only transaction", false},
		{"0A000", "not on a standby", false},
		{"42501", "not allowed to", false},
		{"XX001", "a page is damaged", false},
	} {
		t.Run(tc.what, func(t *testing.T) {
			t.Parallel()
			o := newOutage(t)
			r := o.replica(10)
			r.knows("alice")
			root := o.outsider()
			root.exec(fmt.Sprintf(`CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS
				$$ BEGIN RAISE EXCEPTION '%s' USING ERRCODE = '%s'; END $$`, tc.what, tc.code))
			root.exec(
				`CREATE TRIGGER fails BEFORE INSERT ON concurrent_processing FOR EACH ROW EXECUTE FUNCTION fails()`)

			// A user whom this replica has not served gets no ticket.
			root.register("bob")
			if _, err := r.Admit(t.Context(), request("bob", "b", quota.Credit)); !errors.Is(err,
				ledger.ErrUnavailable) {
				t.Errorf("Admit = %v, want ErrUnavailable", err)
			}
			ticket := r.ticket("alice", "a", quota.Credit)
			if tc.shuts {
				// With nobody who could write, the gate is shut most of the time.
				eventually(t, func() bool {
					_, err := r.Admit(t.Context(), request("bob", "b", quota.Credit))
					return errors.Is(err, ledger.ErrUnavailable) &&
						errors.Is(r.store.Ping(t.Context()), ledger.ErrUnavailable)
				})
			}
			if n := count(t, o.dsn, `SELECT count(*) FROM concurrent_processing WHERE state <> 'Released'`); n != 0 {
				t.Errorf("%d admissions were booked", n)
			}
			root.exec(`DROP TRIGGER fails ON concurrent_processing`)
			eventually(t, func() bool {
				_, err := r.Admit(t.Context(), request("bob", "b", quota.Credit))
				return err == nil
			})
			for range 2 {
				r.complete(ticket, quota.Credit)
			}
			if n := count(t, o.dsn, `SELECT count(*) FROM usage_tracking`); n != 1 {
				t.Errorf("%d charges, want 1", n)
			}
			o.wantUsage("bob", 0, quota.Credit, 1)
		})
	}
}

func (o *outsider) register(user string) {
	o.t.Helper()
	store, err := ledgerdb.Open(o.t.Context(), o.Config().ConnString(), postgres.Options{AllowUnsafe: true})
	if err != nil {
		o.t.Fatal(err)
	}
	defer store.Close()
	if _, err := ledgertest.Register(o.t.Context(), store, user, ""); err != nil {
		o.t.Fatal(err)
	}
}

// A server on which nothing can be written is away, also for those whose connections it goes on to serve.
func TestReadOnlyServer(t *testing.T) {
	o := newOutage(t)
	r := o.replica(10)
	r.knows("alice")
	root := o.outsider()
	u, err := url.Parse(o.dsn)
	if err != nil {
		t.Fatal(err)
	}
	database := pgx.Identifier{u.Path[1:]}.Sanitize()
	root.exec("SET default_transaction_read_only = off")
	root.exec("ALTER DATABASE " + database + " SET default_transaction_read_only = on")
	o.proxy.CutAll()
	ticket := r.ticket("alice", "a", quota.Credit)
	eventually(t, func() bool { return errors.Is(r.store.Ping(t.Context()), ledger.ErrUnavailable) })
	if _, err := ledgerdb.Open(t.Context(), o.dsn, postgres.Options{AllowUnsafe: true}); !errors.Is(err,
		ledger.ErrUnavailable) {
		t.Errorf("Open = %v, want ErrUnavailable", err)
	}
	root.exec("ALTER DATABASE " + database + " RESET default_transaction_read_only")
	eventually(t, func() bool { return r.store.Ping(t.Context()) == nil })
	r.complete(ticket, quota.Credit)
	o.wantUsage("alice", quota.Credit, 0, 0)
}

// While others can write, the trouble of one is not everybody's.
func TestOneThatCannotWriteShutsNobodyOut(t *testing.T) {
	o := newOutage(t)
	r := o.replica(10)
	root := o.outsider()
	root.exec(`CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN IF NEW.estimate = 60000 THEN
			RAISE EXCEPTION 'no room' USING ERRCODE = '58030'; END IF; RETURN NEW; END $$`)
	root.exec(`CREATE TRIGGER fails BEFORE INSERT ON concurrent_processing FOR EACH ROW EXECUTE FUNCTION fails()`)
	var running sync.WaitGroup
	for i := range 100 {
		if _, err := r.Admit(t.Context(), request(fmt.Sprintf("good-%d", i), "k", 2*quota.Credit)); err != nil {
			t.Fatalf("a good one, beside the other: %v", err)
		}
		running.Go(func() {
			if _, err := r.Admit(t.Context(), request("bad", "k", quota.Credit)); !errors.Is(err,
				ledger.ErrUnavailable) {
				t.Errorf("the bad one: %v", err)
			}
		})
		running.Wait()
	}
}

// The database is dropped and made anew, empty, under running replicas. One that may migrate brings the schema; the
// others say what is missing, and go on when it is there.
func TestDatabaseThatIsEmptyAllOfASudden(t *testing.T) {
	dsn := pgtest.New(t, postgres.Migrate)
	var mu sync.Mutex
	var causes []string
	open := func(opts postgres.Options) (*metering.Service, *ledgerdb.Store) {
		opts.AllowUnsafe = true
		store, err := ledgerdb.Open(t.Context(), dsn, opts)
		if err != nil {
			t.Fatal(err)
		}
		ledgertest.Close(t, store)
		return newService(store, metering.Options{AutoRegister: true}), store
	}
	waits, store := open(postgres.Options{Reachable: func(_ bool, cause error) {
		mu.Lock()
		defer mu.Unlock()
		if cause != nil {
			causes = append(causes, cause.Error())
		}
	}})
	use := func(s *metering.Service) error {
		_, err := s.Admit(t.Context(), request("alice", "a", quota.Credit))
		return err
	}
	if _, err := waits.ApplyPlan(t.Context(), plans.Free(), "test"); err != nil {
		t.Fatal(err)
	}
	if err := use(waits); err != nil {
		t.Fatal(err)
	}
	pgtest.Empty(t, dsn)
	eventually(t, func() bool {
		err := use(waits)
		schema, old := errors.AsType[*ledger.SchemaError](err)
		return old && schema.Has == 0 && schema.Needs >= 6 && errors.Is(err, ledger.ErrUnavailable)
	})
	if _, err := ledgerdb.Open(t.Context(), dsn, postgres.Options{AllowUnsafe: true}); !errors.Is(err,
		ledger.ErrUnavailable) {
		t.Errorf("Open = %v, want ErrUnavailable", err)
	}

	migrates, _ := open(postgres.Options{Migrate: true})
	if _, err := migrates.ApplyPlan(t.Context(), plans.Free(), "test"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return store.Ping(t.Context()) == nil })
	// Both know nothing any more of the accounts that were.
	for _, s := range []*metering.Service{waits, migrates} {
		if err := use(s); err != nil {
			t.Errorf("on the new database: %v", err)
		}
	}

	// And again, under one that may migrate: it does not even have to be started again.
	pgtest.Empty(t, dsn)
	eventually(t, func() bool {
		_, err := migrates.ApplyPlan(t.Context(), plans.Free(), "test")
		return err == nil
	})
	for _, s := range []*metering.Service{migrates, waits} {
		eventually(t, func() bool { return use(s) == nil })
	}
	mu.Lock()
	defer mu.Unlock()
	told := 0
	for _, cause := range causes {
		if cause == fmt.Sprintf("the database has schema version 0, this needs %d", schemaNeeded(t)) {
			told++
		}
	}
	if told == 0 || len(causes) > 6 {
		t.Errorf("told of the causes %q", causes)
	}
}

// schemaNeeded is the version of the schema that Migrate makes.
func schemaNeeded(t *testing.T) int {
	t.Helper()
	return count(t, pgtest.New(t, postgres.Migrate), "SELECT max(version_id) FROM goose_db_version")
}

// A release that is rolled back works on the newer schema.
func TestNewerSchema(t *testing.T) {
	w := newWorld(t)
	w.outsider().exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)")
	w.open(t)
}
