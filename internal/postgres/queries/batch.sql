-- The statements of a batch. They are queued in a pgx.Batch: lock and facts in one round trip, writes and commit in another.

-- name: LockAccounts :many
-- Only locks, in the order of the ids. What is read under a lock that was waited for would be stale: the facts are read by
-- the statements behind, each under a snapshot of its own.
SELECT user_id FROM usage_quotas WHERE user_id = ANY (@ids::uuid[]) ORDER BY user_id FOR NO KEY UPDATE;

-- name: LockFreeAccounts :many
SELECT user_id FROM usage_quotas WHERE user_id = ANY (@ids::uuid[]) ORDER BY user_id FOR NO KEY UPDATE SKIP LOCKED;

-- name: LoadAccounts :many
-- Of users and of teams, which have no user id. With the version of the plan, by which the caller finds it among those it has read before: a plan never changes without one.
-- What a UserQuota declared and no cluster is named for is the first one's; who that is is looked up for such rows only.
-- The parent is who has to be above the account, which parent_id is not yet where that has been declared since the last batch.
SELECT sqlc.embed(a), coalesce(u.user_id, '')::text AS external_id, coalesce((SELECT p.version FROM user_plan_limits AS p WHERE p.name = a.plan_name), 0)::bigint AS plan_version,
    coalesce(a.home_cluster, CASE WHEN a.quota_uid IS NOT NULL THEN (SELECT f.uid FROM clusters AS f WHERE f.first) END,
        '00000000-0000-0000-0000-000000000000')::uuid AS home,
    coalesce(a.member_of, nullif((SELECT t.id FROM teams AS t WHERE t.active_root), a.user_id),
        '00000000-0000-0000-0000-000000000000')::uuid AS parent,
    greatest(coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()), a.last_decided_at)::timestamptz AS now
FROM usage_quotas AS a LEFT JOIN users AS u ON u.id = a.user_id
WHERE a.user_id = ANY (@ids::uuid[]);

-- name: LocateAccount :one
-- A user's account, the teams that it is declared to be below, and the root team, which is above all of them.
SELECT a.user_id, a.member_of AS team, b.member_of AS second, c.member_of AS third,
    coalesce((SELECT t.id FROM teams AS t WHERE t.active_root), '00000000-0000-0000-0000-000000000000')::uuid AS root
FROM users AS u JOIN usage_quotas AS a ON a.user_id = u.id
LEFT JOIN usage_quotas AS b ON b.user_id = a.member_of LEFT JOIN usage_quotas AS c ON c.user_id = b.member_of
WHERE u.user_id = @user_id;

-- name: LoadTeams :many
SELECT * FROM teams WHERE id = ANY (@ids::uuid[]);

-- name: LockTeams :exec
-- Whoever declares a team does so alone, so that what it was checked against holds. Readers are not held up.
LOCK TABLE teams IN SHARE ROW EXCLUSIVE MODE;

-- name: LoadTree :many
SELECT t.id, t.name, t.is_root, t.retired,
    coalesce(t.home_cluster, (SELECT f.uid FROM clusters AS f WHERE f.first), '00000000-0000-0000-0000-000000000000')::uuid AS home,
    coalesce(a.member_of, '00000000-0000-0000-0000-000000000000')::uuid AS member_of
FROM teams AS t JOIN usage_quotas AS a ON a.user_id = t.id;

-- name: HoldTeams :many
-- Somebody is to be below them: none is retired before that is written.
SELECT id, name, is_root, retired FROM teams WHERE name = ANY (@names::text[]) ORDER BY id FOR SHARE;

-- name: UpsertTeam :exec
INSERT INTO teams (id, name, cap_currency, credits_cap, concurrent_cap, queued_cap, daily_cost_cap_micros, member_credits,
    member_concurrent, member_queued, member_daily_cost_micros, member_cost_currency, unlimited_members, display_name, object_uid,
    home_cluster, weight, is_root, retired, updated_at)
VALUES (@id, @name, @cap_currency, sqlc.narg('credits_cap'), sqlc.narg('concurrent_cap'), sqlc.narg('queued_cap'),
    sqlc.narg('daily_cost_cap_micros'), sqlc.narg('member_credits'), sqlc.narg('member_concurrent'), sqlc.narg('member_queued'),
    sqlc.narg('member_daily_cost_micros'), sqlc.narg('member_cost_currency'), @unlimited_members::text[], @display_name,
    sqlc.narg('object_uid'), sqlc.narg('home_cluster'), @weight, @is_root, @retired, @now)
ON CONFLICT (id) DO UPDATE SET cap_currency = excluded.cap_currency, credits_cap = excluded.credits_cap,
    concurrent_cap = excluded.concurrent_cap, queued_cap = excluded.queued_cap, daily_cost_cap_micros = excluded.daily_cost_cap_micros,
    member_credits = excluded.member_credits, member_concurrent = excluded.member_concurrent, member_queued = excluded.member_queued,
    member_daily_cost_micros = excluded.member_daily_cost_micros, member_cost_currency = excluded.member_cost_currency,
    unlimited_members = excluded.unlimited_members, display_name = excluded.display_name, object_uid = excluded.object_uid,
    home_cluster = excluded.home_cluster, weight = excluded.weight, is_root = excluded.is_root, retired = excluded.retired,
    updated_at = excluded.updated_at;

-- name: LoadPlans :many
SELECT * FROM user_plan_limits
WHERE name = ANY (@names::text[]) OR (@with_default::boolean AND is_default AND NOT retired);

-- name: LoadPlanVersions :many
SELECT plan_name, version, valid_from, definition FROM plan_versions WHERE plan_name = ANY (@names::text[]) ORDER BY plan_name, version;

-- name: LoadLots :many
-- The clock has moved on since the accounts were read, so lots that expired a moment ago are read too.
SELECT * FROM credit_lots
WHERE user_id = ANY (@ids::uuid[])
  AND (reserved > 0 OR expires_at IS NULL
       OR expires_at > coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()) - interval '1 minute');

-- name: LoadAdmissions :many
-- Those that are asked for, and what is in front in the queues of the accounts, which may be among them: those come twice then.
-- OFFSET keeps the planner from turning the second part round: a queue is looked for only where the account says that there is one.
SELECT a.* FROM concurrent_processing AS a WHERE a.id = ANY (@ids::uuid[])
UNION ALL
SELECT q.* FROM usage_quotas AS u CROSS JOIN LATERAL (
    SELECT c.* FROM concurrent_processing AS c
    WHERE c.id = ANY (ARRAY(SELECT queue_heads(u.user_id, @most::integer))) OFFSET 0) AS q
WHERE u.user_id = ANY (@accounts::uuid[]) AND u.queued > 0;

-- name: LoadParked :many
-- The next of those that are parked and could start with as many credits.
SELECT * FROM concurrent_processing
WHERE user_id = @account AND state = 'Queued' AND parked AND estimate <= @credits
  AND (priority < @priority OR (priority = @priority AND arrived_seq > @arrived))
ORDER BY priority DESC, arrived_seq LIMIT @most;

-- name: LoadPeriods :many
SELECT p.* FROM usage_periods AS p
JOIN (SELECT DISTINCT unnest(@accounts::uuid[]) AS account, unnest(@nos::bigint[]) AS no) AS v ON p.user_id = v.account AND p.period_no = v.no;

-- name: UpdateAccounts :exec
-- What decisions change. No column of an index but period_end changes, and that only once a period: the rest are HOT updates.
UPDATE usage_quotas AS a SET
    period_no = v.period_no, period_start = v.period_start, period_end = v.period_end,
    used = v.used, reserved = v.reserved, plan_used = v.plan_used, plan_reserved = v.plan_reserved,
    cost_micros = v.cost_micros, charged_micros = v.charged_micros,
    day = v.day, day_cost_micros = v.day_cost_micros, reserved_cost_micros = v.reserved_cost_micros,
    active = v.active, queued = v.queued, parked = v.parked, seq = v.seq, last_decided_at = v.last_decided_at
FROM (SELECT
    unnest(@ids::uuid[]) AS id,
    unnest(@period_nos::bigint[]) AS period_no,
    unnest(@period_starts::timestamptz[]) AS period_start,
    unnest(@period_ends::timestamptz[]) AS period_end,
    unnest(@used::bigint[]) AS used,
    unnest(@reserved::bigint[]) AS reserved,
    unnest(@plan_used::bigint[]) AS plan_used,
    unnest(@plan_reserved::bigint[]) AS plan_reserved,
    unnest(@costs::bigint[]) AS cost_micros,
    unnest(@charged::bigint[]) AS charged_micros,
    unnest(@days::date[]) AS day,
    unnest(@day_costs::bigint[]) AS day_cost_micros,
    unnest(@reserved_costs::bigint[]) AS reserved_cost_micros,
    unnest(@active::integer[]) AS active,
    unnest(@queued::integer[]) AS queued,
    unnest(@parked::integer[]) AS parked,
    unnest(@seqs::bigint[]) AS seq,
    unnest(@decided_at::timestamptz[]) AS last_decided_at
) AS v
WHERE a.user_id = v.id;

-- name: PlaceAccounts :exec
-- Of accounts that are counted below others from now on.
UPDATE usage_quotas AS a SET parent_id = v.parent
FROM (SELECT unnest(@ids::uuid[]) AS id, unnest(@parents::uuid[]) AS parent) AS v
WHERE a.user_id = v.id;

-- name: UpdateCurrencies :exec
-- Of the accounts whose plan has got another currency, and while they have amounts in two.
UPDATE usage_quotas AS a SET currency = v.currency, other_amounts = v.other_amounts
FROM (SELECT
    unnest(@ids::uuid[]) AS id, unnest(@currencies::text[]) AS currency, unnest(@other_amounts::jsonb[]) AS other_amounts
) AS v
WHERE a.user_id = v.id;

-- name: UpdateSettings :exec
UPDATE usage_quotas SET
    plan_name = @plan_name, quota_uid = sqlc.narg('quota_uid'), quota_name = sqlc.narg('quota_name'),
    credits_override = sqlc.narg('credits_override'), file_size_override = sqlc.narg('file_size_override'),
    audio_ms_override = sqlc.narg('audio_ms_override'), concurrent_override = sqlc.narg('concurrent_override'),
    queued_override = sqlc.narg('queued_override'), unlimited_overrides = @unlimited_overrides::text[],
    suspended = @suspended, anchor_at = @anchor_at, time_zone = @time_zone,
    home_cluster = sqlc.narg('home_cluster'), member_of = sqlc.narg('member_of'), member_declared = @member_declared
WHERE user_id = @user_id;

-- name: UpsertLots :exec
INSERT INTO credit_lots (id, user_id, kind, name, credits, used, reserved, expires_at, created_at)
SELECT
    unnest(@ids::uuid[]), unnest(@accounts::uuid[]), unnest(@kinds::text[]), unnest(@names::text[]),
    unnest(@credits::bigint[]), unnest(@used::bigint[]), unnest(@reserved::bigint[]),
    unnest(@expires_at::timestamptz[]), unnest(@created_at::timestamptz[])
ON CONFLICT (id) DO UPDATE SET credits = excluded.credits, used = excluded.used, reserved = excluded.reserved;

-- name: InsertPeriods :exec
INSERT INTO usage_periods (user_id, period_no, period_start, period_end, used, reserved, plan_used, plan_reserved,
    cost_micros, charged_micros, plan_name, plan_version, plan_credits, carry_over, carry_over_max, closed_at, final_after_seconds, currency,
    overage_price_micros, other_amounts)
SELECT
    unnest(@accounts::uuid[]), unnest(@nos::bigint[]), unnest(@starts::timestamptz[]), unnest(@ends::timestamptz[]),
    unnest(@used::bigint[]), unnest(@reserved::bigint[]), unnest(@plan_used::bigint[]), unnest(@plan_reserved::bigint[]),
    unnest(@costs::bigint[]), unnest(@charged::bigint[]), unnest(@plan_names::text[]), unnest(@plan_versions::bigint[]),
    unnest(@plan_credits::bigint[]), unnest(@carry_overs::bigint[]), unnest(@carry_over_maxs::bigint[]),
    unnest(@closed_at::timestamptz[]), unnest(@final_after_seconds::integer[]), unnest(@currencies::text[]),
    unnest(@overage_prices::bigint[]), unnest(@other_amounts::jsonb[]);

-- name: UpdatePeriods :exec
-- Readers tell by the revision that a closed period has changed.
UPDATE usage_periods AS p SET
    used = v.used, reserved = v.reserved, plan_used = v.plan_used, plan_reserved = v.plan_reserved,
    cost_micros = v.cost_micros, charged_micros = v.charged_micros, other_amounts = v.other_amounts, carry_over = v.carry_over,
    revision = p.revision + 1
FROM (SELECT
    unnest(@accounts::uuid[]) AS account, unnest(@nos::bigint[]) AS no,
    unnest(@used::bigint[]) AS used, unnest(@reserved::bigint[]) AS reserved,
    unnest(@plan_used::bigint[]) AS plan_used, unnest(@plan_reserved::bigint[]) AS plan_reserved,
    unnest(@costs::bigint[]) AS cost_micros, unnest(@charged::bigint[]) AS charged_micros,
    unnest(@other_amounts::jsonb[]) AS other_amounts, unnest(@carry_overs::bigint[]) AS carry_over
) AS v
WHERE p.user_id = v.account AND p.period_no = v.no;

-- name: InsertAdmissions :exec
INSERT INTO concurrent_processing (id, user_id, source, namespace, name, requested_by, body_hash, state, reason, estimate,
    file_size, priority, enforced, parked, ever_parked, period_no, period_end, plan_part, lots, estimated_cost_micros,
    provider_cost_micros, reported, actual, late, created_at, admitted_at, ended_at, lease_ms, lease_until, arrived_seq,
    admitted_seq, ended_seq, seen_remaining, seen_concurrent, seen_used, seen_reserved, seen_active, payer_id, currency,
    cluster_uid, levels)
SELECT
    unnest(@ids::uuid[]), unnest(@accounts::uuid[]), unnest(@sources::text[]), unnest(@namespaces::text[]),
    unnest(@names::text[]), unnest(@requested_by::text[]), unnest(@body_hashes::bytea[]), unnest(@states::text[]),
    unnest(@reasons::text[]), unnest(@estimates::bigint[]), unnest(@file_sizes::bigint[]), unnest(@priorities::integer[]),
    unnest(@enforced::boolean[]), unnest(@parked::boolean[]), unnest(@ever_parked::boolean[]),
    unnest(@period_nos::bigint[]), unnest(@period_ends::timestamptz[]), unnest(@plan_parts::bigint[]), unnest(@lots::jsonb[]),
    unnest(@estimated_costs::bigint[]), unnest(@provider_costs::bigint[]), unnest(@reported::bigint[]),
    unnest(@actuals::bigint[]), unnest(@late::boolean[]), unnest(@created_at::timestamptz[]),
    unnest(@admitted_at::timestamptz[]), unnest(@ended_at::timestamptz[]), unnest(@lease_ms::bigint[]),
    unnest(@lease_until::timestamptz[]), unnest(@arrived_seqs::bigint[]), unnest(@admitted_seqs::bigint[]),
    unnest(@ended_seqs::bigint[]), unnest(@seen_remaining::bigint[]), unnest(@seen_concurrent::integer[]),
    unnest(@seen_used::bigint[]), unnest(@seen_reserved::bigint[]), unnest(@seen_active::integer[]),
    unnest(@payers::uuid[]), unnest(@currencies::text[]),
    unnest(@clusters::uuid[]), unnest(@levels::jsonb[]);

-- name: EndAdmissions :exec
-- What ends an admission that was admitted; the most frequent change by far.
UPDATE concurrent_processing AS c SET
    state = v.state, reason = v.reason, actual = v.actual, late = v.late, ended_at = v.ended_at, ended_seq = v.ended_seq,
    levels = v.levels
FROM (SELECT
    unnest(@ids::uuid[]) AS id, unnest(@states::text[]) AS state, unnest(@reasons::text[]) AS reason,
    unnest(@actuals::bigint[]) AS actual, unnest(@late::boolean[]) AS late, unnest(@ended_at::timestamptz[]) AS ended_at,
    unnest(@ended_seqs::bigint[]) AS ended_seq, unnest(@levels::jsonb[]) AS levels
) AS v
WHERE c.id = v.id;

-- name: ExplainReleases :exec
UPDATE concurrent_processing AS c SET release_reason = v.reason
FROM (SELECT unnest(@ids::uuid[]) AS id, unnest(@reasons::text[]) AS reason) AS v
WHERE c.id = v.id;

-- name: RenewLeases :exec
UPDATE concurrent_processing AS c SET lease_until = v.lease_until
FROM (SELECT unnest(@ids::uuid[]) AS id, unnest(@lease_until::timestamptz[]) AS lease_until) AS v
WHERE c.id = v.id;

-- name: UpdateAdmissions :exec
-- Everything that an admission's life can change.
UPDATE concurrent_processing AS c SET
    state = v.state, reason = v.reason, parked = v.parked, ever_parked = v.ever_parked, period_no = v.period_no,
    period_end = v.period_end, plan_part = v.plan_part, lots = v.lots, estimated_cost_micros = v.estimated_cost_micros,
    provider_cost_micros = v.provider_cost_micros, currency = v.currency, reported = v.reported, actual = v.actual, late = v.late,
    admitted_at = v.admitted_at, ended_at = v.ended_at, lease_until = v.lease_until, arrived_seq = v.arrived_seq,
    admitted_seq = v.admitted_seq, ended_seq = v.ended_seq, seen_remaining = v.seen_remaining, seen_concurrent = v.seen_concurrent,
    seen_used = v.seen_used, seen_reserved = v.seen_reserved, seen_active = v.seen_active, requeued_at = v.requeued_at,
    waited_for = v.waited_for, max_wait_ms = v.max_wait_ms, payer_id = v.payer_id, levels = v.levels
FROM (SELECT
    unnest(@ids::uuid[]) AS id, unnest(@states::text[]) AS state, unnest(@reasons::text[]) AS reason,
    unnest(@parked::boolean[]) AS parked, unnest(@ever_parked::boolean[]) AS ever_parked,
    unnest(@period_nos::bigint[]) AS period_no, unnest(@period_ends::timestamptz[]) AS period_end,
    unnest(@plan_parts::bigint[]) AS plan_part, unnest(@lots::jsonb[]) AS lots,
    unnest(@estimated_costs::bigint[]) AS estimated_cost_micros, unnest(@provider_costs::bigint[]) AS provider_cost_micros,
    unnest(@currencies::text[]) AS currency,
    unnest(@reported::bigint[]) AS reported, unnest(@actuals::bigint[]) AS actual, unnest(@late::boolean[]) AS late,
    unnest(@admitted_at::timestamptz[]) AS admitted_at, unnest(@ended_at::timestamptz[]) AS ended_at,
    unnest(@lease_until::timestamptz[]) AS lease_until, unnest(@arrived_seqs::bigint[]) AS arrived_seq,
    unnest(@admitted_seqs::bigint[]) AS admitted_seq, unnest(@ended_seqs::bigint[]) AS ended_seq, unnest(@seen_remaining::bigint[]) AS seen_remaining,
    unnest(@seen_concurrent::integer[]) AS seen_concurrent, unnest(@seen_used::bigint[]) AS seen_used,
    unnest(@seen_reserved::bigint[]) AS seen_reserved, unnest(@seen_active::integer[]) AS seen_active,
    unnest(@requeued_at::timestamptz[]) AS requeued_at, unnest(@waited_for::text[]) AS waited_for,
    unnest(@max_wait_ms::bigint[]) AS max_wait_ms, unnest(@payers::uuid[]) AS payer_id, unnest(@levels::jsonb[]) AS levels
) AS v
WHERE c.id = v.id;

-- name: InsertEvents :exec
INSERT INTO usage_tracking (id, recorded_at, user_id, period_id, kind, usage_type, admission_id, idempotency_key, reverses,
    refund_lot, occurred_at, credits, plan_part, overage, lots, duration_ms, file_size, tokens, quantity, unit_micros,
    price_micros, cost_micros, currency, plan_name, plan_version, late, seq, metadata, recorded_by, reason,
    payer_id, cost_currency, levels, void)
SELECT
    unnest(@ids::uuid[]), unnest(@recorded_at::timestamptz[]), unnest(@accounts::uuid[]), unnest(@periods::bigint[]),
    unnest(@kinds::text[]), unnest(@usage_types::text[]), unnest(@admissions::uuid[]), unnest(@idempotency_keys::text[]),
    unnest(@reverses::uuid[]), unnest(@refund_lots::uuid[]), unnest(@occurred_at::timestamptz[]),
    unnest(@credits::bigint[]), unnest(@plan_parts::bigint[]), unnest(@overages::bigint[]), unnest(@lots::jsonb[]),
    unnest(@durations::bigint[]), unnest(@file_sizes::bigint[]), unnest(@tokens::bigint[]), unnest(@quantities::bigint[]),
    unnest(@units::bigint[]), unnest(@prices::bigint[]), unnest(@costs::bigint[]), unnest(@currencies::text[]),
    unnest(@plan_names::text[]), unnest(@plan_versions::bigint[]), unnest(@late::boolean[]), unnest(@seqs::bigint[]),
    unnest(@metadata::jsonb[]), unnest(@recorded_by::text[]), unnest(@reasons::text[]),
    unnest(@payers::uuid[]), unnest(@cost_currencies::text[]), unnest(@levels::jsonb[]), unnest(@void::boolean[]);

-- name: InsertAudit :exec
-- Who may be a person is known to actors only, see NameActors. The subquery keeps the order of the rows, as a join would not.
INSERT INTO audit_log (at, actor, action, object_kind, object_name, user_id, version, before, after)
SELECT v.at, CASE WHEN v.person THEN 'person:' || (SELECT a.id FROM actors AS a WHERE a.name = v.actor) ELSE v.actor END,
    v.action, v.kind, v.object, v.account, v.version, v.before, v.after
FROM (SELECT
    unnest(@at::timestamptz[]) AS at, unnest(@actors::text[]) AS actor, unnest(@persons::boolean[]) AS person,
    unnest(@actions::text[]) AS action, unnest(@kinds::text[]) AS kind, unnest(@objects::text[]) AS object,
    unnest(@accounts::uuid[]) AS account, unnest(@versions::smallint[]) AS version,
    unnest(@before::jsonb[]) AS before, unnest(@after::jsonb[]) AS after) AS v;

-- name: ExplainAudit :exec
-- Why that was done which the last row of InsertAudit before it in this transaction tells.
INSERT INTO audit_reasons (audit_id, reason) VALUES (currval('audit_log_id_seq'), @reason::text);

-- name: NameActors :exec
-- In the order of the names, as locks are taken in the same order by all.
INSERT INTO actors (name) SELECT DISTINCT unnest(@names::text[]) AS name ORDER BY name ON CONFLICT (name) DO NOTHING;

-- name: LoadLotIDs :many
SELECT id, user_id FROM credit_lots WHERE user_id = ANY (@ids::uuid[]);

-- name: UsersAndClock :many
-- Those to be registered, in the order in which they are asked for: who is known already, and what time it is.
SELECT EXISTS (SELECT FROM users AS u WHERE u.user_id = v.user_id) AS known,
    coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())::timestamptz AS now
FROM unnest(@user_ids::text[]) WITH ORDINALITY AS v (user_id, n) ORDER BY v.n;

-- name: InsertUsers :exec
-- Of two who register a user at once one fails here, and finds the other's account.
INSERT INTO users (id, user_id) SELECT unnest(@ids::uuid[]), unnest(@user_ids::text[]);

-- name: InsertAccounts :exec
-- Its alerts are known from the start: there are none.
INSERT INTO usage_quotas (user_id, plan_name, anchor_at, period_start, period_end, last_decided_at, currency, alerts)
SELECT unnest(@ids::uuid[]), unnest(@plan_names::text[]), unnest(@anchors::timestamptz[]), unnest(@period_starts::timestamptz[]),
    unnest(@period_ends::timestamptz[]), unnest(@decided_at::timestamptz[]), unnest(@currencies::text[]), '';

-- name: LoadTurns :many
-- Of the accounts, and of the first others that are next below the teams.
SELECT * FROM queue_turns
WHERE account_id = ANY (@accounts::uuid[])
   OR account_id = ANY (ARRAY(SELECT queue_turns_next(@teams::uuid[], @accounts::uuid[], @most::integer)));

-- name: UpsertTurns :exec
INSERT INTO queue_turns (account_id, parent_id, start_units, start_part, now_units, now_part, weight, runnable)
SELECT unnest(@accounts::uuid[]), unnest(@parents::uuid[]), unnest(@start_units::bigint[]), unnest(@start_parts::bigint[]),
    unnest(@now_units::bigint[]), unnest(@now_parts::bigint[]), unnest(@weights::integer[]), unnest(@runnable::boolean[])
ON CONFLICT (account_id) DO UPDATE SET parent_id = excluded.parent_id, start_units = excluded.start_units,
    start_part = excluded.start_part, now_units = excluded.now_units, now_part = excluded.now_part, weight = excluded.weight,
    runnable = excluded.runnable;

-- name: LoadWaitingBelow :many
-- Of the next below a team those that more means may help, and the last that was looked at if there may be more.
SELECT w.account_id::uuid AS account_id, w.helped::boolean AS helped, w.more::boolean AS more
FROM queue_waiting_below(@team::uuid, @after::uuid, @credits::bigint, @most::integer, @look::integer) AS w;
