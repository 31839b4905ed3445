// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"strings"
	"testing"
)

// used has each of the users use a credit, with the rows that a charge leaves. It is enough for the rollup, not for the
// check of the invariants, so whoever calls takes it back with what is returned.
func (l *book) used() (back func()) {
	l.t.Helper()
	l.exec(`INSERT INTO usage_tracking (id, recorded_at, user_id, period_id, kind, usage_type, idempotency_key,
		    occurred_at, credits, plan_part, currency, plan_name, plan_version, seq)
		SELECT gen_random_uuid(), now(), user_id, 0, 'charge', 'transcription', 'k', now(), 60000, 60000, 'USD', 'free',
		    1, seq + 1 FROM usage_quotas`)
	l.exec(`UPDATE usage_quotas SET seq = seq + 1`)
	return func() {
		l.exec(`TRUNCATE usage_tracking, usage_analytics, usage_rollups, usage_totals, usage_totals_stale,
			usage_months`)
		l.exec(`UPDATE usage_quotas SET seq = seq - 1`)
	}
}

func (l *book) rollup(args ...string) (string, error) {
	l.t.Helper()
	return run(l.t, l.dsn, append([]string{"rollup", "--allow-unsafe-database"}, args...)...)
}

func TestRollup(t *testing.T) {
	t.Parallel()
	l := newLedger(t, 5)
	defer l.used()()
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--batch-size=2"}, "5 accounts rolled up: 5 days in 5 rows, 0 accounts failed"},
		{nil, "0 accounts rolled up: 0 days in 0 rows, 0 accounts failed"},
		{[]string{"--rebuild", "--full-speed"}, "5 accounts rolled up: 5 days in 5 rows, 0 accounts failed"},
	} {
		if out, err := l.rollup(tc.args...); err != nil ||
			!regexp.MustCompile(`^`+tc.want+`, in [0-9.]+m?s\n$`).MatchString(out) {
			t.Errorf("%v: want %q, got %q, %v", tc.args, tc.want, out, err)
		}
	}
	l.exec(`UPDATE usage_quotas SET time_zone = 'Mars/Olympus' WHERE user_id = (SELECT id FROM users WHERE user_id =
	    'user-2')`)
	out, err := l.rollup("--rebuild")
	if exitCode(err) != exitAccountsFailed || !strings.Contains(out, "4 accounts rolled up") ||
		!strings.Contains(out, "account not rolled up") || !strings.Contains(out, "Mars/Olympus") {
		t.Errorf("%q, %v", out, err)
	}
	l.exec(`UPDATE usage_quotas SET time_zone = 'UTC'`)
	for arg, want := range map[string]string{
		"--batch-size=-1":  "--batch-size -1: must lie between 0 and 10000",
		"--retry-for=0s":   "--retry-for 0s: must be positive",
		"--log-format=xml": "xml",
	} {
		if out, err := l.rollup(arg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want %q, got %q, %v", arg, want, out, err)
		}
	}
}
