// SPDX-License-Identifier: Apache-2.0

// Package reports answers what a user asks about the past.
package reports

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// PeriodState says what may still happen to a period.
type PeriodState string

// The states of a period, in their order.
const (
	// PeriodOpen contains the present.
	PeriodOpen PeriodState = "Open"
	// PeriodClosed has ended and still takes the charges of its own work.
	PeriodClosed PeriodState = "Closed"
	// PeriodFinal takes nothing more.
	PeriodFinal PeriodState = "Final"
)

// StoredPeriod is a closed period with how often it has changed since its close.
type StoredPeriod struct {
	quota.ClosedPeriod

	Revision int32
}

// HistoryPeriod is one period of a user, open or closed.
type HistoryPeriod struct {
	StoredPeriod

	State PeriodState
	// FinalAt is the instant from which the period takes nothing more.
	FinalAt time.Time
}

// History is a page of a user's periods, the newest first.
type History struct {
	Periods []HistoryPeriod
	// Before is where the next page begins: it has the periods with numbers below it. Zero if this page was the last.
	Before int64
	Now    time.Time
}

// Store reads closed periods, and what teams have used. Its errors wrap those of package ledger.
type Store interface {
	TeamStore
	AlertStore
	SearchStore
	ResetStore
	Sums

	// Periods reads a standing and, in the same snapshot, at most limit closed periods with numbers below before, the
	// newest first. ErrNotFound if the user is not known.
	Periods(ctx context.Context, userID string, before int64, limit int) (ledger.Usage, []StoredPeriod, error)
}

// Sums reads what was summed up.
type Sums interface {
	AnalyticsStore
	LargestStore
	TotalsStore
	OperatorsStore
	SimulationStore
}

// Standings say where users stand who have no account yet.
type Standings interface {
	Current(ctx context.Context, userID string) (ledger.Usage, error)
}

// Service reads reports. It is safe for concurrent use.
type Service struct {
	store     Store
	summed    Sums
	standings Standings
}

// New returns a service that reads from the store.
func New(store Store, standings Standings) *Service { return NewBeside(store, store, standings) }

// NewBeside is New for sums that are read elsewhere, from a copy that may be behind: answers say how far it is.
func NewBeside(store Store, summed Sums, standings Standings) *Service {
	return &Service{store: store, summed: summed, standings: standings}
}

// MaxHistory is the most periods that one page has.
const MaxHistory = 100

// History returns at most limit (1 to MaxHistory) of the user's periods with numbers below before, all of them for
// zero: the open one and, back in time, those that have closed. Like every read it is rolled to now: a period whose end
// has passed is closed in it whether or not anything has touched the account. Periods never change their numbers, so
// pages fit together however much happens between them.
func (s *Service) History(ctx context.Context, userID string, before int64, limit int) (History, error) {
	before, err := checkPage(before, limit)
	if err != nil {
		return History{}, err
	}
	if err := ledger.ValidateUserID(userID); err != nil {
		return History{}, err
	}
	// One more than asked for tells whether there is a next page.
	u, stored, err := s.store.Periods(ctx, userID, before, limit+1)
	if errors.Is(err, ledger.ErrNotFound) {
		// Where the service would make an account, its first period is the history.
		u, err = s.standings.Current(ctx, userID)
	}
	if err != nil {
		return History{}, err
	}
	return history(u, stored, before, limit), nil
}

// history makes a page of the periods with numbers below before, of a standing as it is stored and the closed periods
// that are.
func history(u ledger.Usage, stored []StoredPeriod, before int64, limit int) History {
	h := History{Now: u.Now}
	a := u.Account
	closed := a.Roll(u.Now)
	if a.PeriodNo < before {
		h.add(StoredPeriod{ClosedPeriod: quota.ClosedPeriod{
			No: a.PeriodNo, Period: a.Period, Used: a.Used, Reserved: a.Reserved, PlanUsed: a.PlanUsed,
			PlanReserved: a.PlanReserved,
			Cost:         a.Cost, Charged: a.Charged, PlanLimit: a.Limits().Credits, PlanName: a.Plan.Name,
			PlanVersion:  a.Plan.Version,
			CarryOverMax: a.Plan.CarryOverMax, Grace: a.Plan.FinalAfter, Currency: a.Currency, Other: a.Other,
		}})
	}
	for _, p := range slices.Backward(closed) {
		if p.No < before {
			h.add(StoredPeriod{ClosedPeriod: p})
		}
	}
	for _, p := range stored {
		h.add(p)
	}
	if len(h.Periods) > limit {
		h.Periods = h.Periods[:limit]
		h.Before = h.Periods[limit-1].No
	}
	return h
}

func (h *History) add(p StoredPeriod) {
	state := PeriodOpen
	switch {
	case p.Final(h.Now):
		state = PeriodFinal
	case !h.Now.Before(p.Period.End):
		state = PeriodClosed
	}
	h.Periods = append(h.Periods, HistoryPeriod{StoredPeriod: p, State: state, FinalAt: p.FinalAt()})
}
