// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"strings"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/postgres/invariants"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

// What the checker finds at the level of a team: alice and bob hang below a desk without a plan, below a team that
// pays.
func TestCheckerFindsWhatIsBrokenInATeam(t *testing.T) {
	t.Parallel()
	const team = "user_id = '09000000-0000-0000-0000-000000000000'"
	const desk = "user_id = '08000000-0000-0000-0000-000000000000'"
	for name, tc := range map[string]struct {
		sql             string
		invariant, what string
	}{
		"used":          {"UPDATE usage_quotas SET used = used + 1 WHERE " + team, "I1", "used of period 0"},
		"paid by all":   {"UPDATE usage_quotas SET plan_used = 1 WHERE " + desk, "I1", "plan_used of period 0"},
		"cost":          {"UPDATE usage_quotas SET cost_micros = 1 WHERE " + desk, "I1", "cost in USD of period 0"},
		"charged":       {"UPDATE usage_quotas SET charged_micros = 1 WHERE " + desk, "I1", "charged in USD"},
		"reserved":      {"UPDATE usage_quotas SET reserved = reserved + 1 WHERE " + desk, "I2", "reserved of period"},
		"plan reserved": {"UPDATE usage_quotas SET plan_reserved = 0 WHERE " + team, "I2", "plan_reserved of period 0"},
		"reserved cost": {"UPDATE usage_quotas SET reserved_cost_micros = 0 WHERE " + team, "I2", "reserved_cost"},
		"active":        {"UPDATE usage_quotas SET active = 0 WHERE " + desk, "I2", "active"},
		"queued":        {"UPDATE usage_quotas SET queued = 0 WHERE " + team, "I2", "queued"},
		"moved without what waits": {
			"UPDATE usage_quotas SET parent_id = NULL WHERE parent_id = '08000000-0000-0000-0000-000000000000'", "I2",
			"queued",
		},
		"event elsewhere": {
			`UPDATE usage_tracking SET levels = jsonb_set(levels, '{0,period_no}', '7')`, "I1", "in period 7",
		},
		"event's levels lost": {"UPDATE usage_tracking SET levels = NULL", "I1", "used of period 0"},
		"nobody pays": {
			"UPDATE usage_tracking SET payer_id = gen_random_uuid()", "I1", "payers of event",
		},
		"admission's levels lost": {"UPDATE concurrent_processing SET levels = NULL", "I2", "active"},
		"active seen": {
			`UPDATE concurrent_processing SET levels = jsonb_set(levels, '{1,seen_active}', '9') WHERE state =
			    'Admitted'`,
			"I3", "active seen",
		},
		"used seen": {
			`UPDATE concurrent_processing SET levels = jsonb_set(levels, '{0,seen_used}', '9') WHERE state =
			    'Admitted'`,
			"I3", "used seen",
		},
		"beyond the seen": {
			`UPDATE concurrent_processing SET levels = jsonb_set(levels, '{1,seen_remaining}', '9')`, "I3",
			"estimate within the credits seen",
		},
		"turn elsewhere": {
			"UPDATE queue_turns SET parent_id = account_id WHERE account_id = '08000000-0000-0000-0000-000000000000'",
			"I7", "parent of the turn",
		},
		"turn of nobody": {
			`INSERT INTO queue_turns (account_id, start_units, start_part, now_units, now_part, weight, runnable)
			    VALUES (gen_random_uuid(), 0, 0, 0, 0, 1, false)`, "I7", "account of the turn",
		},
		"turn forgotten": {"DELETE FROM queue_turns", "I7", "could run"},
		"turn of a user": {
			"UPDATE queue_turns SET runnable = NOT runnable WHERE parent_id = '08000000-0000-0000-0000-000000000000'",
			"I7", "could run",
		},
		"turn of a team": {
			"UPDATE queue_turns SET runnable = NOT runnable WHERE account_id = '08000000-0000-0000-0000-000000000000'",
			"I7", "could run",
		},
		"slot left free": {
			`INSERT INTO queue_turns (account_id, start_units, start_part, now_units, now_part, weight, runnable)
			    VALUES ('09000000-0000-0000-0000-000000000000', 0, 0, 0, 0, 1, true)`, "I7", "what could start",
		},
		"paid twice": {"UPDATE usage_payer_totals SET audio_ms = audio_ms + 1", "I9", "paid by 09000000"},
		"paid in two months": {
			"UPDATE usage_payer_months SET month = month - 40", "I9", "paid by 09000000",
		},
		"sold to nobody": {"UPDATE usage_prices SET periods = periods + 1", "I9", "prices of"},
		"decision lost":  {"UPDATE usage_quotas SET seq = 1 WHERE " + desk, "I3", "decisions of the account"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newCorruptible(t)
			alice, bob := f.register("alice"), f.register("bob")
			payer, above := f.team(9, "team", new("free"), ""), f.team(8, "desk", nil, "")
			f.hang(alice, above)
			f.hang(bob, above)
			f.hang(above, payer)
			f.enter(alice, quota.ID{1}, 5*quota.Credit)
			f.settle(alice, quota.ID{1}, 4*quota.Credit)
			f.enter(bob, quota.ID{2}, 2*quota.Credit)
			f.enter(alice, quota.ID{3}, quota.Credit)
			f.touch(alice)
			ledgertest.RollUp(t.Context(), t, f.dsn)
			reaper := invariants.WithLeases(f.clock.read(), 10*time.Second)
			found, err := invariants.Check(t.Context(), f.Pool(), reaper, invariants.WithQuiet())
			if err != nil || len(found) > 0 {
				t.Fatalf("before anything was broken: %v, %v", found, err)
			}
			f.exec("ALTER TABLE usage_quotas DROP CONSTRAINT usage_quotas_parts_check")
			f.exec(tc.sql)
			found, err = invariants.Check(t.Context(), f.Pool(), reaper, invariants.WithQuiet())
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range found {
				if v.Invariant == tc.invariant && strings.Contains(v.What, tc.what) && v.Expected != v.Found {
					return
				}
			}
			t.Errorf("want %s about %q, got %v", tc.invariant, tc.what, found)
		})
	}
}
