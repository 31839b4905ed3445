-- +goose NO TRANSACTION
-- +goose Up

-- What was refused, of all users together, by the day of UTC: made anew from usage_refusals with usage_totals, for whole days. users
-- are those of the day; those of two days are not to be added, since somebody may be among both.
CREATE TABLE IF NOT EXISTS usage_refusal_totals (
    day       date NOT NULL,
    plan_name text NOT NULL,
    reason    text NOT NULL,
    served_by text NOT NULL,
    users     bigint NOT NULL,
    refusals  bigint NOT NULL,
    credits   numeric NOT NULL,
    PRIMARY KEY (day, plan_name, reason, served_by)
);

-- Before which day rows of usage_refusals may be gone. What their days came to stays as it was made before. One row, or none as long as
-- nothing was old enough.
CREATE TABLE IF NOT EXISTS usage_refusals_forgotten (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    before   date NOT NULL
);

-- Not by marking the days as stale: a rollup of the release before would take the marks, and make other totals only.
INSERT INTO usage_refusal_totals (day, plan_name, reason, served_by, users, refusals, credits)
SELECT (r.at AT TIME ZONE 'UTC')::date, r.plan_name, r.reason, r.served_by, count(DISTINCT r.user_id), sum(r.refusals), sum(r.credits)
FROM usage_refusals AS r GROUP BY 1, 2, 3, 4
ON CONFLICT (day, plan_name, reason, served_by) DO NOTHING;

-- What teams have paid for has the columns of usage_totals that analytics of teams show, so that these read rows of days and none of
-- users. A rollup of the release before still writes what it did, under no type.
ALTER TABLE usage_payer_totals ADD COLUMN IF NOT EXISTS usage_type text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS reversals bigint NOT NULL DEFAULT 0, ADD COLUMN IF NOT EXISTS refunded bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS plan_credits bigint NOT NULL DEFAULT 0, ADD COLUMN IF NOT EXISTS overage bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS grant_credits bigint NOT NULL DEFAULT 0, ADD COLUMN IF NOT EXISTS carry_over bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS audio_ms bigint NOT NULL DEFAULT 0, ADD COLUMN IF NOT EXISTS bytes bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS tokens bigint NOT NULL DEFAULT 0, ADD COLUMN IF NOT EXISTS quantity bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS admissions bigint NOT NULL DEFAULT 0, ADD COLUMN IF NOT EXISTS uncharged bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS waited_ms bigint NOT NULL DEFAULT 0, ADD COLUMN IF NOT EXISTS running_ms bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT IF EXISTS usage_payer_totals_pkey,
    ADD PRIMARY KEY (day, plan_name, team_id, usage_type, currency, cost_currency);
CREATE INDEX IF NOT EXISTS usage_payer_totals_team_idx ON usage_payer_totals (team_id, day);

WITH untyped AS (DELETE FROM usage_payer_totals WHERE usage_type = '')
INSERT INTO usage_payer_totals (day, plan_name, team_id, usage_type, currency, cost_currency, users, events, reversals, credits,
    refunded, plan_credits, overage, grant_credits, carry_over, price_micros, cost_micros, audio_ms, bytes, tokens, quantity, admissions,
    uncharged, waited_ms, running_ms)
SELECT (u.at AT TIME ZONE 'UTC')::date, u.plan_name, u.payer_id, u.usage_type, u.currency, u.cost_currency, count(DISTINCT u.user_id),
    sum(u.events), sum(u.reversals), sum(u.credits), sum(u.refunded), sum(u.plan_credits), sum(u.overage), sum(u.grant_credits),
    sum(u.carry_over), sum(u.price_micros), sum(u.cost_micros), sum(u.audio_ms), sum(u.bytes), sum(u.tokens), sum(u.quantity),
    sum(u.admissions), sum(u.uncharged), sum(u.waited_ms), sum(u.running_ms)
FROM usage_analytics AS u WHERE u.payer_id <> u.user_id
GROUP BY 1, 2, 3, 4, 5, 6
ON CONFLICT (day, plan_name, team_id, usage_type, currency, cost_currency) DO NOTHING;

-- The money in it by the month of UTC, made anew with each day of it: margins by team of a long span read whole months.
CREATE TABLE IF NOT EXISTS usage_payer_months (
    month         date NOT NULL,
    team_id       uuid NOT NULL,
    currency      text NOT NULL,
    cost_currency text NOT NULL,
    price_micros  bigint NOT NULL,
    cost_micros   bigint NOT NULL,
    PRIMARY KEY (month, team_id, currency, cost_currency)
);
INSERT INTO usage_payer_months (month, team_id, currency, cost_currency, price_micros, cost_micros)
SELECT date_trunc('month', p.day)::date, p.team_id, p.currency, p.cost_currency, sum(p.price_micros), sum(p.cost_micros)
FROM usage_payer_totals AS p WHERE p.events > 0
GROUP BY 1, 2, 3, 4
ON CONFLICT (month, team_id, currency, cost_currency) DO NOTHING;

-- What read the rows of the users that a team pays for.
DROP INDEX CONCURRENTLY IF EXISTS usage_analytics_paid_idx;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS usage_analytics_paid_idx;
CREATE INDEX CONCURRENTLY usage_analytics_paid_idx ON usage_analytics (payer_id, at) WHERE payer_id <> user_id;
DROP INDEX usage_payer_totals_team_idx;
DELETE FROM usage_payer_totals;
ALTER TABLE usage_payer_totals DROP CONSTRAINT usage_payer_totals_pkey, ADD PRIMARY KEY (day, plan_name, team_id, currency, cost_currency),
    DROP COLUMN usage_type, DROP COLUMN reversals, DROP COLUMN refunded, DROP COLUMN plan_credits, DROP COLUMN overage,
    DROP COLUMN grant_credits, DROP COLUMN carry_over, DROP COLUMN audio_ms, DROP COLUMN bytes, DROP COLUMN tokens, DROP COLUMN quantity,
    DROP COLUMN admissions, DROP COLUMN uncharged, DROP COLUMN waited_ms, DROP COLUMN running_ms;
INSERT INTO usage_totals_stale (day) SELECT DISTINCT day FROM usage_totals;
DROP TABLE usage_payer_months, usage_refusals_forgotten, usage_refusal_totals;
