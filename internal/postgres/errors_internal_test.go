// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
)

// What follows from an error of the server: of a read or a batch that begins, and of the round trip that ends with the
// commit.
func TestErrorsByClass(t *testing.T) {
	const unknown = "unknown"
	all := map[string]error{
		"unavailable": ledger.ErrUnavailable, "data": ledger.ErrData, "retry": ledger.ErrRetry,
		unknown:  ledger.ErrUnknownOutcome,
		"server": ledger.ErrServer, "pooled": ErrPooled,
	}
	for _, tc := range []struct {
		code, severity string
		is, atCommit   []string
	}{
		{"22003", "ERROR", []string{"data"}, nil},
		{"23514", "ERROR", []string{"data"}, nil},
		{"54000", "ERROR", []string{"data"}, nil}, // an index row that is too long
		{"40001", "ERROR", []string{"retry"}, nil},
		{"40P01", "ERROR", []string{"retry"}, nil},
		{"55P03", "ERROR", []string{"retry"}, nil},
		{"57014", "ERROR", []string{"retry"}, nil},
		{"25P03", "FATAL", []string{"retry"}, nil},
		{"26000", "ERROR", []string{"pooled"}, nil},
		{"08006", "ERROR", []string{"unavailable"}, []string{unknown}}, // what poolers say of a server that is lost
		{"08P01", "FATAL", []string{"unavailable"}, []string{unknown}},
		{"57P01", "FATAL", []string{"unavailable"}, []string{unknown}},
		{"57P04", "FATAL", []string{"unavailable"}, []string{unknown}},
		{"53300", "FATAL", []string{"unavailable"}, []string{unknown}},
		{"53100", "ERROR", []string{"unavailable", "server"}, nil},
		{"53200", "ERROR", []string{"unavailable", "server"}, nil},
		{"53200", "FATAL", []string{"unavailable", "server"}, []string{unknown}},
		{"53400", "ERROR", []string{"unavailable", "server"}, nil},
		{"53999", "ERROR", []string{"unavailable", "server"}, nil}, // of a release to come
		{"55000", "ERROR", []string{"unavailable", "server"}, nil},
		{"58030", "ERROR", []string{"unavailable", "server"}, nil},
		{"58P01", "PANIC", []string{"unavailable", "server"}, []string{unknown}},
		{"F0001", "ERROR", []string{"unavailable", "server"}, nil},
		{"XX000", "ERROR", []string{"unavailable", "server", "data"}, nil},
		{"XX002", "ERROR", []string{"unavailable", "server", "data"}, nil},
		{"25006", "ERROR", []string{"unavailable", "server"}, nil},
		{"0A000", "ERROR", []string{"unavailable", "server"}, nil},
		{"28P01", "FATAL", []string{"unavailable", "server"}, []string{unknown}},
		{"3D000", "FATAL", []string{"unavailable", "server"}, []string{unknown}},
		{"3F000", "ERROR", []string{"unavailable", "server"}, nil},
		{"42P01", "ERROR", []string{"unavailable", "server"}, nil},
		{"42501", "ERROR", []string{"unavailable", "server"}, nil},
		{"42601", "ERROR", nil, nil}, // a mistake of ours
		{"P0001", "ERROR", nil, nil},
	} {
		if tc.atCommit == nil {
			tc.atCommit = tc.is
		}
		given := &pgconn.PgError{Code: tc.code, SeverityUnlocalized: tc.severity}
		for where, got := range map[string]struct {
			err  error
			want []string
		}{"at first": {MapError(given), tc.is}, "at the commit": {MapCommitError(given), tc.atCommit}} {
			want := map[string]bool{}
			for _, name := range got.want {
				want[name] = true
			}
			for name, sentinel := range all {
				if errors.Is(got.err, sentinel) != want[name] {
					t.Errorf("%s %s %s: %v is %s: %t", tc.severity, tc.code, where, got.err, name, !want[name])
				}
			}
		}
	}
}
