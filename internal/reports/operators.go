// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"context"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// OperatorsStore reads what all users come to. None of it reads events.
type OperatorsStore interface {
	// PeriodsSummed is when what periods come to was made last; zero: never.
	PeriodsSummed(ctx context.Context) (time.Time, error)
	// Utilisation reads how much of their credits the periods used that ended on days of UTC from one on and before
	// another, in the order of plans and percents.
	Utilisation(ctx context.Context, from, to Day) ([]PeriodCount, error)
	// Margins reads what was earned and spent on these days: by plan, by the team that paid, or else by day and in the
	// order of the days.
	Margins(ctx context.Context, by By, from, to Day) ([]Margin, error)
	// Currencies are those of the money of a month and of the one before.
	Currencies(ctx context.Context, month Day) ([]string, error)
	// Spenders reads users in the order of a figure of a month, the most first, behind a place.
	Spenders(ctx context.Context, q SpendersQuery, limit int) ([]Spender, error)
	// Cohorts reads who came back, of those who came first in months from one on to another.
	Cohorts(ctx context.Context, from, to Day) ([]CohortMonth, error)
}

// Unlimited is the percent of periods without a limit.
const Unlimited = -1

// Exhausted is the percent of periods whose credits were used up.
const Exhausted = 100

// PeriodCount is how many periods of a plan used so many percent of the plan's credits.
type PeriodCount struct {
	Plan string
	// Percent is rounded down, from 0 to Exhausted, or Unlimited.
	Percent int32
	// Periods, and how many of them used nothing at all, not even of a grant.
	Periods, Idle int64
}

// PlanUtilisation is how much of its credits the periods of a plan used.
type PlanUtilisation struct {
	Plan string
	// Periods of the plan. Unlimited of them had no limit, Idle used nothing, Exhausted used the plan's credits up.
	Periods, Unlimited, Idle, Exhausted int64
	// Deciles are the percents that a tenth, two tenths and so on of the periods with a limit did not exceed; nil where
	// there are none of these.
	Deciles []int32
	// Counts are what they are made of.
	Counts []PeriodCount
}

// Utilisation is how much of what plans give is used.
type Utilisation struct {
	Span

	AsOf  time.Time
	Plans []PlanUtilisation
}

// Utilisation says how much of their credits the periods used that ended in a span of days of UTC. A plan of which none
// ended is not there.
func (s *Service) Utilisation(ctx context.Context, span Span) (Utilisation, error) {
	asOf, span, _, err := s.periodsSpan(ctx, span)
	if err != nil {
		return Utilisation{}, err
	}
	counts, err := s.summed.Utilisation(ctx, span.From, span.To)
	out := Utilisation{Span: span, AsOf: asOf}
	for len(counts) > 0 {
		n := 1
		for n < len(counts) && counts[n].Plan == counts[0].Plan {
			n++
		}
		out.Plans = append(out.Plans, utilisationOf(counts[:n]))
		counts = counts[n:]
	}
	return out, err
}

// utilisationOf adds up what there is of one plan, in the order of the percents.
func utilisationOf(counts []PeriodCount) PlanUtilisation {
	u := PlanUtilisation{Plan: counts[0].Plan, Counts: counts}
	for _, c := range counts {
		u.Periods, u.Idle = u.Periods+c.Periods, u.Idle+c.Idle
		switch c.Percent {
		case Unlimited:
			u.Unlimited = c.Periods
		case Exhausted:
			u.Exhausted = c.Periods
		}
	}
	limited := u.Periods - u.Unlimited
	if limited == 0 {
		return u
	}
	seen := int64(0)
	for _, c := range counts {
		if c.Percent == Unlimited {
			continue
		}
		// The first value by which at least so many tenths have been seen.
		for seen += c.Periods; len(u.Deciles) < 9 && 10*seen >= limited*int64(len(u.Deciles)+1); {
			u.Deciles = append(u.Deciles, c.Percent)
		}
	}
	return u
}

// periodsSpan says how far what periods come to is, and returns the span with what was left out and the part of it that
// the totals cover.
func (s *Service) periodsSpan(ctx context.Context, span Span) (asOf time.Time, asked, covered Span, err error) {
	if asOf, err = s.summed.PeriodsSummed(ctx); err != nil {
		return asOf, span, span, err
	}
	r, err := s.totalsRollup(ctx)
	if err != nil {
		return asOf, span, span, err
	}
	asked, covered, err = span.within(&r)
	// What was used is as of the last rollup, which may not have come to its end since.
	if r.AsOf.Before(asOf) {
		asOf = r.AsOf
	}
	return asOf, asked, covered, err
}

// Margin is what a plan, or a team that pays, or all in some days, have brought in, and what their use has cost, in one
// currency.
type Margin struct {
	// Span are the days that it is of.
	Span
	// Plan, or Team, which is empty of all users for whom no team pays.
	Plan, Team, Currency string
	// Periods that began, and what they are sold for, what was owed for overage, and what the provider took.
	Periods                         int64
	PeriodPrice, OveragePrice, Cost quota.Money
}

// Revenue is what was brought in.
func (m *Margin) Revenue() quota.Money { return m.PeriodPrice.Add(m.OveragePrice) }

// Margin is what is left of it.
func (m *Margin) Margin() quota.Money { return m.Revenue().Sub(m.Cost) }

// Margins are what was brought in and what that has cost.
type Margins struct {
	Span

	AsOf time.Time
	Rows []Margin
}

// Margins says, of a span of days of UTC, what was brought in and what it cost: by plan, by the team that paid, or by
// day, week or month. Of the latter each that is known of is there, in each currency that there is in the span.
func (s *Service) Margins(ctx context.Context, by By, span Span) (Margins, error) {
	asOf, span, covered, err := s.periodsSpan(ctx, span)
	if err != nil {
		return Margins{}, err
	}
	rows, err := s.summed.Margins(ctx, by, span.From, span.To)
	if by == ByPlan || by == ByTeam {
		for i := range rows {
			rows[i].Span = span
		}
	} else {
		rows = marginsByTime(rows, covered, by)
	}
	return Margins{Span: span, AsOf: asOf, Rows: rows}, err
}

// marginsByTime groups the margins of days, which are in their order. Periods may have begun before anything was used.
func marginsByTime(days []Margin, covered Span, by By) []Margin {
	if len(days) == 0 {
		return nil
	}
	currencies := make([]string, len(days))
	for i := range days {
		currencies[i] = days[i].Currency
	}
	slices.Sort(currencies)
	currencies = slices.Compact(currencies)
	to := later(covered.To, days[len(days)-1].To)
	var out []Margin
	for from := earlier(covered.From, days[0].From); from.Before(to); {
		group := make([]Margin, len(currencies))
		for i := range group {
			group[i] = Margin{Span: Span{From: from, To: earlier(next(from, by), to)}, Currency: currencies[i]}
		}
		for len(days) > 0 && days[0].From.Before(group[0].To) {
			i, _ := slices.BinarySearch(currencies, days[0].Currency)
			group[i].add(&days[0])
			days = days[1:]
		}
		from, out = group[0].To, append(out, group...)
	}
	return out
}

// add adds what was brought in and spent on other days.
func (m *Margin) add(o *Margin) {
	m.Periods += o.Periods
	m.PeriodPrice, m.OveragePrice = m.PeriodPrice.Add(o.PeriodPrice), m.OveragePrice.Add(o.OveragePrice)
	m.Cost = m.Cost.Add(o.Cost)
}

// Rank is the figure that users are put in order by.
type Rank string

// The figures that users are put in order by. Growth is the credits of a month less those of the one before.
const (
	ByCredits Rank = "credits"
	ByPrice   Rank = "price"
	ByCost    Rank = "cost"
	ByGrowth  Rank = "growth"
)

// Spender is what a user used in a month, under prices and costs of one currency.
type Spender struct {
	Account quota.AccountID
	UserID  string
	// Plan is the one of now; empty if the account has none of its own.
	Plan string
	// Uses are charges and adjustments that were not reversed.
	Uses                        int64
	Credits, PreviousCredits    quota.Credits
	Price, Cost                 quota.Money
	PreviousPrice, PreviousCost quota.Money
}

// Growth is by how much more was used than in the month before.
func (s *Spender) Growth() quota.Credits { return s.Credits.Sub(s.PreviousCredits) }

// place is where the user stands in an order.
func (s *Spender) place(by Rank) SpendersPlace {
	value := map[Rank]int64{
		ByCredits: int64(s.Credits), ByPrice: int64(s.Price), ByCost: int64(s.Cost), ByGrowth: int64(s.Growth()),
	}[by]
	return SpendersPlace{Value: value, Account: s.Account}
}

// SpendersPlace is a place in an order of users.
type SpendersPlace struct {
	Value   int64
	Account quota.AccountID
}

// SpendersQuery says which users are asked for.
type SpendersQuery struct {
	By Rank
	// Month is its first day, of UTC.
	Month    Day
	Currency string
	// Behind is the place of the last user of the page before; nil is the beginning.
	Behind *SpendersPlace
}

// Spenders is a page of users in the order of what they used.
type Spenders struct {
	SpendersQuery

	// Currencies are those of the money of the month and of the one before.
	Currencies []string
	Users      []Spender
	// Next is where the next page begins; nil if this one was the last.
	Next *SpendersPlace
	AsOf time.Time
}

// last is behind every place.
var last = SpendersPlace{Value: math.MaxInt64, Account: quota.AccountID{
	255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
}}

// spenders completes a question. Without a month it is about the last one that is over, without a currency about the
// only one that there is.
func (s *Service) spenders(ctx context.Context, q SpendersQuery) (Spenders, error) {
	out := Spenders{SpendersQuery: q}
	r, err := s.totalsRollup(ctx)
	if err != nil {
		return out, err
	}
	out.AsOf = r.AsOf
	if out.Month == (Day{}) {
		out.Month = MonthOf(DayOf(r.Now, time.UTC)).addMonths(-1)
	}
	if out.Behind == nil {
		out.Behind = &last
	}
	if out.Currencies, err = s.summed.Currencies(ctx, out.Month); err != nil || out.Currency != "" {
		return out, err
	}
	switch len(out.Currencies) {
	case 0:
	case 1:
		out.Currency = out.Currencies[0]
	default:
		return out, quota.Invalid("currency", "is missing: there are amounts of more than one, say which of %s",
			strings.Join(out.Currencies, ", "))
	}
	return out, nil
}

// Spenders returns a page of at most limit users, who used most by a figure first.
func (s *Service) Spenders(ctx context.Context, q SpendersQuery, limit int) (Spenders, error) {
	if err := checkLimit(limit); err != nil {
		return Spenders{}, err
	}
	out, err := s.spenders(ctx, q)
	if err != nil {
		return Spenders{}, err
	}
	users, err := s.summed.Spenders(ctx, out.SpendersQuery, limit+1)
	out.Users = users
	if len(users) > limit {
		out.Users = users[:limit]
		next := users[limit-1].place(q.By)
		out.Next = &next
	}
	return out, err
}

// SpenderRows returns all users in that order, a page at a time.
func (s *Service) SpenderRows(
	ctx context.Context, q SpendersQuery,
) (answered Spenders, pages iter.Seq2[[]Spender, error], err error) {
	answered, err = s.spenders(ctx, q)
	return answered, func(yield func([]Spender, error) bool) {
		page := answered.SpendersQuery
		for page.Behind != nil {
			users, err := s.summed.Spenders(ctx, page, MaxPage)
			if page.Behind = nil; len(users) == MaxPage {
				at := users[MaxPage-1].place(q.By)
				page.Behind = &at
			}
			if !yield(users, err) || err != nil {
				return
			}
		}
	}, err
}

// MonthOf returns the first day of a day's month.
func MonthOf(d Day) Day {
	t := time.Time(d)
	return Day(time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC))
}

// addMonths returns the first day of the month so many later, of one that is a first day.
func (d Day) addMonths(n int) Day { return Day(time.Time(d).AddDate(0, n, 0)) }

// CohortMonth is how many of those who came first in a month came in another one.
type CohortMonth struct {
	Cohort, Month Day
	Users         int64
}

// Cohort is those who used something for the first time in a month.
type Cohort struct {
	Month Day
	// Active are how many of them used something in that month, which are all, and in each that followed, up to the one
	// of AsOf.
	Active []int64
}

// Cohorts are who came back.
type Cohorts struct {
	From, To Day
	AsOf     time.Time
	Cohorts  []Cohort
}

// MaxMonths is how many months of cohorts can be asked for, DefaultMonths how many there are where the first is left
// out.
const (
	MaxMonths     = 60
	DefaultMonths = 12
)

// Cohorts says of those who came first in months from one on to another, both included, how many came back. Either may
// be zero: the month of now, and eleven before the last one. There is no month before the first with any use.
func (s *Service) Cohorts(ctx context.Context, from, to Day) (Cohorts, error) {
	asOf, err := s.summed.PeriodsSummed(ctx)
	if err != nil {
		return Cohorts{}, err
	}
	r, err := s.totalsRollup(ctx)
	if err != nil {
		return Cohorts{}, err
	}
	if to == (Day{}) {
		to = MonthOf(DayOf(r.Now, time.UTC))
	}
	if from == (Day{}) {
		from = to.addMonths(1 - DefaultMonths)
	}
	switch limit := from.addMonths(MaxMonths); {
	case to.Before(from):
		return Cohorts{}, quota.Invalid("from", "%.7s must not be behind to, which is %.7s", from, to)
	case !to.Before(limit):
		return Cohorts{}, quota.Invalid("from", "%.7s must be at most %d months before to, which is %.7s", from,
			MaxMonths-1, to)
	}
	out := Cohorts{From: from, To: to, AsOf: asOf}
	if asOf.IsZero() {
		return out, nil
	}
	rows, err := s.summed.Cohorts(ctx, from, to)
	out.Cohorts = cohortsOf(rows, later(from, MonthOf(r.First)), to, MonthOf(DayOf(asOf, time.UTC)))
	return out, err
}

// cohortsOf has a cohort for each month that is known of, up to now, and each of them every month that followed.
func cohortsOf(rows []CohortMonth, from, to, now Day) []Cohort {
	var out []Cohort
	for month := from; !to.Before(month) && !now.Before(month); month = month.addMonths(1) {
		c := Cohort{Month: month}
		for at := month; !now.Before(at); at = at.addMonths(1) {
			i := slices.IndexFunc(rows, func(r CohortMonth) bool { return r.Cohort == month && r.Month == at })
			n := int64(0)
			if i >= 0 {
				n = rows[i].Users
			}
			c.Active = append(c.Active, n)
		}
		out = append(out, c)
	}
	return out
}

// WaitBounds are what waits are counted by.
var WaitBounds = [...]time.Duration{time.Second, time.Minute, 10 * time.Minute, time.Hour}

// Endings are what became of admissions and how long they had waited.
type Endings struct {
	// Charged of them; Expired ended because nobody spoke for them any more, Cancelled while they waited, and Released
	// were given back without a charge: they failed, or were not needed.
	Charged, Released, Expired, Cancelled int64
	// Waited and Running of all of them together.
	Waited, Running time.Duration
	// Within counts those that waited for at most as long as each of WaitBounds.
	Within [len(WaitBounds)]int64
}

// Ended are all of them.
func (e *Endings) Ended() int64 { return e.Charged + e.Released + e.Expired + e.Cancelled }

// Failed are those that ran and were not charged.
func (e *Endings) Failed() int64 { return e.Released + e.Expired }

// WaitPercentile is what so many percent (1 to 100) of those that ended did not wait longer than, as if waits were
// spread evenly between two of WaitBounds: more is not known. longer says that it is beyond the last bound, which is
// returned then. Something must have ended.
func (e *Endings) WaitPercentile(percent int64) (wait time.Duration, longer bool) {
	rank := float64(percent) * float64(e.Ended()) / 100
	var bound time.Duration
	var below int64
	for i, n := range e.Within {
		if float64(n) >= rank {
			share := (rank - float64(below)) / float64(n-below)
			return bound + time.Duration(share*float64(WaitBounds[i]-bound)), false
		}
		bound, below = WaitBounds[i], n
	}
	return bound, true
}

func (e *Endings) add(t *Total) {
	e.Charged, e.Expired, e.Cancelled = e.Charged+t.Figures.Admissions, e.Expired+t.Expired, e.Cancelled+t.Cancelled
	e.Released += t.Figures.Uncharged - t.Expired - t.Cancelled
	e.Waited, e.Running = e.Waited+t.Figures.Waited, e.Running+t.Figures.Running
	for i, n := range t.Within {
		e.Within[i] += n
	}
}

// EndingsGroup is what became of those that ended in a span of days, of all or of one type or plan.
type EndingsGroup struct {
	Span

	Name    string
	Endings Endings
}

// Work is what became of work, and how long it waited.
type Work struct {
	Rollup
	Span

	Total  Endings
	Groups []EndingsGroup
}

// Work says what became of the admissions that ended in a span of days of UTC, in groups. Those that were not charged
// are of no plan.
func (s *Service) Work(ctx context.Context, by By, span Span) (Work, error) {
	r, asked, covered, err := s.totalsSpan(ctx, span)
	if err != nil {
		return Work{}, err
	}
	out := Work{Rollup: r, Span: asked}
	if !covered.From.Before(covered.To) {
		return out, nil
	}
	rows, err := s.summed.Totals(ctx, "", covered.From, covered.To)
	if err != nil {
		return Work{}, err
	}
	for i := range rows {
		out.Total.add(&rows[i])
	}
	if by == ByType || by == ByPlan {
		out.Groups = endingsByName(rows, by, covered)
		return out, nil
	}
	for from := covered.From; from.Before(covered.To); {
		g := EndingsGroup{Span: Span{From: from, To: earlier(next(from, by), covered.To)}}
		for len(rows) > 0 && rows[0].Day.Before(g.To) {
			g.Endings.add(&rows[0])
			rows = rows[1:]
		}
		out.Groups, from = append(out.Groups, g), g.To
	}
	return out, nil
}

// endingsByName groups by types or plans of which anything ended, in the order of their names.
func endingsByName(rows []Total, by By, span Span) []EndingsGroup {
	all := map[string]*Endings{}
	for i := range rows {
		name := rows[i].UsageType
		if by == ByPlan {
			name = rows[i].Plan
		}
		if all[name] == nil {
			all[name] = &Endings{}
		}
		all[name].add(&rows[i])
	}
	var out []EndingsGroup
	for name, e := range all {
		if e.Ended() > 0 {
			out = append(out, EndingsGroup{Span: span, Name: name, Endings: *e})
		}
	}
	slices.SortFunc(out, func(a, b EndingsGroup) int { return strings.Compare(a.Name, b.Name) })
	return out
}
