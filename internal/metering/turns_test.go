// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
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
	var waiting []string
	for n := range 3 {
		name := fmt.Sprint("team-", n)
		team := w.team(byte(2+n), name, nil, w.now(), fmt.Sprint("weight = ", weights[name]))
		w.move(team, root)
		for u := range users {
			user := fmt.Sprint(name, "-", u)
			w.move(w.register(user), team)
			waiting = append(waiting, user)
		}
	}
	w.advance(2 * time.Minute)
	for _, user := range waiting {
		w.wait(user, jobs)
	}
	w.exec("UPDATE teams SET concurrent_cap = 3 WHERE is_root OR name = 'platform'")
	w.advance(time.Minute)
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
	// The check of the invariants sees it from the rows alone, at both levels.
	for node, child := range map[quota.AccountID]int{root: 1, {3}: 0} {
		if found := w.brokenOrder(w.swapped(node, child)); len(found) == 0 {
			t.Errorf("nothing is found out of turn below %x", node)
		}
	}
}

// brokenOrder returns what the check of the invariants finds to be out of turn if something is done to the rows, which
// are as before afterwards.
func (w *teams) brokenOrder(sql string, args ...any) []string {
	w.t.Helper()
	tx, err := w.db.Begin(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(w.t.Context())) }()
	if sql != "" {
		if _, err := tx.Exec(w.t.Context(), sql, args...); err != nil {
			w.t.Fatal(err)
		}
	}
	all, err := invariants.Check(w.t.Context(), nested{tx})
	if err != nil {
		w.t.Fatal(err)
	}
	var found []string
	for _, v := range all {
		if v.Invariant == "I7" && strings.HasPrefix(v.What, "start as decision") {
			found = append(found, v.UserID+": "+v.Expected+": "+v.Found)
		}
	}
	return found
}

// nested has a check see what its transaction has done.
type nested struct{ pgx.Tx }

func (n nested) BeginTx(ctx context.Context, _ pgx.TxOptions) (pgx.Tx, error) { return n.Begin(ctx) }

// swapped returns what lets a child of a node, by the order of its first start, have its second turn right after its
// first one: it changes places with whoever had that.
func (w *teams) swapped(node quota.AccountID, child int) string {
	w.t.Helper()
	type start struct {
		id, child quota.ID
		seq       int64
		at        int
	}
	rows, err := w.db.Query(w.t.Context(), `SELECT c.id, CASE WHEN n = 1 THEN c.user_id
			ELSE (c.levels -> (n - 2)::integer ->> 'account')::uuid END, (l ->> 'admitted_seq')::bigint, n - 1
		FROM concurrent_processing AS c CROSS JOIN LATERAL jsonb_array_elements(c.levels) WITH ORDINALITY AS e (l, n)
		WHERE (l ->> 'account')::uuid = $1 AND c.arrived_seq <> c.admitted_seq ORDER BY 3`, [16]byte(node))
	if err != nil {
		w.t.Fatal(err)
	}
	starts, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (s start, err error) {
		return s, r.Scan(&s.id, &s.child, &s.seq, &s.at)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	var order []quota.ID
	first := map[quota.ID]int{}
	for i, s := range starts {
		if n, again := first[s.child]; again && s.child == order[child] {
			next := starts[n+1]
			set := func(to start, seq int64) string {
				return fmt.Sprintf(`UPDATE concurrent_processing
					SET levels = jsonb_set(levels, '{%d,admitted_seq}', '%d') WHERE id = '%x';`, to.at, seq, to.id)
			}
			return set(starts[i], next.seq) + set(next, s.seq)
		} else if !again {
			first[s.child] = i
			order = append(order, s.child)
		}
	}
	w.t.Fatalf("child %d of %x has no second start", child, node)
	return ""
}

// What rows tell of the order is replayed: who is served twice while another one waits, or comes and does not wait.
// What they do not tell is not held: who was parked or had no slot of its own, and what was while something changed.
func TestCheckReplaysTurns(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	w.roomyTeams(1000)
	team := w.team(9, "newsroom", new("roomy"), w.now(), "concurrent_cap = 1, member_concurrent = 2")
	users := []string{"alice", "bob", "carol"}
	for _, user := range users {
		w.move(w.register(user), team)
	}
	w.advance(2 * time.Minute)
	w.admit("alice", "runs", quota.Credit)
	for _, user := range users {
		w.wait(user, 5)
	}
	w.advance(time.Minute)
	w.drain(w.Service)
	if found := w.brokenOrder(""); len(found) > 0 {
		t.Fatal(found)
	}
	swap := w.swapped(team, 1)
	for name, tc := range map[string]struct {
		sql   string
		found bool
	}{
		"served twice": {swap, true},
		"did not wait": {`UPDATE concurrent_processing SET arrived_seq = admitted_seq WHERE id = (SELECT id
			FROM concurrent_processing WHERE user_id = (SELECT id FROM users WHERE user_id = 'bob')
			ORDER BY admitted_seq OFFSET 2 LIMIT 1)`, true},
		"parked":               {swap + `UPDATE concurrent_processing SET ever_parked = true`, false},
		"exempt":               {swap + `UPDATE concurrent_processing SET enforced = false`, false},
		"no slot of their own": {swap + `UPDATE concurrent_processing SET seen_concurrent = 1, seen_active = 0`, false},
		"weights": {swap + `UPDATE user_plan_limits SET weight = 2;
			UPDATE user_plan_limits SET weight = 1 WHERE name <> 'free'`, true},
		"weights that were others": {swap + `INSERT INTO audit_log (at, actor, action, object_kind, object_name,
			version) SELECT max(admitted_at) + interval '1 hour', '', 'plan.changed', 'UsagePlan', p.name, 2
			FROM concurrent_processing CROSS JOIN user_plan_limits AS p GROUP BY p.name`, false},
		"a change meanwhile": {swap + `INSERT INTO audit_log (at, actor, action, object_kind, object_name,
			version) SELECT max(admitted_at), '', 'team.changed', 'UsageTeam', 'another', 2
			FROM concurrent_processing`, false},
		"a change before": {swap + `INSERT INTO audit_log (at, actor, action, object_kind, object_name,
			version) SELECT min(created_at) - interval '1 second', '', 'team.changed', 'UsageTeam', 'another', 2
			FROM concurrent_processing`, true},
	} {
		if found := w.brokenOrder(tc.sql); len(found) > 0 != tc.found {
			t.Errorf("%s: found %v, want some: %t", name, found, tc.found)
		}
	}
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
		asked, err := s.Check(t.Context(), user, quota.Request{Estimate: quota.Credit}, 0)
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
