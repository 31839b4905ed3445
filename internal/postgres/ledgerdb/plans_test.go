// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestHotPathReadsByIndex looks at the plans that a service makes and keeps for as long as its connections live, on a
// new database, and on one in which some table has nothing in it yet: in the first month nobody has a closed period.
// Every look at a table must be by the keys that the batch knows.
func TestHotPathReadsByIndex(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	statements := f.HotStatements(t)
	delete(statements, "LoadPlans") // a table of a few rows, read by few batches
	t.Run("new", func(t *testing.T) { checkHotPath(t, statements, f.dsn, "") })

	f = newCorruptible(t)
	if _, err := f.Pool().Exec(t.Context(), manyRows); err != nil {
		t.Fatal(err)
	}
	t.Run("full", func(t *testing.T) { checkHotPath(t, statements, f.dsn, "ANALYZE") })
	const all = "usage_periods, credit_lots, concurrent_processing, usage_tracking, idempotency_keys, " +
		"usage_reversals, teams, queue_turns"
	for _, empty := range append(strings.Split(all, ", "), all, all+", users, usage_quotas") {
		t.Run("without "+empty, func(t *testing.T) {
			checkHotPath(t, statements, f.dsn,
				"TRUNCATE "+empty+" CASCADE; ANALYZE")
		})
	}
}

const manyRows = `SET session_replication_role = replica;
	INSERT INTO users (id, user_id) SELECT md5('user-' || n)::uuid, 'user-' || n FROM generate_series(1, 2000) AS n;
	INSERT INTO usage_quotas (user_id, plan_name, anchor_at, period_no, period_start, period_end)
		SELECT id, 'free', now(), 1, now(), now() + interval '1 month' FROM users;
	INSERT INTO usage_periods (user_id, period_no, period_start, period_end, used, reserved, plan_used, plan_reserved,
	    cost_micros,
			charged_micros, plan_name, plan_version, carry_over, carry_over_max, closed_at)
		SELECT id, 0, now() - interval '1 month', now(), 0, 0, 0, 0, 0, 0, 'free', 1, 0, 0, now() FROM users;
	INSERT INTO credit_lots (id, user_id, kind, name, credits, created_at)
		SELECT md5('lot-' || user_id)::uuid, id, 'grant', 'gift', 1000, now() FROM users;
	INSERT INTO concurrent_processing (id, user_id, source, state, estimate, file_size, created_at, lease_ms,
	    lease_until, arrived_seq)
		SELECT md5('queued-' || n || user_id)::uuid, id, 'api', 'Queued', 1000, 1000, now(), 1000, now(), n
		FROM users CROSS JOIN generate_series(1, 10) AS n;
	INSERT INTO usage_tracking (id, recorded_at, user_id, period_id, kind, usage_type, occurred_at, credits, plan_part,
	    currency,
			plan_name, plan_version, seq, idempotency_key)
		SELECT md5('event-' || n || user_id)::uuid, now(), id, 0, 'charge', 'export', now(), 0, 0, 'USD', 'free', 1, n,
		    'key-' || n
		FROM users CROSS JOIN generate_series(1, 10) AS n;
	INSERT INTO idempotency_keys (user_id, key, made_at, body_hash, event_id)
		SELECT user_id, 'key-' || seq, recorded_at, '\x00', id FROM usage_tracking;
	INSERT INTO usage_reversals (event_id, user_id, reversal_id, reversed_at) SELECT id, user_id, id, now() FROM
	    usage_tracking WHERE seq = 1;
	INSERT INTO teams (id, name, cap_currency) SELECT md5('team-' || n)::uuid, 'team-' || n, 'USD' FROM
	    generate_series(1, 500) AS n;
	INSERT INTO usage_quotas (user_id, anchor_at, period_no, period_start, period_end)
		SELECT id, now(), 60, now(), now() + interval '1 month' FROM teams;
	INSERT INTO usage_periods (user_id, period_no, period_start, period_end, used, reserved, plan_used, plan_reserved,
	    cost_micros, charged_micros, plan_name, plan_version, carry_over, carry_over_max, closed_at)
		SELECT id, n, now() - interval '1 month', now(), 0, 0, 0, 0, 0, 0, '', 0, 0, 0, now()
		FROM teams CROSS JOIN generate_series(0, 59) AS n;
	UPDATE usage_quotas AS a SET member_of = t.id, parent_id = t.id FROM users AS u JOIN teams AS t
	    ON t.name = 'team-' || substr(u.user_id, 6)::integer % 500 WHERE u.id = a.user_id;
	UPDATE concurrent_processing AS c SET levels = jsonb_build_array(jsonb_build_object('account', a.member_of,
	    'period_no', 3)) FROM usage_quotas AS a WHERE a.user_id = c.user_id AND a.member_of IS NOT NULL;
	INSERT INTO queue_turns SELECT user_id, member_of, 0, 0, 0, 0, 1, true FROM usage_quotas;
	RESET session_replication_role`

// checkHotPath plans the statements in the state that prepare brings about, and undoes that.
func checkHotPath(t *testing.T, statements map[string]string, dsn, prepare string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	// As in a batch.
	if _, err := conn.Exec(t.Context(), "BEGIN; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; "+
		"SET enable_indexscan = off; SET enable_indexonlyscan = off; "+prepare); err != nil {
		t.Fatal(err)
	}
	for name, sql := range statements {
		statement, err := conn.Prepare(t.Context(), name, sql)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		nulls := strings.TrimSuffix(strings.Repeat("NULL, ", len(statement.ParamOIDs)), ", ")
		rows, err := conn.Query(t.Context(), `EXPLAIN (COSTS off) EXECUTE "`+name+`" (`+nulls+`)`,
			pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		plan := strings.Join(lines, "\n")
		looks := strings.Count(plan, "Scan using ") + strings.Count(plan, "Bitmap Index Scan on ")
		if strings.Contains(plan, "Seq Scan") || looks == 0 && !strings.Contains(plan, "Insert on ") ||
			looks != strings.Count(plan, "Index Cond: ") {
			t.Errorf("%s reads more than it needs:\n%s", name, plan)
		}
	}
}

// TestLongQueueCostsNoMore reads the front of a short queue and of a long one, in which moreover much is parked, with a
// plan that was made when nobody waited, and counts the pages.
func TestLongQueueCostsNoMore(t *testing.T) {
	t.Parallel()
	f := newCorruptible(t)
	statement := f.HotStatements(t)["LoadAdmissions"]
	conn, err := pgx.Connect(t.Context(), f.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; "+
		"SET enable_indexscan = off; SET enable_indexonlyscan = off"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Prepare(t.Context(), "load", statement); err != nil {
		t.Fatal(err)
	}
	read := func(user string) (rows, pages int) {
		t.Helper()
		var plans []struct {
			Plan struct {
				Rows int `json:"Actual Rows"`
				Hit  int `json:"Shared Hit Blocks"`
				Read int `json:"Shared Read Blocks"`
			}
		}
		if err := conn.QueryRow(t.Context(),
			`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE load ('{}', 40, ARRAY[md5('`+user+`')::uuid])`,
			pgx.QueryExecModeSimpleProtocol).Scan(&plans); err != nil {
			t.Fatal(err)
		}
		return plans[0].Plan.Rows, plans[0].Plan.Hit + plans[0].Plan.Read
	}
	read("user-1")
	if _, err := f.Pool().Exec(t.Context(), manyRows); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Pool().Exec(t.Context(), `UPDATE usage_quotas SET queued = 10;
		INSERT INTO concurrent_processing (id, user_id, source, state, estimate, file_size, created_at, lease_ms,
		    lease_until, arrived_seq,
			parked)
		SELECT md5('more-' || n)::uuid, md5('user-2')::uuid, 'api', 'Queued', 1000, 1000, now(), 1000, now(), n + 10, n
		    <= 10000
		FROM generate_series(1, 20000) AS n`); err != nil {
		t.Fatal(err)
	}
	for _, then := range []string{"", "ANALYZE"} {
		if _, err := f.Pool().Exec(t.Context(), then); err != nil {
			t.Fatal(err)
		}
		read("user-1") // plans anew, if that is to be
		shortRows, short := read("user-1")
		longRows, long := read("user-2")
		if shortRows != 10 || longRows != 81 || long > 10*short+100 {
			t.Errorf("%s: %d rows of a short queue in %d pages, %d of a long one in %d", then, shortRows, short,
				longRows, long)
		}
	}
}
