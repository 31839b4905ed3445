// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

var errDied = errors.New("the process has died")

// dying is a store whose process does nothing behind its first change: it finds nobody to look at, and if it is dead
// begins no other batch.
type dying struct {
	*ledgerdb.Store

	dies    bool
	changed atomic.Bool
}

func (d *dying) Due(context.Context, ledger.Due, quota.AccountID, int) ([]ledger.Candidate, error) {
	return nil, errDied
}

func (d *dying) ApplyPlan(ctx context.Context, p metering.Plan, actor string) error {
	err := d.Store.ApplyPlan(ctx, p, actor)
	d.changed.Store(true)
	return err
}

func (d *dying) Begin(ctx context.Context, keys ledger.Keys) (ledger.Batch, error) {
	if d.dies && d.changed.Load() {
		return nil, errDied
	}
	b, err := d.Store.Begin(ctx, keys)
	return dyingBatch{Batch: b, store: d}, err
}

type dyingBatch struct {
	ledger.Batch

	store *dying
}

func (b dyingBatch) Commit(ctx context.Context) error {
	err := b.Batch.Commit(ctx)
	b.store.changed.Store(true)
	return err
}

// offer is the plan that the team pays with, or its members if it has none.
func offer(credits quota.Credits, slots int32) metering.Plan {
	return plans.Free(func(p *metering.Plan) {
		p.Name, p.ObjectUID, p.Default, p.Rank = "offer", quota.ID{3}, false, 30
		p.Limits.Credits, p.Limits.Concurrent = quota.AtMost(credits), quota.AtMost(slots)
	})
}

// declaration is one of what is declared while work waits below a team, after which it may start.
type declaration struct {
	// before is made of a team that bounds next to nothing, paid by the plan "offer" of 1000 credits and 10 slots.
	before func(t *metering.Team, p *metering.Plan)
	// waits has something run or used up, and something wait.
	waits func(w *teams)
	do    declares
	// plan says that no account changes, so that nothing follows by itself.
	plan bool
	want map[string]int
}

// declares makes a change over a service, of the team and the plan as they were declared before.
type declares func(ctx context.Context, s *metering.Service, t metering.Team, p metering.Plan) error

func apply(edit func(t *metering.Team)) declares {
	return func(ctx context.Context, s *metering.Service, t metering.Team, _ metering.Plan) error {
		edit(&t)
		_, err := s.ApplyTeam(ctx, t, "test")
		return err
	}
}

func applyPlan(edit func(p *metering.Plan)) declares {
	return func(ctx context.Context, s *metering.Service, _ metering.Team, p metering.Plan) error {
		edit(&p)
		_, err := s.ApplyPlan(ctx, p, "test")
		return err
	}
}

// usedUp has alice use ten credits up, and bob's work be parked for want of some.
func usedUp(w *teams) {
	w.t.Helper()
	w.complete(w.admit("alice", "all", 10*quota.Credit), 10*quota.Credit)
	w.park("bob")
}

// taken has alice run something, and bob wait for its slot.
func taken(w *teams) {
	w.t.Helper()
	w.admit("alice", "runs", quota.Credit)
	w.wait("bob", 1)
}

// busy has alice run as much as she may, and have more wait.
func busy(w *teams) {
	w.t.Helper()
	w.admit("alice", "runs", quota.Credit)
	w.wait("alice", 1)
}

func (w *teams) park(user string) {
	w.t.Helper()
	req := request(user, "parked", quota.Credit)
	req.Park = true
	if res, err := w.Admit(w.t.Context(), req); err != nil || res.Admission == nil || !res.Admission.Parked {
		w.t.Fatalf("%s: %+v, %v", user, res, err)
	}
}

func declarations() map[string]declaration {
	ten, two := 10*quota.Credit, int32(2)
	both := map[string]int{"alice": 1, "bob": 1}
	return map[string]declaration{
		"grant": {
			before: func(_ *metering.Team, p *metering.Plan) { p.Limits.Credits = quota.AtMost(ten) },
			waits:  usedUp,
			do: apply(func(t *metering.Team) {
				t.Grants = map[string]metering.Grant{"gift": {Credits: ten}}
			}),
			want: map[string]int{"bob": 1},
		},
		"suspension lifted": {
			before: func(t *metering.Team, _ *metering.Plan) { t.Caps.Concurrent = new(quota.AtMost(two - 1)) },
			waits: func(w *teams) {
				taken(w)
				suspended := w.declared("newsroom")
				suspended.Suspended = true
				w.declare(suspended)
				w.finish("alice")
				w.park("carol")
				w.wantRunning(map[string]int{})
			},
			do: apply(func(t *metering.Team) {
				t.Suspended, t.Caps.Concurrent = false, new(quota.AtMost(two))
			}),
			want: map[string]int{"bob": 1, "carol": 1},
		},
		"concurrent cap": {
			before: func(t *metering.Team, _ *metering.Plan) { t.Caps.Concurrent = new(quota.AtMost(two - 1)) },
			waits:  taken,
			do:     apply(func(t *metering.Team) { t.Caps.Concurrent = new(quota.AtMost(two)) }),
			want:   both,
		},
		"credits cap": {
			before: func(t *metering.Team, _ *metering.Plan) { t.Caps.Credits = new(quota.AtMost(ten)) },
			waits:  usedUp,
			do:     apply(func(t *metering.Team) { t.Caps.Credits = new(quota.AtMost(2 * ten)) }),
			want:   map[string]int{"bob": 1},
		},
		"credits cap taken away": {
			before: func(t *metering.Team, _ *metering.Plan) { t.Caps.Credits = new(quota.AtMost(ten)) },
			waits:  usedUp,
			do:     apply(func(t *metering.Team) { t.Caps.Credits = nil }),
			want:   map[string]int{"bob": 1},
		},
		"daily cost cap": {
			// A credit costs 6000 micro-units.
			before: func(t *metering.Team, _ *metering.Plan) {
				t.Caps.DailyCost = &quota.Ceiling{Limit: quota.AtMost[quota.Money](60_000), Currency: "USD"}
			},
			waits: usedUp,
			do: apply(func(t *metering.Team) {
				t.Caps.DailyCost = &quota.Ceiling{Limit: quota.AtMost[quota.Money](120_000), Currency: "USD"}
			}),
			want: map[string]int{"bob": 1},
		},
		"members' slots": {
			before: func(t *metering.Team, _ *metering.Plan) {
				t.MemberDefaults.Concurrent = new(quota.AtMost(two - 1))
			},
			waits: busy,
			do:    apply(func(t *metering.Team) { t.MemberDefaults.Concurrent = new(quota.AtMost(two)) }),
			want:  map[string]int{"alice": 2},
		},
		"members' credits": {
			before: func(t *metering.Team, _ *metering.Plan) { t.MemberDefaults.Credits = new(quota.AtMost(ten)) },
			waits: func(w *teams) {
				w.complete(w.admit("alice", "all", ten), ten)
				w.park("alice")
			},
			do:   apply(func(t *metering.Team) { t.MemberDefaults.Credits = new(quota.AtMost(2 * ten)) }),
			want: map[string]int{"alice": 1},
		},
		"the plan gets slots": {
			before: func(_ *metering.Team, p *metering.Plan) { p.Limits.Concurrent = quota.AtMost(two - 1) },
			waits:  taken,
			do:     applyPlan(func(p *metering.Plan) { p.Limits.Concurrent = quota.AtMost(two) }),
			plan:   true,
			want:   both,
		},
		"the plan gets credits": {
			before: func(_ *metering.Team, p *metering.Plan) { p.Limits.Credits = quota.AtMost(ten) },
			waits:  usedUp,
			do:     applyPlan(func(p *metering.Plan) { p.Limits.Credits = quota.AtMost(2 * ten) }),
			plan:   true,
			want:   map[string]int{"bob": 1},
		},
		"another plan": {
			before: func(_ *metering.Team, p *metering.Plan) { p.Limits.Concurrent = quota.AtMost(two - 1) },
			waits:  taken,
			do:     apply(func(t *metering.Team) { t.PlanName = "pro" }),
			want:   both,
		},
		"another plan with credits": {
			before: func(_ *metering.Team, p *metering.Plan) { p.Limits.Credits = quota.AtMost(ten) },
			waits:  usedUp,
			do:     apply(func(t *metering.Team) { t.PlanName = "pro" }),
			want:   map[string]int{"bob": 1},
		},
		"no plan": {
			before: func(_ *metering.Team, p *metering.Plan) { p.Limits.Credits = quota.AtMost(ten) },
			waits:  usedUp,
			do:     apply(func(t *metering.Team) { t.PlanName = "" }),
			want:   map[string]int{"bob": 1},
		},
		"the members' own plan gets slots": {
			before: func(t *metering.Team, p *metering.Plan) {
				t.PlanName = ""
				*p = plans.Free()
			},
			waits: busy,
			do:    applyPlan(func(p *metering.Plan) { p.Limits.Concurrent = quota.AtMost(two) }),
			plan:  true,
			want:  map[string]int{"alice": 2},
		},
		"leaves a full team": {
			before: func(t *metering.Team, _ *metering.Plan) { t.Caps.Concurrent = new(quota.AtMost(two - 1)) },
			waits:  taken,
			do: func(ctx context.Context, s *metering.Service, t metering.Team, _ metering.Plan) error {
				return s.RemoveMember(ctx, t.Name, "bob", tester)
			},
			want: both,
		},
		"leaves one that has used its credits up": {
			before: func(t *metering.Team, _ *metering.Plan) { t.Caps.Credits = new(quota.AtMost(ten)) },
			waits:  usedUp,
			do: func(ctx context.Context, s *metering.Service, t metering.Team, _ metering.Plan) error {
				return s.RemoveMember(ctx, t.Name, "bob", tester)
			},
			want: map[string]int{"bob": 1},
		},
	}
}

// declared is the team as capped declares it, with the plan and the bounds that the test gave it.
func (w *teams) declared(name string) metering.Team {
	w.t.Helper()
	u := w.teamOf(name)
	t := capped(name, "")
	t.Team, t.PlanName, t.Suspended = *u.Usage.Account.Team, u.Usage.Account.Plan.Name, u.Usage.Account.Suspended
	return t
}

// What waits below a team starts when a declaration lets it, whoever's limit that was, and also if the process that
// made the change is gone before it has come to those who wait: what it does behind its change in its own time is
// enough, and so is what another process finds when it begins, and goes on to look for.
func TestDeclarationsStartWhatWaits(t *testing.T) {
	t.Parallel()
	for name, tc := range declarations() {
		for how, made := range map[string]func(w *teams) *metering.Service{
			"to the end": func(w *teams) *metering.Service { return w.Service },
			"given up": func(w *teams) *metering.Service {
				return newService(&dying{Store: w.open(w.t)}, metering.Options{})
			},
			"another goes on": func(w *teams) *metering.Service {
				return newService(&dying{Store: w.open(w.t), dies: true}, metering.Options{})
			},
		} {
			if how == "given up" && tc.plan {
				continue
			}
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				w := newTeams(t)
				plan, team := offer(1000*quota.Credit, 10), capped("newsroom", "")
				team.PlanName = "offer"
				tc.before(&team, &plan)
				w.plan(plan)
				w.declare(team)
				w.join("newsroom", "alice", "bob", "carol")
				tc.waits(w)
				err := tc.do(t.Context(), made(w), team, plan)
				if err != nil && (how == "to the end" || !errors.Is(err, errDied)) {
					t.Fatal(err)
				}
				if how == "another goes on" {
					ctx, stop := context.WithCancel(t.Context())
					ended := make(chan error, 1)
					next := newService(w.open(t), metering.Options{ReapInterval: 10 * time.Millisecond})
					go func() { ended <- next.Run(ctx) }()
					defer func() {
						stop()
						<-ended
					}()
				}
				w.wantRunning(tc.want)
				w.wantQuiet()
			})
		}
	}
}

// What returns to the queue after a move leaves the team that it ran for, and waits for the one that the user is in by
// then.
func TestRequeuedAfterAMove(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	for _, name := range []string{"north", "south"} {
		team := capped(name, "")
		team.PlanName, team.Caps.Concurrent = "pro", new(quota.AtMost(int32(1)))
		w.declare(team)
	}
	w.join("north", "alice")
	w.join("south", "bob")
	w.admit("bob", "runs", quota.Credit)
	job := request("alice", "", quota.Credit)
	asJob(1)(&job)
	started, err := w.Admit(t.Context(), job)
	if err != nil || started.Admission.State != quota.Admitted {
		t.Fatalf("%+v, %v", started, err)
	}
	if err := w.RemoveMember(t.Context(), "north", "alice", tester); err != nil {
		t.Fatal(err)
	}
	w.join("south", "alice")
	check := func(name string, queued, active int32, reserved quota.Credits) {
		t.Helper()
		a := w.teamOf(name).Usage.Account
		if a.Queued != queued || a.Active != active || a.Reserved != reserved {
			t.Errorf("%s: %d wait and %d run with %s reserved, want %d, %d and %s", name, a.Queued, a.Active,
				a.Reserved, queued, active, reserved)
		}
	}
	check("north", 0, 1, quota.Credit)
	back, err := w.Requeue(t.Context(), started.Admission.ID, started.Admission.AdmittedSeq)
	if err != nil || back.State != quota.Queued {
		t.Fatalf("%+v, %v", back, err)
	}
	check("north", 0, 0, 0)
	check("south", 1, 1, quota.Credit)
	w.finish("bob")
	w.wantRunning(map[string]int{"alice": 1})
	w.settleJob(back.ID, quota.Credit)
	check("south", 0, 0, 0)
	if north, south := w.teamOf("north").Usage.Account.Used, w.teamOf("south").Usage.Account.Used; north != 0 ||
		south != 2*quota.Credit {
		t.Errorf("north has used %s, south %s", north, south)
	}
}

// What was done on a ticket is paid by whoever is above the user when the ledger hears of it; if the same key had been
// let in before that, by whom that was booked on.
func TestTicketAfterAMove(t *testing.T) {
	o := newOutage(t)
	db, err := pgx.Connect(t.Context(), o.dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.WithoutCancel(t.Context())) })
	w := &teams{world: o.world, db: db}
	plan := offer(1000*quota.Credit, 10)
	plan.AdmitWhenUnavailable = true
	w.plan(plan)
	for _, name := range []string{"north", "south"} {
		team := capped(name, "")
		team.PlanName = "offer"
		w.declare(team)
	}
	w.join("north", "alice")
	r := o.replica(100)
	r.knows("alice")
	w.admit("alice", "known", 5*quota.Credit) // the replica has not heard of it
	o.away()
	known, unknown := r.ticket("alice", "known", 5*quota.Credit), r.ticket("alice", "unknown", 7*quota.Credit)
	if err := w.RemoveMember(t.Context(), "north", "alice", tester); err != nil {
		t.Fatal(err)
	}
	w.join("south", "alice")
	o.back(r)
	r.complete(known, 4*quota.Credit)
	r.complete(unknown, 6*quota.Credit)
	for name, want := range map[string]quota.Credits{"north": 4 * quota.Credit, "south": 6 * quota.Credit} {
		if a := w.teamOf(name).Usage.Account; a.Used != want || a.Reserved != 0 || a.Active != 0 {
			t.Errorf("%s: %s used, %s reserved, %d active, want %s used", name, a.Used, a.Reserved, a.Active, want)
		}
	}
}

// A suspended team lets what runs run on and end, and keeps what waits waiting.
func TestSuspendedTeam(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	team := capped("newsroom", "")
	team.PlanName, team.Caps.Concurrent = "pro", new(quota.AtMost(int32(1)))
	w.declare(team)
	w.join("newsroom", "alice", "bob")
	runs := w.admit("alice", "runs", 2*quota.Credit)
	w.wait("bob", 1)
	team.Suspended = true
	w.declare(team)
	adm := runs.Admission
	if _, err := w.Heartbeat(t.Context(), adm.Account, adm.ID); err != nil {
		t.Error(err)
	}
	w.wantRunning(map[string]int{"alice": 1})
	w.complete(runs, 2*quota.Credit)
	w.reap()
	w.wantRunning(map[string]int{})
	if queued, _ := w.counts("newsroom"); queued != 1 {
		t.Errorf("%d wait", queued)
	}
	a := w.teamOf("newsroom").Usage.Account
	if a.Used != 2*quota.Credit || a.Reserved != 0 {
		t.Errorf("%s used, %s reserved", a.Used, a.Reserved)
	}
	res := w.admit("alice", "more", quota.Credit)
	if d := res.Decision; d.Outcome != quota.Refuse || d.Reason != quota.UserSuspended || d.Level != a.Level() {
		t.Errorf("%+v", d)
	}
}

// The period of a team without a plan, of which there is no reset, is closed by whoever looks for what is due.
func TestPeriodOfATeamWithoutAPlan(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	team := capped("newsroom", "")
	team.Anchor = w.now().AddDate(0, 0, -20)
	w.declare(team)
	w.join("newsroom", "alice")
	w.complete(w.admit("alice", "a", 5*quota.Credit), 4*quota.Credit)
	closed := func() (n int, used quota.Credits) {
		t.Helper()
		if err := w.db.QueryRow(t.Context(), `SELECT count(*), coalesce(sum(p.used), 0)::bigint FROM usage_periods AS p
			JOIN teams AS t ON t.id = p.user_id`).Scan(&n, &used); err != nil {
			t.Fatal(err)
		}
		return n, used
	}
	w.reap()
	if n, _ := closed(); n != 0 {
		t.Errorf("%d periods are closed", n)
	}
	w.advance(12 * 24 * time.Hour)
	w.reap()
	if n, used := closed(); n != 1 || used != 4*quota.Credit {
		t.Errorf("%d periods are closed, with %s used", n, used)
	}
	w.wantUsage("alice", 4*quota.Credit, 0, 0)
}
