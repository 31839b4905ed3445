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
