-- What operators ask about all users. Nothing here reads events or accounts.

-- name: Utilisation :many
SELECT u.plan_name, u.percent, sum(u.periods)::bigint AS periods, sum(u.idle)::bigint AS idle
FROM usage_utilisation AS u WHERE u.day >= @from_day::date AND u.day < @to_day::date
GROUP BY u.plan_name, u.percent ORDER BY u.plan_name, u.percent;

-- name: Margins :many
-- What users did not have a team pay for is what is in the totals and not in those of payers. Of these, months that lie within the span
-- are read as such, and days before and behind them.
WITH span AS NOT MATERIALIZED (
    SELECT a.by_team, a.from_day, a.to_day, (date_trunc('month', a.from_day - 1) + interval '1 month')::date AS from_month,
        date_trunc('month', a.to_day)::date AS to_month, '00000000-0000-0000-0000-000000000000'::uuid AS none
    FROM (SELECT @by_team::boolean AS by_team, @from_day::date AS from_day, @to_day::date AS to_day) AS a),
paid AS MATERIALIZED (
    SELECT p.team_id, p.currency, p.cost_currency, sum(p.price_micros)::bigint AS price, sum(p.cost_micros)::bigint AS cost
    FROM (
        SELECT m.team_id, m.currency, m.cost_currency, m.price_micros, m.cost_micros
        FROM span AS s JOIN usage_payer_months AS m ON m.month >= s.from_month AND m.month < s.to_month WHERE s.by_team
        UNION ALL
        SELECT b.team_id, b.currency, b.cost_currency, b.price_micros, b.cost_micros
        FROM span AS s JOIN usage_payer_totals AS b ON b.day >= s.from_day AND b.day < least(s.from_month, s.to_day)
        WHERE s.by_team AND b.events > 0
        UNION ALL
        SELECT e.team_id, e.currency, e.cost_currency, e.price_micros, e.cost_micros
        FROM span AS s JOIN usage_payer_totals AS e ON e.day >= greatest(s.from_month, s.to_month) AND e.day < s.to_day
        WHERE s.by_team AND e.events > 0) AS p
    GROUP BY p.team_id, p.currency, p.cost_currency)
SELECT f.plan::text AS plan, coalesce(t.name, '')::text AS team, f.currency::text AS currency, sum(f.periods)::bigint AS periods,
    sum(f.period_price)::bigint AS period_price, sum(f.overage_price)::bigint AS overage_price, sum(f.cost)::bigint AS cost
FROM (
    SELECT CASE WHEN s.by_team THEN '' ELSE a.plan_name END AS plan, s.none AS team_id, a.currency, 0 AS periods, 0 AS period_price,
        a.price_micros AS overage_price, 0 AS cost
    FROM span AS s JOIN usage_totals AS a ON a.day >= s.from_day AND a.day < s.to_day AND a.events > 0
    UNION ALL
    SELECT CASE WHEN s.by_team THEN '' ELSE b.plan_name END, s.none, b.cost_currency, 0, 0, 0, b.cost_micros
    FROM span AS s JOIN usage_totals AS b ON b.day >= s.from_day AND b.day < s.to_day AND b.events > 0
    UNION ALL
    SELECT '', c.team_id, c.currency, 0, 0, c.price, 0 FROM paid AS c
    UNION ALL
    SELECT '', d.team_id, d.cost_currency, 0, 0, 0, d.cost FROM paid AS d
    UNION ALL
    SELECT '', s.none, e.currency, 0, 0, -e.price, 0 FROM span AS s, paid AS e
    UNION ALL
    SELECT '', s.none, g.cost_currency, 0, 0, 0, -g.cost FROM span AS s, paid AS g
    UNION ALL
    SELECT CASE WHEN s.by_team THEN '' ELSE q.plan_name END, CASE WHEN s.by_team THEN q.team_id ELSE s.none END, q.currency, q.periods,
        q.price_micros, 0, 0
    FROM span AS s JOIN usage_period_prices AS q ON q.day >= s.from_day AND q.day < s.to_day) AS f
LEFT JOIN teams AS t ON t.id = f.team_id
GROUP BY f.plan, f.team_id, t.name, f.currency
HAVING sum(f.periods) <> 0 OR sum(f.overage_price) <> 0 OR sum(f.cost) <> 0
ORDER BY 1, 2, 3;

-- name: MarginDays :many
-- The same of all, by days.
SELECT v.day::date AS day, v.currency::text AS currency, sum(v.periods)::bigint AS periods, sum(v.period_price)::bigint AS period_price,
    sum(v.overage_price)::bigint AS overage_price, sum(v.cost)::bigint AS cost
FROM (
    SELECT a.day, a.currency, 0 AS periods, 0 AS period_price, a.price_micros AS overage_price, 0 AS cost
    FROM usage_totals AS a WHERE a.day >= @from_day::date AND a.day < @to_day::date AND a.events > 0
    UNION ALL
    SELECT b.day, b.cost_currency, 0, 0, 0, b.cost_micros
    FROM usage_totals AS b WHERE b.day >= @from_day::date AND b.day < @to_day::date AND b.events > 0
    UNION ALL
    SELECT p.day, p.currency, p.periods, p.price_micros, 0, 0
    FROM usage_period_prices AS p WHERE p.day >= @from_day::date AND p.day < @to_day::date) AS v
GROUP BY v.day, v.currency
HAVING sum(v.periods) <> 0 OR sum(v.overage_price) <> 0 OR sum(v.cost) <> 0
ORDER BY 1, 2;

-- name: CurrenciesOf :many
-- Of the money of days.
SELECT a.currency FROM usage_totals AS a WHERE a.day >= @from_day::date AND a.day < @to_day::date AND a.events > 0
UNION
SELECT b.cost_currency FROM usage_totals AS b WHERE b.day >= @from_day::date AND b.day < @to_day::date AND b.events > 0
ORDER BY 1;

-- name: SpendersByCredits :many
SELECT m.user_id AS account, u.user_id AS external, coalesce(a.plan_name, '')::text AS plan_name, m.uses, m.credits, m.price_micros,
    m.cost_micros, m.previous_credits, coalesce(b.price_micros, 0)::bigint AS previous_price, coalesce(b.cost_micros, 0)::bigint AS previous_cost
FROM usage_months AS m JOIN users AS u ON u.id = m.user_id LEFT JOIN usage_quotas AS a ON a.user_id = m.user_id
LEFT JOIN usage_months AS b ON b.user_id = m.user_id AND b.month = (m.month - interval '1 month')::date AND b.currency = m.currency
WHERE m.month = @month::date AND m.currency = @currency::text AND (m.credits, m.user_id) < (@below::bigint, @before::uuid)
ORDER BY m.credits DESC, m.user_id DESC LIMIT @most;

-- name: SpendersByPrice :many
SELECT m.user_id AS account, u.user_id AS external, coalesce(a.plan_name, '')::text AS plan_name, m.uses, m.credits, m.price_micros,
    m.cost_micros, m.previous_credits, coalesce(b.price_micros, 0)::bigint AS previous_price, coalesce(b.cost_micros, 0)::bigint AS previous_cost
FROM usage_months AS m JOIN users AS u ON u.id = m.user_id LEFT JOIN usage_quotas AS a ON a.user_id = m.user_id
LEFT JOIN usage_months AS b ON b.user_id = m.user_id AND b.month = (m.month - interval '1 month')::date AND b.currency = m.currency
WHERE m.month = @month::date AND m.currency = @currency::text AND (m.price_micros, m.user_id) < (@below::bigint, @before::uuid)
ORDER BY m.price_micros DESC, m.user_id DESC LIMIT @most;

-- name: SpendersByCost :many
SELECT m.user_id AS account, u.user_id AS external, coalesce(a.plan_name, '')::text AS plan_name, m.uses, m.credits, m.price_micros,
    m.cost_micros, m.previous_credits, coalesce(b.price_micros, 0)::bigint AS previous_price, coalesce(b.cost_micros, 0)::bigint AS previous_cost
FROM usage_months AS m JOIN users AS u ON u.id = m.user_id LEFT JOIN usage_quotas AS a ON a.user_id = m.user_id
LEFT JOIN usage_months AS b ON b.user_id = m.user_id AND b.month = (m.month - interval '1 month')::date AND b.currency = m.currency
WHERE m.month = @month::date AND m.currency = @currency::text AND (m.cost_micros, m.user_id) < (@below::bigint, @before::uuid)
ORDER BY m.cost_micros DESC, m.user_id DESC LIMIT @most;

-- name: SpendersByGrowth :many
SELECT m.user_id AS account, u.user_id AS external, coalesce(a.plan_name, '')::text AS plan_name, m.uses, m.credits, m.price_micros,
    m.cost_micros, m.previous_credits, coalesce(b.price_micros, 0)::bigint AS previous_price, coalesce(b.cost_micros, 0)::bigint AS previous_cost
FROM usage_months AS m JOIN users AS u ON u.id = m.user_id LEFT JOIN usage_quotas AS a ON a.user_id = m.user_id
LEFT JOIN usage_months AS b ON b.user_id = m.user_id AND b.month = (m.month - interval '1 month')::date AND b.currency = m.currency
WHERE m.month = @month::date AND m.currency = @currency::text AND (m.credits - m.previous_credits, m.user_id) < (@below::bigint, @before::uuid)
ORDER BY m.credits - m.previous_credits DESC, m.user_id DESC LIMIT @most;

-- name: Cohorts :many
SELECT * FROM usage_cohorts WHERE cohort >= @from_month::date AND cohort <= @to_month::date ORDER BY cohort, month;

-- name: SimulationUsers :many
-- Users who pay for themselves, by ids behind one, all or those on a plan.
SELECT p.user_id, a.plan_name::text AS plan_name, u.created_at
FROM paying_accounts AS p JOIN usage_quotas AS a ON a.user_id = p.user_id JOIN users AS u ON u.id = p.user_id
WHERE p.user_id > @after::uuid AND p.team_id = '00000000-0000-0000-0000-000000000000' AND (@plan::text = '' OR a.plan_name = @plan::text)
ORDER BY p.user_id LIMIT @most;

-- name: SimulationDays :many
-- What they used on days of UTC and paid for themselves.
SELECT s.user_id, (s.at AT TIME ZONE 'UTC')::date AS day, sum(s.credits)::bigint AS credits,
    (coalesce(sum(s.credits) FILTER (WHERE s.usage_type = 'transcription'), 0))::bigint AS transcribed,
    max(s.largest_audio_ms)::bigint AS audio_ms, max(s.largest_bytes)::bigint AS bytes
FROM usage_analytics AS s
WHERE s.user_id = ANY (@ids::uuid[]) AND s.day >= @from_day::date AND s.day <= @to_day::date
  AND s.at >= @since::timestamptz AND s.at < @until::timestamptz
  AND s.payer_id = s.user_id AND s.events > 0
GROUP BY 1, 2 ORDER BY 1, 2;
