// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"errors"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// AlertPage is a page of what a user or a team was told of, the newest first.
type AlertPage struct {
	Alerts []ledger.Alert
	// Next is the alert that the next page begins behind; zero if this page was the last.
	Next quota.AlertID
	Now  time.Time
}

// AlertStore reads alerts.
type AlertStore interface {
	// Alerts reads at most limit alerts of a user or a team that were raised before one, only those that nobody has
	// acknowledged if unread. ErrNotFound if it is not known.
	Alerts(
		ctx context.Context, of quota.Level, before quota.AlertID, unread bool, limit int,
	) ([]ledger.Alert, time.Time, error)
	// Alert reads one alert, or ErrNotFound.
	Alert(ctx context.Context, id quota.AlertID) (ledger.Alert, error)
}

// Alerts returns at most limit (1 to MaxPage) alerts of a user or a team that were raised before one, the newest for a
// zero id. What is over by now is told as resolved, whether or not anything has touched the account since.
func (s *Service) Alerts(
	ctx context.Context, of quota.Level, before quota.AlertID, unread bool, limit int,
) (AlertPage, error) {
	if err := checkLimit(limit); err != nil {
		return AlertPage{}, err
	}
	alerts, now, err := s.store.Alerts(ctx, of, before, unread, limit+1)
	if errors.Is(err, ledger.ErrNotFound) && of.Kind == quota.LevelUser {
		// Where the service would make an account, nothing was told to it yet.
		u, err := s.standings.Current(ctx, of.Name)
		return AlertPage{Now: u.Now}, err
	}
	if err != nil {
		return AlertPage{}, err
	}
	page := AlertPage{Alerts: alerts, Now: now}
	if len(alerts) > limit {
		page.Alerts, page.Next = alerts[:limit], alerts[limit-1].ID
	}
	return page, nil
}

// Alert returns one alert, or ErrNotFound.
func (s *Service) Alert(ctx context.Context, id quota.AlertID) (ledger.Alert, error) {
	return s.store.Alert(ctx, id)
}
