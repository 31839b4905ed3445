// SPDX-License-Identifier: Apache-2.0

package reset_test

import (
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/reset"
)

// A run may start an hour late and take another one: what it should have closed is overdue two hours after its time.
func TestOverdueBy(t *testing.T) {
	for spec, tc := range map[string]struct{ at, want string }{
		"0 2 * * *":    {"2026-11-23T12:00:00Z", "2026-11-23T02:00:00Z"},
		"1 2 * * *":    {"2026-11-23T02:00:59Z", "2026-11-22T02:01:00Z"},
		"0 3 * * *":    {"2026-11-23T03:00:00Z", "2026-11-23T03:00:00Z"},
		"@hourly":      {"2026-11-23T12:59:59Z", "2026-11-23T12:00:00Z"},
		"* * * * *":    {"2026-11-23T12:59:59Z", "2026-11-23T12:59:00Z"},
		"@weekly":      {"2026-11-23T12:00:00Z", "2026-11-22T00:00:00Z"},
		"@monthly":     {"2026-11-23T12:00:00Z", "2026-11-01T00:00:00Z"},
		"0 0 29 2 *":   {"2027-11-23T12:00:00Z", "2024-02-29T00:00:00Z"},
		"0 2 * * 1-5":  {"2026-11-22T12:00:00Z", "2026-11-20T02:00:00Z"},
		"30 4 1 1 *":   {"2026-11-22T12:00:00Z", "2026-01-01T04:30:00Z"},
		"0 2 31 * *":   {"2026-11-22T12:00:00Z", "2026-10-31T02:00:00Z"},
		"*/20 5 * * *": {"2026-11-22T05:59:00Z", "2026-11-22T05:40:00Z"},
	} {
		at, err := time.Parse(time.RFC3339, tc.at)
		if err != nil {
			t.Fatal(err)
		}
		got, err := reset.OverdueBy(spec, at.Add(2*time.Hour))
		if err != nil || got.Format(time.RFC3339) != tc.want {
			t.Errorf("%q two hours after %s: overdue is what ended by %s, want %s; %v", spec, tc.at,
				got.Format(time.RFC3339), tc.want, err)
		}
	}
	for _, spec := range []string{"", "0 2 * *", "0 0 31 2 *", "TZ=Asia/Hong_Kong 0 2 * * *"} {
		if by, err := reset.OverdueBy(spec, time.Now()); err == nil {
			t.Errorf("%q: overdue is what ended by %s", spec, by)
		}
	}
}
