// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// cachedStandings bounds how many users a replica could give tickets to.
const cachedStandings = 20_000

// tickets are the offline tickets that this replica has given and not seen the end of, and what it needs to know to
// give more.
type tickets struct {
	most      int
	standings *lru.Cache[string, quota.Chain]

	mu   sync.Mutex
	byID map[quota.AdmissionID]issued // by the admission's id
	// byOwner are what the tickets hold in each account: a user's own, and those of all below a team.
	byOwner map[quota.AccountID]quota.Outstanding
}

type issued struct {
	ticket *Ticket
	token  string
	// on are the accounts that it is counted in.
	on []quota.AccountID
}

func newTickets(most int) *tickets {
	standings, err := lru.New[string, quota.Chain](cachedStandings)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &tickets{most: most, standings: standings, byID: map[quota.AdmissionID]issued{},
		byOwner: map[quota.AccountID]quota.Outstanding{}}
}

// saw remembers where a user stands. Nobody may change the accounts afterwards.
func (t *tickets) saw(c quota.Chain) { t.standings.Add(c.User().UserID, c) }

func (t *tickets) forget(userID string) { t.standings.Remove(userID) }

// standing is where a user stood when last seen; false for one who is not known or whose payer's plan gives no tickets.
func (t *tickets) standing(userID string) (quota.Chain, bool) { return t.standings.Get(userID) }

// give decides on a ticket and counts it. Where one is outstanding for the same admission, that is returned.
func (t *tickets) give(wanted issued, c quota.Chain, now time.Time) (issued, quota.Decision, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	id := wanted.ticket.AdmissionID()
	if was, ok := t.byID[id]; ok {
		if !bytes.Equal(was.ticket.BodyHash, wanted.ticket.BodyHash) {
			return issued{}, quota.Decision{}, ledger.ErrKeyReused
		}
		return was, quota.Decision{Outcome: quota.Admit}, nil
	}
	if len(t.byID) >= t.most {
		return issued{}, quota.Decision{},
			&NoTicketError{Message: fmt.Sprintf("%d are outstanding, the limit of this replica is %d",
				len(t.byID), t.most)}
	}
	var held [quota.MaxDepth]quota.Outstanding
	for i, a := range c.Accounts() {
		held[i] = t.byOwner[a.ID]
		wanted.on = append(wanted.on, a.ID)
	}
	req := quota.Request{Estimate: wanted.ticket.Estimate, FileSize: wanted.ticket.FileSize}
	d := c.DecideOffline(req, held, now)
	if d.Outcome == quota.Admit {
		t.byID[id] = wanted
		for i, owner := range wanted.on {
			t.byOwner[owner] = quota.Outstanding{
				Tickets: held[i].Tickets + 1, Credits: held[i].Credits.Add(req.Estimate),
			}
		}
	}
	return wanted, d, nil
}

// drop stops counting a ticket, and reports whether it was outstanding.
func (t *tickets) drop(id quota.AdmissionID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.remove(id)
}

// expire stops counting what can no longer be completed.
func (t *tickets) expire(now time.Time) {
	for id, i := range t.byID {
		if !now.Before(i.ticket.ExpiresAt) {
			t.remove(id)
		}
	}
}

func (t *tickets) remove(id quota.AdmissionID) bool {
	was, ok := t.byID[id]
	if !ok {
		return false
	}
	delete(t.byID, id)
	for _, owner := range was.on {
		held := t.byOwner[owner]
		if held.Tickets--; held.Tickets == 0 {
			delete(t.byOwner, owner)
			continue
		}
		held.Credits = held.Credits.Sub(was.ticket.Estimate)
		t.byOwner[owner] = held
	}
	return true
}

// live returns the admissions whose tickets are outstanding.
func (t *tickets) live(now time.Time) []quota.AdmissionID {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	ids := make([]quota.AdmissionID, 0, len(t.byID))
	for id := range t.byID {
		ids = append(ids, id)
	}
	return ids
}

func (t *tickets) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID)
}
