-- +goose Up

-- Periods that were closed before their currency was written down are of that of the plan's version that closed them, as far as
-- versions were kept by then. From here on no row is without one.
UPDATE usage_periods AS p SET currency = v.definition ->> 'currency' FROM plan_versions AS v
WHERE p.currency IS NULL AND v.plan_name = p.plan_name
  AND v.version = (SELECT coalesce(max(w.version) FILTER (WHERE w.version <= p.plan_version), min(w.version))
      FROM plan_versions AS w WHERE w.plan_name = p.plan_name);

-- Amounts of different currencies are never added. The columns of an account and of a period are amounts of one currency, that
-- of the plan; what was booked or reserved in another one stands in other_amounts, by currency, under the columns' names. NULL
-- means that there is none.
--
-- The release before this one writes neither column. The currency of an account without one is that of the version of its plan
-- that held when it was last decided on. A plan's currency must not be changed while that release still runs.
ALTER TABLE usage_quotas ADD COLUMN currency text, ADD COLUMN other_amounts jsonb;
ALTER TABLE usage_periods ADD COLUMN other_amounts jsonb;

-- Of the admission's costs. NULL means that of the version of the account's plan that held when it was admitted.
ALTER TABLE concurrent_processing ADD COLUMN currency text;

-- Of the event's cost; currency is that of its price. NULL means that the event was made before currencies were kept apart.
ALTER TABLE usage_tracking ADD COLUMN cost_currency text;

-- +goose Down
ALTER TABLE usage_tracking DROP COLUMN cost_currency;
ALTER TABLE concurrent_processing DROP COLUMN currency;
ALTER TABLE usage_periods DROP COLUMN other_amounts;
ALTER TABLE usage_quotas DROP COLUMN other_amounts, DROP COLUMN currency;
