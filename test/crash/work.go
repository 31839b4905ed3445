// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// The states of an admission, as the service spells them.
const (
	queued, admitted, settled    = "Queued", "Admitted", "Settled"
	released, expired, cancelled = "Released", "Expired", "Cancelled"
)

const (
	// leases of the work, in seconds; the shortest that the service allows makes for much that expires.
	shortLease, longLease = 5, 15
	// lateAfter is how long after the end of its lease somebody comes back to work that was left alone.
	lateAfter = 7 * time.Second
	// maxForgotten bounds what a client may come back to after its lease.
	maxForgotten = 50
)

// load is all the clients at work.
type load struct {
	workers []*worker
	group   sync.WaitGroup
	done    chan struct{}
}

// startLoad puts the clients to work until finish, or until one of them cannot go on, which it tells fail.
func (s *stack) startLoad(ctx context.Context, fail context.CancelCauseFunc, o options) *load {
	l := &load{done: make(chan struct{})}
	// A connection for each client and replica.
	transport := &http.Transport{MaxIdleConns: replicas * o.clients, MaxIdleConnsPerHost: o.clients}
	for i := range o.clients {
		w := &worker{
			name: fmt.Sprintf("%d-%d", o.seed, i), token: "Bearer " + s.cluster.tokens[i%len(s.cluster.tokens)],
			client: client{
				http: &http.Client{Transport: transport}, urls: s.urls[:], report: s.report,
				random: rand.New(rand.NewPCG(o.seed, uint64(i))),
			},
		}
		l.workers = append(l.workers, w)
		l.group.Go(func() {
			for ctx.Err() == nil && !l.isDone() {
				if err := w.work(ctx); err != nil {
					fail(err)
				}
			}
		})
	}
	l.group.Go(func() {
		if err := s.cluster.submitJobs(ctx, l.done); err != nil {
			fail(err)
		}
	})
	return l
}

func (l *load) isDone() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// finish lets every client bring to an end what it has begun: no call is left without an answer.
func (l *load) finish() {
	close(l.done)
	l.group.Wait()
}

// journal is what all clients know. It is complete after finish.
func (l *load) journal() (all []*entry, uses []*use) {
	for _, w := range l.workers {
		all, uses = append(all, w.journal...), append(uses, w.uses...)
	}
	return all, uses
}

// worker is a client with its journal.
type worker struct {
	client

	name, token string
	serial      int
	journal     []*entry
	uses        []*use
	// forgotten is work that was left alone while it ran, oldest first.
	forgotten []*entry
}

func (w *worker) chance(percent int) bool { return w.random.IntN(100) < percent }

// work does one piece of work, with whatever goes wrong around it.
func (w *worker) work(ctx context.Context) error {
	if err := w.comeBack(ctx); err != nil {
		return err
	}
	if w.chance(10) {
		return w.record(ctx)
	}
	e, state, err := w.admit(ctx)
	if err != nil || state == "" {
		return err
	}
	if state == queued {
		if state, err = w.wait(ctx, e); err != nil {
			return err
		}
	}
	if w.chance(10) && (state == queued || state == admitted) {
		if state, err = w.heartbeat(ctx, e, state); err != nil {
			return err
		}
	}
	switch {
	case state == queued:
		if w.chance(50) {
			return w.release(ctx, e)
		}
		return nil // it leaves the queue by its lease, or is admitted and expires
	case state != admitted:
		return nil
	}
	switch {
	case w.chance(5):
		if len(w.forgotten) < maxForgotten {
			w.forgotten = append(w.forgotten, e)
		}
		return nil
	case w.chance(4):
		return w.race(ctx, e)
	case w.chance(14):
		return w.release(ctx, e)
	}
	return w.complete(ctx, e)
}

func (w *worker) pickUser() string {
	switch n := w.random.IntN(100); {
	case n < 15:
		return tight(w.random.IntN(tightUsers))
	case n < 25:
		return poor(w.random.IntN(poorUsers))
	}
	return loose(w.random.IntN(looseUsers))
}

func seconds(ms int64) string { return fmt.Sprintf("%d.%03d", ms/1000, ms%1000) }

// admit asks for a new piece of work; the state is empty if it was refused.
func (w *worker) admit(ctx context.Context) (e *entry, state string, err error) {
	w.serial++
	e = &entry{user: w.pickUser(), key: fmt.Sprintf("%s-%d", w.name, w.serial), estimate: w.random.Int64N(600_000) + 1}
	w.journal = append(w.journal, e)
	lease, wait, priority := longLease, w.chance(70), w.random.IntN(3)-1
	if w.chance(30) {
		lease = shortLease
	}
	body := func(estimate int64) string {
		return fmt.Sprintf(`{"user_id":%q,"estimated_duration_seconds":%s,"file_size_bytes":1048576,"queue":%t,
		    "priority":%d,"lease_seconds":%d}`,
			e.user, seconds(estimate), wait, priority, lease)
	}
	r := request{method: http.MethodPost, path: "/api/v1/admissions", authorization: w.token, key: e.key,
		body: body(e.estimate)}
	a, err := w.call(ctx, r)
	if err != nil {
		e.uncertain = true
		return e, "", err
	}
	e.uncertain = a.uncertain
	if a.status == http.StatusTooManyRequests {
		e.refused = true
		return e, "", nil
	}
	if a.status == http.StatusOK {
		// An earlier try had taken effect, or usaged itself had to find out what became of a commit.
		w.report.duplicates.Add(1)
	}
	e.id, e.lease, e.held = a.ID, "Lease "+a.LeaseToken, a.LeaseUntil
	state = a.State
	if w.chance(15) {
		if state, err = w.repeat(ctx, e, r); err != nil {
			return e, "", err
		}
	}
	if w.chance(3) {
		r.body = body(e.estimate + 1)
		if a, err = w.call(ctx, r); err == nil && a.status != http.StatusUnprocessableEntity {
			w.report.violationf("user %s, key %s with another body: status %d, want 422", e.user, e.key, a.status)
		}
	}
	return e, state, err
}

// repeat sends an admission again that was acknowledged.
func (w *worker) repeat(ctx context.Context, e *entry, r request) (string, error) {
	a, err := w.call(ctx, r)
	if err != nil {
		return "", err
	}
	if a.status != http.StatusOK || a.ID != e.id {
		w.report.violationf("user %s, key %s repeated: status %d and id %s, want 200 and %s", e.user, e.key, a.status,
			a.ID, e.id)
		return "", nil
	}
	w.report.duplicates.Add(1)
	return a.State, nil
}

// wait stays in the queue for a while.
func (w *worker) wait(ctx context.Context, e *entry) (state string, err error) {
	state = queued
	for try := 0; try < 3 && state == queued; try++ {
		a, err := w.call(ctx, request{method: http.MethodGet, path: "/api/v1/admissions/" + e.id + "?wait=1s",
			authorization: e.lease})
		if err != nil {
			return "", err
		}
		if state = a.State; state == queued {
			if state, err = w.heartbeat(ctx, e, state); err != nil {
				return "", err
			}
		}
	}
	return state, nil
}

func (w *worker) act(ctx context.Context, e *entry, what, body string) (answer, error) {
	return w.call(ctx, request{method: http.MethodPost, path: "/api/v1/admissions/" + e.id + "/" + what,
		authorization: e.lease, body: body})
}

func (w *worker) heartbeat(ctx context.Context, e *entry, state string) (string, error) {
	sent := time.Now()
	a, err := w.act(ctx, e, "heartbeat", "")
	switch {
	case err != nil:
		return "", err
	case a.status == http.StatusOK:
		e.held = a.LeaseUntil
		return a.State, nil
	case sent.Before(e.held) && time.Now().Before(e.held):
		w.report.violationf("admission %s: the heartbeat was refused %s before the end of the lease: %s", e.id,
			time.Until(e.held), a.Detail)
	case state == queued:
		return cancelled, nil
	}
	return expired, nil
}

// complete reports the use, and then tries to be charged again.
func (w *worker) complete(ctx context.Context, e *entry) error {
	actual := w.random.Int64N(e.estimate*6/5+1) + 1
	if err := w.settle(ctx, e, actual); err != nil || !e.isCharged {
		return err
	}
	for _, again := range []struct {
		percent int
		do      func() (answer, error)
		want    int
	}{
		{15, func() (answer, error) { return w.act(ctx, e, "complete", duration(actual)) }, http.StatusOK},
		{8, func() (answer, error) { return w.act(ctx, e, "complete", duration(actual+1)) }, http.StatusConflict},
		{4, func() (answer, error) { return w.act(ctx, e, "release", "") }, http.StatusConflict},
	} {
		if !w.chance(again.percent) {
			continue
		}
		a, err := again.do()
		if err != nil {
			return err
		}
		if a.status != again.want || (a.status == http.StatusOK && a.ChargedMS != actual) {
			w.report.violationf("admission %s, charged %d ms, called again: status %d and %d ms, want status %d", e.id,
				actual, a.status, a.ChargedMS, again.want)
		}
		w.report.duplicates.Add(1)
	}
	return nil
}

func duration(ms int64) string { return `{"duration_seconds":` + seconds(ms) + `}` }

func (w *worker) settle(ctx context.Context, e *entry, actual int64) error {
	e.asked = append(e.asked, actual)
	a, err := w.act(ctx, e, "complete", duration(actual))
	if err != nil {
		return err
	}
	if a.status != http.StatusOK || a.State != settled || a.ChargedMS != actual {
		w.report.violationf("admission %s completed with %d ms: status %d, state %s, charged %d ms: %s", e.id, actual,
			a.status, a.State, a.ChargedMS, a.Detail)
		return nil
	}
	e.settled, e.isCharged = actual, true
	return nil
}

// race reports two different uses at once, from two places.
func (w *worker) race(ctx context.Context, e *entry) error {
	first := w.random.Int64N(e.estimate) + 1
	uses := [2]int64{first, first + 1}
	e.asked = append(e.asked, uses[:]...)
	var answers [2]answer
	var errs [2]error
	var both sync.WaitGroup
	for i := range uses {
		c := w.client
		c.random = rand.New(rand.NewPCG(w.random.Uint64(), uint64(i)))
		both.Go(func() {
			answers[i], errs[i] = c.call(ctx, request{
				method: http.MethodPost, path: "/api/v1/admissions/" + e.id + "/complete", authorization: e.lease,
				body: duration(uses[i]),
			})
		})
	}
	both.Wait()
	for i, a := range answers {
		if errs[i] != nil {
			return errs[i]
		}
		if a.status == http.StatusOK {
			if e.isCharged {
				w.report.violationf("admission %s: two different uses were both accepted, %d and %d ms", e.id,
					e.settled, uses[i])
			}
			e.settled, e.isCharged = uses[i], true
		}
	}
	if !e.isCharged {
		w.report.violationf("admission %s: of two uses at once neither was accepted: %s", e.id, answers[0].Detail)
	}
	return nil
}

// release gives the slot or the place in the queue back, and then tries to be charged all the same.
func (w *worker) release(ctx context.Context, e *entry) error {
	a, err := w.act(ctx, e, "release", "")
	if err != nil {
		return err
	}
	if a.status != http.StatusOK || (a.State != released && a.State != cancelled && a.State != expired) {
		w.report.violationf("admission %s released: status %d, state %s: %s", e.id, a.status, a.State, a.Detail)
		return nil
	}
	e.ended = a.State
	// What has expired may still be charged, late.
	if a.State == expired || !w.chance(10) {
		return nil
	}
	if a, err = w.act(ctx, e, "complete", duration(1)); err == nil && a.status != http.StatusConflict {
		w.report.violationf("admission %s, %s, was completed: status %d, want 409", e.id, e.ended, a.status)
	}
	return err
}

// comeBack reports the use of work that was left alone, when its lease is over.
func (w *worker) comeBack(ctx context.Context) error {
	if len(w.forgotten) == 0 || time.Since(w.forgotten[0].held) < lateAfter || !w.chance(20) {
		return nil
	}
	e := w.forgotten[0]
	w.forgotten = w.forgotten[1:]
	return w.settle(ctx, e, w.random.Int64N(e.estimate)+1)
}
