// SPDX-License-Identifier: Apache-2.0

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// keptWAL is how far a standby may fall behind before it has to be made anew.
const keptWAL = "1GB"

// Standby makes a server that follows this one by streaming replication from now on, under a name that is also its
// application_name. It follows the address, which may be that of a proxy before this server; empty stands for Addr.
func (s *Server) Standby(ctx context.Context, name, address string) (_ *Server, err error) {
	if address == "" {
		address = s.Addr()
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	// The conninfo quotes by backslashes; none of these needs it.
	follow := fmt.Sprintf("host=%s port=%s user=%s password=%s application_name=%s sslmode=disable", host, port,
		superuser, s.secret, name)
	standby := &Server{binDir: s.binDir, secret: s.secret, account: s.account,
		opts: Options{Durable: s.opts.Durable, Settings: map[string]string{}}}
	// This server may have been a standby itself, so its settings come first.
	maps.Copy(standby.opts.Settings, s.opts.Settings)
	maps.Copy(standby.opts.Settings, map[string]string{
		"primary_conninfo": follow,
		// One that has lost the primary looks for it again soon.
		"wal_receiver_timeout": "5s", "wal_retrieve_retry_interval": "200ms",
	})
	if err := standby.makeFolder(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, standby.Stop())
		}
	}()
	if err := s.exec(ctx, "ALTER SYSTEM SET wal_keep_size = '"+keptWAL+"'", "SELECT pg_reload_conf()"); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.binDir, "pg_basebackup"), "--pgdata="+standby.data(),
		"--dbname="+follow, "--wal-method=stream", "--checkpoint=fast", "--no-sync", "--no-password")
	standby.confine(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("pg_basebackup: %w: %s", err, lastLines(string(out), 5))
	}
	signal := filepath.Join(standby.data(), "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		return nil, err
	}
	if s.account != nil {
		if err := os.Chown(signal, int(s.account.Uid), int(s.account.Gid)); err != nil {
			return nil, err
		}
	}
	return standby, standby.start(ctx)
}

// Synchronous makes every commit wait until the standby of the name has it on disk, and returns when that is so.
func (s *Server) Synchronous(ctx context.Context, name string) error {
	if err := s.exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = '"+name+"'",
		"SELECT pg_reload_conf()"); err != nil {
		return err
	}
	return s.until(ctx, "standby "+name+" to be synchronous",
		"SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = '"+name+"' AND sync_state = 'sync')")
}

// Promote makes a standby a server of its own, and returns when it takes writes.
func (s *Server) Promote(ctx context.Context) error {
	return s.until(ctx, "the promotion", "SELECT pg_promote()")
}

func (s *Server) exec(ctx context.Context, statements ...string) (err error) {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// until asks again and again until the answer is true.
func (s *Server) until(ctx context.Context, what, question string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var yes bool
		if err := conn.QueryRow(ctx, question).Scan(&yes); err != nil {
			return fmt.Errorf("wait for %s: %w: %s", what, err, strings.TrimSpace(s.logTail()))
		}
		if yes {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %s", what, ctx.Err(), strings.TrimSpace(s.logTail()))
		case <-tick.C:
		}
	}
}
