-- What operators ask about all users. Nothing here reads events or accounts.

-- name: Utilisation :many
SELECT u.plan_name, u.percent, sum(u.periods)::bigint AS periods, sum(u.idle)::bigint AS idle
FROM usage_utilisation AS u WHERE u.day >= @from_day::date AND u.day < @to_day::date
GROUP BY u.plan_name, u.percent ORDER BY u.plan_name, u.percent;

-- name: Margins :many
-- What was sold, owed and spent: by plan, by the team that paid, or by day, as by says. What users did not have a team pay for is what
-- is in the totals and not in those of payers. Of these, months of which all known days lie within the span are read as such, and days
-- before and behind them.
WITH span AS MATERIALIZED (
    SELECT a.*,
        (date_trunc('month', CASE WHEN a.from_day <= k.first_day THEN a.from_day ELSE a.from_day - 1 + interval '1 month' END))::date
            AS from_month,
        (date_trunc('month', CASE WHEN a.to_day > k.last_day THEN a.to_day - 1 + interval '1 month' ELSE a.to_day END))::date AS to_month
    FROM (SELECT @by::text AS by, @from_day::date AS from_day, @to_day::date AS to_day,
            '00000000-0000-0000-0000-000000000000'::uuid AS none) AS a,
        (SELECT min(t.day) AS first_day, max(t.day) AS last_day FROM usage_payer_totals AS t) AS k),
paid AS MATERIALIZED (
    SELECT p.team_id, p.currency, p.cost_currency, sum(p.periods)::bigint AS periods, sum(p.period_price)::bigint AS period_price,
        sum(p.price_micros)::bigint AS overage_price, sum(p.cost_micros)::bigint AS cost
    FROM (
        SELECT m.team_id, m.currency, m.cost_currency, 0 AS periods, 0 AS period_price, m.price_micros, m.cost_micros
        FROM span AS s JOIN usage_payer_months AS m ON m.month >= s.from_month AND m.month < s.to_month WHERE s.by = 'team'
        UNION ALL
        SELECT b.team_id, b.currency, b.cost_currency, 0, 0, b.price_micros, b.cost_micros
        FROM span AS s JOIN usage_payer_totals AS b ON b.day >= s.from_day AND b.day < least(s.from_month, s.to_day)
        WHERE s.by = 'team' AND b.events > 0
        UNION ALL
        SELECT e.team_id, e.currency, e.cost_currency, 0, 0, e.price_micros, e.cost_micros
        FROM span AS s JOIN usage_payer_totals AS e ON e.day >= greatest(s.from_month, s.to_month) AND e.day < s.to_day
        WHERE s.by = 'team' AND e.events > 0
        UNION ALL
        SELECT q.team_id, q.currency, q.currency, q.periods, q.price_micros, 0, 0
        FROM span AS s JOIN usage_period_prices AS q ON q.day >= s.from_day AND q.day < s.to_day WHERE s.by = 'team') AS p
    GROUP BY p.team_id, p.currency, p.cost_currency),
money AS MATERIALIZED (
    SELECT a.day, a.plan_name, s.none AS team_id, a.currency, a.cost_currency, 0 AS periods, 0 AS period_price,
        a.price_micros AS overage_price, a.cost_micros AS cost
    FROM span AS s JOIN usage_totals AS a ON a.day >= s.from_day AND a.day < s.to_day AND a.events > 0
    UNION ALL
    SELECT r.day, r.plan_name, s.none, r.currency, r.currency, r.periods, r.price_micros, 0, 0
    FROM span AS s JOIN usage_prices AS r ON r.day >= s.from_day AND r.day < s.to_day WHERE s.by <> 'team'
    UNION ALL
    SELECT s.from_day, '', c.team_id, c.currency, c.cost_currency, c.periods, c.period_price, c.overage_price, c.cost
    FROM span AS s, paid AS c
    UNION ALL
    SELECT s.from_day, '', s.none, d.currency, d.cost_currency, 0, 0, -sum(d.overage_price)::bigint, -sum(d.cost)::bigint
    FROM span AS s, paid AS d GROUP BY s.from_day, s.none, d.currency, d.cost_currency)
SELECT g.day::date AS day, g.plan::text AS plan, coalesce(t.name, '')::text AS team, g.currency::text AS currency,
    g.periods::bigint AS periods, g.period_price::bigint AS period_price, g.overage_price::bigint AS overage_price, g.cost::bigint AS cost
FROM (
    SELECT CASE s.by WHEN 'day' THEN f.day ELSE s.from_day END AS day, CASE s.by WHEN 'plan' THEN f.plan_name ELSE '' END AS plan,
        f.team_id, f.currency, sum(f.periods) AS periods, sum(f.period_price) AS period_price, sum(f.overage_price) AS overage_price,
        sum(f.cost) AS cost
    FROM span AS s CROSS JOIN (
        SELECT m.day, m.plan_name, m.team_id, m.currency, m.periods, m.period_price, m.overage_price, 0 AS cost FROM money AS m
        UNION ALL
        SELECT n.day, n.plan_name, n.team_id, n.cost_currency, 0, 0, 0, n.cost FROM money AS n WHERE n.cost <> 0) AS f
    GROUP BY 1, 2, 3, 4
    HAVING sum(f.periods) <> 0 OR sum(f.overage_price) <> 0 OR sum(f.cost) <> 0) AS g
LEFT JOIN teams AS t ON t.id = g.team_id
ORDER BY 1, 2, 3, 4;

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
