-- +goose Up

-- What a user has used, in sums: one row for each hour in which something happened, and for each that it was booked under. Requests
-- never read events for sums, they read these. Rows are recomputed from the events of their day and never added to; see
-- usage_rollups for how far they are. Amounts of credits are in 1/60000 credit, money in micro-units of the currencies.
CREATE TABLE IF NOT EXISTS usage_analytics (
    user_id       uuid NOT NULL,
    -- The user's own day, by the zone that usage_rollups names.
    day           date NOT NULL,
    -- When the hour began, by the user's clock or by UTC, whichever was later: so a row lies within one hour and one day of both,
    -- also where the zone is half an hour off or changes its offset.
    at            timestamptz NOT NULL,
    -- The user's period and the payer as the events say. An admission that ended without a charge is of plan '', without
    -- currencies, and of period -1 if it was never admitted.
    period_no     bigint NOT NULL,
    payer_id      uuid NOT NULL,
    plan_name     text NOT NULL,
    usage_type    text NOT NULL,
    currency      text NOT NULL,
    cost_currency text NOT NULL,
    -- Charges and adjustments, and how many of them were reversed, whenever that was: a reversal counts where what it undid did.
    events        bigint NOT NULL,
    reversals     bigint NOT NULL,
    -- What the period has used by them, and what was given back as a lot because it was final.
    credits       bigint NOT NULL,
    refunded      bigint NOT NULL,
    -- What paid: the plan's credits, what went beyond them, grants, what an earlier period had left.
    plan_credits  bigint NOT NULL,
    overage       bigint NOT NULL,
    grant_credits bigint NOT NULL,
    carry_over    bigint NOT NULL,
    -- In currency, and in cost_currency.
    price_micros  bigint NOT NULL,
    cost_micros   bigint NOT NULL,
    -- What was worked on, without what was reversed.
    audio_ms      bigint NOT NULL,
    bytes         bigint NOT NULL,
    tokens        bigint NOT NULL,
    quantity      bigint NOT NULL,
    -- Admissions that were charged, those that ended without, and how long both had waited and run.
    admissions    bigint NOT NULL,
    uncharged     bigint NOT NULL,
    waited_ms     bigint NOT NULL,
    running_ms    bigint NOT NULL,
    PRIMARY KEY (user_id, day, at, period_no, payer_id, plan_name, usage_type, currency, cost_currency)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS usage_analytics_at_idx ON usage_analytics (at);

-- How far each user's rows are: they have what the account had decided up to its seq.
CREATE TABLE IF NOT EXISTS usage_rollups (
    user_id    uuid PRIMARY KEY,
    seq        bigint NOT NULL,
    -- The account's last_decided_at by then: no event behind seq was recorded before.
    decided_at timestamptz NOT NULL,
    -- By which the days are. The rows of an account that has another one now are all made anew.
    time_zone  text NOT NULL,
    -- Whatever was answered before it is in the rows.
    as_of      timestamptz NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- The same of all users together: when the last run began that has seen everybody. One row, or none before the first.
CREATE TABLE IF NOT EXISTS usage_rollups_complete (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    as_of    timestamptz NOT NULL
);

-- +goose Down
DROP TABLE usage_rollups_complete, usage_rollups, usage_analytics;
