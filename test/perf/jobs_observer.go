// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	retry "k8s.io/client-go/tools/watch"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
)

// jobLife is what the API server has shown of one Job.
type jobLife struct {
	name, user              string
	created, started, ended time.Time
	// starts are how often it began to run, writes how often anybody but the bench wrote it, or an event about it.
	starts, writes int
	// queued says that it has been told that it waits, placed that, or that it has started, closed that it has been
	// told what it was charged.
	queued, placed, closed bool
	last                   *batchv1.Job
}

// observer watches the API server, and knows nothing of the manager: what it sees is what happened, in that order.
type observer struct {
	slots int

	mu      sync.Mutex
	jobs    map[types.UID]*jobLife
	running map[string]int
	// order are a user's Jobs in the order in which they started.
	order map[string][]types.UID
	// most is how many of one user's ran at once at most.
	most int
	// started, placed and closed count the Jobs.
	started, placed, closed int
	trouble                 error
	// moved has a token after each change.
	moved chan struct{}
	// begun is told of each start.
	begun func(job *batchv1.Job)
}

// observe watches the Jobs of a namespace and the events about them until ctx ends. Of each user slots may run at once.
func observe(
	ctx context.Context, clients kubernetes.Interface, slots int, begun func(*batchv1.Job),
) (*observer, error) {
	o := &observer{
		slots: slots, jobs: map[types.UID]*jobLife{}, running: map[string]int{}, order: map[string][]types.UID{},
		moved: make(chan struct{}, 1), begun: begun,
	}
	// A watch that the server ends goes on from where it was: nothing is missed, or it fails.
	jobs, events := clients.BatchV1().Jobs(idleSpace), clients.EventsV1().Events(idleSpace)
	present, err := jobs.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, err
	}
	for each, watcher := range map[string]cache.WatcherWithContext{
		"jobs": &cache.ListWatch{WatchFuncWithContext: jobs.Watch}, "events": &cache.ListWatch{
			WatchFuncWithContext: events.Watch},
	} {
		w, err := retry.NewRetryWatcherWithContext(ctx, present.ResourceVersion, watcher)
		if err != nil {
			return nil, err
		}
		see := o.job
		if each == "events" {
			see = o.event
		}
		go o.follow(ctx, w, see)
	}
	return o, nil
}

func (o *observer) follow(ctx context.Context, w watch.Interface, each func(watch.Event)) {
	defer w.Stop()
	for e := range w.ResultChan() {
		o.mu.Lock()
		if e.Type == watch.Error {
			o.fail(fmt.Errorf("the watch has missed something: %w", apierrors.FromObject(e.Object)))
		}
		each(e)
		o.mu.Unlock()
		select {
		case o.moved <- struct{}{}:
		default:
		}
	}
	if ctx.Err() == nil {
		o.mu.Lock()
		o.fail(errors.New("the watch has ended"))
		o.mu.Unlock()
	}
}

func (o *observer) fail(err error) { o.trouble = errors.Join(o.trouble, err) }

func (o *observer) job(e watch.Event) {
	job, ok := e.Object.(*batchv1.Job)
	if !ok || e.Type == watch.Deleted {
		return
	}
	now := time.Now()
	life := o.jobs[job.UID]
	if life == nil {
		life = &jobLife{name: job.Name, user: job.Labels[v1alpha1.UserLabel], created: now,
			last: &batchv1.Job{Spec: batchv1.JobSpec{Suspend: new(true)}}}
		o.jobs[job.UID] = life
	} else if equality.Semantic.DeepEqual(life.last.Status, job.Status) {
		life.writes++ // the bench writes nothing but statuses
	}
	was := life.last
	life.last = &batchv1.Job{Spec: batchv1.JobSpec{Suspend: job.Spec.Suspend}, Status: job.Status}
	life.queued = life.queued || job.Annotations[v1alpha1.StateAnnotation] == v1alpha1.StateQueued
	once(&life.placed, life.queued || !*job.Spec.Suspend, &o.placed)
	once(&life.closed, job.Annotations[v1alpha1.StateAnnotation] == v1alpha1.StateSettled, &o.closed)
	if *was.Spec.Suspend && !*job.Spec.Suspend {
		life.started = now
		if life.starts++; life.starts == 1 {
			o.started++
		}
		o.running[life.user]++
		o.order[life.user] = append(o.order[life.user], job.UID)
		if o.most = max(o.most, o.running[life.user]); o.slots > 0 && o.running[life.user] > o.slots {
			o.fail(fmt.Errorf("%d Jobs of %s run at once, the limit is %d", o.running[life.user], life.user, o.slots))
		}
		if life.starts > 1 {
			o.fail(fmt.Errorf("Job %s was started %d times", life.name, life.starts))
		}
		o.begun(job)
	}
	if over(job) && !over(was) {
		life.ended = now
		o.running[life.user]--
	}
}

// once counts what becomes true.
func once(was *bool, now bool, count *int) {
	if now && !*was {
		*was = true
		*count++
	}
}

func over(job *batchv1.Job) bool {
	for _, c := range job.Status.Conditions {
		if c.Type == batchv1.JobComplete && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

func (o *observer) event(e watch.Event) {
	event, ok := e.Object.(*eventsv1.Event)
	if !ok || e.Type == watch.Deleted {
		return
	}
	if life := o.jobs[event.Regarding.UID]; life != nil {
		life.writes++
	}
}

// wait returns once what has been seen is enough, or with what must not have been seen.
func (o *observer) wait(ctx context.Context, what string, enough func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, jobsPatience, fmt.Errorf("not after %s: %s", jobsPatience, what))
	defer cancel()
	for {
		o.mu.Lock()
		done, trouble := enough(), o.trouble
		o.mu.Unlock()
		switch {
		case trouble != nil:
			return trouble
		case done:
			return nil
		}
		select {
		case <-o.moved:
		case <-time.After(time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
