// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
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
			q.Add(keyOf(e.Object))
		},
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[*batchv1.Job], q jobQueue) {
			if e.ObjectOld.UID != e.ObjectNew.UID {
				r.rememberGone(e.ObjectOld, q)
			}
			q.Add(keyOf(e.ObjectNew))
		},
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[*batchv1.Job], q jobQueue) {
			r.rememberGone(e.Object, q)
		},
	})
}

// podChanges has the Job of a pod reconciled.
func (r *jobReconciler) podChanges(seen cache.Cache) jobSource {
	return source.TypedKind(seen, &corev1.Pod{}, handler.TypedEnqueueRequestsFromMapFunc(r.jobOfPod))
}

// modeChanges has all Jobs of a namespace reconciled whose enforcement changes.
func (r *jobReconciler) modeChanges(seen cache.Cache) jobSource {
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	return source.TypedKind(seen, namespace, handler.TypedFuncs[*metav1.PartialObjectMetadata, jobKey]{
		UpdateFunc: func(ctx context.Context, e event.TypedUpdateEvent[*metav1.PartialObjectMetadata], q jobQueue) {
			if mode(e.ObjectOld) != mode(e.ObjectNew) {
				r.enqueue(ctx, q, func(*batchv1.Job) bool { return true }, client.InNamespace(e.ObjectNew.Name))
			}
		},
	})
}

// planChanges has the parked Jobs reconciled once the database has another plan, which its status says.
func (r *jobReconciler) planChanges(from cache.Cache) jobSource {
	return source.TypedKind(from, &v1alpha1.UsagePlan{}, handler.TypedFuncs[*v1alpha1.UsagePlan, jobKey]{
		UpdateFunc: func(ctx context.Context, e event.TypedUpdateEvent[*v1alpha1.UsagePlan], q jobQueue) {
			if before, after := e.ObjectOld.Status, e.ObjectNew.Status; before.Version != after.Version ||
				before.ObservedGeneration != after.ObservedGeneration {
				r.enqueue(ctx, q, parked)
			}
		},
	})
}

// quotaChanges has a user's parked Jobs reconciled once the database has what a UserQuota declares.
func (r *jobReconciler) quotaChanges(from cache.Cache) jobSource {
	return source.TypedKind(from, &v1alpha1.UserQuota{}, handler.TypedFuncs[*v1alpha1.UserQuota, jobKey]{
		UpdateFunc: func(ctx context.Context, e event.TypedUpdateEvent[*v1alpha1.UserQuota], q jobQueue) {
			if e.ObjectOld.Status.ObservedGeneration != e.ObjectNew.Status.ObservedGeneration {
				r.enqueue(ctx, q, parked, client.MatchingLabels{v1alpha1.UserLabel: e.ObjectNew.Spec.UserID})
			}
		},
	})
}

// ledgerChanges has a Job reconciled when its admission changes, by what others tell and by what the sweep finds.
func (r *jobReconciler) ledgerChanges(observe loop.Observer) jobSource {
	return source.TypedFunc[jobKey](func(ctx context.Context, q jobQueue) error {
		sweep := &sweeping{jobReconciler: r, add: q.Add}
		go r.follow(ctx, q)
		// No jitter: what nobody told is found an interval later at the latest.
		go loop.Task{Name: "jobs", Period: sweepInterval, Timeout: turnTimeout, Do: sweep.turn}.Run(ctx, observe)
		return nil
	})
}
