// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Package pgtest gives every test a PostgreSQL database of its own, migrated and empty.
//
// The server is a private one, started by the first test of a binary that asks and gone with the binary, or the one
// that TEST_DATABASE_URL names. Migrations run once, into a template that each test's database is cloned from: that
// takes some 50 ms, so tests can run in parallel and need not clean up.
package pgtest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cantonesescribe/usage-operator/internal/testing/pgserver"
)

const (
	prefix = "usage_test_"
	// lockSpace is the first key of the advisory locks by which a binary shows that its databases are in use.
	lockSpace = 0x75736167
	// inUse is what cloning answers while a connection to the template is still closing.
	inUse = "55006"
	// cleanupTimeout bounds what runs after a test, whose own context is cancelled by then.
	cleanupTimeout = 30 * time.Second
)

// Migrate brings the database that dsn names to the schema that the tests need. It must not leave a connection behind.
type Migrate func(ctx context.Context, dsn string) error

// New returns the DSN of a database of the test's own, made by migrate; nil gives an empty database. It is dropped when
// the test ends. The connection is a superuser's, so a test can make further databases and roles.
func New(tb testing.TB, migrate Migrate) string {
	tb.Helper()
	ctx := tb.Context()
	srv, err := shared()
	if err != nil {
		tb.Fatalf("a test database: %v (or name a server's superuser in TEST_DATABASE_URL)", err)
	}
	template, err := srv.template(ctx, migrate)
	if err != nil {
		tb.Fatalf("migrate the test databases' template: %v", err)
	}
	name := srv.name(strings.ToLower(rand.Text()[:12]))
	if err := srv.create(ctx, name, template); err != nil {
		tb.Fatalf("clone the test databases' template: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		if err := srv.drop(ctx, name); err != nil {
			tb.Errorf("drop test database %s: %v", name, err)
		}
	})
	return srv.dsn(name)
}

// server is what the tests of this binary share.
type server struct {
	url *url.URL
	key uint32

	mu        sync.Mutex
	admin     *pgx.Conn
	templates map[uintptr]string
}

var shared = sync.OnceValues(func() (*server, error) {
	ctx := context.Background()
	s := &server{templates: map[uintptr]string{}}
	dsn := os.Getenv("TEST_DATABASE_URL")
	if dsn == "" {
		// Never stopped: it ends with this process.
		private, err := pgserver.Start(ctx, pgserver.Options{})
		if err != nil {
			return nil, err
		}
		dsn = private.DSN("postgres")
	}
	var err error
	if s.url, err = url.Parse(dsn); err != nil || s.url.Scheme == "" {
		return nil, errors.New("TEST_DATABASE_URL is not a URL like postgres://user:password@host:port/postgres")
	}
	if s.admin, err = pgx.Connect(ctx, dsn); err != nil {
		return nil, err
	}
	var key [4]byte
	_, _ = rand.Read(key[:])
	s.key = binary.BigEndian.Uint32(key[:])
	if _, err := s.admin.Exec(ctx, "SELECT pg_advisory_lock($1::int, $2::int)", lockSpace, int32(s.key)); err != nil {
		return nil, err
	}
	return s, s.sweep(ctx)
})

// sweep drops what binaries that were killed have left on a server that outlives them.
func (s *server) sweep(ctx context.Context) error {
	rows, err := s.admin.Query(ctx, `
		SELECT datname FROM pg_database
		WHERE datname ~ ('^' || $1 || '[0-9a-f]{8}_') AND NOT EXISTS (
			SELECT FROM pg_locks
			WHERE locktype = 'advisory' AND classid = $2::int::oid AND objid::bigint = ('x' || substr(datname,
			    length($1) + 1, 8))::bit(32)::bigint)`,
		prefix, lockSpace)
	if err != nil {
		return err
	}
	stale, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range stale {
		if err := s.drop(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// template returns the database that migrate has made, the same for every call with the same function.
func (s *server) template(ctx context.Context, migrate Migrate) (string, error) {
	if migrate == nil {
		return "template0", nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := reflect.ValueOf(migrate).Pointer()
	if name, ok := s.templates[id]; ok {
		return name, nil
	}
	name := s.name(fmt.Sprintf("template%d", len(s.templates)))
	if _, err := s.admin.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		return "", err
	}
	if err := migrate(ctx, s.dsn(name)); err != nil {
		_, dropErr := s.admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
		return "", errors.Join(err, dropErr)
	}
	s.templates[id] = name
	return name, nil
}

func (s *server) create(ctx context.Context, name, template string) error {
	for {
		err := s.exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template)
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == inUse && ctx.Err() == nil {
			continue
		}
		return err
	}
}

func (s *server) drop(ctx context.Context, name string) error {
	return s.exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
}

// exec runs a statement on a connection of its own, so that parallel tests do not wait for each other.
func (s *server) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.url.String())
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

func (s *server) name(suffix string) string { return fmt.Sprintf("%s%08x_%s", prefix, s.key, suffix) }

func (s *server) dsn(database string) string {
	u := *s.url
	u.Path = "/" + database
	return u.String()
}

// Snapshot copies the database that dsn, of New, names, and returns what puts it back to that moment, as a restore of a
// backup does. Both end all connections to it.
func Snapshot(tb testing.TB, dsn string) (restore func()) {
	tb.Helper()
	srv, err := shared()
	if err != nil {
		tb.Fatal(err)
	}
	u, err := url.Parse(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	copied := name + "_copy"
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		if err := srv.drop(ctx, copied); err != nil {
			tb.Errorf("drop the copy of test database %s: %v", name, err)
		}
	})
	// Nobody comes back while it is copied, as the template of another database must not be in use.
	srv.closed(tb, name, func() error { return srv.create(tb.Context(), copied, name) })
	return func() {
		tb.Helper()
		srv.closed(tb, name, func() error {
			return errors.Join(srv.drop(tb.Context(), name), srv.create(tb.Context(), name, copied))
		})
	}
}

// Empty replaces the database that dsn, of New, names by an empty one of that name, under whoever is connected to it.
func Empty(tb testing.TB, dsn string) {
	tb.Helper()
	srv, err := shared()
	if err != nil {
		tb.Fatal(err)
	}
	u, err := url.Parse(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	if err := errors.Join(srv.drop(tb.Context(), name), srv.create(tb.Context(), name, "template0")); err != nil {
		tb.Fatalf("empty test database %s: %v", name, err)
	}
}

// closed does something to a database while nobody may connect to it.
func (s *server) closed(tb testing.TB, name string, do func() error) {
	tb.Helper()
	err := errors.Join(
		s.exec(tb.Context(), "ALTER DATABASE "+name+" ALLOW_CONNECTIONS false"),
		s.exec(tb.Context(), "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '"+name+"'"),
		do(),
		s.exec(tb.Context(), "ALTER DATABASE "+name+" ALLOW_CONNECTIONS true"),
	)
	if err != nil {
		tb.Fatalf("copy test database %s: %v", name, err)
	}
}
