// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/invariants"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// turn is one start: of whom, and below whom, as the rows tell it.
type turn struct {
	user, team string
}

// roomyTeams has the plan of the paying teams bound nothing but what a test asks for.
func (w *teams) roomyTeams(slots int32) {
	w.t.Helper()
	p := plans.Free()
	p.Name, p.ObjectUID, p.Default, p.Rank = "roomy", quota.ID{3}, false, 30
	p.Limits.Credits = quota.AtMost(100_000 * quota.Credit)
	p.Limits.Concurrent, p.Limits.Queued = quota.AtMost(slots), quota.AtMost(int32(10_000))
	p.DailyCostCeiling.Unlimited = true
	w.plan(p)
}

// wait asks for work of a user that has to wait, n times.
func (w *teams) wait(user string, n int) {
	w.t.Helper()
	for i := range n {
		if res := w.admit(user, fmt.Sprint("wait/", i), quota.Credit); res.Admission == nil ||
			res.Admission.State != quota.Queued {
			w.t.Fatalf("%s: %+v", user, res)
		}
	}
}

// running are the users of what runs, and its admissions.
func (w *teams) running() map[string][]quota.AdmissionID {
	w.t.Helper()
	rows, err := w.db.Query(w.t.Context(), `SELECT u.user_id, c.id FROM concurrent_processing AS c
		JOIN users AS u ON u.id = c.user_id WHERE c.state = 'Admitted' ORDER BY c.admitted_seq`)
	if err != nil {
		w.t.Fatal(err)
	}
	all := map[string][]quota.AdmissionID{}
	var user string
	var id quota.ID
	if _, err := pgx.ForEachRow(rows, []any{&user, &id}, func() error {
		all[user] = append(all[user], id)
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// wantRunning waits until so many run of each user, and of nobody else.
func (w *teams) wantRunning(want map[string]int) {
	w.t.Helper()
	var got map[string][]quota.AdmissionID
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		got = w.running()
		same := len(got) == len(want)
		for user, n := range want {
			same = same && len(got[user]) == n
		}
		if same {
			return
		}
	}
	w.t.Fatalf("want running %v, got %v", want, got)
}

// finish ends the oldest that runs of a user.
func (w *teams) finish(user string) {
	w.t.Helper()
	ids := w.running()[user]
	if len(ids) == 0 {
		w.t.Fatalf("nothing of %s runs", user)
	}
	if _, err := w.Complete(w.t.Context(), quota.ID{}, ids[0], quota.Credit); err != nil {
		w.t.Fatal(err)
	}
}

// drain ends what runs, over all the replicas at once, until nothing waits or runs.
func (w *teams) drain(replicas ...*metering.Service) {
	w.t.Helper()
	pool, err := pgxpool.New(w.t.Context(), w.dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	defer pool.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	var g errgroup.Group
	for n, s := range replicas {
		g.Go(func() error {
			for {
				rows, err := pool.Query(ctx, `SELECT id, state = 'Admitted' FROM concurrent_processing
					WHERE state IN ('Admitted', 'Queued')`)
				if err != nil {
					return err
				}
				waiting := 0
				var mine []quota.AdmissionID
				var id quota.ID
				var runs bool
				if _, err := pgx.ForEachRow(rows, []any{&id, &runs}, func() error {
					waiting++
					if runs && int(id[15])%len(replicas) == n {
						mine = append(mine, id)
					}
					return nil
				}); err != nil {
					return err
				}
				if waiting == 0 {
					return nil
				}
				for _, id := range mine {
					if _, err := s.Complete(ctx, quota.ID{}, id, quota.Credit); err != nil {
						return err
					}
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		w.t.Fatal(err)
	}
}

// turns returns the starts of what has waited, in the order of the account at the top.
func (w *teams) turns(top quota.AccountID) []turn {
	w.t.Helper()
	rows, err := w.db.Query(w.t.Context(), `SELECT u.user_id, g.name FROM concurrent_processing AS c
		JOIN users AS u ON u.id = c.user_id JOIN teams AS g ON g.id = (c.levels -> 0 ->> 'account')::uuid
		CROSS JOIN LATERAL jsonb_array_elements(c.levels) AS l
		WHERE (l ->> 'account')::uuid = $1 AND c.arrived_seq <> c.admitted_seq
		ORDER BY (l ->> 'admitted_seq')::bigint`, [16]byte(top))
	if err != nil {
		w.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (t turn, err error) {
		return t, r.Scan(&t.user, &t.team)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// wantFair holds the starts of the children of one node, all of which had work throughout, against the bound: between
// two of its own one of weight wi sees at most ceil(wj/wi) of another.
func wantFair(t *testing.T, children []string, weight map[string]int) {
	t.Helper()
	last, others := map[string]bool{}, map[string]map[string]int{}
	for at, child := range children {
		for own, seen := range others {
			if own == child || !last[own] {
				continue
			}
			seen[child]++
			wi, wj := max(1, weight[own]), max(1, weight[child])
			if most := (wj + wi - 1) / wi; seen[child] > most && slices.Contains(children[at:], own) {
				t.Errorf("start %d: %s (weight %d) waits while %s (weight %d) starts %d times", at, own, wi, child, wj,
					seen[child])
			}
		}
		last[child], others[child] = true, map[string]int{}
	}
}

// wantQuiet holds that nothing waits that could start.
func (w *teams) wantQuiet() {
	w.t.Helper()
	var found []invariants.Violation
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		var err error
		if found, err = invariants.Check(w.t.Context(), w.db, invariants.WithQuiet()); err != nil {
			w.t.Fatal(err)
		}
		if len(found) == 0 {
			return
		}
	}
	w.t.Fatal(found)
}

// Many users of many teams below one root wait, over two engines: at each level each of them has its turn.
func TestTurnsOverThreeLevels(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	w.roomyTeams(1000)
	root := w.team(1, "platform", new("roomy"), w.now(), "concurrent_cap = 1")
	weights := map[string]int{"team-0": 1, "team-1": 2, "team-2": 5}
	w.move(w.register("blocker"), root)
	w.admit("blocker", "blocks", quota.Credit)
	replicas := []*metering.Service{w.Service, newService(w.open(t), metering.Options{})}
	const users, jobs = 7, 3
	for n := range 3 {
		name := fmt.Sprint("team-", n)
		team := w.team(byte(2+n), name, nil, w.now(), fmt.Sprint("weight = ", weights[name]))
		w.move(team, root)
		for u := range users {
			user := fmt.Sprint(name, "-", u)
			w.move(w.register(user), team)
			w.wait(user, jobs)
		}
	}
	w.exec("UPDATE teams SET concurrent_cap = 3 WHERE is_root OR name = 'platform'")
	w.drain(replicas...)
	turns := w.turns(root)
	if len(turns) != 3*users*jobs {
		t.Fatalf("%d started, want %d", len(turns), 3*users*jobs)
	}
	byTeam, below := make([]string, len(turns)), map[string][]string{}
	for i, turn := range turns {
		byTeam[i] = turn.team
		below[turn.team] = append(below[turn.team], turn.user)
	}
	wantFair(t, byTeam, weights)
	for _, users := range below {
		wantFair(t, users, nil)
	}
	w.wantQuiet()
}

// Service is as the weights of the users' plans say.
func TestTurnsByWeight(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	w.roomyTeams(1000)
	team := w.team(9, "newsroom", new("roomy"), w.now(), "concurrent_cap = 1")
	w.move(w.register("blocker"), team)
	w.admit("blocker", "blocks", quota.Credit)
	weights := []int{1, 2, 5, 10}
	for i, weight := range weights {
		p := plans.Free()
		p.Name, p.ObjectUID, p.Default = fmt.Sprint("weight-", weight), quota.ID{byte(10 + i)}, false
		p.Weight = int32(weight)
		w.plan(p)
		user := fmt.Sprint("user-", weight)
		w.quota(metering.Quota{UserID: user, ObjectUID: quota.ID{byte(20 + i)}, ObjectName: user, PlanName: p.Name,
			Zone: "UTC"})
		w.move(w.register(user), team)
		w.wait(user, 4*weight)
	}
	w.drain(w.Service)
	got := map[string]int{}
	for i, turn := range w.turns(team) {
		got[turn.user]++
		if (i+1)%18 != 0 {
			continue
		}
		for _, weight := range weights {
			if n := got[fmt.Sprint("user-", weight)]; n != (i+1)/18*weight {
				t.Errorf("after %d starts %d of weight %d", i+1, n, weight)
			}
		}
	}
}

// Who is at a limit of its own is in front of nobody, user or team, and has its turn when it has room again.
func TestFullOnesHoldUpNobody(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	w.roomyTeams(1000)
	root := w.team(1, "platform", new("roomy"), w.now(), "concurrent_cap = 3, member_concurrent = 1")
	small := w.team(2, "small", nil, w.now(), "concurrent_cap = 1")
	w.move(small, root)
	w.move(w.register("alice"), root)
	w.move(w.register("bob"), small)
	w.move(w.register("carol"), small)
	w.move(w.register("dave"), root)
	w.admit("alice", "runs", quota.Credit)
	w.admit("bob", "runs", quota.Credit)
	w.wait("alice", 2)
	w.wait("carol", 2)
	// A slot is free, and none of those that wait may take it.
	if res := w.admit("dave", "runs", quota.Credit); res.Decision.Outcome != quota.Admit {
		t.Fatalf("%s", res.Decision.Message())
	}
	w.wait("dave", 1)
	w.finish("bob")
	w.wantRunning(map[string]int{"alice": 1, "carol": 1, "dave": 1})
	w.finish("alice")
	w.wantRunning(map[string]int{"alice": 1, "carol": 1, "dave": 1})
	w.finish("carol")
	w.wantRunning(map[string]int{"alice": 1, "carol": 1, "dave": 1})
	w.wantQuiet()
	w.drain(w.Service)
}

// Who comes where others could run waits behind them, though a slot is free, and is refused if it would not wait.
func TestNewcomersWaitForTheirTurn(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	w.roomyTeams(1000)
	root := w.team(1, "platform", nil, w.now(), "")
	team := w.team(9, "newsroom", new("roomy"), w.now(), "concurrent_cap = 1")
	w.move(team, root)
	for _, user := range []string{"alice", "bob", "carol"} {
		w.move(w.register(user), team)
	}
	w.move(w.register("dave"), root)
	w.admit("alice", "runs", quota.Credit)
	w.wait("bob", 1)
	w.exec("UPDATE teams SET concurrent_cap = 2 WHERE name = 'newsroom'")
	// Another process knows of nobody that waits: the first batch with carol does not have bob's account.
	s := newService(w.open(t), metering.Options{})
	req := request("carol", "newcomer", quota.Credit)
	req.Queue = false
	newsroom := quota.Level{Kind: quota.LevelTeam, Name: "newsroom"}
	// Who asks first hears the same.
	for user, reason := range map[string]quota.Reason{"carol": quota.NotFirst, "dave": ""} {
		asked, err := s.Check(t.Context(), user, quota.Request{Estimate: quota.Credit})
		if err != nil || asked.Decision.Reason != reason || reason != "" && asked.Decision.Level != newsroom {
			t.Errorf("%s: %+v, %v", user, asked.Decision, err)
		}
	}
	res, err := s.Admit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if d := res.Decision; d.Outcome != quota.Refuse || d.Reason != quota.NotFirst || d.Level != newsroom {
		t.Errorf("%+v: %s", d, d.Message())
	}
	w.wantRunning(map[string]int{"alice": 1, "bob": 1})
	w.drain(w.Service)
}

// Whoever was idle has saved nothing up, and lost nothing: it has one turn before all others have one.
func TestIdleOneReturns(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	w.roomyTeams(1000)
	team := w.team(9, "newsroom", new("roomy"), w.now(), "concurrent_cap = 1")
	for _, user := range []string{"alice", "bob", "carol"} {
		w.move(w.register(user), team)
	}
	w.admit("alice", "runs", quota.Credit)
	w.wait("alice", 10)
	w.wait("bob", 10)
	for range 8 {
		for user := range w.running() {
			w.finish(user)
		}
	}
	w.wait("carol", 6)
	w.drain(w.Service)
	turns := w.turns(team)
	users := make([]string, len(turns))
	for i := range turns {
		users[i] = turns[i].user
	}
	wantFair(t, users, nil)
	if n := indexOf(users, "carol"); n < 8 || n > 10 {
		t.Errorf("carol's first turn is start %d of %v", n, users)
	}
}

func indexOf(users []string, user string) int {
	for i, u := range users {
		if u == user {
			return i
		}
	}
	return -1
}

// What the team's credits keep parked is in front of nobody, and starts when the team's period has ended, everybody's.
func TestTeamsPeriodWakesAll(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	w.roomyTeams(1000)
	root := w.team(1, "platform", nil, w.now(), "")
	team := w.team(9, "newsroom", new("roomy"), w.now().AddDate(0, 0, -20), "credits_cap = 10 * 60000")
	w.move(team, root)
	w.move(w.register("alice"), team)
	w.complete(w.admit("alice", "all", 10*quota.Credit), 10*quota.Credit)
	const users = ledger.WalkPage + 8
	want := map[string]int{}
	for i := range users {
		user := fmt.Sprint("user-", i)
		w.move(w.register(user), team)
		req := request(user, "parked", quota.Credit/10)
		req.Park = true
		if res, err := w.Admit(t.Context(), req); err != nil || res.Admission == nil || !res.Admission.Parked {
			t.Fatalf("%+v, %v", res, err)
		}
		want[user] = 1
	}
	w.advance(11 * 24 * time.Hour) // the members' periods go on
	w.reap()
	w.wantRunning(want)
	w.wantQuiet()
}

// What waits for longer than the plan of the team that pays allows is refused.
func TestTeamsPlanBoundsTheWait(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	p := plans.Free()
	p.Name, p.ObjectUID, p.Default, p.MaxWait = "impatient", quota.ID{3}, false, 30*time.Minute
	w.plan(p)
	root := w.team(1, "platform", new("impatient"), w.now(), "")
	team := w.team(9, "newsroom", nil, w.now(), "")
	w.move(team, root)
	w.move(w.register("alice"), team)
	w.move(w.register("bob"), team)
	w.admit("alice", "runs", quota.Credit)
	req := request("bob", "waits", quota.Credit)
	req.Lease = time.Hour
	res, err := w.Admit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	w.advance(31 * time.Minute)
	w.reap()
	adm, err := w.Get(t.Context(), res.Admission.ID)
	if err != nil || adm.State != quota.Cancelled || adm.Reason != quota.WaitedTooLong {
		t.Errorf("%+v, %v", adm, err)
	}
}
