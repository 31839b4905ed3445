// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// MaxPage is the most entries that one page has.
	MaxPage = 500
	// looked is how many admissions one page with a filter looks at, at least: many of them may be none of it.
	looked = 1000
)

// Spot is a place among all that waits: the accounts in the order of their ids, and in each first what waits for a
// slot, then what is parked, both in the order in which they start. The zero value stands before all.
type Spot struct {
	Account quota.AccountID
	Parked  bool
	ledger.Place
}

// Entry is one that waits.
type Entry struct {
	ID      quota.AdmissionID
	Account quota.AccountID
	UserID  string
	Source  quota.Source
	// Namespace and Name of its Job, or of its caller.
	Namespace, Name string
	// Reason is why it waits: as the store has it that of the last look at it, in a page that of now.
	Reason   quota.Reason
	Parked   bool
	Estimate quota.Credits
	FileSize int64
	ledger.Place
	// Since is when it began to wait.
	Since time.Time
	// Level is whose limit binds it now. Where the account cannot be read it is the user, and Reason stays as it was.
	Level quota.Level
	// Position is the place, from 1, among those of its level that wait for the same; zero where it is not known, or if
	// it has begun or ended since the page was read.
	Position int

	// path leads from the user's account to the level's; empty where the account cannot be read.
	path []quota.AccountID
}

func (e *Entry) spot() Spot { return Spot{Account: e.Account, Parked: e.Parked, Place: e.Place} }

// Queued is what a store reads of what waits.
type Queued struct {
	Entries []Entry
	// Now is the ledger's clock.
	Now time.Time
}

// Filter says what of the queue is asked for; the zero value is all of it.
type Filter struct {
	// UserID or Team is whose; one of them at most.
	UserID, Team string
	// Limit is the one that binds; empty for any.
	Limit quota.LimitName
}

// Waiting counts those of a level that wait for a limit.
type Waiting struct {
	Limit quota.LimitName
	Count int
	// More says that more wait than were counted.
	More bool
}

// LevelQueue is what waits for limits of a level. Counts are of all that does, Entries those of the page.
type LevelQueue struct {
	Level   quota.Level
	Counts  []Waiting
	Entries []Entry
}

// Page is part of what waits.
type Page struct {
	Levels []LevelQueue
	// Next is where the next page begins; the zero value if this was the last.
	Next Spot
	Now  time.Time
}

// List returns at most limit (1 to MaxPage) of what waits behind a place, each under the level whose limit binds it. A
// page may have fewer, even none, and a next one all the same, where a filter leaves out much. Pages go by places,
// which never change while an admission waits, and not by levels, which do: what waits from the first page to the last
// is in one of them, and in one only, whatever binds it by then.
func (s *Service) List(ctx context.Context, f Filter, after Spot, limit int) (Page, error) {
	if limit < 1 || limit > MaxPage {
		return Page{}, quota.Invalid("limit", "%d must be between 1 and %d", limit, MaxPage)
	}
	if f.UserID != "" {
		if err := ledger.ValidateUserID(f.UserID); err != nil {
			return Page{}, err
		}
	}
	most := limit + 1 // one more tells whether there is a next page
	if f.Limit != "" {
		most = max(looked, most)
	}
	found, err := s.read(ctx, f, after, most)
	if errors.Is(err, ledger.ErrNotFound) && f.UserID != "" {
		return Page{}, quota.Unknown(f.UserID, quota.UnknownUser)
	}
	if err != nil {
		return Page{}, err
	}
	known := standings{}
	if err := s.bind(ctx, found.Entries, known); err != nil {
		return Page{}, err
	}
	page := Page{Now: found.Now}
	var entries []Entry
	for i := range found.Entries {
		e := &found.Entries[i]
		if len(entries) == limit {
			// There is at least this one behind the last that was taken.
			page.Next = found.Entries[i-1].spot()
			break
		}
		if f.Limit == "" || e.Reason.Info().Limit == f.Limit {
			entries = append(entries, *e)
		}
	}
	if page.Next == (Spot{}) && len(found.Entries) == most {
		page.Next = found.Entries[most-1].spot()
	}
	page.Levels, err = s.levels(ctx, entries, known)
	return page, err
}

// read reads at most limit of what the filter names the users of.
func (s *Service) read(ctx context.Context, f Filter, after Spot, limit int) (Queued, error) {
	if f.Team == "" {
		return s.store.Queued(ctx, f.UserID, after, limit)
	}
	var out Queued
	// Each account has something: no more of them are read than a page has entries.
	accounts, err := s.store.WaitingAccounts(ctx, f.Team, after.Account, MaxPage+1)
	if err != nil {
		return Queued{}, err
	}
	out.Now = time.Now().UTC()
	for _, account := range accounts {
		if len(out.Entries) == limit {
			break
		}
		more, err := s.store.QueuedOf(ctx, account, after, limit-len(out.Entries))
		if err != nil {
			return Queued{}, err
		}
		out.Entries, out.Now = append(out.Entries, more.Entries...), more.Now
	}
	return out, nil
}

// levels puts the entries under their levels, in the order in which these come first.
func (s *Service) levels(ctx context.Context, entries []Entry, known standings) ([]LevelQueue, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	var accounts, teams, parents []quota.AccountID
	for i := range entries {
		e := &entries[i]
		accounts = append(accounts, e.Account)
		if e.Level.Kind == quota.LevelTeam {
			teams = append(teams, e.path[len(e.path)-1])
			parents = append(parents, e.path[1:]...)
		}
	}
	t, err := s.tally(ctx, unique(accounts), unique(teams), known, ofPage)
	if err != nil {
		return nil, err
	}
	var turns Turns
	if len(parents) > 0 {
		if turns, err = s.store.Turns(ctx, unique(parents)); err != nil {
			return nil, err
		}
	}
	var levels []LevelQueue
	for _, e := range entries {
		i := slices.IndexFunc(levels, func(l LevelQueue) bool { return l.Level == e.Level })
		if i < 0 {
			i = len(levels)
			levels = append(levels, LevelQueue{Level: e.Level, Counts: t.countsAt(e.Level)})
		}
		e.Position = t.position(&e, turns)
		levels[i].Entries = append(levels[i].Entries, e)
	}
	return levels, nil
}
