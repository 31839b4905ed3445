// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// gated is a real store whose batches each wait for a test before they begin.
type gated struct {
	storage
	begun chan begin
}

// begin is a batch that is about to begin, once pass is closed.
type begin struct {
	ledger.Keys

	pass chan struct{}
}

func (g *gated) Begin(ctx context.Context, keys ledger.Keys) (ledger.Batch, error) {
	b := begin{keys, make(chan struct{})}
	g.begun <- b
	<-b.pass
	return g.storage.Begin(ctx, keys)
}

// grouped is an engine whose batches a test sees and holds up, over a tree of teams.
type grouped struct {
	*teams

	gate   *gated
	engine *ledger.Engine
	ran    atomic.Int64
}

func newGrouped(t *testing.T) *grouped {
	t.Helper()
	w := newTeams(t)
	gate := &gated{storage: w.store, begun: make(chan begin, 16)}
	return &grouped{teams: w, gate: gate, engine: ledger.New(gate, ledger.Options{Lanes: 4})}
}

// call is an operation that notes when it ran: at the last of its runs, if it had several.
type call struct {
	*ledger.Call

	ran *int64
}

func (g *grouped) start(account quota.AccountID) call {
	g.t.Helper()
	ran := new(int64)
	apply := func(*ledger.Ledger, ledger.Batch) error {
		*ran = g.ran.Add(1)
		return nil
	}
	c, err := g.engine.Start(g.t.Context(), ledger.Op{Account: account, Apply: apply})
	if err != nil {
		g.t.Fatal(err)
	}
	return call{c, ran}
}

// next returns the next batch, which must be about these accounts.
func (g *grouped) next(want ...quota.AccountID) begin {
	g.t.Helper()
	var b begin
	select {
	case b = <-g.gate.begun:
	case <-g.t.Context().Done():
		g.t.Fatal("no batch began")
	}
	got := slices.SortedFunc(slices.Values(b.Accounts), compareAccounts)
	if slices.SortFunc(want, compareAccounts); !slices.Equal(got, want) {
		g.t.Fatalf("a batch about %v began, want %v", got, want)
	}
	return b
}

func (g *grouped) wait(calls ...call) {
	g.t.Helper()
	for _, c := range calls {
		if err := c.Wait(g.t.Context()); err != nil {
			g.t.Error(err)
		}
	}
	if !slices.IsSortedFunc(calls, func(a, b call) int { return int(*a.ran - *b.ran) }) {
		g.t.Error("the calls did not run in the order in which they came")
	}
}

// once runs one call of each account by itself, so that the engine knows who is above it.
func (g *grouped) once(accounts ...quota.AccountID) {
	g.t.Helper()
	for _, account := range accounts {
		c := g.start(account)
		close(g.next(account).pass)
		g.wait(c)
	}
	g.engine.Drain()
}

// The calls of those below one team meet in one batch after the other, and who is below none passes them.
func TestCallsMeetAtTheTop(t *testing.T) {
	t.Parallel()
	g := newGrouped(t)
	alice, bob, carol := g.register("alice"), g.register("bob"), g.register("carol")
	desk := g.team(8, "desk", nil, g.now(), "")
	root := g.team(9, "platform", nil, g.now(), "")
	g.move(desk, root)
	g.move(alice, desk)
	g.move(bob, root)
	g.once(alice, bob, carol)

	first := g.start(alice)
	b := g.next(alice)
	behind := []call{g.start(bob), g.start(alice), g.start(bob)}
	alone := g.start(carol)
	close(g.next(carol).pass) // alone in a batch, though there are lanes for those of the tree
	g.wait(alone)
	close(b.pass)
	g.wait(first)
	close(g.next(alice, bob).pass)
	g.wait(behind...)
}

// With a root everybody is below it: the first call of an account meets those of the others there, and those that wait
// for it elsewhere by then follow. Without one it is as before.
func TestCallsMeetAtTheRoot(t *testing.T) {
	t.Parallel()
	g := newGrouped(t)
	alice, bob, carol := g.register("alice"), g.register("bob"), g.register("carol")
	root := g.team(9, "platform", nil, g.now(), "is_root = true")

	first := g.start(alice)
	b := g.next(alice)
	calls := []call{g.start(alice)}
	close(b.pass)
	g.wait(first)
	b = g.next(alice) // by now it is known that there is a root
	calls = append(calls, g.start(bob), g.start(carol), g.start(bob))
	close(b.pass)
	close(g.next(bob, carol).pass)
	g.wait(calls...)
	g.engine.Drain()

	g.exec("UPDATE teams SET retired = true WHERE id = $1", [16]byte(root))
	g.once(alice)
	held := g.start(bob)
	b = g.next(bob)
	passes := g.start(carol)
	close(g.next(carol).pass)
	g.wait(passes)
	close(b.pass)
	g.wait(held)
}

// Who has been located below a team, or whose standing was read there, meets those of the team with the first call.
func TestCallsOfUsersThatWereReadMeetAtTheTop(t *testing.T) {
	t.Parallel()
	g := newGrouped(t)
	alice, bob := g.register("alice"), g.register("bob")
	desk, newsroom := g.team(8, "desk", nil, g.now(), ""), g.team(9, "newsroom", nil, g.now(), "")
	g.move(desk, newsroom)
	g.move(alice, desk)
	g.move(bob, newsroom)
	account, top, err := g.store.Locate(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	if top != newsroom {
		t.Errorf("alice is located below %s, want %s", top, newsroom)
	}
	g.engine.Place(account, top)
	service := metering.New(g.engine, g.store, access.NewSigner(g.store), metering.Options{})
	if _, err := service.Check(t.Context(), "bob", quota.Request{Estimate: quota.Credit}, 0); err != nil {
		t.Fatal(err)
	}
	first := g.start(alice)
	b := g.next(alice)
	behind := []call{g.start(bob), g.start(alice)}
	close(b.pass)
	g.wait(first)
	close(g.next(alice, bob).pass)
	g.wait(behind...)
}

// What waits goes over to another group when its account turns out to be below another top, in its order.
func TestCallsFollowTheirAccount(t *testing.T) {
	t.Parallel()
	g := newGrouped(t)
	alice, bob, carol := g.register("alice"), g.register("bob"), g.register("carol")
	team := g.team(9, "newsroom", nil, g.now(), "")
	g.move(bob, team)
	g.once(alice, bob)

	// Alice joins, which the engine does not know when it begins.
	g.move(alice, team)
	bobs := g.start(bob)
	held := g.next(bob)
	calls := []call{g.start(alice)}
	b := g.next(alice)
	calls = append(calls, g.start(alice), g.start(alice))
	close(b.pass)
	g.wait(calls[0])
	// They are behind bob's by now: a batch that could have had them begins without them.
	alone := g.start(carol)
	close(g.next(carol).pass)
	g.wait(alone)
	calls = append(calls, g.start(alice))
	close(held.pass)
	g.wait(bobs)
	close(g.next(alice).pass)
	g.wait(calls...)
	g.engine.Drain()

	// Alice leaves: what waits behind the batch that finds out does not wait for the team any more.
	g.move(alice, quota.AccountID{})
	calls = []call{g.start(alice)}
	b = g.next(alice)
	calls = append(calls, g.start(alice))
	bobs = g.start(bob)
	close(b.pass)
	close(g.next(alice, bob).pass)
	g.wait(calls...)
	g.wait(bobs)
	g.engine.Drain()
	bobs = g.start(bob)
	held = g.next(bob)
	calls = []call{g.start(alice)}
	close(g.next(alice).pass)
	g.wait(calls...)
	close(held.pass)
	g.wait(bobs)
}

// Users come and go below teams while their calls wait, over two engines: each user's calls run in their order all the
// same, and all are answered.
func TestCallsKeepTheirOrderWhileAccountsMove(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	users := []quota.AccountID{w.register("alice"), w.register("bob"), w.register("carol")}
	parents := []quota.AccountID{
		{}, w.team(8, "desk", nil, w.now(), ""), w.team(9, "newsroom", nil, w.now(), ""),
	}
	other := ledger.New(w.open(t), ledger.Options{Lanes: 2})
	g := &grouped{teams: w, engine: ledger.New(w.store, ledger.Options{Lanes: 4, MaxBatch: 5})}
	var clients sync.WaitGroup
	var stop atomic.Bool
	for _, user := range users {
		clients.Go(func() {
			var calls []call
			for range 60 {
				calls = append(calls, g.start(user))
				if len(calls)%7 == 0 {
					g.wait(calls...)
				}
			}
			g.wait(calls...)
		})
		clients.Go(func() {
			for !stop.Load() {
				err := other.Do(t.Context(), ledger.Op{Account: user, Apply: func(*ledger.Ledger, ledger.Batch) error {
					return nil
				}})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := range 24 {
		w.move(users[n%3], parents[(n/2)%3])
	}
	stop.Store(true)
	clients.Wait()
}

// Another process holds a team: whoever is below it waits, and nobody else does.
func TestEngineLetsBystandersPassABusyTeam(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	alice, bob, carol := w.register("alice"), w.register("bob"), w.register("carol")
	team := w.team(9, "newsroom", nil, w.now(), "")
	w.move(alice, team)
	w.move(bob, team)
	w.admit("bob", "known", quota.Credit)
	held, err := w.open(t).Begin(t.Context(), ledger.Keys{Accounts: []quota.AccountID{alice}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	for _, key := range []string{"a", "b"} {
		go func() {
			_, err := w.Admit(t.Context(), request("bob", key, quota.Credit))
			done <- err
		}()
	}
	for _, key := range []string{"a", "b", "c"} {
		w.admit("carol", key, quota.Credit)
	}
	engine := ledger.New(w.store, ledger.Options{})
	nothing := func(*ledger.Ledger, ledger.Batch) error { return nil }
	ops := []ledger.Op{
		{Account: bob, Apply: nothing}, {Account: carol, Apply: nothing}, {Account: team, Apply: nothing},
	}
	errs := engine.Together(ops, false)
	if !errors.Is(errs[0], ledger.ErrBusy) || errs[1] != nil || !errors.Is(errs[2], ledger.ErrBusy) {
		t.Errorf("%v, want the first and the last busy", errs)
	}
	select {
	case err := <-done:
		t.Fatalf("a call got past another transaction's lock of the team: %v", err)
	default:
	}
	waited := make(chan []error)
	go func() { waited <- engine.Together(ops, true) }()
	held.Rollback()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if errs := <-waited; errors.Join(errs...) != nil {
		t.Error(errs)
	}
	w.wantTeam(team, 0, quota.Credit, 1) // bob's plan has one slot, the others wait
}

// Operations on a tree, on its top itself, and on somebody beside it, in one transaction.
func TestTogetherOverATree(t *testing.T) {
	t.Parallel()
	g := newGrouped(t)
	alice, bob, carol := g.register("alice"), g.register("bob"), g.register("carol")
	team := g.team(9, "newsroom", new("pro"), g.now(), "")
	g.move(alice, team)
	g.move(bob, team)
	var ran []quota.AccountID
	var above int
	ops := make([]ledger.Op, 0, 4)
	for _, account := range []quota.AccountID{alice, team, carol, bob} {
		ops = append(ops, ledger.Op{Account: account, Apply: func(l *ledger.Ledger, _ ledger.Batch) error {
			ran = append(ran, l.Account.ID)
			if account == bob {
				return quota.Invalid("bob", "does not want to")
			}
			if l.Above[0] != nil {
				above++
			}
			return nil
		}})
	}
	answers := make(chan []error)
	go func() { answers <- g.engine.Together(ops, true) }()
	close(g.next(alice, bob, carol, team).pass)
	errs := <-answers
	if errs[0] != nil || errs[1] != nil || errs[2] != nil || !errors.Is(errs[3], quota.ErrInvalid) {
		t.Errorf("%v, want only the last one's own error", errs)
	}
	if want := []quota.AccountID{alice, team, carol, bob}; !slices.Equal(ran, want) || above != 1 {
		t.Errorf("%v ran, %d with somebody above; want %v, 1", ran, above, want)
	}
}

// An operation below a team that panics fails alone: the others of its team run without it.
func TestPanicBelowATeam(t *testing.T) {
	t.Parallel()
	g := newGrouped(t)
	alice, bob := g.register("alice"), g.register("bob")
	team := g.team(9, "newsroom", nil, g.now(), "")
	g.move(alice, team)
	g.move(bob, team)
	g.once(alice, bob)
	first := g.start(alice)
	held := g.next(alice)
	calls := []call{g.start(alice)}
	apply := func(l *ledger.Ledger, _ ledger.Batch) error {
		l.Above[0].Account.Active = 99
		panic("by the test")
	}
	bad, err := g.engine.Start(t.Context(), ledger.Op{Account: bob, Apply: apply})
	if err != nil {
		t.Fatal(err)
	}
	calls = append(calls, g.start(alice), g.start(bob))
	close(held.pass)
	g.wait(first)
	close(g.next(alice, bob).pass)
	close(g.next(alice, bob).pass)
	if err := bad.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "by the test") {
		t.Errorf("the call that panicked: %v", err)
	}
	g.wait(calls...)
	g.wantTeam(team, 0, 0, 0)
}

func compareAccounts(a, b quota.AccountID) int { return slices.Compare(a[:], b[:]) }
