// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// migrationLockTimeout bounds how long a migration waits for a table: whoever queues behind a waiting DDL statement
	// waits as well, so it gives up rather than stop the service, and is run again.
	migrationLockTimeout = "5s"
	// migrationIdle ends the transaction of one who was stopped in the middle.
	migrationIdle = "30s"
	// Attempts, a second apart, to become the one who migrates.
	migrationTurns = 300
)

// Migrate brings the database to this release's schema. Several may call it at once: one migrates, the others wait and
// then find nothing to do. dsn must lead to the server itself, not to a transaction pooler.
func Migrate(ctx context.Context, dsn string) (err error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("database URL: %w", err)
	}
	pooled, err := leadsToPooler(ctx, config)
	if err != nil {
		return MapError(err)
	}
	if pooled {
		return fmt.Errorf("migrate: %w: name the server in DIRECT_DATABASE_URL", ErrPooled)
	}
	config.RuntimeParams["lock_timeout"] = migrationLockTimeout
	config.RuntimeParams["idle_in_transaction_session_timeout"] = migrationIdle
	db := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.PingContext(ctx); err != nil {
		return MapError(err)
	}
	// First, because who finds our schema's version takes all of it for being there.
	if err := migrateQueue(ctx, dsn, db); err != nil {
		return fmt.Errorf("migrate schema %s: %w", QueueSchema, MapError(err))
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, migrationTurns))
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker),
		goose.WithGoMigrations(goose.NewGoMigration(liveVersion, &goose.GoFunc{RunDB: indexLive},
			&goose.GoFunc{RunDB: dropLive})))
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", MapError(err))
	}
	return nil
}

// QueueSchema is where River has its tables, whose migrations are its own.
const QueueSchema = "river"

// queueLock is the advisory lock of whoever migrates QueueSchema.
const queueLock = 0x7269766572

// migrateQueue brings River's tables up to date. Its migrations are transactions of their own, so a lock of a session
// keeps others out.
func migrateQueue(ctx context.Context, dsn string, db *sql.DB) (err error) {
	lock, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	// The lock ends with its connection, which is one of a pool that is about to be closed.
	defer func() { err = errors.Join(err, lock.Close()) }()
	for turn := 0; ; turn++ {
		var mine bool
		if err := lock.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", queueLock).Scan(&mine); err != nil {
			return err
		}
		if mine {
			break
		}
		if turn >= migrationTurns {
			return errors.New("somebody else has been migrating for too long")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	defer func() {
		_, unlocked := lock.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", queueLock)
		err = errors.Join(err, unlocked)
	}()
	if _, err := lock.ExecContext(ctx, "CREATE SCHEMA IF NOT EXISTS "+QueueSchema); err != nil {
		return err
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return err
	}
	config.MaxConns = 2
	config.ConnConfig.RuntimeParams["lock_timeout"] = migrationLockTimeout
	config.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = migrationIdle
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: QueueSchema,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

// schemaNeeded is the version of the newest migration, which this release's statements need.
var schemaNeeded = func() (newest int64) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		panic(err) // only for a malformed pattern
	}
	for _, file := range files {
		version, err := goose.NumericComponent(file)
		if err != nil {
			panic(err) // the names are ours
		}
		newest = max(newest, version)
	}
	return max(newest, liveVersion)
}()

// CheckSchema returns a SchemaError where the schema is older than this release needs. Of a role that may not look it
// is assumed that somebody else takes care of the schema.
func CheckSchema(ctx context.Context, conn *pgconn.PgConn) error {
	const table = "to_regclass('goose_db_version')"
	answers, err := conn.Exec(ctx, "SELECT has_table_privilege("+table+", 'SELECT')").ReadAll()
	if err != nil {
		return err
	}
	var has int64
	if readable := answers[0].Rows[0][0]; readable != nil {
		if string(readable) != "t" {
			return nil
		}
		answers, err := conn.Exec(ctx,
			"SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied").ReadAll()
		if err != nil {
			return err
		}
		if has, err = strconv.ParseInt(string(answers[0].Rows[0][0]), 10, 64); err != nil {
			return err
		}
	}
	if has < schemaNeeded {
		return &ledger.SchemaError{Has: has, Needs: schemaNeeded}
	}
	return nil
}
