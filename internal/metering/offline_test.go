// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/cutproxy"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// outage is a world whose replicas reach the database through a proxy that the test shuts. The world's own service does
// not.
type outage struct {
	*world

	proxy *cutproxy.Proxy
}

func newOutage(t *testing.T) *outage {
	t.Helper()
	o := &outage{world: newWorld(t)}
	u, err := url.Parse(o.dsn)
	if err != nil {
		t.Fatal(err)
	}
	if o.proxy, err = cutproxy.Start(u.Host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.proxy.Close() })
	plan := plans.Free()
	plan.AdmitWhenUnavailable, plan.Limits.Concurrent = true, quota.AtMost(int32(2))
	if _, err := o.ApplyPlan(t.Context(), plan, "test"); err != nil {
		t.Fatal(err)
	}
	return o
}

// replica is a service that gives at most so many tickets.
type replica struct {
	*metering.Service
	store  *ledgerdb.Store
	signer *access.Signer

	o      *outage
	events map[metering.TicketEvent]int
	mu     sync.Mutex
}

func (r *replica) Ticket(event metering.TicketEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events[event]++
}

func (r *replica) Outstanding(int) {}

func (r *replica) Stuck(quota.Stuck, int) {}

func (r *replica) wantEvents(event metering.TicketEvent, n int) {
	r.o.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events[event] != n {
		r.o.t.Errorf("%s was counted %d times, want %d: %v", event, r.events[event], n, r.events)
	}
}

func (o *outage) replica(most int) *replica {
	o.t.Helper()
	dsn, err := o.proxy.DSN(o.dsn)
	if err != nil {
		o.t.Fatal(err)
	}
	store, err := ledgerdb.Open(o.t.Context(), dsn, postgres.Options{AllowUnsafe: true, Now: o.now})
	if err != nil {
		o.t.Fatal(err)
	}
	ledgertest.Close(o.t, store)
	r := &replica{o: o, store: store, events: map[metering.TicketEvent]int{}, signer: access.NewSigner(store)}
	r.Service = metering.New(ledger.New(store, ledger.Options{}), store, r.signer, metering.Options{
		AutoRegister: true, OfflineTickets: most, Replica: "replica", Now: o.now, Metrics: r,
		ReapInterval: 10 * time.Millisecond,
	})
	return r
}

// knows makes the replica see the user, as a request does.
func (r *replica) knows(user string) {
	r.o.t.Helper()
	res, err := r.Admit(r.o.t.Context(), request(user, "first", quota.Credit))
	if err != nil {
		r.o.t.Fatal(err)
	}
	if _, err := r.signer.Lease(r.o.t.Context(), res.Admission.Account, res.Admission.ID); err != nil {
		r.o.t.Fatal(err)
	}
	if _, err := r.Release(r.o.t.Context(), res.Admission.Account, res.Admission.ID); err != nil {
		r.o.t.Fatal(err)
	}
}

func (o *outage) away() {
	o.proxy.Refuse(true)
	o.proxy.CutAll()
}

func (o *outage) back(replicas ...*replica) {
	o.t.Helper()
	o.proxy.Refuse(false)
	for _, r := range replicas {
		eventually(o.t, func() bool { return r.store.Ping(o.t.Context()) == nil })
	}
}

func eventually(t *testing.T, what func() bool) {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !what() {
		select {
		case <-deadline:
			t.Fatal("it did not come to that")
		case <-tick.C:
		}
	}
}

// ticket asks for one and takes it apart again.
func (r *replica) ticket(user, key string, estimate quota.Credits) *metering.Ticket {
	r.o.t.Helper()
	res, err := r.Admit(r.o.t.Context(), request(user, key, estimate))
	if err != nil {
		r.o.t.Fatal(err)
	}
	if res.Ticket == "" {
		r.o.t.Fatalf("no ticket but %+v", res)
	}
	ticket, ok, err := r.VerifyTicket(r.o.t.Context(), res.Ticket)
	if err != nil || !ok {
		r.o.t.Fatalf("the ticket is not valid: %t, %v", ok, err)
	}
	return ticket
}

func (r *replica) complete(ticket *metering.Ticket, actual quota.Credits) *ledger.Admission {
	r.o.t.Helper()
	adm, err := r.CompleteTicket(r.o.t.Context(), ticket, actual)
	if err != nil {
		r.o.t.Fatal(err)
	}
	return adm
}

func TestOfflineTicket(t *testing.T) {
	o := newOutage(t)
	r, other := o.replica(100), o.replica(100)
	r.knows("alice")
	other.knows("alice")
	o.away()

	res, err := r.Admit(t.Context(), request("alice", "k", 5*quota.Credit))
	if err != nil {
		t.Fatal(err)
	}
	adm := res.Admission
	if res.Ticket == "" || !res.Created || adm.State != quota.Admitted || !adm.Offline ||
		!adm.LeaseUntil.Equal(o.now().Add(24*time.Hour+5*time.Minute)) {
		t.Errorf("got %+v of %+v", res, adm)
	}
	if again, err := r.Admit(t.Context(), request("alice", "k", 5*quota.Credit)); err != nil ||
		again.Ticket != res.Ticket || again.Created {
		t.Errorf("the same key again: %+v, %v, want the same ticket", again, err)
	}
	if _, err := r.Admit(t.Context(), request("alice", "k", 6*quota.Credit)); !errors.Is(err, ledger.ErrKeyReused) {
		t.Errorf("the same key with another body: %v, want ErrKeyReused", err)
	}
	ticket := r.ticket("alice", "k", 5*quota.Credit)
	if _, err := r.CompleteTicket(t.Context(), ticket, 4*quota.Credit); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("completing while the database is away: %v, want ErrUnavailable", err)
	}
	if got, err := r.GetTicket(t.Context(), ticket); err != nil || got.State != quota.Admitted || got.ID != adm.ID {
		t.Errorf("reading while the database is away: %+v, %v", got, err)
	}
	o.wantUsage("alice", 0, 0, 0)

	o.back(r, other)
	o.advance(10 * time.Minute)
	// Whichever replica: what one has signed the other knows.
	if _, ok, err := other.VerifyTicket(t.Context(), res.Ticket); !ok || err != nil {
		t.Errorf("another replica does not take the ticket: %v", err)
	}
	var settled sync.WaitGroup
	for _, on := range []*replica{r, other, r, other} {
		settled.Go(func() {
			adm, err := on.CompleteTicket(t.Context(), ticket, 4*quota.Credit)
			if err != nil || adm.State != quota.Settled || !adm.Offline || adm.Enforced ||
				*adm.Actual != 4*quota.Credit {
				t.Errorf("complete: %+v, %v", adm, err)
			}
		})
	}
	settled.Wait()
	if _, err := r.CompleteTicket(t.Context(), ticket, 3*quota.Credit); !errors.Is(err, quota.ErrConflict) {
		t.Errorf("complete with another use: %v, want a conflict", err)
	}
	o.wantUsage("alice", 4*quota.Credit, 0, 0)
	if n := count(t, o.dsn, "SELECT count(*) FROM usage_tracking"); n != 1 {
		t.Errorf("%d charges, want 1", n)
	}
	if n := count(t, o.dsn,
		"SELECT count(*) FROM audit_log WHERE action = 'ticket.settled' AND after ->> 'replica' = 'replica'"); n != 1 {
		t.Errorf("%d audit rows, want 1", n)
	}
	got, err := o.Get(t.Context(), adm.ID)
	if err != nil || !got.Offline || got.Enforced || !got.CreatedAt.Equal(adm.CreatedAt) {
		t.Errorf("stored: %+v, %v, want it marked offline, not enforced, created when the ticket was", got, err)
	}
	// Online the same key is the same admission.
	if res, err := o.Admit(t.Context(), request("alice", "k", 5*quota.Credit)); err != nil || res.Created ||
		res.Admission.State != quota.Settled {
		t.Errorf("the same key online: %+v, %v", res, err)
	}
	r.wantEvents(metering.TicketIssued, 1)
}

func TestWhoGetsATicket(t *testing.T) {
	o := newOutage(t)
	refusing := plans.Free()
	refusing.Name, refusing.Default, refusing.ObjectUID = "refusing", false, quota.ID{9}
	if _, err := o.ApplyPlan(t.Context(), refusing, "test"); err != nil {
		t.Fatal(err)
	}
	o.quota(metering.Quota{ObjectUID: quota.ID{20}, ObjectName: "cautious", UserID: "cautious", PlanName: "refusing",
		Zone: "UTC"})
	r, none := o.replica(4), o.replica(0)
	for _, user := range []string{"alice", "bob", "carol", "cautious", "suspended", "moved"} {
		r.knows(user)
	}
	none.knows("alice")
	o.quota(metering.Quota{ObjectUID: quota.ID{21}, ObjectName: "suspended", UserID: "suspended", Zone: "UTC",
		Suspended: true})
	if _, err := r.Current(t.Context(), "suspended"); err != nil {
		t.Fatal(err)
	}
	o.quota(metering.Quota{ObjectUID: quota.ID{22}, ObjectName: "moved", UserID: "moved", PlanName: "refusing",
		Zone: "UTC"})
	r.knows("moved")
	o.away()

	refused := func(name string, req metering.AdmitRequest, why string) {
		t.Helper()
		res, err := r.Admit(t.Context(), req)
		if !errors.Is(err, ledger.ErrUnavailable) || !strings.Contains(err.Error(), why) || res.Ticket != "" {
			t.Errorf("%s: got %+v, %v, want ErrUnavailable with %q", name, res, err, why)
		}
	}
	big := request("alice", "big", quota.Credit)
	big.FileSize = 26 << 20
	for name, tc := range map[string]struct {
		req  metering.AdmitRequest
		want quota.Reason
	}{
		"a file that is too large":  {big, quota.FileTooLarge},
		"audio that is too long":    {request("alice", "long", 25*60*quota.Credit), quota.AudioTooLong},
		"a user that was suspended": {request("suspended", "k", quota.Credit), quota.UserSuspended},
	} {
		if res, err := r.Admit(t.Context(), tc.req); err != nil || res.Ticket != "" || res.Decision.Reason != tc.want {
			t.Errorf("%s: %+v, %v, want %s", name, res, err, tc.want)
		}
	}
	refused("a stranger", request("stranger", "k", quota.Credit), "cannot be reached")
	refused("a plan that refuses", request("cautious", "k", quota.Credit), "cannot be reached")
	refused("a user who went to a plan that refuses", request("moved", "k", quota.Credit), "cannot be reached")
	if _, err := none.Admit(t.Context(), request("alice", "k", quota.Credit)); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("a replica that gives none: %v", err)
	}
	job := request("alice", "", quota.Credit)
	job.ID, job.Source = quota.ID{1, 2, 3}, quota.SourceJob
	refused("a Job, which waits suspended", job, "cannot be reached")

	// Two at once, all in all 30 credits, and four in this replica.
	first := r.ticket("alice", "1", 20*quota.Credit)
	refused("more credits than remain", request("alice", "2", 11*quota.Credit),
		"11 credits are needed, 10 of 30 remain")
	r.ticket("alice", "2", 10*quota.Credit)
	refused("more than may run at once", request("alice", "3", quota.Credit), "2 of 2 jobs are running")
	r.ticket("bob", "1", quota.Credit)
	r.ticket("bob", "2", quota.Credit)
	refused("more than the replica vouches for", request("carol", "1", quota.Credit), "4 are outstanding")

	// A ticket that is given back, or that nobody can complete any more, makes room.
	if adm, err := r.ReleaseTicket(t.Context(), first); err != nil || adm.State != quota.Released {
		t.Errorf("release while the database is away: %+v, %v", adm, err)
	}
	r.ticket("alice", "3", 20*quota.Credit)
	o.advance(25 * time.Hour)
	r.ticket("alice", "4", 20*quota.Credit)
	r.wantEvents(metering.TicketIssued, 6)
	r.wantEvents(metering.TicketReleased, 1)
	r.wantEvents(metering.TicketRefusedUser, 3)
	o.back(r)
}

// A trouble of the moment is no outage: the request is decided by the database after all.
func TestABlipGivesNoTicket(t *testing.T) {
	o := newOutage(t)
	r := o.replica(100)
	r.knows("alice")
	for range 20 {
		o.proxy.CutAll()
		res, err := r.Admit(t.Context(), request("alice", "k", quota.Credit))
		if err != nil || res.Ticket != "" {
			t.Fatalf("got %+v, %v, want an admission", res, err)
		}
	}
}

// Each replica counts its own tickets.
func TestEachReplicaVouchesForItself(t *testing.T) {
	o := newOutage(t)
	r, other := o.replica(100), o.replica(100)
	r.knows("alice")
	other.knows("alice")
	o.away()
	var all []*metering.Ticket
	for _, on := range []*replica{r, other} {
		all = append(all, on.ticket("alice", "on", 10*quota.Credit), on.ticket("alice", "and on", 20*quota.Credit))
	}
	o.back(r, other)
	for i, ticket := range all {
		// The same key is the same admission, on whichever replica: two tickets for it are one charge.
		r.complete(ticket, ticket.Estimate)
		o.wantUsage("alice", []quota.Credits{10, 30, 30, 30}[i]*quota.Credit, 0, 0)
	}
}

// What was completed by another replica makes room on the one that gave the ticket.
func TestTicketsCompletedElsewhere(t *testing.T) {
	o := newOutage(t)
	r := o.replica(1)
	r.knows("alice")
	o.away()
	ticket := r.ticket("alice", "k", quota.Credit)
	o.back(r)
	if _, err := o.CompleteTicket(t.Context(), ticket, quota.Credit); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- r.Run(ctx) }()
	defer func() { stop(); <-ran }()
	eventually(t, func() bool {
		o.away()
		defer o.back(r)
		res, err := r.Admit(t.Context(), request("alice", "next", quota.Credit))
		return err == nil && res.Ticket != ""
	})
}

// The key was used online before the outage: its admission is what is settled, whatever has become of it.
func TestTicketForWhatTheLedgerKnows(t *testing.T) {
	o := newOutage(t)
	r := o.replica(100)
	r.knows("alice")
	admitted := o.admit("alice", "admitted", 2*quota.Credit).Admission
	expired := o.admit("alice", "expired", 3*quota.Credit).Admission
	queued := o.admit("alice", "queued", 4*quota.Credit).Admission
	behind := o.admit("alice", "behind", 5*quota.Credit).Admission
	if _, err := r.Current(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	o.away()
	ticket := func(key string, estimate quota.Credits) *metering.Ticket {
		t.Helper()
		ticket := r.ticket("alice", key, estimate)
		if _, err := r.ReleaseTicket(t.Context(), ticket); err != nil {
			t.Fatal(err) // only to make room for the next
		}
		return ticket
	}
	forAdmitted, forExpired, forQueued := ticket("admitted", 2*quota.Credit), ticket("expired", 3*quota.Credit),
		ticket("queued", 4*quota.Credit)
	another := ticket("behind", 6*quota.Credit)
	o.back(r)

	if got := r.complete(forQueued, 4*quota.Credit); got.ID != queued.ID || !got.Offline || got.State != quota.Settled {
		t.Errorf("the queued one: %+v", got)
	}
	o.wantUsage("alice", 4*quota.Credit, 5*quota.Credit, 2)
	o.wantState(behind.ID, quota.Queued)
	if got := r.complete(forAdmitted, 2*quota.Credit); got.ID != admitted.ID || got.Offline || !got.Enforced {
		t.Errorf("the admitted one: %+v", got)
	}
	if stored, err := o.Get(t.Context(), queued.ID); err != nil || !stored.Offline || stored.Enforced {
		t.Errorf("stored: %+v, %v", stored, err)
	}
	o.wantState(behind.ID, quota.Admitted)
	o.advance(10 * time.Minute)
	o.reap()
	o.wantState(expired.ID, quota.Expired)
	if got := r.complete(forExpired, 3*quota.Credit); !got.Late {
		t.Errorf("the expired one: %+v", got)
	}
	if _, err := r.CompleteTicket(t.Context(), another, quota.Credit); !errors.Is(err, ledger.ErrKeyReused) {
		t.Errorf("the same key for other work: %v, want ErrKeyReused", err)
	}
	if _, err := r.ReleaseTicket(t.Context(), another); !errors.Is(err, ledger.ErrKeyReused) {
		t.Errorf("the same key for other work, released: %v, want ErrKeyReused", err)
	}
	o.wantUsage("alice", 9*quota.Credit, 0, 0)
}

// A ticket that comes too late is not charged; one that came in time keeps its answer.
func TestTicketExpires(t *testing.T) {
	o := newOutage(t)
	r := o.replica(100)
	r.knows("alice")
	o.away()
	inTime, late := r.ticket("alice", "in time", 2*quota.Credit), r.ticket("alice", "late", 3*quota.Credit)
	if _, err := r.ReleaseTicket(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	released := r.ticket("alice", "released", quota.Credit)
	o.back(r)
	r.complete(inTime, 2*quota.Credit)
	if adm, err := r.ReleaseTicket(t.Context(), released); err != nil || adm.State != quota.Released {
		t.Errorf("release: %+v, %v", adm, err)
	}
	if _, err := r.ReleaseTicket(t.Context(), inTime); !errors.Is(err, quota.ErrConflict) {
		t.Errorf("release of what is charged: %v, want a conflict", err)
	}
	o.advance(24*time.Hour + 3*time.Minute)
	r.complete(inTime, 2*quota.Credit)
	if _, err := r.CompleteTicket(t.Context(), late, 3*quota.Credit); !errors.Is(err, metering.ErrTicketExpired) {
		t.Errorf("complete: %v, want ErrTicketExpired", err)
	}
	if adm, err := r.GetTicket(t.Context(), late); err != nil || adm.State != quota.Expired {
		t.Errorf("reading it: %+v, %v", adm, err)
	}
	o.wantUsage("alice", 2*quota.Credit, 0, 0)
}

func TestForgedTickets(t *testing.T) {
	o := newOutage(t)
	r := o.replica(100)
	r.knows("alice")
	o.away()
	res, err := r.Admit(t.Context(), request("alice", "k", quota.Credit))
	if err != nil {
		t.Fatal(err)
	}
	lease, err := r.signer.Lease(t.Context(), res.Admission.Account, res.Admission.ID)
	if err != nil {
		t.Fatal(err)
	}
	payload, signature, _ := strings.Cut(res.Ticket, ".")
	flipped := []byte(payload)
	flipped[20] ^= 1
	for name, token := range map[string]string{
		"nothing": "", "a lease token": lease, "no signature": payload + ".",
		"another payload":     string(flipped) + "." + signature,
		"a shorter signature": payload + "." + signature[:20], "not base64": payload + ".%",
	} {
		if _, ok, err := r.VerifyTicket(t.Context(), token); ok || err != nil {
			t.Errorf("%s: %t, %v, want it refused", name, ok, err)
		}
	}
	o.back(r)
}

func count(t *testing.T, dsn, query string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
