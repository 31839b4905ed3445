// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"strings"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/invariants"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

func TestCheckerFindsWhatIsBroken(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		sql             string
		invariant, what string
	}{
		"used": {"UPDATE usage_quotas SET used = used + 1", "I1", "used of period 1"},
		"cost": {"UPDATE usage_quotas SET cost_micros = 1", "I1", "cost in USD of period 1"},
		"another currency": {
			"UPDATE usage_quotas SET other_amounts = '{\"EUR\": {\"cost_micros\": 1, \"charged_micros\": 0}}'", "I1",
			"cost in EUR of period 1",
		},
		"currency when closed": {"UPDATE usage_periods SET currency = 'EUR'", "I1", "cost in USD of period 0"},
		"closed in another":    {"UPDATE usage_periods SET currency = 'EUR'", "I10", "plan version of period 0"},
		"event's currency": {
			"UPDATE usage_tracking SET cost_currency = 'EUR' WHERE cost_micros > 0", "I1", "cost in EUR of period 0",
		},
		"currency of what runs": {
			"UPDATE concurrent_processing SET currency = 'EUR' WHERE state = 'Admitted'", "I2", "reserved_cost in EUR",
		},
		"used when closed": {"UPDATE usage_periods SET used = used + 1", "I1", "used of period 0"},
		"event lost":       {"DELETE FROM usage_tracking", "I1", "used of period 0"},
		"event nowhere":    {"UPDATE usage_tracking SET period_id = 7", "I1", "in period 7"},
		"event's lots":     {"UPDATE usage_tracking SET plan_part = plan_part - 1", "I1", "lots that pay for event"},
		"reserved":         {"UPDATE usage_quotas SET reserved = reserved + 1", "I2", "reserved of period 1"},
		"plan's reserved": {"UPDATE usage_quotas SET plan_reserved = plan_reserved - 1 WHERE plan_reserved > 0",
			"I2", "plan_reserved of period 1"},
		"active":        {"UPDATE usage_quotas SET active = active + 1", "I2", "active"},
		"queued":        {"UPDATE usage_quotas SET queued = queued + 1", "I2", "queued"},
		"parked":        {"UPDATE usage_quotas SET parked = parked + 1", "I2", "parked"},
		"reserved cost": {"UPDATE usage_quotas SET reserved_cost_micros = 0", "I2", "reserved_cost"},
		"lot used":      {"UPDATE credit_lots SET used = used + 1", "I2", "used of lot carry_over/0"},
		"lot reserved":  {"UPDATE credit_lots SET reserved = reserved + 1", "I2", "reserved of lot carry_over/0"},
		"admission's lots": {"UPDATE concurrent_processing SET plan_part = plan_part + 1 WHERE state = 'Admitted'",
			"I2", "lots that admission"},
		"nobody's": {"UPDATE concurrent_processing SET user_id = gen_random_uuid()", "I2",
			"account of admission"},
		"nobody's lot":    {"UPDATE credit_lots SET user_id = gen_random_uuid()", "I2", "account of lot"},
		"nobody's period": {"UPDATE usage_periods SET user_id = gen_random_uuid()", "I2", "of period 0"},
		"active seen": {"UPDATE concurrent_processing SET seen_active = -1 WHERE state = 'Admitted'", "I3",
			"active seen"},
		"used seen": {"UPDATE concurrent_processing SET seen_used = 9 WHERE state = 'Admitted'", "I3",
			"used seen"},
		"reserved seen": {"UPDATE concurrent_processing SET seen_reserved = 9 WHERE state = 'Admitted'", "I3",
			"reserved seen"},
		"slots allowed": {"UPDATE concurrent_processing SET seen_concurrent = 2 WHERE state = 'Admitted'", "I3",
			"slots allowed"},
		"remaining seen": {
			"UPDATE concurrent_processing SET seen_remaining = seen_remaining + 1 WHERE priority = 3", "I3",
			"remaining seen"},
		"beyond the seen": {
			"ALTER TABLE concurrent_processing DROP CONSTRAINT concurrent_processing_within_limits_check; UPDATE " +
				"concurrent_processing SET seen_remaining = estimate - 1", "I3", "estimate within the credits seen"},
		"refused too soon": {
			"UPDATE concurrent_processing SET state = 'Cancelled', reason = 'WaitedTooLong', ended_at = created_at, " +
				"ended_seq = 1, waited_for = 'ConcurrencyLimit', max_wait_ms = 21600000 WHERE state = 'Queued'", "I3",
			"wait of admission"},
		"refused by another bound": {
			"UPDATE concurrent_processing SET state = 'Cancelled', reason = 'WaitedTooLong', ended_at = created_at + " +
				"interval '7 hours', waited_for = 'ConcurrencyLimit', max_wait_ms = 60000 WHERE state = 'Queued'", "I3",
			"wait of admission"},
		"waited in vain": {
			"UPDATE concurrent_processing SET max_wait_ms = 21600000 WHERE state = 'Queued'", "I3",
			"wait of admission"},
		"started too late": {
			"UPDATE concurrent_processing SET created_at = admitted_at - interval '7 hours' WHERE state = 'Admitted'",
			"I3", "wait of admission"},
		"decision lost": {"UPDATE usage_quotas SET seq = 1", "I3", "decisions of the account"},
		"lease outlived": {
			"UPDATE concurrent_processing SET lease_until = lease_until - interval '71 seconds' WHERE state = " +
				"'Admitted'", "I6", "(Admitted)"},
		"place outlived": {
			"UPDATE concurrent_processing SET lease_until = lease_until - interval '71 seconds', source = 'api' " +
				"WHERE state = 'Queued'", "I6", "(Queued)"},
		"charged twice": {
			"INSERT INTO usage_tracking SELECT (jsonb_populate_record(e, jsonb_build_object('id', " +
				"gen_random_uuid()))).* FROM usage_tracking AS e", "I4", "charges of admission"},
		"charged wrongly": {"UPDATE concurrent_processing SET actual = actual + 1 WHERE state = 'Settled'", "I4",
			"charges of admission"},
		"event of none": {"UPDATE usage_tracking SET admission_id = gen_random_uuid()", "I4", "of event"},
		"overtaken": {
			"UPDATE concurrent_processing SET priority = 5 WHERE state = 'Queued' AND NOT parked; UPDATE " +
				"concurrent_processing SET arrived_seq = 0 WHERE state = 'Queued'", "I7", "admission"},
		"overtaken by lower": {
			"UPDATE concurrent_processing SET priority = 9 WHERE state = 'Queued' AND NOT parked; UPDATE " +
				"concurrent_processing SET arrived_seq = 0 WHERE state = 'Queued' AND NOT parked", "I7", "admission"},
		"plan without trace": {"DELETE FROM audit_log WHERE object_kind = 'UsagePlan'", "I8",
			"audit rows of plan free"},
		"silent account": {"DELETE FROM audit_log WHERE action = 'account.registered'", "I8", "registration"},
		"silent close":   {"DELETE FROM audit_log WHERE action = 'period.closed'", "I8", "closed periods"},
		"key forgotten": {"UPDATE usage_tracking SET idempotency_key = 'other' WHERE idempotency_key = 'adjust'",
			"I4", "of key adjust"},
		"key used twice": {
			"INSERT INTO usage_tracking SELECT (jsonb_populate_record(e, jsonb_build_object('id', " +
				"gen_random_uuid()))).* FROM usage_tracking AS e WHERE idempotency_key = 'adjust'", "I4",
			"events with key adjust"},
		"reversal's amount": {"UPDATE usage_tracking SET credits = credits - 1 WHERE kind = 'reversal'", "I4",
			"reversals of event"},
		"reversal's sign": {"UPDATE usage_tracking SET kind = 'charge', reverses = NULL WHERE kind = 'reversal'",
			"I1", "used of period 1"},
		"reversal of none": {"UPDATE usage_tracking SET reverses = gen_random_uuid() WHERE kind = 'reversal'", "I4",
			"reversals of event"},
		"reversal elsewhere": {"UPDATE usage_tracking SET period_id = 0 WHERE kind = 'reversal'", "I4",
			"period of the reversal"},
		"reversal unmarked": {"DELETE FROM usage_reversals", "I4", "mark of the reversal"},
		"marked in vain": {
			"INSERT INTO usage_reversals SELECT gen_random_uuid(), user_id, gen_random_uuid(), now() FROM usage_quotas",
			"I4", "reversal"},
		"silent reversal": {"DELETE FROM audit_log WHERE object_kind = 'UsageEvent'", "I8", "audit row of event"},
		"never told": {"DELETE FROM usage_alerts WHERE kind = 'CreditsPercent'", "I11",
			"alert CreditsPercent 80  of period 0, 0"},
		"told of nobody":      {"UPDATE usage_alerts SET user_id = gen_random_uuid()", "I11", "alert CreditsPercent"},
		"resolved in silence": {"UPDATE usage_alerts SET resolved_at = now()", "I11", "alert CreditsPercent 80"},
		"told in vain": {"UPDATE usage_quotas SET alerts = '' WHERE alerts <> ''", "I11",
			"alert CreditsPercent 80  of period 0, 0"},
		"neither told nor remembered": {
			"DELETE FROM usage_alerts WHERE kind <> 'PeriodReset'; UPDATE usage_quotas SET alerts = ''", "I11",
			"alert CreditsPercent 80 of period 0"},
		"told twice": {
			"INSERT INTO usage_alerts SELECT (jsonb_populate_record(a, jsonb_build_object('id', gen_random_uuid(), " +
				"'number', 1))).* FROM usage_alerts AS a WHERE kind = 'CreditsPercent'", "I11",
			"alert CreditsPercent 80  of period 0, 1"},
		"silent grant": {"UPDATE credit_lots SET kind = 'grant'", "I8", "audit row of grant 0"},
		"silent limit": {"UPDATE user_plan_limits SET credits_limit = credits_limit + 1", "I8",
			"of plan free, after: credits_units"},
		"limit lifted": {"UPDATE user_plan_limits SET concurrent_limit = NULL", "I8",
			"of plan pro, after: concurrent"},
		"plan's past": {
			"UPDATE audit_log SET before = jsonb_set(before, '{credits_units}', '1') WHERE action = 'plan.changed'",
			"I8", "of plan pro, before: credits_units"},
		"plan of no past": {"UPDATE audit_log SET before = NULL WHERE action = 'plan.changed'", "I8",
			"of plan pro"},
		"silent suspension": {"UPDATE usage_quotas SET suspended = NOT suspended", "I8", "settings, after: suspended"},
		"silent move":       {"UPDATE usage_quotas SET plan_name = 'pro'", "I8", "settings, after: plan"},
		"silent override":   {"UPDATE usage_quotas SET credits_override = 7", "I8", "settings, after: overrides"},
		"silent lift": {"UPDATE usage_quotas SET unlimited_overrides = '{queued}'", "I8",
			"settings, after: overrides"},
		"silent anchor": {"UPDATE usage_quotas SET anchor_at = anchor_at + interval '1 second'", "I8",
			"settings, after: anchor"},
		"account's past": {
			"UPDATE audit_log SET before = before || '{\"suspended\": true}' WHERE action = 'quota.applied'", "I8",
			"settings, before: suspended"},
		"rolled up twice":           {"UPDATE usage_analytics SET credits = credits + 1", "I9", "rollup of"},
		"rolled up in another hour": {"UPDATE usage_analytics SET at = at - interval '1 hour'", "I9", "rollup of"},
		"rollup lost":               {"DELETE FROM usage_analytics", "I9", "rollup of"},
		"largest work lost":         {"UPDATE usage_analytics SET largest = NULL", "I9", "largest work of"},
		"largest work of nobody": {
			"UPDATE usage_analytics SET largest = largest || ROW(user_id, at, 1, 1, 0, 0)::usage_work", "I9",
			"largest work of"},
		"largest work not of the team": {"INSERT INTO usage_payer_largest SELECT (at AT TIME ZONE 'UTC')::date, " +
			"user_id, 1, user_id, plan_name, usage_type, currency, cost_currency, user_id, at, 1, 0, 0, 0 " +
			"FROM usage_analytics LIMIT 1", "I9", "largest work of"},
		"event after the rollup": {"UPDATE usage_tracking SET tokens = tokens + 1 WHERE kind <> 'reversal'", "I9",
			"rollup of"},
		"reversal not rolled up": {
			"UPDATE usage_analytics SET reversals = 0 WHERE reversals > 0", "I9", "rollup of"},
		"watermark of the future": {"UPDATE usage_rollups SET seq = seq + 1", "I9", "watermark"},
		"waits of nobody": {"INSERT INTO usage_waits SELECT 'free', as_of, 1, 1 FROM usage_rollups_complete", "I9",
			"waits at"},
		"totals of others":      {"UPDATE usage_totals SET users = users + 1", "I9", "totals of"},
		"refusals of others":    {"UPDATE usage_refusal_totals SET users = users + 1", "I9", "refusals of"},
		"refusals not totalled": {"UPDATE usage_refusals SET refusals = refusals + 1", "I9", "refusals of"},
		"watermark lost":        {"DELETE FROM usage_rollups", "I9", "watermark of rows"},
		"change lost": {
			"DELETE FROM audit_log WHERE id = (SELECT min(id) FROM audit_log WHERE action = 'quota.applied')", "I8",
			"settings, before: overrides"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newCorruptible(t)
			f.story()
			ledgertest.RollUp(t.Context(), t, f.dsn)
			// Leases of a minute, renewed last just now, and a reaper that looks every ten seconds.
			reaper := invariants.WithLeases(f.clock.read(), 10*time.Second)
			if found, err := invariants.Check(t.Context(), f.Pool(), reaper); err != nil || len(found) > 0 {
				t.Fatalf("before anything was broken: %v, %v", found, err)
			}
			// One of them would not get past the table's own check.
			f.exec("ALTER TABLE usage_quotas DROP CONSTRAINT usage_quotas_queue_check")
			for sql := range strings.SplitSeq(tc.sql, "; ") {
				f.exec(sql)
			}
			found, err := invariants.Check(t.Context(), f.Pool(), reaper)
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

// story leaves alice with a closed period with a charge, a carry-over that pays for what runs, and a queue; bob with
// settings that changed twice; carol on limits that never did; dave with most of his credits used, who was refused
// more; and a plan that changed.
func (f *fixture) story() {
	f.t.Helper()
	alice := f.register("alice")
	f.enter(alice, quota.ID{1}, 5*quota.Credit)
	f.settle(alice, quota.ID{1}, 4*quota.Credit)
	f.clock.advance(31 * 24 * time.Hour)
	f.enter(alice, quota.ID{2}, 12*quota.Credit)
	f.enter(alice, quota.ID{3}, quota.Credit)
	f.enter(alice, quota.ID{4}, quota.Credit, func(a *ledger.Admission) { a.Source = quota.SourceJob })
	f.made(alice, "adjust", quota.ID{5})
	f.made(alice, "mistake", quota.ID{6})
	f.undo(alice, "undo", quota.ID{6}, quota.ID{7})

	bob := f.register("bob")
	f.declare(bob, func(l *ledger.Ledger) {
		l.Account.Overrides.Credits, l.Account.Overrides.Queued = new(quota.AtMost(9*quota.Credit)),
			&quota.Limit[int32]{Unlimited: true}
		l.Account.Overrides.Audio = new(quota.AtMost(time.Minute))
	})
	f.declare(bob, func(l *ledger.Ledger) { l.Account.Overrides = quota.Overrides{} })

	carol := f.register("carol")
	f.enter(carol, quota.ID{5}, 3*quota.Credit)
	f.settle(carol, quota.ID{5}, 2*quota.Credit)
	f.enter(carol, quota.ID{6}, 60*quota.Credit, func(a *ledger.Admission) { a.Priority = 3 })

	// More than 80 % of the plan's 60 and 5 of overage.
	dave := f.register("dave")
	f.enter(dave, quota.ID{9}, 60*quota.Credit)
	f.settle(dave, quota.ID{9}, 55*quota.Credit)

	if err := f.AddRefusals(f.t.Context(), []metering.Refusals{{Refused: metering.Refused{
		Account: dave, Hour: f.clock.read().Truncate(time.Hour), Reason: quota.CreditsExhausted, Plan: "free",
	}, Count: 1, Credits: 60 * quota.Credit}}); err != nil {
		f.t.Fatal(err)
	}

	pro := plan("pro")
	for range 2 {
		if err := f.ApplyPlan(f.t.Context(), pro, "test"); err != nil {
			f.t.Fatal(err)
		}
		pro.Limits.Credits = quota.AtMost(70 * quota.Credit)
	}
}
