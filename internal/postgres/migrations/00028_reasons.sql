-- +goose Up

-- Why somebody changed what a row of the audit log tells, in their own words. Not in the row, which never changes: these can be erased.
CREATE TABLE IF NOT EXISTS audit_reasons (
    audit_id bigint PRIMARY KEY,
    reason   text NOT NULL CHECK (char_length(reason) BETWEEN 1 AND 256)
);

-- +goose Down
DROP TABLE audit_reasons;
