// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Refused is what refusals are counted by.
type Refused struct {
	Account quota.AccountID
	// Hour of UTC, by its beginning.
	Hour   time.Time
	Reason quota.Reason
	// Plan of whoever pays, empty where it has none, and ServedBy the cheapest one that would not have refused it,
	// empty if none would.
	Plan, ServedBy string
}

// Refusals are how often something was refused, and the credits that were asked for.
type Refusals struct {
	Refused

	Count   int64
	Credits quota.Credits
}

// refusals counts, in memory, what is refused: it is no event, and a refusal is not to cost a write. What is counted is
// lost if the process is killed. What is admitted costs nothing.
type refusals struct {
	mu      sync.Mutex
	counted map[Refused]*Refusals
}

// maxRefusals bounds what is kept while the database cannot take it: further kinds of refusals are not counted.
const maxRefusals = 20_000

// CountRefusal counts what somebody was refused. Admit counts by itself; who acts on a Check says so here. A user who
// has no account yet is not counted.
func (s *Service) CountRefusal(res *CheckResult, asked quota.Credits) {
	user := res.On.User()
	if res.Decision.Outcome != quota.Refuse || user == nil || user.ID == (quota.AccountID{}) {
		return
	}
	key := Refused{Account: user.ID, Hour: res.Now.UTC().Truncate(time.Hour), Reason: res.Decision.Reason}
	if payer := res.On.Payer(); payer != nil && payer.Plan != nil {
		key.Plan = payer.Plan.Name
	}
	if res.Upgrade != nil {
		key.ServedBy = res.Upgrade.Name
	}
	s.refusals.add(&Refusals{Refused: key, Count: 1, Credits: asked})
}

func (r *refusals) add(n *Refusals) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counted == nil {
		r.counted = map[Refused]*Refusals{}
	}
	if sum := r.counted[n.Refused]; sum != nil {
		sum.Count, sum.Credits = sum.Count+n.Count, sum.Credits.Add(n.Credits)
	} else if len(r.counted) < maxRefusals {
		r.counted[n.Refused] = n
	}
}

// take returns what is counted, in an order that all processes share, and begins anew.
func (r *refusals) take() []Refusals {
	r.mu.Lock()
	counted := r.counted
	r.counted = nil
	r.mu.Unlock()
	all := make([]Refusals, 0, len(counted))
	for _, n := range counted {
		all = append(all, *n)
	}
	slices.SortFunc(all, func(a, b Refusals) int {
		return cmp.Or(slices.Compare(a.Account[:], b.Account[:]), a.Hour.Compare(b.Hour),
			cmp.Compare(a.Reason, b.Reason),
			cmp.Compare(a.Plan, b.Plan), cmp.Compare(a.ServedBy, b.ServedBy))
	})
	return all
}

// tellRefusals writes down what was refused. What the database does not take is counted on.
func (s *Service) tellRefusals(ctx context.Context) error {
	counted := s.refusals.take()
	if len(counted) == 0 {
		return nil
	}
	err := s.store.AddRefusals(ctx, counted)
	if err != nil {
		for i := range counted {
			s.refusals.add(&counted[i])
		}
	}
	return s.failed(ctx, err, "writing down what was refused failed, trying again")
}
