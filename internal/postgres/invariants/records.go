// SPDX-License-Identifier: Apache-2.0

package invariants

// records hold admissions and events against each other.
var records = []string{
	// I10: a period is closed by the version of its plan that held when it ended, the first one if that was before any,
	// and in its currency.
	`SELECT 'I10' AS invariant, u.user_id AS who, 'plan version of period ' || p.period_no AS what,
	    v.version || ' in ' || v.currency AS expected, p.plan_version || ' in ' || coalesce(p.currency, 'NULL') AS found
	FROM usage_periods AS p JOIN users AS u ON u.id = p.user_id
	JOIN LATERAL (SELECT h.version, h.definition ->> 'currency' AS currency FROM plan_versions AS h
	    WHERE h.plan_name = p.plan_name
	    ORDER BY h.valid_from <= p.period_end DESC, CASE WHEN h.valid_from <= p.period_end THEN -h.version ELSE
	        h.version END
	    LIMIT 1) AS v ON true
	WHERE p.overage_price_micros IS NOT NULL
	    AND (v.version <> p.plan_version OR v.currency IS DISTINCT FROM p.currency)`,

	// I4: one admission has one charge if it is settled and none otherwise, of what it was settled with.
	`SELECT 'I4' AS invariant, u.user_id AS who, 'charges of admission ' || c.id || ' (' || c.state || ')' AS what,
	    CASE WHEN c.state = 'Settled' THEN '1 of ' || c.actual ELSE '0 of 0' END AS expected,
	    coalesce(e.n, 0) || ' of ' || coalesce(e.credits, 0) AS found
	FROM concurrent_processing AS c JOIN users AS u ON u.id = c.user_id
	LEFT JOIN (SELECT admission_id, count(*) AS n, sum(credits) AS credits FROM usage_tracking
	    WHERE kind IN ('charge', 'adjustment') GROUP BY admission_id) AS e ON e.admission_id = c.id
	WHERE coalesce(e.n, 0) <> CASE WHEN c.state = 'Settled' THEN 1 ELSE 0 END OR coalesce(e.credits, 0) <>
	    coalesce(c.actual, 0)`,

	`SELECT 'I4' AS invariant, u.user_id AS who, 'admission ' || coalesce(e.admission_id::text, 'NULL') || ' of event '
	    || e.id AS what,
	    'one of the account' AS expected, 'none' AS found
	FROM usage_tracking AS e LEFT JOIN users AS u ON u.id = e.user_id
	LEFT JOIN concurrent_processing AS c ON c.id = e.admission_id AND c.user_id = e.user_id
	WHERE c.id IS NULL AND (e.admission_id IS NOT NULL OR e.idempotency_key IS NULL)`,

	// I4: one key has one event while it is kept, and it is the one that it names.
	`SELECT 'I4' AS invariant, u.user_id AS who, 'events with key ' || e.idempotency_key AS what, '1 in 35 days' AS
	    expected, count(*)::text AS found
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
	WHERE r.kind = 'reversal' AND NOT coalesce(r.void, r.refund_lot IS NOT NULL) AND r.period_id <> e.period_id
	UNION ALL
	SELECT 'I4', u.user_id, 'mark of the reversal of event ' || r.reverses, r.id::text, coalesce(k.reversal_id::text,
	    'none')
	FROM usage_tracking AS r LEFT JOIN usage_reversals AS k ON k.event_id = r.reverses LEFT JOIN users AS u ON u.id =
	    r.user_id
	WHERE r.kind = 'reversal' AND k.reversal_id IS DISTINCT FROM r.id
	UNION ALL
	SELECT 'I4', u.user_id, 'lot of refund ' || e.id, e.credits::text, coalesce(l.credits::text, 'none')
	FROM usage_tracking AS e LEFT JOIN users AS u ON u.id = e.user_id
	LEFT JOIN credit_lots AS l ON l.id = e.refund_lot AND l.user_id = coalesce(e.payer_id, e.user_id)
	WHERE e.refund_lot IS NOT NULL AND l.credits IS DISTINCT FROM e.credits
	UNION ALL
	SELECT 'I4', u.user_id, 'reversal ' || k.reversal_id || ' of event ' || k.event_id, '1', '0'
	FROM usage_reversals AS k JOIN users AS u ON u.id = k.user_id
	WHERE NOT EXISTS (SELECT FROM usage_tracking AS e WHERE e.id = k.reversal_id AND e.reverses = k.event_id)`,
}

// leases (I6): nothing that a lease alone keeps alive outlives it by more than $2. Jobs are not meant: a Job's slot
// returns when the controller sees the Job gone, however long that takes, so that a manager that was away expires
// nothing that runs.
const leases = `SELECT 'I6' AS invariant, u.user_id AS who, 'admission ' || c.id || ' (' || c.state || ')' AS what,
	    'ended by ' || c.lease_until + $2 AS expected, 'alive at ' || now AS found
	FROM concurrent_processing AS c JOIN users AS u ON u.id = c.user_id
	CROSS JOIN (SELECT coalesce($1::timestamptz, clock_timestamp()) AS now) AS clock
	WHERE c.state IN ('Queued', 'Admitted') AND c.source = 'api' AND c.lease_until + $2::interval < now`
