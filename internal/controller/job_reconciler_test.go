// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
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
	return metering.AdmitResult{Admission: m.adm, Account: m.account()}, m.err
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

func (m *meter) WaitingJobs(context.Context, ledger.Turn) ([]metering.WaitingJob, ledger.Turn, error) {
	if m.adm.State != quota.Queued {
		return nil, ledger.Turn{}, m.err
	}
	w := metering.WaitingJob{Admission: m.adm, Usage: ledger.Usage{Account: m.account()}}
	return []metering.WaitingJob{w}, ledger.Turn{}, m.err
}

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

// List has no pods: only a cache has the index.
func (*cached) List(context.Context, client.ObjectList, ...client.ListOption) error { return nil }

// jobCase is a Job on a real API server, and a reconciler that sees it through a cache of the test's.
type jobCase struct {
	*jobReconciler

	t     *testing.T
	meter *meter
	cache *cached
	key   jobKey
	told  chan string
	may   *rights
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
		}},
	}
	recorder := events.NewFakeRecorder(100)
	c.told, c.may = recorder.Events, &rights{may: true}
	c.jobReconciler = &jobReconciler{
		svc: c.meter, queue: c.meter, records: c.meter, client: env.Client, jobs: c.cache, live: env.Client,
		events: recorder, memory: newJobMemory(),
		rights:       c.may,
		startTimeout: DefaultStartTimeout,
	}
	return c
}

func (c *jobCase) reconcile() reconcile.Result {
	c.t.Helper()
	res, err := c.Reconcile(c.t.Context(), c.key)
	if err != nil {
		c.t.Fatal(err)
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
	for range 3 {
		c.reconcile()
	}
	c.wantEvents("Queued")
	c.meter.adm.State = quota.Admitted
	for range 3 {
		c.reconcile()
	}
	c.wantEvents("Admitted")
	c.cache.job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
	c.cache.job.Status.Succeeded = 1
	for range 3 {
		c.reconcile()
	}
	c.wantEvents("Settled")
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
		if err := c.sweep(t.Context(), false, false, func(jobKey) { queued++ }); err != nil {
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
			func(jobKey) { t.Error("a Job that shows what the ledger says is looked at again") }); err != nil {
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
			if err := c.sweep(t.Context(), false, false, func(jobKey) {}); err != nil {
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
	add := func(jobKey) { n++ }
	if err := c.sweep(c.t.Context(), whole, renew, add); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.sweepWaiting(c.t.Context(), ledger.Turn{}, add); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// A Job whose turn came while nobody told is found among those that run, without reading what waits.
func TestJobsAreFoundWhoseTurnNobodyTold(t *testing.T) {
	c := newJobCase(t)
	c.reconcile()
	c.refresh()
	c.meter.adm.State = quota.Admitted
	if got := c.looks(false, false); got != 1 {
		t.Errorf("%d looks, want one", got)
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
	c.meter.adm.Waiting = 7
	if got := c.looks(false, false); got != 0 {
		t.Errorf("%d looks at a Job that was told its place a moment ago", got)
	}
	c.memory = newJobMemory() // a while later
	if got := c.looks(false, false); got != 1 {
		t.Errorf("%d looks after its queue has grown, want one", got)
	}
	c.reconcile()
	c.refresh()
	if got := c.cache.job.Annotations[v1alpha1.MessageAnnotation]; !strings.HasSuffix(got, "position 1 of 7") {
		t.Errorf("message %q", got)
	}
	c.meter.adm.Parked, c.meter.adm.Reason = true, quota.UserSuspended
	if got := c.looks(false, false); got != 1 {
		t.Errorf("%d looks after its reason has changed, want one", got)
	}
	c.cache.job.Annotations[v1alpha1.HoldAnnotation] = "true"
	if got := c.looks(false, false); got != 0 {
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
	c.wantEvents("Queued")
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
