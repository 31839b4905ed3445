// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// rollbackTimeout bounds how long a rollback may hold up whoever gives up a batch; then the connection is closed.
	rollbackTimeout = 5 * time.Second
)

// batch is an open transaction with what it has loaded.
type batch struct {
	conn    *pgxpool.Conn
	db      *postgres.DB
	report  func(*ledger.UnreadableError)
	alerted func()
	ledgers map[quota.AccountID]*ledger.Ledger
	loaded  map[quota.AccountID]*loaded
	locked  map[quota.AccountID]bool
	busy    map[quota.AccountID]bool
	plans   map[string]*quota.Plan
	// plansOf are the plans that serve the accounts.
	plansOf map[*quota.Account]readdb.ServedBy
	// searched are the last of the searches that may find more.
	searched []*ledger.Admission
	// above are the accounts that were locked because others hang below them, parents who has to be above each account,
	// and placed who is, where somebody has to be or is.
	above           []quota.AccountID
	parents, placed map[quota.AccountID]quota.AccountID
	// tree are the teams that were asked for.
	tree ledger.Teams
	// moved are the accounts that hang below others from now on.
	moved []placeRow
	// outside are the turns of those who are next below the teams and not of the batch.
	outside []dbsqlc.QueueTurn
}

// loaded is an account as it was loaded, for the commit to compare.
type loaded struct {
	// unreadable settings are written whatever they are replaced by.
	unreadable bool
	balance    quota.Balance
	plan       string
	settings   ledger.Settings
	overrides  quota.Overrides
	suspended  bool
	anchor     time.Time
	lots       map[quota.LotID]quota.Lot
	// team and bounds are a team's; bounds is replaced where they change, never changed.
	team       ledger.TeamSettings
	alerts     *quota.Raised
	bounds     *quota.Team
	admissions map[quota.AdmissionID]quota.Admission
	periods    map[int64]quota.ClosedPeriod
	turn       *dbsqlc.QueueTurn
	// below says that somebody has come below it or has left, which its row is to tell by its transaction id.
	below bool
}

// Begin implements ledger.Store: one round trip that locks, and behind the locks reads. Who is above the accounts is
// known from the batches before; where it turns out to be somebody else, the transaction is given up for another one.
func (s *Store) Begin(ctx context.Context, keys ledger.Keys) (ledger.Batch, error) {
	for range mostTries {
		b, err := s.begin(ctx, keys)
		if !errors.Is(err, errOtherChain) {
			return b, err
		}
	}
	return nil, fmt.Errorf("%w: %w", ledger.ErrRetry, errOtherChain)
}

func (s *Store) begin(ctx context.Context, keys ledger.Keys) (ledger.Batch, error) {
	conn, err := s.Pool().Acquire(ctx)
	if err != nil {
		return nil, postgres.MapError(err)
	}
	n := len(keys.Accounts)
	b := &batch{
		conn: conn, db: s.DB, report: s.Report, alerted: s.alerted,
		ledgers: make(map[quota.AccountID]*ledger.Ledger, n), loaded: make(map[quota.AccountID]*loaded, n),
		locked: make(map[quota.AccountID]bool, n), busy: map[quota.AccountID]bool{}, plans: map[string]*quota.Plan{},
		plansOf: make(map[*quota.Account]readdb.ServedBy, n), above: s.trees.above(&keys),
	}
	begun := false
	defer func() {
		if !begun {
			b.Rollback()
		}
	}()
	if err := s.load(ctx, b, &keys); err != nil {
		return nil, postgres.MapError(err)
	}
	begun = true
	return b, nil
}

// load locks, then reads what hangs from the accounts that it has got.
func (s *Store) load(ctx context.Context, b *batch, keys *ledger.Keys) error {
	var t postgres.RoundTrip
	t.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	t.Queue(postgres.PlanOnce)
	if err := s.ask(ctx, &t, b, keys); err != nil {
		return err
	}
	if err := t.Send(ctx, b.conn); err != nil {
		return err
	}
	if err := s.hang(b, keys); err != nil {
		return err
	}
	for _, l := range b.ledgers {
		l.Line(l.Queue, ledger.QueuePage+keys.Most)
	}
	for _, last := range b.searched {
		b.ledgers[last.Account].Searched(last)
	}
	q := dbsqlc.New(b.conn)
	if err := b.askPeriods(ctx, q); err != nil {
		return err
	}
	return s.PlansFor(ctx, q, b.plansOf,
		func(a *quota.Account, err error) { b.unreadable(a.ID, err, true) })
}

// unreadable notes that something of an account cannot be read.
func (b *batch) unreadable(account quota.AccountID, err error, declared bool) {
	l := b.ledgers[account]
	if l == nil || l.Unreadable != nil && !l.Unreadable.Declared {
		return
	}
	l.Unreadable = &ledger.UnreadableError{UserID: l.Account.UserID, What: err.Error(), Declared: declared}
	if u, ok := errors.AsType[*ledger.UnreadableError](err); ok {
		l.Unreadable = u
	}
	b.report(l.Unreadable)
}

// ask queues the statements of a batch's first round trip.
func (s *Store) ask(ctx context.Context, t *postgres.RoundTrip, b *batch, keys *ledger.Keys) error {
	accounts := postgres.IDs[quota.ID](withAbove(keys.Accounts, b.above))
	return errors.Join(
		t.Ask(func(q *dbsqlc.Queries) error {
			lock := q.LockFreeAccounts
			if keys.Wait {
				lock = q.LockAccounts
			}
			ids, err := lock(ctx, accounts)
			for _, id := range ids {
				b.locked[id] = true
			}
			return err
		}),
		b.askTree(ctx, t, keys),
		t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadAccounts(ctx, dbsqlc.LoadAccountsParams{Now: s.Now(), Ids: accounts})
			s.readAccounts(b, rows)
			return err
		}),
		s.askTeams(ctx, t, b, keys),
		t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadLots(ctx, dbsqlc.LoadLotsParams{Ids: accounts, Now: s.Now()})
			b.readLots(rows)
			return err
		}),
		t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadAdmissions(ctx, dbsqlc.LoadAdmissionsParams{
				Ids:      postgres.IDs[quota.ID](orEmpty(keys.Admissions)),
				Accounts: postgres.IDs[quota.ID](keys.Accounts), Most: int32(ledger.QueuePage + keys.Most),
			})
			b.readAdmissions(rows, keys.Admissions)
			return err
		}),
		b.search(ctx, t, keys.Searches),
		t.Ask(func(q *dbsqlc.Queries) error {
			if len(keys.Register) == 0 {
				return nil
			}
			users := make([]string, len(keys.Register))
			for i, r := range keys.Register {
				users[i] = r.UserID
			}
			rows, err := q.UsersAndClock(ctx, dbsqlc.UsersAndClockParams{Now: s.Now(), UserIds: users})
			b.readUsers(rows, keys.Register)
			return err
		}),
		t.Ask(func(q *dbsqlc.Queries) error {
			if len(keys.Plans) == 0 {
				return nil
			}
			rows, err := q.LoadPlans(ctx, dbsqlc.LoadPlansParams{Names: keys.Plans,
				WithDefault: slices.Contains(keys.Plans, "")})
			b.readPlans(rows, keys.Plans)
			return err
		}),
		t.Ask(func(q *dbsqlc.Queries) error {
			if len(keys.Plans) == 0 {
				return nil
			}
			rows, err := q.LoadLotIDs(ctx, accounts)
			b.readLotIDs(rows)
			return err
		}),
		s.askRecords(ctx, t, b, keys))
}

// readPlans keeps those of the plans that were asked for.
func (b *batch) readPlans(rows []dbsqlc.UserPlanLimit, asked []string) {
	wanted := map[string]bool{}
	for _, name := range asked {
		wanted[name] = true
	}
	for i := range rows {
		r := &rows[i]
		if wanted[r.Name] {
			b.plans[r.Name] = readdb.PlanOf(r)
		}
		if r.IsDefault && !r.Retired && wanted[""] {
			b.plans[""] = readdb.PlanOf(r)
		}
	}
}

func (s *Store) readAccounts(b *batch, rows []dbsqlc.LoadAccountsRow) {
	for i := range rows {
		r := &rows[i]
		if !b.locked[r.UsageQuota.UserID] {
			b.busy[r.UsageQuota.UserID] = true
			continue
		}
		a, settings, unreadable := s.Account(&r.UsageQuota, r.ExternalID, r.Home)
		if name := r.UsageQuota.PlanName; name != nil {
			b.plansOf[a] = readdb.ServedBy{
				PlanKey:   readdb.PlanKey{Name: *name, Version: r.PlanVersion},
				DecidedAt: r.UsageQuota.LastDecidedAt,
			}
		}
		b.hangs(a.ID, r.Parent, (*quota.AccountID)(r.UsageQuota.ParentID))
		b.loaded[a.ID] = &loaded{
			unreadable: unreadable != nil,
			balance:    a.Balance,
			plan:       readdb.Text(r.UsageQuota.PlanName),
			settings:   settings,
			overrides:  a.Overrides,
			suspended:  a.Suspended,
			anchor:     a.Anchor,
			alerts:     a.Alerts,
			admissions: map[quota.AdmissionID]quota.Admission{},
			periods:    map[int64]quota.ClosedPeriod{},
		}
		b.ledgers[a.ID] = &ledger.Ledger{
			Account: a, Around: b.ledgers, Now: r.Now.UTC(), Settings: settings,
			Admissions: map[quota.AdmissionID]*ledger.Admission{}, Closed: map[int64]*quota.ClosedPeriod{},
			Made: map[string]ledger.Made{}, Events: map[quota.EventID]*ledger.Event{},
		}
		if unreadable != nil {
			b.unreadable(a.ID, unreadable, true)
		}
	}
}

// readUsers makes the ledgers of those who have no account yet. The teams that there are have been read before.
func (b *batch) readUsers(rows []dbsqlc.UsersAndClockRow, register []ledger.Registration) {
	for i, r := range rows {
		if r.Known {
			continue
		}
		id := register[i].Account
		a := &quota.Account{ID: id, UserID: register[i].UserID}
		if _, known := b.tree[register[i].Team]; known {
			continue
		}
		b.loaded[id] = &loaded{}
		b.ledgers[id] = &ledger.Ledger{New: true, Account: a, Now: r.Now.UTC()}
	}
}

func (b *batch) readLots(rows []dbsqlc.CreditLot) {
	for i := range rows {
		l, was := b.ledgers[rows[i].UserID], b.loaded[rows[i].UserID]
		if l == nil {
			continue
		}
		lot, err := readdb.LotOf(&rows[i])
		if err != nil {
			b.unreadable(rows[i].UserID, err, false)
		}
		if _, there := was.lots[lot.ID]; there {
			continue
		}
		l.Account.Lots = append(l.Account.Lots, lot)
		if was.lots == nil {
			was.lots = map[quota.LotID]quota.Lot{}
		}
		was.lots[lot.ID] = lot
	}
}

// readAdmissions keeps those that were asked for, and of a queue what is in front. What is both comes twice.
func (b *batch) readAdmissions(rows []dbsqlc.ConcurrentProcessing, asked []quota.AdmissionID) {
	for i := range rows {
		adm, known, err := b.readAdmission(&rows[i])
		if err != nil {
			b.unreadable(rows[i].UserID, err, false)
			continue
		}
		if adm != nil && adm.State == quota.Queued && (known || !slices.Contains(asked, adm.ID)) {
			b.ledgers[adm.Account].Queue = append(b.ledgers[adm.Account].Queue, adm)
		}
	}
}

// readAdmission keeps an admission, or returns the one that is known already; nil if its account is not of this batch.
func (b *batch) readAdmission(r *dbsqlc.ConcurrentProcessing) (adm *ledger.Admission, known bool, err error) {
	l := b.ledgers[r.UserID]
	if l == nil {
		return nil, false, nil
	}
	if adm := l.Admissions[r.ID]; adm != nil {
		return adm, true, nil
	}
	if adm, err = readdb.AdmissionOf(r, l.Account.UserID); err != nil {
		return nil, false, err
	}
	l.Admissions[adm.ID], b.loaded[adm.Account].admissions[adm.ID] = adm, adm.Admission
	return adm, false, nil
}

// searchPage bounds what one search loads.
const searchPage = 256

// search queues the searches for parked admissions.
func (b *batch) search(ctx context.Context, t *postgres.RoundTrip, searches []ledger.Search) error {
	for _, s := range searches {
		if err := t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadParked(ctx, dbsqlc.LoadParkedParams{
				Account: s.Account, Credits: int64(s.Credits), Priority: s.After.Priority, Arrived: s.After.Arrived,
				Most: searchPage,
			})
			b.readParked(rows)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// readParked keeps what a search has found, in the order in which it was.
func (b *batch) readParked(rows []dbsqlc.ConcurrentProcessing) {
	for i := range rows {
		adm, _, err := b.readAdmission(&rows[i])
		if err != nil {
			b.unreadable(rows[i].UserID, err, false)
		}
		if adm == nil {
			continue
		}
		if l := b.ledgers[adm.Account]; !slices.Contains(l.Queue, adm) {
			l.Queue = append(l.Queue, adm)
		}
		if i == searchPage-1 {
			b.searched = append(b.searched, adm)
		}
	}
}

func (b *batch) readLotIDs(rows []dbsqlc.LoadLotIDsRow) {
	for _, l := range b.ledgers {
		l.HadLots = map[quota.LotID]bool{}
	}
	for _, r := range rows {
		if l := b.ledgers[r.UserID]; l != nil {
			l.HadLots[r.ID] = true
		}
	}
}

// Ledgers implements ledger.Batch.
func (b *batch) Ledgers() map[quota.AccountID]*ledger.Ledger { return b.ledgers }

// Busy implements ledger.Batch.
func (b *batch) Busy() map[quota.AccountID]bool { return b.busy }

// Teams implements ledger.Batch.
func (b *batch) Teams() ledger.Teams { return b.tree }

// Plan implements ledger.Batch.
func (b *batch) Plan(name string) *quota.Plan { return b.plans[name] }

// Rollback implements ledger.Batch.
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

// Commit implements ledger.Batch: one round trip that writes and commits.
func (b *batch) Commit(ctx context.Context) error {
	if b.conn == nil {
		return errors.New("the batch has ended already")
	}
	w := &writes{placed: b.moved}
	for id, l := range b.ledgers {
		w.turn(l, b.loaded[id].turn)
		if l.Unreadable != nil {
			// Nothing of it has changed but perhaps how much waits below it.
			if l.Account.Balance != b.loaded[id].balance {
				w.accounts = append(w.accounts, l)
			}
			continue
		}
		l.Alert()
		if err := w.collect(l, b.loaded[id]); err != nil {
			b.Rollback()
			return err
		}
	}
	var t postgres.RoundTrip
	var tag pgconn.CommandTag
	w.queue(&t)
	writes := t.Len() > 0
	t.Queue("COMMIT").Exec(func(ct pgconn.CommandTag) error {
		tag = ct
		return nil
	})
	err := t.Send(ctx, b.conn)
	if err == nil && tag.String() != "COMMIT" {
		err = fmt.Errorf("%w: the server answered %s to the commit", ledger.ErrRetry, tag)
	}
	if err == nil && writes {
		b.db.Wrote()
	}
	if err == nil && len(w.raised) > 0 && b.alerted != nil {
		b.alerted()
	}
	b.Rollback() // gives the connection back; after a commit there is nothing to roll back
	return postgres.MapCommitError(err)
}
