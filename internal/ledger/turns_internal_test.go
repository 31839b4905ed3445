// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// grove is a tree of ledgers as a batch has them, without a database. Users are named by letters.
type grove struct {
	t       *testing.T
	now     time.Time
	ledgers map[quota.AccountID]*Ledger
	jobs    byte
	// running are a user's admissions that have started.
	running map[*Ledger][]*Admission
}

func newGrove(t *testing.T) *grove {
	t.Helper()
	return &grove{t: t, now: time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC),
		ledgers: map[quota.AccountID]*Ledger{}, running: map[*Ledger][]*Admission{}}
}

func (g *grove) add(a *quota.Account, above *Ledger) *Ledger {
	l := &Ledger{Account: a, Around: g.ledgers, Now: g.now, Admissions: map[quota.AdmissionID]*Admission{},
		Closed: map[int64]*quota.ClosedPeriod{}}
	for i := 0; above != nil; i, above = i+1, above.Above[0] {
		l.Above[i] = above
	}
	g.ledgers[a.ID] = l
	return l
}

func (g *grove) team(name string, slots, weight int32, above *Ledger) *Ledger {
	a := quota.Open(quota.AccountID{name[0]}, "", quota.CapOnly("USD"), g.now)
	a.Team = &quota.Team{Name: name, Weight: weight, Caps: quota.Caps{Concurrent: new(quota.AtMost(slots))}}
	return g.add(a, above)
}

func (g *grove) user(name string, slots, weight int32, above *Ledger) *Ledger {
	plan := *quota.CapOnly("USD")
	plan.Name, plan.Weight, plan.Limits.Concurrent = "plan", weight, quota.AtMost(slots)
	return g.add(quota.Open(quota.AccountID{name[0]}, name, &plan, g.now), above)
}

// ask asks for work of a user n times, as an operation would after the turns have begun.
func (g *grove) ask(l *Ledger, n int) (last quota.Decision) {
	g.t.Helper()
	for range n {
		g.jobs++
		adm := &Admission{UserID: l.Account.UserID, Admission: quota.Admission{ID: quota.AdmissionID{g.jobs},
			Source: quota.SourceAPI, Enforced: true, Lease: time.Minute,
			Request: quota.Request{Estimate: quota.Credit, Queue: true}}}
		if last = l.Chain().Enter(&adm.Admission, g.now); last.Outcome == quota.Refuse {
			g.t.Fatalf("%s: %s", l.Account.UserID, last.Message())
		}
		l.Add(adm)
		if adm.State == quota.Admitted {
			g.running[l] = append(g.running[l], adm)
		}
	}
	return last
}

// started takes note of who has started, in order: "abc".
func (g *grove) started(changes []Change) string {
	var order strings.Builder
	for _, c := range changes {
		for _, l := range g.ledgers {
			if adm := l.Admissions[c.ID]; adm != nil && adm.State == quota.Admitted {
				order.WriteString(l.Account.UserID)
				g.running[l] = append(g.running[l], adm)
			}
		}
	}
	return order.String()
}

// end ends the first that runs of a user, in a batch of its own, and returns who starts by that.
func (g *grove) end(l *Ledger) string {
	g.t.Helper()
	if len(g.running[l]) == 0 {
		g.t.Fatalf("nothing of %s runs", l.Account.UserID)
	}
	adm := g.running[l][0]
	g.running[l] = g.running[l][1:]
	t := newTurns(g.ledgers)
	order := g.started(t.begin(nil))
	c, err := l.ChainOf(adm)
	if err == nil {
		err = c.End(&adm.Admission, quota.Released, "", c.Closed, g.now)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	order += g.started(t.after(l, adm.ID, nil))
	t.store()
	return order
}

// drain ends what runs until nothing does, one after another, and returns who started.
func (g *grove) drain(most int) string {
	g.t.Helper()
	var order strings.Builder
	for range most {
		i := slices.IndexFunc(slices.Collect(g.each), func(l *Ledger) bool { return len(g.running[l]) > 0 })
		if i < 0 {
			break
		}
		order.WriteString(g.end(slices.Collect(g.each)[i]))
	}
	return order.String()
}

// each goes through the ledgers in the order of their ids.
func (g *grove) each(yield func(*Ledger) bool) {
	for id := range 256 {
		if l := g.ledgers[quota.AccountID{byte(id)}]; l != nil && !yield(l) {
			return
		}
	}
}

// batch is one in which nothing happens but what has to.
func (g *grove) batch() (*turns, string) {
	t := newTurns(g.ledgers)
	order := g.started(t.begin(nil))
	t.store()
	return t, order
}

// Of equals each has its turn, of others as many as their weights say, at each level.
func TestTurnsAreServedInOrder(t *testing.T) {
	g := newGrove(t)
	team := g.team("T", 1, 1, nil)
	a, b, c := g.user("a", 9, 1, team), g.user("b", 9, 2, team), g.user("c", 9, 1, team)
	g.ask(a, 1)
	g.ask(a, 2)
	g.ask(b, 4)
	g.ask(c, 2)
	if _, order := g.batch(); order != "" {
		t.Errorf("%s started without a slot", order)
	}
	if got := g.drain(8); got != "abcbabcb" {
		t.Errorf("served %s", got)
	}

	g = newGrove(t)
	root := g.team("R", 1, 1, nil)
	heavy, light := g.team("H", 9, 3, root), g.team("L", 9, 1, root)
	a, b, c = g.user("a", 9, 1, heavy), g.user("b", 9, 1, heavy), g.user("c", 9, 1, light)
	g.ask(c, 1)
	for _, l := range []*Ledger{a, b, c} {
		g.ask(l, 3)
	}
	g.batch()
	if got := g.drain(8); strings.Count(got[:4], "c") != 1 || strings.Count(got, "c") != 2 ||
		strings.ReplaceAll(got, "c", "") != "ababab" {
		t.Errorf("served %s, want three of a and b for each of c", got)
	}
}

// Who is at a limit of its own, a user or a team, is passed over and holds up nobody.
func TestTurnsPassOverWhoIsFull(t *testing.T) {
	g := newGrove(t)
	root := g.team("R", 3, 1, nil)
	small := g.team("S", 1, 1, root)
	a, b, c := g.user("a", 1, 1, root), g.user("b", 9, 1, small), g.user("c", 9, 1, root)
	for _, l := range []*Ledger{a, b, c} {
		g.ask(l, 1)
	}
	for _, l := range []*Ledger{a, b, c} {
		g.ask(l, 2)
	}
	g.batch()
	if a.Turn.Runnable || b.Turn.Runnable == small.Turn.Runnable || !c.Turn.Runnable {
		t.Errorf("could run: a %t, b %t, its team %t, c %t", a.Turn.Runnable, b.Turn.Runnable, small.Turn.Runnable,
			c.Turn.Runnable)
	}
	if got := g.end(c); got != "c" {
		t.Errorf("%q started, want c", got)
	}
	if got := g.end(a); got != "a" {
		t.Errorf("%q started, want a: it has room again, and was idle", got)
	}
	if got := g.end(b); got != "b" {
		t.Errorf("%q started, want b", got)
	}
}

// Whoever comes back has one turn before the others have another, and no more for having been away.
func TestTurnsGiveNoCreditForIdleness(t *testing.T) {
	g := newGrove(t)
	team := g.team("T", 1, 1, nil)
	a, b, c := g.user("a", 9, 1, team), g.user("b", 9, 1, team), g.user("c", 9, 1, team)
	g.ask(a, 1)
	g.ask(a, 9)
	g.ask(b, 9)
	g.batch()
	if got := g.drain(8); got != "abababab" {
		t.Fatalf("served %s", got)
	}
	g.ask(c, 4)
	g.batch()
	if got := g.drain(9); got != "acbacbacb" && got != "cabcabcab" {
		t.Errorf("served %s", got)
	}
}

// Where others could run whoever comes waits behind them, though a slot is free, whether they are of the batch or not;
// and a batch serves up to the first that it does not have.
func TestTurnsStopAtOthers(t *testing.T) {
	g := newGrove(t)
	team := g.team("T", 2, 1, nil)
	a := g.user("a", 9, 1, team)
	g.ask(a, 1)
	other := func(start int64) {
		team.Below = []*quota.Waiting{Outside(quota.AccountID{'x'},
			quota.Turn{Start: quota.Virtual{Units: start}}, 1)}
	}
	other(0)
	g.batch()
	d := g.ask(a, 1)
	if want := (quota.Level{Kind: quota.LevelTeam, Name: "T"}); d.Reason != quota.NotFirst || d.Level != want {
		t.Errorf("%+v, want it to be told of %v", d, want)
	}
	turns, order := g.batch()
	if order != "" {
		t.Errorf("%s started before another one", order)
	}
	left := turns.left()
	if len(left) != 1 || !left[0].now || left[0].top != team.Account.ID ||
		!slices.Equal(left[0].accounts, []quota.AccountID{{'x'}}) {
		t.Errorf("left %+v, want x, for whom a slot is free", left)
	}
	// The other one comes later: the one of the batch goes first, and leaves no slot.
	other(1 << 40)
	if _, order = g.batch(); order != "a" {
		t.Errorf("%q started, want a", order)
	}
	other(1 << 40)
	turns, _ = g.batch()
	if left = turns.left(); len(left) != 1 || left[0].now || !slices.Equal(left[0].accounts, []quota.AccountID{{'x'}}) {
		t.Errorf("left %+v, want x, for whom none is", left)
	}
	// What waits for nothing more is left to nobody.
	team.Below = nil
	turns, _ = g.batch()
	if left = turns.left(); len(left) > 0 {
		t.Errorf("left %+v", left)
	}
}

// Who is next comes along as far as there is room, or a page of them where nothing is free: not those below a team that
// is suspended, which no slot helps.
func TestTurnsTellWhoIsNext(t *testing.T) {
	g := newGrove(t)
	root := g.team("R", 3, 1, nil)
	small, shut := g.team("S", 2, 1, root), g.team("U", 9, 1, root)
	outside := func(names string) (all []*quota.Waiting) {
		for i := range names {
			all = append(all, Outside(quota.AccountID{names[i]}, quota.Turn{Start: quota.Virtual{Units: int64(i)}}, 1))
		}
		return all
	}
	shut.Account.Suspended = true
	next := func(free bool) string {
		root.Below, small.Below, shut.Below = outside("defghijklmnopqrstu"), outside("xyz"), outside("vw")
		turns, _ := g.batch()
		left := turns.left()
		if len(left) != 1 || left[0].now != free {
			t.Fatalf("left %+v, want a slot to be free: %t", left, free)
		}
		var names strings.Builder
		for _, id := range left[0].accounts {
			names.WriteByte(id[0])
		}
		return names.String()
	}
	if got := next(true); len(got) != 3 || strings.ContainsAny(got, "vw") {
		t.Errorf("next are %q, want as many as there are slots", got)
	}
	root.Account.Active = 3
	if got := next(false); len(got) != NextPage || !strings.Contains(got, "x") || strings.ContainsAny(got, "vw") {
		t.Errorf("next are %q, want a page", got)
	}
	// A team that is full of itself is not next where something is free, and may be where nothing is.
	root.Account.Active, small.Account.Active = 2, 2
	if got := next(true); got != "d" {
		t.Errorf("next are %q, want d", got)
	}
}

// A team that has got more has those below it looked at page by page; if it has got more again in the meantime, once
// more. A slot that became free where the order was not known has the account looked at.
func TestWalksGoOn(t *testing.T) {
	g := newGrove(t)
	team := g.team("T", 1, 1, nil)
	a := g.user("a", 9, 1, team)
	g.ask(a, 2)
	g.batch()
	team.remember()
	if ops := team.walkOn(false); len(ops) > 0 {
		t.Fatalf("%d operations, though the team has got nothing", len(ops))
	}
	ops := team.walkOn(true)
	if len(ops) != 1 || ops[0].Walk == nil || ops[0].Walk.Team != team.Account.ID || ops[0].Walk.After != (quota.ID{}) {
		t.Fatalf("%+v, want a walk from the beginning", ops)
	}
	page := make([]Seen, WalkPage)
	for i := range page {
		page[i] = Seen{Account: quota.AccountID{byte(i + 1)}, Helped: true}
	}
	page[WalkPage-1].More = true
	team.Walked(*ops[0].Walk, page)
	ops = team.walkOn(false)
	last := page[WalkPage-1].Account
	if n := len(ops); n != WalkPage+1 || !ops[0].Recheck || ops[n-1].Walk.After != last || ops[n-1].Walk.Again {
		t.Fatalf("%d operations, want those of a page and the walk's next", n)
	}
	w := *ops[WalkPage].Walk
	if ops = team.walkOn(true); !ops[WalkPage].Walk.Again {
		t.Error("the walk forgets that the team has got more again")
	}
	w.Again = true
	team.Walked(w, page[:3])
	if ops = team.walkOn(false); len(ops) != 4 || ops[3].Walk.After != (quota.ID{}) || ops[3].Walk.Again {
		t.Errorf("%d operations, want those of the last page and a walk from the beginning", len(ops))
	}
	w.Again = false
	team.Walked(w, page[:3])
	if ops = team.walkOn(false); len(ops) != 3 {
		t.Errorf("%d operations, want those of the last page", len(ops))
	}
	// Much that it goes past is not what it looks for, or the last of it is.
	for _, helped := range []bool{false, true} {
		team.Walked(w, []Seen{page[0], {Account: last, Helped: helped, More: true}})
		ops = team.walkOn(false)
		if n := len(ops); n != 2 && !helped || n != 3 && helped || ops[n-1].Walk.After != last {
			t.Errorf("%d operations, want the walk to go on", n)
		}
	}
	team.walk, team.Cut = nil, true
	team.Account.Active--
	if ops = team.walkOn(false); len(ops) != 1 || ops[0].Account != team.Account.ID || ops[0].Walk != nil {
		t.Errorf("%+v, want the team to be looked at", ops)
	}

	var keys Keys
	keys.walk(nil)
	keys.walk(&Walk{Team: quota.ID{1}, After: quota.ID{5}, Credits: 7})
	keys.walk(&Walk{Team: quota.ID{2}})
	keys.walk(&Walk{Team: quota.ID{1}, After: quota.ID{3}, Credits: 9})
	want := []Walk{{Team: quota.ID{1}, After: quota.ID{5}, Credits: 9, Again: true}, {Team: quota.ID{2}}}
	if !slices.Equal(keys.Walks, want) {
		t.Errorf("walks %+v, want %+v", keys.Walks, want)
	}
}

// What is there only for what was booked on it, and what cannot be read, has no turn and gives none.
func TestTurnsLeaveOutWhatIsNotKnown(t *testing.T) {
	g := newGrove(t)
	team := g.team("T", 1, 1, nil)
	a, b := g.user("a", 9, 1, team), g.user("b", 9, 1, team)
	g.ask(a, 1)
	g.ask(a, 1)
	g.ask(b, 1)
	a.Unreadable = &UnreadableError{UserID: "a"}
	g.batch()
	if a.Turn.Runnable || !b.Turn.Runnable {
		t.Errorf("could run: a %t, b %t", a.Turn.Runnable, b.Turn.Runnable)
	}
	a.Unreadable, b.Cut = nil, true
	if turns, _ := g.batch(); turns.nodes[b.Account.ID] != nil || !a.Turn.Runnable {
		t.Error("a cut ledger has a turn")
	}
}
