-- What a careful program without the engine does: one transaction per call, the account locked first, the decision's facts
-- fetched and the values sent back. 3 minutes declared, 2:45 used, a provider's price of 0.006 a minute.
\set u random(1, :users)
\set hi random(1, 9223372036854775807)
\set lo random(1, 9223372036854775807)

BEGIN;
SELECT user_id AS account, plan_name, used, reserved, plan_used, plan_reserved, cost_micros, day_cost_micros, reserved_cost_micros,
       active, queued, seq, period_no, period_end, greatest(clock_timestamp(), last_decided_at) AS now
FROM usage_quotas WHERE user_id = md5('bench-' || :u::text)::uuid FOR UPDATE \gset
INSERT INTO concurrent_processing (id, user_id, source, name, requested_by, body_hash, state, estimate, file_size,
    period_no, period_end, plan_part, estimated_cost_micros, provider_cost_micros, created_at, admitted_at, lease_ms, lease_until,
    arrived_seq, admitted_seq, seen_remaining, seen_concurrent, seen_used, seen_reserved, seen_active)
VALUES (md5(:hi::text || :lo::text)::uuid, :account, 'api', '', 'serviceaccounts/bench/client', sha256(:hi::text::bytea), 'Admitted', 180000, 12582912,
    :period_no, :period_end, 180000, 18000, 6000, :now, :now, 120000, :now::timestamptz + interval '2 minutes',
    :seq::bigint + 1, :seq::bigint + 1, 600000000000 - :plan_used::bigint - :plan_reserved::bigint, 10000, :used, :reserved, :active);
UPDATE usage_quotas SET reserved = reserved + 180000, plan_reserved = plan_reserved + 180000,
    reserved_cost_micros = reserved_cost_micros + 18000, active = active + 1, seq = seq + 1, last_decided_at = :now
WHERE user_id = :account;
COMMIT;

BEGIN;
SELECT plan_name, used, reserved, plan_used, plan_reserved, cost_micros, day, day_cost_micros, reserved_cost_micros,
       active, queued, seq, period_no, period_end, greatest(clock_timestamp(), last_decided_at) AS now
FROM usage_quotas WHERE user_id = :account FOR UPDATE \gset
UPDATE concurrent_processing SET state = 'Settled', actual = 165000, ended_at = :now, ended_seq = :seq::bigint + 1
WHERE id = md5(:hi::text || :lo::text)::uuid AND state = 'Admitted';
INSERT INTO usage_tracking (id, recorded_at, user_id, period_id, kind, usage_type, admission_id, occurred_at, credits, plan_part,
    duration_ms, file_size, cost_micros, currency, plan_name, plan_version, seq)
VALUES (md5(:lo::text || :hi::text)::uuid, :now, :account, :period_no, 'charge', 'transcription', md5(:hi::text || :lo::text)::uuid, :now, 165000, 165000,
    165000, 12582912, 16500, 'USD', :plan_name, 1, :seq::bigint + 1);
UPDATE usage_quotas SET reserved = reserved - 180000, plan_reserved = plan_reserved - 180000,
    used = used + 165000, plan_used = plan_used + 165000, cost_micros = cost_micros + 16500,
    day_cost_micros = CASE WHEN day = (:now::timestamptz AT TIME ZONE 'UTC')::date THEN day_cost_micros ELSE 0 END + 16500,
    day = (:now::timestamptz AT TIME ZONE 'UTC')::date,
    reserved_cost_micros = reserved_cost_micros - 18000, active = active - 1, seq = seq + 1, last_decided_at = :now
WHERE user_id = :account;
COMMIT;
