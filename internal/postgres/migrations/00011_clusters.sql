-- +goose Up

-- The clusters that share this ledger. A cluster is known by the UID of its namespace kube-system.
CREATE TABLE clusters (
    uid        uuid PRIMARY KEY,
    name       text NOT NULL CHECK (name ~ '^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$'),
    -- True of the cluster that came first, NULL of the others: what no row says otherwise of is the first one's. (Not a partial
    -- index: a look-up by its key is what the hot path's statements are held to.)
    first      boolean CHECK (first),
    first_seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT clusters_name_key UNIQUE (name),
    CONSTRAINT clusters_first_key UNIQUE (first)
);

-- Whose they are. NULL of a plan, of an account that a UserQuota owns and of a Job's admission means the first cluster: rows from
-- before, and of the release before this one. An account that no UserQuota owns and an admission over HTTP belong to no cluster.
ALTER TABLE user_plan_limits ADD COLUMN home_cluster uuid;
ALTER TABLE usage_quotas ADD COLUMN home_cluster uuid;
ALTER TABLE concurrent_processing ADD COLUMN cluster_uid uuid;

-- +goose Down
ALTER TABLE concurrent_processing DROP COLUMN cluster_uid;
ALTER TABLE usage_quotas DROP COLUMN home_cluster;
ALTER TABLE user_plan_limits DROP COLUMN home_cluster;
DROP TABLE clusters;
