// SPDX-License-Identifier: Apache-2.0

package invariants

// rollups (I9) hold the sums of usage_analytics against the events up to the watermark of each account. Where nothing
// is rolled up they read next to nothing.
var rollups = []string{
	// The sums of each hour by what it was booked under. Here events and reversals are added up one by one, each under
	// the day of what was used.
	`SELECT 'I9' AS invariant, n.user_id AS who, 'rollup of ' || day || ', ' || utc || ', period ' || period_no ||
	    ', ' || plan_name || ', ' || usage_type || ', ' || payer_id || ', ' || currency || '/' || cost_currency AS what,
	    'no difference to the events' AS expected,
	    concat_ws(' ', 'events', sum(events), 'reversals', sum(reversals), 'credits', sum(credits), 'refunded',
	        sum(refunded), 'plan', sum(plan_credits), 'overage', sum(overage), 'grants', sum(grants), 'carried',
	        sum(carried), 'price', sum(price), 'cost', sum(cost), 'audio', sum(audio), 'bytes', sum(bytes), 'tokens',
	        sum(tokens), 'quantity', sum(quantity), 'admissions', sum(admissions)) AS found
	FROM (
	    SELECT s.user_id, (t AT TIME ZONE zone)::date AS day, date_trunc('hour', t, 'UTC') AS utc,
	        date_trunc('hour', t AT TIME ZONE zone) AS clock, period_no, payer_id, plan_name, usage_type, currency,
	        cost_currency, events, reversals, credits, refunded, plan_part - overage AS plan_credits, overage,
	        CASE WHEN lots IS NULL THEN 0 ELSE pays * ` + paidBy("grant") + ` END AS grants,
	        CASE WHEN lots IS NULL THEN 0 ELSE pays * ` + paidBy("carry_over") + ` END AS carried,
	        price, cost, audio, bytes, tokens, quantity, admissions
	    FROM (
	        SELECT e.user_id, m.time_zone AS zone, e.occurred_at AS t, e.period_id AS period_no,
	            coalesce(e.payer_id, e.user_id) AS payer_id, e.plan_name, e.usage_type, e.currency,
	            coalesce(e.cost_currency, e.currency) AS cost_currency, 1 AS events, 0 AS reversals, e.credits,
	            0 AS refunded, e.plan_part, e.overage, e.lots, 1 AS pays, e.price_micros AS price,
	            e.cost_micros AS cost, e.duration_ms AS audio, e.file_size AS bytes, e.tokens, e.quantity,
	            (e.admission_id IS NOT NULL)::integer AS admissions
	        FROM usage_rollups AS m JOIN usage_tracking AS e ON e.user_id = m.user_id AND e.seq <= m.seq
	        WHERE e.kind <> 'reversal'
	        UNION ALL
	        SELECT e.user_id, m.time_zone, e.occurred_at, e.period_id, coalesce(e.payer_id, e.user_id), e.plan_name,
	            e.usage_type, e.currency, coalesce(e.cost_currency, e.currency), 0, 1,
	            CASE WHEN coalesce(r.void, r.refund_lot IS NOT NULL) THEN 0 ELSE -r.credits END,
	            CASE WHEN coalesce(r.void, r.refund_lot IS NOT NULL) THEN r.credits ELSE 0 END,
	            CASE WHEN r.refund_lot IS NULL THEN -r.plan_part ELSE 0 END,
	            CASE WHEN r.refund_lot IS NULL THEN -r.overage ELSE 0 END, r.lots,
	            CASE WHEN r.refund_lot IS NULL THEN -1 ELSE 0 END,
	            CASE WHEN r.refund_lot IS NULL THEN -r.price_micros ELSE 0 END, 0, -e.duration_ms, -e.file_size,
	            -e.tokens, -e.quantity, 0
	        FROM usage_rollups AS m JOIN usage_tracking AS r ON r.user_id = m.user_id AND r.seq <= m.seq
	        JOIN usage_tracking AS e ON e.id = r.reverses
	        WHERE r.kind = 'reversal') AS s
	    UNION ALL
	    SELECT u.user_id, u.day, date_trunc('hour', u.at, 'UTC'), date_trunc('hour', u.at AT TIME ZONE m.time_zone),
	        u.period_no, u.payer_id, u.plan_name, u.usage_type, u.currency, u.cost_currency, -u.events, -u.reversals,
	        -u.credits, -u.refunded, -u.plan_credits, -u.overage, -u.grant_credits, -u.carry_over, -u.price_micros,
	        -u.cost_micros, -u.audio_ms, -u.bytes, -u.tokens, -u.quantity, -u.admissions
	    FROM usage_rollups AS m JOIN usage_analytics AS u ON u.user_id = m.user_id) AS a
	LEFT JOIN (` + names + `) AS n ON n.id = a.user_id
	GROUP BY a.user_id, n.user_id, day, utc, clock, period_no, payer_id, plan_name, usage_type, currency, cost_currency
	HAVING (sum(events), sum(reversals), sum(credits), sum(refunded), sum(plan_credits), sum(overage), sum(grants),
	        sum(carried), sum(price), sum(cost), sum(audio), sum(bytes), sum(tokens), sum(quantity), sum(admissions))
	    <> (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)`,

	// The largest pieces of work of each row, of the accounts whose rows have them.
	`SELECT 'I9' AS invariant, n.user_id AS who, 'largest work of ' || day || ', ' || utc || ', period ' || period_no ||
	    ', ' || plan_name || ', ' || usage_type || ', ' || payer_id || ', ' || currency || '/' || cost_currency ||
	    ': ' || a.id || ', ' || credits || ' at ' || t AS what, 'in the events and in the row' AS expected,
	    CASE WHEN sum(sign) > 0 THEN 'not in the row' ELSE 'not in the events' END AS found
	FROM (
	    SELECT * FROM (
	        SELECT *, row_number() OVER (PARTITION BY user_id, utc, clock, period_no, payer_id, plan_name, usage_type,
	            currency, cost_currency ORDER BY credits DESC, t, id) AS place
	        FROM (
	            SELECT e.user_id, (e.occurred_at AT TIME ZONE m.time_zone)::date AS day,
	                date_trunc('hour', e.occurred_at, 'UTC') AS utc,
	                date_trunc('hour', e.occurred_at AT TIME ZONE m.time_zone) AS clock, e.period_id AS period_no,
	                coalesce(e.payer_id, e.user_id) AS payer_id, e.plan_name, e.usage_type, e.currency,
	                coalesce(e.cost_currency, e.currency) AS cost_currency, coalesce(e.admission_id, e.id) AS id,
	                e.occurred_at AS t, e.credits, e.duration_ms AS audio, e.price_micros AS price,
	                e.cost_micros AS cost, 1 AS sign
	            FROM usage_rollups AS m JOIN usage_tracking AS e ON e.user_id = m.user_id AND e.seq <= m.seq
	            WHERE m.listed_seq = m.seq AND e.kind <> 'reversal' AND e.credits > 0 AND e.usage_type <> 'adjustment'
	                AND NOT EXISTS (SELECT FROM usage_tracking AS r
	                    WHERE r.kind = 'reversal' AND r.reverses = e.id AND r.user_id = m.user_id
	                        AND r.seq <= m.seq)) AS s) AS l WHERE place <= 10
	    UNION ALL
	    SELECT u.user_id, u.day, date_trunc('hour', u.at, 'UTC'), date_trunc('hour', u.at AT TIME ZONE m.time_zone),
	        u.period_no, u.payer_id, u.plan_name, u.usage_type, u.currency, u.cost_currency, w.id, w.at, w.credits,
	        w.audio_ms, w.price_micros, w.cost_micros, -1, 0
	    FROM usage_rollups AS m JOIN usage_analytics AS u ON u.user_id = m.user_id CROSS JOIN unnest(u.largest) AS w
	    WHERE m.listed_seq = m.seq) AS a
	LEFT JOIN (` + names + `) AS n ON n.id = a.user_id
	GROUP BY a.user_id, n.user_id, day, utc, clock, period_no, payer_id, plan_name, usage_type, currency, cost_currency,
	    a.id, t, credits, audio, price, cost
	HAVING sum(sign) <> 0`,

	// Those that teams have paid for, of the days that are not to be made anew, once all rows have theirs.
	`SELECT 'I9' AS invariant, NULL AS who, 'largest work of ' || day || ', paid by ' || team_id || ', ' || place ||
	    ': ' || id || ' of ' || user_id || ', ' || credits || ' at ' || at AS what,
	    'in the rows of users and of the team' AS expected,
	    CASE WHEN sum(sign) > 0 THEN 'not of the team' ELSE 'not of users' END AS found
	FROM (
	    SELECT * FROM (
	        SELECT *, row_number() OVER (PARTITION BY day, team_id ORDER BY credits DESC, at, id) AS place, 1 AS sign
	        FROM (
	            SELECT (u.at AT TIME ZONE 'UTC')::date AS day, u.payer_id AS team_id, u.user_id, u.plan_name,
	                u.usage_type, u.currency, u.cost_currency, w.*
	            FROM usage_analytics AS u CROSS JOIN unnest(u.largest) AS w WHERE u.payer_id <> u.user_id) AS s) AS l
	    WHERE place <= 10
	    UNION ALL
	    SELECT day, team_id, user_id, plan_name, usage_type, currency, cost_currency, id, at, credits, audio_ms,
	        price_micros, cost_micros, rank, -1
	    FROM usage_payer_largest) AS t
	WHERE day NOT IN (SELECT s.day FROM usage_totals_stale AS s)
	    AND NOT EXISTS (SELECT FROM usage_rollups AS m WHERE m.listed_seq <> m.seq)
	GROUP BY day, team_id, place, user_id, plan_name, usage_type, currency, cost_currency, id, at, credits, audio_ms,
	    price_micros, cost_micros
	HAVING sum(sign) <> 0`,

	// The totals of all users, of the days that are not to be made anew.
	`SELECT 'I9' AS invariant, NULL AS who, 'totals of ' || day || ', ' || plan_name || ', ' || usage_type || ', ' ||
	    currency || '/' || cost_currency AS what, 'no difference to the sums of users' AS expected,
	    concat_ws(' ', 'users', sum(users), 'events', sum(events), 'credits', sum(credits), 'price', sum(price_micros),
	        'cost', sum(cost_micros)) AS found
	FROM (
	    SELECT (at AT TIME ZONE 'UTC')::date AS day, plan_name, usage_type, currency, cost_currency,
	        count(DISTINCT user_id) AS users, sum(events)::bigint AS events, sum(reversals)::bigint AS reversals,
	        sum(credits)::bigint AS credits, sum(refunded)::bigint AS refunded,
	        sum(plan_credits)::bigint AS plan_credits, sum(overage)::bigint AS overage,
	        sum(grant_credits)::bigint AS grant_credits, sum(carry_over)::bigint AS carry_over,
	        sum(price_micros)::bigint AS price_micros, sum(cost_micros)::bigint AS cost_micros,
	        sum(audio_ms)::bigint AS audio_ms, sum(bytes)::bigint AS bytes, sum(tokens)::bigint AS tokens,
	        sum(quantity)::bigint AS quantity, sum(admissions)::bigint AS admissions,
	        sum(uncharged)::bigint AS uncharged, sum(waited_ms)::bigint AS waited_ms,
	        sum(running_ms)::bigint AS running_ms, sum(expired)::bigint AS expired, sum(cancelled)::bigint AS cancelled,
	        sum(waited_1s)::bigint AS waited_1s, sum(waited_1m)::bigint AS waited_1m,
	        sum(waited_10m)::bigint AS waited_10m, sum(waited_1h)::bigint AS waited_1h
	    FROM usage_analytics GROUP BY 1, 2, 3, 4, 5
	    UNION ALL
	    SELECT day, plan_name, usage_type, currency, cost_currency, -users, -events, -reversals,
	        -credits, -refunded, -plan_credits, -overage, -grant_credits, -carry_over,
	        -price_micros, -cost_micros, -audio_ms, -bytes, -tokens, -quantity, -admissions, -uncharged,
	        -waited_ms, -running_ms, -expired, -cancelled, -waited_1s, -waited_1m, -waited_10m, -waited_1h
	    FROM usage_totals) AS t
	WHERE day NOT IN (SELECT s.day FROM usage_totals_stale AS s)
	GROUP BY day, plan_name, usage_type, currency, cost_currency
	HAVING (sum(users), sum(events), sum(reversals), sum(credits), sum(refunded), sum(plan_credits),
	        sum(overage), sum(grant_credits), sum(carry_over), sum(price_micros), sum(cost_micros),
	        sum(audio_ms), sum(bytes), sum(tokens), sum(quantity), sum(admissions), sum(uncharged),
	        sum(waited_ms), sum(running_ms), sum(expired), sum(cancelled), sum(waited_1s), sum(waited_1m),
	        sum(waited_10m), sum(waited_1h))
	    <> (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)`,

	// What teams have paid for, of the same days.
	`SELECT 'I9' AS invariant, NULL AS who, 'totals of ' || day || ', ' || plan_name || ', ' || usage_type ||
	    ', paid by ' || team_id || ', ' || currency || '/' || cost_currency AS what,
	    'no difference to the sums of users' AS expected,
	    concat_ws(' ', 'users', sum(users), 'events', sum(events), 'credits', sum(credits), 'price', sum(price_micros),
	        'cost', sum(cost_micros)) AS found
	FROM (
	    SELECT (at AT TIME ZONE 'UTC')::date AS day, plan_name, payer_id AS team_id, usage_type, currency,
	        cost_currency, count(DISTINCT user_id) AS users, sum(events)::bigint AS events,
	        sum(reversals)::bigint AS reversals, sum(credits)::bigint AS credits, sum(refunded)::bigint AS refunded,
	        sum(plan_credits)::bigint AS plan_credits, sum(overage)::bigint AS overage,
	        sum(grant_credits)::bigint AS grant_credits, sum(carry_over)::bigint AS carry_over,
	        sum(price_micros)::bigint AS price_micros, sum(cost_micros)::bigint AS cost_micros,
	        sum(audio_ms)::bigint AS audio_ms, sum(bytes)::bigint AS bytes, sum(tokens)::bigint AS tokens,
	        sum(quantity)::bigint AS quantity, sum(admissions)::bigint AS admissions,
	        sum(uncharged)::bigint AS uncharged, sum(waited_ms)::bigint AS waited_ms,
	        sum(running_ms)::bigint AS running_ms
	    FROM usage_analytics WHERE payer_id <> user_id GROUP BY 1, 2, 3, 4, 5, 6
	    UNION ALL
	    SELECT day, plan_name, team_id, usage_type, currency, cost_currency, -users, -events, -reversals, -credits,
	        -refunded, -plan_credits, -overage, -grant_credits, -carry_over, -price_micros, -cost_micros, -audio_ms,
	        -bytes, -tokens, -quantity, -admissions, -uncharged, -waited_ms, -running_ms
	    FROM usage_payer_totals) AS t
	WHERE day NOT IN (SELECT s.day FROM usage_totals_stale AS s)
	GROUP BY day, plan_name, team_id, usage_type, currency, cost_currency
	HAVING (sum(users), sum(events), sum(reversals), sum(credits), sum(refunded), sum(plan_credits), sum(overage),
	        sum(grant_credits), sum(carry_over), sum(price_micros), sum(cost_micros), sum(audio_ms), sum(bytes),
	        sum(tokens), sum(quantity), sum(admissions), sum(uncharged), sum(waited_ms), sum(running_ms))
	    <> (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)`,

	// The same by months.
	`SELECT 'I9' AS invariant, NULL AS who, 'month ' || month || ', paid by ' || team_id || ', ' || currency || '/' ||
	    cost_currency AS what, 'no difference to the days' AS expected,
	    concat_ws(' ', 'price', sum(price_micros), 'cost', sum(cost_micros)) AS found
	FROM (
	    SELECT date_trunc('month', day)::date AS month, team_id, currency, cost_currency, price_micros, cost_micros
	    FROM usage_payer_totals WHERE events > 0
	    UNION ALL
	    SELECT month, team_id, currency, cost_currency, -price_micros, -cost_micros FROM usage_payer_months) AS t
	GROUP BY month, team_id, currency, cost_currency
	HAVING (sum(price_micros), sum(cost_micros)) <> (0, 0)`,

	// What periods are sold for, by team and by plan.
	`SELECT 'I9' AS invariant, NULL AS who, 'prices of ' || day || ', ' || plan_name || ', ' || currency AS what,
	    'no difference to those by team' AS expected,
	    concat_ws(' ', 'periods', sum(periods), 'price', sum(price_micros)) AS found
	FROM (
	    SELECT day, plan_name, currency, periods, price_micros FROM usage_period_prices
	    UNION ALL
	    SELECT day, plan_name, currency, -periods, -price_micros FROM usage_prices) AS t
	GROUP BY day, plan_name, currency
	HAVING (sum(periods), sum(price_micros)) <> (0, 0)`,

	// Everybody's waits by the hour, of the days of them that advice looks at.
	`SELECT 'I9' AS invariant, NULL AS who, 'waits at ' || at || ', ' || plan_name AS what,
	    'no difference to the sums of users' AS expected,
	    concat_ws(' ', 'admissions', sum(admissions), 'within a minute', sum(waited_1m)) AS found
	FROM (
	    SELECT plan_name, date_trunc('hour', at, 'UTC') AS at, admissions, waited_1m FROM usage_analytics
	    WHERE admissions > 0
	    UNION ALL
	    SELECT plan_name, at, -admissions, -waited_1m FROM usage_waits) AS t
	WHERE at > (SELECT c.as_of FROM usage_rollups_complete AS c) - interval '20 days'
	    AND (at AT TIME ZONE 'UTC')::date NOT IN (SELECT s.day FROM usage_totals_stale AS s)
	GROUP BY plan_name, at
	HAVING (sum(admissions), sum(waited_1m)) <> (0, 0)`,

	// What was refused, of the same days, as far as it is still known to whom.
	`SELECT 'I9' AS invariant, NULL AS who, 'refusals of ' || day || ', ' || plan_name || ', ' || reason ||
	    ', served by ' || served_by AS what, 'no difference to those of users' AS expected,
	    concat_ws(' ', 'users', sum(users), 'refusals', sum(refusals), 'credits', sum(credits)) AS found
	FROM (
	    SELECT (at AT TIME ZONE 'UTC')::date AS day, plan_name, reason, served_by, count(DISTINCT user_id) AS users,
	        sum(refusals)::bigint AS refusals, sum(credits) AS credits
	    FROM usage_refusals GROUP BY 1, 2, 3, 4
	    UNION ALL
	    SELECT day, plan_name, reason, served_by, -users, -refusals, -credits FROM usage_refusal_totals) AS t
	WHERE day NOT IN (SELECT s.day FROM usage_totals_stale AS s)
	    AND NOT EXISTS (SELECT FROM usage_refusals_forgotten AS f WHERE t.day < f.before)
	GROUP BY day, plan_name, reason, served_by
	HAVING (sum(users), sum(refusals), sum(credits)) <> (0, 0, 0)`,

	// The months of users: what was used in them, and in the months before.
	`SELECT 'I9' AS invariant, n.user_id AS who, 'month ' || month || ', ' || currency AS what,
	    'no difference to the hours' AS expected,
	    concat_ws(' ', 'uses', sum(uses), 'credits', sum(credits), 'price', sum(price), 'cost', sum(cost), 'before',
	        sum(previous)) AS found
	FROM (
	    SELECT user_id, date_trunc('month', at AT TIME ZONE 'UTC')::date AS month, currency, events - reversals AS uses,
	        credits, price_micros AS price, 0 AS cost, 0 AS previous
	    FROM usage_analytics WHERE events > 0
	    UNION ALL
	    SELECT user_id, date_trunc('month', at AT TIME ZONE 'UTC')::date, cost_currency, 0, 0, 0, cost_micros, 0
	    FROM usage_analytics WHERE events > 0
	    UNION ALL
	    SELECT user_id, (date_trunc('month', at AT TIME ZONE 'UTC') + interval '1 month')::date, currency, 0, 0, 0, 0,
	        credits
	    FROM usage_analytics WHERE events > 0
	    UNION ALL
	    SELECT user_id, month, currency, -uses, -credits, -price_micros, -cost_micros, -previous_credits
	    FROM usage_months) AS m
	LEFT JOIN (` + names + `) AS n ON n.id = m.user_id
	GROUP BY m.user_id, n.user_id, month, currency
	HAVING (sum(uses), sum(credits), sum(price), sum(cost), sum(previous)) <> (0, 0, 0, 0, 0)`,

	// No sums without a watermark, and no watermark of what has not been decided.
	`SELECT 'I9' AS invariant, n.user_id AS who, 'watermark' AS what, 'at most ' || coalesce(a.seq::text, 'no account')
	    AS expected, m.seq::text AS found
	FROM usage_rollups AS m LEFT JOIN usage_quotas AS a ON a.user_id = m.user_id
	LEFT JOIN (` + names + `) AS n ON n.id = m.user_id
	WHERE a.seq IS NULL OR m.seq > a.seq
	UNION ALL
	SELECT 'I9', n.user_id, 'watermark of rows', 'one', 'none'
	FROM usage_analytics AS u LEFT JOIN (` + names + `) AS n ON n.id = u.user_id
	WHERE NOT EXISTS (SELECT FROM usage_rollups AS m WHERE m.user_id = u.user_id)`,
}

// paidBy is what lots of a kind paid, of the column lots.
func paidBy(kind string) string {
	return `(SELECT coalesce(sum((l ->> 'credits')::bigint), 0) FROM jsonb_array_elements(lots) AS l
	    JOIN credit_lots AS k ON k.id = (l ->> 'lot')::uuid WHERE k.kind = '` + kind + `')`
}
