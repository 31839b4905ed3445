-- +goose Up

-- Which CloudEvents were recorded. Their source and id name one event, whoever its subject is, and a key is looked up by user.
-- Such a key has a space in it, and no other one has. Not partitioned, so that the key holds for all users; a row lives no
-- longer than its row of idempotency_keys.
CREATE TABLE event_keys (
    key     text PRIMARY KEY,
    user_id uuid NOT NULL,
    made_at timestamptz NOT NULL
);
CREATE INDEX event_keys_made_idx ON event_keys USING brin (made_at) WITH (autosummarize = on);

INSERT INTO event_keys (key, user_id, made_at)
SELECT DISTINCT ON (key) key, user_id, made_at FROM idempotency_keys WHERE position(' ' IN key) > 0 ORDER BY key, made_at;

-- +goose StatementBegin
-- Drops the partitions of idempotency_keys all of whose keys are older than the given instant, and such keys from the default one
-- and from event_keys.
CREATE OR REPLACE FUNCTION drop_key_partitions(older_than timestamptz) RETURNS void LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    part regclass;
BEGIN
    -- One at a time; whoever waited sees what the one before has done. Readers and writers do not notice.
    LOCK TABLE idempotency_keys_default IN SHARE UPDATE EXCLUSIVE MODE;
    DELETE FROM event_keys WHERE made_at < older_than;
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

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION drop_key_partitions(older_than timestamptz) RETURNS void LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
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
DROP TABLE event_keys;
