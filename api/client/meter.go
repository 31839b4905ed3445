// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// DefaultLease is how long a slot outlives a holder that is gone, unless the work says otherwise.
	DefaultLease = 2 * time.Minute
	// MaxAttempts bounds how often one key is taken up again.
	MaxAttempts = 1000

	// defaultReach and defaultSettle are a Meter's timeouts that are not given.
	defaultReach, defaultSettle = time.Minute, time.Minute
	// pollInterval is how long one call waits for a slot.
	pollInterval = 30 * time.Second
	// heartbeats is how many fit into a lease.
	heartbeats = 4
	// abandonTimeout bounds how long somebody who was told to stop tries to return what it has not used.
	abandonTimeout = 5 * time.Second
)

var (
	// ErrCharged is returned for work whose key was charged before: it is done.
	ErrCharged = errors.New("done and charged already")
	// ErrNoSlot is returned where no slot was free for as long as the work may wait.
	ErrNoSlot = errors.New("no slot")
	// ErrLeaseLost is the cause with which the context of work ends whose slot others may have by now.
	ErrLeaseLost = errors.New("the lease has ended")
)

// Meter runs work under users' quotas. It may be used by several goroutines at once; its fields must not change then.
type Meter struct {
	// API calls usaged (see Connect).
	API *ClientWithResponses
	// Token is the caller's, who must have the right to spend for the users.
	Token TokenSource
	// ReachTimeout bounds how long a call is repeated, before the work has begun, while usaged cannot be reached; a
	// minute unless given.
	ReachTimeout time.Duration
	// SettleTimeout bounds how long it is tried to record what was used, whatever has become of the caller's context; a
	// minute unless given.
	SettleTimeout time.Duration
	// Log is told, in words for people, what is waited for and what is tried again; may be nil.
	Log func(format string, args ...any)
}

// Work is what is asked for: whose quota, for how much.
type Work struct {
	// UserID is whose quota is spent.
	UserID string
	// Key names this piece of work: under one key it is charged once, whoever asks how often. 1 to 250 bytes of visible
	// characters without spaces. Without one each call is work of its own.
	Key string
	// Audio is the length of the audio as far as it is known before, 1 ms to 720 h. It is reserved.
	Audio time.Duration
	// FileSize is in bytes, 1 to 1 TiB.
	FileSize int64
	// Priority is the place among the user's waiting work, -1000 to 1000, higher first.
	Priority int32
	// Lease is how long the slot outlives a holder that is gone, 5 s to 1 h; DefaultLease unless given.
	Lease time.Duration
	// NoQueue says not to wait for a slot.
	NoQueue bool
	// MaxWait bounds the wait for a slot; without it there is no bound but the context.
	MaxWait time.Duration
}

// Slot is an admission that is held: its lease is renewed until it is completed or released.
type Slot struct {
	// Admission is what the service said last before the work could begin.
	Admission *Admission

	meter *Meter
	lease time.Duration
	auth  RequestEditorFn
	// lost is closed when the lease is known to have ended; stop ends the heartbeats.
	lost chan struct{}
	stop func()
}

// Do runs f under a slot of its user. It waits while none is free, renews the lease while f runs, and ends when what
// f has used is recorded, or has returned an error.
//
// What f says it used, to the millisecond, is charged, also where f returns an error as well; 0 charges nothing and
// returns the slot. A panic of f returns the slot and goes on. The context of f ends with that of the caller, and with
// ErrLeaseLost as its cause where the slot is known to be lost; what f used until then is charged all the same.
// Recording does not depend on the caller's context: it has SettleTimeout.
//
// The admission is the one that was charged or released. Work that was charged before under its key is not run again:
// the error is ErrCharged. Another one is an *Error where the service refused, and of f where f ran.
func (m *Meter) Do(
	ctx context.Context, w Work, f func(ctx context.Context) (used time.Duration, err error),
) (*Admission, error) {
	slot, err := m.Acquire(ctx, w)
	if err != nil {
		return nil, err
	}
	var used time.Duration
	returned := false
	defer func() {
		if !returned { // f panics, or ends its goroutine
			slot.Abandon(ctx)
		}
	}()
	running, cancel := slot.context(ctx)
	defer cancel()
	used, err = f(running)
	returned = true
	if used < 0 {
		err = errors.Join(err, fmt.Errorf("used %s: must be 0 or more", used))
		used = 0
	}
	settling, done := context.WithTimeout(context.WithoutCancel(ctx), m.settleTimeout())
	defer done()
	got, settleErr := slot.settle(settling, used)
	if settleErr != nil {
		settleErr = fmt.Errorf("the use of %s by user %q is not known to be recorded: %w", used, w.UserID, settleErr)
	}
	switch {
	case settleErr == nil:
		return got, err
	case err == nil:
		return got, settleErr
	}
	return got, errors.Join(err, settleErr)
}

// settle charges what was used, or returns the slot where that is nothing.
func (s *Slot) settle(ctx context.Context, used time.Duration) (*Admission, error) {
	if used == 0 {
		return s.Release(ctx)
	}
	return s.Complete(ctx, used)
}

// context returns one that ends with the parent or when the lease is lost.
func (s *Slot) context(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	go func() {
		select {
		case <-s.lost:
			cancel(ErrLeaseLost)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// Acquire returns a slot once the work may run, or the reason why it may not. Whoever has it must complete or release
// it; Do does so. What was begun under the same key and has ended without a charge is asked for anew. A context that
// ends meanwhile leaves nothing behind that its lease would not end, and its cause is the error.
func (m *Meter) Acquire(ctx context.Context, w Work) (*Slot, error) {
	var deadline <-chan time.Time
	if w.MaxWait > 0 {
		timer := time.NewTimer(w.MaxWait)
		defer timer.Stop()
		deadline = timer.C
	}
	if w.Key == "" {
		w.Key = rand.Text()
	}
	w.Lease = cmp.Or(w.Lease, DefaultLease)
	for n := 1; n <= MaxAttempts; n++ {
		s, err := m.create(ctx, w, n)
		if err != nil {
			return nil, err
		}
		switch s.Admission.State {
		case StateSettled:
			return nil, ErrCharged
		case StateReleased, StateExpired, StateCancelled:
			continue // An attempt that has ended; the work is not done.
		case StateQueued, StateAdmitted:
		}
		if s.Admission.Ticket == "" { // a ticket is good until the end
			s.keep(ctx)
		}
		err = s.await(ctx, w.MaxWait, deadline)
		if err == nil && s.Admission.State == StateAdmitted {
			return s, nil
		}
		if err != nil {
			s.Abandon(ctx)
			return nil, err
		}
		s.stop()
		m.logf("the place in the queue was lost: %s; taking another one", s.Admission.Outcome())
	}
	return nil, fmt.Errorf("%d attempts under key %q have ended without a charge: use another key", MaxAttempts, w.Key)
}

// create asks for admission, by the nth attempt. What was asked for under a key before is answered again, so each
// attempt has one of its own, the same ones in the same order whenever the work is taken up again.
func (m *Meter) create(ctx context.Context, w Work, n int) (*Slot, error) {
	key := w.Key
	if n > 1 {
		key += "#" + strconv.Itoa(n)
	}
	queue := !w.NoQueue
	body := AdmissionRequest{
		UserId: w.UserID, EstimatedDurationSeconds: Seconds(w.Audio), FileSizeBytes: w.FileSize, Queue: &queue,
		Priority: w.Priority, LeaseSeconds: Seconds(w.Lease),
	}
	got, err := persist(ctx, m, m.reachTimeout(), "ask for admission", 0,
		func(ctx context.Context) (*Admission, error) {
			r, err := m.API.CreateAdmissionWithResponse(ctx, &CreateAdmissionParams{IdempotencyKey: key}, body,
				Bearer(m.Token))
			if err != nil {
				return nil, err
			}
			return Answered(r, nil, r.JSON200, r.JSON201, r.JSON202)
		})
	if err != nil {
		return nil, err
	}
	s := &Slot{Admission: got, meter: m, lease: w.Lease, auth: Lease(got.LeaseToken), lost: make(chan struct{}),
		stop: func() {}}
	if got.Ticket != "" {
		s.auth = Ticket(got.Ticket)
	}
	return s, nil
}

// Join returns the slot of an admission that somebody else keeps, such as a Job's: its lease is not renewed here. It
// waits while that is queued. The admission may have ended meanwhile, as its state says.
func (m *Meter) Join(ctx context.Context, id AdmissionID) (*Slot, error) {
	s := &Slot{meter: m, lease: DefaultLease, auth: Bearer(m.Token), lost: make(chan struct{}), stop: func() {}}
	var err error
	if s.Admission, err = s.get(ctx, id, 0); err != nil {
		return nil, err
	}
	return s, s.await(ctx, 0, nil)
}

// await waits while the admission is queued and says where it stands.
func (s *Slot) await(ctx context.Context, most time.Duration, deadline <-chan time.Time) error {
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if deadline != nil {
		go func() {
			select {
			case <-deadline:
				cancel(fmt.Errorf("%w within %s", ErrNoSlot, most))
			case <-waiting.Done():
			}
		}()
	}
	stands, binds := "", ""
	// What binds is in answers to GET only, so the first one is asked for at once.
	for poll := time.Duration(0); s.Admission.State == StateQueued; poll = pollInterval {
		if now := s.Admission.place(); now != stands {
			s.meter.logf("%s", now)
			stands = now
		}
		if now := s.Admission.Binding.why(); now != binds && now != "" {
			s.meter.logf("%s", now)
			binds = now
		}
		got, err := s.get(waiting, s.Admission.Id, poll)
		if err != nil {
			return err
		}
		s.Admission = got
	}
	return nil
}

func (s *Slot) get(ctx context.Context, id AdmissionID, wait time.Duration) (*Admission, error) {
	return persist(ctx, s.meter, s.meter.reachTimeout(), "look at the admission", wait,
		func(ctx context.Context) (*Admission, error) {
			r, err := s.meter.API.GetAdmissionWithResponse(ctx, id, &GetAdmissionParams{Wait: wait.String()}, s.auth)
			if err != nil {
				return nil, err
			}
			return Answered(r, nil, r.JSON200)
		})
}

// keep renews the lease until s.stop is called, whatever becomes of ctx. An admission that has ended is not renewed. A
// service that cannot be reached is no reason to believe that it has.
func (s *Slot) keep(ctx context.Context) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	s.stop = func() { cancel(); <-ended }
	id := s.Admission.Id
	go func() {
		defer close(ended)
		for {
			pause := s.lease / heartbeats
			select {
			case <-time.After(pause - time.Duration(mathrand.Int64N(int64(pause)/4))):
			case <-ctx.Done():
				return
			}
			_, err := persist(ctx, s.meter, s.lease, "renew the lease", 0,
				func(ctx context.Context) (*Admission, error) {
					r, err := s.meter.API.HeartbeatAdmissionWithResponse(ctx, id, s.auth)
					if err != nil {
						return nil, err
					}
					return Answered(r, nil, r.JSON200)
				})
			switch {
			case ctx.Err() != nil:
				return
			case hasStatus(err, http.StatusConflict):
				s.meter.logf("%v: %v", ErrLeaseLost, err)
				close(s.lost)
				return
			case err != nil:
				s.meter.logf("renew the lease: %v", err)
			}
		}
	}()
}

// Complete records what was used, above 0, and returns the admission as it is then. It is known to be recorded if there
// is no error. Where another use of the same work was recorded first, that is the one that counts.
func (s *Slot) Complete(ctx context.Context, used time.Duration) (*Admission, error) {
	defer func() { s.stop() }()
	got, err := persist(ctx, s.meter, s.meter.settleTimeout(), "record the use", 0,
		func(ctx context.Context) (*Admission, error) {
			r, err := s.meter.API.CompleteAdmissionWithResponse(ctx, s.Admission.Id,
				CompleteRequest{DurationSeconds: Seconds(used)}, s.auth)
			if err != nil {
				return nil, err
			}
			return Answered(r, nil, r.JSON200)
		})
	if hasStatus(err, http.StatusConflict) {
		if now, getErr := s.get(ctx, s.Admission.Id, 0); getErr == nil &&
			(now.State == StateSettled || now.ReportedMs > 0) {
			s.meter.logf("another use was recorded before: %v", err)
			return now, nil
		}
	}
	return got, err
}

// Release returns the slot without a charge. There is nothing to return once the lease is over, which is no error.
func (s *Slot) Release(ctx context.Context) (*Admission, error) {
	defer func() { s.stop() }()
	got, err := persist(ctx, s.meter, min(s.lease, s.meter.settleTimeout()), "return the slot", 0,
		func(ctx context.Context) (*Admission, error) {
			r, err := s.meter.API.ReleaseAdmissionWithResponse(ctx, s.Admission.Id, s.auth)
			if err != nil {
				return nil, err
			}
			return Answered(r, nil, r.JSON200)
		})
	if hasStatus(err, http.StatusConflict) {
		if now, getErr := s.get(ctx, s.Admission.Id, 0); getErr == nil && now.State == StateExpired {
			return now, nil
		}
	}
	return got, err
}

// Abandon gives back a slot under which nothing was used, in the few seconds that somebody has who was told to stop.
// What cannot be given back so soon returns by itself when the lease ends.
func (s *Slot) Abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTimeout)
	defer cancel()
	if _, err := s.Release(ctx); err != nil {
		s.meter.logf("return the slot: %v; it returns by itself within %s", err, s.lease)
	}
}

// Check asks what would become of the work now. Nothing is reserved.
func (m *Meter) Check(ctx context.Context, request CheckRequest) (*CheckResult, error) {
	return persist(ctx, m, m.reachTimeout(), "check the quota", 0,
		func(ctx context.Context) (*CheckResult, error) {
			r, err := m.API.CheckUsageWithResponse(ctx, request, Bearer(m.Token))
			if err != nil {
				return nil, err
			}
			return Answered(r, nil, r.JSON200)
		})
}

// Record charges a use that has happened, once for each user and key, however often it is sent.
func (m *Meter) Record(ctx context.Context, key string, use UsageRecord) (*UsageEvent, error) {
	var body UsageRequest
	if err := body.FromUsageRecord(use); err != nil {
		return nil, err
	}
	return persist(ctx, m, m.settleTimeout(), "record the use", 0,
		func(ctx context.Context) (*UsageEvent, error) {
			r, err := m.API.CreateUsageWithResponse(ctx, &CreateUsageParams{IdempotencyKey: key}, body, Bearer(m.Token))
			if err != nil {
				return nil, err
			}
			return Answered(r, nil, r.JSON200, r.JSON201)
		})
}

func (m *Meter) reachTimeout() time.Duration  { return cmp.Or(m.ReachTimeout, defaultReach) }
func (m *Meter) settleTimeout() time.Duration { return cmp.Or(m.SettleTimeout, defaultSettle) }

func (m *Meter) logf(format string, args ...any) {
	if m.Log != nil {
		m.Log(format, args...)
	}
}

// persist makes a call again until the limit, and says when it begins to do so and when that is over. A call that waits
// has what it waits on top of its timeout.
func persist[T any](
	ctx context.Context, m *Meter, limit time.Duration, what string, wait time.Duration,
	call func(ctx context.Context) (T, error),
) (T, error) {
	told := false
	got, err := Retry(ctx, Retries{Limit: limit, Timeout: defaultTimeout + wait, Waiting: func(err error) {
		m.logf("%s: %v; trying again for up to %s", what, err, limit)
		told = true
	}}, call)
	if err == nil && told {
		m.logf("%s: done", what)
	}
	return got, err
}

func hasStatus(err error, status int) bool {
	answer, ok := errors.AsType[*Error](err)
	return ok && answer.Status == status
}

// Seconds is a duration on the wire, to the millisecond. One that is shorter is a millisecond.
func Seconds(d time.Duration) Number {
	if d > 0 {
		d = max(d.Round(time.Millisecond), time.Millisecond)
	}
	ms := d.Milliseconds()
	s := strconv.FormatInt(ms/1000, 10)
	if frac := ms % 1000; frac != 0 {
		s += "." + strings.TrimRight(fmt.Sprintf("%03d", frac), "0")
	}
	return Number(s)
}

// Outcome says how an admission stands or has ended, for people.
func (a *Admission) Outcome() string {
	text := string(a.State)
	if a.Reason != "" {
		text += fmt.Sprintf(" (%s)", a.Reason)
	}
	if a.Message != "" {
		text += ": " + a.Message
	}
	return text
}

// place says where a queued admission stands, for people.
func (a *Admission) place() string {
	text := "queued"
	if a.Position > 0 {
		text += fmt.Sprintf(", position %d of %d", a.Position, a.Waiting)
	}
	if a.Reason != "" {
		text += fmt.Sprintf(" (%s)", a.Reason)
	}
	return text
}

// why says what keeps an admission waiting, and whose limit that is; nothing where that is not known. The message of a
// team's limit names the team itself.
func (b *Binding) why() string {
	switch {
	case b.Message == "":
		return ""
	case b.Level.Kind == LevelKindUser:
		return fmt.Sprintf("waits because of user %q: %s", b.Level.Name, b.Message)
	}
	return "waits because of " + b.Message
}
