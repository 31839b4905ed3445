// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/convert"
)

// +kubebuilder:webhook:path=/validate-usage-cantonesescribe-io-v1alpha1-userquota,mutating=false,failurePolicy=ignore,sideEffects=None,matchPolicy=Equivalent,groups=usage.cantonesescribe.io,resources=userquotas,verbs=create;update,versions=v1alpha1,name=userquota.usage.cantonesescribe.io,admissionReviewVersions=v1,timeoutSeconds=5,serviceName=usage-operator-webhook,serviceNamespace=usage-operator-system

// SetupUserQuota registers the validation of UserQuotas: time zones, and warnings of plans and teams that are not
// there.
func SetupUserQuota(mgr ctrl.Manager) error {
	return ctrl.NewWebhookManagedBy(mgr, &v1alpha1.UserQuota{}).
		WithValidator(&userQuotaValidator{cache: mgr.GetClient(), server: mgr.GetAPIReader()}).Complete()
}

// userQuotaValidator asks the server for what the cache does not have: a plan may have been applied a moment ago.
type userQuotaValidator struct{ cache, server client.Reader }

// ValidateCreate refuses a time zone that does not exist, and warns of what has no effect yet.
func (v *userQuotaValidator) ValidateCreate(ctx context.Context, q *v1alpha1.UserQuota) (admission.Warnings, error) {
	return v.validate(ctx, &v1alpha1.UserQuota{}, q)
}

// ValidateUpdate judges what changes only: what is stored already must not stop other changes.
func (v *userQuotaValidator) ValidateUpdate(
	ctx context.Context, was, is *v1alpha1.UserQuota,
) (admission.Warnings, error) {
	return v.validate(ctx, was, is)
}

func (v *userQuotaValidator) validate(ctx context.Context, was, is *v1alpha1.UserQuota) (admission.Warnings, error) {
	if was.Spec.TimeZone != is.Spec.TimeZone {
		if _, err := convert.Zone(is.Spec.TimeZone); err != nil {
			return nil, apierrors.NewInvalid(v1alpha1.GroupVersion.WithKind("UserQuota").GroupKind(), is.Name,
				field.ErrorList{
					field.Invalid(field.NewPath("spec", "timeZone"), is.Spec.TimeZone, err.Error()),
				})
		}
	}
	var warnings admission.Warnings
	warn := func(path, kind, name string, object client.Object) {
		key := types.NamespacedName{Name: name}
		if apierrors.IsNotFound(v.cache.Get(ctx, key, object)) &&
			apierrors.IsNotFound(v.server.Get(ctx, key, object)) {
			warnings = append(warnings, fmt.Sprintf(
				"%s: there is no %s %s: unless it is retired and has the user already, nothing of %s is in force "+
					"until it is there", path, kind, name, is.Name))
		}
	}
	if ref := is.Spec.PlanRef; ref != nil && (was.Spec.PlanRef == nil || *was.Spec.PlanRef != *ref) {
		warn("spec.planRef.name", "UsagePlan", ref.Name, &v1alpha1.UsagePlan{})
	}
	if ref := is.Spec.TeamRef; ref != nil && (was.Spec.TeamRef == nil || *was.Spec.TeamRef != *ref) {
		warn("spec.teamRef.name", "UsageTeam", ref.Name, &v1alpha1.UsageTeam{})
	}
	return warnings, nil
}

// ValidateDelete has nothing to say.
func (*userQuotaValidator) ValidateDelete(context.Context, *v1alpha1.UserQuota) (admission.Warnings, error) {
	return nil, nil
}
