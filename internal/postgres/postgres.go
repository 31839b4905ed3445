// SPDX-License-Identifier: Apache-2.0

// Package postgres is the connection to the database: its pool and pooler, transactions and round trips, the errors
// that it answers, its schema. What it needs of a session ends with the transaction, so it works through a transaction
// pooler. What is read and written with it is in readdb and ledgerdb, what must hold in invariants.
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
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
)

// ErrUnsafe says that the server may forget what it has acknowledged.
var ErrUnsafe = errors.New("the database may lose acknowledged writes")

// Options of a DB.
type Options struct {
	// AllowUnsafe accepts a server that may lose acknowledged writes in a crash.
	AllowUnsafe bool
	// ListenURL leads to the server itself where the pool's URL leads to a transaction pooler, which cannot LISTEN.
	ListenURL string
	// Migrate brings a schema that is older than this release, or not there, up to date: at the start, and whenever the
	// database turns out to be another one. It needs the rights to.
	Migrate bool
	// ReadOnly is for reads that may be behind: any server will do, standbys too, and it need not be there yet. What it
	// may lose is no matter. It cannot be migrated.
	ReadOnly bool
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

// DB is a database of the product's, for whoever reads and writes in it. It is safe for concurrent use.
type DB struct {
	pool    *pgxpool.Pool
	gate    *gate
	listen  *pgx.ConnConfig
	queries *dbsqlc.Queries
	clock   func() time.Time
	report  func(*ledger.UnreadableError)
	// connected are the callers of OnConnect.
	connected struct {
		sync.Mutex

		told []func()
	}
}

// Open connects to the database that dsn names. It refuses a server that may lose acknowledged writes, unless allowed.
func Open(ctx context.Context, dsn string, opts Options) (*DB, error) {
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
	if opts.ReadOnly {
		err = readOnly(dsn, config.ConnConfig)
	} else {
		err = chooseExecMode(ctx, dsn, config.ConnConfig)
	}
	if err != nil {
		return nil, MapError(err)
	}
	d := &DB{listen: listen.Copy(), clock: opts.Now, report: opts.Unreadable}
	if d.report == nil {
		d.report = func(*ledger.UnreadableError) {}
	}
	direct := config.ConnConfig.Copy()
	probe := func(ctx context.Context) error {
		return checkServer(ctx, direct.Copy(), &opts)
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
	if err := probe(ctx); err != nil && !opts.ReadOnly {
		if err = repair(ctx, err); err == nil {
			err = probe(ctx)
		}
		if _, old := errors.AsType[*ledger.SchemaError](err); old {
			return nil, fmt.Errorf("%w: run `usage-batch migrate` on it", MapError(err))
		}
		if err != nil {
			return nil, MapError(err)
		}
	}
	d.gate = newGate(probe, repair, opts.Reachable)
	d.gate.attach(config)
	registerTypes := config.AfterConnect
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		d.connected.Lock()
		defer d.connected.Unlock()
		for _, tell := range d.connected.told {
			tell()
		}
		return registerTypes(ctx, conn)
	}
	if d.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, MapError(err)
	}
	d.queries = dbsqlc.New(d.pool)
	d.gate.start(d.pool)
	return d, nil
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
		registerArrays(conn.TypeMap())
		return nil
	}
	return config, nil
}

// readOnly has a connection lead to any server that dsn names, and work behind a pooler too: nobody may be there to
// ask.
func readOnly(dsn string, config *pgx.ConnConfig) error {
	config.ValidateConnect = nil
	if saysExecMode(dsn) {
		return checkExecMode(config.DefaultQueryExecMode)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	return nil
}

// Close ends all connections. It waits for open batches.
func (d *DB) Close() {
	d.gate.close()
	d.pool.Close()
}

// Queries are the statements that are made one at a time, each with a connection of its own.
func (d *DB) Queries() *dbsqlc.Queries { return d.queries }

// Pool gives access to the database for checks and tests.
func (d *DB) Pool() *pgxpool.Pool { return d.pool }

// OnConnect has f called for each new connection, before it is used. Whoever replaces the database, by a copy or
// another server, ends all connections to it first: what is remembered of it has to be forgotten then. f must not
// block.
func (d *DB) OnConnect(f func()) {
	d.connected.Lock()
	defer d.connected.Unlock()
	d.connected.told = append(d.connected.told, f)
}

// Report tells of something that this release cannot read.
func (d *DB) Report(err *ledger.UnreadableError) { d.report(err) }

// Wrote says that the database has taken a write, which it does only while it can be used.
func (d *DB) Wrote() { d.gate.wrote() }

// Now is the instant that replaces the database's clock, nil where it does not.
func (d *DB) Now() *time.Time {
	if d.clock == nil {
		return nil
	}
	t := d.clock().UTC().Truncate(time.Microsecond)
	return &t
}

// Ping reports whether the database answers.
func (d *DB) Ping(ctx context.Context) error { return MapError(d.pool.Ping(ctx)) }

// Transaction runs writes that are not those of a batch. Its errors are those of MapError.
func (d *DB) Transaction(ctx context.Context, f func(pgx.Tx, *dbsqlc.Queries) error) error {
	options := pgx.TxOptions{BeginQuery: beginBounded}
	return MapError(pgx.BeginTxFunc(ctx, d.pool, options, func(tx pgx.Tx) error { return f(tx, d.queries.WithTx(tx)) }))
}

// Snapshot runs a transaction all of whose statements see one snapshot. Its errors are those of MapError: ErrRetry
// where somebody else has changed what it was about to.
func (d *DB) Snapshot(ctx context.Context, f func(pgx.Tx, *dbsqlc.Queries) error) error {
	options := pgx.TxOptions{BeginQuery: beginSnapshot}
	return MapError(pgx.BeginTxFunc(ctx, d.pool, options, func(tx pgx.Tx) error { return f(tx, d.queries.WithTx(tx)) }))
}
