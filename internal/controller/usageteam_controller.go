// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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
)

// Teams declares what UsageTeams say, and tells where teams stand; *metering.Service is one.
type Teams interface {
	ApplyTeam(ctx context.Context, team metering.Team, actor string) (metering.TeamStatus, error)
	RetireTeam(ctx context.Context, name string, cluster quota.ClusterUID, actor string) error
	TeamUsage(ctx context.Context, names []string) (map[string]metering.TeamUsage, error)
	TeamChanges(ctx context.Context, since ledger.Mark) (metering.TeamChanges, error)
}

// UsageTeamOptions configure the UsageTeam controller.
type UsageTeamOptions struct {
	// Cluster is this one.
	Cluster Cluster
	// StatusInterval is how often the teams are looked for whose standing may have changed; DefaultStatusInterval if
	// zero.
	StatusInterval time.Duration
	// ResyncInterval is how often each team is compared with the database, its members are counted again, and teams
	// without an object are retired; DefaultResyncInterval if zero.
	ResyncInterval time.Duration
	// Loops is told how each turn of the background work went; nil keeps silent.
	Loops loop.Observer
}

// +kubebuilder:rbac:groups=usage.cantonesescribe.io,resources=usageteams/status,verbs=patch

// SetupUsageTeam registers the controller that brings UsageTeams into the database, and their standing back.
func SetupUsageTeam(mgr ctrl.Manager, teams Teams, opts UsageTeamOptions) error {
	if opts.StatusInterval <= 0 {
		opts.StatusInterval = DefaultStatusInterval
	}
	if opts.ResyncInterval <= 0 {
		opts.ResyncInterval = DefaultResyncInterval
	}
	r := &usageTeamReconciler{
		client: mgr.GetClient(), teams: teams, opts: opts, wake: make(chan event.GenericEvent),
		applied: map[types.UID]time.Time{},
	}
	poller := &teamPoller{client: mgr.GetClient(), teams: teams, opts: opts, wake: r.wake,
		alerts: alertEvents{events: mgr.GetEventRecorder(recorderName)}}
	if err := mgr.Add(leading{observe: opts.Loops, Task: loop.Task{
		Name: "team-standings", Period: opts.StatusInterval, Timeout: turnTimeout, Do: poller.pollOnce,
	}}); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("usageteam").
		// An annotation has a team compared with the database on demand.
		For(&v1alpha1.UsageTeam{}, builder.WithPredicates(
			predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		Watches(&v1alpha1.UsageTeam{}, handler.EnqueueRequestsFromMapFunc(r.besides),
			builder.WithPredicates(teamPlaced)).
		Watches(&v1alpha1.UsagePlan{}, handler.EnqueueRequestsFromMapFunc(r.waitingForPlan),
			builder.WithPredicates(planMayResolve)).
		// Users come and go with their quotas; the team counts them.
		Watches(&v1alpha1.UserQuota{}, handler.Funcs{UpdateFunc: teamsOfMoved}).
		WatchesRawSource(source.Channel(r.wake, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 2}).
		Complete(r)
}

// teamPlaced is about teams whose place in the tree has just changed in the database, or that are gone.
var teamPlaced = predicate.Funcs{
	CreateFunc: func(e event.CreateEvent) bool { return teamSynced(e.Object) },
	UpdateFunc: func(e event.UpdateEvent) bool {
		was, ok1 := e.ObjectOld.(*v1alpha1.UsageTeam)
		is, ok2 := e.ObjectNew.(*v1alpha1.UsageTeam)
		return ok1 && ok2 && teamSynced(is) && (!teamSynced(was) || was.Status.Parent != is.Status.Parent ||
			was.Status.ObservedGeneration != is.Status.ObservedGeneration)
	},
	GenericFunc: func(event.GenericEvent) bool { return false },
}

// teamSynced reports whether the database holds the team as its object says by now.
func teamSynced(obj client.Object) bool {
	team, ok := obj.(*v1alpha1.UsageTeam)
	if !ok {
		return false
	}
	synced := meta.FindStatusCondition(team.Status.Conditions, v1alpha1.ConditionSynced)
	return synced != nil && synced.Status == metav1.ConditionTrue && synced.ObservedGeneration == team.Generation
}

type usageTeamReconciler struct {
	client client.Client
	teams  Teams
	opts   UsageTeamOptions
	// wake puts other teams into the queue.
	wake chan event.GenericEvent

	mu sync.Mutex
	// applied is when each team was compared as a whole, grants among it.
	applied map[types.UID]time.Time
}

// besides returns the other teams that the change of one may concern: those below it, and those that are not in force,
// perhaps for its sake.
func (r *usageTeamReconciler) besides(ctx context.Context, obj client.Object) []reconcile.Request {
	return r.which(ctx, func(t *v1alpha1.UsageTeam) bool {
		return t.Name != obj.GetName() && (t.Status.Parent == obj.GetName() || teamRefName(t.Spec.ParentRef) ==
			obj.GetName() || !meta.IsStatusConditionTrue(t.Status.Conditions, v1alpha1.ConditionReady) ||
			isRoot(obj) && t.Spec.ParentRef == nil)
	})
}

func isRoot(obj client.Object) bool {
	team, ok := obj.(*v1alpha1.UsageTeam)
	return ok && team.Spec.Root
}

// waitingForPlan returns the teams that could not find a plan before.
func (r *usageTeamReconciler) waitingForPlan(ctx context.Context, plan client.Object) []reconcile.Request {
	return r.which(ctx, func(t *v1alpha1.UsageTeam) bool {
		return t.Spec.PlanRef != nil && t.Spec.PlanRef.Name == plan.GetName()
	})
}

func (r *usageTeamReconciler) which(
	ctx context.Context, want func(*v1alpha1.UsageTeam) bool,
) []reconcile.Request {
	var list v1alpha1.UsageTeamList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list the UsageTeams that a change concerns")
		return nil
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if want(&list.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

// teamsOfMoved queues the teams that a user was in and is in.
func teamsOfMoved(_ context.Context, e event.UpdateEvent, queue requestQueue) {
	was, ok1 := e.ObjectOld.(*v1alpha1.UserQuota)
	is, ok2 := e.ObjectNew.(*v1alpha1.UserQuota)
	if !ok1 || !ok2 || was.Status.Team == is.Status.Team {
		return
	}
	for _, name := range []string{was.Status.Team, is.Status.Team} {
		if name != "" {
			queue.Add(reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
		}
	}
}

func teamRefName(ref *v1alpha1.TeamReference) string {
	if ref == nil {
		return ""
	}
	return ref.Name
}

// Reconcile brings one team into the database if it is not there as declared, or retires it, and writes its status.
func (r *usageTeamReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	team := &v1alpha1.UsageTeam{}
	if err := r.client.Get(ctx, req.NamespacedName, team); err != nil {
		if apierrors.IsNotFound(err) {
			return later(reconcile.Result{}, r.retire(ctx, req.Name))
		}
		return reconcile.Result{}, err
	}
	if !team.DeletionTimestamp.IsZero() {
		// A foreign finalizer, or foreground deletion. The team goes on until its object is gone.
		return reconcile.Result{}, nil
	}
	before := team.DeepCopy()
	err := r.sync(ctx, team)
	sumUpTeam(team)
	if !equality.Semantic.DeepEqual(before.Status, team.Status) {
		err = errors.Join(err, writeStatus(ctx, r.client, before, team))
	}
	if err != nil {
		return later(reconcile.Result{}, err)
	}
	return reconcile.Result{RequeueAfter: wait.Jitter(r.opts.ResyncInterval, 0.1)}, nil
}

// retire takes a team whose object is gone out of the offer.
func (r *usageTeamReconciler) retire(ctx context.Context, name string) error {
	err := r.teams.RetireTeam(ctx, name, r.opts.Cluster.UID, actor)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return fmt.Errorf("retire team %s: %w", name, err)
	}
	return r.wakeWaiting(ctx)
}

// wakeWaiting looks again at the teams that are not in force: a root that is gone makes room for another one, and those
// that the retired team was too much for.
func (r *usageTeamReconciler) wakeWaiting(ctx context.Context) error {
	var list v1alpha1.UsageTeamList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	for i := range list.Items {
		t := &list.Items[i]
		if meta.IsStatusConditionTrue(t.Status.Conditions, v1alpha1.ConditionReady) && t.Spec.ParentRef != nil &&
			!retiredParent(t) {
			continue
		}
		if err := enqueue(ctx, r.wake, t); err != nil {
			return err
		}
	}
	return nil
}

func retiredParent(t *v1alpha1.UsageTeam) bool {
	c := meta.FindStatusCondition(t.Status.Conditions, v1alpha1.ConditionParentResolved)
	return c != nil && c.Reason == v1alpha1.ReasonParentRetired
}

// sync writes the team to the database unless it is there. What the user has to mend, or what another object has to
// bring, is no error: the next event about it brings us back.
func (r *usageTeamReconciler) sync(ctx context.Context, team *v1alpha1.UsageTeam) error {
	declared, err := convert.Team(team)
	if err != nil {
		teamNotInForce(team, v1alpha1.ReasonInvalid, err.Error())
		return nil
	}
	declared.Cluster = r.opts.Cluster.UID
	usage, parent, err := r.usage(ctx, team)
	if err != nil {
		return r.writeFailure(team, err)
	}
	if usage == nil || usage.Unreadable != nil || !teamSynced(team) || r.due(team) || teamDrifted(&declared, usage) {
		if _, err := r.teams.ApplyTeam(ctx, declared, actor); err != nil {
			return r.writeRefusal(ctx, team, err)
		}
		if usage, parent, err = r.usage(ctx, team); err != nil {
			return r.writeFailure(team, err)
		}
		if usage == nil {
			return r.writeFailure(team, fmt.Errorf("team %s is not there after it was written", team.Name))
		}
		if usage.Unreadable != nil {
			return r.writeRefusal(ctx, team, usage.Unreadable)
		}
		r.mu.Lock()
		r.applied[team.UID] = time.Now()
		r.mu.Unlock()
	}
	teamInForce(team, usage, parent)
	return nil
}

// due reports whether it is time to compare the team as a whole.
func (r *usageTeamReconciler) due(team *v1alpha1.UsageTeam) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.applied[team.UID]) >= r.opts.ResyncInterval
}

// usage reads where a team stands, and the one that it names as its parent; nil for what is not there.
func (r *usageTeamReconciler) usage(
	ctx context.Context, team *v1alpha1.UsageTeam,
) (usage, parent *metering.TeamUsage, err error) {
	names := []string{team.Name}
	if name := teamRefName(team.Spec.ParentRef); name != "" {
		names = append(names, name)
	}
	all, err := r.teams.TeamUsage(ctx, names)
	return usageOfTeam(all, team.Name), usageOfTeam(all, teamRefName(team.Spec.ParentRef)), err
}

func usageOfTeam(all map[string]metering.TeamUsage, name string) *metering.TeamUsage {
	if u, there := all[name]; there {
		return &u
	}
	return nil
}

// writeRefusal writes why the database did not take the team.
func (r *usageTeamReconciler) writeRefusal(ctx context.Context, team *v1alpha1.UsageTeam, err error) error {
	conds := conditions{&team.Status.Conditions, team.Generation}
	waits := func(condition, reason, message string) {
		conds.set(v1alpha1.ConditionAccepted, true, v1alpha1.ReasonAccepted, "this is the UsageTeam of the team")
		conds.set(v1alpha1.ConditionSynced, false, v1alpha1.ReasonSyncFailed,
			"nothing is written until "+condition+" is true")
		// The place in the tree is judged first, then the plan is looked up.
		if condition == v1alpha1.ConditionPlanResolved {
			conds.set(v1alpha1.ConditionParentResolved, true, v1alpha1.ReasonParentResolved,
				"the team has its place in the tree")
		} else {
			meta.RemoveStatusCondition(conds.list, v1alpha1.ConditionPlanResolved)
			conds.unknown(v1alpha1.ConditionPlanResolved, "it is looked up once the team has its place in the tree")
		}
		conds.set(condition, false, reason, message)
	}
	unreadable, isUnreadable := errors.AsType[*ledger.UnreadableError](err)
	owned, isOwned := errors.AsType[*ledger.OwnedError](err)
	problem, isProblem := errors.AsType[*metering.TeamError](err)
	switch {
	case isOwned:
		// When it has been adopted the next resync finds out.
		teamNotInForce(team, v1alpha1.ReasonOwnedByAnotherCluster, r.opts.Cluster.describeOwned(ctx, owned))
	case isUnreadable:
		conds.set(v1alpha1.ConditionSynced, false, v1alpha1.ReasonAccountUnreadable, unreadable.Error())
	case isProblem:
		switch problem.Problem {
		case metering.TeamUnknown, metering.TeamIsRetired:
			waits(v1alpha1.ConditionParentResolved, v1alpha1.ReasonParentNotFound,
				describe(err)+": apply it, or correct spec.parentRef.name")
		case metering.TeamPlanUnknown:
			waits(v1alpha1.ConditionPlanResolved, v1alpha1.ReasonPlanNotFound,
				describe(err)+": apply it, or correct spec.planRef.name")
		case metering.TeamCycle:
			waits(v1alpha1.ConditionParentResolved, v1alpha1.ReasonCycle, describe(err))
		case metering.TeamTooDeep:
			waits(v1alpha1.ConditionParentResolved, v1alpha1.ReasonTooDeep, describe(err))
		case metering.TeamSecondRoot:
			teamNotInForce(team, v1alpha1.ReasonConflict, describe(err))
		}
	case errors.Is(err, ledger.ErrConflict):
		teamNotInForce(team, v1alpha1.ReasonConflict, describe(err))
	case errors.Is(err, ledger.ErrInvalid):
		teamNotInForce(team, v1alpha1.ReasonInvalid, err.Error())
	default:
		return r.writeFailure(team, err)
	}
	return nil
}

// writeFailure writes that the database did not answer, which is tried again with back-off.
func (r *usageTeamReconciler) writeFailure(team *v1alpha1.UsageTeam, err error) error {
	conds := conditions{&team.Status.Conditions, team.Generation}
	reason, message := syncFailure(err)
	conds.set(v1alpha1.ConditionSynced, false, reason, message)
	for _, condition := range []string{
		v1alpha1.ConditionAccepted, v1alpha1.ConditionParentResolved, v1alpha1.ConditionPlanResolved,
	} {
		conds.unknown(condition, message)
	}
	return fmt.Errorf("UsageTeam %s: %w", team.Name, err)
}

// teamNotInForce writes that nothing of the object is in the database.
func teamNotInForce(team *v1alpha1.UsageTeam, reason, message string) {
	conds := conditions{&team.Status.Conditions, team.Generation}
	conds.set(v1alpha1.ConditionAccepted, false, reason, message)
	conds.set(v1alpha1.ConditionSynced, false, v1alpha1.ReasonNotAccepted,
		"nothing is written, because the UsageTeam is not accepted")
	conds.unknown(v1alpha1.ConditionParentResolved, "it is looked up once the UsageTeam is accepted")
	conds.unknown(v1alpha1.ConditionPlanResolved, "it is looked up once the UsageTeam is accepted")
	conds.set(v1alpha1.ConditionInUse, false, v1alpha1.ReasonNotAccepted, "the UsageTeam is not accepted")
	forgetTeam(&team.Status)
}
