// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// emptied takes the rows and the indexes of tables away and returns the statements that make the indexes again, which
// behind the rows take a tenth of the time. What goes into the tables in the same transaction is not logged. No table
// may have a key that others refer to.
func emptied(ctx context.Context, tx pgx.Tx, tables ...string) (behind []string, err error) {
	rows, err := tx.Query(ctx, `
		SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', c.conrelid::regclass, c.conname),
		    format('ALTER TABLE %s ADD CONSTRAINT %I %s', c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid))
		FROM pg_constraint AS c WHERE c.conrelid = ANY ($1::text[]::regclass[]) AND c.contype IN ('p', 'u')
		UNION ALL
		SELECT format('DROP INDEX %s', i.indexrelid::regclass), pg_get_indexdef(i.indexrelid)
		FROM pg_index AS i WHERE i.indrelid = ANY ($1::text[]::regclass[])
		    AND NOT EXISTS (
		        SELECT FROM pg_constraint AS c WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u'))`,
		tables)
	if err != nil {
		return nil, err
	}
	now := []string{"SET LOCAL maintenance_work_mem = '1GB'", "TRUNCATE " + strings.Join(tables, ", ")}
	var drop, restore string
	_, err = pgx.ForEachRow(rows, []any{&drop, &restore}, func() error {
		now, behind = append(now, drop), append(behind, restore)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return behind, execIn(ctx, tx, now)
}

// execIn runs statements one after the other.
func execIn(ctx context.Context, on interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}, statements []string,
) error {
	for _, sql := range statements {
		if _, err := on.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%.60s...: %w", sql, err)
		}
	}
	return nil
}

// fill makes so many settled admissions with their charges, in turn for each user, all in the open period: what the
// service writes to then is the largest partition. They occurred in the thirty days before, an hour apart.
func (l *lab) fill(ctx context.Context, database string, events int) (*books, error) {
	conn, err := pgx.Connect(ctx, l.server.DSN(database))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		behind, err := emptied(ctx, tx, "concurrent_processing")
		if err != nil {
			return err
		}
		return execIn(ctx, tx, append([]string{
			// A partition cannot give its indexes away; the one that takes its place is new in this transaction.
			`DO $$
			DECLARE
				part text := 'usage_tracking_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMM');
			BEGIN
				EXECUTE format('ALTER TABLE usage_tracking DETACH PARTITION %I', part);
				EXECUTE format('DROP TABLE %I', part);
				EXECUTE format('CREATE TABLE %I (LIKE usage_tracking INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part);
			END $$`,
			fmt.Sprintf(`INSERT INTO concurrent_processing (id, user_id, source, name, requested_by, body_hash, state,
			    estimate, file_size,
				period_no, period_end, plan_part, estimated_cost_micros, provider_cost_micros, actual, created_at,
				admitted_at, ended_at,
				lease_ms, lease_until, arrived_seq, admitted_seq, ended_seq, seen_remaining, seen_concurrent,
				seen_used, seen_reserved, seen_active)
			SELECT md5('admission-' || n)::uuid, a.user_id, 'api', '', 'system:serviceaccount:bench:client',
			    sha256(n::text::bytea), 'Settled', %d, %d,
				a.period_no, a.period_end, %d, 18000, 6000, %d, k.start, start AS admitted_at, k.start AS ended_at,
				120000, start, 2 * round + 1, 2 * round + 1, 2 * round + 2,
				600000000000 - %d * round, 10000, %d * round, 0, 0
			FROM generate_series(1, %d) AS round CROSS JOIN usage_quotas AS a
			CROSS JOIN LATERAL (SELECT a.user_id || '-' || round AS n, a.period_start AS start) AS k`,
				declared.Milliseconds(), fileSize, declared.Milliseconds(), used.Milliseconds(), used.Milliseconds(),
				used.Milliseconds(),
				events/l.users),
			fmt.Sprintf(`DO $$
			DECLARE
				part text := 'usage_tracking_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMM');
				first timestamptz := date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
			BEGIN
				EXECUTE format($f$INSERT INTO %%I (id, recorded_at, user_id, period_id, kind, usage_type, admission_id,
				    occurred_at, credits,
						plan_part, duration_ms, file_size, cost_micros, currency, plan_name, plan_version, seq)
					SELECT md5('event-' || c.id)::uuid, c.ended_at, c.user_id, c.period_no, 'charge', 'transcription',
					    c.id, c.ended_at - (c.arrived_seq / 2 %%%% 720) * interval '1 hour', units AS credits,
						units AS plan_part,
						units AS duration_ms, c.file_size, 16500, 'USD', 'bench', 1, c.ended_seq
					FROM concurrent_processing AS c CROSS JOIN LATERAL (SELECT c.actual AS units) AS u$f$, part);
				EXECUTE format('ALTER TABLE usage_tracking ATTACH PARTITION %%I FOR VALUES FROM (%%L) TO (%%L)', part,
				    first,
					(date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC');
			END $$`),
			fmt.Sprintf(`UPDATE usage_quotas SET used = %d::bigint * %d, plan_used = %d::bigint * %d, cost_micros =
			    16500::bigint * %d, seq = 2 * %d + 2`,
				used.Milliseconds(), events/l.users, used.Milliseconds(), events/l.users, events/l.users,
				events/l.users),
		}, behind...))
	})
	if err != nil {
		return nil, fmt.Errorf("fill the tables: %w", err)
	}
	if _, err := conn.Exec(ctx,
		"VACUUM (ANALYZE, FREEZE) concurrent_processing, usage_tracking, usage_quotas"); err != nil {
		return nil, err
	}
	made := events / l.users * l.users
	return &books{events: made, units: int64(made) * used.Milliseconds()}, nil
}
