-- +goose Up

-- What recording adds to an event. The constraints are NOT VALID: rows that were there before hold them by their defaults,
-- and nothing is scanned under a lock.
ALTER TABLE usage_tracking
    ADD COLUMN idempotency_key text,
    ADD COLUMN tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN quantity bigint NOT NULL DEFAULT 1,
    ADD COLUMN unit_micros bigint,
    ADD COLUMN refund_lot uuid,
    ADD COLUMN recorded_by text NOT NULL DEFAULT '',
    ADD COLUMN reason text NOT NULL DEFAULT '';
ALTER TABLE usage_tracking
    ADD CONSTRAINT usage_tracking_numbers_check CHECK (tokens >= 0 AND quantity > 0 AND unit_micros >= 0) NOT VALID,
    -- I4: an event is of an admission or has a key of its own.
    ADD CONSTRAINT usage_tracking_key_check CHECK (admission_id IS NOT NULL OR idempotency_key IS NOT NULL) NOT VALID,
    ADD CONSTRAINT usage_tracking_reverses_check CHECK ((kind = 'reversal') = (reverses IS NOT NULL)) NOT VALID,
    ADD CONSTRAINT usage_tracking_refund_check CHECK (refund_lot IS NULL OR kind = 'reversal') NOT VALID;
COMMENT ON COLUMN usage_tracking.unit_micros IS 'the plan''s price of one unit in millionths of a credit; NULL where it did not decide';
COMMENT ON COLUMN usage_tracking.refund_lot IS 'the lot that a reversal gave instead of changing a period that was final';

-- Types of use that a plan names, each with its price in millionths of a credit a unit.
ALTER TABLE user_plan_limits
    ADD COLUMN usage_types jsonb NOT NULL DEFAULT '{}',
    ADD CONSTRAINT user_plan_limits_usage_types_check CHECK (jsonb_typeof(usage_types) = 'object'
        AND NOT jsonb_path_exists(usage_types, '$.* ? (@.type() != "number" || @ < 0 || @ != @.floor())'));

-- Keys of direct records, reversals and adjustments, with a hash of the request and what it made. A unique key must contain
-- the partition key, so uniqueness over time is the account's lock, under which keys are looked up and written.
CREATE TABLE idempotency_keys (
    user_id   uuid NOT NULL,
    key       text NOT NULL,
    made_at   timestamptz NOT NULL,
    body_hash bytea NOT NULL,
    event_id  uuid NOT NULL,
    PRIMARY KEY (user_id, key, made_at)
) PARTITION BY RANGE (made_at);
CREATE TABLE idempotency_keys_default PARTITION OF idempotency_keys DEFAULT;

-- Which event was reversed, by which. Not partitioned, so that the key holds for all time.
CREATE TABLE usage_reversals (
    event_id    uuid PRIMARY KEY,
    user_id     uuid NOT NULL REFERENCES usage_quotas (user_id),
    reversal_id uuid NOT NULL,
    reversed_at timestamptz NOT NULL
);

-- +goose StatementBegin
-- Makes the weekly partition of idempotency_keys that contains the given day (UTC), if it is missing. Keys of that week that went
-- to the default partition move in, and the parent is not locked against readers and writers.
CREATE FUNCTION ensure_key_partition(day date) RETURNS void LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    monday date := date_trunc('week', day)::date;
    part   text := 'idempotency_keys_' || to_char(monday, 'YYYYMMDD');
    first  timestamptz := monday::timestamp AT TIME ZONE 'UTC';
    next   timestamptz := (monday + 7)::timestamp AT TIME ZONE 'UTC';
BEGIN
    -- One at a time; whoever waited sees what the one before has done. Readers and writers do not notice.
    LOCK TABLE idempotency_keys_default IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass(part) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE idempotency_keys INCLUDING ALL)', part);
    LOCK TABLE idempotency_keys_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('WITH moved AS (DELETE FROM idempotency_keys_default WHERE made_at >= %L AND made_at < %L RETURNING *)
        INSERT INTO %I SELECT * FROM moved', first, next, part);
    EXECUTE format('ALTER TABLE idempotency_keys ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part, first, next);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Drops the partitions of idempotency_keys all of whose keys are older than the given instant, and such keys from the default one.
CREATE FUNCTION drop_key_partitions(older_than timestamptz) RETURNS void LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    part regclass;
BEGIN
    -- One at a time; whoever waited sees what the one before has done. Readers and writers do not notice.
    LOCK TABLE idempotency_keys_default IN SHARE UPDATE EXCLUSIVE MODE;
    FOR part IN
        SELECT inhrelid::regclass FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid
        WHERE inhparent = 'idempotency_keys'::regclass AND c.relname ~ '^idempotency_keys_[0-9]{8}$'
          AND (to_date(right(c.relname, 8), 'YYYYMMDD') + 7)::timestamp AT TIME ZONE 'UTC' <= older_than
    LOOP
        EXECUTE format('DROP TABLE %s', part);
    END LOOP;
    DELETE FROM idempotency_keys_default WHERE made_at < older_than;
END $$;
-- +goose StatementEnd
SELECT ensure_key_partition((now() AT TIME ZONE 'UTC')::date + n * 7) FROM generate_series(0, 4) AS n;

-- +goose Down
DROP FUNCTION drop_key_partitions(timestamptz), ensure_key_partition(date);
DROP TABLE usage_reversals, idempotency_keys;
ALTER TABLE user_plan_limits DROP COLUMN usage_types;
ALTER TABLE usage_tracking
    DROP COLUMN idempotency_key, DROP COLUMN tokens, DROP COLUMN quantity, DROP COLUMN unit_micros, DROP COLUMN refund_lot,
    DROP COLUMN recorded_by, DROP COLUMN reason;
