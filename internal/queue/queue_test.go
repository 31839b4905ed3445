// SPDX-License-Identifier: Apache-2.0

package queue_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

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
	shown *queue.Service

	mu    sync.Mutex
	clock time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, clock: start}
	store, err := ledgerdb.Open(t.Context(), ledgertest.New(t), postgres.Options{AllowUnsafe: true, Now: w.now})
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
	s := fmt.Sprintf("%s %s: %s %s, %d of %d", p.Level.Kind, p.Level.Name, p.Decision.Reason, p.Decision.Message(),
		p.Position, p.Waiting)
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
