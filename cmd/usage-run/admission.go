// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/cantonesescribe/usage-operator/api/client"
)

const (
	// joinInterval is how often a Job's admission is looked for.
	joinInterval = time.Second
	// keyReused is the type of the problem that a key was used before with a different request.
	keyReused = "https://usage.cantonesescribe.io/problems/key-reused"
)

// service is usaged, for one piece of work.
type service struct {
	meter *client.Meter
	o     options
	w     work
	// name is under which name the work is asked for.
	name name
	log  func(format string, args ...any)
}

// admission is what work runs under.
type admission struct {
	*client.Slot

	// joined says that it is the Job's: the Job controller keeps, charges and ends it.
	joined bool
	// paid says that an earlier attempt was charged: this one holds a slot and ends without a charge.
	paid bool
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
	var err error
	if s.name, err = nameOf(ctx, s.o, s.w); err != nil {
		return nil, err
	}
	asked := client.Work{
		UserID: s.w.user, Key: s.name.key, Audio: s.w.duration, FileSize: s.w.size, Priority: s.o.priority,
		Lease: s.o.lease, NoQueue: s.o.noQueue, MaxWait: s.o.waitTimeout,
	}
	slot, err := s.meter.Acquire(ctx, asked)
	if !errors.Is(err, client.ErrCharged) {
		return s.acquired(slot, err)
	}
	if err := s.whenCharged(); err != nil {
		return nil, err
	}
	// What is paid already needs a slot like any other work, and reserves next to nothing.
	asked.Key, asked.Audio = s.name.again(), time.Millisecond
	slot, err = s.meter.Acquire(ctx, asked)
	a, err := s.acquired(slot, err)
	if a != nil {
		a.paid = true
	}
	return a, err
}

// acquired gives an error its exit code.
func (s *service) acquired(slot *client.Slot, err error) (*admission, error) {
	answer, refusal := errors.AsType[*client.Error](err)
	switch {
	case err == nil:
		return &admission{Slot: slot}, nil
	case errors.Is(err, client.ErrNoSlot):
		return nil, refused(exitLater, err)
	case refusal && answer.Type == keyReused && s.o.key == "":
		return nil, refused(exitOwn, errors.New(
			"the same work was asked for before in this pod with another --duration, --file-size,"+
				" --lease, --priority or --no-queue: give it the same, or a --key of its own"))
	}
	return nil, asRefusal(err)
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

// join looks for the admission of the Job, which in a namespace that only warns may come after the pod. It returns
// neither admission nor error where there is none.
func (s *service) join(ctx context.Context) (*admission, error) {
	give := time.NewTimer(s.o.joinTimeout)
	defer give.Stop()
	for {
		slot, err := s.meter.Join(ctx, *s.w.job)
		if err == nil {
			if slot.Admission.State != client.StateAdmitted {
				return nil, refused(exitOwn, fmt.Errorf("the admission of Job %s is over: %s", slot.Admission.Id,
					slot.Admission.Outcome()))
			}
			return &admission{Slot: slot, joined: true}, nil
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

// abandon gives back an admission under which nothing has run.
func (s *service) abandon(a *admission) {
	if !a.joined {
		a.Abandon(context.Background())
	}
}

// report is a termination message that the Job controller reads.
func report(d time.Duration) ([]byte, error) {
	return json.Marshal(client.CompleteRequest{DurationSeconds: client.Seconds(d)})
}
