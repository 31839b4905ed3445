// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
)

// errReadOnly says that the server takes no writes from us.
var errReadOnly = fmt.Errorf("%w: it is read-only (transaction_read_only is on)", ledger.ErrUnavailable)

// checkServer asks the server, on a connection of its own, whether it takes writes, for the settings on which an
// acknowledged write depends, and for its schema unless any will do. The settings are those of the session, so what
// ALTER ROLE or ALTER DATABASE has set for us counts. One that is only read from is asked for its schema alone.
func checkServer(ctx context.Context, config *pgx.ConnConfig, opts *Options) error {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	// The simple protocol: nothing is prepared, which a transaction pooler might not bear.
	results, err := conn.PgConn().Exec(ctx, `SELECT name, setting FROM pg_catalog.pg_settings
		WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'synchronous_standby_names',
		    'transaction_read_only')`).ReadAll()
	if err != nil {
		return err
	}
	settings := map[string]string{}
	for _, row := range results[0].Rows {
		settings[string(row[0])] = string(row[1])
	}
	if settings["transaction_read_only"] == "on" && !opts.ReadOnly {
		return errReadOnly
	}
	if weak := weaknesses(settings); len(weak) > 0 && !opts.AllowUnsafe && !opts.ReadOnly {
		return fmt.Errorf("%w: %s; change that, or accept the loss explicitly with --allow-unsafe-database", ErrUnsafe,
			strings.Join(weak, ", "))
	}
	if opts.AnySchema {
		return nil
	}
	return CheckSchema(ctx, conn.PgConn())
}

// weaknesses names the settings with which the server forgets, in a crash or a promotion, what it has acknowledged.
// Where standbys are synchronous, remote_write is enough for a promotion: the standby has the write, although not on
// disk.
func weaknesses(settings map[string]string) []string {
	var weak []string
	for _, name := range []string{"fsync", "full_page_writes", "synchronous_commit"} {
		if settings[name] == "off" {
			weak = append(weak, name+" is off")
		}
	}
	if settings["synchronous_commit"] == "local" && settings["synchronous_standby_names"] != "" {
		weak = append(weak, "synchronous_commit is local although standbys are synchronous")
	}
	return weak
}
