// SPDX-License-Identifier: Apache-2.0

package jobs_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// stubborn makes clients whose attempts to start a Job fail while it says so.
type stubborn struct{ refuses atomic.Bool }

func (s *stubborn) client(config *rest.Config, options client.Options) (client.Client, error) {
	c, err := client.NewWithWatch(config, options)
	if err != nil {
		return nil, err
	}
	return interceptor.NewClient(c, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch,
			opts ...client.PatchOption) error {
			body, err := patch.Data(obj)
			if err == nil && s.refuses.Load() && strings.Contains(string(body), `"suspend":false`) {
				return errors.New("the API server does not take it")
			}
			return c.Patch(ctx, obj, patch, opts...)
		},
	}), nil
}

// The database goes while Jobs run, wait and are created; then the manager goes too, and comes back.
func TestJobsThroughAnOutage(t *testing.T) {
	w := newWorld(t)
	ns := namespace(t, w.Env, nil, "alice", "bob", "carol", "dora")
	create := func(name, user string) *batchv1.Job {
		t.Helper()
		job := newJob(ns, name, func(j *batchv1.Job) {
			j.Labels[v1alpha1.UserLabel] = user
			j.Spec.Suspend, j.Spec.BackoffLimit = nil, new(int32(0))
		})
		if err := w.Client.Create(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		if !*job.Spec.Suspend {
			t.Fatalf("%s was created running", name)
		}
		return job
	}
	create("runs", "alice")
	w.waitState(t, ns, "runs", v1alpha1.StateAdmitted)
	create("waits", "alice")
	w.waitState(t, ns, "waits", v1alpha1.StateQueued)

	w.proxy.Refuse(true)
	w.proxy.CutAll()
	eventually(t, "the database is found away", func(ctx context.Context) bool { return w.store.Ping(ctx) != nil })
	began := time.Now()
	create("during", "bob")
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("creating a Job took %s", took)
	}
	// The policy holds whatever the webhook could not look up.
	err := w.Client.Create(t.Context(),
		newJob(ns, "not-hers", func(j *batchv1.Job) { j.Labels[v1alpha1.UserLabel] = "stranger" }))
	refusedWith(t, err, "spend", "'stranger'")
	w.finish(t, ns, "runs", corev1.PodSucceeded, "")
	eventually(t, "the one that runs is over",
		func(ctx context.Context) bool { return w.job(ctx, ns, "runs").Status.CompletionTime != nil })
	for name, state := range map[string]string{"runs": v1alpha1.StateAdmitted, "waits": v1alpha1.StateQueued,
		"during": ""} {
		if got := w.job(t.Context(), ns, name); got.Annotations[v1alpha1.StateAnnotation] != state ||
			name != "runs" && !*got.Spec.Suspend {
			t.Errorf("%s while the database is away: %v, suspended %t", name, got.Annotations, *got.Spec.Suspend)
		}
	}

	// The manager ends before it has settled anything. Another one finds the Jobs as they are.
	w.stopManager()
	w.proxy.Refuse(false)
	w.startManager(t)
	w.waitState(t, ns, "runs", v1alpha1.StateSettled)
	w.waitState(t, ns, "waits", v1alpha1.StateAdmitted)
	w.waitState(t, ns, "during", v1alpha1.StateAdmitted)
	if got := w.used(t, "alice"); got != "2" {
		t.Errorf("used %s credits, want 2", got)
	}

	// Admitted, and not started: the slot is held until another manager starts the Job.
	w.stubborn.refuses.Store(true)
	create("not-started", "carol")
	eventually(t, "it holds its slot", func(ctx context.Context) bool {
		u, err := w.svc.Current(ctx, "carol")
		return err == nil && u.Account.Active == 1
	})
	// And one that is deleted before it could be started gives it back.
	gone := create("gone", "dora")
	eventually(t, "it holds its slot too", func(ctx context.Context) bool {
		u, err := w.svc.Current(ctx, "dora")
		return err == nil && u.Account.Active == 1
	})
	if job := w.job(t.Context(), ns, "not-started"); !*job.Spec.Suspend {
		t.Error("it was started")
	}
	if err := w.Client.Delete(t.Context(), gone,
		client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the slot of the one that is gone is free", func(ctx context.Context) bool {
		u, err := w.svc.Current(ctx, "dora")
		return err == nil && u.Account.Active == 0 && u.Account.Reserved == 0
	})
	w.stopManager()
	w.stubborn.refuses.Store(false)
	w.startManager(t)
	if job := w.waitState(t, ns, "not-started", v1alpha1.StateAdmitted); *job.Spec.Suspend {
		t.Error("it is admitted and suspended")
	}

	// Each was told once what became of it.
	var events eventsv1.EventList
	if err := w.Client.List(t.Context(), &events, client.InNamespace(ns)); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for i := range events.Items {
		e := &events.Items[i]
		if e.ReportingController == "usage-operator" {
			seen[e.Regarding.Name+" "+e.Reason]++
			if e.Series != nil {
				t.Errorf("%s was told %d times: %s", e.Regarding.Name, e.Series.Count, e.Reason)
			}
		}
	}
	for what, n := range seen {
		if n > 1 {
			t.Errorf("%s was told %d times", what, n)
		}
	}
}

// A slot that a process freed which died before it told anybody goes to the Job that waits for it, within one look.
func TestJobsStartThoughNobodyTold(t *testing.T) {
	w := newWorld(t)
	ns := namespace(t, w.Env, nil, "alice")
	create := func(name, state string) *batchv1.Job {
		t.Helper()
		if err := w.Client.Create(t.Context(), newJob(ns, name, label(v1alpha1.UserLabel, "alice"))); err != nil {
			t.Fatal(err)
		}
		return w.waitState(t, ns, name, state)
	}
	first := create("first", v1alpha1.StateAdmitted)
	create("second", v1alpha1.StateQueued)
	store, err := ledgerdb.Open(t.Context(), w.dsn, postgres.Options{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	// It does not run what would tell the others.
	dying := metering.New(ledger.New(store, ledger.Options{}), store, access.NewSigner(store), metering.Options{})
	id, err := convert.UID(first.UID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dying.SettleJob(t.Context(), quota.AdmissionID(id), 0); err != nil {
		t.Fatal(err)
	}
	if got := w.waitState(t, ns, "second", v1alpha1.StateAdmitted); *got.Spec.Suspend {
		t.Error("it is admitted and does not run")
	}
}
