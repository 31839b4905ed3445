// SPDX-License-Identifier: Apache-2.0

package invariants

// balances hold the sums that the ledger keeps against the rows that they are sums of.
var balances = []string{
	// I1: what a period has used is the sum of its events.
	`SELECT 'I1' AS invariant, who, col || ' of period ' || p.no AS what, want::text AS expected, got::text AS found
	FROM (` + periods + `) AS p
	LEFT JOIN (SELECT account, no, sum(sign * credits) AS credits, sum(sign * plan_part) FILTER (WHERE pays) AS
	    plan_part
	    FROM (` + booked + `) AS s GROUP BY account, no) AS e ON e.account = p.user_id AND e.no = p.no
	CROSS JOIN LATERAL (VALUES
	    ('used', coalesce(e.credits, 0), p.used),
	    ('plan_used', coalesce(e.plan_part, 0), p.plan_used)) AS v (col, want, got)
	WHERE want <> got`,

	money,

	// I1: what members have used of a team's period are the sums of their events there.
	`SELECT 'I1' AS invariant, u.user_id AS who, 'share of period ' || no || ' of ' || t.user_id AS what,
	    sum(want)::text AS expected, sum(got)::text AS found
	FROM (SELECT account, no, user_id, sign * credits AS want, 0 AS got FROM (` + booked + `) AS s
	    WHERE account <> user_id
	    UNION ALL SELECT team_id, period_no, user_id, 0, used FROM team_shares) AS s
	LEFT JOIN (` + names + `) AS t ON t.id = s.account LEFT JOIN users AS u ON u.id = s.user_id
	GROUP BY s.account, no, s.user_id, t.user_id, u.user_id HAVING sum(want) <> sum(got)`,

	// I1: and every event has such a period.
	`SELECT 'I1' AS invariant, u.user_id AS who, 'event ' || e.id || ' in period ' || e.no AS what,
	    'a period of the account' AS expected, 'none' AS found
	FROM (` + booked + `) AS e LEFT JOIN (` + names + `) AS u ON u.id = e.account
	LEFT JOIN (` + periods + `) AS p ON p.user_id = e.account AND p.no = e.no
	WHERE p.user_id IS NULL`,

	// I1, I2: and one of the accounts that it is booked on pays for it.
	`SELECT 'I1' AS invariant, NULL AS who, what, '1' AS expected, n::text AS found
	FROM (SELECT 'payers of event ' || id AS what, count(*) FILTER (WHERE pays) AS n FROM (` + booked + `) AS e GROUP
	    BY id
	    UNION ALL
	    SELECT 'payers of admission ' || id, count(*) FILTER (WHERE pays) FROM (` + held + `) AS c GROUP BY id) AS p
	WHERE n <> 1`,

	// I2: what a period has reserved is what its admitted admissions hold.
	`SELECT 'I2' AS invariant, who, col || ' of period ' || no AS what, want::text AS expected, got::text AS found
	FROM (` + periods + `) AS p
	LEFT JOIN (SELECT account, period_no, sum(estimate) AS estimate, sum(plan_part) FILTER (WHERE pays) AS plan_part
	    FROM (` + held + `) AS h WHERE state = 'Admitted' GROUP BY account, period_no) AS c
	    ON c.account = p.user_id AND c.period_no = p.no
	CROSS JOIN LATERAL (VALUES
	    ('reserved', coalesce(c.estimate, 0), p.reserved),
	    ('plan_reserved', coalesce(c.plan_part, 0), p.plan_reserved)) AS v (col, want, got)
	WHERE want <> got`,

	reservedMoney,

	// I2: slots and queue, over all periods.
	`SELECT 'I2' AS invariant, a.who, col AS what, want::text AS expected, got::text AS found
	FROM (` + accounts + `) AS a
	LEFT JOIN (SELECT account, sum(active) AS active, sum(queued) AS queued, sum(parked) AS parked
	    FROM (SELECT account, 1 AS active, 0 AS queued, 0 AS parked FROM (` + held + `) AS h WHERE state = 'Admitted'
	        UNION ALL
	        SELECT t.account, 0, w.queued, w.parked
	        FROM (SELECT user_id, count(*) AS queued, count(*) FILTER (WHERE parked) AS parked
	            FROM concurrent_processing WHERE state = 'Queued' GROUP BY user_id) AS w
	        JOIN (` + tree + `) AS t ON t.user_id = w.user_id) AS n
	    GROUP BY account) AS c ON c.account = a.user_id
	CROSS JOIN LATERAL (VALUES
	    ('active', coalesce(c.active, 0)::numeric, a.active::numeric), ('queued', coalesce(c.queued, 0), a.queued),
	    ('parked', coalesce(c.parked, 0), a.parked)) AS v (col, want, got)
	WHERE want <> got`,

	// I2: lots hold what admitted admissions pin on them, and have paid what events say.
	`SELECT 'I2' AS invariant, u.user_id AS who, col || ' of lot ' || l.kind || '/' || l.name AS what, want::text AS
	    expected, got::text AS found
	FROM credit_lots AS l LEFT JOIN (` + names + `) AS u ON u.id = l.user_id
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
	            SELECT account, no, coalesce(cost_currency, currency), sum(cost_micros), 0, 0, 0
	            FROM (` + booked + `) AS s WHERE cost_micros <> 0 GROUP BY 1, 2, 3
	            UNION ALL
	            SELECT account, no, currency, 0, sum(sign * price_micros), 0, 0
	            FROM (` + booked + `) AS s WHERE pays AND price_micros <> 0 GROUP BY 1, 2, 3) AS m
	        LEFT JOIN (SELECT DISTINCT user_id, period_id FROM usage_tracking WHERE cost_currency IS NULL) AS o
	            ON o.user_id = m.user_id AND o.period_id = m.no) AS a
	    GROUP BY user_id, no, currency) AS s
	LEFT JOIN (` + names + `) AS u ON u.id = s.user_id
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
	    SELECT c.account, coalesce(c.currency, ` + planCurrency + `c.admitted_at` + chosen + `),
	        estimated_cost_micros, 0
	    FROM (` + held + `) AS c JOIN usage_quotas AS a ON a.user_id = c.account WHERE c.state = 'Admitted') AS r
	LEFT JOIN (` + names + `) AS u ON u.id = r.user_id
	GROUP BY r.user_id, u.user_id, currency HAVING sum(want) <> sum(got)`

// signed are the events with the sign of their effect on what lots have used: a reversal takes away, unless it gave a
// lot instead.
const signed = `SELECT *, CASE WHEN kind <> 'reversal' THEN 1 WHEN refund_lot IS NULL THEN -1 ELSE 0 END AS sign FROM
    usage_tracking`

// booked are the events once for each account that they are booked on, with the sign of their effect on what its period
// has used: a reversal takes away, unless that is final. One of the accounts pays.
const booked = `SELECT id, user_id, account, no, seq, credits, plan_part, cost_micros, price_micros, cost_currency,
	    currency, account = payer AS pays, CASE WHEN kind <> 'reversal' THEN 1 WHEN void THEN 0 ELSE -1 END AS sign
	FROM (
	    SELECT e.*, e.user_id AS account, period_id AS no, coalesce(payer_id, e.user_id) AS payer
	    FROM (SELECT id, user_id, period_id, payer_id, seq, kind, credits, plan_part, cost_micros, price_micros,
	            cost_currency, currency, coalesce(void, refund_lot IS NOT NULL) AS void FROM usage_tracking) AS e
	    UNION ALL
	    SELECT e.id, e.user_id, e.period_id, e.payer_id, (l ->> 'seq')::bigint, e.kind, e.credits, e.plan_part,
	        e.cost_micros, e.price_micros, e.cost_currency, e.currency, coalesce((l ->> 'void')::boolean, false),
	        (l ->> 'account')::uuid, (l ->> 'period_no')::bigint, coalesce(e.payer_id, e.user_id)
	    FROM usage_tracking AS e CROSS JOIN LATERAL jsonb_array_elements(e.levels) AS l WHERE e.levels IS NOT NULL) AS
	        b`

// held are the admissions that were admitted, once for each account that they are booked on.
const held = `SELECT id, account, period_no, state, enforced, estimate, plan_part, estimated_cost_micros, currency,
	    admitted_at, admitted_seq, ended_seq, seen_remaining, seen_concurrent, seen_used, seen_reserved, seen_active,
	    account = payer AS pays
	FROM (
	    SELECT id, user_id AS account, period_no, state, enforced, estimate, plan_part, estimated_cost_micros, currency,
	        admitted_at, admitted_seq, ended_seq, seen_remaining, seen_concurrent, seen_used, seen_reserved,
	            seen_active,
	        coalesce(payer_id, user_id) AS payer
	    FROM concurrent_processing WHERE admitted_at IS NOT NULL
	    UNION ALL
	    SELECT id, (l ->> 'account')::uuid, (l ->> 'period_no')::bigint, state, enforced, estimate, plan_part,
	        estimated_cost_micros, currency, admitted_at, (l ->> 'admitted_seq')::bigint, (l ->> 'ended_seq')::bigint,
	        (l ->> 'seen_remaining')::bigint, (l ->> 'seen_concurrent')::integer, (l ->> 'seen_used')::bigint,
	        (l ->> 'seen_reserved')::bigint, (l ->> 'seen_active')::integer, coalesce(payer_id, user_id)
	    FROM concurrent_processing AS c CROSS JOIN LATERAL jsonb_array_elements(c.levels) AS l
	    WHERE c.levels IS NOT NULL AND c.admitted_at IS NOT NULL) AS b`

// tree has each account with itself and with those above it now.
const tree = `WITH RECURSIVE up (user_id, account) AS (
	    SELECT user_id, user_id FROM usage_quotas
	    UNION ALL
	    SELECT up.user_id, a.parent_id FROM up JOIN usage_quotas AS a ON a.user_id = up.account
	    WHERE a.parent_id IS NOT NULL) SELECT * FROM up`

// accounts are all of them with what they are called.
const accounts = `SELECT a.*, u.user_id AS who FROM usage_quotas AS a LEFT JOIN (` + names + `) AS u ON u.id =
    a.user_id`

// names are what users and teams are called.
const names = `SELECT id, user_id FROM users UNION ALL SELECT id, 'team ' || name FROM teams`

// inLots is the sum of the shares in a column. Most rows have none, and are not asked for them one by one.
func inLots(column string) string {
	return `CASE WHEN ` + column + ` IS NULL THEN 0 ELSE (SELECT coalesce(sum((s ->> 'credits')::bigint), 0)
	    FROM jsonb_array_elements(` + column + `) AS s) END`
}

// periods are the open and the closed ones of all accounts.
const periods = `SELECT a.user_id, a.who, a.period_no AS no, a.used, a.reserved, a.plan_used,
    a.plan_reserved,
	    a.cost_micros AS cost, a.charged_micros AS charged, ` + accountCurrency + ` AS currency, a.other_amounts
	FROM (` + accounts + `) AS a
	UNION ALL
	SELECT p.user_id, u.user_id, p.period_no, p.used, p.reserved, p.plan_used, p.plan_reserved, p.cost_micros,
	    p.charged_micros, p.currency, p.other_amounts
	FROM usage_periods AS p LEFT JOIN (` + names + `) AS u ON u.id = p.user_id`

// planCurrency, an instant and chosen are the currency of the version of the account a's plan that held then;
// accountCurrency is that of the account, which the release before this one does not write down.
const (
	planCurrency = `(SELECT v.definition ->> 'currency' FROM plan_versions AS v WHERE v.plan_name = a.plan_name
	    ORDER BY (v.valid_from > `
	chosen          = `)::integer * v.version, v.version DESC LIMIT 1)`
	accountCurrency = `coalesce(a.currency, ` + planCurrency + `a.last_decided_at` + chosen + `)`
)
