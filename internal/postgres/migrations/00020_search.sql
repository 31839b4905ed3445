-- +goose NO TRANSACTION
-- +goose Up

-- Users by the beginnings of their ids, whatever order the database's locale has. One that a failed attempt has left would be invalid.
DROP INDEX CONCURRENTLY IF EXISTS users_prefix_idx;
CREATE INDEX CONCURRENTLY users_prefix_idx ON users (user_id COLLATE "C");

-- What ended without a charge, which no event tells of. What is admitted and charged has no entry in it, so the hot path pays
-- nothing for it.
DROP INDEX CONCURRENTLY IF EXISTS concurrent_processing_uncharged_idx;
CREATE INDEX CONCURRENTLY concurrent_processing_uncharged_idx ON concurrent_processing (user_id, arrived_seq)
    WHERE state IN ('Released', 'Expired', 'Cancelled');

-- +goose Down
DROP INDEX concurrent_processing_uncharged_idx;
DROP INDEX users_prefix_idx;
