-- Work on offline tickets. It is rare, so it costs the statements of all other work nothing.

-- name: MarkOffline :exec
UPDATE concurrent_processing SET offline = true, enforced = false WHERE id = ANY (@ids::uuid[]);

-- name: EndedAdmissions :many
SELECT id FROM concurrent_processing WHERE id = ANY (@ids::uuid[]) AND state NOT IN ('Queued', 'Admitted');
