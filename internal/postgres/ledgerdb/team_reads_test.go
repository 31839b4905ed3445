// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// What is read of a team costs what it finds: ten members, however many users and teams there are beside them.
func TestTeamReadsCostWhatTheyFind(t *testing.T) {
	t.Parallel()
	f := newCorruptible(t)
	f.exec(manyRows)
	f.exec(`SET session_replication_role = replica; DELETE FROM usage_quotas WHERE user_id IN (SELECT id FROM teams);
		UPDATE usage_quotas SET member_of = NULL, parent_id = NULL; DELETE FROM teams; DELETE FROM queue_turns;
		RESET session_replication_role`)
	const team = `INSERT INTO teams (id, name, cap_currency) VALUES (md5('team-' || $1::text)::uuid, $1, 'USD')`
	const account = `INSERT INTO usage_quotas (user_id, plan_name, anchor_at, period_no, period_start, period_end)
		SELECT md5('team-' || $1::text)::uuid, NULL, now(), 3, now(), now() + interval '1 month'`
	const join = `UPDATE usage_quotas SET queued = 10, member_of = md5('team-' || $1::text)::uuid FROM users AS u
		WHERE u.id = usage_quotas.user_id AND u.user_id ~ $2`
	const share = `INSERT INTO team_shares (team_id, period_no, user_id, used)
		SELECT a.member_of, n, a.user_id, 60000 FROM usage_quotas AS a CROSS JOIN generate_series(0, 3) AS n
		WHERE a.member_of = md5('team-' || $1::text)::uuid`
	const turn = `INSERT INTO queue_turns (account_id, parent_id, start_units, start_part, now_units, now_part, weight,
		runnable) SELECT a.user_id, a.member_of, row_number() OVER (ORDER BY a.user_id), 0, 0, 0, 1, true
		FROM usage_quotas AS a WHERE a.member_of = md5('team-' || $1::text)::uuid`
	conn, err := pgx.Connect(t.Context(), f.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	fill := func(name, members string) {
		t.Helper()
		exec(team, name)
		exec(account, name)
		exec(join, name, members)
		exec(share, name)
		exec(turn, name)
		exec("ANALYZE")
	}
	fill("newsroom", "^user-1.?$") // user-1 and user-10 to user-19
	var id quota.ID
	if err := conn.QueryRow(t.Context(), "SELECT md5('team-newsroom')::uuid").Scan(&id); err != nil {
		t.Fatal(err)
	}
	none := quota.ID{}
	reads := map[string]func() int{
		"shares":   func() int { return pages(t, conn, dbsqlc.Shares, id, none, 2, 100) },
		"history":  func() int { return pages(t, conn, dbsqlc.SharesBefore, id, 1000, 13, 101) },
		"members":  func() int { return pages(t, conn, dbsqlc.TeamMembers, id, 101, none) },
		"waiting":  func() int { return pages(t, conn, dbsqlc.WaitingAccounts, none, 501, []quota.ID{id}) },
		"siblings": func() int { return pages(t, conn, dbsqlc.TurnsBelow, []quota.ID{id}, 1001) },
		"below":    func() int { return pages(t, conn, dbsqlc.WaitingBelow, id, 1001) },
		"starts":   func() int { return pages(t, conn, dbsqlc.StartsBelow, 501, 40, id) },
	}
	before := map[string]int{}
	for name, read := range reads {
		before[name] = read()
	}
	exec(`INSERT INTO users (id, user_id)
		SELECT md5('other-' || n)::uuid, 'other-' || n FROM generate_series(1, 20000) AS n`)
	exec(`INSERT INTO usage_quotas (user_id, plan_name, anchor_at, period_no, period_start, period_end)
		SELECT id, 'free', now(), 1, now(), now() + interval '1 month' FROM users WHERE user_id LIKE 'other-%'`)
	fill("sports", "^other-")
	for name, read := range reads {
		// A few pages for each of the eleven members and four periods, and for the two teams.
		if got := read(); got > before[name]+before[name]/5+220 {
			t.Errorf("%s reads %d pages, %d before", name, got, before[name])
		}
	}
}
