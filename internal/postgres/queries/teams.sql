-- What is asked of teams, without locks, and what a batch adds to the shares of their members.

-- name: AddShares :exec
-- Whoever writes has the team's account locked.
INSERT INTO team_shares (team_id, period_no, user_id, used)
SELECT unnest(@teams::uuid[]), unnest(@periods::bigint[]), unnest(@users::uuid[]), unnest(@used::bigint[])
ON CONFLICT (team_id, period_no, user_id) DO UPDATE SET used = team_shares.used + excluded.used;

-- name: TeamID :one
SELECT id FROM teams WHERE name = @name;

-- name: TeamNames :many
SELECT name FROM teams WHERE name > @after::text ORDER BY name LIMIT @most;

-- name: PeriodsOf :many
SELECT * FROM usage_periods WHERE user_id = @account AND period_no < @before::bigint ORDER BY period_no DESC LIMIT @most;

-- name: Shares :many
-- Those of a period, of the open one as it is stored without a number.
SELECT s.period_no, s.user_id, u.user_id AS external_id, s.used FROM team_shares AS s JOIN users AS u ON u.id = s.user_id
WHERE s.team_id = @team::uuid AND s.user_id > @after::uuid
  AND s.period_no = coalesce(sqlc.narg('period')::bigint, (SELECT a.period_no FROM usage_quotas AS a WHERE a.user_id = @team))
ORDER BY s.user_id LIMIT @most;

-- name: SharesBefore :many
-- The first ones of each of the periods before a number, of the latest so many.
SELECT s.period_no, s.user_id, u.user_id AS external_id, s.used
FROM ((SELECT a.period_no FROM usage_quotas AS a WHERE a.user_id = @team::uuid AND a.period_no < @before::bigint)
    UNION ALL
    (SELECT p.period_no FROM usage_periods AS p WHERE p.user_id = @team AND p.period_no < @before ORDER BY p.period_no DESC LIMIT @most)
) AS n CROSS JOIN LATERAL (
    SELECT f.* FROM team_shares AS f WHERE f.team_id = @team AND f.period_no = n.period_no ORDER BY f.user_id LIMIT @shares
) AS s JOIN users AS u ON u.id = s.user_id
ORDER BY s.period_no DESC, s.user_id;

-- name: TeamMembers :many
-- The users below a team behind one, with what they have used of its open period. Each team below gives as many as are asked for
-- at most; below the root is everybody but who is in a team that is not. OFFSET has each row looked up by its key.
WITH RECURSIVE nodes AS MATERIALIZED (
    SELECT t.id, coalesce(a.member_of, nullif((SELECT r.id FROM teams AS r WHERE r.active_root), t.id)) AS parent
    FROM teams AS t JOIN usage_quotas AS a ON a.user_id = t.id),
below (id) AS (
    SELECT @team::uuid
    UNION
    SELECT n.id FROM nodes AS n JOIN below AS b ON n.parent = b.id),
members AS (
    (SELECT m.user_id FROM below AS b CROSS JOIN LATERAL (
        SELECT a.user_id FROM usage_quotas AS a WHERE a.member_of = b.id AND a.user_id > @after::uuid
            AND a.user_id NOT IN (SELECT n.id FROM nodes AS n)
        ORDER BY a.user_id LIMIT @most) AS m
    WHERE NOT EXISTS (SELECT FROM teams AS r WHERE r.id = @team AND r.active_root))
    UNION ALL
    (SELECT a.user_id FROM usage_quotas AS a
    WHERE a.user_id > @after AND a.user_id NOT IN (SELECT n.id FROM nodes AS n) AND EXISTS (SELECT FROM teams AS r WHERE r.id = @team AND r.active_root)
      AND (a.member_of IS NULL OR a.member_of IN (SELECT id FROM below))
    ORDER BY a.user_id LIMIT @most))
SELECT a.user_id, a.external_id, coalesce((SELECT t.name FROM teams AS t WHERE t.id = a.member_of), '')::text AS team,
    a.active, a.queued, coalesce((SELECT s.used FROM team_shares AS s WHERE s.team_id = @team AND s.user_id = a.user_id
        AND s.period_no = (SELECT o.period_no FROM usage_quotas AS o WHERE o.user_id = @team)), 0)::bigint AS used
FROM (SELECT m.user_id FROM members AS m ORDER BY m.user_id LIMIT @most) AS p CROSS JOIN LATERAL (
    SELECT q.user_id, u.user_id AS external_id, q.member_of, q.active, q.queued
    FROM usage_quotas AS q JOIN users AS u ON u.id = q.user_id WHERE q.user_id = p.user_id OFFSET 0) AS a
ORDER BY a.user_id;
