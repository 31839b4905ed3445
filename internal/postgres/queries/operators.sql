-- What operators ask about all users. Nothing here reads events or accounts.

-- name: Utilisation :many
SELECT u.plan_name, u.percent, sum(u.periods)::bigint AS periods, sum(u.idle)::bigint AS idle
FROM usage_utilisation AS u WHERE u.day >= @from_day::date AND u.day < @to_day::date
GROUP BY u.plan_name, u.percent ORDER BY u.plan_name, u.percent;

-- name: Margins :many
-- What was sold, owed and spent, by plan or by day.
SELECT (CASE WHEN @by_day::boolean THEN f.day ELSE @from_day::date END)::date AS day,
    (CASE WHEN @by_day::boolean THEN '' ELSE f.plan_name END)::text AS plan, f.currency::text AS currency,
    sum(f.periods)::bigint AS periods, sum(f.period_price)::bigint AS period_price, sum(f.overage_price)::bigint AS overage_price,
    sum(f.cost)::bigint AS cost
FROM (
    SELECT a.day, a.plan_name, a.currency, 0 AS periods, 0 AS period_price, a.price_micros AS overage_price, 0 AS cost
    FROM usage_totals AS a WHERE a.day >= @from_day::date AND a.day < @to_day::date AND a.events > 0
    UNION ALL
    SELECT b.day, b.plan_name, b.cost_currency, 0, 0, 0, b.cost_micros
    FROM usage_totals AS b WHERE b.day >= @from_day::date AND b.day < @to_day::date AND b.events > 0
    UNION ALL
    SELECT p.day, p.plan_name, p.currency, p.periods, p.price_micros, 0, 0
    FROM usage_prices AS p WHERE p.day >= @from_day::date AND p.day < @to_day::date) AS f
GROUP BY 1, 2, 3
HAVING sum(f.periods) <> 0 OR sum(f.overage_price) <> 0 OR sum(f.cost) <> 0
ORDER BY 1, 2, 3;

-- name: TeamMargins :many
-- The same by the team that paid. What users did not have a team pay for, under no name, is what all comes to less what teams do. Of what
-- teams used whole months are read, from the one whose beginning is the nearest to the span's to the one whose beginning is the nearest
-- to its end, and the days between these, which are added, or taken away. Where nothing is known beyond the span there are none of those.
WITH span AS MATERIALIZED (
    SELECT a.*, '00000000-0000-0000-0000-000000000000'::uuid AS none,
        date_trunc('month', a.from_day + CASE WHEN a.from_day <= k.first_day THEN 0 ELSE 15 END)::date AS from_month,
        date_trunc('month', CASE WHEN a.to_day > k.last_day THEN a.to_day - 1 + interval '1 month' ELSE a.to_day + 15 END)::date AS to_month
    FROM (SELECT @from_day::date AS from_day, @to_day::date AS to_day) AS a,
        (SELECT min(t.day) AS first_day, max(t.day) AS last_day FROM usage_payer_totals AS t) AS k),
used AS MATERIALIZED (
    SELECT m.team_id, m.currency, m.cost_currency, sum(m.price_micros)::bigint AS price, sum(m.cost_micros)::bigint AS cost
    FROM span AS s JOIN usage_payer_months AS m ON m.month >= s.from_month AND m.month < s.to_month
    GROUP BY m.team_id, m.currency, m.cost_currency
    UNION ALL
    SELECT d.team_id, d.currency, d.cost_currency, sum(e.sign * d.price_micros)::bigint, sum(e.sign * d.cost_micros)::bigint
    FROM (
        SELECT s.from_day AS from_day, s.from_month AS to_day, 1 AS sign FROM span AS s
        UNION ALL SELECT s.from_month, s.from_day, -1 FROM span AS s
        UNION ALL SELECT s.to_month, s.to_day, 1 FROM span AS s
        UNION ALL SELECT s.to_day, s.to_month, -1 FROM span AS s) AS e
    JOIN usage_payer_totals AS d ON d.day >= e.from_day AND d.day < e.to_day AND d.events > 0
    GROUP BY d.team_id, d.currency, d.cost_currency),
teams_of AS MATERIALIZED (
    SELECT f.team_id, f.currency, sum(f.periods) AS periods, sum(f.period_price) AS period_price, sum(f.overage_price) AS overage_price,
        sum(f.cost) AS cost
    FROM (
        SELECT u.team_id, u.currency, 0 AS periods, 0 AS period_price, u.price AS overage_price,
            CASE WHEN u.cost_currency = u.currency THEN u.cost ELSE 0 END AS cost
        FROM used AS u
        UNION ALL
        SELECT v.team_id, v.cost_currency, 0, 0, 0, v.cost FROM used AS v WHERE v.cost_currency <> v.currency
        UNION ALL
        SELECT q.team_id, q.currency, sum(q.periods)::bigint, sum(q.price_micros)::bigint, 0, 0
        FROM span AS s JOIN usage_period_prices AS q ON q.day >= s.from_day AND q.day < s.to_day AND q.team_id <> s.none
        GROUP BY q.team_id, q.currency) AS f
    GROUP BY f.team_id, f.currency)
SELECT g.team::text AS team, g.currency::text AS currency, g.periods::bigint AS periods, g.period_price::bigint AS period_price,
    g.overage_price::bigint AS overage_price, g.cost::bigint AS cost
FROM (
    SELECT t.name AS team, c.currency, c.periods, c.period_price, c.overage_price, c.cost
    FROM teams_of AS c JOIN teams AS t ON t.id = c.team_id
    UNION ALL
    SELECT '', o.currency, sum(o.periods), sum(o.period_price), sum(o.overage_price), sum(o.cost)
    FROM (
        SELECT a.currency, 0 AS periods, 0 AS period_price, a.price_micros AS overage_price, 0 AS cost
        FROM span AS s JOIN usage_totals AS a ON a.day >= s.from_day AND a.day < s.to_day AND a.events > 0
        UNION ALL
        SELECT b.cost_currency, 0, 0, 0, b.cost_micros
        FROM span AS s JOIN usage_totals AS b ON b.day >= s.from_day AND b.day < s.to_day AND b.events > 0
        UNION ALL
        SELECT p.currency, p.periods, p.price_micros, 0, 0
        FROM span AS s JOIN usage_prices AS p ON p.day >= s.from_day AND p.day < s.to_day
        UNION ALL
        SELECT n.currency, -n.periods, -n.period_price, -n.overage_price, -n.cost FROM teams_of AS n) AS o
    GROUP BY o.currency) AS g
WHERE g.periods <> 0 OR g.overage_price <> 0 OR g.cost <> 0
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
