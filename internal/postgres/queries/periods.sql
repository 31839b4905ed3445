-- Closed periods and the runs of the reset.

-- name: PeriodsBefore :many
SELECT p.* FROM users AS u JOIN usage_periods AS p ON p.user_id = u.id
WHERE u.user_id = @user_id AND p.period_no < @before
ORDER BY p.period_no DESC LIMIT @most;

-- name: DueAccounts :one
-- Accounts whose open period ended at or before an instant, and when the first of these periods did. Both are answered from
-- the index on (plan_name, period_end).
SELECT count(*)::bigint AS accounts, coalesce(min(period_end), @until)::timestamptz AS oldest
FROM usage_quotas WHERE plan_name = @plan AND period_end <= @until;

-- name: SaveResetRun :exec
-- Within a run the counts only grow; a run that was taken for lost and is not comes back to life.
INSERT INTO reset_runs (id, plan_name, actor, state, started_at, updated_at, finished_at, accounts, periods, failures, message)
VALUES (@id, @plan_name, @actor, @state, clock_timestamp(), clock_timestamp(),
    CASE WHEN @state = 'Running' THEN NULL ELSE clock_timestamp() END, @accounts, @periods, @failures, @message)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at, finished_at = excluded.finished_at,
    accounts = excluded.accounts, periods = excluded.periods, failures = excluded.failures, message = excluded.message;

-- name: LoseResetRuns :exec
-- A run writes its row every few seconds: one that has not for so long was killed.
UPDATE reset_runs SET state = 'Lost', finished_at = clock_timestamp(), message = 'the run ended without a word'
WHERE plan_name = @plan_name AND state = 'Running' AND updated_at < clock_timestamp() - make_interval(secs => @silent_seconds);

-- name: PruneResetRuns :exec
DELETE FROM reset_runs WHERE plan_name = @plan_name AND started_at < clock_timestamp() - make_interval(days => @days);

-- name: LastResetRun :one
SELECT * FROM reset_runs WHERE plan_name = @plan_name ORDER BY started_at DESC LIMIT 1;

-- name: LastResetSuccess :one
SELECT finished_at::timestamptz FROM reset_runs WHERE plan_name = @plan_name AND state = 'Succeeded' ORDER BY started_at DESC LIMIT 1;

-- name: ListResets :many
-- Accounts by the end of their open period, behind one and up to an instant, or with overdue to one of each plan: of all plans or one, of
-- a team's members, or one account. Nobody is read who is not on the page, but for a team's members.
WITH plans AS (
    SELECT p.name, CASE WHEN @overdue::boolean THEN l.until ELSE @until::timestamptz END AS until
    FROM user_plan_limits AS p
    LEFT JOIN (SELECT unnest(@plans::text[]) AS name, unnest(@overdue_by::timestamptz[]) AS until) AS l ON l.name = p.name
    WHERE @plan::text = '' OR p.name = @plan)
SELECT a.user_id AS account, coalesce(u.user_id, o.name, '')::text AS name, (o.id IS NOT NULL)::boolean AS is_team, a.plan_name::text AS plan_name,
    coalesce(t.name, '')::text AS team, a.period_no, a.period_start, a.period_end, a.used
FROM (
    (SELECT e.user_id FROM plans AS p CROSS JOIN LATERAL (
        SELECT q.user_id, q.period_end FROM usage_quotas AS q
        WHERE q.plan_name = p.name AND (q.period_end, q.user_id) > (@after_end::timestamptz, @after::uuid) AND q.period_end <= p.until
        ORDER BY q.period_end, q.user_id LIMIT @most) AS e
    WHERE @scope::text = 'all'
    ORDER BY e.period_end, e.user_id LIMIT @most)
    UNION ALL
    SELECT m.user_id FROM usage_quotas AS m WHERE @scope = 'team' AND m.member_of = @account::uuid
    UNION ALL
    SELECT i.user_id FROM usage_quotas AS i WHERE @scope = 'account' AND i.user_id = @account
) AS found JOIN usage_quotas AS a ON a.user_id = found.user_id JOIN plans AS n ON n.name = a.plan_name
LEFT JOIN users AS u ON u.id = a.user_id LEFT JOIN teams AS o ON o.id = a.user_id LEFT JOIN teams AS t ON t.id = a.member_of
WHERE (a.period_end, a.user_id) > (@after_end, @after) AND a.period_end <= n.until
ORDER BY a.period_end, a.user_id LIMIT @most;

-- name: ListResetRuns :many
-- The last first, before one, of all plans or one. There are a few thousand: they are kept for 400 days.
SELECT * FROM reset_runs WHERE (@plan::text = '' OR plan_name = @plan) AND (started_at, id) < (@before_start::timestamptz, @before::uuid)
ORDER BY started_at DESC, id DESC LIMIT @most;
