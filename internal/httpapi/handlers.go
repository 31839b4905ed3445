// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"time"

	"github.com/google/uuid"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// CreateAdmission implements POST /api/v1/admissions.
func (s *server) CreateAdmission(
	ctx context.Context, r CreateAdmissionRequestObject,
) (CreateAdmissionResponseObject, error) {
	req, err := parseAdmission(r.Params.IdempotencyKey, r.Body)
	if err != nil {
		return nil, err
	}
	if err := s.may(ctx, req.UserID); err != nil {
		return nil, err
	}
	req.RequestedBy = callerFrom(ctx).user.GetName()
	if req.Namespace, req.Name, err = serviceaccount.SplitUsername(req.RequestedBy); err != nil {
		req.Namespace, req.Name = "", req.RequestedBy
	}
	res, err := s.admissions.Admit(ctx, req)
	if err != nil {
		return nil, err
	}
	s.live.answered(&res)
	if res.Admission == nil {
		return nil, refusal(res.Decision, res.On, res.Upgrade, time.Now())
	}
	body := admission(res.Admission)
	if body.Ticket = res.Ticket; body.Ticket == "" {
		if body.LeaseToken, err = s.leases.Lease(ctx, res.Admission.Account, res.Admission.ID); err != nil {
			return nil, err
		}
	}
	location := "/api/v1/admissions/" + body.Id.String()
	switch {
	case !res.Created:
		return CreateAdmission200JSONResponse(body), nil
	case res.Admission.State == quota.Queued:
		return CreateAdmission202JSONResponse{Body: body,
			Headers: CreateAdmission202ResponseHeaders{Location: location}}, nil
	}
	return CreateAdmission201JSONResponse{Body: body, Headers: CreateAdmission201ResponseHeaders{Location: location}},
		nil
}

// GetAdmission implements GET /api/v1/admissions/{id}.
func (s *server) GetAdmission(ctx context.Context, r GetAdmissionRequestObject) (GetAdmissionResponseObject, error) {
	wait, err := parseWait(r.Params.Wait)
	if err != nil {
		return nil, err
	}
	ticket, err := s.ticket(ctx, r.Id)
	if ticket == nil && err == nil {
		_, err = s.holder(ctx, r.Id)
	}
	if err != nil {
		return nil, err
	}
	if ticket != nil {
		adm, err := s.tickets.GetTicket(ctx, ticket)
		if err != nil {
			return nil, err
		}
		return GetAdmission200JSONResponse{AdmissionJSONResponse(admission(adm))}, nil
	}
	adm, err := s.waitFor(ctx, quota.AdmissionID(r.Id), wait)
	if err != nil {
		return nil, err
	}
	place, err := s.queue.PlaceOf(ctx, adm)
	if err != nil {
		return nil, err
	}
	body := admission(adm)
	body.Binding, body.EstimatedStart = binding(place), estimatedStart(place)
	return GetAdmission200JSONResponse{AdmissionJSONResponse(body)}, nil
}

// waitFor returns the admission once it is no longer queued, or after the time, or when the service is about to end.
func (s *server) waitFor(ctx context.Context, id quota.AdmissionID, d time.Duration) (*ledger.Admission, error) {
	if d == 0 {
		return s.admissions.Get(ctx, id)
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.draining, cancel)()
	adm, err := s.admissions.Wait(waiting, id, time.Now().Add(d))
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		return s.admissions.Get(ctx, id)
	}
	return adm, err
}

// HeartbeatAdmission implements POST /api/v1/admissions/{id}/heartbeat.
func (s *server) HeartbeatAdmission(
	ctx context.Context, r HeartbeatAdmissionRequestObject,
) (HeartbeatAdmissionResponseObject, error) {
	body, err := s.act(ctx, r.Id, s.admissions.Heartbeat,
		func(_ context.Context, t *metering.Ticket) (*ledger.Admission, error) {
			return s.tickets.TicketAdmission(t), nil // it lives until it expires, whoever asks
		})
	if err != nil {
		return nil, err
	}
	return HeartbeatAdmission200JSONResponse{body}, nil
}

// CompleteAdmission implements POST /api/v1/admissions/{id}/complete.
func (s *server) CompleteAdmission(
	ctx context.Context, r CompleteAdmissionRequestObject,
) (CompleteAdmissionResponseObject, error) {
	actual, err := parseAudio("duration_seconds", r.Body.DurationSeconds)
	if err != nil {
		return nil, err
	}
	body, err := s.act(
		ctx,
		r.Id,
		func(ctx context.Context, account quota.AccountID, id quota.AdmissionID) (*ledger.Admission, error) {
			adm, err := s.admissions.Complete(ctx, account, id, actual)
			s.live.completed(adm, err)
			return adm, err
		},
		func(ctx context.Context, t *metering.Ticket) (*ledger.Admission, error) {
			return s.tickets.CompleteTicket(ctx, t, actual)
		},
	)
	if err != nil {
		return nil, err
	}
	return CompleteAdmission200JSONResponse{body}, nil
}

// ReleaseAdmission implements POST /api/v1/admissions/{id}/release.
func (s *server) ReleaseAdmission(
	ctx context.Context, r ReleaseAdmissionRequestObject,
) (ReleaseAdmissionResponseObject, error) {
	body, err := s.act(ctx, r.Id, s.admissions.Release, s.tickets.ReleaseTicket)
	if err != nil {
		return nil, err
	}
	return ReleaseAdmission200JSONResponse{body}, nil
}

// ForceReleaseAdmission implements POST /api/v1/admissions/{id}/force-release.
func (s *server) ForceReleaseAdmission(
	ctx context.Context, r ForceReleaseAdmissionRequestObject,
) (ForceReleaseAdmissionResponseObject, error) {
	account, err := s.holder(ctx, r.Id)
	body, err := encoded(err, func() (*ledger.Admission, error) {
		return s.intervene.ForceRelease(ctx, account, quota.AdmissionID(r.Id), r.Body.Reason,
			callerFrom(ctx).user.GetName())
	})
	if err != nil {
		return nil, err
	}
	return ForceReleaseAdmission200JSONResponse{body}, nil
}

// act does what only an admission's holder may, by its account and id or by its ticket.
func (s *server) act(
	ctx context.Context,
	id uuid.UUID,
	do func(ctx context.Context, account quota.AccountID, id quota.AdmissionID) (*ledger.Admission, error),
	doTicket func(ctx context.Context, t *metering.Ticket) (*ledger.Admission, error),
) (AdmissionJSONResponse, error) {
	if ticket, err := s.ticket(ctx, id); ticket != nil || err != nil {
		return encoded(err, func() (*ledger.Admission, error) { return doTicket(ctx, ticket) })
	}
	account, err := s.holder(ctx, id)
	return encoded(err, func() (*ledger.Admission, error) { return do(ctx, account, quota.AdmissionID(id)) })
}

func encoded(err error, do func() (*ledger.Admission, error)) (AdmissionJSONResponse, error) {
	if err != nil {
		return AdmissionJSONResponse{}, err
	}
	adm, err := do()
	if err != nil {
		return AdmissionJSONResponse{}, err
	}
	return AdmissionJSONResponse(admission(adm)), nil
}

// CheckUsage implements POST /api/v1/usage/check.
func (s *server) CheckUsage(ctx context.Context, r CheckUsageRequestObject) (CheckUsageResponseObject, error) {
	res, err := s.check(ctx, r.Body)
	if err != nil {
		return nil, err
	}
	return CheckUsage200JSONResponse{CheckJSONResponse(res)}, nil
}

// CheckTranscriptionLimits implements POST /api/v1/transcription/check-limits.
func (s *server) CheckTranscriptionLimits(
	ctx context.Context, r CheckTranscriptionLimitsRequestObject,
) (CheckTranscriptionLimitsResponseObject, error) {
	res, err := s.check(ctx, r.Body)
	if err != nil {
		return nil, err
	}
	return CheckTranscriptionLimits200JSONResponse{CheckJSONResponse(res)}, nil
}

func (s *server) check(ctx context.Context, b *CheckRequest) (CheckResult, error) {
	req, err := parseWork(b.UserId, b.EstimatedDurationSeconds, int64(b.FileSizeBytes), b.Queue)
	if err != nil {
		return CheckResult{}, err
	}
	maxAge, err := parseMaxAge(int64(b.MaxAge))
	if err != nil {
		return CheckResult{}, err
	}
	if err := s.may(ctx, b.UserId); err != nil {
		return CheckResult{}, err
	}
	res, err := s.usage.Check(ctx, b.UserId, req, maxAge)
	if err != nil {
		return CheckResult{}, err
	}
	return checkResult(res), nil
}

// GetCurrentUsage implements GET /api/v1/usage/current.
func (s *server) GetCurrentUsage(
	ctx context.Context, r GetCurrentUsageRequestObject,
) (GetCurrentUsageResponseObject, error) {
	maxAge, err := parseMaxAge(int64(r.Params.MaxAge))
	if err != nil {
		return nil, err
	}
	usage, err := s.current(ctx, r.Params.UserId, maxAge)
	if err != nil {
		return nil, err
	}
	return GetCurrentUsage200JSONResponse(currentUsage(usage)), nil
}

func (s *server) current(ctx context.Context, userID string, maxAge time.Duration) (ledger.Usage, error) {
	if err := s.mayUser(ctx, userID); err != nil {
		return ledger.Usage{}, err
	}
	return s.usage.Recent(ctx, userID, maxAge)
}

// GetUsageLimits implements GET /api/v1/usage/limits. The plans are for everybody who is somebody.
func (s *server) GetUsageLimits(
	ctx context.Context, r GetUsageLimitsRequestObject,
) (GetUsageLimitsResponseObject, error) {
	var out UsageLimits
	if id := r.Params.UserId; id != "" {
		usage, err := s.current(ctx, id, 0)
		if err != nil {
			return nil, err
		}
		on := usage.Chain()
		out.User = UserLimits{UserId: id, Plan: planName(on.Payer().Plan), Limits: userLimits(on), Payer: payer(on)}
	}
	plans, err := s.usage.Plans(ctx)
	if err != nil {
		return nil, err
	}
	out.Plans = offers(plans)
	return GetUsageLimits200JSONResponse(out), nil
}
