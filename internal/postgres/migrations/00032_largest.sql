-- +goose Up

-- A piece of work: an admission that was charged, or a use that was recorded, by the id of either.
-- +goose StatementBegin
DO $$ BEGIN
    CREATE TYPE usage_work AS (id uuid, at timestamptz, credits bigint, audio_ms bigint, price_micros bigint, cost_micros bigint);
EXCEPTION WHEN duplicate_object THEN NULL;
END $$;
-- +goose StatementEnd

-- The ten largest of a row by credits, then those that were earlier, then by id, without what was reversed and what an admin adjusted. NULL
-- where there is none that took credits; in no order. So the ten largest of any days are among those of the rows of these days.
ALTER TABLE usage_analytics ADD COLUMN IF NOT EXISTS largest usage_work[];

-- Up to which seq the rows have them: where it is not seq, the release before has rolled up, and all is made anew.
ALTER TABLE usage_rollups ADD COLUMN IF NOT EXISTS listed_seq bigint NOT NULL DEFAULT -1;
ALTER TABLE usage_rollups_complete ADD COLUMN IF NOT EXISTS listed boolean NOT NULL DEFAULT false;

-- The ten largest that a team has paid for, by the day of UTC, made anew with usage_totals.
CREATE TABLE IF NOT EXISTS usage_payer_largest (
    day           date NOT NULL,
    team_id       uuid NOT NULL,
    -- From 1 for the largest.
    rank          smallint NOT NULL,
    user_id       uuid NOT NULL,
    plan_name     text NOT NULL,
    usage_type    text NOT NULL,
    currency      text NOT NULL,
    cost_currency text NOT NULL,
    id            uuid NOT NULL,
    at            timestamptz NOT NULL,
    credits       bigint NOT NULL,
    audio_ms      bigint NOT NULL,
    price_micros  bigint NOT NULL,
    cost_micros   bigint NOT NULL,
    PRIMARY KEY (day, team_id, rank)
);
CREATE INDEX IF NOT EXISTS usage_payer_largest_team_idx ON usage_payer_largest (team_id, day);

-- +goose Down
DROP TABLE usage_payer_largest;
ALTER TABLE usage_rollups_complete DROP COLUMN listed;
ALTER TABLE usage_rollups DROP COLUMN listed_seq;
ALTER TABLE usage_analytics DROP COLUMN largest;
DROP TYPE usage_work;
