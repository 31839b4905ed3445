-- Where alerts are sent to, and what has become of each. Nothing here is part of a batch.

-- name: PendingAlerts :many
-- Alerts of which it is not known to whom they go, the oldest first, with the names of the teams that they are about or below.
SELECT a.id, a.kind, coalesce(a.plan_name, '')::text AS plan, coalesce(u.user_id, '')::text AS external_id,
    coalesce(t0.name, '')::text AS team, coalesce(t1.name, '')::text AS above1, coalesce(t2.name, '')::text AS above2,
    coalesce(t3.name, '')::text AS above3, coalesce(a.kind = ANY (p.muted), false)::boolean AS muted
FROM usage_alerts AS a LEFT JOIN users AS u ON u.id = a.user_id
    LEFT JOIN notification_preferences AS p ON p.user_id = a.user_id
    LEFT JOIN usage_quotas AS q0 ON q0.user_id = a.user_id LEFT JOIN teams AS t0 ON t0.id = a.user_id
    LEFT JOIN usage_quotas AS q1 ON q1.user_id = q0.parent_id LEFT JOIN teams AS t1 ON t1.id = q0.parent_id
    LEFT JOIN usage_quotas AS q2 ON q2.user_id = q1.parent_id LEFT JOIN teams AS t2 ON t2.id = q1.parent_id
    LEFT JOIN teams AS t3 ON t3.id = q2.parent_id
WHERE NOT a.dispatched
ORDER BY a.raised_at LIMIT @most FOR UPDATE OF a SKIP LOCKED;

-- name: MarkDispatched :exec
UPDATE usage_alerts SET dispatched = true WHERE id = ANY(@ids::uuid[]);

-- name: ActiveEndpoints :many
-- Those that something is sent to, or would be if they were not suspended.
SELECT sqlc.embed(e), coalesce(t.name, '')::text AS team
FROM notification_endpoints AS e LEFT JOIN teams AS t ON t.id = e.team_id
WHERE e.disabled_at IS NULL ORDER BY e.id;

-- name: InsertDeliveries :exec
-- Once for an endpoint and an alert, whoever finds it again. An endpoint that was deleted meanwhile gets none.
INSERT INTO deliveries (id, endpoint_id, alert_id, state, created_at, expires_at, next_attempt_at)
SELECT v.id, v.endpoint_id, v.alert_id, 'waiting', sqlc.arg(now)::timestamptz, sqlc.arg(expires_at)::timestamptz, sqlc.arg(now)
FROM (SELECT unnest(@ids::uuid[]) AS id, unnest(@endpoints::uuid[]) AS endpoint_id, unnest(@alerts::uuid[]) AS alert_id) AS v
WHERE EXISTS (SELECT FROM notification_endpoints AS e WHERE e.id = v.endpoint_id)
ON CONFLICT DO NOTHING;

-- name: DueEndpoints :many
-- Endpoints of which something is due and that have room in their window for it.
SELECT e.id FROM notification_endpoints AS e
WHERE NOT e.suspended AND e.disabled_at IS NULL AND (e.retry_at IS NULL OR e.retry_at <= @now::timestamptz)
  AND EXISTS (SELECT FROM deliveries AS d
    WHERE d.endpoint_id = e.id AND d.state = 'waiting' AND d.queued_at IS NULL AND d.next_attempt_at <= @now)
  AND (SELECT count(*) FROM deliveries AS d WHERE d.endpoint_id = e.id AND d.queued_at IS NOT NULL)
    < CASE WHEN e.failures >= @failing::integer THEN 1 ELSE @room::integer END
ORDER BY e.retry_at NULLS FIRST, e.id LIMIT @most;

-- name: LockEndpoint :one
SELECT * FROM notification_endpoints WHERE id = @id FOR NO KEY UPDATE;

-- name: TryLockEndpoint :one
SELECT * FROM notification_endpoints WHERE id = @id FOR NO KEY UPDATE SKIP LOCKED;

-- name: TakeDue :many
-- The next ones of an endpoint that is locked, as many as its window has room for.
UPDATE deliveries AS d SET queued_at = @now
WHERE d.id IN (SELECT w.id FROM deliveries AS w
    WHERE w.endpoint_id = @endpoint AND w.state = 'waiting' AND w.queued_at IS NULL AND w.next_attempt_at <= @now
    ORDER BY w.next_attempt_at, w.id
    LIMIT (SELECT greatest(0, sqlc.arg(room)::bigint - count(*)) FROM deliveries AS q
        WHERE q.endpoint_id = @endpoint AND q.queued_at IS NOT NULL))
RETURNING d.id;

-- name: QueuedDelivery :one
-- What a job is about, unless it is over or another job's by now.
SELECT sqlc.embed(d), sqlc.embed(e), coalesce(t.name, '')::text AS team
FROM deliveries AS d JOIN notification_endpoints AS e ON e.id = d.endpoint_id LEFT JOIN teams AS t ON t.id = e.team_id
WHERE d.id = @id AND d.state = 'waiting' AND d.queued_at = @queued_at;

-- name: ReleaseDelivery :exec
-- Without an attempt: its endpoint was suspended or disabled meanwhile.
UPDATE deliveries SET queued_at = NULL WHERE id = @id AND queued_at = @queued_at;

-- name: FinishDelivery :execrows
-- What an attempt has come to. next_attempt_at stays where it is over.
UPDATE deliveries SET state = @state, attempts = attempts + 1, queued_at = NULL,
    first_attempt_at = coalesce(first_attempt_at, @began), last_attempt_at = @began,
    next_attempt_at = coalesce(sqlc.narg('next')::timestamptz, next_attempt_at), finished_at = sqlc.narg('finished'),
    last_status = sqlc.narg('status'), last_error = sqlc.narg('error')
WHERE id = @id AND queued_at = @queued_at;

-- name: EndpointSucceeded :exec
UPDATE notification_endpoints SET failures = 0, retry_at = NULL, slow = @slow, last_success_at = @now WHERE id = @id;

-- name: EndpointFailed :exec
UPDATE notification_endpoints SET failures = @failures, retry_at = sqlc.narg('retry_at'), slow = @slow, last_failure_at = @now,
    last_failure = @failure, disabled_at = coalesce(disabled_at, sqlc.narg('disabled_at')),
    disabled_reason = coalesce(disabled_reason, sqlc.narg('disabled_reason'))
WHERE id = @id;

-- name: HurryDeliveries :exec
-- The endpoint is back: what had been put off is due.
UPDATE deliveries SET next_attempt_at = @now
WHERE endpoint_id = @endpoint AND state = 'waiting' AND queued_at IS NULL AND next_attempt_at > @now;

-- name: ExpireDeliveries :execrows
-- What was tried for long enough.
UPDATE deliveries AS d SET state = 'dead', finished_at = @now,
    last_error = coalesce(d.last_error, (SELECT 'never tried: ' || coalesce(e.disabled_reason, CASE WHEN e.suspended THEN 'the endpoint was suspended' END,
        e.last_failure, 'no attempt could be made') FROM notification_endpoints AS e WHERE e.id = d.endpoint_id))
WHERE d.id IN (SELECT w.id FROM deliveries AS w
    WHERE w.state = 'waiting' AND w.expires_at <= @now AND w.queued_at IS NULL ORDER BY w.expires_at LIMIT @most FOR UPDATE SKIP LOCKED);

-- name: RequeueDeliveries :execrows
-- Those whose job has been lost.
UPDATE deliveries SET queued_at = NULL WHERE id IN (SELECT q.id FROM deliveries AS q
    WHERE q.queued_at IS NOT NULL AND q.queued_at < @before::timestamptz LIMIT @most FOR UPDATE SKIP LOCKED);

-- name: PruneDeliveries :execrows
DELETE FROM deliveries WHERE id IN (SELECT d.id FROM deliveries AS d
    WHERE d.finished_at IS NOT NULL AND d.finished_at < CASE WHEN d.state = 'dead' THEN @dead_before::timestamptz ELSE @delivered_before::timestamptz END
      AND d.finished_at < greatest(@dead_before, @delivered_before)
    ORDER BY d.finished_at LIMIT @most);

-- name: UpsertEndpoint :one
-- What is declared. An endpoint whose declaration changes is tried again, however it failed before.
INSERT INTO notification_endpoints AS e (id, team_id, home_cluster, name, url, kinds, plans, teams, users, allowed_cidrs, signing,
    suspended, audience, version, created_at, updated_at)
VALUES (@id, sqlc.narg('team_id'), sqlc.narg('home_cluster'), @name, @url, @kinds, @plans, @teams, @users, @allowed_cidrs,
    @signing, @suspended, @audience, 1, @now, @now)
ON CONFLICT (team_id, name) DO UPDATE SET url = excluded.url, kinds = excluded.kinds, plans = excluded.plans, teams = excluded.teams,
    users = excluded.users, allowed_cidrs = excluded.allowed_cidrs, signing = excluded.signing, suspended = excluded.suspended,
    audience = excluded.audience,
    home_cluster = coalesce(e.home_cluster, excluded.home_cluster), version = e.version + 1, updated_at = excluded.updated_at,
    failures = 0, retry_at = NULL, disabled_at = NULL, disabled_reason = NULL
RETURNING *;

-- name: EnableEndpoint :exec
UPDATE notification_endpoints SET failures = 0, retry_at = NULL, disabled_at = NULL, disabled_reason = NULL WHERE id = @id;

-- name: PlatformEndpoint :one
SELECT * FROM notification_endpoints WHERE team_id IS NULL AND name = @name;

-- name: LockPlatformEndpoint :one
SELECT * FROM notification_endpoints WHERE team_id IS NULL AND name = @name FOR UPDATE;

-- name: TeamEndpoint :one
SELECT * FROM notification_endpoints WHERE team_id = @team AND name = @name;

-- name: LockTeamEndpoint :one
SELECT * FROM notification_endpoints WHERE team_id = @team AND name = @name FOR UPDATE;

-- name: LockTeam :one
-- So that two do not make the last endpoint that a team may have.
SELECT id FROM teams WHERE name = @name FOR NO KEY UPDATE;

-- name: CountTeamEndpoints :one
SELECT count(*) FROM notification_endpoints WHERE team_id = @team;

-- name: TeamEndpoints :many
SELECT * FROM notification_endpoints WHERE team_id = @team ORDER BY name;

-- name: PlatformEndpoints :many
SELECT * FROM notification_endpoints WHERE team_id IS NULL AND name > @after::text ORDER BY name LIMIT @most;

-- name: DeleteEndpoint :exec
DELETE FROM notification_endpoints WHERE id = @id;

-- name: MoveEndpoints :execrows
UPDATE notification_endpoints SET home_cluster = @cluster WHERE team_id IS NULL AND home_cluster = @from_cluster;

-- name: EndpointKeys :many
SELECT * FROM notification_keys
WHERE endpoint_id = @endpoint AND (ends_at IS NULL OR ends_at > @now::timestamptz) ORDER BY created_at DESC, name;

-- name: PutKey :exec
INSERT INTO notification_keys AS k (endpoint_id, name, signing, secret, created_at) VALUES (@endpoint, @name, @signing, @secret, @now)
ON CONFLICT (endpoint_id, name) DO UPDATE SET signing = excluded.signing, secret = excluded.secret, created_at = excluded.created_at,
    ends_at = NULL
WHERE k.secret <> excluded.secret OR k.signing <> excluded.signing OR k.ends_at IS NOT NULL;

-- name: DropKeysBut :exec
DELETE FROM notification_keys WHERE endpoint_id = @endpoint AND name <> ALL(@names::text[]);

-- name: EndKeys :exec
-- Those that sign without an end sign until one.
UPDATE notification_keys SET ends_at = @ends_at WHERE endpoint_id = @endpoint AND ends_at IS NULL;

-- name: DropEndedKeys :exec
DELETE FROM notification_keys WHERE ends_at <= @now::timestamptz;

-- name: CountDeliveries :one
-- How many of an endpoint are in a state, counted up to a bound.
SELECT count(*) FROM (SELECT FROM deliveries AS d WHERE d.endpoint_id = @endpoint AND d.state = @state LIMIT @most) AS c;

-- name: ListDeliveries :many
-- The newest first, behind one.
SELECT sqlc.embed(d), e.name AS endpoint, coalesce(t.name, '')::text AS team, a.kind
FROM deliveries AS d JOIN notification_endpoints AS e ON e.id = d.endpoint_id LEFT JOIN teams AS t ON t.id = e.team_id
    JOIN usage_alerts AS a ON a.id = d.alert_id
WHERE (sqlc.narg('endpoint')::uuid IS NULL OR d.endpoint_id = sqlc.narg('endpoint'))
  AND (sqlc.narg('team')::uuid IS NULL OR e.team_id = sqlc.narg('team'))
  AND (@state::text = '' OR d.state = @state)
  AND (d.created_at, d.id) < (coalesce((SELECT b.created_at FROM deliveries AS b WHERE b.id = @before::uuid), 'infinity'), @before::uuid)
ORDER BY d.created_at DESC, d.id DESC LIMIT @most;

-- name: GetDelivery :one
SELECT sqlc.embed(d), e.name AS endpoint, coalesce(t.name, '')::text AS team, a.kind
FROM deliveries AS d JOIN notification_endpoints AS e ON e.id = d.endpoint_id LEFT JOIN teams AS t ON t.id = e.team_id
    JOIN usage_alerts AS a ON a.id = d.alert_id
WHERE d.id = @id;

-- name: LockDelivery :one
-- What is about to be sent again, and the team whose endpoint it goes to.
SELECT d.state, d.attempts, e.team_id FROM deliveries AS d JOIN notification_endpoints AS e ON e.id = d.endpoint_id
WHERE d.id = @id FOR UPDATE OF d;

-- name: ResendDelivery :exec
-- What is over begins anew, with the same id.
UPDATE deliveries SET state = 'waiting', finished_at = NULL, next_attempt_at = @now, expires_at = @expires_at,
    resent_by = @by::text
WHERE id = @id;

-- name: LockUser :one
-- Whose preferences are about to change.
SELECT id FROM users WHERE user_id = @external_id FOR UPDATE;

-- name: Preferences :one
-- Of a user who has none, all that says nothing.
SELECT u.id, coalesce(p.muted, '{}')::text[] AS muted, p.updated_at
FROM users AS u LEFT JOIN notification_preferences AS p ON p.user_id = u.id WHERE u.user_id = @external_id;

-- name: PutPreferences :exec
INSERT INTO notification_preferences (user_id, muted, updated_at) VALUES (@account, @muted, @now)
ON CONFLICT (user_id) DO UPDATE SET muted = excluded.muted, updated_at = excluded.updated_at;
