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
	// mostHistories bounds how many accounts below a team are asked how fast its places are given, of which each tells
	// eachStarts of its latest starts.
	mostHistories = 500
	eachStarts    = 40
)

// Line implements queue.Store. What it reads is bounded: as many children as are counted, and some of the latest
// starts. It is not of one snapshot: nothing is decided by it.
func (s *Store) Line(ctx context.Context, team quota.AccountID) (queue.Line, error) {
	var line queue.Line
	waiting, err := s.Queries().WaitingBelow(ctx, dbsqlc.WaitingBelowParams{Team: team, Most: queue.MostTurns + 1})
	if err != nil {
		return queue.Line{}, postgres.MapError(err)
	}
	if waiting.Children <= queue.MostTurns {
		line.Waiting = int(waiting.Waiting)
	}
	rows, err := s.Queries().StartsBelow(ctx, dbsqlc.StartsBelowParams{
		Team: team, Accounts: mostHistories + 1, Each: eachStarts,
	})
	line.History.Starts = startsOf(rows)
	return line, postgres.MapError(err)
}

// Turns implements queue.Store.
func (s *Store) Turns(ctx context.Context, parents []quota.AccountID) (queue.Turns, error) {
	rows, err := s.Queries().TurnsBelow(ctx, dbsqlc.TurnsBelowParams{
		Parents: postgres.IDs[quota.ID](parents), Most: queue.MostTurns + 1,
	})
	turns := queue.Turns{}
	for _, r := range rows {
		parent := idOf(r.ParentID)
		turns[parent] = append(turns[parent], quota.InLine{
			ID: r.AccountID, Start: quota.Virtual{Units: r.StartUnits, Part: r.StartPart}, Weight: r.Weight,
			Waiting: int(r.Waiting),
		})
	}
	return turns, postgres.MapError(err)
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
	return s.waitingBelow(ctx, []quota.AccountID{id}, from, limit)
}

// WaitingBelow implements queue.Store.
func (s *Store) WaitingBelow(ctx context.Context, teams []quota.AccountID, limit int) ([]quota.AccountID, error) {
	return s.waitingBelow(ctx, teams, quota.AccountID{}, limit)
}

func (s *Store) waitingBelow(
	ctx context.Context, teams []quota.AccountID, from quota.AccountID, limit int,
) ([]quota.AccountID, error) {
	ids, err := s.Queries().WaitingAccounts(ctx, dbsqlc.WaitingAccountsParams{
		Teams: postgres.IDs[quota.ID](teams), Since: from, Most: int32(limit),
	})
	return postgres.IDs[quota.AccountID](ids), postgres.MapError(err)
}
