-- Alerts. The first two are statements of a batch, written with the charge that raises them.

-- name: InsertAlerts :exec
-- Each is raised once: whoever finds it again finds it here.
INSERT INTO usage_alerts (id, user_id, period_no, kind, threshold, subject, number, severity, used, limit_value, currency, plan_name,
    raised_at, seq, ends_at, expected_at)
SELECT unnest(@ids::uuid[]), unnest(@accounts::uuid[]), unnest(@periods::bigint[]), unnest(@kinds::text[]),
    unnest(@thresholds::integer[]), unnest(@subjects::text[]), unnest(@numbers::integer[]), unnest(@severities::text[]),
    unnest(@used::bigint[]), unnest(@limits::bigint[]), unnest(@currencies::text[]), unnest(@plan_names::text[]),
    unnest(@raised_at::timestamptz[]), unnest(@seqs::bigint[]), unnest(@ends_at::timestamptz[]),
    unnest(@expected_at::timestamptz[])
ON CONFLICT (user_id, period_no, kind, threshold, subject, number) DO NOTHING;

-- name: ResolveAlerts :exec
-- Of those that hold no longer, and with NULL of those that hold again.
UPDATE usage_alerts AS a SET resolved_at = v.at
FROM (SELECT unnest(@ids::uuid[]) AS id, unnest(@resolved_at::timestamptz[]) AS at) AS v
WHERE a.id = v.id;

-- name: RememberAlerts :exec
UPDATE usage_quotas AS a SET alerts = v.alerts
FROM (SELECT unnest(@ids::uuid[]) AS id, unnest(@alerts::text[]) AS alerts) AS v
WHERE a.user_id = v.id;

-- name: ListAlerts :many
-- The newest first, behind one. With what a closed period came to by now.
SELECT sqlc.embed(a), coalesce(u.user_id, '')::text AS external_id, coalesce(t.name, '')::text AS team,
    p.period_start, p.period_end, p.used AS period_used, p.plan_credits, p.cost_micros, p.charged_micros, p.currency AS period_currency
FROM usage_alerts AS a
LEFT JOIN users AS u ON u.id = a.user_id LEFT JOIN teams AS t ON t.id = a.user_id
LEFT JOIN usage_periods AS p ON a.kind = 'PeriodReset' AND p.user_id = a.user_id AND p.period_no = a.period_no
WHERE a.user_id = @account
  AND (a.raised_at, a.id) < (coalesce((SELECT b.raised_at FROM usage_alerts AS b WHERE b.id = @before::uuid), 'infinity'), @before::uuid)
  AND (NOT @unread::boolean OR a.acknowledged_at IS NULL)
ORDER BY a.raised_at DESC, a.id DESC LIMIT @most;

-- name: Alert :one
SELECT sqlc.embed(a), coalesce(u.user_id, '')::text AS external_id, coalesce(t.name, '')::text AS team,
    p.period_start, p.period_end, p.used AS period_used, p.plan_credits, p.cost_micros, p.charged_micros, p.currency AS period_currency
FROM usage_alerts AS a
LEFT JOIN users AS u ON u.id = a.user_id LEFT JOIN teams AS t ON t.id = a.user_id
LEFT JOIN usage_periods AS p ON a.kind = 'PeriodReset' AND p.user_id = a.user_id AND p.period_no = a.period_no
WHERE a.id = @id;

-- name: AcknowledgeAlert :exec
-- The first who does so stays.
UPDATE usage_alerts SET acknowledged_at = coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()), acknowledged_by = @by::text
WHERE id = @id AND acknowledged_at IS NULL;

-- name: DueGrants :many
-- Accounts with a grant that ends soon, has credits left, and was not told of.
SELECT DISTINCT l.user_id FROM credit_lots AS l
WHERE l.kind = 'grant' AND l.used < l.credits AND l.user_id > @after
  AND l.expires_at > coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())
  AND l.expires_at <= coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()) + @notice::interval
  AND NOT EXISTS (SELECT FROM usage_alerts AS a
    WHERE a.user_id = l.user_id AND a.kind = 'GrantExpiring' AND a.subject = l.name)
ORDER BY l.user_id LIMIT @most;

-- name: NewAlerts :many
-- What the accounts were told since then, the oldest first, that nobody has read and that holds still.
SELECT sqlc.embed(a), coalesce(u.user_id, '')::text AS external_id, coalesce(t.name, '')::text AS team,
    p.period_start, p.period_end, p.used AS period_used, p.plan_credits, p.cost_micros, p.charged_micros, p.currency AS period_currency
FROM usage_alerts AS a
LEFT JOIN users AS u ON u.id = a.user_id LEFT JOIN teams AS t ON t.id = a.user_id
LEFT JOIN usage_periods AS p ON a.kind = 'PeriodReset' AND p.user_id = a.user_id AND p.period_no = a.period_no
WHERE a.user_id = ANY (@accounts::uuid[]) AND a.raised_at > @since AND a.acknowledged_at IS NULL AND a.resolved_at IS NULL
ORDER BY a.raised_at, a.id;
