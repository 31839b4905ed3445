// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
)

// TestHotPathReadsByIndex looks at the plans that a service makes which starts on empty tables and keeps for as long as its
// connections live. Every look at a table must be by the keys that the batch knows.
func TestHotPathReadsByIndex(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	conn, err := pgx.Connect(t.Context(), f.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	// As in a batch.
	if _, err := conn.Exec(t.Context(), "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"); err != nil {
		t.Fatal(err)
	}
	for name, sql := range map[string]string{
		"LockAccounts": dbsqlc.LockAccounts, "LockFreeAccounts": dbsqlc.LockFreeAccounts, "LoadAccounts": dbsqlc.LoadAccounts,
		"LoadLots": dbsqlc.LoadLots, "LoadAdmissions": dbsqlc.LoadAdmissions, "LoadPeriods": dbsqlc.LoadPeriods,
		"LoadLotIDs": dbsqlc.LoadLotIDs, "EndAdmissions": dbsqlc.EndAdmissions, "RenewLeases": dbsqlc.RenewLeases,
		"UpdateAdmissions": dbsqlc.UpdateAdmissions, "UpdateAccounts": dbsqlc.UpdateAccounts, "UpdatePeriods": dbsqlc.UpdatePeriods,
		"LoadKeys": dbsqlc.LoadKeys, "LoadRecentPeriods": dbsqlc.LoadRecentPeriods, "LoadEvents": dbsqlc.LoadEvents,
		"LoadEventLots": dbsqlc.LoadEventLots, "Event": dbsqlc.Event,
	} {
		statement, err := conn.Prepare(t.Context(), name, sql)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		nulls := strings.TrimSuffix(strings.Repeat("NULL, ", len(statement.ParamOIDs)), ", ")
		rows, err := conn.Query(t.Context(), `EXPLAIN (COSTS off) EXECUTE "`+name+`" (`+nulls+`)`, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		plan := strings.Join(lines, "\n")
		looks := strings.Count(plan, "Scan using ") + strings.Count(plan, "Bitmap Index Scan on ")
		if strings.Contains(plan, "Seq Scan") || looks == 0 || looks != strings.Count(plan, "Index Cond: ") {
			t.Errorf("%s reads more than it needs:\n%s", name, plan)
		}
	}
}
