// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/advice"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Day is a day of a calendar, as the midnight of UTC with its date.
type Day time.Time

// DayOf returns the day on which an instant lies in a zone.
func DayOf(t time.Time, zone *time.Location) Day {
	y, m, d := t.In(zone).Date()
	return Day(time.Date(y, m, d, 0, 0, 0, 0, time.UTC))
}

// In returns when the day begins in a zone.
func (d Day) In(zone *time.Location) time.Time {
	y, m, n := time.Time(d).Date()
	return time.Date(y, m, n, 0, 0, 0, 0, zone)
}

// ParseDay reads a day such as 2026-03-14.
func ParseDay(s string) (Day, error) {
	t, err := time.Parse(time.DateOnly, s)
	return Day(t), err
}

// Before compares days.
func (d Day) Before(other Day) bool { return time.Time(d).Before(time.Time(other)) }

// Add returns the day so many days later.
func (d Day) Add(days int) Day { return Day(time.Time(d).AddDate(0, 0, days)) }

// Since returns how many days lie between another day and this one.
func (d Day) Since(other Day) int { return int(time.Time(d).Sub(time.Time(other)) / (24 * time.Hour)) }

func (d Day) String() string { return time.Time(d).Format(time.DateOnly) }

// later and earlier of two days.
func later(a, b Day) Day {
	if a.Before(b) {
		return b
	}
	return a
}

func earlier(a, b Day) Day {
	if b.Before(a) {
		return b
	}
	return a
}

// Figures are sums of what was used; docs/analytics.md says what each is.
type Figures struct {
	// Events are charges and adjustments, Reversals those of them that were reversed.
	Events, Reversals int64
	// Credits that the user's periods have used, and that were given back as lots because their period was final.
	Credits, Refunded quota.Credits
	// What paid: the plan's credits, what went beyond them, grants, what an earlier period had left.
	Plan, Overage, Grants, CarryOver quota.Credits
	// Audio and so on measure what was worked on and not reversed.
	Audio                   time.Duration
	Bytes, Tokens, Quantity int64
	// Admissions that were charged, and that ended without a charge, and how long both had waited and run.
	Admissions, Uncharged int64
	Waited, Running       time.Duration
	// Amounts are what it cost and what is owed, by currency; currencies are never added.
	Amounts []quota.Amounts
}

// Owe adds to the amounts of a currency. Nothing is added to what has no amount.
func (f *Figures) Owe(currency string, cost, price quota.Money) {
	if cost == 0 && price == 0 {
		return
	}
	for i := range f.Amounts {
		if m := &f.Amounts[i]; m.Currency == currency {
			m.Cost, m.Charged = m.Cost.Add(cost), m.Charged.Add(price)
			return
		}
	}
	f.Amounts = append(f.Amounts, quota.Amounts{Currency: currency, Cost: cost, Charged: price})
}

// Add adds others to them.
func (f *Figures) Add(o *Figures) {
	f.Events, f.Reversals = f.Events+o.Events, f.Reversals+o.Reversals
	f.Credits, f.Refunded = f.Credits.Add(o.Credits), f.Refunded.Add(o.Refunded)
	f.Plan, f.Overage = f.Plan.Add(o.Plan), f.Overage.Add(o.Overage)
	f.Grants, f.CarryOver = f.Grants.Add(o.Grants), f.CarryOver.Add(o.CarryOver)
	f.Audio, f.Bytes, f.Tokens, f.Quantity = f.Audio+o.Audio, f.Bytes+o.Bytes, f.Tokens+o.Tokens, f.Quantity+o.Quantity
	f.Admissions, f.Uncharged = f.Admissions+o.Admissions, f.Uncharged+o.Uncharged
	f.Waited, f.Running = f.Waited+o.Waited, f.Running+o.Running
	for _, m := range o.Amounts {
		f.Owe(m.Currency, m.Cost, m.Charged)
	}
}

// Rollup says how far a user's sums are.
type Rollup struct {
	Account quota.AccountID
	// Zone is that of the days.
	Zone *time.Location
	// AsOf is the instant before which everything that was answered is in the sums; zero: nothing is.
	AsOf, Now time.Time
	// First is the first day on which there can be anything.
	First Day
	// Listed says that the largest pieces of work are known as far as the sums are.
	Listed bool
}

// Sum is what was used of one type on a day, at costs of one currency: empty of what ended without a charge.
type Sum struct {
	Day                     Day
	UsageType, CostCurrency string
	Figures                 Figures
}

// HourSum is what was used in an hour of a day of the week.
type HourSum struct {
	Weekday time.Weekday
	Hour    int
	Events  int64
	Credits quota.Credits
}

// Refusal is how often something was refused for a reason, and the credits that were asked for.
type Refusal struct {
	Reason  quota.Reason
	Count   int64
	Credits quota.Credits
}

// Total is what all users used on a day of UTC of one type, on one plan and at prices of one currency.
type Total struct {
	Sum

	// Plan is empty of what ended without a charge, Currency is that of prices. Users are those who are counted in it.
	Plan, Currency string
	Users          int64
	// Expired and Cancelled are of those that Figures has as Uncharged. Within counts the admissions that waited for at
	// most as long as each of WaitBounds, charged or not.
	Expired, Cancelled int64
	Within             [len(WaitBounds)]int64
}

// RefusalTotal is what was refused to users of one plan for a reason, and which plan would not have: empty if none.
type RefusalTotal struct {
	Refusal

	Plan, ServedBy string
	// UserDays are the users who were refused it, each counted once for each day of UTC, and PeakUsers those of the day
	// that had the most: how many different ones they were lies between the two.
	UserDays, PeakUsers int64
}

// TotalsStore reads totals of all users.
type TotalsStore interface {
	// TotalsRollup says how far they are, in UTC.
	TotalsRollup(ctx context.Context) (Rollup, error)
	// Totals reads those of a plan, of all if it is empty, of days from one on and before another, in their order.
	Totals(ctx context.Context, plan string, from, to Day) ([]Total, error)
	// AllRefusals reads what was refused on these days.
	AllRefusals(ctx context.Context, from, to Day) ([]RefusalTotal, error)
}

// AnalyticsStore reads sums. No day that was not asked for is read.
type AnalyticsStore interface {
	// Rollup says how far the sums are, or ErrNotFound.
	Rollup(ctx context.Context, userID string) (Rollup, error)
	// Sums reads those of days from one on and before another, in their order.
	Sums(ctx context.Context, account quota.AccountID, from, to Day) ([]Sum, error)
	// Paid reads, by days of UTC, what others than the account itself used that it pays for.
	Paid(ctx context.Context, payer quota.AccountID, from, to Day) ([]Sum, error)
	// Refusals reads what was refused in the hours that begin on these days, in the order of the reasons.
	Refusals(ctx context.Context, account quota.AccountID, zone *time.Location, from, to Day) ([]Refusal, error)
	// Hours reads those of the hours of these days together, by the clock of the zone.
	Hours(ctx context.Context, account quota.AccountID, zone *time.Location, from, to Day) ([]HourSum, error)
	// Waits reads how an account's work had waited, and everybody's on a plan, by the days and hours of the zone.
	Waits(ctx context.Context, account quota.AccountID, plan string, zone *time.Location, from, to Day) (
		[]HourWaits, error)
}

// HourWaits is how the work that ended in an hour of a day had waited.
type HourWaits struct {
	advice.Waits

	// Own says that it is the account's, not everybody's.
	Own  bool
	Day  Day
	Hour int
}

// By is how sums are grouped.
type By string

// The groups of sums. Weeks begin on Mondays.
const (
	ByDay   By = "day"
	ByWeek  By = "week"
	ByMonth By = "month"
	ByType  By = "type"
	// ByPlan and ByTeam are for operators only.
	ByPlan By = "plan"
	ByTeam By = "team"
)

// MaxDays is the longest span of days that can be asked for.
const MaxDays = 400

// DefaultDays is the length of a span whose beginning is left out.
const DefaultDays = 30

// Span is the days that are asked for: From on and before To. A zero To is tomorrow, a zero From so many Days before
// To, DefaultDays if that is zero too.
type Span struct {
	From, To Day
	Days     int
}

// within returns the span with what was left out, and the part of it that the sums cover.
func (s Span) within(r *Rollup) (asked, covered Span, err error) {
	var none Day
	if s.To == none {
		s.To = DayOf(r.Now, r.Zone).Add(1)
	}
	if s.From == none {
		s.From = s.To.Add(-cmp.Or(s.Days, DefaultDays))
	}
	switch days := s.To.Since(s.From); {
	case days <= 0:
		return s, s, quota.Invalid("from", "%s must be before to, which is %s", s.From, s.To)
	case days > MaxDays:
		return s, s, quota.Invalid("from", "%s must be at most %d days before to, which is %s", s.From, MaxDays, s.To)
	}
	if r.AsOf.IsZero() {
		return s, Span{From: s.From, To: s.From}, nil
	}
	covered = Span{From: later(s.From, r.First), To: earlier(s.To, DayOf(r.AsOf, r.Zone).Add(1))}
	if covered.To.Before(covered.From) {
		covered.To = covered.From
	}
	return s, covered, nil
}

// Bucket is what was used in a span of days: of all, or of the type or plan of a name.
type Bucket struct {
	Span

	Name    string
	Figures Figures
}

// Analytics are what a user has used.
type Analytics struct {
	Rollup
	// Span is what was asked for. Total is all of it.
	Span

	Total Figures
	// Buckets have every day that the sums cover, used or not; there is none for what is before the user's first day or
	// after AsOf.
	Buckets []Bucket
	// Refusals of the span; they are counted by whoever refuses, and known some seconds later.
	Refusals []Refusal
}

// Analytics sums up what a user used, in groups.
func (s *Service) Analytics(ctx context.Context, userID string, by By, span Span) (Analytics, error) {
	r, err := s.rollup(ctx, userID)
	if err != nil {
		return Analytics{}, err
	}
	out := Analytics{Rollup: r}
	var covered Span
	if out.Span, covered, err = span.within(&r); err != nil {
		return Analytics{}, err
	}
	sums, err := s.sums(ctx, &r, covered)
	if err != nil {
		return Analytics{}, err
	}
	out.group(sums, covered, by)
	if r.Account != (quota.AccountID{}) {
		out.Refusals, err = s.summed.Refusals(ctx, r.Account, r.Zone, out.From, out.To)
	}
	return out, err
}

// group fills in the total and the groups.
func (a *Analytics) group(sums []Sum, covered Span, by By) {
	for i := range sums {
		a.Total.Add(&sums[i].Figures)
	}
	if by == ByType {
		a.Buckets = byName(sums, covered, func(s *Sum) string { return s.UsageType })
	} else {
		a.Buckets = byTime(sums, covered, by)
	}
}

// rollup says how far the sums of a user are, who may be one for whom the service would make an account.
func (s *Service) rollup(ctx context.Context, userID string) (Rollup, error) {
	if err := ledger.ValidateUserID(userID); err != nil {
		return Rollup{}, err
	}
	r, err := s.summed.Rollup(ctx, userID)
	if !errors.Is(err, ledger.ErrNotFound) {
		return r, err
	}
	u, err := s.standings.Current(ctx, userID)
	if err != nil {
		return Rollup{}, err
	}
	return Rollup{Zone: time.UTC, AsOf: u.Now, Now: u.Now, First: DayOf(u.Now, time.UTC), Listed: true}, nil
}

func (s *Service) sums(ctx context.Context, r *Rollup, span Span) ([]Sum, error) {
	if r.Account == (quota.AccountID{}) || !span.From.Before(span.To) {
		return nil, nil
	}
	return s.summed.Sums(ctx, r.Account, span.From, span.To)
}

// byName groups sums by a name of theirs, in the order of the names.
func byName(sums []Sum, span Span, name func(*Sum) string) []Bucket {
	var all []Bucket
	for i := range sums {
		at, there := slices.BinarySearchFunc(all, name(&sums[i]), func(b Bucket, name string) int {
			return cmp.Compare(b.Name, name)
		})
		if !there {
			all = slices.Insert(all, at, Bucket{Span: span, Name: name(&sums[i])})
		}
		all[at].Figures.Add(&sums[i].Figures)
	}
	return all
}

// byTime groups sums, which are in the order of their days, by spans that lie within the whole.
func byTime(sums []Sum, span Span, by By) []Bucket {
	var all []Bucket
	for from := span.From; from.Before(span.To); {
		b := Bucket{Span: Span{From: from, To: earlier(next(from, by), span.To)}}
		for len(sums) > 0 && sums[0].Day.Before(b.To) {
			b.Figures.Add(&sums[0].Figures)
			sums = sums[1:]
		}
		all, from = append(all, b), b.To
	}
	return all
}

// next returns the day on which the next group begins.
func next(d Day, by By) Day {
	t := time.Time(d)
	switch by {
	case ByWeek:
		return d.Add(7 - int(t.Weekday()+6)%7)
	case ByMonth:
		return Day(time.Date(t.Year(), t.Month()+1, 1, 0, 0, 0, 0, time.UTC))
	case ByDay, ByType, ByPlan, ByTeam:
	}
	return d.Add(1)
}

// Activity is when a user uses the product.
type Activity struct {
	Rollup
	Span

	// Days is how often each day of the week lies in what the sums cover of the span, from Sunday on: where it is 0
	// nothing is known of it, where it is not and an hour has nothing, nothing was used.
	Days  [7]int
	Hours [7][24]HourSum
}

// Activity sums up what a user used by the hours of the week, of the user's clock.
func (s *Service) Activity(ctx context.Context, userID string, span Span) (Activity, error) {
	r, err := s.rollup(ctx, userID)
	if err != nil {
		return Activity{}, err
	}
	out := Activity{Rollup: r}
	var covered Span
	if out.Span, covered, err = span.within(&r); err != nil {
		return Activity{}, err
	}
	for d := covered.From; d.Before(covered.To); d = d.Add(1) {
		out.Days[time.Time(d).Weekday()]++
	}
	for d := range out.Hours {
		for h := range out.Hours[d] {
			out.Hours[d][h] = HourSum{Weekday: time.Weekday(d), Hour: h}
		}
	}
	if r.Account == (quota.AccountID{}) || !covered.From.Before(covered.To) {
		return out, nil
	}
	hours, err := s.summed.Hours(ctx, r.Account, r.Zone, covered.From, covered.To)
	for _, h := range hours {
		out.Hours[h.Weekday][h.Hour] = h
	}
	return out, err
}

const (
	// trendDays is the length of the two spans that a trend compares: four of each day of the week.
	trendDays = 28
	// engagementDays is how far back the longest streak is looked for.
	engagementDays = MaxDays
	// activeDays is the span in which active days are counted.
	activeDays = 30
)

// Engagement is how a user takes to the product. An active day is one with a use that was not reversed.
type Engagement struct {
	Rollup
	// FirstUse and LastUse are the first and the last active day of the latest 400; nil if there is none.
	FirstUse, LastUse *Day
	// ActiveDays of the latest 30. CurrentStreak is how many active days there were in a row, up to today or yesterday,
	// LongestStreak the longest such row of the latest 400 days.
	ActiveDays, CurrentStreak, LongestStreak int
	// Recent are the 28 days before today, Previous the 28 before those; nil where the user is not that old, or the
	// sums do not go that far.
	Recent, Previous *Bucket
	// Transcriptions are what each cost in the mean, by the currency of the cost, of those of Recent.
	Transcriptions []PerTranscription
	// Open is the open period.
	Open HistoryPeriod
}

// PerTranscription is what transcriptions cost in the mean: the provider's cost, rounded half-even.
type PerTranscription struct {
	Currency string
	Count    int64
	Cost     quota.Money
}

// Engagement sums up how a user takes to the product.
func (s *Service) Engagement(ctx context.Context, userID string) (Engagement, error) {
	r, err := s.rollup(ctx, userID)
	if err != nil {
		return Engagement{}, err
	}
	h, err := s.History(ctx, userID, 0, 1)
	if err != nil {
		return Engagement{}, err
	}
	today := DayOf(r.Now, r.Zone)
	_, covered, err := Span{From: today.Add(1 - engagementDays), To: today.Add(1)}.within(&r)
	if err != nil {
		return Engagement{}, err
	}
	sums, err := s.sums(ctx, &r, covered)
	if err != nil {
		return Engagement{}, err
	}
	out := Engagement{Rollup: r, Open: h.Periods[0]}
	out.streaks(sums, today)
	out.trend(sums, covered, today)
	return out, nil
}

// streaks finds the active days among sums that are in the order of their days.
func (e *Engagement) streaks(sums []Sum, today Day) {
	row := 0
	for i := range sums {
		d := sums[i].Day
		if sums[i].Figures.Events <= sums[i].Figures.Reversals || e.LastUse != nil && *e.LastUse == d {
			continue
		}
		if e.LastUse == nil {
			e.FirstUse = &d
		}
		if e.LastUse == nil || e.LastUse.Add(1) != d {
			row = 0
		}
		row++
		e.LastUse, e.LongestStreak = &d, max(e.LongestStreak, row)
		if today.Since(d) < activeDays {
			e.ActiveDays++
		}
	}
	if e.LastUse != nil && today.Since(*e.LastUse) <= 1 {
		e.CurrentStreak = row
	}
}

// trend compares the latest whole days with those before them.
func (e *Engagement) trend(sums []Sum, covered Span, today Day) {
	of := func(span Span) *Bucket {
		if span.From.Before(covered.From) || covered.To.Before(span.To) {
			return nil
		}
		b := Bucket{Span: span}
		for i := range sums {
			if d := sums[i].Day; !d.Before(span.From) && d.Before(span.To) {
				b.Figures.Add(&sums[i].Figures)
			}
		}
		return &b
	}
	recent := Span{From: today.Add(-trendDays), To: today}
	e.Recent = of(recent)
	e.Previous = of(Span{From: recent.From.Add(-trendDays), To: recent.From})
	if e.Recent == nil {
		return
	}
	var costs Figures
	counts := map[string]int64{}
	for i := range sums {
		u := &sums[i]
		if u.UsageType != quota.UsageTranscription || u.Day.Before(recent.From) || !u.Day.Before(recent.To) {
			continue
		}
		counts[u.CostCurrency] += u.Figures.Events
		for _, m := range u.Figures.Amounts {
			costs.Owe(m.Currency, m.Cost, 0)
		}
	}
	for _, m := range costs.Amounts {
		n := counts[m.Currency]
		e.Transcriptions = append(e.Transcriptions,
			PerTranscription{Currency: m.Currency, Count: n, Cost: halfEven(m.Cost, n)})
	}
}

// halfEven divides what is not negative by a count above zero.
func halfEven(m quota.Money, n int64) quota.Money {
	q, rest := int64(m)/n, int64(m)%n
	if twice := 2 * rest; twice > n || twice == n && q%2 == 1 {
		q++
	}
	return quota.Money(q)
}
