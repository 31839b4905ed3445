// SPDX-License-Identifier: Apache-2.0

package jobs_test

import (
	"context"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
)

// counted returns a counter of the controller's for a namespace.
func counted(t *testing.T, name, namespace string) float64 {
	t.Helper()
	families, err := ctrlmetrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == namespace {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// switchTo gives a namespace another mode.
func (w *world) switchTo(t *testing.T, ns, mode string) {
	t.Helper()
	patch := client.RawPatch("application/merge-patch+json",
		[]byte(`{"metadata":{"labels":{"`+v1alpha1.EnforcementLabel+`":"`+mode+`"}}}`))
	if err := w.Client.Patch(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}},
		patch); err != nil {
		t.Fatal(err)
	}
}

// wantNoAccount holds that nothing was ever booked for the user.
func (w *world) wantNoAccount(t *testing.T, user string) {
	t.Helper()
	if all, err := w.svc.UsageOf(t.Context(), []string{user}); err != nil || len(all) > 0 {
		t.Errorf("%s has %d accounts, %v, want none: nobody who may spend asked for anything", user, len(all), err)
	}
}

// Whoever may not spend for a user is never charged to that user, whatever the namespace's mode is and was.
func TestRightToSpendInEveryMode(t *testing.T) {
	w := newWorld(t)
	job := func(ns, name, user string, change ...func(*batchv1.Job)) *batchv1.Job {
		t.Helper()
		j := newJob(ns, name, append([]func(*batchv1.Job){label(v1alpha1.UserLabel, user), func(j *batchv1.Job) {
			j.Spec.BackoffLimit = new(int32(0))
		}}, change...)...)
		if err := w.Client.Create(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		return j
	}

	t.Run("warn", func(t *testing.T) {
		ns := namespace(t, w.Env, map[string]string{v1alpha1.EnforcementLabel: v1alpha1.EnforcementWarn}, "alice")
		job(ns, "hers", "petra")
		got := w.waitState(t, ns, "hers", v1alpha1.StateUnauthorized)
		if *got.Spec.Suspend {
			t.Error("it waits in a namespace that only warns")
		}
		for _, want := range []string{"'transcriber'", "'petra'", "'spend'", "where it is enforced"} {
			if message := got.Annotations[v1alpha1.MessageAnnotation]; !strings.Contains(message, want) {
				t.Errorf("message %q does not contain %q", message, want)
			}
		}
		w.finish(t, ns, "hers", corev1.PodSucceeded, "")
		w.waitState(t, ns, "hers", v1alpha1.StateReleased)
		w.wantNoAccount(t, "petra")
		eventually(t, "it is counted", func(context.Context) bool {
			return counted(t, "usage_unauthorized_jobs_total", ns) == 1 &&
				counted(t, "usage_unauthorized_credits_total", ns) == 2
		})
		eventually(t, "an event says so", func(ctx context.Context) bool {
			var events eventsv1.EventList
			if err := w.Client.List(ctx, &events, client.InNamespace(ns)); err != nil {
				return false
			}
			for i := range events.Items {
				if e := &events.Items[i]; e.Regarding.Name == "hers" && e.Reason == v1alpha1.StateUnauthorized &&
					e.Type == corev1.EventTypeWarning {
					return true
				}
			}
			return false
		})
		// What a Job declares wrongly is not metered, and runs all the same.
		job(ns, "wrong", "alice", annotate(v1alpha1.AudioDurationAnnotation, "long"))
		if got := w.waitState(t, ns, "wrong", v1alpha1.StateInvalid); *got.Spec.Suspend {
			t.Error("it waits in a namespace that only warns")
		}
	})

	t.Run("off, then enforced", func(t *testing.T) {
		ns := namespace(t, w.Env, map[string]string{v1alpha1.EnforcementLabel: v1alpha1.EnforcementOff}, "alice",
			"bob", "carol")
		job(ns, "waits", "quentin")
		job(ns, "runs", "quentin", running)
		// They say of themselves what they are not.
		pretends := job(ns, "pretends", "quentin", annotate(v1alpha1.StateAnnotation, v1alpha1.StateQueued))
		job(ns, "admitted", "alice", running, annotate(v1alpha1.StateAnnotation, v1alpha1.StateAdmitted))
		job(ns, "settled", "bob", running, annotate(v1alpha1.StateAnnotation, v1alpha1.StateSettled))
		many := job(ns, "many", "carol", func(j *batchv1.Job) { j.Spec.Parallelism = new(int32(5)) })
		w.switchTo(t, ns, v1alpha1.EnforcementEnforce)
		for _, name := range []string{"waits", "pretends"} {
			if got := w.waitState(t, ns, name, v1alpha1.StateUnauthorized); !*got.Spec.Suspend {
				t.Errorf("%s was started", name)
			}
		}
		w.waitState(t, ns, "runs", v1alpha1.StateUnauthorized)
		w.waitState(t, ns, "settled", v1alpha1.StateAdmitted)
		if got := w.waitState(t, ns, many.Name, v1alpha1.StateInvalid); !*got.Spec.Suspend ||
			!strings.Contains(got.Annotations[v1alpha1.MessageAnnotation], "spec.parallelism: is 5") {
			t.Errorf("five pods for the price of one: suspended %t, %v", *got.Spec.Suspend, got.Annotations)
		}
		for _, name := range []string{"runs", "admitted", "settled"} {
			w.finish(t, ns, name, corev1.PodSucceeded, "")
		}
		w.waitState(t, ns, "runs", v1alpha1.StateReleased)
		w.waitState(t, ns, "admitted", v1alpha1.StateSettled)
		w.waitState(t, ns, "settled", v1alpha1.StateSettled)
		w.wantNoAccount(t, "quentin")
		for _, user := range []string{"alice", "bob"} {
			eventually(t, user+" is charged", func(context.Context) bool { return w.used(t, user) == "2" })
		}

		// With the right it starts by itself.
		if err := w.Client.Delete(t.Context(), pretends); err != nil {
			t.Fatal(err)
		}
		grant := &rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "late"},
			Rules: []rbacv1.PolicyRule{{
				APIGroups: []string{v1alpha1.Group}, Resources: []string{v1alpha1.UsersResource},
				ResourceNames: []string{"quentin"}, Verbs: []string{v1alpha1.SpendVerb},
			}},
		}
		bound := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "late"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "late"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "transcriber"}},
		}
		for _, object := range []client.Object{grant, bound} {
			if err := w.Client.Create(t.Context(), object); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "a Job may be created", func(ctx context.Context) bool {
			return w.Client.Create(ctx, newJob(ns, "probe", label(v1alpha1.UserLabel, "quentin")),
				client.DryRunAll) == nil
		})
		w.stopManager()
		w.startManager(t) // so that it is asked for at once, and not when its time has come
		w.waitState(t, ns, "waits", v1alpha1.StateAdmitted)
	})

	t.Run("off, then warned of, and left alone meanwhile", func(t *testing.T) {
		ns := namespace(t, w.Env, map[string]string{v1alpha1.EnforcementLabel: v1alpha1.EnforcementOff}, "alice")
		job(ns, "off", "robert")
		job(ns, "pretends", "robert", annotate(v1alpha1.StateAnnotation, v1alpha1.StateQueued))
		w.switchTo(t, ns, v1alpha1.EnforcementWarn)
		for _, name := range []string{"off", "pretends"} {
			if got := w.waitState(t, ns, name, v1alpha1.StateUnauthorized); *got.Spec.Suspend {
				t.Errorf("%s waits in a namespace that only warns", name)
			}
		}
		w.wantNoAccount(t, "robert")
	})
}
