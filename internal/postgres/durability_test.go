// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgserver"
)

// What counts is what holds for the service's own sessions: settings of the server, the database, the role, or both.
func TestDurabilityIsThatOfTheSession(t *testing.T) {
	t.Parallel()
	server, err := pgserver.Start(t.Context(), pgserver.Options{Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	admin, err := pgx.Connect(t.Context(), server.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close(t.Context()) })
	exec := func(statements string) {
		t.Helper()
		for statement := range strings.SplitSeq(statements, ";") {
			if _, err := admin.Exec(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
	}
	exec("CREATE ROLE usaged LOGIN PASSWORD 'x'; CREATE DATABASE usage")
	u, err := url.Parse(server.DSN("usage"))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("usaged", "x")

	const standby = "ALTER SYSTEM SET synchronous_standby_names = 's1'; SELECT pg_reload_conf()"
	for _, tc := range []struct{ name, set, unset, want string }{
		{name: "all on"},
		{"role", "ALTER ROLE usaged SET synchronous_commit = off", "ALTER ROLE usaged RESET ALL",
			"synchronous_commit is off"},
		{"another role", "ALTER ROLE postgres SET synchronous_commit = off", "ALTER ROLE postgres RESET ALL", ""},
		{"database", "ALTER DATABASE usage SET synchronous_commit = off", "ALTER DATABASE usage RESET ALL",
			"synchronous_commit is off"},
		{
			"role in database", "ALTER ROLE usaged IN DATABASE usage SET synchronous_commit = off",
			"ALTER ROLE usaged IN DATABASE usage RESET ALL", "synchronous_commit is off",
		},
		{
			"the role's on wins over the database's off",
			"ALTER DATABASE usage SET synchronous_commit = off; ALTER ROLE usaged SET synchronous_commit = on",
			"ALTER DATABASE usage RESET ALL; ALTER ROLE usaged RESET ALL", "",
		},
		{"local, one server", "ALTER ROLE usaged SET synchronous_commit = local", "ALTER ROLE usaged RESET ALL", ""},
		// From here on a standby is synchronous, so nothing but settings that need no commit can be waited for.
		{
			"local, with a synchronous standby", "ALTER ROLE usaged SET synchronous_commit = local; " + standby,
			"SET synchronous_commit = local; ALTER ROLE usaged RESET ALL",
			"synchronous_commit is local although standbys are synchronous",
		},
		{
			"remote_write, with a synchronous standby", "ALTER ROLE usaged SET synchronous_commit = remote_write",
			"ALTER ROLE usaged RESET ALL", "",
		},
		{"on, with a synchronous standby", "SELECT 1", "SELECT 1", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.set != "" {
				exec(tc.set)
				defer exec(tc.unset)
			}
			store, err := ledgerdb.Open(t.Context(), u.String(), postgres.Options{AnySchema: true})
			if err == nil {
				store.Close()
			}
			if tc.want == "" && err != nil ||
				tc.want != "" && (!errors.Is(err, postgres.ErrUnsafe) || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("Open = %v, want an error with %q", err, tc.want)
			}
		})
	}
}
