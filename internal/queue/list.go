// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"cmp"
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
	// looked is how many admissions one page looks at, at least: with a filter many of them may be none of it.
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
	// Reason is why it waits, by when it was last looked at.
	Reason   quota.Reason
	Parked   bool
	Estimate quota.Credits
	ledger.Place
	// Since is when it began to wait.
	Since time.Time
	// Position is the place, from 1, among those of its level that wait for the same; zero if it has begun or ended
	// since the page was read.
	Position int
}

func (e *Entry) spot() Spot { return Spot{Account: e.Account, Parked: e.Parked, Place: e.Place} }

// Queued is what a store reads of what waits.
type Queued struct {
	Entries []Entry
	// Now is the ledger's clock.
	Now time.Time
}

// Group counts those of an account that wait for one reason.
type Group struct {
	Account quota.AccountID
	Reason  quota.Reason
	Waiting int
}

// Counts are what waits at some accounts.
type Counts struct {
	Groups    []Group
	Positions map[quota.AdmissionID]int
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
}

// LevelQueue is what waits at a level. Counts are of all that does, Entries those of the page.
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

// List returns at most limit (1 to MaxPage) of what waits behind a place, level by level. A page may have fewer, even
// none, and a next one all the same, where a filter leaves out much. Places never change while an admission waits, so
// that pages fit together: what waits from the first page to the last is in one of them, and in one only.
func (s *Service) List(ctx context.Context, f Filter, after Spot, limit int) (Page, error) {
	if limit < 1 || limit > MaxPage {
		return Page{}, quota.Invalid("limit", "%d must be between 1 and %d", limit, MaxPage)
	}
	if f.UserID != "" {
		if err := ledger.ValidateUserID(f.UserID); err != nil {
			return Page{}, err
		}
	}
	most := max(looked, limit)
	found, err := s.read(ctx, f, after, most)
	if errors.Is(err, ledger.ErrNotFound) && f.UserID != "" {
		return Page{}, quota.Unknown(f.UserID, quota.UnknownUser)
	}
	if err != nil {
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
	page.Levels, err = s.levels(ctx, entries)
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

// levels puts the entries, which are in order, under their levels.
func (s *Service) levels(ctx context.Context, entries []Entry) ([]LevelQueue, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	var levels []LevelQueue
	var accounts []quota.AccountID
	ids := make([]quota.AdmissionID, len(entries))
	for i := range entries {
		ids[i] = entries[i].ID
		if !slices.Contains(accounts[max(0, len(accounts)-1):], entries[i].Account) {
			accounts = append(accounts, entries[i].Account)
			levels = append(levels, LevelQueue{Level: quota.Level{Kind: quota.LevelUser, Name: entries[i].UserID}})
		}
	}
	counts, err := s.store.Counts(ctx, accounts, ids)
	if err != nil {
		return nil, err
	}
	for _, g := range counts.Groups {
		if i := slices.Index(accounts, g.Account); i >= 0 {
			levels[i].count(g.Reason.Info().Limit, g.Waiting)
		}
	}
	at := 0
	for _, e := range entries {
		if accounts[at] != e.Account {
			at++
		}
		e.Position = counts.Positions[e.ID]
		levels[at].Entries = append(levels[at].Entries, e)
	}
	return levels, nil
}

// count adds to the counts, which are in the order of the limits' names.
func (l *LevelQueue) count(limit quota.LimitName, n int) {
	i, there := slices.BinarySearchFunc(l.Counts, limit, func(w Waiting, name quota.LimitName) int {
		return cmp.Compare(w.Limit, name)
	})
	if !there {
		l.Counts = slices.Insert(l.Counts, i, Waiting{Limit: limit})
	}
	l.Counts[i].Count += n
}
