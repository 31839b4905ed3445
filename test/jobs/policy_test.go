// SPDX-License-Identifier: Apache-2.0

// Package jobs_test plays Jobs against a real API server, kube-controller-manager and PostgreSQL: the admission
// policies, the webhook and the controller together.
package jobs_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
)

const managerName = "system:serviceaccount:usage-operator-system:usage-operator-manager"

func TestMain(m *testing.M) {
	kubetest.Main(m, kubetest.WithManifests("config/policy"))
}

// newJob is a Job that is accepted.
func newJob(namespace, name string, change ...func(*batchv1.Job)) *batchv1.Job {
	suspend := true
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, Labels: map[string]string{v1alpha1.UserLabel: "alice"},
			Annotations: map[string]string{v1alpha1.AudioDurationAnnotation: "2m"},
		},
		Spec: batchv1.JobSpec{
			Suspend: &suspend,
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever, ServiceAccountName: "transcriber",
				Containers: []corev1.Container{{Name: "main", Image: "example.com/none"}},
			}},
		},
	}
	for _, f := range change {
		f(job)
	}
	return job
}

func label(key, value string) func(*batchv1.Job) {
	return func(j *batchv1.Job) { j.Labels[key] = value }
}

func annotate(key, value string) func(*batchv1.Job) {
	return func(j *batchv1.Job) { j.Annotations[key] = value }
}

func unlabelled(j *batchv1.Job) { j.Labels = nil }

func running(j *batchv1.Job) { *j.Spec.Suspend = false }

// namespace returns a namespace in which the policies apply and service account transcriber may spend for the users.
func namespace(t *testing.T, env *kubetest.Env, labels map[string]string, users ...string) string {
	t.Helper()
	ns := env.Namespace(t, labels)
	env.ServiceAccount(t, ns, "transcriber")
	for _, object := range []client.Object{
		&rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "spend"},
			Rules: []rbacv1.PolicyRule{{
				APIGroups: []string{v1alpha1.Group}, Resources: []string{v1alpha1.UsersResource}, ResourceNames: users,
				Verbs: []string{v1alpha1.SpendVerb},
			}},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "spend"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "spend"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "transcriber"}},
		},
	} {
		if err := env.Client.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	if labels[v1alpha1.EnforcementLabel] == v1alpha1.EnforcementOff {
		return ns
	}
	// The API server needs a moment to see policies and rights; both show when a good Job passes and a bad one does
	// not.
	lastProbe := ""
	defer func() {
		if t.Failed() {
			t.Log(lastProbe)
		}
	}()
	eventually(t, "the policies and rights are in force", func(ctx context.Context) bool {
		warned := &warnings{}
		c := env.NewClient(t, warned.on(env.Config))
		err := c.Create(ctx, newJob(ns, "probe", annotate(v1alpha1.PriorityAnnotation, "x")), client.DryRunAll)
		bad := strings.Contains(strings.Join(append(warned.all(), text(err)), " "), "priority")
		good := env.Client.Create(ctx, newJob(ns, "probe"), client.DryRunAll)
		lastProbe = fmt.Sprintf("the bad one: %v %q; the good one: %v", err, warned.all(), good)
		return bad && good == nil
	})
	return ns
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func eventually(t *testing.T, what string, condition func(context.Context) bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 20*time.Second, true,
		func(ctx context.Context) (bool, error) {
			return condition(ctx), nil
		})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// warnings collects what the API server warns of.
type warnings struct {
	mu   sync.Mutex
	list []string
}

func (w *warnings) on(config *rest.Config) *rest.Config {
	c := rest.CopyConfig(config)
	c.WarningHandler = w
	return c
}

// HandleWarningHeader implements rest.WarningHandler.
func (w *warnings) HandleWarningHeader(_ int, _, message string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, message)
}

func (w *warnings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.list...)
}

func refusedWith(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted, want a refusal with %q", want)
	}
	for _, w := range append(want, "denied") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("refusal %q does not contain %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "resulted in error") {
		t.Errorf("refusal %q is about a rule that failed to run", err)
	}
}

func TestPolicyOnCreation(t *testing.T) {
	env := kubetest.Shared(t)
	ns := namespace(t, env, nil, "alice")
	two := int32(2)
	for name, tc := range map[string]struct {
		change func(*batchv1.Job)
		want   []string
	}{
		"as it should be": {change: func(*batchv1.Job) {}},
		"everything declared": {change: func(j *batchv1.Job) {
			j.Annotations[v1alpha1.AudioDurationAnnotation] = "1h2m3.5s7ms"
			j.Annotations[v1alpha1.FileSizeAnnotation] = "1Ti"
			j.Annotations[v1alpha1.PriorityAnnotation] = "-1000"
			j.Annotations[v1alpha1.ContainerAnnotation] = "main"
			j.Annotations[v1alpha1.HoldAnnotation] = "true"
		}},
		"the longest audio": {change: annotate(v1alpha1.AudioDurationAnnotation, "720h")},
		"unrelated":         {change: func(j *batchv1.Job) { unlabelled(j); running(j); j.Spec.Parallelism = &two }},
		"no right": {label(v1alpha1.UserLabel, "bob"),
			[]string{"spec.template.spec.serviceAccountName", "'transcriber'", "'bob'", "spend"}},
		"no service account": {func(j *batchv1.Job) { j.Spec.Template.Spec.ServiceAccountName = "" },
			[]string{"'default'", "'alice'", "spend"}},
		"empty user":    {label(v1alpha1.UserLabel, ""), []string{v1alpha1.UserLabel, "''", "63"}},
		"not suspended": {running, []string{"spec.suspend", "set suspend: true", "webhook", "not reachable"}},
		"parallelism": {func(j *batchv1.Job) { j.Spec.Parallelism = &two },
			[]string{"spec.parallelism", "is 2", "limit is 1"}},
		"completions": {func(j *batchv1.Job) { j.Spec.Completions = &two },
			[]string{"spec.completions", "is 2", "limit is 1"}},
		"managedBy": {func(j *batchv1.Job) { m := "example.com/other"; j.Spec.ManagedBy = &m },
			[]string{"spec.managedBy", "example.com/other"}},
		"Kueue": {label("kueue.x-k8s.io/queue-name", "team"),
			[]string{"kueue.x-k8s.io/queue-name", "'team'"}},
		"no duration": {func(j *batchv1.Job) { j.Annotations = nil },
			[]string{v1alpha1.AudioDurationAnnotation, "required", "720h"}},
		"zero duration": {annotate(v1alpha1.AudioDurationAnnotation, "0s"),
			[]string{v1alpha1.AudioDurationAnnotation, "'0s'", "720h"}},
		"negative duration": {annotate(v1alpha1.AudioDurationAnnotation, "-2m"), []string{"'-2m'"}},
		"duration too long": {annotate(v1alpha1.AudioDurationAnnotation, "720h1ms"), []string{"'720h1ms'", "720h"}},
		"absurd duration": {annotate(v1alpha1.AudioDurationAnnotation, "99999999999999999999h"),
			[]string{"99999999999999999999h", "720h"}},
		"part of millisecond": {annotate(v1alpha1.AudioDurationAnnotation, "1.0005s"),
			[]string{"'1.0005s'", "whole number of milliseconds"}},
		"not a duration": {annotate(v1alpha1.AudioDurationAnnotation, "long"), []string{"'long'"}},
		"zero size": {annotate(v1alpha1.FileSizeAnnotation, "0"),
			[]string{v1alpha1.FileSizeAnnotation, "'0'", "1Ti"}},
		"negative size": {annotate(v1alpha1.FileSizeAnnotation, "-1Mi"), []string{"'-1Mi'"}},
		"absurd size":   {annotate(v1alpha1.FileSizeAnnotation, "9999Ei"), []string{"'9999Ei'", "1Ti"}},
		"not a size":    {annotate(v1alpha1.FileSizeAnnotation, "big"), []string{"'big'"}},
		"priority too high": {annotate(v1alpha1.PriorityAnnotation, "1001"),
			[]string{v1alpha1.PriorityAnnotation, "'1001'", "1000"}},
		"priority not integer": {annotate(v1alpha1.PriorityAnnotation, "1.5"), []string{"'1.5'"}},
		"unknown container": {annotate(v1alpha1.ContainerAnnotation, "other"),
			[]string{v1alpha1.ContainerAnnotation, "'other'", "main"}},
		"hold": {annotate(v1alpha1.HoldAnnotation, "yes"),
			[]string{v1alpha1.HoldAnnotation, "'yes'", "true or false"}},
		"state": {annotate(v1alpha1.StateAnnotation, "Admitted"),
			[]string{v1alpha1.StateAnnotation, "usage-operator only"}},
	} {
		t.Run(name, func(t *testing.T) {
			// A dry run passes the same policies.
			err := env.Client.Create(t.Context(), newJob(ns, "job", tc.change), client.DryRunAll)
			if tc.want != nil {
				refusedWith(t, err, tc.want...)
			} else if err != nil {
				t.Errorf("refused: %v", err)
			}
		})
	}
	var left batchv1.JobList
	if err := env.Client.List(t.Context(), &left, client.InNamespace(ns)); err != nil || len(left.Items) > 0 {
		t.Errorf("after dry runs: %d Jobs, %v, want none", len(left.Items), err)
	}
}

func TestPolicyOnUpdate(t *testing.T) {
	env := kubetest.Shared(t)
	ns := namespace(t, env, nil, "alice", "carol")
	if err := env.Client.Create(t.Context(),
		newJob(ns, "job", annotate(v1alpha1.FileSizeAnnotation, "1Mi"))); err != nil {
		t.Fatal(err)
	}
	if err := env.Client.Create(t.Context(), newJob(ns, "plain", unlabelled)); err != nil {
		t.Fatal(err)
	}
	manager := env.NewClient(t, env.Impersonate(managerName, "system:masters"))
	for name, tc := range map[string]struct {
		as    client.Client
		job   string
		patch string
		want  []string
	}{
		"something else": {patch: `{"metadata":{"annotations":{"example.com/a":"b"}}}`},
		"hold":           {patch: `{"metadata":{"annotations":{"usage.cantonesescribe.io/hold":"true"}}}`},
		"another user": {patch: `{"metadata":{"labels":{"usage.cantonesescribe.io/user":"carol"}}}`,
			want: []string{v1alpha1.UserLabel, "'alice'", "'carol'"}},
		"no user": {patch: `{"metadata":{"labels":{"usage.cantonesescribe.io/user":null}}}`,
			want: []string{v1alpha1.UserLabel, "'alice'"}},
		"a user afterwards": {job: "plain",
			patch: `{"metadata":{"labels":{"usage.cantonesescribe.io/user":"alice"}}}`,
			want:  []string{v1alpha1.UserLabel}},
		"duration": {
			patch: `{"metadata":{"annotations":{"usage.cantonesescribe.io/audio-duration":"1m"}}}`,
			want:  []string{v1alpha1.AudioDurationAnnotation}},
		"size": {patch: `{"metadata":{"annotations":{"usage.cantonesescribe.io/file-size":null}}}`,
			want: []string{v1alpha1.FileSizeAnnotation}},
		"container": {patch: `{"metadata":{"annotations":{"usage.cantonesescribe.io/container":"main"}}}`,
			want: []string{v1alpha1.ContainerAnnotation}},
		"priority": {patch: `{"metadata":{"annotations":{"usage.cantonesescribe.io/priority":"5"}}}`,
			want: []string{v1alpha1.PriorityAnnotation}},
		"state": {patch: `{"metadata":{"annotations":{"usage.cantonesescribe.io/state":"Settled"}}}`,
			want: []string{v1alpha1.StateAnnotation}},
		"message": {patch: `{"metadata":{"annotations":{"usage.cantonesescribe.io/message":"x"}}}`,
			want: []string{v1alpha1.MessageAnnotation}},
		"start by hand": {patch: `{"spec":{"suspend":false}}`, want: []string{"spec.suspend", "'alice'"}},
		"parallelism":   {patch: `{"spec":{"parallelism":2}}`, want: []string{"spec.parallelism", "is 2"}},
		"Kueue": {patch: `{"metadata":{"labels":{"kueue.x-k8s.io/queue-name":"q"}}}`,
			want: []string{"kueue.x-k8s.io/queue-name"}},
		"started by the manager": {as: manager,
			patch: `{"metadata":{"annotations":{"usage.cantonesescribe.io/state":"Admitted"}},` +
				`"spec":{"suspend":false}}`},
	} {
		t.Run(name, func(t *testing.T) {
			c, job := tc.as, tc.job
			if c == nil {
				c = env.Client
			}
			if job == "" {
				job = "job"
			}
			err := c.Patch(t.Context(), newJob(ns, job),
				client.RawPatch("application/merge-patch+json", []byte(tc.patch)), client.DryRunAll)
			if tc.want != nil {
				refusedWith(t, err, tc.want...)
			} else if err != nil {
				t.Errorf("refused: %v", err)
			}
		})
	}
}

func TestPolicyModes(t *testing.T) {
	env := kubetest.Shared(t)
	t.Run("a namespace that warns", func(t *testing.T) {
		ns := namespace(t, env, map[string]string{v1alpha1.EnforcementLabel: v1alpha1.EnforcementWarn}, "alice")
		warned := &warnings{}
		c := env.NewClient(t, warned.on(env.Config))
		if err := c.Create(t.Context(), newJob(ns, "fine", running)); err != nil || len(warned.all()) > 0 {
			t.Errorf("a Job that runs at once: %v, warnings %q, want neither", err, warned.all())
		}
		if err := c.Create(t.Context(), newJob(ns, "bob", label(v1alpha1.UserLabel, "bob"))); err != nil {
			t.Errorf("a Job without the right: %v, want a warning only", err)
		}
		if got := strings.Join(warned.all(), " "); !strings.Contains(got, "spend") || !strings.Contains(got, "'bob'") {
			t.Errorf("warnings: %q, want one about the right to spend", got)
		}
	})
	t.Run("a namespace that is off", func(t *testing.T) {
		ns := namespace(t, env, map[string]string{v1alpha1.EnforcementLabel: v1alpha1.EnforcementOff}, "alice")
		if err := env.Client.Create(t.Context(), newJob(ns, "any", running, label(v1alpha1.UserLabel, "bob"),
			func(j *batchv1.Job) { j.Annotations = nil })); err != nil {
			t.Errorf("refused: %v", err)
		}
	})
	t.Run("a namespace that requires the label", func(t *testing.T) {
		ns := namespace(t, env, map[string]string{v1alpha1.RequireUserLabel: "true"}, "alice")
		refusedWith(t, env.Client.Create(t.Context(), newJob(ns, "plain", unlabelled)), v1alpha1.UserLabel,
			"require-user", ns)
		if err := env.Client.Create(t.Context(), newJob(ns, "labelled")); err != nil {
			t.Errorf("with the label: %v", err)
		}
	})
}

func TestPolicyOnCronJobs(t *testing.T) {
	env := kubetest.Shared(t)
	ns := namespace(t, env, nil, "alice")
	cron := func(user string) *batchv1.CronJob {
		job := newJob(ns, "cron", label(v1alpha1.UserLabel, user))
		return &batchv1.CronJob{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "cron"},
			Spec: batchv1.CronJobSpec{Schedule: "0 3 * * *", JobTemplate: batchv1.JobTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: job.Labels, Annotations: job.Annotations}, Spec: job.Spec,
			}},
		}
	}
	refusedWith(t, env.Client.Create(t.Context(), cron("bob")), "spec.jobTemplate", "'bob'", "spend")
	if err := env.Client.Create(t.Context(), cron("alice")); err != nil {
		t.Fatal(err)
	}
	patch := func(body string) error {
		return env.Client.Patch(t.Context(), cron("alice"),
			client.RawPatch("application/merge-patch+json", []byte(body)))
	}
	refusedWith(t, patch(`{"spec":{"jobTemplate":{"metadata":{"labels":{"usage.cantonesescribe.io/user":"bob"}}}}}`),
		"'bob'", "spend")
	if err := patch(`{"spec":{"suspend":true}}`); err != nil {
		t.Errorf("suspend it: %v", err)
	}
}
