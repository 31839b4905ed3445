// SPDX-License-Identifier: Apache-2.0

package jobs_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/controller"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
)

// The database is put back to an earlier moment under a running manager. What was declared, what runs, what waits and
// what was charged since then is in the ledger again by itself, once.
func TestRestoredDatabase(t *testing.T) {
	w := newWorld(t)
	w.startQuotas(t)
	users := []string{"alice", "ann", "bob", "carol", "dora", "erin", "fay"}
	ns := namespace(t, w.Env, nil, users...)
	create := func(name, user string) *batchv1.Job {
		t.Helper()
		job := newJob(ns, name, func(j *batchv1.Job) {
			j.Labels[v1alpha1.UserLabel] = user
			j.Spec.Suspend, j.Spec.BackoffLimit = nil, new(int32(0))
		})
		if err := w.Client.Create(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		return job
	}
	finish := func(name string) {
		t.Helper()
		w.finish(t, ns, name, corev1.PodSucceeded, "")
		w.waitState(t, ns, name, v1alpha1.StateSettled)
	}
	create("settled", "ann")
	w.waitState(t, ns, "settled", v1alpha1.StateAdmitted)
	create("first", "dora")
	w.waitState(t, ns, "first", v1alpha1.StateAdmitted)
	create("second", "dora")
	w.waitState(t, ns, "second", v1alpha1.StateQueued)
	gone := create("gone", "erin")
	w.waitState(t, ns, "gone", v1alpha1.StateAdmitted)
	create("before", "fay")
	w.waitState(t, ns, "before", v1alpha1.StateAdmitted)
	gus, hal := newQuota("gus", ""), newQuota("hal", "pro")
	for _, q := range []*v1alpha1.UserQuota{gus, hal} {
		w.apply(t, q)
	}
	restore := pgtest.Snapshot(t, w.dsn)
	w.reachable(t)

	finish("settled")
	create("runs", "bob")
	w.waitState(t, ns, "runs", v1alpha1.StateAdmitted)
	create("done", "carol")
	w.waitState(t, ns, "done", v1alpha1.StateAdmitted)
	finish("done")
	finish("first")
	w.waitState(t, ns, "second", v1alpha1.StateAdmitted)
	if err := w.Client.Delete(t.Context(), gone,
		client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the slot of the one that is gone is free",
		func(ctx context.Context) bool { return w.active(ctx, "erin") == 0 })
	create("later", "fay")
	w.waitState(t, ns, "later", v1alpha1.StateQueued)
	if err := w.Client.Patch(t.Context(), gus,
		client.RawPatch(types.MergePatchType, []byte(`{"spec":{"grants":{"sorry":{"credits":10}}}}`))); err != nil {
		t.Fatal(err)
	}
	w.apply(t, newQuota("ivy", "pro"))
	if err := w.Client.Delete(t.Context(), hal); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the grant is given, and hal is on the default plan", func(ctx context.Context) bool {
		return len(w.account(ctx, "gus").Lots) == 1 && w.account(ctx, "hal").Plan.Name == "free"
	})
	// The same version of a plan that is another state of it after the restore.
	changed := plan("pro", 10, 501, 5)
	if _, err := w.svc.ApplyPlan(t.Context(), changed, "test"); err != nil {
		t.Fatal(err)
	}
	w.account(t.Context(), "ivy")
	over := metering.AdmitRequest{
		UserID: "jon", Key: "k", BodyHash: []byte("k"), Source: quota.SourceAPI, RequestedBy: "test",
		Estimate: quota.Credit, FileSize: 1,
	}
	res, err := w.svc.Admit(t.Context(), over)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.svc.Complete(t.Context(), quota.ID{}, res.Admission.ID, quota.Credit); err != nil {
		t.Fatal(err)
	}

	restore()
	w.reachable(t)
	changed.Limits.Credits = quota.AtMost(502 * quota.Credit)
	if _, err := w.svc.ApplyPlan(t.Context(), changed, "test"); err != nil {
		t.Fatal(err)
	}
	for name, state := range map[string]quota.State{
		"settled": quota.Settled, "runs": quota.Admitted, "done": quota.Settled, "first": quota.Settled,
		"second": quota.Admitted,
		"before": quota.Admitted, "later": quota.Queued,
	} {
		eventually(t, fmt.Sprintf("the ledger has %s as %s", name, state), func(ctx context.Context) bool {
			id, err := convert.UID(w.job(ctx, ns, name).UID)
			if err != nil {
				return false
			}
			adm, err := w.svc.Get(ctx, quota.AdmissionID(id))
			return err == nil && adm.State == state
		})
	}
	eventually(t, "the slot of the one that is gone is free again",
		func(ctx context.Context) bool { return w.active(ctx, "erin") == 0 })
	eventually(t, "what is declared is in force", func(ctx context.Context) bool {
		return len(w.account(ctx, "gus").Lots) == 1 && w.account(ctx, "hal").Plan.Name == "free" &&
			w.account(ctx, "ivy").Plan.Name == "pro"
	})
	if got := w.account(t.Context(), "ivy").Plan.Limits.Credits.Max; got != 502*quota.Credit {
		t.Errorf("ivy's plan has %s credits, want those of the version that is in force", got)
	}
	// The same key is new work for a ledger that does not know it, and the user gets another account.
	if res, err = w.svc.Admit(t.Context(), over); err != nil || !res.Created {
		t.Errorf("the same key: %+v, %v", res, err)
	}
	finish("runs")
	finish("second")
	finish("before")
	w.waitState(t, ns, "later", v1alpha1.StateAdmitted)
	for user, want := range map[string]string{"ann": "2", "bob": "2", "carol": "2", "dora": "4", "erin": "0",
		"fay": "2"} {
		if got := w.used(t, user); got != want {
			t.Errorf("%s has used %s credits, want %s", user, got, want)
		}
	}
}

// startQuotas runs the controller of UserQuotas.
func (w *world) startQuotas(t *testing.T) {
	t.Helper()
	mgr, err := ctrl.NewManager(w.Config, ctrl.Options{
		Scheme: w.Scheme, Metrics: server.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	opts := controller.UserQuotaOptions{StatusInterval: 200 * time.Millisecond, ResyncInterval: 300 * time.Millisecond}
	if err := controller.SetupUserQuota(mgr, w.svc, w.store, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(run(t, mgr.Start))
}

func newQuota(user, plan string) *v1alpha1.UserQuota {
	q := &v1alpha1.UserQuota{ObjectMeta: metav1.ObjectMeta{Name: user}, Spec: v1alpha1.UserQuotaSpec{UserID: user}}
	if plan != "" {
		q.Spec.PlanRef = &v1alpha1.PlanReference{Name: plan}
	}
	return q
}

func (w *world) apply(t *testing.T, q *v1alpha1.UserQuota) {
	t.Helper()
	if err := w.Client.Create(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.IgnoreNotFound(w.Client.Delete(context.Background(), q)) })
	eventually(t, "the UserQuota of "+q.Name+" is in force", func(ctx context.Context) bool {
		u, err := w.svc.Current(ctx, q.Name)
		return err == nil && u.QuotaUID != quota.ID{}
	})
}

func (w *world) account(ctx context.Context, user string) *quota.Account {
	u, err := w.svc.Current(ctx, user)
	if err != nil {
		return &quota.Account{Plan: &quota.Plan{}}
	}
	return u.Account
}

// active is how many slots a user holds, or -1 where nobody can tell.
func (w *world) active(ctx context.Context, user string) int {
	u, err := w.svc.Current(ctx, user)
	if err != nil {
		return -1
	}
	return int(u.Account.Active)
}

func (w *world) reachable(t *testing.T) {
	t.Helper()
	eventually(t, "the database answers again", func(ctx context.Context) bool { return w.store.Ping(ctx) == nil })
}
