// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/testing/freeport"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
)

// run returns what the command prints and its error.
func run(t *testing.T, dsn string, args ...string) (string, error) {
	t.Helper()
	cmd := command(func(name string) string {
		if name == "DATABASE_URL" {
			return dsn
		}
		return ""
	})
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestVersion(t *testing.T) {
	t.Parallel()
	if out, err := run(t, "", "--version"); err != nil || !strings.HasPrefix(out, "usage-batch ") ||
		!strings.Contains(out, runtime.Version()) || !strings.Contains(out, "time zones") {
		t.Errorf("%q, %v", out, err)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no database": {[]string{"check"}, "set --database-url or the environment variable DATABASE_URL"},
		"no plan":     {[]string{"reset"}, `"plan" not set`},
		"empty plan":  {[]string{"reset", "--plan="}, "--plan: must name a plan"},
		"wait":        {[]string{"migrate", "--wait=-1s"}, "--wait -1s: must be 0s or more"},
		"lease grace": {[]string{"check", "--lease-grace=-1s"}, "--lease-grace -1s: must be 0s or more"},
		"no URL":      {[]string{"check", "--database-url=zzz"}, "database URL: cannot parse `zzz`"},
		"nobody there": {[]string{"check", "--database-url=postgres://nobody@127.0.0.1:1/x"},
			"the database cannot be reached: failed to connect"},
		"batch too large": {[]string{"reset", "--plan=free", "--batch-size=10001"},
			"--batch-size 10001: must lie between 1 and 10000"},
		"no batch size": {[]string{"reset", "--plan=free", "--batch-size=0"},
			"--batch-size 0: must lie between 1 and 10000"},
		"no workers":  {[]string{"reset", "--plan=free", "--workers=0"}, "--workers 0: must lie between 1 and 64"},
		"no patience": {[]string{"reset", "--plan=free", "--retry-for=0s"}, "--retry-for 0s: must be positive"},
		"no instant": {[]string{"reset", "--plan=free", "--as-of=tomorrow"},
			`--as-of "tomorrow": must be an instant such as`},
		"the future": {[]string{"reset", "--plan=free", "--as-of=2999-01-01T00:00:00Z"},
			"--as-of 2999-01-01T00:00:00Z lies in the future"},
		"unknown command": {[]string{"fix"}, `unknown command "fix"`},
		"stray argument":  {[]string{"migrate", "now"}, `unknown command "now"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := run(t, "", tc.args...); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("want an error with %q, got %v", tc.want, err)
			}
		})
	}
}

func TestMigrateAndCheck(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t, nil)
	if _, err := run(t, dsn, "check"); err == nil ||
		!strings.Contains(err.Error(), "schema version 0") || !strings.Contains(err.Error(), "usage-batch migrate") {
		t.Errorf("check of an empty database: %v", err)
	}
	for range 2 {
		if out, err := run(t, dsn, "migrate", "--allow-unsafe-database"); err != nil {
			t.Fatalf("%s%v", out, err)
		}
	}
	if out, err := run(t, dsn, "check"); err != nil || out != "0 violations of the ledger's invariants\n" {
		t.Errorf("%q, %v", out, err)
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(),
		"INSERT INTO user_plan_limits (name, display_name) VALUES ('smuggled', 'Smuggled')"); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, dsn, "check")
	if err == nil || !strings.Contains(out, "I8") || !strings.Contains(out, "smuggled") ||
		!strings.HasSuffix(out, "\n1 violations of the ledger's invariants\n") {
		t.Errorf("%q, %v", out, err)
	}
}

func TestCheckOfLeases(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t, postgres.Migrate)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `WITH u AS (INSERT INTO users (user_id) VALUES ('alice') RETURNING id)
		INSERT INTO concurrent_processing (id, user_id, source, state, estimate, file_size, created_at, lease_ms,
		    lease_until, arrived_seq)
		SELECT gen_random_uuid(), id, 'api', 'Queued', 1, 1, now(), 1000, now() - interval '5 minutes', 1 FROM
		    u`); err != nil {
		t.Fatal(err)
	}
	for grace, want := range map[string]bool{"0": false, "1m": true, "1h": false} {
		out, err := run(t, dsn, "check", "--lease-grace", grace)
		if err == nil || strings.Contains(out, `I6 user "alice"`) != want {
			t.Errorf("--lease-grace %s: %q, %v", grace, out, err)
		}
	}
}

// After a rollback the database is newer than the code: that is no reason not to start.
func TestMigrateLeavesANewerSchemaAlone(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t, postgres.Migrate)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(),
		"INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)"); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, dsn, "migrate", "--allow-unsafe-database"); err != nil {
		t.Errorf("%s%v", out, err)
	}
}

// A pod's migration may start before the database does.
func TestMigrateWaitsForTheDatabase(t *testing.T) {
	t.Parallel()
	port, err := freeport.Get()
	if err != nil {
		t.Fatal(err)
	}
	listening := make(chan error, 1)
	asked := make(chan struct{})
	var once sync.Once
	go func() {
		// Nobody listens at the first try.
		<-asked
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			listening <- err
			return
		}
		conn, err := listener.Accept()
		if err == nil {
			err = conn.Close()
		}
		listening <- errors.Join(err, listener.Close())
	}()
	cmd := command(func(string) string { return fmt.Sprintf("postgres://127.0.0.1:%d/usage?sslmode=disable", port) })
	cmd.SetErr(writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte("trying again")) {
			once.Do(func() { close(asked) })
		}
		return len(p), nil
	}))
	cmd.SetArgs([]string{"migrate", "--wait=10s"})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	// It came back and was served.
	if err := <-listening; err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, ledger.ErrUnavailable) && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
