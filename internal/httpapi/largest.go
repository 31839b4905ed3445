// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// GetLargestWork implements GET /api/v1/analytics/largest.
func (s *server) GetLargestWork(
	ctx context.Context, r GetLargestWorkRequestObject,
) (GetLargestWorkResponseObject, error) {
	user := r.Params.UserId
	if err := checkUserID(user); err != nil {
		return nil, err
	}
	span, limit, err := largestOf(r.Params.From, r.Params.To, r.Params.Limit)
	if err != nil {
		return nil, err
	}
	if err := s.may(ctx, user); err != nil {
		return nil, err
	}
	l, err := s.largest.Largest(ctx, user, span, limit)
	if err != nil {
		return nil, err
	}
	out := largestWork(&l)
	out.UserId = user
	return GetLargestWork200JSONResponse(out), nil
}

// GetTeamLargestWork implements GET /api/v1/teams/{name}/largest.
func (s *server) GetTeamLargestWork(
	ctx context.Context, r GetTeamLargestWorkRequestObject,
) (GetTeamLargestWorkResponseObject, error) {
	if err := s.mayTeam(ctx, r.Name); err != nil {
		return nil, err
	}
	span, limit, err := largestOf(r.Params.From, r.Params.To, r.Params.Limit)
	if err != nil {
		return nil, err
	}
	l, err := s.largest.TeamLargest(ctx, r.Name, span, limit)
	if err != nil {
		return nil, err
	}
	out := largestWork(&l)
	out.Team = r.Name
	return GetTeamLargestWork200JSONResponse(out), nil
}

// largestOf reads of which days a list is to be, and how long.
func largestOf(from, to string, given *int32) (span reports.Span, limit int, err error) {
	limit = reports.MaxLargest
	if given != nil {
		limit = int(*given)
	}
	if limit < 1 || limit > reports.MaxLargest {
		return span, 0, invalid("limit: %d must be between 1 and %d", limit, reports.MaxLargest)
	}
	span, err = spanOf(from, to)
	return span, limit, err
}

func largestWork(l *reports.Largest) LargestWork {
	out := LargestWork{
		TimeZone: l.Zone.String(), From: date(l.From), To: date(l.To), AsOf: l.AsOf,
		Work: make([]LargeWork, len(l.Work)),
	}
	for i := range l.Work {
		w := &l.Work[i]
		out.Work[i] = LargeWork{
			EventId: uuid.UUID(w.Event), AdmissionId: uuid.UUID(w.Admission), UserId: w.UserID,
			JobNamespace: w.JobNamespace, JobName: w.JobName, UsageType: w.UsageType, Plan: w.Plan, OccurredAt: w.At,
			Credits: credits(w.Credits), CreditsMs: int64(w.Credits), AudioSeconds: seconds(w.Audio),
			Amounts: amounts(w.Amounts),
		}
	}
	return out
}
