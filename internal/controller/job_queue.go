// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	jobs "github.com/cantonesescribe/usage-operator/internal/job"
)

// lostWakeups are the exception: a change of the ledger, here or in another process, wakes the Job at once.
var lostWakeups = prometheus.NewCounter(prometheus.CounterOpts{
	Name: "usage_job_wakeups_lost_total",
	Help: "Jobs that the ledger had admitted and that the comparison of ledger and cluster started, because nothing " +
		"had told the controller.",
})

func init() { metrics.Registry.MustRegister(lostWakeups) }

// urgency says which Jobs a free worker takes first: the more urgent, and of the same urgency who has waited longer. A
// Job that is there already becomes as urgent as the most urgent that is asked of it.
type urgency int

const (
	// toStart are Jobs that the ledger has admitted: a slot stands idle until they are started.
	toStart urgency = 300
	// toEnd are Jobs that are over or gone: others wait for their slots.
	toEnd urgency = 200
	// toAsk are Jobs that have not asked for their admission. Where it is given they start in the same step.
	toAsk urgency = 100
	// toLook are Jobs that have changed, or may be other than the ledger says.
	toLook urgency = 0
	// toTell are Jobs that have only something to be told.
	toTell urgency = -100
)

// urgencyOf says how urgent a Job is by what it shows.
func urgencyOf(job *batchv1.Job) urgency {
	state := job.Annotations[v1alpha1.StateAnnotation]
	switch {
	case ended(job) != "" || job.DeletionTimestamp != nil:
		return toEnd
	case suspended(job) && (state == "" || state == v1alpha1.StateHeld && !jobs.Held(job.Annotations)):
		return toAsk
	case waits(job):
		return toTell
	}
	return toLook
}

// waits reports whether a Job has been told that it waits.
func waits(job *batchv1.Job) bool {
	return suspended(job) && waiting(job.Annotations[v1alpha1.StateAnnotation])
}

// newJobQueue is the queue of the controller, whether or not the manager's others have priorities.
func newJobQueue(name string, limiter workqueue.TypedRateLimiter[jobKey]) jobQueue {
	return priorityqueue.New(name, func(o *priorityqueue.Opts[jobKey]) { o.RateLimiter = limiter })
}

// enqueue has a Job reconciled, and the ledger asked where it is.
func (r *jobReconciler) enqueue(q jobQueue, key jobKey, how urgency) {
	r.memory.noteWoken(key.UID)
	if prioritized, ok := q.(priorityqueue.PriorityQueue[jobKey]); ok {
		prioritized.AddWithOpts(priorityqueue.AddOpts{Priority: new(int(how))}, key)
		return
	}
	q.Add(key)
}

// notice is something that a Job is to be told.
type notice struct {
	state, reason, message string
}

// soon is as good as at once: only what is to be done later keeps an urgency of its own.
const soon = time.Millisecond

// postpone has a Job told something once nothing more urgent is left to do, unless it is looked at before.
func (r *jobReconciler) postpone(job *batchv1.Job, n notice) reconcile.Result {
	r.memory.noteNews(job.UID, n)
	return reconcile.Result{RequeueAfter: soon, Priority: new(int(toTell))}
}
