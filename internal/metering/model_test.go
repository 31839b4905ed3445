// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// model is the reference: what the ledger must say of one user, worked out the plain way. It knows whole credits, a
// plan without overage and carry-over, months of one zone, and grants that never end. It shares no code with the
// ledger.
type model struct {
	now       time.Time
	anchor    time.Time
	planLimit int64
	override  *int64
	slots     int
	// maxWait is 0 for none.
	maxWait   time.Duration
	suspended bool
	grants    map[string]*parcel
	// periods[open] is the open one; those before it have closed.
	periods []*period
	jobs    map[string]*job
	// order is that of arrival.
	order []string
}

type parcel struct{ credits, used, held int64 }

type period struct {
	end                       time.Time
	used, reserved            int64
	planUsed, planHeld, limit int64
}

type job struct {
	state    string
	estimate int64
	actual   int64
	period   int
	plan     int64
	grants   map[string]int64
	parked   bool
	// since is when it began to wait, and overdue that it was refused for having waited too long.
	since   time.Time
	overdue bool
}

func (m *model) limit() int64 {
	if m.override != nil {
		return *m.override
	}
	return m.planLimit
}

func (m *model) open() *period { return m.periods[len(m.periods)-1] }

// month returns the end of period n.
func (m *model) month(n int) time.Time { return m.anchor.AddDate(0, n+1, 0) }

// touch closes what has ended, refuses what has waited for too long and starts what may start, as everything that
// touches an account does.
func (m *model) touch() {
	for !m.now.Before(m.open().end) {
		m.open().limit = m.limit()
		m.periods = append(m.periods, &period{end: m.month(len(m.periods))})
	}
	for _, id := range m.order {
		j := m.jobs[id]
		if j.state != "Queued" {
			continue
		}
		if m.maxWait > 0 && m.now.After(j.since.Add(m.maxWait)) {
			j.state, j.parked, j.overdue = "Cancelled", false, true
			continue
		}
		j.parked = m.suspended || j.estimate > m.remaining()
		if !j.parked && m.running() < m.slots {
			m.start(j)
		}
	}
}

func (m *model) running() int { return m.count(func(j *job) bool { return j.state == "Admitted" }) }

func (m *model) count(is func(*job) bool) int {
	n := 0
	for _, j := range m.jobs {
		if is(j) {
			n++
		}
	}
	return n
}

func (m *model) remaining() int64 {
	sum := max(0, m.limit()-m.open().planUsed-m.open().planHeld)
	for _, g := range m.grants {
		sum += max(0, g.credits-g.used-g.held)
	}
	return sum
}

// split says what plan and grants pay: the plan while it lasts, then the grants by name, and the plan what nobody can.
func (m *model) split(amount, plan int64) (int64, map[string]int64) {
	own := min(amount, max(0, plan))
	amount -= own
	shares := map[string]int64{}
	for _, name := range slices.Sorted(maps.Keys(m.grants)) {
		g := m.grants[name]
		if part := min(amount, max(0, g.credits-g.used-g.held)); part > 0 {
			shares[name] = part
			amount -= part
		}
	}
	return own + amount, shares
}

func (m *model) start(j *job) {
	p := m.open()
	j.state, j.parked, j.period = "Admitted", false, len(m.periods)-1
	j.plan, j.grants = m.split(j.estimate, m.limit()-p.planUsed-p.planHeld)
	p.reserved += j.estimate
	p.planHeld += j.plan
	for name, part := range j.grants {
		m.grants[name].held += part
	}
}

func (m *model) giveBack(j *job) {
	p := m.periods[j.period]
	p.reserved -= j.estimate
	p.planHeld -= j.plan
	for name, part := range j.grants {
		m.grants[name].held -= part
	}
}

func (m *model) admit(id string, estimate int64) string {
	if j := m.jobs[id]; j != nil {
		return j.state
	}
	if m.suspended || estimate > m.remaining() {
		return "refused"
	}
	j := &job{estimate: estimate, state: "Queued", since: m.now}
	m.jobs[id], m.order = j, append(m.order, id)
	inFront := m.count(func(o *job) bool { return o != j && o.state == "Queued" && !o.parked })
	if m.running() < m.slots && inFront == 0 {
		m.start(j)
	}
	return j.state
}

func (m *model) complete(id string, actual int64) string {
	j := m.jobs[id]
	switch {
	case j.state == "Settled" && j.actual == actual:
		return j.state
	case j.state != "Admitted" && j.state != "Expired":
		return "conflict"
	}
	held, shares := j.plan, j.grants
	if j.state == "Admitted" {
		m.giveBack(j)
	} else {
		held, shares = 0, nil
	}
	j.state, j.actual = "Settled", actual
	at := m.periods[j.period]
	final := at != m.open() && !m.now.Before(at.end.Add(quota.FinalAfter))
	left := actual
	pay := func(plan int64, parts map[string]int64) {
		at.planUsed += plan
		at.used += plan
		for name, part := range parts {
			m.grants[name].used += part
			at.used += part
		}
	}
	// First what it held, the plan before the grants, then as new work would.
	own, parts := min(left, held), map[string]int64{}
	left -= own
	for _, name := range slices.Sorted(maps.Keys(shares)) {
		parts[name] = min(left, shares[name])
		left -= parts[name]
	}
	if final {
		left += own
		own, at = 0, m.open()
	}
	pay(own, parts)
	limit := m.limit()
	if at != m.open() {
		limit = at.limit
	}
	pay(m.split(left, limit-at.planUsed-at.planHeld))
	return j.state
}

func (m *model) end(id, to string) string {
	j := m.jobs[id]
	switch j.state {
	case "Settled":
		return "conflict"
	case "Queued":
		j.state = "Cancelled"
	case "Admitted":
		m.giveBack(j)
		j.state = to
	}
	return j.state
}

// requeue puts a job that has not begun behind the others.
func (m *model) requeue(id string) string {
	j := m.jobs[id]
	switch j.state {
	case "Queued":
	case "Admitted":
		m.giveBack(j)
		j.state, j.since = "Queued", m.now
		m.order = append(slices.DeleteFunc(m.order, func(o string) bool { return o == id }), id)
	default:
		return "conflict"
	}
	return j.state
}

func (m *model) String() string {
	p, left := m.open(), int64(0)
	if m.now.Before(p.end) {
		left = m.remaining()
	}
	states := []string{}
	for _, id := range m.order {
		state := m.jobs[id].state
		if m.jobs[id].overdue {
			state += string(quota.WaitedTooLong)
		}
		states = append(states, id+"="+state)
	}
	return fmt.Sprintf("period %d: used %d reserved %d remaining %d, active %d queued %d parked %d, %s",
		len(m.periods)-1, p.used, p.reserved,
		left, m.running(), m.count(func(j *job) bool { return j.state == "Queued" }),
		m.count(func(j *job) bool { return j.state == "Queued" && j.parked }), strings.Join(states, " "))
}

// TestLedgerAgreesWithTheModel plays random sequences of operations against the reference model, and compares every
// answer and the user's whole standing after each. Each sequence has a user and a plan of its own in one database.
func TestLedgerAgreesWithTheModel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		s := &sequence{T: rt, w: w, user: fmt.Sprintf("user-%d", runs), plan: fmt.Sprintf("plan-%d", runs)}
		s.begin(int64(rapid.IntRange(0, 40).Draw(rt, "credits")), rapid.IntRange(1, 3).Draw(rt, "slots"), maxWait(rt))
		for range rapid.IntRange(5, 30).Draw(rt, "operations") {
			s.step()
		}
	})
}

type sequence struct {
	*rapid.T
	w          *world
	user, plan string
	m          *model
	uid        quota.ID
	gifts      map[string]metering.Grant
}

// maxWait draws a plan's longest wait, often none. The leases of what waits here last for 2 minutes.
func maxWait(t *rapid.T) time.Duration {
	return rapid.SampledFrom([]time.Duration{0, 0, time.Minute, time.Hour, 100 * time.Hour}).Draw(t, "longest wait")
}

func (s *sequence) begin(credits int64, slots int, maxWait time.Duration) {
	now := s.w.now().Truncate(time.Microsecond)
	s.uid = quota.NameID("test", quota.ID{}, s.user)
	s.m = &model{now: now, anchor: now, planLimit: credits, slots: slots, maxWait: maxWait,
		grants: map[string]*parcel{}, jobs: map[string]*job{}}
	s.m.periods = []*period{{end: s.m.month(0)}}
	s.gifts = map[string]metering.Grant{}
	s.applyPlan()
	s.applyQuota()
	s.compare("begin", "", "")
}

func (s *sequence) applyPlan() {
	p := plans.Free()
	p.Name, p.Default, p.ObjectUID = s.plan, false, quota.NameID("test", quota.ID{}, s.plan)
	p.Limits.Credits = quota.AtMost(quota.Credits(s.m.planLimit) * quota.Credit)
	p.Limits.Concurrent = quota.AtMost(int32(s.m.slots))
	p.DailyCostCeiling.Unlimited = true
	p.MaxWait = s.m.maxWait
	// The model knows no money: that it is kept by currency is what the check of the invariants holds.
	p.Currency = rapid.SampledFrom([]string{"USD", "EUR", "JPY"}).Draw(s.T, "currency")
	if _, err := s.w.ApplyPlan(s.w.t.Context(), p, "test"); err != nil {
		s.Fatal(err)
	}
}

func (s *sequence) applyQuota() {
	q := metering.Quota{
		ObjectUID: s.uid, ObjectName: s.user, UserID: s.user, PlanName: s.plan, Anchor: s.m.anchor, Zone: "UTC",
		Suspended: s.m.suspended, Grants: s.gifts,
	}
	if s.m.override != nil {
		q.Overrides.Credits = new(quota.AtMost(quota.Credits(*s.m.override) * quota.Credit))
	}
	if err := s.w.ApplyQuota(s.w.t.Context(), q, "test"); err != nil {
		s.Fatal(err)
	}
}

func (s *sequence) advance(d time.Duration) {
	s.w.advance(d)
	s.m.now = s.m.now.Add(d)
}

// id draws one of the jobs that there are.
func (s *sequence) id() string { return rapid.SampledFrom(s.m.order).Draw(s.T, "job") }

func (s *sequence) admissionOf(id string) quota.ID {
	return quota.NameID("admission", s.w.register(s.user), id)
}

// step does one thing to both, and compares.
func (s *sequence) step() {
	what := rapid.SampledFrom([]string{
		"admit", "admit", "admit", "again", "heartbeat", "complete", "complete", "complete again", "release",
		"requeue", "expire",
		"plan", "override", "suspend", "grant", "days", "month",
	}).Draw(s.T, "operation")
	if len(s.m.order) == 0 && slices.Contains(
		[]string{"again", "heartbeat", "complete", "complete again", "release", "requeue", "expire"}, what) {
		what = "admit"
	}
	ctx, m := s.w.t.Context(), s.m
	switch what {
	case "admit":
		id := fmt.Sprintf("job-%d", len(m.order))
		estimate := int64(rapid.IntRange(1, 25).Draw(s.T, "estimate"))
		s.admit(what, id, estimate)
	case "again":
		id := s.id()
		s.admit(what, id, m.jobs[id].estimate)
	case "heartbeat":
		id := s.id()
		m.touch()
		want := m.jobs[id].state
		if want != "Queued" && want != "Admitted" {
			want = "conflict"
		}
		adm, err := s.w.Heartbeat(ctx, quota.ID{}, s.admissionOf(id))
		s.compare(what, want, answer(adm, err))
	case "complete", "complete again":
		id := s.id()
		actual := int64(rapid.IntRange(0, 40).Draw(s.T, "actual"))
		if what == "complete again" {
			actual = m.jobs[id].actual
		}
		m.touch()
		want := m.complete(id, actual)
		m.touch()
		adm, err := s.w.Complete(ctx, quota.ID{}, s.admissionOf(id), quota.Credits(actual)*quota.Credit)
		s.compare(what, want, answer(adm, err))
	case "release":
		id := s.id()
		m.touch()
		want := m.end(id, "Released")
		m.touch()
		adm, err := s.w.Release(ctx, quota.ID{}, s.admissionOf(id))
		s.compare(what, want, answer(adm, err))
	case "requeue":
		id := s.id()
		before, err := s.w.Get(ctx, s.admissionOf(id))
		if err != nil {
			s.Fatal(err)
		}
		ran := m.jobs[id].state == "Admitted"
		m.touch()
		want := m.jobs[id].state
		if ran || want != "Admitted" { // one that has started only now has not been asked about
			want = m.requeue(id)
		}
		m.touch()
		if want != "conflict" {
			want = m.jobs[id].state
		}
		adm, err := s.w.Requeue(ctx, s.admissionOf(id), before.AdmittedSeq)
		got := answer(adm, err)
		if err == nil {
			// It may have started again by the time the batch is over.
			if adm, err = s.w.Get(ctx, s.admissionOf(id)); err != nil {
				s.Fatal(err)
			}
			got = string(adm.State)
		}
		s.compare(what, want, got)
	case "expire":
		s.expire(s.id())
	case "plan":
		m.planLimit, m.slots = int64(rapid.IntRange(0, 40).Draw(s.T, "credits")),
			rapid.IntRange(1, 3).Draw(s.T, "slots")
		m.maxWait = maxWait(s.T)
		s.applyPlan()
		if m.count(func(j *job) bool { return j.state == "Queued" }) > 0 {
			m.touch()
		}
		s.compare(what, "", "")
	case "days", "month":
		s.advance(map[string]time.Duration{"days": 80 * time.Hour, "month": 31 * 24 * time.Hour}[what])
		s.compare(what, "", "")
	default:
		s.declare(what)
	}
}

func (s *sequence) admit(what, id string, estimate int64) {
	s.m.touch()
	want := s.m.admit(id, estimate)
	s.m.touch()
	res, err := s.w.Admit(s.w.t.Context(), request(s.user, id, quota.Credits(estimate)*quota.Credit))
	got := answer(res.Admission, err)
	if err == nil && res.Admission == nil {
		got = "refused"
	}
	s.compare(what, want, got)
}

// expire lets one lease lapse, and renews all the others.
func (s *sequence) expire(id string) {
	s.advance(quota.DefaultLease + time.Second)
	j := s.m.jobs[id]
	was := j.state
	s.m.touch()
	for _, other := range s.m.order {
		if o := s.m.jobs[other]; other != id && (o.state == "Queued" || o.state == "Admitted") {
			if _, err := s.w.Heartbeat(s.w.t.Context(), quota.ID{}, s.admissionOf(other)); err != nil {
				s.Fatalf("heartbeat of %s: %v", other, err)
			}
		}
	}
	// One that the end of a period has let start only now has begun its lease anew.
	if j.state == was && (was == "Queued" || was == "Admitted") {
		s.m.end(id, "Expired")
		s.m.touch()
	}
	s.w.reap()
	s.compare("expire", "", "")
}

// declare changes what the user's UserQuota says. The change comes after the touch, and another touch behind it.
func (s *sequence) declare(what string) {
	m := s.m
	m.touch()
	switch what {
	case "override":
		m.override = nil
		if credits := rapid.IntRange(-1, 40).Draw(s.T, "override"); credits >= 0 {
			m.override = new(int64(credits))
		}
	case "suspend":
		m.suspended = !m.suspended
	case "grant":
		name, credits := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(s.T, "name"),
			rapid.IntRange(1, 20).Draw(s.T, "gift")
		s.gifts[name] = metering.Grant{Credits: quota.Credits(credits) * quota.Credit}
		if m.grants[name] == nil {
			m.grants[name] = &parcel{credits: int64(credits)}
		}
	}
	m.touch()
	s.applyQuota()
	s.compare(what, "", "")
}

func answer(adm *ledger.Admission, err error) string {
	switch {
	case errors.Is(err, quota.ErrConflict):
		return conflict
	case err != nil:
		return err.Error()
	case adm == nil:
		return ""
	}
	return string(adm.State)
}

// compare holds the answer and the user's standing against the model's. Reading closes periods only for the reader.
func (s *sequence) compare(what, want, got string) {
	if want != got {
		s.Fatalf("%s: want %s, got %s\nmodel: %s", what, want, got, s.m)
	}
	u, err := s.w.Current(s.w.t.Context(), s.user)
	if err != nil {
		s.Fatal(err)
	}
	seen := *s.m
	seen.periods = slices.Clone(s.m.periods)
	for !seen.now.Before(seen.open().end) {
		seen.periods = append(seen.periods, &period{end: seen.month(len(seen.periods))})
	}
	states := []string{}
	for _, id := range s.m.order {
		adm, err := s.w.Get(s.w.t.Context(), s.admissionOf(id))
		if err != nil {
			s.Fatal(err)
		}
		state := string(adm.State)
		if adm.Reason == quota.WaitedTooLong {
			state += string(adm.Reason)
		}
		states = append(states, id+"="+state)
	}
	a := u.Account
	ledger := fmt.Sprintf("period %d: used %s reserved %s remaining %s, active %d queued %d parked %d, %s", a.PeriodNo,
		a.Used, a.Reserved,
		a.Remaining(u.Now).Max, a.Active, a.Queued, a.Parked, strings.Join(states, " "))
	if ledger != seen.String() {
		s.Fatalf("after %s:\nmodel:  %s\nledger: %s", what, &seen, ledger)
	}
}
