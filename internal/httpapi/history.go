// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// defaultHistory is a year of months.
const defaultHistory = 12

// GetUsageHistory implements GET /api/v1/usage/history.
func (s *server) GetUsageHistory(
	ctx context.Context, r GetUsageHistoryRequestObject,
) (GetUsageHistoryResponseObject, error) {
	user := r.Params.UserId
	if err := checkUserID(user); err != nil {
		return nil, err
	}
	limit, before, err := historyPage(r.Params.Limit, r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	if err := s.may(ctx, user); err != nil {
		return nil, err
	}
	history, err := s.history.History(ctx, user, before, limit)
	if err != nil {
		return nil, err
	}
	return GetUsageHistory200JSONResponse(usageHistory(user, history)), nil
}

// historyPage reads which page of a history is asked for.
func historyPage(given *int32, cursor string) (limit int, before int64, err error) {
	limit = defaultHistory
	if given != nil {
		limit = int(*given)
	}
	if limit < 1 || limit > reports.MaxHistory {
		return 0, 0, invalid("limit: %d must be between 1 and %d", limit, reports.MaxHistory)
	}
	before, err = parseCursor(cursor)
	return limit, before, err
}

// cursorPrefix tells cursors of the history from others, and from those of another release.
const cursorPrefix = "history/1/"

// cursor says where a page begins, in a form that nobody is tempted to compute.
func cursor(before int64) string {
	if before == 0 {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(cursorPrefix + strconv.FormatInt(before, 10)))
}

func parseCursor(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(s)
	digits, ours := strings.CutPrefix(string(text), cursorPrefix)
	before, numberErr := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ours || numberErr != nil || before < 1 || cursor(before) != s {
		return 0, notACursor(s)
	}
	return before, nil
}

func usageHistory(user string, h reports.History) UsageHistory {
	out := UsageHistory{UserId: user, Periods: make([]Period, len(h.Periods)), NextCursor: cursor(h.Before),
		AsOf: h.Now}
	for i := range h.Periods {
		out.Periods[i] = period(&h.Periods[i])
	}
	return out
}

func period(p *reports.HistoryPeriod) Period {
	out := Period{
		Number: p.No, Start: p.Period.Start, End: p.Period.End, State: p.State, FinalAt: p.FinalAt,
		Revision: p.Revision,
		Plan:     p.PlanName, UsedCredits: credits(p.Used), ReservedCredits: credits(p.Reserved),
		CarryOverCredits: credits(p.CarryOver),
		ProviderCost:     money(p.Cost), Price: money(p.Charged), Currency: p.Currency,
		Amounts: amounts(p.Money()),
	}
	if !p.PlanLimit.Unlimited {
		out.LimitCredits = credits(p.PlanLimit.Max)
	}
	return out
}

func amounts(all []quota.Amounts) Amounts {
	out := make(Amounts, len(all))
	for i, m := range all {
		out[i] = Amount{Currency: m.Currency, ProviderCost: money(m.Cost), Price: money(m.Charged)}
	}
	return out
}

func money(m quota.Money) Number { return Number(m.String()) }
