// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cantonesescribe/usage-operator/api/client"
)

const (
	// pollInterval is how long one call waits for a slot, joinInterval how often a Job's admission is looked for.
	pollInterval = 30 * time.Second
	joinInterval = time.Second
	// heartbeats is how many fit into a lease.
	heartbeats = 4
	// maxAttempts bounds how often one key is taken up again.
	maxAttempts = 1000
	// keyReused is the type of the problem that a key was used before with a different request.
	keyReused = "https://usage.cantonesescribe.io/problems/key-reused"
)

// service is usaged, for one piece of work.
type service struct {
	api *client.ClientWithResponses
	o   options
	w   work
	// name is under which name the work is asked for.
	name name
	log  func(format string, args ...any)
}

// admission is what work runs under.
type admission struct {
	*client.Admission

	// joined says that it is the Job's: the Job controller keeps, charges and ends it.
	joined bool
	// paid says that an earlier attempt was charged: this one holds a slot and ends without a charge.
	paid bool
	auth client.RequestEditorFn
	// stop ends the heartbeats.
	stop func()
}

// errDone is returned for work that was done and charged before.
var errDone = errors.New("done and charged already")

// acquire returns once the work may run, or with the reason why it may not. A context that ends meanwhile leaves
// nothing behind that its lease would not end, and its cause is the error.
func (s *service) acquire(ctx context.Context) (*admission, error) {
	if s.w.job != nil {
		a, err := s.join(ctx)
		if a != nil || err != nil {
			return a, err
		}
		if s.w.user == "" {
			return nil, refused(exitLater,
				fmt.Errorf("Job %s has no admission after %s, and without --user none of its own is taken", s.w.job,
					s.o.joinTimeout))
		}
		s.log("Job %s has no admission: one of its own is taken", s.w.job)
	}
	var deadline <-chan time.Time
	if s.o.waitTimeout > 0 {
		timer := time.NewTimer(s.o.waitTimeout)
		defer timer.Stop()
		deadline = timer.C
	}
	var err error
	if s.name, err = nameOf(ctx, s.o, s.w); err != nil {
		return nil, err
	}
	paid := false
	for n := 1; n <= maxAttempts; n++ {
		key := s.name.attempt(n)
		if paid {
			key = s.name.again()
		}
		a, err := s.create(ctx, key, paid)
		if err != nil {
			return nil, err
		}
		switch a.State {
		case client.StateSettled:
			if err := s.whenCharged(); err != nil {
				return nil, err
			}
			paid = true
			continue
		case client.StateReleased, client.StateExpired, client.StateCancelled:
			continue // An attempt that has ended; the work is not done.
		case client.StateQueued, client.StateAdmitted:
		}
		if a.Ticket == "" { // a ticket is good until the end
			s.keep(ctx, a)
		}
		err = s.await(ctx, a, deadline)
		if err == nil && a.State == client.StateAdmitted {
			return a, nil
		}
		a.stop()
		if err != nil {
			s.abandon(ctx, a)
			return nil, err
		}
		s.log("the place in the queue was lost: %s; taking another one", ended(a))
	}
	return nil, refused(exitOwn, fmt.Errorf("%d attempts under key %q have ended without a charge: set another --key",
		maxAttempts, s.name.key))
}

// whenCharged decides what becomes of work that an earlier attempt was charged for. Whether there is anything to show
// for the charge is known to nobody: a container may end between the charge and its own end, and its files with it.
func (s *service) whenCharged() error {
	switch {
	case s.o.key != "" && !s.o.chargeOnFailure: // Whoever gave the name wants it done once; and it did not fail.
		return errDone
	case s.o.key == "" && !s.name.content:
		return refused(exitOwn, errors.New(
			"the same command was charged before in this pod, and without its file nobody can tell whether this is the"+
				" same audio: name the file by --audio, or the piece of work by --key"))
	}
	s.log("the same work was charged before, as %s: it is run again without another charge", s.name.key)
	return nil
}

// create asks for admission under a key. What is paid already needs a slot like any other work, and reserves next to
// nothing.
func (s *service) create(ctx context.Context, key string, paid bool) (*admission, error) {
	queue, estimate := !s.o.noQueue, s.w.duration
	if paid {
		estimate = time.Millisecond
	}
	body := client.AdmissionRequest{
		UserId: s.w.user, EstimatedDurationSeconds: seconds(estimate), FileSizeBytes: s.w.size, Queue: &queue,
		Priority:     s.o.priority,
		LeaseSeconds: seconds(s.o.lease),
	}
	got, err := persist(ctx, s.o.admitTimeout, s.log, "ask for admission", callTimeout,
		func(ctx context.Context) (*client.Admission, error) {
			r, err := s.api.CreateAdmissionWithResponse(ctx, &client.CreateAdmissionParams{IdempotencyKey: key}, body,
				client.Bearer(s.o.tokenFile))
			if err != nil {
				return nil, err
			}
			return client.Answered(r, nil, r.JSON200, r.JSON201, r.JSON202)
		})
	if answer, ok := errors.AsType[*client.Error](err); ok && answer.Type == keyReused && s.o.key == "" {
		return nil, refused(exitOwn, errors.New(
			"the same work was asked for before in this pod with another --duration, --file-size,"+
				" --lease, --priority or --no-queue: give it the same, or a --key of its own"))
	}
	if err != nil {
		return nil, asRefusal(err)
	}
	a := &admission{Admission: got, paid: paid, auth: client.Lease(got.LeaseToken), stop: func() {}}
	if got.Ticket != "" {
		a.auth = client.Ticket(got.Ticket)
	}
	return a, nil
}

// join looks for the admission of the Job, which in a namespace that only warns may come after the pod. It returns
// neither admission nor error where there is none.
func (s *service) join(ctx context.Context) (*admission, error) {
	auth := client.Bearer(s.o.tokenFile)
	give := time.NewTimer(s.o.joinTimeout)
	defer give.Stop()
	for {
		got, err := s.get(ctx, *s.w.job, auth, 0)
		if err == nil {
			return s.joined(ctx, &admission{Admission: got, joined: true, auth: auth, stop: func() {}})
		}
		if answer, ok := errors.AsType[*client.Error](err); !ok || answer.Status != http.StatusNotFound {
			return nil, asRefusal(err)
		}
		select {
		case <-give.C:
			return nil, nil
		case <-time.After(joinInterval):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (s *service) joined(ctx context.Context, a *admission) (*admission, error) {
	if err := s.await(ctx, a, nil); err != nil {
		return nil, err
	}
	if a.State != client.StateAdmitted {
		return nil, refused(exitOwn, fmt.Errorf("the admission of Job %s is over: %s", a.Id, ended(a)))
	}
	return a, nil
}

// await waits while the admission is queued and says where it stands.
func (s *service) await(ctx context.Context, a *admission, deadline <-chan time.Time) error {
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if deadline != nil {
		go func() {
			select {
			case <-deadline:
				cancel(refused(exitLater, fmt.Errorf("no slot within %s", s.o.waitTimeout)))
			case <-waiting.Done():
			}
		}()
	}
	stands, binds := "", ""
	// What binds is in answers to GET only, so the first one is asked for at once.
	for poll := time.Duration(0); a.State == client.StateQueued; poll = pollInterval {
		if now := standing(a); now != stands {
			s.log("%s", now)
			stands = now
		}
		if now := bound(&a.Binding); now != binds && now != "" {
			s.log("%s", now)
			binds = now
		}
		got, err := s.get(waiting, a.Id, a.auth, poll)
		if err != nil {
			return asRefusal(err)
		}
		a.Admission = got
	}
	return nil
}

// standing says where a queued admission stands, for people.
func standing(a *admission) string {
	text := "queued"
	if a.Position > 0 {
		text += fmt.Sprintf(", position %d of %d", a.Position, a.Waiting)
	}
	if a.Reason != "" {
		text += fmt.Sprintf(" (%s)", a.Reason)
	}
	return text
}

// bound says what keeps an admission waiting, and whose limit that is; nothing of one of which that is not known. The
// message of a team's limit names the team itself.
func bound(b *client.Binding) string {
	switch {
	case b.Message == "":
		return ""
	case b.Level.Kind == client.LevelKindUser:
		return fmt.Sprintf("waits because of user %q: %s", b.Level.Name, b.Message)
	}
	return "waits because of " + b.Message
}

// ended says how an admission has ended, for people.
func ended(a *admission) string {
	text := string(a.State)
	if a.Reason != "" {
		text += fmt.Sprintf(" (%s)", a.Reason)
	}
	if a.Message != "" {
		text += ": " + a.Message
	}
	return text
}

func (s *service) get(
	ctx context.Context, id client.AdmissionID, auth client.RequestEditorFn, wait time.Duration,
) (*client.Admission, error) {
	return persist(ctx, s.o.admitTimeout, s.log, "look at the admission", callTimeout+wait,
		func(ctx context.Context) (*client.Admission, error) {
			r, err := s.api.GetAdmissionWithResponse(ctx, id, &client.GetAdmissionParams{Wait: wait.String()}, auth)
			if err != nil {
				return nil, err
			}
			return client.Answered(r, nil, r.JSON200)
		})
}

// keep renews the lease until a.stop is called, whatever becomes of ctx. An admission that has ended is not renewed:
// what runs goes on, and its charge is a late one.
func (s *service) keep(ctx context.Context, a *admission) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	a.stop = func() { cancel(); <-ended }
	id, auth := a.Id, a.auth
	go func() {
		defer close(ended)
		for {
			pause := s.o.lease / heartbeats
			select {
			case <-time.After(pause - time.Duration(rand.Int64N(int64(pause)/4))):
			case <-ctx.Done():
				return
			}
			_, err := persist(ctx, s.o.lease, s.log, "renew the lease", callTimeout,
				func(ctx context.Context) (*client.Admission, error) {
					r, err := s.api.HeartbeatAdmissionWithResponse(ctx, id, auth)
					if err != nil {
						return nil, err
					}
					return client.Answered(r, nil, r.JSON200)
				})
			if answer, ok := errors.AsType[*client.Error](err); ok && answer.Status == http.StatusConflict {
				if ctx.Err() == nil {
					s.log("the lease has ended: %v", answer)
				}
				return
			}
			if err != nil && ctx.Err() == nil {
				s.log("renew the lease: %v", err)
			}
		}
	}()
}

// charge records what was used and returns the admission as it is then. It is known to be recorded if there is no
// error.
func (s *service) charge(ctx context.Context, a *admission) (*client.Admission, error) {
	got, err := persist(ctx, s.o.settleTimeout, s.log, "record the use", callTimeout,
		func(ctx context.Context) (*client.Admission, error) {
			r, err := s.api.CompleteAdmissionWithResponse(ctx, a.Id,
				client.CompleteRequest{DurationSeconds: seconds(s.w.duration)}, a.auth)
			if err != nil {
				return nil, err
			}
			return client.Answered(r, nil, r.JSON200)
		})
	if answer, ok := errors.AsType[*client.Error](err); ok && answer.Status == http.StatusConflict {
		// Another use of the same work may have been recorded first, by an attempt before this one. That is the one
		// that counts.
		if now, getErr := s.get(ctx, a.Id, a.auth, 0); getErr == nil &&
			(now.State == client.StateSettled || now.ReportedMs > 0) {
			s.log("another use was recorded before: %v", answer)
			return now, nil
		}
	}
	return got, err
}

// release returns the slot without a charge. There is nothing to return once the lease is over.
func (s *service) release(ctx context.Context, a *admission) error {
	_, err := persist(ctx, min(s.o.lease, s.o.settleTimeout), s.log, "return the slot", callTimeout,
		func(ctx context.Context) (*client.Admission, error) {
			r, err := s.api.ReleaseAdmissionWithResponse(ctx, a.Id, a.auth)
			if err != nil {
				return nil, err
			}
			return client.Answered(r, nil, r.JSON200)
		})
	return err
}

// abandonTimeout bounds how long somebody who was told to stop tries to return what it has not used.
const abandonTimeout = 5 * time.Second

// abandon gives back an admission under which nothing has run.
func (s *service) abandon(ctx context.Context, a *admission) {
	if a.joined {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTimeout)
	defer cancel()
	if err := s.release(ctx, a); err != nil {
		s.log("return the slot: %v; it returns by itself within %s", err, s.o.lease)
	}
}

// seconds is a duration on the wire.
func seconds(d time.Duration) client.Number {
	ms := d.Milliseconds()
	s := strconv.FormatInt(ms/1000, 10)
	if frac := ms % 1000; frac != 0 {
		s += "." + strings.TrimRight(fmt.Sprintf("%03d", frac), "0")
	}
	return client.Number(s)
}

// report is a termination message that the Job controller reads.
func report(d time.Duration) ([]byte, error) {
	return json.Marshal(client.CompleteRequest{DurationSeconds: seconds(d)})
}
