// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// ListUsageAlerts implements GET /api/v1/usage/alerts.
func (s *server) ListUsageAlerts(
	ctx context.Context, r ListUsageAlertsRequestObject,
) (ListUsageAlertsResponseObject, error) {
	user := r.Params.UserId
	if err := s.mayUser(ctx, user); err != nil {
		return nil, err
	}
	page, err := s.alertPage(ctx, quota.Level{Kind: quota.LevelUser, Name: user}, r.Params.Limit, r.Params.Cursor,
		r.Params.Unread)
	return ListUsageAlerts200JSONResponse(page), err
}

// ListTeamAlerts implements GET /api/v1/teams/{name}/alerts.
func (s *server) ListTeamAlerts(
	ctx context.Context, r ListTeamAlertsRequestObject,
) (ListTeamAlertsResponseObject, error) {
	if err := s.mayTeam(ctx, r.Name); err != nil {
		return nil, err
	}
	page, err := s.alertPage(ctx, quota.Level{Kind: quota.LevelTeam, Name: r.Name}, r.Params.Limit, r.Params.Cursor,
		r.Params.Unread)
	return ListTeamAlerts200JSONResponse(page), err
}

// AcknowledgeUsageAlert implements POST /api/v1/usage/alerts/{id}/acknowledge.
func (s *server) AcknowledgeUsageAlert(
	ctx context.Context, r AcknowledgeUsageAlertRequestObject,
) (AcknowledgeUsageAlertResponseObject, error) {
	id := quota.AlertID(r.Id)
	alert, err := s.alerts.Alert(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := s.mayOnLevel(ctx, alert.Level); err != nil {
		return nil, err
	}
	if err := s.usage.AcknowledgeAlert(ctx, id, callerFrom(ctx).user.GetName()); err != nil {
		return nil, err
	}
	if alert, err = s.alerts.Alert(ctx, id); err != nil {
		return nil, err
	}
	plan, err := s.moreRoom(ctx, alert.Level, []ledger.Alert{alert})
	return AcknowledgeUsageAlert200JSONResponse(encodeAlert(&alert, plan)), err
}

// mayOnLevel says whether the caller may read what a user or a team was told.
func (s *server) mayOnLevel(ctx context.Context, of quota.Level) error {
	if of.Kind == quota.LevelTeam {
		return s.mayOn(ctx, readTeam, access.ResourceTeams, of.Name)
	}
	return s.may(ctx, of.Name)
}

func (s *server) alertPage(
	ctx context.Context, of quota.Level, given *PageLimit, cursor string, unread bool,
) (AlertPage, error) {
	limit, err := pageLimit(given)
	if err != nil {
		return AlertPage{}, err
	}
	before, err := parseAccountCursor(cursorAlerts, cursor)
	if err != nil {
		return AlertPage{}, err
	}
	page, err := s.alerts.Alerts(ctx, of, quota.AlertID(before), unread, limit)
	if err != nil {
		return AlertPage{}, err
	}
	plan, err := s.moreRoom(ctx, of, page.Alerts)
	if err != nil {
		return AlertPage{}, err
	}
	out := AlertPage{Alerts: make([]Alert, len(page.Alerts)), AsOf: page.Now,
		NextCursor: accountCursor(cursorAlerts, quota.AccountID(page.Next))}
	for i := range page.Alerts {
		out.Alerts[i] = encodeAlert(&page.Alerts[i], plan)
	}
	return out, nil
}

// moreRoom returns the plan that has more room for whoever is told the alerts, nil if none of them asks for one.
func (s *server) moreRoom(ctx context.Context, of quota.Level, alerts []ledger.Alert) (*quota.Plan, error) {
	wanted := false
	for i := range alerts {
		wanted = wanted || wantsUpgrade(&alerts[i])
	}
	if !wanted {
		return nil, nil
	}
	var on quota.Chain
	var now time.Time
	if of.Kind == quota.LevelTeam {
		stand, err := s.teams.TeamUsage(ctx, []string{of.Name})
		u, there := stand[of.Name]
		if err != nil || !there || u.Unreadable != nil {
			return nil, err
		}
		on, now = quota.Over(u.Usage.Account, u.Above), u.Now
	} else {
		u, err := s.usage.Current(ctx, of.Name)
		if err != nil {
			return nil, err
		}
		on, now = u.Chain(), u.Now
	}
	return s.usage.Upgrade(ctx, on, now), nil
}

// wantsUpgrade reports whether another plan would help against what an alert tells.
func wantsUpgrade(a *ledger.Alert) bool {
	switch a.Kind {
	case quota.AlertCreditsPercent, quota.AlertDailyCost, quota.AlertOverdrawn, quota.AlertExhaustion:
		return a.ResolvedAt.IsZero()
	case quota.AlertTeamShare, quota.AlertGrantExpiring, quota.AlertPeriodReset:
	}
	return false
}

func encodeAlert(a *ledger.Alert, plan *quota.Plan) Alert {
	amount := func(n int64) Number { return credits(quota.Credits(n)) }
	if a.Currency != "" {
		amount = func(n int64) Number { return money(quota.Money(n)) }
	}
	out := Alert{
		Id: uuid.UUID(a.ID), Level: level(a.Level), Kind: a.Kind, Severity: a.Severity(), Period: a.PeriodNo,
		Used: amount(a.Used), Currency: a.Currency, Message: a.Message(), Action: a.Action(), RaisedAt: a.RaisedAt,
		EndsAt: a.Until, AcknowledgedBy: a.AcknowledgedBy, ThresholdPercent: a.Threshold,
		ResolvedAt: a.ResolvedAt, AcknowledgedAt: a.AcknowledgedAt, ExhaustedAt: a.Expected,
	}
	if !a.Unlimited {
		out.Limit = amount(a.Limit)
	}
	if a.Kind == quota.AlertGrantExpiring {
		out.Grant = a.Subject
	}
	if wantsUpgrade(a) && plan != nil {
		out.UpgradePlan = planName(plan)
	}
	if p := a.Closed; p != nil {
		out.ClosedPeriod = AlertPeriod{
			Start: p.Period.Start, End: p.Period.End, UsedCredits: credits(p.Used), ProviderCost: money(p.Cost),
			Price: money(p.Charged), Currency: p.Currency,
		}
		if !p.PlanLimit.Unlimited {
			out.ClosedPeriod.LimitCredits = credits(p.PlanLimit.Max)
		}
	}
	return out
}
