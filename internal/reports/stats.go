// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Stats are what a user's latest periods come to.
type Stats struct {
	// Open is the open period, and Closed are those before it that are counted, the newest first.
	Open   HistoryPeriod
	Closed []HistoryPeriod
	// Used is all of them together, and Amounts are what they cost, by currency; currencies are never added.
	Used    quota.Credits
	Amounts []quota.Amounts
	// Average is that of a closed period, and Most and Least are the closed ones in which most and least was used, of
	// equal ones the newest; zero and nil where none has closed.
	Average     quota.Credits
	Most, Least *HistoryPeriod
	// Lasted is how much of the open period has passed, of Lasts.
	Lasted, Lasts time.Duration
	Now           time.Time
}

// Stats sums up the user's open period and at most months (1 to MaxHistory - 1) before it. It reads periods, which are
// few, and no events.
func (s *Service) Stats(ctx context.Context, userID string, months int) (Stats, error) {
	if months < 1 || months >= MaxHistory {
		return Stats{}, quota.Invalid("months", "%d must be between 1 and %d", months, MaxHistory-1)
	}
	h, err := s.History(ctx, userID, 0, months+1)
	if err != nil {
		return Stats{}, err
	}
	return statsOf(h), nil
}

// statsOf sums up periods of which the first is the open one.
func statsOf(h History) Stats {
	s := Stats{Open: h.Periods[0], Closed: h.Periods[1:], Now: h.Now}
	s.Lasts = s.Open.Period.End.Sub(s.Open.Period.Start)
	s.Lasted = min(max(0, h.Now.Sub(s.Open.Period.Start)), s.Lasts)
	var closed quota.Credits
	place := map[string]int{}
	for i := range h.Periods {
		p := &h.Periods[i]
		s.Used = s.Used.Add(p.Used)
		for _, m := range p.Money() {
			at, there := place[m.Currency]
			if !there {
				at = len(s.Amounts)
				place[m.Currency], s.Amounts = at, append(s.Amounts, quota.Amounts{Currency: m.Currency})
			}
			sum := &s.Amounts[at]
			sum.Cost, sum.Charged = sum.Cost.Add(m.Cost), sum.Charged.Add(m.Charged)
		}
		if i == 0 {
			continue
		}
		closed = closed.Add(p.Used)
		if s.Most == nil || p.Used > s.Most.Used {
			s.Most = p
		}
		if s.Least == nil || p.Used < s.Least.Used {
			s.Least = p
		}
	}
	if n := len(s.Closed); n > 0 {
		s.Average = closed / quota.Credits(n)
	}
	return s
}

// Period returns one of the user's periods, the open one for nil, and when that was.
func (s *Service) Period(
	ctx context.Context, userID string, period *int64,
) (p HistoryPeriod, now time.Time, err error) {
	before := int64(0)
	if period != nil {
		before = *period + 1
	}
	h, err := s.History(ctx, userID, before, 1)
	if err != nil {
		return HistoryPeriod{}, h.Now, err
	}
	if len(h.Periods) == 0 || period != nil && h.Periods[0].No != *period {
		return HistoryPeriod{}, h.Now, quota.NotFound("period %d of user %q", *period, userID)
	}
	return h.Periods[0], h.Now, nil
}
