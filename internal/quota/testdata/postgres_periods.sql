-- The boundaries of periods as PostgreSQL computes them, for TestBoundariesAsPostgreSQL:
--   psql -XqAtF, -f postgres_periods.sql > postgres_periods.csv
-- Columns: zone, anchor, months after it, boundary; instants in UTC. The first rows are named cases, the rest is a sample.
SET timezone = 'UTC';
WITH named (zone, anchor, months) AS (VALUES
    ('UTC',               timestamptz '2026-01-31 00:00:00Z', 1),   -- clamped to February 28
    ('UTC',               '2026-01-31 00:00:00Z', 2),               -- and back on the 31st
    ('UTC',               '2023-01-31 12:00:00Z', 13),              -- February 29
    ('UTC',               '2024-02-29 12:00:00Z', 12),              -- a leap day's anniversary
    ('UTC',               '2024-02-29 12:00:00Z', 48),              -- and its next leap day
    ('UTC',               '2096-02-29 12:00:00Z', 48),              -- 2100 is no leap year
    ('America/New_York',  '2026-01-08 07:30:00Z', 2),               -- 02:30 on March 8, 2026 is skipped
    ('America/New_York',  '2026-10-01 05:30:00Z', 1),               -- 01:30 on November 1, 2026 comes twice
    ('Europe/London',     '2026-02-28 01:30:00Z', 1),
    ('Europe/London',     '2026-03-29 01:30:00Z', -1),
    ('Europe/London',     '2026-09-25 00:30:00Z', 1),
    ('Australia/Lord_Howe', '2026-09-03 15:45:00Z', 1),             -- a gap of half an hour
    ('Australia/Lord_Howe', '2026-03-04 14:45:00Z', 1),
    ('America/Sao_Paulo', '2018-10-04 03:00:00Z', 1),               -- midnight is skipped
    ('Asia/Beirut',       '2021-02-27 22:00:00Z', 1),
    ('Pacific/Apia',      '2011-11-30 10:30:00Z', 1),               -- December 30, 2011 is skipped
    ('Pacific/Apia',      '2011-10-30 22:00:00Z', 2),
    ('Pacific/Apia',      '2011-12-31 09:59:59Z', -1),
    ('Pacific/Kwajalein', '1993-07-22 00:30:00Z', 1),               -- so is August 21, 1993
    ('Africa/Casablanca', '2019-04-05 02:30:00Z', 1),
    ('Asia/Hong_Kong',    '2026-10-31 16:00:00Z', 4)
), zones (zone, i) AS (SELECT * FROM unnest(ARRAY[
    'UTC', 'Asia/Hong_Kong', 'America/New_York', 'America/Los_Angeles', 'America/Sao_Paulo', 'America/Havana', 'America/St_Johns',
    'Europe/London', 'Europe/Dublin', 'Europe/Berlin', 'Europe/Moscow', 'Asia/Kolkata', 'Asia/Kathmandu', 'Asia/Tehran',
    'Asia/Beirut', 'Australia/Sydney', 'Australia/Lord_Howe', 'Pacific/Apia', 'Pacific/Chatham', 'Africa/Casablanca'
]) WITH ORDINALITY AS u (zone, i)), sample (zone, anchor, months) AS (
    SELECT zone,
           timestamptz '1995-01-01 00:00Z' + ((k * 7919 + i * 104729) % 10500) * interval '1 day' + ((k * 37 + i * 11) % 48) * interval '30 minutes',
           ((k * 53 + i * 17) % 72 - 12)::int
    FROM zones, generate_series(1, 15) AS k
)
SELECT zone, to_char(anchor, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), months,
       to_char((anchor AT TIME ZONE zone + months * interval '1 month') AT TIME ZONE zone, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM (SELECT * FROM named UNION ALL SELECT * FROM sample) AS c;
