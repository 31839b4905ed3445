// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/invariants"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// treeNode is a user or a team in the reference model of a tree: what the ledger must say of it, worked out the plain
// way in whole credits. It shares no code with the ledger.
type treeNode struct {
	level   quota.Level
	account quota.AccountID
	anchor  time.Time
	treeDeclared
	// used and held credits by the number of the period, and what of them this node pays.
	used, held, paid, owes map[int]int64
	active                 int64
}

// treeDeclared is what is declared of a node.
type treeDeclared struct {
	// member is the team that it is below by name, nil if it names none.
	member                   *treeNode
	root, retired, suspended bool
	// plan and slots are what its plan sells; -1 and 0 without one.
	plan, slots int64
	// cap, capSlots and capQueued are what it and all below it may take, each the same of each member; -1 for no bound.
	cap, capSlots, capQueued             int64
	memberCap, memberSlots, memberQueued int64
}

func (n *treeNode) period(now time.Time) int {
	no := 0
	for !now.Before(n.end(no)) {
		no++
	}
	return no
}

func (n *treeNode) end(no int) time.Time { return n.anchor.AddDate(0, no+1, 0) }

// parent returns whom a node is below: the team that it names, else the root that is not retired.
func (p *treePlay) parent(n *treeNode) *treeNode {
	if n.member != nil || n.root && !n.retired {
		return n.member
	}
	for _, root := range p.teams() {
		if root.root && !root.retired {
			return root
		}
	}
	return nil
}

// chain returns a node and those above it; five of them where they are too many or go in a circle.
func (p *treePlay) chain(n *treeNode) (all []*treeNode) {
	for ; n != nil && len(all) <= quota.MaxDepth; n = p.parent(n) {
		all = append(all, n)
	}
	return all
}

// memberBound returns what the nearest team of a user's chain says of a limit of its members, -1 if none does.
func memberBound(chain []*treeNode, of func(*treeNode) int64) int64 {
	for _, n := range chain[1:] {
		if most := of(n); most >= 0 {
			return most
		}
	}
	return -1
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
	nodes []*treeNode // the users, then the teams
	jobs  map[string]*treeJob
	order []string
}

// refusal is why work of a user may not run now apart from slots, empty if it may, and whose limit says so: suspension
// first, then credits, and of several the level that says no for longest.
func (p *treePlay) refusal(user *treeNode, estimate int64) (reason quota.Reason, level quota.Level) {
	now, chain := p.w.now(), p.chain(user)
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
		most := n.cap
		if n == user {
			most = memberBound(chain, func(n *treeNode) int64 { return n.memberCap })
		}
		say(n, most, n.used[no]+n.held[no])
	}
	return reason, level
}

// nearest is the nearest level that lets no more in: of a plan that pays or is a team's, of a cap, or of what members
// may take. Nil if all have room.
func (p *treePlay) nearest(user *treeNode, taken, sold, capped, member func(*treeNode) int64) *treeNode {
	chain := p.chain(user)
	for i, n := range chain {
		bounds := []int64{-1, capped(n)}
		if i == 0 {
			bounds[1] = memberBound(chain, member)
		}
		if n == payer(chain) || i > 0 && n.plan >= 0 {
			bounds[0] = sold(n)
		}
		for _, most := range bounds {
			if most >= 0 && taken(n) >= most {
				return n
			}
		}
	}
	return nil
}

// full is the nearest level without a free slot, nil if all have one.
func (p *treePlay) full(user *treeNode) *treeNode {
	return p.nearest(user, func(n *treeNode) int64 { return n.active }, func(n *treeNode) int64 { return n.slots },
		func(n *treeNode) int64 { return n.capSlots }, func(n *treeNode) int64 { return n.memberSlots })
}

// crowded is the nearest level where no more may wait, nil if there is room everywhere.
func (p *treePlay) crowded(user *treeNode) *treeNode {
	return p.nearest(user, p.queued, func(*treeNode) int64 { return 100 },
		func(n *treeNode) int64 { return n.capQueued }, func(n *treeNode) int64 { return n.memberQueued })
}

// queued counts what waits for the users that are below a node now, or for a user.
func (p *treePlay) queued(n *treeNode) (waits int64) {
	for _, j := range p.jobs {
		if j.state == string(quota.Queued) && slices.Contains(p.chain(j.user), n) {
			waits++
		}
	}
	return waits
}

func (p *treePlay) start(j *treeJob) {
	j.on, j.state = p.chain(j.user), string(quota.Admitted)
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

// TestTreeAgreesWithTheModel plays random operations on users in random trees against the reference model: users and
// teams move with what waits and runs, roots come and go, plans come and go, teams are retired, declared again,
// suspended, capped and bound their members, and the periods of all levels end on days of their own. It compares every
// decision, with the level that says it, and the balances of all levels. The invariants hold after each run, and of
// every tenth after each step.
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
		defer p.leave()
		p.begin(runs)
		for range rapid.IntRange(8, 20).Draw(rt, "operations") {
			p.step()
			p.settle()
			p.compare()
			if runs%10 == 1 { // it looks at everything, which takes its time
				p.holds()
			}
		}
		p.holds()
	})
}

const treeUsers, treeTeams = 3, 5

func (p *treePlay) users() []*treeNode { return p.nodes[:treeUsers] }
func (p *treePlay) teams() []*treeNode { return p.nodes[min(treeUsers, len(p.nodes)):] }

func (p *treePlay) node(kind quota.LevelKind, name string, anchor time.Time) *treeNode {
	n := &treeNode{level: quota.Level{Kind: kind, Name: name}, anchor: anchor, treeDeclared: treeDeclared{
		plan: -1, cap: -1, capSlots: -1, capQueued: -1, memberCap: -1, memberSlots: -1, memberQueued: -1,
	}, used: map[int]int64{}, held: map[int]int64{}, paid: map[int]int64{}, owes: map[int]int64{}}
	p.nodes = append(p.nodes, n)
	return n
}

func (p *treePlay) begin(run int) {
	now := p.w.now().Truncate(time.Microsecond)
	for i := range treeUsers {
		n := p.node(quota.LevelUser, fmt.Sprintf("user-%d-%d", run, i), now)
		n.account = p.w.register(n.level.Name)
		n.plan, n.slots = 30, 1 // of the plan free
	}
	for i := range treeTeams {
		anchor := now.AddDate(0, 0, -rapid.IntRange(0, now.Day()-1).Draw(p.T, "day"))
		n := p.node(quota.LevelTeam, fmt.Sprintf("team-%d-%d", run, i), anchor)
		d := n.treeDeclared
		p.limit(&d)
		d.root = rapid.IntRange(0, 3).Draw(p.T, "root") == 0
		if !d.root {
			d.member = p.anyTeam()
		}
		if !p.declare(n, d) {
			p.declareOrFail(n, treeDeclared{plan: -1, cap: -1, capSlots: -1, capQueued: -1, memberCap: -1,
				memberSlots: -1, memberQueued: -1})
		}
	}
	for _, n := range p.users() {
		p.join(n, p.anyTeam())
	}
}

// leave ends what is live and takes the tree apart, so that the next run has the database to itself.
func (p *treePlay) leave() {
	ctx := context.WithoutCancel(p.w.t.Context())
	for id, j := range p.jobs {
		if j.state != string(quota.Queued) && j.state != string(quota.Admitted) {
			continue
		}
		if _, err := p.w.Release(ctx, quota.ID{}, p.admissionOf(id)); err != nil {
			p.w.t.Error(err)
		}
	}
	for _, n := range p.teams() {
		if n.account == (quota.AccountID{}) {
			continue
		}
		d := n.treeDeclared
		d.root, d.member, d.retired = false, nil, false
		if _, err := p.w.ApplyTeam(ctx, n.declaration(d), "test"); err != nil {
			p.w.t.Error(err)
		}
	}
}

// anyTeam draws a team, or none.
func (p *treePlay) anyTeam() *treeNode {
	return rapid.SampledFrom(append([]*treeNode{nil}, p.teams()...)).Draw(p.T, "team")
}

// limit draws what a team caps, and what it says of its members: no more than that.
func (p *treePlay) limit(d *treeDeclared) {
	draw := func(what string, team, member *int64, of ...int64) {
		*team = rapid.SampledFrom(append(of, -1)).Draw(p.T, what)
		*member = rapid.SampledFrom(append(of, -1)).Draw(p.T, what+" of members")
		if *team >= 0 {
			*member = min(*member, *team)
		}
	}
	draw("cap", &d.cap, &d.memberCap, 10, 20, 35, 60)
	draw("slots", &d.capSlots, &d.memberSlots, 1, 2, 3)
	draw("queue", &d.capQueued, &d.memberQueued, 1, 2, 4)
}

func (n *treeNode) declaration(d treeDeclared) metering.Team {
	team := metering.Team{
		Team: quota.Team{Name: n.level.Name}, ObjectUID: quota.NameID("team", quota.ID{}, n.level.Name),
		Root: d.root, Suspended: d.suspended, Anchor: n.anchor, Zone: "UTC",
	}
	if d.member != nil {
		team.Parent = d.member.level.Name
	}
	if d.plan >= 0 {
		team.PlanName = "pro"
	}
	bound := func(to **quota.Limit[int32], most int64) {
		if most >= 0 {
			*to = new(quota.AtMost(int32(most)))
		}
	}
	for to, most := range map[**quota.Limit[quota.Credits]]int64{
		&team.Caps.Credits: d.cap, &team.MemberDefaults.Credits: d.memberCap,
	} {
		if most >= 0 {
			*to = new(quota.AtMost(quota.WholeCredits(most)))
		}
	}
	bound(&team.Caps.Concurrent, d.capSlots)
	bound(&team.Caps.Queued, d.capQueued)
	bound(&team.MemberDefaults.Concurrent, d.memberSlots)
	bound(&team.MemberDefaults.Queued, d.memberQueued)
	if d.plan < 0 && !d.root && team.Caps == (quota.Caps{}) && team.MemberDefaults == (quota.Caps{}) {
		bound(&team.Caps.Queued, 1000) // it has to say something
	}
	return team
}

// problem says what is wrong with the tree that a declaration would make, empty if nothing is.
func (p *treePlay) problem(n *treeNode, d treeDeclared) metering.TeamProblem {
	was := n.treeDeclared
	n.treeDeclared = d
	defer func() { n.treeDeclared = was }()
	if d.member != nil && d.member.retired && d.member != was.member && d.member != n {
		return metering.TeamIsRetired
	}
	roots := 0
	for _, o := range p.teams() {
		if o.root && !o.retired && (o.account != (quota.AccountID{}) || o == n) {
			roots++
		}
	}
	if roots > 1 && d.root {
		return metering.TeamSecondRoot
	}
	for up := p.parent(n); up != nil; up = p.parent(up) {
		if up == n {
			return metering.TeamCycle
		}
	}
	for _, o := range p.teams() {
		if len(p.chain(o)) > quota.MaxDepth-1 {
			return metering.TeamTooDeep
		}
	}
	return ""
}

// declare declares a team, and reports whether that could be: what could not has changed nothing.
func (p *treePlay) declare(n *treeNode, d treeDeclared) bool {
	d.retired = false
	want := p.problem(n, d)
	status, err := p.w.ApplyTeam(p.w.t.Context(), n.declaration(d), "test")
	var got metering.TeamProblem
	if problem, ok := errors.AsType[*metering.TeamError](err); ok {
		got = problem.Problem
	} else if err != nil {
		p.Fatal(err)
	}
	if got != want {
		p.Fatalf("%s declared as %+v: problem %q, want %q", n.level, d, got, want)
	}
	if want != "" {
		return false
	}
	n.account, n.treeDeclared = status.Account, d
	return true
}

func (p *treePlay) declareOrFail(n *treeNode, d treeDeclared) {
	if !p.declare(n, d) {
		p.Fatalf("%s cannot be", n.level)
	}
}

// join has a user be in another team, or in none. The first user has a UserQuota that says so, the others are told over
// HTTP, where one leaves a team before the next one.
func (p *treePlay) join(user, team *treeNode) {
	ctx, w, name := p.w.t.Context(), p.w, user.level.Name
	closed := team != nil && team.retired && team != user.member
	var err error
	if user == p.nodes[0] {
		q := metering.Quota{ObjectUID: quota.NameID("quota", quota.ID{}, name), ObjectName: name, UserID: name,
			PlanName: "free", Anchor: user.anchor, Zone: "UTC"}
		if team != nil {
			q.TeamName = team.level.Name
		}
		err = w.ApplyQuota(ctx, q, "test")
	} else {
		if user.member != nil && user.member != team {
			if err := w.RemoveMember(ctx, user.member.level.Name, name, tester); err != nil {
				p.Fatal(err)
			}
			user.member = nil
			p.settle() // whoever is in no team for a moment may start what waits
		}
		if team != nil {
			err = w.AddMember(ctx, team.level.Name, name, tester)
		}
	}
	problem, ok := errors.AsType[*metering.TeamError](err)
	if closed != (ok && problem.Problem == metering.TeamIsRetired) {
		p.Fatalf("%s joins %v, which is retired: %t: %v", name, team, closed, err)
	}
	if err == nil {
		user.member = team
	}
}

func (p *treePlay) step() {
	w := p.w
	what := rapid.SampledFrom([]string{
		"admit", "admit", "admit", "complete", "complete", "release", "join", "suspend", "limit", "plan", "days",
		"move", "root", "retire", "declare",
	}).Draw(p.T, "operation")
	user := p.nodes[rapid.IntRange(0, treeUsers-1).Draw(p.T, "user")]
	team := p.teams()[rapid.IntRange(0, treeTeams-1).Draw(p.T, "team")]
	d := team.treeDeclared
	switch what {
	case "admit":
		p.admit(user)
	case "complete", "release":
		if len(p.order) == 0 {
			return
		}
		id := rapid.SampledFrom(p.order).Draw(p.T, "job")
		p.end(id, what, int64(rapid.IntRange(0, 30).Draw(p.T, "actual")))
	case "join":
		p.join(user, p.anyTeam())
	case "move":
		d.root, d.member = false, p.anyTeam()
		p.declare(team, d)
	case "root":
		d.root, d.member = !d.root, nil
		p.declare(team, d)
	case "suspend":
		d.suspended = !d.suspended
		p.declare(team, d)
	case "limit":
		p.limit(&d)
		p.declare(team, d)
	case "plan":
		if d.plan, d.slots = -1, 0; rapid.Bool().Draw(p.T, "pays") {
			d.plan, d.slots = 500, 5 // of the plan pro
		}
		p.declare(team, d)
	case "retire":
		if err := w.RetireTeam(w.t.Context(), team.level.Name, quota.ClusterUID{}, "test"); err != nil {
			p.Fatal(err)
		}
		team.retired = true
	case "declare":
		p.declare(team, d)
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
	case (full != nil || p.waits(user) > 0) && p.crowded(user) != nil:
		want = fmt.Sprint(quota.QueueFull, " of ", p.crowded(user).level)
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
			if p.jobs[id].state != string(quota.Queued) {
				continue
			}
			if _, err := p.w.Heartbeat(p.w.t.Context(), quota.ID{}, p.admissionOf(id)); err != nil {
				p.Fatal(err)
			}
			changed = p.takeOver() || changed
		}
	}
	for _, user := range p.users() {
		if p.waits(user) > 0 && p.full(user) == nil {
			p.Fatalf("work of %s waits, and nothing keeps it", user.level)
		}
	}
}

// takeOver starts what the ledger has started, and reports whether there was such a thing.
func (p *treePlay) takeOver() (started bool) {
	var waits []quota.ID
	for _, id := range p.order {
		if p.jobs[id].state == string(quota.Queued) {
			waits = append(waits, p.admissionOf(id))
		}
	}
	rows, err := p.w.db.Query(p.w.t.Context(),
		"SELECT id, state FROM concurrent_processing WHERE id = ANY ($1) AND state <> 'Queued'", waits)
	if err != nil {
		p.Fatal(err)
	}
	now := map[quota.ID]string{}
	var id quota.ID
	var state string
	if _, err := pgx.ForEachRow(rows, []any{&id, &state}, func() error {
		now[id] = state
		return nil
	}); err != nil {
		p.Fatal(err)
	}
	for _, id := range p.order {
		state, left := now[p.admissionOf(id)]
		if !left {
			continue
		}
		j := p.jobs[id]
		if reason, level := p.refusal(j.user, j.estimate); reason != "" || p.full(j.user) != nil {
			p.Fatalf("%s is %s, in spite of %s of %s, full: %v", id, state, reason, level, p.full(j.user))
		}
		p.start(j)
	}
	return len(now) > 0
}

// compare holds the balances of all levels, in each of their periods, against the model.
func (p *treePlay) compare() {
	for _, n := range p.nodes {
		rows, err := p.w.db.Query(p.w.t.Context(), `SELECT period_no, used / 60000, reserved / 60000, active, queued
			FROM usage_quotas WHERE user_id = $1
			UNION ALL SELECT period_no, used / 60000, reserved / 60000, 0, 0 FROM usage_periods WHERE user_id = $1`,
			[16]byte(n.account))
		if err != nil {
			p.Fatal(err)
		}
		used, held, active, queued := map[int]int64{}, map[int]int64{}, int64(0), int64(0)
		for rows.Next() {
			var no int
			var u, h, a, q int64
			if err := rows.Scan(&no, &u, &h, &a, &q); err != nil {
				p.Fatal(err)
			}
			used[no], held[no], active, queued = u, h, active+a, queued+q
		}
		if err := rows.Err(); err != nil {
			p.Fatal(err)
		}
		for _, m := range []map[int]int64{used, held, n.used, n.held} {
			maps.DeleteFunc(m, func(_ int, credits int64) bool { return credits == 0 })
		}
		if !maps.Equal(used, n.used) || !maps.Equal(held, n.held) || active != n.active || queued != p.queued(n) {
			p.Fatalf("%s: used %v reserved %v active %d queued %d, want %v %v %d %d", n.level, used, held, active,
				queued, n.used, n.held, n.active, p.queued(n))
		}
	}
}

// holds checks the invariants of the whole ledger.
func (p *treePlay) holds() {
	found, err := invariants.Check(p.w.t.Context(), p.w.db)
	if err != nil {
		p.Fatal(err)
	}
	for _, v := range found {
		p.Error(v)
	}
}
