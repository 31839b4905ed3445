// SPDX-License-Identifier: Apache-2.0

// Package queue shows who waits for what, at which place and until when. All of it is worked out when somebody asks;
// nothing is kept or written for it.
package queue

import (
	"context"
	"errors"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/forecast"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Place is where a queued admission stands.
type Place struct {
	// Decision is what binds, with its level and its numbers.
	Decision quota.Decision
	// On are the accounts that the numbers are from.
	On quota.Chain
	// Position is the place, from 1, among the Waiting ones that wait at the level for the same; both are zero where
	// what binds has changed since the admission was last looked at, which the next batch does.
	Position, Waiting int
	// Start is when it is to be expected to start; nil where history is too thin to tell, or where it waits for
	// something other than a slot.
	Start *forecast.Range
	// Now is the ledger's clock, as of which all this is.
	Now time.Time
}

// Look is what a place is told from, as of one moment.
type Look struct {
	// Usage is the user's standing, not rolled.
	Usage ledger.Usage
	// Position and Waiting are as in Place, by what the admission waited for when it was last looked at.
	Position, Waiting int
	// History is how the queue has moved, with as many starts as a forecast needs at most.
	History forecast.History
}

// Line is what waits for the slots of a team.
type Line struct {
	// Waiting is how many do, zero where they are too many to count.
	Waiting int
	// History is that of all below the team, as in Look; nothing where too many are below it.
	History forecast.History
}

// Store reads queues. Its errors wrap those of package ledger.
type Store interface {
	Places
	Teams

	// Queued reads, in the order of places, at most limit queued admissions behind the place, of one user or, where the
	// name is empty, of all; ErrNotFound if that user is not known. Places of another user than that are before all.
	Queued(ctx context.Context, userID string, after Spot, limit int) (Queued, error)
	// QueuedOf reads as Queued, of one account.
	QueuedOf(ctx context.Context, account quota.AccountID, after Spot, limit int) (Queued, error)
	// QueuedAt reads, in the order of places, at most limit of what waits at some accounts, without what it is called.
	QueuedAt(ctx context.Context, accounts []quota.AccountID, limit int) ([]Entry, error)
}

// Places are what a place is told from.
type Places interface {
	// Look reads where a queued admission stands; ErrNotFound if its user is not known.
	Look(ctx context.Context, adm *ledger.Admission) (Look, error)
	// Accounts reads the standings of users, not rolled, by user id; those that are not known are left out.
	Accounts(ctx context.Context, userIDs []string) (map[string]ledger.Usage, error)
}

// Teams are what waits below teams.
type Teams interface {
	// Line reads what waits for the slots of a team.
	Line(ctx context.Context, team quota.AccountID) (Line, error)
	// Turns reads the turns below some parents.
	Turns(ctx context.Context, parents []quota.AccountID) (Turns, error)
	// WaitingAccounts reads at most limit accounts below a team with something that waits, in the order of their ids
	// and from one on; ErrNotFound if the team is not known. WaitingBelow reads those below several teams.
	WaitingAccounts(ctx context.Context, team string, from quota.AccountID, limit int) ([]quota.AccountID, error)
	WaitingBelow(ctx context.Context, teams []quota.AccountID, limit int) ([]quota.AccountID, error)
}

// Service shows queues. It is safe for concurrent use.
type Service struct{ store Store }

// New returns a service that reads from the store.
func New(store Store) *Service { return &Service{store: store} }

// PlaceOf returns where an admission stands, and nil unless it is queued. It is nil too where the user's account cannot
// be read, which the store has reported, and where the user is gone.
func (s *Service) PlaceOf(ctx context.Context, adm *ledger.Admission) (*Place, error) {
	if adm.State != quota.Queued {
		return nil, nil
	}
	look, err := s.store.Look(ctx, adm)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case look.Usage.Unreadable != nil:
		return nil, nil //nolint:nilerr // the store has reported it
	}
	u := look.Usage
	roll(&u)
	p := &Place{Decision: u.Chain().Binding(&adm.Admission, u.Now), On: u.Chain(), Now: u.Now}
	if p.Decision.Reason.Info().Limit != adm.Reason.Info().Limit {
		return p, nil
	}
	history, above := look.History, p.Decision.Level.Kind == quota.LevelTeam
	switch {
	case above && adm.Parked:
		return p, s.placeParked(ctx, adm, u, p)
	case above:
		if history, err = s.placeInLine(ctx, look.Position, p); err != nil {
			return nil, err
		}
	default:
		p.Position, p.Waiting = look.Position, look.Waiting
	}
	if adm.Parked {
		return p, nil
	}
	if r, ok := forecast.Turn(history, p.Position, u.Now); ok {
		p.Start = &r
	}
	return p, nil
}

// placeInLine tells the place among what waits for the slots of a team, of the nth that the user has waiting for one,
// and returns how these are given.
func (s *Service) placeInLine(ctx context.Context, nth int, p *Place) (forecast.History, error) {
	path := pathTo(p.On, p.Decision.Level)
	turns, err := s.store.Turns(ctx, path[1:])
	if err != nil {
		return forecast.History{}, err
	}
	line, err := s.store.Line(ctx, path[len(path)-1])
	p.Position = turns.place(path, nth)
	if line.Waiting > 0 {
		p.Waiting = max(line.Waiting, p.Position)
	}
	return line.History, err
}

// placeParked tells the place among what waits for a limit of a team other than its slots.
func (s *Service) placeParked(ctx context.Context, adm *ledger.Admission, u ledger.Usage, p *Place) error {
	path := pathTo(p.On, p.Decision.Level)
	t, err := s.tally(ctx, []quota.AccountID{adm.Account}, path[len(path)-1:], standings{adm.UserID: u}, ofPlace)
	if err != nil {
		return err
	}
	e := &Entry{ID: adm.ID, Reason: p.Decision.Reason, Level: p.Decision.Level, Parked: true, path: path}
	p.Position = t.position(e, nil)
	if !t.moreBelow {
		p.Waiting = t.counts[e.group()]
	}
	return nil
}

// pathTo returns the accounts of the chain from the user's to the level's.
func pathTo(on quota.Chain, level quota.Level) []quota.AccountID {
	var path []quota.AccountID
	for _, a := range on.Accounts() {
		if path = append(path, a.ID); a.Level() == level {
			break
		}
	}
	return path
}
