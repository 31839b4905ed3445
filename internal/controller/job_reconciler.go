// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	jobs "github.com/cantonesescribe/usage-operator/internal/job"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// jobReconciler brings a Job to where the ledger says that it is.
type jobReconciler struct {
	svc     JobMeter
	queue   JobQueue
	records JobRecords
	// cluster is this one's id in the ledger.
	cluster quota.ClusterUID
	client  client.Client
	// jobs is the cache, live the API server itself: that a Job or its pods are gone must be true, not only not seen.
	jobs   client.Reader
	live   client.Reader
	events events.EventRecorder
	memory *jobMemory
	rights Rights
	// unheard is set when changes may have been missed, and missed has a token then, for whoever compares.
	unheard atomic.Bool
	missed  chan struct{}
	// began says that all Jobs have been compared with the ledger once. Only the sweep uses it.
	began bool
	// startTimeout is how long a Job may hold a slot without a pod that has started.
	startTimeout time.Duration
}

// terminalState are the values of the state annotation after which nothing more happens.
var terminalState = map[string]struct{}{v1alpha1.StateSettled: {}, v1alpha1.StateReleased: {}}

// Reconcile implements reconcile.TypedReconciler.
func (r *jobReconciler) Reconcile(ctx context.Context, key jobKey) (reconcile.Result, error) {
	res, err := later(r.reconcile(ctx, key))
	if err == nil {
		r.memory.forgetExpected(key.UID)
	}
	return res, err
}

func (r *jobReconciler) reconcile(ctx context.Context, key jobKey) (reconcile.Result, error) {
	id, err := admissionID(key.UID)
	if err != nil {
		return reconcile.Result{}, reconcile.TerminalError(err)
	}
	job := &batchv1.Job{}
	if err := r.jobs.Get(ctx, key.object(), job); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, err
	}
	state := job.Annotations[v1alpha1.StateAnnotation]
	_, over := terminalState[state]
	news, onlyTold := r.memory.takeNews(key.UID)
	if job.UID == key.UID && r.memory.takeUnbooked(key.UID) {
		if err := r.bookAgain(ctx, job, id); err != nil {
			r.memory.noteUnbooked(key.UID)
			return reconcile.Result{}, err
		}
		over, onlyTold = false, false
	}
	switch {
	case job.UID != key.UID:
		return reconcile.Result{}, r.settleGone(ctx, key, id, r.memory.lastSeen(key.UID))
	case over && ended(job) != "" && !r.memory.isUnsettled(key.UID):
		r.memory.forget(key.UID)
		return reconcile.Result{}, nil
	case ended(job) != "" && onlyTold && !waiting(news.state):
		return reconcile.Result{}, r.close(ctx, job, news.state, news.message)
	case ended(job) != "":
		return r.settle(ctx, job, id)
	case job.DeletionTimestamp != nil:
		return reconcile.Result{}, r.settleGone(ctx, key, id, sightOf(job))
	}
	namespace, err := r.namespace(ctx, key.Namespace)
	if err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if mode(namespace) == v1alpha1.EnforcementOff {
		// Annotations are anybody's to write there: what the ledger knows is what was taken on before.
		if known, err := r.known(ctx, id, state); err != nil || !known {
			return reconcile.Result{}, err
		}
	}
	message, admitted := r.memory.admitted(job.UID)
	parting, leaving := r.memory.givingBack(job.UID)
	switch {
	case jobs.Held(job.Annotations):
		return reconcile.Result{}, r.hold(ctx, job, id)
	case onlyTold && waiting(news.state):
		return reconcile.Result{}, r.tellWhy(ctx, job, news)
	case leaving && suspended(job):
		return r.requeue(ctx, job, id, mode(namespace))
	case leaving:
		return again(r.notice(), r.stop(ctx, job, parting))
	case admitted && !suspended(job):
		return r.running(ctx, job, message, mode(namespace))
	}
	return r.admit(ctx, job, id, mode(namespace))
}

// known reports whether the ledger has the admission of a Job that shows a state. One that shows none was never asked
// for.
func (r *jobReconciler) known(ctx context.Context, id quota.AdmissionID, state string) (bool, error) {
	if state == "" {
		return false, nil
	}
	_, err := r.svc.Get(ctx, id)
	if errors.Is(err, ledger.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// bookAgain admits a Job that runs, or has run, where the ledger does not know it or has it in the queue. That is so
// after the database was restored to an earlier moment. Whatever the limits say now, the work was admitted.
func (r *jobReconciler) bookAgain(ctx context.Context, job *batchv1.Job, id quota.AdmissionID) error {
	adm, err := r.svc.Get(ctx, id)
	if _, unreadable := errors.AsType[*ledger.UnreadableError](err); unreadable {
		return nil
	}
	if err == nil && adm.State != quota.Queued {
		return nil // the Job was looked at before the ledger was told, or the other way round
	}
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	namespace, err := r.namespace(ctx, job.Namespace)
	if err != nil || mode(namespace) == v1alpha1.EnforcementOff { // annotations are anybody's to write there
		return client.IgnoreNotFound(err)
	}
	_, err = r.admit(ctx, job, id, mode(namespace))
	return err
}

// mode is how a namespace treats its Jobs.
func mode(namespace client.Object) string {
	switch m := namespace.GetLabels()[v1alpha1.EnforcementLabel]; m {
	case v1alpha1.EnforcementWarn, v1alpha1.EnforcementOff:
		return m
	}
	return v1alpha1.EnforcementEnforce
}

func suspended(job *batchv1.Job) bool { return job.Spec.Suspend != nil && *job.Spec.Suspend }

// ended says how the Job has ended, if it has.
func ended(job *batchv1.Job) batchv1.JobConditionType {
	for _, c := range job.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type
		}
	}
	return ""
}

// hold keeps a Job from running as long as its owner wants that, also one that runs. It loses nothing but its pod.
func (r *jobReconciler) hold(ctx context.Context, job *batchv1.Job, id quota.AdmissionID) error {
	message := "held back by annotation " + v1alpha1.HoldAnnotation
	switch adm, err := r.svc.Get(ctx, id); {
	case err == nil && adm.State == quota.Admitted:
		message += "; it keeps the slot that it was given"
	case err == nil && adm.State == quota.Queued:
		message += "; it keeps its place in the queue"
	case err != nil && !errors.Is(err, ledger.ErrNotFound):
		return err
	}
	var stop *bool
	if !suspended(job) {
		stop = new(true)
	}
	_, err := r.tell(ctx, job, v1alpha1.StateHeld, message, stop)
	return err
}

// admit asks for the Job's admission, which is booked the first time only, and brings the Job to it.
func (r *jobReconciler) admit(
	ctx context.Context, job *batchv1.Job, id quota.AdmissionID, mode string,
) (reconcile.Result, error) {
	// What runs already can only be metered.
	warnOnly := mode == v1alpha1.EnforcementWarn || !suspended(job)
	declared, err := jobs.Parse(job.Labels, job.Annotations)
	if err == nil && !warnOnly {
		err = jobs.CheckShape(job)
	}
	if err != nil {
		return reconcile.Result{}, r.refuse(ctx, job, v1alpha1.StateInvalid, err.Error(), warnOnly)
	}
	// No policy certifies a Job that was created where none refuses, and a right may be withdrawn while a Job waits.
	switch may, err := r.rights.MaySpend(ctx, job.Namespace, serviceAccount(job), declared.UserID); {
	case err != nil:
		return reconcile.Result{}, err
	case !may:
		return r.unauthorized(ctx, job, id, declared, warnOnly)
	}
	res, err := r.svc.Admit(ctx, metering.AdmitRequest{
		UserID: declared.UserID, ID: id, Source: quota.SourceJob, Cluster: r.cluster,
		Namespace: job.Namespace, Name: job.Name,
		RequestedBy: "system:serviceaccount:" + job.Namespace + ":" + serviceAccount(job),
		Estimate:    declared.Estimate, FileSize: declared.FileSize, Priority: declared.Priority,
		Queue: true, Park: true, WarnOnly: warnOnly, Running: !suspended(job), Lease: metering.JobLease,
	})
	if reason := quota.ReasonOf(err); reason != "" {
		return again(refusedInterval, r.refuse(ctx, job, v1alpha1.StateParked, err.Error(), warnOnly))
	}
	if errors.Is(err, ledger.ErrInvalid) {
		return reconcile.Result{}, r.refuse(ctx, job, v1alpha1.StateInvalid, err.Error(), warnOnly)
	}
	if unreadable, ok := errors.AsType[*ledger.UnreadableError](err); ok {
		return r.unreadable(ctx, job, unreadable)
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	adm := res.Admission
	if adm == nil {
		message := lasting(res.Decision)
		if res.Upgrade != nil {
			message += fmt.Sprintf("; plan %q%s would allow it", res.Upgrade.Name, forPayer(res.On))
		}
		return again(refusedInterval, r.refuse(ctx, job, v1alpha1.StateParked, message, warnOnly))
	}
	switch adm.State {
	case quota.Admitted:
		return again(r.notice(), r.start(ctx, job, id, adm, res.Decision))
	case quota.Queued:
		return r.wait(ctx, job, adm, res.On)
	case quota.Settled, quota.Released, quota.Expired, quota.Cancelled:
	}
	if adm.Reason == quota.WaitedTooLong {
		return reconcile.Result{}, r.refuse(ctx, job, v1alpha1.StateRefused,
			fmt.Sprintf("%s: %s: create a new Job", adm.Reason, adm.Overdue().Message()), false)
	}
	return reconcile.Result{}, r.refuse(ctx, job, v1alpha1.StateInvalid,
		fmt.Sprintf("its admission is %s and cannot begin again: create a new Job", adm.State), false)
}

// unreadable tells a Job that waits that its user's account cannot be read. One that runs goes on.
func (r *jobReconciler) unreadable(
	ctx context.Context, job *batchv1.Job, why *ledger.UnreadableError,
) (reconcile.Result, error) {
	if !suspended(job) {
		return again(refusedInterval, nil)
	}
	return again(refusedInterval, r.refuse(ctx, job, v1alpha1.StateParked, why.Error(), false))
}

func again(after time.Duration, err error) (reconcile.Result, error) {
	if err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: after, Priority: new(int(toLook))}, nil
}

func serviceAccount(job *batchv1.Job) string {
	if name := job.Spec.Template.Spec.ServiceAccountName; name != "" {
		return name
	}
	return "default"
}

// start lets the Job run. If that fails it is tried again; if the Job is gone meanwhile, its slot returns.
func (r *jobReconciler) start(
	ctx context.Context, job *batchv1.Job, id quota.AdmissionID, adm *ledger.Admission, d quota.Decision,
) error {
	message := adm.Request.Estimate.String() + " credits are reserved"
	if !adm.Enforced && d.Reason != "" {
		message += fmt.Sprintf("; where it is enforced it would not start: %s: %s", d.Reason, d.Message())
	}
	r.memory.noteExpected(job.UID)
	err := r.patch(ctx, job, v1alpha1.StateAdmitted, r.memory.withWarnings(job.UID, message), startIf(job, true))
	if apierrors.IsNotFound(err) {
		return r.settleGone(ctx, keyOf(job), id, sightOf(job))
	}
	if err != nil {
		return fmt.Errorf("start the admitted Job: %w", err)
	}
	at := adm.AdmittedAt
	if suspended(job) {
		at = time.Now() // its turn may have come long ago, when nobody here could hear of it
	}
	r.memory.noteAdmitted(job.UID, message, at, adm.AdmittedSeq)
	return nil
}

// stuckMark begins what a message says of work that seems stuck.
const stuckMark = "; stuck: "

// stuckText is what the message of a Job that runs says at its end of what the sweep found; nothing where it found
// nothing.
func stuckText(stuck quota.Stuck) string {
	switch stuck {
	case quota.StuckNoHeartbeat:
		return stuckMark + "nobody has seen it for more than three leases"
	case quota.StuckOverEstimate:
		return stuckMark + "it has run for more than three times the declared audio"
	}
	return ""
}

// wait has a queued Job told why it waits.
func (r *jobReconciler) wait(
	ctx context.Context, job *batchv1.Job, adm *ledger.Admission, on quota.Chain,
) (reconcile.Result, error) {
	n := notice{state: queuedState(adm), reason: string(adm.Reason)}
	if adm.Parked {
		usage, err := r.svc.Current(ctx, adm.UserID)
		if err != nil {
			return reconcile.Result{}, err
		}
		n.message = parkedMessage(adm, usage)
	} else {
		n.message = queuedMessage(on)
	}
	n.message = r.memory.givenBack(job.UID) + n.message
	if r.shows(job, n.state, n.message) {
		return reconcile.Result{}, nil
	}
	return r.postpone(job, n), nil
}

// tellWhy tells a Job why it waits. That it waits for a slot is no event: it is what most Jobs do, and each event is a
// write more. What somebody may have to do something about is one.
func (r *jobReconciler) tellWhy(ctx context.Context, job *batchv1.Job, n notice) error {
	first := r.first(job, n.state)
	told, err := r.tell(ctx, job, n.state, n.message, nil)
	if err == nil && told && first && n.state == v1alpha1.StateParked {
		r.event(job, string(quota.Reason(n.reason).Info().Severity), n.state, "Queue", n.message)
	}
	return err
}

// queuedState is the state that a Job shows whose admission is queued.
func queuedState(adm *ledger.Admission) string {
	if adm.Parked {
		return v1alpha1.StateParked
	}
	return v1alpha1.StateQueued
}

// waiting reports whether a state is that of a Job that starts by itself.
func waiting(state string) bool {
	return state == v1alpha1.StateQueued || state == v1alpha1.StateParked
}

// queuedMessage names the limit and nothing that moves by itself: how many run, and the Job's place, are told to
// whoever asks. Otherwise each Job that ends would have all behind it written.
func queuedMessage(on quota.Chain) string {
	level, limit, bound := on.SlotLimit()
	if !bound {
		return "others wait in front; it starts by itself in its turn"
	}
	return teamOf(level) + fmt.Sprintf("the limit of %d running at once is reached; it starts by itself in its turn",
		limit)
}

// teamOf begins a sentence about a limit of a team, as quota.Decision.Message does.
func teamOf(level quota.Level) string {
	if level.Kind == quota.LevelTeam {
		return level.String() + ": "
	}
	return ""
}

// forPayer says whose plan would have to be another one, where that is not the user's own.
func forPayer(on quota.Chain) string {
	if payer := on.Payer(); payer != on.User() {
		return " for " + payer.Level().String()
	}
	return ""
}

func parkedMessage(adm *ledger.Admission, usage ledger.Usage) string {
	d := usage.Chain().Decide(adm.Request, usage.Now)
	if d.Reason != adm.Reason {
		return string(adm.Reason) + ": it starts by itself when that has changed"
	}
	return lasting(d) + "; it starts by itself when that has changed"
}

// lasting says why a Job waits, or is refused, by what it needs and the limit, which stay: what remains of that moves
// with every other Job of the user.
func lasting(d quota.Decision) string {
	message := d.Message()
	switch b := d.Bound; d.Reason {
	case quota.CreditsExhausted:
		message = teamOf(d.Level) + fmt.Sprintf("%s credits are needed, and fewer remain of the %s of this period",
			quota.Credits(b.Requested), quota.Credits(b.Limit))
	case quota.DailyCostCeiling:
		message = teamOf(d.Level) + fmt.Sprintf("the job would cost %s %s, and less remains of the daily ceiling of %s",
			quota.Money(b.Requested), b.Currency, quota.Money(b.Limit))
	case quota.QueueFull:
		message = teamOf(d.Level) + fmt.Sprintf("the limit of %d waiting jobs is reached", b.Limit)
	case quota.UserSuspended, quota.FileTooLarge, quota.AudioTooLong, quota.ConcurrencyLimit, quota.NotFirst,
		quota.UnknownUser, quota.UnknownPlan, quota.WaitedTooLong, quota.RateLimited:
	}
	return string(d.Reason) + ": " + message
}

// refuse parks a Job that no waiting cures. Where that is only warned of it runs, and nobody is charged.
func (r *jobReconciler) refuse(
	ctx context.Context, job *batchv1.Job, state, message string, warnOnly bool,
) error {
	first := r.first(job, state)
	if warnOnly {
		message = "it runs and is not metered; where it is enforced it would not start: " + message
	}
	told, err := r.tell(ctx, job, state, message, startIf(job, warnOnly))
	if err == nil && told && first {
		r.event(job, corev1.EventTypeWarning, "Refused", "Admit", message)
	}
	return err
}

// settle charges a Job that has ended. That frees its slot for another; what became of it is told later.
func (r *jobReconciler) settle(
	ctx context.Context, job *batchv1.Job, id quota.AdmissionID,
) (reconcile.Result, error) {
	adm, err := r.svc.Get(ctx, id)
	if errors.Is(err, ledger.ErrNotFound) {
		return reconcile.Result{}, r.settleUnknown(ctx, job)
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	// Kubernetes ends a Job when its pods have ended; somebody who writes its status can do that before.
	runs, succeeded, err := r.phases(ctx, job)
	if err != nil {
		return reconcile.Result{}, err
	}
	if runs {
		r.memory.noteUnsettled(job.UID)
		return reconcile.Result{}, nil // Its pod's end, or the next sweep, comes back to it.
	}
	use := quota.Credits(0)
	if adm.Reported == nil {
		if use, err = r.used(ctx, job, adm.Request.Estimate, succeeded); err != nil {
			return reconcile.Result{}, err
		}
	}
	if adm, err = r.svc.SettleJob(ctx, id, use); err != nil {
		return reconcile.Result{}, fmt.Errorf("settle the Job: %w", err)
	}
	r.memory.noteSettled(job.UID)
	news := notice{state: v1alpha1.StateReleased, message: "nothing was charged"}
	if adm.State == quota.Settled && adm.Actual != nil {
		news.state, news.message = v1alpha1.StateSettled, adm.Actual.String()+" credits were charged"
	}
	if r.memory.wasTold(job.UID, news.state) {
		return reconcile.Result{}, nil
	}
	return r.postpone(job, news), nil
}

// close tells a Job that has ended what became of it.
func (r *jobReconciler) close(ctx context.Context, job *batchv1.Job, state, message string) error {
	_, err := r.tell(ctx, job, state, message, nil) // forgotten when the cache shows it
	return err
}

// phases says whether a pod of a Job runs, and whether one is there that has succeeded.
func (r *jobReconciler) phases(ctx context.Context, job *batchv1.Job) (runs, succeeded bool, err error) {
	var list corev1.PodList
	err = r.jobs.List(ctx, &list, client.InNamespace(job.Namespace), client.MatchingFields{podOwner: string(job.UID)},
		client.UnsafeDisableDeepCopy)
	if err != nil {
		return false, false, err
	}
	if runs, succeeded = phasesOf(list.Items); !runs && !manualSelector(job) {
		return runs, succeeded, nil
	}
	// The cache may not have seen the end of the pod yet, and has no pods without the labels that Kubernetes gives.
	pods, err := r.podsOf(ctx, keyOf(job), job.Spec.Selector)
	if err != nil {
		return false, false, err
	}
	runs, succeeded = phasesOf(pods)
	return runs, succeeded, nil
}

func phasesOf(pods []corev1.Pod) (runs, succeeded bool) {
	for i := range pods {
		switch pods[i].Status.Phase {
		case corev1.PodSucceeded:
			succeeded = true
		case corev1.PodFailed:
		default:
			runs = true
		}
	}
	return runs, succeeded
}

func manualSelector(job *batchv1.Job) bool {
	return job.Spec.ManualSelector != nil && *job.Spec.ManualSelector
}

// used returns what a Job that has ended used by all that is known of it, if its pod reported nothing. Without a pod
// that succeeded a Job can be Complete too: nothing was used then.
func (r *jobReconciler) used(
	ctx context.Context, job *batchv1.Job, estimate quota.Credits, succeeded bool,
) (quota.Credits, error) {
	use := quota.Credits(0)
	if completed(job) || succeeded {
		use = estimate
	}
	container := job.Annotations[v1alpha1.ContainerAnnotation]
	if container == "" {
		return use, nil
	}
	pods, err := r.podsOf(ctx, keyOf(job), job.Spec.Selector)
	if err != nil {
		return 0, err
	}
	return r.reported(job, pods, container, use), nil
}

// completed reports whether the Job is Complete, and by a pod of its own.
func completed(job *batchv1.Job) bool {
	return ended(job) == batchv1.JobComplete && job.Status.Succeeded > 0
}

// settleGone settles what a Job held that is gone or going, once none of its pods lives. last is the Job as it was last
// seen.
func (r *jobReconciler) settleGone(ctx context.Context, key jobKey, id quota.AdmissionID, last sighting) error {
	adm, err := r.svc.Get(ctx, id)
	if errors.Is(err, ledger.ErrNotFound) || (err == nil && !adm.State.Live()) {
		r.memory.forget(key.UID)
		return nil
	}
	if err != nil {
		return err
	}
	if adm.Cluster != r.cluster {
		// Only its own cluster can tell that a Job is gone.
		r.memory.forget(key.UID)
		return nil
	}
	job := &batchv1.Job{}
	if err := r.live.Get(ctx, key.object(), job); client.IgnoreNotFound(err) != nil {
		return err
	}
	if job.UID == key.UID && ended(job) != "" {
		// It has lost its label, and the cache lost sight of it.
		if _, err := r.settle(ctx, job, id); err != nil {
			return err
		}
		if news, ok := r.memory.takeNews(key.UID); ok {
			return r.close(ctx, job, news.state, news.message)
		}
		return nil
	}
	if job.UID == key.UID && job.DeletionTimestamp == nil {
		// Only the cache does not have it: not yet, or without its label no more. The sweep comes back to it.
		return nil
	}
	use := quota.Credits(0)
	pods, err := r.podsOf(ctx, key, last.selector)
	if err != nil {
		return err
	}
	runs, succeeded := phasesOf(pods)
	if runs {
		return nil // Its end, or the next sweep, comes back to it.
	}
	if last.completed || succeeded {
		use = adm.Request.Estimate
	}
	if last.container != "" && adm.Reported == nil {
		use = r.reported(nil, pods, last.container, use)
	}
	if _, err := r.svc.SettleJob(ctx, id, use); err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return fmt.Errorf("settle the Job that is gone: %w", err)
	}
	r.memory.forget(key.UID)
	return nil
}

// podsOf returns the pods of a Job: those that its selector finds, or that of all Jobs if that is not known, and that
// it owns. An orphan has no owner any more.
func (r *jobReconciler) podsOf(ctx context.Context, key jobKey, selector *metav1.LabelSelector) ([]corev1.Pod, error) {
	if selector == nil {
		selector = &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: string(key.UID)}}
	}
	labels, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return nil, err
	}
	var list corev1.PodList
	if err := r.live.List(ctx, &list, client.InNamespace(key.Namespace),
		client.MatchingLabelsSelector{Selector: labels}); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool {
		owner := metav1.GetControllerOfNoCopy(&pod)
		return owner != nil && owner.UID != key.UID
	}), nil
}

// reported returns what the container that ended last says it used, or otherwise if it says nothing that can be
// believed.
func (r *jobReconciler) reported(
	job *batchv1.Job, pods []corev1.Pod, container string, otherwise quota.Credits,
) quota.Credits {
	var last *corev1.ContainerStateTerminated
	for i := range pods {
		for j := range pods[i].Status.ContainerStatuses {
			s := &pods[i].Status.ContainerStatuses[j]
			if t := s.State.Terminated; s.Name == container && t != nil &&
				(last == nil || last.FinishedAt.Before(&t.FinishedAt)) {
				last = t
			}
		}
	}
	if last == nil || last.Message == "" {
		return otherwise
	}
	use, err := jobs.ParseTermination(last.Message)
	if err != nil {
		if job != nil {
			r.event(job, corev1.EventTypeWarning, "ReportIgnored", "Settle",
				fmt.Sprintf("container %s: %v", container, err))
		}
		return otherwise
	}
	return use
}

// first reports whether the Job is about to be told the state for the first time. The cache alone does not know: it may
// not have seen yet what was written a moment ago.
func (r *jobReconciler) first(job *batchv1.Job, state string) bool {
	return job.Annotations[v1alpha1.StateAnnotation] != state && !r.memory.wasTold(job.UID, state)
}

// says reports whether a Job says a state and a message.
func says(job *batchv1.Job, state, message string) bool {
	return job.Annotations[v1alpha1.StateAnnotation] == state &&
		job.Annotations[v1alpha1.MessageAnnotation] == message
}

// shows reports the same. That the Job was told it need not be remembered then: should it say something else later,
// that is somebody else's word.
func (r *jobReconciler) shows(job *batchv1.Job, state, message string) bool {
	if !says(job, state, message) {
		return false
	}
	r.memory.takeShown(job.UID, state, message)
	return true
}

// tell writes what a Job has to know, once. It starts or stops the Job unless suspend is nil.
func (r *jobReconciler) tell(
	ctx context.Context, job *batchv1.Job, state, message string, suspend *bool,
) (told bool, err error) {
	if suspend == nil && r.shows(job, state, message) {
		return false, nil
	}
	// Before it is written: the cache may show it before the answer is here.
	if r.memory.noteTold(job.UID, state, message) && suspend == nil {
		return false, nil // the cache does not show it yet
	}
	if err := r.patch(ctx, job, state, message, suspend); err != nil {
		r.memory.forgetTold(job.UID)
		return false, client.IgnoreNotFound(err)
	}
	return true, nil
}

// patch writes the controller's annotations, and starts or stops the Job unless suspend is nil. The UID keeps it from a
// successor of the same name.
func (r *jobReconciler) patch(ctx context.Context, job *batchv1.Job, state, message string, suspend *bool) error {
	if suspend == nil && says(job, state, message) {
		return nil
	}
	change := map[string]any{"metadata": map[string]any{
		"uid":         job.UID,
		"annotations": map[string]string{v1alpha1.StateAnnotation: state, v1alpha1.MessageAnnotation: message},
	}}
	if suspend != nil {
		change["spec"] = map[string]any{"suspend": *suspend}
	}
	body, err := json.Marshal(change)
	if err != nil {
		return err
	}
	target := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: job.Namespace, Name: job.Name}}
	if err := r.client.Patch(ctx, target, client.RawPatch(types.MergePatchType, body),
		client.FieldOwner(fieldOwner)); err != nil {
		return err
	}
	return r.disown(ctx, target)
}

// startIf starts a Job that is suspended.
func startIf(job *batchv1.Job, start bool) *bool {
	if start && suspended(job) {
		return new(false)
	}
	return nil
}

func (r *jobReconciler) event(job *batchv1.Job, kind, reason, action, message string) {
	r.events.Eventf(job, nil, kind, reason, action, "%s", message)
}
