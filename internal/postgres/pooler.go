// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ErrPooled says that a connection leads to a pooler where it has to lead to the server itself.
var ErrPooled = errors.New("the connection leads to a connection pooler, not to the PostgreSQL server itself")

// execModeOption is pgx's option of connection strings.
const execModeOption = "default_query_exec_mode"

// checkExecMode refuses the modes in which statements are sent without asking the server for the types of their
// parameters: it would not take ours for what they are.
func checkExecMode(mode pgx.QueryExecMode) error {
	if mode == pgx.QueryExecModeExec || mode == pgx.QueryExecModeSimpleProtocol {
		return fmt.Errorf(
			"database URL: %s=%s is not supported; a pooler without prepared statements needs %[1]s=cache_describe, "+
				"which is chosen where none is given",
			execModeOption, strings.ReplaceAll(mode.String(), " ", "_"))
	}
	return nil
}

// chooseExecMode sets how statements are sent through config: as it says if it says so, else as what is behind it
// bears. A pooler in transaction mode gives each transaction another server, where a statement that was prepared by
// name is not known; those that know better are told so by default_query_exec_mode=cache_statement.
func chooseExecMode(ctx context.Context, dsn string, config *pgx.ConnConfig) error {
	if saysExecMode(dsn) {
		return checkExecMode(config.DefaultQueryExecMode)
	}
	pooled, err := leadsToPooler(ctx, config)
	if err == nil && pooled {
		config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	return err
}

func saysExecMode(dsn string) bool {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		return u.Query().Has(execModeOption)
	}
	return strings.Contains(dsn, execModeOption)
}

func leadsToPooler(ctx context.Context, config *pgx.ConnConfig) (pooled bool, err error) {
	conn, err := pgx.ConnectConfig(ctx, config.Copy())
	if err != nil {
		return false, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		err = errors.Join(err, conn.Close(ctx))
	}()
	return isPooled(ctx, conn)
}

// isPooled tells whether a pooler answers. It has to make up the process id that it greets its clients with, for the
// server's own changes from transaction to transaction.
func isPooled(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var pid uint32
	err := conn.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&pid)
	return pid != conn.PgConn().PID(), err
}
