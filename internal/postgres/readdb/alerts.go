// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Alerts implements reports.AlertStore.
func (s *Store) Alerts(
	ctx context.Context, of quota.Level, before quota.AlertID, unread bool, limit int,
) ([]ledger.Alert, time.Time, error) {
	find := s.Lookup
	if of.Kind == quota.LevelTeam {
		find = s.teamID
	}
	account, err := find(ctx, of.Name)
	if err != nil {
		return nil, time.Time{}, err
	}
	now, err := s.Queries().Clock(ctx, s.Now())
	if err != nil {
		return nil, time.Time{}, postgres.MapError(err)
	}
	rows, err := s.Queries().ListAlerts(ctx, dbsqlc.ListAlertsParams{
		Account: account, Before: before, Unread: unread, Most: int32(limit),
	})
	alerts := make([]ledger.Alert, len(rows))
	for i := range rows {
		alerts[i] = alertOf((*dbsqlc.AlertRow)(&rows[i]), now)
	}
	return alerts, now.UTC(), postgres.MapError(err)
}

// Alert implements reports.AlertStore.
func (s *Store) Alert(ctx context.Context, id quota.AlertID) (ledger.Alert, error) {
	row, err := s.Queries().Alert(ctx, id)
	if err != nil {
		err = postgres.MapError(err)
		if errors.Is(err, ledger.ErrNotFound) {
			return ledger.Alert{}, quota.NotFound("alert %s", id)
		}
		return ledger.Alert{}, fmt.Errorf("alert %s: %w", id, err)
	}
	now, err := s.Queries().Clock(ctx, s.Now())
	return alertOf(&row, now), postgres.MapError(err)
}

// alertOf reads an alert. It is resolved by its end at the latest, which needs no batch.
func alertOf(r *dbsqlc.AlertRow, now time.Time) ledger.Alert {
	u := &r.UsageAlert
	a := ledger.Alert{
		AlertFacts: quota.AlertFacts{
			AlertKey: quota.AlertKey{Kind: quota.AlertKind(u.Kind), Threshold: u.Threshold, Subject: u.Subject},
			Level:    quota.Level{Kind: quota.LevelUser, Name: r.ExternalID},
			Used:     u.Used, Unlimited: u.LimitValue == nil, Currency: Text(u.Currency), Plan: Text(u.PlanName),
			Until: u.EndsAt.UTC(),
		},
		ID: u.ID, Account: u.UserID, PeriodNo: u.PeriodNo, Number: u.Number, RaisedAt: u.RaisedAt.UTC(), Seq: u.Seq,
		AcknowledgedBy: Text(u.AcknowledgedBy),
	}
	if r.Team != "" {
		a.Level = quota.Level{Kind: quota.LevelTeam, Name: r.Team}
	}
	if u.LimitValue != nil {
		a.Limit = *u.LimitValue
	}
	switch {
	case u.ResolvedAt != nil:
		a.ResolvedAt = u.ResolvedAt.UTC()
	case !now.Before(u.EndsAt):
		a.ResolvedAt = u.EndsAt.UTC()
	}
	if u.ExpectedAt != nil {
		a.Expected = u.ExpectedAt.UTC()
	}
	if u.AcknowledgedAt != nil {
		a.AcknowledgedAt = u.AcknowledgedAt.UTC()
	}
	if r.PeriodStart != nil {
		a.Closed = &quota.ClosedPeriod{
			No: u.PeriodNo, Period: quota.Period{Start: r.PeriodStart.UTC(), End: r.PeriodEnd.UTC()},
			Used: quota.Credits(*r.PeriodUsed), PlanLimit: limit[quota.Credits](r.PlanCredits),
			Cost: quota.Money(*r.CostMicros), Charged: quota.Money(*r.ChargedMicros), Currency: Text(r.PeriodCurrency),
		}
	}
	return a
}
