// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"
	"fmt"
	"math"

	"github.com/cantonesescribe/usage-operator/internal/forecast"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/queue"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

var _ queue.Store = (*Store)(nil)

// mostRunning is how many running admissions are looked at for the latest start.
const mostRunning = 256

// Look implements queue.Store: one round trip and one snapshot.
func (s *Store) Look(ctx context.Context, adm *ledger.Admission) (queue.Look, error) {
	var look queue.Look
	all, err := s.standings(ctx, []string{adm.UserID},
		func(q *dbsqlc.Queries) error {
			r, err := q.PlaceOf(ctx, dbsqlc.PlaceOfParams{
				Account: adm.Account, Parked: adm.Parked, Reason: string(adm.Reason), Priority: adm.Priority,
				Arrived: adm.ArrivedSeq,
			})
			look.Position, look.Waiting = int(r.Position), int(r.Waiting)
			return err
		},
		func(q *dbsqlc.Queries) error {
			rows, err := q.RecentStarts(ctx,
				dbsqlc.RecentStartsParams{Account: adm.Account, Most: forecast.MaxStarts})
			look.History.Starts = make([]forecast.Start, len(rows))
			for i, r := range rows {
				look.History.Starts[i] = forecast.Start{Since: r.Since.UTC(), At: r.At.UTC()}
			}
			return err
		},
		func(q *dbsqlc.Queries) error {
			at, err := q.LastStart(ctx, dbsqlc.LastStartParams{Account: adm.Account, Most: mostRunning})
			look.History.Last = at.UTC()
			return err
		})
	if err != nil {
		return queue.Look{}, postgres.MapError(err)
	}
	usage, known := all[adm.UserID]
	if !known {
		return queue.Look{}, fmt.Errorf("user %q: %w", adm.UserID, ledger.ErrNotFound)
	}
	look.Usage = usage
	return look, nil
}

// Queued implements queue.Store.
func (s *Store) Queued(ctx context.Context, userID string, after queue.Spot, limit int) (queue.Queued, error) {
	if userID == "" {
		return s.queued(ctx, after, false, limit)
	}
	account, err := s.Lookup(ctx, userID)
	if err != nil {
		return queue.Queued{}, err
	}
	return s.QueuedOf(ctx, account, after, limit)
}

// QueuedOf implements queue.Store.
func (s *Store) QueuedOf(
	ctx context.Context, account quota.AccountID, after queue.Spot, limit int,
) (queue.Queued, error) {
	if after.Account != account {
		// In front of all that is the user's.
		after = queue.Spot{Account: account, Place: ledger.Place{Priority: math.MaxInt32}}
	}
	return s.queued(ctx, after, true, limit)
}

// queued reads what waits behind a place, of the place's account alone or of all.
func (s *Store) queued(ctx context.Context, after queue.Spot, alone bool, limit int) (queue.Queued, error) {
	now, err := s.Queries().Clock(ctx, s.Now())
	if err != nil {
		return queue.Queued{}, postgres.MapError(err)
	}
	rows, err := s.Queries().Queued(ctx, dbsqlc.QueuedParams{
		Account: after.Account, Parked: after.Parked, Priority: after.Priority, Arrived: after.Arrived,
		Alone: alone, Most: int32(limit),
	})
	if err != nil {
		return queue.Queued{}, postgres.MapError(err)
	}
	out := queue.Queued{Entries: make([]queue.Entry, len(rows)), Now: now.UTC()}
	for i, r := range rows {
		out.Entries[i] = queue.Entry{
			ID: r.ID, Account: r.UserID, UserID: r.ExternalID, Source: quota.Source(r.Source), Namespace: r.Namespace,
			Name: r.Name, Reason: quota.Reason(r.Reason), Parked: r.Parked, Estimate: quota.Credits(r.Estimate),
			FileSize: r.FileSize,
			Place:    ledger.Place{Priority: r.Priority, Arrived: r.ArrivedSeq}, Since: r.Since.UTC(),
		}
	}
	return out, nil
}

// QueuedAt implements queue.Store.
func (s *Store) QueuedAt(ctx context.Context, accounts []quota.AccountID, limit int) ([]queue.Entry, error) {
	rows, err := s.Queries().QueuedAt(ctx, dbsqlc.QueuedAtParams{
		Accounts: postgres.IDs[quota.ID](accounts), Most: int32(limit),
	})
	out := make([]queue.Entry, len(rows))
	for i, r := range rows {
		out[i] = queue.Entry{
			ID: r.ID, Account: r.UserID, UserID: r.ExternalID, Reason: quota.Reason(r.Reason), Parked: r.Parked,
			Estimate: quota.Credits(r.Estimate), FileSize: r.FileSize,
			Place: ledger.Place{Priority: r.Priority, Arrived: r.ArrivedSeq},
		}
	}
	return out, postgres.MapError(err)
}
