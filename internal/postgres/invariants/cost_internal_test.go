// SPDX-License-Identifier: Apache-2.0

package invariants

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
)

// TestChecksReadOnce holds that a check of a ledger without violations reads the admissions once, whatever the planner
// takes the table for: the statistics of a ledger that has just grown are those of a small one. A check that read them
// again for each admission did not end in five minutes on 18,000 of them. Nor is a check compiled before it is run:
// with 8,000 admissions below teams that took a minute.
func TestChecksReadOnce(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.New(t, postgres.Migrate))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), `
		INSERT INTO users (id, user_id) SELECT md5('user-' || n)::uuid, 'user-' || n FROM generate_series(1, 20) AS n;
		INSERT INTO concurrent_processing (id, user_id, source, state, estimate, file_size, created_at, lease_ms,
		    lease_until, arrived_seq, admitted_seq, ended_seq, priority, enforced, admitted_at, period_no,
		    ended_at, plan_part, period_end)
		SELECT gen_random_uuid(), id, 'api', 'Released', 60000, 0, at, 120000, at, 3 * n, 3 * n + 1, 3 * n + 2, n % 2,
		    true, at, 0, at, 0, at
		FROM users CROSS JOIN generate_series(1, 100) AS n CROSS JOIN now() AS at;
		UPDATE pg_class SET relpages = 1000000, reltuples = 1
		WHERE oid = 'concurrent_processing'::regclass`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "BEGIN; "+settings); err != nil {
		t.Fatal(err)
	}
	for _, check := range slices.Concat(balances, replays, records) {
		var out []byte
		if err := conn.QueryRow(t.Context(), "EXPLAIN (ANALYZE, FORMAT JSON) "+check).Scan(&out); err != nil {
			t.Fatal(err)
		}
		var plans []struct {
			Plan node            `json:"Plan"`
			JIT  json.RawMessage `json:"JIT"`
		}
		if err := json.Unmarshal(out, &plans); err != nil {
			t.Fatal(err)
		}
		if plans[0].JIT != nil {
			t.Errorf("it is compiled first: %s", check)
		}
		plans[0].Plan.walk(func(n node) {
			if n.Relation == "concurrent_processing" && n.Loops > 1 {
				t.Errorf("the admissions are read %g times by %s", n.Loops, check)
			}
		})
	}
}

// node is a node of a plan, with the table that it reads, if it does.
type node struct {
	Relation string  `json:"Relation Name"`
	Loops    float64 `json:"Actual Loops"`
	Plans    []node  `json:"Plans"`
}

func (n node) walk(visit func(node)) {
	visit(n)
	for _, below := range n.Plans {
		below.walk(visit)
	}
}
