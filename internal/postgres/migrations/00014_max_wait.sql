-- +goose NO TRANSACTION
-- +goose Up

-- How long a plan lets work wait; NULL: as long as it has to.
ALTER TABLE user_plan_limits ADD COLUMN IF NOT EXISTS max_wait_seconds integer
    CHECK (max_wait_seconds BETWEEN 60 AND 2592000);

-- When an admission last went back to the queue: it waits from then on, else from created_at on. The release before this one
-- does not write it when it sends one back, so that this one has waited since it was created. What a bound refused says what
-- it waited for and what the bound was.
ALTER TABLE concurrent_processing ADD COLUMN IF NOT EXISTS requeued_at timestamptz, ADD COLUMN IF NOT EXISTS waited_for text,
    ADD COLUMN IF NOT EXISTS max_wait_ms bigint;

-- What waits by how long it has waited: what is overdue is found without reading what is not. None of its columns changes while
-- an admission waits or runs, so the updates of the hot path stay HOT, and what never waits has no entry in it. One that a
-- failed attempt has left would be invalid.
DROP INDEX CONCURRENTLY IF EXISTS concurrent_processing_since_idx;
CREATE INDEX CONCURRENTLY concurrent_processing_since_idx
    ON concurrent_processing (user_id, (coalesce(requeued_at, created_at))) WHERE state = 'Queued';

-- +goose Down
DROP INDEX concurrent_processing_since_idx;
ALTER TABLE concurrent_processing DROP COLUMN max_wait_ms, DROP COLUMN waited_for, DROP COLUMN requeued_at;
ALTER TABLE user_plan_limits DROP COLUMN max_wait_seconds;
