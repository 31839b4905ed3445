// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

// slots is how many jobs of a user of these histories may run at once.
const slots = 2

// deed is one operation on one admission of one user; what it came to is the admission's state behind it, or conflict.
type deed struct {
	user, what string
	id         quota.ID
}

const conflict = "conflict"

// standing is what the model knows of a user: the admissions that run, those that wait in their order, and those that
// ended. It is a value, so every change makes another one.
type standing struct {
	running, waiting []quota.ID
	ended            map[quota.ID]quota.State
}

func (s standing) clone() standing {
	return standing{running: slices.Clone(s.running), waiting: slices.Clone(s.waiting), ended: maps.Clone(s.ended)}
}

func (s standing) state(id quota.ID) quota.State {
	switch {
	case slices.Contains(s.running, id):
		return quota.Admitted
	case slices.Contains(s.waiting, id):
		return quota.Queued
	}
	return s.ended[id]
}

// end takes an admission out of its slot or its place, and the first that waits starts.
func (s standing) end(id quota.ID, to quota.State) standing {
	n := s.clone()
	if s.state(id) == quota.Queued {
		to = quota.Cancelled
	}
	n.ended[id] = to
	is := func(other quota.ID) bool { return other == id }
	n.running, n.waiting = slices.DeleteFunc(n.running, is), slices.DeleteFunc(n.waiting, is)
	for len(n.running) < slots && len(n.waiting) > 0 {
		n.running, n.waiting = append(n.running, n.waiting[0]), n.waiting[1:]
	}
	return n
}

func (s standing) do(d deed) (standing, string) {
	was := s.state(d.id)
	live := was == quota.Queued || was == quota.Admitted
	switch d.what {
	case "admit":
		if was == "" {
			s = s.clone()
			if len(s.running) < slots && len(s.waiting) == 0 {
				s.running = append(s.running, d.id)
			} else {
				s.waiting = append(s.waiting, d.id)
			}
		}
	case "complete":
		switch was {
		case quota.Admitted:
			s = s.end(d.id, quota.Settled)
		case quota.Expired:
			s = s.clone()
			s.ended[d.id] = quota.Settled
		case quota.Settled:
		case quota.Queued, quota.Released, quota.Cancelled:
			return s, conflict
		}
	case "release":
		if was == quota.Settled {
			return s, conflict
		}
		if live {
			s = s.end(d.id, quota.Released)
		}
	case "expire":
		if live {
			s = s.end(d.id, quota.Expired)
		}
	}
	return s, string(s.state(d.id))
}

var accountModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byUser := map[string][]porcupine.Operation{}
		for _, op := range history {
			user := op.Input.(deed).user
			byUser[user] = append(byUser[user], op)
		}
		return slices.Collect(maps.Values(byUser))
	},
	Init: func() any { return standing{ended: map[quota.ID]quota.State{}} },
	Step: func(state, input, output any) (bool, any) {
		next, answer := state.(standing).do(input.(deed))
		return answer == output.(string), next
	},
	Equal: func(x, y any) bool {
		a, b := x.(standing), y.(standing)
		return slices.Equal(a.waiting, b.waiting) && maps.Equal(a.ended, b.ended) &&
			slices.Equal(slices.SortedFunc(slices.Values(a.running), compareIDs),
				slices.SortedFunc(slices.Values(b.running), compareIDs))
	},
}

func compareIDs(a, b quota.ID) int { return slices.Compare(a[:], b[:]) }

// TestHistoriesAreLinearizable plays many clients against three replicas on one database, while leases lapse, and asks
// whether their answers could have come from one account that does one thing after the other.
func TestHistoriesAreLinearizable(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"cache_statement", "cache_describe"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			play := &history{world: w, began: time.Now(), known: map[string][]quota.ID{}}
			for range 3 {
				play.replicas = append(play.replicas, newService(w.openMode(mode), metering.Options{}))
			}
			users := []string{"alice", "bob", "carol"}
			for i, user := range users {
				w.quota(metering.Quota{
					ObjectUID: quota.ID{byte(i + 1)}, ObjectName: user, UserID: user, PlanName: "pro", Zone: "UTC",
					Overrides: quota.Overrides{Concurrent: new(quota.AtMost(int32(slots)))},
				})
			}
			var clients sync.WaitGroup
			for client := range 9 {
				clients.Go(func() { play.client(client, users[client%len(users)]) })
			}
			done := make(chan struct{})
			go func() { clients.Wait(); close(done) }()
			play.reap(done)
			if t.Failed() {
				return
			}
			if play.expired == 0 {
				t.Error("no lease lapsed: the history shows nothing about that")
			}
			result, _ := porcupine.CheckOperationsVerbose(accountModel, play.ops, time.Minute)
			if result != porcupine.Ok {
				t.Errorf("%d operations: %s\n%s", len(play.ops), result, play)
			}
		})
	}
}

// openMode opens the world's database as another replica, with one of the modes in which pgx can send statements. Some
// transaction poolers bear only the second.
func (w *world) openMode(mode string) *ledgerdb.Store {
	w.t.Helper()
	u, err := url.Parse(w.dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	q := u.Query()
	q.Set("default_query_exec_mode", mode)
	u.RawQuery = q.Encode()
	store, err := ledgerdb.Open(w.t.Context(), u.String(), postgres.Options{AllowUnsafe: true, Now: w.now})
	if err != nil {
		w.t.Fatal(err)
	}
	ledgertest.Close(w.t, store)
	return store
}

// history is what clients did and were answered.
type history struct {
	*world
	replicas []*metering.Service
	began    time.Time

	mu      sync.Mutex
	ops     []porcupine.Operation
	known   map[string][]quota.ID
	expired int
}

func (h *history) String() string {
	var b strings.Builder
	for _, op := range h.ops {
		d := op.Input.(deed)
		fmt.Fprintf(&b, "%d-%d %s %s %x: %s\n", op.Call, op.Return, d.user, d.what, d.id[:3], op.Output)
	}
	return b.String()
}

func (h *history) record(client int, d deed, answer string, call, ret time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: d, Output: answer, Call: int64(call),
		Return: int64(ret)})
}

// client makes admissions, some with a lease that lapses at the reaper's next look, and does things to them and to
// those of the user's other clients, each by whichever replica.
func (h *history) client(n int, user string) {
	random := rand.New(rand.NewPCG(uint64(n), 1))
	for i := range 14 {
		d := deed{user: user, what: "admit", id: quota.NameID("admission", h.register(user), fmt.Sprint(n, i))}
		req := request(user, "", quota.Credit)
		req.ID, req.Lease = d.id, time.Hour
		if random.IntN(3) == 0 {
			req.Lease = quota.MinLease
		}
		h.perform(n, d, random, req)
		h.mu.Lock()
		h.known[user] = append(h.known[user], d.id)
		h.mu.Unlock()
		for range 2 {
			h.mu.Lock()
			known := h.known[user]
			h.mu.Unlock()
			d.id = known[max(0, len(known)-1-random.IntN(8))]
			d.what = []string{"get", "complete", "complete", "release"}[random.IntN(4)]
			h.perform(n, d, random, req)
		}
	}
}

func (h *history) perform(client int, d deed, random *rand.Rand, req metering.AdmitRequest) {
	s := h.replicas[random.IntN(len(h.replicas))]
	var adm *ledger.Admission
	var err error
	call := time.Since(h.began)
	switch d.what {
	case "admit":
		var res metering.AdmitResult
		res, err = s.Admit(h.t.Context(), req)
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
		h.record(client, d, conflict, call, ret)
	case err != nil || adm == nil:
		h.t.Errorf("%s of %s: %+v, %v", d.what, d.user, adm, err)
	default:
		h.record(client, d, string(adm.State), call, ret)
	}
}

// reap lets leases lapse and looks for them, again and again. An admission's end carries the clock of the look that
// found it, which no other look has.
func (h *history) reap(done <-chan struct{}) {
	type look struct{ call, ret time.Duration }
	looks := map[time.Time]look{}
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		h.advance(2 * quota.MinLease)
		at := h.now()
		l := look{call: time.Since(h.began)}
		if err := h.replicas[len(looks)%len(h.replicas)].Reap(h.t.Context()); err != nil {
			h.t.Errorf("reap: %v", err)
		}
		l.ret = time.Since(h.began)
		looks[at] = l
	}
	for user, ids := range h.known {
		for _, id := range ids {
			adm, err := h.Get(h.t.Context(), id)
			if err != nil {
				h.t.Error(err)
				continue
			}
			l, ok := looks[adm.EndedAt]
			if !ok || (adm.State != quota.Expired && adm.State != quota.Cancelled && !adm.Late) {
				continue
			}
			answer := quota.Expired
			if adm.State == quota.Cancelled {
				answer = quota.Cancelled
				if h.released(id) {
					// By a client before, or by this look: then the client only heard of it. What the look does to one
					// that has ended is nothing, so it may as well stand behind.
					l.ret = time.Since(h.began)
				}
			}
			h.expired++
			h.record(-1, deed{user: user, what: "expire", id: id}, string(answer), l.call, l.ret)
		}
	}
}

// released tells whether a client asked for the admission's release and heard that it is cancelled.
func (h *history) released(id quota.ID) bool {
	return slices.ContainsFunc(h.ops, func(op porcupine.Operation) bool {
		d := op.Input.(deed)
		return d.id == id && d.what == "release" && op.Output == string(quota.Cancelled)
	})
}
