// SPDX-License-Identifier: Apache-2.0

package pgserver_test

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/testing/pgserver"
)

func startDurable(t *testing.T) *pgserver.Server {
	t.Helper()
	s, err := pgserver.Start(t.Context(), pgserver.Options{Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	stopAfter(t, s)
	return s
}

func stopAfter(t *testing.T, s *pgserver.Server) {
	t.Helper()
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
}

func connect(t *testing.T, s *pgserver.Server) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func written(t *testing.T, s *pgserver.Server) []int {
	t.Helper()
	rows, err := connect(t, s).Query(t.Context(), "SELECT n FROM written ORDER BY n")
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	s := startDurable(t)
	conn := connect(t, s)
	exec(t, conn, "CREATE TABLE written (n int)", "INSERT INTO written VALUES (1)", "BEGIN",
		"INSERT INTO written VALUES (2)")
	if err := s.Restart(t.Context()); err == nil {
		t.Error("a server that runs was restarted")
	}
	main, backend := s.PID(), int(conn.PgConn().PID())
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{main, backend} {
		// A zombie that nobody has waited for yet still has its number, and is no process of the server.
		if err := syscall.Kill(pid, 0); err == nil && pid == main {
			t.Errorf("process %d is still there", pid)
		}
	}
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("the killed server answers")
	}
	if err := s.Kill(); err == nil {
		t.Error("a server that does not run was killed")
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{1}, written(t, s)); diff != "" {
		t.Errorf("what was committed (-want +got):\n%s", diff)
	}
}

func TestPromotionOfASynchronousStandby(t *testing.T) {
	t.Parallel()
	s := startDurable(t)
	exec(t, connect(t, s), "CREATE TABLE written (n int)")
	standby, err := s.Standby(t.Context(), "second", "")
	if err != nil {
		t.Fatal(err)
	}
	stopAfter(t, standby)
	if err := s.Synchronous(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, s)
	var want []int
	for n := range 100 {
		want = append(want, n)
		exec(t, conn, fmt.Sprintf("INSERT INTO written VALUES (%d)", n))
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t, standby).Exec(t.Context(), "INSERT INTO written VALUES (100)"); err == nil {
		t.Error("the standby takes writes before its promotion")
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, connect(t, standby), "INSERT INTO written VALUES (100)")
	if diff := cmp.Diff(append(slices.Clone(want), 100), written(t, standby)); diff != "" {
		t.Errorf("what was committed (-want +got):\n%s", diff)
	}
	// A promoted server is one like any other.
	if err := standby.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, connect(t, standby), "INSERT INTO written VALUES (101)")
	third, err := standby.Standby(t.Context(), "third", "")
	if err != nil {
		t.Fatal(err)
	}
	stopAfter(t, third)
	if err := standby.Synchronous(t.Context(), "third"); err != nil {
		t.Fatal(err)
	}
}
