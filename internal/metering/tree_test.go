// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reset"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

// teams are made and moved by rows: what declares them is not part of these tests.
type teams struct {
	*world

	db *pgx.Conn
}

func newTeams(t *testing.T) *teams {
	t.Helper()
	w := newWorld(t)
	db, err := pgx.Connect(t.Context(), w.dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(t.Context()) })
	return &teams{world: w, db: db}
}

func (w *teams) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.db.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatal(err)
	}
}

// team makes a team whose periods begin at an instant of each month. Caps are "column = value, ...".
func (w *teams) team(n byte, name string, plan *string, anchor time.Time, caps string) quota.AccountID {
	w.t.Helper()
	id := quota.AccountID{n}
	w.exec("INSERT INTO teams (id, name, cap_currency) VALUES ($1, $2, 'USD')", [16]byte(id), name)
	if caps != "" {
		w.exec("UPDATE teams SET "+caps+" WHERE id = $1", [16]byte(id))
	}
	period := quota.Calendar{Anchor: anchor}.At(w.now())
	w.exec(`INSERT INTO usage_quotas (user_id, plan_name, anchor_at, period_start, period_end, last_decided_at,
			currency)
		VALUES ($1, $2, $3, $4, $5, $6, 'USD')`, [16]byte(id), plan, anchor, period.Start, period.End, w.now())
	return id
}

// move declares that an account is below another, none if that is zero. What waits moves with its next batch.
func (w *teams) move(account, parent quota.AccountID) {
	w.t.Helper()
	if err := ledgertest.Join(w.t.Context(), w.store, account, parent); err != nil {
		w.t.Fatal(err)
	}
}

func (w *teams) wantTeam(id quota.AccountID, used, reserved quota.Credits, active int32) {
	w.t.Helper()
	var got [3]int64
	if err := w.db.QueryRow(w.t.Context(), "SELECT used, reserved, active FROM usage_quotas WHERE user_id = $1",
		[16]byte(id)).Scan(&got[0], &got[1], &got[2]); err != nil {
		w.t.Fatal(err)
	}
	if want := [3]int64{int64(used), int64(reserved), int64(active)}; got != want {
		w.t.Errorf("the team has used, reserved, active %v, want %v", got, want)
	}
}

func (w *teams) complete(res metering.AdmitResult, actual quota.Credits) {
	w.t.Helper()
	if _, err := w.Complete(w.t.Context(), res.Admission.Account, res.Admission.ID, actual); err != nil {
		w.t.Fatal(err)
	}
}

// Two members share what their team pays for.
func TestTeamPays(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	alice, bob := w.register("alice"), w.register("bob")
	team := w.team(9, "newsroom", new("pro"), w.now().AddDate(0, 0, -7), "credits_cap = 100 * 60000")
	w.move(alice, team)
	w.move(bob, team)
	a, b := w.admit("alice", "a", 60*quota.Credit), w.admit("bob", "b", 40*quota.Credit)
	w.wantTeam(team, 0, 100*quota.Credit, 2)
	d := w.admit("bob", "c", quota.Credit).Decision
	if d.Reason != quota.CreditsExhausted || d.Level != (quota.Level{Kind: quota.LevelTeam, Name: "newsroom"}) {
		t.Errorf("%+v: %s", d, d.Message())
	}
	w.complete(a, 50*quota.Credit)
	w.wantTeam(team, 50*quota.Credit, 40*quota.Credit, 1)
	w.wantUsage("alice", 50*quota.Credit, 0, 0)

	// Bob leaves: what he began is the team's, what he begins is his own.
	w.move(bob, quota.AccountID{})
	own := w.admit("bob", "d", quota.Credit)
	w.complete(b, 30*quota.Credit)
	w.complete(own, quota.Credit)
	w.wantTeam(team, 80*quota.Credit, 0, 0)
	w.wantUsage("bob", 31*quota.Credit, 0, 0)
	if adm, err := w.Get(t.Context(), b.Admission.ID); err != nil || adm.Payer != team || len(adm.Levels) != 1 {
		t.Errorf("%+v, %v", adm, err)
	}
}

// The members of a team call at once, over two replicas: no slot is given twice, and nobody waits for ever.
func TestTeamIsContended(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	team := w.team(9, "newsroom", new("pro"), w.now().AddDate(0, 0, -7), "concurrent_cap = 3")
	root := w.team(1, "platform", nil, w.now(), "")
	w.move(team, root)
	names := []string{"alice", "bob", "carol", "dave"}
	for _, name := range names[:3] {
		w.move(w.register(name), team)
	}
	w.register(names[3]) // is alone
	replicas := []*metering.Service{w.Service, newService(w.open(t), metering.Options{})}
	var used atomic.Int64
	var g errgroup.Group
	for n := range 24 {
		s, name := replicas[n%2], names[n%len(names)]
		g.Go(func() error {
			for i := range 8 {
				req := request(name, fmt.Sprint(n, "/", i), quota.Credit)
				req.Queue = false
				res, err := s.Admit(t.Context(), req)
				if err != nil || res.Admission == nil {
					if d := res.Decision; err == nil && d.Reason != quota.ConcurrencyLimit {
						err = fmt.Errorf("%s: %s", name, d.Message())
					}
					if err != nil {
						return err
					}
					continue
				}
				adm := res.Admission
				if _, err := s.Complete(t.Context(), adm.Account, adm.ID, quota.Credit); err != nil {
					return err
				}
				if name != names[3] {
					used.Add(int64(quota.Credit))
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	w.wantTeam(team, quota.Credits(used.Load()), 0, 0)
	w.wantTeam(root, quota.Credits(used.Load()), 0, 0)
	if used.Load() == 0 {
		t.Error("nobody was admitted")
	}
}

// A team's period is closed as a user's is.
func TestTeamIsReset(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	team := w.team(9, "newsroom", new("pro"), w.now().AddDate(0, 0, -7), "")
	w.move(w.register("alice"), team)
	w.complete(w.admit("alice", "a", 5*quota.Credit), 4*quota.Credit)
	w.advance(25 * 24 * time.Hour) // the user's period goes on
	res, err := w.reset(t.Context(), reset.Options{Plan: "pro"})
	if err != nil || res.Accounts != 1 || res.Periods != 1 || res.Failed != 0 {
		t.Errorf("%+v, %v", res, err)
	}
	w.wantTeam(team, 0, 0, 0)
	w.wantUsage("alice", 4*quota.Credit, 0, 0)
}

// Whatever happens below a tree, in whatever order: the balances of all levels are the sums of what was booked there.
// The check at the end of the test tells.
func TestAnyOperationsBelowTeams(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			anyOperationsBelowTeams(t, rand.New(rand.NewPCG(seed, 7)))
		})
	}
}

func anyOperationsBelowTeams(t *testing.T, random *rand.Rand) {
	t.Helper()
	w := newTeams(t)
	names := []string{"alice", "bob", "carol", "dave"}
	root := w.team(1, "platform", nil, w.now().AddDate(0, 0, -20), "concurrent_cap = 4, member_queued = 3")
	parents := []quota.AccountID{
		{}, root,
		w.team(2, "newsroom", new("pro"), w.now().AddDate(0, 0, -7), "queued_cap = 4"),
		w.team(3, "desk", nil, w.now().AddDate(0, 0, -3), "credits_cap = 9000000, daily_cost_cap_micros = 2000000"),
	}
	w.move(parents[2], root)
	accounts := map[string]quota.AccountID{}
	for i, name := range names {
		accounts[name] = w.register(name)
		w.move(accounts[name], parents[i%len(parents)])
	}
	replicas := []*metering.Service{w.Service, newService(w.open(t), metering.Options{})}
	var admissions []*ledger.Admission
	var events []*ledger.Event
	ctx := t.Context()
	for n := range 250 {
		s, name, key := replicas[random.IntN(2)], names[random.IntN(len(names))], fmt.Sprint(n)
		body := []byte(key)
		var some *ledger.Admission
		if len(admissions) > 0 {
			some = admissions[random.IntN(len(admissions))]
		}
		var err error
		switch op := random.IntN(14); {
		case op < 5:
			var res metering.AdmitResult
			req := request(name, key, quota.Credit*quota.Credits(1+random.IntN(20)))
			req.Park = random.IntN(2) == 0
			if res, err = s.Admit(ctx, req); res.Admission != nil {
				admissions = append(admissions, res.Admission)
			}
		case op < 8 && some != nil:
			_, err = s.Complete(ctx, some.Account, some.ID, quota.Credit*quota.Credits(random.IntN(25)))
		case op == 8 && some != nil:
			_, err = s.Release(ctx, some.Account, some.ID)
		case op == 9:
			var res metering.RecordResult
			if res, err = s.Record(ctx, metering.RecordRequest{UserID: name, Key: key, BodyHash: body, Use: quota.Use{
				Type: quota.UsageExport, Credits: new(quota.Credit),
				OccurredAt: w.now().AddDate(0, 0, -random.IntN(20)),
			}}); err == nil {
				events = append(events, res.Event)
			}
		case op == 10 && len(events) > 0:
			e := events[random.IntN(len(events))]
			_, err = s.Reverse(ctx, metering.ReverseRequest{
				Account: e.Account, Event: e.ID, Key: key, BodyHash: body, Reason: "test", Actor: "test",
			})
		case op == 11:
			_, err = s.Adjust(ctx, metering.AdjustRequest{
				UserID: name, Key: key, BodyHash: body, Credits: quota.Credit, Reason: "test", Actor: "test",
			})
		case op == 12:
			w.move(accounts[name], parents[random.IntN(len(parents))])
		case op == 13:
			w.advance(time.Duration(random.IntN(200)) * time.Hour)
			err = s.Reap(ctx)
		}
		if err != nil && !errors.Is(err, quota.ErrConflict) && !errors.Is(err, quota.ErrNotFound) {
			t.Fatal(err)
		}
	}
}

// Admitting and completing below a team changes no column of an index: of the team's account no more than of the
// user's, of the team's row nothing, and of the turns nothing as long as nothing waits.
func TestUpdatesBelowATeamStayHOT(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	w.roomyTeams(1000)
	root, team := w.team(1, "platform", nil, w.now(), ""), w.team(9, "newsroom", new("roomy"), w.now(), "")
	w.move(team, root)
	w.move(w.register("alice"), team)
	w.complete(w.admit("alice", "first", quota.Credit), quota.Credit)
	w.exec("SELECT pg_stat_reset()")
	const jobs = 100
	for n := range jobs {
		w.complete(w.admit("alice", fmt.Sprint(n), quota.Credit), quota.Credit)
	}
	type updates struct{ all, hot int }
	got := map[string]updates{}
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); {
		rows, err := w.db.Query(t.Context(), `SELECT relname, n_tup_upd, n_tup_hot_upd
			FROM pg_sleep(0.1) CROSS JOIN pg_stat_user_tables
			WHERE relname IN ('usage_quotas', 'teams', 'queue_turns')`)
		if err != nil {
			t.Fatal(err)
		}
		var table string
		var u updates
		if _, err := pgx.ForEachRow(rows, []any{&table, &u.all, &u.hot}, func() error {
			got[table] = u
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if got["usage_quotas"].all >= 6*jobs {
			break
		}
	}
	// Each call changes three accounts. Where a page is full while a reader holds on to what was there, one is not HOT,
	// which is more of them the busier the machine is; with an index on what changes none would be.
	if u := got["usage_quotas"]; u.all < 6*jobs || u.hot < u.all/2 {
		t.Errorf("%d of %d updates of accounts are HOT, want most of %d", u.hot, u.all, 6*jobs)
	}
	if got["teams"].all != 0 || got["queue_turns"].all != 0 {
		t.Errorf("%d updates of teams and %d of turns, want none", got["teams"].all, got["queue_turns"].all)
	}
}
