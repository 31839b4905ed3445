-- +goose NO TRANSACTION
-- +goose Up

-- Why somebody changed what a row of the audit log tells, in their own words. Not in the row, which never changes: these can be erased.
CREATE TABLE IF NOT EXISTS audit_reasons (
    audit_id bigint PRIMARY KEY,
    reason   text NOT NULL CHECK (char_length(reason) BETWEEN 1 AND 256)
);

-- Whose period ends when, in an order that pages can go on in, however many end at one instant. It finds what the index that goes
-- found, and as that it has no column that admissions and charges change.
DROP INDEX CONCURRENTLY IF EXISTS usage_quotas_plan_end_idx;
CREATE INDEX CONCURRENTLY usage_quotas_plan_end_idx ON usage_quotas (plan_name, period_end, user_id);
DROP INDEX CONCURRENTLY IF EXISTS usage_quotas_plan_due_idx;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS usage_quotas_plan_due_idx;
CREATE INDEX CONCURRENTLY usage_quotas_plan_due_idx ON usage_quotas (plan_name, period_end);
DROP INDEX usage_quotas_plan_end_idx;
DROP TABLE audit_reasons;
