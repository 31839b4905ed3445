-- name: LockPlan :one
SELECT * FROM user_plan_limits WHERE name = @name FOR UPDATE;

-- name: PlanOnOffer :one
-- The plan of that name, or the default one where the name is empty. A retired plan takes no new users.
SELECT * FROM user_plan_limits
WHERE NOT retired AND CASE WHEN @name::text = '' THEN is_default ELSE name = @name::text END;

-- name: InsertPlan :one
-- Two who create the same plan at once: the second finds nothing returned, and the row. The columns stand in the order of
-- UpdatePlan, so that Go converts the parameters of the one into those of the other.
INSERT INTO user_plan_limits (object_uid, home_cluster, display_name, is_default,
    rank, features, calendar_month,
    credits_limit, file_size_limit,
    audio_ms_limit, concurrent_limit,
    queued_limit, overage_max, overage_price_micros,
    carry_over_max, provider_cost_micros, currency,
    period_price_micros, daily_cost_ceiling_micros,
    rate_requests, rate_window_seconds, alert_thresholds,
    admit_when_unavailable, reset_schedule,
    reset_batch_size, usage_types, final_after_seconds,
    max_wait_seconds, weight,
    updated_at, name)
VALUES (sqlc.narg('object_uid'), sqlc.narg('home_cluster'), @display_name, @is_default,
    @rank, @features, @calendar_month,
    sqlc.narg('credits_limit'), sqlc.narg('file_size_limit'),
    sqlc.narg('audio_ms_limit'), sqlc.narg('concurrent_limit'),
    sqlc.narg('queued_limit'), @overage_max, @overage_price_micros,
    @carry_over_max, @provider_cost_micros, @currency,
    @period_price_micros, sqlc.narg('daily_cost_ceiling_micros'),
    @rate_requests, @rate_window_seconds, @alert_thresholds,
    @admit_when_unavailable, @reset_schedule,
    @reset_batch_size, @usage_types, @final_after_seconds,
    sqlc.narg('max_wait_seconds'), @weight,
    coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()), @name)
ON CONFLICT (name) DO NOTHING
RETURNING *;

-- name: UpdatePlan :one
UPDATE user_plan_limits SET
    object_uid = sqlc.narg('object_uid'), home_cluster = sqlc.narg('home_cluster'), version = version + 1, display_name = @display_name, is_default = @is_default,
    retired = false, rank = @rank, features = @features, calendar_month = @calendar_month,
    credits_limit = sqlc.narg('credits_limit'), file_size_limit = sqlc.narg('file_size_limit'),
    audio_ms_limit = sqlc.narg('audio_ms_limit'), concurrent_limit = sqlc.narg('concurrent_limit'),
    queued_limit = sqlc.narg('queued_limit'), overage_max = @overage_max, overage_price_micros = @overage_price_micros,
    carry_over_max = @carry_over_max, provider_cost_micros = @provider_cost_micros, currency = @currency,
    period_price_micros = @period_price_micros, daily_cost_ceiling_micros = sqlc.narg('daily_cost_ceiling_micros'),
    rate_requests = @rate_requests, rate_window_seconds = @rate_window_seconds, alert_thresholds = @alert_thresholds,
    admit_when_unavailable = @admit_when_unavailable, reset_schedule = @reset_schedule,
    reset_batch_size = @reset_batch_size, usage_types = @usage_types, final_after_seconds = @final_after_seconds,
    max_wait_seconds = sqlc.narg('max_wait_seconds'), weight = @weight,
    updated_at = coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())
WHERE name = @name
RETURNING *;

-- name: RetirePlan :one
UPDATE user_plan_limits SET retired = true, version = version + 1,
    updated_at = coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())
WHERE name = @name AND NOT retired
RETURNING *;

-- name: PlanUsers :one
SELECT p.version, (SELECT count(*) FROM usage_quotas AS a WHERE a.plan_name = p.name)::bigint AS users,
    ARRAY(SELECT u.user_id FROM usage_quotas AS a JOIN users AS u ON u.id = a.user_id
          WHERE a.plan_name = p.name ORDER BY u.user_id LIMIT 10)::text[] AS first_users
FROM user_plan_limits AS p WHERE p.name = @name;

-- name: Clock :one
SELECT coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())::timestamptz;
