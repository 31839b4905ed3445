-- +goose NO TRANSACTION
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
    -- Of the member_ columns those that lift the limits of the teams above instead: 'credits', 'concurrent', 'queued', 'daily_cost'.
    unlimited_members        text[] NOT NULL DEFAULT '{}',
    -- Of member_daily_cost_micros; NULL: cap_currency.
    member_cost_currency     text CHECK (member_cost_currency ~ '^[A-Z]{3}$'),
    display_name             text NOT NULL DEFAULT '',
    -- The UsageTeam that declares it, and whose cluster that is; NULL means the first one.
    object_uid               uuid,
    home_cluster             uuid,
    -- Its share among the children of its parent.
    weight                   integer NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000000),
    -- Everybody without a parent is below the root; a retired team takes nobody that is not below it by name.
    is_root                  boolean NOT NULL DEFAULT false,
    retired                  boolean NOT NULL DEFAULT false,
    -- True of the root that is not retired, NULL of all others: there is one at most. (A key and no partial index, as of clusters.)
    active_root              boolean GENERATED ALWAYS AS (CASE WHEN is_root AND NOT retired THEN true END) STORED,
    created_at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT teams_name_key UNIQUE (name),
    CONSTRAINT teams_active_root_key UNIQUE (active_root)
);

-- The team that somebody is in, or a team's parent, as it was declared; NULL of who names none. A user's may be named by its
-- UserQuota (member_declared) or given over HTTP.
ALTER TABLE usage_quotas ADD COLUMN IF NOT EXISTS member_of uuid;
ALTER TABLE usage_quotas ADD COLUMN IF NOT EXISTS member_declared boolean NOT NULL DEFAULT false;
DROP INDEX CONCURRENTLY IF EXISTS usage_quotas_member_idx;
CREATE INDEX CONCURRENTLY usage_quotas_member_idx ON usage_quotas (member_of, user_id) WHERE member_of IS NOT NULL;

-- Below whom the account is counted now: what waits is in the counts of all above. That is the team of member_of, or the root, as
-- of the last batch with the account, which moves the counts if it finds that somebody else has to be above; NULL of who is alone.
-- The path to the root is not stored: a batch reads all of it anyway, and so a team moves
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

-- The share of each of a plan's users in what they and others below the same team wait for.
ALTER TABLE user_plan_limits ADD COLUMN IF NOT EXISTS weight integer NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000000);

-- Whose turn it is. A row for each account with something above or below it since work has first waited there: its place
-- (start_) among the children of its parent, in the parent's virtual time, and the time (now_) of its own children. Both are units
-- of 1/2^20 of an admission at weight 1, and a fraction in 1/2^40 of these. runnable: something of it, or below it, could run if
-- its parent and those above let it. Only batches that have the top of the tree locked write here. Admissions change these
-- columns, so they are not in usage_quotas, whose updates stay HOT.
CREATE TABLE IF NOT EXISTS queue_turns (
    account_id  uuid PRIMARY KEY,
    parent_id   uuid,
    start_units bigint NOT NULL CHECK (start_units >= 0),
    start_part  bigint NOT NULL CHECK (start_part >= 0 AND start_part < 1099511627776),
    now_units   bigint NOT NULL CHECK (now_units >= 0),
    now_part    bigint NOT NULL CHECK (now_part >= 0 AND now_part < 1099511627776),
    weight      integer NOT NULL CHECK (weight BETWEEN 1 AND 1000000),
    runnable    boolean NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX IF NOT EXISTS queue_turns_next_idx ON queue_turns (parent_id, start_units, start_part, account_id) WHERE runnable;
CREATE INDEX IF NOT EXISTS queue_turns_parent_idx ON queue_turns (parent_id, account_id);

-- The first that are next below each of the teams, without those that are known anyway, and the first below these in turn.
-- The settings keep it to the index that has them in order, whatever statistics there are.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION queue_turns_next(teams uuid[], known uuid[], most integer) RETURNS SETOF uuid LANGUAGE plpgsql STABLE
    ROWS 16 SET enable_indexscan = on SET enable_bitmapscan = off SET enable_seqscan = off SET enable_sort = off AS $$
BEGIN
    RETURN QUERY WITH RECURSIVE below AS (
        SELECT n.account_id FROM unnest(teams) AS p (id) CROSS JOIN LATERAL (
            SELECT t.account_id FROM queue_turns AS t
            WHERE t.parent_id = p.id AND t.runnable AND t.account_id NOT IN (SELECT unnest(known))
            ORDER BY t.start_units, t.start_part, t.account_id LIMIT most) AS n
        UNION ALL
        SELECT n.account_id FROM below AS p CROSS JOIN LATERAL (
            SELECT t.account_id FROM queue_turns AS t WHERE t.parent_id = p.account_id AND t.runnable
            ORDER BY t.start_units, t.start_part, t.account_id LIMIT most) AS n)
    SELECT account_id FROM below;
END $$;
-- +goose StatementEnd

-- Of the next `look` below a team the first `most` with something that waits and that more means may help: what is parked and needs
-- at most so many credits, or what waits for a limit of its own. Of a team among them its counts tell. The last that was looked at
-- comes in any case if others may be behind it. The settings keep it to a page of the index.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION queue_waiting_below(team uuid, behind uuid, credits bigint, most integer, look integer)
    RETURNS TABLE (account_id uuid, helped boolean, more boolean) LANGUAGE plpgsql STABLE ROWS 32
    SET enable_indexscan = on SET enable_bitmapscan = off SET enable_seqscan = off SET enable_sort = off AS $$
DECLARE
    ready boolean;
    seen integer := 0;
    helps integer := 0;
BEGIN
    FOR account_id, ready IN SELECT t.account_id, t.runnable FROM queue_turns AS t
        WHERE t.parent_id = team AND t.account_id > behind ORDER BY t.account_id LIMIT look LOOP
        helped := EXISTS (SELECT FROM usage_quotas AS a
                WHERE a.user_id = queue_waiting_below.account_id AND a.queued > 0 AND (NOT ready OR a.parked > 0))
            AND (EXISTS (SELECT FROM teams AS g WHERE g.id = queue_waiting_below.account_id)
                OR EXISTS (SELECT FROM concurrent_processing AS c
                    WHERE c.user_id = queue_waiting_below.account_id AND c.state = 'Queued' AND (c.parked OR NOT ready)
                      AND c.estimate <= credits));
        seen := seen + 1;
        helps := helps + helped::integer;
        more := seen = look OR helps = most;
        IF helped OR more THEN
            RETURN NEXT;
        END IF;
        EXIT WHEN more;
    END LOOP;
END $$;
-- +goose StatementEnd

-- What each user has used of a team's period: the credits of its events that are booked there. They add up to the used of the
-- team's account, or of its closed period. Only batches that have the team's account locked write here.
CREATE TABLE IF NOT EXISTS team_shares (
    team_id   uuid NOT NULL,
    period_no bigint NOT NULL,
    user_id   uuid NOT NULL,
    used      bigint NOT NULL,
    PRIMARY KEY (team_id, period_no, user_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- +goose Down
DROP TABLE team_shares;
DROP FUNCTION queue_waiting_below;
DROP FUNCTION queue_turns_next;
DROP TABLE queue_turns;
ALTER TABLE user_plan_limits DROP COLUMN weight;
ALTER TABLE usage_tracking DROP COLUMN void, DROP COLUMN levels;
ALTER TABLE concurrent_processing DROP COLUMN levels;
DELETE FROM usage_quotas AS a USING teams AS t WHERE t.id = a.user_id;
ALTER TABLE usage_quotas ALTER COLUMN plan_name SET NOT NULL;
ALTER TABLE usage_quotas ADD CONSTRAINT usage_quotas_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id);
ALTER TABLE usage_quotas DROP COLUMN parent_id, DROP COLUMN member_of, DROP COLUMN member_declared;
DROP TABLE teams;
