-- +goose NO TRANSACTION
-- +goose Up

-- The order in which work starts, apart from what is parked: a batch reads the first of either, however many wait behind them.
-- It serves everything that the index of queued work without "parked" did, in the release before this one too. One that a failed
-- attempt has left would be invalid.
DROP INDEX CONCURRENTLY IF EXISTS concurrent_processing_turn_idx;
CREATE INDEX CONCURRENTLY concurrent_processing_turn_idx ON concurrent_processing (user_id, parked, priority DESC, arrived_seq)
    WHERE state = 'Queued';
DROP INDEX CONCURRENTLY IF EXISTS concurrent_processing_queue_idx;

-- +goose StatementBegin
-- The first that wait for a slot, the first that are parked, and the last that waits for a slot. Only an ordered scan of the index
-- costs the same whatever the queue's length; batches are planned for bitmap scans, which read all of it and sort.
CREATE OR REPLACE FUNCTION queue_heads(account uuid, most integer) RETURNS SETOF uuid LANGUAGE plpgsql STABLE ROWS 64
    SET enable_indexscan = on SET enable_bitmapscan = off SET enable_seqscan = off SET enable_sort = off AS $$
BEGIN
    RETURN QUERY
    (SELECT id FROM concurrent_processing WHERE user_id = account AND state = 'Queued' AND NOT parked
        ORDER BY priority DESC, arrived_seq LIMIT most)
    UNION ALL
    (SELECT id FROM concurrent_processing WHERE user_id = account AND state = 'Queued' AND parked
        ORDER BY priority DESC, arrived_seq LIMIT most)
    UNION ALL
    (SELECT id FROM concurrent_processing WHERE user_id = account AND state = 'Queued' AND NOT parked
        ORDER BY priority, arrived_seq DESC LIMIT 1);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION queue_heads;
DROP INDEX CONCURRENTLY IF EXISTS concurrent_processing_queue_idx;
CREATE INDEX CONCURRENTLY concurrent_processing_queue_idx ON concurrent_processing (user_id, priority DESC, arrived_seq)
    WHERE state = 'Queued';
DROP INDEX concurrent_processing_turn_idx;
