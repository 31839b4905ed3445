// SPDX-License-Identifier: Apache-2.0

package invariants

// alerts (I11) hold what accounts are told of against what they remember of it, and that against their balance.
var alerts = []string{
	// What an account remembers has a row that says the same.
	`SELECT 'I11' AS invariant, u.user_id AS who, ` + alertName + ` AS what, 'one that is ' || r.state AS expected,
	    CASE WHEN a.id IS NULL THEN 'none' WHEN a.resolved_at IS NULL THEN 'open' ELSE 'resolved' END AS found
	FROM (` + remembered + `) AS r
	LEFT JOIN usage_alerts AS a ON ` + sameAlert + `
	LEFT JOIN (` + names + `) AS u ON u.id = r.user_id
	WHERE a.id IS NULL OR (r.state = 'open') <> (a.resolved_at IS NULL)`,

	// What is not resolved, and was not over when the account was last decided about, is remembered as open.
	`SELECT 'I11' AS invariant, u.user_id AS who, ` + alertName + ` AS what, 'remembered as open' AS expected,
	    coalesce(m.state, 'nothing') AS found
	FROM usage_alerts AS r JOIN usage_quotas AS q ON q.user_id = r.user_id
	LEFT JOIN (` + remembered + `) AS m ON m.user_id = r.user_id AND m.period_no = r.period_no AND m.kind = r.kind
	    AND m.threshold = r.threshold AND m.subject = r.subject AND m.number = r.number
	LEFT JOIN (` + names + `) AS u ON u.id = r.user_id
	WHERE r.resolved_at IS NULL AND r.kind <> 'PeriodReset' AND r.ends_at > q.last_decided_at
	    AND m.state IS DISTINCT FROM 'open'`,

	// One that was re-armed had been resolved before.
	`SELECT 'I11' AS invariant, u.user_id AS who, ` + alertName + ` AS what, 'the one before resolved' AS expected,
	    CASE WHEN a.id IS NULL THEN 'none' ELSE 'open' END AS found
	FROM usage_alerts AS r
	LEFT JOIN usage_alerts AS a ON a.number = r.number - 1 AND a.user_id = r.user_id AND a.period_no = r.period_no
	    AND a.kind = r.kind AND a.threshold = r.threshold AND a.subject = r.subject
	LEFT JOIN (` + names + `) AS u ON u.id = r.user_id
	WHERE r.number > 0 AND a.resolved_at IS NULL`,

	// Each is an account's, and a reset's arrival is that of a period.
	`SELECT 'I11' AS invariant, u.user_id AS who, ` + alertName + ` AS what, 'an account, and its period' AS expected,
	    'none' AS found
	FROM usage_alerts AS r LEFT JOIN usage_quotas AS q ON q.user_id = r.user_id
	LEFT JOIN usage_periods AS p ON p.user_id = r.user_id AND p.period_no = r.period_no
	LEFT JOIN (` + names + `) AS u ON u.id = r.user_id
	WHERE q.user_id IS NULL OR r.kind = 'PeriodReset' AND p.user_id IS NULL`,

	// Of an account that pays, or is a team with a cap, what is open is what its balance says.
	`SELECT 'I11' AS invariant, u.user_id AS who, 'alert ' || kind || ' ' || threshold || ' of period ' || r.period_no
	        AS what,
	    CASE WHEN sum(want) > 0 THEN 'open' ELSE 'not open' END AS expected,
	    CASE WHEN sum(got) > 0 THEN 'open' ELSE 'not open' END AS found
	FROM (SELECT user_id, period_no, kind, threshold, 1 AS want, 0 AS got FROM (` + crossed + `) AS c
	    UNION ALL
	    SELECT m.user_id, m.period_no, m.kind, m.threshold, 0, 1
	    FROM (` + remembered + `) AS m JOIN (` + told + `) AS t ON t.user_id = m.user_id
	    WHERE m.state = 'open' AND (m.kind IN ('CreditsPercent', 'Overdrawn') AND t.pays
	        OR m.kind = 'TeamShare' AND t.team)) AS r
	LEFT JOIN (` + names + `) AS u ON u.id = r.user_id
	GROUP BY u.user_id, r.user_id, r.period_no, kind, threshold HAVING sum(want) <> sum(got)`,
}

const (
	alertName = `'alert ' || r.kind || ' ' || r.threshold || ' ' || r.subject || ' of period ' || r.period_no || ', '
	    || r.number`
	sameAlert = `a.user_id = r.user_id AND a.period_no = r.period_no AND a.kind = r.kind AND a.threshold = r.threshold
	    AND a.subject = r.subject AND a.number = r.number`

	// remembered are the alerts that accounts remember, see quota.Raised.
	remembered = `SELECT a.user_id, f[1] AS kind, f[2]::integer AS threshold, f[3] AS subject,
	    f[4]::bigint AS period_no, f[5]::integer AS number, f[6] AS state
	FROM usage_quotas AS a
	CROSS JOIN LATERAL (SELECT string_to_array(line, '|') AS f
	    FROM unnest(string_to_array(a.alerts, E'\n')) AS line WHERE line <> '') AS e
	WHERE a.alerts <> ''`

	// told are the accounts of which the rows tell what they have to be told: those that nobody above could pay for,
	// and teams. The plan must be the one that their last batch has seen.
	told = `SELECT a.*, a.plan_name IS NOT NULL AS pays, g.id IS NOT NULL AS team, g.credits_cap, p.credits_limit,
	    p.overage_max, p.alert_thresholds
	FROM usage_quotas AS a LEFT JOIN user_plan_limits AS p ON p.name = a.plan_name
	LEFT JOIN teams AS g ON g.id = a.user_id
	WHERE a.alerts IS NOT NULL
	  AND (p.name IS NULL OR p.version = 1 OR p.updated_at < a.last_decided_at - interval '1 minute')
	  AND (g.id IS NOT NULL OR a.member_of IS NULL AND a.parent_id IS NULL
	      AND NOT EXISTS (SELECT FROM teams WHERE active_root))`

	// crossed is what has to be open of these by their balances.
	crossed = `SELECT user_id, period_no, kind, threshold
	FROM (SELECT t.user_id, t.period_no, t.used, t.pays, t.team, t.alert_thresholds, t.credits_cap,
	        CASE WHEN t.credits_override IS NOT NULL THEN t.credits_override
	            WHEN 'credits' = ANY (t.unlimited_overrides) THEN NULL ELSE t.credits_limit END
	        + t.overage_max + (t.used - t.plan_used) + (t.reserved - t.plan_reserved)
	        + (SELECT coalesce(sum(greatest(0, l.credits - l.used - l.reserved)), 0)::bigint FROM credit_lots AS l
	            WHERE l.user_id = t.user_id AND (l.expires_at IS NULL OR l.expires_at > t.last_decided_at)) AS allowance
	    FROM (` + told + `) AS t) AS b
	CROSS JOIN LATERAL (
	    SELECT 'CreditsPercent' AS kind, n AS threshold FROM unnest(alert_thresholds) AS n
	    WHERE pays AND allowance > 0 AND used >= allowance / 100 * n + allowance % 100 * n / 100
	    UNION ALL
	    SELECT 'Overdrawn', 0 WHERE pays AND used > allowance
	    UNION ALL
	    SELECT 'TeamShare', n FROM unnest(coalesce(alert_thresholds, '{80,100}')) AS n
	    WHERE team AND credits_cap > 0 AND used >= credits_cap / 100 * n + credits_cap % 100 * n / 100) AS c`
)
