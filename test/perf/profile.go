// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime/pprof"

	"github.com/jackc/pgx/v5"
)

// startProfile writes a CPU profile of this process until the returned function is called, which also tells what
// statements took how much of the database's time since. Without the option it does nothing.
func (b *bench) startProfile(ctx context.Context, name string) (stop func(context.Context) error, err error) {
	if b.opts.profile == "" {
		return func(context.Context) error { return nil }, nil
	}
	if err := b.lab.exec(ctx, "SELECT pg_stat_statements_reset()"); err != nil {
		return nil, err
	}
	path := filepath.Join(b.opts.profile, name+".pprof")
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func(ctx context.Context) error {
		pprof.StopCPUProfile()
		b.report.progressf("wrote %s", path)
		return errors.Join(file.Close(), b.printStatements(ctx))
	}, nil
}

// printStatements lists what took the most time, as the server saw it: waiting for a processor is in it.
func (b *bench) printStatements(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.lab.server.DSN("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, `
		SELECT calls, total_exec_time, left(regexp_replace(query, '\s+', ' ', 'g'), 70) FROM pg_stat_statements
		WHERE calls > 1 ORDER BY total_exec_time DESC LIMIT 12`)
	if err != nil {
		return err
	}
	var calls int64
	var spent float64
	var query string
	_, err = pgx.ForEachRow(rows, []any{&calls, &spent, &query}, func() error {
		b.report.progressf("%8.0f ms in %6d calls, %7.3f ms each: %s", spent, calls, spent/float64(calls), query)
		return nil
	})
	return err
}
