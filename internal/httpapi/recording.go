// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"context"
	"net/http"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// CreateUsage implements POST /api/v1/usage.
func (s *server) CreateUsage(ctx context.Context, r CreateUsageRequestObject) (CreateUsageResponseObject, error) {
	switch {
	case r.ApplicationCloudeventsBatchPlusJSONBody != nil:
		return s.recordBatch(ctx, *r.ApplicationCloudeventsBatchPlusJSONBody, parseCloudEvent)
	case r.ApplicationCloudeventsPlusJSONBody != nil:
		return s.recordOne(ctx, parseCloudEvent(*r.ApplicationCloudeventsPlusJSONBody))
	case r.Params.CeSpecversion != "":
		return s.recordOne(ctx, parseBinaryCloudEvent(&r.Params, *r.JSONBody))
	case bytes.HasPrefix(bytes.TrimSpace(*r.JSONBody), []byte("[")):
		return s.recordBatch(ctx, *r.JSONBody, parseItem)
	}
	return s.recordOne(ctx, parseOne(r.Params.IdempotencyKey, *r.JSONBody))
}

func (s *server) recordOne(ctx context.Context, it item) (CreateUsageResponseObject, error) {
	results, errs := s.record(ctx, []item{it})
	if errs[0] != nil {
		return nil, errs[0]
	}
	event := recorded(&results[0])
	if !results[0].Created {
		return CreateUsage200JSONResponse(event), nil
	}
	return CreateUsage201JSONResponse{Body: event,
		Headers: CreateUsage201ResponseHeaders{Location: eventPath(event.Id)}}, nil
}

func (s *server) recordBatch(
	ctx context.Context, body []byte, parse func([]byte) item,
) (CreateUsageResponseObject, error) {
	items, err := parseBatch(body, parse)
	if err != nil {
		return nil, err
	}
	results, errs := s.record(ctx, items)
	out := CreateUsage207JSONResponse{Items: make([]UsageBatchItem, len(items))}
	for i := range items {
		answer := &out.Items[i]
		answer.Key = items[i].req.Key
		switch {
		case errs[i] != nil:
			p := classify(errs[i])
			if p.Status >= http.StatusInternalServerError {
				s.log.Log(ctx, levelOf(ctx, errs[i]), "an item of a batch failed", "status", p.Status, "error", errs[i])
			}
			answer.Status, answer.Problem = p.Status, *p
			out.Failed++
		case results[i].Created:
			answer.Status, answer.Event = http.StatusCreated, recorded(&results[i])
			out.Recorded++
		default:
			answer.Status, answer.Event = http.StatusOK, recorded(&results[i])
			out.Repeated++
		}
	}
	return out, nil
}

// record hands those of the items that are well-formed and allowed to metering.
func (s *server) record(ctx context.Context, items []item) ([]metering.RecordResult, []error) {
	results, errs := make([]metering.RecordResult, len(items)), make([]error, len(items))
	var reqs []metering.RecordRequest
	var places []int
	asked := map[string]error{} // one call is one call for each of its users, however many uses it has
	for i := range items {
		it := &items[i]
		if errs[i] = it.err; errs[i] == nil {
			refused, known := asked[it.req.UserID]
			if !known {
				refused = s.may(ctx, it.req.UserID)
				asked[it.req.UserID] = refused
			}
			errs[i] = refused
		}
		if errs[i] == nil {
			it.req.RecordedBy = callerFrom(ctx).user.GetName()
			reqs, places = append(reqs, it.req), append(places, i)
		}
	}
	done, failed := s.events.RecordAll(ctx, reqs)
	for n, i := range places {
		results[i], errs[i] = done[n], failed[n]
	}
	return results, errs
}

// GetUsageEvent implements GET /api/v1/usage/events/{id}.
func (s *server) GetUsageEvent(ctx context.Context, r GetUsageEventRequestObject) (GetUsageEventResponseObject, error) {
	e, err := s.event(ctx, r.Id)
	if err != nil {
		return nil, err
	}
	return GetUsageEvent200JSONResponse(usageEvent(e)), nil
}

// event reads an event whose user the caller has the operation's right on.
func (s *server) event(ctx context.Context, id uuid.UUID) (*ledger.Event, error) {
	e, err := s.events.Event(ctx, quota.EventID(id))
	if err != nil {
		return nil, err
	}
	return e, s.may(ctx, e.UserID)
}

// ReverseUsage implements POST /api/v1/usage/{id}/reverse.
func (s *server) ReverseUsage(ctx context.Context, r ReverseUsageRequestObject) (ReverseUsageResponseObject, error) {
	if err := checkKey(r.Params.IdempotencyKey); err != nil {
		return nil, err
	}
	e, err := s.event(ctx, r.Id)
	if err != nil {
		return nil, err
	}
	res, err := s.events.Reverse(ctx, metering.ReverseRequest{
		Account: e.Account, Event: e.ID, Key: r.Params.IdempotencyKey, BodyHash: hashOf("reverse", r.Id, r.Body),
		Reason: r.Body.Reason, Actor: callerFrom(ctx).user.GetName(),
	})
	if err != nil {
		return nil, err
	}
	event := recorded(&res)
	if !res.Created {
		return ReverseUsage200JSONResponse(event), nil
	}
	return ReverseUsage201JSONResponse{Body: event,
		Headers: ReverseUsage201ResponseHeaders{Location: eventPath(event.Id)}}, nil
}

// CreateAdjustment implements POST /api/v1/usage/adjustments.
func (s *server) CreateAdjustment(
	ctx context.Context, r CreateAdjustmentRequestObject,
) (CreateAdjustmentResponseObject, error) {
	req, err := parseAdjustment(r.Params.IdempotencyKey, r.Body)
	if err != nil {
		return nil, err
	}
	if err := s.may(ctx, req.UserID); err != nil {
		return nil, err
	}
	req.Actor = callerFrom(ctx).user.GetName()
	res, err := s.events.Adjust(ctx, req)
	if err != nil {
		return nil, err
	}
	event := recorded(&res)
	if !res.Created {
		return CreateAdjustment200JSONResponse(event), nil
	}
	return CreateAdjustment201JSONResponse{Body: event,
		Headers: CreateAdjustment201ResponseHeaders{Location: eventPath(event.Id)}}, nil
}

func eventPath(id uuid.UUID) string { return "/api/v1/usage/events/" + id.String() }

// recorded is an event with where its user stands now.
func recorded(r *metering.RecordResult) UsageEvent {
	out, a := usageEvent(r.Event), r.On.User()
	out.Standing = Standing{UsedCredits: credits(a.Used), ResetsAt: a.Period.End}
	if left := r.On.Remaining(r.Now); !left.Unlimited {
		out.Standing.RemainingCredits = credits(left.Max)
	}
	if over := r.On.Overdrawn(); over > 0 {
		out.Standing.OverLimit, out.Standing.OverdrawnCredits = true, credits(over)
	}
	return out
}

func usageEvent(e *ledger.Event) UsageEvent {
	payer := e.PaidBy()
	out := UsageEvent{
		Id: uuid.UUID(e.ID), UserId: e.UserID, PayerId: payer.Name, PayerKind: payer.Kind, Kind: e.Kind,
		UsageType: e.UsageType, Credits: credits(e.Credits), CreditsMs: int64(e.Credits),
		Cost: Number(e.Cost.String()), Currency: e.Currency, FileSizeBytes: e.FileSize, Tokens: e.Tokens,
		Quantity: e.Quantity, OccurredAt: e.OccurredAt, RecordedAt: e.RecordedAt, PeriodNo: e.PeriodNo,
		Plan: e.PlanName, PlanVersion: e.PlanVersion, AdmissionId: uuid.UUID(e.Admission), Late: e.Late,
		Reverses: uuid.UUID(e.Reverses), ReversedBy: uuid.UUID(e.ReversedBy),
		RefundedAsGrant: e.RefundLot != quota.ID{}, Metadata: e.Metadata, RecordedBy: e.RecordedBy, Reason: e.Reason,
	}
	if e.CostCurrency != e.Currency {
		out.CostCurrency = e.CostCurrency
	}
	if e.Duration > 0 {
		out.DurationSeconds = seconds(e.Duration)
	}
	if e.Overage > 0 {
		out.OverageCredits, out.Price = credits(e.Overage), Number(e.Price.String())
	}
	if e.Rate != nil {
		out.CreditsPerUnit = Number(e.Rate.String())
	}
	return out
}
