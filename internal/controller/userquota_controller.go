// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
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

// DefaultStatusInterval is how often the standing of users is read where nobody says otherwise.
const DefaultStatusInterval = 5 * time.Second

// Quotas declares what UserQuotas say, and tells where their users stand; *metering.Service is one.
type Quotas interface {
	ApplyQuota(ctx context.Context, q metering.Quota, actor string) error
	RemoveQuota(ctx context.Context, uid quota.ObjectUID, actor string) error
	UsageOf(ctx context.Context, userIDs []string) (map[string]ledger.Usage, error)
}

// QuotaRecords are the UserQuotas as the database has them. Its errors wrap those of package ledger.
type QuotaRecords interface {
	// Grants returns the names of the grants that each of the users has ever had, spent and expired ones included.
	// Users without any are missing from the result.
	Grants(ctx context.Context, userIDs []string) (map[string][]string, error)
	// QuotaChanges finds the users with a UserQuota whose standing may have changed since a mark.
	QuotaChanges(ctx context.Context, since ledger.Mark) (ledger.QuotaChanges, error)
	// QuotaOwners are the UserQuotas of a cluster that own an account. They are compared with the objects, so that what
	// was deleted while nobody watched, or before the moment that the database was restored to, is removed.
	QuotaOwners(ctx context.Context, cluster quota.ClusterUID) ([]quota.ObjectUID, error)
}

// UserQuotaOptions configure the UserQuota controller.
type UserQuotaOptions struct {
	// Cluster is this one.
	Cluster Cluster
	// StatusInterval is how often the users with a UserQuota are looked for whose standing may have changed;
	// DefaultStatusInterval if zero.
	StatusInterval time.Duration
	// ResyncInterval is how often all of them, their grants, and the UserQuotas that own an account, are compared with
	// the database; DefaultResyncInterval if zero.
	ResyncInterval time.Duration
	// Loops is told how each turn of the background work went; nil keeps silent.
	Loops loop.Observer
}

// Fields by which the cache finds UserQuotas. The API server knows the first one as well.
const (
	userIDField = "spec.userID"
	planField   = "spec.planRef.name"
	teamField   = "spec.teamRef.name"
)

// +kubebuilder:rbac:groups=usage.cantonesescribe.io,resources=userquotas;usageteams,verbs=get;list;watch
// +kubebuilder:rbac:groups=usage.cantonesescribe.io,resources=userquotas/status,verbs=patch

// SetupUserQuota registers the controller that brings UserQuotas into the database, and their users' standing back.
func SetupUserQuota(mgr ctrl.Manager, quotas Quotas, records QuotaRecords, opts UserQuotaOptions) error {
	if opts.StatusInterval <= 0 {
		opts.StatusInterval = DefaultStatusInterval
	}
	if opts.ResyncInterval <= 0 {
		opts.ResyncInterval = DefaultResyncInterval
	}
	for field, value := range map[string]func(*v1alpha1.UserQuota) string{
		userIDField: func(q *v1alpha1.UserQuota) string { return q.Spec.UserID },
		planField:   planName,
		teamField:   func(q *v1alpha1.UserQuota) string { return teamRefName(q.Spec.TeamRef) },
	} {
		index := func(obj client.Object) []string {
			return []string{value(obj.(*v1alpha1.UserQuota))} //nolint:forcetypeassert // the index is over this type
		}
		if err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.UserQuota{}, field,
			index); err != nil {
			return err
		}
	}
	r := &userQuotaReconciler{
		client: mgr.GetClient(), reader: mgr.GetAPIReader(), quotas: quotas, records: records, cluster: opts.Cluster,
		wake: make(chan event.GenericEvent), deleted: map[types.NamespacedName][]owner{},
	}
	orphans := &orphanSweeper{
		client: mgr.GetClient(), reader: mgr.GetAPIReader(), quotas: quotas, records: records, cluster: opts.Cluster,
	}
	poller := &standingPoller{
		client: mgr.GetClient(), quotas: quotas, records: records, cluster: opts.Cluster,
		interval: opts.StatusInterval, resync: opts.ResyncInterval, wake: r.wake,
		alerts: alertEvents{events: mgr.GetEventRecorder(recorderName)},
	}
	for _, task := range []loop.Task{
		{Name: "quotas-gone", Period: opts.ResyncInterval, Timeout: turnTimeout, Do: orphans.sweepOnce},
		{Name: "standings", Period: opts.StatusInterval, Timeout: turnTimeout, Do: poller.pollOnce},
	} {
		if err := mgr.Add(leading{Task: task, observe: opts.Loops}); err != nil {
			return err
		}
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("userquota").
		// An annotation has a UserQuota compared with the database on demand.
		Watches(&v1alpha1.UserQuota{}, &quotaHandler{r: r},
			builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{},
				predicate.AnnotationChangedPredicate{}))).
		Watches(&v1alpha1.UsagePlan{}, handler.EnqueueRequestsFromMapFunc(r.waitingFor),
			builder.WithPredicates(planMayResolve)).
		Watches(&v1alpha1.UsageTeam{}, handler.EnqueueRequestsFromMapFunc(r.waitingForTeam),
			builder.WithPredicates(teamPlaced)).
		WatchesRawSource(source.Channel(r.wake, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(r)
}

func planName(q *v1alpha1.UserQuota) string {
	if q.Spec.PlanRef == nil {
		return ""
	}
	return q.Spec.PlanRef.Name
}

// planMayResolve is about plans that have just come into the database.
var planMayResolve = predicate.Funcs{
	CreateFunc: func(e event.CreateEvent) bool { return planSynced(e.Object) },
	UpdateFunc: func(e event.UpdateEvent) bool {
		return planSynced(e.ObjectNew) &&
			(!planSynced(e.ObjectOld) || planVersion(e.ObjectNew) != planVersion(e.ObjectOld))
	},
	DeleteFunc:  func(event.DeleteEvent) bool { return false },
	GenericFunc: func(event.GenericEvent) bool { return false },
}

func planSynced(obj client.Object) bool {
	plan, ok := obj.(*v1alpha1.UsagePlan)
	return ok && meta.IsStatusConditionTrue(plan.Status.Conditions, v1alpha1.ConditionSynced)
}

func planVersion(obj client.Object) int64 {
	if plan, ok := obj.(*v1alpha1.UsagePlan); ok {
		return plan.Status.Version
	}
	return 0
}

// owner is a UserQuota as the database knows it.
type owner struct {
	uid    types.UID
	userID string
}

type userQuotaReconciler struct {
	client client.Client
	// reader asks the API server itself.
	reader  client.Reader
	quotas  Quotas
	records QuotaRecords
	cluster Cluster
	// wake puts other objects into the queue.
	wake chan event.GenericEvent

	mu sync.Mutex
	// deleted are objects that are gone and whose users do not know it yet, by name: the name alone does not say whose
	// quota it was, and may be in use again.
	deleted map[types.NamespacedName][]owner
}

// quotaHandler queues objects by name, and remembers whose quota a deleted one was.
type quotaHandler struct {
	handler.EnqueueRequestForObject
	r *userQuotaReconciler
}

// Delete implements handler.EventHandler.
func (h *quotaHandler) Delete(
	ctx context.Context, e event.DeleteEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request],
) {
	if q, ok := e.Object.(*v1alpha1.UserQuota); ok {
		h.r.remember(client.ObjectKeyFromObject(q), owner{q.UID, q.Spec.UserID})
	}
	h.EnqueueRequestForObject.Delete(ctx, e, queue)
}

func (r *userQuotaReconciler) remember(name types.NamespacedName, o owner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.deleted[name], o) {
		r.deleted[name] = append(r.deleted[name], o)
	}
}

func (r *userQuotaReconciler) takeDeleted(name types.NamespacedName) []owner {
	r.mu.Lock()
	defer r.mu.Unlock()
	owners := r.deleted[name]
	delete(r.deleted, name)
	return owners
}

// waitingFor returns the UserQuotas that a plan would do good which they could not find before.
func (r *userQuotaReconciler) waitingFor(ctx context.Context, obj client.Object) []reconcile.Request {
	var which []client.ListOption
	// Whoever has no account yet needs the default plan to get one, whatever plan it moves to then.
	if plan, ok := obj.(*v1alpha1.UsagePlan); ok && !plan.Spec.Default {
		which = append(which, client.MatchingFields{planField: plan.Name})
	}
	var list v1alpha1.UserQuotaList
	if err := r.client.List(ctx, &list, append(which, client.UnsafeDisableDeepCopy)...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list the UserQuotas that wait for a plan", "plan", obj.GetName())
		return nil
	}
	var requests []reconcile.Request
	for i := range list.Items {
		q := &list.Items[i]
		if q.Status.ObservedGeneration != q.Generation ||
			!meta.IsStatusConditionTrue(q.Status.Conditions, v1alpha1.ConditionPlanResolved) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(q)})
		}
	}
	return requests
}

// waitingForTeam returns the UserQuotas that name a team and could not be in force before.
func (r *userQuotaReconciler) waitingForTeam(ctx context.Context, team client.Object) []reconcile.Request {
	var list v1alpha1.UserQuotaList
	err := r.client.List(ctx, &list, client.MatchingFields{teamField: team.GetName()}, client.UnsafeDisableDeepCopy)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list the UserQuotas that wait for a team", "team", team.GetName())
		return nil
	}
	var requests []reconcile.Request
	for i := range list.Items {
		q := &list.Items[i]
		if q.Status.ObservedGeneration != q.Generation ||
			!meta.IsStatusConditionTrue(q.Status.Conditions, v1alpha1.ConditionTeamResolved) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(q)})
		}
	}
	return requests
}

// Reconcile brings one UserQuota into the database if it is not there as declared, and writes its status.
func (r *userQuotaReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	if err := r.removeDeleted(ctx, req.NamespacedName); err != nil {
		return later(reconcile.Result{}, err)
	}
	q := &v1alpha1.UserQuota{}
	if err := r.client.Get(ctx, req.NamespacedName, q); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !q.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, nil
	}
	before := q.DeepCopy()
	err := r.sync(ctx, q)
	sumUpQuota(q)
	if !equality.Semantic.DeepEqual(before.Status, q.Status) {
		err = errors.Join(err, writeStatus(ctx, r.client, before, q))
	}
	return later(reconcile.Result{}, err)
}

// removeDeleted puts the users of deleted objects back to the default plan and lets the next object have its turn.
func (r *userQuotaReconciler) removeDeleted(ctx context.Context, name types.NamespacedName) error {
	var errs []error
	for _, o := range r.takeDeleted(name) {
		if err := r.remove(ctx, o); err != nil {
			r.remember(name, o)
			errs = append(errs, fmt.Errorf("remove the UserQuota %s of user %s: %w", name.Name, o.userID, err))
		}
	}
	return errors.Join(errs...)
}

func (r *userQuotaReconciler) remove(ctx context.Context, o owner) error {
	uid, err := convert.UID(o.uid)
	if err != nil {
		return reconcile.TerminalError(err)
	}
	if err := r.quotas.RemoveQuota(ctx, uid, actor); err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	var peers v1alpha1.UserQuotaList
	if err := r.client.List(ctx, &peers, client.MatchingFields{userIDField: o.userID}); err != nil {
		return err
	}
	for i := range peers.Items {
		if err := enqueue(ctx, r.wake, &peers.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

// sync writes the object to the database unless it is there. What the user has to mend, or what another object has to
// bring, is no error: the next event about it brings us back.
func (r *userQuotaReconciler) sync(ctx context.Context, q *v1alpha1.UserQuota) error {
	declared, err := convert.Quota(q)
	if err != nil {
		notInForce(q, v1alpha1.ReasonInvalid, err.Error())
		return nil
	}
	declared.Cluster = r.cluster.UID
	usage, found, err := r.usage(ctx, q.Spec.UserID)
	if err != nil {
		return r.writeFailure(q, err)
	}
	if found && r.cluster.foreign(usage.Home) {
		return r.writeRefusal(ctx, q, r.cluster.ownedUser(q.Spec.UserID, usage.Home))
	}
	lacks, err := r.lacksGrant(ctx, declared)
	if err != nil {
		return r.writeFailure(q, err)
	}
	if !found || usage.Unreadable != nil || !quotaSynced(q) || lacks || drifted(declared, usage) {
		if err := r.apply(ctx, declared, usage.QuotaUID); err != nil {
			return r.writeRefusal(ctx, q, err)
		}
		if usage, found, err = r.usage(ctx, q.Spec.UserID); err != nil {
			return r.writeFailure(q, err)
		}
		if !found {
			return r.writeFailure(q, fmt.Errorf("user %s has no account after it was written", q.Spec.UserID))
		}
		if usage.Unreadable != nil {
			return r.writeRefusal(ctx, q, usage.Unreadable)
		}
	}
	inForce(q, usage)
	return nil
}

// lacksGrant reports whether the user has not had all that the object grants, though the object may say that it was
// given: the database may have been restored to an earlier moment.
func (r *userQuotaReconciler) lacksGrant(ctx context.Context, declared metering.Quota) (bool, error) {
	if len(declared.Grants) == 0 {
		return false, nil
	}
	had, err := r.records.Grants(ctx, []string{declared.UserID})
	return lacksGrant(declared, had[declared.UserID]), err
}

func lacksGrant(declared metering.Quota, had []string) bool {
	for name := range declared.Grants {
		if !slices.Contains(had, name) {
			return true
		}
	}
	return false
}

// quotaSynced reports whether the spec as it is has been written to the database before.
func quotaSynced(q *v1alpha1.UserQuota) bool {
	synced := meta.FindStatusCondition(q.Status.Conditions, v1alpha1.ConditionSynced)
	return synced != nil && synced.Status == "True" && synced.ObservedGeneration == q.Generation
}

func (r *userQuotaReconciler) usage(ctx context.Context, userID string) (ledger.Usage, bool, error) {
	usages, err := r.quotas.UsageOf(ctx, []string{userID})
	usage, found := usages[userID]
	return usage, found, err
}

// apply writes the object to the database. An owner that is gone, deleted while nobody watched, makes room.
func (r *userQuotaReconciler) apply(ctx context.Context, declared metering.Quota, current quota.ObjectUID) error {
	err := r.quotas.ApplyQuota(ctx, declared, actor)
	if _, owned := errors.AsType[*ledger.OwnedError](err); owned {
		return err
	}
	if !errors.Is(err, ledger.ErrConflict) || current == (quota.ID{}) || current == declared.ObjectUID {
		return err
	}
	gone, lookErr := r.gone(ctx, declared.UserID, current)
	if lookErr != nil {
		return lookErr
	}
	if !gone {
		return err
	}
	if err := r.quotas.RemoveQuota(ctx, current, actor); err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	return r.quotas.ApplyQuota(ctx, declared, actor)
}

// gone asks the API server itself whether a user's UserQuota still exists: a cache that lags must not put anybody out.
func (r *userQuotaReconciler) gone(ctx context.Context, userID string, uid quota.ObjectUID) (bool, error) {
	var list v1alpha1.UserQuotaList
	if err := r.reader.List(ctx, &list, client.MatchingFields{userIDField: userID}); err != nil {
		return false, err
	}
	for i := range list.Items {
		if id, err := convert.UID(list.Items[i].UID); err == nil && id == uid {
			return false, nil
		}
	}
	return true, nil
}

// writeRefusal writes why the database did not take the object.
func (r *userQuotaReconciler) writeRefusal(ctx context.Context, q *v1alpha1.UserQuota, err error) error {
	conds := conditions{&q.Status.Conditions, q.Generation}
	unresolved := func(reason, message string) {
		conds.set(v1alpha1.ConditionAccepted, true, v1alpha1.ReasonAccepted,
			fmt.Sprintf("this is the UserQuota of user %s", q.Spec.UserID))
		conds.set(v1alpha1.ConditionPlanResolved, false, reason, message)
		conds.set(v1alpha1.ConditionSynced, false, v1alpha1.ReasonSyncFailed,
			"nothing is written until the user's plan is there")
	}
	unreadable, isUnreadable := errors.AsType[*ledger.UnreadableError](err)
	owned, isOwned := errors.AsType[*ledger.OwnedError](err)
	switch {
	case aboutTeam(err):
		conds.set(v1alpha1.ConditionAccepted, true, v1alpha1.ReasonAccepted,
			fmt.Sprintf("this is the UserQuota of user %s", q.Spec.UserID))
		conds.set(v1alpha1.ConditionTeamResolved, false, v1alpha1.ReasonTeamNotFound,
			describe(err)+": apply it, or correct spec.teamRef.name")
		conds.set(v1alpha1.ConditionSynced, false, v1alpha1.ReasonSyncFailed,
			"nothing is written until the user's team is there")
		meta.RemoveStatusCondition(&q.Status.Conditions, v1alpha1.ConditionPlanResolved)
		conds.unknown(v1alpha1.ConditionPlanResolved, "the plan is told once the team is there")
	case isOwned:
		// Likewise.
		notInForce(q, v1alpha1.ReasonOwnedByAnotherCluster, r.cluster.describeOwned(ctx, owned))
	case isUnreadable:
		// The poller wakes it when that has changed.
		conds.set(v1alpha1.ConditionSynced, false, v1alpha1.ReasonAccountUnreadable, unreadable.Error())
		conds.unknown(v1alpha1.ConditionAccepted, unreadable.Error())
		conds.unknown(v1alpha1.ConditionPlanResolved, unreadable.Error())
	case errors.Is(err, ledger.ErrConflict):
		notInForce(q, v1alpha1.ReasonConflict, describe(err)+": delete one of them")
	case errors.Is(err, ledger.ErrNotFound) && planName(q) != "":
		unresolved(v1alpha1.ReasonPlanNotFound,
			fmt.Sprintf("there is no plan %s: apply it, or correct spec.planRef.name", planName(q)))
	case errors.Is(err, ledger.ErrNotFound):
		unresolved(v1alpha1.ReasonNoDefaultPlan, "there is no spec.planRef and no plan is the default: set one of them")
	case errors.Is(err, ledger.ErrInvalid):
		notInForce(q, v1alpha1.ReasonInvalid, describe(err))
	default:
		return r.writeFailure(q, err)
	}
	return nil
}

// aboutTeam reports whether the team that a UserQuota names is what is wrong with it.
func aboutTeam(err error) bool {
	_, ok := errors.AsType[*metering.TeamError](err)
	return ok
}

// writeFailure writes that the database did not answer, which is tried again with back-off.
func (r *userQuotaReconciler) writeFailure(q *v1alpha1.UserQuota, err error) error {
	conds := conditions{&q.Status.Conditions, q.Generation}
	reason, message := syncFailure(err)
	conds.set(v1alpha1.ConditionSynced, false, reason, message)
	conds.unknown(v1alpha1.ConditionAccepted, message)
	conds.unknown(v1alpha1.ConditionPlanResolved, message)
	return fmt.Errorf("UserQuota %s of user %s: %w", q.Name, q.Spec.UserID, err)
}

// notInForce writes that nothing of the object is in the database.
func notInForce(q *v1alpha1.UserQuota, reason, message string) {
	conds := conditions{&q.Status.Conditions, q.Generation}
	conds.set(v1alpha1.ConditionAccepted, false, reason, message)
	conds.set(v1alpha1.ConditionSynced, false, v1alpha1.ReasonNotAccepted,
		"nothing is written, because the UserQuota is not accepted")
	conds.unknown(v1alpha1.ConditionPlanResolved, "the plan is looked up once the UserQuota is accepted")
	forget(&q.Status)
}
