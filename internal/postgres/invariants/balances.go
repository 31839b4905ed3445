// SPDX-License-Identifier: Apache-2.0

package invariants

// balances hold the sums that the ledger keeps against the rows that they are sums of.
var balances = []string{
	// I1: what a period has used is the sum of its events.
	`SELECT 'I1' AS invariant, who, col || ' of period ' || no AS what, want::text AS expected, got::text AS found
	FROM (` + periods + `) AS p
	LEFT JOIN (SELECT user_id, period_id, sum(sign * credits) AS credits, sum(sign * plan_part) AS plan_part
	    FROM (` + signed + `) AS s GROUP BY user_id, period_id) AS e ON e.user_id = p.user_id AND e.period_id = p.no
	CROSS JOIN LATERAL (VALUES
	    ('used', coalesce(e.credits, 0), p.used),
	    ('plan_used', coalesce(e.plan_part, 0), p.plan_used)) AS v (col, want, got)
	WHERE want <> got`,

	money,

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

	reservedMoney,

	// I2: slots and queue, over all periods.
	`SELECT 'I2' AS invariant, u.user_id AS who, col AS what, want::text AS expected, got::text AS found
	FROM usage_quotas AS a JOIN users AS u ON u.id = a.user_id
	LEFT JOIN (SELECT user_id,
	        count(*) FILTER (WHERE state = 'Admitted') AS active,
	        count(*) FILTER (WHERE state = 'Queued') AS queued,
	        count(*) FILTER (WHERE state = 'Queued' AND parked) AS parked
	    FROM concurrent_processing GROUP BY user_id) AS c ON c.user_id = a.user_id
	CROSS JOIN LATERAL (VALUES
	    ('active', coalesce(c.active, 0)::numeric, a.active::numeric), ('queued', coalesce(c.queued, 0), a.queued),
	    ('parked', coalesce(c.parked, 0), a.parked)) AS v (col, want, got)
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

// money (I1) is what a period has cost and charged in each currency: the sum of its events. Of a period that has events
// of before currencies were kept apart only the sum over all of them can be told.
const money = `SELECT 'I1' AS invariant, u.user_id AS who,
	    col || coalesce(' in ' || currency, '') || ' of period ' || no AS what,
	    want::text AS expected, got::text AS found
	FROM (
	    SELECT user_id, no, currency, sum(want_cost) AS want_cost, sum(want_price) AS want_price, sum(cost) AS cost,
	        sum(charged) AS charged
	    FROM (
	        SELECT m.user_id, m.no, CASE WHEN o.user_id IS NULL THEN m.currency END AS currency, want_cost, want_price,
	            cost, charged
	        FROM (
	            SELECT user_id, no, currency, 0 AS want_cost, 0 AS want_price, cost, charged FROM (` + periods + `) AS p
	            UNION ALL
	            SELECT p.user_id, p.no, m.key, 0, 0, (m.value ->> 'cost_micros')::bigint,
	                (m.value ->> 'charged_micros')::bigint
	            FROM (` + periods + `) AS p CROSS JOIN LATERAL jsonb_each(p.other_amounts) AS m
	            WHERE p.other_amounts IS NOT NULL
	            UNION ALL
	            SELECT user_id, period_id, coalesce(cost_currency, currency), sum(cost_micros), 0, 0, 0
	            FROM usage_tracking WHERE cost_micros <> 0 GROUP BY 1, 2, 3
	            UNION ALL
	            SELECT user_id, period_id, currency, 0, sum(sign * price_micros), 0, 0
	            FROM (` + signed + `) AS s WHERE price_micros <> 0 GROUP BY 1, 2, 3) AS m
	        LEFT JOIN (SELECT DISTINCT user_id, period_id FROM usage_tracking WHERE cost_currency IS NULL) AS o
	            ON o.user_id = m.user_id AND o.period_id = m.no) AS a
	    GROUP BY user_id, no, currency) AS s
	LEFT JOIN users AS u ON u.id = s.user_id
	CROSS JOIN LATERAL (VALUES ('cost', want_cost, cost), ('charged', want_price, charged)) AS v (col, want, got)
	WHERE want <> got`

// reservedMoney (I2) is what an account has reserved in each currency: the costs that its admitted admissions hold.
const reservedMoney = `SELECT 'I2' AS invariant, u.user_id AS who, 'reserved_cost in ' || currency AS what,
	    sum(want)::text AS expected, sum(got)::text AS found
	FROM (
	    SELECT user_id, ` + accountCurrency + ` AS currency, 0 AS want, reserved_cost_micros AS got
	    FROM usage_quotas AS a
	    UNION ALL
	    SELECT a.user_id, m.key, 0, coalesce((m.value ->> 'reserved_cost_micros')::bigint, 0)
	    FROM usage_quotas AS a CROSS JOIN LATERAL jsonb_each(a.other_amounts) AS m WHERE a.other_amounts IS NOT NULL
	    UNION ALL
	    SELECT c.user_id, coalesce(c.currency, ` + planCurrency + `c.admitted_at` + chosen + `),
	        estimated_cost_micros, 0
	    FROM concurrent_processing AS c JOIN usage_quotas AS a ON a.user_id = c.user_id WHERE c.state = 'Admitted') AS r
	JOIN users AS u ON u.id = r.user_id
	GROUP BY r.user_id, u.user_id, currency HAVING sum(want) <> sum(got)`

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
	    a.cost_micros AS cost, a.charged_micros AS charged, ` + accountCurrency + ` AS currency, a.other_amounts
	FROM usage_quotas AS a JOIN users AS u ON u.id = a.user_id
	UNION ALL
	SELECT p.user_id, u.user_id, p.period_no, p.used, p.reserved, p.plan_used, p.plan_reserved, p.cost_micros,
	    p.charged_micros, p.currency, p.other_amounts
	FROM usage_periods AS p JOIN users AS u ON u.id = p.user_id`

// planCurrency, an instant and chosen are the currency of the version of the account a's plan that held then;
// accountCurrency is that of the account, which the release before this one does not write down.
const (
	planCurrency = `(SELECT v.definition ->> 'currency' FROM plan_versions AS v WHERE v.plan_name = a.plan_name
	    ORDER BY (v.valid_from > `
	chosen          = `)::integer * v.version, v.version DESC LIMIT 1)`
	accountCurrency = `coalesce(a.currency, ` + planCurrency + `a.last_decided_at` + chosen + `)`
)
