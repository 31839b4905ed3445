// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Violation is one way in which the ledger contradicts itself.
type Violation struct {
	// Invariant is its number in the design, such as "I1".
	Invariant string
	// UserID names the account; empty where no account is concerned.
	UserID string
	// What is wrong, and what was expected and found.
	What, Expected, Found string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s user %q: %s: expected %s, found %s", v.Invariant, v.UserID, v.What, v.Expected, v.Found)
}

// Querier begins transactions: a pool or a connection.
type Querier interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// CheckInvariants looks for contradictions in the ledger, all in one snapshot, so it can run beside the service.
func CheckInvariants(ctx context.Context, db Querier) ([]Violation, error) {
	var found []Violation
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, db, options, func(tx pgx.Tx) error {
		for _, c := range checks {
			rows, err := tx.Query(ctx, "SELECT invariant, coalesce(who, ''), what, expected, found FROM ("+c+") AS v")
			if err != nil {
				return err
			}
			some, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Violation])
			if err != nil {
				return err
			}
			found = append(found, some...)
		}
		return nil
	})
	return found, mapError(err)
}

// checks are statements that select violations: invariant, who, what, expected, found.
var checks = []string{
	// I1: what a period has used and cost is the sum of its events.
	`SELECT 'I1' AS invariant, who, col || ' of period ' || no AS what, want::text AS expected, got::text AS found
	FROM (` + periods + `) AS p
	LEFT JOIN (SELECT user_id, period_id, sum(sign * credits) AS credits, sum(sign * plan_part) AS plan_part, sum(cost_micros) AS cost,
	        sum(sign * price_micros) AS price
	    FROM (` + signed + `) AS s GROUP BY user_id, period_id) AS e ON e.user_id = p.user_id AND e.period_id = p.no
	CROSS JOIN LATERAL (VALUES
	    ('used', coalesce(e.credits, 0), p.used), ('plan_used', coalesce(e.plan_part, 0), p.plan_used),
	    ('cost', coalesce(e.cost, 0), p.cost), ('charged', coalesce(e.price, 0), p.charged)) AS v (col, want, got)
	WHERE want <> got
	UNION ALL
	SELECT 'I1', u.user_id, 'event ' || e.id || ' in period ' || e.period_id, 'a period of the account', 'none'
	FROM usage_tracking AS e LEFT JOIN users AS u ON u.id = e.user_id
	WHERE NOT EXISTS (SELECT FROM (` + periods + `) AS p WHERE p.user_id = e.user_id AND p.no = e.period_id)`,

	// I2: what a period has reserved is what its admitted admissions hold.
	`SELECT 'I2' AS invariant, who, col || ' of period ' || no AS what, want::text AS expected, got::text AS found
	FROM (` + periods + `) AS p
	LEFT JOIN (SELECT user_id, period_no, sum(estimate) AS estimate, sum(plan_part) AS plan_part
	    FROM concurrent_processing WHERE state = 'Admitted' GROUP BY user_id, period_no) AS c
	    ON c.user_id = p.user_id AND c.period_no = p.no
	CROSS JOIN LATERAL (VALUES
	    ('reserved', coalesce(c.estimate, 0), p.reserved),
	    ('plan_reserved', coalesce(c.plan_part, 0), p.plan_reserved)) AS v (col, want, got)
	WHERE want <> got`,

	// I2: slots, queue and reserved cost, over all periods.
	`SELECT 'I2' AS invariant, u.user_id AS who, col AS what, want::text AS expected, got::text AS found
	FROM usage_quotas AS a JOIN users AS u ON u.id = a.user_id
	LEFT JOIN (SELECT user_id,
	        count(*) FILTER (WHERE state = 'Admitted') AS active,
	        count(*) FILTER (WHERE state = 'Queued') AS queued,
	        count(*) FILTER (WHERE state = 'Queued' AND parked) AS parked,
	        sum(estimated_cost_micros) FILTER (WHERE state = 'Admitted') AS cost
	    FROM concurrent_processing GROUP BY user_id) AS c ON c.user_id = a.user_id
	CROSS JOIN LATERAL (VALUES
	    ('active', coalesce(c.active, 0)::numeric, a.active::numeric), ('queued', coalesce(c.queued, 0), a.queued),
	    ('parked', coalesce(c.parked, 0), a.parked), ('reserved_cost', coalesce(c.cost, 0), a.reserved_cost_micros)) AS v (col, want, got)
	WHERE want <> got`,

	// I2: lots hold what admitted admissions pin on them, and have paid what events say.
	`SELECT 'I2' AS invariant, u.user_id AS who, col || ' of lot ' || l.kind || '/' || l.name AS what, want::text AS expected, got::text AS found
	FROM credit_lots AS l JOIN users AS u ON u.id = l.user_id
	LEFT JOIN (SELECT (s ->> 'lot')::uuid AS lot, sum((s ->> 'credits')::bigint) AS credits
	    FROM concurrent_processing AS c CROSS JOIN LATERAL jsonb_array_elements(c.lots) AS s
	    WHERE c.state = 'Admitted' GROUP BY 1) AS held ON held.lot = l.id
	LEFT JOIN (SELECT (s ->> 'lot')::uuid AS lot, sum(e.sign * (s ->> 'credits')::bigint) AS credits
	    FROM (` + signed + `) AS e CROSS JOIN LATERAL jsonb_array_elements(e.lots) AS s GROUP BY 1) AS paid ON paid.lot = l.id
	CROSS JOIN LATERAL (VALUES
	    ('reserved', coalesce(held.credits, 0), l.reserved), ('used', coalesce(paid.credits, 0), l.used)) AS v (col, want, got)
	WHERE want <> got`,

	// Every amount is paid by lots, to the unit.
	`SELECT 'I1' AS invariant, u.user_id AS who, 'lots that pay for event ' || e.id AS what, e.credits::text AS expected, paid::text AS found
	FROM usage_tracking AS e LEFT JOIN users AS u ON u.id = e.user_id
	CROSS JOIN LATERAL (SELECT e.plan_part + coalesce((SELECT sum((s ->> 'credits')::bigint)
	    FROM jsonb_array_elements(e.lots) AS s), 0) AS paid) AS p
	WHERE paid <> CASE WHEN e.refund_lot IS NULL THEN e.credits ELSE 0 END
	UNION ALL
	SELECT 'I2', u.user_id, 'lots that admission ' || c.id || ' holds', c.estimate::text, held::text
	FROM concurrent_processing AS c JOIN users AS u ON u.id = c.user_id
	CROSS JOIN LATERAL (SELECT c.plan_part + coalesce((SELECT sum((s ->> 'credits')::bigint)
	    FROM jsonb_array_elements(c.lots) AS s), 0) AS held) AS h
	WHERE c.state = 'Admitted' AND held <> c.estimate`,

	// I2: whatever counts for an account has one.
	`SELECT 'I2' AS invariant, NULL AS who, what, 'an account' AS expected, 'none' AS found
	FROM (SELECT user_id, 'account of admission ' || id AS what FROM concurrent_processing
	    UNION ALL SELECT user_id, 'account of lot ' || id FROM credit_lots
	    UNION ALL SELECT user_id, 'account ' || user_id || ' of period ' || period_no FROM usage_periods) AS r
	WHERE NOT EXISTS (SELECT FROM usage_quotas AS a WHERE a.user_id = r.user_id)`,

	// I3: each enforced admission was within the limits that it saw.
	`SELECT 'I3' AS invariant, u.user_id AS who, 'admission ' || c.id || ': ' || col AS what, '<= ' || most AS expected, got::text AS found
	FROM concurrent_processing AS c JOIN users AS u ON u.id = c.user_id
	CROSS JOIN LATERAL (VALUES
	    ('estimate within the credits seen', c.seen_remaining, c.estimate),
	    ('slots seen', c.seen_concurrent::bigint, c.seen_active + 1::bigint)) AS v (col, most, got)
	WHERE c.admitted_at IS NOT NULL AND c.enforced AND got > most`,

	// I3: and what it saw was true: the account replayed in the order of its decisions.
	replay,

	// I4: one admission has one charge if it is settled and none otherwise, of what it was settled with.
	`SELECT 'I4' AS invariant, u.user_id AS who, 'charges of admission ' || c.id || ' (' || c.state || ')' AS what,
	    CASE WHEN c.state = 'Settled' THEN '1 of ' || c.actual ELSE '0 of 0' END AS expected,
	    e.n || ' of ' || e.credits AS found
	FROM concurrent_processing AS c JOIN users AS u ON u.id = c.user_id
	CROSS JOIN LATERAL (SELECT count(*) AS n, coalesce(sum(credits), 0) AS credits FROM usage_tracking AS e
	    WHERE e.admission_id = c.id AND e.kind IN ('charge', 'adjustment')) AS e
	WHERE e.n <> CASE WHEN c.state = 'Settled' THEN 1 ELSE 0 END OR e.credits <> coalesce(c.actual, 0)
	UNION ALL
	SELECT 'I4', u.user_id, 'admission ' || coalesce(e.admission_id::text, 'NULL') || ' of event ' || e.id, 'one of the account', 'none'
	FROM usage_tracking AS e LEFT JOIN users AS u ON u.id = e.user_id
	WHERE (e.admission_id IS NOT NULL OR e.idempotency_key IS NULL)
	  AND NOT EXISTS (SELECT FROM concurrent_processing AS c WHERE c.id = e.admission_id AND c.user_id = e.user_id)`,

	// I4: one key has one event while it is kept, and it is the one that it names.
	`SELECT 'I4' AS invariant, u.user_id AS who, 'events with key ' || e.idempotency_key AS what, '1 in 35 days' AS expected, count(*)::text AS found
	FROM usage_tracking AS e LEFT JOIN users AS u ON u.id = e.user_id
	JOIN usage_tracking AS o ON o.user_id = e.user_id AND o.idempotency_key = e.idempotency_key
	    AND o.recorded_at BETWEEN e.recorded_at AND e.recorded_at + interval '35 days'
	WHERE e.idempotency_key IS NOT NULL
	GROUP BY u.user_id, e.id, e.idempotency_key HAVING count(*) > 1
	UNION ALL
	SELECT 'I4', u.user_id, 'event ' || k.event_id || ' of key ' || k.key, 'one with that key', 'none'
	FROM idempotency_keys AS k LEFT JOIN users AS u ON u.id = k.user_id
	WHERE NOT EXISTS (SELECT FROM usage_tracking AS e
	    WHERE e.id = k.event_id AND e.user_id = k.user_id AND e.idempotency_key = k.key AND e.recorded_at = k.made_at)`,

	// I4: one event has one reversal, of all of it, in its own period or as a lot.
	`SELECT 'I4' AS invariant, u.user_id AS who, 'reversals of event ' || r.reverses AS what,
	    coalesce('1 of ' || e.credits, '0') AS expected, r.n || ' of ' || r.credits AS found
	FROM (SELECT reverses, user_id, count(*) AS n, sum(credits) AS credits
	    FROM usage_tracking WHERE kind = 'reversal' GROUP BY reverses, user_id) AS r
	LEFT JOIN usage_tracking AS e ON e.id = r.reverses AND e.user_id = r.user_id AND e.kind IN ('charge', 'adjustment')
	LEFT JOIN users AS u ON u.id = r.user_id
	WHERE r.n <> 1 OR r.credits IS DISTINCT FROM e.credits
	UNION ALL
	SELECT 'I4', u.user_id, 'period of the reversal of event ' || e.id, e.period_id::text, r.period_id::text
	FROM usage_tracking AS r JOIN usage_tracking AS e ON e.id = r.reverses LEFT JOIN users AS u ON u.id = r.user_id
	WHERE r.kind = 'reversal' AND r.refund_lot IS NULL AND r.period_id <> e.period_id
	UNION ALL
	SELECT 'I4', u.user_id, 'mark of the reversal of event ' || r.reverses, r.id::text, coalesce(k.reversal_id::text, 'none')
	FROM usage_tracking AS r LEFT JOIN usage_reversals AS k ON k.event_id = r.reverses LEFT JOIN users AS u ON u.id = r.user_id
	WHERE r.kind = 'reversal' AND k.reversal_id IS DISTINCT FROM r.id
	UNION ALL
	SELECT 'I4', u.user_id, 'lot of refund ' || e.id, e.credits::text, coalesce(l.credits::text, 'none')
	FROM usage_tracking AS e LEFT JOIN users AS u ON u.id = e.user_id
	LEFT JOIN credit_lots AS l ON l.id = e.refund_lot AND l.user_id = e.user_id
	WHERE e.refund_lot IS NOT NULL AND l.credits IS DISTINCT FROM e.credits
	UNION ALL
	SELECT 'I4', u.user_id, 'reversal ' || k.reversal_id || ' of event ' || k.event_id, '1', '0'
	FROM usage_reversals AS k JOIN users AS u ON u.id = k.user_id
	WHERE NOT EXISTS (SELECT FROM usage_tracking AS e WHERE e.id = k.reversal_id AND e.reverses = k.event_id)`,

	// I7: nobody was admitted before one that stood in front of it, unless that one was ever parked.
	`SELECT 'I7' AS invariant, u.user_id AS who, 'admission ' || late.id || ' (admitted as decision ' || late.admitted_seq || ')' AS what,
	    'after ' || early.id || ' of priority ' || early.priority || ' that arrived as decision ' || early.arrived_seq AS expected,
	    coalesce('that was admitted as decision ' || early.admitted_seq, 'that is ' || early.state) AS found
	FROM concurrent_processing AS late
	JOIN concurrent_processing AS early ON early.user_id = late.user_id AND early.id <> late.id
	JOIN users AS u ON u.id = late.user_id
	WHERE late.admitted_seq IS NOT NULL AND late.enforced AND NOT early.ever_parked
	  AND early.arrived_seq < late.admitted_seq
	  AND (early.priority > late.priority OR (early.priority = late.priority AND early.arrived_seq < late.arrived_seq))
	  AND coalesce(early.admitted_seq, early.ended_seq, 9223372036854775807) > late.admitted_seq`,

	// I8: plans, accounts, closed periods and grants have rows that tell who made them.
	`SELECT 'I8' AS invariant, NULL AS who, 'audit rows of plan ' || p.name AS what, p.version::text AS expected, count(l.id)::text AS found
	FROM user_plan_limits AS p LEFT JOIN audit_log AS l ON l.object_kind = 'UsagePlan' AND l.object_name = p.name
	GROUP BY p.name, p.version HAVING count(l.id) <> p.version
	UNION ALL
	SELECT 'I8', u.user_id, 'audit row of the account''s registration', '1', count(l.id)::text
	FROM usage_quotas AS a JOIN users AS u ON u.id = a.user_id
	LEFT JOIN audit_log AS l ON l.user_id = a.user_id AND l.action = 'account.registered'
	GROUP BY a.user_id, u.user_id HAVING count(l.id) <> 1
	UNION ALL
	SELECT 'I8', u.user_id, 'audit rows of closed periods', a.closed::text, a.told::text
	FROM (SELECT user_id, period_no AS open,
	        (SELECT count(*) FROM usage_periods AS p WHERE p.user_id = q.user_id) AS closed,
	        (SELECT count(*) FROM audit_log AS l WHERE l.user_id = q.user_id AND l.action = 'period.closed') AS told
	    FROM usage_quotas AS q) AS a JOIN users AS u ON u.id = a.user_id
	WHERE a.closed <> a.told OR a.closed <> a.open
	UNION ALL
	SELECT 'I8', u.user_id, 'audit row of grant ' || l.name, '1', count(t.id)::text
	FROM credit_lots AS l JOIN users AS u ON u.id = l.user_id
	LEFT JOIN audit_log AS t ON t.user_id = l.user_id AND t.action = 'grant.given' AND t.after ->> 'grant' = l.name
	WHERE l.kind = 'grant'
	GROUP BY l.id, u.user_id, l.name HAVING count(t.id) <> 1
	UNION ALL
	SELECT 'I8', u.user_id, 'audit row of event ' || e.id, '1', count(t.id)::text
	FROM usage_tracking AS e LEFT JOIN users AS u ON u.id = e.user_id
	LEFT JOIN audit_log AS t ON t.user_id = e.user_id AND t.object_kind = 'UsageEvent' AND t.object_name = e.id::text
	WHERE e.kind = 'reversal' OR e.reason <> ''
	GROUP BY e.id, u.user_id HAVING count(t.id) <> 1`,
}

// signed are the events with the sign of their effect on what a period and lots have used: a reversal takes away, unless it
// gave a lot instead.
const signed = `SELECT *, CASE WHEN kind <> 'reversal' THEN 1 WHEN refund_lot IS NULL THEN -1 ELSE 0 END AS sign FROM usage_tracking`

// periods are the open and the closed ones of all accounts.
const periods = `SELECT a.user_id, u.user_id AS who, a.period_no AS no, a.used, a.reserved, a.plan_used, a.plan_reserved,
	    a.cost_micros AS cost, a.charged_micros AS charged
	FROM usage_quotas AS a JOIN users AS u ON u.id = a.user_id
	UNION ALL
	SELECT p.user_id, u.user_id, p.period_no, p.used, p.reserved, p.plan_used, p.plan_reserved, p.cost_micros, p.charged_micros
	FROM usage_periods AS p JOIN users AS u ON u.id = p.user_id`

// replay rebuilds, for each admission, what the account's row must have shown just before it: the slots taken over all
// periods, and the reserved and used credits of its own. An admission counts from its admitted_seq to its ended_seq, a
// charge from its seq; what was booked on a period before it closed and after is told apart by the period's number.
const replay = `SELECT 'I3' AS invariant, u.user_id AS who, 'admission ' || c.id || ': ' || col AS what, want::text AS expected, got::text AS found
	FROM concurrent_processing AS c JOIN users AS u ON u.id = c.user_id
	CROSS JOIN LATERAL (SELECT count(*) AS active, coalesce(sum(o.estimate) FILTER (WHERE o.period_no = c.period_no), 0) AS reserved
	    FROM concurrent_processing AS o
	    WHERE o.user_id = c.user_id AND o.admitted_seq < c.admitted_seq AND (o.ended_seq IS NULL OR o.ended_seq > c.admitted_seq)) AS r
	CROSS JOIN LATERAL (SELECT coalesce(sum(e.sign * e.credits), 0) AS used FROM (` + signed + `) AS e
	    WHERE e.user_id = c.user_id AND e.period_id = c.period_no AND e.seq < c.admitted_seq) AS b
	CROSS JOIN LATERAL (VALUES
	    ('active seen', r.active::numeric, c.seen_active::numeric), ('reserved seen', r.reserved, c.seen_reserved),
	    ('used seen', b.used, c.seen_used)) AS v (col, want, got)
	WHERE c.admitted_seq IS NOT NULL AND want IS DISTINCT FROM got`
