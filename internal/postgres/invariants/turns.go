// SPDX-License-Identifier: Apache-2.0

package invariants

// order (I7) holds the turns, by which those that wait below a team are served, against what they follow from. Each
// node is held against its children as they are stored, so that all of them together are right.
var order = []string{
	// A turn is one among the children of whoever the account is below.
	`SELECT 'I7' AS invariant, a.who, 'parent of the turn' AS what, coalesce(a.parent_id::text, 'none') AS expected,
	    coalesce(t.parent_id::text, 'none') AS found
	FROM (` + accounts + `) AS a JOIN queue_turns AS t ON t.account_id = a.user_id
	WHERE t.parent_id IS DISTINCT FROM a.parent_id`,

	`SELECT 'I7' AS invariant, NULL AS who, 'account of the turn of ' || account_id AS what, 'an account' AS expected,
	    'none' AS found
	FROM queue_turns WHERE account_id NOT IN (SELECT user_id FROM usage_quotas)`,

	// A user could run something if it waits for a slot and the user's own slots are not all taken.
	`SELECT 'I7' AS invariant, who, 'could run' AS what, could::text AS expected, stored::text AS found
	FROM (SELECT u.user_id AS who, coalesce(t.runnable, false) AS stored,
	        a.queued > a.parked AND a.active < coalesce(CASE WHEN 'concurrent' = ANY (a.unlimited_overrides) THEN NULL
	            WHEN a.concurrent_override IS NOT NULL THEN a.concurrent_override
	            WHEN coalesce(a1.plan_name, a2.plan_name, a3.plan_name) IS NULL
	                THEN least(p.concurrent_limit, ` + memberConcurrent + `)
	            ELSE ` + memberConcurrent + ` END, a.active + 1) AS could
	    FROM usage_quotas AS a JOIN users AS u ON u.id = a.user_id
	    LEFT JOIN user_plan_limits AS p ON p.name = a.plan_name
	    LEFT JOIN queue_turns AS t ON t.account_id = a.user_id
	    JOIN usage_quotas AS a1 ON a1.user_id = a.parent_id JOIN teams AS g1 ON g1.id = a1.user_id
	    LEFT JOIN usage_quotas AS a2 ON a2.user_id = a1.parent_id LEFT JOIN teams AS g2 ON g2.id = a2.user_id
	    LEFT JOIN usage_quotas AS a3 ON a3.user_id = a2.parent_id LEFT JOIN teams AS g3 ON g3.id = a3.user_id) AS c
	WHERE could <> stored`,

	// Something below a team could run if a child has such a thing, and the team has a slot.
	`SELECT 'I7' AS invariant, who, 'could run' AS what, could::text AS expected, stored::text AS found
	FROM (SELECT 'team ' || g.name AS who, coalesce(t.runnable, false) AS stored,
	        NOT a.suspended AND a.active < coalesce(least(g.concurrent_cap, p.concurrent_limit), a.active + 1)
	        AND EXISTS (SELECT FROM queue_turns AS c WHERE c.parent_id = g.id AND c.runnable) AS could
	    FROM teams AS g JOIN usage_quotas AS a ON a.user_id = g.id
	    LEFT JOIN user_plan_limits AS p ON p.name = a.plan_name
	    LEFT JOIN queue_turns AS t ON t.account_id = g.id) AS c
	WHERE could <> stored`,
}

// memberConcurrent is what the nearest of the teams above a user says of how many each member may run.
const memberConcurrent = `CASE WHEN 'concurrent' = ANY (g1.unlimited_members) THEN NULL
	    WHEN g1.member_concurrent IS NOT NULL THEN g1.member_concurrent
	    WHEN 'concurrent' = ANY (g2.unlimited_members) THEN NULL
	    WHEN g2.member_concurrent IS NOT NULL THEN g2.member_concurrent
	    WHEN 'concurrent' = ANY (g3.unlimited_members) THEN NULL ELSE g3.member_concurrent END`

// idle (I7) finds slots that are free below a top while something waits for them.
const idle = `SELECT 'I7' AS invariant, a.who, 'what could start' AS what, 'nothing, once all is quiet' AS expected,
	    'something waits while a slot is free' AS found
	FROM queue_turns AS t JOIN (` + accounts + `) AS a ON a.user_id = t.account_id
	WHERE t.parent_id IS NULL AND t.runnable`
