// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// What is recorded is followed in the order of commits: a row is new if the snapshot of the reading before does not see
// the transaction that has written it. That needs no number that writers would have to take, one after the other. Where
// the rows may be is told by the instants at which they were recorded. A snapshot in writing knows the numbers of whole
// transactions only: whoever records events must not do so within a savepoint.
const (
	// The count of partitions is part of what must be the same: events of the default one get new transactions when
	// they move into one that is made for them.
	gaugeHere = `
SELECT coalesce($1::timestamptz, now()), (SELECT oid FROM pg_database WHERE datname = current_database()) || ' ' ||
    extract(epoch FROM pg_postmaster_start_time()) || ' ' ||
    (SELECT count(*) FROM pg_inherits WHERE inhparent = 'usage_tracking'::regclass),
    s.now::text, pg_snapshot_xmin(s.now)::text::bigint,
    pg_snapshot_xmax(s.now)::text::bigint, (SELECT as_of FROM usage_rollups_complete)
FROM (SELECT pg_current_snapshot() AS now) AS s`

	// gaugeUnseen says of a row r that $2, a snapshot, does not see it. A row has the last 32 bits of its transaction's
	// number, which is below the next one.
	gaugeUnseen = `NOT pg_visible_in_snapshot(
        (w.next - ((w.next - r.xmin::text::bigint) & 4294967295))::text::xid8, w.seen)`
	gaugeWindow = `
w AS MATERIALIZED (
    SELECT $2::text::pg_snapshot AS seen, pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next)`

	// gaugeNew are the events since the reading before, gaugeAll those that the rollup does not have, and what was
	// charged lately of those that it has.
	gaugeNew = `WITH` + gaugeWindow + `,
news AS MATERIALIZED (
    SELECT r.*, true AS adds FROM usage_tracking AS r CROSS JOIN w WHERE r.recorded_at >= $1 AND ` + gaugeUnseen + `)`
	gaugeAll = `WITH
news AS MATERIALIZED (
    SELECT r.*, r.seq > coalesce(u.seq, 0) AS adds
    FROM usage_tracking AS r LEFT JOIN usage_rollups AS u ON u.user_id = r.user_id WHERE r.recorded_at >= $1)`
	gaugeMinutes = `
SELECT date_trunc('minute', v.at, 'UTC'), sum(v.uses)::bigint, sum(v.credits)::bigint, count(v.admission_id),
    coalesce(array_agg(v.admission_id) FILTER (WHERE v.late), '{}')
FROM (
    SELECT n.occurred_at AS at, n.adds::integer AS uses, CASE WHEN n.adds THEN n.credits ELSE 0 END AS credits,
        n.admission_id, n.late AND n.admission_id IS NOT NULL AS late
    FROM news AS n WHERE n.kind <> 'reversal'
    UNION ALL
    SELECT o.occurred_at, -1, CASE WHEN coalesce(n.void, n.refund_lot IS NOT NULL) THEN 0 ELSE -o.credits END,
        NULL, false
    FROM news AS n CROSS JOIN LATERAL (
        SELECT t.occurred_at, t.credits FROM usage_tracking AS t
        WHERE t.id = n.reverses AND t.user_id = n.user_id LIMIT 1) AS o
    WHERE n.kind = 'reversal' AND n.adds) AS v
GROUP BY 1`

	gaugeNewFailed = `WITH` + gaugeWindow + `
SELECT r.id, r.ended_at FROM concurrent_processing AS r CROSS JOIN w
WHERE r.state IN ('Released', 'Expired') AND r.ended_at >= $1 AND ` + gaugeUnseen
	gaugeAllFailed = `
SELECT r.id, r.ended_at FROM concurrent_processing AS r WHERE r.state IN ('Released', 'Expired') AND r.ended_at >= $1`

	// The rows of users are those of the totals wherever no day is stale, and are always there.
	gaugeStale = `
SELECT EXISTS (SELECT FROM usage_totals_stale WHERE day >= ($1::timestamptz AT TIME ZONE 'UTC')::date)`
	gaugeTotals = `
SELECT day::timestamp AT TIME ZONE 'UTC', sum(events - reversals)::bigint, sum(credits)::bigint
FROM usage_totals WHERE day >= ($1::timestamptz AT TIME ZONE 'UTC')::date GROUP BY 1`
	gaugeUsers = `
SELECT date_trunc('day', at, 'UTC'), sum(events - reversals)::bigint, sum(credits)::bigint
FROM usage_analytics WHERE at >= $1 GROUP BY 1`
)

const (
	// gaugeMargin is how much earlier than the rollup's as_of the events may be recorded that it does not have: longer
	// than a batch may take.
	gaugeMargin = 2 * time.Minute
	// gaugeAhead is how much earlier than it occurs something may be recorded.
	gaugeAhead = time.Hour
)

var _ metering.GaugeStore = (*Store)(nil)

// GaugeNews implements metering.GaugeStore.
func (s *Store) GaugeNews(ctx context.Context, since metering.GaugeMark) (metering.GaugeNews, error) {
	var n metering.GaugeNews
	err := s.Snapshot(ctx, func(tx pgx.Tx, _ *dbsqlc.Queries) error {
		n = metering.GaugeNews{}
		var rolledUp *time.Time
		if err := tx.QueryRow(ctx, gaugeHere, s.Now()).
			Scan(&n.At, &n.Server, &n.Snapshot, &n.Oldest, &n.Next, &rolledUp); err != nil {
			return err
		}
		if since.Snapshot == "" || since.Server != n.Server {
			return gaugeEverything(ctx, tx, &n, rolledUp)
		}
		n.Since = since.Since
		if err := gaugeEvents(ctx, tx, &n, gaugeNew, since.Snapshot); err != nil {
			return err
		}
		return gaugeFailed(ctx, tx, &n, gaugeNewFailed, n.Since, since.Snapshot)
	})
	return n, postgres.MapError(err)
}

// gaugeEverything reads today's sums from the rollup, what was recorded since, and what work came to lately.
func gaugeEverything(ctx context.Context, tx pgx.Tx, n *metering.GaugeNews, rolledUp *time.Time) error {
	day, recent := metering.GaugeSpans(n.At)
	n.Everything = true
	n.Since = day.Add(-gaugeAhead)
	if rolledUp != nil && rolledUp.After(n.Since) {
		n.Since = *rolledUp
	}
	if n.Since.After(recent) {
		n.Since = recent
	}
	n.Since = n.Since.Add(-gaugeMargin)
	var stale bool
	if err := tx.QueryRow(ctx, gaugeStale, day).Scan(&stale); err != nil {
		return err
	}
	from := gaugeTotals
	if stale {
		from = gaugeUsers
	}
	rows, err := tx.Query(ctx, from, day)
	if err != nil {
		return err
	}
	n.Sums, err = pgx.CollectRows(rows, pgx.RowToStructByPos[metering.GaugeSum])
	if err != nil {
		return fmt.Errorf("today's sums: %w", err)
	}
	if err := gaugeEvents(ctx, tx, n, gaugeAll); err != nil {
		return err
	}
	return gaugeFailed(ctx, tx, n, gaugeAllFailed, recent)
}

func gaugeEvents(ctx context.Context, tx pgx.Tx, n *metering.GaugeNews, news string, args ...any) error {
	rows, err := tx.Query(ctx, news+gaugeMinutes, append([]any{n.Since}, args...)...)
	if err != nil {
		return err
	}
	var m metering.GaugeMinute
	var late []quota.ID
	_, err = pgx.ForEachRow(rows, []any{&m.At, &m.Uses, &m.Credits, &m.Charged, &late}, func() error {
		n.Minutes, n.Late = append(n.Minutes, m), append(n.Late, postgres.IDs[quota.AdmissionID](late)...)
		return nil
	})
	return err
}

func gaugeFailed(ctx context.Context, tx pgx.Tx, n *metering.GaugeNews, news string, args ...any) error {
	rows, err := tx.Query(ctx, news, args...)
	if err != nil {
		return err
	}
	var id quota.ID
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &at}, func() error {
		n.Failed = append(n.Failed, metering.FailedWork{ID: quota.AdmissionID(id), EndedAt: at})
		return nil
	})
	return err
}
