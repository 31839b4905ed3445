// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/invariants"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgserver"
)

const (
	template = "bench_template"
	// vacuum leaves nothing for autovacuum to do during a trial.
	vacuum = "VACUUM (ANALYZE, FREEZE)"
)

// shown are the settings that decide what a commit costs and what it is worth.
var shown = []string{
	"server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers",
	"max_wal_size", "max_connections",
}

// mustBeOn are those of them without which the figures mean nothing.
var mustBeOn = []string{"fsync", "synchronous_commit", "full_page_writes"}

// vacuumAnalyze does what autovacuum would, before a trial.
const vacuumAnalyze = "VACUUM (ANALYZE)"

// lab is a durable server with a template of a migrated database full of users.
type lab struct {
	server *pgserver.Server
	made   int
	users  int
}

func newLab(ctx context.Context, out io.Writer, users int, statistics bool) (_ *lab, err error) {
	settings := map[string]string{
		"shared_buffers": "512MB",
		// A checkpoint in the middle of one trial and not of another would make them incomparable: there is one before
		// each.
		"max_wal_size": "8GB", "checkpoint_timeout": "30min",
		// 256 clients of pgbench beside the pools of usaged.
		"max_connections": "400",
		// What is loaded into a table that was made in the same transaction need not go through the log.
		"wal_level": "minimal", "max_wal_senders": "0",
	}
	if statistics {
		settings["shared_preload_libraries"] = "pg_stat_statements"
	}
	server, err := pgserver.Start(ctx, pgserver.Options{Durable: true, Settings: settings})
	if err != nil {
		return nil, err
	}
	l := &lab{server: server, users: users}
	defer func() {
		if err != nil {
			err = errors.Join(err, server.Stop())
		}
	}()
	if err := l.printSettings(ctx, out); err != nil {
		return nil, err
	}
	if statistics {
		if err := l.exec(ctx, "CREATE EXTENSION pg_stat_statements"); err != nil {
			return nil, err
		}
	}
	if err := l.exec(ctx, "CREATE DATABASE "+template); err != nil {
		return nil, err
	}
	dsn := server.DSN(template)
	if err := postgres.Migrate(ctx, dsn); err != nil {
		return nil, err
	}
	return l, l.seed(ctx, users)
}

func (l *lab) printSettings(ctx context.Context, out io.Writer) error {
	conn, err := pgx.Connect(ctx, l.server.DSN("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	values := map[string]string{}
	_, _ = fmt.Fprint(out, "server:")
	for _, name := range shown {
		var value string
		if err := conn.QueryRow(ctx, "SHOW "+name).Scan(&value); err != nil {
			return err
		}
		values[name] = value
		_, _ = fmt.Fprintf(out, " %s=%s", name, strings.ReplaceAll(value, " ", ""))
	}
	_, _ = fmt.Fprintln(out)
	for _, name := range mustBeOn {
		if values[name] != "on" {
			return fmt.Errorf("%s is %s: figures of such a server mean nothing", name, values[name])
		}
	}
	return nil
}

// seed makes one plan with limits that are checked but never reached, and the users on it. An account's id follows from
// the user's number, so that pgbench needs no look-up: that is in its favour.
func (l *lab) seed(ctx context.Context, users int) error {
	conn, err := pgx.Connect(ctx, l.server.DSN(template))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range []string{
		`INSERT INTO user_plan_limits (name, display_name, is_default, credits_limit, file_size_limit, audio_ms_limit,
		     concurrent_limit, queued_limit, provider_cost_micros, daily_cost_ceiling_micros, rate_requests,
		     calendar_month)
		 VALUES ('bench', 'Bench', true, 600000000000, 26214400, 86400000, 10000, 100000, 6000, 900000000000000,
		     2147483647, true)`,
		fmt.Sprintf(`INSERT INTO users (id, user_id) SELECT md5('bench-' || n)::uuid, 'user-' || n FROM
		    generate_series(1, %d) AS n`, users),
		`INSERT INTO usage_quotas (user_id, plan_name, currency, anchor_at, period_start, period_end)
		 SELECT id, 'bench', 'USD', month AT TIME ZONE 'UTC', month AT TIME ZONE 'UTC', (month
		     + interval '1 month') AT TIME ZONE 'UTC'
		 FROM users, date_trunc('month', now() AT TIME ZONE 'UTC') AS month`,
		`INSERT INTO audit_log (actor, action, object_kind, object_name, version, after)
	    VALUES ('system', 'plan.created', 'UsagePlan', 'bench', 2, '{"display_name": "Bench"}')`,
		benchRegistered,
		vacuum,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("make the plan and the users: %w", err)
		}
	}
	return nil
}

// fresh makes a copy of the template for one trial, with a checkpoint behind it.
func (l *lab) fresh(ctx context.Context) (name string, err error) {
	l.made++
	name = fmt.Sprintf("bench_%d", l.made)
	if err := l.exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		return "", err
	}
	return name, l.exec(ctx, "CHECKPOINT")
}

func (l *lab) drop(ctx context.Context, name string) error {
	return l.exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
}

func (l *lab) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, l.server.DSN("postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

// books say what must be in a database.
type books struct {
	// pairs that were acknowledged, and events that were there before, with the units that they used.
	pairs  int
	events int
	units  int64
	// teams says that each pair is booked once more, in the account of a team.
	teams bool
}

// verify checks that the rows of all acknowledged pairs are in the database, and no others.
func (l *lab) verify(ctx context.Context, database string, b *books) error {
	conn, err := pgx.Connect(ctx, l.server.DSN(database))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var settled, others, charges, charged, sum, reserved int64
	if err := conn.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM concurrent_processing WHERE state = 'Settled'),
		       (SELECT count(*) FROM concurrent_processing WHERE state <> 'Settled'),
		       (SELECT count(*) FROM usage_tracking WHERE kind = 'charge'),
		       (SELECT count(DISTINCT admission_id) FROM usage_tracking),
		       (SELECT sum(used)::bigint FROM (SELECT used FROM usage_quotas UNION ALL SELECT used FROM usage_periods)
		           AS p),
		       (SELECT sum(reserved + active)::bigint FROM
		           usage_quotas)`).Scan(&settled, &others, &charges, &charged, &sum, &reserved); err != nil {
		return err
	}
	want := int64(b.pairs + b.events)
	units := b.units + int64(b.pairs)*used.Milliseconds()
	if b.teams {
		units *= 2
	}
	if settled != want || others != 0 || charges != want || charged != want || sum != units || reserved != 0 {
		return fmt.Errorf(
			"%s: %d pairs were acknowledged and %d were there before, but there are %d settled and %d other "+
				"admissions, %d charges of "+
				"%d admissions, %d units used (want %d) and %d still reserved", database, b.pairs, b.events, settled,
			others, charges, charged, sum, units, reserved)
	}
	return nil
}

// checkInvariants replays every decision.
func (l *lab) checkInvariants(ctx context.Context, database string) error {
	pool, err := pgxpool.New(ctx, l.server.DSN(database))
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, vacuumAnalyze); err != nil {
		return err
	}
	violations, err := invariants.Check(ctx, pool)
	if err != nil {
		return err
	}
	if len(violations) > 0 {
		return fmt.Errorf("%s: %d violations of the invariants, the first is %v", database, len(violations),
			violations[0])
	}
	return nil
}
