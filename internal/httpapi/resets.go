// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// ListResets implements GET /api/v1/resets.
func (s *server) ListResets(ctx context.Context, r ListResetsRequestObject) (ListResetsResponseObject, error) {
	if err := s.mayAll(ctx, access.Resource); err != nil {
		return nil, err
	}
	limit, err := pageLimit(r.Params.Limit)
	if err != nil {
		return nil, err
	}
	f, err := resetFilter(&r.Params)
	if err != nil {
		return nil, err
	}
	kind := cursorDue
	switch {
	case f.Coming:
		kind = cursorComing
	case f.Overdue:
		kind = cursorOverdue
	}
	behind, err := parsePlaceCursor(kind, r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	page, err := s.resets.Resets(ctx, f, behind, limit)
	if err != nil {
		return nil, err
	}
	out := ListResets200JSONResponse{
		Resets: make([]Reset, len(page.Resets)), AsOf: page.AsOf, NextCursor: placeCursor(kind, page.Next),
	}
	for i := range page.Resets {
		a := &page.Resets[i]
		out.Resets[i] = Reset{
			Level: level(a.Level), Plan: a.Plan, Team: a.Team, Period: a.No, PeriodStart: a.Period.Start,
			PeriodEnd: a.Period.End, UsedCredits: credits(a.Used),
		}
	}
	return out, nil
}

func resetFilter(p *ListResetsParams) (reports.ResetFilter, error) {
	f := reports.ResetFilter{
		Coming: p.State == ListResetsParamsStateComing, Overdue: p.State == ListResetsParamsStateOverdue,
		Plan: p.Plan, UserID: p.UserId, Team: p.Team,
	}
	switch {
	case p.State != "" && !p.State.Valid():
		return f, invalid("state: %.64q must be %q, %q or %q", p.State, ListResetsParamsStateDue,
			ListResetsParamsStateOverdue, ListResetsParamsStateComing)
	case f.UserID != "" && f.Team != "":
		return f, invalid("user_id, team: only one of them may be given, user_id is %.64q and team %.64q", f.UserID,
			f.Team)
	case f.UserID != "":
		return f, checkUserID(f.UserID)
	}
	return f, nil
}

// ListResetRuns implements GET /api/v1/reset-runs.
func (s *server) ListResetRuns(
	ctx context.Context, r ListResetRunsRequestObject,
) (ListResetRunsResponseObject, error) {
	if err := s.mayAll(ctx, access.Resource); err != nil {
		return nil, err
	}
	limit, err := pageLimit(r.Params.Limit)
	if err != nil {
		return nil, err
	}
	before, err := parsePlaceCursor(cursorRuns, r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	runs, next, err := s.resets.ResetRuns(ctx, r.Params.Plan, before, limit)
	if err != nil {
		return nil, err
	}
	out := ListResetRuns200JSONResponse{Runs: make([]ResetRun, len(runs)), NextCursor: placeCursor(cursorRuns, next)}
	for i := range runs {
		run := &runs[i]
		out.Runs[i] = ResetRun{
			Id: uuid.UUID(run.ID), Plan: run.Plan, Actor: run.Actor, State: ResetRunState(run.State),
			StartedAt: run.StartedAt, UpdatedAt: run.UpdatedAt, FinishedAt: run.FinishedAt, Accounts: run.Accounts,
			Periods: run.Periods, Failures: run.Failures, Message: run.Message,
		}
	}
	return out, nil
}

// ResetUser implements POST /api/v1/users/{id}/reset.
func (s *server) ResetUser(ctx context.Context, r ResetUserRequestObject) (ResetUserResponseObject, error) {
	if err := s.mayPathsUser(ctx, r.Id); err != nil {
		return nil, err
	}
	closed, err := s.users.ResetUser(ctx, r.Id, by(ctx, r.Body.Reason))
	return ResetUser200JSONResponse{UserId: r.Id, ClosedPeriods: closed}, err
}

// placeCursor says at which instant, behind what of it, a page begins.
func placeCursor(kind string, at reports.Place) string {
	if at == (reports.Place{}) {
		return ""
	}
	return pageCursor(kind, fmt.Sprintf("%d.%x", at.At.UnixMicro(), at.ID[:]))
}

func parsePlaceCursor(kind, text string) (at reports.Place, err error) {
	last, err := parsePageCursor(kind, text)
	if last == "" || err != nil {
		return at, err
	}
	micros, hex, _ := strings.Cut(last, ".")
	n, err1 := strconv.ParseInt(micros, 10, 64)
	id, err2 := uuid.Parse(hex)
	at = reports.Place{At: time.UnixMicro(n).UTC(), ID: quota.ID(id)}
	if err1 != nil || err2 != nil || n < 0 || n > maxMicros || placeCursor(kind, at) != text {
		return reports.Place{}, notACursor(text)
	}
	return at, nil
}

// maxMicros is the end of the year 9998, in microseconds since 1970: PostgreSQL knows that instant.
var maxMicros = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
