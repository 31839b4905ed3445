// SPDX-License-Identifier: Apache-2.0

package jobs_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// documented writes the Job of docs/jobs.md, under another name and of shorter audio, to a file.
func documented(t *testing.T, name string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/jobs.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	text, _, found := strings.Cut(rest, "```")
	if !found || !strings.Contains(text, "suspend: true") || !strings.Contains(text, "name: interview") {
		t.Fatalf("docs/jobs.md does not begin with a Job that is suspended, but with\n%s", text)
	}
	file := filepath.Join(t.TempDir(), "job.yaml")
	text = strings.NewReplacer("name: interview", "name: "+name, "12m30s", "2m").Replace(text)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// pod waits for the one pod of a Job and returns its UID.
func (w *world) pod(t *testing.T, ns, name string) types.UID {
	t.Helper()
	var uid types.UID
	eventually(t, name+" has a pod", func(ctx context.Context) bool {
		var pods corev1.PodList
		err := w.Client.List(ctx, &pods, client.InNamespace(ns), client.MatchingLabels{batchv1.JobNameLabel: name})
		if err != nil || len(pods.Items) != 1 || pods.Items[0].DeletionTimestamp != nil {
			return false
		}
		uid = pods.Items[0].UID
		return true
	})
	return uid
}

// What was written for a Job's creation can be applied again at any time.
func TestJobsCanBeAppliedAgain(t *testing.T) {
	w := newWorld(t)
	for name, tc := range map[string]struct {
		mode string
		args []string
	}{
		"client-side": {v1alpha1.EnforcementEnforce, nil},
		"server-side": {v1alpha1.EnforcementEnforce,
			[]string{"--server-side", "--field-manager=gitops"}},
		"client-side where it is only warned of": {v1alpha1.EnforcementWarn, nil},
		"server-side where it is only warned of": {v1alpha1.EnforcementWarn,
			[]string{"--server-side", "--field-manager=gitops"}},
	} {
		t.Run(name, func(t *testing.T) {
			// Alice has one slot: each of them ends before the next begins.
			ns := namespace(t, w.Env, map[string]string{v1alpha1.EnforcementLabel: tc.mode}, "alice")
			file := documented(t, "again")
			apply := func() error {
				_, err := w.Kubectl(t.Context(), append([]string{"apply", "-n", ns, "-f", file}, tc.args...)...)
				return err
			}
			if err := apply(); err != nil {
				t.Fatal(err)
			}
			w.waitState(t, ns, "again", v1alpha1.StateAdmitted)
			uid := w.pod(t, ns, "again")
			for range 3 {
				if err := apply(); err != nil {
					t.Fatal(err)
				}
				if job := w.job(t.Context(), ns, "again"); *job.Spec.Suspend {
					t.Fatal("it was stopped")
				}
			}
			if got := w.pod(t, ns, "again"); got != uid {
				t.Error("it has another pod")
			}
			w.finish(t, ns, "again", corev1.PodSucceeded, "")
			w.waitState(t, ns, "again", v1alpha1.StateSettled)
			if err := apply(); err != nil {
				t.Errorf("when it is over: %v", err)
			}
			if err := w.Client.Delete(t.Context(), w.job(t.Context(), ns, "again"),
				client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
				t.Fatal(err)
			}
		})
	}

	t.Run("to pause there is hold", func(t *testing.T) {
		ns := namespace(t, w.Env, nil, "alice", "bob")
		job := newJob(ns, "pause", label(v1alpha1.UserLabel, "bob"))
		if err := w.Client.Create(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		w.waitState(t, ns, "pause", v1alpha1.StateAdmitted)
		uid := w.pod(t, ns, "pause")
		merge := func(c client.Client, body string) error {
			return c.Patch(t.Context(), newJob(ns, "pause"), client.RawPatch(types.MergePatchType, []byte(body)))
		}
		warned := &warnings{}
		if err := merge(w.NewClient(t, warned.on(w.Config)), `{"spec":{"suspend":true}}`); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(warned.all(), " "); !strings.Contains(got, v1alpha1.HoldAnnotation) {
			t.Errorf("warnings %q do not name the hold", got)
		}
		if *w.job(t.Context(), ns, "pause").Spec.Suspend {
			t.Error("it was stopped")
		}
		if err := merge(w.Client, `{"metadata":{"annotations":{"usage.cantonesescribe.io/hold":"true"}}}`); err != nil {
			t.Fatal(err)
		}
		if held := w.waitState(t, ns, "pause", v1alpha1.StateHeld); !*held.Spec.Suspend {
			t.Error("it is held and runs")
		}
		if err := merge(w.Client, `{"metadata":{"annotations":{"usage.cantonesescribe.io/hold":null}}}`); err != nil {
			t.Fatal(err)
		}
		w.waitState(t, ns, "pause", v1alpha1.StateAdmitted)
		eventually(t, "it has another pod", func(context.Context) bool { return w.pod(t, ns, "pause") != uid })

		// Without the webhook it is refused, and nothing happens either.
		uid = w.pod(t, ns, "pause")
		w.stopManager()
		refusedWith(t, merge(w.Client, `{"spec":{"suspend":true}}`), "spec.suspend", v1alpha1.HoldAnnotation,
			"not reachable")
		w.startManager(t)
		if got := w.pod(t, ns, "pause"); got != uid {
			t.Error("it has another pod")
		}
	})

	t.Run("the controller starts again what somebody stopped all the same", func(t *testing.T) {
		ns := namespace(t, w.Env, nil, "alice", "carol")
		if err := w.Client.Create(t.Context(), newJob(ns, "stopped", label(v1alpha1.UserLabel, "carol"))); err != nil {
			t.Fatal(err)
		}
		w.waitState(t, ns, "stopped", v1alpha1.StateAdmitted)
		manager := w.NewClient(t, w.Impersonate(managerName, "system:masters"))
		stop := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"suspend":true}}`))
		if err := manager.Patch(t.Context(), newJob(ns, "stopped"), stop); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it runs", func(ctx context.Context) bool { return !*w.job(ctx, ns, "stopped").Spec.Suspend })
	})
}

// What an object says of itself does not move what the ledger knows by its UID.
func TestTheObjectIsNotTheRecord(t *testing.T) {
	w := newWorld(t)

	t.Run("its status is no way round the policies", func(t *testing.T) {
		ns := namespace(t, w.Env, nil, "alice")
		if err := w.Client.Create(t.Context(), newJob(ns, "job")); err != nil {
			t.Fatal(err)
		}
		w.waitState(t, ns, "job", v1alpha1.StateAdmitted)
		for metadata, want := range map[string]string{
			`{"labels":{"usage.cantonesescribe.io/user":null}}`:                     v1alpha1.UserLabel,
			`{"annotations":{"usage.cantonesescribe.io/audio-duration":"1ms"}}`:     v1alpha1.AudioDurationAnnotation,
			`{"annotations":{"usage.cantonesescribe.io/state":"Settled"}}`:          v1alpha1.StateAnnotation,
			`{"labels":{"kueue.x-k8s.io/queue-name":"q"}}`:                          "kueue.x-k8s.io/queue-name",
			`{"annotations":{"usage.cantonesescribe.io/hold":"yes"}}`:               v1alpha1.HoldAnnotation,
			`{"annotations":{"usage.cantonesescribe.io/container":"elsewhere"}}`:    v1alpha1.ContainerAnnotation,
			`{"labels":{"usage.cantonesescribe.io/user":"mallory"}},"status":{}`:    v1alpha1.UserLabel,
			`{"annotations":{"usage.cantonesescribe.io/message":"free of charge"}}`: v1alpha1.MessageAnnotation,
		} {
			err := w.Client.Status().Patch(t.Context(), newJob(ns, "job"),
				client.RawPatch(types.MergePatchType, []byte(`{"metadata":`+metadata+`}`)))
			refusedWith(t, err, want)
		}
	})

	t.Run("a status that lies", func(t *testing.T) {
		ns := namespace(t, w.Env, nil, "alice", "fay")
		if err := w.Client.Create(t.Context(), newJob(ns, "lies", label(v1alpha1.UserLabel, "fay"))); err != nil {
			t.Fatal(err)
		}
		w.waitState(t, ns, "lies", v1alpha1.StateAdmitted)
		w.pod(t, ns, "lies")
		eventually(t, "it says that it has failed", func(ctx context.Context) bool {
			job := w.job(ctx, ns, "lies")
			for _, kind := range []batchv1.JobConditionType{batchv1.JobFailureTarget, batchv1.JobFailed} {
				job.Status.Conditions = append(job.Status.Conditions,
					batchv1.JobCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
			}
			job.Status.Active, job.Status.Ready, job.Status.Terminating = 0, new(int32(0)), new(int32(0))
			err := w.Client.Status().Update(ctx, job)
			if err != nil && !apierrors.IsConflict(err) {
				t.Fatal(err)
			}
			return err == nil
		})
		if err := w.Client.Create(t.Context(), newJob(ns, "next", label(v1alpha1.UserLabel, "fay"))); err != nil {
			t.Fatal(err)
		}
		w.waitState(t, ns, "next", v1alpha1.StateQueued)
		w.finish(t, ns, "lies", corev1.PodSucceeded, "")
		w.waitState(t, ns, "lies", v1alpha1.StateSettled)
		w.waitState(t, ns, "next", v1alpha1.StateAdmitted)
	})

	t.Run("a label that is gone", func(t *testing.T) {
		ns := namespace(t, w.Env, map[string]string{v1alpha1.EnforcementLabel: v1alpha1.EnforcementWarn},
			"alice", "bob")
		if err := w.Client.Create(t.Context(), newJob(ns, "job", label(v1alpha1.UserLabel, "bob"))); err != nil {
			t.Fatal(err)
		}
		w.waitState(t, ns, "job", v1alpha1.StateAdmitted)
		gone := client.RawPatch(types.MergePatchType,
			[]byte(`{"metadata":{"labels":{"usage.cantonesescribe.io/user":null}}}`))
		if err := w.Client.Patch(t.Context(), newJob(ns, "job"), gone); err != nil {
			t.Fatal(err)
		}
		w.finish(t, ns, "job", corev1.PodSucceeded, "")
		w.waitState(t, ns, "job", v1alpha1.StateSettled)
		if got := w.used(t, "bob"); got != "2" {
			t.Errorf("used %s credits, want 2", got)
		}
	})

	t.Run("a selector of its own", func(t *testing.T) {
		ns := namespace(t, w.Env, map[string]string{v1alpha1.EnforcementLabel: v1alpha1.EnforcementWarn},
			"alice", "carol")
		job := newJob(ns, "own", label(v1alpha1.UserLabel, "carol"), func(j *batchv1.Job) {
			j.Spec.ManualSelector = new(true)
			j.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "own"}}
			j.Spec.Template.Labels = map[string]string{"app": "own"}
		})
		if err := w.Client.Create(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		w.waitState(t, ns, "own", v1alpha1.StateAdmitted)
		eventually(t, "it has a pod", func(
			ctx context.Context) bool {
			return w.job(ctx, ns, "own").Status.Active == 1
		})
		if err := w.Client.Delete(t.Context(), job,
			client.PropagationPolicy(metav1.DeletePropagationOrphan)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is gone", func(ctx context.Context) bool {
			return apierrors.IsNotFound(w.Client.Get(ctx, client.ObjectKeyFromObject(job), &batchv1.Job{}))
		})
		var pods corev1.PodList
		if err := w.Client.List(t.Context(), &pods, client.InNamespace(ns),
			client.MatchingLabels{"app": "own"}); err != nil || len(pods.Items) != 1 {
			t.Fatalf("%d pods, %v", len(pods.Items), err)
		}
		if u, err := w.svc.Current(t.Context(), "carol"); err != nil || u.Account.Active != 1 {
			t.Fatalf("active %d, %v, want its slot to be taken while its pod lives", u.Account.Active, err)
		}
		pod := &pods.Items[0]
		pod.Status.Phase = corev1.PodSucceeded
		if err := w.Client.Status().Update(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is charged", func(context.Context) bool { return w.used(t, "carol") == "2" })
	})

	t.Run("a Job that is Complete without a pod", func(t *testing.T) {
		ns := namespace(t, w.Env, map[string]string{v1alpha1.EnforcementLabel: v1alpha1.EnforcementWarn},
			"alice", "dora")
		if err := w.Client.Create(t.Context(),
			newJob(ns, "none", label(v1alpha1.UserLabel, "dora"), func(j *batchv1.Job) {
				j.Spec.Completions = new(int32(0))
			})); err != nil {
			t.Fatal(err)
		}
		w.waitState(t, ns, "none", v1alpha1.StateReleased)
		if got := w.used(t, "dora"); got != "0" {
			t.Errorf("used %s credits, want none", got)
		}
	})

	t.Run("what an update leaves as it was stands in the way of nothing", func(t *testing.T) {
		ns := namespace(t, w.Env, map[string]string{v1alpha1.EnforcementLabel: v1alpha1.EnforcementOff}, "emil")
		job := newJob(ns, "odd", label(v1alpha1.UserLabel, "emil"), running, func(j *batchv1.Job) {
			j.Annotations = map[string]string{
				v1alpha1.HoldAnnotation: "yes", v1alpha1.AudioDurationAnnotation: "long",
				v1alpha1.PriorityAnnotation: "x",
				v1alpha1.StateAnnotation:    "Whatever", v1alpha1.ContainerAnnotation: "none",
				v1alpha1.FileSizeAnnotation: "big",
			}
			j.Labels["kueue.x-k8s.io/queue-name"] = "team"
			j.Spec.Parallelism, j.Spec.Completions = new(int32(3)), new(int32(3))
			j.Spec.ManualSelector = new(true)
			j.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "odd"}}
			j.Spec.Template.Labels = map[string]string{"app": "odd"}
			j.Finalizers = []string{"example.com/waits"}
		})
		if err := w.Client.Create(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has pods", func(ctx context.Context) bool { return w.job(ctx, ns, "odd").Status.Active == 3 })
		w.switchTo(t, ns, v1alpha1.EnforcementEnforce)
		eventually(t, "the policies are in force", func(ctx context.Context) bool {
			return w.Client.Create(ctx, newJob(ns, "bad", label(v1alpha1.UserLabel, "emil"),
				annotate(v1alpha1.HoldAnnotation, "yes")), client.DryRunAll) != nil
		})
		patch := func(body string) {
			t.Helper()
			if err := w.Client.Patch(t.Context(), newJob(ns, "odd"),
				client.RawPatch(types.MergePatchType, []byte(body))); err != nil {
				t.Errorf("%s: %v", body, err)
			}
		}
		patch(`{"metadata":{"annotations":{"example.com/a":"b"}}}`)
		if err := w.Client.Delete(t.Context(), job,
			client.PropagationPolicy(metav1.DeletePropagationForeground)); err != nil {
			t.Fatal(err)
		}
		patch(`{"metadata":{"finalizers":["foregroundDeletion"]}}`)
		eventually(t, "it is gone", func(ctx context.Context) bool {
			return apierrors.IsNotFound(w.Client.Get(ctx, client.ObjectKeyFromObject(job), &batchv1.Job{}))
		})
	})
}

// A Job that can make no pod says why, and gives its slot to those that can.
func TestJobsWithoutAPodGiveTheirSlotBack(t *testing.T) {
	w := newWorld(t, func(w *world) { w.startTimeout = 6 * time.Second })
	create := func(ns, name, user string) {
		t.Helper()
		if err := w.Client.Create(t.Context(), newJob(ns, name, label(v1alpha1.UserLabel, user))); err != nil {
			t.Fatal(err)
		}
	}
	waits := func(ns, name string) {
		t.Helper()
		if got := w.job(t.Context(), ns, name); got.Annotations[v1alpha1.StateAnnotation] != v1alpha1.StateQueued ||
			!*got.Spec.Suspend {
			t.Errorf("%s: state %v, suspended %t, want it to wait", name, got.Annotations, *got.Spec.Suspend)
		}
	}
	says := func(ns, name string, want ...string) {
		t.Helper()
		message := ""
		defer func() {
			if t.Failed() {
				t.Logf("%s says %q", name, message)
			}
		}()
		eventually(t, name+" says "+strings.Join(want, ", "), func(ctx context.Context) bool {
			message = w.job(ctx, ns, name).Annotations[v1alpha1.MessageAnnotation]
			for _, text := range want {
				if !strings.Contains(message, text) {
					return false
				}
			}
			return true
		})
	}
	// runs has the pod of a Job run.
	runs := func(ns, name string) {
		t.Helper()
		eventually(t, "the pod of "+name+" runs", func(ctx context.Context) bool {
			var pods corev1.PodList
			err := w.Client.List(ctx, &pods, client.InNamespace(ns), client.MatchingLabels{batchv1.JobNameLabel: name})
			if err != nil || len(pods.Items) != 1 {
				return false
			}
			pods.Items[0].Status.Phase = corev1.PodRunning
			return w.Client.Status().Update(ctx, &pods.Items[0]) == nil
		})
	}

	t.Run("refused by a quota", func(t *testing.T) {
		ns := namespace(t, w.Env, nil, "alice")
		limit := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "no-pods"},
			Spec: corev1.ResourceQuotaSpec{
				Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")},
			}}
		if err := w.Client.Create(t.Context(), limit); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the quota is in force", func(ctx context.Context) bool {
			return w.Client.Get(ctx, client.ObjectKeyFromObject(limit), limit) == nil && len(limit.Status.Hard) > 0
		})
		create(ns, "first", "alice")
		w.waitState(t, ns, "first", v1alpha1.StateAdmitted)
		says(ns, "first", "no pod has started", "exceeded quota: no-pods")
		create(ns, "second", "alice")
		w.waitState(t, ns, "second", v1alpha1.StateQueued)
		first := w.waitState(t, ns, "first", v1alpha1.StateQueued)
		if !*first.Spec.Suspend {
			t.Error("it has given its slot back and is not suspended")
		}
		says(ns, "first", "gave its slot back", "exceeded quota: no-pods", "starts by itself in its turn")
		w.waitState(t, ns, "second", v1alpha1.StateAdmitted)

		// When its turn comes it starts again, and with what it lacked it runs.
		if err := w.Client.Delete(t.Context(), limit); err != nil {
			t.Fatal(err)
		}
		w.finish(t, ns, "second", corev1.PodSucceeded, "")
		w.waitState(t, ns, "second", v1alpha1.StateSettled)
		w.waitState(t, ns, "first", v1alpha1.StateAdmitted)
		w.finish(t, ns, "first", corev1.PodSucceeded, "")
		w.waitState(t, ns, "first", v1alpha1.StateSettled)
		if got := w.used(t, "alice"); got != "4" {
			t.Errorf("used %s credits, want 4", got)
		}
	})

	t.Run("an image that is not there", func(t *testing.T) {
		ns := namespace(t, w.Env, nil, "alice", "bob")
		create(ns, "image", "bob")
		w.waitState(t, ns, "image", v1alpha1.StateAdmitted)
		eventually(t, "its pod cannot pull", func(ctx context.Context) bool {
			var pods corev1.PodList
			if err := w.Client.List(ctx, &pods, client.InNamespace(ns)); err != nil || len(pods.Items) != 1 {
				return false
			}
			pods.Items[0].Status.ContainerStatuses = []corev1.ContainerStatus{
				{Name: "main", State: corev1.ContainerState{
					Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff",
						Message: "Back-off pulling image"},
				}}}
			return w.Client.Status().Update(ctx, &pods.Items[0]) == nil
		})
		says(ns, "image", "no pod has started: container main: ImagePullBackOff: Back-off pulling image")
		create(ns, "next", "bob")
		w.waitState(t, ns, "next", v1alpha1.StateAdmitted)
		waits(ns, "image")
	})

	t.Run("a service account that is not there", func(t *testing.T) {
		ns := namespace(t, w.Env, nil, "alice", "emil")
		// It has the right to spend before it exists.
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "late"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "spend"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "late"}},
		}
		if err := w.Client.Create(t.Context(), binding); err != nil {
			t.Fatal(err)
		}
		eventually(t, "its Job is accepted", func(ctx context.Context) bool {
			return w.Client.Create(ctx, newJob(ns, "late", label(v1alpha1.UserLabel, "emil"), func(j *batchv1.Job) {
				j.Spec.Template.Spec.ServiceAccountName = "late"
			})) == nil
		})
		w.waitState(t, ns, "late", v1alpha1.StateAdmitted)
		const why = `FailedCreate: Error creating: pods "late-`
		const missing = `serviceaccount "late" not found`
		create(ns, "second", "emil")
		w.waitState(t, ns, "second", v1alpha1.StateQueued)
		create(ns, "third", "emil")
		w.waitState(t, ns, "third", v1alpha1.StateQueued)
		says(ns, "late", "no pod has started: "+why, missing)

		// The one that can run does, and the other one waits behind all.
		w.waitState(t, ns, "second", v1alpha1.StateAdmitted)
		runs(ns, "second")
		says(ns, "late", "gave its slot back: "+why, missing)
		id, err := convert.UID(w.job(t.Context(), ns, "late").UID)
		if err != nil {
			t.Fatal(err)
		}
		adm, err := w.svc.Get(t.Context(), quota.AdmissionID(id))
		if err != nil {
			t.Fatal(err)
		}
		if adm.Position != 2 || adm.Waiting != 2 {
			t.Errorf("it is at %d of %d, want behind the other one", adm.Position, adm.Waiting)
		}
		waits(ns, "late")
		waits(ns, "third")
		w.finish(t, ns, "second", corev1.PodSucceeded, "")
		w.waitState(t, ns, "third", v1alpha1.StateAdmitted)
		runs(ns, "third")
		waits(ns, "late")

		// When its turn comes the account is there.
		w.ServiceAccount(t, ns, "late")
		w.finish(t, ns, "third", corev1.PodSucceeded, "")
		w.waitState(t, ns, "late", v1alpha1.StateAdmitted)
		w.finish(t, ns, "late", corev1.PodSucceeded, "")
		w.waitState(t, ns, "late", v1alpha1.StateSettled)
		if got := w.used(t, "emil"); got != "6" {
			t.Errorf("used %s credits, want 6", got)
		}
	})

	t.Run("one that runs keeps its slot", func(t *testing.T) {
		ns := namespace(t, w.Env, nil, "alice", "carol", "dora")
		create(ns, "runs", "carol")
		w.waitState(t, ns, "runs", v1alpha1.StateAdmitted)
		runs(ns, "runs")
		create(ns, "waits", "carol")
		w.waitState(t, ns, "waits", v1alpha1.StateQueued)
		// A Job of another user that gives its slot back tells that the time is over.
		create(ns, "clock", "dora")
		create(ns, "after", "dora")
		w.waitState(t, ns, "after", v1alpha1.StateAdmitted)
		if got := w.job(t.Context(), ns, "runs"); got.Annotations[v1alpha1.StateAnnotation] != v1alpha1.StateAdmitted ||
			*got.Spec.Suspend {
			t.Errorf("state %v, suspended %t", got.Annotations, *got.Spec.Suspend)
		}
	})
}
