-- +goose Up

-- What was refused, of all users together, by the day of UTC: made anew from usage_refusals with usage_totals, for whole days. users
-- are those of the day; those of two days are not to be added, since somebody may be among both.
CREATE TABLE IF NOT EXISTS usage_refusal_totals (
    day       date NOT NULL,
    plan_name text NOT NULL,
    reason    text NOT NULL,
    served_by text NOT NULL,
    users     bigint NOT NULL,
    refusals  bigint NOT NULL,
    credits   numeric NOT NULL,
    PRIMARY KEY (day, plan_name, reason, served_by)
);

-- Before which day rows of usage_refusals may be gone. What their days came to stays as it was made before. One row, or none as long as
-- nothing was old enough.
CREATE TABLE IF NOT EXISTS usage_refusals_forgotten (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    before   date NOT NULL
);

-- Not by marking the days as stale: a rollup of the release before would take the marks, and make other totals only.
INSERT INTO usage_refusal_totals (day, plan_name, reason, served_by, users, refusals, credits)
SELECT (r.at AT TIME ZONE 'UTC')::date, r.plan_name, r.reason, r.served_by, count(DISTINCT r.user_id), sum(r.refusals), sum(r.credits)
FROM usage_refusals AS r GROUP BY 1, 2, 3, 4
ON CONFLICT (day, plan_name, reason, served_by) DO NOTHING;

-- +goose Down
DROP TABLE usage_refusals_forgotten, usage_refusal_totals;
