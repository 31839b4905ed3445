-- The clusters that share the ledger, and what is whose. A row that names no cluster is the first one's.

-- name: SeeCluster :one
UPDATE clusters SET name = @name, last_seen = coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()) WHERE uid = @uid
RETURNING *;

-- name: LockClusters :exec
-- One registers at a time: there is one first cluster.
LOCK TABLE clusters IN SHARE ROW EXCLUSIVE MODE;

-- name: InsertCluster :one
INSERT INTO clusters (uid, name, first, first_seen, last_seen)
SELECT @uid, @name, CASE WHEN NOT EXISTS (SELECT FROM clusters) THEN true END, n.now, n.now
FROM (SELECT coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()) AS now) AS n
ON CONFLICT (uid) DO UPDATE SET name = excluded.name, last_seen = excluded.last_seen
RETURNING *;

-- name: AllClusters :many
SELECT sqlc.embed(c), coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())::timestamptz AS now
FROM clusters AS c ORDER BY c.first, c.first_seen, c.uid;

-- name: FirstCluster :one
SELECT uid FROM clusters WHERE first;

-- name: PlansOf :many
-- In the order of their names, so that two who move plans do not wait for each other.
SELECT * FROM user_plan_limits
WHERE coalesce(home_cluster, (SELECT f.uid FROM clusters AS f WHERE f.first)) = @cluster::uuid
ORDER BY name FOR UPDATE;

-- name: MovePlan :one
-- What belongs to no object is not missed when there is none: the new cluster's object takes the plan over when it comes.
UPDATE user_plan_limits SET home_cluster = @cluster::uuid, object_uid = CASE WHEN @disown::boolean THEN NULL ELSE object_uid END,
    version = version + 1, updated_at = coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())
WHERE name = @name
RETURNING *;

-- name: TeamsOf :many
SELECT sqlc.embed(t), sqlc.embed(a) FROM teams AS t JOIN usage_quotas AS a ON a.user_id = t.id
WHERE coalesce(t.home_cluster, (SELECT f.uid FROM clusters AS f WHERE f.first)) = @cluster::uuid
ORDER BY t.name FOR UPDATE OF t;

-- name: MoveTeam :one
UPDATE teams SET home_cluster = @cluster::uuid, object_uid = CASE WHEN @disown::boolean THEN NULL ELSE object_uid END,
    updated_at = coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())
WHERE id = @id
RETURNING *;

-- name: LockQuotasOf :many
-- Accounts first, in the order of their ids, as everywhere.
SELECT user_id FROM usage_quotas
WHERE (home_cluster = @cluster::uuid OR home_cluster IS NULL AND quota_uid IS NOT NULL AND @with_unnamed::boolean)
  AND user_id > @after
ORDER BY user_id LIMIT @most FOR NO KEY UPDATE;

-- name: MoveQuotas :many
UPDATE usage_quotas AS a SET home_cluster = @cluster::uuid, quota_uid = CASE WHEN @disown::boolean THEN NULL ELSE a.quota_uid END
FROM (SELECT b.user_id, b.home_cluster, b.quota_uid FROM usage_quotas AS b WHERE b.user_id = ANY (@ids::uuid[])) AS was
WHERE a.user_id = was.user_id
RETURNING sqlc.embed(a), was.home_cluster AS was_home, was.quota_uid AS was_quota_uid;

-- name: LockAccountsWithJobsOf :many
-- An admission changes under its account's lock only, so that nobody waits for rows in another order.
SELECT a.user_id FROM usage_quotas AS a
WHERE a.user_id > @after AND EXISTS (
    SELECT FROM concurrent_processing AS c
    WHERE c.user_id = a.user_id AND c.state IN ('Queued', 'Admitted') AND c.source = 'job'
      AND (c.cluster_uid = @cluster::uuid OR c.cluster_uid IS NULL AND @with_unnamed::boolean))
ORDER BY a.user_id LIMIT @most FOR NO KEY UPDATE OF a;

-- name: MoveJobs :many
UPDATE concurrent_processing SET cluster_uid = @cluster::uuid
WHERE user_id = ANY (@ids::uuid[]) AND state IN ('Queued', 'Admitted') AND source = 'job'
  AND (cluster_uid = @from_cluster::uuid OR cluster_uid IS NULL AND @with_unnamed::boolean)
RETURNING id, user_id;

-- name: CountOwned :one
SELECT ARRAY(SELECT p.name FROM user_plan_limits AS p WHERE p.home_cluster = @cluster::uuid OR p.home_cluster IS NULL AND f.first ORDER BY p.name)::text[] AS plans,
    ARRAY(SELECT t.name FROM teams AS t WHERE t.home_cluster = @cluster::uuid OR t.home_cluster IS NULL AND f.first ORDER BY t.name)::text[] AS teams,
    (SELECT count(*) FROM usage_quotas AS a
     WHERE a.home_cluster = @cluster::uuid OR a.home_cluster IS NULL AND a.quota_uid IS NOT NULL AND f.first)::bigint AS quotas,
    (SELECT count(*) FROM concurrent_processing AS c WHERE c.state IN ('Queued', 'Admitted') AND c.source = 'job'
     AND (c.cluster_uid = @cluster::uuid OR c.cluster_uid IS NULL AND f.first))::bigint AS jobs
FROM (SELECT EXISTS (SELECT FROM clusters WHERE first AND uid = @cluster::uuid) AS first) AS f;
