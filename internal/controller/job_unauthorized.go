// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	jobs "github.com/cantonesescribe/usage-operator/internal/job"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// What ran in a user's name without the right to spend that user's quota, by the Jobs' namespace. Nobody was charged.
var (
	unauthorizedJobs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "usage_unauthorized_jobs_total",
		Help: "Jobs that ran though their service account may not spend the quota of the user whom they name. Nobody " +
			"is charged for them.",
	}, []string{"namespace"})
	unauthorizedCredits = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "usage_unauthorized_credits_total",
		Help: "Credits that such Jobs would have been charged at their end.",
	}, []string{"namespace"})
)

func init() {
	metrics.Registry.MustRegister(unauthorizedJobs, unauthorizedCredits)
}

// unauthorizedMessage says what is missing, in the words of the admission policy.
func unauthorizedMessage(job *batchv1.Job, userID string) string {
	return fmt.Sprintf(
		"service account '%s' of namespace '%s' may not spend the quota of user '%s': it needs the verb '%s' on "+
			"resource '%s' named '%s' in API group %s",
		serviceAccount(job), job.Namespace, userID, v1alpha1.SpendVerb, v1alpha1.UsersResource, userID, v1alpha1.Group)
}

// unauthorized keeps a Job from the quota of a user that it may not spend: it waits, or runs and is counted instead of
// charged. What was admitted while the right was there goes on if it runs, and ends without a charge if it does not.
func (r *jobReconciler) unauthorized(
	ctx context.Context, job *batchv1.Job, id quota.AdmissionID, declared jobs.Declared, warnOnly bool,
) (reconcile.Result, error) {
	adm, err := r.svc.Get(ctx, id)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return reconcile.Result{}, err
	}
	message := unauthorizedMessage(job, declared.UserID)
	switch {
	case err == nil && adm.State == quota.Admitted && !suspended(job):
		return again(r.notice(), r.start(ctx, job, id, adm, quota.Decision{}))
	case err == nil && adm.State.Live():
		if _, err := r.svc.SettleJob(ctx, id, 0); err != nil {
			return reconcile.Result{}, fmt.Errorf("end the admission of a Job that may not spend any more: %w", err)
		}
	}
	if warnOnly {
		message = "it runs, and is counted as unauthorized instead of charged to the user; where it is enforced it " +
			"would not start: " + message
	} else {
		message += "; it starts by itself when that has changed"
	}
	first := r.first(job, v1alpha1.StateUnauthorized)
	told, err := r.tell(ctx, job, v1alpha1.StateUnauthorized, message, startIf(job, warnOnly))
	if err == nil && told && first {
		if warnOnly {
			unauthorizedJobs.WithLabelValues(job.Namespace).Inc()
		}
		r.event(job, corev1.EventTypeWarning, v1alpha1.StateUnauthorized, "Admit", message)
	}
	return again(unauthorizedInterval, err)
}

// settleUnknown closes a Job that has ended and that the ledger does not know: it was over before it was metered, or it
// ran without the right to spend and is counted now.
func (r *jobReconciler) settleUnknown(ctx context.Context, job *batchv1.Job) error {
	namespace, err := r.namespace(ctx, job.Namespace)
	if err != nil || mode(namespace) == v1alpha1.EnforcementOff {
		return client.IgnoreNotFound(err)
	}
	declared, err := jobs.Parse(job.Labels, job.Annotations)
	if err != nil {
		return nil //nolint:nilerr // whoever declares nothing that can be counted has been told so
	}
	if may, err := r.rights.MaySpend(ctx, job.Namespace, serviceAccount(job), declared.UserID); err != nil || may {
		return err
	}
	use, err := r.used(ctx, job, declared.Estimate, false)
	if err != nil {
		return err
	}
	first := r.first(job, v1alpha1.StateReleased)
	message := fmt.Sprintf("nothing was charged; %s credits were used without the right: %s", use,
		unauthorizedMessage(job, declared.UserID))
	if err := r.close(ctx, job, v1alpha1.StateReleased, message); err != nil {
		return err
	}
	if first {
		unauthorizedCredits.WithLabelValues(job.Namespace).Add(float64(use) / float64(quota.Credit))
	}
	return nil
}

func (r *jobReconciler) namespace(ctx context.Context, name string) (*metav1.PartialObjectMetadata, error) {
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	return namespace, r.jobs.Get(ctx, types.NamespacedName{Name: name}, namespace)
}
