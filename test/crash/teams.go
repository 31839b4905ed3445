// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// every third of the loose users is in a team of ten, and everybody is below one root.
	teamEvery, teamSize = 3, 10
	// rootSlots bound what runs at once below the root; with what is left alone the clients would want more.
	rootSlots, teamSlots = 60, 3
	// moveEvery is how often somebody changes teams.
	moveEvery = 200 * time.Millisecond
)

// declareTeams makes the teams and the root, by rows, as whatever declares them does in the end. Every second team pays
// for its members. The periods of the teams end in the middle of the run, one after the other.
func (s *stack) declareTeams(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.database.dsn())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range []string{
		fmt.Sprintf(`INSERT INTO teams (id, name, cap_currency, concurrent_cap, is_root)
			SELECT md5('platform')::uuid, 'platform', 'USD', %d, true UNION ALL
			SELECT md5('team-' || n)::uuid, 'team-' || n, 'USD', %d, false FROM generate_series(0, %d) AS n`,
			rootSlots, teamSlots, looseUsers/teamEvery/teamSize),
		`INSERT INTO usage_quotas (user_id, plan_name, currency, anchor_at, period_start, period_end)
			SELECT t.id, CASE WHEN n % 2 = 0 THEN 'loose' END, 'USD', start, start, start + interval '1 month'
			FROM (SELECT id, CASE WHEN NOT is_root THEN substr(name, 6)::integer ELSE 1 END AS n FROM teams) AS t
			CROSS JOIN LATERAL (SELECT date_trunc('second', clock_timestamp()) - interval '1 month'
				+ (30 + n) * interval '1 second' AS start) AS s`,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("make the teams: %w", err)
		}
	}
	_, s.members, err = s.database.proxy()
	return err
}

// moveMembers puts users into their teams once they have accounts, and moves them to others while they have work, until
// ctx ends.
func (s *stack) moveMembers(ctx context.Context) {
	tick := time.NewTicker(moveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// The database may be away, or have another primary by now: the next one gets through.
		if err := s.moveSome(ctx); err == nil {
			s.moved++
		}
	}
}

func (s *stack) moveSome(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.members)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if _, err = conn.Exec(ctx, `UPDATE usage_quotas AS a SET member_of = t.id FROM users AS u, teams AS t
		WHERE u.id = a.user_id AND a.member_of IS NULL AND u.user_id LIKE 'loose-%'
			AND substr(u.user_id, 7)::integer % $1 = 0 AND t.name = 'team-' || substr(u.user_id, 7)::integer / ($1 * $2)`, teamEvery, teamSize); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `UPDATE usage_quotas
		SET member_of = (SELECT id FROM teams WHERE NOT is_root ORDER BY random() LIMIT 1)
		WHERE user_id = (SELECT a.user_id FROM usage_quotas AS a JOIN users AS u ON u.id = a.user_id
			WHERE a.member_of IS NOT NULL ORDER BY a.active + a.queued DESC, random() LIMIT 1)`)
	return err
}

// compareTeams holds what was booked above the users against the caps and the balances there. In a team's own order of
// decisions it is known what ran below it at each instant.
func compareTeams(ctx context.Context, conn *pgx.Conn, v *verdict) (admissions int, err error) {
	if err := conn.QueryRow(ctx,
		"SELECT count(*) FROM concurrent_processing WHERE levels IS NOT NULL").Scan(&admissions); err != nil {
		return 0, err
	}
	rows, err := conn.Query(ctx, `
		WITH held AS (
			SELECT (l ->> 'account')::uuid AS account, (l ->> 'admitted_seq')::bigint AS began,
				(l ->> 'ended_seq')::bigint AS ended
			FROM concurrent_processing CROSS JOIN LATERAL jsonb_array_elements(levels) AS l),
		steps AS (
			SELECT account, began AS seq, 1 AS step FROM held
			UNION ALL SELECT account, ended, -1 FROM held WHERE ended IS NOT NULL),
		running AS (
			SELECT account, sum(step) OVER (PARTITION BY account ORDER BY seq, step ROWS UNBOUNDED PRECEDING) AS n
			FROM steps),
		spent AS (
			SELECT (l ->> 'account')::uuid AS account,
				sum(CASE WHEN (l ->> 'void')::boolean THEN 0 WHEN e.kind = 'reversal' THEN -e.credits
					ELSE e.credits END) AS credits
			FROM usage_tracking AS e CROSS JOIN LATERAL jsonb_array_elements(e.levels) AS l GROUP BY 1),
		used AS (
			SELECT user_id AS account, sum(used) AS credits
			FROM (SELECT user_id, used FROM usage_quotas UNION ALL SELECT user_id, used FROM usage_periods) AS p
			GROUP BY 1)
		SELECT t.name, t.concurrent_cap, coalesce((SELECT max(n) FROM running AS r WHERE r.account = t.id), 0),
			coalesce((SELECT credits FROM spent AS s WHERE s.account = t.id), 0)::bigint,
			(SELECT credits FROM used AS u WHERE u.account = t.id)::bigint
		FROM teams AS t ORDER BY t.name`)
	if err != nil {
		return 0, err
	}
	var name string
	var slots, most, spent, used int64
	_, err = pgx.ForEachRow(rows, []any{&name, &slots, &most, &spent, &used}, func() error {
		if most > slots {
			v.violatef("team %s: %d jobs ran at once below it, %d may", name, most, slots)
		}
		if spent != used {
			v.violatef("team %s: its members' events come to %d, it has used %d", name, spent, used)
		}
		return nil
	})
	return admissions, err
}
