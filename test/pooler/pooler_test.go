// SPDX-License-Identifier: Apache-2.0

//go:build pooler

// Package pooler_test plays the ledger through a real pgbouncer that gives each transaction another server connection.
package pooler_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reset"
	"github.com/cantonesescribe/usage-operator/internal/testing/freeport"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/lifeline"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// startPgbouncer starts a pooler in front of the database that dsn names, with the further settings, and returns the
// DSN of the same database through it.
func startPgbouncer(t *testing.T, dsn string, settings ...string) string {
	t.Helper()
	direct, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	// The test's own folder lies in one that only its user may enter.
	dir, err := os.MkdirTemp("", "usage-pgbouncer-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	port, err := freeport.Get()
	if err != nil {
		t.Fatal(err)
	}
	// Three connections for all clients, so that hardly any two transactions of one client meet the same.
	lines := append([]string{
		"[databases]",
		fmt.Sprintf("* = host=127.0.0.1 port=%d", direct.Port),
		"[pgbouncer]",
		"listen_addr = 127.0.0.1", "listen_port = " + strconv.Itoa(port), "unix_socket_dir =",
		"auth_type = plain", "auth_file = " + filepath.Join(dir, "users"),
		"pool_mode = transaction", "default_pool_size = 3", "max_client_conn = 200",
	}, settings...)
	users := fmt.Sprintf("%q %q\n", direct.User, direct.Password)
	for name, text := range map[string]string{"users": users, "pgbouncer.ini": strings.Join(lines, "\n") + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Getenv("PGBOUNCER"), filepath.Join(dir, "pgbouncer.ini"))
	if os.Geteuid() == 0 { // it does not run as root
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	log := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start pgbouncer (PGBOUNCER=%q): %v", os.Getenv("PGBOUNCER"), err)
	}
	forget, err := lifeline.Process(cmd.Process.Pid, lifeline.Kill)
	if err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		_ = forget()
		if t.Failed() {
			t.Logf("pgbouncer's log:\n%s", log)
		}
	})
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, u.String())
		if err == nil {
			_ = conn.Close(ctx)
			return u.String()
		}
		select {
		case <-exited:
			t.Fatalf("pgbouncer ended: %s", log)
		case <-ctx.Done():
			t.Fatalf("pgbouncer does not answer: %v", err)
		default:
		}
	}
}

func with(t *testing.T, dsn, mode string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("default_query_exec_mode", mode)
	u.RawQuery = q.Encode()
	return u.String()
}

// preparedSince is the first pgbouncer that knows prepared statements in transaction mode, as 1021.
const preparedSince = 1021

func release(t *testing.T) int {
	t.Helper()
	out, err := exec.Command(os.Getenv("PGBOUNCER"), "--version").Output()
	if err != nil {
		t.Fatalf("pgbouncer (PGBOUNCER=%q): %v", os.Getenv("PGBOUNCER"), err)
	}
	m := regexp.MustCompile(`PgBouncer (\d+)\.(\d+)`).FindStringSubmatch(string(out))
	if m == nil {
		t.Fatalf("pgbouncer --version says %q", out)
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return major*1000 + minor
}

func TestLedgerThroughPooler(t *testing.T) {
	if has := release(t); has >= preparedSince {
		t.Run("prepared statements", func(t *testing.T) {
			dsn := ledgertest.New(t)
			play(t, with(t, startPgbouncer(t, dsn, "max_prepared_statements = 200"), "cache_statement"), dsn)
		})
	} else {
		t.Logf(
			"pgbouncer %d.%d knows no prepared statements in transaction mode (1.21 and later do): only without them "+
				"is tested", has/1000, has%1000)
	}
	t.Run("no prepared statements", func(t *testing.T) {
		dsn := ledgertest.New(t)
		pooled := startPgbouncer(t, dsn, withoutPrepared(t)...)
		// The mode is found out.
		play(t, pooled, dsn)
	})
}

// withoutPrepared makes later releases behave as all did before 1.21.
func withoutPrepared(t *testing.T) []string {
	t.Helper()
	if release(t) >= preparedSince {
		return []string{"max_prepared_statements = 0"}
	}
	return nil
}

func openStore(t *testing.T, pooled, direct string) *ledgerdb.Store {
	t.Helper()
	store, err := ledgerdb.Open(t.Context(), pooled, postgres.Options{AllowUnsafe: true, ListenURL: direct})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

func open(t *testing.T, pooled, direct string) *metering.Service {
	t.Helper()
	store := openStore(t, pooled, direct)
	return metering.New(ledger.New(store, ledger.Options{}), store, access.NewSigner(store),
		metering.Options{AutoRegister: true, ReapInterval: 100 * time.Millisecond})
}

func play(t *testing.T, pooled, direct string) {
	t.Helper()
	one, other := open(t, pooled, direct), open(t, pooled, direct)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, s := range []*metering.Service{one, other} {
		running.Go(func() { _ = s.Run(ctx) })
	}
	defer running.Wait()
	defer cancel()
	free := plans.Free(func(p *metering.Plan) {
		p.Limits.Credits, p.DailyCostCeiling = quota.AtMost(100*quota.Credit), quota.Limit[quota.Money]{Unlimited: true}
	})
	if _, err := one.ApplyPlan(ctx, free, "test"); err != nil {
		t.Fatal(err)
	}
	if err := one.ApplyQuota(ctx, metering.Quota{
		ObjectUID: quota.ID{2}, ObjectName: "hot", UserID: "hot", Zone: "Asia/Hong_Kong",
		Overrides: quota.Overrides{Credits: new(quota.AtMost(200 * quota.Credit))},
		Grants:    map[string]metering.Grant{"gift": {Credits: quota.Credit}},
	}, "test"); err != nil {
		t.Fatal(err)
	}
	// Everybody at once, on both replicas; one user's jobs start one after the other, woken through LISTEN on the other
	// DSN.
	var clients sync.WaitGroup
	for i := range 64 {
		user := "hot"
		if i%2 == 0 {
			user = fmt.Sprintf("user-%d", i)
		}
		s, waiter := one, other
		if i%4 < 2 {
			s, waiter = other, one
		}
		clients.Go(func() {
			res, err := s.Admit(ctx, metering.AdmitRequest{
				UserID: user, Key: fmt.Sprint(i), BodyHash: []byte{byte(i)}, Source: quota.SourceAPI,
				RequestedBy: "test",
				Estimate:    quota.Credit, FileSize: 1, Queue: true,
			})
			if err != nil || res.Admission == nil {
				t.Errorf("%s: %+v, %v", user, res.Decision, err)
				return
			}
			adm, err := waiter.Wait(ctx, res.Admission.ID, time.Now().Add(time.Minute))
			if err != nil || adm.State != quota.Admitted {
				t.Errorf("%s: %+v, %v", user, adm, err)
				return
			}
			if _, err := s.Heartbeat(ctx, adm.Account, adm.ID); err != nil {
				t.Errorf("%s: heartbeat: %v", user, err)
			}
			if _, err := s.Complete(ctx, adm.Account, adm.ID, quota.Credit/2); err != nil {
				t.Errorf("%s: complete: %v", user, err)
			}
		})
	}
	clients.Wait()
	u, err := one.Current(ctx, "hot")
	if err != nil || u.Account.Used != 16*quota.Credit || u.Account.Active != 0 {
		t.Errorf("hot: %+v, %v", u.Account, err)
	}
	store := openStore(t, pooled, direct)
	if _, err := reset.New(ledger.New(store, ledger.Options{}), store, nil).Run(ctx,
		reset.Options{Plan: "free", Actor: "test"}); err != nil {
		t.Errorf("reset: %v", err)
	}
}

// TestWrongURLs: what cannot work says so.
func TestWrongURLs(t *testing.T) {
	dsn := ledgertest.New(t)
	pooled := startPgbouncer(t, dsn, withoutPrepared(t)...)
	for _, mode := range []string{"exec", "simple_protocol"} {
		_, err := ledgerdb.Open(t.Context(), with(t, pooled, mode), postgres.Options{AllowUnsafe: true})
		if err == nil || !strings.Contains(err.Error(), "default_query_exec_mode="+mode) ||
			!strings.Contains(err.Error(), "cache_describe") {
			t.Errorf("%s: %v", mode, err)
		}
	}
	if err := postgres.Migrate(t.Context(), pooled); !errors.Is(err, postgres.ErrPooled) {
		t.Errorf("migrations through the pooler: %v", err)
	}
	store, err := ledgerdb.Open(t.Context(), pooled, postgres.Options{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Listen(t.Context(), func(ledger.Change) {}); !errors.Is(err, postgres.ErrPooled) {
		t.Errorf("LISTEN through the pooler: %v", err)
	}
	insisting, err := ledgerdb.Open(t.Context(), with(t, pooled, "cache_statement"),
		postgres.Options{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer insisting.Close()
	var told error
	for range 50 {
		var calls sync.WaitGroup
		var mu sync.Mutex
		for range 8 {
			calls.Go(func() {
				if _, err := insisting.Lookup(t.Context(), "nobody"); err != nil &&
					!errors.Is(err, ledger.ErrNotFound) {
					mu.Lock()
					told = err
					mu.Unlock()
				}
			})
		}
		calls.Wait()
		if told != nil {
			break
		}
	}
	if !errors.Is(told, postgres.ErrPooled) {
		t.Errorf("prepared statements on a pooler without them: %v", told)
	}
}
