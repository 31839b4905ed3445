// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"strconv"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// GetUsageTotals implements GET /api/v1/analytics/totals.
func (s *server) GetUsageTotals(
	ctx context.Context, r GetUsageTotalsRequestObject,
) (GetUsageTotalsResponseObject, error) {
	if err := s.mayAll(ctx, access.Resource); err != nil {
		return nil, err
	}
	by := reports.ByDay
	switch given := reports.By(r.Params.By); given {
	case "":
	case reports.ByDay, reports.ByWeek, reports.ByMonth, reports.ByType, reports.ByPlan:
		by = given
	default:
		return nil, invalid("by: %.40q must be day, week, month, plan or type", given)
	}
	span, err := spanOf(r.Params.From, r.Params.To)
	if err != nil {
		return nil, err
	}
	write := map[string]func([]reports.Total) (GetUsageTotalsResponseObject, error){"csv": asCSV, "ndjson": asLines}
	rows, others := write[string(r.Params.Format)]
	if f := r.Params.Format; !others && f != "" && f != "json" {
		return nil, invalid("format: %.40q must be json, csv or ndjson", f)
	}
	t, err := s.analytics.Totals(ctx, by, span)
	if err != nil {
		return nil, err
	}
	if others {
		return rows(t.Rows)
	}
	return usageTotals(&t, by), nil
}

func usageTotals(t *reports.Totals, by reports.By) GetUsageTotals200JSONResponse {
	out := GetUsageTotals200JSONResponse{
		From: date(t.From), To: date(t.To), Total: figures(&t.Total), Groups: make([]TotalsGroup, len(t.Buckets)),
		Refusals: make([]RefusalTotal, len(t.Refusals)), AsOf: t.AsOf,
	}
	for i := range t.Buckets {
		b := &t.Buckets[i]
		g := TotalsGroup{From: date(b.From), To: date(b.To), Figures: figures(&b.Figures)}
		if by == reports.ByPlan {
			g.Plan = b.Name
		} else {
			g.UsageType = b.Name
		}
		out.Groups[i] = g
	}
	for i, n := range t.Refusals {
		out.Refusals[i] = RefusalTotal{
			Plan: n.Plan, Reason: n.Reason, ServedBy: n.ServedBy, Refusals: n.Count, Users: n.Users,
			Credits: credits(n.Credits),
		}
	}
	return out
}

// totalsNumbers are the columns of a row that are numbers, under their names in usage_totals.
var totalsNumbers = []struct {
	name string
	of   func(*reports.Total) int64
}{
	{"users", func(t *reports.Total) int64 { return t.Users }},
	{"events", func(t *reports.Total) int64 { return t.Figures.Events }},
	{"reversals", func(t *reports.Total) int64 { return t.Figures.Reversals }},
	{"credits", func(t *reports.Total) int64 { return int64(t.Figures.Credits) }},
	{"refunded", func(t *reports.Total) int64 { return int64(t.Figures.Refunded) }},
	{"plan_credits", func(t *reports.Total) int64 { return int64(t.Figures.Plan) }},
	{"overage", func(t *reports.Total) int64 { return int64(t.Figures.Overage) }},
	{"grant_credits", func(t *reports.Total) int64 { return int64(t.Figures.Grants) }},
	{"carry_over", func(t *reports.Total) int64 { return int64(t.Figures.CarryOver) }},
	{"price_micros", func(t *reports.Total) int64 { return int64(amountIn(t, t.Currency).Charged) }},
	{"cost_micros", func(t *reports.Total) int64 { return int64(amountIn(t, t.CostCurrency).Cost) }},
	{"audio_ms", func(t *reports.Total) int64 { return t.Figures.Audio.Milliseconds() }},
	{"bytes", func(t *reports.Total) int64 { return t.Figures.Bytes }},
	{"tokens", func(t *reports.Total) int64 { return t.Figures.Tokens }},
	{"quantity", func(t *reports.Total) int64 { return t.Figures.Quantity }},
	{"admissions", func(t *reports.Total) int64 { return t.Figures.Admissions }},
	{"uncharged", func(t *reports.Total) int64 { return t.Figures.Uncharged }},
	{"waited_ms", func(t *reports.Total) int64 { return t.Figures.Waited.Milliseconds() }},
	{"running_ms", func(t *reports.Total) int64 { return t.Figures.Running.Milliseconds() }},
}

// totalsNames are the columns before them.
var totalsNames = []string{"day", "plan_name", "usage_type", "currency", "cost_currency"}

func namesOf(t *reports.Total) []string {
	return []string{t.Day.String(), t.Plan, t.UsageType, t.Currency, t.CostCurrency}
}

func amountIn(t *reports.Total, currency string) quota.Amounts {
	for _, m := range t.Figures.Amounts {
		if m.Currency == currency {
			return m
		}
	}
	return quota.Amounts{}
}

// asCSV writes rows with a header.
func asCSV(rows []reports.Total) (GetUsageTotalsResponseObject, error) {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	header := append([]string{}, totalsNames...)
	for _, column := range totalsNumbers {
		header = append(header, column.name)
	}
	// A buffer takes everything; Flush tells.
	_ = w.Write(header)
	for i := range rows {
		record := namesOf(&rows[i])
		for _, column := range totalsNumbers {
			record = append(record, strconv.FormatInt(column.of(&rows[i]), 10))
		}
		_ = w.Write(record)
	}
	w.Flush()
	return GetUsageTotals200TextcsvResponse{Body: &out, ContentLength: int64(out.Len())}, w.Error()
}

// asLines writes each row as a line of JSON.
func asLines(rows []reports.Total) (GetUsageTotalsResponseObject, error) {
	var out bytes.Buffer
	lines := json.NewEncoder(&out)
	for i := range rows {
		line := make(map[string]any, len(totalsNames)+len(totalsNumbers))
		for n, text := range namesOf(&rows[i]) {
			line[totalsNames[n]] = text
		}
		for _, column := range totalsNumbers {
			line[column.name] = column.of(&rows[i])
		}
		if err := lines.Encode(line); err != nil {
			return nil, err
		}
	}
	return GetUsageTotals200ApplicationxNdjsonResponse{Body: &out, ContentLength: int64(out.Len())}, nil
}
