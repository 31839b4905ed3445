// SPDX-License-Identifier: Apache-2.0

package jobs_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/clusters"
	"github.com/cantonesescribe/usage-operator/internal/controller"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reset"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// cluster is one of several on a database, with all controllers.
type cluster struct {
	*world
	t    *testing.T
	name string
	// ns is where its Jobs are, see jobsOf.
	ns string
}

// newClusterOn makes a cluster that registers, as the manager does.
func newClusterOn(t *testing.T, dsn, name string) *cluster {
	t.Helper()
	c := &cluster{world: newWorldOn(t, dsn), t: t, name: name, ns: metav1.NamespaceDefault}
	uid, err := controller.ClusterUID(t.Context(), c.Client)
	if err != nil {
		t.Fatal(err)
	}
	home, err := clusters.Register(t.Context(), c.store, clusters.Options{UID: uid, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	c.cluster = controller.Cluster{UID: uid, Names: home}
	t.Cleanup(run(t, home.Lead))
	c.startManager(t)
	t.Cleanup(func() { c.stopManager() })
	c.startDeclarations()
	return c
}

// jobsOf makes a namespace for the users' Jobs, in which they are accepted once there is a plan for them.
func (c *cluster) jobsOf(users ...string) {
	c.t.Helper()
	c.ns = namespace(c.t, c.Env, nil, users...)
}

// startDeclarations runs the controllers of plans and quotas.
func (c *cluster) startDeclarations() {
	c.t.Helper()
	mgr, err := ctrl.NewManager(c.Config, ctrl.Options{
		Scheme: c.Scheme, Metrics: server.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	const often = 300 * time.Millisecond
	for _, err := range []error{
		controller.SetupUserQuota(mgr, c.svc, c.store, controller.UserQuotaOptions{
			Cluster: c.cluster, StatusInterval: often, ResyncInterval: often,
		}),
		controller.SetupUsagePlan(mgr, c.svc, reset.New(c.engine, c.store, nil), controller.UsagePlanOptions{
			Cluster: c.cluster, Namespace: c.Namespace(c.t), Image: "example.com/op:1", ResyncInterval: often,
		}),
	} {
		if err != nil {
			c.t.Fatal(err)
		}
	}
	c.t.Cleanup(run(c.t, mgr.Start))
}

func (c *cluster) create(objects ...client.Object) {
	c.t.Helper()
	for _, object := range objects {
		if err := c.Client.Create(c.t.Context(), object); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *cluster) submit(name, user string) quota.ID {
	c.t.Helper()
	job := newJob(c.ns, name, label(v1alpha1.UserLabel, user),
		func(j *batchv1.Job) { j.Spec.BackoffLimit = new(int32(0)) })
	c.create(job)
	id, err := convert.UID(job.UID)
	if err != nil {
		c.t.Fatal(err)
	}
	return id
}

// is waits until an object's condition has a status and a reason, and its message the parts.
func (c *cluster) is(
	object client.Object, condition string, status metav1.ConditionStatus, reason string, parts ...string,
) {
	c.t.Helper()
	var got *metav1.Condition
	defer func() {
		if c.t.Failed() {
			c.t.Logf("%s of %s in %s: %+v", condition, object.GetName(), c.name, got)
		}
	}()
	eventually(c.t, fmt.Sprintf("%s of %s in %s is %s", condition, object.GetName(), c.name, status),
		func(ctx context.Context) bool {
			if err := c.Client.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
				return false
			}
			switch o := object.(type) {
			case *v1alpha1.UsagePlan:
				got = meta.FindStatusCondition(o.Status.Conditions, condition)
			case *v1alpha1.UserQuota:
				got = meta.FindStatusCondition(o.Status.Conditions, condition)
			}
			if got == nil || got.Status != status || got.Reason != reason {
				return false
			}
			for _, part := range parts {
				if !strings.Contains(got.Message, part) {
					return false
				}
			}
			return true
		})
}

func (c *cluster) ready(objects ...client.Object) {
	c.t.Helper()
	for _, object := range objects {
		c.is(object, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	}
}

// owned waits until objects say that they are another cluster's.
func (c *cluster) owned(by *cluster, objects ...client.Object) {
	c.t.Helper()
	for _, object := range objects {
		for _, condition := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionReady} {
			c.is(object, condition, metav1.ConditionFalse, v1alpha1.ReasonOwnedByAnotherCluster,
				"belongs to cluster "+by.name, "--from "+by.name+" --to "+c.name)
		}
	}
}

// admission waits until the ledger has an admission in a state.
func (c *cluster) admission(id quota.ID, state quota.State) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("%s sees admission %s %s", c.name, uuid.UUID(id), state),
		func(ctx context.Context) bool {
			adm, err := c.svc.Get(ctx, id)
			return err == nil && adm.State == state
		})
}

// sweeps waits until this cluster has looked for Jobs, plans and UserQuotas that are gone, by making one of each that
// is not there.
func (c *cluster) sweeps() {
	c.t.Helper()
	name := strings.ToLower(c.name) + "-" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12]
	ctx := c.t.Context()
	ghost := plans.Free(func(p *metering.Plan) {
		p.Name, p.Default, p.Cluster, p.ObjectUID = name, false, c.cluster.UID, quota.ID(uuid.New())
	})
	if _, err := c.svc.ApplyPlan(ctx, ghost, "test"); err != nil {
		c.t.Fatal(err)
	}
	theirs := metering.Quota{
		ObjectUID: quota.ID(uuid.New()), ObjectName: name, UserID: name, Zone: "UTC", Cluster: c.cluster.UID,
		Suspended: true,
	}
	if err := c.svc.ApplyQuota(ctx, theirs, "test"); err != nil {
		c.t.Fatal(err)
	}
	job := quota.ID(uuid.New())
	_, err := c.svc.Admit(ctx, metering.AdmitRequest{
		UserID: name + "-2", ID: job, Source: quota.SourceJob, Cluster: c.cluster.UID, Namespace: c.ns, Name: name,
		RequestedBy: "test", Estimate: quota.Credit, Queue: true, Park: true, Lease: metering.JobLease,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.admission(job, quota.Released)
	eventually(c.t, c.name+" has swept plans and UserQuotas", func(ctx context.Context) bool {
		all, err := c.store.Plans(ctx)
		if err != nil {
			return false
		}
		for _, p := range all {
			if p.Name == name && !p.Retired {
				return false
			}
		}
		return !c.account(ctx, name).Suspended
	})
}

func newUsagePlan(name string, slots int32) *v1alpha1.UsagePlan {
	return &v1alpha1.UsagePlan{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.UsagePlanSpec{
		DisplayName: name, Default: name == "free", AlertThresholds: []int32{80},
		Limits: v1alpha1.UsagePlanLimits{
			Credits: new(int64(100)), FileSize: new(resource.MustParse("25Mi")), Concurrent: &slots,
		},
	}}
}

// Two clusters, each with its manager, share a ledger: limits hold over both, and nothing that is one's is touched by
// the other.
func TestTwoClustersOnOneLedger(t *testing.T) {
	dsn := ledgertest.New(t)
	users := []string{"alice", "bob", "carol"}
	blue := newClusterOn(t, dsn, "blue")
	free, pro := newUsagePlan("free", 1), newUsagePlan("pro", 2)
	alice, carol := newQuota("alice", "pro"), newQuota("carol", "pro")
	blue.create(free, pro, alice, carol)
	blue.ready(free, pro, alice, carol)
	blue.jobsOf(users...)
	first, second := blue.submit("first", "alice"), blue.submit("second", "alice")
	for _, name := range []string{"first", "second"} {
		blue.waitState(t, blue.ns, name, v1alpha1.StateAdmitted)
	}

	// The same YAML, and some more, in green.
	green := newClusterOn(t, dsn, "green")
	green.jobsOf(users...)
	freeToo, proToo, aliceToo, carolToo := newUsagePlan("free", 5), newUsagePlan("pro", 5), newQuota("alice", ""),
		newQuota("carol", "")
	bob, team := newQuota("bob", "pro"), newUsagePlan("team", 3)
	green.create(freeToo, proToo, aliceToo, carolToo, bob, team)
	green.owned(blue, freeToo, proToo, aliceToo, carolToo)
	green.ready(bob, team)
	third := green.submit("third", "alice")
	green.waitState(t, green.ns, "third", v1alpha1.StateQueued)
	green.sweeps()
	blue.sweeps()

	unchanged := func(when string) {
		t.Helper()
		all, err := blue.store.Plans(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		owners := map[string]quota.ID{"free": blue.cluster.UID, "pro": blue.cluster.UID, "team": green.cluster.UID}
		for _, p := range all {
			owner := owners[p.Name]
			if owner != (quota.ID{}) && (p.Retired || p.Cluster != owner || p.Version != 1) {
				t.Errorf("%s: plan %+v", when, p)
			}
		}
		for user, plan := range map[string]string{"alice": "pro", "bob": "pro", "carol": "pro"} {
			if got := blue.account(t.Context(), user).Plan.Name; got != plan {
				t.Errorf("%s: %s is on plan %s, want %s", when, user, got, plan)
			}
		}
	}
	unchanged("beside each other")
	for id, want := range map[quota.ID]quota.State{first: quota.Admitted, second: quota.Admitted, third: quota.Queued} {
		blue.admission(id, want)
	}

	// What blue frees starts green's Job, though blue's transaction decides so.
	blue.finish(t, blue.ns, "first", corev1.PodSucceeded, "")
	blue.waitState(t, blue.ns, "first", v1alpha1.StateSettled)
	green.waitState(t, green.ns, "third", v1alpha1.StateAdmitted)
	blue.sweeps()
	green.admission(third, quota.Admitted)

	// Blue is cut off. Its Jobs keep what they have, and get their turn; green goes on.
	fourth := blue.submit("fourth", "alice")
	blue.waitState(t, blue.ns, "fourth", v1alpha1.StateQueued)
	blue.proxy.Refuse(true)
	blue.proxy.CutAll()
	eventually(t, "blue has no database", func(ctx context.Context) bool { return blue.store.Ping(ctx) != nil })
	green.finish(t, green.ns, "third", corev1.PodSucceeded, "")
	green.waitState(t, green.ns, "third", v1alpha1.StateSettled)
	green.admission(fourth, quota.Admitted)
	green.submit("his", "bob")
	green.waitState(t, green.ns, "his", v1alpha1.StateAdmitted)
	green.submit("fifth", "alice")
	green.waitState(t, green.ns, "fifth", v1alpha1.StateQueued)
	blue.finish(t, blue.ns, "second", corev1.PodSucceeded, "")
	green.sweeps()
	for _, id := range []quota.ID{second, fourth} {
		green.admission(id, quota.Admitted)
	}
	if got := green.active(t.Context(), "alice"); got != 2 {
		t.Errorf("alice holds %d slots, want 2", got)
	}
	green.owned(blue, freeToo, proToo, aliceToo, carolToo)
	blue.proxy.Refuse(false)
	blue.reachable(t)
	blue.waitState(t, blue.ns, "second", v1alpha1.StateSettled)
	if job := blue.waitState(t, blue.ns, "fourth", v1alpha1.StateAdmitted); *job.Spec.Suspend {
		t.Error("fourth is admitted and does not run")
	}
	green.waitState(t, green.ns, "fifth", v1alpha1.StateAdmitted)
	unchanged("after the outage")
	blue.ready(free, pro, alice, carol)

	// What one gives up is the other's.
	if err := blue.Client.Delete(t.Context(), carol); err != nil {
		t.Fatal(err)
	}
	green.ready(carolToo)

	// Green takes over. Blue's Job goes on and is blue's to settle.
	adopt := func() clusters.Adopted {
		t.Helper()
		done, err := clusters.Adopt(t.Context(), green.store, clusters.Adoption{
			From: "blue", To: "green", Jobs: clusters.JobsAuto, Actor: "test",
		})
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	if done := adopt(); done.Moved.Quotas != 1 || done.Moved.Jobs != 0 || done.Left.Jobs != 1 {
		t.Errorf("adopted %+v", done)
	}
	green.ready(freeToo, proToo, aliceToo, carolToo, bob)
	blue.owned(green, free, pro, alice)
	green.sweeps()
	blue.sweeps()
	green.admission(fourth, quota.Admitted)
	blue.finish(t, blue.ns, "fourth", corev1.PodSucceeded, "")
	blue.waitState(t, blue.ns, "fourth", v1alpha1.StateSettled)

	// Blue is lost with a Job. When that is known, green returns its slot.
	lost := blue.submit("lost", "carol")
	blue.waitState(t, blue.ns, "lost", v1alpha1.StateAdmitted)
	blue.proxy.Refuse(true)
	blue.proxy.CutAll()
	eventually(t, "blue has no database", func(ctx context.Context) bool { return blue.store.Ping(ctx) != nil })
	_, err := green.store.Pool().Exec(t.Context(),
		"UPDATE clusters SET last_seen = last_seen - interval '1 hour' WHERE name = 'blue'")
	if err != nil {
		t.Fatal(err)
	}
	if done := adopt(); done.Moved.Jobs != 1 || done.Left.Jobs != 0 {
		t.Errorf("adopted %+v", done)
	}
	green.admission(lost, quota.Released)
	blue.proxy.Refuse(false)
	blue.reachable(t)
	blue.sweeps()
	if got := green.active(t.Context(), "carol"); got != 0 {
		t.Errorf("carol holds %d slots, want none", got)
	}
	green.finish(t, green.ns, "fifth", corev1.PodSucceeded, "")
	green.waitState(t, green.ns, "fifth", v1alpha1.StateSettled)
	for user, want := range map[string]string{"alice": "10", "carol": "0"} {
		if got := green.used(t, user); got != want {
			t.Errorf("%s has used %s credits, want %s", user, got, want)
		}
	}
}

// A cluster of before that registers first goes on with what it has; one that comes second takes none of it.
func TestClusterFromBefore(t *testing.T) {
	dsn := ledgertest.New(t)
	store, err := ledgerdb.Open(t.Context(), dsn, postgres.Options{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.ApplyPlan(t.Context(), plan("free", 0, 30, 1), "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.RegisterCluster(t.Context(), quota.ID{1}, "old"); err != nil {
		t.Fatal(err)
	}
	green := newClusterOn(t, dsn, "green")
	free := newUsagePlan("free", 2)
	green.create(free)
	green.is(free, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonOwnedByAnotherCluster,
		"cluster old")
	green.sweeps()
	all, err := store.Plans(t.Context())
	if err != nil || len(all) == 0 || all[0].Retired || all[0].Cluster != (quota.ID{1}) {
		t.Errorf("%+v, %v", all, err)
	}
}
