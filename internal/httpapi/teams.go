// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/base64"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// defaultPage is how many teams, shares or members a page has.
const defaultPage = 100

// ListTeams implements GET /api/v1/teams.
func (s *server) ListTeams(ctx context.Context, r ListTeamsRequestObject) (ListTeamsResponseObject, error) {
	if err := s.mayAll(ctx, access.ResourceTeams); err != nil {
		return nil, err
	}
	limit, err := pageLimit(r.Params.Limit)
	if err != nil {
		return nil, err
	}
	after, err := parsePageCursor(cursorTeams, r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	names, more, err := s.teamReports.TeamNames(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	stand, err := s.teams.TeamUsage(ctx, names)
	if err != nil {
		return nil, err
	}
	out := ListTeams200JSONResponse{Teams: []Team{}, AsOf: time.Now().UTC()}
	for _, name := range names {
		// One that is gone since its name was read is left out, and so is one that this release cannot read.
		if u, there := stand[name]; there && u.Unreadable == nil {
			out.Teams, out.AsOf = append(out.Teams, team(&u)), u.Now
		}
	}
	if more {
		out.NextCursor = pageCursor(cursorTeams, names[len(names)-1])
	}
	return out, nil
}

// GetTeam implements GET /api/v1/teams/{name}.
func (s *server) GetTeam(ctx context.Context, r GetTeamRequestObject) (GetTeamResponseObject, error) {
	if err := s.mayTeam(ctx, r.Name); err != nil {
		return nil, err
	}
	stand, err := s.teams.TeamUsage(ctx, []string{r.Name})
	if err != nil {
		return nil, err
	}
	u, there := stand[r.Name]
	switch {
	case !there:
		return nil, quota.NotFound("team %q", r.Name)
	case u.Unreadable != nil:
		return nil, u.Unreadable
	}
	return GetTeam200JSONResponse(team(&u)), nil
}

// GetTeamUsage implements GET /api/v1/teams/{name}/usage.
func (s *server) GetTeamUsage(ctx context.Context, r GetTeamUsageRequestObject) (GetTeamUsageResponseObject, error) {
	if err := s.mayTeam(ctx, r.Name); err != nil {
		return nil, err
	}
	limit, err := pageLimit(r.Params.Limit)
	if err != nil {
		return nil, err
	}
	period := r.Params.Period
	if err := checkPeriod(period); err != nil {
		return nil, err
	}
	after, err := parseAccountCursor(cursorShares, r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	usage, err := s.teamReports.TeamPeriod(ctx, r.Name, period, after, limit)
	if err != nil {
		return nil, err
	}
	return GetTeamUsage200JSONResponse{
		Team: r.Name, Period: teamPeriod(&usage.Period), Members: shares(usage.Shares),
		NextCursor: accountCursor(cursorShares, usage.Next), AsOf: usage.Now,
	}, nil
}

// GetTeamHistory implements GET /api/v1/teams/{name}/history.
func (s *server) GetTeamHistory(
	ctx context.Context, r GetTeamHistoryRequestObject,
) (GetTeamHistoryResponseObject, error) {
	if err := s.mayTeam(ctx, r.Name); err != nil {
		return nil, err
	}
	limit, before, err := historyPage(r.Params.Limit, r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	h, err := s.teamReports.TeamHistory(ctx, r.Name, before, limit)
	if err != nil {
		return nil, err
	}
	out := GetTeamHistory200JSONResponse{
		Team: r.Name, Periods: make([]Period, len(h.Periods)), NextCursor: cursor(h.Before), AsOf: h.Now,
	}
	for i := range h.Periods {
		p := teamPeriod(&h.Periods[i])
		p.Members = shares(h.Shares[p.Number])
		p.MembersCursor = accountCursor(cursorShares, h.More[p.Number])
		out.Periods[i] = p
	}
	return out, nil
}

// ListTeamMembers implements GET /api/v1/teams/{name}/members.
func (s *server) ListTeamMembers(
	ctx context.Context, r ListTeamMembersRequestObject,
) (ListTeamMembersResponseObject, error) {
	if err := s.mayTeam(ctx, r.Name); err != nil {
		return nil, err
	}
	limit, err := pageLimit(r.Params.Limit)
	if err != nil {
		return nil, err
	}
	after, err := parseAccountCursor(cursorMembers, r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	page, err := s.teamReports.TeamMembers(ctx, r.Name, after, limit)
	if err != nil {
		return nil, err
	}
	out := ListTeamMembers200JSONResponse{
		Team: r.Name, Members: make([]TeamMember, len(page.Members)),
		NextCursor: accountCursor(cursorMembers, page.Next), AsOf: page.Now,
	}
	for i := range page.Members {
		m := &page.Members[i]
		out.Members[i] = TeamMember{
			UserId: m.UserID, Team: m.Team, Running: m.Running, Queued: m.Queued, UsedCredits: credits(m.Used),
			UsedMs: int64(m.Used),
		}
	}
	return out, nil
}

// AddTeamMember implements PUT /api/v1/teams/{name}/members/{user}.
func (s *server) AddTeamMember(
	ctx context.Context, r AddTeamMemberRequestObject,
) (AddTeamMemberResponseObject, error) {
	if err := s.changeMember(ctx, r.Name, r.User, r.Body, s.teams.AddMember); err != nil {
		return nil, err
	}
	return AddTeamMember204Response{}, nil
}

// RemoveTeamMember implements DELETE /api/v1/teams/{name}/members/{user}.
func (s *server) RemoveTeamMember(
	ctx context.Context, r RemoveTeamMemberRequestObject,
) (RemoveTeamMemberResponseObject, error) {
	if err := s.changeMember(ctx, r.Name, r.User, r.Body, s.teams.RemoveMember); err != nil {
		return nil, err
	}
	return RemoveTeamMember204Response{}, nil
}

func (s *server) changeMember(
	ctx context.Context, team, user string, body *ActRequest,
	change func(ctx context.Context, team, userID string, by metering.By) error,
) error {
	if err := s.mayTeam(ctx, team); err != nil {
		return err
	}
	if err := quota.UserIDs.Check(user); err != nil {
		return invalid("user: %v", err)
	}
	return change(ctx, team, user, why(ctx, body))
}

// mayTeam says whether the name can be a team's and the caller has one of the operation's rights on it.
func (s *server) mayTeam(ctx context.Context, name string) error {
	if err := checkTeam("name", name); err != nil {
		return err
	}
	return s.mayOn(ctx, callerFrom(ctx).operation.verbs, access.ResourceTeams, name)
}

func checkTeam(field, name string) error {
	if err := quota.TeamNames.Check(name); err != nil {
		return invalid("%s: %v", field, err)
	}
	return nil
}

// maxPeriod is more than a calendar of months from 1970 to 2199 has.
const maxPeriod = 1 << 20

func pageLimit(given *PageLimit) (int, error) {
	if given == nil {
		return defaultPage, nil
	}
	if *given < 1 || *given > reports.MaxPage {
		return 0, invalid("limit: %d must be between 1 and %d", *given, reports.MaxPage)
	}
	return int(*given), nil
}

// What cursors say where a page begins of; the number is that of their form.
const (
	cursorTeams      = "teams/1/"
	cursorShares     = "shares/1/"
	cursorMembers    = "members/1/"
	cursorAlerts     = "alerts/1/"
	cursorUsers      = "users/1/"
	cursorAdmissions = "admissions/1/"
	cursorStuck      = "stuck/1/"
	cursorEvents     = "events/1/"
	cursorAudit      = "audit/1/"
	cursorSpenders   = "spenders/1/"
	cursorDue        = "due/1/"
	cursorOverdue    = "overdue/1/"
	cursorComing     = "coming/1/"
	cursorRuns       = "runs/1/"
)

func pageCursor(kind, last string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(kind + last))
}

func parsePageCursor(kind, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	last, ours := strings.CutPrefix(string(decoded), kind)
	if err != nil || !ours || quota.UserIDs.Check(last) != nil || pageCursor(kind, last) != text {
		return "", notACursor(text)
	}
	return last, nil
}

func accountCursor(kind string, last quota.AccountID) string {
	if last == (quota.AccountID{}) {
		return ""
	}
	return pageCursor(kind, uuid.UUID(last).String())
}

func parseAccountCursor(kind, text string) (quota.AccountID, error) {
	last, err := parsePageCursor(kind, text)
	if last == "" || err != nil {
		return quota.AccountID{}, err
	}
	id, err := uuid.Parse(last)
	if err != nil || accountCursor(kind, quota.AccountID(id)) != text {
		return quota.AccountID{}, notACursor(text)
	}
	return quota.AccountID(id), nil
}

func team(u *metering.TeamUsage) Team {
	a := u.Usage.Account
	on := quota.Over(a, u.Above)
	out := Team{
		Name: a.Team.Name, DisplayName: u.DisplayName, Parent: u.TeamStatus.Parent, Root: u.Root, Retired: u.Retired,
		Weight: max(1, u.Weight), Limits: teamLimits(a.Team.Caps), MemberDefaults: teamLimits(a.Team.MemberDefaults),
		EffectiveLimits: []EffectiveLimit{}, Levels: levelStandings(on, u.Now), Members: u.Members, AsOf: u.Now,
	}
	if a.Plan.Sells() {
		out.Plan = planName(a.Plan)
	}
	for _, e := range on.Strictest() {
		out.EffectiveLimits = append(out.EffectiveLimits, effectiveLimit(e))
	}
	return out
}

func teamLimits(c quota.Caps) TeamLimits {
	var out TeamLimits
	if l := c.Credits; l != nil && !l.Unlimited {
		out.Credits = credits(l.Max)
	}
	if l := c.Concurrent; l != nil && !l.Unlimited {
		out.Concurrent = l.Max
	}
	if l := c.Queued; l != nil && !l.Unlimited {
		out.Queued = &l.Max
	}
	if l := c.DailyCost; l != nil && !l.Unlimited {
		out.DailyCost, out.Currency = money(l.Max), l.Currency
	}
	return out
}

// teamPeriod is a period with what was used of it to the unit, which is what shares add up to.
func teamPeriod(p *reports.HistoryPeriod) Period {
	out := period(p)
	out.UsedMs = int64(p.Used)
	return out
}

func shares(of []reports.Share) []Share {
	out := make([]Share, len(of))
	for i := range of {
		s := &of[i]
		out[i] = Share{UserId: s.UserID, UsedCredits: credits(s.Used), UsedMs: int64(s.Used)}
	}
	return out
}
