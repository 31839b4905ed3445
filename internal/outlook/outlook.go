// SPDX-License-Identifier: Apache-2.0

// Package outlook has accounts told, ahead of time, that their allowance is expected to be used up before their period
// ends.
package outlook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/loop"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Candidate is an account whose forecast has not been looked at on its present day.
type Candidate struct {
	Account quota.AccountID
	Level   quota.Level
	// Day is that day, as the midnight of UTC with its date.
	Day time.Time
}

// Store keeps who was looked at. Its errors wrap those of package ledger.
type Store interface {
	// DueForecasts looks for accounts with a plan that have used something in their period and decided something in
	// the last two weeks, and were not looked at on their present day: at most limit behind one, in their order.
	DueForecasts(ctx context.Context, after quota.AccountID, limit int) ([]Candidate, error)
	// Foretold notes that they were looked at on their days.
	Foretold(ctx context.Context, looked []Candidate) error
}

// Forecasts says what is to be expected of an account.
type Forecasts interface {
	// Foretold returns what an account is to be told, nil if that is nothing that it does not know. It is behind if
	// nobody knows yet, because the sums of days are.
	Foretold(ctx context.Context, of quota.Level) (f *quota.Foretold, behind bool, err error)
}

// Alerts has an account take note of a forecast.
type Alerts interface {
	Foretell(ctx context.Context, account quota.AccountID, f quota.Foretold) error
}

const (
	// interval is how long after the first rollup of an account's day it is looked at, at most.
	interval = 10 * time.Minute
	// page is how many accounts are looked at before that is noted: what a killed process does again.
	page = 200
)

// Watch is who has accounts told.
type Watch struct {
	Store     Store
	Forecasts Forecasts
	Alerts    Alerts
	// Loops, which may be nil, is told how each turn went.
	Loops loop.Observer
	// Log is told what could not be done.
	Log func(err error, message string)
}

// Run looks at everybody once on each of their days, until ctx ends. Replicas that do so at once do no harm: what one
// of them has told is no news to the others.
func (w *Watch) Run(ctx context.Context) {
	task := loop.Task{Name: "forecasts", Period: interval, Jitter: interval / 4, Timeout: time.Hour, Do: w.turn}
	task.Run(ctx, w.Loops)
}

func (w *Watch) turn(ctx context.Context) error {
	err := w.Once(ctx)
	if err != nil && ctx.Err() == nil && !errors.Is(err, ledger.ErrUnavailable) {
		w.Log(err, "looking for allowances that will be used up failed, trying again")
	}
	return err
}

// Once looks at all who are due. An account that fails does not keep the others from it, and is looked at again by the
// next turn.
func (w *Watch) Once(ctx context.Context) error {
	var after quota.AccountID
	var errs []error
	for {
		due, err := w.Store.DueForecasts(ctx, after, page)
		if err != nil || len(due) == 0 {
			return errors.Join(append(errs, err)...)
		}
		var looked []Candidate
		for i := range due {
			done, err := w.look(ctx, &due[i])
			switch {
			case errors.Is(err, ledger.ErrUnavailable) || ctx.Err() != nil:
				return errors.Join(append(errs, err)...)
			case err != nil:
				errs = append(errs, fmt.Errorf("%s: %w", due[i].Level, err))
			case done:
				looked = append(looked, due[i])
			}
		}
		if err := w.Store.Foretold(ctx, looked); err != nil {
			return errors.Join(append(errs, err)...)
		}
		after = due[len(due)-1].Account
	}
}

// look has one account told what there is to tell, and reports whether anything is known of its day.
func (w *Watch) look(ctx context.Context, c *Candidate) (bool, error) {
	f, behind, err := w.Forecasts.Foretold(ctx, c.Level)
	if err != nil || behind || f == nil {
		return err == nil && !behind, err
	}
	return true, w.Alerts.Foretell(ctx, c.Account, *f)
}
