-- +goose NO TRANSACTION
-- +goose Up

-- The audit log in a format that says its version: see docs/audit.md. What a failed attempt has left is taken as it is.

-- The people whom the log knows by id alone. Without its row here nobody can tell who an id was.
CREATE TABLE IF NOT EXISTS actors (
    id   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL UNIQUE
);

-- 1 is the format of the release before this one, which does not know the column.
ALTER TABLE audit_log ADD COLUMN IF NOT EXISTS version smallint NOT NULL DEFAULT 1;

-- +goose StatementBegin
-- The name under which the log knows an actor. Parts of the product and what Kubernetes calls system: are no persons.
CREATE OR REPLACE FUNCTION audit_actor(username text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF username IN ('system', 'usage-operator') OR username LIKE 'system:%' OR username LIKE 'person:%' THEN
        RETURN username;
    END IF;
    INSERT INTO actors (name) VALUES (username) ON CONFLICT (name) DO NOTHING;
    RETURN (SELECT 'person:' || id FROM actors WHERE name = username);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- A fact of a row of version 1 with another name and in another form: units of credits and of money instead of decimals, the
-- text of an id instead of its bytes or digits, a limit or "unlimited".
CREATE OR REPLACE FUNCTION audit_fact(form text, was jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN form IN ('units', 'micros') AND jsonb_typeof(was) = 'string'
            THEN to_jsonb(round((was #>> '{}')::numeric * CASE form WHEN 'units' THEN 60000 ELSE 1000000 END)::bigint)
        WHEN form = 'uuid' AND jsonb_typeof(was) = 'array'
            THEN to_jsonb((SELECT string_agg(lpad(to_hex(b::int), 2, '0'), '' ORDER BY n)
                FROM jsonb_array_elements_text(was) WITH ORDINALITY AS x (b, n))::uuid)
        WHEN form = 'uuid' AND jsonb_typeof(was) = 'string' THEN to_jsonb((was #>> '{}')::uuid)
        WHEN form = 'limit' AND was = 'null' THEN '"unlimited"'
        WHEN form IN ('override', 'override_ms') AND jsonb_typeof(was) = 'object' THEN CASE
            WHEN (was ->> 'Unlimited')::boolean THEN '"unlimited"'
            WHEN form = 'override' THEN was -> 'Max'
            ELSE to_jsonb((was ->> 'Max')::bigint / 1000000) END
        WHEN form = 'time' AND was = '"0001-01-01T00:00:00Z"' THEN 'null'
        ELSE was END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- A document of version 1 in the names and forms of version 2. Facts that have no name there are left out: they stand in the
-- rows that the log leads to, or name a person.
CREATE OR REPLACE FUNCTION audit_document(kind text, was jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN jsonb_typeof(was) = 'object' THEN (
        SELECT coalesce(jsonb_object_agg(m.name, audit_fact(m.form, f.value)), '{}')
        FROM jsonb_each(was) AS f
        JOIN (VALUES
            ('plan', 'Version', 'version', ''), ('plan', 'ObjectUid', 'object_uid', 'uuid'),
            ('plan', 'DisplayName', 'display_name', ''), ('plan', 'Rank', 'rank', ''),
            ('plan', 'IsDefault', 'default', ''), ('plan', 'Retired', 'retired', ''),
            ('plan', 'Features', 'features', ''), ('plan', 'CalendarMonth', 'calendar_month', ''),
            ('plan', 'FinalAfterSeconds', 'final_after_seconds', ''), ('plan', 'CreditsLimit', 'credits_units', 'limit'),
            ('plan', 'FileSizeLimit', 'file_size_bytes', 'limit'), ('plan', 'AudioMsLimit', 'audio_ms', 'limit'),
            ('plan', 'ConcurrentLimit', 'concurrent', 'limit'), ('plan', 'QueuedLimit', 'queued', 'limit'),
            ('plan', 'OverageMax', 'overage_max_units', ''), ('plan', 'OveragePriceMicros', 'overage_price_micros', ''),
            ('plan', 'CarryOverMax', 'carry_over_max_units', ''), ('plan', 'ProviderCostMicros', 'provider_cost_micros', ''),
            ('plan', 'Currency', 'currency', ''), ('plan', 'PeriodPriceMicros', 'period_price_micros', ''),
            ('plan', 'DailyCostCeilingMicros', 'daily_cost_ceiling_micros', 'limit'),
            ('plan', 'RateRequests', 'rate_requests', ''), ('plan', 'RateWindowSeconds', 'rate_window_seconds', ''),
            ('plan', 'UsageTypes', 'usage_types_microcredits', ''),
            ('plan', 'AlertThresholds', 'alert_thresholds_percent', ''),
            ('plan', 'AdmitWhenUnavailable', 'admit_when_unavailable', ''),
            ('plan', 'ResetSchedule', 'reset_schedule', ''), ('plan', 'ResetBatchSize', 'reset_batch_size', ''),
            ('settings', 'plan', 'plan', ''), ('settings', 'suspended', 'suspended', ''),
            ('settings', 'anchor', 'anchor', ''), ('settings', 'time_zone', 'time_zone', ''),
            ('overrides', 'Credits', 'credits_units', 'override'), ('overrides', 'FileSize', 'file_size_bytes', 'override'),
            ('overrides', 'Audio', 'audio_ms', 'override_ms'), ('overrides', 'Concurrent', 'concurrent', 'override'),
            ('overrides', 'Queued', 'queued', 'override'),
            ('grant', 'credits', 'credits_units', 'units'), ('grant', 'expires_at', 'expires_at', 'time'),
            ('period', 'period_no', 'period_no', ''), ('period', 'start', 'start', ''), ('period', 'end', 'end', ''),
            ('period', 'used', 'used_units', 'units'), ('period', 'reserved', 'reserved_units', 'units'),
            ('period', 'carry_over', 'carry_over_units', 'units'),
            ('balance', 'period_no', 'period_no', ''), ('balance', 'used', 'used_units', 'units'),
            ('balance', 'charged', 'charged_micros', 'micros'), ('balance', 'remaining', 'remaining_units', 'units'),
            ('ticket', 'ticket', 'ticket', 'uuid'), ('ticket', 'replica', 'replica', ''),
            ('ticket', 'issued_at', 'issued_at', ''), ('ticket', 'expires_at', 'expires_at', ''),
            ('ticket', 'estimate', 'estimate_units', 'units'), ('ticket', 'actual', 'actual_units', 'units'),
            ('ticket', 'plan', 'plan', ''), ('ticket', 'plan_version', 'plan_version', ''), ('ticket', 'offline', 'offline', '')
        ) AS m (kind, was, name, form) ON m.kind = audit_document.kind AND m.was = f.key
        WHERE NOT (m.kind = 'overrides' AND f.value = 'null')) END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- What a UserQuota decides, in version 2. Version 1 knew the object by its name, which says no more who it was once it is gone:
-- where there was one, nothing is told of it.
CREATE OR REPLACE FUNCTION audit_settings(was jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN was IS NOT NULL THEN '{"suspended": false}' || audit_document('settings', was)
        || jsonb_build_object('overrides', coalesce(audit_document('overrides', was -> 'overrides'), '{}'))
        || CASE WHEN coalesce(was ->> 'object', '') = '' THEN '{"quota_uid": null}'::jsonb ELSE '{}' END END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- A row of version 1 as version 2 would have written it. An action that neither knows stays as it is.
CREATE OR REPLACE FUNCTION audit_upgraded(l audit_log) RETURNS audit_log LANGUAGE plpgsql AS $$
DECLARE
    lot credit_lots;
BEGIN
    CASE
        WHEN l.action IN ('account.registered', 'quota.applied', 'quota.removed') THEN
            l.object_name := l.user_id;
            l.before := audit_settings(l.before);
            l.after := audit_settings(l.after);
        WHEN l.action = 'period.closed' THEN
            l.object_name := l.user_id;
            l.after := audit_document('period', l.after);
        WHEN l.action = 'grant.given' THEN
            SELECT * INTO lot FROM credit_lots AS c
            WHERE c.user_id = l.user_id AND c.kind = 'grant' AND c.name = l.after ->> 'grant';
            l.object_name := l.user_id;
            l.after := audit_document('grant', l.after);
            IF FOUND THEN
                -- The decimal was rounded.
                l.after := l.after || jsonb_build_object('lot', lot.id, 'credits_units', lot.credits);
            END IF;
        WHEN l.action IN ('usage.reversed', 'usage.adjusted') THEN
            -- Where nothing bounded them, nothing was said of the credits that remained.
            l.before := '{"remaining_units": "unlimited"}' || audit_document('balance', l.before);
            l.after := '{"remaining_units": "unlimited"}' || audit_document('balance', l.after);
        WHEN l.action = 'ticket.settled' THEN
            l.object_name := l.object_name::uuid;
            l.after := audit_document('ticket', l.after);
        WHEN l.action IN ('plan.created', 'plan.changed', 'plan.retired') THEN
            l.before := audit_document('plan', l.before);
            l.after := audit_document('plan', l.after);
        ELSE
            RETURN l;
    END CASE;
    l.actor := audit_actor(l.actor);
    l.version := 2;
    RETURN l;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION upgrade_audit_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN audit_upgraded(NEW);
END $$;
-- +goose StatementEnd

-- While the release before this one is still at work, or again, it writes version 1, and this is what is stored. A later
-- release takes the trigger away, with its functions and the column's default.
CREATE OR REPLACE TRIGGER audit_log_version BEFORE INSERT ON audit_log FOR EACH ROW WHEN (NEW.version = 1)
    EXECUTE FUNCTION upgrade_audit_row();

-- +goose StatementBegin
-- What was stored before the trigger was there, in transactions of their own: nobody waits for more than a few of these rows,
-- and nobody changes them.
CREATE OR REPLACE PROCEDURE upgrade_audit_log() LANGUAGE plpgsql AS $$
DECLARE
    done bigint := 0;
    newest bigint := (SELECT max(id) FROM audit_log);
BEGIN
    WHILE done < newest LOOP
        UPDATE audit_log AS l SET (actor, object_name, version, before, after) =
            (SELECT u.actor, u.object_name, u.version, u.before, u.after FROM audit_upgraded(l) AS u)
        WHERE l.id > done AND l.id <= done + 10000 AND l.version = 1;
        done := done + 10000;
        COMMIT;
    END LOOP;
END $$;
-- +goose StatementEnd
CALL upgrade_audit_log();
DROP PROCEDURE upgrade_audit_log();

-- +goose Down
DROP TRIGGER audit_log_version ON audit_log;
DROP FUNCTION upgrade_audit_row, audit_upgraded, audit_settings, audit_document, audit_fact, audit_actor;
ALTER TABLE audit_log DROP COLUMN version;
DROP TABLE actors;
