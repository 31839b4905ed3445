// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/loop"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// relayPeriod is how late an alert that another process has raised may be looked at; one of this process wakes the
	// relay.
	relayPeriod  = 500 * time.Millisecond
	relayTimeout = 30 * time.Second
	// relayPage is how many alerts one transaction makes deliveries of.
	relayPage   = 500
	tidyPeriod  = time.Minute
	tidyTimeout = time.Minute
	// overlap is how long the keys before a new one go on signing.
	overlap = 24 * time.Hour
	// MaxPage is how many deliveries or endpoints are read at once at most.
	MaxPage = 500
)

// Options of a Service.
type Options struct {
	// Sender makes the attempts. It is required of who makes or tests some.
	Sender *Sender
	// Loops is told how each turn of the background work went; nil keeps silent.
	Loops loop.Observer
	// Log is told what background work could not do.
	Log func(err error, message string)
	// Observe is told how long after its alert's commit a delivery was first tried; nil keeps silent.
	Observe func(time.Duration)
}

// controllers are who declares the platform's endpoints, for whoever wrote the object.
var controllers = Act{By: quota.Actor{Name: "usage-operator"}}

// Service brings alerts to endpoints. It is safe for concurrent use.
type Service struct {
	store Store
	opts  Options
	wake  chan struct{}
}

// New returns a Service.
func New(store Store, opts Options) *Service {
	if opts.Log == nil {
		opts.Log = func(error, string) {}
	}
	if opts.Observe == nil {
		opts.Observe = func(time.Duration) {}
	}
	return &Service{store: store, opts: opts, wake: make(chan struct{}, 1)}
}

// Wake says that an alert was raised. It does not block.
func (s *Service) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Relay makes deliveries of what was raised and has attempts made at what is due, until ctx ends.
func (s *Service) Relay(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		loop.Task{Name: "deliveries-tidy", Period: tidyPeriod, Jitter: tidyPeriod / 10, Timeout: tidyTimeout,
			Do: func(ctx context.Context) error {
				return s.failed(ctx, s.store.Tidy(ctx), "tidying up deliveries failed, trying again")
			}}.Run(ctx, s.opts.Loops)
	}()
	// A turn that fails is not waited for like others that do: the next one is as cheap.
	loop.Task{Name: "deliveries", Period: relayPeriod, Timeout: relayTimeout, Wake: s.wake, Do: s.relay}.
		Run(ctx, s.opts.Loops)
	<-done
}

func (s *Service) relay(ctx context.Context) error {
	err := s.Flush(ctx)
	return s.failed(ctx, err, "passing on alerts failed, trying again")
}

// Flush makes deliveries of all that was raised, and has attempts made at what is due, once.
func (s *Service) Flush(ctx context.Context) error {
	for {
		n, err := s.store.FanOut(ctx, relayPage, Route)
		if err != nil {
			return err
		}
		if err := s.store.Feed(ctx); err != nil || n < relayPage {
			return err
		}
	}
}

// failed reports what background work could not do, but that the database is away, which its store tells once.
func (s *Service) failed(ctx context.Context, err error, message string) error {
	if err != nil && ctx.Err() == nil && !errors.Is(err, ledger.ErrUnavailable) && !errors.Is(err, ledger.ErrRetry) {
		s.opts.Log(err, message)
	}
	return err
}

// Attempt makes one attempt at a delivery, and writes down what follows. An error says that this could not be done: it
// is to be called again.
func (s *Service) Attempt(ctx context.Context, job Job) error {
	parcel, ok, err := s.store.Take(ctx, job)
	if err != nil || !ok {
		return err
	}
	began := time.Now()
	body, err := alertEvent(&parcel.Alert)
	if err != nil {
		return err
	}
	if parcel.Delivery.Attempts == 0 && parcel.Delivery.ResentBy == "" {
		s.opts.Observe(began.Sub(parcel.Alert.RaisedAt))
	}
	outcome := s.send(ctx, &parcel.Endpoint, parcel.Keys, parcel.Alert.ID.String(), body)
	if ctx.Err() != nil {
		return ctx.Err() // the process is about to end: nobody knows whether it has arrived
	}
	return s.store.Finish(ctx, job, began, outcome.Judge)
}

// send makes an attempt at what has an id.
func (s *Service) send(ctx context.Context, e *Endpoint, keys []Key, id string, body []byte) *Outcome {
	began := time.Now()
	got, err := s.opts.Sender.post(ctx, e, signed(id, began, body, keys), body)
	outcome := &Outcome{Status: got.status, Took: time.Since(began), RetryAfter: retryAfter(got.retryAfter, time.Now())}
	if err != nil {
		outcome.Failure = describe(err)
	}
	return outcome
}

// Test sends a test to an endpoint, suspended or not, and says what came of it. Nothing is kept of it.
func (s *Service) Test(ctx context.Context, team, name string) (id string, outcome Outcome, err error) {
	status, err := s.store.Endpoint(ctx, team, name)
	if err != nil {
		return "", Outcome{}, err
	}
	now := time.Now()
	id = ID(quota.NameID("test", quota.AccountID(status.ID), now.Format(time.RFC3339Nano))).String()
	body, err := testEvent(id, &status.Endpoint, now)
	if err != nil {
		return "", Outcome{}, err
	}
	return id, *s.send(ctx, &status.Endpoint, status.Keys, id, body), nil
}

// Declare brings one of the platform's endpoints into force. keys are those of its Secret; without one, which HMAC has
// to have, it signs with a key that is made for it.
func (s *Service) Declare(ctx context.Context, e *Endpoint, keys []Key) (Status, error) {
	if err := e.Check(); err != nil {
		return Status{}, err
	}
	if len(keys) > MaxKeys {
		return Status{}, quota.Invalid("signing", "%d keys: must be at most %d", len(keys), MaxKeys)
	}
	status, _, err := s.store.PutEndpoint(ctx, e, keys, 0, controllers)
	return status, err
}

// Retire takes one of the platform's endpoints out of force, with its deliveries.
func (s *Service) Retire(ctx context.Context, name string, cluster quota.ClusterUID) error {
	return s.store.DeleteEndpoint(ctx, "", name, cluster, controllers)
}

// Enable lets an endpoint that was disabled be tried again.
func (s *Service) Enable(ctx context.Context, id EndpointID) error { return s.store.Enable(ctx, id) }

// act is who changes an endpoint, by the name that Kubernetes knows, and why if they say so, for the audit log.
func act(by, reason string) (Act, error) {
	if reason != "" {
		if err := quota.CheckReason(reason); err != nil {
			return Act{}, err
		}
	}
	return Act{By: quota.CallerActor(by), Reason: reason}, nil
}

// PutTeamEndpoint makes or changes an endpoint of a team's own, for a reason or none, and returns the key that was made
// for it, nil if it had one. It can allow no addresses that are not public, and is for those who manage the team.
func (s *Service) PutTeamEndpoint(ctx context.Context, e *Endpoint, by, reason string) (Status, *Key, error) {
	told, err := act(by, reason)
	if err != nil {
		return Status{}, nil, err
	}
	e.Audience = ForOperators
	if len(e.AllowedCIDRs) > 0 {
		return Status{}, nil, quota.Invalid("allowedCIDRs", "only the platform's endpoints can have them")
	}
	if err := e.Check(); err != nil {
		return Status{}, nil, err
	}
	return s.store.PutEndpoint(ctx, e, nil, MaxTeamEndpoints, told)
}

// Keys returns those that an endpoint signs with, the newest first, or ErrNotFound.
func (s *Service) Keys(ctx context.Context, id EndpointID) ([]Key, error) {
	return s.store.Keys(ctx, id)
}

// DeleteTeamEndpoint forgets an endpoint of a team's own, with its deliveries, for a reason or none.
func (s *Service) DeleteTeamEndpoint(ctx context.Context, team, name, by, reason string) error {
	told, err := act(by, reason)
	if err != nil {
		return err
	}
	return s.store.DeleteEndpoint(ctx, team, name, quota.ClusterUID{}, told)
}

// Endpoint returns an endpoint of a team's own, or of the platform's if team is empty.
func (s *Service) Endpoint(ctx context.Context, team, name string) (Status, error) {
	return s.store.Endpoint(ctx, team, name)
}

// TeamEndpoints returns a team's own, in the order of their names.
func (s *Service) TeamEndpoints(ctx context.Context, team string) ([]Status, error) {
	return s.store.EndpointsOf(ctx, team)
}

// PlatformEndpoints returns at most limit of the platform's behind a name, and whether there are more.
func (s *Service) PlatformEndpoints(ctx context.Context, after string, limit int) ([]Status, bool, error) {
	all, err := s.store.PlatformEndpoints(ctx, after, limit+1)
	if len(all) > limit {
		return all[:limit], true, err
	}
	return all, false, err
}

// Rotate has an endpoint of a team's own sign with a new key, for a reason or none, and for a day with those that it
// had as well.
func (s *Service) Rotate(ctx context.Context, team, name, by, reason string) (Status, *Key, error) {
	told, err := act(by, reason)
	if err != nil {
		return Status{}, nil, err
	}
	status, err := s.store.Endpoint(ctx, team, name)
	if err != nil {
		return Status{}, nil, err
	}
	if len(status.Keys) >= MaxKeys {
		return Status{}, nil, quota.Conflict("endpoint "+name, "signs with %d keys already, which is the most: "+
			"the oldest ends within a day", len(status.Keys))
	}
	key := NewKey(status.Signing)
	if err := s.store.AddKey(ctx, status.ID, key, overlap, told); err != nil {
		return Status{}, nil, err
	}
	status, err = s.store.Endpoint(ctx, team, name)
	return status, &key, err
}

// Preferences returns what a user wants to be told of, or ErrNotFound of whom nobody knows.
func (s *Service) Preferences(ctx context.Context, userID string) (Preferences, error) {
	return s.store.Preferences(ctx, userID)
}

// PutPreferences has those kinds of alerts, each known and named once, not be brought to the user from now on, and all
// others.
func (s *Service) PutPreferences(
	ctx context.Context, userID string, muted []quota.AlertKind, actor string,
) (Preferences, error) {
	for i, kind := range muted {
		if !slices.Contains(Kinds, kind) {
			return Preferences{}, quota.Invalid("muted", "%.40q must be one of %s", string(kind), join(Kinds))
		}
		if slices.Contains(muted[:i], kind) {
			return Preferences{}, quota.Invalid("muted", "%s is there twice", kind)
		}
	}
	sorted := append([]quota.AlertKind{}, muted...)
	slices.Sort(sorted)
	return s.store.PutPreferences(ctx, userID, sorted, quota.CallerActor(actor))
}

// Page is a part of the deliveries.
type Page struct {
	Deliveries []Delivery
	// Next is the delivery that the next page begins behind; zero if this page was the last.
	Next ID
}

// Deliveries returns at most limit (1 to MaxPage) of them, the newest first, that are older than one.
func (s *Service) Deliveries(ctx context.Context, f Filter, before ID, limit int) (Page, error) {
	all, err := s.store.Deliveries(ctx, f, before, limit+1)
	page := Page{Deliveries: all}
	if len(all) > limit {
		page.Deliveries, page.Next = all[:limit], all[limit-1].ID
	}
	return page, err
}

// Delivery returns one, or ErrNotFound.
func (s *Service) Delivery(ctx context.Context, id ID) (Delivery, error) {
	return s.store.Delivery(ctx, id)
}

// Resend has a delivery that is over made again, with the same id, for a reason; one that waits stays as it is.
func (s *Service) Resend(ctx context.Context, id ID, by, reason string) (Delivery, error) {
	if err := quota.CheckReason(reason); err != nil {
		return Delivery{}, err
	}
	if err := s.store.Resend(ctx, id, by, reason); err != nil {
		return Delivery{}, err
	}
	s.Wake()
	return s.store.Delivery(ctx, id)
}
