// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// treeNode is a user or a team in the reference model of a tree: what the ledger must say of it, worked out the plain
// way in whole credits. It shares no code with the ledger.
type treeNode struct {
	level     quota.Level
	account   quota.AccountID
	parent    *treeNode
	anchor    time.Time
	suspended bool
	// plan and slots are what its plan sells, and cap and capSlots what it may take in all; -1 for none.
	plan, slots, cap, capSlots int64
	// used and held credits by the number of the period, and what of them this node pays.
	used, held, paid, owes map[int]int64
	active                 int64
}

func (n *treeNode) period(now time.Time) int {
	no := 0
	for !now.Before(n.end(no)) {
		no++
	}
	return no
}

func (n *treeNode) end(no int) time.Time { return n.anchor.AddDate(0, no+1, 0) }

func (n *treeNode) chain() (all []*treeNode) {
	for ; n != nil; n = n.parent {
		all = append(all, n)
	}
	return all
}

// payer is the nearest above the user that has a plan, else the user.
func payer(chain []*treeNode) *treeNode {
	for _, n := range chain[1:] {
		if n.plan >= 0 {
			return n
		}
	}
	return chain[0]
}

type treeJob struct {
	user     *treeNode
	state    string
	estimate int64
	// on are the nodes that it is booked on, with the numbers of their periods.
	on      []*treeNode
	periods []int
	payer   *treeNode
}

type treePlay struct {
	*rapid.T
	w     *teams
	nodes []*treeNode // three users, then the teams
	jobs  map[string]*treeJob
	order []string
}

// refusal is why work of a user may not run now apart from slots, empty if it may, and whose limit says so: suspension
// first, then credits, and of several the level that says no for longest.
func (p *treePlay) refusal(user *treeNode, estimate int64) (reason quota.Reason, level quota.Level) {
	now, chain := p.w.now(), user.chain()
	for _, n := range chain {
		if n.suspended {
			return quota.UserSuspended, n.level
		}
	}
	var until time.Time // zero: for ever
	say := func(n *treeNode, limit, taken int64) {
		if limit < 0 || taken+estimate <= limit {
			return
		}
		end := n.end(n.period(now))
		if estimate > limit {
			end = time.Time{}
		}
		if reason == "" || !until.IsZero() && (end.IsZero() || end.After(until)) {
			reason, level, until = quota.CreditsExhausted, n.level, end
		}
	}
	for _, n := range chain {
		no := n.period(now)
		if n == payer(chain) {
			say(n, n.plan, n.paid[no]+n.owes[no])
		}
		say(n, n.cap, n.used[no]+n.held[no])
	}
	return reason, level
}

// full is the nearest level without a free slot, nil if all have one.
func (p *treePlay) full(user *treeNode) *treeNode {
	chain := user.chain()
	for _, n := range chain {
		if n == payer(chain) && n.active >= n.slots || n.capSlots >= 0 && n.active >= n.capSlots {
			return n
		}
	}
	return nil
}

func (p *treePlay) start(j *treeJob) {
	j.on, j.state = j.user.chain(), string(quota.Admitted)
	j.payer, j.periods = payer(j.on), nil
	for _, n := range j.on {
		no := n.period(p.w.now())
		j.periods = append(j.periods, no)
		n.held[no] += j.estimate
		n.active++
		if n == j.payer {
			n.owes[no] += j.estimate
		}
	}
}

// finish gives back what a job holds, and charges actual at each level: in the level's own period of the job unless
// that has been over for long, then in the open one.
func (p *treePlay) finish(j *treeJob, to quota.State, actual int64) {
	for i, n := range j.on {
		no := j.periods[i]
		n.held[no] -= j.estimate
		n.active--
		if n == j.payer {
			n.owes[no] -= j.estimate
		}
		if open := n.period(p.w.now()); no < open && !p.w.now().Before(n.end(no).Add(quota.FinalAfter)) {
			no = open
		}
		n.used[no] += actual
		if n == j.payer {
			n.paid[no] += actual
		}
	}
	j.state = string(to)
}

// TestTreeAgreesWithTheModel plays random operations on users in teams against the reference model: users and teams
// move, plans come and go, teams are suspended and capped, and the periods of all levels end on days of their own. It
// compares every decision, with the level that says it, and the balances of all levels.
func TestTreeAgreesWithTheModel(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		for w.now().Day() > 27 { // an anchor that every month has
			w.advance(24 * time.Hour)
		}
		p := &treePlay{T: rt, w: w, jobs: map[string]*treeJob{}}
		p.begin(runs)
		for range rapid.IntRange(15, 40).Draw(rt, "operations") {
			p.step()
			p.settle()
			p.compare()
		}
	})
}

func (p *treePlay) node(kind quota.LevelKind, name string, anchor time.Time) *treeNode {
	n := &treeNode{level: quota.Level{Kind: kind, Name: name}, anchor: anchor, plan: -1, cap: -1, capSlots: -1,
		used: map[int]int64{}, held: map[int]int64{}, paid: map[int]int64{}, owes: map[int]int64{}}
	p.nodes = append(p.nodes, n)
	return n
}

func (p *treePlay) begin(run int) {
	now := p.w.now().Truncate(time.Microsecond)
	for i := range 3 {
		n := p.node(quota.LevelUser, fmt.Sprintf("user-%d-%d", run, i), now)
		n.account = p.w.register(n.level.Name)
		n.plan, n.slots = 30, 1 // of the plan free
	}
	for i := range 3 {
		anchor := now.AddDate(0, 0, -rapid.IntRange(0, now.Day()-1).Draw(p.T, "day"))
		n := p.node(quota.LevelTeam, fmt.Sprintf("team-%d-%d", run, i), anchor)
		n.account = quota.NameID("team", quota.ID{}, n.level.Name)
		p.w.exec("INSERT INTO teams (id, name, cap_currency) VALUES ($1, $2, 'USD')", [16]byte(n.account), n.level.Name)
		p.w.exec(`INSERT INTO usage_quotas (user_id, anchor_at, period_start, period_end, last_decided_at, currency)
			VALUES ($1, $2, $2, $3, $4, 'USD')`, [16]byte(n.account), anchor, n.end(0), now)
		p.limit(n)
	}
	// The third team is above the others.
	for _, n := range p.nodes[3:5] {
		n.parent = p.nodes[5]
		p.w.move(n.account, n.parent.account)
	}
	for _, n := range p.nodes[:3] {
		n.parent = p.nodes[rapid.IntRange(3, 5).Draw(p.T, "team")]
		p.w.move(n.account, n.parent.account)
	}
}

// limit draws what a team caps.
func (p *treePlay) limit(n *treeNode) {
	n.cap = rapid.SampledFrom([]int64{-1, 10, 20, 35, 60}).Draw(p.T, "cap")
	n.capSlots = rapid.SampledFrom([]int64{-1, 1, 2, 3}).Draw(p.T, "slots")
	p.w.exec("UPDATE teams SET credits_cap = nullif($2, -1) * 60000, concurrent_cap = nullif($3, -1) WHERE id = $1",
		[16]byte(n.account), n.cap, n.capSlots)
}

func (p *treePlay) step() {
	w := p.w
	what := rapid.SampledFrom([]string{
		"admit", "admit", "admit", "complete", "complete", "release", "move", "suspend", "limit", "plan", "days",
	}).Draw(p.T, "operation")
	user, team := p.nodes[rapid.IntRange(0, 2).Draw(p.T, "user")], p.nodes[rapid.IntRange(3, 5).Draw(p.T, "team")]
	switch what {
	case "admit":
		p.admit(user)
	case "complete", "release":
		if len(p.order) == 0 {
			return
		}
		id := rapid.SampledFrom(p.order).Draw(p.T, "job")
		p.end(id, what, int64(rapid.IntRange(0, 30).Draw(p.T, "actual")))
	case "move":
		user.parent = rapid.SampledFrom([]*treeNode{nil, p.nodes[3], p.nodes[4], p.nodes[5]}).Draw(p.T, "parent")
		to := quota.AccountID{}
		if user.parent != nil {
			to = user.parent.account
		}
		w.move(user.account, to)
	case "suspend":
		team.suspended = !team.suspended
		w.exec("UPDATE usage_quotas SET suspended = $2 WHERE user_id = $1", [16]byte(team.account), team.suspended)
	case "limit":
		p.limit(team)
	case "plan":
		var plan *string
		if team.plan, team.slots = -1, 0; rapid.Bool().Draw(p.T, "pays") {
			team.plan, team.slots, plan = 500, 5, new("pro")
		}
		w.exec("UPDATE usage_quotas SET plan_name = $2 WHERE user_id = $1", [16]byte(team.account), plan)
	case "days":
		w.advance(time.Duration(rapid.SampledFrom([]int{30, 100, 400, 760}).Draw(p.T, "hours")) * time.Hour)
	}
}

func (p *treePlay) admit(user *treeNode) {
	p.settle()
	id, estimate := fmt.Sprint("job-", len(p.order)), int64(rapid.IntRange(1, 40).Draw(p.T, "estimate"))
	want := string(quota.Admitted)
	reason, level := p.refusal(user, estimate)
	full := p.full(user)
	switch {
	case reason != "":
		want = fmt.Sprint(reason, " of ", level)
	case full != nil:
		want = fmt.Sprint(quota.Queued, " for ", full.level)
	case p.waits(user) > 0:
		want = fmt.Sprint(quota.Queued, " for ", user.level)
	}
	res, err := p.w.Admit(p.w.t.Context(), request(user.level.Name, id, quota.Credits(estimate)*quota.Credit))
	if err != nil {
		p.Fatal(err)
	}
	d := res.Decision
	got := fmt.Sprint(d.Reason, " of ", d.Level)
	if res.Admission != nil {
		got = string(res.Admission.State)
		if res.Admission.State == quota.Queued {
			got = fmt.Sprint(quota.Queued, " for ", d.Level)
		}
		j := &treeJob{user: user, estimate: estimate, state: string(quota.Queued)}
		p.jobs[id], p.order = j, append(p.order, id)
		if res.Admission.State == quota.Admitted {
			p.start(j)
		}
	}
	if got != want {
		p.Fatalf("%d credits of %s: %s, want %s", estimate, user.level, got, want)
	}
}

// waits counts what of a user waits for slots and nothing else.
func (p *treePlay) waits(user *treeNode) (n int64) {
	for _, j := range p.jobs {
		if j.user == user && j.state == string(quota.Queued) {
			if reason, _ := p.refusal(user, j.estimate); reason == "" {
				n++
			}
		}
	}
	return n
}

func (p *treePlay) admissionOf(id string) quota.ID {
	return quota.NameID("admission", p.jobs[id].user.account, id)
}

func (p *treePlay) end(id, what string, actual int64) {
	p.settle()
	j, w := p.jobs[id], p.w
	var adm *ledger.Admission
	var err error
	want := j.state
	switch {
	case what == "complete" && j.state == string(quota.Admitted):
		p.finish(j, quota.Settled, actual)
		want = j.state
	case what == "complete" && j.state != string(quota.Settled):
		want = conflict
	case what == "release" && j.state == string(quota.Settled):
		want = conflict
	case what == "release" && j.state == string(quota.Admitted):
		p.finish(j, quota.Released, 0)
		want = j.state
	case what == "release" && j.state == string(quota.Queued):
		j.state = string(quota.Cancelled)
		want = j.state
	case what == "complete":
		return // it has been settled with another use, most likely
	}
	if what == "complete" {
		adm, err = w.Complete(w.t.Context(), quota.ID{}, p.admissionOf(id), quota.Credits(actual)*quota.Credit)
	} else {
		adm, err = w.Release(w.t.Context(), quota.ID{}, p.admissionOf(id))
	}
	if got := answer(adm, err); got != want {
		p.Fatalf("%s of %s: %s, want %s", what, id, got, want)
	}
}

// settle has every user's queue looked at until nothing changes, and takes over what has started meanwhile: whatever
// the order among users, nothing may have started that had no room, and nothing may be left that has it.
func (p *treePlay) settle() {
	for changed := true; changed; {
		changed = false
		for _, id := range p.order {
			j := p.jobs[id]
			if j.state != string(quota.Queued) {
				continue
			}
			if _, err := p.w.Heartbeat(p.w.t.Context(), quota.ID{}, p.admissionOf(id)); err != nil {
				p.Fatal(err)
			}
			for _, other := range p.order {
				changed = p.takeOver(other) || changed
			}
		}
	}
	for _, user := range p.nodes[:3] {
		if p.waits(user) > 0 && p.full(user) == nil {
			p.Fatalf("work of %s waits, and nothing keeps it", user.level)
		}
	}
}

// takeOver starts a job that the ledger has started, and reports whether it has.
func (p *treePlay) takeOver(id string) bool {
	j := p.jobs[id]
	if j.state != string(quota.Queued) {
		return false
	}
	adm, err := p.w.Get(p.w.t.Context(), p.admissionOf(id))
	if err != nil {
		p.Fatal(err)
	}
	if adm.State == quota.Queued {
		return false
	}
	if reason, level := p.refusal(j.user, j.estimate); reason != "" || p.full(j.user) != nil {
		p.Fatalf("%s is %s, in spite of %s of %s, full: %v", id, adm.State, reason, level, p.full(j.user))
	}
	p.start(j)
	return true
}

// compare holds the balances of all levels, in each of their periods, against the model.
func (p *treePlay) compare() {
	for _, n := range p.nodes {
		rows, err := p.w.db.Query(p.w.t.Context(), `SELECT period_no, used / 60000, reserved / 60000, active
			FROM usage_quotas WHERE user_id = $1
			UNION ALL SELECT period_no, used / 60000, reserved / 60000, 0 FROM usage_periods WHERE user_id = $1`,
			[16]byte(n.account))
		if err != nil {
			p.Fatal(err)
		}
		used, held, active := map[int]int64{}, map[int]int64{}, int64(0)
		for rows.Next() {
			var no int
			var u, h, a int64
			if err := rows.Scan(&no, &u, &h, &a); err != nil {
				p.Fatal(err)
			}
			used[no], held[no], active = u, h, active+a
		}
		if err := rows.Err(); err != nil {
			p.Fatal(err)
		}
		for _, m := range []map[int]int64{used, held, n.used, n.held} {
			maps.DeleteFunc(m, func(_ int, credits int64) bool { return credits == 0 })
		}
		if !maps.Equal(used, n.used) || !maps.Equal(held, n.held) || active != n.active {
			p.Fatalf("%s: used %v reserved %v active %d, want %v %v %d", n.level, used, held, active, n.used, n.held,
				n.active)
		}
	}
}
