// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/loop"
)

// SessionCookie is the cookie with a session's id. By its prefix a browser takes it only as it is set here: for this
// host alone, for all paths, and never over an unprotected connection to another machine.
const SessionCookie = "__Host-usage-session"

const (
	// sessionIDBytes is how long an id is: nobody guesses one.
	sessionIDBytes = 32
	// sessionTouch is how long the use of a session need not be written down again.
	sessionTouch = time.Minute
	// sessionSweep is how long a session that is over is kept at most.
	sessionSweep        = 10 * time.Minute
	sessionSweepTimeout = time.Minute
)

// Bounds of SessionLimits.
const (
	MinSessionIdle = 5 * time.Minute
	MaxSession     = 7 * 24 * time.Hour
)

var (
	// ErrCrossOrigin says that a page of another origin has made a browser send its session's cookie.
	ErrCrossOrigin = errors.New("the request is not from a page of this origin")
	// ErrNoSession says that a cookie is of no session any more.
	ErrNoSession = errors.New("the session is over")
)

// SessionLimits say how long somebody stays signed in.
type SessionLimits struct {
	// Idle is how long without a request, and Longest is how long in all, whatever happens.
	Idle, Longest time.Duration
}

// Check says whether the limits are within bounds. Its errors name the value and the bound.
func (l SessionLimits) Check() error {
	if l.Idle < MinSessionIdle || l.Idle > l.Longest || l.Longest > MaxSession {
		return fmt.Errorf("sessions of %s, idle for %s: the second must be between %s and the first, which is at "+
			"most %s", l.Longest, l.Idle, MinSessionIdle, MaxSession)
	}
	return nil
}

// SessionStore keeps the sessions of people's browsers.
type SessionStore interface {
	Session(ctx context.Context, hash []byte) (ledger.Session, time.Time, error)
	BeginSession(
		ctx context.Context, session ledger.Session, idle, longest time.Duration, before []byte,
	) (ledger.Session, error)
	TouchSession(ctx context.Context, hash []byte, at time.Time, idle time.Duration) error
	EndSession(ctx context.Context, hash []byte) error
	EndSessions(ctx context.Context, username string) error
	DropSessions(ctx context.Context) error
}

// Sessions are those of people who have signed in with a browser. It is safe for concurrent use.
type Sessions struct {
	store  SessionStore
	people *PeopleFile
	limits SessionLimits
	guard  *http.CrossOriginProtection
}

// NewSessions keeps sessions in the store, of people whom the file knows. origin is the one that browsers see, as
// scheme://host.
func NewSessions(store SessionStore, people *PeopleFile, limits SessionLimits, origin string) (*Sessions, error) {
	guard := http.NewCrossOriginProtection()
	if err := guard.AddTrustedOrigin(origin); err != nil {
		return nil, err
	}
	return &Sessions{store: store, people: people, limits: limits, guard: guard}, nil
}

// Follow forgets what is over, again and again until ctx ends.
func (s *Sessions) Follow(ctx context.Context, observe loop.Observer, log func(err error, message string)) {
	loop.Task{Name: "sessions", Period: sessionSweep, Jitter: sessionSweep / 10, Timeout: sessionSweepTimeout,
		Do: func(ctx context.Context) error {
			err := s.store.DropSessions(ctx)
			if err != nil && !errors.Is(err, ledger.ErrUnavailable) {
				log(err, "Forgetting the sessions that are over failed, trying again")
			}
			return err
		}}.Run(ctx, observe)
}

// Begin makes a session of whomever an ID token names: exactly whom it names as a bearer token. The id is a new one,
// and the session that the browser had until now is over. The error is ErrUnauthenticated or ErrUndecided.
func (s *Sessions) Begin(ctx context.Context, r *http.Request, token string) (*http.Cookie, *Person, error) {
	who, err := s.people.Who(ctx, token)
	switch {
	case err != nil:
		return nil, nil, err
	case who == nil:
		return nil, nil, fmt.Errorf("%w: %q is not an issuer of people", ErrUnauthenticated, claimedIssuer(token))
	}
	secret := make([]byte, sessionIDBytes)
	_, _ = rand.Read(secret) // it never fails
	id := base64.RawURLEncoding.EncodeToString(secret)
	_, err = s.store.BeginSession(ctx, ledger.Session{
		Hash: sessionHash(id), Issuer: claimedIssuer(token), Username: who.GetName(), UID: who.GetUID(),
		Groups: who.GetGroups(), Extra: who.GetExtra(), UserID: who.UserID,
	}, s.limits.Idle, s.limits.Longest, sessionHash(sessionID(r)))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrUndecided, err)
	}
	return sessionCookie(id, int(s.limits.Longest/time.Second)), who, nil
}

// Has reports whether a request has a session's cookie, good or not.
func (s *Sessions) Has(r *http.Request) bool {
	return s != nil && sessionID(r) != ""
}

// Who returns whose session a request is of and when that ends for want of use. With use it is put off by that. The
// error is ErrCrossOrigin, ErrNoSession or ErrUndecided.
func (s *Sessions) Who(r *http.Request, use bool) (*Person, time.Time, error) {
	if err := s.SameOrigin(r); err != nil {
		return nil, time.Time{}, err
	}
	id := sessionID(r)
	if len(id) != base64.RawURLEncoding.EncodedLen(sessionIDBytes) {
		return nil, time.Time{}, ErrNoSession
	}
	found, now, err := s.store.Session(r.Context(), sessionHash(id))
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return nil, time.Time{}, ErrNoSession
	case err != nil:
		return nil, time.Time{}, fmt.Errorf("%w: %w", ErrUndecided, err)
	case !s.people.knows(found.Issuer):
		return nil, time.Time{}, fmt.Errorf("%w: %s does not name people any more", ErrNoSession, found.Issuer)
	}
	if use && now.Sub(found.SeenAt) >= sessionTouch {
		if err := s.store.TouchSession(r.Context(), found.Hash, now, s.limits.Idle); err != nil {
			return nil, time.Time{}, fmt.Errorf("%w: %w", ErrUndecided, err)
		}
		if found.IdleEndsAt = now.Add(s.limits.Idle); found.IdleEndsAt.After(found.EndsAt) {
			found.IdleEndsAt = found.EndsAt
		}
	}
	return &Person{UserID: found.UserID, Info: &user.DefaultInfo{
		Name: found.Username, UID: found.UID, Groups: slices.Clip(found.Groups), Extra: found.Extra,
	}}, found.IdleEndsAt, nil
}

// SameOrigin returns ErrCrossOrigin if the browser says that a page of another origin sends the request: also one that
// only reads, for whoever needs a session has no business on another page.
func (s *Sessions) SameOrigin(r *http.Request) error {
	probe := *r
	probe.Method = http.MethodPost // what only reads is let through otherwise
	if err := s.guard.Check(&probe); err != nil {
		return fmt.Errorf("%w: %w", ErrCrossOrigin, err)
	}
	return nil
}

// End ends the session of a request or, with everywhere, all sessions of its person, and returns the cookie that has
// the browser forget it. Streams that look on by it end within half a minute. One that is over already has nothing to
// be ended. The error is ErrCrossOrigin or ErrUndecided.
func (s *Sessions) End(r *http.Request, everywhere bool) (*http.Cookie, error) {
	who, _, err := s.Who(r, false)
	switch {
	case errors.Is(err, ErrNoSession):
		return sessionCookie("", -1), nil
	case err != nil:
		return nil, err
	case everywhere:
		err = s.store.EndSessions(r.Context(), who.GetName())
	default:
		err = s.store.EndSession(r.Context(), sessionHash(sessionID(r)))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUndecided, err)
	}
	return sessionCookie("", -1), nil
}

func sessionID(r *http.Request) string {
	cookie, err := r.Cookie(SessionCookie)
	if err != nil {
		return ""
	}
	return cookie.Value
}

func sessionHash(id string) []byte {
	hash := sha256.Sum256([]byte(id))
	return hash[:]
}

func sessionCookie(id string, seconds int) *http.Cookie {
	return &http.Cookie{Name: SessionCookie, Value: id, Path: "/", MaxAge: seconds, Secure: true, HttpOnly: true,
		SameSite: http.SameSiteLaxMode}
}
