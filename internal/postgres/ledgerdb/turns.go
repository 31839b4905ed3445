// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"context"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

func turnOf(r *dbsqlc.QueueTurn) quota.Turn {
	return quota.Turn{
		Start: quota.Virtual{Units: r.StartUnits, Part: r.StartPart},
		Now:   quota.Virtual{Units: r.NowUnits, Part: r.NowPart},
	}
}

func idOf(column *quota.ID) quota.ID {
	if column == nil {
		return quota.ID{}
	}
	return *column
}

// readTurns keeps the turns of the batch's accounts, and of those that are next and none of them.
func (b *batch) readTurns(rows []dbsqlc.QueueTurn) {
	for i := range rows {
		r := &rows[i]
		if l := b.ledgers[r.AccountID]; l != nil {
			b.loaded[r.AccountID].turn = r
			l.Turn = ledger.Turn{Turn: turnOf(r), Weight: r.Weight, Runnable: r.Runnable}
		} else if r.Runnable {
			b.outside = append(b.outside, *r)
		}
	}
}

// turns puts the others that are next below the teams of the batch where they belong. Whoever is below another account
// than when its turn was written comes to that one anew: its place was one in another's time.
func (s *Store) turns(b *batch) {
	for id, l := range b.ledgers {
		if l.Cut {
			continue
		}
		var parent quota.AccountID
		if up := l.Above[0]; up != nil {
			parent = up.Account.ID
		}
		if was := b.loaded[id].turn; was != nil && idOf(was.ParentID) != parent {
			l.Turn.Start, l.Turn.Runnable = quota.Virtual{}, false
		}
	}
	others := make(map[quota.AccountID]*quota.Waiting, len(b.outside))
	for i := range b.outside {
		r := &b.outside[i]
		others[r.AccountID] = ledger.Outside(r.AccountID, turnOf(r), r.Weight)
	}
	for i := range b.outside {
		r := &b.outside[i]
		w, parent := others[r.AccountID], quota.AccountID(idOf(r.ParentID))
		switch up, team := others[parent], b.ledgers[parent]; {
		case up != nil:
			up.Heads, up.Below = nil, append(up.Below, w)
		case team != nil:
			team.Below = append(team.Below, w)
		}
		b.hangs(r.AccountID, parent, nil)
	}
	for id, w := range others {
		if len(w.Below) == 0 && !s.trees.knows(id) {
			// Its batch is the next one: it finds those above it locked at once.
			path, _ := b.up(b.parents, id)
			s.trees.learn(id, path)
		}
	}
}

func seenBelow(rows []dbsqlc.LoadWaitingBelowRow) []ledger.Seen {
	seen := make([]ledger.Seen, len(rows))
	for i, r := range rows {
		seen[i] = ledger.Seen{Account: r.AccountID, Helped: r.Helped, More: r.More}
	}
	return seen
}

// walk queues the walks.
func (b *batch) walk(ctx context.Context, t *postgres.RoundTrip, walks []ledger.Walk) error {
	for _, w := range walks {
		if err := t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadWaitingBelow(ctx, dbsqlc.LoadWaitingBelowParams{
				Team: w.Team, After: w.After, Credits: int64(w.Credits),
				Most: ledger.WalkPage, Look: ledger.WalkLook,
			})
			if l := b.ledgers[w.Team]; l != nil {
				l.Walked(w, seenBelow(rows))
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}
