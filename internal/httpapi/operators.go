// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"fmt"
	"iter"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// onePage is a table that is there as a whole.
func onePage[T any](rows []T) iter.Seq2[[]T, error] {
	return func(yield func([]T, error) bool) { yield(rows, nil) }
}

// GetPlanUtilisation implements GET /api/v1/analytics/utilisation.
func (s *server) GetPlanUtilisation(
	ctx context.Context, r GetPlanUtilisationRequestObject,
) (GetPlanUtilisationResponseObject, error) {
	if err := s.mayAll(ctx, access.Resource); err != nil {
		return nil, err
	}
	format := string(r.Params.Format)
	rows, err := asRows(format)
	if err != nil {
		return nil, err
	}
	span, err := spanOf(r.Params.From, r.Params.To)
	if err != nil {
		return nil, err
	}
	u, err := s.operators.Utilisation(ctx, span)
	if err != nil {
		return nil, err
	}
	if rows {
		var counts []reports.PeriodCount
		for _, p := range u.Plans {
			counts = append(counts, p.Counts...)
		}
		return newDownload(ctx, format, u.AsOf, utilisationColumns, onePage(counts)), nil
	}
	out := GetPlanUtilisation200JSONResponse{
		From: date(u.From), To: date(u.To), Plans: make([]PlanUtilisation, len(u.Plans)), AsOf: u.AsOf,
	}
	for i, p := range u.Plans {
		out.Plans[i] = PlanUtilisation{
			Plan: p.Plan, Periods: p.Periods, Unlimited: p.Unlimited, Idle: p.Idle, Exhausted: p.Exhausted,
			Deciles: p.Deciles,
		}
	}
	return out, nil
}

// utilisationColumns are those of usage_utilisation.
var utilisationColumns = []column[reports.PeriodCount]{
	{"plan_name", func(c *reports.PeriodCount) any { return c.Plan }},
	{"percent", func(c *reports.PeriodCount) any { return c.Percent }},
	{"periods", func(c *reports.PeriodCount) any { return c.Periods }},
	{"idle", func(c *reports.PeriodCount) any { return c.Idle }},
}

// GetMargins implements GET /api/v1/analytics/margins.
func (s *server) GetMargins(ctx context.Context, r GetMarginsRequestObject) (GetMarginsResponseObject, error) {
	if err := s.mayAll(ctx, access.Resource); err != nil {
		return nil, err
	}
	by, err := marginsBy(string(r.Params.By))
	if err != nil {
		return nil, err
	}
	format := string(r.Params.Format)
	rows, err := asRows(format)
	if err != nil {
		return nil, err
	}
	span, err := spanOf(r.Params.From, r.Params.To)
	if err != nil {
		return nil, err
	}
	m, err := s.operators.Margins(ctx, by, span)
	if err != nil {
		return nil, err
	}
	if rows {
		return newDownload(ctx, format, m.AsOf, marginColumns, onePage(m.Rows)), nil
	}
	out := GetMargins200JSONResponse{
		From: date(m.From), To: date(m.To), Groups: make([]Margin, len(m.Rows)), AsOf: m.AsOf,
	}
	for i := range m.Rows {
		g := &m.Rows[i]
		out.Groups[i] = Margin{
			From: date(g.From), To: date(g.To), Plan: g.Plan, Team: g.Team, Currency: g.Currency,
			Periods: g.Periods, PeriodPrice: money(g.PeriodPrice),
			OveragePrice: money(g.OveragePrice), Revenue: money(g.Revenue()), ProviderCost: money(g.Cost),
			Margin: money(g.Margin()),
		}
		if revenue := g.Revenue(); revenue > 0 {
			out.Groups[i].MarginPercent = new(percentOf(int64(g.Margin()), int64(revenue)))
		}
	}
	return out, nil
}

// marginsBy reads how margins are grouped.
func marginsBy(given string) (reports.By, error) {
	switch by := reports.By(given); by {
	case "":
		return reports.ByPlan, nil
	case reports.ByPlan, reports.ByTeam, reports.ByDay, reports.ByWeek, reports.ByMonth:
		return by, nil
	case reports.ByType:
	}
	return "", invalid("by: %.40q must be plan, team, day, week or month", given)
}

var marginColumns = []column[reports.Margin]{
	{"from", func(m *reports.Margin) any { return m.From.String() }}, //nolint:goconst // a column's name
	{"to", func(m *reports.Margin) any { return m.To.String() }},
	{"plan_name", func(m *reports.Margin) any { return m.Plan }},
	{"team", func(m *reports.Margin) any { return m.Team }}, //nolint:goconst // a column's name
	{"currency", func(m *reports.Margin) any { return m.Currency }},
	{"periods", func(m *reports.Margin) any { return m.Periods }},
	{"period_price_micros", func(m *reports.Margin) any { return int64(m.PeriodPrice) }},
	{"overage_price_micros", func(m *reports.Margin) any { return int64(m.OveragePrice) }},
	{"cost_micros", func(m *reports.Margin) any { return int64(m.Cost) }},
}

// ListSpenders implements GET /api/v1/analytics/spenders.
func (s *server) ListSpenders(
	ctx context.Context, r ListSpendersRequestObject,
) (ListSpendersResponseObject, error) {
	if err := s.mayAll(ctx, access.Resource); err != nil {
		return nil, err
	}
	format := string(r.Params.Format)
	rows, err := asRows(format)
	if err != nil {
		return nil, err
	}
	limit, err := pageLimit(r.Params.Limit)
	if err != nil {
		return nil, err
	}
	q, err := spendersQuery(&r.Params)
	if err != nil {
		return nil, err
	}
	if rows {
		answered, pages, err := s.operators.SpenderRows(ctx, q)
		if err != nil {
			return nil, err
		}
		return newDownload(ctx, format, answered.AsOf, spenderColumns, pages), nil
	}
	page, err := s.operators.Spenders(ctx, q, limit)
	if err != nil {
		return nil, err
	}
	out := ListSpenders200JSONResponse{
		Month: month(page.Month), Currency: page.Currency, Currencies: append([]string{}, page.Currencies...),
		Users: make([]Spender, len(page.Users)), NextCursor: spenderCursor(&page.SpendersQuery, page.Next),
		AsOf: page.AsOf,
	}
	for i := range page.Users {
		u := &page.Users[i]
		out.Users[i] = Spender{
			UserId: u.UserID, Plan: u.Plan, Uses: u.Uses, Credits: credits(u.Credits), Price: money(u.Price),
			ProviderCost: money(u.Cost), PreviousCredits: credits(u.PreviousCredits),
			PreviousPrice: money(u.PreviousPrice), PreviousProviderCost: money(u.PreviousCost),
			GrowthCredits: credits(u.Growth()),
		}
		if before := u.PreviousCredits; before > 0 {
			out.Users[i].GrowthPercent = new(percent(u.Growth(), before))
		}
	}
	return out, nil
}

var spenderColumns = []column[reports.Spender]{
	{"user_id", func(u *reports.Spender) any { return u.UserID }}, //nolint:goconst // a column's name
	{"plan_name", func(u *reports.Spender) any { return u.Plan }},
	{"uses", func(u *reports.Spender) any { return u.Uses }},
	{"credits", func(u *reports.Spender) any { return int64(u.Credits) }},
	{"price_micros", func(u *reports.Spender) any { return int64(u.Price) }},
	{"cost_micros", func(u *reports.Spender) any { return int64(u.Cost) }},
	{"previous_credits", func(u *reports.Spender) any { return int64(u.PreviousCredits) }},
	{"previous_price_micros", func(u *reports.Spender) any { return int64(u.PreviousPrice) }},
	{"previous_cost_micros", func(u *reports.Spender) any { return int64(u.PreviousCost) }},
}

// ranks are the orders of users. Cursors have the places that they have here.
var ranks = []reports.Rank{reports.ByCredits, reports.ByPrice, reports.ByCost, reports.ByGrowth}

// spendersQuery reads which users are asked for. A page that a cursor asks for is of the same order as that before it.
func spendersQuery(p *ListSpendersParams) (reports.SpendersQuery, error) {
	q := reports.SpendersQuery{By: reports.Rank(p.By), Currency: p.Currency}
	if q.By == "" {
		q.By = reports.ByCredits
	}
	if !slices.Contains(ranks, q.By) {
		return q, invalid("by: %.40q must be credits, price, cost or growth", q.By)
	}
	if c := q.Currency; c != "" && (len(c) != 3 || strings.Trim(c, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "") {
		return q, invalid("currency: %.40q must be three capital letters, such as USD", c)
	}
	var err error
	if q.Month, err = monthOf("month", p.Month); err != nil {
		return q, err
	}
	return q, placeIn(&q, p.Cursor)
}

// spenderCursor says of which order, and behind which of its places, a page begins.
func spenderCursor(q *reports.SpendersQuery, behind *reports.SpendersPlace) string {
	if behind == nil {
		return ""
	}
	value := strings.Replace(strconv.FormatInt(behind.Value, 36), "-", "_", 1)
	return pageCursor(cursorSpenders, fmt.Sprintf("%d.%s.%s.%s.%x", slices.Index(ranks, q.By), month(q.Month),
		q.Currency, value, [16]byte(behind.Account)))
}

// placeIn completes a question by a cursor, which must be of the same one.
func placeIn(q *reports.SpendersQuery, text string) error {
	last, err := parsePageCursor(cursorSpenders, text)
	if last == "" || err != nil {
		return err
	}
	parts := strings.Split(last, ".")
	by := -1
	if len(parts) == 5 && len(parts[0]) == 1 {
		by = int(parts[0][0] - '0')
	}
	if by < 0 || by >= len(ranks) {
		return notACursor(text)
	}
	at, err1 := monthOf("month", parts[1])
	value, err2 := strconv.ParseInt(strings.Replace(parts[3], "_", "-", 1), 36, 64)
	id, err3 := uuid.Parse(parts[4])
	was := reports.SpendersQuery{By: ranks[by], Month: at, Currency: parts[2],
		Behind: &reports.SpendersPlace{Value: value, Account: quota.AccountID(id)}}
	if err1 != nil || err2 != nil || err3 != nil || spenderCursor(&was, was.Behind) != text {
		return notACursor(text)
	}
	if was.By != q.By || q.Month != (reports.Day{}) && q.Month != was.Month ||
		q.Currency != "" && q.Currency != was.Currency {
		return invalid("cursor: is of the users of %s by %s in %s, not of those asked for", month(was.Month), was.By,
			was.Currency)
	}
	*q = was
	return nil
}

// month writes the month of its first day.
func month(d reports.Day) string { return d.String()[:len("2026-03")] }

// monthOf reads a month, which may be left out.
func monthOf(name, given string) (reports.Day, error) {
	if given == "" {
		return reports.Day{}, nil
	}
	t, err := time.Parse("2006-01", given)
	if err != nil || t.Year() < 2000 || t.Year() > 9998 {
		return reports.Day{}, invalid("%s: %.40q must be a month from 2000-01 to 9998-12, such as 2026-03", name, given)
	}
	return reports.Day(t), nil
}

// GetCohorts implements GET /api/v1/analytics/cohorts.
func (s *server) GetCohorts(ctx context.Context, r GetCohortsRequestObject) (GetCohortsResponseObject, error) {
	if err := s.mayAll(ctx, access.Resource); err != nil {
		return nil, err
	}
	format := string(r.Params.Format)
	rows, err := asRows(format)
	if err != nil {
		return nil, err
	}
	from, err := monthOf("from", r.Params.From)
	if err != nil {
		return nil, err
	}
	to, err := monthOf("to", r.Params.To)
	if err != nil {
		return nil, err
	}
	c, err := s.operators.Cohorts(ctx, from, to)
	if err != nil {
		return nil, err
	}
	if rows {
		return newDownload(ctx, format, c.AsOf, cohortColumns, onePage(cohortRows(c.Cohorts))), nil
	}
	out := GetCohorts200JSONResponse{
		From: month(c.From), To: month(c.To), Cohorts: make([]Cohort, len(c.Cohorts)), AsOf: c.AsOf,
	}
	for i, of := range c.Cohorts {
		out.Cohorts[i] = Cohort{Month: month(of.Month), Users: of.Active[0], Active: of.Active}
	}
	return out, nil
}

var cohortColumns = []column[reports.CohortMonth]{
	{"cohort", func(c *reports.CohortMonth) any { return month(c.Cohort) }},
	{"month", func(c *reports.CohortMonth) any { return month(c.Month) }},
	{"users", func(c *reports.CohortMonth) any { return c.Users }},
}

func cohortRows(cohorts []reports.Cohort) []reports.CohortMonth {
	var rows []reports.CohortMonth
	for _, c := range cohorts {
		at := c.Month
		for _, n := range c.Active {
			rows = append(rows, reports.CohortMonth{Cohort: c.Month, Month: at, Users: n})
			at = reports.MonthOf(at.Add(31))
		}
	}
	return rows
}

// GetWork implements GET /api/v1/analytics/work.
func (s *server) GetWork(ctx context.Context, r GetWorkRequestObject) (GetWorkResponseObject, error) {
	if err := s.mayAll(ctx, access.Resource); err != nil {
		return nil, err
	}
	by, err := totalsBy(string(r.Params.By))
	if err != nil {
		return nil, err
	}
	format := string(r.Params.Format)
	rows, err := asRows(format)
	if err != nil {
		return nil, err
	}
	span, err := spanOf(r.Params.From, r.Params.To)
	if err != nil {
		return nil, err
	}
	w, err := s.operators.Work(ctx, by, span)
	if err != nil {
		return nil, err
	}
	if rows {
		return newDownload(ctx, format, w.AsOf, workColumns, onePage(w.Groups)), nil
	}
	out := GetWork200JSONResponse{
		From: date(w.From), To: date(w.To), Total: workEndings(&w.Total), Groups: make([]WorkGroup, len(w.Groups)),
		AsOf: w.AsOf,
	}
	for i := range w.Groups {
		g := &w.Groups[i]
		out.Groups[i] = WorkGroup{From: date(g.From), To: date(g.To), Endings: workEndings(&g.Endings)}
		if by == reports.ByPlan {
			out.Groups[i].Plan = g.Name
		} else {
			out.Groups[i].UsageType = g.Name
		}
	}
	return out, nil
}

var workColumns = []column[reports.EndingsGroup]{
	{"from", func(g *reports.EndingsGroup) any { return g.From.String() }},
	{"to", func(g *reports.EndingsGroup) any { return g.To.String() }},
	{"name", func(g *reports.EndingsGroup) any { return g.Name }}, //nolint:goconst // a column's name
	{"charged", func(g *reports.EndingsGroup) any { return g.Endings.Charged }},
	{"released", func(g *reports.EndingsGroup) any { return g.Endings.Released }},
	{"expired", func(g *reports.EndingsGroup) any { return g.Endings.Expired }},
	{"cancelled", func(g *reports.EndingsGroup) any { return g.Endings.Cancelled }},
	{"waited_ms", func(g *reports.EndingsGroup) any { return g.Endings.Waited.Milliseconds() }},
	{"running_ms", func(g *reports.EndingsGroup) any { return g.Endings.Running.Milliseconds() }},
	{"waited_1s", func(g *reports.EndingsGroup) any { return g.Endings.Within[0] }},
	{"waited_1m", func(g *reports.EndingsGroup) any { return g.Endings.Within[1] }},
	{"waited_10m", func(g *reports.EndingsGroup) any { return g.Endings.Within[2] }},
	{"waited_1h", func(g *reports.EndingsGroup) any { return g.Endings.Within[3] }},
}

func workEndings(e *reports.Endings) WorkEndings {
	out := WorkEndings{
		Ended: e.Ended(), Charged: e.Charged, Released: e.Released, Expired: e.Expired, Cancelled: e.Cancelled,
		Waits: make([]WaitCount, len(reports.WaitBounds)), WaitPercentiles: []WaitPercentile{},
	}
	for i, bound := range reports.WaitBounds {
		out.Waits[i] = WaitCount{Seconds: int64(bound / time.Second), Ended: e.Within[i]}
	}
	if n := e.Ended(); n > 0 {
		out.MeanWaitSeconds = seconds(e.Waited / time.Duration(n))
		for _, percent := range []int64{50, 90, 99} {
			wait, longer := e.WaitPercentile(percent)
			out.WaitPercentiles = append(out.WaitPercentiles,
				WaitPercentile{Percent: int32(percent), Seconds: seconds(wait), Longer: longer})
		}
	}
	if n := e.Ended() - e.Cancelled; n > 0 {
		out.MeanRunSeconds = seconds(e.Running / time.Duration(n))
		out.FailedPercent = new(percentOf(e.Failed(), n))
	}
	return out
}

// percentOf is a share, rounded towards zero and of at most a billion.
func percentOf(part, of int64) int32 {
	const most = 1_000_000_000
	p := new(big.Int).Mul(big.NewInt(part), big.NewInt(100))
	p.Quo(p, big.NewInt(of))
	if !p.IsInt64() {
		return most
	}
	return int32(min(max(p.Int64(), -most), most))
}

// VisitGetPlanUtilisationResponse writes the rows.
func (d download) VisitGetPlanUtilisationResponse(w http.ResponseWriter) error { return d.write(w) }

// VisitGetMarginsResponse writes the rows.
func (d download) VisitGetMarginsResponse(w http.ResponseWriter) error { return d.write(w) }

// VisitListSpendersResponse writes the rows.
func (d download) VisitListSpendersResponse(w http.ResponseWriter) error { return d.write(w) }

// VisitGetCohortsResponse writes the rows.
func (d download) VisitGetCohortsResponse(w http.ResponseWriter) error { return d.write(w) }

// VisitGetWorkResponse writes the rows.
func (d download) VisitGetWorkResponse(w http.ResponseWriter) error { return d.write(w) }
