// SPDX-License-Identifier: Apache-2.0

// Package postgres is the ledger in PostgreSQL: it implements metering.Store, migrates the schema and checks the invariants
// of what is stored. All SQL of the product is here; what it needs of a session ends with the transaction, so it works
// through a transaction pooler.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
)

// ErrUnsafe says that the server may forget what it has acknowledged.
var ErrUnsafe = errors.New("the database may lose acknowledged writes")

// Options of a Store.
type Options struct {
	// AllowUnsafe accepts a server that may lose acknowledged writes in a crash.
	AllowUnsafe bool
	// ListenURL leads to the server itself where the pool's URL leads to a transaction pooler, which cannot LISTEN.
	ListenURL string
	// Now replaces the database's clock in tests.
	Now func() time.Time
}

// Store implements metering.Store. It is safe for concurrent use.
type Store struct {
	pool    *pgxpool.Pool
	queries *dbsqlc.Queries
	listen  *pgx.ConnConfig
	clock   func() time.Time
	zones   sync.Map // name -> *time.Location
	plans   planCache
}

var _ metering.Store = (*Store)(nil)

// Open connects to the database that dsn names. It refuses a server that may lose acknowledged writes, unless allowed.
func Open(ctx context.Context, dsn string, opts Options) (*Store, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	config.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		conn.TypeMap().RegisterType(&pgtype.Type{
			Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
		})
		return nil
	}
	listen := config.ConnConfig
	if opts.ListenURL != "" {
		if listen, err = pgx.ParseConfig(opts.ListenURL); err != nil {
			return nil, fmt.Errorf("database URL for LISTEN: %w", err)
		}
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, mapError(err)
	}
	s := &Store{pool: pool, queries: dbsqlc.New(pool), listen: listen.Copy(), clock: opts.Now}
	if err := s.checkServer(ctx, opts.AllowUnsafe); err != nil {
		pool.Close()
		return nil, err
	}
	return s, nil
}

// Close ends all connections. It waits for open batches.
func (s *Store) Close() { s.pool.Close() }

// Pool gives access to the database for checks and tests.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// checkServer looks at the settings on which an acknowledged write depends.
func (s *Store) checkServer(ctx context.Context, allowUnsafe bool) error {
	rows, err := s.pool.Query(ctx, `SELECT name FROM pg_catalog.pg_settings
		WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off' ORDER BY name`)
	if err != nil {
		return mapError(err)
	}
	off, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return mapError(err)
	}
	if len(off) > 0 && !allowUnsafe {
		return fmt.Errorf("%w: %s is off on the server; turn it on, or accept the loss explicitly with --allow-unsafe-database",
			ErrUnsafe, strings.Join(off, ", "))
	}
	return nil
}

// now is the instant that replaces the database's clock, nil where it does not.
func (s *Store) now() *time.Time {
	if s.clock == nil {
		return nil
	}
	t := s.clock().UTC().Truncate(time.Microsecond)
	return &t
}

// zone returns a time zone by its IANA name.
func (s *Store) zone(name string) (*time.Location, error) {
	if z, ok := s.zones.Load(name); ok {
		return z.(*time.Location), nil //nolint:forcetypeassert // nothing else is stored
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return nil, err
	}
	s.zones.Store(name, z)
	return z, nil
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return mapError(s.pool.Ping(ctx)) }

// LeaseKey is the key that lease tokens are signed with, the same for all replicas.
func (s *Store) LeaseKey(ctx context.Context) ([]byte, error) {
	key, err := s.queries.LeaseKey(ctx)
	return key, mapError(err)
}
