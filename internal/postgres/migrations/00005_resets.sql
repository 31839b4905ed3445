-- +goose Up

-- How long after its end a period takes late charges. A period keeps what its plan said when it closed. The default is what
-- the release before this one did, which goes on writing both tables without the columns.
ALTER TABLE user_plan_limits
    ADD COLUMN final_after_seconds integer NOT NULL DEFAULT 259200 CHECK (final_after_seconds BETWEEN 3600 AND 2592000);
ALTER TABLE usage_periods
    ADD COLUMN final_after_seconds integer NOT NULL DEFAULT 259200 CHECK (final_after_seconds > 0),
    -- The currency of the period's money, where the release that closed it said so.
    ADD COLUMN currency text CHECK (currency ~ '^[A-Z]{3}$');

-- Runs of the reset, one row each, written as they go on: a run that was killed stops being written.
CREATE TABLE reset_runs (
    id          uuid PRIMARY KEY,
    plan_name   text NOT NULL REFERENCES user_plan_limits (name),
    actor       text NOT NULL,
    state       text NOT NULL CHECK (state IN ('Running', 'Succeeded', 'Failed', 'Interrupted', 'Lost')),
    started_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    finished_at timestamptz,
    accounts    bigint NOT NULL DEFAULT 0 CHECK (accounts >= 0),
    periods     bigint NOT NULL DEFAULT 0 CHECK (periods >= accounts),
    failures    bigint NOT NULL DEFAULT 0 CHECK (failures >= 0),
    message     text NOT NULL DEFAULT '',
    CONSTRAINT reset_runs_finished_check CHECK ((state = 'Running') = (finished_at IS NULL))
);
CREATE INDEX reset_runs_plan_idx ON reset_runs (plan_name, started_at DESC);

-- +goose Down
DROP TABLE reset_runs;
ALTER TABLE usage_periods DROP COLUMN currency, DROP COLUMN final_after_seconds;
ALTER TABLE user_plan_limits DROP COLUMN final_after_seconds;
