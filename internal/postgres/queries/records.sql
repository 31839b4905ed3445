-- What recording reads and writes in the batches: keys and what they made, the events to be reversed and what they were booked on.

-- name: LoadKeys :many
SELECT k.key, k.body_hash, sqlc.embed(e), r.reversal_id,
    coalesce((SELECT t.name FROM teams AS t WHERE t.id = e.payer_id), '')::text AS payer_team
FROM (SELECT unnest(@accounts::uuid[]) AS account, unnest(@keys::text[]) AS key) AS v
JOIN idempotency_keys AS k ON k.user_id = v.account AND k.key = v.key
JOIN usage_tracking AS e ON e.id = k.event_id AND e.recorded_at = k.made_at
LEFT JOIN usage_reversals AS r ON r.event_id = e.id
ORDER BY k.made_at;

-- name: LoadRecentPeriods :many
-- Those that a use of today could have happened in.
SELECT * FROM usage_periods
WHERE user_id = ANY (@accounts::uuid[])
  AND period_end > coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()) - interval '36 days';

-- name: LoadEvents :many
SELECT sqlc.embed(e), r.reversal_id
FROM usage_tracking AS e LEFT JOIN usage_reversals AS r ON r.event_id = e.id
WHERE e.id = ANY (@events::uuid[]) AND e.user_id = ANY (@accounts::uuid[]);

-- name: LoadEventLots :many
-- The lots that paid, expired or not.
SELECT l.* FROM credit_lots AS l
WHERE l.user_id = ANY (@accounts::uuid[]) AND l.id IN (
    SELECT (s ->> 'lot')::uuid FROM usage_tracking AS e CROSS JOIN LATERAL jsonb_array_elements(e.lots) AS s
    WHERE e.id = ANY (@events::uuid[]));

-- name: InsertKeys :exec
-- Those of CloudEvents for all users as well: one that another user's use was recorded under violates event_keys_pkey.
WITH made AS (
    SELECT unnest(@accounts::uuid[]) AS user_id, unnest(@keys::text[]) AS key, unnest(@made_at::timestamptz[]) AS made_at,
        unnest(@body_hashes::bytea[]) AS body_hash, unnest(@events::uuid[]) AS event_id
), events AS (
    INSERT INTO event_keys (key, user_id, made_at)
    SELECT key, user_id, made_at FROM made WHERE position(' ' IN key) > 0 ORDER BY key
)
INSERT INTO idempotency_keys (user_id, key, made_at, body_hash, event_id)
SELECT user_id, key, made_at, body_hash, event_id FROM made;

-- name: InsertReversals :exec
INSERT INTO usage_reversals (event_id, user_id, reversal_id, reversed_at)
SELECT unnest(@events::uuid[]), unnest(@accounts::uuid[]), unnest(@reversals::uuid[]), unnest(@reversed_at::timestamptz[]);

-- name: Event :one
SELECT sqlc.embed(e), u.user_id AS external_id, r.reversal_id,
    coalesce((SELECT t.name FROM teams AS t WHERE t.id = e.payer_id), '')::text AS payer_team
FROM usage_tracking AS e JOIN users AS u ON u.id = e.user_id
LEFT JOIN usage_reversals AS r ON r.event_id = e.id
WHERE e.id = @id;

-- name: KeyPartitionsDue :one
-- Whether a weekly partition of this week or one of the next four is missing, or one is due to be dropped: looking takes no lock.
SELECT EXISTS (
    SELECT FROM generate_series(0, 4) AS n
    WHERE to_regclass('idempotency_keys_' || to_char(date_trunc('week', timezone('UTC', @now::timestamptz)) + n * interval '7 days', 'YYYYMMDD')) IS NULL
) OR EXISTS (
    SELECT FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = to_regclass('idempotency_keys') AND c.relname ~ '^idempotency_keys_[0-9]{8}$'
      AND (to_date(right(c.relname, 8), 'YYYYMMDD') + 7)::timestamp AT TIME ZONE 'UTC' <= @older_than::timestamptz
) OR EXISTS (SELECT FROM idempotency_keys_default WHERE made_at < @older_than::timestamptz);

-- name: EnsureKeyPartitions :exec
SELECT ensure_key_partition(timezone('UTC', @now::timestamptz)::date + n * 7) FROM generate_series(0, 4) AS n;

-- name: DropKeyPartitions :exec
SELECT drop_key_partitions(@older_than::timestamptz);
