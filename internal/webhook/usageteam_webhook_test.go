// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
)

type editTeam func(*v1alpha1.UsageTeam)

// attempt is a change, tried only or made.
type attempt func(ctx context.Context, dry bool) error

func newTeam(name, parent string, edits ...editTeam) *v1alpha1.UsageTeam {
	team := &v1alpha1.UsageTeam{ObjectMeta: metav1.ObjectMeta{Name: name}}
	team.Spec.DisplayName = name
	team.Spec.Limits = &v1alpha1.TeamLimits{Queued: new(int32(1))}
	if parent != "" {
		team.Spec.ParentRef = &v1alpha1.TeamReference{Name: parent}
	}
	for _, edit := range edits {
		edit(team)
	}
	return team
}

func concurrent(n int32) editTeam {
	return func(t *v1alpha1.UsageTeam) { t.Spec.Limits.Concurrent = &n }
}

func root(t *v1alpha1.UsageTeam) { t.Spec.Root = true }

func plan(name string) editTeam {
	return func(t *v1alpha1.UsageTeam) { t.Spec.PlanRef = &v1alpha1.PlanReference{Name: name} }
}

func below(parent string) editTeam {
	return func(t *v1alpha1.UsageTeam) { t.Spec.ParentRef = &v1alpha1.TeamReference{Name: parent} }
}

// A step is tried until the answer is the wanted one, as the webhook's cache may lag behind the steps before, and then
// made if it is to be kept.
func TestTeams(t *testing.T) {
	c, heard := declarations(t)
	answers := func(t *testing.T, do attempt, refused bool, texts ...string) {
		t.Helper()
		var last string
		err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 20*time.Second, true,
			func(ctx context.Context) (bool, error) {
				heard.texts = nil
				err := do(ctx, true)
				said := strings.Join(heard.texts, "\n")
				if err != nil {
					said += "\n" + err.Error()
				}
				last = said
				if (err != nil) != refused || !refused && len(texts) == 0 && said != "" {
					return false, nil
				}
				for _, text := range texts {
					if !strings.Contains(said, text) {
						return false, nil
					}
				}
				return true, nil
			})
		if err != nil {
			t.Fatalf("want refused %v and %q, the last answer was %q", refused, texts, last)
		}
	}
	create := func(team *v1alpha1.UsageTeam) attempt {
		return func(ctx context.Context, dry bool) error {
			if dry {
				return c.Create(ctx, team.DeepCopy(), client.DryRunAll)
			}
			return c.Create(ctx, team.DeepCopy())
		}
	}
	change := func(name string, edit editTeam) attempt {
		return func(ctx context.Context, dry bool) error {
			team := &v1alpha1.UsageTeam{}
			if err := c.Get(ctx, client.ObjectKey{Name: name}, team); err != nil {
				return err
			}
			before := team.DeepCopy()
			edit(team)
			if dry {
				return c.Patch(ctx, team, client.MergeFrom(before), client.DryRunAll)
			}
			return c.Patch(ctx, team, client.MergeFrom(before))
		}
	}
	for _, step := range []struct {
		name    string
		do      attempt
		refused bool
		texts   []string
	}{
		{"keep: a team alone", create(newTeam("a", "", concurrent(5))), false, nil},
		{"keep: below it", create(newTeam("b", "a")), false, nil},
		{"keep: three", create(newTeam("c", "b")), false, nil},
		{"four", create(newTeam("d", "c")), true,
			[]string{"spec.parentRef.name", `"c"`, "d would have 4 teams above them (d below c below b below a)",
				"the limit is 3, the root included"}},
		{"keep: a tree of its own", create(newTeam("x", "")), false, nil},
		{"keep: and below", create(newTeam("y", "x")), false, nil},
		{"a subtree that gets too deep", change("x", below("b")), true,
			[]string{"spec.parentRef.name", "y would have 4 teams above them (y below x below b below a)"}},
		{"a subtree that fits", change("x", below("a")), false, nil},
		{"a root that makes them too deep", create(newTeam("r", "", root)), true,
			[]string{"spec.root", "c would have 4 teams above them (c below b below a below r)"}},
		{"itself through two", change("a", below("c")), true,
			[]string{"spec.parentRef.name", `"c"`, "team a would be above itself (a below c below b below a)"}},
		{"itself through one", change("x", below("y")), true,
			[]string{"team x would be above itself (x below y below x)"}},
		{"keep: an unknown parent", create(newTeam("lost", "nowhere")), false,
			[]string{"spec.parentRef.name: there is no UsageTeam nowhere"}},
		{"a parent below its child", create(newTeam("nowhere", "lost")), true,
			[]string{"team nowhere would be above itself (nowhere below lost below nowhere)"}},
		{"what is stored stops nothing",
			change("lost", func(t *v1alpha1.UsageTeam) { t.Spec.DisplayName = "L" }), false, nil},
		{"an unknown plan", create(newTeam("paying", "", plan("gold"))), false,
			[]string{"spec.planRef.name: there is no UsagePlan gold"}},
		{"a limit above the parent's", create(newTeam("wide", "a", concurrent(6))), false,
			[]string{"team wide: limits.concurrent is 6 and that of team a above it is 5, which binds"}},
		{"keep: a limit as the parent's", change("b", concurrent(5)), false, nil},
		{"a limit that gets below the child's", change("a", concurrent(4)), false,
			[]string{"team b: limits.concurrent is 5 and that of team a above it is 4, which binds"}},
		{"a zone that is not there",
			create(newTeam("z", "", func(t *v1alpha1.UsageTeam) { t.Spec.TimeZone = "Asia/Atlantis" })),
			true, []string{"spec.timeZone", "Asia/Atlantis"}},
		{"keep: c is lifted out", change("c", func(t *v1alpha1.UsageTeam) { t.Spec.ParentRef = nil }), false, nil},
		{"keep: a root", create(newTeam("platform", "", root)), false, nil},
		{"a second root", create(newTeam("other", "", root)), true,
			[]string{"spec.root", "team platform is the root already"}},
		{"an old team as second root", change("x", root), true,
			[]string{"spec.root", "team platform is the root already"}},
		{"too deep with the root", change("c", below("b")), true,
			[]string{"c would have 4 teams above them (c below b below a below platform)"}},
		{"the root stays what it is", change("platform", concurrent(9)), false, nil},
	} {
		t.Run(step.name, func(t *testing.T) {
			answers(t, step.do, step.refused, step.texts...)
			if !strings.HasPrefix(step.name, "keep: ") {
				return
			}
			if err := step.do(t.Context(), false); err != nil {
				t.Fatal(err)
			}
		})
	}

	t.Run("a parent that is being deleted", func(t *testing.T) {
		hold := func(team *v1alpha1.UsageTeam) { team.Finalizers = []string{"example.com/hold"} }
		if err := change("y", hold)(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(t.Context(), newTeam("y", "")); err != nil {
			t.Fatal(err)
		}
		answers(t, create(newTeam("new", "y")), true, "team y is being deleted and takes nobody else")
		release := func(team *v1alpha1.UsageTeam) { team.Finalizers = nil }
		if err := change("y", release)(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("deleting a team warns if it is in use", func(t *testing.T) {
		p := &v1alpha1.UsageTeam{}
		if err := c.Get(t.Context(), client.ObjectKey{Name: "platform"}, p); err != nil {
			t.Fatal(err)
		}
		heard.texts = nil
		if err := c.Delete(t.Context(), p, client.DryRunAll); err != nil || len(heard.texts) > 0 {
			t.Errorf("unused: %v, warnings %q", err, heard.texts)
		}
		before := p.DeepCopy()
		meta.SetStatusCondition(&p.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionInUse, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonInUse,
		})
		if err := c.Status().Patch(t.Context(), p, client.MergeFrom(before)); err != nil {
			t.Fatal(err)
		}
		heard.texts = nil
		if err := c.Delete(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		said := strings.Join(heard.texts, "\n")
		if !strings.Contains(said, "team platform is in use: it is retired") ||
			!strings.Contains(said, "no longer bound") {
			t.Errorf("warnings %q", heard.texts)
		}
	})
}
