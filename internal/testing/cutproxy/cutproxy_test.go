// SPDX-License-Identifier: Apache-2.0

package cutproxy_test

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/testing/cutproxy"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
)

func migrate(ctx context.Context, dsn string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, "CREATE TABLE written (what text)")
	return err
}

// start returns a proxy before a database of the test's own, that database's DSN, and the same through the proxy.
func start(t *testing.T) (p *cutproxy.Proxy, direct, through string) {
	t.Helper()
	direct = pgtest.New(t, migrate)
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = cutproxy.Start(u.Host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if through, err = p.DSN(direct); err != nil {
		t.Fatal(err)
	}
	return p, direct, through
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func count(t *testing.T, dsn, what string) (n int) {
	t.Helper()
	if err := connect(t, dsn).QueryRow(t.Context(), "SELECT count(*) FROM written WHERE what = $1",
		what).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// ways in which a client may commit.
var ways = map[string]func(ctx context.Context, conn *pgx.Conn, what string) error{
	"simple protocol": func(ctx context.Context, conn *pgx.Conn, what string) error {
		_, err := conn.PgConn().Exec(ctx, "BEGIN; INSERT INTO written VALUES ('"+what+"')").ReadAll()
		if err != nil {
			return err
		}
		_, err = conn.PgConn().Exec(ctx, "COMMIT").ReadAll()
		return err
	},
	"one string": func(ctx context.Context, conn *pgx.Conn, what string) error {
		_, err := conn.PgConn().Exec(ctx, "BEGIN; INSERT INTO written VALUES ('"+what+"'); commit;").ReadAll()
		return err
	},
	"prepared in a pipeline": func(ctx context.Context, conn *pgx.Conn, what string) error {
		var q pgx.Batch
		q.Queue("BEGIN")
		q.Queue("INSERT INTO written VALUES ($1)", what)
		q.Queue("COMMIT")
		return conn.SendBatch(ctx, &q).Close()
	},
	"a transaction of pgx": func(ctx context.Context, conn *pgx.Conn, what string) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO written VALUES ($1)", what)
			return err
		})
	},
}

func TestCutCommit(t *testing.T) {
	p, direct, through := start(t)
	for name, commit := range ways {
		for _, at := range []cutproxy.Point{cutproxy.BeforeCommit, cutproxy.DuringCommit, cutproxy.AfterCommit} {
			t.Run(name+"/"+at.String(), func(t *testing.T) {
				what := name + at.String()
				conn := connect(t, through)
				fired := p.CutCommit(at)
				if err := commit(t.Context(), conn, what); err == nil {
					t.Fatal("the client was told that it committed")
				}
				<-fired
				switch n := count(t, direct, what); {
				case at == cutproxy.BeforeCommit && n != 0:
					t.Error("the transaction was committed")
				case at == cutproxy.AfterCommit && n != 1:
					t.Error("the transaction was not committed")
				}
				conn = connect(t, through)
				if err := commit(t.Context(), conn, "next "+what); err != nil {
					t.Errorf("the commit after the one that was cut: %v", err)
				}
			})
		}
	}
	if cuts := p.Stats().Cuts; cuts != 3*len(ways) {
		t.Errorf("cuts: got %d, want %d", cuts, 3*len(ways))
	}
}

func TestARollbackIsNotACommit(t *testing.T) {
	p, _, through := start(t)
	conn := connect(t, through)
	fired := p.CutCommit(cutproxy.AfterCommit)
	// The transaction has failed, so the server answers ROLLBACK to the COMMIT.
	if _, err := conn.PgConn().Exec(t.Context(), "BEGIN; SELECT 1/0").ReadAll(); err == nil {
		t.Fatal("no division by zero")
	}
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatalf("the COMMIT of a failed transaction: %v", err)
	}
	select {
	case <-fired:
		t.Fatal("the rollback was cut")
	default:
	}
	if err := ways["a transaction of pgx"](t.Context(), conn, "x"); err == nil {
		t.Error("the commit after it was not cut")
	}
	<-fired
}

func TestCutAll(t *testing.T) {
	p, _, through := start(t)
	first, second := connect(t, through), connect(t, through)
	if n := p.CutAll(); n != 2 {
		t.Errorf("cut %d connections, want 2", n)
	}
	for _, conn := range []*pgx.Conn{first, second} {
		if err := conn.Ping(t.Context()); err == nil {
			t.Error("a connection that was cut answers")
		}
	}
	if err := connect(t, through).Ping(t.Context()); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}

func TestCutOne(t *testing.T) {
	p, _, through := start(t)
	if p.CutOne() {
		t.Error("cut a connection where there was none")
	}
	conns := []*pgx.Conn{connect(t, through), connect(t, through)}
	if !p.CutOne() {
		t.Error("cut none")
	}
	alive := 0
	for _, conn := range conns {
		if conn.Ping(t.Context()) == nil {
			alive++
		}
	}
	if alive != 1 {
		t.Errorf("%d connections are alive, want 1", alive)
	}
}

func TestStall(t *testing.T) {
	p, _, through := start(t)
	conn := connect(t, through)
	p.Stall(true)
	answered := make(chan error, 1)
	go func() { answered <- conn.Ping(t.Context()) }()
	// Time has to pass for nothing to happen in it.
	select {
	case err := <-answered:
		t.Fatalf("answered through a stalled proxy: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	p.Stall(false)
	if err := <-answered; err != nil {
		t.Errorf("after the stall: %v", err)
	}
}

func TestRefuse(t *testing.T) {
	p, _, through := start(t)
	conn := connect(t, through)
	p.Refuse(true)
	if c, err := pgx.Connect(t.Context(), through); err == nil {
		_ = c.Close(t.Context())
		t.Error("a new connection was let in")
	}
	if err := conn.Ping(t.Context()); err != nil {
		t.Errorf("the connection that was open already: %v", err)
	}
	p.Refuse(false)
	connect(t, through)
	// A client may try more than once.
	if s := p.Stats(); s.Accepted != 2 || s.Refused == 0 {
		t.Errorf("got %+v, want 2 accepted and some refused", s)
	}
}

func TestSetTarget(t *testing.T) {
	p, direct, through := start(t)
	p.SetTarget("127.0.0.1:1")
	if c, err := pgx.Connect(t.Context(), through); err == nil {
		_ = c.Close(t.Context())
		t.Error("there is a server where none is")
	}
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	p.SetTarget(u.Host)
	connect(t, through)
}

func TestEncryptionIsDeclinedAndCancellationPassed(t *testing.T) {
	_, _, through := start(t)
	conn := connect(t, strings.Replace(through, "sslmode=disable", "sslmode=prefer", 1))
	slept := make(chan error, 1)
	go func() {
		_, err := conn.PgConn().Exec(t.Context(), "SELECT pg_sleep(60)").ReadAll()
		slept <- err
	}()
	// A request that comes before the statement does nothing, so it is repeated.
	for {
		if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-slept:
			if err == nil || !strings.Contains(err.Error(), "57014") {
				t.Errorf("got %v, want that the statement was cancelled", err)
			}
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestDSN(t *testing.T) {
	p, _, _ := start(t)
	for dsn, want := range map[string]string{
		"postgres://u:p@db.example:5432/usage?sslmode=require": "postgres://u:p@" + p.Addr() + "/usage?sslmode=disable",
		"host=db.example": "",
		"postgres://%":    "",
	} {
		got, err := p.DSN(dsn)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("DSN(%q): got %q, %v, want %q", dsn, got, err, want)
		}
	}
}
