-- Lists of what there is, page by page. No page reads more than its own length, a stated number of rows, or what runs.

-- name: ListUsers :many
-- Those whose ids begin so and come behind one, in the order of their bytes. until is behind all that begin so.
SELECT u.user_id, u.created_at, coalesce(a.plan_name, '')::text AS plan_name, a.suspended, a.time_zone,
    coalesce(a.quota_name, '')::text AS quota_name, coalesce(t.name, '')::text AS team
FROM users AS u JOIN usage_quotas AS a ON a.user_id = u.id LEFT JOIN teams AS t ON t.id = a.member_of
WHERE u.user_id COLLATE "C" > @after::text AND u.user_id COLLATE "C" >= @prefix::text AND u.user_id COLLATE "C" < @until::text
ORDER BY u.user_id COLLATE "C" LIMIT @most;

-- name: GetUser :one
SELECT u.user_id, u.created_at, coalesce(a.plan_name, '')::text AS plan_name, a.suspended, a.time_zone,
    coalesce(a.quota_name, '')::text AS quota_name, coalesce(t.name, '')::text AS team
FROM users AS u JOIN usage_quotas AS a ON a.user_id = u.id LEFT JOIN teams AS t ON t.id = a.member_of
WHERE u.user_id = @user_id;

-- name: GrantOf :one
SELECT credits, expires_at FROM credit_lots WHERE id = @id::uuid;

-- name: ListAdmissions :many
-- A user's that wait, run or have ended without a charge, those that arrived last first, behind one. Each branch is an index's.
SELECT sqlc.embed(c), u.user_id AS external_id,
    coalesce(c.cluster_uid, CASE WHEN c.source = 'job' THEN (SELECT f.uid FROM clusters AS f WHERE f.first) END,
        '00000000-0000-0000-0000-000000000000')::uuid AS cluster,
    coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())::timestamptz AS now,
    coalesce((SELECT t.name FROM teams AS t WHERE t.id = c.payer_id AND c.admitted_at IS NOT NULL), '')::text AS payer_team
FROM (
    (SELECT q.id FROM concurrent_processing AS q
    WHERE q.user_id = @account::uuid AND q.state IN ('Queued', 'Admitted') AND q.source IN ('api', 'job')
      AND q.state = ANY (@states::text[]) AND (@reason::text = '' OR q.reason = @reason) AND q.arrived_seq < @before::bigint
    ORDER BY q.arrived_seq DESC LIMIT @most)
    UNION ALL
    (SELECT e.id FROM concurrent_processing AS e
    WHERE e.user_id = @account AND e.state IN ('Released', 'Expired', 'Cancelled') AND e.source IN ('api', 'job')
      AND e.state = ANY (@states) AND (@reason = '' OR e.reason = @reason) AND e.arrived_seq < @before
    ORDER BY e.arrived_seq DESC LIMIT @most)
) AS page JOIN concurrent_processing AS c ON c.id = page.id JOIN users AS u ON u.id = c.user_id
ORDER BY c.arrived_seq DESC LIMIT @most;

-- name: StuckAdmissions :many
-- Those of the accounts from one to another, which may be the same, that seem to have lost their holder, the ones that were admitted
-- first first, behind one. The rule is StuckAt's in quota, and a test compares the two. All that runs of those accounts is looked at,
-- and nothing else.
SELECT sqlc.embed(c), u.user_id AS external_id,
    coalesce(c.cluster_uid, CASE WHEN c.source = 'job' THEN (SELECT f.uid FROM clusters AS f WHERE f.first) END,
        '00000000-0000-0000-0000-000000000000')::uuid AS cluster,
    page.now::timestamptz AS now,
    coalesce((SELECT t.name FROM teams AS t WHERE t.id = c.payer_id), '')::text AS payer_team
FROM (
    SELECT s.id, n.now FROM concurrent_processing AS s
    CROSS JOIN (SELECT coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()) AS now) AS n
    WHERE s.state = 'Admitted' AND s.source IN ('api', 'job')
      AND s.user_id >= @first_account::uuid AND s.user_id <= @last_account::uuid
      AND (n.now - s.lease_until > 2 * s.lease_ms * interval '1 millisecond'
        OR n.now - s.admitted_at > greatest(interval '10 minutes', 3 * s.estimate * interval '1 millisecond'))
      AND (s.admitted_at, s.id) > (@admitted_after::timestamptz, @after::uuid)
    ORDER BY s.admitted_at, s.id LIMIT @most
) AS page JOIN concurrent_processing AS c ON c.id = page.id JOIN users AS u ON u.id = c.user_id
ORDER BY c.admitted_at, c.id;

-- name: ListEvents :many
-- A user's that are booked in one of its periods, the newest first, behind one. Only those of the period are read.
SELECT sqlc.embed(e), u.user_id AS external_id, r.reversal_id,
    coalesce((SELECT t.name FROM teams AS t WHERE t.id = e.payer_id), '')::text AS payer_team
FROM (SELECT o.* FROM usage_tracking AS o
    WHERE o.user_id = @account::uuid AND o.period_id = @period::bigint AND (o.seq, o.id) < (@before_seq::bigint, @before::uuid)
    ORDER BY o.seq DESC, o.id DESC LIMIT @most) AS page
JOIN usage_tracking AS e ON e.id = page.id AND e.recorded_at = page.recorded_at
JOIN users AS u ON u.id = e.user_id
LEFT JOIN usage_reversals AS r ON r.event_id = e.id
ORDER BY e.seq DESC, e.id DESC;

-- name: SearchAudit :many
-- The newest rows first, behind one, of all, of an account or of an object. A page looks at so many of those at most, however few
-- fit the rest: the last one that it has looked at comes in any case, and says whether it fits.
WITH page AS MATERIALIZED (
    (SELECT l.* FROM audit_log AS l WHERE @scope::text = 'account' AND l.user_id = @account::uuid AND l.id < @before::bigint
    ORDER BY l.id DESC LIMIT @look)
    UNION ALL
    (SELECT l.* FROM audit_log AS l WHERE @scope = 'object' AND l.object_kind = @object_kind::text
      AND l.object_name = @object_name::text AND l.id < @before
    ORDER BY l.id DESC LIMIT @look)
    UNION ALL
    (SELECT l.* FROM audit_log AS l WHERE @scope = 'all' AND l.id < @before ORDER BY l.id DESC LIMIT @look)),
found AS (
    SELECT p.*, ((@action::text = '' OR p.action = @action) AND p.at >= @since::timestamptz AND p.at < @until::timestamptz
        AND (@actor::text = '' OR p.actor = @actor
            OR p.actor = 'person:' || (SELECT n.id FROM actors AS n WHERE n.name = @actor)))::boolean AS fits
    FROM page AS p)
SELECT f.id, f.at, f.actor, coalesce(n.name, '')::text AS person, f.action, f.object_kind, f.object_name,
    coalesce(u.user_id, '')::text AS external_id, f.before, f.after, f.fits,
    coalesce(CASE f.object_kind
        WHEN 'UsageEvent' THEN (SELECT e.reason FROM usage_tracking AS e WHERE e.id = f.object_name::uuid AND e.recorded_at = f.at)
        WHEN 'Admission' THEN (SELECT c.release_reason FROM concurrent_processing AS c
            WHERE c.id = f.object_name::uuid AND f.action = 'admission.released')
        ELSE (SELECT r.reason FROM audit_reasons AS r WHERE r.audit_id = f.id) END, '')::text AS reason, (SELECT count(*) FROM page)::bigint AS looked
FROM found AS f LEFT JOIN users AS u ON u.id = f.user_id LEFT JOIN actors AS n ON f.actor = 'person:' || n.id
WHERE f.fits OR f.id = (SELECT min(p.id) FROM page AS p)
ORDER BY f.id DESC LIMIT @most;
