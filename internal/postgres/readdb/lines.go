// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/forecast"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/queue"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// mostSiblings bounds how many children of one parent are looked at for a place, and how many accounts below a team
	// for how fast its places are given, of which each tells eachStarts of its latest starts.
	mostSiblings  = 1000
	mostHistories = 500
	eachStarts    = 40
)

// LineAt implements queue.Store. What it reads is bounded: at each level the children that start no later, and some of
// the latest starts. All is as of now, not of one snapshot: nothing is decided by it.
func (s *Store) LineAt(ctx context.Context, path []quota.AccountID, nth int) (queue.Line, error) {
	team := path[len(path)-1]
	position, err := s.placeBelow(ctx, path, nth)
	if err != nil {
		return queue.Line{}, postgres.MapError(err)
	}
	line := queue.Line{Position: position}
	waiting, err := s.Queries().WaitingBelow(ctx, dbsqlc.WaitingBelowParams{Team: team, Most: mostSiblings + 1})
	if err != nil {
		return queue.Line{}, postgres.MapError(err)
	}
	if waiting.Children <= mostSiblings {
		line.Waiting = max(int(waiting.Waiting), position)
	}
	rows, err := s.Queries().StartsBelow(ctx, dbsqlc.StartsBelowParams{
		Team: team, Accounts: mostHistories + 1, Each: eachStarts,
	})
	line.History.Starts = startsOf(rows)
	return line, postgres.MapError(err)
}

// placeBelow returns the place of the nth of what the first of the path has waiting among all below the last; zero
// where it is not known.
func (s *Store) placeBelow(ctx context.Context, path []quota.AccountID, nth int) (int, error) {
	rows, err := s.Queries().TurnsOf(ctx, postgres.IDs[quota.ID](path))
	if err != nil {
		return 0, err
	}
	turns := map[quota.AccountID]*dbsqlc.QueueTurn{}
	for i := range rows {
		turns[rows[i].AccountID] = &rows[i]
	}
	place := nth
	for i, parent := range path[1:] {
		t := turns[path[i]]
		if t == nil || idOf(t.ParentID) != parent || place < 1 {
			return 0, nil // it has been moved, and not been looked at since
		}
		start := quota.Virtual{Units: t.StartUnits, Part: t.StartPart}
		own := quota.InLine{ID: t.AccountID, Start: start, Weight: t.Weight}
		last := own.Nth(place)
		others, err := s.Queries().TurnsBefore(ctx, dbsqlc.TurnsBeforeParams{
			Parent: parent, Units: last.Units, Part: last.Part, Account: t.AccountID, Most: mostSiblings + 1,
		})
		if err != nil || len(others) > mostSiblings {
			return 0, err
		}
		line := make([]quota.InLine, len(others))
		for j, o := range others {
			line[j] = quota.InLine{
				ID: o.AccountID, Start: quota.Virtual{Units: o.StartUnits, Part: o.StartPart}, Weight: o.Weight,
				Waiting: int(o.Waiting),
			}
		}
		place += own.Before(place, line)
	}
	return place, nil
}

// startsOf returns the latest of the starts, the latest first, as far back as all accounts have told theirs; none where
// there are too many accounts.
func startsOf(rows []dbsqlc.StartsBelowRow) []forecast.Start {
	told := map[quota.AccountID]int{}
	var whole time.Time // from here on nothing is missing
	starts := make([]forecast.Start, 0, len(rows))
	for _, r := range rows {
		// Each account's are the latest first: the last one that it may tell is its oldest.
		if told[r.UserID]++; told[r.UserID] == eachStarts && r.At.After(whole) {
			whole = r.At
		}
		starts = append(starts, forecast.Start{Since: r.Since.UTC(), At: r.At.UTC()})
	}
	if len(told) > mostHistories {
		return nil
	}
	starts = slices.DeleteFunc(starts, func(at forecast.Start) bool { return at.At.Before(whole) })
	slices.SortFunc(starts, func(a, b forecast.Start) int {
		return cmp.Or(b.At.Compare(a.At), b.Since.Compare(a.Since))
	})
	return starts[:min(len(starts), forecast.MaxStarts)]
}

// WaitingAccounts implements queue.Store.
func (s *Store) WaitingAccounts(
	ctx context.Context, team string, from quota.AccountID, limit int,
) ([]quota.AccountID, error) {
	id, err := s.teamID(ctx, team)
	if err != nil {
		return nil, err
	}
	ids, err := s.Queries().WaitingAccounts(ctx,
		dbsqlc.WaitingAccountsParams{Team: id, Since: from, Most: int32(limit)})
	return postgres.IDs[quota.AccountID](ids), postgres.MapError(err)
}
