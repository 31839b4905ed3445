// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
	"unique"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	jobs "github.com/cantonesescribe/usage-operator/internal/job"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/loop"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// JobMeter admits, meters and settles Jobs; *metering.Service is one.
type JobMeter interface {
	Admit(ctx context.Context, req metering.AdmitRequest) (metering.AdmitResult, error)
	Get(ctx context.Context, id quota.AdmissionID) (*ledger.Admission, error)
	Current(ctx context.Context, userID string) (ledger.Usage, error)
	SettleJob(ctx context.Context, id quota.AdmissionID, fallback quota.Credits) (*ledger.Admission, error)
	Requeue(ctx context.Context, id quota.AdmissionID, stay int64) (*ledger.Admission, error)
	RenewJobs(ctx context.Context, jobs []*ledger.Admission) error
}

// JobQueue tells whose turn has come; *metering.Service is one.
type JobQueue interface {
	Subscribe(ctx context.Context) <-chan ledger.Change
}

// JobRecords are the admissions of Jobs as the database has them. Its errors wrap those of package ledger.
type JobRecords interface {
	// LiveJobs reads all queued and admitted admissions of a cluster's Jobs, without queue positions. Those that cannot
	// be read are missing.
	LiveJobs(ctx context.Context, cluster quota.ClusterUID) ([]*ledger.Admission, error)
	// RunningJobs reads the admitted admissions of a cluster's Jobs, likewise.
	RunningJobs(ctx context.Context, cluster quota.ClusterUID) ([]*ledger.Admission, error)
	// EndedAdmissions returns those of the admissions that the ledger knows and that are neither queued nor admitted
	// any more.
	EndedAdmissions(ctx context.Context, ids []quota.AdmissionID) ([]quota.AdmissionID, error)
}

// JobLedger is what the controller of Jobs asks of the ledger. All are required.
type JobLedger struct {
	Meter   JobMeter
	Queue   JobQueue
	Records JobRecords
}

// Rights says who may spend whose quota. An error is no permission.
type Rights interface {
	MaySpend(ctx context.Context, namespace, serviceAccount, userID string) (bool, error)
}

// recorderName is whose events those of the controller are.
const recorderName = "usage-operator"

const (
	// sweepInterval bounds what a lost wake-up costs.
	sweepInterval = 5 * time.Second
	// renewInterval is well within metering.JobLease. Only what runs has a lease that anybody looks at.
	renewInterval = metering.JobLease / 2
	// compareInterval is how often all Jobs are held against the ledger, besides at the start and whenever it could not
	// be reached for a moment.
	compareInterval = 10 * time.Minute
	// lostAfter is how long a change may be on its way here before it is taken for lost.
	lostAfter = 500 * time.Millisecond
	// unauthorizedInterval is how long a Job whose service account may not spend waits to be asked for again.
	unauthorizedInterval = 30 * time.Second
	// refusedInterval is how long a Job that no waiting cures waits to be asked for again, unless a plan changes.
	refusedInterval = 5 * time.Minute

	jobConcurrency = 16
	maxJobBackoff  = 30 * time.Second
)

// jobKey is one Job, not only its name: another one of the same name is another admission.
type jobKey struct {
	Namespace, Name string
	UID             types.UID
}

func (k jobKey) object() types.NamespacedName {
	return types.NamespacedName{Namespace: k.Namespace, Name: k.Name}
}

func keyOf(job client.Object) jobKey {
	return jobKey{Namespace: job.GetNamespace(), Name: job.GetName(), UID: job.GetUID()}
}

func keyOfAdmission(namespace, name string, id quota.AdmissionID) jobKey {
	return jobKey{
		Namespace: namespace, Name: name,
		UID: types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])),
	}
}

// +kubebuilder:rbac:groups=batch,resources=jobs,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups="",resources=pods;namespaces,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=events,verbs=list
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// DefaultStartTimeout is JobOptions.StartTimeout where that is zero.
const DefaultStartTimeout = 10 * time.Minute

// JobOptions configure the controller of Jobs. The zero value is usable.
type JobOptions struct {
	// Cluster is this one's id in the ledger, zero if no other one has ever been on it.
	Cluster quota.ClusterUID
	// StartTimeout is how long an admitted Job may hold its slot without a pod that has started; DefaultStartTimeout if
	// zero.
	StartTimeout time.Duration
	// Loops is told how each turn of the background work went; nil keeps silent.
	Loops loop.Observer
}

// SetupJob registers the controller of the Jobs that carry the user label. It has a cache of its own, which holds no
// other Jobs, and of pods only what it needs.
func SetupJob(mgr ctrl.Manager, from JobLedger, opts JobOptions) error {
	seen, err := newJobCache(mgr)
	if err != nil {
		return err
	}
	err = seen.IndexField(context.Background(), &batchv1.Job{}, jobUser, func(job client.Object) []string {
		return []string{job.GetLabels()[v1alpha1.UserLabel]}
	})
	if err != nil {
		return err
	}
	err = seen.IndexField(context.Background(), &corev1.Pod{}, podOwner, func(pod client.Object) []string {
		return []string{pod.GetLabels()[batchv1.ControllerUidLabel]}
	})
	if err != nil {
		return err
	}
	if err := mgr.Add(seen); err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return err
	}
	authorizer, err := access.NewAuthorizer(clients.AuthorizationV1())
	if err != nil {
		return err
	}
	r := &jobReconciler{
		svc: from.Meter, queue: from.Queue, records: from.Records, cluster: opts.Cluster,
		jobs: seen, client: mgr.GetClient(), live: mgr.GetAPIReader(),
		events: mgr.GetEventRecorder(recorderName), memory: newJobMemory(),
		rights:       access.Spending{Authorizer: authorizer},
		startTimeout: cmp.Or(opts.StartTimeout, DefaultStartTimeout),
		missed:       make(chan struct{}, 1),
	}
	return builder.TypedControllerManagedBy[jobKey](mgr).
		Named("job").
		WithOptions(controller.TypedOptions[jobKey]{
			MaxConcurrentReconciles: jobConcurrency,
			NewQueue:                newJobQueue,
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[jobKey](50*time.Millisecond,
				maxJobBackoff),
		}).
		WatchesRawSource(r.jobChanges(seen)).
		WatchesRawSource(r.podChanges(seen)).
		WatchesRawSource(r.modeChanges(seen)).
		WatchesRawSource(r.planChanges(mgr.GetCache())).
		WatchesRawSource(r.quotaChanges(mgr.GetCache())).
		WatchesRawSource(r.ledgerChanges(seen, opts.Loops)).
		Complete(r)
}

const (
	// podOwner is the index of the pods in the cache by the UID of their Job.
	podOwner = "job-uid"
	// jobUser is the index of the Jobs by their user. A list by the label goes through all of them.
	jobUser = "user"
)

// newJobCache holds of the labelled Jobs what decisions need, the namespaces' labels, and of the pods of all Jobs how
// far they are: pods do not carry the user label. What it holds is not whole, so Jobs are only ever patched.
func newJobCache(mgr ctrl.Manager) (cache.Cache, error) {
	labelled, err := labels.NewRequirement(v1alpha1.UserLabel, selection.Exists, nil)
	if err != nil {
		return nil, err
	}
	ofJobs, err := labels.NewRequirement(batchv1.ControllerUidLabel, selection.Exists, nil)
	if err != nil {
		return nil, err
	}
	return cache.New(mgr.GetConfig(), cache.Options{
		Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), HTTPClient: mgr.GetHTTPClient(),
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&batchv1.Job{}: {Label: labels.NewSelector().Add(*labelled), Transform: stripJob},
			&corev1.Pod{}:  {Label: labels.NewSelector().Add(*ofJobs), Transform: stripPod},
		},
	})
}

// jobLabels and jobAnnotations are what the cache keeps of a Job's.
var (
	jobLabels      = []string{v1alpha1.UserLabel, jobs.QueueLabel}
	jobAnnotations = []string{
		v1alpha1.AudioDurationAnnotation, v1alpha1.FileSizeAnnotation, v1alpha1.ContainerAnnotation,
		v1alpha1.HoldAnnotation, v1alpha1.PriorityAnnotation, v1alpha1.StateAnnotation, v1alpha1.MessageAnnotation,
	}
)

// only keeps some of the keys. Thousands of Jobs have the same values, of which one is enough.
func only(keys []string, all map[string]string) map[string]string {
	kept := make(map[string]string, len(keys))
	for _, key := range keys {
		if value, ok := all[key]; ok {
			kept[key] = unique.Make(value).Value()
		}
	}
	return kept
}

// stripJob leaves of a Job what decides about it: many thousands may wait, and most of a Job is its pods' template.
func stripJob(object any) (any, error) {
	job, ok := object.(*batchv1.Job)
	if !ok {
		return object, nil
	}
	stripped := &batchv1.Job{
		Spec: batchv1.JobSpec{
			Suspend: job.Spec.Suspend, Parallelism: job.Spec.Parallelism, Completions: job.Spec.Completions,
			ManagedBy: job.Spec.ManagedBy, ManualSelector: job.Spec.ManualSelector,
		},
		Status: batchv1.JobStatus{
			Succeeded: job.Status.Succeeded, Failed: job.Status.Failed, Ready: job.Status.Ready,
			StartTime: job.Status.StartTime,
		},
	}
	stripped.Namespace, stripped.Name, stripped.UID, stripped.ResourceVersion = job.Namespace, job.Name, job.UID,
		job.ResourceVersion
	stripped.CreationTimestamp, stripped.DeletionTimestamp = job.CreationTimestamp, job.DeletionTimestamp
	stripped.Labels, stripped.Annotations = only(jobLabels, job.Labels), only(jobAnnotations, job.Annotations)
	if manualSelector(job) {
		// Any other is the one by the Job's UID, see podsOf.
		stripped.Spec.Selector = job.Spec.Selector
	}
	stripped.Spec.Template.Spec.ServiceAccountName = job.Spec.Template.Spec.ServiceAccountName
	for _, c := range job.Status.Conditions {
		if c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed {
			stripped.Status.Conditions = append(stripped.Status.Conditions,
				batchv1.JobCondition{Type: c.Type, Status: c.Status})
		}
	}
	return stripped, nil
}

func stripPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	stripped := &corev1.Pod{Status: corev1.PodStatus{Phase: pod.Status.Phase}}
	stripped.Namespace, stripped.Name, stripped.UID, stripped.ResourceVersion = pod.Namespace, pod.Name, pod.UID,
		pod.ResourceVersion
	stripped.Labels = map[string]string{
		batchv1.ControllerUidLabel: pod.Labels[batchv1.ControllerUidLabel],
		batchv1.JobNameLabel:       pod.Labels[batchv1.JobNameLabel],
	}
	return stripped, nil
}

// jobOfPod wakes the Job that a pod's end may free. While the Job is there, its own status tells, unless it lies.
func (r *jobReconciler) jobOfPod(pod *corev1.Pod) (key jobKey, owed bool) {
	uid := types.UID(pod.Labels[batchv1.ControllerUidLabel])
	return jobKey{Namespace: pod.Namespace, Name: pod.Labels[batchv1.JobNameLabel], UID: uid},
		r.memory.isGone(uid) || r.memory.isUnsettled(uid)
}

// rememberGone notes how a Job stood when it was last seen: with a short time to live it may be gone before it was
// settled.
func (r *jobReconciler) rememberGone(job *batchv1.Job, q jobQueue) {
	if _, settled := terminalState[job.Annotations[v1alpha1.StateAnnotation]]; settled && ended(job) != "" &&
		!r.memory.isUnsettled(job.UID) {
		r.memory.forget(job.UID)
		return
	}
	r.memory.noteGone(job)
	r.enqueue(q, keyOf(job), toEnd)
}

// enqueueAll has those of the Jobs reconciled that a change concerns.
func (r *jobReconciler) enqueueAll(
	ctx context.Context, q jobQueue, which func(*batchv1.Job) bool, opts ...client.ListOption,
) {
	var list batchv1.JobList
	if err := r.jobs.List(ctx, &list, opts...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "List the Jobs that a change concerns")
		return
	}
	for i := range list.Items {
		if job := &list.Items[i]; which(job) {
			r.enqueue(q, keyOf(job), urgencyOf(job))
		}
	}
}

// follow wakes Jobs whose admission was changed by somebody else: a freed slot starts who waits for it.
func (r *jobReconciler) follow(ctx context.Context, q jobQueue) {
	for c := range r.queue.Subscribe(ctx) {
		if c == (ledger.Change{}) {
			r.compareAtOnce()
			continue
		}
		// Admissions over HTTP have neither. Another cluster's Job is not here, whatever became of its admission.
		if c.Namespace == "" || c.Name == "" || (Cluster{UID: r.cluster}).foreign(c.Cluster) {
			continue
		}
		key := keyOfAdmission(c.Namespace, c.Name, c.ID)
		if c.State != quota.Admitted {
			r.enqueue(q, key, toTell) // it waits for something else now
			continue
		}
		// What this process has changed it hears of twice, the second time from the database.
		if _, admitted := r.memory.admitted(key.UID); !admitted {
			r.memory.noteExpected(key.UID)
			r.enqueue(q, key, toStart)
		}
	}
}

// compareAtOnce has all Jobs held against the ledger: changes may have been missed.
func (r *jobReconciler) compareAtOnce() {
	r.unheard.Store(true)
	select {
	case r.missed <- struct{}{}:
	default:
	}
}

// sweeping compares the ledger with the cluster, turn by turn, for what no event has told. What runs is compared each
// time: so a Job whose turn came while nobody told starts within sweepInterval. All is compared at the start, whenever
// something may have been missed, and now and then.
type sweeping struct {
	*jobReconciler

	add               func(jobKey, urgency)
	renewed, compared time.Time
}

func (s *sweeping) turn(ctx context.Context) error {
	renew := time.Since(s.renewed) >= renewInterval
	// The database may have been restored while it was away, or nobody heard of changes.
	whole := s.unheard.Swap(false) || time.Since(s.compared) >= compareInterval
	err := s.sweep(ctx, whole, renew, s.add)
	switch {
	case err != nil:
		s.compared = time.Time{}
	case whole:
		s.compared, s.began = time.Now(), true
	}
	if err == nil && renew {
		s.renewed = time.Now()
	}
	return report(ctx, err, "Compare the live admissions with the Jobs")
}

// sweep wakes the Jobs that run, or all, where they are not as the ledger says.
func (r *jobReconciler) sweep(ctx context.Context, whole, renew bool, add func(jobKey, urgency)) error {
	read := r.records.RunningJobs
	if whole {
		read = r.records.LiveJobs
	}
	live, err := read(ctx, r.cluster)
	if err != nil {
		return err
	}
	var alive []*ledger.Admission
	for _, adm := range live {
		job, err := r.look(ctx, adm, add)
		if err != nil {
			return err
		}
		if job != nil && adm.State == quota.Admitted {
			alive = append(alive, adm)
		}
	}
	if whole {
		if err := r.findUnbooked(ctx, live, add); err != nil {
			return err
		}
	}
	if !renew {
		return nil
	}
	return r.svc.RenewJobs(ctx, alive)
}

// look returns the Job of an admission, nil if it is gone, and wakes it if it is not as the ledger says.
func (r *jobReconciler) look(
	ctx context.Context, adm *ledger.Admission, add func(jobKey, urgency),
) (*batchv1.Job, error) {
	key := keyOfAdmission(adm.Namespace, adm.Name, adm.ID)
	job := &batchv1.Job{}
	if err := r.jobs.Get(ctx, key.object(), job); client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	if job.UID != key.UID {
		add(key, toEnd)
		return nil, nil
	}
	if showsMore(job, adm) {
		r.memory.noteUnbooked(job.UID)
		add(key, toLook)
	}
	if how, needs := r.needsLook(job, adm); needs {
		add(key, how)
	}
	return job, nil
}

// showsMore reports whether a Job waits in the ledger that runs, or has run. It may only seem so, for they are not read
// at one moment.
func showsMore(job *batchv1.Job, adm *ledger.Admission) bool {
	state := job.Annotations[v1alpha1.StateAnnotation]
	return adm.State == quota.Queued &&
		(state == v1alpha1.StateSettled || state == v1alpha1.StateAdmitted && !suspended(job))
}

// unbookedPage is how many Jobs that have ended one query asks about.
const unbookedPage = 1000

// findUnbooked wakes the Jobs that run, wait or were charged, and that the ledger does not know: live is all that it
// has.
func (r *jobReconciler) findUnbooked(ctx context.Context, live []*ledger.Admission, add func(jobKey, urgency)) error {
	remembered := r.memory.all()
	var list batchv1.JobList
	// Only read.
	if err := r.jobs.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	known := make(map[quota.AdmissionID]bool, len(live))
	for _, adm := range live {
		known[adm.ID] = true
	}
	missing := map[quota.AdmissionID]*batchv1.Job{}
	for i := range list.Items {
		job := &list.Items[i]
		delete(remembered, job.UID)
		state := job.Annotations[v1alpha1.StateAnnotation]
		id, err := admissionID(job.UID)
		switch {
		case err != nil || known[id]:
		case state == v1alpha1.StateSettled, state == v1alpha1.StateAdmitted && !suspended(job):
			missing[id] = job
		case state == v1alpha1.StateQueued, state == v1alpha1.StateParked, state == v1alpha1.StateAdmitted:
			add(keyOf(job), toAsk) // as any that waits
		}
	}
	r.memory.forgetAll(remembered)
	for page := range slices.Chunk(slices.Collect(maps.Keys(missing)), unbookedPage) {
		ended, err := r.records.EndedAdmissions(ctx, page)
		if err != nil {
			return err
		}
		for _, id := range ended {
			delete(missing, id)
		}
	}
	for _, job := range missing {
		r.memory.noteUnbooked(job.UID)
		add(keyOf(job), toLook)
	}
	return nil
}

// needsLook says whether the Job does not show what the ledger says, and how urgent that is.
func (r *jobReconciler) needsLook(job *batchv1.Job, adm *ledger.Admission) (how urgency, needs bool) {
	if ended(job) != "" {
		r.memory.noteUnsettled(job.UID)
		return toEnd, true
	}
	if job.DeletionTimestamp != nil {
		return toEnd, true
	}
	if adm.State == quota.Queued {
		return toTell, r.saysOther(job, adm)
	}
	r.memory.noteStuck(job.UID, adm.Stuck)
	if suspended(job) && !jobs.Held(job.Annotations) {
		r.countLost(job, adm)
		return toStart, true
	}
	if job.Annotations[v1alpha1.StateAnnotation] != v1alpha1.StateAdmitted {
		return toLook, true
	}
	// What is not remembered is about to be looked at: all Jobs are, when the controller starts.
	message, admitted := r.memory.admitted(job.UID)
	return toLook, admitted && job.Annotations[v1alpha1.MessageAnnotation] != r.memory.withWarnings(job.UID, message)
}

// saysOther reports whether a Job says that it waits for a slot and waits for something else, or the other way round.
func (r *jobReconciler) saysOther(job *batchv1.Job, adm *ledger.Admission) bool {
	state := queuedState(adm)
	return waits(job) && job.Annotations[v1alpha1.StateAnnotation] != state && !r.memory.wasTold(job.UID, state)
}

// countLost counts a Job that should have been started and that nobody has woken for that. Before all Jobs have been
// compared once nobody can have.
func (r *jobReconciler) countLost(job *batchv1.Job, adm *ledger.Admission) {
	if r.began && !r.memory.isExpected(job.UID) && time.Since(adm.AdmittedAt) >= lostAfter {
		lostWakeups.Inc()
	}
	r.memory.noteExpected(job.UID)
}

func admissionID(uid types.UID) (quota.AdmissionID, error) {
	id, err := convert.UID(uid)
	return quota.AdmissionID(id), err
}
