// SPDX-License-Identifier: Apache-2.0

package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	webhookserver "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/controller"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/cutproxy"
	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
	"github.com/cantonesescribe/usage-operator/internal/webhook"
)

// plan has 30 credits and one slot; pro has more, and five.
func plan(name string, rank int32, credits int64, slots int32) metering.Plan {
	return plans.Free(func(p *metering.Plan) {
		p.Name, p.DisplayName, p.Default, p.Rank, p.ObjectUID = name, name, rank == 0, rank, quota.ID{byte(rank + 1)}
		p.Limits.Credits, p.Limits.Concurrent = quota.AtMost(quota.WholeCredits(credits)), quota.AtMost(slots)
	})
}

// world is a cluster with manager, policies, webhook and ledger.
type world struct {
	*kubetest.Env
	svc    *metering.Service
	engine *ledger.Engine
	// dsn leads to the database itself, past the proxy.
	dsn string
	// proxy stands before the database.
	proxy *cutproxy.Proxy
	// store is the manager's, behind the proxy, and cluster what the controllers know of the one that they are in.
	store   *ledgerdb.Store
	cluster controller.Cluster
	// stubborn is how the manager's client starts Jobs.
	stubborn stubborn
	// startTimeout is the controller's.
	startTimeout time.Duration
	// stopManager ends the controllers and the webhooks.
	stopManager func()
}

func newWorld(t *testing.T, change ...func(*world)) *world {
	t.Helper()
	// Cleanup runs last in, first out: the ledger is checked when all has stopped.
	w := newWorldOn(t, ledgertest.New(t))
	for _, p := range []metering.Plan{plan("free", 0, 30, 1), plan("pro", 10, 500, 5)} {
		if _, err := w.svc.ApplyPlan(t.Context(), p, "test"); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range change {
		f(w)
	}
	w.startManager(t)
	t.Cleanup(func() { w.stopManager() })
	return w
}

// newWorldOn is a cluster without a manager on a database, in which nothing is declared.
func newWorldOn(t *testing.T, dsn string) *world {
	t.Helper()
	w := &world{dsn: dsn, Env: kubetest.Start(t, kubetest.WithManifests("config/policy"),
		kubetest.WithWebhooks("config/webhook-job"), kubetest.WithControllerManager(),
		kubetest.WithServiceAccountAdmission())}
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if w.proxy, err = cutproxy.Start(u.Host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.proxy.Close() })
	if dsn, err = w.proxy.DSN(dsn); err != nil {
		t.Fatal(err)
	}
	if w.store, err = ledgerdb.Open(t.Context(), dsn, postgres.Options{AllowUnsafe: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.store.Close)
	w.engine = ledger.New(w.store, ledger.Options{})
	w.svc = metering.New(w.engine, w.store, access.NewSigner(w.store), metering.Options{AutoRegister: true})
	t.Cleanup(run(t, w.svc.Run))
	return w
}

// run runs something until the returned function is called.
func run(t *testing.T, what func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := what(ctx); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	}()
	return func() { cancel(); <-done }
}

// startManager runs the controllers and the webhooks, which remember nothing of those before them.
func (w *world) startManager(t *testing.T) {
	t.Helper()
	mgr, err := ctrl.NewManager(w.Impersonate(managerName, "system:masters"), ctrl.Options{
		Scheme: w.Scheme, Metrics: server.Options{BindAddress: "0"}, NewClient: w.stubborn.client,
		Controller: config.Controller{SkipNameValidation: new(true)},
		WebhookServer: webhookserver.NewServer(webhookserver.Options{
			Host: w.Webhooks.LocalServingHost, Port: w.Webhooks.LocalServingPort,
			CertDir: w.Webhooks.LocalServingCertDir,
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	jobs := controller.JobOptions{Cluster: w.cluster.UID, StartTimeout: w.startTimeout}
	from := controller.JobLedger{Meter: w.svc, Queue: w.svc, Records: w.store}
	for _, err := range []error{controller.SetupJob(mgr, from, jobs), webhook.SetupJob(mgr, w.svc)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w.stopManager = run(t, mgr.Start)
	eventually(t, "the webhook serves", func(context.Context) bool {
		return mgr.GetWebhookServer().StartedChecker()(&http.Request{}) == nil
	})
}

func (w *world) used(t *testing.T, user string) string {
	t.Helper()
	u, err := w.svc.Current(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return u.Account.Used.String()
}

func (w *world) job(ctx context.Context, ns, name string) *batchv1.Job {
	job := &batchv1.Job{}
	_ = w.Client.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, job)
	return job
}

func (w *world) waitState(t *testing.T, ns, name, state string) *batchv1.Job {
	t.Helper()
	var job *batchv1.Job
	defer func() {
		if t.Failed() {
			t.Logf("%s: %v %+v", name, job.Annotations, job.Status)
		}
	}()
	eventually(t, name+" is "+state, func(ctx context.Context) bool {
		job = w.job(ctx, ns, name)
		return job.Annotations[v1alpha1.StateAnnotation] == state
	})
	return job
}

// finish ends the pod that the Job runs.
func (w *world) finish(t *testing.T, ns, name string, phase corev1.PodPhase, message string) {
	t.Helper()
	eventually(t, "the pod of "+name+" has ended", func(ctx context.Context) bool {
		var pods corev1.PodList
		if err := w.Client.List(ctx, &pods, client.InNamespace(ns),
			client.MatchingLabels{batchv1.JobNameLabel: name}); err != nil || len(pods.Items) == 0 {
			return false
		}
		pod := &pods.Items[0]
		pod.Status.Phase = phase
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{Message: message, FinishedAt: metav1.Now()},
		}}}
		return w.Client.Status().Update(ctx, pod) == nil
	})
}

func TestJobsWithManager(t *testing.T) {
	w := newWorld(t)
	users := []string{"alice", "bob", "carol", "dora", "emil", "fay", "gus", "hal"}
	ns := namespace(t, w.Env, nil, users...)
	once := func(user string, more ...func(*batchv1.Job)) func(*batchv1.Job) {
		return func(j *batchv1.Job) {
			j.Labels[v1alpha1.UserLabel] = user
			j.Spec.Suspend = nil
			none := int32(0)
			j.Spec.BackoffLimit = &none
			for _, f := range more {
				f(j)
			}
		}
	}
	create := func(t *testing.T, name string, change func(*batchv1.Job)) *batchv1.Job {
		t.Helper()
		job := newJob(ns, name, change)
		if err := w.Client.Create(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		return job
	}

	t.Run("forty run one after another, in order", func(t *testing.T) {
		const n = 40
		for i := range n {
			job := create(t, fmt.Sprintf("forty-%02d", i),
				once("alice", annotate(v1alpha1.AudioDurationAnnotation, "30s")))
			if !*job.Spec.Suspend {
				t.Fatal("the webhook did not suspend the Job")
			}
			if i < 3 {
				state := v1alpha1.StateQueued
				if i == 0 {
					state = v1alpha1.StateAdmitted
				}
				job = w.waitState(t, ns, job.Name, state)
				const want = "the limit of 1 running at once is reached; it starts by itself in its turn"
				if i > 0 && job.Annotations[v1alpha1.MessageAnnotation] != want {
					t.Errorf("message %q, want %q", job.Annotations[v1alpha1.MessageAnnotation], want)
				}
			}
		}
		eventually(t, "all forty are known", func(ctx context.Context) bool {
			live, err := w.store.LiveJobs(ctx, quota.ID{})
			return err == nil && len(live) == n
		})
		for range n {
			var started string
			eventually(t, "exactly one runs", func(ctx context.Context) bool {
				var list batchv1.JobList
				if err := w.Client.List(ctx, &list, client.InNamespace(ns),
					client.MatchingLabels{v1alpha1.UserLabel: "alice"}); err != nil {
					return false
				}
				started = ""
				for _, j := range list.Items {
					if ended := len(j.Status.Conditions) > 0 &&
						j.Status.CompletionTime != nil; !*j.Spec.Suspend && !ended {
						if started != "" {
							t.Fatalf("%s and %s run at once", started, j.Name)
						}
						started = j.Name
					}
				}
				return started != ""
			})
			w.finish(t, ns, started, corev1.PodSucceeded, "")
			w.waitState(t, ns, started, v1alpha1.StateSettled)
		}
		if got := w.used(t, "alice"); got != "20" {
			t.Errorf("used %s credits, want 20", got)
		}
	})

	t.Run("refused early", func(t *testing.T) {
		for name, tc := range map[string]struct {
			change func(*batchv1.Job)
			code   int32
			want   []string
		}{
			"credits": {annotate(v1alpha1.AudioDurationAnnotation, "31m"), http.StatusTooManyRequests,
				[]string{"31 credits", "30 of 30", "reset at", `"pro"`}},
			"file": {annotate(v1alpha1.FileSizeAnnotation, "26Mi"), http.StatusRequestEntityTooLarge,
				[]string{"26Mi", "25Mi"}},
		} {
			err := w.Client.Create(t.Context(), newJob(ns, "refused", once("bob", tc.change)))
			refusedWith(t, err, tc.want...)
			if s, ok := errors.AsType[*apierrors.StatusError](err); !ok || s.ErrStatus.Code != tc.code {
				t.Errorf("%s: got %v, want code %d", name, err, tc.code)
			}
		}
		err := w.Client.Create(t.Context(),
			newJob(ns, "refused", once("stranger", annotate(v1alpha1.AudioDurationAnnotation, "31m"))))
		refusedWith(t, err, "spend", "'stranger'")
		if strings.Contains(err.Error(), "credits") {
			t.Errorf("%v tells the balance to somebody who may not spend it", err)
		}
	})

	t.Run("a dry run leaves nothing", func(t *testing.T) {
		if err := w.Client.Create(t.Context(), newJob(ns, "dry", once("bob")), client.DryRunAll); err != nil {
			t.Fatal(err)
		}
		if all, err := w.svc.UsageOf(t.Context(), []string{"bob"}); err != nil || len(all) > 0 {
			t.Errorf("bob has %d accounts, %v, want none", len(all), err)
		}
	})

	t.Run("the termination message is charged", func(t *testing.T) {
		create(t, "message", once("carol", annotate(v1alpha1.ContainerAnnotation, "main")))
		w.finish(t, ns, "message", corev1.PodSucceeded, `{"duration_seconds": 30}`)
		w.waitState(t, ns, "message", v1alpha1.StateSettled)
		create(t, "nonsense", once("carol", annotate(v1alpha1.ContainerAnnotation, "main")))
		w.finish(t, ns, "nonsense", corev1.PodSucceeded, `{"duration_seconds": 1e99}`)
		w.waitState(t, ns, "nonsense", v1alpha1.StateSettled)
		create(t, "failed", once("carol"))
		w.finish(t, ns, "failed", corev1.PodFailed, "")
		w.waitState(t, ns, "failed", v1alpha1.StateReleased)
		if got := w.used(t, "carol"); got != "2.5" {
			t.Errorf("used %s credits, want 2.5: 0.5 reported, 2 declared, 0 for the failed one", got)
		}
	})

	t.Run("a deleted Job returns its slot", func(t *testing.T) {
		first := create(t, "first", once("dora"))
		w.waitState(t, ns, "first", v1alpha1.StateAdmitted)
		create(t, "second", once("dora"))
		w.waitState(t, ns, "second", v1alpha1.StateQueued)
		if err := w.Client.Delete(t.Context(), first,
			client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
			t.Fatal(err)
		}
		w.waitState(t, ns, "second", v1alpha1.StateAdmitted)
		if got := w.used(t, "dora"); got != "0" {
			t.Errorf("used %s credits, want 0", got)
		}
	})

	t.Run("an orphaned pod keeps the slot until it ends", func(t *testing.T) {
		first := create(t, "orphaned", once("emil"))
		w.waitState(t, ns, "orphaned", v1alpha1.StateAdmitted)
		eventually(t, "it has a pod", func(
			ctx context.Context) bool {
			return w.job(ctx, ns, "orphaned").Status.Active == 1
		})
		if err := w.Client.Delete(t.Context(), first,
			client.PropagationPolicy(metav1.DeletePropagationOrphan)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is gone", func(ctx context.Context) bool {
			return apierrors.IsNotFound(w.Client.Get(ctx, client.ObjectKeyFromObject(first), &batchv1.Job{}))
		})
		create(t, "after", once("emil"))
		w.waitState(t, ns, "after", v1alpha1.StateQueued)
		w.finish(t, ns, "orphaned", corev1.PodSucceeded, "")
		w.waitState(t, ns, "after", v1alpha1.StateAdmitted)
		if got := w.used(t, "emil"); got != "2" {
			t.Errorf("used %s credits, want the 2 declared", got)
		}
	})

	t.Run("a team's limit is named", func(t *testing.T) {
		desk := metering.Team{Team: quota.Team{Name: "desk", Caps: quota.Caps{
			Credits: new(quota.AtMost(6 * quota.Credit)), Concurrent: new(quota.AtMost[int32](1)),
		}}, Zone: "UTC"}
		if _, err := w.svc.ApplyTeam(t.Context(), desk, "test"); err != nil {
			t.Fatal(err)
		}
		for _, user := range []string{"gus", "hal"} {
			if err := w.svc.AddMember(t.Context(), "desk", user, metering.By{Actor: "test"}); err != nil {
				t.Fatal(err)
			}
		}
		create(t, "desk-runs", once("gus"))
		w.waitState(t, ns, "desk-runs", v1alpha1.StateAdmitted)
		err := w.Client.Create(t.Context(), newJob(ns, "desk-refused", once("hal",
			annotate(v1alpha1.AudioDurationAnnotation, "7m"))))
		refusedWith(t, err, `team "desk": 7 credits are needed, 4 of 6 remain in this period (0 used, 2 reserved)`)

		create(t, "desk-waits", once("hal"))
		create(t, "desk-parks", once("hal", annotate(v1alpha1.AudioDurationAnnotation, "4m")))
		const slots = `team "desk": the limit of 1 running at once is reached; it starts by itself in its turn`
		for _, name := range []string{"desk-waits", "desk-parks"} {
			job := w.waitState(t, ns, name, v1alpha1.StateQueued)
			if got := job.Annotations[v1alpha1.MessageAnnotation]; got != slots {
				t.Errorf("%s says %q, want %q", name, got, slots)
			}
		}
		w.finish(t, ns, "desk-runs", corev1.PodSucceeded, "")
		w.waitState(t, ns, "desk-waits", v1alpha1.StateAdmitted)
		w.finish(t, ns, "desk-waits", corev1.PodSucceeded, "")
		parked := w.waitState(t, ns, "desk-parks", v1alpha1.StateParked)
		const credits = `CreditsExhausted: team "desk": 4 credits are needed, and fewer remain of the 6 of this ` +
			`period; it starts by itself when that has changed`
		if got := parked.Annotations[v1alpha1.MessageAnnotation]; got != credits {
			t.Errorf("it says %q, want %q", got, credits)
		}
		eventually(t, "an event names the team, the limit and the numbers", func(ctx context.Context) bool {
			var events eventsv1.EventList
			return w.Client.List(ctx, &events, client.InNamespace(ns)) == nil &&
				slices.ContainsFunc(events.Items, func(e eventsv1.Event) bool {
					return e.Regarding.Name == "desk-parks" && e.Reason == v1alpha1.StateParked && e.Note == credits
				})
		})
		desk.Caps.Credits = new(quota.AtMost(8 * quota.Credit))
		if _, err := w.svc.ApplyTeam(t.Context(), desk, "test"); err != nil {
			t.Fatal(err)
		}
		w.waitState(t, ns, "desk-parks", v1alpha1.StateAdmitted)
		w.finish(t, ns, "desk-parks", corev1.PodSucceeded, "")
		w.waitState(t, ns, "desk-parks", v1alpha1.StateSettled)
	})

	t.Run("a namespace that warns meters", func(t *testing.T) {
		warn := namespace(t, w.Env, map[string]string{v1alpha1.EnforcementLabel: v1alpha1.EnforcementWarn}, users...)
		warned := &warnings{}
		c := w.NewClient(t, warned.on(w.Config))
		job := newJob(warn, "long", once("fay", annotate(v1alpha1.AudioDurationAnnotation, "31m")))
		if err := c.Create(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(warned.all(), " "); !strings.Contains(got, "31 credits") || *job.Spec.Suspend {
			t.Errorf("warnings %q, suspended %v, want one about the credits and a Job that runs", got,
				*job.Spec.Suspend)
		}
		w.waitState(t, warn, "long", v1alpha1.StateAdmitted)
		w.finish(t, warn, "long", corev1.PodSucceeded, "")
		w.waitState(t, warn, "long", v1alpha1.StateSettled)
		if got := w.used(t, "fay"); got != "31" {
			t.Errorf("used %s credits, want 31", got)
		}
	})
}
