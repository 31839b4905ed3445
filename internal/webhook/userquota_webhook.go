// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/convert"
)

// +kubebuilder:webhook:path=/validate-usage-cantonesescribe-io-v1alpha1-userquota,mutating=false,failurePolicy=ignore,sideEffects=None,matchPolicy=Equivalent,groups=usage.cantonesescribe.io,resources=userquotas,verbs=create;update,versions=v1alpha1,name=userquota.usage.cantonesescribe.io,admissionReviewVersions=v1,timeoutSeconds=5,serviceName=usage-operator-webhook,serviceNamespace=usage-operator-system

// SetupUserQuota registers the validation of UserQuotas: time zones.
func SetupUserQuota(mgr ctrl.Manager) error {
	return ctrl.NewWebhookManagedBy(mgr, &v1alpha1.UserQuota{}).WithValidator(userQuotaValidator{}).Complete()
}

type userQuotaValidator struct{}

// ValidateCreate refuses a time zone that does not exist.
func (userQuotaValidator) ValidateCreate(_ context.Context, q *v1alpha1.UserQuota) (admission.Warnings, error) {
	if _, err := convert.Zone(q.Spec.TimeZone); err != nil {
		return nil, apierrors.NewInvalid(v1alpha1.GroupVersion.WithKind("UserQuota").GroupKind(), q.Name,
			field.ErrorList{
				field.Invalid(field.NewPath("spec", "timeZone"), q.Spec.TimeZone, err.Error()),
			})
	}
	return nil, nil
}

// ValidateUpdate judges a time zone that changes only: what is stored already must not stop other changes.
func (v userQuotaValidator) ValidateUpdate(
	ctx context.Context, was, is *v1alpha1.UserQuota,
) (admission.Warnings, error) {
	if was.Spec.TimeZone == is.Spec.TimeZone {
		return nil, nil
	}
	return v.ValidateCreate(ctx, is)
}

// ValidateDelete has nothing to say.
func (userQuotaValidator) ValidateDelete(context.Context, *v1alpha1.UserQuota) (admission.Warnings, error) {
	return nil, nil
}
