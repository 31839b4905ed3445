// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// clock is the instant at which the tests' database lives.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)} }

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fixture is a store on a database of the test's own, with a default plan.
type fixture struct {
	*ledgerdb.Store
	t     *testing.T
	dsn   string
	clock *clock
}

// newFixture's ledger is checked against the invariants when the test ends.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	return newFixtureOn(t, ledgertest.New(t))
}

// newCorruptible gives a fixture whose ledger the test breaks.
func newCorruptible(t *testing.T) *fixture {
	t.Helper()
	return newFixtureOn(t, pgtest.New(t, postgres.Migrate))
}

func newFixtureOn(t *testing.T, dsn string) *fixture {
	t.Helper()
	f := &fixture{t: t, dsn: dsn, clock: newClock()}
	f.Store = f.open()
	if err := f.ApplyPlan(t.Context(), plan("free"), "test"); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) open() *ledgerdb.Store {
	f.t.Helper()
	s, err := ledgerdb.Open(f.t.Context(), f.dsn, postgres.Options{AllowUnsafe: true, Now: f.clock.read})
	if err != nil {
		f.t.Fatal(err)
	}
	ledgertest.Close(f.t, s)
	return s
}

// plan is one of which all fields but the calendar's say something. Only "free" is the default.
func plan(name string) metering.Plan {
	return plans.Full(func(p *metering.Plan) {
		p.Name, p.DisplayName, p.Default, p.ObjectUID = name, "The "+name, name == "free", quota.ID{0xf0, name[0]}
		p.Version, p.Past, p.Retired, p.CalendarMonth = 0, nil, false, false
	})
}

func (f *fixture) register(user string) quota.ID {
	f.t.Helper()
	id, err := ledgertest.Register(f.t.Context(), f, user, "")
	if err != nil {
		f.t.Fatal(err)
	}
	return id
}

// change runs a batch on one account.
func (f *fixture) change(keys ledger.Keys, apply func(b ledger.Batch, l *ledger.Ledger)) {
	f.t.Helper()
	if err := f.tryChange(f.t.Context(), keys, apply); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) tryChange(ctx context.Context, keys ledger.Keys, apply func(b ledger.Batch, l *ledger.Ledger)) error {
	b, err := f.Begin(ctx, keys)
	if err != nil {
		return err
	}
	defer b.Rollback()
	apply(b, b.Ledgers()[keys.Accounts[0]])
	return b.Commit(ctx)
}

// declare changes an account's settings as a UserQuota would, with the audit row that tells it.
func (f *fixture) declare(account quota.AccountID, edit func(l *ledger.Ledger)) {
	f.t.Helper()
	f.change(
		ledger.Keys{Accounts: []quota.AccountID{account}, Plans: []string{""}},
		func(_ ledger.Batch, l *ledger.Ledger) {
			before := l.AuditSettings()
			edit(l)
			l.Tell(quota.SystemActor, quota.AuditQuotaApplied, before, l.AuditSettings())
		},
	)
}

// enter admits or queues a new admission as the engine would.
func (f *fixture) enter(
	account quota.AccountID,
	id quota.AdmissionID,
	credits quota.Credits,
	edit ...func(*ledger.Admission),
) {
	f.t.Helper()
	f.change(ledger.Keys{Accounts: []quota.AccountID{account}}, func(_ ledger.Batch, l *ledger.Ledger) {
		f.roll(l)
		adm := &ledger.Admission{
			Admission: quota.Admission{
				ID: id, Source: quota.SourceAPI, Request: quota.Request{Estimate: credits, FileSize: 7, Queue: true},
				Enforced: true, Lease: time.Minute,
			},
			UserID: l.Account.UserID, Namespace: "jobs", Name: "one", RequestedBy: "system:serviceaccount:jobs:default",
			BodyHash: []byte{1, 2},
		}
		for _, e := range edit {
			e(adm)
		}
		if d := l.Chain().Enter(&adm.Admission, l.Now); d.Outcome == quota.Refuse &&
			!l.Chain().Park(&adm.Admission, d, l.Now) {
			f.t.Fatalf("refused: %s", d.Message())
		}
		l.Admissions[id] = adm
	})
}

// settle charges an admission and starts what waits for its slot.
func (f *fixture) settle(account quota.AccountID, id quota.AdmissionID, actual quota.Credits) {
	f.t.Helper()
	f.change(ledger.Keys{Accounts: []quota.AccountID{account}, Admissions: []quota.AdmissionID{id}},
		func(_ ledger.Batch, l *ledger.Ledger) {
			f.roll(l)
			adm := l.Admissions[id]
			charge, err := l.Chain().Settle(&adm.Admission, actual, quota.Closed{l.Closed}, l.Now)
			if err != nil {
				f.t.Fatal(err)
			}
			l.Booked = append(l.Booked, ledger.Made{Event: &ledger.Event{
				ID: ledger.ChargeID(account, id), Account: account, Kind: ledger.EventCharge,
				UsageType: quota.UsageTranscription,
				Admission: id, OccurredAt: adm.EndedAt, RecordedAt: l.Now, PeriodNo: charge.PeriodNo, Seq: charge.Seq,
				Credits: charge.Credits, Alloc: charge.Alloc, Overage: charge.Overage, Price: charge.Price,
				Cost:     charge.Cost,
				Currency: charge.Currency, CostCurrency: charge.CostCurrency, Duration: actual.Audio(), Quantity: 1,
				PlanName: l.Account.Plan.Name, PlanVersion: l.Account.Plan.Version, Late: adm.Late,
				Payer: charge.Payer, Levels: charge.Levels,
			}})
			f.promote(l)
		})
}

func (f *fixture) promote(l *ledger.Ledger) {
	for _, adm := range l.Queue {
		l.Chain().Promote([]*quota.Admission{&adm.Admission}, l.Now)
	}
}

func (f *fixture) roll(l *ledger.Ledger) {
	for _, p := range l.Account.Roll(l.Now) {
		l.Closed[p.No] = &p
		l.Tell(quota.SystemActor, quota.AuditPeriodClosed, nil, p.Audit())
	}
}

func (f *fixture) usage(user string) ledger.Usage {
	f.t.Helper()
	all, err := f.Accounts(f.t.Context(), []string{user, "nobody"})
	if err != nil || len(all) != 1 {
		f.t.Fatalf("%v %v", all, err)
	}
	return all[user]
}

func (f *fixture) exec(sql string, args ...any) {
	f.t.Helper()
	if _, err := f.Pool().Exec(f.t.Context(), sql, args...); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) count(sql string, args ...any) int {
	f.t.Helper()
	var n int
	if err := f.Pool().QueryRow(f.t.Context(), sql, args...).Scan(&n); err != nil {
		f.t.Fatal(err)
	}
	return n
}
