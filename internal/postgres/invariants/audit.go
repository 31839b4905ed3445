// SPDX-License-Identifier: Apache-2.0

package invariants

// audits (I8) hold what is neither an admission nor an event against the audit log, which must tell each change of it:
// who, when, what, before and after.
var audits = []string{
	// Each version of a plan has its row.
	`SELECT 'I8' AS invariant, NULL AS who, 'audit rows of plan ' || p.name AS what, p.version::text AS expected,
	    count(l.id)::text AS found
	FROM user_plan_limits AS p LEFT JOIN audit_log AS l ON l.object_kind = 'UsagePlan' AND l.object_name = p.name
	GROUP BY p.name, p.version HAVING count(l.id) <> p.version`,

	// What each row of a plan found is what the one before it left, and the last one left what is in force. Rows are
	// compared in what both tell: an older release knew fewer columns. (The log writes the object's UID in another
	// form.)
	`SELECT 'I8' AS invariant, NULL AS who, 'audit row ' || id || ' of plan ' || object_name || ', before: ' || key AS
	    what,
	    want AS expected, got AS found
	FROM (SELECT *, lag(after) OVER (PARTITION BY object_name ORDER BY id) AS was FROM audit_log WHERE object_kind =
	    'UsagePlan') AS l
	CROSS JOIN LATERAL (SELECT key, value AS want FROM jsonb_each_text(l.was)) AS w
	CROSS JOIN LATERAL (SELECT value AS got FROM jsonb_each_text(coalesce(l.before, l.was || '{"Name": null}')) AS b
	    WHERE b.key = w.key) AS g
	WHERE want IS DISTINCT FROM got
	UNION ALL
	SELECT 'I8', NULL, 'audit row ' || l.id || ' of plan ' || p.name || ', after: ' || col, want, got
	FROM user_plan_limits AS p
	JOIN (SELECT DISTINCT ON (object_name) * FROM audit_log WHERE object_kind = 'UsagePlan' ORDER BY object_name, id
	    DESC) AS l
	    ON l.object_name = p.name
	CROSS JOIN LATERAL (SELECT replace(key, '_', '') AS col, value AS want FROM jsonb_each_text(to_jsonb(p))) AS w
	CROSS JOIN LATERAL (SELECT value AS got FROM jsonb_each_text(l.after) WHERE lower(key) = w.col) AS g
	WHERE w.col NOT IN ('updatedat', 'objectuid') AND want IS DISTINCT FROM got`,

	// Accounts are registered once, and what each declaration found is what the one before it left.
	`SELECT 'I8' AS invariant, u.user_id AS who, 'audit row of the account''s registration' AS what, '1' AS expected,
	    count(l.id)::text AS found
	FROM usage_quotas AS a JOIN users AS u ON u.id = a.user_id
	LEFT JOIN audit_log AS l ON l.user_id = a.user_id AND l.action = 'account.registered'
	GROUP BY a.user_id, u.user_id HAVING count(l.id) <> 1`,

	`SELECT 'I8' AS invariant, u.user_id AS who, 'audit row ' || l.id || ' of the account''s settings, before: ' || col
	    AS what, want AS expected, got AS found
	FROM (SELECT *, lag(after) OVER (PARTITION BY user_id ORDER BY id) AS was FROM (` + settingsRows + `) AS s) AS l
	JOIN users AS u ON u.id = l.user_id
	CROSS JOIN LATERAL (VALUES ` + settingsPairs("l.was", "l.before") + `) AS v (col, want, got)
	WHERE l.was IS NOT NULL AND want IS DISTINCT FROM got`,

	// And the last one left what is in force.
	`SELECT 'I8' AS invariant, u.user_id AS who, 'audit row ' || l.id || ' of the account''s settings, after: ' || col
	    AS what, want AS expected, got AS found
	FROM usage_quotas AS a JOIN users AS u ON u.id = a.user_id
	JOIN (SELECT DISTINCT ON (user_id) * FROM
	    (` + settingsRows + `) AS s ORDER BY user_id, id DESC) AS l ON l.user_id = a.user_id
	CROSS JOIN LATERAL (SELECT jsonb_build_object('plan', a.plan_name, 'object', coalesce(a.quota_name, ''),
	    'suspended', a.suspended,
	    'anchor', a.anchor_at, 'time_zone', a.time_zone, 'overrides',
	        jsonb_build_object(` + overridesOfColumns + `)) AS settings) AS now
	CROSS JOIN LATERAL (VALUES ` + settingsPairs("now.settings", "l.after") + `) AS v (col, want, got)
	WHERE want IS DISTINCT FROM got`,

	`SELECT 'I8' AS invariant, u.user_id AS who, 'audit rows of closed periods' AS what, a.closed::text AS expected,
	    a.told::text AS found
	FROM (SELECT q.user_id, q.period_no AS open, coalesce(p.n, 0) AS closed, coalesce(l.n, 0) AS told
	    FROM usage_quotas AS q
	    LEFT JOIN (SELECT user_id, count(*) AS n FROM usage_periods GROUP BY user_id) AS p ON p.user_id = q.user_id
	    LEFT JOIN (SELECT user_id, count(*) AS n FROM audit_log WHERE action = 'period.closed' GROUP BY user_id) AS l
	        ON l.user_id = q.user_id) AS a
	JOIN users AS u ON u.id = a.user_id
	WHERE a.closed <> a.told OR a.closed <> a.open`,

	`SELECT 'I8' AS invariant, u.user_id AS who, 'audit row of grant ' || l.name AS what, '1' AS expected,
	    count(t.id)::text AS found
	FROM credit_lots AS l JOIN users AS u ON u.id = l.user_id
	LEFT JOIN audit_log AS t ON t.user_id = l.user_id AND t.action = 'grant.given' AND t.after ->> 'grant' = l.name
	WHERE l.kind = 'grant'
	GROUP BY l.id, u.user_id, l.name HAVING count(t.id) <> 1`,

	`SELECT 'I8' AS invariant, u.user_id AS who, 'audit row of event ' || e.id AS what, '1' AS expected,
	    count(t.id)::text AS found
	FROM usage_tracking AS e LEFT JOIN users AS u ON u.id = e.user_id
	LEFT JOIN audit_log AS t ON t.user_id = e.user_id AND t.object_kind = 'UsageEvent' AND t.object_name = e.id::text
	WHERE e.kind = 'reversal' OR e.reason <> ''
	GROUP BY e.id, u.user_id HAVING count(t.id) <> 1`,
}

// settingsRows are the audit rows that tell what an account's settings became. A registration says less than a change:
// what it leaves out has its zero value.
const settingsRows = `SELECT id, user_id, before,
	    CASE WHEN action = 'account.registered' THEN '{"object": "", "suspended": false}'::jsonb || after
	        ELSE after END AS after
	FROM audit_log WHERE action IN ('account.registered', 'quota.applied', 'quota.removed')`

// settingsPairs are rows of VALUES that compare two descriptions of an account's settings.
func settingsPairs(want, got string) string {
	text := func(key string) string {
		return `('` + key + `', ` + want + ` ->> '` + key + `', ` + got + ` ->> '` + key + `')`
	}
	overrides := func(row string) string {
		return `(SELECT coalesce(string_agg(key || '=' || value, ' ' ORDER BY key), '') FROM jsonb_each_text(
		    CASE jsonb_typeof(` + row + ` -> 'overrides') WHEN 'object' THEN ` + row + ` -> 'overrides' ELSE '{}' END)
		        WHERE value IS NOT NULL)`
	}
	return text("plan") + `, ` + text("object") + `, ` + text("suspended") + `, ` + text("time_zone") + `,
	    ('anchor', (` + want + ` ->> 'anchor')::timestamptz::text, (` + got + ` ->> 'anchor')::timestamptz::text),
	    ('overrides', ` + overrides(want) + `, ` + overrides(got) + `)`
}

// overridesOfColumns writes the overrides that are in force as the audit log does: a limit has its value or none.
const overridesOfColumns = `
	    'Credits', CASE WHEN 'credits' = ANY (a.unlimited_overrides) THEN jsonb_build_object('Max', 0, 'Unlimited',
	        true)
	        WHEN a.credits_override IS NOT NULL THEN jsonb_build_object('Max', a.credits_override, 'Unlimited', false)
	            END,
	    'FileSize', CASE WHEN 'file_size' = ANY (a.unlimited_overrides) THEN jsonb_build_object('Max', 0, 'Unlimited',
	        true)
	        WHEN a.file_size_override IS NOT NULL THEN jsonb_build_object('Max', a.file_size_override, 'Unlimited',
	            false) END,
	    'Audio', CASE WHEN 'audio' = ANY (a.unlimited_overrides) THEN jsonb_build_object('Max', 0, 'Unlimited', true)
	        WHEN a.audio_ms_override IS NOT NULL THEN jsonb_build_object('Max', a.audio_ms_override * 1000000,
	            'Unlimited', false) END,
	    'Concurrent', CASE WHEN 'concurrent' = ANY (a.unlimited_overrides) THEN jsonb_build_object('Max', 0,
	        'Unlimited', true)
	        WHEN a.concurrent_override IS NOT NULL THEN jsonb_build_object('Max', a.concurrent_override, 'Unlimited',
	            false) END,
	    'Queued', CASE WHEN 'queued' = ANY (a.unlimited_overrides) THEN jsonb_build_object('Max', 0, 'Unlimited', true)
	        WHEN a.queued_override IS NOT NULL THEN jsonb_build_object('Max', a.queued_override, 'Unlimited', false)
	            END`
