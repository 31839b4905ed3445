// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// most is how many jobs may run at once below each node of the tree of these histories: the root, two teams, and users.
var most = map[string]int{"platform": 4, "desk": 3, "newsroom": 2}

// forest is what the model knows of all users below one root: who is in which team, what runs and on which teams it is
// booked, what waits in each user's order, what ended, and which teams are suspended. Who of several users is next is
// not its business, only that no limit is exceeded at any instant and that nobody is forgotten who is first and has
// room. So what waits starts in the model when somebody is told that it has, at the latest: until then it may or may
// not have. Only before a user moves, or a team is suspended, what may have started has to be guessed. It is a value,
// so every change makes another one.
type forest struct {
	team      map[string]string
	running   map[quota.ID][]string
	waiting   map[string][]quota.ID
	ended     map[quota.ID]quota.State
	suspended map[string]bool
}

func (f forest) clone() forest {
	waiting := make(map[string][]quota.ID, len(f.waiting))
	for user, ids := range f.waiting {
		waiting[user] = slices.Clone(ids)
	}
	return forest{
		team: maps.Clone(f.team), running: maps.Clone(f.running), waiting: waiting, ended: maps.Clone(f.ended),
		suspended: maps.Clone(f.suspended),
	}
}

// chain of a user, the root last.
func (f forest) chain(user string) []string { return []string{user, f.team[user], "platform"} }

func (f forest) state(user string, id quota.ID) quota.State {
	switch {
	case f.running[id] != nil:
		return quota.Admitted
	case slices.Contains(f.waiting[user], id):
		return quota.Queued
	}
	return f.ended[id]
}

func (f forest) held(user string) bool {
	return slices.ContainsFunc(f.chain(user), func(node string) bool { return f.suspended[node] })
}

func (f forest) room(user string) bool {
	for _, node := range f.chain(user) {
		n, limit := 0, most[node]
		if limit == 0 {
			limit = slots
		}
		for _, on := range f.running {
			if slices.Contains(on, node) {
				n++
			}
		}
		if n >= limit {
			return false
		}
	}
	return !f.held(user)
}

// startFirst lets the first that waits of a user start, and reports whether it may. The forest is changed.
func (f forest) startFirst(user string) bool {
	if len(f.waiting[user]) == 0 || !f.room(user) {
		return false
	}
	f.running[f.waiting[user][0]] = f.chain(user)
	f.waiting[user] = f.waiting[user][1:]
	return true
}

// startUpTo lets an admission that waits start, and those of its user in front of it.
func (f forest) startUpTo(user string, id quota.ID) (forest, bool) {
	f = f.clone()
	for f.running[id] == nil {
		if !f.startFirst(user) {
			return f, false
		}
	}
	return f, true
}

// guesses are all forests in which some of what waits of these users has started, but nothing that had no room.
func (f forest) guesses(users []string) []forest {
	all := []forest{f}
	for _, user := range users {
		for _, from := range all {
			for next := from.clone(); next.startFirst(user); next = next.clone() {
				all = append(all, next)
			}
		}
	}
	return all
}

// leave takes an admission out of its slots or its place.
func (f forest) leave(user string, id quota.ID, to quota.State) forest {
	f = f.clone()
	delete(f.running, id)
	f.waiting[user] = slices.DeleteFunc(f.waiting[user], func(other quota.ID) bool { return other == id })
	f.ended[id] = to
	return f
}

// do returns the forests that a deed may lead to if it was answered so; none if it cannot have been.
func (f forest) do(d deed, answer string) []forest {
	switch d.what {
	case "move":
		user, team, _ := strings.Cut(d.user, ">")
		var all []forest
		for _, from := range f.guesses([]string{user}) {
			from = from.clone()
			from.team[user] = team
			all = append(all, from)
		}
		return all
	case "suspend", "resume":
		var below, held []forest
		below = []forest{f}
		if d.what == "suspend" {
			var members []string
			for _, user := range slices.Sorted(maps.Keys(f.team)) {
				if slices.Contains(f.chain(user), d.user) {
					members = append(members, user)
				}
			}
			below = f.guesses(members)
		}
		for _, from := range below {
			from = from.clone()
			from.suspended[d.user] = d.what == "suspend"
			held = append(held, from)
		}
		return held
	}
	next, ok := f.one(d, answer)
	if !ok {
		return nil
	}
	return []forest{next}
}

// one is do for what is done to one admission.
func (f forest) one(d deed, answer string) (forest, bool) {
	was, told := f.state(d.user, d.id), quota.State(answer)
	live := was == quota.Queued || was == quota.Admitted
	if was == quota.Queued && (told == quota.Admitted || told == quota.Settled || told == quota.Released ||
		told == quota.Expired) {
		// It had started by then.
		var may bool
		if f, may = f.startUpTo(d.user, d.id); !may {
			return f, false
		}
		was = quota.Admitted
	}
	switch {
	case d.what == "admit" && was == "":
		f = f.clone()
		first := len(f.waiting[d.user]) == 0
		switch {
		case answer == refused:
			return f, f.held(d.user)
		case told == quota.Admitted:
			// Those of the user that wait in the model must have started before.
			for len(f.waiting[d.user]) > 0 {
				if !f.startFirst(d.user) {
					return f, false
				}
			}
			may := f.room(d.user)
			f.running[d.id] = f.chain(d.user)
			return f, may
		case told == quota.Queued:
			// Whoever has room waits only behind others, of its own or below a team that it is in.
			others := 0
			for _, ids := range f.waiting {
				others += len(ids)
			}
			alone := first && others == 0 && f.room(d.user)
			f.waiting[d.user] = append(f.waiting[d.user], d.id)
			return f, !alone && !f.held(d.user)
		}
		return f, false
	case d.what == "complete" && was == quota.Admitted:
		return f.leave(d.user, d.id, quota.Settled), told == quota.Settled
	case d.what == "complete" && was == quota.Expired:
		return f.leave(d.user, d.id, quota.Settled), told == quota.Settled
	case d.what == "complete" && was != quota.Settled:
		return f, answer == conflict
	case d.what == "release" && was == quota.Settled:
		return f, answer == conflict
	case d.what == "release" && live:
		to := quota.Released
		if was == quota.Queued {
			to = quota.Cancelled
		}
		return f.leave(d.user, d.id, to), told == to
	case d.what == "expire" && live:
		to := quota.Expired
		if was == quota.Queued {
			to = quota.Cancelled
		}
		return f.leave(d.user, d.id, to), told == to
	}
	return f, answer == string(was)
}

// refused is the answer to an admit below a suspended team.
const refused = "refused"

func (f forest) String() string {
	var b strings.Builder
	for _, user := range slices.Sorted(maps.Keys(f.team)) {
		fmt.Fprintf(&b, "%s in %s: %x; ", user, f.team[user], f.waiting[user])
	}
	for _, id := range slices.SortedFunc(maps.Keys(f.running), compareIDs) {
		fmt.Fprintf(&b, "%x on %v; ", id[:3], f.running[id])
	}
	for _, id := range slices.SortedFunc(maps.Keys(f.ended), compareIDs) {
		fmt.Fprintf(&b, "%x %s; ", id[:3], f.ended[id])
	}
	return b.String() + fmt.Sprint(f.suspended)
}

// treeModel has one state for all users: they meet at the root.
func treeModel(team map[string]string) porcupine.Model {
	model := porcupine.NondeterministicModel{
		Init: func() []any {
			return []any{forest{
				team: team, running: map[quota.ID][]string{}, waiting: map[string][]quota.ID{},
				ended: map[quota.ID]quota.State{}, suspended: map[string]bool{"desk": false},
			}}
		},
		Step: func(state, input, output any) []any {
			var all []any
			for _, next := range state.(forest).do(input.(deed), output.(string)) {
				all = append(all, next)
			}
			return all
		},
		Equal: func(x, y any) bool { return x.(forest).String() == y.(forest).String() },
	}
	return model.ToModel()
}

// TestTreeHistoriesAreLinearizable plays the clients of users in two teams below one root against three replicas, while
// users change their team and a team is suspended and resumed, and asks whether their answers could have come from one
// tree that does one thing after the other and never lets more run than each of its levels may.
func TestTreeHistoriesAreLinearizable(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	play := &treeHistory{
		history: &history{world: w.world, began: time.Now(), known: map[string][]quota.ID{}}, teams: w,
		accounts: map[string]quota.AccountID{},
	}
	for range 3 {
		play.replicas = append(play.replicas, newService(w.open(t), metering.Options{}))
	}
	root := w.team(1, "platform", nil, w.now(), fmt.Sprint("concurrent_cap = ", most["platform"]))
	play.accounts["desk"] = w.team(2, "desk", nil, w.now(), fmt.Sprint("concurrent_cap = ", most["desk"]))
	play.accounts["newsroom"] = w.team(3, "newsroom", nil, w.now(), fmt.Sprint("concurrent_cap = ", most["newsroom"]))
	w.move(play.accounts["desk"], root)
	w.move(play.accounts["newsroom"], root)
	team := map[string]string{"alice": "desk", "bob": "desk", "carol": "newsroom"}
	users := slices.Sorted(maps.Keys(team))
	for i, user := range users {
		w.quota(metering.Quota{
			ObjectUID: quota.ID{byte(i + 1)}, ObjectName: user, UserID: user, PlanName: "pro", Zone: "UTC",
			Overrides: quota.Overrides{Concurrent: new(quota.AtMost(int32(slots)))},
		})
		w.move(w.register(user), play.accounts[team[user]])
	}
	var clients sync.WaitGroup
	for client := range 5 {
		clients.Go(func() { play.client(client, users[client%len(users)]) })
	}
	clients.Wait()
	// The desk is suspended behind the engine's back: what it could run says so from its next batch on.
	look := func(*ledger.Ledger, ledger.Batch) error { return nil }
	if err := ledger.New(w.store, ledger.Options{}).Do(t.Context(),
		ledger.Op{Account: play.accounts["desk"], Apply: look}); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		return
	}
	result, _ := porcupine.CheckOperationsVerbose(treeModel(team), play.ops, time.Minute)
	if result != porcupine.Ok {
		t.Errorf("%d operations: %s\n%s", len(play.ops), result, play)
	}
	if !slices.ContainsFunc(play.ops, func(op porcupine.Operation) bool { return op.Output == string(quota.Queued) }) {
		t.Error("nothing waited: the history shows nothing about that")
	}
}

// treeHistory is a history of users in teams.
type treeHistory struct {
	*history

	teams    *teams
	accounts map[string]quota.AccountID
}

// disturb moves a user, or suspends or resumes a team.
func (h *treeHistory) disturb(n int, random *rand.Rand) {
	d := deed{user: "desk", what: []string{"suspend", "resume"}[n/2%2]}
	call := time.Since(h.began)
	if n%2 == 0 {
		h.teams.exec("UPDATE usage_quotas SET suspended = $2 WHERE user_id = $1", [16]byte(h.accounts[d.user]),
			d.what == "suspend")
	} else {
		user, team := []string{"alice", "bob", "carol"}[random.IntN(3)], []string{"desk", "newsroom"}[random.IntN(2)]
		d = deed{user: user + ">" + team, what: "move"}
		h.teams.move(h.register(user), h.accounts[team])
	}
	h.record(-1, d, "", call, time.Since(h.began))
}

func (h *treeHistory) client(n int, user string) {
	random := rand.New(rand.NewPCG(uint64(n), 2))
	for i := range 10 {
		if n == 0 {
			h.disturb(i, random)
		}
		d := deed{user: user, what: "admit", id: quota.NameID("admission", h.register(user), fmt.Sprint(n, i))}
		req := request(user, "", quota.Credit)
		req.ID, req.Lease = d.id, time.Hour
		if !h.perform(n, d, random, req) {
			continue
		}
		h.mu.Lock()
		h.known[user] = append(h.known[user], d.id)
		h.mu.Unlock()
		for range 2 {
			h.mu.Lock()
			known := h.known[user]
			h.mu.Unlock()
			d.id = known[max(0, len(known)-1-random.IntN(6))]
			d.what = []string{"get", "complete", "complete", "release"}[random.IntN(4)]
			h.perform(n, d, random, req)
		}
	}
}

// perform reports whether there is such an admission behind it.
func (h *treeHistory) perform(client int, d deed, random *rand.Rand, req metering.AdmitRequest) bool {
	s := h.replicas[random.IntN(len(h.replicas))]
	var adm *ledger.Admission
	var err error
	answer := ""
	call := time.Since(h.began)
	switch d.what {
	case "admit":
		var res metering.AdmitResult
		if res, err = s.Admit(h.t.Context(), req); err == nil && res.Admission == nil {
			answer = refused
			if res.Decision.Reason != quota.UserSuspended || res.Decision.Level.Name != "desk" {
				h.t.Errorf("%s: %s of %s", d.user, res.Decision.Message(), res.Decision.Level)
			}
		}
		adm = res.Admission
	case "complete":
		adm, err = s.Complete(h.t.Context(), quota.ID{}, d.id, quota.Credit)
	case "release":
		adm, err = s.Release(h.t.Context(), quota.ID{}, d.id)
	case "get":
		adm, err = s.Get(h.t.Context(), d.id)
	}
	ret := time.Since(h.began)
	switch {
	case errors.Is(err, quota.ErrConflict):
		answer = conflict
	case err == nil && adm != nil:
		answer = string(adm.State)
	case answer == "":
		h.t.Errorf("%s of %s: %+v, %v", d.what, d.user, adm, err)
		return false
	}
	h.record(client, d, answer, call, ret)
	return adm != nil
}
