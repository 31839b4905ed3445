// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// liveVersion is that of a migration whose statements depend on which partitions there are.
const liveVersion = 30

// Indexes by which is found what was recorded, and what failed, lately. Neither is written to by work that is admitted
// and charged. The former has a range of instants for every 128 pages, made by autovacuum once they are full: an insert
// finds no range, or one that its instant is in. The latter has no entry of what is charged.
const (
	recordedIndex   = "usage_tracking_recorded_idx"
	recordedOptions = "USING brin (recorded_at) WITH (autosummarize = on)"
	failedIndex     = "concurrent_processing_failed_idx"
)

// indexLive makes them without keeping anybody from writing: an index of a partitioned table cannot be made so, but its
// parts can, one partition after the other. Partitions that are made later bring theirs. It may be run again.
func indexLive(ctx context.Context, db *sql.DB) error {
	statements := []string{
		"DROP INDEX CONCURRENTLY IF EXISTS " + failedIndex,
		"CREATE INDEX CONCURRENTLY " + failedIndex + " ON concurrent_processing (ended_at) " +
			"WHERE state IN ('Released', 'Expired')",
		"CREATE INDEX IF NOT EXISTS " + recordedIndex + " ON ONLY usage_tracking " + recordedOptions,
	}
	for _, s := range statements {
		if _, err := db.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	parts, err := unindexedPartitions(ctx, db)
	if err != nil {
		return err
	}
	for _, part := range parts {
		index := pgx.Identifier{part + "_recorded_idx"}.Sanitize()
		for _, s := range []string{
			// One that a failed attempt has left would be invalid.
			"DROP INDEX CONCURRENTLY IF EXISTS " + index,
			"CREATE INDEX CONCURRENTLY " + index + " ON " + pgx.Identifier{part}.Sanitize() + " " + recordedOptions,
			"ALTER INDEX " + recordedIndex + " ATTACH PARTITION " + index,
		} {
			if _, err := db.ExecContext(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
	}
	return nil
}

// unindexedPartitions are those of the events that have no part of the index.
func unindexedPartitions(ctx context.Context, db *sql.DB) (parts []string, err error) {
	rows, err := db.QueryContext(ctx, `
SELECT c.relname FROM pg_inherits AS p JOIN pg_class AS c ON c.oid = p.inhrelid
WHERE p.inhparent = 'usage_tracking'::regclass AND NOT EXISTS (
    SELECT FROM pg_inherits AS x JOIN pg_index AS i ON i.indexrelid = x.inhrelid
    WHERE x.inhparent = $1::regclass AND i.indrelid = c.oid)
ORDER BY c.relname`, recordedIndex)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var part string
		if err := rows.Scan(&part); err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return parts, rows.Err()
}

func dropLive(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, "DROP INDEX IF EXISTS "+recordedIndex+", "+failedIndex)
	return err
}
