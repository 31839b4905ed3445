// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"math"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// MaxPage is the most teams, shares or members that one page has.
	MaxPage = 500
	// inlineShares is how many shares each period of a team's history has at most.
	inlineShares = 100
)

// Share is what a user has used of a team's period: the credits of its events that are booked there.
type Share struct {
	Account quota.AccountID
	UserID  string
	Used    quota.Credits
}

// Member is a user below a team.
type Member struct {
	// Share of the team's open period.
	Share

	// Team that the user is in, by name: the one that was asked for or one below it; empty of who is below the root for
	// want of one.
	Team            string
	Running, Queued int32
}

// TeamPeriod is a team's period with a page of the shares in it, which add up to what the team has used.
type TeamPeriod struct {
	Period HistoryPeriod
	Shares []Share
	// Next is whom the next page begins behind; zero if this page was the last.
	Next quota.AccountID
	Now  time.Time
}

// TeamHistory is a page of a team's periods, each with its first shares.
type TeamHistory struct {
	History

	Shares map[int64][]Share
	// More has for each period with more shares whom those begin behind.
	More map[int64]quota.AccountID
}

// Members are a page of a team's.
type Members struct {
	Members []Member
	// Next is whom the next page begins behind; zero if this page was the last.
	Next quota.AccountID
	Now  time.Time
}

// TeamStore reads what teams are asked for. ErrNotFound if the team is not known.
type TeamStore interface {
	// TeamAccount reads the team's account.
	TeamAccount(ctx context.Context, team string) (quota.AccountID, error)
	// TeamNames reads at most limit names behind one, in their order.
	TeamNames(ctx context.Context, after string, limit int) ([]string, error)
	// TeamPeriods reads as Periods does, and the first shares of each of these periods and of the open one.
	TeamPeriods(
		ctx context.Context, team string, before int64, limit, shares int,
	) (ledger.Usage, []StoredPeriod, map[int64][]Share, error)
	// TeamShares reads a standing and, in the same snapshot, the closed period with the number, if there is one, and at
	// most limit shares in it of users behind one. Without a number it is the open one, as it is stored.
	TeamShares(
		ctx context.Context, team string, period *int64, after quota.AccountID, limit int,
	) (ledger.Usage, []StoredPeriod, []Share, error)
	// TeamMembers reads at most limit users below the team behind one, in the order of their accounts.
	TeamMembers(
		ctx context.Context, team string, after quota.AccountID, limit int,
	) ([]Member, time.Time, error)
}

// TeamNames returns at most limit (1 to MaxPage) names of teams behind one, all for an empty one, and whether there are
// more.
func (s *Service) TeamNames(ctx context.Context, after string, limit int) (names []string, more bool, err error) {
	if err := checkLimit(limit); err != nil {
		return nil, false, err
	}
	names, err = s.store.TeamNames(ctx, after, limit+1)
	if len(names) > limit {
		return names[:limit], true, err
	}
	return names, false, err
}

// TeamPeriod returns a team's period, the open one for nil, and at most limit (1 to MaxPage) of the shares in it, of
// users behind one.
func (s *Service) TeamPeriod(
	ctx context.Context, team string, period *int64, after quota.AccountID, limit int,
) (TeamPeriod, error) {
	if err := checkLimit(limit); err != nil {
		return TeamPeriod{}, err
	}
	u, stored, shares, err := s.store.TeamShares(ctx, team, period, after, limit+1)
	if err != nil {
		return TeamPeriod{}, err
	}
	open := u.Account.PeriodNo
	before := int64(math.MaxInt64)
	if period != nil {
		before = *period + 1
	}
	h := history(u, stored, before, 1)
	if len(h.Periods) == 0 || period != nil && h.Periods[0].No != *period {
		return TeamPeriod{}, quota.NotFound("period %d of team %q, whose periods are 0 to %d", *period, team,
			u.Account.PeriodNo)
	}
	out := TeamPeriod{Period: h.Periods[0], Shares: shares, Now: h.Now}
	if period == nil && out.Period.No != open {
		out.Shares = nil // those are of a period that has ended meanwhile
	}
	out.Shares, out.Next = page(out.Shares, limit, func(s *Share) quota.AccountID { return s.Account })
	return out, nil
}

// TeamHistory returns at most limit (1 to MaxHistory) of the team's periods with numbers below before, as History does
// of a user's.
func (s *Service) TeamHistory(ctx context.Context, team string, before int64, limit int) (TeamHistory, error) {
	before, err := checkPage(before, limit)
	if err != nil {
		return TeamHistory{}, err
	}
	u, stored, shares, err := s.store.TeamPeriods(ctx, team, before, limit+1, inlineShares+1)
	if err != nil {
		return TeamHistory{}, err
	}
	out := TeamHistory{History: history(u, stored, before, limit), Shares: shares, More: map[int64]quota.AccountID{}}
	for no, list := range shares {
		var next quota.AccountID
		shares[no], next = page(list, inlineShares, func(s *Share) quota.AccountID { return s.Account })
		if next != (quota.AccountID{}) {
			out.More[no] = next
		}
	}
	return out, nil
}

// TeamMembers returns at most limit (1 to MaxPage) of the users below a team behind one.
func (s *Service) TeamMembers(ctx context.Context, team string, after quota.AccountID, limit int) (Members, error) {
	if err := checkLimit(limit); err != nil {
		return Members{}, err
	}
	members, now, err := s.store.TeamMembers(ctx, team, after, limit+1)
	if err != nil {
		return Members{}, err
	}
	out := Members{Now: now}
	out.Members, out.Next = page(members, limit, func(m *Member) quota.AccountID { return m.Account })
	return out, nil
}

// page cuts what was read, one more than asked for, and returns whom the next page begins behind.
func page[T any](rows []T, limit int, account func(*T) quota.AccountID) ([]T, quota.AccountID) {
	if len(rows) <= limit {
		return rows, quota.AccountID{}
	}
	return rows[:limit], account(&rows[limit-1])
}

func checkLimit(limit int) error {
	if limit < 1 || limit > MaxPage {
		return quota.Invalid("limit", "%d must be between 1 and %d", limit, MaxPage)
	}
	return nil
}

// checkPage checks what asks for a page of periods, and returns the number that those of the page are below.
func checkPage(before int64, limit int) (int64, error) {
	switch {
	case limit < 1 || limit > MaxHistory:
		return 0, quota.Invalid("limit", "%d must be between 1 and %d", limit, MaxHistory)
	case before < 0:
		return 0, quota.Invalid("before", "periods have numbers from 0 on, there are none below %d", before)
	case before == 0:
		return math.MaxInt64, nil
	}
	return before, nil
}
