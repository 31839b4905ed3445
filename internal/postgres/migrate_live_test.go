// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
)

// Each partition of the events can be searched by when they were recorded: those that there were, also where an attempt
// to make the index was cut off, and those that are made later.
func TestPartitionsAreIndexed(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t, postgres.Migrate)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	const left = "usage_tracking_default_recorded_idx"
	for _, s := range []string{
		"DROP INDEX usage_tracking_recorded_idx",
		"CREATE INDEX " + left + " ON usage_tracking_default (id)",
		"DELETE FROM goose_db_version WHERE version_id >= 30",
	} {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := postgres.Migrate(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT ensure_usage_partition('2031-05-01')"); err != nil {
		t.Fatal(err)
	}
	var parts, indexed int
	var valid bool
	if err := conn.QueryRow(t.Context(), `
SELECT (SELECT count(*) FROM pg_inherits WHERE inhparent = 'usage_tracking'::regclass),
    (SELECT count(*) FROM pg_inherits AS p JOIN pg_index AS i ON i.indexrelid = p.inhrelid
        JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam
        WHERE p.inhparent = 'usage_tracking_recorded_idx'::regclass AND i.indisvalid AND m.amname = 'brin'
          AND c.reloptions = '{autosummarize=on}'),
    (SELECT indisvalid FROM pg_index WHERE indexrelid = 'usage_tracking_recorded_idx'::regclass)`).
		Scan(&parts, &indexed, &valid); err != nil {
		t.Fatal(err)
	}
	if parts < 3 || indexed != parts || !valid {
		t.Errorf("%d of %d partitions have the index, which is valid: %t", indexed, parts, valid)
	}
}
