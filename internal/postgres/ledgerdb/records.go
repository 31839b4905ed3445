// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"context"
	"errors"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// askRecords asks for what recording needs to see, if anybody records.
func (s *Store) askRecords(ctx context.Context, t *postgres.RoundTrip, b *batch, keys *ledger.Keys) error {
	if len(keys.Idempotency) == 0 {
		return nil
	}
	asked := dbsqlc.LoadKeysParams{}
	for _, k := range keys.Idempotency {
		asked.Accounts, asked.Keys = append(asked.Accounts, k.Account), append(asked.Keys, k.Key)
	}
	events := postgres.IDs[quota.ID](orEmpty(keys.Events))
	accounts := postgres.IDs[quota.ID](withAbove(postgres.IDs[quota.AccountID](asked.Accounts), b.above))
	err := errors.Join(
		t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadKeys(ctx, asked)
			b.readKeys(rows)
			return err
		}),
		t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadRecentPeriods(ctx, dbsqlc.LoadRecentPeriodsParams{Accounts: accounts, Now: s.Now()})
			b.readPeriods(rows)
			return err
		}))
	if len(events) == 0 {
		return err
	}
	return errors.Join(err,
		t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadEvents(ctx, dbsqlc.LoadEventsParams{Events: events, Accounts: asked.Accounts})
			b.readEvents(rows)
			return err
		}),
		t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadEventLots(ctx, dbsqlc.LoadEventLotsParams{Accounts: accounts, Events: events})
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
			e.PayerTeam = r.PayerTeam
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
	e, err := readdb.EventOf(r, l.Account.UserID, reversedBy)
	if err != nil {
		b.unreadable(r.UserID, err, false)
		return nil, nil
	}
	return l, e
}

// askPeriods reads the closed periods that the admissions and the events of the batch are booked in and that are not
// there yet. It takes a round trip of its own, but only for what is late: most of it is in periods that are open.
func (b *batch) askPeriods(ctx context.Context, q *dbsqlc.Queries) error {
	asked := dbsqlc.LoadPeriodsParams{}
	for _, l := range b.ledgers {
		for _, adm := range l.Admissions {
			if adm.AdmittedAt.IsZero() {
				continue
			}
			b.bookedIn(&asked, adm.Account, adm.PeriodNo)
			for i := range adm.Levels {
				b.bookedIn(&asked, adm.Levels[i].Account, adm.Levels[i].PeriodNo)
			}
		}
		for _, e := range l.Events {
			b.bookedIn(&asked, e.Account, e.PeriodNo)
			for i := range e.Levels {
				b.bookedIn(&asked, e.Levels[i].Account, e.Levels[i].PeriodNo)
			}
		}
	}
	if len(asked.Nos) == 0 {
		return nil
	}
	rows, err := q.LoadPeriods(ctx, asked)
	b.readPeriods(rows)
	return err
}

// bookedIn adds a period of an account to those that are asked for, unless it is open or there.
func (b *batch) bookedIn(asked *dbsqlc.LoadPeriodsParams, account quota.AccountID, no int64) {
	if l := b.ledgers[account]; l != nil && l.Account.PeriodNo != no && l.Closed[no] == nil {
		asked.Accounts, asked.Nos = append(asked.Accounts, account), append(asked.Nos, no)
	}
}

// readPeriods adds closed periods to the ledgers. The one that is there already is kept.
func (b *batch) readPeriods(rows []dbsqlc.UsagePeriod) {
	for i := range rows {
		if l := b.ledgers[rows[i].UserID]; l != nil && l.Closed[rows[i].PeriodNo] == nil {
			p, err := readdb.PeriodOf(&rows[i])
			if err != nil {
				b.unreadable(rows[i].UserID, err, false)
			}
			l.Closed[p.No], b.loaded[rows[i].UserID].periods[p.No] = p, *p
		}
	}
}
