-- +goose Up

-- What periods are sold for, whoever pays: usage_period_prices without the teams, made anew with it. Margins by plan and by day read
-- rows of days, and none of teams.
CREATE TABLE IF NOT EXISTS usage_prices (
    day          date NOT NULL,
    plan_name    text NOT NULL,
    currency     text NOT NULL,
    periods      bigint NOT NULL,
    price_micros bigint NOT NULL,
    PRIMARY KEY (day, plan_name, currency)
);
INSERT INTO usage_prices (day, plan_name, currency, periods, price_micros)
SELECT p.day, p.plan_name, p.currency, sum(p.periods), sum(p.price_micros) FROM usage_period_prices AS p
GROUP BY p.day, p.plan_name, p.currency
ON CONFLICT (day, plan_name, currency) DO NOTHING;

-- +goose Down
DROP TABLE usage_prices;
