-- +goose NO TRANSACTION
-- +goose Up

-- Whether it is known to whom an alert goes. Of those from before nothing is sent: they were told when nobody asked to be. The
-- release before raises alerts that are looked at.
ALTER TABLE usage_alerts ADD COLUMN IF NOT EXISTS dispatched boolean NOT NULL DEFAULT true;
ALTER TABLE usage_alerts ALTER COLUMN dispatched SET DEFAULT false;
DROP INDEX CONCURRENTLY IF EXISTS usage_alerts_pending_idx;
CREATE INDEX CONCURRENTLY usage_alerts_pending_idx ON usage_alerts (raised_at) WHERE NOT dispatched;

-- Where alerts are sent to: the platform's by NotificationEndpoint objects, a team's own over HTTP.
CREATE TABLE IF NOT EXISTS notification_endpoints (
    id              uuid PRIMARY KEY,
    -- The team whose own it is; NULL of the platform's, of which home_cluster has the object.
    team_id         uuid REFERENCES teams (id),
    home_cluster    uuid,
    name            text NOT NULL CHECK (name ~ '^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'),
    url             text NOT NULL,
    -- Which alerts it gets: those that are of one of each list that is not empty.
    kinds           text[] NOT NULL,
    plans           text[] NOT NULL,
    teams           text[] NOT NULL,
    users           text[] NOT NULL,
    -- Addresses that are not public and may be called nevertheless.
    allowed_cidrs   text[] NOT NULL,
    signing         text NOT NULL CHECK (signing IN ('ed25519', 'hmac')),
    suspended       boolean NOT NULL,
    -- Counts the changes of what is declared.
    version         bigint NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    -- Since when nothing is sent to it, because it said that it is gone.
    disabled_at     timestamptz,
    disabled_reason text,
    -- Attempts that failed since the last one that did not, and before when the whole endpoint is left alone.
    failures        integer NOT NULL DEFAULT 0,
    retry_at        timestamptz,
    -- Whether its answers take long.
    slow            boolean NOT NULL DEFAULT false,
    last_success_at timestamptz,
    last_failure_at timestamptz,
    last_failure    text,
    CONSTRAINT notification_endpoints_name_key UNIQUE NULLS NOT DISTINCT (team_id, name),
    CONSTRAINT notification_endpoints_disabled_check CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
);

-- What deliveries are signed with, by all of an endpoint's that have not ended. Whoever reads secret can sign.
CREATE TABLE IF NOT EXISTS notification_keys (
    endpoint_id uuid NOT NULL REFERENCES notification_endpoints (id) ON DELETE CASCADE,
    name        text NOT NULL,
    signing     text NOT NULL CHECK (signing IN ('ed25519', 'hmac')),
    secret      bytea NOT NULL,
    created_at  timestamptz NOT NULL,
    ends_at     timestamptz,
    PRIMARY KEY (endpoint_id, name)
);
-- Who may only read sees no row of it, as of portal_secrets.
ALTER TABLE notification_keys ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS notification_keys_signers ON notification_keys;
CREATE POLICY notification_keys_signers ON notification_keys USING (has_table_privilege('notification_keys'::regclass, 'INSERT'));

-- One alert for one endpoint, once.
CREATE TABLE IF NOT EXISTS deliveries (
    id               uuid PRIMARY KEY,
    endpoint_id      uuid NOT NULL REFERENCES notification_endpoints (id) ON DELETE CASCADE,
    alert_id         uuid NOT NULL REFERENCES usage_alerts (id) ON DELETE CASCADE,
    state            text NOT NULL CHECK (state IN ('waiting', 'delivered', 'dead')),
    attempts         integer NOT NULL DEFAULT 0,
    created_at       timestamptz NOT NULL,
    -- When it is given up, and when it is to be tried next.
    expires_at       timestamptz NOT NULL,
    next_attempt_at  timestamptz NOT NULL,
    -- When a job in the schema river was made for the next attempt, which names this instant; NULL while there is none.
    queued_at        timestamptz,
    first_attempt_at timestamptz,
    last_attempt_at  timestamptz,
    finished_at      timestamptz,
    last_status      integer,
    last_error       text,
    resent_by        text,
    CONSTRAINT deliveries_once_key UNIQUE (endpoint_id, alert_id),
    CONSTRAINT deliveries_finished_check CHECK ((state = 'waiting') = (finished_at IS NULL)),
    CONSTRAINT deliveries_queued_check CHECK (queued_at IS NULL OR state = 'waiting')
);
DROP INDEX CONCURRENTLY IF EXISTS deliveries_due_idx;
CREATE INDEX CONCURRENTLY deliveries_due_idx ON deliveries (endpoint_id, next_attempt_at, id) WHERE state = 'waiting' AND queued_at IS NULL;
DROP INDEX CONCURRENTLY IF EXISTS deliveries_queued_idx;
CREATE INDEX CONCURRENTLY deliveries_queued_idx ON deliveries (endpoint_id, queued_at) WHERE queued_at IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS deliveries_expires_idx;
CREATE INDEX CONCURRENTLY deliveries_expires_idx ON deliveries (expires_at) WHERE state = 'waiting';
DROP INDEX CONCURRENTLY IF EXISTS deliveries_finished_idx;
CREATE INDEX CONCURRENTLY deliveries_finished_idx ON deliveries (finished_at) WHERE finished_at IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS deliveries_list_idx;
CREATE INDEX CONCURRENTLY deliveries_list_idx ON deliveries (created_at DESC, id DESC);
DROP INDEX CONCURRENTLY IF EXISTS deliveries_endpoint_idx;
CREATE INDEX CONCURRENTLY deliveries_endpoint_idx ON deliveries (endpoint_id, state, created_at DESC, id DESC);
DROP INDEX CONCURRENTLY IF EXISTS deliveries_alert_idx;
CREATE INDEX CONCURRENTLY deliveries_alert_idx ON deliveries (alert_id);

-- +goose Down
DROP TABLE deliveries;
DROP TABLE notification_keys;
DROP TABLE notification_endpoints;
DROP INDEX usage_alerts_pending_idx;
ALTER TABLE usage_alerts DROP COLUMN dispatched;
