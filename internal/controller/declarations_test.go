// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/controller"
	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/deliverydb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reset"
	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
)

const (
	resync   = 300 * time.Millisecond
	interval = 200 * time.Millisecond
	patience = 30 * time.Second
)

// cluster is an API server without any objects of ours, a database, and the controllers of plans and quotas between
// them.
type cluster struct {
	*testing.T
	client    client.Client
	service   *service
	records   *records
	store     *ledgerdb.Store
	dsn       string
	resets    *reset.Service
	namespace string
	env       *kubetest.Env
	stop      func()
	// ahead is how far the database's clock is ahead of the machine's.
	ahead *atomic.Int64
}

// service is the real one, with a database that can be away.
type service struct {
	*metering.Service
	store *ledgerdb.Store
	down  atomic.Bool

	mu sync.Mutex
	// read is how often the standing of each user was.
	read map[string]int
}

// records are the real ones. They count how often they were asked what has changed.
type records struct {
	*ledgerdb.Store
	polls atomic.Int64
}

func (r *records) QuotaChanges(ctx context.Context, since ledger.Mark) (ledger.QuotaChanges, error) {
	r.polls.Add(1)
	return r.Store.QuotaChanges(ctx, since)
}

func (s *service) UsageOf(ctx context.Context, userIDs []string) (map[string]ledger.Usage, error) {
	s.mu.Lock()
	for _, user := range userIDs {
		s.read[user]++
	}
	s.mu.Unlock()
	return s.Service.UsageOf(ctx, userIDs)
}

// reads returns how often a user's standing was read since it was last asked.
func (s *service) reads(user string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.read[user]
	s.read[user] = 0
	return n
}

func (s *service) ApplyPlan(ctx context.Context, p metering.Plan, actor string) (metering.PlanStatus, error) {
	if s.down.Load() {
		return metering.PlanStatus{}, fmt.Errorf("dial 127.0.0.1:%d: %w", time.Now().UnixNano(), ledger.ErrUnavailable)
	}
	return s.Service.ApplyPlan(ctx, p, actor)
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	env := kubetest.Shared(t)
	dsn := pgtest.New(t, postgres.Migrate)
	ahead := &atomic.Int64{}
	store, err := ledgerdb.Open(t.Context(), dsn, postgres.Options{
		AllowUnsafe: true, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	c := &cluster{
		T: t, client: env.Client, store: store, dsn: dsn, namespace: env.Namespace(t), env: env, ahead: ahead,
	}
	c.records = &records{Store: store}
	engine := ledger.New(store, ledger.Options{})
	c.resets = reset.New(engine, store, nil)
	c.service = &service{
		Service: metering.New(engine, store, access.NewSigner(store), metering.Options{AutoRegister: true}),
		store:   store, read: map[string]int{},
	}
	c.run(func(ctx context.Context) error { return c.service.Run(ctx) })
	t.Cleanup(func() {
		for _, obj := range []client.Object{&v1alpha1.UserQuota{}, &v1alpha1.UsageTeam{}, &v1alpha1.UsagePlan{},
			&v1alpha1.NotificationEndpoint{}} {
			if err := env.Client.DeleteAllOf(context.Background(), obj); err != nil {
				t.Error(err)
			}
		}
	})
	c.start()
	return c
}

// run runs something until the test ends, or until the returned function is called.
func (c *cluster) run(what func(context.Context) error) func() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- what(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			c.Error(err)
		}
	}
	c.Cleanup(stop)
	return stop
}

func (c *cluster) start() {
	c.Helper()
	mgr, err := ctrl.NewManager(c.env.Config, ctrl.Options{
		Scheme: c.env.Scheme, Metrics: metricsserver.Options{BindAddress: "0"},
		// Managers follow each other in this process.
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		c.Fatal(err)
	}
	err = controller.SetupUsagePlan(mgr, c.service, c.resets,
		controller.UsagePlanOptions{Namespace: c.namespace, Image: "example.com/op:1", ResyncInterval: resync})
	if err != nil {
		c.Fatal(err)
	}
	if err := controller.SetupUserQuota(mgr, c.service, c.records,
		controller.UserQuotaOptions{StatusInterval: interval}); err != nil {
		c.Fatal(err)
	}
	if err := controller.SetupUsageTeam(mgr, c.service,
		controller.UsageTeamOptions{StatusInterval: interval, ResyncInterval: resync}); err != nil {
		c.Fatal(err)
	}
	endpoints := delivery.New(deliverydb.New(c.store.Store), delivery.Options{})
	if err := controller.SetupNotificationEndpoint(mgr, endpoints, controller.NotificationEndpointOptions{
		Namespace: c.namespace, StatusInterval: interval, ResyncInterval: resync}); err != nil {
		c.Fatal(err)
	}
	if err := controller.SetupResetMetrics(mgr, c.service, c.resets, resync, nil); err != nil {
		c.Fatal(err)
	}
	c.stop = c.run(mgr.Start)
}

func (c *cluster) create(objs ...client.Object) {
	c.Helper()
	for _, obj := range objs {
		if err := c.client.Create(c.Context(), obj); err != nil {
			c.Fatal(err)
		}
	}
}

// eventually waits until check returns nothing to complain about.
func (c *cluster) eventually(check func() string) {
	c.Helper()
	var last string
	err := wait.PollUntilContextTimeout(c.Context(), 20*time.Millisecond, patience, true,
		func(context.Context) (bool, error) {
			last = check()
			return last == "", nil
		})
	if err != nil {
		c.Fatalf("not within %s: %s", patience, last)
	}
}

// wants waits until a condition of the object is as given, for its current spec, and its message contains the texts.
func (c *cluster) wants(obj client.Object, kind string, status metav1.ConditionStatus, reason string, texts ...string) {
	c.Helper()
	c.eventually(func() string {
		if err := c.client.Get(c.Context(), client.ObjectKeyFromObject(obj), obj); err != nil {
			return err.Error()
		}
		var list []metav1.Condition
		var observed int64
		switch obj := obj.(type) {
		case *v1alpha1.UsagePlan:
			list, observed = obj.Status.Conditions, obj.Status.ObservedGeneration
		case *v1alpha1.UserQuota:
			list, observed = obj.Status.Conditions, obj.Status.ObservedGeneration
		case *v1alpha1.UsageTeam:
			list, observed = obj.Status.Conditions, obj.Status.ObservedGeneration
		case *v1alpha1.NotificationEndpoint:
			list, observed = obj.Status.Conditions, obj.Status.ObservedGeneration
		}
		got := meta.FindStatusCondition(list, kind)
		if got == nil || got.Status != status || got.Reason != reason || observed != obj.GetGeneration() ||
			got.ObservedGeneration != observed {
			return fmt.Sprintf("%T %s: want %s=%s/%s, got generation %d of %d, %+v", obj, obj.GetName(), kind, status,
				reason, observed, obj.GetGeneration(), list)
		}
		for _, text := range texts {
			if !strings.Contains(got.Message, text) {
				return fmt.Sprintf("message %q of %s does not contain %q", got.Message, kind, text)
			}
		}
		return ""
	})
}

func (c *cluster) ready(objs ...client.Object) {
	c.Helper()
	for _, obj := range objs {
		c.wants(obj, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	}
}

// change edits an object by a merge patch, as kubectl does.
func (c *cluster) change(obj client.Object, edit func()) {
	c.Helper()
	before := obj.DeepCopyObject().(client.Object)
	edit()
	if err := c.client.Patch(c.Context(), obj, client.MergeFrom(before)); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) remove(obj client.Object) {
	c.Helper()
	if err := c.client.Delete(c.Context(), obj); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) exec(sql string) {
	c.Helper()
	if _, err := c.store.Pool().Exec(c.Context(), sql); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) row(name string) *metering.Plan {
	c.Helper()
	rows, err := c.store.Plans(c.Context())
	if err != nil {
		c.Fatal(err)
	}
	for _, row := range rows {
		if row.Name == name {
			return row
		}
	}
	return nil
}

func (c *cluster) usage(user string) ledger.Usage {
	c.Helper()
	all, err := c.service.UsageOf(c.Context(), []string{user})
	if err != nil {
		c.Fatal(err)
	}
	return all[user]
}

func newPlan(name string, credits int64, byDefault bool) *v1alpha1.UsagePlan {
	return &v1alpha1.UsagePlan{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.UsagePlanSpec{DisplayName: name, Default: byDefault, Limits: v1alpha1.UsagePlanLimits{
			Credits: &credits, FileSize: new(resource.MustParse("25Mi")), Concurrent: new(int32(1)),
		}, AlertThresholds: []int32{80}},
	}
}

func newQuota(name, user, plan string) *v1alpha1.UserQuota {
	q := &v1alpha1.UserQuota{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.UserQuotaSpec{UserID: user}}
	if plan != "" {
		q.Spec.PlanRef = &v1alpha1.PlanReference{Name: plan}
	}
	return q
}

func TestPlanIsKeptInTheDatabase(t *testing.T) {
	c := newCluster(t)
	free := newPlan("free", 30, true)
	c.create(free)
	c.ready(free)
	c.wants(free, v1alpha1.ConditionInUse, metav1.ConditionFalse, v1alpha1.ReasonUnused)
	if free.Status.Version != 1 || free.Status.NextResetTime == nil ||
		free.Status.CronJobName != controller.CronJobName("free") {
		t.Errorf("status %+v", free.Status)
	}

	c.change(free, func() { free.Spec.Limits.Credits = new(int64(40)) })
	c.ready(free)
	if free.Status.Version != 2 || c.row("free").Limits.Credits.Max != 40*quota.Credit {
		t.Errorf("after a change: version %d, row %+v", free.Status.Version, c.row("free"))
	}

	// Behind its back.
	c.exec("UPDATE user_plan_limits SET credits_limit = 1 WHERE name = 'free'")
	c.eventually(func() string {
		if got := c.row("free").Limits.Credits.Max; got != 40*quota.Credit {
			return "the row has " + got.String() + " credits"
		}
		return ""
	})

	// Nothing more is written while nothing happens: three rounds of the resync leave the object as it is.
	c.ready(free)
	c.eventually(func() string {
		if err := c.client.Get(t.Context(), client.ObjectKeyFromObject(free), free); err != nil ||
			free.Status.Version != 3 {
			return fmt.Sprintf("version %d, %v", free.Status.Version, err)
		}
		return ""
	})
	version := free.ResourceVersion
	for range 3 {
		c.exec("UPDATE user_plan_limits SET object_uid = NULL WHERE name = 'free'")
		c.eventually(func() string {
			if c.row("free").ObjectUID == (quota.ID{}) {
				return "the owner's uid is not back"
			}
			return ""
		})
	}
	if err := c.client.Get(t.Context(), client.ObjectKeyFromObject(free), free); err != nil {
		t.Fatal(err)
	}
	if free.Status.Version == 3 && free.ResourceVersion != version {
		t.Errorf("the status was written although nothing happened: resource version %s, was %s",
			free.ResourceVersion, version)
	}
}

func TestPlanWithoutDatabase(t *testing.T) {
	c := newCluster(t)
	c.service.down.Store(true)
	free := newPlan("free", 30, true)
	c.create(free)
	c.wants(free, v1alpha1.ConditionSynced, metav1.ConditionFalse, v1alpha1.ReasonDatabaseUnavailable)
	c.wants(free, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonDatabaseUnavailable)
	c.service.down.Store(false)
	c.ready(free)
}

// The database is an empty one all of a sudden: conditions say so, and what is declared is written again once it has a
// schema.
func TestDeclarationsOnAnEmptyDatabase(t *testing.T) {
	c := newCluster(t)
	free := newPlan("free", 30, true)
	alice := &v1alpha1.UserQuota{ObjectMeta: metav1.ObjectMeta{Name: "alice"}, Spec: v1alpha1.UserQuotaSpec{
		UserID: "alice", Grants: map[string]v1alpha1.Grant{"welcome": {Credits: 10}},
	}}
	c.create(free, alice)
	c.ready(free, alice)
	pgtest.Empty(t, c.dsn)
	for _, condition := range []string{v1alpha1.ConditionSynced, v1alpha1.ConditionReady} {
		c.wants(free, condition, metav1.ConditionFalse, v1alpha1.ReasonDatabaseSchema,
			"the database has schema version 0, this needs ")
	}
	if err := postgres.Migrate(t.Context(), c.dsn); err != nil {
		t.Fatal(err)
	}
	c.eventually(func() string {
		usages, err := c.service.UsageOf(t.Context(), []string{"alice"})
		if u, there := usages["alice"]; err != nil || !there || len(u.Account.Lots) != 1 {
			return fmt.Sprintf("alice is not back with her grant: %+v, %v", usages, err)
		}
		return ""
	})
	c.ready(free, alice)
}

// What is stored about one user cannot be read by this release. Its UserQuota says so, the others' go on, and what the
// object declares is put right by it.
func TestUserThatCannotBeRead(t *testing.T) {
	c := newCluster(t)
	free := newPlan("free", 30, true)
	gift := map[string]v1alpha1.Grant{"gift": {Credits: 10}}
	petra := &v1alpha1.UserQuota{ObjectMeta: metav1.ObjectMeta{Name: "petra"},
		Spec: v1alpha1.UserQuotaSpec{UserID: "petra", Grants: gift}}
	quentin := &v1alpha1.UserQuota{ObjectMeta: metav1.ObjectMeta{Name: "quentin"},
		Spec: v1alpha1.UserQuotaSpec{UserID: "quentin"}}
	c.create(free, petra, quentin)
	c.ready(free, petra, quentin)
	const ofPetra = " WHERE user_id = (SELECT id FROM users WHERE user_id = 'petra')"

	// A newer release has brought a kind of lot, and was rolled back.
	c.exec("ALTER TABLE credit_lots DROP CONSTRAINT credit_lots_kind_check")
	c.exec("UPDATE credit_lots SET kind = 'prepaid'" + ofPetra)
	for _, condition := range []string{v1alpha1.ConditionSynced, v1alpha1.ConditionReady} {
		c.wants(petra, condition, metav1.ConditionFalse, v1alpha1.ReasonAccountUnreadable, `kind "prepaid"`)
	}
	c.exec("UPDATE usage_quotas SET suspended = true WHERE user_id = (SELECT id FROM users WHERE user_id = 'quentin')")
	c.eventually(func() string {
		if c.usage("quentin").Account.Suspended {
			return "quentin's row is not as declared"
		}
		return ""
	})
	c.exec("UPDATE credit_lots SET kind = 'grant'" + ofPetra)
	c.ready(petra)

	// A zone that this release's time zone data do not have is in the object's hands.
	c.exec("UPDATE usage_quotas SET time_zone = 'Mars/Olympus'" + ofPetra)
	c.eventually(func() string {
		u, err := c.service.UsageOf(t.Context(), []string{"petra"})
		if err != nil || u["petra"].Unreadable != nil {
			return fmt.Sprintf("petra cannot be read: %+v, %v", u["petra"], err)
		}
		return ""
	})
	c.ready(petra, quentin)
}

func TestInvalidScheduleWithoutWebhook(t *testing.T) {
	c := newCluster(t)
	plan := newPlan("odd", 30, false)
	plan.Spec.Reset.Schedule = "0 0 31 2 *"
	c.create(plan)
	c.wants(plan, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonInvalid, "0 0 31 2 *")
	c.change(plan, func() { plan.Spec.Reset.Schedule = "@daily" })
	c.ready(plan)
}

func TestSecondDefaultPlanWaits(t *testing.T) {
	c := newCluster(t)
	first, second := newPlan("first", 30, true), newPlan("second", 60, true)
	c.create(first)
	c.ready(first)
	c.create(second)
	c.wants(second, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonConflict,
		`plan "first" is the default already: set spec.default to false in one of them`)
	c.wants(second, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonConflict)
	c.wants(second, v1alpha1.ConditionResetScheduled, metav1.ConditionFalse, v1alpha1.ReasonNotAccepted)
	c.ready(first)

	c.change(first, func() { first.Spec.Default = false })
	c.ready(first, second)
}

func TestResetCronJob(t *testing.T) {
	c := newCluster(t)
	plan, petra := newPlan("pro", 500, false), newQuota("petra", "petra-1", "pro")
	c.create(plan, petra)
	c.ready(plan, petra)
	key := types.NamespacedName{Namespace: c.namespace, Name: controller.CronJobName("pro")}
	cronJob := &batchv1.CronJob{}
	asDeclared := func(schedule string) {
		t.Helper()
		c.eventually(func() string {
			if err := c.client.Get(t.Context(), key, cronJob); err != nil {
				return err.Error()
			}
			spec, job, pod := cronJob.Spec, cronJob.Spec.JobTemplate.Spec, cronJob.Spec.JobTemplate.Spec.Template.Spec
			if *spec.StartingDeadlineSeconds != 3600 || *spec.SuccessfulJobsHistoryLimit != 1 ||
				*spec.FailedJobsHistoryLimit != 3 ||
				*job.ActiveDeadlineSeconds != 3600 || *job.BackoffLimit != 2 ||
				pod.RestartPolicy != corev1.RestartPolicyNever ||
				pod.Containers[0].Resources.Requests.Cpu().IsZero() ||
				pod.Containers[0].Resources.Limits.Memory().IsZero() ||
				*pod.AutomountServiceAccountToken {
				return fmt.Sprintf("CronJob %+v", cronJob)
			}
			args := strings.Join(append(pod.Containers[0].Command, pod.Containers[0].Args...), " ")
			if !metav1.IsControlledBy(cronJob, plan) || spec.Schedule != schedule || *spec.TimeZone != "Etc/UTC" ||
				*spec.Suspend ||
				spec.ConcurrencyPolicy != batchv1.ForbidConcurrent || args != "/usage-batch reset --plan pro" ||
				pod.Containers[0].Image != "example.com/op:1" || pod.ServiceAccountName != "usage-operator-batch" {
				return fmt.Sprintf("CronJob %+v", cronJob)
			}
			return ""
		})
	}
	asDeclared("0 2 * * *")

	// The API server itself judges the security context, in a namespace that takes restricted pods only.
	restricted := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "restricted-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	c.create(restricted)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "reset-", Namespace: restricted.Name},
		Spec:       cronJob.Spec.JobTemplate.Spec.Template.Spec,
	}
	pod.Spec.ServiceAccountName = "" // that of the manager's namespace is not here
	if err := c.client.Create(t.Context(), pod, client.DryRunAll); err != nil {
		t.Errorf("a reset's pod is not restricted: %v", err)
	}
	pod.Spec.Containers[0].SecurityContext = nil
	if err := c.client.Create(t.Context(), pod, client.DryRunAll); !apierrors.IsForbidden(err) {
		t.Errorf("a pod that is not restricted: want it forbidden, got %v", err)
	}

	c.change(cronJob, func() {
		cronJob.Spec.Suspend, cronJob.Spec.Schedule = new(true), "@yearly"
		cronJob.Spec.JobTemplate.Spec.Template.Spec.Containers[0].Image = "example.com/other"
	})
	asDeclared("0 2 * * *")
	c.remove(cronJob)
	asDeclared("0 2 * * *")
	c.change(plan, func() { plan.Spec.Reset.Schedule = "30 3 * * *" })
	asDeclared("30 3 * * *")
	free := newPlan("free", 30, true)
	c.create(free)
	c.ready(free)
	ofFree := &batchv1.CronJob{}
	if err := c.client.Get(t.Context(),
		types.NamespacedName{Namespace: c.namespace, Name: controller.CronJobName("free")}, ofFree); err != nil {
		t.Fatal(err)
	}
	if args := ofFree.Spec.JobTemplate.Spec.Template.Spec.Containers[0].Args; !slices.Equal(args,
		[]string{"reset", "--plan", "free", "--retired"}) {
		t.Errorf("the default plan's reset: %q", args)
	}

	// The CronJob's event, when a run of it has ended, brings what the run did into the plan's status.
	if plan.Status.LastReset != nil || plan.Status.LastResetTime != nil {
		t.Errorf("before the first run the status has %+v of %s", plan.Status.LastReset, plan.Status.LastResetTime)
	}
	c.exec(
		`UPDATE usage_quotas SET period_start = now() - interval '2 months', period_end = now() - interval '1 month'`)
	if res, err := c.resets.Run(t.Context(), reset.Options{Plan: "pro", Actor: "test"}); err != nil ||
		res.Accounts != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	ran := metav1.Now()
	before := cronJob.DeepCopy()
	cronJob.Status.LastScheduleTime, cronJob.Status.LastSuccessfulTime = &ran, &ran
	if err := c.client.Status().Patch(t.Context(), cronJob, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	c.eventually(func() string {
		err := c.client.Get(t.Context(), client.ObjectKeyFromObject(plan), plan)
		if run := plan.Status.LastReset; err != nil || run == nil || run.State != "Succeeded" || run.Accounts != 1 ||
			run.Periods < 1 ||
			run.Failures != 0 || !run.CompletionTime.Equal(plan.Status.LastResetTime) {
			return fmt.Sprintf("lastReset %+v, lastResetTime %s, %v", run, plan.Status.LastResetTime, err)
		}
		return ""
	})

	c.remove(plan)
	c.eventually(func() string {
		if err := c.client.Get(t.Context(), key, cronJob); !apierrors.IsNotFound(err) {
			return fmt.Sprintf("the CronJob of a deleted plan: %v", err)
		}
		return ""
	})
}

func TestDeletedPlanIsRetired(t *testing.T) {
	c := newCluster(t)
	free, pro, petra := newPlan("free", 30, true), newPlan("pro", 500, false), newQuota("petra", "petra-1", "pro")
	c.create(free, pro)
	c.ready(free, pro)
	c.create(petra)
	c.ready(petra)
	c.wants(pro, v1alpha1.ConditionInUse, metav1.ConditionTrue, v1alpha1.ReasonInUse, "1 user is", "petra-1")

	c.remove(pro)
	c.wants(petra, v1alpha1.ConditionPlanResolved, metav1.ConditionTrue, v1alpha1.ReasonPlanRetired, "pro")
	c.ready(petra)
	if row := c.row("pro"); !row.Retired || petra.Status.Plan != "pro" || petra.Status.Usage.Limit != "500" {
		t.Errorf("retired %v, status %+v", row.Retired, petra.Status)
	}

	back := newPlan("pro", 600, false)
	c.create(back)
	c.ready(back)
	c.wants(petra, v1alpha1.ConditionPlanResolved, metav1.ConditionTrue, v1alpha1.ReasonPlanResolved)
}

func TestDeletedWhileNobodyWatched(t *testing.T) {
	c := newCluster(t)
	free, pro, petra := newPlan("free", 30, true), newPlan("pro", 500, false), newQuota("petra", "petra-1", "pro")
	c.create(free, pro)
	c.ready(free, pro)
	c.create(petra)
	c.ready(petra)
	c.stop()
	c.remove(pro)
	c.remove(petra)
	c.start()
	c.eventually(func() string {
		if u := c.usage("petra-1"); !c.row("pro").Retired || u.QuotaUID != (quota.ID{}) ||
			u.Account.Plan.Name != "free" {
			return fmt.Sprintf("retired %v, owner %x, plan %s", c.row("pro").Retired, u.QuotaUID, u.Account.Plan.Name)
		}
		return ""
	})
}

func TestQuotaWaitsForItsPlan(t *testing.T) {
	c := newCluster(t)
	alice, bob := newQuota("alice", "alice-1", "starter"), newQuota("bob", "bob-1", "")
	c.create(alice, bob)
	c.wants(bob, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonNoDefaultPlan)

	c.wants(alice, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonPlanNotFound, "starter")

	// A quota that names its plan needs no default one.
	c.create(newPlan("starter", 150, false))
	c.ready(alice)
	c.wants(bob, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonNoDefaultPlan)

	c.create(newPlan("free", 30, true))
	c.ready(bob)
	c.wants(bob, v1alpha1.ConditionPlanResolved, metav1.ConditionTrue, v1alpha1.ReasonDefaultPlan, "free")
	if alice.Status.Plan != "starter" || alice.Status.Usage.Limit != "150" || alice.Status.Usage.Slots != "0/1" ||
		alice.Status.ResetsAt == nil {
		t.Errorf("status %+v", alice.Status)
	}
}

func TestFirstQuotaOfAUserStays(t *testing.T) {
	c := newCluster(t)
	free, first, second := newPlan("free", 30, true), newQuota("first", "alice-1", ""),
		newQuota("second", "alice-1", "")
	second.Spec.Suspended = true
	c.create(free, first)
	c.ready(free, first)
	c.create(second)
	c.wants(second, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonConflict, "first")
	c.wants(second, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonConflict)
	c.ready(first)
	if second.Status.Usage != nil || c.usage("alice-1").Account.Suspended {
		t.Errorf("the second object had its way: %+v", second.Status)
	}

	c.remove(first)
	c.ready(second)
	if !c.usage("alice-1").Account.Suspended {
		t.Error("the second object is in force and the user is not suspended")
	}
	c.remove(second)
	c.eventually(func() string {
		if u := c.usage("alice-1"); u.QuotaUID != (quota.ID{}) || u.Account.Suspended {
			return fmt.Sprintf("still owned by %x, suspended %v", u.QuotaUID, u.Account.Suspended)
		}
		return ""
	})
}

func TestQuotaIsRepaired(t *testing.T) {
	c := newCluster(t)
	free, alice := newPlan("free", 30, true), newQuota("alice", "alice-1", "")
	alice.Spec.Overrides = &v1alpha1.QuotaOverrides{Concurrent: new(int32(3)),
		Unlimited: []v1alpha1.LimitName{v1alpha1.LimitCredits}}
	alice.Spec.TimeZone = "Asia/Hong_Kong"
	c.create(free)
	c.ready(free)
	c.create(alice)
	c.ready(alice)
	if u := alice.Status.Usage; u.Limit != "unlimited" || u.Remaining != "unlimited" || u.Slots != "0/3" {
		t.Errorf("usage %+v", u)
	}
	for _, change := range []string{"suspended = true", "concurrent_override = NULL", "time_zone = 'UTC'",
		"quota_uid = NULL, quota_name = NULL"} {
		c.exec("UPDATE usage_quotas SET " + change)
		c.eventually(func() string {
			u := c.usage("alice-1")
			if o := u.Account.Overrides.Concurrent; u.Account.Suspended || o == nil || o.Max != 3 ||
				u.Account.Zone.String() != "Asia/Hong_Kong" || u.QuotaUID == (quota.ID{}) {
				return fmt.Sprintf("after %s: %+v", change, u.Account)
			}
			return ""
		})
	}
}

func TestStandingIsWritten(t *testing.T) {
	c := newCluster(t)
	free, alice, idle := newPlan("free", 30, true), newQuota("alice", "alice-1", ""), newQuota("idle", "idle-1", "")
	alice.Spec.Grants = map[string]v1alpha1.Grant{"welcome": {Credits: 60}}
	c.create(free)
	c.ready(free)
	c.create(alice, idle)
	c.ready(alice, idle)
	untouched := idle.ResourceVersion

	admitted, err := c.service.Admit(t.Context(), metering.AdmitRequest{
		UserID: "alice-1", Key: "one", Source: quota.SourceAPI, Estimate: 20 * quota.Credit, Lease: time.Minute,
	})
	if err != nil || admitted.Admission == nil {
		t.Fatalf("admit: %+v, %v", admitted, err)
	}
	shows := func(want v1alpha1.UserQuotaUsage) {
		t.Helper()
		c.eventually(func() string {
			if err := c.client.Get(t.Context(), client.ObjectKeyFromObject(alice), alice); err != nil {
				return err.Error()
			}
			got := *alice.Status.Usage
			got.ConcurrentLimit = nil
			if got != want {
				return fmt.Sprintf("usage %+v, want %+v", got, want)
			}
			return ""
		})
	}
	shows(v1alpha1.UserQuotaUsage{Used: "0", Limit: "90", Remaining: "70", Reserved: "20", Running: 1, Slots: "1/1"})
	if _, err := c.service.Complete(t.Context(), quota.ID{}, admitted.Admission.ID,
		12*quota.Credit+quota.Credit/2); err != nil {
		t.Fatal(err)
	}
	shows(v1alpha1.UserQuotaUsage{Used: "12.5", Limit: "90", Remaining: "77.5", Reserved: "0", Running: 0,
		Slots: "0/1"})
	c.ready(alice, idle)
	if idle.ResourceVersion != untouched {
		t.Errorf("the object of a user who did nothing was written: resource version %s, was %s",
			idle.ResourceVersion, untouched)
	}
}

// Only who has done something is read again, and what the time or a plan moves is written without that.
func TestStandingIsReadWhereItMoves(t *testing.T) {
	c := newCluster(t)
	free, pro := newPlan("free", 30, true), newPlan("pro", 50, false)
	alice, idle := newQuota("alice", "alice-1", ""), newQuota("idle", "idle-1", "pro")
	soon := metav1.NewTime(time.Now().Add(24 * time.Hour))
	idle.Spec.Grants = map[string]v1alpha1.Grant{"welcome": {Credits: 60, ExpiresAt: &soon}}
	c.create(free, pro)
	c.ready(free, pro)
	c.create(alice, idle)
	c.ready(alice, idle)
	shows := func(q *v1alpha1.UserQuota, used, limit string) {
		t.Helper()
		c.eventually(func() string {
			if err := c.client.Get(t.Context(), client.ObjectKeyFromObject(q), q); err != nil {
				return err.Error()
			}
			if u := q.Status.Usage; u.Used != used || u.Limit != limit {
				return fmt.Sprintf("%s: usage %+v, want %s used of %s", q.Name, u, used, limit)
			}
			return ""
		})
	}
	shows(alice, "0", "30")
	shows(idle, "0", "110")
	// What was done to make them is old once polls have asked for nobody.
	quiet := c.records.polls.Load()
	c.eventually(func() string {
		polls := c.records.polls.Load()
		if n := c.service.reads("idle-1"); n > 0 {
			quiet = polls
			return fmt.Sprintf("idle-1 was read %d times", n)
		}
		if polls < quiet+3 {
			return fmt.Sprintf("%d polls", polls-quiet)
		}
		return ""
	})
	c.service.reads("alice-1")
	res, err := c.service.Admit(t.Context(), metering.AdmitRequest{
		UserID: "alice-1", Key: "one", Source: quota.SourceAPI, Estimate: 20 * quota.Credit, Lease: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.service.Complete(t.Context(), quota.ID{}, res.Admission.ID, 12*quota.Credit); err != nil {
		t.Fatal(err)
	}
	shows(alice, "12", "30")
	if n := c.service.reads("idle-1"); n > 0 || c.service.reads("alice-1") == 0 {
		t.Errorf("idle-1, who did nothing, was read %d times", n)
	}

	// A plan's new version is its users' matter.
	c.change(pro, func() { pro.Spec.Limits.Credits = new(int64(70)) })
	shows(idle, "0", "130")
	// A grant expires, and then the period ends; nothing in the database changes.
	c.ahead.Store(int64(25 * time.Hour))
	shows(idle, "0", "70")
	shows(alice, "12", "30")
	ends := alice.Status.ResetsAt.Time
	c.ahead.Store(int64(40 * 24 * time.Hour))
	shows(alice, "0", "30")
	if !alice.Status.ResetsAt.After(ends) || alice.Status.LastPeriod == nil || alice.Status.LastPeriod.Used != "12" {
		t.Errorf("status %+v", alice.Status)
	}
}
