-- +goose Up

-- +goose StatementBegin
-- Makes the monthly partition of usage_tracking that contains the given day, if it is missing. Events of that month that went
-- to the default partition move in: while they lay there, the partition could not be made.
CREATE OR REPLACE FUNCTION ensure_usage_partition(day date) RETURNS text LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    month   date := date_trunc('month', day)::date;
    part    text := 'usage_tracking_' || to_char(month, 'YYYYMM');
    first   timestamptz := month::timestamp AT TIME ZONE 'UTC';
    next    timestamptz := (month + interval '1 month')::timestamp AT TIME ZONE 'UTC';
    columns text;
BEGIN
    IF to_regclass(part) IS NOT NULL THEN
        RETURN part;
    END IF;
    -- One at a time; whoever waited sees what the one before has done. Readers and writers do not notice.
    LOCK TABLE usage_tracking_default IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass(part) IS NOT NULL THEN
        RETURN part;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE usage_tracking INCLUDING ALL)', part);
    -- By name: columns that were added later may stand in another order.
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns FROM pg_attribute
        WHERE attrelid = 'usage_tracking'::regclass AND attnum > 0 AND NOT attisdropped;
    LOCK TABLE usage_tracking_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('WITH moved AS (DELETE FROM usage_tracking_default WHERE recorded_at >= %L AND recorded_at < %L RETURNING %s)
        INSERT INTO %I (%s) SELECT * FROM moved', first, next, columns, part, columns);
    EXECUTE format('ALTER TABLE usage_tracking ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part, first, next);
    RETURN part;
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION ensure_usage_partition(day date) RETURNS text LANGUAGE plpgsql AS $$
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
