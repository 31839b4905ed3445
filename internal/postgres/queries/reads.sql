-- Reads without locks.

-- name: AccountID :one
SELECT a.user_id FROM usage_quotas AS a JOIN users AS u ON u.id = a.user_id WHERE u.user_id = @user_id;

-- name: ReadAccounts :many
-- With the version of the plan, the home and the parent, as LoadAccounts.
SELECT sqlc.embed(a), u.user_id AS external_id, coalesce((SELECT p.version FROM user_plan_limits AS p WHERE p.name = a.plan_name), 0)::bigint AS plan_version,
    coalesce(a.home_cluster, CASE WHEN a.quota_uid IS NOT NULL THEN (SELECT f.uid FROM clusters AS f WHERE f.first) END,
        '00000000-0000-0000-0000-000000000000')::uuid AS home,
    coalesce(a.member_of, nullif((SELECT t.id FROM teams AS t WHERE t.active_root), a.user_id),
        '00000000-0000-0000-0000-000000000000')::uuid AS parent,
    greatest(coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()), a.last_decided_at)::timestamptz AS now
FROM users AS u JOIN usage_quotas AS a ON a.user_id = u.id
WHERE u.user_id = ANY (@user_ids::text[]);

-- name: ReadAbove :many
-- The teams above the accounts with these parents, up to the root. One is contended if something right below it could run:
-- OFFSET keeps the planner from looking for all of whom that is so.
WITH RECURSIVE above (id) AS (
    SELECT unnest(@parents::uuid[])
    UNION
    SELECT coalesce(b.member_of, nullif((SELECT r.id FROM teams AS r WHERE r.active_root), b.user_id))
    FROM usage_quotas AS b JOIN above ON above.id = b.user_id)
SELECT sqlc.embed(a), sqlc.embed(t), coalesce((SELECT p.version FROM user_plan_limits AS p WHERE p.name = a.plan_name), 0)::bigint AS plan_version,
    coalesce(a.member_of, nullif((SELECT r.id FROM teams AS r WHERE r.active_root), a.user_id),
        '00000000-0000-0000-0000-000000000000')::uuid AS parent,
    EXISTS (SELECT FROM queue_turns AS n WHERE n.parent_id = a.user_id AND n.runnable OFFSET 0)::boolean AS contended
FROM above JOIN usage_quotas AS a ON a.user_id = above.id JOIN teams AS t ON t.id = a.user_id;

-- name: ReadLots :many
SELECT l.* FROM users AS u JOIN credit_lots AS l ON l.user_id = u.id
WHERE u.user_id = ANY (@user_ids::text[])
  AND (l.reserved > 0 OR l.expires_at IS NULL
       OR l.expires_at > coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()) - interval '1 minute');

-- name: LastPeriods :many
SELECT p.* FROM users AS u JOIN usage_quotas AS a ON a.user_id = u.id
JOIN usage_periods AS p ON p.user_id = a.user_id AND p.period_no = a.period_no - 1
WHERE u.user_id = ANY (@user_ids::text[]);

-- name: AllPlans :many
SELECT * FROM user_plan_limits ORDER BY rank, name;

-- name: Admission :one
SELECT sqlc.embed(c), u.user_id AS external_id,
    coalesce(c.cluster_uid, CASE WHEN c.source = 'job' THEN (SELECT f.uid FROM clusters AS f WHERE f.first) END,
        '00000000-0000-0000-0000-000000000000')::uuid AS cluster,
    coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())::timestamptz AS now,
    CASE WHEN c.state = 'Queued' AND NOT c.parked THEN (
        SELECT count(*) FROM concurrent_processing AS o
        WHERE o.user_id = c.user_id AND o.state = 'Queued' AND NOT o.parked
          AND (o.priority > c.priority OR (o.priority = c.priority AND o.arrived_seq <= c.arrived_seq)))
    ELSE 0 END::bigint AS position,
    CASE WHEN c.state = 'Queued' THEN (
        SELECT count(*) FROM concurrent_processing AS o
        WHERE o.user_id = c.user_id AND o.state = 'Queued' AND NOT o.parked)
    ELSE 0 END::bigint AS waiting,
    coalesce((SELECT t.name FROM teams AS t WHERE t.id = c.payer_id AND c.admitted_at IS NOT NULL), '')::text AS payer_team
FROM concurrent_processing AS c JOIN users AS u ON u.id = c.user_id
WHERE c.id = @id;

-- name: PlaceOf :one
-- The place among those of the user that wait for the same: for a slot, or parked for one reason.
SELECT count(*) FILTER (WHERE o.priority > @priority OR (o.priority = @priority AND o.arrived_seq <= @arrived))::bigint AS position,
    count(*)::bigint AS waiting
FROM concurrent_processing AS o
WHERE o.user_id = @account AND o.state = 'Queued' AND o.parked = @parked::boolean AND (NOT o.parked OR o.reason = @reason::text);

-- name: Queued :many
-- What waits behind a place, in the order of Waiting, of one account or of all.
SELECT c.id, c.user_id, u.user_id AS external_id, c.source, c.namespace, c.name, c.reason, c.parked, c.estimate, c.file_size,
    c.priority, c.arrived_seq, coalesce(c.requeued_at, c.created_at)::timestamptz AS since
FROM (
    (SELECT p.id FROM concurrent_processing AS p
    WHERE p.state = 'Queued' AND p.user_id = @account::uuid AND p.parked = @parked::boolean AND p.priority = @priority::integer
        AND p.arrived_seq > @arrived::bigint
    ORDER BY p.arrived_seq LIMIT @most)
    UNION ALL
    (SELECT q.id FROM concurrent_processing AS q
    WHERE q.state = 'Queued' AND q.user_id = @account AND q.parked = @parked AND q.priority < @priority
    ORDER BY q.priority DESC, q.arrived_seq LIMIT @most)
    UNION ALL
    (SELECT r.id FROM concurrent_processing AS r
    WHERE r.state = 'Queued' AND r.user_id = @account AND r.parked AND NOT @parked
    ORDER BY r.priority DESC, r.arrived_seq LIMIT @most)
    UNION ALL
    (SELECT s.id FROM concurrent_processing AS s
    WHERE s.state = 'Queued' AND s.user_id > @account AND NOT @alone::boolean
    ORDER BY s.user_id, s.parked, s.priority DESC, s.arrived_seq LIMIT @most)
    LIMIT @most
) AS page JOIN concurrent_processing AS c ON c.id = page.id JOIN users AS u ON u.id = c.user_id
ORDER BY c.user_id, c.parked, c.priority DESC, c.arrived_seq;

-- name: RecentStarts :many
-- The latest that had waited for a slot and nothing else.
SELECT coalesce(requeued_at, created_at)::timestamptz AS since, admitted_at::timestamptz AS at FROM concurrent_processing
WHERE user_id = @account AND arrived_seq < admitted_seq AND NOT ever_parked AND NOT offline
ORDER BY admitted_seq DESC LIMIT @most;

-- name: LastStart :one
-- Of what runs; long ago if nothing does. Where so much runs that this does not read all of it, the exact moment matters no more.
SELECT coalesce(max(r.admitted_at), 'epoch')::timestamptz AS at FROM (
    SELECT admitted_at FROM concurrent_processing
    WHERE state = 'Admitted' AND source IN ('api', 'job') AND user_id = @account LIMIT @most) AS r;

-- name: LiveJobs :many
SELECT sqlc.embed(c), u.user_id AS external_id, coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())::timestamptz AS now
FROM concurrent_processing AS c JOIN users AS u ON u.id = c.user_id
WHERE c.state IN ('Queued', 'Admitted') AND c.source = 'job'
  AND coalesce(c.cluster_uid, (SELECT f.uid FROM clusters AS f WHERE f.first)) IS NOT DISTINCT FROM sqlc.narg('cluster')::uuid
ORDER BY c.user_id, c.arrived_seq;

-- name: RunningJobs :many
SELECT sqlc.embed(c), u.user_id AS external_id,
    coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())::timestamptz AS now
FROM concurrent_processing AS c JOIN users AS u ON u.id = c.user_id
WHERE c.state = 'Admitted' AND c.source = 'job'
  AND coalesce(c.cluster_uid, (SELECT f.uid FROM clusters AS f WHERE f.first)) IS NOT DISTINCT FROM sqlc.narg('cluster')::uuid;

-- name: QuotaOwner :one
SELECT user_id FROM usage_quotas WHERE quota_uid = @uid::uuid;

-- name: LeaseKey :one
SELECT secret FROM service_keys WHERE purpose = 'lease';

-- name: DuePeriods :many
SELECT user_id FROM usage_quotas
WHERE period_end <= coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())
  AND plan_name = @plan AND user_id > @after
ORDER BY user_id LIMIT @most;

-- name: DueLeases :many
-- With ties, for a page must not end within an account: the next one starts behind it.
SELECT user_id, id FROM concurrent_processing
WHERE state IN ('Queued', 'Admitted') AND source = 'api'
  AND lease_until < coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())
  AND user_id > @after
ORDER BY user_id FETCH FIRST (sqlc.arg('most')::bigint) ROWS WITH TIES;

-- name: DueWaits :many
-- From one account with a queue to the next, as DueQueues, and there to what has waited for too long, not through what has
-- not; to none if no plan has a bound. The plan is that of the nearest above who has one, for that pays. With ties, as DueLeases. The clock is read once, for what an index is searched by must
-- hold still, and OFFSET keeps the planner from going through all that waits.
WITH RECURSIVE waiting AS (
    (SELECT c.user_id FROM concurrent_processing AS c
    WHERE c.state = 'Queued' AND c.user_id > @after AND EXISTS (SELECT FROM user_plan_limits WHERE max_wait_seconds IS NOT NULL)
    ORDER BY c.user_id LIMIT 1)
    UNION ALL
    SELECT (SELECT c.user_id FROM concurrent_processing AS c WHERE c.state = 'Queued' AND c.user_id > w.user_id
        ORDER BY c.user_id LIMIT 1)
    FROM waiting AS w WHERE w.user_id IS NOT NULL)
SELECT a.user_id, o.id FROM waiting AS w JOIN usage_quotas AS a ON a.user_id = w.user_id
LEFT JOIN usage_quotas AS t1 ON t1.user_id = a.parent_id LEFT JOIN usage_quotas AS t2 ON t2.user_id = t1.parent_id
LEFT JOIN usage_quotas AS t3 ON t3.user_id = t2.parent_id
JOIN user_plan_limits AS p ON p.name = coalesce(t1.plan_name, t2.plan_name, t3.plan_name, a.plan_name)
CROSS JOIN LATERAL (SELECT c.id FROM concurrent_processing AS c
    WHERE c.user_id = w.user_id AND c.state = 'Queued' AND c.enforced
      AND coalesce(c.requeued_at, c.created_at)
          < (SELECT coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())) - p.max_wait_seconds * interval '1 second'
    OFFSET 0) AS o
ORDER BY a.user_id FETCH FIRST (sqlc.arg('most')::bigint) ROWS WITH TIES;

-- name: DueQueues :many
-- Goes from one account with a queue to the next, not through the queues. Who is below a team may have slots of its own and wait
-- for the team's: of such a tree the turn of its top tells whether anything could start. Whose turn says that nothing could run
-- though a slot of its own is free is looked at too, for a plan or a team may have changed and whoever did it died; and a team
-- if its period has ended, for what waits below it.
WITH RECURSIVE waiting AS (
    (SELECT c.user_id FROM concurrent_processing AS c WHERE c.state = 'Queued' AND c.user_id > @after ORDER BY c.user_id LIMIT 1)
    UNION ALL
    SELECT (SELECT c.user_id FROM concurrent_processing AS c WHERE c.state = 'Queued' AND c.user_id > w.user_id
        ORDER BY c.user_id LIMIT 1)
    FROM waiting AS w WHERE w.user_id IS NOT NULL)
SELECT a.user_id FROM waiting AS w JOIN usage_quotas AS a ON a.user_id = w.user_id JOIN user_plan_limits AS p ON p.name = a.plan_name
WHERE @whatever::boolean OR a.parked > @parked::integer
   OR a.period_end <= coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())
   OR (a.queued > a.parked AND a.parent_id IS NULL AND ('concurrent' = ANY (a.unlimited_overrides)
       OR a.active < coalesce(a.concurrent_override, p.concurrent_limit, a.active + 1)))
   OR (a.queued > a.parked AND a.parent_id IS NOT NULL
       AND NOT EXISTS (SELECT FROM queue_turns AS t WHERE t.account_id = a.user_id AND t.runnable OFFSET 0)
       AND a.active < (
           SELECT coalesce(CASE WHEN 'concurrent' = ANY (a.unlimited_overrides) THEN NULL
               WHEN a.concurrent_override IS NOT NULL THEN a.concurrent_override
               WHEN coalesce(a1.plan_name, a2.plan_name, a3.plan_name) IS NULL THEN least(p.concurrent_limit, m.most)
               ELSE m.most END, a.active + 1)
           FROM usage_quotas AS a1 JOIN teams AS g1 ON g1.id = a1.user_id
           LEFT JOIN usage_quotas AS a2 ON a2.user_id = a1.parent_id LEFT JOIN teams AS g2 ON g2.id = a2.user_id
           LEFT JOIN usage_quotas AS a3 ON a3.user_id = a2.parent_id LEFT JOIN teams AS g3 ON g3.id = a3.user_id
           CROSS JOIN LATERAL (SELECT CASE WHEN 'concurrent' = ANY (g1.unlimited_members) THEN NULL
               WHEN g1.member_concurrent IS NOT NULL THEN g1.member_concurrent
               WHEN 'concurrent' = ANY (g2.unlimited_members) THEN NULL
               WHEN g2.member_concurrent IS NOT NULL THEN g2.member_concurrent
               WHEN 'concurrent' = ANY (g3.unlimited_members) THEN NULL ELSE g3.member_concurrent END AS most) AS m
           WHERE a1.user_id = a.parent_id))
   OR (a.parked > 0 AND a.day < (coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()) AT TIME ZONE 'UTC')::date
       AND EXISTS (SELECT FROM concurrent_processing AS c
           WHERE c.user_id = a.user_id AND c.state = 'Queued' AND c.parked AND c.reason = 'DailyCostCeiling'))
UNION
SELECT t.account_id FROM queue_turns AS t WHERE t.parent_id IS NULL AND t.runnable AND t.account_id > @after
UNION
SELECT a.user_id FROM teams AS t JOIN usage_quotas AS a ON a.user_id = t.id
LEFT JOIN user_plan_limits AS p ON p.name = a.plan_name
WHERE t.id > @after AND a.queued > 0 AND (a.period_end <= coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())
    OR (NOT a.suspended AND a.active < coalesce(least(t.concurrent_cap, p.concurrent_limit), a.active + 1)
        AND NOT EXISTS (SELECT FROM queue_turns AS o WHERE o.account_id = t.id AND o.runnable OFFSET 0)
        AND EXISTS (SELECT FROM queue_turns AS n WHERE n.parent_id = t.id AND n.runnable OFFSET 0)))
ORDER BY user_id LIMIT @most;

-- name: DueMoved :many
-- What waits and is counted elsewhere than it has to be, and the teams of no plan, and so of no plan's reset, whose period has ended.
-- From one account with a queue to the next, as DueQueues, and the teams; nothing at all as long as there are none.
WITH RECURSIVE root AS MATERIALIZED (SELECT t.id FROM teams AS t WHERE t.active_root),
waiting AS (
    (SELECT c.user_id FROM concurrent_processing AS c WHERE c.state = 'Queued' AND c.user_id > @after AND EXISTS (SELECT FROM teams)
    ORDER BY c.user_id LIMIT 1)
    UNION ALL
    SELECT (SELECT c.user_id FROM concurrent_processing AS c WHERE c.state = 'Queued' AND c.user_id > w.user_id
        ORDER BY c.user_id LIMIT 1)
    FROM waiting AS w WHERE w.user_id IS NOT NULL)
SELECT a.user_id FROM (SELECT w.user_id FROM waiting AS w UNION ALL SELECT t.id FROM teams AS t WHERE t.id > @after) AS m
JOIN usage_quotas AS a ON a.user_id = m.user_id
WHERE (a.queued > 0
       AND a.parent_id IS DISTINCT FROM coalesce(a.member_of, nullif((SELECT r.id FROM root AS r), a.user_id)))
   OR (a.plan_name IS NULL AND a.period_end <= coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()))
ORDER BY a.user_id LIMIT @most;

-- name: ReadTeams :many
SELECT sqlc.embed(a), sqlc.embed(t), coalesce((SELECT p.version FROM user_plan_limits AS p WHERE p.name = a.plan_name), 0)::bigint AS plan_version,
    coalesce(t.home_cluster, (SELECT f.uid FROM clusters AS f WHERE f.first), '00000000-0000-0000-0000-000000000000')::uuid AS home,
    coalesce(a.member_of, nullif((SELECT r.id FROM teams AS r WHERE r.active_root), a.user_id),
        '00000000-0000-0000-0000-000000000000')::uuid AS parent,
    greatest(coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()), a.last_decided_at)::timestamptz AS now
FROM teams AS t JOIN usage_quotas AS a ON a.user_id = t.id
WHERE t.name = ANY (@names::text[]);

-- name: AllTeams :many
SELECT sqlc.embed(t), sqlc.embed(a) FROM teams AS t JOIN usage_quotas AS a ON a.user_id = t.id ORDER BY t.name;

-- name: CountBelow :many
-- How many users are below the teams, right below them, and how many teams. Everybody is below the root: that is told by the
-- accounts there are, and takes its time where these are millions.
WITH RECURSIVE below (top, id) AS (
    SELECT t.id, t.id FROM teams AS t WHERE t.id = ANY (@ids::uuid[])
    UNION
    SELECT b.top, c.id FROM below AS b JOIN usage_quotas AS a ON a.member_of = b.id JOIN teams AS c ON c.id = a.user_id)
SELECT t.id,
    CASE WHEN t.active_root THEN (SELECT count(*) FROM usage_quotas) - (SELECT count(*) FROM teams)
        ELSE (SELECT count(*) FROM below AS b JOIN usage_quotas AS a ON a.member_of = b.id
              WHERE b.top = t.id AND NOT EXISTS (SELECT FROM teams AS x WHERE x.id = a.user_id)) END::bigint AS members,
    (SELECT count(*) FROM usage_quotas AS a WHERE (a.member_of = t.id OR t.active_root AND a.member_of IS NULL)
        AND NOT EXISTS (SELECT FROM teams AS x WHERE x.id = a.user_id))::bigint AS direct,
    (SELECT count(*) FROM teams AS x JOIN usage_quotas AS a ON a.user_id = x.id
        WHERE x.id <> t.id AND (a.member_of = t.id OR t.active_root AND a.member_of IS NULL))::bigint AS teams
FROM teams AS t WHERE t.id = ANY (@ids::uuid[]);

-- name: TeamLastPeriods :many
SELECT p.* FROM usage_quotas AS a JOIN usage_periods AS p ON p.user_id = a.user_id AND p.period_no = a.period_no - 1
WHERE a.user_id = ANY (@ids::uuid[]);

-- name: QuotaOwners :many
SELECT quota_uid::uuid FROM usage_quotas
WHERE quota_uid IS NOT NULL
  AND coalesce(home_cluster, (SELECT f.uid FROM clusters AS f WHERE f.first)) IS NOT DISTINCT FROM sqlc.narg('cluster')::uuid;

-- name: MissingPartitions :one
-- Whether a partition of this or one of the next three months is missing: making one takes a lock, looking does not.
SELECT EXISTS (
    SELECT FROM generate_series(0, 3) AS n
    WHERE to_regclass('usage_tracking_' || to_char((now() AT TIME ZONE 'UTC') + n * interval '1 month', 'YYYYMM')) IS NULL);

-- name: EnsurePartitions :exec
SELECT ensure_usage_partition(((date_trunc('month', now() AT TIME ZONE 'UTC')) + n * interval '1 month')::date) FROM generate_series(0, 3) AS n;

-- name: GrantsOfUsers :many
SELECT u.user_id, l.name FROM credit_lots AS l JOIN users AS u ON u.id = l.user_id
WHERE u.user_id = ANY(@user_ids::text[]) AND l.kind = 'grant' ORDER BY u.user_id, l.name;

-- name: CountWork :one
SELECT count(*) FILTER (WHERE state = 'Admitted') AS running, count(*) FILTER (WHERE state = 'Queued') AS queued
FROM concurrent_processing WHERE state IN ('Queued', 'Admitted');
