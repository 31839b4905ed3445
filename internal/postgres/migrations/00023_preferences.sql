-- +goose Up

-- What users do not want to be told of by endpoints that bring alerts to users. Who has no row wants all.
CREATE TABLE IF NOT EXISTS notification_preferences (
    user_id    uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    muted      text[] NOT NULL,
    updated_at timestamptz NOT NULL
);
-- For whom an endpoint's receiver is: one for users heeds what they want. The release before writes none for users.
ALTER TABLE notification_endpoints ADD COLUMN IF NOT EXISTS audience text NOT NULL DEFAULT 'operators';
ALTER TABLE notification_endpoints DROP CONSTRAINT IF EXISTS notification_endpoints_audience_check;
ALTER TABLE notification_endpoints ADD CONSTRAINT notification_endpoints_audience_check
    CHECK (audience IN ('operators', 'users')) NOT VALID;

-- Why somebody else than its holder released an admission. Who it was is in the audit log.
ALTER TABLE concurrent_processing ADD COLUMN IF NOT EXISTS release_reason text;

-- +goose Down
ALTER TABLE concurrent_processing DROP COLUMN release_reason;
ALTER TABLE notification_endpoints DROP COLUMN audience;
DROP TABLE notification_preferences;
