// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// reach is how much is looked at to count what waits.
type reach struct {
	// accounts below teams, and admissions of accounts that are asked for, and as many again of those below.
	accounts, admissions int
}

// The reach of a page for operators, and that of a place, which everybody may ask for again and again.
var (
	ofPage  = reach{accounts: 1000, admissions: 10_000}
	ofPlace = reach{accounts: 200, admissions: 2000}
)

// standings are users' standings by user id, rolled.
type standings map[string]ledger.Usage

// bind tells of each entry whose limit binds it now, by the standings, to which it adds those that are not known.
// Entries of a user follow each other.
func (s *Service) bind(ctx context.Context, entries []Entry, known standings) error {
	var users []string
	for i := range entries {
		user := entries[i].UserID
		if _, there := known[user]; !there && (len(users) == 0 || users[len(users)-1] != user) {
			users = append(users, user)
		}
	}
	if len(users) > 0 {
		found, err := s.store.Accounts(ctx, users)
		if err != nil {
			return err
		}
		for _, u := range found {
			if u.Unreadable == nil {
				roll(&u)
			}
		}
		maps.Copy(known, found)
	}
	for i := range entries {
		e := &entries[i]
		e.Level = quota.Level{Kind: quota.LevelUser, Name: e.UserID}
		u, there := known[e.UserID]
		if !there || u.Unreadable != nil {
			continue
		}
		on := u.Chain()
		d := on.Binding(&quota.Admission{Request: quota.Request{Estimate: e.Estimate, FileSize: e.FileSize}}, u.Now)
		e.Reason, e.Level = d.Reason, d.Level
		e.path = pathTo(on, d.Level)
	}
	return nil
}

func roll(u *ledger.Usage) {
	for _, a := range u.Chain().Accounts() {
		a.Roll(u.Now)
	}
}

// group are those that wait for one limit of one level.
type group struct {
	level quota.Level
	limit quota.LimitName
}

func (e *Entry) group() group { return group{level: e.Level, limit: e.Reason.Info().Limit} }

// tally counts what waits at some accounts and below some teams.
type tally struct {
	counts map[group]int
	// places are those in the order of the accounts' ids, and in each in that of its queue; slots are the places
	// among those of the same user that wait for a slot.
	places, slots map[quota.AdmissionID]int
	// deep are those groups of which some wait below a team of the level.
	deep map[group]bool
	// moreAt says that not all of the accounts was looked at, moreBelow so of the teams.
	moreAt, moreBelow bool
}

// tally looks at what waits at the accounts, which are in order, and below the teams.
func (s *Service) tally(
	ctx context.Context, accounts, teams []quota.AccountID, known standings, most reach,
) (*tally, error) {
	t := &tally{
		counts: map[group]int{}, places: map[quota.AdmissionID]int{}, slots: map[quota.AdmissionID]int{},
		deep: map[group]bool{},
	}
	waits, cut, err := s.queuedAt(ctx, accounts, most.admissions)
	if err != nil {
		return nil, err
	}
	t.moreAt, t.moreBelow = cut, cut
	if len(teams) > 0 {
		below, err := s.store.WaitingBelow(ctx, teams, most.accounts+1)
		if err != nil {
			return nil, err
		}
		cut := len(below) > most.accounts
		below = slices.DeleteFunc(below[:min(len(below), most.accounts)], func(id quota.AccountID) bool {
			_, there := slices.BinarySearchFunc(accounts, id, compareIDs)
			return there
		})
		others, cutToo, err := s.queuedAt(ctx, below, most.admissions)
		if err != nil {
			return nil, err
		}
		t.moreBelow = t.moreBelow || cut || cutToo
		waits = append(waits, others...)
		slices.SortStableFunc(waits, func(a, b Entry) int { return compareIDs(a.Account, b.Account) })
	}
	if err := s.bind(ctx, waits, known); err != nil {
		return nil, err
	}
	t.add(waits)
	return t, nil
}

// queuedAt reads at most limit of what waits at the accounts, and tells whether there is more.
func (s *Service) queuedAt(ctx context.Context, accounts []quota.AccountID, limit int) ([]Entry, bool, error) {
	if len(accounts) == 0 {
		return nil, false, nil
	}
	waits, err := s.store.QueuedAt(ctx, accounts, limit+1)
	return waits[:min(len(waits), limit)], len(waits) > limit, err
}

func (t *tally) add(waits []Entry) {
	var account quota.AccountID
	slots := 0
	for i := range waits {
		e := &waits[i]
		if e.Account != account {
			account, slots = e.Account, 0
		}
		if !e.Parked {
			slots++
			t.slots[e.ID] = slots
		}
		g := e.group()
		t.counts[g]++
		t.places[e.ID] = t.counts[g]
		if len(e.path) > 2 {
			t.deep[g] = true
		}
	}
}

// more reports whether more waits at a level than was counted.
func (t *tally) more(level quota.Level) bool {
	if level.Kind == quota.LevelTeam {
		return t.moreBelow
	}
	return t.moreAt
}

// countsAt returns what waits for each limit of a level, in the order of the limits' names.
func (t *tally) countsAt(level quota.Level) []Waiting {
	var out []Waiting
	for g, n := range t.counts {
		if g.level == level {
			out = append(out, Waiting{Limit: g.limit, Count: n, More: t.more(level)})
		}
	}
	slices.SortFunc(out, func(a, b Waiting) int { return cmp.Compare(a.Limit, b.Limit) })
	return out
}

// position returns the place of an entry in its group, zero where it is not known.
//
// For the slots of a team it is that of the fair order. What waits for another limit of a team is looked at, when the
// team has more, in the order of the accounts' ids, each in the order of its queue (see ledger.Walk). Those below a
// team of the team come when a walk of their own does, which depends on what else there is to do; and a new day finds
// all of them at once.
func (t *tally) position(e *Entry, turns Turns) int {
	g := e.group()
	switch {
	case g.level.Kind == quota.LevelUser:
		return t.places[e.ID]
	case g.limit == quota.LimitConcurrent:
		return turns.place(e.path, t.slots[e.ID])
	case g.limit == quota.LimitDailyCost || t.moreBelow || t.deep[g]:
		return 0
	}
	return t.places[e.ID]
}

// MostTurns is how many children of one parent are looked at for a place.
const MostTurns = 1000

// Turns are the first children of each parent that could run, in the order in which it is their turn: one more than
// MostTurns where there are more.
type Turns map[quota.AccountID][]quota.InLine

// place returns the place of the nth of what the first of the path has waiting among all below the last; zero where it
// is not known. The path leads from a user's account to a team's.
func (t Turns) place(path []quota.AccountID, nth int) int {
	place := nth
	for i, parent := range path[1:] {
		line := t[parent]
		at := slices.IndexFunc(line, func(l quota.InLine) bool { return l.ID == path[i] })
		if at < 0 || place < 1 {
			return 0 // too far back; or it has been moved, or could not run when it was last looked at
		}
		if len(line) > MostTurns && line[len(line)-1].Start.Compare(line[at].Nth(place)) <= 0 {
			return 0
		}
		place += line[at].Before(place, line)
	}
	return place
}

func unique(ids []quota.AccountID) []quota.AccountID {
	slices.SortFunc(ids, compareIDs)
	return slices.Compact(ids)
}

func compareIDs(a, b quota.AccountID) int { return bytes.Compare(a[:], b[:]) }
