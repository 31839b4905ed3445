// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// askRecords asks for what recording needs to see, if anybody records.
func (s *Store) askRecords(ctx context.Context, t *roundTrip, b *batch, keys *ledger.Keys) error {
	if len(keys.Idempotency) == 0 {
		return nil
	}
	asked := dbsqlc.LoadKeysParams{}
	for _, k := range keys.Idempotency {
		asked.Accounts, asked.Keys = append(asked.Accounts, k.Account), append(asked.Keys, k.Key)
	}
	events := orEmpty(keys.Events)
	err := errors.Join(
		t.ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadKeys(ctx, asked)
			b.readKeys(rows)
			return err
		}),
		t.ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadRecentPeriods(ctx,
				dbsqlc.LoadRecentPeriodsParams{Accounts: asked.Accounts, Now: s.now(), Events: events})
			b.readPeriods(rows)
			return err
		}))
	if len(events) == 0 {
		return err
	}
	return errors.Join(err,
		t.ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadEvents(ctx, dbsqlc.LoadEventsParams{Events: events, Accounts: asked.Accounts})
			b.readEvents(rows)
			return err
		}),
		t.ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadEventLots(ctx, dbsqlc.LoadEventLotsParams{Accounts: asked.Accounts, Events: events})
			b.readLots(rows)
			return err
		}))
}

// readKeys keeps what the idempotency keys have made. They come in the order of time: of a key that outlived its
// retention the last use counts.
func (b *batch) readKeys(rows []dbsqlc.LoadKeysRow) {
	for i := range rows {
		r := &rows[i]
		if l, e := b.readEvent(&r.UsageTracking, r.ReversalID); e != nil {
			l.Made[r.Key] = ledger.Made{Event: e, BodyHash: r.BodyHash}
		}
	}
}

func (b *batch) readEvents(rows []dbsqlc.LoadEventsRow) {
	for i := range rows {
		if l, e := b.readEvent(&rows[i].UsageTracking, rows[i].ReversalID); e != nil {
			l.Events[e.ID] = e
		}
	}
}

// readEvent returns an event and the ledger that it belongs to; nil if its account is not of this batch, or it cannot
// be read.
func (b *batch) readEvent(r *dbsqlc.UsageTracking, reversedBy *quota.ID) (*ledger.Ledger, *ledger.Event) {
	l := b.ledgers[r.UserID]
	if l == nil {
		return nil, nil
	}
	e, err := eventOf(r, l.Account.UserID, reversedBy)
	if err != nil {
		b.unreadable(r.UserID, err, false)
		return nil, nil
	}
	return l, e
}

// readPeriods adds closed periods to the ledgers. The one that is there already is kept.
func (b *batch) readPeriods(rows []dbsqlc.UsagePeriod) {
	for i := range rows {
		if l := b.ledgers[rows[i].UserID]; l != nil && l.Closed[rows[i].PeriodNo] == nil {
			p := periodOf(&rows[i])
			l.Closed[p.No], b.loaded[rows[i].UserID].periods[p.No] = p, *p
		}
	}
}

// Event implements metering.Store.
func (s *Store) Event(ctx context.Context, id quota.ID) (*ledger.Event, error) {
	r, err := s.queries.Event(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", uuidText(id), mapError(err))
	}
	return eventOf(&r.UsageTracking, r.ExternalID, r.ReversalID)
}

func eventOf(r *dbsqlc.UsageTracking, userID string, reversedBy *quota.ID) (*ledger.Event, error) {
	lots, err := sharesOf(r.Lots)
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", uuidText(r.ID), err)
	}
	e := &ledger.Event{
		ID: r.ID, Account: r.UserID, UserID: userID, Kind: ledger.EventKind(r.Kind), UsageType: r.UsageType,
		Admission: idOf(r.AdmissionID), Reverses: idOf(r.Reverses), RefundLot: idOf(r.RefundLot),
		OccurredAt: r.OccurredAt.UTC(), RecordedAt: r.RecordedAt.UTC(), PeriodNo: r.PeriodID, Seq: r.Seq,
		Credits: quota.Credits(r.Credits), Alloc: quota.Allocation{Plan: quota.Credits(r.PlanPart), Lots: lots},
		Overage: quota.Credits(r.Overage), Price: quota.Money(r.PriceMicros), Cost: quota.Money(r.CostMicros),
		Currency: r.Currency,
		Duration: time.Duration(r.DurationMs) * time.Millisecond, FileSize: r.FileSize, Tokens: r.Tokens,
		Quantity: r.Quantity,
		PlanName: r.PlanName, PlanVersion: r.PlanVersion, Late: r.Late, RecordedBy: r.RecordedBy, Reason: r.Reason,
		ReversedBy: idOf(reversedBy),
	}
	if r.IdempotencyKey != nil {
		e.Key = *r.IdempotencyKey
	}
	if r.UnitMicros != nil {
		e.Rate = new(quota.Rate(*r.UnitMicros))
	}
	if r.Metadata != nil {
		if err := json.Unmarshal(r.Metadata, &e.Metadata); err != nil {
			return nil, fmt.Errorf("event %s: metadata: %w", uuidText(r.ID), err)
		}
	}
	return e, nil
}

func rateColumn(rate *quota.Rate) *int64 {
	if rate == nil {
		return nil
	}
	return new(int64(*rate))
}

// ensureKeyPartitions makes the partitions of the idempotency keys ahead and drops what is older than their retention.
func (s *Store) ensureKeyPartitions(ctx context.Context) error {
	now, err := s.queries.Clock(ctx, s.now())
	if err != nil {
		return mapError(err)
	}
	olderThan := now.Add(-metering.KeyRetention)
	due, err := s.queries.KeyPartitionsDue(ctx, dbsqlc.KeyPartitionsDueParams{Now: now, OlderThan: olderThan})
	if err != nil || due == nil || !*due {
		return mapError(err)
	}
	// Of several at once one does it, the others wait and find it done.
	if err := s.queries.EnsureKeyPartitions(ctx, now); err != nil {
		return mapError(err)
	}
	return mapError(s.queries.DropKeyPartitions(ctx, olderThan))
}
