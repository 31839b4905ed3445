-- What is asked of those that wait below teams, without locks.

-- name: TurnsOf :many
SELECT * FROM queue_turns WHERE account_id = ANY (@accounts::uuid[]);

-- name: TurnsBefore :many
-- The other children of a parent that could run and start no later than a point, with how much waits below each.
SELECT t.account_id, t.start_units, t.start_part, t.weight, greatest(a.queued - a.parked, 0)::integer AS waiting
FROM queue_turns AS t JOIN usage_quotas AS a ON a.user_id = t.account_id
WHERE t.parent_id = @parent::uuid AND t.runnable AND (t.start_units, t.start_part) <= (@units::bigint, @part::bigint)
  AND t.account_id <> @account::uuid
ORDER BY t.start_units, t.start_part, t.account_id LIMIT @most;

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
-- The users below a team with something that waits, from an account on.
WITH RECURSIVE nodes AS MATERIALIZED (
    SELECT t.id, coalesce(a.member_of, nullif((SELECT r.id FROM teams AS r WHERE r.active_root), t.id)) AS parent
    FROM teams AS t JOIN usage_quotas AS a ON a.user_id = t.id),
below (id) AS (
    SELECT @team::uuid
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
      AND EXISTS (SELECT FROM teams AS r WHERE r.id = @team AND r.active_root)
    ORDER BY a.user_id LIMIT @most)) AS w
ORDER BY w.user_id LIMIT @most;
