// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// pages returns how many pages of the database a statement reads, after it has read them once.
func pages(t *testing.T, conn *pgx.Conn, sql string, args ...any) int {
	t.Helper()
	var plans []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}
	for range 2 {
		if err := conn.QueryRow(t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+sql, args...).
			Scan(&plans); err != nil {
			t.Fatal(err)
		}
	}
	return plans[0].Plan.Hit + plans[0].Plan.Read
}

// What is looked for among all that waits, or read for one who asks, costs what it finds, however much waits or has
// started beside it.
func TestQueueReadsCostWhatTheyFind(t *testing.T) {
	t.Parallel()
	f := newCorruptible(t)
	f.exec(manyRows)
	f.exec(`UPDATE usage_quotas SET queued = 10; UPDATE queue_turns SET runnable = false; ANALYZE`)
	conn, err := pgx.Connect(t.Context(), f.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var account quota.ID
	if err := conn.QueryRow(t.Context(), "SELECT md5('user-2')::uuid").Scan(&account); err != nil {
		t.Fatal(err)
	}
	none := quota.ID{}
	reads := map[string]func() int{
		"overdue": func() int { return pages(t, conn, dbsqlc.DueWaits, nil, 500, none) },
		"due":     func() int { return pages(t, conn, dbsqlc.DueQueues, 500, none, false, 1000, nil) },
		"starts":  func() int { return pages(t, conn, dbsqlc.RecentStarts, account, 200) },
		"page": func() int {
			return pages(t, conn, dbsqlc.Queued, 10, account, false, 1000, 0, true)
		},
		"at": func() int { return pages(t, conn, dbsqlc.QueuedAt, []quota.ID{account}, 10) },
	}
	before := map[string]int{}
	for name, read := range reads {
		before[name] = read()
	}
	f.exec(`INSERT INTO concurrent_processing (id, user_id, source, state, estimate, file_size, created_at, lease_ms,
	        lease_until, arrived_seq)
	    SELECT md5('more-' || n)::uuid, md5('user-2')::uuid, 'api', 'Queued', 1000, 1000, now(), 1000, now(), n + 10
	    FROM generate_series(1, 20000) AS n`)
	f.exec(`INSERT INTO concurrent_processing (id, user_id, source, state, estimate, file_size, created_at, lease_ms,
	        lease_until, arrived_seq, admitted_seq, admitted_at, period_no, enforced)
	    SELECT md5('past-' || n)::uuid, md5('user-2')::uuid, 'api', 'Released', 1000, 1000, now(), 1000, now(), 3 * n,
	        3 * n + n % 2, now(), 1, false
	    FROM generate_series(1, 20000) AS n`)
	f.exec("ANALYZE")
	for name, read := range reads {
		// A page for each of the rows that are asked for, at most.
		if got := read(); got > before[name]+before[name]/5+220 {
			t.Errorf("%s reads %d pages, %d before", name, got, before[name])
		}
	}
}

// What is stuck is looked for in what runs, of one user in what runs of that one.
func TestStuckReadsCostWhatRuns(t *testing.T) {
	t.Parallel()
	f := newCorruptible(t)
	f.exec(manyRows)
	conn, err := pgx.Connect(t.Context(), f.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var one, other quota.ID
	if err := conn.QueryRow(t.Context(), "SELECT md5('user-2')::uuid, md5('user-3')::uuid").
		Scan(&one, &other); err != nil {
		t.Fatal(err)
	}
	more := func(name, state string, n int, of quota.ID) {
		t.Helper()
		f.exec(fmt.Sprintf(`INSERT INTO concurrent_processing (id, user_id, source, state, estimate, file_size,
		        created_at, lease_ms, lease_until, arrived_seq, admitted_seq, admitted_at, period_no, enforced)
		    SELECT md5('%[1]s-' || n)::uuid, '%[4]x', 'api', '%[2]s', 1000, 1000,
		        now(), 1000, now() + interval '1 hour', 3 * n, 3 * n, now(), 1, false
		    FROM generate_series(1, %[3]d) AS n`, name, state, n, of))
		f.exec("ANALYZE")
	}
	read := func(first, last quota.ID) int {
		t.Helper()
		return pages(t, conn, dbsqlc.StuckAdmissions, nil, first, last, time.Time{}, quota.ID{}, 100)
	}
	most := quota.ID(bytes.Repeat([]byte{0xff}, 16))
	more("running", "Admitted", 50, one)
	all, single := read(quota.ID{}, most), read(one, one)
	more("past", "Released", 20_000, one)
	more("settled", "Cancelled", 20_000, other)
	if got := read(quota.ID{}, most); got > 2*all+20 {
		t.Errorf("of all %d pages, %d before others had ended", got, all)
	}
	more("others", "Admitted", 20_000, other)
	if got := read(one, one); got > 2*single+20 {
		t.Errorf("of one user %d pages, %d before others ran", got, single)
	}
}

// Renewing what waits or runs is a HOT update: no index has a column that it changes.
func TestRenewalsStayHOT(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	account := f.register("alice")
	f.enter(account, quota.ID{1}, quota.Credit)
	f.enter(account, quota.ID{2}, quota.Credit)
	tx, err := f.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	var updated, hot int
	if _, err := tx.Exec(t.Context(), dbsqlc.RenewLeases, []quota.ID{{1}, {2}},
		[]string{"2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"}); err != nil {
		t.Fatal(err)
	}
	if err := tx.QueryRow(t.Context(), `
	    SELECT pg_stat_get_xact_tuples_updated(c), pg_stat_get_xact_tuples_hot_updated(c)
	    FROM CAST('concurrent_processing' AS regclass) AS c`).Scan(&updated, &hot); err != nil {
		t.Fatal(err)
	}
	if updated != 2 || hot != 2 {
		t.Errorf("%d of %d updates were HOT", hot, updated)
	}
}
