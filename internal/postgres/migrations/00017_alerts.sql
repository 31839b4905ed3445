-- +goose NO TRANSACTION
-- +goose Up

-- What users and teams are told of their limits, written by the transaction that changed the balance. Amounts of credits are in
-- 1/60000 credit, money in micro-units of currency. The id follows from the unique key, so it is the same for whoever finds the
-- alert again.
CREATE TABLE IF NOT EXISTS usage_alerts (
    id              uuid PRIMARY KEY,
    -- The account, a user's or a team's, and the period in which it was raised; of PeriodReset the one that was closed.
    user_id         uuid NOT NULL,
    period_no       bigint NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('CreditsPercent', 'TeamShare', 'DailyCostPercent', 'Overdrawn', 'GrantExpiring',
        'PeriodReset')),
    -- A percentage; 0 of kinds without one.
    threshold       integer NOT NULL CHECK (threshold >= 0),
    -- The UTC day and the currency of DailyCostPercent, the grant's name of GrantExpiring, else empty.
    subject         text NOT NULL DEFAULT '',
    -- How often it had been re-armed in the period, by a limit that rose above the use.
    number          integer NOT NULL CHECK (number >= 0),
    severity        text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    -- What was counted, and against what, when it was raised; NULL: there was no limit.
    used            bigint NOT NULL,
    limit_value     bigint,
    currency        text,
    plan_name       text,
    raised_at       timestamptz NOT NULL,
    -- The account's decision that raised it, or the last one before.
    seq             bigint NOT NULL,
    -- When it held no longer, NULL while it does; whatever happens it is over at ends_at.
    resolved_at     timestamptz,
    ends_at         timestamptz NOT NULL,
    acknowledged_at timestamptz,
    acknowledged_by text,
    CONSTRAINT usage_alerts_once_key UNIQUE (user_id, period_no, kind, threshold, subject, number),
    CONSTRAINT usage_alerts_acknowledged_check CHECK ((acknowledged_at IS NULL) = (acknowledged_by IS NULL))
);
CREATE INDEX IF NOT EXISTS usage_alerts_list_idx ON usage_alerts (user_id, raised_at DESC, id DESC);

-- Those of them that the account remembers, see quota.Raised: so that each is raised once, and nobody has to look here for that.
-- NULL of accounts from before, of which what holds is raised by their next batch; empty: none. The release before this one leaves
-- it as it is.
ALTER TABLE usage_quotas ADD COLUMN IF NOT EXISTS alerts text;

-- Of grants that end soon. No column of it ever changes, so updates of lots stay HOT.
DROP INDEX CONCURRENTLY IF EXISTS credit_lots_ending_idx;
CREATE INDEX CONCURRENTLY credit_lots_ending_idx ON credit_lots (expires_at) WHERE kind = 'grant' AND expires_at IS NOT NULL;

-- +goose Down
DROP INDEX credit_lots_ending_idx;
ALTER TABLE usage_quotas DROP COLUMN alerts;
DROP TABLE usage_alerts;
