// SPDX-License-Identifier: Apache-2.0

package invariants

// replays go through each account's decisions in their order, and hold what each saw against what was the case.
var replays = []string{
	// I3: each enforced admission was within the limits that it saw.
	`SELECT 'I3' AS invariant, c.who, 'admission ' || c.id || ': ' || col AS what, '<= ' || most AS
	    expected, got::text AS found
	FROM (SELECT h.*, u.user_id AS who FROM (` + held + `) AS h LEFT JOIN (` + names + `) AS u ON u.id = h.account) AS c
	CROSS JOIN LATERAL (VALUES
	    ('estimate within the credits seen', c.seen_remaining, c.estimate),
	    ('slots seen', c.seen_concurrent::bigint, c.seen_active + 1::bigint)) AS v (col, most, got)
	WHERE c.enforced AND got > most`,

	replay,

	// I3: the account's number of decisions is not behind any of them.
	`SELECT 'I3' AS invariant, u.user_id AS who, 'decisions of the account' AS what, '>= ' || d.last AS expected,
	    a.seq::text AS found
	FROM usage_quotas AS a LEFT JOIN (` + names + `) AS u ON u.id = a.user_id
	JOIN (SELECT user_id, max(seq) AS last FROM (
	        SELECT user_id, arrived_seq AS seq FROM concurrent_processing
	        UNION ALL SELECT account, greatest(admitted_seq, ended_seq) FROM (` + held + `) AS h
	        UNION ALL SELECT account, seq FROM (` + booked + `) AS e) AS s GROUP BY user_id) AS d ON d.user_id =
	            a.user_id
	WHERE a.seq < d.last`,

	overdue,
	startedOverdue,
	overtakenByEqual,
	overtakenByLower,

	outOfTurn,
}

// replay (I3) rebuilds, for each admission and each account that it is booked on, what the account's row must have
// shown just before it: the slots taken over all periods, and the reserved and used credits of its own. An admission
// counts from its admitted_seq to its ended_seq, a charge from its seq; what was booked on a period before it closed
// and after is told apart by the period's number. Every change becomes a row with its number, so that running sums do
// it in n log n; of equal numbers admissions come first.
//
// The remaining credits and the slots allowed follow from these and from the limits in force. They are derived where it
// is certain which those were: for accounts whose settings never changed, on a plan that never changed. A plan changes
// beside the accounts' decisions, not in their order, so in the minute of a change rows do not tell which limits a
// decision read. The credits moreover only where there never was a lot: what a lot could pay at an instant is not kept,
// carry-overs grow and reservations of closed periods return to them. What is not derived is still held to be enough,
// above.
const replay = `SELECT 'I3' AS invariant, u.user_id AS who, 'admission ' || c.id || ': ' || col AS what, want::text AS
    expected, got::text AS found
	FROM (SELECT *,
	        sum(d_active) OVER (PARTITION BY account ORDER BY seq, id NULLS LAST
	            ROWS UNBOUNDED PRECEDING) - d_active AS active,
	        sum(d_reserved) OVER own - d_reserved AS reserved, sum(d_used) OVER own AS used
	    FROM (
	        SELECT id, account, period_no, admitted_seq AS seq, 1 AS d_active, estimate AS d_reserved, 0 AS d_used,
	            seen_active, seen_reserved, seen_used, seen_concurrent, seen_remaining
	        FROM (` + held + `) AS h
	        UNION ALL
	        SELECT NULL, account, period_no, ended_seq, -1, -estimate, 0, 0, 0, 0, 0, 0
	        FROM (` + held + `) AS h WHERE ended_seq IS NOT NULL
	        UNION ALL
	        SELECT NULL, account, no, seq, 0, 0, sign * credits, 0, 0, 0, 0, 0
	        FROM (` + booked + `) AS e) AS changes
	    WINDOW own AS (PARTITION BY account, period_no ORDER BY seq, id NULLS LAST ROWS UNBOUNDED PRECEDING)) AS c
	LEFT JOIN (` + names + `) AS u ON u.id = c.account
	LEFT JOIN (` + constantLimits + `) AS k ON k.user_id = c.account
	CROSS JOIN LATERAL (SELECT c.reserved + c.used AS taken) AS t
	CROSS JOIN LATERAL (VALUES
	    ('active seen', c.active::numeric, c.seen_active::numeric), ('reserved seen', c.reserved, c.seen_reserved),
	    ('used seen', c.used, c.seen_used),
	    ('slots allowed', CASE WHEN k.user_id IS NULL THEN c.seen_concurrent ELSE k.concurrent_limit END,
	        c.seen_concurrent),
	    ('remaining seen', CASE WHEN k.user_id IS NULL OR k.lots THEN c.seen_remaining
	        ELSE greatest(0, k.credits_limit - taken)
	            + greatest(0, k.overage_max - greatest(0, taken - k.credits_limit)) END,
	        c.seen_remaining)) AS v (col, want, got)
	WHERE c.id IS NOT NULL AND want IS DISTINCT FROM got`

// constantLimits are the accounts whose limits have been the same from the beginning: users that never had a team.
const constantLimits = `SELECT a.user_id, p.concurrent_limit, p.credits_limit, p.overage_max,
	    p.max_wait_seconds * 1000::bigint AS max_wait_ms,
	    EXISTS (SELECT FROM credit_lots AS l WHERE l.user_id = a.user_id) AS lots
	FROM usage_quotas AS a JOIN user_plan_limits AS p ON p.name = a.plan_name AND p.version = 1
	WHERE a.parent_id IS NULL AND a.user_id IN (SELECT id FROM users)
	    AND a.user_id NOT IN (SELECT user_id FROM concurrent_processing WHERE levels IS NOT NULL)
	    AND a.user_id NOT IN (SELECT user_id FROM usage_tracking WHERE levels IS NOT NULL)
	    AND NOT EXISTS (SELECT FROM audit_log AS t WHERE t.user_id = a.user_id
	        AND (t.action LIKE 'quota.%' OR t.action = 'account.changed'))`

// I3: what was refused because it had waited for too long had, by the bound that it saw, which is its plan's where that
// has always been the same; and nothing of such an account starts that has waited for longer.
const (
	overdue = `SELECT 'I3' AS invariant, u.user_id AS who,
	    'wait of admission ' || c.id || ' (' || c.state || ')' AS what,
	    'Cancelled after more than ' || coalesce(coalesce(k.max_wait_ms, c.max_wait_ms)::text, 'NULL')
	        || ' ms for a reason' AS expected,
	    coalesce(waited || ' of ' || c.max_wait_ms || ' ms for ' || c.waited_for, 'NULL') AS found
	FROM concurrent_processing AS c JOIN users AS u ON u.id = c.user_id
	LEFT JOIN (` + constantLimits + `) AS k ON k.user_id = c.user_id
	CROSS JOIN LATERAL (SELECT extract(epoch FROM c.ended_at - ` + since + `) * 1000 AS waited) AS w
	WHERE (c.reason = 'WaitedTooLong' OR c.max_wait_ms IS NOT NULL OR c.waited_for IS NOT NULL) AND NOT coalesce(
	    c.state = 'Cancelled' AND c.reason = 'WaitedTooLong' AND c.enforced AND c.waited_for <> ''
	    AND waited > c.max_wait_ms AND (k.user_id IS NULL OR c.max_wait_ms = k.max_wait_ms), false)`

	startedOverdue = `SELECT 'I3' AS invariant, u.user_id AS who, 'wait of admission ' || c.id AS what,
	    'at most ' || k.max_wait_ms || ' ms' AS expected, (c.admitted_at - ` + since + `)::text AS found
	FROM concurrent_processing AS c JOIN users AS u ON u.id = c.user_id
	JOIN (` + constantLimits + `) AS k ON k.user_id = c.user_id
	WHERE c.enforced AND c.admitted_at - ` + since + ` > k.max_wait_ms * interval '1 millisecond'`

	since = `coalesce(c.requeued_at, c.created_at)`
)

// I7: nobody was admitted before one that stood in front of it, unless that one was ever parked. Who stands in front,
// waits before and leaves the queue after. Among equals of priority it arrived earlier, so the latest leave of all that
// arrived earlier tells whether there is one. Above them it need only wait at that moment, so those who wait are
// counted, once for each priority of the user; a user without two priorities costs nothing. Who it was is looked up for
// the violations only.
const (
	overtakenByEqual = `SELECT 'I7' AS invariant, u.user_id AS who, ` + overtaker + ` AS what, ` + overtaken + `
	FROM (SELECT *, max(CASE WHEN NOT ever_parked
	    THEN ` + leaves + ` END) OVER (PARTITION BY user_id, priority ORDER BY arrived_seq
	            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS last_leave
	    FROM concurrent_processing) AS late
	JOIN users AS u ON u.id = late.user_id
	CROSS JOIN LATERAL (SELECT e.* FROM concurrent_processing AS e WHERE e.user_id = late.user_id AND e.priority =
	    late.priority
	    AND ` + stoodInFront + ` AND e.arrived_seq < late.arrived_seq LIMIT 1) AS early
	WHERE late.admitted_seq < late.last_leave AND late.enforced`

	overtakenByLower = `SELECT 'I7' AS invariant, u.user_id AS who, ` + overtaker + ` AS what, ` + overtaken + `
	FROM (SELECT id, user_id, priority, seq AS admitted_seq,
	        sum(d) OVER (PARTITION BY user_id, priority ORDER BY seq, id NULLS LAST ROWS UNBOUNDED PRECEDING) AS waiting
	    FROM (WITH priorities AS MATERIALIZED (SELECT DISTINCT user_id, priority FROM concurrent_processing)
	        SELECT id, user_id, priority, admitted_seq AS seq, 0 AS d FROM concurrent_processing
	        WHERE admitted_seq IS NOT NULL AND enforced
	        UNION ALL
	        SELECT NULL, e.user_id, p.priority, seq, d FROM concurrent_processing AS e
	        JOIN priorities AS p ON p.user_id = e.user_id AND p.priority < e.priority
	        CROSS JOIN LATERAL (VALUES (e.arrived_seq, 1), (coalesce(e.admitted_seq, e.ended_seq), -1)) AS v (seq, d)
	        WHERE NOT e.ever_parked AND seq IS NOT NULL AND e.arrived_seq IS DISTINCT FROM e.admitted_seq) AS moves)
	    AS late
	JOIN users AS u ON u.id = late.user_id
	CROSS JOIN LATERAL (SELECT e.* FROM concurrent_processing AS e WHERE e.user_id = late.user_id AND e.priority >
	    late.priority
	    AND ` + stoodInFront + ` LIMIT 1) AS early
	WHERE late.id IS NOT NULL AND late.waiting > 0`

	leaves       = `coalesce(admitted_seq, ended_seq, 9223372036854775807)`
	stoodInFront = `NOT e.ever_parked AND e.arrived_seq < late.admitted_seq
	    AND coalesce(e.admitted_seq, e.ended_seq, 9223372036854775807) > late.admitted_seq`
	overtaker = `'admission ' || late.id || ' (admitted as decision ' || late.admitted_seq || ')'`
	overtaken = `'after ' || early.id || ' of priority ' || early.priority
	    || ' that arrived as decision ' || early.arrived_seq AS expected,
	    coalesce('that was admitted as decision ' || early.admitted_seq, 'that is ' || early.state) AS found`
)
