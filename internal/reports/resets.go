// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// ResetStore reads whose periods end when, and what the resets did. What it returns, limit of it at most, is in the
// order of the pages.
type ResetStore interface {
	// Resets reads accounts by the end of their open period, behind a place, and says what time it is. ErrNotFound for
	// a user or a team that is not known.
	Resets(ctx context.Context, f ResetFilter, behind Place, limit int) ([]Reset, time.Time, error)
	// ResetRuns reads runs of the reset of a plan, or of all for "", the last first, that started before a place.
	ResetRuns(ctx context.Context, plan string, before Place, limit int) ([]ResetRun, error)
}

// ResetFilter says which accounts are asked for. At most one of UserID and Team is given.
type ResetFilter struct {
	// Coming asks for those whose period goes on, instead of those whose period has ended and is not closed yet, and
	// Overdue only for those of the latter whom a run of their plan's reset should have closed by now.
	Coming, Overdue bool
	// Plan is the name of a plan, UserID a user and Team a team whose members are asked for; empty: all.
	Plan, UserID, Team string
}

// Reset is an account whose open period is to be closed, or has an end to come. Accounts without a plan, which are
// teams that only bound others, are none.
type Reset struct {
	Account quota.AccountID
	Level   quota.Level
	// Plan is the account's own, and Team the one that a user is in; empty without one.
	Plan, Team string
	No         int64
	Period     quota.Period
	// Used in the open period.
	Used quota.Credits
}

func (r *Reset) place() Place { return Place{At: r.Period.End, ID: r.Account} }

// ResetPage is a page of accounts in the order of the ends of their periods.
type ResetPage struct {
	Resets []Reset
	AsOf   time.Time
	// Next is where the next page begins; zero if this was the last.
	Next Place
}

// ResetRun is a run of the reset over the accounts of a plan.
type ResetRun struct {
	ID                 quota.ID
	Plan, Actor, State string
	// FinishedAt is zero while it runs. UpdatedAt is when it last said how far it has come.
	StartedAt, UpdatedAt, FinishedAt time.Time
	// Accounts of which Periods were closed, and Failures, of which none could be.
	Accounts, Periods, Failures int64
	Message                     string
}

// Resets returns at most limit (1 to MaxPage) accounts that are to be reset, or will be, behind a place. Whoever
// touches an account closes its period, so of those that are to be reset only the ones are there that nobody has
// touched.
func (s *Service) Resets(ctx context.Context, f ResetFilter, behind Place, limit int) (ResetPage, error) {
	if err := checkLimit(limit); err != nil {
		return ResetPage{}, err
	}
	all, now, err := s.store.Resets(ctx, f, behind, limit+1)
	page := ResetPage{Resets: all, AsOf: now}
	if len(all) > limit {
		page.Resets, page.Next = all[:limit], all[limit-1].place()
	}
	return page, err
}

// ResetRuns returns at most limit (1 to MaxPage) runs of a plan's reset, or for "" of all plans', the last first, that
// started before a place, and where the next page begins, zero if there is none.
func (s *Service) ResetRuns(
	ctx context.Context, plan string, before Place, limit int,
) (runs []ResetRun, next Place, err error) {
	if err := checkLimit(limit); err != nil {
		return nil, Place{}, err
	}
	runs, err = s.store.ResetRuns(ctx, plan, before, limit+1)
	if len(runs) > limit {
		last := &runs[limit-1]
		return runs[:limit], Place{At: last.StartedAt, ID: last.ID}, err
	}
	return runs, Place{}, err
}
