// SPDX-License-Identifier: Apache-2.0

package invariants

// balances hold the sums that the ledger keeps against the rows that they are sums of.
var balances = []string{
	// I1: what a period has used and cost is the sum of its events.
	`SELECT 'I1' AS invariant, who, col || ' of period ' || no AS what, want::text AS expected, got::text AS found
	FROM (` + periods + `) AS p
	LEFT JOIN (SELECT user_id, period_id, sum(sign * credits) AS credits, sum(sign * plan_part) AS plan_part,
	    sum(cost_micros) AS cost,
	        sum(sign * price_micros) AS price
	    FROM (` + signed + `) AS s GROUP BY user_id, period_id) AS e ON e.user_id = p.user_id AND e.period_id = p.no
	CROSS JOIN LATERAL (VALUES
	    ('used', coalesce(e.credits, 0), p.used), ('plan_used', coalesce(e.plan_part, 0), p.plan_used),
	    ('cost', coalesce(e.cost, 0), p.cost), ('charged', coalesce(e.price, 0), p.charged)) AS v (col, want, got)
	WHERE want <> got`,

	// I1: and every event has such a period.
	`SELECT 'I1' AS invariant, u.user_id AS who, 'event ' || e.id || ' in period ' || e.period_id AS what,
	    'a period of the account' AS expected, 'none' AS found
	FROM usage_tracking AS e LEFT JOIN users AS u ON u.id = e.user_id
	LEFT JOIN (` + periods + `) AS p ON p.user_id = e.user_id AND p.no = e.period_id
	WHERE p.user_id IS NULL`,

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
	    ('parked', coalesce(c.parked, 0), a.parked), ('reserved_cost', coalesce(c.cost, 0), a.reserved_cost_micros)) AS
	        v (col, want, got)
	WHERE want <> got`,

	// I2: lots hold what admitted admissions pin on them, and have paid what events say.
	`SELECT 'I2' AS invariant, u.user_id AS who, col || ' of lot ' || l.kind || '/' || l.name AS what, want::text AS
	    expected, got::text AS found
	FROM credit_lots AS l JOIN users AS u ON u.id = l.user_id
	LEFT JOIN (SELECT (s ->> 'lot')::uuid AS lot, sum((s ->> 'credits')::bigint) AS credits
	    FROM concurrent_processing AS c CROSS JOIN LATERAL jsonb_array_elements(c.lots) AS s
	    WHERE c.state = 'Admitted' GROUP BY 1) AS held ON held.lot = l.id
	LEFT JOIN (SELECT (s ->> 'lot')::uuid AS lot, sum(e.sign * (s ->> 'credits')::bigint) AS credits
	    FROM (` + signed + `) AS e CROSS JOIN LATERAL jsonb_array_elements(e.lots) AS s GROUP BY 1) AS paid ON paid.lot
	        = l.id
	CROSS JOIN LATERAL (VALUES
	    ('reserved', coalesce(held.credits, 0), l.reserved), ('used', coalesce(paid.credits, 0), l.used)) AS v (col,
	        want, got)
	WHERE want <> got`,

	// Every amount is paid by lots, to the unit.
	`SELECT 'I1' AS invariant, u.user_id AS who, 'lots that pay for event ' || e.id AS what, e.credits::text AS
	    expected, paid::text AS found
	FROM usage_tracking AS e LEFT JOIN users AS u ON u.id = e.user_id
	CROSS JOIN LATERAL (SELECT e.plan_part + ` + inLots("e.lots") + ` AS paid) AS p
	WHERE paid <> CASE WHEN e.refund_lot IS NULL THEN e.credits ELSE 0 END
	UNION ALL
	SELECT 'I2', u.user_id, 'lots that admission ' || c.id || ' holds', c.estimate::text, held::text
	FROM concurrent_processing AS c JOIN users AS u ON u.id = c.user_id
	CROSS JOIN LATERAL (SELECT c.plan_part + ` + inLots("c.lots") + ` AS held) AS h
	WHERE c.state = 'Admitted' AND held <> c.estimate`,

	// I2: whatever counts for an account has one.
	`SELECT 'I2' AS invariant, NULL AS who, what, 'an account' AS expected, 'none' AS found
	FROM (SELECT user_id, 'account of admission ' || id AS what FROM concurrent_processing
	    UNION ALL SELECT user_id, 'account of lot ' || id FROM credit_lots
	    UNION ALL SELECT user_id, 'account ' || user_id || ' of period ' || period_no FROM usage_periods) AS r
	WHERE NOT EXISTS (SELECT FROM usage_quotas AS a WHERE a.user_id = r.user_id)`,
}

// signed are the events with the sign of their effect on what a period and lots have used: a reversal takes away,
// unless it gave a lot instead.
const signed = `SELECT *, CASE WHEN kind <> 'reversal' THEN 1 WHEN refund_lot IS NULL THEN -1 ELSE 0 END AS sign FROM
    usage_tracking`

// inLots is the sum of the shares in a column. Most rows have none, and are not asked for them one by one.
func inLots(column string) string {
	return `CASE WHEN ` + column + ` IS NULL THEN 0 ELSE (SELECT coalesce(sum((s ->> 'credits')::bigint), 0)
	    FROM jsonb_array_elements(` + column + `) AS s) END`
}

// periods are the open and the closed ones of all accounts.
const periods = `SELECT a.user_id, u.user_id AS who, a.period_no AS no, a.used, a.reserved, a.plan_used,
    a.plan_reserved,
	    a.cost_micros AS cost, a.charged_micros AS charged
	FROM usage_quotas AS a JOIN users AS u ON u.id = a.user_id
	UNION ALL
	SELECT p.user_id, u.user_id, p.period_no, p.used, p.reserved, p.plan_used, p.plan_reserved, p.cost_micros,
	    p.charged_micros
	FROM usage_periods AS p JOIN users AS u ON u.id = p.user_id`
