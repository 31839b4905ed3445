// SPDX-License-Identifier: Apache-2.0

// Package delivery brings alerts to the endpoints that ask for them: who gets which, how it is signed, where it may be
// sent to, and what follows from an answer.
package delivery

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// ID names a delivery: an alert on its way to an endpoint.
type ID = quota.UUID[Delivery]

// EndpointID names an endpoint.
type EndpointID = quota.UUID[Endpoint]

// Signing is how the deliveries of an endpoint are signed.
type Signing string

// The ways to sign.
const (
	// Ed25519 signs with a private key. Whoever has the public one can verify, and cannot sign.
	Ed25519 Signing = "ed25519"
	// HMAC signs with a secret that the receiver has as well.
	HMAC Signing = "hmac"
)

// Audience is for whom the receiver of an endpoint is.
type Audience string

// The audiences.
const (
	// ForOperators gets everything that the endpoint asks for.
	ForOperators Audience = "operators"
	// ForUsers passes alerts on to the users whom they are about, and gets what these want to be told of.
	ForUsers Audience = "users"
)

// Preferences are what a user wants to be told of.
type Preferences struct {
	// Muted are the kinds of alerts that no endpoint for users brings to the user. They are raised and listed all the
	// same.
	Muted []quota.AlertKind
	// UpdatedAt is when the user last changed them; zero for never.
	UpdatedAt time.Time
}

// Endpoint is where alerts are sent to.
type Endpoint struct {
	ID EndpointID
	// Team is whose own it is; empty of the platform's.
	Team string
	Name string
	// Cluster has the object of one of the platform's.
	Cluster quota.ClusterUID
	URL     string
	// Which alerts it gets: those that are of one of each list that is not empty. Teams have those below them as well.
	Kinds []quota.AlertKind
	Plans []string
	Teams []string
	Users []string
	// AllowedCIDRs are addresses that may be called although they are not public, without TLS too.
	AllowedCIDRs []netip.Prefix
	Signing      Signing
	Audience     Audience
	// Suspended keeps what comes until it no longer is, or the deliveries expire.
	Suspended bool

	State EndpointState
}

// DeclaredAs reports whether the endpoint is as another one says.
func (e *Endpoint) DeclaredAs(o *Endpoint) bool {
	return e.Team == o.Team && e.Name == o.Name && e.Cluster == o.Cluster && e.URL == o.URL &&
		slices.Equal(e.Kinds, o.Kinds) && slices.Equal(e.Plans, o.Plans) && slices.Equal(e.Teams, o.Teams) &&
		slices.Equal(e.Users, o.Users) && slices.Equal(e.AllowedCIDRs, o.AllowedCIDRs) && e.Signing == o.Signing &&
		e.Audience == o.Audience && e.Suspended == o.Suspended
}

// SignsWith reports whether the keys of the endpoint are these; if there are none, whether it has some of its own.
func (s *Status) SignsWith(keys []Key) bool {
	if len(keys) == 0 {
		return len(s.Keys) > 0 && !slices.ContainsFunc(s.Keys, func(k Key) bool { return k.Signing != s.Signing })
	}
	return len(s.Keys) == len(keys) && !slices.ContainsFunc(s.Keys, func(has Key) bool {
		return !slices.ContainsFunc(keys, func(k Key) bool {
			return k.Name == has.Name && k.Signing == has.Signing && slices.Equal(k.Secret, has.Secret)
		})
	})
}

// EndpointState is how an endpoint does.
type EndpointState struct {
	// Version counts the changes of what is declared.
	Version int64
	// DisabledAt is since when nothing is sent to it, with the reason; zero while something is.
	DisabledAt     time.Time
	DisabledReason string
	// Failures counts the attempts that failed since the last one that did not; RetryAt is when the next one may be
	// made, zero for at any time.
	Failures int
	RetryAt  time.Time
	// Slow says that its last answer took long.
	Slow                     bool
	LastSuccess, LastFailure time.Time
	Failure                  string
}

// Key signs the deliveries of an endpoint.
type Key struct {
	// Name tells an endpoint's keys apart.
	Name    string
	Signing Signing
	// Secret is the seed of an ed25519 key, or what HMAC takes.
	Secret    []byte
	CreatedAt time.Time
	// EndsAt is when it signs no longer; zero: it does until it is taken away.
	EndsAt time.Time
}

// Status is an endpoint with its keys and what there is to send.
type Status struct {
	Endpoint

	Keys []Key
	// Waiting and Dead count its deliveries, up to MaxCount.
	Waiting, Dead int64
}

// MaxCount is how far deliveries are counted.
const MaxCount = 1_000_000

// State says how far a delivery has come.
type State string

// The states of a delivery.
const (
	// Waiting: it is to be tried, for the first time or again.
	Waiting State = "waiting"
	// Delivered: the receiver has said that it has it.
	Delivered State = "delivered"
	// Dead: it was tried for as long as it is worth. It can be sent again.
	Dead State = "dead"
)

// Delivery is an alert on its way to an endpoint.
type Delivery struct {
	ID       ID
	Endpoint string
	// Team is whose own the endpoint is; empty of the platform's.
	Team     string
	Alert    quota.AlertID
	Kind     quota.AlertKind
	State    State
	Attempts int
	// ExpiresAt is when it is given up, and NextAttemptAt when it is due.
	CreatedAt, ExpiresAt, NextAttemptAt time.Time
	// FirstAttemptAt, LastAttemptAt and FinishedAt are zero until then.
	FirstAttemptAt, LastAttemptAt, FinishedAt time.Time
	// LastStatus is the HTTP status that the last attempt was answered with, 0 if with none.
	LastStatus int
	LastError  string
	ResentBy   string
}

// Job is one attempt that is to be made.
type Job struct {
	ID ID
	// QueuedAt tells it from other attempts at the same delivery.
	QueuedAt time.Time
}

// Parcel is all that an attempt needs.
type Parcel struct {
	Endpoint Endpoint
	Delivery Delivery
	Keys     []Key
	Alert    ledger.Alert
}

// Filter chooses deliveries; what is empty chooses all.
type Filter struct {
	// Endpoint is one of the platform's by its name, or one of Team's.
	Endpoint, Team string
	State          State
}

// Store keeps endpoints and deliveries.
type Store interface {
	Declarations
	Endpoints
	Outbox
	Deliveries
	Wishes
}

// Act is who changes an endpoint, and why in their own words; empty without a reason.
type Act struct {
	By     quota.Actor
	Reason string
}

// Declarations say which endpoints there are.
type Declarations interface {
	// PutEndpoint makes or changes the endpoint of the name. keys are all that it signs with from now on; nil keeps
	// those that it has, and makes one where there is none of its way to sign, which is returned then. It fails
	// with ErrOwned of another cluster's, ErrNotFound of a team that there is not, ErrConflict of a team that has most
	// endpoints already; most is 0 for any number. What changes is in the audit log, with who did it and why.
	PutEndpoint(ctx context.Context, e *Endpoint, keys []Key, most int, by Act) (Status, *Key, error)
	// Enable lets a disabled endpoint be tried again.
	Enable(ctx context.Context, id EndpointID) error
	// DeleteEndpoint forgets an endpoint with its deliveries. cluster is that of the object, of one of the platform's.
	DeleteEndpoint(ctx context.Context, team, name string, cluster quota.ClusterUID, by Act) error
	// AddKey has an endpoint sign with a further key, and those that it had until an instant.
	AddKey(ctx context.Context, id EndpointID, key Key, overlap time.Duration, by Act) error
}

// Endpoints are read.
type Endpoints interface {
	// Endpoint reads one by its name, or ErrNotFound.
	Endpoint(ctx context.Context, team, name string) (Status, error)
	// Keys reads those that an endpoint signs with, the newest first, or ErrNotFound.
	Keys(ctx context.Context, id EndpointID) ([]Key, error)
	// EndpointsOf reads a team's own, in the order of their names.
	EndpointsOf(ctx context.Context, team string) ([]Status, error)
	// PlatformEndpoints reads at most so many of the platform's behind a name, in the order of their names.
	PlatformEndpoints(ctx context.Context, after string, limit int) ([]Status, error)
}

// Outbox is what has been raised and not been sent.
type Outbox interface {
	// FanOut makes deliveries of at most so many alerts, as route says, once for each alert and endpoint. It returns
	// how many alerts it has looked at.
	FanOut(ctx context.Context, most int, route func([]Pending, []Endpoint) []Match) (int, error)
	// Feed has attempts made at what is due, at no more of one endpoint than it has room for.
	Feed(ctx context.Context) error
	// Take reads what an attempt needs; false if there is nothing to be attempted any more.
	Take(ctx context.Context, job Job) (Parcel, bool, error)
	// Finish writes what follows from an attempt that began at an instant, and has the next ones of the endpoint made.
	Finish(
		ctx context.Context, job Job, began time.Time,
		judge func(*EndpointState, *Delivery, time.Time) Verdict,
	) error
	// Tidy gives up what was tried for long enough, takes back what a job was lost of, and forgets what is long over.
	Tidy(ctx context.Context) error
}

// Deliveries are read, and sent again.
type Deliveries interface {
	// Deliveries reads at most limit of them, the newest first, that are older than one.
	Deliveries(ctx context.Context, f Filter, before ID, limit int) ([]Delivery, error)
	// Delivery reads one, or ErrNotFound.
	Delivery(ctx context.Context, id ID) (Delivery, error)
	// Resend has one that is over delivered again, for a reason; one that waits stays as it is.
	Resend(ctx context.Context, id ID, by, reason string) error
}

// Wishes are what users want to be told of.
type Wishes interface {
	// Preferences reads a user's, or ErrNotFound of whom nobody knows.
	Preferences(ctx context.Context, userID string) (Preferences, error)
	// PutPreferences has no endpoint for users bring those kinds to the user from now on, and all others. It returns
	// ErrNotFound of whom nobody knows.
	PutPreferences(ctx context.Context, userID string, muted []quota.AlertKind, by quota.Actor) (Preferences, error)
}
