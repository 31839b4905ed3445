// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"context"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// manyWait has 100,000 users wait below one team, user n as the n-th in order. They have one admission each, which
// waits for a slot.
const manyWait = `SET session_replication_role = replica;
	INSERT INTO teams (id, name, cap_currency) VALUES (md5('team')::uuid, 'newsroom', 'USD');
	INSERT INTO usage_quotas (user_id, plan_name, anchor_at, period_no, period_start, period_end, queued, parent_id)
		SELECT md5('user-' || n)::uuid, 'free', now(), 1, now(), now() + interval '1 month', 1, md5('team')::uuid
		FROM generate_series(1, 100000) AS n;
	INSERT INTO usage_quotas (user_id, anchor_at, period_no, period_start, period_end, queued)
		VALUES (md5('team')::uuid, now(), 1, now(), now() + interval '1 month', 100000);
	INSERT INTO concurrent_processing (id, user_id, source, state, estimate, file_size, created_at, lease_ms,
	    lease_until, arrived_seq)
		SELECT md5('job-' || n)::uuid, md5('user-' || n)::uuid, 'api', 'Queued', 1000, 1000, now(), 1000, now(), 1
		FROM generate_series(1, 100000) AS n;
	INSERT INTO queue_turns SELECT md5('user-' || n)::uuid, md5('team')::uuid, n, 0, 0, 0, 1, true
		FROM generate_series(1, 100000) AS n;
	INSERT INTO queue_turns VALUES (md5('team')::uuid, NULL, 0, 0, 0, 0, 1, true);
	RESET session_replication_role`

// Who is next below a team, and whom more means may help, costs what is found, however many wait, whatever the planner
// takes the tables for.
func TestTurnsOfAHundredThousand(t *testing.T) {
	t.Parallel()
	f := newCorruptible(t)
	f.exec(manyWait)
	conn, err := pgx.Connect(t.Context(), f.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var team quota.ID
	var batch []quota.ID
	if err := conn.QueryRow(t.Context(), "SELECT md5('team')::uuid").Scan(&team); err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(t.Context(), `SELECT array_agg(md5('user-' || n)::uuid)
		FROM generate_series(1, 50) AS n`).Scan(&batch); err != nil {
		t.Fatal(err)
	}
	teams, none := []quota.ID{team}, quota.ID{}
	walk := []any{team, none, 1 << 40, ledger.WalkPage, ledger.WalkLook}
	type read struct {
		sql  string
		args []any
		most int
	}
	hold := func(reads map[string]read) {
		t.Helper()
		for name, statistics := range map[string]string{
			"of before":        "",
			"none":             "UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE relkind = 'r'",
			"of a small table": "UPDATE pg_class SET reltuples = 1, relpages = 1 WHERE relkind = 'r'",
			"true":             "ANALYZE queue_turns, usage_quotas, concurrent_processing",
		} {
			for what, r := range reads {
				tx, err := conn.Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tx.Exec(t.Context(), statistics+";"+postgres.PlanOnce); err != nil {
					t.Fatal(err)
				}
				got := pages(t, conn, r.sql, r.args...)
				if t.Logf("%s, statistics %s: %d pages", what, name, got); got > r.most {
					t.Errorf("%s, statistics %s: reads %d pages, want at most %d", what, name, got, r.most)
				}
				if err := tx.Rollback(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	hold(map[string]read{
		"next": {"SELECT queue_turns_next($1, $2, $3)", []any{teams, batch, ledger.NextPage}, 100},
		"turns": {dbsqlc.LoadTurns, []any{append(slices.Clip(batch), team), teams, ledger.NextPage},
			400},
		"walk past what could run": {dbsqlc.LoadWaitingBelow, walk, 3000},
	})
	f.exec(`SET session_replication_role = replica;
		UPDATE concurrent_processing SET parked = true, ever_parked = true, reason = 'CreditsExhausted';
		UPDATE usage_quotas SET parked = queued; UPDATE queue_turns SET runnable = false;
		RESET session_replication_role`)
	hold(map[string]read{
		"walk through what is parked": {dbsqlc.LoadWaitingBelow, walk, 800},
		"walk past what is too large": {dbsqlc.LoadWaitingBelow, []any{team, none, 1, ledger.WalkPage,
			ledger.WalkLook}, 6000},
	})
}
