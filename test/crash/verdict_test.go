// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	someID  = "11111111-1111-4111-8111-111111111111"
	otherID = "22222222-2222-4222-8222-222222222222"
)

// charged is a piece of work that was acknowledged as charged 40 ms, and released one that was given back.
func chargedEntry() *entry {
	return &entry{user: "alice", key: "k", estimate: 60, id: someID, asked: []int64{40}, settled: 40, isCharged: true}
}

func releasedEntry() *entry {
	return &entry{user: "alice", key: "k", estimate: 60, id: someID, ended: released}
}

func settledRow(charges ...int64) *row {
	actual := int64(40)
	return &row{ID: someID, User: "alice", Source: "api", State: settled, Estimate: 60, Actual: &actual,
		Charges: charges}
}

func TestCompare(t *testing.T) {
	var account quota.AccountID
	account[15] = 7
	derived := uuid.UUID(quota.NameID("admission", account, "k")).String()
	end := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		entry *entry
		row   *row
		// want is part of the only finding; empty if there is none.
		want             string
		lost, violations int
	}{
		"charged once":            {entry: chargedEntry(), row: settledRow(40)},
		"acknowledged, not there": {entry: chargedEntry(), want: "not in the database", lost: 1},
		"charge lost": {entry: chargedEntry(), row: &row{ID: someID, User: "alice", Source: "api",
			State: admitted, Estimate: 60}, want: "no charge in the database (Admitted)", lost: 1},
		"charged twice": {entry: chargedEntry(), row: settledRow(40, 40), want: "charged were [40 40]",
			violations: 1},
		"charged another use": {entry: chargedEntry(), row: settledRow(41), want: "charged were [41]",
			violations: 1},
		"charged and not settled": {
			entry: chargedEntry(), row: &row{ID: someID, User: "alice", Source: "api", State: expired, Estimate: 60,
				Charges: []int64{40}},
			want: "the admission is Expired", lost: 1,
		},
		"another user's": {
			entry: releasedEntry(), row: &row{ID: someID, User: "bob", Source: "api", State: released, Estimate: 60},
			want: "for user bob", violations: 1,
		},
		"released": {entry: releasedEntry(),
			row: &row{ID: someID, User: "alice", Source: "api", State: released, Estimate: 60}},
		"release lost": {entry: releasedEntry(), row: &row{ID: someID, User: "alice", Source: "api",
			State: expired, Estimate: 60}, want: "acknowledged as Released, and Expired", lost: 1},
		"released, then charged": {entry: releasedEntry(), row: &row{ID: someID, User: "alice", Source: "api",
			State: released, Estimate: 60, Charges: []int64{1}}, want: "charged [1], asked for were []", violations: 1},
		"asked for, never answered, charged": {
			entry: &entry{user: "alice", key: "k", estimate: 60, id: someID, asked: []int64{40}}, row: settledRow(40),
		},
		"charged what nobody asked for": {
			entry: &entry{user: "alice", key: "k", estimate: 60, id: someID, asked: []int64{41}}, row: settledRow(40),
			want: "charged [40], asked for were [41]", violations: 1,
		},
		"refused": {entry: &entry{user: "alice", key: "k", estimate: 60, refused: true}},
		"refused and admitted": {
			entry: &entry{user: "alice", key: "k", estimate: 60, refused: true},
			row:   &row{ID: derived, User: "alice", Source: "api", State: expired, Estimate: 60},
			want:  "refused, and in the database", violations: 1,
		},
		"refused after a try without an answer": {
			entry: &entry{user: "alice", key: "k", estimate: 60, refused: true, uncertain: true},
			row:   &row{ID: derived, User: "alice", Source: "api", State: expired, Estimate: 60},
		},
		"expired too early": {
			entry: &entry{user: "alice", key: "k", estimate: 60, id: someID, held: end.Add(time.Second)},
			row:   &row{ID: someID, User: "alice", Source: "api", State: expired, Estimate: 60, EndedAt: &end},
			want:  "expired 1s before the lease", violations: 1,
		},
		"nobody asked": {
			entry: &entry{user: "alice", key: "other", refused: true},
			row:   &row{ID: otherID, User: "alice", Source: "api", State: admitted, Estimate: 60},
			want:  "nobody asked for it", violations: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			books := &ledger{rows: map[string]*row{}, accounts: map[string]quota.ID{"alice": account}}
			if tc.row != nil {
				books.rows[tc.row.ID] = tc.row
			}
			var v verdict
			compare([]*entry{tc.entry}, books, &v)
			v.check(t, tc.want, tc.lost, tc.violations)
		})
	}
}

func (v *verdict) check(t *testing.T, want string, lost, violations int) {
	t.Helper()
	if v.lost != lost || v.violations != violations || !strings.Contains(strings.Join(v.texts, "\n"), want) {
		t.Errorf("got %d lost, %d violations, %q; want %d, %d, %q", v.lost, v.violations, v.texts, lost,
			violations, want)
	}
}

func TestCompareJobs(t *testing.T) {
	for name, tc := range map[string]struct {
		outcomes         map[string]bool
		row              *row
		want             string
		lost, violations int
	}{
		"completed and charged": {outcomes: map[string]bool{someID: true},
			row: &row{ID: someID, Source: "job", Charges: []int64{60}}},
		"completed for nothing": {outcomes: map[string]bool{someID: true}, row: &row{ID: someID, Source: "job"},
			want: "charged [], want [60]", violations: 1},
		"failed": {outcomes: map[string]bool{someID: false}, row: &row{ID: someID, Source: "job"}},
		"failed and charged": {outcomes: map[string]bool{someID: false},
			row: &row{ID: someID, Source: "job", Charges: []int64{60}}, want: "want []", violations: 1},
		"never over":            {row: &row{ID: someID, Source: "job"}, want: "it is over: false", lost: 1},
		"ran without admission": {outcomes: map[string]bool{someID: true}, want: "it has an admission: false", lost: 1},
		"no such Job": {
			outcomes: map[string]bool{someID: false}, row: &row{ID: otherID, Source: "job"},
			want: "no such Job was created", lost: 1, violations: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			books := &ledger{rows: map[string]*row{}}
			if tc.row != nil {
				books.rows[tc.row.ID] = tc.row
			}
			var v verdict
			compareJobs(map[string]jobEntry{someID: {name: "job-1", declared: 60}}, tc.outcomes, books, &v)
			v.check(t, tc.want, tc.lost, tc.violations)
		})
	}
}
