// SPDX-License-Identifier: Apache-2.0

// Package postgres is the ledger in PostgreSQL: it implements what the engine and the use cases ask of a store,
// migrates the schema and checks the invariants of what is stored. All SQL of the product is here; what it needs of a
// session ends with the transaction, so it works through a transaction pooler.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/reset"
)

// ErrUnsafe says that the server may forget what it has acknowledged.
var ErrUnsafe = errors.New("the database may lose acknowledged writes")

// Options of a Store.
type Options struct {
	// AllowUnsafe accepts a server that may lose acknowledged writes in a crash.
	AllowUnsafe bool
	// ListenURL leads to the server itself where the pool's URL leads to a transaction pooler, which cannot LISTEN.
	ListenURL string
	// Migrate brings a schema that is older than this release, or not there, up to date: at the start, and whenever the
	// database turns out to be another one. It needs the rights to.
	Migrate bool
	// AnySchema does not look at the schema, for those who are about to migrate it.
	AnySchema bool
	// Reachable is told whenever the database can be used (once more) or no longer, and then why. It must not block.
	Reachable func(up bool, cause error)
	// Unreadable is told of each read of an account that this release cannot read. It must not block.
	Unreadable func(*ledger.UnreadableError)
	// Name by which the server knows the sessions (application_name); that of the URL if empty.
	Name string
	// Now replaces the database's clock in tests.
	Now func() time.Time
}

// Of what a connection string leaves open.
const (
	// defaultConnectTimeout bounds one attempt to connect to one of the servers that it names.
	defaultConnectTimeout = 2 * time.Second
	// defaultMaxConns is enough for the lanes of the engine, as many that wait for locks, and the reads beside them.
	defaultMaxConns = 16
	// pingTimeout bounds the look at a connection that has been idle.
	pingTimeout = time.Second
)

// Store is what the engine and the use cases ask of a database. It is safe for concurrent use.
type Store struct {
	pool    *pgxpool.Pool
	gate    *gate
	queries *dbsqlc.Queries
	listen  *pgx.ConnConfig
	clock   func() time.Time
	zones   sync.Map // name -> *time.Location
	plans   planCache
	report  func(*ledger.UnreadableError)
}

var (
	_ ledger.Store   = (*Store)(nil)
	_ metering.Store = (*Store)(nil)
	_ reset.Store    = (*Store)(nil)
	_ reports.Store  = (*Store)(nil)
)

// Open connects to the database that dsn names. It refuses a server that may lose acknowledged writes, unless allowed.
func Open(ctx context.Context, dsn string, opts Options) (*Store, error) {
	config, err := poolConfig(dsn)
	if err != nil {
		return nil, err
	}
	if opts.Name != "" {
		config.ConnConfig.RuntimeParams["application_name"] = opts.Name
	}
	listen := config.ConnConfig
	if opts.ListenURL != "" {
		if listen, err = pgx.ParseConfig(opts.ListenURL); err != nil {
			return nil, fmt.Errorf("database URL for LISTEN: %w", err)
		}
		listen.ConnectTimeout = cmp.Or(listen.ConnectTimeout, defaultConnectTimeout)
	}
	if err := chooseExecMode(ctx, dsn, config.ConnConfig); err != nil {
		return nil, mapError(err)
	}
	s := &Store{listen: listen.Copy(), clock: opts.Now, report: opts.Unreadable}
	if s.report == nil {
		s.report = func(*ledger.UnreadableError) {}
	}
	direct := config.ConnConfig.Copy()
	probe := func(ctx context.Context) error {
		return checkServer(ctx, direct.Copy(), opts.AllowUnsafe, opts.AnySchema)
	}
	repair := func(ctx context.Context, cause error) error {
		if _, old := errors.AsType[*ledger.SchemaError](cause); !old || !opts.Migrate {
			return cause
		}
		if err := Migrate(ctx, cmp.Or(opts.ListenURL, dsn)); err != nil {
			return fmt.Errorf("%w, and could not be brought there: %w", cause, err)
		}
		return nil
	}
	if err := probe(ctx); err != nil {
		if err = repair(ctx, err); err == nil {
			err = probe(ctx)
		}
		if _, old := errors.AsType[*ledger.SchemaError](err); old {
			return nil, fmt.Errorf("%w: run `usage-batch migrate` on it", mapError(err))
		}
		if err != nil {
			return nil, mapError(err)
		}
	}
	s.gate = newGate(probe, repair, opts.Reachable)
	s.gate.attach(config)
	registerTypes := config.AfterConnect
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		// Whoever replaces the database, by a copy or another server, ends all connections to it first.
		s.plans.forget()
		return registerTypes(ctx, conn)
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, mapError(err)
	}
	s.queries = dbsqlc.New(s.pool)
	s.gate.start(s.pool)
	return s, nil
}

// poolConfig reads the connection string and bounds what it leaves open.
func poolConfig(dsn string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	if given, err := pgx.ParseConfig(dsn); err == nil && given.RuntimeParams["pool_max_conns"] == "" {
		config.MaxConns = defaultMaxConns
	}
	config.PingTimeout = cmp.Or(config.PingTimeout, pingTimeout)
	config.ConnConfig.ConnectTimeout = cmp.Or(config.ConnConfig.ConnectTimeout, defaultConnectTimeout)
	if config.ConnConfig.ValidateConnect == nil {
		// A standby, such as a primary that was replaced, cannot book anything. Of several hosts it is the others'
		// turn.
		config.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	}
	config.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		conn.TypeMap().RegisterType(&pgtype.Type{
			Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
		})
		return nil
	}
	return config, nil
}

// Close ends all connections. It waits for open batches.
func (s *Store) Close() {
	s.gate.close()
	s.pool.Close()
}

// Pool gives access to the database for checks and tests.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

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

func (s *Store) reportError(err error) {
	if unreadable, ok := errors.AsType[*ledger.UnreadableError](err); ok {
		s.report(unreadable)
	}
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return mapError(s.pool.Ping(ctx)) }

// LeaseKey is the key that lease tokens are signed with, the same for all replicas.
func (s *Store) LeaseKey(ctx context.Context) ([]byte, error) {
	key, err := s.queries.LeaseKey(ctx)
	return key, mapError(err)
}
