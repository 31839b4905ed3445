// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
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
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
)

// meter answers as the test says; what it has not been given is not asked.
type meter struct {
	JobMeter

	adm *metering.Admission
	err error
}

func (m *meter) Admit(context.Context, metering.AdmitRequest) (metering.AdmitResult, error) {
	account := &quota.Account{Plan: &quota.Plan{Limits: quota.Limits{Concurrent: quota.AtMost(int32(1))}}, Balance: quota.Balance{Active: 1}}
	return metering.AdmitResult{Admission: m.adm, Account: account}, m.err
}

func (m *meter) Get(context.Context, quota.ID) (*metering.Admission, error) { return m.adm, m.err }

func (m *meter) SettleJob(context.Context, quota.ID, quota.Credits) (*metering.Admission, error) {
	m.adm.State, m.adm.Actual = quota.Settled, new(quota.Credit)
	return m.adm, m.err
}

func (m *meter) LiveJobs(context.Context) ([]*metering.Admission, error) {
	return []*metering.Admission{m.adm}, m.err
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

// jobCase is a Job on a real API server, and a reconciler that sees it through a cache of the test's.
type jobCase struct {
	*jobReconciler

	t     *testing.T
	meter *meter
	cache *cached
	key   jobKey
	told  chan string
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
		RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: "example.com/none"}},
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
		meter: &meter{adm: &metering.Admission{
			Admission: quota.Admission{ID: id, State: quota.Queued, Reason: quota.ConcurrencyLimit, Request: quota.Request{Estimate: quota.Credit}, Enforced: true},
			Namespace: job.Namespace, Name: job.Name, Position: 1, Waiting: 1,
		}},
	}
	recorder := events.NewFakeRecorder(100)
	c.told = recorder.Events
	c.jobReconciler = &jobReconciler{
		svc: c.meter, client: env.Client, jobs: c.cache, live: env.Client, events: recorder, memory: newJobMemory(),
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
	for range 3 {
		c.reconcile()
	}
	c.wantEvents("Settled")
}

// While the database is away nothing fails: it is tried again later, and not by all at once.
func TestJobsWaitForTheDatabase(t *testing.T) {
	c := newJobCase(t)
	c.meter.err = fmt.Errorf("%w: dial", metering.ErrUnavailable)
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
		{"", fine}, {quota.StuckOverEstimate, fine + "; stuck: it has run"}, {quota.StuckNoHeartbeat, fine + "; stuck: nobody has seen it"}, {"", fine},
	} {
		c.refresh()
		c.meter.adm.Stuck = step.stuck
		shown, queued := c.cache.job.Annotations[v1alpha1.MessageAnnotation], 0
		if err := c.sweep(t.Context(), false, func(jobKey) { queued++ }); err != nil {
			t.Fatal(err)
		}
		if right := shown == withStuck(fine, step.stuck); right != (queued == 0) {
			t.Errorf("%q with %q: %d looks", shown, step.stuck, queued)
		}
		c.reconcile()
		c.refresh()
		if got := c.cache.job.Annotations[v1alpha1.MessageAnnotation]; !strings.HasPrefix(got, step.want) || step.stuck == "" && got != step.want {
			t.Errorf("message %q, want %q", got, step.want)
		}
		if err := c.sweep(t.Context(), false, func(jobKey) { t.Error("a Job that shows what the ledger says is looked at again") }); err != nil {
			t.Fatal(err)
		}
	}
}
