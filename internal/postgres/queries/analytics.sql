-- Sums of what users have used, for whoever asks, also from a standby: its now is the moment up to which it has everything. Only the asked days of one user are read.

-- name: RollupOf :one
-- How far a user's sums are, by which zone, and since when there can be any. Of who has decided nothing since they were made, or ever,
-- they have all until now.
SELECT a.user_id, coalesce(r.time_zone, a.time_zone)::text AS time_zone, u.created_at,
    coalesce((SELECT min(s.day) FROM usage_analytics AS s WHERE s.user_id = a.user_id AND s.events > 0), '9999-12-31')::date AS first_day,
    (r.user_id IS NOT NULL OR a.seq = 0)::boolean AS known, coalesce(r.listed_seq = r.seq, a.seq = 0)::boolean AS listed,
    CASE WHEN coalesce(r.seq, 0) = a.seq OR r.user_id IS NULL THEN c.now ELSE r.as_of END::timestamptz AS as_of, c.now::timestamptz AS now
FROM users AS u JOIN usage_quotas AS a ON a.user_id = u.id LEFT JOIN usage_rollups AS r ON r.user_id = a.user_id
CROSS JOIN (SELECT coalesce(sqlc.narg('now')::timestamptz,
    CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_xact_replay_timestamp(), now()) ELSE now() END) AS now) AS c
WHERE u.user_id = @user_id;

-- name: SumsByDay :many
SELECT s.day, s.usage_type, s.currency, s.cost_currency,
    sum(s.events)::bigint AS events, sum(s.reversals)::bigint AS reversals, sum(s.credits)::bigint AS credits,
    sum(s.refunded)::bigint AS refunded, sum(s.plan_credits)::bigint AS plan_credits, sum(s.overage)::bigint AS overage,
    sum(s.grant_credits)::bigint AS grant_credits, sum(s.carry_over)::bigint AS carry_over,
    sum(s.price_micros)::bigint AS price_micros, sum(s.cost_micros)::bigint AS cost_micros, sum(s.audio_ms)::bigint AS audio_ms,
    sum(s.bytes)::bigint AS bytes, sum(s.tokens)::bigint AS tokens, sum(s.quantity)::bigint AS quantity,
    sum(s.admissions)::bigint AS admissions, sum(s.uncharged)::bigint AS uncharged, sum(s.waited_ms)::bigint AS waited_ms,
    sum(s.running_ms)::bigint AS running_ms
FROM usage_analytics AS s
WHERE s.user_id = @account AND s.day >= @from_day::date AND s.day < @to_day::date
GROUP BY s.day, s.usage_type, s.currency, s.cost_currency
ORDER BY s.day, s.usage_type, s.currency, s.cost_currency;

-- name: SumsPaid :many
-- What others than the payer itself used that it pays for, by days of UTC.
SELECT s.day, s.usage_type, s.currency, s.cost_currency,
    sum(s.events)::bigint AS events, sum(s.reversals)::bigint AS reversals, sum(s.credits)::bigint AS credits,
    sum(s.refunded)::bigint AS refunded, sum(s.plan_credits)::bigint AS plan_credits, sum(s.overage)::bigint AS overage,
    sum(s.grant_credits)::bigint AS grant_credits, sum(s.carry_over)::bigint AS carry_over,
    sum(s.price_micros)::bigint AS price_micros, sum(s.cost_micros)::bigint AS cost_micros, sum(s.audio_ms)::bigint AS audio_ms,
    sum(s.bytes)::bigint AS bytes, sum(s.tokens)::bigint AS tokens, sum(s.quantity)::bigint AS quantity,
    sum(s.admissions)::bigint AS admissions, sum(s.uncharged)::bigint AS uncharged, sum(s.waited_ms)::bigint AS waited_ms,
    sum(s.running_ms)::bigint AS running_ms
FROM usage_payer_totals AS s
WHERE s.team_id = @payer AND s.day >= @from_day::date AND s.day < @to_day::date
GROUP BY s.day, s.usage_type, s.currency, s.cost_currency
ORDER BY s.day, s.usage_type, s.currency, s.cost_currency;

-- name: LargestWork :many
-- The largest of all that a user used on some days, whoever paid. What an admission's Job is called is in the admission.
SELECT ''::text AS external_id, v.user_id, v.plan_name, v.usage_type, v.currency, v.cost_currency, v.id, v.at, v.credits, v.audio_ms,
    v.price_micros, v.cost_micros, coalesce(c.source, '')::text AS source, coalesce(c.namespace, '')::text AS namespace,
    coalesce(c.name, '')::text AS name
FROM (SELECT s.user_id, s.plan_name, s.usage_type, s.currency, s.cost_currency, w.id::uuid AS id, w.at::timestamptz AS at,
        w.credits::bigint AS credits, w.audio_ms::bigint AS audio_ms, w.price_micros::bigint AS price_micros,
        w.cost_micros::bigint AS cost_micros
    FROM usage_analytics AS s CROSS JOIN unnest(s.largest) AS w
    WHERE s.user_id = @account AND s.day >= @from_day::date AND s.day < @to_day::date
    ORDER BY w.credits DESC, w.at, w.id LIMIT @most) AS v
LEFT JOIN concurrent_processing AS c ON c.id = v.id AND c.user_id = @account
ORDER BY v.credits DESC, v.at, v.id;

-- name: LargestPaid :many
-- The largest of all that a team paid for on some days of UTC.
SELECT coalesce(u.user_id, '')::text AS external_id, v.user_id, v.plan_name, v.usage_type, v.currency, v.cost_currency, v.id, v.at, v.credits,
    v.audio_ms, v.price_micros, v.cost_micros, coalesce(c.source, '')::text AS source, coalesce(c.namespace, '')::text AS namespace,
    coalesce(c.name, '')::text AS name
FROM (SELECT s.* FROM usage_payer_largest AS s
    WHERE s.team_id = @payer AND s.day >= @from_day::date AND s.day < @to_day::date
    ORDER BY s.credits DESC, s.at, s.id LIMIT @most) AS v
LEFT JOIN users AS u ON u.id = v.user_id LEFT JOIN concurrent_processing AS c ON c.id = v.id AND c.user_id = v.user_id
ORDER BY v.credits DESC, v.at, v.id;

-- name: SumsByHour :many
-- By the day of the week, 1 for Monday, and the hour, both of the user's clock.
SELECT extract(isodow FROM s.day)::integer AS weekday, extract(hour FROM s.at AT TIME ZONE @zone::text)::integer AS hour,
    sum(s.events)::bigint AS events, sum(s.credits)::bigint AS credits
FROM usage_analytics AS s
WHERE s.user_id = @account AND s.day >= @from_day::date AND s.day < @to_day::date AND s.events > 0
GROUP BY 1, 2 ORDER BY 1, 2;

-- name: RefusalsOf :many
-- Of hours that begin within a span of time.
SELECT r.reason, sum(r.refusals)::bigint AS refusals, least(sum(r.credits), 9223372036854775807)::bigint AS credits
FROM usage_refusals AS r
WHERE r.user_id = @account AND r.at >= @since::timestamptz AND r.at < @until::timestamptz
GROUP BY r.reason ORDER BY r.reason;

-- name: TotalsRollup :one
-- How far the sums of all users are, and the first day of any; none before the first rollup that has seen everybody.
SELECT c.as_of, c.listed, coalesce((SELECT min(t.day) FROM usage_totals AS t), (c.as_of AT TIME ZONE 'UTC')::date)::date AS first_day,
    coalesce(sqlc.narg('now')::timestamptz, CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_xact_replay_timestamp(), now()) ELSE now() END)::timestamptz AS now
FROM usage_rollups_complete AS c;

-- name: Totals :many
-- Of a plan, or of all if that is empty.
SELECT * FROM usage_totals WHERE day >= @from_day::date AND day < @to_day::date AND (@plan::text = '' OR plan_name = @plan::text)
ORDER BY day, plan_name, usage_type, currency, cost_currency;

-- name: AllRefusals :many
-- Of days of UTC, of all users. Whoever was refused something on two of them is in user_days twice.
SELECT t.plan_name, t.reason, t.served_by, sum(t.refusals)::bigint AS refusals, sum(t.users)::bigint AS user_days,
    max(t.users)::bigint AS peak_users, least(sum(t.credits), 9223372036854775807)::bigint AS credits
FROM usage_refusal_totals AS t WHERE t.day >= @from_day::date AND t.day < @to_day::date
GROUP BY t.plan_name, t.reason, t.served_by ORDER BY t.plan_name, t.reason, t.served_by;

-- name: WaitsByHour :many
-- Of the admissions that were charged on days of a zone, by the clock of that: those of an account, and everybody's on a plan. Both by
-- hours of UTC, so that they are of the same times where the zone is half an hour off.
SELECT v.own::boolean AS own, (v.at AT TIME ZONE @zone::text)::date AS day, extract(hour FROM v.at AT TIME ZONE @zone)::integer AS hour,
    sum(v.admissions)::bigint AS admissions, sum(v.admissions - v.waited_1m)::bigint AS waited
FROM (
    SELECT true AS own, date_trunc('hour', u.at, 'UTC') AS at, u.admissions, u.waited_1m FROM usage_analytics AS u
    WHERE u.user_id = @account AND u.day >= @from_day::date AND u.day <= @to_day::date AND u.admissions > 0
    UNION ALL
    SELECT false, w.at, w.admissions, w.waited_1m FROM usage_waits AS w WHERE w.plan_name = @plan) AS v
WHERE (v.at AT TIME ZONE @zone)::date >= @from_day AND (v.at AT TIME ZONE @zone)::date < @to_day
GROUP BY 1, 2, 3;
