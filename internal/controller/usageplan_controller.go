// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/loop"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reset"
)

// DefaultResyncInterval is how often plans are compared with the database where nobody says otherwise.
const DefaultResyncInterval = time.Minute

// Plans is what the UsagePlan controller needs of the metering service.
type Plans interface {
	ApplyPlan(ctx context.Context, plan metering.Plan, actor string) (metering.PlanStatus, error)
	RetirePlan(ctx context.Context, name string, cluster quota.ClusterUID, actor string) error
	Plans(ctx context.Context) ([]*metering.Plan, error)
}

// UsagePlanOptions configure the UsagePlan controller.
type UsagePlanOptions struct {
	// Cluster is this one.
	Cluster Cluster
	// Namespace and Image of the reset CronJobs: the manager's own.
	Namespace, Image string
	// ResyncInterval is how often each plan is compared with the database; DefaultResyncInterval if zero.
	ResyncInterval time.Duration
	// Loops is told how each turn of the background work went; nil keeps silent.
	Loops loop.Observer
}

// +kubebuilder:rbac:groups=usage.cantonesescribe.io,resources=usageplans,verbs=get;list;watch
// +kubebuilder:rbac:groups=usage.cantonesescribe.io,resources=usageplans/status,verbs=patch
// +kubebuilder:rbac:groups=batch,namespace=usage-operator-system,resources=cronjobs,verbs=get;list;watch;create;patch;delete

// SetupUsagePlan registers the controller that brings UsagePlans into the database and schedules their resets.
func SetupUsagePlan(mgr ctrl.Manager, plans Plans, resets Resets, opts UsagePlanOptions) error {
	if opts.ResyncInterval <= 0 {
		opts.ResyncInterval = DefaultResyncInterval
	}
	r := &usagePlanReconciler{client: mgr.GetClient(), plans: plans, resets: resets, opts: opts,
		wake: make(chan event.GenericEvent)}
	sweeper := &planSweeper{client: mgr.GetClient(), plans: plans, cluster: opts.Cluster, wake: r.wake}
	if err := mgr.Add(leading{observe: opts.Loops, Task: loop.Task{
		Name: "plans-gone", Period: opts.ResyncInterval, Timeout: turnTimeout, Do: sweeper.sweepOnce,
	}}); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		// An annotation has a plan compared with the database on demand.
		For(&v1alpha1.UsagePlan{}, builder.WithPredicates(
			predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		Owns(&batchv1.CronJob{}).
		// Users come and go with their quotas; the plan counts them.
		Watches(&v1alpha1.UserQuota{}, handler.EnqueueRequestsFromMapFunc(planOfQuota),
			builder.WithPredicates(quotaMoved)).
		WatchesRawSource(source.Channel(r.wake, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 2}).
		Complete(r)
}

// quotaMoved is about UserQuotas whose user is on another plan than before.
var quotaMoved = predicate.Funcs{
	CreateFunc: func(event.CreateEvent) bool { return false },
	UpdateFunc: func(e event.UpdateEvent) bool {
		was, ok1 := e.ObjectOld.(*v1alpha1.UserQuota)
		is, ok2 := e.ObjectNew.(*v1alpha1.UserQuota)
		return ok1 && ok2 && was.Status.Plan != is.Status.Plan
	},
	GenericFunc: func(event.GenericEvent) bool { return false },
}

func planOfQuota(_ context.Context, obj client.Object) []reconcile.Request {
	q, ok := obj.(*v1alpha1.UserQuota)
	if !ok || q.Status.Plan == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: q.Status.Plan}}}
}

type usagePlanReconciler struct {
	client client.Client
	plans  Plans
	resets Resets
	opts   UsagePlanOptions
	// wake puts other plans into the queue.
	wake chan event.GenericEvent
}

// Reconcile brings one plan into the database, or retires it, and applies its CronJob.
func (r *usagePlanReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	plan := &v1alpha1.UsagePlan{}
	if err := r.client.Get(ctx, req.NamespacedName, plan); err != nil {
		if apierrors.IsNotFound(err) {
			return later(reconcile.Result{}, r.retire(ctx, req.Name))
		}
		return reconcile.Result{}, err
	}
	if !plan.DeletionTimestamp.IsZero() {
		// A foreign finalizer, or foreground deletion. The plan serves its users until it is gone.
		return reconcile.Result{}, nil
	}
	before := plan.DeepCopy()
	conds := conditions{&plan.Status.Conditions, plan.Generation}
	plan.Status.ObservedGeneration = plan.Generation

	accepted, err := r.sync(ctx, plan, conds)
	if accepted {
		err = errors.Join(err, r.schedule(ctx, plan, conds))
	} else {
		err = errors.Join(err, r.unschedule(ctx, plan, conds))
	}
	conds.sumUp("the plan is in force",
		v1alpha1.ConditionAccepted, v1alpha1.ConditionSynced, v1alpha1.ConditionResetScheduled)
	if !equality.Semantic.DeepEqual(before.Status, plan.Status) {
		err = errors.Join(err, writeStatus(ctx, r.client, before, plan))
	}
	if err != nil {
		return later(reconcile.Result{}, err)
	}
	if err := r.wakeConflicting(ctx, plan); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: wait.Jitter(r.opts.ResyncInterval, 0.1)}, nil
}

// retire takes a plan whose object is gone out of the offer.
func (r *usagePlanReconciler) retire(ctx context.Context, name string) error {
	if err := r.plans.RetirePlan(ctx, name, r.opts.Cluster.UID, actor); err != nil &&
		!errors.Is(err, ledger.ErrNotFound) {
		return fmt.Errorf("retire plan %s: %w", name, err)
	}
	return r.wakeConflicting(ctx, &v1alpha1.UsagePlan{ObjectMeta: metav1.ObjectMeta{Name: name}})
}

// sync writes the plan to the database. It reports whether the plan is, or with a reachable database would be, in
// force.
func (r *usagePlanReconciler) sync(
	ctx context.Context, plan *v1alpha1.UsagePlan, conds conditions,
) (accepted bool, err error) {
	notAccepted := func(reason, message string) {
		conds.set(v1alpha1.ConditionAccepted, false, reason, message)
		conds.set(v1alpha1.ConditionSynced, false, v1alpha1.ReasonNotAccepted,
			"nothing is written, because the plan is not accepted")
		conds.unknown(v1alpha1.ConditionInUse, "users are counted once the plan is accepted")
	}
	declared, err := convert.Plan(plan)
	if err != nil {
		notAccepted(v1alpha1.ReasonInvalid, err.Error())
		return false, nil
	}
	declared.Cluster = r.opts.Cluster.UID
	status, err := r.plans.ApplyPlan(ctx, declared, actor)
	owned, isOwned := errors.AsType[*ledger.OwnedError](err)
	switch {
	case err == nil:
	case isOwned:
		// When it has been adopted the next resync finds out.
		notAccepted(v1alpha1.ReasonOwnedByAnotherCluster, r.opts.Cluster.describeOwned(ctx, owned))
		plan.Status.Version, plan.Status.Users = 0, 0
		plan.Status.LastReset, plan.Status.LastResetTime = nil, nil
		conds.set(v1alpha1.ConditionInUse, false, v1alpha1.ReasonNotAccepted,
			"its users are the other cluster's plan's")
		return false, nil
	case errors.Is(err, ledger.ErrConflict):
		notAccepted(v1alpha1.ReasonConflict, describe(err)+": set spec.default to false in one of them")
		return false, nil
	default:
		reason, message := syncFailure(err)
		conds.set(v1alpha1.ConditionSynced, false, reason, message)
		conds.unknown(v1alpha1.ConditionAccepted, message)
		conds.unknown(v1alpha1.ConditionInUse, message)
		return true, fmt.Errorf("apply plan %s: %w", plan.Name, err)
	}
	conds.set(v1alpha1.ConditionAccepted, true, v1alpha1.ReasonAccepted, "the plan is in force")
	conds.set(v1alpha1.ConditionSynced, true, v1alpha1.ReasonSynced, "the database holds what the spec says")
	plan.Status.Version, plan.Status.Users = status.Version, status.Users
	run, succeeded, err := r.resets.Last(ctx, plan.Name)
	if err != nil {
		return true, fmt.Errorf("the last reset of plan %s: %w", plan.Name, err)
	}
	plan.Status.LastReset, plan.Status.LastResetTime = lastReset(run), timestamp(succeeded)
	if status.Users > 0 {
		conds.set(v1alpha1.ConditionInUse, true, v1alpha1.ReasonInUse, countUsers(status))
	} else {
		conds.set(v1alpha1.ConditionInUse, false, v1alpha1.ReasonUnused, "no user is on this plan")
	}
	return true, nil
}

// maxResetMessage is the longest message that a run of the reset may have in a status.
const maxResetMessage = 1024

// lastReset is what the database knows about a run. The CronJob's own status knows less: neither what a run did, nor
// runs that somebody started by hand.
func lastReset(run *reset.Run) *v1alpha1.UsagePlanResetRun {
	if run == nil {
		return nil
	}
	return &v1alpha1.UsagePlanResetRun{
		State: v1alpha1.ResetState(run.State), StartTime: *timestamp(run.StartedAt),
		CompletionTime: timestamp(run.FinishedAt),
		Accounts:       run.Accounts, Periods: run.Periods, Failures: run.Failures,
		Message: strings.ToValidUTF8(run.Message[:min(len(run.Message), maxResetMessage)], ""),
	}
}

func countUsers(s metering.PlanStatus) string {
	count := fmt.Sprintf("%d users are on this plan", s.Users)
	if s.Users == 1 {
		count = "1 user is on this plan"
	}
	if len(s.FirstUsers) == 0 {
		return count
	}
	names := s.FirstUsers[:min(len(s.FirstUsers), 10)]
	text := count + ": " + strings.Join(names, ", ")
	if more := s.Users - int64(len(names)); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// schedule applies the plan's CronJob, which repairs it as well, and reads from it when it ran.
func (r *usagePlanReconciler) schedule(ctx context.Context, plan *v1alpha1.UsagePlan, conds conditions) error {
	name := CronJobName(plan.Name)
	err := r.client.Apply(ctx, resetCronJob(plan, r.opts.Namespace, r.opts.Image), client.FieldOwner(fieldOwner),
		client.ForceOwnership)
	if err != nil {
		conds.set(v1alpha1.ConditionResetScheduled, false, v1alpha1.ReasonCronJobFailed, err.Error())
		return fmt.Errorf("apply CronJob %s/%s: %w", r.opts.Namespace, name, err)
	}
	schedule, err := reset.Schedule(plan.Spec.Reset.Schedule)
	if err != nil {
		return err
	}
	plan.Status.CronJobName = name
	plan.Status.NextResetTime = timestamp(schedule.Next(time.Now().UTC()))
	conds.set(v1alpha1.ConditionResetScheduled, true, v1alpha1.ReasonScheduled,
		fmt.Sprintf("CronJob %s/%s runs at %q, UTC", r.opts.Namespace, name, plan.Spec.Reset.Schedule))
	return nil
}

// unschedule removes the CronJob of a plan that is not in force.
func (r *usagePlanReconciler) unschedule(ctx context.Context, plan *v1alpha1.UsagePlan, conds conditions) error {
	plan.Status.CronJobName, plan.Status.NextResetTime = "", nil
	conds.set(v1alpha1.ConditionResetScheduled, false, v1alpha1.ReasonNotAccepted,
		"there is no CronJob, because the plan is not accepted")
	cronJob := &batchv1.CronJob{}
	err := r.client.Get(ctx, types.NamespacedName{Namespace: r.opts.Namespace, Name: CronJobName(plan.Name)}, cronJob)
	if err != nil || !metav1.IsControlledBy(cronJob, plan) {
		return client.IgnoreNotFound(err)
	}
	return client.IgnoreNotFound(r.client.Delete(ctx, cronJob,
		client.PropagationPolicy(metav1.DeletePropagationBackground)))
}

// wakeConflicting looks again at the plans that wait for the default's place, for this one may have left it.
func (r *usagePlanReconciler) wakeConflicting(ctx context.Context, changed *v1alpha1.UsagePlan) error {
	if changed.Spec.Default {
		return nil
	}
	var all v1alpha1.UsagePlanList
	if err := r.client.List(ctx, &all); err != nil {
		return err
	}
	for i := range all.Items {
		other := &all.Items[i]
		accepted := meta.FindStatusCondition(other.Status.Conditions, v1alpha1.ConditionAccepted)
		if other.Name != changed.Name && accepted != nil && accepted.Reason == v1alpha1.ReasonConflict {
			if err := enqueue(ctx, r.wake, other); err != nil {
				return err
			}
		}
	}
	return nil
}

// enqueue hands an object to the controller that listens on the channel.
func enqueue(ctx context.Context, wake chan<- event.GenericEvent, obj client.Object) error {
	select {
	case wake <- event.GenericEvent{Object: obj}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// planSweeper finds rows whose plan was deleted while nobody watched.
type planSweeper struct {
	client  client.Client
	plans   Plans
	cluster Cluster
	wake    chan<- event.GenericEvent
}

func (s *planSweeper) sweepOnce(ctx context.Context) error {
	return report(ctx, s.sweep(ctx), "look for plans whose objects are gone")
}

func (s *planSweeper) sweep(ctx context.Context) error {
	// The rows first: an object that is made in between is in the list then, and a row without an object is looked at
	// by the controller, which asks again.
	rows, err := s.plans.Plans(ctx)
	if err != nil {
		return err
	}
	var list v1alpha1.UsagePlanList
	if err := s.client.List(ctx, &list); err != nil {
		return err
	}
	there := sets.New[string]()
	for i := range list.Items {
		there.Insert(list.Items[i].Name)
	}
	for _, row := range rows {
		// Rows that no object ever owned were made by other means, and are kept; so are those of other clusters, and
		// what was adopted and no object has taken over yet.
		if row.Cluster != s.cluster.UID || row.Retired || row.ObjectUID == (quota.ID{}) || there.Has(row.Name) {
			continue
		}
		if err := enqueue(ctx, s.wake, &v1alpha1.UsagePlan{ObjectMeta: metav1.ObjectMeta{Name: row.Name}}); err != nil {
			return err
		}
	}
	return nil
}
