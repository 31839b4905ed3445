// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// noPodNotice is after how long without a pod that has started a Job says so, and how often it looks again.
	noPodNotice = 30 * time.Second
	// noPodMark begins what a message says of that.
	noPodMark = "; no pod has started: "
	// maxWhy bounds what others' messages may add to a Job's.
	maxWhy = 300
)

// notice is noPodNotice, or sooner where a slot is given up soon.
func (r *jobReconciler) notice() time.Duration { return min(noPodNotice, r.startTimeout/2) }

// running brings the message of a Job that runs up to date. If no pod of it starts it gives its slot back.
func (r *jobReconciler) running(ctx context.Context, job *batchv1.Job, message, mode string) (reconcile.Result, error) {
	waited, err := r.waitedForPod(ctx, job)
	if err != nil {
		return reconcile.Result{}, err
	}
	if waited >= r.startTimeout && mode == v1alpha1.EnforcementEnforce {
		return reconcile.Result{}, r.giveUp(ctx, job)
	}
	err = r.patch(ctx, job, v1alpha1.StateAdmitted, r.memory.withWarnings(job.UID, message), nil)
	if err != nil || waited == 0 {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	return reconcile.Result{RequeueAfter: min(r.notice(), max(time.Second, r.startTimeout-waited))}, nil
}

// waitedForPod returns for how long a Job that runs has had no pod that has started, 0 if it has one, and notes why.
func (r *jobReconciler) waitedForPod(ctx context.Context, job *batchv1.Job) (time.Duration, error) {
	since, started := r.memory.admittedAt(job.UID)
	if started {
		return 0, nil
	}
	if s := job.Status; s.Succeeded > 0 || s.Failed > 0 || s.Ready != nil && *s.Ready > 0 {
		r.memory.notePodStarted(job.UID)
		return 0, nil
	}
	// Kubernetes sets it anew whenever the Job is resumed, after a hold for example.
	if start := job.Status.StartTime; start != nil && start.After(since) {
		since = start.Time
	}
	waited := max(time.Millisecond, time.Since(since))
	if waited < r.notice() {
		return waited, nil
	}
	pods, err := r.podsOf(ctx, keyOf(job), job.Spec.Selector)
	if err != nil {
		return 0, err
	}
	for i := range pods {
		if podStarted(&pods[i]) {
			r.memory.notePodStarted(job.UID)
			return 0, nil
		}
	}
	why, err := r.whyNoPod(ctx, job, pods)
	if err != nil {
		return 0, err
	}
	r.memory.noteNoPod(job.UID, why)
	return waited, nil
}

// podStarted reports whether any container of a pod runs or has run.
func podStarted(pod *corev1.Pod) bool {
	if pod.Status.Phase != corev1.PodPending && pod.Status.Phase != "" {
		return true
	}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses,
		pod.Status.ContainerStatuses} {
		for i := range statuses {
			s := &statuses[i]
			if s.State.Running != nil || s.State.Terminated != nil || s.LastTerminationState.Terminated != nil ||
				s.RestartCount > 0 {
				return true
			}
		}
	}
	return false
}

// whyNoPod says why no pod of a Job has started, by what the pods, and the events of pods and Job, say.
func (r *jobReconciler) whyNoPod(ctx context.Context, job *batchv1.Job, pods []corev1.Pod) (string, error) {
	var last *corev1.Pod
	for i := range pods {
		if pods[i].DeletionTimestamp == nil &&
			(last == nil || last.CreationTimestamp.Before(&pods[i].CreationTimestamp)) {
			last = &pods[i]
		}
	}
	if last == nil {
		event, err := r.lastWarning(ctx, job.Namespace, job.UID)
		if err != nil || event == nil {
			return "it has none yet", err
		}
		return shorten(event.Reason + ": " + event.Message), nil
	}
	if why := whyPending(last); why != "" {
		return shorten(why), nil
	}
	event, err := r.lastWarning(ctx, last.Namespace, last.UID)
	if err != nil || event == nil {
		return "it is pending", err
	}
	return shorten(event.Reason + ": " + event.Message), nil
}

// whyPending says why a pod is pending, by its own status, or nothing.
func whyPending(pod *corev1.Pod) string {
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses,
		pod.Status.ContainerStatuses} {
		for i := range statuses {
			w := statuses[i].State.Waiting
			if w != nil && w.Reason != "" && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
				return fmt.Sprintf("container %s: %s: %s", statuses[i].Name, w.Reason, w.Message)
			}
		}
	}
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Reason + ": " + c.Message
		}
	}
	return ""
}

// lastWarning returns the newest Warning event about an object that is not our own, nil without one.
func (r *jobReconciler) lastWarning(ctx context.Context, namespace string, uid types.UID) (*corev1.Event, error) {
	var list corev1.EventList
	err := r.live.List(ctx, &list, client.InNamespace(namespace),
		client.MatchingFields{"involvedObject.uid": string(uid)})
	if err != nil {
		return nil, fmt.Errorf("why no pod has started: %w", err)
	}
	var last *corev1.Event
	for i := range list.Items {
		e := &list.Items[i]
		if e.Type == corev1.EventTypeWarning && e.ReportingController != recorderName &&
			(last == nil || !seenAt(e).Before(seenAt(last))) {
			last = e
		}
	}
	return last, nil
}

// seenAt is when an event was last seen, in whichever of its fields that stands.
func seenAt(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	}
	return e.EventTime.Time
}

func shorten(text string) string {
	if runes := []rune(text); len(runes) > maxWhy {
		return string(runes[:maxWhy]) + "..."
	}
	return text
}

// giveUp suspends a Job of which no pod starts. It leaves its slot when the cache shows that it is suspended: until
// then it runs for all that anybody here knows, and what runs is not to be found in the queue.
func (r *jobReconciler) giveUp(ctx context.Context, job *batchv1.Job) error {
	why := r.memory.noPodReason(job.UID)
	message := fmt.Sprintf("no pod had started after %s, so it gave its slot back: %s; ", r.startTimeout, why)
	r.memory.noteGivingBack(job.UID, message)
	r.event(job, corev1.EventTypeWarning, "NoPodStarted", "Queue", message+"it starts again in its turn")
	return r.stop(ctx, job, message)
}

func (r *jobReconciler) stop(ctx context.Context, job *batchv1.Job, message string) error {
	return client.IgnoreNotFound(r.patch(ctx, job, v1alpha1.StateQueued, message+"it waits behind the others",
		new(true)))
}

// requeue puts a Job that has been suspended for that back into the queue, behind the others. If nobody else waits it
// starts again at once.
func (r *jobReconciler) requeue(
	ctx context.Context, job *batchv1.Job, id quota.AdmissionID, mode string,
) (reconcile.Result, error) {
	stay := r.memory.admittedSeq(job.UID)
	_, err := r.svc.Requeue(ctx, id, stay)
	// If it conflicts it is over, or its pod has reported after all: it is admitted as it stands.
	if err != nil && !errors.Is(err, quota.ErrConflict) && !errors.Is(err, ledger.ErrNotFound) {
		return reconcile.Result{}, fmt.Errorf("give the slot back of a Job without a pod: %w", err)
	}
	r.memory.noteGivenBack(job.UID)
	return r.admit(ctx, job, id, mode)
}
