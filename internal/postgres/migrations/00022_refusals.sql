-- +goose Up

-- What was refused, which no event tells: counted by whoever refused it and added here every few seconds, so what a process has
-- counted when it is killed is lost.
CREATE TABLE IF NOT EXISTS usage_refusals (
    user_id   uuid NOT NULL,
    -- The hour of UTC.
    at        timestamptz NOT NULL,
    reason    text NOT NULL,
    -- Of whoever pays, and the cheapest one that would not have refused it; empty: none would.
    plan_name text NOT NULL,
    served_by text NOT NULL,
    refusals  bigint NOT NULL CHECK (refusals > 0),
    -- What was asked for, in 1/60000 credit.
    credits   numeric NOT NULL,
    PRIMARY KEY (user_id, at, reason, plan_name, served_by)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS usage_refusals_at_idx ON usage_refusals (at);

-- The same sums of all users together, by the day of UTC and what they were booked under, made anew from usage_analytics for whole
-- days. users are those who have a row of it.
CREATE TABLE IF NOT EXISTS usage_totals (
    day           date NOT NULL,
    plan_name     text NOT NULL,
    usage_type    text NOT NULL,
    currency      text NOT NULL,
    cost_currency text NOT NULL,
    users         bigint NOT NULL,
    events        bigint NOT NULL,
    reversals     bigint NOT NULL,
    credits       bigint NOT NULL,
    refunded      bigint NOT NULL,
    plan_credits  bigint NOT NULL,
    overage       bigint NOT NULL,
    grant_credits bigint NOT NULL,
    carry_over    bigint NOT NULL,
    price_micros  bigint NOT NULL,
    cost_micros   bigint NOT NULL,
    audio_ms      bigint NOT NULL,
    bytes         bigint NOT NULL,
    tokens        bigint NOT NULL,
    quantity      bigint NOT NULL,
    admissions    bigint NOT NULL,
    uncharged     bigint NOT NULL,
    waited_ms     bigint NOT NULL,
    running_ms    bigint NOT NULL,
    PRIMARY KEY (day, plan_name, usage_type, currency, cost_currency)
);

-- Days whose totals are older than the rows of users: a rollup adds its own, with the rows, and whoever makes a day's total anew takes
-- those away that it has seen. Without a key, so that nobody waits for anybody here.
CREATE TABLE IF NOT EXISTS usage_totals_stale (day date NOT NULL);
INSERT INTO usage_totals_stale (day) SELECT DISTINCT (at AT TIME ZONE 'UTC')::date FROM usage_analytics;

-- +goose StatementBegin
-- What a user's open period and at most months_back periods before it come to, for consumers of SQL: the same figures as
-- GET /api/v1/usage/stats, as of the last rollup (as_of; NULL: there was none). used_units are credits in 1/60000, amounts the money in
-- micro-units, by currency.
CREATE OR REPLACE FUNCTION calculate_usage_stats(user_uuid uuid, months_back integer DEFAULT 12)
    RETURNS TABLE (periods bigint, events bigint, reversals bigint, used_credits numeric, used_units bigint, audio_seconds numeric,
        amounts jsonb, as_of timestamptz)
    LANGUAGE sql STABLE AS $$
    WITH sums AS (
        SELECT s.* FROM usage_quotas AS a JOIN usage_analytics AS s ON s.user_id = a.user_id
        WHERE a.user_id = user_uuid AND s.period_no BETWEEN a.period_no - months_back AND a.period_no)
    SELECT least(months_back, (SELECT count(*) FROM usage_periods AS p WHERE p.user_id = user_uuid)) + 1,
        coalesce(sum(s.events), 0)::bigint, coalesce(sum(s.reversals), 0)::bigint, round(coalesce(sum(s.credits), 0) / 60000, 3),
        coalesce(sum(s.credits), 0)::bigint, round(coalesce(sum(s.audio_ms), 0) / 1000, 3),
        coalesce((SELECT jsonb_object_agg(m.currency, jsonb_build_object('cost_micros', m.cost, 'price_micros', m.price)) FROM (
            SELECT c.currency, sum(c.cost) AS cost, sum(c.price) AS price FROM (
                SELECT t.cost_currency AS currency, t.cost_micros AS cost, 0 AS price FROM sums AS t WHERE t.cost_micros <> 0
                UNION ALL SELECT t.currency, 0, t.price_micros FROM sums AS t WHERE t.price_micros <> 0) AS c
            GROUP BY c.currency) AS m), '{}'),
        (SELECT r.as_of FROM usage_rollups AS r WHERE r.user_id = user_uuid)
    FROM sums AS s
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION calculate_usage_stats(uuid, integer);
DROP TABLE usage_totals_stale, usage_totals, usage_refusals;
