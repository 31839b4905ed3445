// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	// planOnce has each statement planned once a connection, and for an index: without it small batches are planned anew each
	// time, because a generic plan assumes ten rows, and a plan that was made while a table was small goes on reading all of it
	// when it no longer is. That is why plain index scans are off too, which would read the whole index of an empty table:
	// what is left, bitmap scans, needs keys. Such penalties look to the JIT compiler like expensive queries.
	planOnce = "SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true), " +
		"set_config('enable_indexscan', 'off', true), set_config('enable_indexonlyscan', 'off', true), set_config('jit', 'off', true), " + boundedLocks
)

// batch is an open transaction with what it has loaded.
type batch struct {
	conn    *pgxpool.Conn
	ledgers map[quota.ID]*metering.Ledger
	loaded  map[quota.ID]loaded
	busy    map[quota.ID]bool
	plans   map[string]*quota.Plan
	// plansOf are the plans that serve the accounts, admissions the admissions as they were read.
	plansOf    map[*quota.Account]planKey
	admissions map[quota.ID]quota.Admission
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
	b := &batch{conn: conn, admissions: make(map[quota.ID]quota.Admission, len(keys.Admissions))}
	if err := s.load(ctx, b, keys); err != nil {
		b.Rollback()
		return nil, mapError(err)
	}
	return b, nil
}

// load queues the statements and reads their answers in the same order.
func (s *Store) load(ctx context.Context, b *batch, keys metering.Keys) (err error) {
	accounts, now := keys.Accounts, s.now()

	var q pgx.Batch
	q.Queue("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
	q.Queue(planOnce)
	lock := dbsqlc.LockFreeAccounts
	if keys.Wait {
		lock = dbsqlc.LockAccounts
	}
	q.Queue(lock, accounts)
	q.Queue(dbsqlc.LoadAccounts, now, accounts)
	q.Queue(dbsqlc.LoadLots, accounts, now)
	q.Queue(dbsqlc.LoadAdmissions, orEmpty(keys.Admissions), accounts)
	if len(keys.Admissions) > 0 {
		q.Queue(dbsqlc.LoadPeriods, keys.Admissions, accounts)
	}
	if len(keys.Plans) > 0 {
		q.Queue(dbsqlc.LoadPlans, keys.Plans, slices.Contains(keys.Plans, ""))
		q.Queue(dbsqlc.LoadLotIDs, accounts)
	}
	s.queueRecords(&q, &keys)

	plans, err := s.readFacts(ctx, b, &q, &keys)
	if err != nil {
		return err
	}
	b.readPlans(plans, keys.Plans)
	return s.plansFor(ctx, dbsqlc.New(b.conn), b.plansOf)
}

// readFacts sends the statements and reads their answers in the same order, of which the first two are empty.
func (s *Store) readFacts(ctx context.Context, b *batch, q *pgx.Batch, keys *metering.Keys) (plans []dbsqlc.UserPlanLimit, err error) {
	answers := b.conn.SendBatch(ctx, q)
	defer func() { err = errors.Join(err, answers.Close()) }()
	read := dbsqlc.New(results{answers})
	for range 2 {
		if _, err := answers.Exec(); err != nil {
			return nil, err
		}
	}
	locked, err := read.LockAccounts(ctx, nil)
	if err != nil {
		return nil, err
	}
	rows, err := read.LoadAccounts(ctx, dbsqlc.LoadAccountsParams{})
	if err != nil {
		return nil, err
	}
	if err := s.readAccounts(b, locked, rows); err != nil {
		return nil, err
	}
	lots, err := read.LoadLots(ctx, dbsqlc.LoadLotsParams{})
	if err != nil {
		return nil, err
	}
	b.readLots(lots)
	if err := b.readAdmissions(ctx, read, len(keys.Admissions) > 0); err != nil {
		return nil, err
	}
	if len(keys.Plans) > 0 {
		if plans, err = read.LoadPlans(ctx, dbsqlc.LoadPlansParams{}); err != nil {
			return nil, err
		}
		if err := b.readLotIDs(ctx, read); err != nil {
			return nil, err
		}
	}
	return plans, b.readRecords(ctx, read, keys)
}

// readPlans keeps those of the plans that were asked for.
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

func (s *Store) readAccounts(b *batch, locked []quota.ID, rows []dbsqlc.LoadAccountsRow) error {
	b.ledgers = make(map[quota.ID]*metering.Ledger, len(locked))
	b.loaded = make(map[quota.ID]loaded, len(locked))
	b.plansOf = make(map[*quota.Account]planKey, len(locked))
	b.busy = map[quota.ID]bool{}
	mine := make(map[quota.ID]bool, len(locked))
	for _, id := range locked {
		mine[id] = true
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
		b.plansOf[account] = planKey{name: r.UsageQuota.PlanName, version: r.PlanVersion}
		l := &metering.Ledger{
			Account: account, Now: r.Now.UTC(), Settings: declared,
			Admissions: map[quota.ID]*metering.Admission{}, Closed: map[int64]*quota.ClosedPeriod{},
			ChangedAdmissions: map[quota.ID]*metering.Admission{}, ChangedPeriods: map[int64]*quota.ClosedPeriod{},
			Made: map[string]metering.Made{}, Events: map[quota.ID]*metering.Event{},
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
		lot, was := lotOf(r), b.loaded[r.UserID]
		if _, there := was.lots[lot.ID]; there {
			continue
		}
		l.Account.Lots = append(l.Account.Lots, lot)
		if was.lots == nil {
			was.lots = map[quota.ID]quota.Lot{}
			b.loaded[r.UserID] = was
		}
		was.lots[lot.ID] = lot
	}
}

func (b *batch) readAdmissions(ctx context.Context, read *dbsqlc.Queries, asked bool) error {
	rows, err := read.LoadAdmissions(ctx, dbsqlc.LoadAdmissionsParams{})
	if err != nil {
		return err
	}
	for i := range rows {
		if err := b.readAdmission(&rows[i]); err != nil {
			return err
		}
	}
	for _, l := range b.ledgers {
		slices.SortFunc(l.Queue, metering.QueueOrder)
	}
	if !asked {
		return nil
	}
	periods, err := read.LoadPeriods(ctx, dbsqlc.LoadPeriodsParams{})
	if err != nil {
		return err
	}
	b.readPeriods(periods)
	return nil
}

func (b *batch) readAdmission(r *dbsqlc.ConcurrentProcessing) error {
	l := b.ledgers[r.UserID]
	if l == nil {
		return nil
	}
	adm, err := admissionOf(r, l.Account.UserID)
	if err != nil {
		return err
	}
	b.admissions[adm.ID] = adm.Admission
	l.Admissions[adm.ID] = adm
	if adm.State == quota.Queued {
		l.Queue = append(l.Queue, adm)
	}
	return nil
}

func (b *batch) readLotIDs(ctx context.Context, read *dbsqlc.Queries) error {
	lots, err := read.LoadLotIDs(ctx, nil)
	if err != nil {
		return err
	}
	for _, l := range b.ledgers {
		l.HadLots = map[quota.ID]bool{}
	}
	for _, r := range lots {
		if l := b.ledgers[r.UserID]; l != nil {
			l.HadLots[r.ID] = true
		}
	}
	return nil
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
		if err := w.collect(l, b.loaded[id], b.admissions); err != nil {
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
