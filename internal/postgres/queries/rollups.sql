-- What the rollup reads and writes: usage_analytics is made anew for whole days of an account, in one snapshot with the account's
-- seq.

-- name: ChangedAccounts :many
-- Users who have decided something that their rows do not have, have moved to another zone, or whose rows are those of the release
-- before; all of them to make all anew. From one id to the next, as many as have decided no more than decisions together, and one at
-- least.
SELECT v.user_id FROM (
    SELECT c.user_id, c.decided, sum(c.decided) OVER (ORDER BY c.user_id) AS together FROM (
        SELECT a.user_id, a.seq - CASE WHEN @rebuild::boolean OR a.time_zone <> r.time_zone OR r.listed_seq <> r.seq THEN 0
            ELSE coalesce(r.seq, 0) END AS decided
        FROM usage_quotas AS a LEFT JOIN usage_rollups AS r ON r.user_id = a.user_id
        WHERE a.user_id > @after::uuid
          AND (a.seq <> coalesce(r.seq, 0) OR a.time_zone <> r.time_zone OR r.listed_seq <> r.seq OR @rebuild::boolean AND a.seq > 0)
          AND NOT EXISTS (SELECT FROM teams AS t WHERE t.id = a.user_id)
        ORDER BY a.user_id LIMIT @most) AS c) AS v
WHERE v.together <= @decisions::bigint OR v.together = v.decided
ORDER BY v.user_id;

-- name: InsertWatermarks :exec
-- No zone is called so: who is here for the first time is rolled up as a whole.
INSERT INTO usage_rollups (user_id, seq, decided_at, time_zone, as_of)
SELECT v.id, 0, 'epoch', '', 'epoch' FROM unnest(@ids::uuid[]) AS v (id) ORDER BY v.id
ON CONFLICT (user_id) DO NOTHING;

-- name: LockWatermarks :many
-- Of those that nobody else is rolling up. now() is older than the snapshot, so that what was answered before is in it.
SELECT r.user_id, r.seq AS rolled_seq, r.decided_at AS rolled_to, a.seq, a.last_decided_at, a.time_zone,
    (@rebuild::boolean OR a.time_zone <> r.time_zone OR r.listed_seq <> r.seq)::boolean AS whole,
    greatest(coalesce(sqlc.narg('now')::timestamptz, now()), r.as_of)::timestamptz AS as_of
FROM usage_rollups AS r JOIN usage_quotas AS a ON a.user_id = r.user_id
WHERE r.user_id = ANY (@ids::uuid[])
ORDER BY r.user_id FOR UPDATE OF r SKIP LOCKED;

-- name: ChangedDays :many
-- The accounts' own days that belong to what was decided since their watermarks: that of an event, of the event that a reversal
-- undoes, and of what ended without a charge. Nothing of that was recorded before the watermark's instant, which keeps
-- the search to the latest partitions.
SELECT DISTINCT d.user_id::uuid AS user_id, d.day::date AS day FROM (
    SELECT p.id AS user_id, (coalesce(t.occurred_at, e.occurred_at) AT TIME ZONE p.zone)::date AS day
    FROM (SELECT unnest(@ids::uuid[]) AS id, unnest(@seqs::bigint[]) AS seq, unnest(@rolled_to::timestamptz[]) AS rolled_to,
        unnest(@zones::text[]) AS zone) AS p
    JOIN usage_tracking AS e ON e.user_id = p.id AND e.recorded_at >= p.rolled_to AND e.seq > p.seq
    LEFT JOIN usage_tracking AS t ON t.id = e.reverses AND t.user_id = e.user_id
    UNION ALL
    SELECT p.id, (c.ended_at AT TIME ZONE p.zone)::date
    FROM (SELECT unnest(@ids::uuid[]) AS id, unnest(@seqs::bigint[]) AS seq, unnest(@zones::text[]) AS zone) AS p
    JOIN concurrent_processing AS c ON c.user_id = p.id AND c.ended_seq > p.seq
    WHERE c.state IN ('Released', 'Expired', 'Cancelled')) AS d;

-- name: DeleteRollups :exec
DELETE FROM usage_analytics AS u USING (SELECT unnest(@accounts::uuid[]) AS id, unnest(@days::date[]) AS day) AS d
WHERE u.user_id = d.id AND u.day = d.day;

-- name: DeleteAllRollups :exec
DELETE FROM usage_analytics WHERE user_id = ANY (@ids::uuid[]);

-- name: InsertRollups :execrows
-- Of some days of some accounts, of all days where whole. since keeps the search to the partitions that may have events of these
-- days: none is recorded more than minutes before it occurred. What a reversal undid is left out of the day that it belongs to,
-- but for the provider's cost, which was spent; where it changed no period, or gave a lot, that stays too. That users are among
-- ids, and nothing older than the oldest since, follows from the rest: it tells the planner how much of a table is asked for. The
-- largest pieces of work are in no order, which few rows would need and each would pay for; and what was waited is a float of whole
-- microseconds first, as numerics take several times as long.
WITH page AS MATERIALIZED (
    SELECT unnest(@ids::uuid[]) AS id, unnest(@since::timestamptz[]) AS since, unnest(@zones::text[]) AS zone,
        unnest(@whole::boolean[]) AS whole),
changed AS MATERIALIZED (SELECT unnest(@accounts::uuid[]) AS id, unnest(@days::date[]) AS day),
facts AS (
    SELECT p.id AS user_id, p.zone, e.occurred_at AS t, e.period_id AS period_no, coalesce(e.payer_id, e.user_id) AS payer_id,
        e.plan_name, e.usage_type, e.currency, coalesce(e.cost_currency, e.currency) AS cost_currency,
        1 AS events, CASE WHEN v.id IS NULL THEN 0 ELSE 1 END AS reversals,
        CASE WHEN v.id IS NULL OR coalesce(v.void, v.refund_lot IS NOT NULL) THEN e.credits ELSE 0 END AS credits,
        CASE WHEN v.id IS NOT NULL AND coalesce(v.void, v.refund_lot IS NOT NULL) THEN e.credits ELSE 0 END AS refunded,
        CASE WHEN v.id IS NULL OR v.refund_lot IS NOT NULL THEN 1 ELSE 0 END AS pays,
        e.plan_part - e.overage AS plan_credits, e.overage, coalesce(l.grants, 0) AS grant_credits,
        coalesce(l.carried, 0) AS carry_over, e.price_micros, e.cost_micros,
        CASE WHEN v.id IS NULL THEN 1 ELSE 0 END AS kept, e.duration_ms, e.file_size, e.tokens, e.quantity,
        CASE WHEN c.id IS NULL THEN 0 ELSE 1 END AS admissions, 0 AS uncharged,
        0 AS expired, 0 AS cancelled,
        c.admitted_at - coalesce(c.requeued_at, c.created_at) AS waited, c.ended_at - c.admitted_at AS running,
        CASE WHEN v.id IS NULL AND e.credits > 0 AND e.usage_type <> 'adjustment' THEN coalesce(e.admission_id, e.id) END AS work
    FROM page AS p
    JOIN usage_tracking AS e ON e.user_id = p.id AND e.user_id = ANY (@ids::uuid[]) AND e.recorded_at >= p.since
      AND e.recorded_at >= @oldest::timestamptz AND e.kind <> 'reversal'
    LEFT JOIN usage_reversals AS r ON r.event_id = e.id
    LEFT JOIN usage_tracking AS v ON v.id = r.reversal_id AND v.recorded_at = r.reversed_at
    LEFT JOIN concurrent_processing AS c ON c.id = e.admission_id AND c.user_id = ANY (@ids::uuid[])
    LEFT JOIN LATERAL (
        SELECT sum((s ->> 'credits')::bigint) FILTER (WHERE k.kind = 'grant') AS grants,
            sum((s ->> 'credits')::bigint) FILTER (WHERE k.kind = 'carry_over') AS carried
        FROM jsonb_array_elements(e.lots) AS s JOIN credit_lots AS k ON k.id = (s ->> 'lot')::uuid) AS l ON e.lots IS NOT NULL
    WHERE p.whole OR (p.id, (e.occurred_at AT TIME ZONE p.zone)::date) IN (SELECT id, day FROM changed)
    UNION ALL
    SELECT p.id, p.zone, c.ended_at, coalesce(c.period_no, -1), coalesce(c.payer_id, c.user_id), '', 'transcription', '', '',
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        CASE c.state WHEN 'Expired' THEN 1 ELSE 0 END, CASE c.state WHEN 'Cancelled' THEN 1 ELSE 0 END,
        coalesce(c.admitted_at, c.ended_at) - coalesce(c.requeued_at, c.created_at), c.ended_at - c.admitted_at, NULL
    FROM page AS p JOIN concurrent_processing AS c ON c.user_id = p.id
    WHERE c.state IN ('Released', 'Expired', 'Cancelled')
      AND (p.whole OR (p.id, (c.ended_at AT TIME ZONE p.zone)::date) IN (SELECT id, day FROM changed)))
INSERT INTO usage_analytics (user_id, day, at, period_no, payer_id, plan_name, usage_type, currency, cost_currency,
    events, reversals, credits, refunded, plan_credits, overage, grant_credits, carry_over, price_micros, cost_micros,
    audio_ms, bytes, tokens, quantity, admissions, uncharged, expired, cancelled, waited_ms, running_ms, waited_1s, waited_1m,
    waited_10m, waited_1h, largest_audio_ms, largest_bytes, largest)
SELECT f.user_id, (f.t AT TIME ZONE f.zone)::date, greatest(date_trunc('hour', f.t, f.zone), date_trunc('hour', f.t, 'UTC')),
    f.period_no, f.payer_id, f.plan_name, f.usage_type, f.currency, f.cost_currency,
    sum(f.events), sum(f.reversals), sum(f.credits), sum(f.refunded), sum(f.pays * f.plan_credits), sum(f.pays * f.overage),
    sum(f.pays * f.grant_credits), sum(f.pays * f.carry_over), sum(f.pays * f.price_micros), sum(f.cost_micros),
    sum(f.kept * f.duration_ms), sum(f.kept * f.file_size), sum(f.kept * f.tokens), sum(f.kept * f.quantity),
    sum(f.admissions), sum(f.uncharged), sum(f.expired), sum(f.cancelled),
    coalesce(sum(((date_part('epoch', f.waited) * 1e6)::bigint + 500) / 1000), 0),
    coalesce(sum(((date_part('epoch', f.running) * 1e6)::bigint + 500) / 1000), 0),
    count(*) FILTER (WHERE f.waited <= interval '1 second'), count(*) FILTER (WHERE f.waited <= interval '1 minute'),
    count(*) FILTER (WHERE f.waited <= interval '10 minutes'), count(*) FILTER (WHERE f.waited <= interval '1 hour'),
    max(f.kept * f.duration_ms), max(f.kept * f.file_size),
    CASE WHEN count(f.work) > 10 THEN ARRAY(
        SELECT w FROM unnest(array_agg(
            ROW(f.work, f.t, f.credits, f.duration_ms, f.price_micros, f.cost_micros)::usage_work) FILTER (WHERE f.work IS NOT NULL)) AS w
        ORDER BY w.credits DESC, w.at, w.id LIMIT 10)
    ELSE array_agg(ROW(f.work, f.t, f.credits, f.duration_ms, f.price_micros, f.cost_micros)::usage_work) FILTER (WHERE f.work IS NOT NULL)
    END
FROM facts AS f
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9;

-- name: DeleteMonths :exec
-- Those that days of accounts lie in, by whatever zone, and those behind these; all of some.
DELETE FROM usage_months AS m USING (
    SELECT unnest(@accounts::uuid[]) AS id, unnest(@days::date[]) AS day) AS d
WHERE m.user_id = d.id AND m.month >= date_trunc('month', d.day - 1)::date
  AND m.month <= (date_trunc('month', d.day + 1) + interval '1 month')::date;

-- name: DeleteAllMonths :exec
DELETE FROM usage_months WHERE user_id = ANY (@ids::uuid[]);

-- name: InsertMonths :exec
-- The same months anew, of the rows as they are now. What its money is of is in the row of that currency.
WITH touched AS MATERIALIZED (
    SELECT DISTINCT d.id, generate_series(date_trunc('month', d.day - 1), date_trunc('month', d.day + 1) + interval '1 month',
        interval '1 month')::date AS month
    FROM (SELECT unnest(@accounts::uuid[]) AS id, unnest(@days::date[]) AS day) AS d),
booked AS MATERIALIZED (
    SELECT b.id, b.month, u.currency, u.cost_currency, sum(u.events - u.reversals)::bigint AS uses, sum(u.credits)::bigint AS credits,
        sum(u.price_micros)::bigint AS price, sum(u.cost_micros)::bigint AS cost
    FROM (SELECT t.id, t.month FROM touched AS t UNION SELECT t.id, (t.month - interval '1 month')::date FROM touched AS t) AS b
    JOIN usage_analytics AS u ON u.user_id = b.id AND u.day >= b.month - 1 AND u.day <= (b.month + interval '1 month')::date
      AND u.at >= b.month::timestamp AT TIME ZONE 'UTC' AND u.at < (b.month + interval '1 month') AT TIME ZONE 'UTC'
    WHERE u.events > 0 GROUP BY 1, 2, 3, 4
    UNION ALL
    SELECT w.user_id, date_trunc('month', w.at AT TIME ZONE 'UTC')::date, w.currency, w.cost_currency,
        sum(w.events - w.reversals)::bigint, sum(w.credits)::bigint, sum(w.price_micros)::bigint, sum(w.cost_micros)::bigint
    FROM usage_analytics AS w WHERE w.user_id = ANY (@ids::uuid[]) AND w.events > 0 GROUP BY 1, 2, 3, 4)
INSERT INTO usage_months (user_id, month, currency, uses, credits, price_micros, cost_micros, previous_credits)
SELECT v.id, v.month, v.currency, sum(v.uses), sum(v.credits), sum(v.price), sum(v.cost), sum(v.previous)
FROM (SELECT r.id, r.month, r.currency, r.uses, r.credits, r.price, 0 AS cost, 0 AS previous FROM booked AS r
    UNION ALL
    SELECT c.id, c.month, c.cost_currency, 0, 0, 0, c.cost, 0 FROM booked AS c WHERE c.cost > 0
    UNION ALL
    SELECT p.id, (p.month + interval '1 month')::date, p.currency, 0, 0, 0, 0, p.credits FROM booked AS p
    UNION ALL
    SELECT q.id, (q.month + interval '1 month')::date, q.cost_currency, 0, 0, 0, 0, 0 FROM booked AS q WHERE q.cost > 0) AS v
WHERE v.id = ANY (@ids::uuid[]) OR (v.id, v.month) IN (SELECT t.id, t.month FROM touched AS t)
GROUP BY v.id, v.month, v.currency;

-- name: MoveWatermarks :exec
UPDATE usage_rollups AS r SET seq = v.seq, listed_seq = v.seq, decided_at = v.decided_at, time_zone = v.zone, as_of = v.as_of
FROM (SELECT unnest(@ids::uuid[]) AS id, unnest(@seqs::bigint[]) AS seq, unnest(@decided_at::timestamptz[]) AS decided_at,
    unnest(@zones::text[]) AS zone, unnest(@as_of::timestamptz[]) AS as_of) AS v
WHERE r.user_id = v.id;

-- name: CompleteRollups :exec
INSERT INTO usage_rollups_complete (as_of, listed) VALUES (@as_of, true)
ON CONFLICT (only_one) DO UPDATE SET as_of = greatest(usage_rollups_complete.as_of, excluded.as_of), listed = true;

-- name: MayForgetRefusals :exec
-- The totals of days before that one stay as they are from now on.
INSERT INTO usage_refusals_forgotten (before) VALUES (@before)
ON CONFLICT (only_one) DO UPDATE SET before = greatest(usage_refusals_forgotten.before, excluded.before);

-- name: ForgetRefusals :exec
-- Some of the oldest: a run that finds more leaves them to the next.
DELETE FROM usage_refusals AS r WHERE r.ctid = ANY (ARRAY(
    SELECT o.ctid FROM usage_refusals AS o WHERE o.at < @before::timestamptz ORDER BY o.at LIMIT 20000));

-- name: RollupsComplete :one
SELECT as_of FROM usage_rollups_complete;

-- name: AddRefusals :exec
-- In the order in which they are given, as locks are taken in the same order by all. The totals of their days are older than them.
WITH stale AS (
    INSERT INTO usage_totals_stale (day)
    SELECT DISTINCT (h.at AT TIME ZONE 'UTC')::date FROM unnest(@hours::timestamptz[]) AS h (at))
INSERT INTO usage_refusals (user_id, at, reason, plan_name, served_by, refusals, credits)
SELECT unnest(@accounts::uuid[]), unnest(@hours::timestamptz[]), unnest(@reasons::text[]), unnest(@plans::text[]),
    unnest(@served_by::text[]), unnest(@refusals::bigint[]), unnest(@credits::bigint[])
ON CONFLICT (user_id, at, reason, plan_name, served_by) DO UPDATE SET refusals = usage_refusals.refusals + excluded.refusals,
    credits = usage_refusals.credits + excluded.credits;

-- name: MarkStaleDays :exec
-- The days of UTC on which the rows lie that are about to go, or have just been written. Of whom all is made anew, also those on
-- which something was refused.
INSERT INTO usage_totals_stale (day)
SELECT (u.at AT TIME ZONE 'UTC')::date FROM usage_analytics AS u WHERE u.user_id = ANY (@ids::uuid[])
UNION
SELECT (r.at AT TIME ZONE 'UTC')::date FROM usage_refusals AS r WHERE r.user_id = ANY (@ids::uuid[])
UNION
SELECT (u.at AT TIME ZONE 'UTC')::date FROM usage_analytics AS u
JOIN (SELECT unnest(@accounts::uuid[]) AS id, unnest(@days::date[]) AS day) AS d ON u.user_id = d.id AND u.day = d.day;

-- name: StaleDays :many
SELECT DISTINCT day FROM usage_totals_stale ORDER BY day;

-- name: TakeStaleDay :exec
DELETE FROM usage_totals_stale WHERE day = @day;

-- name: DeleteTotals :exec
DELETE FROM usage_totals WHERE day = @day;

-- name: InsertTotals :exec
-- By user first, so that users are counted without sorting all rows.
INSERT INTO usage_totals (day, plan_name, usage_type, currency, cost_currency, users,
    events, reversals, credits, refunded, plan_credits, overage, grant_credits, carry_over, price_micros, cost_micros, audio_ms,
    bytes, tokens, quantity, admissions, uncharged, waited_ms, running_ms, expired, cancelled, waited_1s, waited_1m, waited_10m,
    waited_1h)
SELECT @day::date, s.plan_name, s.usage_type, s.currency, s.cost_currency, count(*),
    sum(s.events), sum(s.reversals), sum(s.credits), sum(s.refunded), sum(s.plan_credits), sum(s.overage), sum(s.grant_credits),
    sum(s.carry_over), sum(s.price_micros), sum(s.cost_micros), sum(s.audio_ms), sum(s.bytes), sum(s.tokens), sum(s.quantity),
    sum(s.admissions), sum(s.uncharged), sum(s.waited_ms), sum(s.running_ms), sum(s.expired), sum(s.cancelled),
    sum(s.waited_1s), sum(s.waited_1m), sum(s.waited_10m), sum(s.waited_1h)
FROM (SELECT u.user_id, u.plan_name, u.usage_type, u.currency, u.cost_currency,
        sum(u.events)::bigint AS events, sum(u.reversals)::bigint AS reversals, sum(u.credits)::bigint AS credits,
        sum(u.refunded)::bigint AS refunded, sum(u.plan_credits)::bigint AS plan_credits, sum(u.overage)::bigint AS overage,
        sum(u.grant_credits)::bigint AS grant_credits, sum(u.carry_over)::bigint AS carry_over, sum(u.price_micros)::bigint AS
        price_micros, sum(u.cost_micros)::bigint AS cost_micros, sum(u.audio_ms)::bigint AS audio_ms, sum(u.bytes)::bigint AS
        bytes, sum(u.tokens)::bigint AS tokens, sum(u.quantity)::bigint AS quantity, sum(u.admissions)::bigint AS admissions,
        sum(u.uncharged)::bigint AS uncharged, sum(u.waited_ms)::bigint AS waited_ms, sum(u.running_ms)::bigint AS running_ms,
        sum(u.expired)::bigint AS expired, sum(u.cancelled)::bigint AS cancelled, sum(u.waited_1s)::bigint AS waited_1s,
        sum(u.waited_1m)::bigint AS waited_1m, sum(u.waited_10m)::bigint AS waited_10m, sum(u.waited_1h)::bigint AS waited_1h
    FROM usage_analytics AS u WHERE u.at >= @since::timestamptz AND u.at < @until::timestamptz
    GROUP BY u.user_id, u.plan_name, u.usage_type, u.currency, u.cost_currency) AS s
GROUP BY s.plan_name, s.usage_type, s.currency, s.cost_currency;

-- name: DeleteWaits :exec
-- Those that are about to be made anew, and those that nobody asks for any more.
DELETE FROM usage_waits WHERE at >= @since::timestamptz AND at < @until::timestamptz OR at < @before::timestamptz;

-- name: InsertWaits :exec
INSERT INTO usage_waits (plan_name, at, admissions, waited_1m)
SELECT u.plan_name, date_trunc('hour', u.at, 'UTC'), sum(u.admissions), sum(u.waited_1m)
FROM usage_analytics AS u WHERE u.at >= @since::timestamptz AND u.at < @until::timestamptz AND u.admissions > 0
GROUP BY 1, 2;

-- name: DeletePayerTotals :exec
DELETE FROM usage_payer_totals WHERE day = @day;

-- name: InsertPayerTotals :exec
INSERT INTO usage_payer_totals (day, plan_name, team_id, usage_type, currency, cost_currency, users, events, reversals, credits,
    refunded, plan_credits, overage, grant_credits, carry_over, price_micros, cost_micros, audio_ms, bytes, tokens, quantity, admissions,
    uncharged, waited_ms, running_ms)
SELECT @day::date, u.plan_name, u.payer_id, u.usage_type, u.currency, u.cost_currency, count(DISTINCT u.user_id), sum(u.events),
    sum(u.reversals), sum(u.credits), sum(u.refunded), sum(u.plan_credits), sum(u.overage), sum(u.grant_credits), sum(u.carry_over),
    sum(u.price_micros), sum(u.cost_micros), sum(u.audio_ms), sum(u.bytes), sum(u.tokens), sum(u.quantity), sum(u.admissions),
    sum(u.uncharged), sum(u.waited_ms), sum(u.running_ms)
FROM usage_analytics AS u
WHERE u.at >= @since::timestamptz AND u.at < @until::timestamptz AND u.payer_id <> u.user_id
GROUP BY u.plan_name, u.payer_id, u.usage_type, u.currency, u.cost_currency;

-- name: DeletePayerLargest :exec
DELETE FROM usage_payer_largest WHERE day = @day;

-- name: InsertPayerLargest :exec
INSERT INTO usage_payer_largest (day, team_id, rank, user_id, plan_name, usage_type, currency, cost_currency, id, at, credits, audio_ms,
    price_micros, cost_micros)
SELECT @day::date, v.payer_id, v.rank, v.user_id, v.plan_name, v.usage_type, v.currency, v.cost_currency, v.id, v.at, v.credits,
    v.audio_ms, v.price_micros, v.cost_micros
FROM (SELECT u.payer_id, u.user_id, u.plan_name, u.usage_type, u.currency, u.cost_currency, w.id, w.at, w.credits, w.audio_ms,
        w.price_micros, w.cost_micros, row_number() OVER (PARTITION BY u.payer_id ORDER BY w.credits DESC, w.at, w.id) AS rank
    FROM usage_analytics AS u CROSS JOIN unnest(u.largest) AS w
    WHERE u.at >= @since::timestamptz AND u.at < @until::timestamptz AND u.payer_id <> u.user_id) AS v
WHERE v.rank <= 10;

-- name: DeletePayerMonth :exec
-- That in which a day lies.
DELETE FROM usage_payer_months WHERE month = date_trunc('month', @day::date)::date;

-- name: InsertPayerMonth :exec
-- Whoever has made it for another of its days meanwhile is met by the key, and all of it is done again.
INSERT INTO usage_payer_months (month, team_id, currency, cost_currency, price_micros, cost_micros)
SELECT date_trunc('month', p.day)::date, p.team_id, p.currency, p.cost_currency, sum(p.price_micros), sum(p.cost_micros)
FROM usage_payer_totals AS p
WHERE p.day >= date_trunc('month', @day::date)::date AND p.day < (date_trunc('month', @day::date) + interval '1 month')::date
  AND p.events > 0
GROUP BY 1, p.team_id, p.currency, p.cost_currency
ON CONFLICT (month, team_id, currency, cost_currency) DO NOTHING;

-- name: DeleteRefusalTotals :exec
-- Unless the refusals may be gone that they were made of.
DELETE FROM usage_refusal_totals AS t
WHERE t.day = @day AND NOT EXISTS (SELECT FROM usage_refusals_forgotten AS f WHERE t.day < f.before);

-- name: InsertRefusalTotals :exec
INSERT INTO usage_refusal_totals (day, plan_name, reason, served_by, users, refusals, credits)
SELECT @day::date, r.plan_name, r.reason, r.served_by, count(DISTINCT r.user_id), sum(r.refusals), sum(r.credits)
FROM usage_refusals AS r
WHERE r.at >= @since::timestamptz AND r.at < @until::timestamptz
  AND NOT EXISTS (SELECT FROM usage_refusals_forgotten AS f WHERE @day::date < f.before)
GROUP BY r.plan_name, r.reason, r.served_by;

-- What the periods come to, all of it anew.

-- name: PeriodsSummed :one
SELECT as_of FROM usage_periods_summed;

-- name: DeletePeriodSums :exec
WITH utilisation AS (DELETE FROM usage_utilisation), paid AS (DELETE FROM usage_period_prices), prices AS (DELETE FROM usage_prices)
DELETE FROM usage_cohorts;

-- name: InsertUtilisation :exec
-- Of periods that have been closed, in which a plan and no team above paid: a team's own periods are among them.
INSERT INTO usage_utilisation (day, plan_name, percent, periods, idle)
SELECT (p.period_end AT TIME ZONE 'UTC')::date, p.plan_name,
    CASE WHEN p.plan_credits IS NULL THEN -1 WHEN p.plan_used >= p.plan_credits THEN 100
        ELSE trunc(p.plan_used::numeric * 100 / p.plan_credits) END::smallint,
    count(*), count(*) FILTER (WHERE p.used = 0)
FROM usage_periods AS p JOIN paying_accounts AS a ON a.user_id = p.user_id
WHERE p.plan_name <> ''
GROUP BY 1, 2, 3;

-- name: InsertPeriodPrices :exec
-- Of all periods that have begun, each at the price of the version of the plan that held when it ended, or holds.
INSERT INTO usage_period_prices (day, plan_name, team_id, currency, periods, price_micros)
SELECT (p.period_start AT TIME ZONE 'UTC')::date, p.plan_name, p.team_id, v.currency, count(*), sum(v.price)
FROM (
    SELECT c.period_start, c.plan_name, c.plan_version AS version, a.team_id
    FROM usage_periods AS c JOIN paying_accounts AS a ON a.user_id = c.user_id WHERE c.plan_name <> ''
    UNION ALL
    SELECT q.period_start, q.plan_name, l.version, a.team_id
    FROM usage_quotas AS q JOIN paying_accounts AS a ON a.user_id = q.user_id JOIN user_plan_limits AS l ON l.name = q.plan_name) AS p
JOIN (SELECT w.plan_name, w.version, w.definition ->> 'currency' AS currency, (w.definition ->> 'period_price_micros')::bigint AS price
    FROM plan_versions AS w) AS v ON v.plan_name = p.plan_name AND v.version = p.version
GROUP BY 1, 2, 3, 4;

-- name: InsertPrices :exec
-- The same, whoever pays.
INSERT INTO usage_prices (day, plan_name, currency, periods, price_micros)
SELECT p.day, p.plan_name, p.currency, sum(p.periods), sum(p.price_micros) FROM usage_period_prices AS p
GROUP BY p.day, p.plan_name, p.currency;

-- name: InsertCohorts :exec
INSERT INTO usage_cohorts (cohort, month, users)
SELECT f.first, m.month, count(DISTINCT m.user_id)
FROM (SELECT u.user_id, min(u.month)::date AS first FROM usage_months AS u WHERE u.uses > 0 GROUP BY u.user_id) AS f
JOIN usage_months AS m ON m.user_id = f.user_id AND m.uses > 0
GROUP BY 1, 2;

-- name: SavePeriodsSummed :exec
INSERT INTO usage_periods_summed (as_of) VALUES (@as_of) ON CONFLICT (only_one) DO UPDATE SET as_of = excluded.as_of;

-- name: DueForecasts :many
-- Accounts with a plan that have used something in their period and decided something in two weeks, and whose forecast was not
-- looked at on their present day: a user's own, a team's of UTC.
SELECT a.user_id, coalesce(u.user_id, '')::text AS external_id, coalesce(t.name, '')::text AS team, d.day::date AS day
FROM usage_quotas AS a
LEFT JOIN users AS u ON u.id = a.user_id LEFT JOIN teams AS t ON t.id = a.user_id LEFT JOIN usage_forecasts AS f ON f.user_id = a.user_id
CROSS JOIN (SELECT coalesce(sqlc.narg('now')::timestamptz, now()) AS now) AS c
CROSS JOIN LATERAL (SELECT (c.now AT TIME ZONE CASE WHEN t.id IS NULL THEN a.time_zone ELSE 'UTC' END)::date AS day) AS d
WHERE a.user_id > @after::uuid AND a.plan_name IS NOT NULL AND a.used > 0 AND a.last_decided_at > c.now - interval '14 days'
  AND d.day > coalesce(f.day, '-infinity')
ORDER BY a.user_id LIMIT @most;

-- name: MarkForecasts :exec
INSERT INTO usage_forecasts (user_id, day)
SELECT v.id, v.day FROM (SELECT unnest(@ids::uuid[]) AS id, unnest(@days::date[]) AS day) AS v ORDER BY v.id
ON CONFLICT (user_id) DO UPDATE SET day = excluded.day WHERE usage_forecasts.day < excluded.day;
