-- +goose NO TRANSACTION
-- +goose Up

-- What is alive, by state and source: the Jobs that run, the leases that callers over HTTP hold and what may be stuck
-- are read every few seconds, and are few however much waits. An admission is written to as many indexes as before, and
-- the statements of the release before this one find in it what they found in the index that goes. One that a failed
-- attempt has left would be invalid.
DROP INDEX CONCURRENTLY IF EXISTS concurrent_processing_alive_idx;
CREATE INDEX CONCURRENTLY concurrent_processing_alive_idx ON concurrent_processing (state, source, user_id)
    WHERE state IN ('Queued', 'Admitted');
DROP INDEX CONCURRENTLY IF EXISTS concurrent_processing_live_idx;

-- What is parked by what it needs: a search for what so many credits allow reads that, not all that is parked.
DROP INDEX CONCURRENTLY IF EXISTS concurrent_processing_parked_idx;
CREATE INDEX CONCURRENTLY concurrent_processing_parked_idx ON concurrent_processing (user_id, estimate)
    WHERE state = 'Queued' AND parked;

-- +goose Down
DROP INDEX concurrent_processing_parked_idx;
DROP INDEX CONCURRENTLY IF EXISTS concurrent_processing_live_idx;
CREATE INDEX CONCURRENTLY concurrent_processing_live_idx ON concurrent_processing (user_id, priority DESC, arrived_seq)
    WHERE state IN ('Queued', 'Admitted');
DROP INDEX concurrent_processing_alive_idx;
