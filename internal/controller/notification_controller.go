// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/loop"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Endpoints are declared by NotificationEndpoints, and say how they do; *delivery.Service is one.
type Endpoints interface {
	Declare(ctx context.Context, e *delivery.Endpoint, keys []delivery.Key) (delivery.Status, error)
	Retire(ctx context.Context, name string, cluster quota.ClusterUID) error
	Enable(ctx context.Context, id delivery.EndpointID) error
	Endpoint(ctx context.Context, team, name string) (delivery.Status, error)
	PlatformEndpoints(ctx context.Context, after string, limit int) (all []delivery.Status, more bool, err error)
}

// NotificationEndpointOptions configure the NotificationEndpoint controller.
type NotificationEndpointOptions struct {
	// Cluster is this one.
	Cluster Cluster
	// Namespace has the Secrets with the keys that deliveries are signed with.
	Namespace string
	// StatusInterval is how often it is looked at how endpoints do; DefaultStatusInterval if zero.
	StatusInterval time.Duration
	// ResyncInterval is how often endpoints without an object are looked for; DefaultResyncInterval if zero.
	ResyncInterval time.Duration
	// Loops is told how each turn of the background work went; nil keeps silent.
	Loops loop.Observer
}

// +kubebuilder:rbac:groups=usage.cantonesescribe.io,resources=notificationendpoints,verbs=get;list;watch
// +kubebuilder:rbac:groups=usage.cantonesescribe.io,resources=notificationendpoints/status,verbs=patch
// +kubebuilder:rbac:groups="",namespace=usage-operator-system,resources=secrets,resourceNames=usage-operator-notification-keys,verbs=get

// SetupNotificationEndpoint registers the controller that brings NotificationEndpoints and their keys into the
// database, and how they do back.
func SetupNotificationEndpoint(mgr ctrl.Manager, endpoints Endpoints, opts NotificationEndpointOptions) error {
	if opts.StatusInterval <= 0 {
		opts.StatusInterval = DefaultStatusInterval
	}
	if opts.ResyncInterval <= 0 {
		opts.ResyncInterval = DefaultResyncInterval
	}
	r := &notificationReconciler{client: mgr.GetClient(), secrets: mgr.GetAPIReader(), endpoints: endpoints, opts: opts,
		wake: make(chan event.GenericEvent)}
	if err := mgr.Add(leading{observe: opts.Loops, Task: loop.Task{
		Name: "endpoint-orphans", Period: opts.ResyncInterval, Timeout: turnTimeout, Do: r.findOrphans,
	}}); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("notificationendpoint").
		For(&v1alpha1.NotificationEndpoint{}, builder.WithPredicates(
			predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		WatchesRawSource(source.Channel(r.wake, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 2}).
		Complete(r)
}

type notificationReconciler struct {
	client client.Client
	// secrets reads past the cache, which would need the right to read every Secret.
	secrets   client.Reader
	endpoints Endpoints
	opts      NotificationEndpointOptions
	wake      chan event.GenericEvent
}

// secretOf is the name of the Secret with the endpoint's keys, empty if there is none.
func secretOf(n *v1alpha1.NotificationEndpoint) string {
	if s := n.Spec.Signing; s != nil && s.SecretRef != nil {
		return s.SecretRef.Name
	}
	return ""
}

// findOrphans queues the endpoints whose object is gone.
func (r *notificationReconciler) findOrphans(ctx context.Context) error {
	after := ""
	for {
		all, more, err := r.endpoints.PlatformEndpoints(ctx, after, delivery.MaxPage)
		if err != nil {
			return report(ctx, err, "look for endpoints without a NotificationEndpoint")
		}
		for i := range all {
			after = all[i].Name
			n := &v1alpha1.NotificationEndpoint{}
			err := r.client.Get(ctx, types.NamespacedName{Name: after}, n)
			if client.IgnoreNotFound(err) != nil {
				return err
			}
			if err == nil || all[i].Cluster != r.opts.Cluster.UID {
				continue
			}
			n.Name = after
			if err := enqueue(ctx, r.wake, n); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

// Reconcile brings one endpoint into the database if it is not there as declared, or takes it out, and writes its
// status.
func (r *notificationReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	n := &v1alpha1.NotificationEndpoint{}
	if err := r.client.Get(ctx, req.NamespacedName, n); err != nil {
		if apierrors.IsNotFound(err) {
			return later(reconcile.Result{}, r.retire(ctx, req.Name))
		}
		return reconcile.Result{}, err
	}
	if !n.DeletionTimestamp.IsZero() {
		// A foreign finalizer. The endpoint goes on until its object is gone.
		return reconcile.Result{}, nil
	}
	before := n.DeepCopy()
	err := r.sync(ctx, n)
	n.Status.ObservedGeneration = n.Generation
	conditions{&n.Status.Conditions, n.Generation}.sumUp("the endpoint is in force", v1alpha1.ConditionAccepted,
		v1alpha1.ConditionSigningResolved, v1alpha1.ConditionSynced)
	if !equality.Semantic.DeepEqual(before.Status, n.Status) {
		err = errors.Join(err, writeStatus(ctx, r.client, before, n))
	}
	if err != nil {
		return later(reconcile.Result{}, err)
	}
	return reconcile.Result{RequeueAfter: wait.Jitter(r.opts.StatusInterval, 0.1)}, nil
}

// retire takes an endpoint whose object is gone out of the database, unless it is another cluster's.
func (r *notificationReconciler) retire(ctx context.Context, name string) error {
	err := r.endpoints.Retire(ctx, name, r.opts.Cluster.UID)
	if _, owned := errors.AsType[*ledger.OwnedError](err); owned || errors.Is(err, ledger.ErrNotFound) {
		return nil
	}
	return err
}

// sync writes the endpoint to the database unless it is there. What the user has to mend is no error: the next event
// about it brings us back.
func (r *notificationReconciler) sync(ctx context.Context, n *v1alpha1.NotificationEndpoint) error {
	conds := conditions{&n.Status.Conditions, n.Generation}
	declared, err := convert.Endpoint(n)
	if err != nil {
		endpointNotInForce(n, v1alpha1.ReasonInvalid, err.Error())
		return nil
	}
	declared.Cluster = r.opts.Cluster.UID
	keys, ok, err := r.keys(ctx, n, declared.Signing)
	if err != nil || !ok {
		return err
	}
	status, err := r.endpoints.Endpoint(ctx, "", n.Name)
	if errors.Is(err, ledger.ErrNotFound) || err == nil && (!status.DeclaredAs(&declared) || !status.SignsWith(keys)) {
		status, err = r.endpoints.Declare(ctx, &declared, keys)
	}
	if err == nil {
		status, err = r.enable(ctx, n, status)
	}
	owned, isOwned := errors.AsType[*ledger.OwnedError](err)
	switch {
	case isOwned:
		endpointNotInForce(n, v1alpha1.ReasonOwnedByAnotherCluster, r.opts.Cluster.describeOwned(ctx, owned))
	case errors.Is(err, ledger.ErrInvalid):
		endpointNotInForce(n, v1alpha1.ReasonInvalid, err.Error())
	case err != nil:
		reason, message := syncFailure(err)
		conds.set(v1alpha1.ConditionSynced, false, reason, message)
		conds.unknown(v1alpha1.ConditionAccepted, message)
		conds.unknown(v1alpha1.ConditionDelivering, message)
		return fmt.Errorf("NotificationEndpoint %s: %w", n.Name, err)
	default:
		endpointInForce(n, &status)
	}
	return nil
}

// enable has an endpoint tried again if somebody asks for it.
func (r *notificationReconciler) enable(
	ctx context.Context, n *v1alpha1.NotificationEndpoint, status delivery.Status,
) (delivery.Status, error) {
	value := n.Annotations[v1alpha1.EnableAnnotation]
	value = value[:min(len(value), 253)]
	if value == "" || value == n.Status.ObservedEnable {
		return status, nil
	}
	if err := r.endpoints.Enable(ctx, status.ID); err != nil {
		return status, err
	}
	n.Status.ObservedEnable = value
	return r.endpoints.Endpoint(ctx, "", n.Name)
}

// keys are those of the endpoint's Secret, none if it has no Secret; false if they are no good, which is written then.
func (r *notificationReconciler) keys(
	ctx context.Context, n *v1alpha1.NotificationEndpoint, signing delivery.Signing,
) ([]delivery.Key, bool, error) {
	conds := conditions{&n.Status.Conditions, n.Generation}
	name := secretOf(n)
	if name == "" {
		conds.set(v1alpha1.ConditionSigningResolved, true, v1alpha1.ReasonSigningResolved,
			"there is no spec.signing.secretRef: a key was made")
		return nil, true, nil
	}
	secret := &corev1.Secret{}
	err := r.secrets.Get(ctx, types.NamespacedName{Namespace: r.opts.Namespace, Name: name}, secret)
	missing, forbidden := apierrors.IsNotFound(err), apierrors.IsForbidden(err)
	if err != nil && !missing && !forbidden {
		return nil, false, err
	}
	// What was in force goes on.
	refuse := func(reason, message string) {
		conds.set(v1alpha1.ConditionSigningResolved, false, reason, message)
		conds.set(v1alpha1.ConditionSynced, false, v1alpha1.ReasonSyncFailed,
			"nothing is written until SigningResolved is true")
		conds.unknown(v1alpha1.ConditionAccepted, "it is judged once there are keys to sign with")
	}
	if missing {
		refuse(v1alpha1.ReasonSecretNotFound, fmt.Sprintf("there is no Secret %s/%s: make it, or correct "+
			"spec.signing.secretRef.name", r.opts.Namespace, name))
		return nil, false, nil
	}
	if forbidden {
		refuse(v1alpha1.ReasonSecretForbidden, fmt.Sprintf("the manager may not read Secret %s/%s: give its service "+
			"account verb get on it", r.opts.Namespace, name))
		return nil, false, nil
	}
	keys, invalid := convert.SigningKeys(secret.Data, signing)
	if invalid != nil {
		refuse(v1alpha1.ReasonKeyInvalid, fmt.Sprintf("Secret %s/%s: %v", r.opts.Namespace, name, invalid))
		return nil, false, nil
	}
	conds.set(v1alpha1.ConditionSigningResolved, true, v1alpha1.ReasonSigningResolved,
		"the keys are those of Secret "+r.opts.Namespace+"/"+name)
	return keys, true, nil
}

// endpointNotInForce writes that nothing of the object is in the database.
func endpointNotInForce(n *v1alpha1.NotificationEndpoint, reason, message string) {
	conds := conditions{&n.Status.Conditions, n.Generation}
	conds.set(v1alpha1.ConditionAccepted, false, reason, message)
	conds.set(v1alpha1.ConditionSynced, false, v1alpha1.ReasonNotAccepted,
		"nothing is written, because the NotificationEndpoint is not accepted")
	conds.set(v1alpha1.ConditionDelivering, false, v1alpha1.ReasonNotAccepted,
		"the NotificationEndpoint is not accepted")
	conds.unknown(v1alpha1.ConditionSigningResolved, "it is looked up once the NotificationEndpoint is accepted")
	n.Status = v1alpha1.NotificationEndpointStatus{Conditions: n.Status.Conditions,
		ObservedEnable: n.Status.ObservedEnable}
}

// endpointInForce writes the status of an endpoint that the database holds as it is declared, and how it does.
func endpointInForce(n *v1alpha1.NotificationEndpoint, s *delivery.Status) {
	conds := conditions{&n.Status.Conditions, n.Generation}
	conds.set(v1alpha1.ConditionAccepted, true, v1alpha1.ReasonAccepted, "the endpoint is in force")
	conds.set(v1alpha1.ConditionSynced, true, v1alpha1.ReasonSynced, "the database holds what the spec says")
	state := &s.State
	switch {
	case !state.DisabledAt.IsZero():
		conds.set(v1alpha1.ConditionDelivering, false, v1alpha1.ReasonDisabled, state.DisabledReason+
			": nothing is sent until the spec is changed, or the annotation "+v1alpha1.EnableAnnotation)
	case s.Suspended:
		conds.set(v1alpha1.ConditionDelivering, false, v1alpha1.ReasonSuspended, "spec.suspended is true")
	case state.Failures >= delivery.Failing:
		conds.set(v1alpha1.ConditionDelivering, false, v1alpha1.ReasonFailing, state.Failure)
	default:
		conds.set(v1alpha1.ConditionDelivering, true, v1alpha1.ReasonDelivering, "what is sent arrives")
	}
	n.Status.ID = s.ID.String()
	n.Status.Keys = nil
	for i := range s.Keys {
		n.Status.Keys = append(n.Status.Keys, v1alpha1.NotificationKey{Name: s.Keys[i].Name,
			PublicKey: s.Keys[i].PublicText()})
	}
	// To the minute, so that a busy endpoint is not written with each look.
	n.Status.LastSuccessTime = timestamp(state.LastSuccess.Truncate(time.Minute))
	n.Status.LastFailureTime = timestamp(state.LastFailure.Truncate(time.Minute))
	n.Status.LastFailure = state.Failure
	n.Status.Waiting, n.Status.Dead = s.Waiting, s.Dead
}
