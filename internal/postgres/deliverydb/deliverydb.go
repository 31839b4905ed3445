// SPDX-License-Identifier: Apache-2.0

// Package deliverydb keeps endpoints and what is on its way to them. Attempts are jobs of River, in a schema of its own
// in the same database: a job is made by the transaction that says that there is an attempt to make.
package deliverydb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// maxBusy is how many connections of the pool deliveries use at once: the rest is for admissions.
const maxBusy = 4

// Store implements delivery.Store. It is safe for concurrent use.
type Store struct {
	db *readdb.Store
	// busy has an entry for each connection that is used.
	busy chan struct{}
	// queue makes jobs; nil where none are worked on.
	queue *Queue
}

var _ delivery.Store = (*Store)(nil)

// New returns the Store of a database.
func New(db *readdb.Store) *Store { return &Store{db: db, busy: make(chan struct{}, maxBusy)} }

// within runs a transaction when it is its turn. f is told the time by the database's clock.
func (s *Store) within(ctx context.Context, f func(tx pgx.Tx, q *dbsqlc.Queries, now time.Time) error) error {
	select {
	case s.busy <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.busy }()
	return s.db.Transaction(ctx, func(tx pgx.Tx, q *dbsqlc.Queries) error {
		now, err := q.Clock(ctx, s.db.Now())
		if err != nil {
			return err
		}
		return f(tx, q, now.UTC())
	})
}

// PutEndpoint implements delivery.Endpoints.
func (s *Store) PutEndpoint(
	ctx context.Context, e *delivery.Endpoint, keys []delivery.Key, most int, by delivery.Act,
) (status delivery.Status, key *delivery.Key, err error) {
	err = s.within(ctx, func(tx pgx.Tx, q *dbsqlc.Queries, now time.Time) error {
		var team *quota.ID
		if e.Team != "" {
			id, err := q.LockTeam(ctx, e.Team)
			if err != nil {
				return missing(err, "team %q", e.Team)
			}
			team = &id
		}
		was, made, err := endpointBefore(ctx, q, team, e, most)
		if err != nil {
			return err
		}
		var before *quota.AuditEndpoint
		if !made {
			if before, err = auditOf(ctx, q, &was, now); err != nil {
				return err
			}
		}
		row := was
		is, unreadable := endpointOf(&was, e.Team)
		changes := made || unreadable != nil || !is.DeclaredAs(e)
		if changes {
			if row, err = q.UpsertEndpoint(ctx, declared(e, team, now)); err != nil {
				return err
			}
		}
		if key, err = putKeys(ctx, q, &row, keys, now); err != nil {
			return err
		}
		if changes || key != nil || len(keys) > 0 {
			if err := tellEndpoint(ctx, tx, q, by, before, &row, now); err != nil {
				return err
			}
		}
		status, err = statusOf(ctx, q, &row, e.Team, now)
		return err
	})
	return status, key, err
}

// endpointBefore locks the endpoint of that name, or says that it is to be made, if there may be another one.
func endpointBefore(
	ctx context.Context, q *dbsqlc.Queries, team *quota.ID, e *delivery.Endpoint, most int,
) (was dbsqlc.NotificationEndpoint, made bool, err error) {
	was, err = lockEndpoint(ctx, q, team, e.Name)
	if err == nil {
		return was, false, foreign(&was, e.Cluster)
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return was, false, err
	}
	if most <= 0 {
		return was, true, nil
	}
	n, err := q.CountTeamEndpoints(ctx, team)
	if err == nil && n >= int64(most) {
		err = quota.Conflict("team "+e.Team, "has %d notification endpoints, which is the most", n)
	}
	return was, true, err
}

func lockEndpoint(
	ctx context.Context, q *dbsqlc.Queries, team *quota.ID, name string,
) (dbsqlc.NotificationEndpoint, error) {
	if team == nil {
		return q.LockPlatformEndpoint(ctx, name)
	}
	return q.LockTeamEndpoint(ctx, dbsqlc.LockTeamEndpointParams{Team: team, Name: name})
}

// foreign says that an endpoint is another cluster's.
func foreign(row *dbsqlc.NotificationEndpoint, cluster quota.ClusterUID) error {
	if row.TeamID == nil && row.HomeCluster != nil && *row.HomeCluster != cluster {
		return &ledger.OwnedError{Subject: fmt.Sprintf("endpoint %q", row.Name), Cluster: *row.HomeCluster}
	}
	return nil
}

func declared(e *delivery.Endpoint, team *quota.ID, now time.Time) dbsqlc.UpsertEndpointParams {
	p := dbsqlc.UpsertEndpointParams{
		ID: newID(e), TeamID: team, Name: e.Name, Url: e.URL, Kinds: texts(e.Kinds), Plans: texts(e.Plans),
		Teams: texts(e.Teams), Users: texts(e.Users), AllowedCidrs: make([]string, len(e.AllowedCIDRs)),
		Signing: string(e.Signing), Suspended: e.Suspended, Audience: string(e.Audience), Now: now,
	}
	for i, prefix := range e.AllowedCIDRs {
		p.AllowedCidrs[i] = prefix.String()
	}
	if e.Cluster != (quota.ClusterUID{}) {
		p.HomeCluster = (*quota.ID)(&e.Cluster)
	}
	return p
}

// putKeys has an endpoint sign with some keys and no others, or if none are given with those that it has; with one that
// it makes and returns if there are none.
func putKeys(
	ctx context.Context, q *dbsqlc.Queries, e *dbsqlc.NotificationEndpoint, keys []delivery.Key, now time.Time,
) (made *delivery.Key, err error) {
	if len(keys) == 0 {
		has, err := q.EndpointKeys(ctx, dbsqlc.EndpointKeysParams{Endpoint: e.ID, Now: now})
		if err != nil {
			return nil, err
		}
		fit := func(k dbsqlc.NotificationKey) bool { return k.Signing == e.Signing }
		if len(has) > 0 && !slices.ContainsFunc(has, func(k dbsqlc.NotificationKey) bool { return !fit(k) }) {
			return nil, nil
		}
		made = new(delivery.NewKey(delivery.Signing(e.Signing)))
		keys = []delivery.Key{*made}
	}
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = key.Name
		if err := putKey(ctx, q, e.ID, &key, now); err != nil {
			return nil, err
		}
	}
	return made, q.DropKeysBut(ctx, dbsqlc.DropKeysButParams{Endpoint: e.ID, Names: names})
}

func putKey(ctx context.Context, q *dbsqlc.Queries, endpoint quota.ID, key *delivery.Key, now time.Time) error {
	return q.PutKey(ctx, dbsqlc.PutKeyParams{Endpoint: endpoint, Name: key.Name, Signing: string(key.Signing),
		Secret: key.Secret, Now: now})
}

// AddKey implements delivery.Endpoints.
func (s *Store) AddKey(
	ctx context.Context, id delivery.EndpointID, key delivery.Key, overlap time.Duration, by delivery.Act,
) error {
	return s.within(ctx, func(tx pgx.Tx, q *dbsqlc.Queries, now time.Time) error {
		row, err := q.LockEndpoint(ctx, id)
		if err != nil {
			return missing(err, "endpoint %s", id)
		}
		before, err := auditOf(ctx, q, &row, now)
		if err != nil {
			return err
		}
		if err := q.EndKeys(ctx, dbsqlc.EndKeysParams{Endpoint: id, EndsAt: new(now.Add(overlap))}); err != nil {
			return err
		}
		if err := putKey(ctx, q, id, &key, now); err != nil {
			return err
		}
		after, err := auditOf(ctx, q, &row, now)
		if err != nil {
			return err
		}
		return postgres.TellAudit(ctx, tx, now, audited(&row, by, quota.AuditRow{
			Action: quota.AuditEndpointRotated, Before: *before, After: *after,
		}))
	})
}

// Enable implements delivery.Endpoints.
func (s *Store) Enable(ctx context.Context, id delivery.EndpointID) error {
	return postgres.MapError(s.db.Queries().EnableEndpoint(ctx, id))
}

// DeleteEndpoint implements delivery.Endpoints.
func (s *Store) DeleteEndpoint(
	ctx context.Context, team, name string, cluster quota.ClusterUID, by delivery.Act,
) error {
	return s.within(ctx, func(tx pgx.Tx, q *dbsqlc.Queries, now time.Time) error {
		owner, err := ownerOf(ctx, q, team)
		if err != nil {
			return err
		}
		row, err := lockEndpoint(ctx, q, owner, name)
		if err != nil {
			return missing(err, "notification endpoint %q", name)
		}
		if err := foreign(&row, cluster); err != nil {
			return err
		}
		before, err := auditOf(ctx, q, &row, now)
		if err != nil {
			return err
		}
		if err := q.DeleteEndpoint(ctx, row.ID); err != nil {
			return err
		}
		return postgres.TellAudit(ctx, tx, now, audited(&row, by, quota.AuditRow{
			Action: quota.AuditEndpointDeleted, Before: *before,
		}))
	})
}

// ownerOf is the id of the team whose endpoints are meant, nil for the platform's.
func ownerOf(ctx context.Context, q *dbsqlc.Queries, team string) (*quota.ID, error) {
	if team == "" {
		return nil, nil
	}
	id, err := q.TeamID(ctx, team)
	return &id, missing(err, "team %q", team)
}

// missing says of what there is no row that it is not there.
func missing(err error, format string, args ...any) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return quota.NotFound(format, args...)
	}
	return err
}

// Endpoint implements delivery.Endpoints.
func (s *Store) Endpoint(ctx context.Context, team, name string) (status delivery.Status, err error) {
	err = s.within(ctx, func(_ pgx.Tx, q *dbsqlc.Queries, now time.Time) error {
		owner, err := ownerOf(ctx, q, team)
		if err != nil {
			return err
		}
		var row dbsqlc.NotificationEndpoint
		if owner == nil {
			row, err = q.PlatformEndpoint(ctx, name)
		} else {
			row, err = q.TeamEndpoint(ctx, dbsqlc.TeamEndpointParams{Team: owner, Name: name})
		}
		if err != nil {
			return missing(err, "notification endpoint %q", name)
		}
		status, err = statusOf(ctx, q, &row, team, now)
		return err
	})
	return status, err
}

// Keys implements delivery.Endpoints.
func (s *Store) Keys(ctx context.Context, id delivery.EndpointID) (keys []delivery.Key, err error) {
	err = s.within(ctx, func(_ pgx.Tx, q *dbsqlc.Queries, now time.Time) error {
		if keys, err = keysOf(ctx, q, id, now); err == nil && len(keys) == 0 {
			err = quota.NotFound("notification endpoint %s", id)
		}
		return err
	})
	return keys, err
}

// EndpointsOf implements delivery.Endpoints.
func (s *Store) EndpointsOf(ctx context.Context, team string) (all []delivery.Status, err error) {
	err = s.within(ctx, func(_ pgx.Tx, q *dbsqlc.Queries, now time.Time) error {
		owner, err := ownerOf(ctx, q, team)
		if err != nil {
			return err
		}
		rows, err := q.TeamEndpoints(ctx, owner)
		if err != nil {
			return err
		}
		all, err = statuses(ctx, q, rows, team, now)
		return err
	})
	return all, err
}

// PlatformEndpoints implements delivery.Endpoints.
func (s *Store) PlatformEndpoints(ctx context.Context, after string, limit int) (all []delivery.Status, err error) {
	err = s.within(ctx, func(_ pgx.Tx, q *dbsqlc.Queries, now time.Time) error {
		rows, err := q.PlatformEndpoints(ctx, dbsqlc.PlatformEndpointsParams{After: after, Most: int32(limit)})
		if err != nil {
			return err
		}
		all, err = statuses(ctx, q, rows, "", now)
		return err
	})
	return all, err
}

func statuses(
	ctx context.Context, q *dbsqlc.Queries, rows []dbsqlc.NotificationEndpoint, team string, now time.Time,
) ([]delivery.Status, error) {
	all := make([]delivery.Status, len(rows))
	for i := range rows {
		status, err := statusOf(ctx, q, &rows[i], team, now)
		if err != nil {
			return nil, err
		}
		all[i] = status
	}
	return all, nil
}

func statusOf(
	ctx context.Context, q *dbsqlc.Queries, row *dbsqlc.NotificationEndpoint, team string, now time.Time,
) (status delivery.Status, err error) {
	if status.Endpoint, err = endpointOf(row, team); err != nil {
		return status, err
	}
	if status.Keys, err = keysOf(ctx, q, row.ID, now); err != nil {
		return status, err
	}
	for state, n := range map[delivery.State]*int64{delivery.Waiting: &status.Waiting, delivery.Dead: &status.Dead} {
		*n, err = q.CountDeliveries(ctx, dbsqlc.CountDeliveriesParams{Endpoint: row.ID, State: string(state),
			Most: delivery.MaxCount})
		if err != nil {
			return status, err
		}
	}
	return status, nil
}

func keysOf(ctx context.Context, q *dbsqlc.Queries, endpoint quota.ID, now time.Time) ([]delivery.Key, error) {
	rows, err := q.EndpointKeys(ctx, dbsqlc.EndpointKeysParams{Endpoint: endpoint, Now: now})
	keys := make([]delivery.Key, len(rows))
	for i := range rows {
		r := &rows[i]
		keys[i] = delivery.Key{Name: r.Name, Signing: delivery.Signing(r.Signing), Secret: r.Secret,
			CreatedAt: r.CreatedAt.UTC(), EndsAt: instant(r.EndsAt)}
	}
	return keys, err
}

func endpointOf(r *dbsqlc.NotificationEndpoint, team string) (delivery.Endpoint, error) {
	e := delivery.Endpoint{
		ID: r.ID, Team: team, Name: r.Name, URL: r.Url, Plans: r.Plans, Teams: r.Teams, Users: r.Users,
		Signing: delivery.Signing(r.Signing), Suspended: r.Suspended, Audience: delivery.Audience(r.Audience),
		State: stateOf(r),
	}
	if r.HomeCluster != nil {
		e.Cluster = *r.HomeCluster
	}
	if len(r.Kinds) > 0 {
		e.Kinds = kindsOf(r.Kinds)
	}
	for _, text := range r.AllowedCidrs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return e, fmt.Errorf("allowed_cidrs of endpoint %s: %w", e.ID, err)
		}
		e.AllowedCIDRs = append(e.AllowedCIDRs, prefix)
	}
	return e, nil
}

func stateOf(r *dbsqlc.NotificationEndpoint) delivery.EndpointState {
	return delivery.EndpointState{
		Version: r.Version, DisabledAt: instant(r.DisabledAt), DisabledReason: readdb.Text(r.DisabledReason),
		Failures: int(r.Failures), RetryAt: instant(r.RetryAt), Slow: r.Slow, LastSuccess: instant(r.LastSuccessAt),
		LastFailure: instant(r.LastFailureAt), Failure: readdb.Text(r.LastFailure),
	}
}

func instant(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func texts[T ~string](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}
