-- The same transactions, each sent in one go: the decision's facts stay in the database.
\set u random(1, :users)
\set hi random(1, 9223372036854775807)
\set lo random(1, 9223372036854775807)

\startpipeline
BEGIN;
SELECT 1 FROM usage_quotas WHERE user_id = md5('bench-' || :u::text)::uuid FOR UPDATE;
INSERT INTO concurrent_processing (id, user_id, source, name, requested_by, body_hash, state, estimate, file_size,
    period_no, period_end, plan_part, estimated_cost_micros, provider_cost_micros, created_at, admitted_at, lease_ms, lease_until,
    arrived_seq, admitted_seq, seen_remaining, seen_concurrent, seen_used, seen_reserved, seen_active)
SELECT md5(:hi::text || :lo::text)::uuid, user_id, 'api', '', 'serviceaccounts/bench/client', sha256(:hi::text::bytea), 'Admitted', 180000, 12582912,
    period_no, period_end, 180000, 18000, 6000, now, now, 120000, now + interval '2 minutes',
    seq + 1, seq + 1, 600000000000 - plan_used - plan_reserved, 10000, used, reserved, active
FROM usage_quotas, greatest(clock_timestamp(), last_decided_at) AS now WHERE user_id = md5('bench-' || :u::text)::uuid;
UPDATE usage_quotas SET reserved = reserved + 180000, plan_reserved = plan_reserved + 180000,
    reserved_cost_micros = reserved_cost_micros + 18000, active = active + 1, seq = seq + 1,
    last_decided_at = greatest(clock_timestamp(), last_decided_at)
WHERE user_id = md5('bench-' || :u::text)::uuid;
COMMIT;
\endpipeline

\startpipeline
BEGIN;
SELECT 1 FROM usage_quotas WHERE user_id = md5('bench-' || :u::text)::uuid FOR UPDATE;
UPDATE concurrent_processing SET state = 'Settled', actual = 165000, ended_at = now, ended_seq = seq + 1
FROM usage_quotas a, greatest(clock_timestamp(), last_decided_at) AS now
WHERE concurrent_processing.id = md5(:hi::text || :lo::text)::uuid AND state = 'Admitted' AND a.user_id = md5('bench-' || :u::text)::uuid;
INSERT INTO usage_tracking (id, recorded_at, user_id, period_id, kind, usage_type, admission_id, occurred_at, credits, plan_part,
    duration_ms, file_size, cost_micros, currency, plan_name, plan_version, seq)
SELECT md5(:lo::text || :hi::text)::uuid, now, user_id, period_no, 'charge', 'transcription', md5(:hi::text || :lo::text)::uuid, now, 165000, 165000,
    165000, 12582912, 16500, 'USD', plan_name, 1, seq + 1
FROM usage_quotas, greatest(clock_timestamp(), last_decided_at) AS now WHERE user_id = md5('bench-' || :u::text)::uuid;
UPDATE usage_quotas SET reserved = reserved - 180000, plan_reserved = plan_reserved - 180000,
    used = used + 165000, plan_used = plan_used + 165000, cost_micros = cost_micros + 16500,
    day_cost_micros = CASE WHEN day = (clock_timestamp() AT TIME ZONE 'UTC')::date THEN day_cost_micros ELSE 0 END + 16500,
    day = (clock_timestamp() AT TIME ZONE 'UTC')::date,
    reserved_cost_micros = reserved_cost_micros - 18000, active = active - 1, seq = seq + 1,
    last_decided_at = greatest(clock_timestamp(), last_decided_at)
WHERE user_id = md5('bench-' || :u::text)::uuid;
COMMIT;
\endpipeline
