-- +goose NO TRANSACTION
-- +goose Up

-- Accounts are never deleted apart from what hangs from them, and whoever writes these rows has locked the account: checking
-- the reference again, row by row, cost every admission a look-up and a lock. The check of the invariants looks instead.
ALTER TABLE concurrent_processing DROP CONSTRAINT IF EXISTS concurrent_processing_user_id_fkey;
ALTER TABLE credit_lots DROP CONSTRAINT IF EXISTS credit_lots_user_id_fkey;
ALTER TABLE usage_periods DROP CONSTRAINT IF EXISTS usage_periods_user_id_fkey;

-- The index of what waits or runs is full of entries of what ran until a moment ago; most admissions never wait. One that a
-- failed attempt has left would be invalid.
DROP INDEX CONCURRENTLY IF EXISTS concurrent_processing_queue_idx;
CREATE INDEX CONCURRENTLY concurrent_processing_queue_idx ON concurrent_processing (user_id, priority DESC, arrived_seq)
    WHERE state = 'Queued';

-- +goose Down
DROP INDEX concurrent_processing_queue_idx;
ALTER TABLE usage_periods ADD CONSTRAINT usage_periods_user_id_fkey FOREIGN KEY (user_id) REFERENCES usage_quotas (user_id);
ALTER TABLE credit_lots ADD CONSTRAINT credit_lots_user_id_fkey FOREIGN KEY (user_id) REFERENCES usage_quotas (user_id);
ALTER TABLE concurrent_processing ADD CONSTRAINT concurrent_processing_user_id_fkey FOREIGN KEY (user_id) REFERENCES usage_quotas (user_id);
