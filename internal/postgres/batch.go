// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// rollbackTimeout bounds how long a rollback may hold up whoever gives up a batch; then the connection is closed.
	rollbackTimeout = 5 * time.Second
	// A batch that waits for a lock gives up and is run again rather than keep its own locks for ever.
	waitForLocks = "SET LOCAL lock_timeout = '5s'"
)

// batch is an open transaction with what it has loaded.
type batch struct {
	conn    *pgxpool.Conn
	ledgers map[quota.ID]*metering.Ledger
	loaded  map[quota.ID]loaded
	busy    map[quota.ID]bool
	plans   map[string]*quota.Plan
}

// loaded is what of an account is compared at the commit, to write only what differs.
type loaded struct {
	lots map[quota.ID]quota.Lot
}

// results reads the answers of a pgx.Batch through sqlc's methods: those give the statement again, which was sent already.
type results struct{ pgx.BatchResults }

func (r results) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	return r.BatchResults.Exec()
}

func (r results) Query(context.Context, string, ...any) (pgx.Rows, error) {
	return r.BatchResults.Query()
}

func (r results) QueryRow(context.Context, string, ...any) pgx.Row { return r.BatchResults.QueryRow() }

// Begin implements metering.Store: one round trip that locks, and behind the locks reads.
func (s *Store) Begin(ctx context.Context, keys metering.Keys) (metering.Batch, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, mapError(err)
	}
	b := &batch{conn: conn}
	if err := s.load(ctx, b, keys); err != nil {
		b.Rollback()
		return nil, mapError(err)
	}
	return b, nil
}

// load queues the statements and reads their answers in the same order.
func (s *Store) load(ctx context.Context, b *batch, keys metering.Keys) (err error) {
	accounts, withDefault, now := keys.Accounts, false, s.now()
	names := make([]string, 0, len(keys.Plans))
	for _, name := range keys.Plans {
		withDefault = withDefault || name == ""
		names = append(names, name)
	}
	settings := len(keys.Plans) > 0

	var q pgx.Batch
	q.Queue("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
	lock := dbsqlc.LockFreeAccounts
	if keys.Wait {
		q.Queue(waitForLocks)
		lock = dbsqlc.LockAccounts
	}
	q.Queue(lock, accounts)
	q.Queue(dbsqlc.LoadAccounts, now, accounts)
	q.Queue(dbsqlc.LoadPlans, accounts, names, withDefault)
	q.Queue(dbsqlc.LoadLots, accounts, now)
	if len(keys.Admissions) > 0 {
		q.Queue(dbsqlc.LoadAdmissions, keys.Admissions, accounts)
		q.Queue(dbsqlc.LoadPeriods, keys.Admissions, accounts)
	}
	q.Queue(dbsqlc.LoadQueues, accounts)
	if settings {
		q.Queue(dbsqlc.LoadLotIDs, accounts)
	}

	answers := b.conn.SendBatch(ctx, &q)
	defer func() { err = errors.Join(err, answers.Close()) }()
	read := dbsqlc.New(results{answers})
	if _, err := answers.Exec(); err != nil {
		return err
	}
	if keys.Wait {
		if _, err := answers.Exec(); err != nil {
			return err
		}
	}
	locked, err := read.LockAccounts(ctx, nil)
	if err != nil {
		return err
	}
	rows, err := read.LoadAccounts(ctx, dbsqlc.LoadAccountsParams{})
	if err != nil {
		return err
	}
	plans, err := read.LoadPlans(ctx, dbsqlc.LoadPlansParams{})
	if err != nil {
		return err
	}
	b.readPlans(plans, keys.Plans)
	if err := s.readAccounts(b, locked, rows, plans, settings); err != nil {
		return err
	}
	lots, err := read.LoadLots(ctx, dbsqlc.LoadLotsParams{})
	if err != nil {
		return err
	}
	b.readLots(lots)
	return b.readAdmissions(ctx, read, len(keys.Admissions) > 0, settings)
}

func (b *batch) readPlans(rows []dbsqlc.UserPlanLimit, asked []string) {
	wanted := map[string]bool{}
	for _, name := range asked {
		wanted[name] = true
	}
	b.plans = map[string]*quota.Plan{}
	for i := range rows {
		r := &rows[i]
		if wanted[r.Name] {
			b.plans[r.Name] = planOf(r)
		}
		if r.IsDefault && !r.Retired && wanted[""] {
			b.plans[""] = planOf(r)
		}
	}
}

func (s *Store) readAccounts(b *batch, locked []quota.ID, rows []dbsqlc.LoadAccountsRow, plans []dbsqlc.UserPlanLimit, settings bool) error {
	b.ledgers = make(map[quota.ID]*metering.Ledger, len(locked))
	b.loaded = make(map[quota.ID]loaded, len(locked))
	b.busy = map[quota.ID]bool{}
	mine := make(map[quota.ID]bool, len(locked))
	for _, id := range locked {
		mine[id] = true
	}
	byName := make(map[string]*quota.Plan, len(plans))
	for i := range plans {
		byName[plans[i].Name] = planOf(&plans[i])
	}
	for i := range rows {
		r := &rows[i]
		if !mine[r.UsageQuota.UserID] {
			b.busy[r.UsageQuota.UserID] = true
			continue
		}
		account, declared, err := s.account(&r.UsageQuota, r.ExternalID)
		if err != nil {
			return err
		}
		if account.Plan = byName[r.UsageQuota.PlanName]; account.Plan == nil {
			return fmt.Errorf("user %q: plan %q was not read", r.ExternalID, r.UsageQuota.PlanName)
		}
		l := &metering.Ledger{
			Account: account, Now: r.Now.UTC(), Settings: declared,
			Admissions: map[quota.ID]*metering.Admission{}, Closed: map[int64]*quota.ClosedPeriod{},
			ChangedAdmissions: map[quota.ID]*metering.Admission{}, ChangedPeriods: map[int64]*quota.ClosedPeriod{},
		}
		if settings {
			l.HadLots = map[quota.ID]bool{}
		}
		b.ledgers[account.ID] = l
	}
	return nil
}

func (b *batch) readLots(rows []dbsqlc.CreditLot) {
	for i := range rows {
		r := &rows[i]
		l := b.ledgers[r.UserID]
		if l == nil {
			continue
		}
		lot := lotOf(r)
		l.Account.Lots = append(l.Account.Lots, lot)
		was := b.loaded[r.UserID]
		if was.lots == nil {
			was.lots = map[quota.ID]quota.Lot{}
			b.loaded[r.UserID] = was
		}
		was.lots[lot.ID] = lot
	}
}

func (b *batch) readAdmissions(ctx context.Context, read *dbsqlc.Queries, asked, settings bool) error {
	if asked {
		rows, err := read.LoadAdmissions(ctx, dbsqlc.LoadAdmissionsParams{})
		if err != nil {
			return err
		}
		for i := range rows {
			if _, err := b.readAdmission(&rows[i], true); err != nil {
				return err
			}
		}
		periods, err := read.LoadPeriods(ctx, dbsqlc.LoadPeriodsParams{})
		if err != nil {
			return err
		}
		for i := range periods {
			if l := b.ledgers[periods[i].UserID]; l != nil {
				l.Closed[periods[i].PeriodNo] = periodOf(&periods[i])
			}
		}
	}
	queued, err := read.LoadQueues(ctx, nil)
	if err != nil {
		return err
	}
	for i := range queued {
		adm, err := b.readAdmission(&queued[i], false)
		if err != nil {
			return err
		}
		if adm != nil {
			l := b.ledgers[adm.Account]
			l.Queue = append(l.Queue, adm)
		}
	}
	if !settings {
		return nil
	}
	lots, err := read.LoadLotIDs(ctx, nil)
	if err != nil {
		return err
	}
	for _, r := range lots {
		if l := b.ledgers[r.UserID]; l != nil {
			l.HadLots[r.ID] = true
		}
	}
	return nil
}

// readAdmission returns the admission of a row, the same pointer for the same admission; nil if its account is not locked.
func (b *batch) readAdmission(r *dbsqlc.ConcurrentProcessing, asked bool) (*metering.Admission, error) {
	l := b.ledgers[r.UserID]
	if l == nil {
		return nil, nil
	}
	if adm := l.Admissions[r.ID]; adm != nil {
		return adm, nil
	}
	adm, err := admissionOf(r, l.Account.UserID)
	if err == nil && asked {
		l.Admissions[r.ID] = adm
	}
	return adm, err
}

// Ledgers implements metering.Batch.
func (b *batch) Ledgers() map[quota.ID]*metering.Ledger { return b.ledgers }

// Busy implements metering.Batch.
func (b *batch) Busy() map[quota.ID]bool { return b.busy }

// Plan implements metering.Batch.
func (b *batch) Plan(name string) *quota.Plan { return b.plans[name] }

// Rollback implements metering.Batch.
func (b *batch) Rollback() {
	if b.conn == nil {
		return
	}
	conn := b.conn
	b.conn = nil
	if conn.Conn().PgConn().TxStatus() != 'I' {
		ctx, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
		defer cancel()
		// If it fails the transaction is still open, and Release closes such a connection.
		_, _ = conn.Exec(ctx, "ROLLBACK")
	}
	conn.Release()
}

// Commit implements metering.Batch: one round trip that writes and commits.
func (b *batch) Commit(ctx context.Context) error {
	if b.conn == nil {
		return errors.New("the batch has ended already")
	}
	w := &writes{}
	for id, l := range b.ledgers {
		if err := w.collect(l, b.loaded[id]); err != nil {
			b.Rollback()
			return err
		}
	}
	q := w.batch()
	q.Queue("COMMIT")
	err := b.send(ctx, q)
	b.Rollback() // gives the connection back; after a commit there is nothing to roll back
	return mapCommitError(err)
}

func (b *batch) send(ctx context.Context, q *pgx.Batch) (err error) {
	answers := b.conn.SendBatch(ctx, q)
	defer func() { err = errors.Join(err, answers.Close()) }()
	var tag pgconn.CommandTag
	for range q.Len() {
		if tag, err = answers.Exec(); err != nil {
			return err
		}
	}
	if tag.String() != "COMMIT" {
		return fmt.Errorf("%w: the server answered %s to the commit", metering.ErrRetry, tag)
	}
	return nil
}
