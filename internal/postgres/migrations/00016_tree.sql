-- +goose Up

-- Teams. A team has an account like a user's, under the id that it has here. Amounts of credits are in 1/60000 credit, money in
-- micro-units of cap_currency, which is also the currency of the account's amounts as long as the team has no plan. The caps bound
-- the team and all below it together, the member_ columns each user below it; NULL means no bound.
CREATE TABLE IF NOT EXISTS teams (
    id                       uuid PRIMARY KEY,
    name                     text NOT NULL CHECK (name ~ '^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$'),
    cap_currency             text NOT NULL CHECK (cap_currency ~ '^[A-Z]{3}$'),
    credits_cap              bigint CHECK (credits_cap >= 0),
    concurrent_cap           integer CHECK (concurrent_cap > 0),
    queued_cap               integer CHECK (queued_cap >= 0),
    daily_cost_cap_micros    bigint CHECK (daily_cost_cap_micros >= 0),
    member_credits           bigint CHECK (member_credits >= 0),
    member_concurrent        integer CHECK (member_concurrent > 0),
    member_queued            integer CHECK (member_queued >= 0),
    member_daily_cost_micros bigint CHECK (member_daily_cost_micros >= 0),
    created_at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT teams_name_key UNIQUE (name)
);

-- Who is above whom; NULL of who is alone. The path to the root is not stored: a batch reads all of it anyway, and so a team moves
-- with everything below it by one row. The release before this one does not read it: there must be no teams while that runs.
ALTER TABLE usage_quotas ADD COLUMN IF NOT EXISTS parent_id uuid;

-- An account is a user's or a team's, and a team may have no plan. The check of the invariants looks instead.
ALTER TABLE usage_quotas DROP CONSTRAINT IF EXISTS usage_quotas_user_id_fkey;
ALTER TABLE usage_quotas ALTER COLUMN plan_name DROP NOT NULL;

-- Where an admission and an event are booked above the user, the nearest account first; NULL of who was alone. The row's own
-- columns are about the user's account, but for the lots, the cost and the price, which are payer_id's.
ALTER TABLE concurrent_processing ADD COLUMN IF NOT EXISTS levels jsonb;
ALTER TABLE usage_tracking ADD COLUMN IF NOT EXISTS levels jsonb;

-- Whether a reversal left the user's period as it is; NULL means: if it has a refund_lot.
ALTER TABLE usage_tracking ADD COLUMN IF NOT EXISTS void boolean;

-- +goose Down
ALTER TABLE usage_tracking DROP COLUMN void, DROP COLUMN levels;
ALTER TABLE concurrent_processing DROP COLUMN levels;
DELETE FROM usage_quotas AS a USING teams AS t WHERE t.id = a.user_id;
ALTER TABLE usage_quotas ALTER COLUMN plan_name SET NOT NULL;
ALTER TABLE usage_quotas ADD CONSTRAINT usage_quotas_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id);
ALTER TABLE usage_quotas DROP COLUMN parent_id;
DROP TABLE teams;
