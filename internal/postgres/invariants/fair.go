// SPDX-License-Identifier: Apache-2.0

package invariants

// outOfTurn (I7) replays the order among the children of each team, as far as rows tell it: between two of its own
// starts, of weight wi, nobody that could have run throughout sees more than ceil(wj/wi) of a sibling, nor anybody who
// comes and does not wait. (docs/queue.md has the bound.)
//
// A window is what is between two starts of one child that follow each other in the team's order. The child could have
// run throughout if what starts at its end has waited since before its beginning and was never parked, and if the child
// and all that is between it and that user had a slot of their own left all the time: within a window they start
// nothing, so nothing of theirs runs that did not right after their last start. A limit is known by what the start saw,
// a weight as it is now. So a window counts only if nobody's settings changed from that work's arrival to its start,
// and weights only if they have not changed since. Plans change beside the accounts' decisions, so a minute around that
// counts as the change. What is exempt from limits is nobody's turn.
//
// Whether there is a window around some starts of a sibling is told by the latest end of all that have begun before the
// first of these, once for each weight below the team: n log n, as the other replays.
const outOfTurn = `SELECT 'I7' AS invariant, u.user_id AS who,
	    'start as decision ' || last || ' of ' || t.user_id AS what,
	    'at most ' || most || ' before decision ' || around || ', for which one of weight ' || weight
	        || ' has waited since before' AS expected,
	    CASE WHEN most = 0 THEN 'one that did not wait' ELSE most + 1 || ' since decision ' || seq END AS found
	FROM (WITH h AS (
	        SELECT *, coalesce(1 + lag(seen_active) OVER (PARTITION BY account ORDER BY seq) < seen_concurrent, true)
	            AS room
	        FROM (
	            SELECT c.*, user_id AS account, 0::bigint AS depth, admitted_seq AS seq FROM (` + started + `) AS c
	            WHERE user_id IN (SELECT user_id FROM concurrent_processing WHERE levels IS NOT NULL)
	            UNION ALL
	            SELECT c.id, c.user_id, c.enforced, c.waited, c.ever_parked, c.since, c.admitted_at, c.admitted_seq,
	                (l ->> 'seen_active')::integer, (l ->> 'seen_concurrent')::integer, c.levels,
	                (l ->> 'account')::uuid, depth, (l ->> 'admitted_seq')::bigint
	            FROM (` + started + `) AS c
	            CROSS JOIN LATERAL jsonb_array_elements(c.levels) WITH ORDINALITY AS e (l, depth)
	            WHERE c.levels IS NOT NULL) AS n),
	    steps AS (
	        SELECT *, lag(account) OVER way AS child, bool_and(room) OVER below AS could
	        FROM h WINDOW way AS (PARTITION BY id ORDER BY depth),
	            below AS (PARTITION BY id ORDER BY depth ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)),
	    changed AS (SELECT account, plan, team, max(until) AS until FROM (` + changes + `) AS c GROUP BY 1, 2, 3),
	    weights AS (
	        SELECT a.user_id AS child, coalesce(p.weight, 1) AS weight,
	            greatest(s.until, v.until, '-infinity') AS since
	        FROM usage_quotas AS a LEFT JOIN user_plan_limits AS p ON p.name = a.plan_name
	        LEFT JOIN changed AS s ON s.account = a.user_id LEFT JOIN changed AS v ON v.plan = a.plan_name
	        WHERE a.user_id IN (SELECT id FROM users)
	        UNION ALL
	        SELECT g.id, g.weight, coalesce(s.until, '-infinity')
	        FROM teams AS g LEFT JOIN changed AS s ON s.team = g.name),
	    turns AS (
	        SELECT s.account AS node, s.child, s.seq, s.admitted_at, s.since, s.enforced, s.waited, w.weight,
	            w.since < s.admitted_at AS known,
	            count(*) FILTER (WHERE s.enforced AND s.waited) OVER own AS n,
	            lag(s.seq) OVER own AS before,
	            s.enforced AND s.waited AND s.could AND NOT s.ever_parked AND s.since < lag(s.admitted_at) OVER own
	                AND lag(s.enforced AND s.waited) OVER own AND w.since < lag(s.admitted_at) OVER own AS could
	        FROM steps AS s JOIN weights AS w ON w.child = s.child WHERE s.depth > 0
	        WINDOW own AS (PARTITION BY s.account, s.child ORDER BY s.seq)),
	    windows AS (
	        SELECT node, weight, before AS seq, seq AS around
	        FROM (SELECT t.*, max(until) OVER (ORDER BY at, node NULLS FIRST, seq ROWS UNBOUNDED PRECEDING) AS changed
	            FROM (SELECT node, weight, before, seq, since, admitted_at AS at, NULL::timestamptz AS until
	                FROM turns WHERE could
	                UNION ALL
	                SELECT c.node, c.weight, c.before, c.seq, c.since, at, until
	                FROM (SELECT *, NULL::uuid AS node, NULL::integer AS weight, NULL::bigint AS before,
	                    NULL::bigint AS seq, NULL::timestamptz AS since FROM (` + changes + `) AS c) AS c) AS t) AS t
	        WHERE node IS NOT NULL AND (changed < since OR changed IS NULL)),
	    classes AS (SELECT DISTINCT node, weight FROM windows),
	    runs AS (
	        SELECT x.node, x.child, c.weight, x.seq, x.seq AS last, 0 AS most
	        FROM turns AS x JOIN classes AS c ON c.node = x.node WHERE x.enforced AND NOT x.waited
	        UNION ALL
	        SELECT x.node, x.child, x.other, x.seq, y.seq, x.most
	        FROM (SELECT t.*, c.weight AS other, (t.weight + c.weight - 1) / c.weight AS most
	            FROM turns AS t JOIN classes AS c ON c.node = t.node WHERE t.enforced AND t.waited AND t.known) AS x
	        JOIN turns AS y ON y.node = x.node AND y.child = x.child AND y.n = x.n + x.most
	        WHERE y.enforced AND y.waited)
	    SELECT * FROM (
	        SELECT node, child, weight, seq, last, most,
	            max(around) OVER (PARTITION BY node, weight ORDER BY seq, child NULLS LAST ROWS UNBOUNDED PRECEDING)
	                AS around
	        FROM (SELECT node, weight, seq, around, NULL::uuid AS child, NULL::bigint AS last, NULL::integer AS most
	            FROM windows
	            UNION ALL SELECT node, weight, seq, NULL, child, last, most FROM runs) AS r) AS r
	    WHERE child IS NOT NULL AND last < around) AS r
	LEFT JOIN (` + names + `) AS u ON u.id = r.child LEFT JOIN (` + names + `) AS t ON t.id = r.node`

// started are the admissions that were admitted, and whether and since when they had waited.
const started = `SELECT id, user_id, enforced, arrived_seq <> admitted_seq AS waited, ever_parked,
	    coalesce(requeued_at, created_at) AS since, admitted_at, admitted_seq, seen_active, seen_concurrent, levels
	FROM concurrent_processing WHERE admitted_at IS NOT NULL`

// changes are the times at which somebody's settings may have changed, whose they were, and until when they may have
// been read as they were before.
const changes = `SELECT CASE WHEN object_kind = 'UsagePlan' THEN at - interval '1 minute' ELSE at END AS at,
	    CASE WHEN object_kind = 'UsagePlan' THEN at + interval '1 minute' ELSE at END AS until,
	    CASE WHEN object_kind NOT IN ('UsagePlan', 'UsageTeam') THEN user_id END AS account,
	    CASE WHEN object_kind = 'UsagePlan' THEN object_name END AS plan,
	    CASE WHEN object_kind = 'UsageTeam' THEN object_name END AS team
	FROM audit_log
	WHERE object_kind IN ('UsagePlan', 'UsageTeam') OR action LIKE 'quota.%' OR action LIKE 'member.%'
	    OR action = 'account.changed'`
