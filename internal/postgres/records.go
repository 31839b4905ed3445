// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// queueRecords queues what recording needs to see, if anybody records.
func (s *Store) queueRecords(q *pgx.Batch, keys *metering.Keys) {
	if len(keys.Idempotency) == 0 {
		return
	}
	accounts, names := make([]quota.ID, len(keys.Idempotency)), make([]string, len(keys.Idempotency))
	for i, k := range keys.Idempotency {
		accounts[i], names[i] = k.Account, k.Key
	}
	events := orEmpty(keys.Events)
	q.Queue(dbsqlc.LoadKeys, accounts, names)
	q.Queue(dbsqlc.LoadRecentPeriods, accounts, s.now(), events)
	if len(events) > 0 {
		q.Queue(dbsqlc.LoadEvents, events, accounts)
		q.Queue(dbsqlc.LoadEventLots, accounts, events)
	}
}

// readRecords reads the answers to queueRecords.
func (b *batch) readRecords(ctx context.Context, read *dbsqlc.Queries, keys *metering.Keys) error {
	if len(keys.Idempotency) == 0 {
		return nil
	}
	made, err := read.LoadKeys(ctx, dbsqlc.LoadKeysParams{})
	if err != nil {
		return err
	}
	for i := range made {
		r := &made[i]
		l := b.ledgers[r.UsageTracking.UserID]
		if l == nil {
			continue
		}
		e, err := eventOf(&r.UsageTracking, l.Account.UserID, r.ReversalID)
		if err != nil {
			return err
		}
		// In the order of time: of a key that outlived its retention the last use counts.
		l.Made[r.Key] = metering.Made{Event: e, BodyHash: r.BodyHash}
	}
	periods, err := read.LoadRecentPeriods(ctx, dbsqlc.LoadRecentPeriodsParams{})
	if err != nil {
		return err
	}
	b.readPeriods(periods)
	if len(keys.Events) == 0 {
		return nil
	}
	events, err := read.LoadEvents(ctx, dbsqlc.LoadEventsParams{})
	if err != nil {
		return err
	}
	for i := range events {
		r := &events[i]
		if l := b.ledgers[r.UsageTracking.UserID]; l != nil {
			if l.Events[r.UsageTracking.ID], err = eventOf(&r.UsageTracking, l.Account.UserID, r.ReversalID); err != nil {
				return err
			}
		}
	}
	lots, err := read.LoadEventLots(ctx, dbsqlc.LoadEventLotsParams{})
	if err != nil {
		return err
	}
	b.readLots(lots)
	return nil
}

// readPeriods adds closed periods to the ledgers. The one that is there already is kept.
func (b *batch) readPeriods(rows []dbsqlc.UsagePeriod) {
	for i := range rows {
		if l := b.ledgers[rows[i].UserID]; l != nil && l.Closed[rows[i].PeriodNo] == nil {
			l.Closed[rows[i].PeriodNo] = periodOf(&rows[i])
		}
	}
}

// Event implements metering.Store.
func (s *Store) Event(ctx context.Context, id quota.ID) (*metering.Event, error) {
	r, err := s.queries.Event(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", uuidText(id), mapError(err))
	}
	return eventOf(&r.UsageTracking, r.ExternalID, r.ReversalID)
}

func eventOf(r *dbsqlc.UsageTracking, userID string, reversedBy *quota.ID) (*metering.Event, error) {
	lots, err := sharesOf(r.Lots)
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", uuidText(r.ID), err)
	}
	e := &metering.Event{
		ID: r.ID, Account: r.UserID, UserID: userID, Kind: metering.EventKind(r.Kind), UsageType: r.UsageType,
		Admission: idOf(r.AdmissionID), Reverses: idOf(r.Reverses), RefundLot: idOf(r.RefundLot),
		OccurredAt: r.OccurredAt.UTC(), RecordedAt: r.RecordedAt.UTC(), PeriodNo: r.PeriodID, Seq: r.Seq,
		Credits: quota.Credits(r.Credits), Alloc: quota.Allocation{Plan: quota.Credits(r.PlanPart), Lots: lots},
		Overage: quota.Credits(r.Overage), Price: quota.Money(r.PriceMicros), Cost: quota.Money(r.CostMicros), Currency: r.Currency,
		Duration: time.Duration(r.DurationMs) * time.Millisecond, FileSize: r.FileSize, Tokens: r.Tokens, Quantity: r.Quantity,
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

// made collects an event that was recorded directly, and its key.
func (w *writes) made(m *metering.Made) error {
	if err := w.event(m.Event); err != nil {
		return err
	}
	r := w.keys.row()
	put(r, m.Account)
	put(r, m.Key)
	put(r, m.RecordedAt)
	put(r, m.BodyHash)
	put(r, m.ID)
	if m.Kind == metering.EventReversal {
		r := w.reversals.row()
		put(r, m.Reverses)
		put(r, m.Account)
		put(r, m.ID)
		put(r, m.RecordedAt)
	}
	return nil
}

func (w *writes) event(e *metering.Event) error {
	var metadata []byte
	if len(e.Metadata) > 0 {
		var err error
		if metadata, err = jsonColumn(e.Metadata); err != nil {
			return fmt.Errorf("event %s: metadata: %w", uuidText(e.ID), err)
		}
	}
	r := w.events.row()
	put(r, e.ID)
	put(r, e.RecordedAt)
	put(r, e.Account)
	put(r, e.PeriodNo)
	put(r, string(e.Kind))
	put(r, e.UsageType)
	put(r, idColumn(e.Admission))
	putIf(r, e.Key != "", e.Key)
	put(r, idColumn(e.Reverses))
	put(r, idColumn(e.RefundLot))
	put(r, e.OccurredAt)
	put(r, int64(e.Credits))
	put(r, int64(e.Alloc.Plan))
	put(r, int64(e.Overage))
	put(r, sharesColumn(e.Alloc.Lots))
	put(r, e.Duration.Milliseconds())
	put(r, e.FileSize)
	put(r, e.Tokens)
	put(r, e.Quantity)
	put(r, rateColumn(e.Rate))
	put(r, int64(e.Price))
	put(r, int64(e.Cost))
	put(r, e.Currency)
	put(r, e.PlanName)
	put(r, e.PlanVersion)
	put(r, e.Late)
	put(r, e.Seq)
	put(r, metadata)
	put(r, e.RecordedBy)
	put(r, e.Reason)
	return nil
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
