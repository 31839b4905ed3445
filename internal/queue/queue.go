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

// Line is where something stands among what waits for the slots of a team.
type Line struct {
	// Position is the place, from 1, zero where too many are in front to count them; Waiting is how many wait.
	Position, Waiting int
	// History is that of all below the team, as in Look; nothing where too many are below it.
	History forecast.History
}

// Store reads queues. Its errors wrap those of package ledger.
type Store interface {
	// LineAt reads the place of the nth (from 1) of what a user has waiting among what waits for a slot of a team. The
	// path leads from the user's account to the team's.
	LineAt(ctx context.Context, path []quota.AccountID, nth int) (Line, error)
	// WaitingAccounts reads at most limit accounts below a team with something that waits, in the order of their ids
	// and from one on; ErrNotFound if the team is not known.
	WaitingAccounts(ctx context.Context, team string, from quota.AccountID, limit int) ([]quota.AccountID, error)
	// QueuedOf reads as Queued, of one account.
	QueuedOf(ctx context.Context, account quota.AccountID, after Spot, limit int) (Queued, error)
	// Look reads where a queued admission stands; ErrNotFound if its user is not known.
	Look(ctx context.Context, adm *ledger.Admission) (Look, error)
	// Queued reads, in the order of places, at most limit queued admissions behind the place, of one user or, where the
	// name is empty, of all; ErrNotFound if that user is not known. Places of another user than that are before all.
	Queued(ctx context.Context, userID string, after Spot, limit int) (Queued, error)
	// Counts reads, as of one moment, what waits at the accounts, and the positions of the admissions there.
	Counts(ctx context.Context, accounts []quota.AccountID, admissions []quota.AdmissionID) (Counts, error)
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
	for _, a := range u.Chain().Accounts() {
		a.Roll(u.Now)
	}
	p := &Place{Decision: u.Chain().Binding(&adm.Admission, u.Now), On: u.Chain(), Now: u.Now}
	if p.Decision.Reason.Info().Limit != adm.Reason.Info().Limit {
		return p, nil
	}
	history, above := look.History, p.Decision.Level.Kind == quota.LevelTeam
	switch {
	case above && adm.Parked:
		// What is parked below a team stands in no line: all of it is looked at anew when the team has more.
		return p, nil
	case above:
		line, err := s.store.LineAt(ctx, pathTo(u.Chain(), p.Decision.Level), look.Position)
		if err != nil {
			return nil, err
		}
		p.Position, p.Waiting, history = line.Position, line.Waiting, line.History
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
