// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/loop"
)

// What has a Job reconciled. Each source says of which changes, and whose.

type (
	jobQueue  = workqueue.TypedRateLimitingInterface[jobKey]
	jobSource = source.TypedSource[jobKey]
)

// jobChanges has a Job reconciled when it is made, changes or is gone, as it is when another one has its name.
func (r *jobReconciler) jobChanges(seen cache.Cache) jobSource {
	return source.TypedKind(seen, &batchv1.Job{}, handler.TypedFuncs[*batchv1.Job, jobKey]{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[*batchv1.Job], q jobQueue) {
			how := urgencyOf(e.Object)
			if e.IsInInitialList {
				how = toTell // they become as urgent as they are in their own order, see present
			}
			r.enqueue(q, keyOf(e.Object), how)
		},
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[*batchv1.Job], q jobQueue) {
			if e.ObjectOld.UID != e.ObjectNew.UID {
				r.rememberGone(e.ObjectOld, q)
			} else if r.heard(e.ObjectOld, e.ObjectNew) {
				return
			}
			r.enqueue(q, keyOf(e.ObjectNew), urgencyOf(e.ObjectNew))
		},
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[*batchv1.Job], q jobQueue) {
			r.rememberGone(e.Object, q)
		},
	})
}

// present makes the Jobs that are there when the controller starts as urgent as they are, in the order in which they
// came: who has not asked yet asks in its turn. Of those of one second, which is all that their creation tells, the one
// that nobody has written for longest came first if nobody has written any.
func (r *jobReconciler) present(ctx context.Context, add func(jobKey, urgency)) error {
	var list batchv1.JobList
	// Only read.
	if err := r.jobs.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	slices.SortFunc(list.Items, func(a, b batchv1.Job) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
			cmp.Compare(len(a.ResourceVersion), len(b.ResourceVersion)), // they are decimal numbers
			strings.Compare(a.ResourceVersion, b.ResourceVersion))
	})
	for i := range list.Items {
		job := &list.Items[i]
		if _, over := terminalState[job.Annotations[v1alpha1.StateAnnotation]]; over && ended(job) != "" {
			continue // were it owed, the comparison with the ledger would find it
		}
		add(keyOf(job), urgencyOf(job))
	}
	return nil
}

// heard reports whether an update of a Job that waits is nothing but what it has been told, or something that it waits
// through whatever it is, such as what Kubernetes notes of a Job that is suspended.
func (r *jobReconciler) heard(before, now *batchv1.Job) bool {
	if !suspended(before) || !waits(now) || ended(now) != "" || now.DeletionTimestamp != nil ||
		!equality.Semantic.DeepEqual(before.Spec, now.Spec) || !maps.Equal(before.Labels, now.Labels) {
		return false
	}
	for _, key := range jobAnnotations {
		if key != v1alpha1.StateAnnotation && key != v1alpha1.MessageAnnotation &&
			before.Annotations[key] != now.Annotations[key] {
			return false
		}
	}
	state, message := now.Annotations[v1alpha1.StateAnnotation], now.Annotations[v1alpha1.MessageAnnotation]
	if before.Annotations[v1alpha1.StateAnnotation] == state &&
		before.Annotations[v1alpha1.MessageAnnotation] == message {
		return true
	}
	return r.memory.takeShown(now.UID, state, message)
}

// podChanges has the Job of a pod reconciled.
func (r *jobReconciler) podChanges(seen cache.Cache) jobSource {
	wake := func(pod *corev1.Pod, q jobQueue) {
		if key, owed := r.jobOfPod(pod); owed {
			r.enqueue(q, key, toEnd)
		}
	}
	return source.TypedKind(seen, &corev1.Pod{}, handler.TypedFuncs[*corev1.Pod, jobKey]{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[*corev1.Pod], q jobQueue) { wake(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[*corev1.Pod], q jobQueue) {
			wake(e.ObjectNew, q)
		},
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[*corev1.Pod], q jobQueue) { wake(e.Object, q) },
	})
}

// modeChanges has all Jobs of a namespace reconciled whose enforcement changes.
func (r *jobReconciler) modeChanges(seen cache.Cache) jobSource {
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	return source.TypedKind(seen, namespace, handler.TypedFuncs[*metav1.PartialObjectMetadata, jobKey]{
		UpdateFunc: func(ctx context.Context, e event.TypedUpdateEvent[*metav1.PartialObjectMetadata], q jobQueue) {
			if mode(e.ObjectOld) != mode(e.ObjectNew) {
				r.enqueueAll(ctx, q, func(*batchv1.Job) bool { return true }, client.InNamespace(e.ObjectNew.Name))
			}
		},
	})
}

// saysWaiting selects the Jobs that a changed plan or quota may help, or have say another limit. One that waits only in
// name, because its namespace only warns, is among them.
func saysWaiting(job *batchv1.Job) bool { return waiting(job.Annotations[v1alpha1.StateAnnotation]) }

// planChanges has the Jobs that wait reconciled once the database has another plan, which its status says: those that
// were refused, which it may help, and those that say a limit, which may be another one.
func (r *jobReconciler) planChanges(from cache.Cache) jobSource {
	return source.TypedKind(from, &v1alpha1.UsagePlan{}, handler.TypedFuncs[*v1alpha1.UsagePlan, jobKey]{
		UpdateFunc: func(ctx context.Context, e event.TypedUpdateEvent[*v1alpha1.UsagePlan], q jobQueue) {
			if before, after := e.ObjectOld.Status, e.ObjectNew.Status; before.Version != after.Version ||
				before.ObservedGeneration != after.ObservedGeneration {
				r.enqueueAll(ctx, q, saysWaiting)
			}
		},
	})
}

// quotaChanges has a user's Jobs that wait reconciled once the database has what a UserQuota declares.
func (r *jobReconciler) quotaChanges(from cache.Cache) jobSource {
	return source.TypedKind(from, &v1alpha1.UserQuota{}, handler.TypedFuncs[*v1alpha1.UserQuota, jobKey]{
		UpdateFunc: r.quotaChanged,
	})
}

// quotaChanged looks at the user's own Jobs only: UserQuotas by the thousand are observed anew when the manager starts.
func (r *jobReconciler) quotaChanged(
	ctx context.Context, e event.TypedUpdateEvent[*v1alpha1.UserQuota], q jobQueue,
) {
	if e.ObjectOld.Status.ObservedGeneration != e.ObjectNew.Status.ObservedGeneration {
		r.enqueueAll(ctx, q, saysWaiting, client.MatchingFields{jobUser: e.ObjectNew.Spec.UserID})
	}
}

// ledgerChanges has a Job reconciled when its admission changes, by what others tell and by what the sweep finds. It is
// in sync once the Jobs that were there are in order.
func (r *jobReconciler) ledgerChanges(seen cache.Cache, observe loop.Observer) jobSource {
	return &ledgerSource{jobReconciler: r, seen: seen, observe: observe, ordered: make(chan struct{})}
}

type ledgerSource struct {
	*jobReconciler

	seen    cache.Cache
	observe loop.Observer
	ordered chan struct{}
}

// Start implements source.TypedSource.
func (s *ledgerSource) Start(ctx context.Context, q jobQueue) error {
	add := func(key jobKey, how urgency) { s.enqueue(q, key, how) }
	sweep := &sweeping{jobReconciler: s.jobReconciler, add: add}
	go s.follow(ctx, q)
	go func() {
		if !s.seen.WaitForCacheSync(ctx) {
			return // ctx has ended
		}
		_ = report(ctx, s.present(ctx, add), "Put the Jobs that are there in order")
		close(s.ordered)
		// No jitter: what nobody told is found an interval later at the latest.
		loop.Task{Name: "jobs", Period: sweepInterval, Timeout: turnTimeout, Wake: s.missed, Do: sweep.turn}.
			Run(ctx, s.observe)
	}()
	return nil
}

// WaitForSync implements source.TypedSyncingSource.
func (s *ledgerSource) WaitForSync(ctx context.Context) error {
	select {
	case <-s.ordered:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
