// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

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

// JobQueue tells which Jobs wait and where, and whose turn has come; *metering.Service is one.
type JobQueue interface {
	WaitingJobs(ctx context.Context, after ledger.Turn) ([]metering.WaitingJob, ledger.Turn, error)
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
	// refreshInterval is how often a waiting Job's position is written at most.
	refreshInterval = 30 * time.Second
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
	}
	return builder.TypedControllerManagedBy[jobKey](mgr).
		Named("job").
		WithOptions(controller.TypedOptions[jobKey]{
			MaxConcurrentReconciles: jobConcurrency,
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[jobKey](50*time.Millisecond,
				maxJobBackoff),
		}).
		WatchesRawSource(r.jobChanges(seen)).
		WatchesRawSource(r.podChanges(seen)).
		WatchesRawSource(r.modeChanges(seen)).
		WatchesRawSource(r.planChanges(mgr.GetCache())).
		WatchesRawSource(r.quotaChanges(mgr.GetCache())).
		WatchesRawSource(r.ledgerChanges(opts.Loops)).
		Complete(r)
}

// podOwner is the index of the pods in the cache by the UID of their Job.
const podOwner = "job-uid"

// newJobCache holds labelled Jobs, the namespaces' labels, and of the pods of all Jobs how far they are: pods do not
// carry the user label.
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
			&batchv1.Job{}: {Label: labels.NewSelector().Add(*labelled)},
			&corev1.Pod{}:  {Label: labels.NewSelector().Add(*ofJobs), Transform: stripPod},
		},
	})
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
func (r *jobReconciler) jobOfPod(_ context.Context, pod *corev1.Pod) []jobKey {
	uid := types.UID(pod.Labels[batchv1.ControllerUidLabel])
	if !r.memory.isGone(uid) && !r.memory.isUnsettled(uid) {
		return nil
	}
	return []jobKey{{Namespace: pod.Namespace, Name: pod.Labels[batchv1.JobNameLabel], UID: uid}}
}

// rememberGone notes how a Job stood when it was last seen: with a short time to live it may be gone before it was
// settled.
func (r *jobReconciler) rememberGone(job *batchv1.Job, q workqueue.TypedRateLimitingInterface[jobKey]) {
	if _, over := terminalState[job.Annotations[v1alpha1.StateAnnotation]]; over && ended(job) != "" &&
		!r.memory.isUnsettled(job.UID) {
		r.memory.forget(job.UID)
		return
	}
	r.memory.noteGone(job)
	q.Add(keyOf(job))
}

// parked selects the Jobs that a changed plan may help. Those that the ledger knows are promoted there.
func parked(job *batchv1.Job) bool {
	return job.Annotations[v1alpha1.StateAnnotation] == v1alpha1.StateParked
}

func (r *jobReconciler) enqueue(
	ctx context.Context, q workqueue.TypedRateLimitingInterface[jobKey], which func(*batchv1.Job) bool,
	opts ...client.ListOption,
) {
	var list batchv1.JobList
	if err := r.jobs.List(ctx, &list, opts...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "List the Jobs that a change concerns")
		return
	}
	for i := range list.Items {
		if which(&list.Items[i]) {
			q.Add(keyOf(&list.Items[i]))
		}
	}
}

// follow wakes Jobs whose admission was changed by somebody else: a freed slot starts who waits for it.
func (r *jobReconciler) follow(ctx context.Context, q workqueue.TypedRateLimitingInterface[jobKey]) {
	changes := r.queue.Subscribe(ctx)
	for {
		select {
		case c, ok := <-changes:
			if !ok {
				return
			}
			if c == (ledger.Change{}) {
				r.unheard.Store(true)
			}
			// Admissions over HTTP have neither. Another cluster's Job is not here, whatever became of its admission.
			if c.Namespace != "" && c.Name != "" && !(Cluster{UID: r.cluster}).foreign(c.Cluster) {
				q.Add(keyOfAdmission(c.Namespace, c.Name, c.ID))
			}
		case <-ctx.Done():
			return
		}
	}
}

// sweeping compares the ledger with the cluster, turn by turn, for what no event has told. What runs is compared each
// time: so a Job whose turn came while nobody told starts within sweepInterval. What waits is many, and need not hear
// at once that its place has moved: it is gone through page by page. All is compared at the start, whenever something
// may have been missed, and now and then.
type sweeping struct {
	*jobReconciler

	add               func(jobKey)
	renewed, compared time.Time
	page              ledger.Turn
}

func (s *sweeping) turn(ctx context.Context) error {
	renew := time.Since(s.renewed) >= renewInterval
	// The database may have been restored while it was away, or nobody heard of changes.
	whole := s.unheard.Swap(false) || time.Since(s.compared) >= compareInterval
	err := s.sweep(ctx, whole, renew, s.add)
	if err == nil {
		s.page, err = s.sweepWaiting(ctx, s.page, s.add)
	}
	switch {
	case err != nil:
		s.compared = time.Time{}
	case whole:
		s.compared = time.Now()
	}
	if err == nil && renew {
		s.renewed = time.Now()
	}
	return report(ctx, err, "Compare the live admissions with the Jobs")
}

// sweep wakes the Jobs that run, or all, where they are not as the ledger says.
func (r *jobReconciler) sweep(ctx context.Context, whole, renew bool, add func(jobKey)) error {
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
func (r *jobReconciler) look(ctx context.Context, adm *ledger.Admission, add func(jobKey)) (*batchv1.Job, error) {
	key := keyOfAdmission(adm.Namespace, adm.Name, adm.ID)
	job := &batchv1.Job{}
	if err := r.jobs.Get(ctx, key.object(), job); client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	if job.UID != key.UID {
		add(key)
		return nil, nil
	}
	unbooked := showsMore(job, adm)
	if unbooked {
		r.memory.noteUnbooked(job.UID)
	}
	if r.needsLook(job, adm) || unbooked {
		add(key)
	}
	return job, nil
}

// sweepWaiting wakes the Jobs in the page of what waits behind a place that do not show why they wait and where, and
// returns the next page's place.
func (r *jobReconciler) sweepWaiting(ctx context.Context, after ledger.Turn, add func(jobKey)) (ledger.Turn, error) {
	waiting, next, err := r.queue.WaitingJobs(ctx, after)
	if err != nil {
		return after, err
	}
	for _, w := range waiting {
		if (Cluster{UID: r.cluster}).foreign(w.Admission.Cluster) {
			continue // another cluster's, which is not here to be seen
		}
		job, err := r.look(ctx, w.Admission, add)
		if err != nil {
			return after, err
		}
		if job == nil || jobs.Held(job.Annotations) {
			continue
		}
		state, message := v1alpha1.StateQueued, queuedMessage(w.Admission, w.Usage.Account)
		if w.Admission.Parked {
			state, message = v1alpha1.StateParked, parkedMessage(w.Admission, w.Usage)
		}
		shown := job.Annotations[v1alpha1.StateAnnotation] == state &&
			job.Annotations[v1alpha1.MessageAnnotation] == r.memory.givenBack(job.UID)+message
		if !shown && !r.memory.toldRecently(job.UID, state, string(w.Admission.Reason)) {
			add(keyOf(job))
		}
	}
	return next, nil
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
func (r *jobReconciler) findUnbooked(ctx context.Context, live []*ledger.Admission, add func(jobKey)) error {
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
		state := job.Annotations[v1alpha1.StateAnnotation]
		id, err := admissionID(job.UID)
		switch {
		case err != nil || known[id]:
		case state == v1alpha1.StateSettled, state == v1alpha1.StateAdmitted && !suspended(job):
			missing[id] = job
		case state == v1alpha1.StateQueued, state == v1alpha1.StateParked, state == v1alpha1.StateAdmitted:
			add(keyOf(job)) // it asks for its admission, as any that waits
		}
	}
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
		add(keyOf(job))
	}
	return nil
}

// needsLook says whether the Job does not show what the ledger says.
func (r *jobReconciler) needsLook(job *batchv1.Job, adm *ledger.Admission) bool {
	if ended(job) != "" {
		r.memory.noteUnsettled(job.UID)
		return true
	}
	if job.DeletionTimestamp != nil {
		return true
	}
	if adm.State == quota.Queued {
		return false
	}
	r.memory.noteStuck(job.UID, adm.Stuck)
	if suspended(job) && !jobs.Held(job.Annotations) {
		return true
	}
	if job.Annotations[v1alpha1.StateAnnotation] != v1alpha1.StateAdmitted {
		return true
	}
	// What is not remembered is about to be looked at: all Jobs are, when the controller starts.
	message, admitted := r.memory.admitted(job.UID)
	return admitted && job.Annotations[v1alpha1.MessageAnnotation] != r.memory.withWarnings(job.UID, message)
}

func admissionID(uid types.UID) (quota.AdmissionID, error) {
	id, err := convert.UID(uid)
	return quota.AdmissionID(id), err
}
