-- What is asked of those that wait below teams, without locks.

-- name: TurnsBelow :many
-- The first children of each parent that could run, in the order in which it is their turn, with how much waits below each: looked
-- up one by one, however many there may seem to be.
SELECT t.parent_id, t.account_id, t.start_units, t.start_part, t.weight,
    coalesce((SELECT greatest(a.queued - a.parked, 0) FROM usage_quotas AS a WHERE a.user_id = t.account_id), 0)::integer AS waiting
FROM unnest(@parents::uuid[]) AS p (id) CROSS JOIN LATERAL (
    SELECT q.* FROM queue_turns AS q WHERE q.parent_id = p.id AND q.runnable
    ORDER BY q.start_units, q.start_part, q.account_id LIMIT @most) AS t
ORDER BY t.parent_id, t.start_units, t.start_part, t.account_id;

-- name: WaitingBelow :one
-- How much waits below the first children of a team that could run, and how many these are.
SELECT coalesce(sum(greatest(a.queued - a.parked, 0)), 0)::bigint AS waiting, count(*) AS children
FROM (SELECT t.account_id FROM queue_turns AS t WHERE t.parent_id = @team::uuid AND t.runnable LIMIT @most) AS n
JOIN usage_quotas AS a ON a.user_id = n.account_id;

-- name: StartsBelow :many
-- The latest starts of each of some accounts that have waited below a team, as RecentStarts.
WITH RECURSIVE below (id) AS (
    SELECT t.account_id FROM queue_turns AS t WHERE t.parent_id = @team::uuid
    UNION ALL
    SELECT t.account_id FROM below AS b JOIN teams AS p ON p.id = b.id CROSS JOIN LATERAL (
        SELECT c.account_id FROM queue_turns AS c WHERE c.parent_id = b.id OFFSET 0) AS t)
SELECT s.user_id, s.since, s.at
FROM (SELECT b.id FROM below AS b LIMIT @accounts) AS n CROSS JOIN LATERAL (
    SELECT c.user_id, coalesce(c.requeued_at, c.created_at)::timestamptz AS since, c.admitted_at::timestamptz AS at
    FROM concurrent_processing AS c
    WHERE c.user_id = n.id AND c.arrived_seq < c.admitted_seq AND NOT c.ever_parked AND NOT c.offline
    ORDER BY c.admitted_seq DESC LIMIT @each) AS s;

-- name: WaitingAccounts :many
-- The users below some teams with something that waits, from an account on.
WITH RECURSIVE nodes AS MATERIALIZED (
    SELECT t.id, coalesce(a.member_of, nullif((SELECT r.id FROM teams AS r WHERE r.active_root), t.id)) AS parent
    FROM teams AS t JOIN usage_quotas AS a ON a.user_id = t.id),
below (id) AS (
    SELECT unnest(@teams::uuid[])
    UNION
    SELECT n.id FROM nodes AS n JOIN below AS b ON n.parent = b.id)
SELECT w.user_id FROM (
    (SELECT m.user_id FROM below AS b CROSS JOIN LATERAL (
        SELECT a.user_id FROM usage_quotas AS a WHERE a.member_of = b.id AND a.user_id >= @since::uuid AND a.queued > 0
            AND a.user_id NOT IN (SELECT n.id FROM nodes AS n)
        ORDER BY a.user_id LIMIT @most) AS m)
    UNION ALL
    (SELECT a.user_id FROM usage_quotas AS a
    WHERE a.user_id >= @since AND a.user_id NOT IN (SELECT n.id FROM nodes AS n) AND a.queued > 0 AND a.member_of IS NULL
      AND EXISTS (SELECT FROM teams AS r WHERE r.id = ANY (@teams::uuid[]) AND r.active_root)
    ORDER BY a.user_id LIMIT @most)) AS w
ORDER BY w.user_id LIMIT @most;

-- name: QueuedAt :many
-- What waits at some accounts, in the order of Queued.
SELECT c.id, c.user_id, u.user_id AS external_id, c.reason, c.parked, c.estimate, c.file_size, c.priority, c.arrived_seq
FROM unnest(@accounts::uuid[]) AS n (id) CROSS JOIN LATERAL (
    SELECT q.* FROM concurrent_processing AS q WHERE q.state = 'Queued' AND q.user_id = n.id
    ORDER BY q.parked, q.priority DESC, q.arrived_seq LIMIT @most) AS c
JOIN users AS u ON u.id = c.user_id
ORDER BY c.user_id, c.parked, c.priority DESC, c.arrived_seq LIMIT @most;
