-- +goose Up

-- What portal tokens are signed with, each key for a week: the public halves, and of each the private one. A key verifies until the
-- last token that it has signed has ended.
CREATE TABLE IF NOT EXISTS portal_keys (
    id          uuid PRIMARY KEY,
    public_key  bytea NOT NULL CHECK (length(public_key) = 32),
    signs_from  timestamptz NOT NULL,
    signs_until timestamptz NOT NULL CHECK (signs_until > signs_from)
);
CREATE TABLE IF NOT EXISTS portal_secrets (
    key_id uuid PRIMARY KEY REFERENCES portal_keys (id) ON DELETE CASCADE,
    seed   bytea NOT NULL CHECK (length(seed) = 32)
);
-- Who may only read sees no row of it, also where somebody has granted SELECT on all tables.
ALTER TABLE portal_secrets ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS portal_secrets_signers ON portal_secrets;
CREATE POLICY portal_secrets_signers ON portal_secrets USING (has_table_privilege('portal_secrets'::regclass, 'INSERT'));

-- The tokens that are good, or were until lately: of which account (user_id), and whether they were revoked before their end.
CREATE TABLE IF NOT EXISTS portal_tokens (
    id         uuid PRIMARY KEY,
    user_id    uuid NOT NULL,
    scope      text NOT NULL CHECK (scope IN ('read', 'check')),
    issued_at  timestamptz NOT NULL,
    expires_at timestamptz NOT NULL CHECK (expires_at > issued_at),
    revoked_at timestamptz
);
CREATE INDEX IF NOT EXISTS portal_tokens_user_idx ON portal_tokens (user_id);
CREATE INDEX IF NOT EXISTS portal_tokens_ended_idx ON portal_tokens (expires_at);
CREATE INDEX IF NOT EXISTS portal_tokens_revoked_idx ON portal_tokens (expires_at) WHERE revoked_at IS NOT NULL;

-- +goose Down
DROP TABLE portal_tokens;
DROP TABLE portal_secrets;
DROP TABLE portal_keys;
