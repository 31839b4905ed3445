// SPDX-License-Identifier: Apache-2.0

// Package rollupdb writes the sums of what accounts have used.
package rollupdb

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/rollup"
)

// Store implements rollup.Store. It is safe for concurrent use.
type Store struct {
	db *readdb.Store
}

var _ rollup.Store = (*Store)(nil)

// New returns the Store of a database.
func New(db *readdb.Store) *Store { return &Store{db: db} }

// Clock implements rollup.Store.
func (s *Store) Clock(ctx context.Context) (time.Time, error) {
	now, err := s.db.Queries().Clock(ctx, s.db.Now())
	return now.UTC(), postgres.MapError(err)
}

// Changed implements rollup.Store.
func (s *Store) Changed(
	ctx context.Context, after quota.AccountID, rebuild bool, b rollup.Batch,
) ([]quota.AccountID, error) {
	ids, err := s.db.Queries().ChangedAccounts(ctx, dbsqlc.ChangedAccountsParams{
		After: quota.ID(after), Rebuild: rebuild, Most: int32(b.Accounts), Decisions: b.Decisions,
	})
	return postgres.IDs[quota.AccountID](ids), postgres.MapError(err)
}

// Others implements rollup.Store.
func (s *Store) Others(ctx context.Context) (int, error) { return s.db.Others(ctx) }

// refusalsKept is for how many days it is known who was refused what: as many as the longest span that can be asked
// for.
const refusalsKept = 400

// Complete implements rollup.Store. It forgets what nobody asks for any more as well.
func (s *Store) Complete(ctx context.Context, asOf time.Time) error {
	before := asOf.UTC().Truncate(24*time.Hour).AddDate(0, 0, -refusalsKept)
	if err := s.db.Queries().MayForgetRefusals(ctx, before); err != nil {
		return postgres.MapError(err)
	}
	if err := s.db.Queries().ForgetRefusals(ctx, before); err != nil {
		return postgres.MapError(err)
	}
	return postgres.MapError(s.db.Queries().CompleteRollups(ctx, asOf))
}

// StaleDays implements rollup.Store.
func (s *Store) StaleDays(ctx context.Context) ([]time.Time, error) {
	days, err := s.db.Queries().StaleDays(ctx)
	return days, postgres.MapError(err)
}

// Total implements rollup.Store. In one snapshot it takes the marks that it sees and reads the rows that they were
// written with: a mark that comes later stays.
func (s *Store) Total(ctx context.Context, day time.Time) error {
	return s.db.Snapshot(ctx, func(_ pgx.Tx, q *dbsqlc.Queries) error {
		for _, do := range []func(context.Context, time.Time) error{
			q.TakeStaleDay, q.DeleteTotals, q.DeletePayerTotals, q.DeletePayerMonth, q.DeletePayerLargest,
			q.DeleteRefusalTotals,
		} {
			if err := do(ctx, day); err != nil {
				return err
			}
		}
		span := dbsqlc.InsertTotalsParams{Day: day, Since: day, Until: day.AddDate(0, 0, 1)}
		if err := q.InsertTotals(ctx, span); err != nil {
			return err
		}
		if err := q.InsertPayerTotals(ctx, dbsqlc.InsertPayerTotalsParams(span)); err != nil {
			return err
		}
		if err := q.InsertPayerMonth(ctx, day); err != nil {
			return err
		}
		if err := q.InsertPayerLargest(ctx, dbsqlc.InsertPayerLargestParams(span)); err != nil {
			return err
		}
		if err := s.totalWaits(ctx, q, span); err != nil {
			return err
		}
		return q.InsertRefusalTotals(ctx, dbsqlc.InsertRefusalTotalsParams(span))
	})
}

// waitsKept is how long everybody's waits by the hour are kept: the days that advice looks at, by whatever zone.
const waitsKept = 22 * 24 * time.Hour

func (s *Store) totalWaits(ctx context.Context, q *dbsqlc.Queries, span dbsqlc.InsertTotalsParams) error {
	now, err := q.Clock(ctx, s.db.Now())
	if err != nil {
		return err
	}
	before := now.Add(-waitsKept)
	err = q.DeleteWaits(ctx, dbsqlc.DeleteWaitsParams{Since: span.Since, Until: span.Until, Before: before})
	if err != nil || span.Until.Before(before) {
		return err
	}
	return q.InsertWaits(ctx, dbsqlc.InsertWaitsParams{Since: span.Since, Until: span.Until})
}

// PeriodsSummed implements rollup.Periods.
func (s *Store) PeriodsSummed(ctx context.Context) (time.Time, error) {
	asOf, err := s.db.Queries().PeriodsSummed(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, nil
	}
	return asOf, postgres.MapError(err)
}

// SumPeriods implements rollup.Periods. Who reads meanwhile sees what was there before.
func (s *Store) SumPeriods(ctx context.Context, asOf time.Time) error {
	return s.db.Snapshot(ctx, func(_ pgx.Tx, q *dbsqlc.Queries) error {
		// The first statement decides between two runs at once: the second one begins anew when the first has written.
		if err := q.SavePeriodsSummed(ctx, asOf); err != nil {
			return err
		}
		for _, do := range []func(context.Context) error{
			q.DeletePeriodSums, q.InsertUtilisation, q.InsertPeriodPrices, q.InsertPrices, q.InsertCohorts,
		} {
			if err := do(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// margin is how much earlier than the beginning of a day, by whatever zone, something may have been recorded that
// occurred on it.
const margin = 48 * time.Hour

// planForRebuild has the statements of a rebuild planned for the accounts that they are about, which may be a good
// share of all: then the events are read from end to end and joined in memory. Such a transaction may take minutes.
const planForRebuild = "SELECT set_config('plan_cache_mode', 'force_custom_plan', true), " +
	"set_config('work_mem', '64MB', true), set_config('statement_timeout', '10min', true)"

// RollUp implements rollup.Store. The watermark's row is the lock of an account's sums; the account itself is only
// read, so nothing of the hot path waits for it. All of it sees one snapshot: the account's seq and the events up to
// it.
func (s *Store) RollUp(ctx context.Context, accounts []quota.AccountID, rebuild bool) (rollup.Page, error) {
	var page rollup.Page
	ids := postgres.IDs[quota.ID](accounts)
	err := s.db.Snapshot(ctx, func(tx pgx.Tx, q *dbsqlc.Queries) error {
		page = rollup.Page{}
		if rebuild {
			if _, err := tx.Exec(ctx, planForRebuild); err != nil {
				return err
			}
		}
		if err := q.InsertWatermarks(ctx, ids); err != nil {
			return err
		}
		marks, err := q.LockWatermarks(ctx,
			dbsqlc.LockWatermarksParams{Ids: ids, Rebuild: rebuild, Now: s.db.Now()})
		if err != nil {
			return err
		}
		w := newWork(marks)
		page.Accounts, page.Held = int64(len(marks)), w.held(accounts)
		if len(marks) == 0 {
			return nil
		}
		if err := w.find(ctx, q); err != nil {
			return err
		}
		page.Days = int64(len(w.days.Days) + len(w.whole))
		page.Rows, err = w.write(ctx, q)
		return err
	})
	return page, err
}

// work is what one transaction has to do.
type work struct {
	// at has the place of each account in what is written.
	at map[quota.ID]int
	// changed are the accounts of which some days are made anew, whole those of which all are.
	changed dbsqlc.ChangedDaysParams
	whole   []quota.ID
	days    dbsqlc.DeleteRollupsParams
	rows    dbsqlc.InsertRollupsParams
	marks   dbsqlc.MoveWatermarksParams
}

func newWork(marks []dbsqlc.LockWatermarksRow) *work {
	w := &work{at: make(map[quota.ID]int, len(marks))}
	for i := range marks {
		m := &marks[i]
		w.at[m.UserID] = i
		w.marks.Ids = append(w.marks.Ids, m.UserID)
		w.marks.Seqs = append(w.marks.Seqs, m.Seq)
		w.marks.DecidedAt = append(w.marks.DecidedAt, m.LastDecidedAt)
		w.marks.Zones = append(w.marks.Zones, m.TimeZone)
		w.marks.AsOf = append(w.marks.AsOf, m.AsOf)
		w.rows.Ids = append(w.rows.Ids, m.UserID)
		w.rows.Zones = append(w.rows.Zones, m.TimeZone)
		w.rows.Whole = append(w.rows.Whole, m.Whole)
		// Of an account whose days are not known yet: nothing.
		since := m.LastDecidedAt.Add(margin)
		if m.Whole {
			since = time.Time{}
			w.whole = append(w.whole, m.UserID)
		} else if m.Seq != m.RolledSeq {
			w.changed.Ids = append(w.changed.Ids, m.UserID)
			w.changed.Seqs = append(w.changed.Seqs, m.RolledSeq)
			w.changed.RolledTo = append(w.changed.RolledTo, m.RolledTo)
			w.changed.Zones = append(w.changed.Zones, m.TimeZone)
		}
		w.rows.Since = append(w.rows.Since, since)
	}
	return w
}

// held are those of the accounts that somebody else is at work on.
func (w *work) held(accounts []quota.AccountID) []quota.AccountID {
	var held []quota.AccountID
	for _, id := range accounts {
		if _, mine := w.at[quota.ID(id)]; !mine {
			held = append(held, id)
		}
	}
	return held
}

// find finds the days that are to be made anew.
func (w *work) find(ctx context.Context, q *dbsqlc.Queries) error {
	if len(w.changed.Ids) == 0 {
		return nil
	}
	days, err := q.ChangedDays(ctx, w.changed)
	for _, d := range days {
		w.days.Accounts = append(w.days.Accounts, d.UserID)
		w.days.Days = append(w.days.Days, d.Day)
		since := &w.rows.Since[w.at[d.UserID]]
		if from := d.Day.Add(-margin); from.Before(*since) {
			*since = from
		}
	}
	return err
}

// write makes them anew and moves the watermarks.
func (w *work) write(ctx context.Context, q *dbsqlc.Queries) (rows int64, err error) {
	if len(w.whole)+len(w.days.Days) == 0 {
		return 0, q.MoveWatermarks(ctx, w.marks)
	}
	stale := dbsqlc.MarkStaleDaysParams{Ids: w.whole, Accounts: w.days.Accounts, Days: w.days.Days}
	if err := q.MarkStaleDays(ctx, stale); err != nil {
		return 0, err
	}
	if len(w.whole) > 0 {
		if err := q.DeleteAllRollups(ctx, w.whole); err != nil {
			return 0, err
		}
		if err := q.DeleteAllMonths(ctx, w.whole); err != nil {
			return 0, err
		}
	}
	if len(w.days.Days) > 0 {
		if err := q.DeleteRollups(ctx, w.days); err != nil {
			return 0, err
		}
		if err := q.DeleteMonths(ctx, dbsqlc.DeleteMonthsParams(w.days)); err != nil {
			return 0, err
		}
	}
	w.rows.Accounts, w.rows.Days = w.days.Accounts, w.days.Days
	w.rows.Oldest = slices.MinFunc(w.rows.Since, time.Time.Compare)
	if rows, err = q.InsertRollups(ctx, w.rows); err != nil {
		return 0, err
	}
	if err := q.InsertMonths(ctx, dbsqlc.InsertMonthsParams{
		Accounts: w.days.Accounts, Days: w.days.Days, Ids: w.whole,
	}); err != nil {
		return 0, err
	}
	if err := q.MarkStaleDays(ctx, stale); err != nil {
		return 0, err
	}
	return rows, q.MoveWatermarks(ctx, w.marks)
}
