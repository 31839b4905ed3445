// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/validation/field"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/reset"
)

// +kubebuilder:webhookconfiguration:mutating=false,name=usage-operator

// The CRD judges everything else, so a webhook that is away must not stop anybody: the controller says what is wrong
// then.
// +kubebuilder:webhook:path=/validate-usage-cantonesescribe-io-v1alpha1-usageplan,mutating=false,failurePolicy=ignore,sideEffects=None,matchPolicy=Equivalent,groups=usage.cantonesescribe.io,resources=usageplans,verbs=create;update;delete,versions=v1alpha1,name=usageplan.usage.cantonesescribe.io,admissionReviewVersions=v1,timeoutSeconds=5,serviceName=usage-operator-webhook,serviceNamespace=usage-operator-system

// SetupUsagePlan registers the validation of UsagePlans: reset schedules, and warnings of a second default plan and of
// a plan that is deleted while it is in use.
func SetupUsagePlan(mgr ctrl.Manager) error {
	return ctrl.NewWebhookManagedBy(mgr, &v1alpha1.UsagePlan{}).
		WithValidator(&usagePlanValidator{reader: mgr.GetClient()}).Complete()
}

type usagePlanValidator struct{ reader client.Reader }

// ValidateCreate refuses a schedule that would never run.
func (v *usagePlanValidator) ValidateCreate(
	ctx context.Context, plan *v1alpha1.UsagePlan,
) (admission.Warnings, error) {
	return v.validate(ctx, &v1alpha1.UsagePlan{}, plan)
}

// ValidateUpdate judges what changes only: what is stored already must not stop other changes.
func (v *usagePlanValidator) ValidateUpdate(
	ctx context.Context, was, is *v1alpha1.UsagePlan,
) (admission.Warnings, error) {
	return v.validate(ctx, was, is)
}

func (v *usagePlanValidator) validate(ctx context.Context, was, is *v1alpha1.UsagePlan) (admission.Warnings, error) {
	if was.Spec.Reset.Schedule != is.Spec.Reset.Schedule {
		if _, err := reset.Schedule(is.Spec.Reset.Schedule); err != nil {
			path := field.NewPath("spec", "reset", "schedule")
			return nil, apierrors.NewInvalid(v1alpha1.GroupVersion.WithKind("UsagePlan").GroupKind(), is.Name,
				field.ErrorList{
					field.Invalid(path, is.Spec.Reset.Schedule, err.Error()),
				})
		}
	}
	if !is.Spec.Default || was.Spec.Default {
		return nil, nil
	}
	// It is no refusal, since the other one may be about to lose it: both may stand in the file that is applied.
	var plans v1alpha1.UsagePlanList
	if err := v.reader.List(ctx, &plans, client.UnsafeDisableDeepCopy); err != nil {
		return nil, nil //nolint:nilerr // without the others nothing can be said about them; the controller will
	}
	for i := range plans.Items {
		if other := &plans.Items[i]; other.Spec.Default && other.Name != is.Name {
			return admission.Warnings{fmt.Sprintf("spec.default: plan %s is the default already: nothing of this "+
				"change of plan %s is in force until spec.default is false in one of them", other.Name, is.Name)}, nil
		}
	}
	return nil, nil
}

// ValidateDelete warns of what becomes of the plan's users. It never refuses.
func (*usagePlanValidator) ValidateDelete(_ context.Context, plan *v1alpha1.UsagePlan) (admission.Warnings, error) {
	if !meta.IsStatusConditionTrue(plan.Status.Conditions, v1alpha1.ConditionInUse) {
		return nil, nil
	}
	users := fmt.Sprintf("%d users are", plan.Status.Users)
	if plan.Status.Users == 1 {
		users = "1 user is"
	}
	warning := fmt.Sprintf("%s on plan %s: it is retired, goes on serving them as it is now, and takes nobody else",
		users, plan.Name)
	if plan.Spec.Default {
		warning += "; users without a plan of their own are refused until another plan is the default"
	}
	return admission.Warnings{warning}, nil
}
