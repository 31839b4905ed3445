// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Other objects are looked at as the cache has them: what slips past it, because two were applied at once or the
// webhook is away, the ledger refuses, and the object's condition says so.
// +kubebuilder:webhook:path=/validate-usage-cantonesescribe-io-v1alpha1-usageteam,mutating=false,failurePolicy=ignore,sideEffects=None,matchPolicy=Equivalent,groups=usage.cantonesescribe.io,resources=usageteams,verbs=create;update;delete,versions=v1alpha1,name=usageteam.usage.cantonesescribe.io,admissionReviewVersions=v1,timeoutSeconds=5,serviceName=usage-operator-webhook,serviceNamespace=usage-operator-system

// SetupUsageTeam registers the validation of UsageTeams: time zones, and the tree that they make.
func SetupUsageTeam(mgr ctrl.Manager) error {
	return ctrl.NewWebhookManagedBy(mgr, &v1alpha1.UsageTeam{}).
		WithValidator(&usageTeamValidator{reader: mgr.GetClient()}).Complete()
}

type usageTeamValidator struct{ reader client.Reader }

// ValidateCreate refuses what cannot be in force whatever else is applied, and warns of what has no effect yet.
func (v *usageTeamValidator) ValidateCreate(ctx context.Context, team *v1alpha1.UsageTeam) (admission.Warnings, error) {
	return v.validate(ctx, &v1alpha1.UsageTeam{}, team)
}

// ValidateUpdate judges what changes only: what is stored already must not stop other changes, nor a deletion.
func (v *usageTeamValidator) ValidateUpdate(
	ctx context.Context, was, is *v1alpha1.UsageTeam,
) (admission.Warnings, error) {
	if !is.DeletionTimestamp.IsZero() || equality.Semantic.DeepEqual(was.Spec, is.Spec) {
		return nil, nil
	}
	return v.validate(ctx, was, is)
}

// ValidateDelete warns of what becomes of those below the team. It never refuses.
func (v *usageTeamValidator) ValidateDelete(_ context.Context, team *v1alpha1.UsageTeam) (admission.Warnings, error) {
	if !meta.IsStatusConditionTrue(team.Status.Conditions, v1alpha1.ConditionInUse) {
		return nil, nil
	}
	warning := fmt.Sprintf("team %s is in use: it is retired, goes on as it is now for those below it, and takes "+
		"nobody else", team.Name)
	if team.Spec.Root {
		warning += "; those who were below it only because they name no team are no longer bound by it"
	}
	return admission.Warnings{warning}, nil
}

func (v *usageTeamValidator) validate(ctx context.Context, was, is *v1alpha1.UsageTeam) (admission.Warnings, error) {
	t := &treeOfTeams{all: map[string]*v1alpha1.UsageTeam{}}
	refusals := judgeValues(was, is)
	var list v1alpha1.UsageTeamList
	if err := v.reader.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		// Without the others nothing can be said about the tree. The controller will.
		return nil, invalidTeam(is, refusals)
	}
	for i := range list.Items {
		t.all[list.Items[i].Name] = &list.Items[i]
	}
	t.put(is)
	if parentOf(was) != parentOf(is) || was.Spec.Root != is.Spec.Root || was.Name == "" {
		refusals = append(refusals, t.judge(was, is)...)
	}
	if err := invalidTeam(is, refusals); err != nil {
		return nil, err
	}
	return v.warn(ctx, t, was, is), nil
}

func invalidTeam(team *v1alpha1.UsageTeam, refusals field.ErrorList) error {
	if len(refusals) == 0 {
		return nil
	}
	return apierrors.NewInvalid(v1alpha1.GroupVersion.WithKind("UsageTeam").GroupKind(), team.Name, refusals)
}

// judgeValues refuses values that no object beside this one makes good.
func judgeValues(was, is *v1alpha1.UsageTeam) field.ErrorList {
	var refusals field.ErrorList
	if was.Spec.TimeZone != is.Spec.TimeZone {
		if _, err := convert.Zone(is.Spec.TimeZone); err != nil {
			refusals = append(refusals, field.Invalid(field.NewPath("spec", "timeZone"),
				is.Spec.TimeZone, err.Error()))
		}
	}
	return refusals
}

// warn tells what is accepted and has no effect, or another one than may have been meant.
func (v *usageTeamValidator) warn(
	ctx context.Context, t *treeOfTeams, was, is *v1alpha1.UsageTeam,
) admission.Warnings {
	var warnings admission.Warnings
	if parent := parentOf(is); parent != "" && parent != parentOf(was) && t.all[parent] == nil {
		warnings = append(warnings, fmt.Sprintf(
			"spec.parentRef.name: there is no UsageTeam %s: nothing of %s is in force until it is there", parent,
			is.Name))
	}
	if ref := is.Spec.PlanRef; ref != nil && (was.Spec.PlanRef == nil || *was.Spec.PlanRef != *ref) {
		err := v.reader.Get(ctx, types.NamespacedName{Name: ref.Name}, &v1alpha1.UsagePlan{})
		if apierrors.IsNotFound(err) {
			warnings = append(warnings, fmt.Sprintf(
				"spec.planRef.name: there is no UsagePlan %s: nothing of %s is in force until it is there", ref.Name,
				is.Name))
		}
	}
	if parentOf(was) != parentOf(is) || was.Spec.Root != is.Spec.Root ||
		!equality.Semantic.DeepEqual(was.Spec.Limits, is.Spec.Limits) {
		warnings = append(warnings, t.aboveParents(is)...)
	}
	return warnings
}

func parentOf(team *v1alpha1.UsageTeam) string {
	if team.Spec.ParentRef == nil {
		return ""
	}
	return team.Spec.ParentRef.Name
}

// treeOfTeams are the teams by name, as they would be with a change.
type treeOfTeams struct {
	all map[string]*v1alpha1.UsageTeam
	// root is the team that is above whoever names no parent; nil if there is none.
	root *v1alpha1.UsageTeam
	// second is another one that wants to be it: the one that is judged, or none.
	second *v1alpha1.UsageTeam
}

// put takes a team in as it is to be. Where another one is the root already, that stays it.
func (t *treeOfTeams) put(team *v1alpha1.UsageTeam) {
	t.all[team.Name] = team
	for _, other := range t.all {
		if other.Spec.Root && other.Name != team.Name && (t.root == nil || firstRoot(other, t.root)) {
			t.root = other
		}
	}
	switch {
	case team.Spec.Root && t.root == nil:
		t.root = team
	case team.Spec.Root:
		t.second = team
	}
}

// firstRoot reports whether of two teams that say root, which the cache may have after a race, the one is in force.
func firstRoot(a, b *v1alpha1.UsageTeam) bool {
	accepted := func(t *v1alpha1.UsageTeam) bool {
		return meta.IsStatusConditionTrue(t.Status.Conditions, v1alpha1.ConditionAccepted)
	}
	if accepted(a) != accepted(b) {
		return accepted(a)
	}
	return a.Name < b.Name
}

// above returns the team above one, nil if there is none or it is not there.
func (t *treeOfTeams) above(team *v1alpha1.UsageTeam) *v1alpha1.UsageTeam {
	switch parent := parentOf(team); {
	case team.Spec.Root:
		return nil
	case parent != "":
		return t.all[parent]
	case t.root != nil && t.root.Name != team.Name:
		return t.root
	}
	return nil
}

// path returns the team and those above it, the nearest first, and whether it leads to one of them again, which is then
// the last as well.
func (t *treeOfTeams) path(team *v1alpha1.UsageTeam) (names []string, circular bool) {
	for ; team != nil; team = t.above(team) {
		if slices.Contains(names, team.Name) {
			return append(names, team.Name), true
		}
		names = append(names, team.Name)
	}
	return names, false
}

// maxTeams is how many teams a user has above it at most, the root included.
const maxTeams = quota.MaxDepth - 1

// judge refuses a place in the tree that no other change of the teams there are makes possible.
func (t *treeOfTeams) judge(was, is *v1alpha1.UsageTeam) field.ErrorList {
	spec := field.NewPath("spec")
	if t.second != nil {
		return field.ErrorList{field.Invalid(spec.Child("root"), true, fmt.Sprintf(
			"team %s is the root already and there is one at most: set spec.root to false in one of them",
			t.root.Name))}
	}
	path, value := spec.Child("parentRef", "name"), any(parentOf(is))
	if is.Spec.Root && !was.Spec.Root {
		path, value = spec.Child("root"), true
	}
	if names, circular := t.path(is); circular {
		return field.ErrorList{field.Invalid(path, value, fmt.Sprintf(
			"team %s would be above itself (%s): name a team that is not below it", is.Name, way(names)))}
	}
	if parent := t.all[parentOf(is)]; parent != nil && !parent.DeletionTimestamp.IsZero() {
		return field.ErrorList{field.Invalid(path, value, fmt.Sprintf(
			"team %s is being deleted and takes nobody else: name another one, or apply it again first", parent.Name))}
	}
	if names := t.deepest(is.Name); len(names) > maxTeams {
		return field.ErrorList{field.Invalid(path, value, fmt.Sprintf(
			"users of team %s would have %d teams above them (%s), the limit is %d, the root included", names[0],
			len(names), way(names), maxTeams))}
	}
	return nil
}

// deepest returns the longest path that leads through a team; of several the first by name.
func (t *treeOfTeams) deepest(through string) []string {
	var longest []string
	for _, team := range t.all {
		names, circular := t.path(team)
		if circular || !slices.Contains(names, through) {
			continue
		}
		if len(names) > len(longest) || len(names) == len(longest) && slices.Compare(names, longest) < 0 {
			longest = names
		}
	}
	return longest
}

func way(names []string) string { return strings.Join(names, " below ") }

// maxExcesses is how many warnings one change gives about limits: the API server cuts off what is longer than 4 KiB.
const maxExcesses = 8

// aboveParents warns of limits of the team that are above those of teams above it, and of limits of teams below it that
// are above its own. They are allowed: the stricter one binds.
func (t *treeOfTeams) aboveParents(changed *v1alpha1.UsageTeam) admission.Warnings {
	var warnings admission.Warnings
	for _, name := range slices.Sorted(maps.Keys(t.all)) {
		names, circular := t.path(t.all[name])
		if circular {
			continue
		}
		for _, over := range names[1:] {
			if name == changed.Name || over == changed.Name {
				warnings = append(warnings, t.excesses(name, over)...)
			}
		}
	}
	if more := len(warnings) - maxExcesses; more > 0 {
		warnings = append(warnings[:maxExcesses], fmt.Sprintf("and %d more limits that another team's is stricter than",
			more))
	}
	return warnings
}

func (t *treeOfTeams) excesses(name, over string) admission.Warnings {
	own, err := convert.TeamLimits("limits", t.all[name].Spec.Limits)
	limits, err2 := convert.TeamLimits("limits", t.all[over].Spec.Limits)
	if errors.Join(err, err2) != nil {
		return nil
	}
	var warnings admission.Warnings
	for _, e := range own.Above(&limits) {
		warnings = append(warnings, convert.AboveParent(name, over, e))
	}
	return warnings
}
