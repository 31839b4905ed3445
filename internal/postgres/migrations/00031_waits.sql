-- +goose Up

-- How many of everybody's admissions were charged, by the hour of UTC and the plan, and how many of these had waited for at most a
-- minute: made anew with usage_totals, for the last 22 days.
CREATE TABLE IF NOT EXISTS usage_waits (
    plan_name  text NOT NULL,
    at         timestamptz NOT NULL,
    admissions bigint NOT NULL,
    waited_1m  bigint NOT NULL,
    PRIMARY KEY (plan_name, at)
);
INSERT INTO usage_totals_stale (day) SELECT DISTINCT day FROM usage_totals WHERE day > (now() AT TIME ZONE 'UTC')::date - 30;

-- +goose Down
DROP TABLE usage_waits;
