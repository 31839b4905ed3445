// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// KeyRetention is how long an idempotency key is kept at least: as long as a use may be recorded after it happened, so
// that a use with a time of its own is charged once however late it is repeated.
const KeyRetention = quota.MaxRecordAge + 24*time.Hour

// RecordRequest describes a use that has happened without an admission.
type RecordRequest struct {
	UserID string
	// Key is the caller's idempotency key, and BodyHash tells two requests with the same key apart.
	Key      string
	BodyHash []byte
	// Same reports whether a use that was recorded under the Key with another BodyHash, and happened at that instant,
	// is this one all the same; nil where BodyHash alone tells.
	Same func(bodyHash []byte, occurredAt time.Time) bool
	// Use that is to be charged. A zero OccurredAt means now; a Quantity of zero means one.
	Use quota.Use
	// FileSize in bytes, and Tokens.
	FileSize, Tokens int64
	// Currency of the Use's Cost; empty means the plan's.
	Currency   string
	Metadata   map[string]string
	RecordedBy string
}

// ReverseRequest undoes an event.
type ReverseRequest struct {
	// Account and Event that is to be undone, as Service.Event returns them.
	Account       quota.AccountID
	Event         quota.EventID
	Key           string
	BodyHash      []byte
	Reason, Actor string
}

// AdjustRequest debits credits that no use explains.
type AdjustRequest struct {
	UserID        string
	Key           string
	BodyHash      []byte
	Credits       quota.Credits
	Reason, Actor string
}

// RecordResult is an event as it stands, and where its user stands, with those above.
type RecordResult struct {
	Event *ledger.Event
	On    quota.Chain
	Now   time.Time
	// Created is false for a repeated request.
	Created bool
}

// recording is one operation that makes an event under a key.
type recording struct {
	op    ledger.Op
	apply func(*ledger.Ledger, ledger.Batch) (RecordResult, error)
}

// newRecording prepares an operation: unless the key has made an event before, book is asked for one and its audit row.
// Same is that of a RecordRequest.
func newRecording(
	account quota.AccountID, key string, bodyHash []byte, same func([]byte, time.Time) bool,
	book func(l *ledger.Ledger) (*ledger.Event, error),
) *recording {
	apply := func(l *ledger.Ledger, _ ledger.Batch) (res RecordResult, err error) {
		made, repeated := l.Made[key]
		if !repeated {
			event, err := book(l)
			if err != nil {
				return res, err
			}
			made = l.Book(key, bodyHash, event)
		}
		if !bytes.Equal(made.BodyHash, bodyHash) && (same == nil || !same(made.BodyHash, made.OccurredAt)) {
			return res, ledger.ErrKeyReused
		}
		event := *made.Event
		return RecordResult{Event: &event, On: l.Standing(), Now: l.Now, Created: !repeated}, nil
	}
	return &recording{op: ledger.Op{Account: account, Key: key}, apply: apply}
}

// Record charges a use that has happened, in full, whatever the limits say, to the period that it happened in. The same
// user and key is charged once; the same key with another body is ErrKeyReused.
func (s *Service) Record(ctx context.Context, req RecordRequest) (RecordResult, error) {
	res, errs := s.RecordAll(ctx, []RecordRequest{req})
	return res[0], errs[0]
}

// RecordAll records each of the uses as Record does, those of one user in their order. One that fails does not stop the
// others: results and errors are those of the requests with the same index.
func (s *Service) RecordAll(ctx context.Context, reqs []RecordRequest) ([]RecordResult, []error) {
	recordings, errs := make([]*recording, len(reqs)), make([]error, len(reqs))
	_ = each(len(reqs), func(i int) error {
		recordings[i], errs[i] = s.newRecord(ctx, &reqs[i])
		return nil
	})
	calls := make([]*asked[RecordResult], len(reqs))
	for i, r := range recordings {
		if errs[i] == nil {
			calls[i], errs[i] = start(ctx, s.engine, r.op, r.apply)
		}
	}
	results := make([]RecordResult, len(reqs))
	for i, r := range recordings {
		if errs[i] == nil {
			results[i], errs[i] = calls[i].answer(ctx)
			if s.again(errs[i], reqs[i].UserID, r.op.Account) {
				results[i], errs[i] = s.Record(ctx, reqs[i])
			}
		}
	}
	return results, errs
}

func (s *Service) newRecord(ctx context.Context, req *RecordRequest) (*recording, error) {
	if err := req.validate(); err != nil {
		return nil, err
	}
	// Made before the first try, so that a batch whose commit is in doubt can be run again.
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	account, err := s.accountFor(ctx, req.UserID)
	if err != nil {
		return nil, err
	}
	return newRecording(account, req.Key, req.BodyHash, req.Same, func(l *ledger.Ledger) (*ledger.Event, error) {
		return record(l, quota.EventID(id), req)
	}), nil
}

func record(l *ledger.Ledger, id quota.EventID, req *RecordRequest) (*ledger.Event, error) {
	chain, use := l.Chain(), req.Use
	plan := chain.Payer().Plan
	if req.Currency != "" && req.Currency != plan.Currency {
		return nil, quota.Invalid("currency", "%q must be that of the user's plan, %s", req.Currency, plan.Currency)
	}
	use.Quantity = cmp.Or(use.Quantity, 1)
	if use.OccurredAt.IsZero() {
		use.OccurredAt = l.Now
	}
	use.OccurredAt = use.OccurredAt.UTC().Truncate(time.Microsecond)
	c, err := chain.Record(use, chain.Closed, l.Now)
	if err != nil {
		return nil, err
	}
	e := ledger.ChargeEvent(id, c, plan)
	e.UsageType, e.OccurredAt, e.Duration, e.Quantity = use.Type, use.OccurredAt, use.Audio, use.Quantity
	e.FileSize, e.Tokens, e.Metadata, e.RecordedBy = req.FileSize, req.Tokens, req.Metadata, req.RecordedBy
	return e, nil
}

// Event returns an event as it stands, or ErrNotFound.
func (s *Service) Event(ctx context.Context, id quota.EventID) (*ledger.Event, error) {
	return s.store.Event(ctx, id)
}

// Reverse undoes a whole charge or adjustment, once: another key is ErrConflict. See quota.Chain.Reverse for what is
// given back.
func (s *Service) Reverse(ctx context.Context, req ReverseRequest) (RecordResult, error) {
	if err := errors.Join(validateKey(req.Key), quota.CheckReason(req.Reason)); err != nil {
		return RecordResult{}, err
	}
	r := newRecording(req.Account, req.Key, req.BodyHash, nil,
		func(l *ledger.Ledger) (*ledger.Event, error) { return reverse(l, &req) })
	r.op.Event = req.Event
	return ask(ctx, s.engine, r.op, r.apply)
}

func reverse(l *ledger.Ledger, req *ReverseRequest) (*ledger.Event, error) {
	target := l.Events[req.Event]
	switch {
	case target == nil:
		return nil, quota.NotFound("event %s", req.Event)
	case target.Kind == ledger.EventReversal:
		return nil, quota.Conflict("", "event %s is a reversal, only charges and adjustments can be reversed",
			target.ID)
	case target.ReversedBy != quota.ID{}:
		return nil, quota.Conflict("", "event %s was reversed already, by event %s", target.ID,
			target.ReversedBy)
	}
	charge := target.Charge()
	on, err := l.ChainOfCharge(charge)
	if err != nil {
		return nil, err
	}
	before := l.Account.AuditBalance(l.Now)
	rev, err := on.Reverse(target.ID, charge, on.Closed, l.Now)
	if err != nil {
		return nil, err
	}
	plan := on.Payer().Plan
	e := &ledger.Event{
		// It follows from the event, so that two reversals of one could not be told apart, let alone both be stored.
		ID:   quota.NameID("reversal", l.Account.ID, target.ID.String()),
		Kind: ledger.EventReversal, UsageType: target.UsageType, Reverses: target.ID, OccurredAt: l.Now,
		PeriodNo: rev.PeriodNo, Seq: rev.Seq, Void: rev.Void, Levels: rev.Levels, Payer: rev.Payer,
		Credits: rev.Credits, Alloc: rev.Alloc, Overage: rev.Overage, Price: rev.Price,
		Currency: rev.Currency, CostCurrency: target.CostCurrency,
		Quantity: target.Quantity, PlanName: plan.Name, PlanVersion: plan.Version,
		RecordedBy: req.Actor, Reason: req.Reason,
	}
	if lot := rev.Refund; lot != nil {
		e.RefundLot = lot.ID
		l.Around[on.Payer().ID].Tell(quota.CallerActor(req.Actor), quota.AuditGrantGiven, nil, lot.Audit())
	}
	target.ReversedBy = e.ID
	auditEvent(l, e, quota.AuditUsageReversed, before)
	return e, nil
}

// Adjust debits credits for a reason, in full whatever the limits say, from the open period of whoever pays for the
// user. The user must be known.
func (s *Service) Adjust(ctx context.Context, req AdjustRequest) (RecordResult, error) {
	if err := errors.Join(validateKey(req.Key), quota.CheckReason(req.Reason)); err != nil {
		return RecordResult{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return RecordResult{}, err
	}
	account, err := s.lookup(ctx, req.UserID)
	if err != nil {
		return RecordResult{}, err
	}
	r := newRecording(account, req.Key, req.BodyHash, nil, func(l *ledger.Ledger) (*ledger.Event, error) {
		before := l.Account.AuditBalance(l.Now)
		chain := l.Chain()
		c, err := chain.Adjust(req.Credits, l.Now)
		if err != nil {
			return nil, err
		}
		e := ledger.ChargeEvent(quota.EventID(id), c, chain.Payer().Plan)
		e.UsageType, e.OccurredAt, e.RecordedBy, e.Reason = quota.UsageAdjustment, l.Now, req.Actor, req.Reason
		auditEvent(l, e, quota.AuditUsageAdjusted, before)
		return e, nil
	})
	res, err := ask(ctx, s.engine, r.op, r.apply)
	if s.again(err, req.UserID, account) {
		return s.Adjust(ctx, req)
	}
	return res, err
}

// auditEvent tells of a correction. What it corrected, and why, stands in the event.
func auditEvent(l *ledger.Ledger, e *ledger.Event, action quota.AuditAction, before quota.AuditBalance) {
	l.Audit = append(l.Audit, quota.AuditRow{
		Actor: quota.CallerActor(e.RecordedBy), Action: action, Object: e.ID.String(),
		Before: before, After: l.Account.AuditBalance(l.Now),
	})
}

func validateKey(key string) error {
	if err := quota.CheckAnyKey(key); err != nil {
		return quota.Invalid("idempotency key", "%v", err)
	}
	return nil
}

func (r *RecordRequest) validate() error {
	switch {
	case r.FileSize < 0 || r.FileSize > quota.MaxFileSize:
		return quota.Invalid("file_size_bytes", "%d must be between 0 and %d", r.FileSize, quota.MaxFileSize)
	case r.Tokens < 0 || r.Tokens > quota.MaxTokens:
		return quota.Invalid("tokens", "%d must be between 0 and %d", r.Tokens, quota.MaxTokens)
	case r.Use.Audio < 0 || r.Use.Audio > quota.MaxAudio:
		return quota.Invalid("duration_seconds", "%s must be between 0 and %s", r.Use.Audio, quota.MaxAudio)
	case len(r.Metadata) > quota.MaxMetadata:
		return quota.Invalid("metadata", "has %d keys, the limit is %d", len(r.Metadata), quota.MaxMetadata)
	}
	for k, v := range r.Metadata {
		switch err := quota.MetadataKeys.Check(k); {
		case err != nil:
			return quota.Invalid("metadata", "the key %v", err)
		case len(v) > quota.MaxMetadataValue:
			return quota.Invalid("metadata", "%q has %d bytes, the limit is %d", k, len(v), quota.MaxMetadataValue)
		case !utf8.ValidString(v) || strings.ContainsRune(v, 0):
			return quota.Invalid("metadata", "%q must be text in UTF-8 without NUL", k)
		}
	}
	encoded, err := json.Marshal(r.Metadata)
	if err != nil {
		return err
	}
	if len(encoded) > quota.MaxMetadataBytes {
		return quota.Invalid("metadata", "has %d bytes as JSON, the limit is %d", len(encoded), quota.MaxMetadataBytes)
	}
	return validateKey(r.Key)
}
