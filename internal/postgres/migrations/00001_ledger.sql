-- +goose Up

-- One row maps a user id to the internal id that every other table uses: erasing it anonymises the rest.
CREATE TABLE users (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id    text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT users_user_id_key UNIQUE (user_id),
    CONSTRAINT users_user_id_check CHECK (user_id ~ '^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$')
);

-- Plans, as UsagePlan objects declare them. Amounts of credits are in 1/60000 credit (1 ms of audio), money in micro-units
-- of the currency. A NULL limit means unlimited.
CREATE TABLE user_plan_limits (
    name                  text PRIMARY KEY,
    object_uid            uuid,
    version               bigint NOT NULL DEFAULT 1,
    display_name          text NOT NULL,
    is_default            boolean NOT NULL DEFAULT false,
    retired               boolean NOT NULL DEFAULT false,
    rank                  integer NOT NULL DEFAULT 0,
    features              text[] NOT NULL DEFAULT '{}',
    calendar_month        boolean NOT NULL DEFAULT false,
    credits_limit         bigint CHECK (credits_limit >= 0),
    file_size_limit       bigint CHECK (file_size_limit > 0),
    audio_ms_limit        bigint CHECK (audio_ms_limit > 0),
    concurrent_limit      integer CHECK (concurrent_limit > 0),
    queued_limit          integer CHECK (queued_limit >= 0),
    overage_max           bigint NOT NULL DEFAULT 0 CHECK (overage_max >= 0),
    overage_price_micros  bigint NOT NULL DEFAULT 0 CHECK (overage_price_micros >= 0),
    carry_over_max        bigint NOT NULL DEFAULT 0 CHECK (carry_over_max >= 0),
    provider_cost_micros  bigint NOT NULL DEFAULT 0 CHECK (provider_cost_micros >= 0),
    currency              text NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
    period_price_micros   bigint NOT NULL DEFAULT 0 CHECK (period_price_micros >= 0),
    daily_cost_ceiling_micros bigint CHECK (daily_cost_ceiling_micros >= 0),
    rate_requests         integer NOT NULL DEFAULT 100 CHECK (rate_requests > 0),
    rate_window_seconds   integer NOT NULL DEFAULT 3600 CHECK (rate_window_seconds > 0),
    alert_thresholds      integer[] NOT NULL DEFAULT '{}',
    admit_when_unavailable boolean NOT NULL DEFAULT false,
    reset_schedule        text NOT NULL DEFAULT '0 2 * * *',
    reset_batch_size      integer NOT NULL DEFAULT 500 CHECK (reset_batch_size > 0),
    updated_at            timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- The database is the last guard of "one default plan".
CREATE UNIQUE INDEX user_plan_limits_default_key ON user_plan_limits (is_default) WHERE is_default AND NOT retired;

-- Accounts: one hot row a user. Every admission and every charge updates it in place (HOT): the free space keeps the new
-- version on the same page, and none of the columns that those updates change is indexed.
CREATE TABLE usage_quotas (
    user_id              uuid PRIMARY KEY REFERENCES users (id),
    plan_name            text NOT NULL REFERENCES user_plan_limits (name),
    quota_uid            uuid,
    quota_name           text,
    credits_override     bigint CHECK (credits_override >= 0),
    file_size_override   bigint CHECK (file_size_override > 0),
    audio_ms_override    bigint CHECK (audio_ms_override > 0),
    concurrent_override  integer CHECK (concurrent_override > 0),
    queued_override      integer CHECK (queued_override >= 0),
    unlimited_overrides  text[],
    suspended            boolean NOT NULL DEFAULT false,
    anchor_at            timestamptz NOT NULL,
    time_zone            text NOT NULL DEFAULT 'UTC',
    period_no            bigint NOT NULL DEFAULT 0,
    period_start         timestamptz NOT NULL,
    period_end           timestamptz NOT NULL,
    used                 bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    reserved             bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    plan_used            bigint NOT NULL DEFAULT 0 CHECK (plan_used >= 0),
    plan_reserved        bigint NOT NULL DEFAULT 0 CHECK (plan_reserved >= 0),
    cost_micros          bigint NOT NULL DEFAULT 0 CHECK (cost_micros >= 0),
    charged_micros       bigint NOT NULL DEFAULT 0 CHECK (charged_micros >= 0),
    day                  date NOT NULL DEFAULT '1970-01-01',
    day_cost_micros      bigint NOT NULL DEFAULT 0 CHECK (day_cost_micros >= 0),
    reserved_cost_micros bigint NOT NULL DEFAULT 0 CHECK (reserved_cost_micros >= 0),
    active               integer NOT NULL DEFAULT 0 CHECK (active >= 0),
    queued               integer NOT NULL DEFAULT 0 CHECK (queued >= 0),
    parked               integer NOT NULL DEFAULT 0 CHECK (parked >= 0),
    seq                  bigint NOT NULL DEFAULT 0,
    last_decided_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT usage_quotas_period_check CHECK (period_start < period_end),
    CONSTRAINT usage_quotas_queue_check CHECK (parked <= queued),
    CONSTRAINT usage_quotas_parts_check CHECK (plan_used <= used AND plan_reserved <= reserved)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE UNIQUE INDEX usage_quotas_quota_uid_key ON usage_quotas (quota_uid) WHERE quota_uid IS NOT NULL;
CREATE INDEX usage_quotas_plan_due_idx ON usage_quotas (plan_name, period_end);

-- Periods that have ended. The open one is in usage_quotas.
CREATE TABLE usage_periods (
    user_id          uuid NOT NULL REFERENCES usage_quotas (user_id),
    period_no        bigint NOT NULL,
    period_start     timestamptz NOT NULL,
    period_end       timestamptz NOT NULL,
    used             bigint NOT NULL CHECK (used >= 0),
    reserved         bigint NOT NULL CHECK (reserved >= 0),
    plan_used        bigint NOT NULL CHECK (plan_used >= 0),
    plan_reserved    bigint NOT NULL CHECK (plan_reserved >= 0),
    cost_micros      bigint NOT NULL CHECK (cost_micros >= 0),
    charged_micros   bigint NOT NULL CHECK (charged_micros >= 0),
    plan_name        text NOT NULL,
    plan_version     bigint NOT NULL,
    plan_credits     bigint,
    carry_over       bigint NOT NULL CHECK (carry_over >= 0),
    carry_over_max   bigint NOT NULL CHECK (carry_over_max >= 0),
    revision         integer NOT NULL DEFAULT 0,
    closed_at        timestamptz NOT NULL,
    PRIMARY KEY (user_id, period_no),
    CONSTRAINT usage_periods_period_check CHECK (period_start < period_end)
);

-- Credits besides the plan's own. The id follows from (user, kind, name), so that a lot is given once.
CREATE TABLE credit_lots (
    id         uuid PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES usage_quotas (user_id),
    kind       text NOT NULL CHECK (kind IN ('grant', 'carry_over')),
    name       text NOT NULL,
    credits    bigint NOT NULL CHECK (credits >= 0),
    used       bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    reserved   bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    CONSTRAINT credit_lots_name_key UNIQUE (user_id, kind, name)
) WITH (fillfactor = 70);

-- Admissions. The id is the Job's UID or derived from the caller's idempotency key, so that asking twice makes one.
CREATE TABLE concurrent_processing (
    id                    uuid PRIMARY KEY,
    user_id               uuid NOT NULL REFERENCES usage_quotas (user_id),
    source                text NOT NULL CHECK (source IN ('api', 'job')),
    namespace             text NOT NULL DEFAULT '',
    name                  text NOT NULL DEFAULT '',
    requested_by          text NOT NULL DEFAULT '',
    body_hash             bytea,
    state                 text NOT NULL CHECK (state IN ('Queued', 'Admitted', 'Settled', 'Released', 'Expired', 'Cancelled')),
    reason                text NOT NULL DEFAULT '',
    estimate              bigint NOT NULL CHECK (estimate > 0),
    file_size             bigint NOT NULL CHECK (file_size >= 0),
    priority              integer NOT NULL DEFAULT 0,
    enforced              boolean NOT NULL DEFAULT true,
    parked                boolean NOT NULL DEFAULT false,
    ever_parked           boolean NOT NULL DEFAULT false,
    period_no             bigint,
    period_end            timestamptz,
    plan_part             bigint NOT NULL DEFAULT 0,
    lots                  jsonb,
    estimated_cost_micros bigint NOT NULL DEFAULT 0,
    provider_cost_micros  bigint NOT NULL DEFAULT 0,
    reported              bigint CHECK (reported >= 0),
    actual                bigint CHECK (actual >= 0),
    late                  boolean NOT NULL DEFAULT false,
    created_at            timestamptz NOT NULL,
    admitted_at           timestamptz,
    ended_at              timestamptz,
    lease_ms              bigint NOT NULL CHECK (lease_ms > 0),
    lease_until           timestamptz NOT NULL,
    arrived_seq           bigint NOT NULL,
    admitted_seq          bigint,
    ended_seq             bigint,
    seen_remaining        bigint,
    seen_concurrent       integer,
    seen_used             bigint,
    seen_reserved         bigint,
    seen_active           integer,
    CONSTRAINT concurrent_processing_admitted_check CHECK (state IN ('Queued', 'Cancelled') OR (admitted_at IS NOT NULL AND period_no IS NOT NULL)),
    CONSTRAINT concurrent_processing_settled_check CHECK ((state = 'Settled') = (actual IS NOT NULL)),
    -- I3: what an enforced admission was allowed is what it saw remaining.
    CONSTRAINT concurrent_processing_within_limits_check CHECK (
        admitted_at IS NULL OR NOT enforced
        OR (estimate <= coalesce(seen_remaining, estimate) AND seen_active < coalesce(seen_concurrent, seen_active + 1)))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
-- What waits or runs: the queue in its order, the reaper's scan and the sweep of Jobs.
CREATE INDEX concurrent_processing_live_idx ON concurrent_processing (user_id, priority DESC, arrived_seq)
    WHERE state IN ('Queued', 'Admitted');

-- Events are append-only: charges, reversals, adjustments.
CREATE TABLE usage_tracking (
    id            uuid NOT NULL,
    recorded_at   timestamptz NOT NULL,
    user_id       uuid NOT NULL,
    period_id     bigint NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('charge', 'reversal', 'adjustment')),
    usage_type    text NOT NULL,
    admission_id  uuid,
    reverses      uuid,
    occurred_at   timestamptz NOT NULL,
    credits       bigint NOT NULL CHECK (credits >= 0),
    plan_part     bigint NOT NULL CHECK (plan_part >= 0),
    overage       bigint NOT NULL DEFAULT 0 CHECK (overage >= 0),
    lots          jsonb,
    duration_ms   bigint NOT NULL DEFAULT 0 CHECK (duration_ms >= 0),
    file_size     bigint NOT NULL DEFAULT 0 CHECK (file_size >= 0),
    price_micros  bigint NOT NULL DEFAULT 0 CHECK (price_micros >= 0),
    cost_micros   bigint NOT NULL DEFAULT 0 CHECK (cost_micros >= 0),
    currency      text NOT NULL,
    plan_name     text NOT NULL,
    plan_version  bigint NOT NULL,
    late          boolean NOT NULL DEFAULT false,
    seq           bigint NOT NULL,
    metadata      jsonb,
    PRIMARY KEY (id, recorded_at)
) PARTITION BY RANGE (recorded_at);
CREATE INDEX usage_tracking_user_idx ON usage_tracking (user_id, period_id);
CREATE TABLE usage_tracking_default PARTITION OF usage_tracking DEFAULT;

-- Every change of plan, quota, balance or state that is not an admission or an event.
CREATE TABLE audit_log (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor       text NOT NULL,
    action      text NOT NULL,
    object_kind text NOT NULL,
    object_name text NOT NULL,
    user_id     uuid,
    before      jsonb,
    after       jsonb
);
CREATE INDEX audit_log_object_idx ON audit_log (object_kind, object_name, id);
CREATE INDEX audit_log_user_idx ON audit_log (user_id, id) WHERE user_id IS NOT NULL;

-- The key that lease tokens are signed with, made once by the database so that all replicas share it.
CREATE TABLE service_keys (
    purpose    text PRIMARY KEY,
    secret     bytea NOT NULL CHECK (length(secret) >= 32),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO service_keys (purpose, secret)
VALUES ('lease', uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

-- +goose StatementBegin
-- Makes the monthly partition of usage_tracking that contains the given day, if it is missing.
CREATE FUNCTION ensure_usage_partition(day date) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    first date := date_trunc('month', day)::date;
    part  text := 'usage_tracking_' || to_char(first, 'YYYYMM');
BEGIN
    IF to_regclass(part) IS NULL THEN
        EXECUTE format('CREATE TABLE %I PARTITION OF usage_tracking FOR VALUES FROM (%L) TO (%L)',
            part, first::timestamp AT TIME ZONE 'UTC', (first + interval '1 month')::timestamp AT TIME ZONE 'UTC');
    END IF;
    RETURN part;
END $$;
-- +goose StatementEnd
SELECT ensure_usage_partition((now() AT TIME ZONE 'UTC' + n * interval '1 month')::date) FROM generate_series(0, 3) AS n;

-- +goose Down
DROP FUNCTION ensure_usage_partition(date);
DROP TABLE service_keys, audit_log, usage_tracking, concurrent_processing, credit_lots, usage_periods, usage_quotas, user_plan_limits, users;
