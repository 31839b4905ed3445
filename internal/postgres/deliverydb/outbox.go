// SPDX-License-Identifier: Apache-2.0

package deliverydb

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// feedPage is how many endpoints one transaction looks after.
	feedPage = 100
	// tidyPage is how many rows one statement changes.
	tidyPage = 5000
	// lostAfter is when a job is taken for lost that nobody has ended: River rescues one much earlier.
	lostAfter = 15 * time.Minute
	// How long what is over can still be seen, and what is dead be sent again.
	keepDelivered, keepDead = 7 * 24 * time.Hour, 30 * 24 * time.Hour
)

func newID(*delivery.Endpoint) quota.ID { return quota.ID(uuid.New()) }

// FanOut implements delivery.Outbox.
func (s *Store) FanOut(
	ctx context.Context, most int, route func([]delivery.Pending, []delivery.Endpoint) []delivery.Match,
) (n int, err error) {
	err = s.within(ctx, func(_ pgx.Tx, q *dbsqlc.Queries, now time.Time) error {
		rows, err := q.PendingAlerts(ctx, int32(most))
		if n = len(rows); err != nil || n == 0 {
			return err
		}
		alerts, ids := make([]delivery.Pending, n), make([]quota.ID, n)
		for i := range rows {
			alerts[i], ids[i] = pendingOf(&rows[i]), rows[i].ID
		}
		active, err := q.ActiveEndpoints(ctx)
		if err != nil {
			return err
		}
		endpoints := make([]delivery.Endpoint, 0, len(active))
		for i := range active {
			e, err := endpointOf(&active[i].NotificationEndpoint, active[i].Team)
			if err != nil {
				return err
			}
			endpoints = append(endpoints, e)
		}
		if matches := route(alerts, endpoints); len(matches) > 0 {
			if err := q.InsertDeliveries(ctx, newDeliveries(matches, now)); err != nil {
				return err
			}
		}
		return q.MarkDispatched(ctx, ids)
	})
	return n, err
}

func pendingOf(r *dbsqlc.PendingAlertsRow) delivery.Pending {
	p := delivery.Pending{ID: r.ID, Kind: quota.AlertKind(r.Kind), Plan: r.Plan, User: r.ExternalID,
		Muted: r.Muted}
	for _, team := range []string{r.Team, r.Above1, r.Above2, r.Above3} {
		if team != "" {
			p.Teams = append(p.Teams, team)
		}
	}
	return p
}

func newDeliveries(matches []delivery.Match, now time.Time) dbsqlc.InsertDeliveriesParams {
	n := len(matches)
	p := dbsqlc.InsertDeliveriesParams{Now: now, ExpiresAt: now.Add(delivery.Keep), Ids: make([]quota.ID, n),
		Endpoints: make([]quota.ID, n), Alerts: make([]quota.ID, n)}
	for i, m := range matches {
		p.Ids[i], p.Endpoints[i], p.Alerts[i] = m.DeliveryID(), m.Endpoint, m.Alert
	}
	return p
}

// Feed implements delivery.Outbox. Endpoints that somebody else has locked are that one's to feed, or the next turn's.
func (s *Store) Feed(ctx context.Context) error {
	for {
		fed := 0
		err := s.within(ctx, func(tx pgx.Tx, q *dbsqlc.Queries, now time.Time) error {
			fed = 0
			due, err := q.DueEndpoints(ctx, dbsqlc.DueEndpointsParams{Now: now, Failing: delivery.Failing,
				Room: delivery.Window, Most: feedPage})
			if err != nil {
				return err
			}
			slices.SortFunc(due, func(a, b quota.ID) int { return slices.Compare(a[:], b[:]) })
			var jobs []job
			for _, id := range due {
				row, err := q.TryLockEndpoint(ctx, id)
				if errors.Is(err, pgx.ErrNoRows) {
					continue
				}
				if err != nil {
					return err
				}
				next, err := takeDue(ctx, q, &row, now)
				if err != nil {
					return err
				}
				jobs = append(jobs, next...)
			}
			fed = len(jobs)
			return s.queue.insert(ctx, tx, jobs)
		})
		if err != nil || fed < feedPage {
			return err
		}
	}
}

// takeDue takes the next deliveries of an endpoint that is locked into its window.
func takeDue(
	ctx context.Context, q *dbsqlc.Queries, row *dbsqlc.NotificationEndpoint, now time.Time,
) ([]job, error) {
	if row.Suspended || row.DisabledAt != nil || row.RetryAt != nil && row.RetryAt.After(now) {
		return nil, nil
	}
	state := stateOf(row)
	ids, err := q.TakeDue(ctx, dbsqlc.TakeDueParams{Now: &now, Endpoint: row.ID, Room: int64(state.Room())})
	jobs := make([]job, len(ids))
	for i, id := range ids {
		jobs[i] = job{args: attemptArgs{ID: delivery.ID(id), QueuedAt: now}, aside: state.Aside()}
	}
	return jobs, err
}

// Take implements delivery.Outbox.
func (s *Store) Take(ctx context.Context, job delivery.Job) (p delivery.Parcel, ok bool, err error) {
	err = s.within(ctx, func(_ pgx.Tx, q *dbsqlc.Queries, now time.Time) error {
		p, ok = delivery.Parcel{}, false
		row, err := q.QueuedDelivery(ctx, dbsqlc.QueuedDeliveryParams{ID: job.ID, QueuedAt: &job.QueuedAt})
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if e := &row.NotificationEndpoint; e.Suspended || e.DisabledAt != nil {
			return q.ReleaseDelivery(ctx, dbsqlc.ReleaseDeliveryParams{ID: job.ID, QueuedAt: &job.QueuedAt})
		}
		if p.Endpoint, err = endpointOf(&row.NotificationEndpoint, row.Team); err != nil {
			return err
		}
		p.Delivery = deliveryOf(&row.Delivery, p.Endpoint.Name, row.Team, "")
		p.Keys, err = keysOf(ctx, q, row.NotificationEndpoint.ID, now)
		return err
	})
	if err != nil || p.Endpoint.ID == (delivery.EndpointID{}) {
		return p, false, err
	}
	p.Alert, err = s.db.Alert(ctx, p.Delivery.Alert)
	return p, err == nil, err
}

// Finish implements delivery.Outbox.
func (s *Store) Finish(
	ctx context.Context, job delivery.Job, began time.Time,
	judge func(*delivery.EndpointState, *delivery.Delivery, time.Time) delivery.Verdict,
) error {
	return s.within(ctx, func(tx pgx.Tx, q *dbsqlc.Queries, now time.Time) error {
		found, err := q.QueuedDelivery(ctx, dbsqlc.QueuedDeliveryParams{ID: job.ID, QueuedAt: &job.QueuedAt})
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // it was deleted with its endpoint, or given to another job
		}
		if err != nil {
			return err
		}
		row, err := q.LockEndpoint(ctx, found.NotificationEndpoint.ID)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		state, d := stateOf(&row), deliveryOf(&found.Delivery, row.Name, found.Team, "")
		v := judge(&state, &d, now)
		finish := dbsqlc.FinishDeliveryParams{State: string(v.State), Began: &began, ID: job.ID,
			QueuedAt: &job.QueuedAt, Next: optional(v.Next)}
		if v.State != delivery.Waiting {
			finish.Next, finish.Finished = nil, &now
		}
		if v.Status != 0 {
			finish.Status = new(int32(v.Status))
		}
		if v.Text != "" {
			finish.Error = &v.Text
		}
		if n, err := q.FinishDelivery(ctx, finish); err != nil || n == 0 {
			return err
		}
		if err := writeState(ctx, q, &row, &v, now); err != nil {
			return err
		}
		jobs, err := takeDue(ctx, q, &row, now)
		if err != nil {
			return err
		}
		return s.queue.insert(ctx, tx, jobs)
	})
}

// writeState writes how an endpoint does after an attempt, into the row as well.
func writeState(
	ctx context.Context, q *dbsqlc.Queries, row *dbsqlc.NotificationEndpoint, v *delivery.Verdict, now time.Time,
) error {
	e := &v.Endpoint
	row.Failures, row.RetryAt, row.Slow = int32(e.Failures), optional(e.RetryAt), e.Slow
	row.DisabledAt = optional(e.DisabledAt)
	if v.State == delivery.Delivered {
		if v.Recovered {
			if err := q.HurryDeliveries(ctx, dbsqlc.HurryDeliveriesParams{Now: now, Endpoint: row.ID}); err != nil {
				return err
			}
		}
		return q.EndpointSucceeded(ctx, dbsqlc.EndpointSucceededParams{Slow: e.Slow, Now: &now, ID: row.ID})
	}
	p := dbsqlc.EndpointFailedParams{Failures: row.Failures, RetryAt: row.RetryAt, Slow: e.Slow, Now: &now,
		Failure: &e.Failure, ID: row.ID}
	if row.DisabledAt != nil {
		p.DisabledAt, p.DisabledReason = row.DisabledAt, &e.DisabledReason
	}
	return q.EndpointFailed(ctx, p)
}

// Tidy implements delivery.Outbox.
func (s *Store) Tidy(ctx context.Context) error {
	for _, step := range []func(*dbsqlc.Queries, time.Time) (int64, error){
		func(q *dbsqlc.Queries, now time.Time) (int64, error) {
			return q.ExpireDeliveries(ctx, dbsqlc.ExpireDeliveriesParams{Now: &now, Most: tidyPage})
		},
		func(q *dbsqlc.Queries, now time.Time) (int64, error) {
			return q.RequeueDeliveries(ctx,
				dbsqlc.RequeueDeliveriesParams{Before: now.Add(-lostAfter), Most: tidyPage})
		},
		func(q *dbsqlc.Queries, now time.Time) (int64, error) {
			return q.PruneDeliveries(ctx, dbsqlc.PruneDeliveriesParams{DeadBefore: now.Add(-keepDead),
				DeliveredBefore: now.Add(-keepDelivered), Most: tidyPage})
		},
		func(q *dbsqlc.Queries, now time.Time) (int64, error) { return 0, q.DropEndedKeys(ctx, now) },
	} {
		for n := int64(tidyPage); n >= tidyPage; {
			if err := s.within(ctx, func(_ pgx.Tx, q *dbsqlc.Queries, now time.Time) (err error) {
				n, err = step(q, now)
				return err
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Deliveries implements delivery.Deliveries.
func (s *Store) Deliveries(
	ctx context.Context, f delivery.Filter, before delivery.ID, limit int,
) ([]delivery.Delivery, error) {
	p := dbsqlc.ListDeliveriesParams{State: string(f.State), Before: before, Most: int32(limit)}
	if f.Endpoint != "" {
		status, err := s.Endpoint(ctx, f.Team, f.Endpoint)
		if err != nil {
			return nil, err
		}
		p.Endpoint = (*quota.ID)(&status.ID)
	} else if f.Team != "" {
		owner, err := ownerOf(ctx, s.db.Queries(), f.Team)
		if err != nil {
			return nil, postgres.MapError(err)
		}
		p.Team = owner
	}
	rows, err := s.db.Queries().ListDeliveries(ctx, p)
	all := make([]delivery.Delivery, len(rows))
	for i := range rows {
		all[i] = deliveryOf(&rows[i].Delivery, rows[i].Endpoint, rows[i].Team, rows[i].Kind)
	}
	return all, postgres.MapError(err)
}

// Delivery implements delivery.Deliveries.
func (s *Store) Delivery(ctx context.Context, id delivery.ID) (delivery.Delivery, error) {
	r, err := s.db.Queries().GetDelivery(ctx, id)
	if err != nil {
		return delivery.Delivery{}, postgres.MapError(missing(err, "delivery %s", id))
	}
	return deliveryOf(&r.Delivery, r.Endpoint, r.Team, r.Kind), nil
}

// Resend implements delivery.Deliveries.
func (s *Store) Resend(ctx context.Context, id delivery.ID, by, reason string) error {
	return s.within(ctx, func(tx pgx.Tx, q *dbsqlc.Queries, now time.Time) error {
		was, err := q.LockDelivery(ctx, id)
		if err != nil || delivery.State(was.State) == delivery.Waiting {
			return missing(err, "delivery %s", id)
		}
		err = q.ResendDelivery(ctx, dbsqlc.ResendDeliveryParams{Now: now, ExpiresAt: now.Add(delivery.Keep), By: by,
			ID: id})
		if err != nil {
			return err
		}
		told := postgres.Audited{AuditRow: quota.AuditRow{
			Actor: quota.CallerActor(by), Action: quota.AuditDeliveryResent, Object: id.String(), Reason: reason,
			Before: quota.AuditDelivery{State: was.State, Attempts: was.Attempts},
			After:  quota.AuditDelivery{State: string(delivery.Waiting), Attempts: was.Attempts},
		}}
		if was.TeamID != nil {
			told.Account = *was.TeamID
		}
		return postgres.TellAudit(ctx, tx, now, told)
	})
}

func deliveryOf(r *dbsqlc.Delivery, endpoint, team, kind string) delivery.Delivery {
	d := delivery.Delivery{
		ID: r.ID, Endpoint: endpoint, Team: team, Alert: r.AlertID, Kind: quota.AlertKind(kind),
		State: delivery.State(r.State), Attempts: int(r.Attempts), CreatedAt: r.CreatedAt.UTC(),
		ExpiresAt: r.ExpiresAt.UTC(), NextAttemptAt: r.NextAttemptAt.UTC(), FirstAttemptAt: instant(r.FirstAttemptAt),
		LastAttemptAt: instant(r.LastAttemptAt), FinishedAt: instant(r.FinishedAt),
		LastError: readdb.Text(r.LastError), ResentBy: readdb.Text(r.ResentBy),
	}
	if r.LastStatus != nil {
		d.LastStatus = int(*r.LastStatus)
	}
	return d
}
