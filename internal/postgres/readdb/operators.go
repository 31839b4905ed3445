// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// PeriodsSummed implements reports.OperatorsStore.
func (s *Store) PeriodsSummed(ctx context.Context) (time.Time, error) {
	asOf, err := s.Queries().PeriodsSummed(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, nil
	}
	return asOf.UTC(), postgres.MapError(err)
}

// Utilisation implements reports.OperatorsStore.
func (s *Store) Utilisation(ctx context.Context, from, to reports.Day) ([]reports.PeriodCount, error) {
	rows, err := s.Queries().Utilisation(ctx,
		dbsqlc.UtilisationParams{FromDay: time.Time(from), ToDay: time.Time(to)})
	counts := make([]reports.PeriodCount, len(rows))
	for i, r := range rows {
		counts[i] = reports.PeriodCount{
			Plan: r.PlanName, Percent: int32(r.Percent), Periods: r.Periods, Idle: r.Idle,
		}
	}
	return counts, postgres.MapError(err)
}

// Margins implements reports.OperatorsStore.
func (s *Store) Margins(ctx context.Context, by reports.By, from, to reports.Day) ([]reports.Margin, error) {
	if by == reports.ByTeam {
		return s.teamMargins(ctx, from, to)
	}
	byDay := by != reports.ByPlan
	rows, err := s.Queries().Margins(ctx,
		dbsqlc.MarginsParams{ByDay: byDay, FromDay: time.Time(from), ToDay: time.Time(to)})
	margins := make([]reports.Margin, len(rows))
	for i, r := range rows {
		margins[i] = reports.Margin{
			Plan: r.Plan, Currency: r.Currency, Periods: r.Periods, PeriodPrice: quota.Money(r.PeriodPrice),
			OveragePrice: quota.Money(r.OveragePrice), Cost: quota.Money(r.Cost),
		}
		if byDay {
			day := reports.Day(r.Day)
			margins[i].Span = reports.Span{From: day, To: day.Add(1)}
		}
	}
	return margins, postgres.MapError(err)
}

func (s *Store) teamMargins(ctx context.Context, from, to reports.Day) ([]reports.Margin, error) {
	rows, err := s.Queries().TeamMargins(ctx,
		dbsqlc.TeamMarginsParams{FromDay: time.Time(from), ToDay: time.Time(to)})
	margins := make([]reports.Margin, len(rows))
	for i, r := range rows {
		margins[i] = reports.Margin{
			Team: r.Team, Currency: r.Currency, Periods: r.Periods, PeriodPrice: quota.Money(r.PeriodPrice),
			OveragePrice: quota.Money(r.OveragePrice), Cost: quota.Money(r.Cost),
		}
	}
	return margins, postgres.MapError(err)
}

// Currencies implements reports.OperatorsStore.
func (s *Store) Currencies(ctx context.Context, month reports.Day) ([]string, error) {
	first := time.Time(month)
	currencies, err := s.Queries().CurrenciesOf(ctx,
		dbsqlc.CurrenciesOfParams{FromDay: first.AddDate(0, -1, 0), ToDay: first.AddDate(0, 1, 0)})
	return currencies, postgres.MapError(err)
}

// Spenders implements reports.OperatorsStore.
func (s *Store) Spenders(ctx context.Context, q reports.SpendersQuery, limit int) ([]reports.Spender, error) {
	p := dbsqlc.SpendersByCreditsParams{
		Month: time.Time(q.Month), Currency: q.Currency, Below: q.Behind.Value,
		Before: quota.ID(q.Behind.Account), Most: int32(limit),
	}
	switch q.By {
	case reports.ByPrice:
		rows, err := s.Queries().SpendersByPrice(ctx, dbsqlc.SpendersByPriceParams(p))
		out := spenders(rows, func(r dbsqlc.SpendersByPriceRow) spenderRow { return spenderRow(r) })
		return out, postgres.MapError(err)
	case reports.ByCost:
		rows, err := s.Queries().SpendersByCost(ctx, dbsqlc.SpendersByCostParams(p))
		out := spenders(rows, func(r dbsqlc.SpendersByCostRow) spenderRow { return spenderRow(r) })
		return out, postgres.MapError(err)
	case reports.ByGrowth:
		rows, err := s.Queries().SpendersByGrowth(ctx, dbsqlc.SpendersByGrowthParams(p))
		out := spenders(rows, func(r dbsqlc.SpendersByGrowthRow) spenderRow { return spenderRow(r) })
		return out, postgres.MapError(err)
	case reports.ByCredits:
	}
	rows, err := s.Queries().SpendersByCredits(ctx, p)
	return spenders(rows, func(r spenderRow) spenderRow { return r }), postgres.MapError(err)
}

// spenderRow is what all orders have of a user.
type spenderRow = dbsqlc.SpendersByCreditsRow

func spenders[T any](rows []T, row func(T) spenderRow) []reports.Spender {
	out := make([]reports.Spender, len(rows))
	for i := range rows {
		r := row(rows[i])
		out[i] = reports.Spender{
			Account: quota.AccountID(r.Account), UserID: r.External, Plan: r.PlanName, Uses: r.Uses,
			Credits: quota.Credits(r.Credits), PreviousCredits: quota.Credits(r.PreviousCredits),
			Price: quota.Money(r.PriceMicros), Cost: quota.Money(r.CostMicros),
			PreviousPrice: quota.Money(r.PreviousPrice), PreviousCost: quota.Money(r.PreviousCost),
		}
	}
	return out
}

// Cohorts implements reports.OperatorsStore.
func (s *Store) Cohorts(ctx context.Context, from, to reports.Day) ([]reports.CohortMonth, error) {
	rows, err := s.Queries().Cohorts(ctx, dbsqlc.CohortsParams{FromMonth: time.Time(from), ToMonth: time.Time(to)})
	months := make([]reports.CohortMonth, len(rows))
	for i, r := range rows {
		months[i] = reports.CohortMonth{Cohort: reports.Day(r.Cohort), Month: reports.Day(r.Month), Users: r.Users}
	}
	return months, postgres.MapError(err)
}
