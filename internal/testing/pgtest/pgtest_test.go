// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package pgtest_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
)

var migrations atomic.Int32

func migrate(ctx context.Context, dsn string) error {
	migrations.Add(1)
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE TABLE thing (id int PRIMARY KEY)")
	return errors.Join(err, conn.Close(ctx))
}

func TestDatabasesAreMigratedOnceAndSeparate(t *testing.T) {
	t.Run("group", func(t *testing.T) {
		for i := range 8 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				conn, err := pgx.Connect(t.Context(), pgtest.New(t, migrate))
				if err != nil {
					t.Fatal(err)
				}
				// The same key in each of them: they would collide in one database.
				if _, err := conn.Exec(t.Context(), "INSERT INTO thing VALUES (1)"); err != nil {
					t.Error(err)
				}
			})
		}
	})
	if got := migrations.Load(); got != 1 {
		t.Errorf("migrations ran %d times, want once", got)
	}
}

func TestDatabaseIsDroppedWithItsTest(t *testing.T) {
	var name string
	t.Run("a test", func(t *testing.T) {
		conn, err := pgx.Connect(t.Context(), pgtest.New(t, nil))
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRow(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
			t.Fatal(err)
		}
	})
	conn, err := pgx.Connect(t.Context(), pgtest.New(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	var left int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_database WHERE datname = $1",
		name).Scan(&left); err != nil {
		t.Fatal(err)
	}
	if left != 0 {
		t.Errorf("database %s is still there", name)
	}
}
