-- +goose NO TRANSACTION
-- +goose Up

-- On which of its days each account's forecast was looked at last, so that each is once a day; whoever has no row was never.
CREATE TABLE IF NOT EXISTS usage_forecasts (
    user_id uuid PRIMARY KEY,
    day     date NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- When the credits are expected to be used up, of ExhaustionForecast.
ALTER TABLE usage_alerts ADD COLUMN IF NOT EXISTS expected_at timestamptz;
ALTER TABLE usage_alerts DROP CONSTRAINT IF EXISTS usage_alerts_kind_check;
ALTER TABLE usage_alerts ADD CONSTRAINT usage_alerts_kind_check CHECK (kind IN ('CreditsPercent', 'TeamShare', 'DailyCostPercent',
    'Overdrawn', 'ExhaustionForecast', 'GrantExpiring', 'PeriodReset')) NOT VALID;
ALTER TABLE usage_alerts VALIDATE CONSTRAINT usage_alerts_kind_check;

-- What a team pays for its members. Who pays for themselves is not in it.
DROP INDEX CONCURRENTLY IF EXISTS usage_analytics_paid_idx;
CREATE INDEX CONCURRENTLY usage_analytics_paid_idx ON usage_analytics (payer_id, at) WHERE payer_id <> user_id;

-- +goose Down
DROP INDEX usage_analytics_paid_idx;
DELETE FROM usage_alerts WHERE kind = 'ExhaustionForecast';
ALTER TABLE usage_alerts DROP COLUMN expected_at;
ALTER TABLE usage_alerts DROP CONSTRAINT usage_alerts_kind_check;
ALTER TABLE usage_alerts ADD CONSTRAINT usage_alerts_kind_check CHECK (kind IN ('CreditsPercent', 'TeamShare', 'DailyCostPercent',
    'Overdrawn', 'GrantExpiring', 'PeriodReset'));
DROP TABLE usage_forecasts;
