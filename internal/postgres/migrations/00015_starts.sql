-- +goose NO TRANSACTION
-- +goose Up

-- What started after it had waited for a slot, by when: how fast a user's queue has moved lately. What starts at once has no
-- entry, so those who never wait pay nothing for it, and none of its columns changes when work ends. One that a failed attempt
-- has left would be invalid.
DROP INDEX CONCURRENTLY IF EXISTS concurrent_processing_starts_idx;
CREATE INDEX CONCURRENTLY concurrent_processing_starts_idx ON concurrent_processing (user_id, admitted_seq)
    WHERE arrived_seq < admitted_seq AND NOT ever_parked;

-- +goose Down
DROP INDEX concurrent_processing_starts_idx;
