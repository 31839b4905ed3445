-- Portal tokens: the keys that sign them, and which were given out.

-- name: PortalKeys :many
-- Those that a token may be signed with that has not ended, however long that was given.
SELECT * FROM portal_keys
WHERE signs_until > coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()) - @longest::interval;

-- name: RevokedPortalTokens :many
SELECT id FROM portal_tokens
WHERE revoked_at IS NOT NULL AND expires_at > coalesce(sqlc.narg('now')::timestamptz, clock_timestamp());

-- name: PortalSigner :one
-- The newest key that signs by now, if it is not about to end.
SELECT k.id, s.seed FROM portal_keys AS k JOIN portal_secrets AS s ON s.key_id = k.id
WHERE k.signs_from <= @at AND k.signs_until > @at
ORDER BY k.signs_from DESC LIMIT 1;

-- name: LockPortalKeys :exec
-- One makes a key at a time.
LOCK TABLE portal_keys IN SHARE ROW EXCLUSIVE MODE;

-- name: NewestPortalKey :one
-- Until when there are keys; long ago where there are none.
SELECT coalesce(max(signs_until), 'epoch')::timestamptz AS until FROM portal_keys;

-- name: InsertPortalKey :exec
INSERT INTO portal_keys (id, public_key, signs_from, signs_until) VALUES (@id, @public_key, @signs_from, @signs_until);

-- name: InsertPortalSecret :exec
INSERT INTO portal_secrets (key_id, seed) VALUES (@key_id, @seed);

-- name: DropPortalKeys :exec
-- Those that no token can be good by any more, with their secrets.
DELETE FROM portal_keys WHERE signs_until < @before;

-- name: InsertPortalToken :exec
INSERT INTO portal_tokens (id, user_id, scope, issued_at, expires_at) VALUES (@id, @account, @scope, @issued_at, @expires_at);

-- name: DropPortalTokens :exec
-- A few of those that have ended: more than are made.
DELETE FROM portal_tokens WHERE id IN (
    SELECT t.id FROM portal_tokens AS t WHERE t.expires_at < @before ORDER BY t.expires_at LIMIT @most FOR UPDATE SKIP LOCKED);

-- name: RevokePortalTokens :many
-- One of the account's, or all of them. What has ended or was revoked stays as it is.
UPDATE portal_tokens SET revoked_at = @at
WHERE user_id = @account AND (id = sqlc.narg('id')::uuid OR sqlc.narg('id')::uuid IS NULL) AND revoked_at IS NULL AND expires_at > @at
RETURNING *;

-- name: HasPortalToken :one
SELECT EXISTS (SELECT FROM portal_tokens WHERE user_id = @account AND id = @id);
