// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"math"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/forecast"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// ForecastDays is how many days before the present one a forecast is drawn from at most: thirteen weeks.
const ForecastDays = 13 * forecast.Week

// SumsBehind says that there is no forecast because the sums lack whole days: nothing has rolled them up.
const SumsBehind forecast.Reason = "sums_behind"

// UseOfDay is what a user used on a day.
type UseOfDay struct {
	Day     Day
	Credits quota.Credits
}

// Forecast is what a user's open period will come to.
type Forecast struct {
	// Rollup says how far the days are.
	Rollup
	// Open is the period. Its use is of Now, also where the days are not.
	Open HistoryPeriod
	// Allowance are the credits of the period that pay for it, nil where they are unlimited, or where a team pays,
	// whose others use them as well.
	Allowance *quota.Credits
	Told
	// Used is the use by the end of the period, what has been used included.
	Used Range
	// Exhausted is when the allowance is used up; nil without one.
	Exhausted *Exhaustion
}

// Told is how a forecast came about, or why there is none.
type Told struct {
	// Days are what it was drawn from: those with any use before today, at most ForecastDays back.
	Days []UseOfDay
	// Reason says why there is none; empty if there is one. Method and Backtest are those of package forecast.
	Reason   forecast.Reason
	Method   forecast.Method
	Backtest forecast.Backtest
}

// by asks a question about days that are summed up as far as r says, unless these are by another zone than they should.
func (t *Told) by(r *Rollup, moved bool, sums []Sum, q forecast.Question) (forecast.Outlook, error) {
	today := DayOf(r.Now, r.Zone)
	if r.AsOf.IsZero() || moved || DayOf(r.AsOf, r.Zone).Before(today) {
		t.Reason = SumsBehind
		return forecast.Outlook{Reason: SumsBehind}, nil
	}
	t.Days = useOfDays(sums)
	for _, d := range t.Days {
		q.Days = append(q.Days, forecast.Day{Index: d.Day.Since(today), Used: int64(d.Credits)})
	}
	o, err := forecast.Use(q)
	if err == nil {
		t.Reason, t.Method, t.Backtest = o.Reason, o.Method, o.Backtest
	}
	return o, err
}

// Range is an amount of credits that is expected, and bounds that one in ten stays below and one in ten exceeds.
type Range struct{ Low, Expected, High quota.Credits }

// Exhaustion is when an allowance is used up: expected, and between which moments four in five are. Each is zero where
// that is not before the period ends.
type Exhaustion struct{ Earliest, Expected, Latest time.Time }

// Forecast says what the user's open period will come to, by the days before.
func (s *Service) Forecast(ctx context.Context, userID string) (Forecast, error) {
	f, _, err := s.forecast(ctx, userID)
	return f, err
}

func (s *Service) forecast(ctx context.Context, userID string) (Forecast, ledger.Usage, error) {
	r, err := s.rollup(ctx, userID)
	if err != nil {
		return Forecast{}, ledger.Usage{}, err
	}
	u, err := s.standings.Current(ctx, userID)
	if err != nil {
		return Forecast{}, ledger.Usage{}, err
	}
	today := DayOf(u.Now, r.Zone)
	sums, err := s.sums(ctx, &r, Span{From: today.Add(-ForecastDays), To: today})
	if err != nil {
		return Forecast{}, ledger.Usage{}, err
	}
	f, err := forecastOf(&r, u, sums)
	return f, u, err
}

// TeamForecast says what the open period of a team that pays will come to, by the days of UTC before. For one without a
// plan somebody else pays, or nobody: that is quota.ErrConflict.
func (s *Service) TeamForecast(ctx context.Context, team string) (Forecast, error) {
	f, _, err := s.teamForecast(ctx, team)
	return f, err
}

func (s *Service) teamForecast(ctx context.Context, team string) (Forecast, ledger.Usage, error) {
	u, _, _, err := s.store.TeamPeriods(ctx, team, 0, 1, 1)
	if err != nil {
		return Forecast{}, ledger.Usage{}, err
	}
	if !u.Account.Plan.Sells() {
		return Forecast{}, u, quota.Conflict("", "team %q has no plan: there is a forecast for whoever pays for it",
			team)
	}
	r, err := s.totalsRollup(ctx)
	if err != nil {
		return Forecast{}, u, err
	}
	today := DayOf(u.Now, time.UTC)
	sums, err := s.summed.Paid(ctx, u.Account.ID, today.Add(-ForecastDays), today)
	if err != nil {
		return Forecast{}, u, err
	}
	f, err := forecastOf(&r, u, sums)
	return f, u, err
}

// Foretold returns what an account is to be told of its forecast, nil if that is nothing that it does not know. It is
// behind if nobody knows yet, because the sums of days are.
func (s *Service) Foretold(ctx context.Context, of quota.Level) (told *quota.Foretold, behind bool, err error) {
	var f Forecast
	var u ledger.Usage
	if of.Kind == quota.LevelTeam {
		f, u, err = s.teamForecast(ctx, of.Name)
	} else {
		f, u, err = s.forecast(ctx, of.Name)
	}
	if err != nil || f.Reason != "" || f.Exhausted == nil {
		return nil, f.Reason == SumsBehind, err
	}
	told = &quota.Foretold{
		PeriodNo: f.Open.No, Allowance: *f.Allowance, Expected: f.Exhausted.Expected,
		Possible: !f.Exhausted.Earliest.IsZero(),
	}
	// On a copy: whoever is told something decides anew, by what then holds.
	a := *u.Account
	if len(quota.Alone(&a).Foretell(*told, u.Now)) == 0 {
		return nil, false, nil
	}
	return told, false, nil
}

// forecastOf makes the forecast of a standing and the sums of the days before today.
func forecastOf(r *Rollup, u ledger.Usage, sums []Sum) (Forecast, error) {
	f := Forecast{Rollup: *r, Open: history(u, nil, math.MaxInt64, 1).Periods[0]}
	f.Now = u.Now
	a := u.Account
	if allowance := a.Allowance(u.Now); u.Chain().Payer() == a && !allowance.Unlimited {
		f.Allowance = &allowance.Max
	}
	c := calendar{zone: r.Zone, today: DayOf(u.Now, r.Zone)}
	moved := a.Team == nil && a.Zone != nil && a.Zone.String() != r.Zone.String()
	o, err := f.Told.by(r, moved, sums, forecast.Question{Passed: c.since(u.Now), Ahead: c.since(f.Open.Period.End)})
	if err != nil || o.Reason != "" {
		return f, err
	}
	more := rangeOf(o.End())
	f.Used = Range{
		Low: a.Used.Add(more.Low), Expected: a.Used.Add(more.Expected), High: a.Used.Add(more.High),
	}
	if f.Allowance != nil {
		e := o.Exhaustion(int64(f.Allowance.Sub(a.Used)))
		f.Exhausted = &Exhaustion{
			Earliest: c.moment(e.Earliest), Expected: c.moment(e.Expected), Latest: c.moment(e.Latest),
		}
	}
	return f, nil
}

// useOfDays adds up sums, which are in the order of their days. A day on which more was given back than used, by an
// adjustment, is one without use.
func useOfDays(sums []Sum) []UseOfDay {
	var days []UseOfDay
	for len(sums) > 0 {
		d := UseOfDay{Day: sums[0].Day}
		for len(sums) > 0 && sums[0].Day == d.Day {
			d.Credits = d.Credits.Add(sums[0].Figures.Credits)
			sums = sums[1:]
		}
		if d.Credits > 0 {
			days = append(days, d)
		}
	}
	return days
}

// calendar measures time in a zone's days from the beginning of one of them. A day may have 23 or 25 hours.
type calendar struct {
	zone  *time.Location
	today Day
}

// start returns the instant at which the day begins that is so many days behind today.
func (c calendar) start(days int) time.Time {
	year, month, day := time.Time(c.today.Add(days)).Date()
	return time.Date(year, month, day, 0, 0, 0, 0, c.zone)
}

// since returns how many days an instant lies behind the beginning of today.
func (c calendar) since(at time.Time) float64 {
	days := DayOf(at, c.zone).Since(c.today)
	start, end := c.start(days), c.start(days+1)
	return float64(days) + max(0, at.Sub(start).Seconds()/end.Sub(start).Seconds())
}

// moment returns the instant so many days behind the beginning of today, to the second; zero for infinitely many.
func (c calendar) moment(days float64) time.Time {
	if math.IsInf(days, 1) {
		return time.Time{}
	}
	whole, part := math.Modf(days)
	start, end := c.start(int(whole)), c.start(int(whole)+1)
	return start.Add(time.Duration(part * float64(end.Sub(start)))).Round(time.Second).UTC()
}
