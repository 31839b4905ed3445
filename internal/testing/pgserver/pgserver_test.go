// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package pgserver_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/testing/pgserver"
)

func TestStart(t *testing.T) {
	type settings struct{ Fsync, SynchronousCommit, FullPageWrites, WorkMem, TimeZone string }
	for name, tc := range map[string]struct {
		opts pgserver.Options
		want settings
	}{
		"tests are fast": {
			want: settings{"off", "off", "off", "4MB", "UTC"},
		},
		"durable where asked for, with settings of one's own": {
			opts: pgserver.Options{Durable: true, Settings: map[string]string{"work_mem": "8MB"}},
			want: settings{"on", "on", "on", "8MB", "UTC"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := pgserver.Start(t.Context(), tc.opts)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Stop() })
			conn, err := pgx.Connect(t.Context(), s.DSN("postgres"))
			if err != nil {
				t.Fatal(err)
			}
			var got settings
			for name, value := range map[string]*string{
				"fsync": &got.Fsync, "synchronous_commit": &got.SynchronousCommit,
				"full_page_writes": &got.FullPageWrites,
				"work_mem":         &got.WorkMem, "timezone": &got.TimeZone,
			} {
				if err := conn.QueryRow(t.Context(), "SHOW "+name).Scan(value); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}

			if _, err := pgx.Connect(t.Context(),
				strings.Replace(s.DSN("postgres"), "postgres:", "postgres:not-", 2)); err == nil {
				t.Error("a wrong password was accepted")
			}

			// With a session still open.
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(s.Dir()); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("folder %s after Stop: got %v, want none", s.Dir(), err)
			}
			if err := s.Stop(); err != nil {
				t.Errorf("the second Stop: %v", err)
			}
		})
	}
}

func TestFindTakesPGBinDirByItsWord(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PG_BINDIR", dir)
	if got, err := pgserver.Find(); err == nil || !strings.Contains(err.Error(), "PG_BINDIR="+dir) {
		t.Errorf("empty folder: got %q, %v, want an error that names it", got, err)
	}
	for _, name := range []string{"initdb", "postgres"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := pgserver.Find(); err != nil || got != dir {
		t.Errorf("got %q, %v, want %q", got, err, dir)
	}
}
