-- +goose Up

-- What became of admissions, how long they had waited, and how large the largest work was. Of those in uncharged that expired, which
-- is what was stuck to its end, and that were cancelled while they waited; the rest were released. waited_ counts those of admissions
-- and uncharged that waited at most so long; there is none above the last one that did not wait longer.
ALTER TABLE usage_analytics ADD COLUMN IF NOT EXISTS expired bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS cancelled bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS waited_1s bigint NOT NULL DEFAULT 0, ADD COLUMN IF NOT EXISTS waited_1m bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS waited_10m bigint NOT NULL DEFAULT 0, ADD COLUMN IF NOT EXISTS waited_1h bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS largest_audio_ms bigint NOT NULL DEFAULT 0, ADD COLUMN IF NOT EXISTS largest_bytes bigint NOT NULL DEFAULT 0;
ALTER TABLE usage_totals ADD COLUMN IF NOT EXISTS expired bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS cancelled bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS waited_1s bigint NOT NULL DEFAULT 0, ADD COLUMN IF NOT EXISTS waited_1m bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS waited_10m bigint NOT NULL DEFAULT 0, ADD COLUMN IF NOT EXISTS waited_1h bigint NOT NULL DEFAULT 0;

-- A user's months of UTC, by the currency of the money: made anew with the rows of usage_analytics, for those months that they lie in
-- and the ones behind them. A month in which nothing was used is there if something was in the one before.
CREATE TABLE IF NOT EXISTS usage_months (
    user_id          uuid NOT NULL,
    month            date NOT NULL,
    currency         text NOT NULL,
    -- Charges and adjustments that were not reversed.
    uses             bigint NOT NULL,
    credits          bigint NOT NULL,
    price_micros     bigint NOT NULL,
    cost_micros      bigint NOT NULL,
    -- The credits of the month before.
    previous_credits bigint NOT NULL,
    PRIMARY KEY (user_id, month, currency)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS usage_months_credits_idx ON usage_months (month, currency, credits, user_id);
CREATE INDEX IF NOT EXISTS usage_months_price_idx ON usage_months (month, currency, price_micros, user_id);
CREATE INDEX IF NOT EXISTS usage_months_cost_idx ON usage_months (month, currency, cost_micros, user_id);
CREATE INDEX IF NOT EXISTS usage_months_growth_idx ON usage_months (month, currency, (credits - previous_credits), user_id);

-- What teams have paid for, by the day of UTC: made anew with usage_totals, of which it is the part that users did not pay themselves.
CREATE TABLE IF NOT EXISTS usage_payer_totals (
    day           date NOT NULL,
    plan_name     text NOT NULL,
    team_id       uuid NOT NULL,
    currency      text NOT NULL,
    cost_currency text NOT NULL,
    users         bigint NOT NULL,
    events        bigint NOT NULL,
    credits       bigint NOT NULL,
    price_micros  bigint NOT NULL,
    cost_micros   bigint NOT NULL,
    PRIMARY KEY (day, plan_name, team_id, currency, cost_currency)
);

-- What the periods come to, made anew as a whole, at most once an hour: how much of their credits they used, by the day of UTC on which
-- they ended. percent is of the plan's own credits, rounded down, 100 where they were used up; -1: there was no limit.
CREATE TABLE IF NOT EXISTS usage_utilisation (
    day       date NOT NULL,
    plan_name text NOT NULL,
    percent   smallint NOT NULL CHECK (percent BETWEEN -1 AND 100),
    periods   bigint NOT NULL,
    -- In which nothing at all was used.
    idle      bigint NOT NULL,
    PRIMARY KEY (day, plan_name, percent)
);
-- What they are sold for, by the day of UTC on which they began. team_id is nil where users pay for themselves.
CREATE TABLE IF NOT EXISTS usage_period_prices (
    day          date NOT NULL,
    plan_name    text NOT NULL,
    team_id      uuid NOT NULL,
    currency     text NOT NULL,
    periods      bigint NOT NULL,
    price_micros bigint NOT NULL,
    PRIMARY KEY (day, plan_name, team_id, currency)
);
-- How many of those who used something for the first time in a month of UTC did so in a later one.
CREATE TABLE IF NOT EXISTS usage_cohorts (
    cohort date NOT NULL,
    month  date NOT NULL,
    users  bigint NOT NULL,
    PRIMARY KEY (cohort, month)
);
-- When these were made last. One row, or none before the first time.
CREATE TABLE IF NOT EXISTS usage_periods_summed (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    as_of    timestamptz NOT NULL
);

-- Accounts that pay for what they use: those with a plan whom no team above with one pays for. team_id is nil for users.
CREATE OR REPLACE VIEW paying_accounts AS
    WITH RECURSIVE up (team, at, plan_name, depth) AS (
        SELECT t.id, t.id, a.plan_name, 0 FROM teams AS t JOIN usage_quotas AS a ON a.user_id = t.id
        UNION ALL
        SELECT u.team, b.user_id, b.plan_name, u.depth + 1 FROM up AS u JOIN usage_quotas AS c ON c.user_id = u.at
        JOIN usage_quotas AS b ON b.user_id = coalesce(c.member_of,
            nullif((SELECT r.id FROM teams AS r WHERE r.active_root), c.user_id))
        WHERE u.plan_name IS NULL AND u.depth < 4),
    paid AS (SELECT u.team FROM up AS u WHERE u.plan_name IS NOT NULL)
    SELECT a.user_id, coalesce(t.id, '00000000-0000-0000-0000-000000000000') AS team_id
    FROM usage_quotas AS a LEFT JOIN teams AS t ON t.id = a.user_id
    WHERE a.plan_name IS NOT NULL AND (t.id IS NOT NULL
        OR coalesce(a.member_of, (SELECT r.id FROM teams AS r WHERE r.active_root)) IS NULL
        OR coalesce(a.member_of, (SELECT r.id FROM teams AS r WHERE r.active_root)) NOT IN (SELECT p.team FROM paid AS p));

-- The next rollup makes all sums, with what is new in them. Until then answers say that there are none.
TRUNCATE usage_analytics, usage_rollups, usage_totals, usage_totals_stale, usage_rollups_complete;

-- +goose Down
DROP VIEW paying_accounts;
DROP TABLE usage_periods_summed, usage_cohorts, usage_period_prices, usage_utilisation, usage_payer_totals, usage_months;
ALTER TABLE usage_totals DROP COLUMN expired, DROP COLUMN cancelled, DROP COLUMN waited_1s, DROP COLUMN waited_1m, DROP COLUMN waited_10m,
    DROP COLUMN waited_1h;
ALTER TABLE usage_analytics DROP COLUMN expired, DROP COLUMN cancelled, DROP COLUMN waited_1s, DROP COLUMN waited_1m,
    DROP COLUMN waited_10m, DROP COLUMN waited_1h, DROP COLUMN largest_audio_ms, DROP COLUMN largest_bytes;
