// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	jobs "github.com/cantonesescribe/usage-operator/internal/job"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
)

// meter answers as the test says; what it has not been given is not asked.
type meter struct {
	JobMeter
	JobQueue

	adm *ledger.Admission
	err error
	// admits and settled are what was asked of it.
	admits, lives, renewed int
	settled                []quota.Credits
	// changes are what it tells.
	changes chan ledger.Change
}

// account has one slot, which is taken.
func (*meter) account() *quota.Account {
	return &quota.Account{
		Plan: &quota.Plan{Limits: quota.Limits{Concurrent: quota.AtMost(int32(1))}}, Balance: quota.Balance{Active: 1},
	}
}

// rights are those of everybody.
type rights struct {
	may bool
	err error
}

func (r *rights) MaySpend(context.Context, string, string, string) (bool, error) { return r.may, r.err }

func (m *meter) Admit(context.Context, metering.AdmitRequest) (metering.AdmitResult, error) {
	m.admits++
	return metering.AdmitResult{Admission: m.adm, On: quota.Alone(m.account())}, m.err
}

func (m *meter) Get(context.Context, quota.AdmissionID) (*ledger.Admission, error) {
	return m.adm, m.err
}

func (m *meter) SettleJob(_ context.Context, _ quota.AdmissionID, use quota.Credits) (*ledger.Admission, error) {
	m.settled = append(m.settled, use)
	m.adm.State, m.adm.Actual = quota.Released, nil
	if use > 0 {
		m.adm.State, m.adm.Actual = quota.Settled, &use
	}
	return m.adm, m.err
}

func (*meter) EndedAdmissions(context.Context, []quota.AdmissionID) ([]quota.AdmissionID, error) {
	return nil, nil
}

func (m *meter) LiveJobs(context.Context, quota.ClusterUID) ([]*ledger.Admission, error) {
	m.lives++
	return []*ledger.Admission{m.adm}, m.err
}

func (m *meter) RunningJobs(context.Context, quota.ClusterUID) ([]*ledger.Admission, error) {
	if m.adm.State != quota.Admitted {
		return nil, m.err
	}
	return []*ledger.Admission{m.adm}, m.err
}

func (m *meter) Current(context.Context, string) (ledger.Usage, error) {
	return ledger.Usage{Account: m.account()}, m.err
}

func (m *meter) Subscribe(context.Context) <-chan ledger.Change { return m.changes }

func (m *meter) RenewJobs(_ context.Context, jobs []*ledger.Admission) error {
	m.renewed += len(jobs)
	return nil
}

// cached is a cache that has one Job as it was.
type cached struct {
	client.Reader

	job *batchv1.Job
}

func (c *cached) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	if job, ok := obj.(*batchv1.Job); ok {
		c.job.DeepCopyInto(job)
		return nil
	}
	return c.Reader.Get(ctx, key, obj, opts...)
}

// List has the Job, and no pods: only a cache has the index.
func (c *cached) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if jobs, ok := list.(*batchv1.JobList); ok {
		jobs.Items = []batchv1.Job{*c.job.DeepCopy()}
	}
	return nil
}

// jobCase is a Job on a real API server, and a reconciler that sees it through a cache of the test's.
type jobCase struct {
	*jobReconciler

	t     *testing.T
	meter *meter
	cache *cached
	key   jobKey
	told  chan string
	may   *rights
	// writes are how often a Job was patched.
	writes *int
}

func newJobCase(t *testing.T) *jobCase {
	t.Helper()
	env := kubetest.Shared(t)
	job := &batchv1.Job{}
	job.Namespace, job.Name = env.Namespace(t), "job"
	job.Labels = map[string]string{v1alpha1.UserLabel: "alice"}
	job.Annotations = map[string]string{v1alpha1.AudioDurationAnnotation: "1m"}
	job.Spec.Suspend = new(true)
	job.Spec.Template.Spec = corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever,
		Containers:    []corev1.Container{{Name: "main", Image: "example.com/none"}},
	}
	if err := env.Client.Create(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	id, err := admissionID(job.UID)
	if err != nil {
		t.Fatal(err)
	}
	c := &jobCase{
		t: t, key: keyOf(job), cache: &cached{Reader: env.Client, job: job.DeepCopy()},
		meter: &meter{adm: &ledger.Admission{
			Admission: quota.Admission{ID: id, State: quota.Queued, Reason: quota.ConcurrencyLimit,
				Request: quota.Request{Estimate: quota.Credit}, Enforced: true, AdmittedAt: time.Now()},
			Namespace: job.Namespace, Name: job.Name, Position: 1, Waiting: 1,
		}, changes: make(chan ledger.Change, 1)},
		writes: new(0),
	}
	recorder := events.NewFakeRecorder(100)
	c.told, c.may = recorder.Events, &rights{may: true}
	c.jobReconciler = &jobReconciler{
		svc: c.meter, queue: c.meter, records: c.meter, client: c.counting(env.Client), jobs: c.cache,
		live: env.Client, events: recorder, memory: newJobMemory(),
		rights:       c.may,
		startTimeout: DefaultStartTimeout,
		missed:       make(chan struct{}, 1),
		began:        true,
	}
	return c
}

func (c *jobCase) counting(through client.WithWatch) client.Client {
	return interceptor.NewClient(through, interceptor.Funcs{
		Patch: func(ctx context.Context, through client.WithWatch, obj client.Object, patch client.Patch,
			opts ...client.PatchOption) error {
			*c.writes++
			return through.Patch(ctx, obj, patch, opts...)
		},
	})
}

func (c *jobCase) reconcileOnce() reconcile.Result {
	c.t.Helper()
	res, err := c.Reconcile(c.t.Context(), c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	return res
}

// reconcile has the Job told, too, what is put off until nothing more urgent is left.
func (c *jobCase) reconcile() reconcile.Result {
	c.t.Helper()
	res := c.reconcileOnce()
	if res.RequeueAfter == soon {
		return c.reconcileOnce()
	}
	return res
}

// refresh makes the cache have the Job as it is.
func (c *jobCase) refresh() {
	c.t.Helper()
	job := &batchv1.Job{}
	if err := c.live.Get(c.t.Context(), c.key.object(), job); err != nil {
		c.t.Fatal(err)
	}
	c.cache.job = job
}

func (c *jobCase) wantEvents(reasons ...string) {
	c.t.Helper()
	var got []string
	for len(c.told) > 0 {
		got = append(got, strings.Fields(<-c.told)[1])
	}
	if fmt.Sprint(got) != fmt.Sprint(reasons) {
		c.t.Errorf("events %v, want %v", got, reasons)
	}
}

// A cache that has not yet seen what was written does not make a Job hear it twice.
func TestJobsAreToldOnce(t *testing.T) {
	c := newJobCase(t)
	wrote := func(want int, when string) {
		t.Helper()
		for range 3 {
			c.reconcile()
		}
		if *c.writes != want {
			t.Errorf("%d writes %s, want %d", *c.writes, when, want)
		}
	}
	wrote(1, "of a Job that waits")
	c.meter.adm.Position, c.meter.adm.Waiting = 3, 7
	wrote(1, "after its queue has changed")
	c.meter.adm.State = quota.Admitted
	c.reconcile()
	c.refresh()
	wrote(2, "of a Job that was started")
	c.cache.job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
	c.cache.job.Status.Succeeded = 1
	wrote(3, "of a Job that is over")
	c.wantEvents() // each would be a write more
}

// What wants the user's attention is an event, once.
func TestParkedJobsAreAnEvent(t *testing.T) {
	c := newJobCase(t)
	c.meter.adm.Parked, c.meter.adm.Reason = true, quota.UserSuspended
	for range 3 {
		c.reconcile()
	}
	c.wantEvents("Parked")
}

// A Job that has only something to be told is told later, and asks again if it was woken meanwhile.
func TestJobsAreToldAfterAllElse(t *testing.T) {
	c := newJobCase(t)
	res := c.reconcileOnce()
	if res.RequeueAfter != soon || res.Priority == nil || *res.Priority != int(toTell) || *c.writes != 0 {
		t.Fatalf("%+v and %d writes, want to be told later", res, *c.writes)
	}
	c.meter.adm.State = quota.Admitted
	c.memory.noteWoken(c.key.UID)
	c.reconcileOnce()
	c.refresh()
	if c.meter.admits != 2 || suspended(c.cache.job) || *c.writes != 1 {
		t.Errorf("asked %d times, %d writes, state %q, want it started instead", c.meter.admits, *c.writes,
			c.cache.job.Annotations[v1alpha1.StateAnnotation])
	}
	if res := c.reconcileOnce(); *c.writes != 1 {
		t.Errorf("it is told that it waits after it was started: %+v", res)
	}
}

// picked are Jobs in the order in which free workers take them.
func picked(q jobQueue, n int) (names []string) {
	for range n {
		key, _ := q.Get()
		names = append(names, key.Name)
		q.Done(key)
	}
	return names
}

// Whatever waits for a worker, Jobs that may start are taken first, and those last that have only something to be told.
func TestJobsThatMayStartGoFirst(t *testing.T) {
	r := &jobReconciler{memory: newJobMemory()}
	q := newJobQueue("order", workqueue.DefaultTypedItemBasedRateLimiter[jobKey]())
	defer q.ShutDown()
	job := func(name string, change func(*batchv1.Job)) *batchv1.Job {
		j := &batchv1.Job{Spec: batchv1.JobSpec{Suspend: new(true)}}
		j.Name, j.UID, j.Annotations = name, types.UID(name), map[string]string{}
		change(j)
		return j
	}
	state := func(state string, suspend bool) func(*batchv1.Job) {
		return func(j *batchv1.Job) { j.Annotations[v1alpha1.StateAnnotation], j.Spec.Suspend = state, &suspend }
	}
	for _, j := range []*batchv1.Job{
		job("waits", state(v1alpha1.StateQueued, true)),
		job("runs", state(v1alpha1.StateAdmitted, false)),
		job("new", func(*batchv1.Job) {}),
		job("let go", state(v1alpha1.StateHeld, true)),
		job("over", func(j *batchv1.Job) {
			j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}
		}),
		job("turn", state(v1alpha1.StateQueued, true)),
	} {
		r.enqueue(q, keyOf(j), urgencyOf(j))
	}
	r.enqueue(q, keyOf(job("turn", func(*batchv1.Job) {})), toStart)
	want := []string{"turn", "over", "new", "let go", "runs", "waits"}
	if got := picked(q, len(want)); !slices.Equal(got, want) {
		t.Errorf("taken in the order %q, want %q", got, want)
	}
}

// A change of the ledger wakes its Job before all others. What this process has started already it need not hear of,
// and when changes may have been missed everything is compared at once.
func TestTheLedgersChangesWakeJobs(t *testing.T) {
	c := newJobCase(t)
	q := newJobQueue("changes", workqueue.DefaultTypedItemBasedRateLimiter[jobKey]())
	defer q.ShutDown()
	c.enqueue(q, jobKey{Name: "another", UID: "another"}, toEnd)
	turn := ledger.Change{ID: c.meter.adm.ID, Namespace: c.key.Namespace, Name: c.key.Name, State: quota.Admitted}
	done := make(chan struct{})
	go func() { defer close(done); c.follow(t.Context(), q) }()
	c.meter.changes <- turn
	c.meter.changes <- ledger.Change{}
	<-c.missed
	if got := picked(q, 2); !slices.Equal(got, []string{c.key.Name, "another"}) {
		t.Errorf("taken in the order %q, want the Job whose turn it is first", got)
	}
	if !c.unheard.Load() || !c.memory.isExpected(c.key.UID) {
		t.Error("nothing is to be compared, or it is not known that the Job is about to start")
	}
	c.meter.adm.State = quota.Admitted
	c.reconcile()
	c.meter.changes <- turn
	close(c.meter.changes)
	<-done
	if q.Len() != 0 || c.memory.isExpected(c.key.UID) {
		t.Error("a Job that was started is woken to be started")
	}
}

// byUser is a cache that finds the Jobs of a user by its index, and goes through all of them for nobody.
type byUser struct {
	client.Reader

	t    *testing.T
	jobs map[string][]batchv1.Job
}

func (c *byUser) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	o := (&client.ListOptions{}).ApplyOptions(opts)
	if o.FieldSelector == nil {
		c.t.Errorf("all Jobs are gone through for those of one user, with %+v", o)
		return nil
	}
	user, exact := o.FieldSelector.RequiresExactMatch(jobUser)
	if jobs, ok := list.(*batchv1.JobList); ok && exact {
		jobs.Items = c.jobs[user]
	}
	return nil
}

// What a UserQuota declares has that user's waiting Jobs looked at, however many of others wait.
func TestAQuotaWakesItsUsersJobs(t *testing.T) {
	jobOf := func(name, state string) batchv1.Job {
		var job batchv1.Job
		job.Name, job.UID, job.Spec.Suspend = name, types.UID(name), new(true)
		job.Annotations = map[string]string{v1alpha1.StateAnnotation: state}
		return job
	}
	r := &jobReconciler{memory: newJobMemory(), jobs: &byUser{t: t, jobs: map[string][]batchv1.Job{
		"alice": {jobOf("waits", v1alpha1.StateQueued), jobOf("runs", v1alpha1.StateAdmitted)},
		"bob":   {jobOf("another", v1alpha1.StateQueued)},
	}}}
	q := newJobQueue("quotas", workqueue.DefaultTypedItemBasedRateLimiter[jobKey]())
	defer q.ShutDown()
	var seen event.TypedUpdateEvent[*v1alpha1.UserQuota]
	seen.ObjectOld = &v1alpha1.UserQuota{Spec: v1alpha1.UserQuotaSpec{UserID: "alice"}}
	seen.ObjectNew = seen.ObjectOld.DeepCopy()
	r.quotaChanged(t.Context(), seen, q)
	if q.Len() != 0 {
		t.Error("Jobs are looked at though nothing else was declared")
	}
	seen.ObjectNew.Status.ObservedGeneration = 2
	r.quotaChanged(t.Context(), seen, q)
	if n := q.Len(); n != 1 {
		t.Fatalf("%d Jobs are looked at, want the one that waits", n)
	}
	if got := picked(q, 1); got[0] != "waits" {
		t.Errorf("looked at %q", got)
	}
}

// A Job that waits costs no look when it changes in nothing that it has not been told, and no memory once it shows
// that.
func TestWhatAJobWasToldIsNoNews(t *testing.T) {
	c := newJobCase(t)
	before := c.cache.job.DeepCopy()
	c.reconcile()
	c.refresh()
	now := c.cache.job
	if !c.heard(before, now) || len(c.memory.all()) != 0 {
		t.Errorf("what it was told is news; %d Jobs are remembered", len(c.memory.all()))
	}
	for name, tc := range map[string]struct {
		change func(*batchv1.Job)
		heard  bool
	}{
		"a note of Kubernetes": {func(j *batchv1.Job) {
			j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobSuspended, Status: corev1.ConditionTrue}}
		}, true},
		"another's message": {func(j *batchv1.Job) { j.Annotations[v1alpha1.MessageAnnotation] = "run" }, false},
		"a hold":            {func(j *batchv1.Job) { j.Annotations[v1alpha1.HoldAnnotation] = "true" }, false},
		"a start":           {func(j *batchv1.Job) { j.Spec.Suspend = new(false) }, false},
		"a shape":           {func(j *batchv1.Job) { j.Spec.Parallelism = new(int32(2)) }, false},
		"another user":      {func(j *batchv1.Job) { j.Labels[v1alpha1.UserLabel] = "bob" }, false},
		"a deletion":        {func(j *batchv1.Job) { j.DeletionTimestamp = new(metav1.Now()) }, false},
		"an end": {func(j *batchv1.Job) {
			j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}
		}, false},
	} {
		later := now.DeepCopy()
		tc.change(later)
		if got := c.heard(now, later); got != tc.heard {
			t.Errorf("%s: heard %t, want %t", name, got, tc.heard)
		}
	}
}

// What somebody else writes in place of what a Job was told is overwritten, however often.
func TestWhatAJobWasToldIsRestored(t *testing.T) {
	c := newJobCase(t)
	for _, hold := range []bool{false, true} {
		if c.refresh(); hold {
			c.cache.job.Annotations[v1alpha1.HoldAnnotation] = "true"
		}
		c.reconcile()
		for n := range 3 {
			shown := c.cache.job.DeepCopy()
			c.refresh()
			c.cache.job.Annotations[v1alpha1.HoldAnnotation] = shown.Annotations[v1alpha1.HoldAnnotation]
			c.reconcile()
			*c.writes = 0
			c.cache.job.Annotations[v1alpha1.MessageAnnotation] = "mine"
			if c.reconcile(); *c.writes != 1 {
				t.Errorf("held %t, time %d: %d writes, want one", hold, n, *c.writes)
			}
		}
	}
}

// What is remembered of Jobs that nobody can see any more goes at the next comparison.
func TestTheMemoryIsBounded(t *testing.T) {
	c := newJobCase(t)
	c.meter.adm.State = quota.Admitted
	c.reconcile()
	c.refresh()
	for n := range 100 {
		uid := types.UID(fmt.Sprint(n))
		c.memory.noteTold(uid, v1alpha1.StateHeld, "held")
		c.memory.noteNews(uid, notice{})
		c.memory.noteExpected(uid)
		c.memory.noteUnsettled(uid)
		c.memory.noteNoPod(uid, "no node")
	}
	c.looks(true, false)
	if all := c.memory.all(); len(all) != 1 {
		t.Errorf("%d Jobs are remembered, want the one that is there", len(all))
	}
	if _, runs := c.memory.admitted(c.key.UID); !runs {
		t.Error("the one that is there is forgotten")
	}
}

// The cache keeps of a Job all that decides about it, and that is little.
func TestJobsAreStrippedInTheCache(t *testing.T) {
	job := newJobCase(t).cache.job
	job.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": strings.Repeat("x", 4000)}
	for _, key := range jobAnnotations {
		job.Annotations[key] = "true"
	}
	job.Labels["app"] = "x"
	job.Spec.Template.Spec.ServiceAccountName, job.Spec.Parallelism = "transcriber", new(int32(2))
	job.Status = batchv1.JobStatus{Succeeded: 1, Failed: 2, Ready: new(int32(1)), StartTime: new(metav1.Now()),
		Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue, Message: "done"}}}
	got, err := stripJob(job)
	if err != nil {
		t.Fatal(err)
	}
	stripped := got.(*batchv1.Job)
	if urgencyOf(stripped) != urgencyOf(job) || keyOf(stripped) != keyOf(job) || ended(stripped) != ended(job) ||
		suspended(stripped) != suspended(job) || serviceAccount(stripped) != serviceAccount(job) ||
		completed(stripped) != completed(job) || jobs.Held(stripped.Annotations) != jobs.Held(job.Annotations) ||
		fmt.Sprint(jobs.CheckShape(stripped)) != fmt.Sprint(jobs.CheckShape(job)) ||
		stripped.ResourceVersion != job.ResourceVersion || *stripped.Status.Ready != 1 || stripped.Status.Failed != 2 ||
		stripped.Labels[v1alpha1.UserLabel] != "alice" || stripped.Status.StartTime == nil {
		t.Errorf("the stripped Job is another one: %+v", stripped)
	}
	for _, key := range jobAnnotations {
		if stripped.Annotations[key] != "true" {
			t.Errorf("annotation %s is gone", key)
		}
	}
	if size := stripped.Size(); size > 1000 || len(stripped.Spec.Template.Spec.Containers) > 0 {
		t.Errorf("%d bytes are kept", size)
	}
}

// While the database is away nothing fails: it is tried again later, and not by all at once.
func TestJobsWaitForTheDatabase(t *testing.T) {
	c := newJobCase(t)
	c.meter.err = fmt.Errorf("%w: dial", ledger.ErrUnavailable)
	waits := map[time.Duration]bool{}
	for range 10 {
		res := c.reconcile()
		if res.RequeueAfter < unavailableRetry || res.RequeueAfter > 2*unavailableRetry {
			t.Errorf("tried again after %s", res.RequeueAfter)
		}
		waits[res.RequeueAfter] = true
	}
	if len(waits) < 2 {
		t.Errorf("all are tried again at the same time: %v", waits)
	}
	c.wantEvents()
}

// The sweep has a Job's message say that it seems stuck, and say no more of it when it does not.
func TestStuckJobsSaySo(t *testing.T) {
	c := newJobCase(t)
	c.meter.adm.State = quota.Admitted
	c.reconcile()
	const fine = "1 credits are reserved"
	for _, step := range []struct {
		stuck quota.Stuck
		want  string
	}{
		{"", fine}, {quota.StuckOverEstimate, fine + "; stuck: it has run"},
		{quota.StuckNoHeartbeat, fine + "; stuck: nobody has seen it"}, {"", fine},
	} {
		c.refresh()
		c.meter.adm.Stuck = step.stuck
		shown, queued := c.cache.job.Annotations[v1alpha1.MessageAnnotation], 0
		if err := c.sweep(t.Context(), false, false, func(jobKey, urgency) { queued++ }); err != nil {
			t.Fatal(err)
		}
		if right := shown == fine+stuckText(step.stuck); right != (queued == 0) {
			t.Errorf("%q with %q: %d looks", shown, step.stuck, queued)
		}
		c.reconcile()
		c.refresh()
		if got := c.cache.job.Annotations[v1alpha1.MessageAnnotation]; !strings.HasPrefix(got, step.want) ||
			step.stuck == "" && got != step.want {
			t.Errorf("message %q, want %q", got, step.want)
		}
		if err := c.sweep(t.Context(), false, false,
			func(jobKey, urgency) { t.Error("a Job that shows what the ledger says is looked at again") }); err != nil {
			t.Fatal(err)
		}
	}
}

// Without the right to spend nothing is asked of the ledger, and an answer that nobody has is no permission.
func TestJobsWithoutTheRightAreNotAdmitted(t *testing.T) {
	c := newJobCase(t)
	c.meter.err = ledger.ErrNotFound
	c.may.may, c.may.err = false, errors.New("the API server does not answer")
	if _, err := c.Reconcile(t.Context(), c.key); !errors.Is(err, c.may.err) {
		t.Errorf("got %v, want to be asked again", err)
	}
	c.may.err = nil
	for range 3 {
		if res := c.reconcile(); res.RequeueAfter == 0 {
			t.Error("it is not asked for again")
		}
		c.refresh()
	}
	c.wantEvents("Unauthorized")
	if c.meter.admits > 0 || !*c.cache.job.Spec.Suspend {
		t.Errorf("asked %d times, suspended %t", c.meter.admits, *c.cache.job.Spec.Suspend)
	}
	message := c.cache.job.Annotations[v1alpha1.MessageAnnotation]
	for _, want := range []string{"'default'", "'alice'", "'spend'", c.key.Namespace} {
		if !strings.Contains(message, want) {
			t.Errorf("message %q does not contain %q", message, want)
		}
	}
}

// A right that is withdrawn ends what waits, with its slot, and not what runs.
func TestJobsWhoseRightIsWithdrawn(t *testing.T) {
	for name, running := range map[string]bool{"waits": false, "runs": true} {
		t.Run(name, func(t *testing.T) {
			c := newJobCase(t)
			if running {
				c.meter.adm.State = quota.Admitted
			}
			c.reconcile()
			c.refresh()
			c.meter.adm.State, c.may.may = quota.Admitted, false
			c.memory = newJobMemory() // another manager, which knows nothing yet
			c.reconcile()
			c.refresh()
			state := c.cache.job.Annotations[v1alpha1.StateAnnotation]
			if running && (state != v1alpha1.StateAdmitted || len(c.meter.settled) > 0) {
				t.Errorf("state %q, settled %v, want it to go on", state, c.meter.settled)
			}
			if !running && (state != v1alpha1.StateUnauthorized || fmt.Sprint(c.meter.settled) != "[0]" ||
				!*c.cache.job.Spec.Suspend) {
				t.Errorf("state %q, settled %v, want it to give back what it held", state, c.meter.settled)
			}
		})
	}
}

// What a Job says of itself moves nothing: the ledger is asked.
func TestJobsDoNotDecideByTheirAnnotations(t *testing.T) {
	for _, state := range []string{v1alpha1.StateAdmitted, v1alpha1.StateSettled, v1alpha1.StateReleased} {
		t.Run(state, func(t *testing.T) {
			c := newJobCase(t)
			c.cache.job.Annotations[v1alpha1.StateAnnotation] = state
			c.cache.job.Spec.Suspend = new(false)
			c.reconcile()
			if c.meter.admits != 1 {
				t.Errorf("the ledger was asked %d times, want once", c.meter.admits)
			}
			c.meter.adm.State = quota.Admitted
			c.cache.job.Status.Conditions = []batchv1.JobCondition{
				{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}
			if err := c.sweep(t.Context(), false, false, func(jobKey, urgency) {}); err != nil {
				t.Fatal(err)
			}
			c.reconcile()
			if len(c.meter.settled) != 1 {
				t.Errorf("settled %v, want once", c.meter.settled)
			}
		})
	}
}

// A Job that is Complete without a pod, whatever made it so, has used nothing.
func TestJobsWithoutAPodAreNotCharged(t *testing.T) {
	for succeeded, want := range map[int32]quota.Credits{0: 0, 1: quota.Credit} {
		c := newJobCase(t)
		c.meter.adm.State = quota.Admitted
		c.cache.job.Status.Conditions = []batchv1.JobCondition{
			{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
		c.cache.job.Status.Succeeded = succeeded
		c.reconcile()
		if len(c.meter.settled) != 1 || c.meter.settled[0] != want {
			t.Errorf("%d pods succeeded: settled %v, want %v", succeeded, c.meter.settled, want)
		}
	}
}

// looks are how often the sweeps would have the Job looked at.
func (c *jobCase) looks(whole, renew bool) (n int) {
	c.t.Helper()
	if err := c.sweep(c.t.Context(), whole, renew, func(jobKey, urgency) { n++ }); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// lostCount is what usage_job_wakeups_lost_total says.
func lostCount(t *testing.T) float64 {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "usage_job_wakeups_lost_total" {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatal("nobody shows how many wake-ups were lost")
	return 0
}

// A Job whose turn came while nobody told is found among those that run, without reading what waits.
func TestJobsAreFoundWhoseTurnNobodyTold(t *testing.T) {
	c := newJobCase(t)
	c.reconcile()
	c.refresh()
	c.meter.adm.State = quota.Admitted
	lost := lostCount(t)
	counted := func(want float64, when string) {
		t.Helper()
		if got := lostCount(t) - lost; got != want {
			t.Errorf("%v wake-ups were counted as lost %s, want %v", got, when, want)
		}
	}
	c.began = false
	c.looks(true, false)
	counted(0, "when the controller starts: nobody can have heard")
	c.began, c.memory, c.meter.lives = true, newJobMemory(), 0
	c.meter.adm.AdmittedAt = time.Now()
	c.looks(false, false)
	counted(0, "that may be on their way")
	c.memory.forgetExpected(c.key.UID)
	c.meter.adm.AdmittedAt = time.Now().Add(-time.Minute)
	for range 2 {
		if got := c.looks(false, false); got != 1 {
			t.Errorf("%d looks, want one", got)
		}
		counted(1, "of one Job that is about to be started now")
	}
	c.reconcile()
	c.refresh()
	if *c.cache.job.Spec.Suspend {
		t.Error("it was not started")
	}
	if got := c.looks(false, true); got != 0 || c.meter.renewed != 1 {
		t.Errorf("%d looks and %d leases renewed, want none and one", got, c.meter.renewed)
	}
	if c.meter.lives != 0 {
		t.Error("all that lives was read")
	}
}

// A Job that waits is left alone, and its lease as well, until what it would be told is something else.
func TestJobsThatWaitAreLeftAlone(t *testing.T) {
	c := newJobCase(t)
	c.reconcile()
	c.refresh()
	for _, whole := range []bool{false, true} {
		if got := c.looks(whole, true); got != 0 || c.meter.renewed != 0 {
			t.Errorf("whole %t: %d looks and %d leases renewed, want none", whole, got, c.meter.renewed)
		}
	}
	c.meter.adm.Position, c.meter.adm.Waiting = 3, 7
	if got := c.looks(true, false); got != 0 {
		t.Errorf("%d looks at a Job whose queue has changed", got)
	}
	c.meter.adm.Parked, c.meter.adm.Reason = true, quota.UserSuspended
	if got := c.looks(true, false); got != 1 {
		t.Errorf("%d looks after its reason has changed, want one", got)
	}
	c.cache.job.Annotations[v1alpha1.StateAnnotation] = v1alpha1.StateHeld
	if got := c.looks(true, false); got != 0 {
		t.Errorf("%d looks at a Job that is held", got)
	}
}

// Whether a Job is gone only its own cluster can tell: another one that hears of its admission leaves it alone.
func TestJobsOfAnotherClusterAreLeftAlone(t *testing.T) {
	c := newJobCase(t)
	c.cluster = quota.ID{1}
	c.meter.adm.State, c.meter.adm.Cluster = quota.Admitted, quota.ID{2}
	c.cache.job = &batchv1.Job{}
	c.key.UID = "0d8c4bd2-6b2c-4b34-9d9e-9c44b35f3a11"
	c.reconcile()
	if len(c.meter.settled) > 0 {
		t.Errorf("settled with %v", c.meter.settled)
	}
	c.meter.adm.Cluster = c.cluster
	c.reconcile()
	if len(c.meter.settled) != 1 {
		t.Errorf("its own was settled %d times, want once", len(c.meter.settled))
	}
}

// A Job whose turn came while its cluster could not hear of it has as long for its first pod as any other.
func TestATurnThatWasHeardOfLate(t *testing.T) {
	c := newJobCase(t)
	c.meter.adm.State, c.meter.adm.AdmittedAt = quota.Admitted, time.Now().Add(-2*DefaultStartTimeout)
	c.reconcile()
	c.refresh()
	if suspended(c.cache.job) {
		t.Fatal("it was not started")
	}
	// Kubernetes has not said yet that it has begun.
	c.reconcile()
	c.refresh()
	if suspended(c.cache.job) {
		t.Errorf("it has been stopped: %s", c.cache.job.Annotations[v1alpha1.MessageAnnotation])
	}
}

// What has waited for too long stays suspended, is told for what and how long, and once.
func TestJobThatWaitedTooLong(t *testing.T) {
	c := newJobCase(t)
	c.reconcile()
	adm := c.meter.adm
	adm.State, adm.Reason, adm.WaitedFor, adm.MaxWait = quota.Cancelled, quota.WaitedTooLong, quota.CreditsExhausted,
		time.Hour
	adm.CreatedAt = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	adm.EndedAt = adm.CreatedAt.Add(time.Hour + 3*time.Second)
	for range 3 {
		if res := c.reconcile(); res != (reconcile.Result{}) {
			t.Errorf("it is to be looked at again: %+v", res)
		}
		c.refresh()
	}
	c.wantEvents("Refused")
	const want = "WaitedTooLong: it waited 1h0m3s (CreditsExhausted), the plan lets work wait 1h0m0s at most: " +
		"create a new Job"
	job := c.cache.job
	if job.Annotations[v1alpha1.StateAnnotation] != v1alpha1.StateRefused ||
		job.Annotations[v1alpha1.MessageAnnotation] != want || !suspended(job) {
		t.Errorf("got %v, suspended %t", job.Annotations, suspended(job))
	}
}
