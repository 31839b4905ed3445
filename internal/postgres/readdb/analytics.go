// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/advice"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// Rollup implements reports.AnalyticsStore.
func (s *Store) Rollup(ctx context.Context, userID string) (reports.Rollup, error) {
	r, err := s.Queries().RollupOf(ctx, dbsqlc.RollupOfParams{Now: s.Now(), UserID: userID})
	if err != nil {
		return reports.Rollup{}, postgres.MapError(err)
	}
	zone, err := s.zone(r.TimeZone)
	if err != nil {
		return reports.Rollup{}, &ledger.UnreadableError{UserID: userID, What: err.Error()}
	}
	out := reports.Rollup{Account: quota.AccountID(r.UserID), Zone: zone, Now: r.Now.UTC(), Listed: r.Listed}
	if r.Known {
		out.AsOf = r.AsOf.UTC()
	}
	out.First = reports.DayOf(r.CreatedAt, zone)
	if first := reports.Day(r.FirstDay); first.Before(out.First) {
		out.First = first
	}
	return out, nil
}

// Sums implements reports.AnalyticsStore.
func (s *Store) Sums(ctx context.Context, account quota.AccountID, from, to reports.Day) ([]reports.Sum, error) {
	rows, err := s.Queries().SumsByDay(ctx, dbsqlc.SumsByDayParams{
		Account: quota.ID(account), FromDay: time.Time(from), ToDay: time.Time(to),
	})
	return sumsOf(rows), postgres.MapError(err)
}

// Paid implements reports.AnalyticsStore.
func (s *Store) Paid(ctx context.Context, payer quota.AccountID, from, to reports.Day) ([]reports.Sum, error) {
	rows, err := s.Queries().SumsPaid(ctx, dbsqlc.SumsPaidParams{
		Payer: quota.ID(payer), FromDay: time.Time(from), ToDay: time.Time(to),
	})
	byDay := make([]dbsqlc.SumsByDayRow, len(rows))
	for i := range rows {
		byDay[i] = dbsqlc.SumsByDayRow(rows[i])
	}
	return sumsOf(byDay), postgres.MapError(err)
}

func sumsOf(rows []dbsqlc.SumsByDayRow) []reports.Sum {
	sums := make([]reports.Sum, len(rows))
	for i := range rows {
		sums[i] = sumOf(&rows[i])
	}
	return sums
}

func sumOf(r *dbsqlc.SumsByDayRow) reports.Sum {
	s := reports.Sum{Day: reports.Day(r.Day), UsageType: r.UsageType, CostCurrency: r.CostCurrency,
		Figures: reports.Figures{
			Events: r.Events, Reversals: r.Reversals, Credits: quota.Credits(r.Credits),
			Refunded: quota.Credits(r.Refunded), Plan: quota.Credits(r.PlanCredits),
			Overage: quota.Credits(r.Overage), Grants: quota.Credits(r.GrantCredits),
			CarryOver: quota.Credits(r.CarryOver), Audio: milliseconds(r.AudioMs), Bytes: r.Bytes, Tokens: r.Tokens,
			Quantity: r.Quantity, Admissions: r.Admissions, Uncharged: r.Uncharged, Waited: milliseconds(r.WaitedMs),
			Running: milliseconds(r.RunningMs),
		}}
	s.Figures.Owe(r.Currency, 0, quota.Money(r.PriceMicros))
	s.Figures.Owe(r.CostCurrency, quota.Money(r.CostMicros), 0)
	return s
}

// Refusals implements reports.AnalyticsStore.
func (s *Store) Refusals(
	ctx context.Context, account quota.AccountID, zone *time.Location, from, to reports.Day,
) ([]reports.Refusal, error) {
	rows, err := s.Queries().RefusalsOf(ctx, dbsqlc.RefusalsOfParams{
		Account: quota.ID(account), Since: from.In(zone), Until: to.In(zone),
	})
	refusals := make([]reports.Refusal, len(rows))
	for i, r := range rows {
		refusals[i] = reports.Refusal{
			Reason: quota.Reason(r.Reason), Count: r.Refusals, Credits: quota.Credits(r.Credits),
		}
	}
	return refusals, postgres.MapError(err)
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// Hours implements reports.AnalyticsStore.
func (s *Store) Hours(
	ctx context.Context, account quota.AccountID, zone *time.Location, from, to reports.Day,
) ([]reports.HourSum, error) {
	rows, err := s.Queries().SumsByHour(ctx, dbsqlc.SumsByHourParams{
		Account: quota.ID(account), Zone: zone.String(), FromDay: time.Time(from), ToDay: time.Time(to),
	})
	hours := make([]reports.HourSum, len(rows))
	for i, r := range rows {
		hours[i] = reports.HourSum{
			Weekday: time.Weekday(r.Weekday % 7), Hour: int(r.Hour), Events: r.Events,
			Credits: quota.Credits(r.Credits),
		}
	}
	return hours, postgres.MapError(err)
}

// Waits implements reports.AnalyticsStore.
func (s *Store) Waits(
	ctx context.Context, account quota.AccountID, plan string, zone *time.Location, from, to reports.Day,
) ([]reports.HourWaits, error) {
	rows, err := s.Queries().WaitsByHour(ctx, dbsqlc.WaitsByHourParams{
		Account: quota.ID(account), Plan: plan, Zone: zone.String(), FromDay: time.Time(from), ToDay: time.Time(to),
	})
	waits := make([]reports.HourWaits, len(rows))
	for i, r := range rows {
		waits[i] = reports.HourWaits{Waits: advice.Waits{Admissions: r.Admissions, Waited: r.Waited}, Own: r.Own,
			Day: reports.Day(r.Day), Hour: int(r.Hour)}
	}
	return waits, postgres.MapError(err)
}

// TotalsRollup implements reports.TotalsStore.
func (s *Store) TotalsRollup(ctx context.Context) (reports.Rollup, error) {
	r, err := s.Queries().TotalsRollup(ctx, s.Now())
	if errors.Is(err, pgx.ErrNoRows) {
		now, err := s.Queries().Clock(ctx, s.Now())
		return reports.Rollup{Now: now.UTC()}, postgres.MapError(err)
	}
	return reports.Rollup{
		AsOf: r.AsOf.UTC(), Now: r.Now.UTC(), First: reports.Day(r.FirstDay), Listed: r.Listed,
	}, postgres.MapError(err)
}

// Totals implements reports.TotalsStore.
func (s *Store) Totals(ctx context.Context, plan string, from, to reports.Day) ([]reports.Total, error) {
	rows, err := s.Queries().Totals(ctx,
		dbsqlc.TotalsParams{Plan: plan, FromDay: time.Time(from), ToDay: time.Time(to)})
	totals := make([]reports.Total, len(rows))
	for i := range rows {
		r := &rows[i]
		totals[i] = reports.Total{
			Sum: sumOf(&dbsqlc.SumsByDayRow{
				Day: r.Day, UsageType: r.UsageType, Currency: r.Currency, CostCurrency: r.CostCurrency,
				Events: r.Events, Reversals: r.Reversals, Credits: r.Credits, Refunded: r.Refunded,
				PlanCredits: r.PlanCredits, Overage: r.Overage, GrantCredits: r.GrantCredits, CarryOver: r.CarryOver,
				PriceMicros: r.PriceMicros, CostMicros: r.CostMicros, AudioMs: r.AudioMs, Bytes: r.Bytes,
				Tokens: r.Tokens, Quantity: r.Quantity, Admissions: r.Admissions, Uncharged: r.Uncharged,
				WaitedMs: r.WaitedMs, RunningMs: r.RunningMs,
			}),
			Plan: r.PlanName, Currency: r.Currency, Users: r.Users, Expired: r.Expired, Cancelled: r.Cancelled,
			Within: [...]int64{r.Waited1s, r.Waited1m, r.Waited10m, r.Waited1h},
		}
	}
	return totals, postgres.MapError(err)
}

// AllRefusals implements reports.TotalsStore.
func (s *Store) AllRefusals(ctx context.Context, from, to reports.Day) ([]reports.RefusalTotal, error) {
	rows, err := s.Queries().AllRefusals(ctx,
		dbsqlc.AllRefusalsParams{FromDay: time.Time(from), ToDay: time.Time(to)})
	refusals := make([]reports.RefusalTotal, len(rows))
	for i, r := range rows {
		refusals[i] = reports.RefusalTotal{
			Refusal: reports.Refusal{
				Reason: quota.Reason(r.Reason), Count: r.Refusals, Credits: quota.Credits(r.Credits),
			},
			Plan: r.PlanName, ServedBy: r.ServedBy, UserDays: r.UserDays, PeakUsers: r.PeakUsers,
		}
	}
	return refusals, postgres.MapError(err)
}

// RollupsComplete implements the manager's watch over the rollup.
func (s *Store) RollupsComplete(ctx context.Context) (time.Time, error) {
	asOf, err := s.Queries().RollupsComplete(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, nil
	}
	return asOf.UTC(), postgres.MapError(err)
}
