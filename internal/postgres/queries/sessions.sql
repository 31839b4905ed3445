-- Sessions of people's browsers.

-- name: InsertSession :exec
INSERT INTO sessions (id_hash, issuer, username, uid, groups, extra, external_id, began_at, seen_at, idle_ends_at, ends_at)
VALUES (@id_hash, @issuer, @username, @uid, @groups::text[], @extra, @external_id, @began_at, @seen_at, @idle_ends_at, @ends_at);

-- name: FindSession :one
-- One that is not over, and the clock that says so: idle_ends_at is never after ends_at.
SELECT sqlc.embed(sessions), c.now::timestamptz AS now
FROM sessions, (SELECT coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()) AS now) AS c
WHERE id_hash = @id_hash AND idle_ends_at > c.now;

-- name: TouchSession :exec
-- Puts off the end for want of use; never past the end, and not of what is over.
UPDATE sessions SET seen_at = @at, idle_ends_at = least(@idle_ends_at::timestamptz, ends_at)
WHERE id_hash = @id_hash AND seen_at < @at AND idle_ends_at > @at;

-- name: EndSession :exec
DELETE FROM sessions WHERE id_hash = @id_hash;

-- name: EndSessions :exec
DELETE FROM sessions WHERE username = @username;

-- name: DropSessions :exec
-- Those that are over.
DELETE FROM sessions WHERE idle_ends_at <= @before;
