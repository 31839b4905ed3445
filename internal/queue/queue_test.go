// SPDX-License-Identifier: Apache-2.0

package queue_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/queue"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

var start = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

// world is a ledger with one slot and 40 credits for each user, whose time the test moves.
type world struct {
	*metering.Service
	t     *testing.T
	dsn   string
	shown *queue.Service

	mu    sync.Mutex
	clock time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dsn: ledgertest.New(t), clock: start}
	store, err := ledgerdb.Open(t.Context(), w.dsn, postgres.Options{AllowUnsafe: true, Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	w.Service = metering.New(ledger.New(store, ledger.Options{}), store, access.NewSigner(store),
		metering.Options{AutoRegister: true})
	w.shown = queue.New(store)
	_, err = w.ApplyPlan(t.Context(), plans.Free(func(p *metering.Plan) {
		p.Limits.Credits = quota.AtMost(40 * quota.Credit)
	}), "test")
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(d)
}

// send asks for work of so many credits, as a Job, which may park.
func (w *world) send(user, name string, credits int64, priority int32) quota.AdmissionID {
	w.t.Helper()
	id := quota.NameID("test", quota.AccountID{}, user+"/"+name)
	_, err := w.Admit(w.t.Context(), metering.AdmitRequest{
		UserID: user, ID: id, Source: quota.SourceJob, Namespace: "jobs", Name: name, RequestedBy: "test",
		Estimate: quota.WholeCredits(credits), FileSize: 1, Queue: true, Park: true, Priority: priority,
		Lease: metering.JobLease,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) end(id quota.AdmissionID) {
	w.t.Helper()
	if _, err := w.SettleJob(w.t.Context(), id, quota.Credit); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) place(id quota.AdmissionID) *queue.Place {
	w.t.Helper()
	adm, err := w.Get(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := w.shown.PlaceOf(w.t.Context(), adm)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// told is what a place says, in short.
func told(p *queue.Place) string {
	if p == nil {
		return "nothing"
	}
	d := p.Decision
	s := fmt.Sprintf("%s %s: %s %s, %d of %d", d.Level.Kind, d.Level.Name, d.Reason, d.Message(), p.Position, p.Waiting)
	if p.Start != nil {
		s += fmt.Sprintf(", %s to %s by %d gaps", p.Start.Earliest.Sub(start), p.Start.Latest.Sub(start), p.Start.Gaps)
	}
	return s
}

func (w *world) wantPlace(id quota.AdmissionID, want string) {
	w.t.Helper()
	if got := told(w.place(id)); got != want {
		w.t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestPlaceAndEstimate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	jobs := make([]quota.AdmissionID, 15)
	for i := range jobs {
		jobs[i] = w.send("alice", fmt.Sprint(i), 1, 0)
	}
	first := w.send("alice", "first", 1, 5)
	w.wantPlace(jobs[0], "nothing")
	w.wantPlace(first, "User alice: ConcurrencyLimit 1 of 1 jobs are running, 1 of 15")
	w.wantPlace(jobs[1], "User alice: ConcurrencyLimit 1 of 1 jobs are running, 2 of 15")
	running := slices.Concat(jobs[:1], []quota.AdmissionID{first}, jobs[1:])
	for _, id := range running[:11] {
		w.wantPlace(jobs[14], told(w.place(jobs[14]))) // no number before there is one
		if w.place(jobs[14]).Start != nil {
			t.Fatal("an estimate by too little")
		}
		w.advance(10 * time.Minute)
		w.end(id)
	}
	// Eleven starts had waited; between them are ten gaps.
	w.advance(4 * time.Minute)
	w.wantPlace(jobs[11], "User alice: ConcurrencyLimit 1 of 1 jobs are running, 1 of 4, 2h0m0s to 2h0m0s by 10 gaps")
	w.wantPlace(jobs[14], "User alice: ConcurrencyLimit 1 of 1 jobs are running, 4 of 4, 2h30m0s to 2h30m0s by 10 gaps")

	// Of 40 credits 11 are used and one is reserved.
	large, larger := w.send("alice", "large", 29, 0), w.send("alice", "larger", 39, 0)
	const short = "credits are needed, 28 of 40 remain in this period (11 used, 1 reserved)"
	w.wantPlace(large, "User alice: CreditsExhausted 29 "+short+", 1 of 2")
	w.wantPlace(larger, "User alice: CreditsExhausted 39 "+short+", 2 of 2")
	w.wantPlace(jobs[11], "User alice: ConcurrencyLimit 1 of 1 jobs are running, 1 of 4, 2h0m0s to 2h0m0s by 10 gaps")

	// What binds is told at once, the place there when it has been looked at.
	w.advance(31 * 24 * time.Hour)
	w.wantPlace(larger, "User alice: ConcurrencyLimit 1 of 1 jobs are running, 0 of 0")
	w.wantPlace(jobs[11], "User alice: ConcurrencyLimit 1 of 1 jobs are running, 1 of 4")
}

// Below a team with one slot the place is where the fair order comes to it, among all that wait for that slot.
func TestPlaceBelowTeam(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, user := range []string{"alice", "bob", "carol"} {
		w.end(w.send(user, "before", 1, 0))
	}
	newsroom := metering.Team{
		Team: quota.Team{Name: "newsroom", Caps: quota.Caps{Concurrent: new(quota.AtMost[int32](1))}}, Zone: "UTC",
	}
	if _, err := w.ApplyTeam(t.Context(), newsroom, "test"); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"alice", "bob", "carol"} {
		if err := w.AddMember(t.Context(), "newsroom", user, metering.By{Actor: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	running := w.send("carol", "c", 1, 0)
	waiting := []quota.AdmissionID{w.send("alice", "a1", 1, 0), w.send("alice", "a2", 1, 0), w.send("bob", "b", 1, 0)}
	at := map[int]quota.AdmissionID{}
	for _, id := range waiting {
		p := w.place(id)
		if got := p.Decision.Message(); got != `team "newsroom": 1 of 1 jobs are running` || p.Waiting != 3 {
			t.Errorf("%s, %d of %d", got, p.Position, p.Waiting)
		}
		at[p.Position] = id
	}
	if len(at) != 3 || at[3] != waiting[1] {
		t.Fatalf("the places are %v, of %v", at, waiting)
	}
	if page, err := w.shown.List(t.Context(), queue.Filter{Team: "newsroom"}, queue.Spot{}, 2); err != nil ||
		len(page.Levels) == 0 || page.Next == (queue.Spot{}) {
		t.Errorf("the team's queue: %+v, %v", page, err)
	} else if rest, err := w.shown.List(t.Context(), queue.Filter{Team: "newsroom"}, page.Next, 2); err != nil ||
		len(rest.Levels) != 1 || len(rest.Levels[0].Entries) != 1 || rest.Next != (queue.Spot{}) {
		t.Errorf("the rest of it: %+v, %v", rest, err)
	}
	if page, err := w.shown.List(t.Context(), queue.Filter{Team: "sports"}, queue.Spot{}, 2); err == nil {
		t.Errorf("of a team that is not there: %+v", page)
	}
	for n := 1; n <= 3; n++ {
		w.end(running)
		if adm, err := w.Get(t.Context(), at[n]); err != nil || adm.State != quota.Admitted {
			t.Fatalf("who was at place %d is not next: %+v, %v", n, adm, err)
		}
		running = at[n]
	}
	w.end(running)
}

// A page has what waits, by level, with the counts of all of it.
func TestList(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, user := range []string{"alice", "bob", "carol"} {
		w.send(user, "runs", 20, 0)
		for i, credits := range []int64{1, 30, 1, 2, 39, 1} {
			w.send(user, fmt.Sprint(i), credits, int32(i%2))
		}
		w.advance(time.Minute)
	}
	w.send("dora", "alone", 1, 0)
	perUser := func(user string) []string {
		var out []string
		for i, name := range []string{"3", "5", "0", "2", "1", "4"} {
			limit, position := "concurrent", i+1
			if name == "1" || name == "4" {
				limit, position = "credits", i-3
			}
			out = append(out, fmt.Sprintf("%s %s %s %d concurrent 4 credits 2", user, name, limit, position))
		}
		return out
	}
	list := func(f queue.Filter, size int, between func()) []string {
		t.Helper()
		var out []string
		var after queue.Spot
		for {
			page, err := w.shown.List(t.Context(), f, after, size)
			if err != nil {
				t.Fatal(err)
			}
			if !page.Now.Equal(w.now()) {
				t.Errorf("as of %s", page.Now)
			}
			n := 0
			for _, l := range page.Levels {
				counts := ""
				for _, c := range l.Counts {
					counts += fmt.Sprintf(" %s %d", c.Limit, c.Count)
				}
				for _, e := range l.Entries {
					n++
					out = append(out, fmt.Sprintf("%s %s %s %d%s", l.Level.Name, e.Name, e.Reason.Info().Limit,
						e.Position, counts))
					if e.UserID != l.Level.Name || e.Namespace != "jobs" || e.Since.IsZero() {
						t.Errorf("got %+v", e)
					}
				}
			}
			if n > size {
				t.Errorf("a page of %d has %d", size, n)
			}
			if between != nil {
				between()
			}
			if page.Next == (queue.Spot{}) {
				return out
			}
			after = page.Next
		}
	}
	all := list(queue.Filter{}, queue.MaxPage, nil)
	var users []string
	for _, line := range all {
		var user string
		if _, err := fmt.Sscan(line, &user); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(users, user) {
			users = append(users, user)
		}
	}
	var want []string
	for _, user := range users {
		want = append(want, perUser(user)...)
	}
	if diff := cmp.Diff(want, all); diff != "" || len(users) != 3 {
		t.Errorf("%v (-want +got):\n%s", users, diff)
	}
	for _, size := range []int{1, 2, 5, 7} {
		if diff := cmp.Diff(all, list(queue.Filter{}, size, nil)); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", size, diff)
		}
	}
	for _, size := range []int{1, 2, 500} {
		if diff := cmp.Diff(perUser("bob"), list(queue.Filter{UserID: "bob"}, size, nil)); diff != "" {
			t.Errorf("bob's, pages of %d (-want +got):\n%s", size, diff)
		}
		got := list(queue.Filter{UserID: "bob", Limit: quota.LimitCredits}, size, nil)
		if diff := cmp.Diff(perUser("bob")[4:], got); diff != "" {
			t.Errorf("what of bob's waits for credits, pages of %d (-want +got):\n%s", size, diff)
		}
	}
	if got := list(queue.Filter{Limit: quota.LimitCredits}, 4, nil); len(got) != 6 {
		t.Errorf("what waits for credits: %v", got)
	}
	if got := list(queue.Filter{Limit: quota.LimitDailyCost}, 4, nil); len(got) != 0 {
		t.Errorf("what waits for another day: %v", got)
	}
	if got := list(queue.Filter{UserID: "dora"}, 4, nil); len(got) != 0 {
		t.Errorf("of who has nothing waiting: %v", got)
	}

	// What comes and goes between the pages changes nothing for who waits all the while.
	n := 0
	got := list(queue.Filter{UserID: "carol"}, 2, func() {
		w.send("carol", fmt.Sprintf("new-%d", n), 1, int32(n))
		n++
	})
	for _, name := range []string{"0", "1", "2", "3", "4", "5"} {
		seen := 0
		for _, line := range got {
			var user, of string
			if _, err := fmt.Sscan(line, &user, &of); err == nil && of == name {
				seen++
			}
		}
		if seen != 1 {
			t.Errorf("%s is %d times in %v", name, seen, got)
		}
	}

	for _, bad := range []struct {
		filter queue.Filter
		limit  int
	}{
		{limit: 0}, {limit: queue.MaxPage + 1},
		{queue.Filter{UserID: "no body"}, 1}, {queue.Filter{UserID: "nobody"}, 1},
	} {
		if page, err := w.shown.List(t.Context(), bad.filter, queue.Spot{}, bad.limit); err == nil {
			t.Errorf("%+v: got %+v", bad, page)
		}
	}
}
