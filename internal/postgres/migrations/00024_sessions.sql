-- +goose Up

-- Who has signed in with a browser. The id of a session is in its cookie only: here is its SHA-256, and nothing of the token that was
-- signed in with. Rows are gone soon after their end.
CREATE TABLE IF NOT EXISTS sessions (
    id_hash      bytea PRIMARY KEY CHECK (length(id_hash) = 32),
    issuer       text NOT NULL,
    username     text NOT NULL,
    uid          text NOT NULL,
    groups       text[] NOT NULL,
    extra        jsonb NOT NULL,
    -- As users.user_id has it, of a person who need not have an account.
    external_id  text NOT NULL,
    began_at     timestamptz NOT NULL,
    seen_at      timestamptz NOT NULL,
    idle_ends_at timestamptz NOT NULL,
    ends_at      timestamptz NOT NULL CHECK (ends_at > began_at AND idle_ends_at <= ends_at)
);
CREATE INDEX IF NOT EXISTS sessions_username_idx ON sessions (username);

-- +goose Down
DROP TABLE sessions;
