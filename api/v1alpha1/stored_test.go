// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"context"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
)

// What was stored before a rule was there stands in the way of no other change, and of no deletion.
func TestRulesJudgeWhatChanges(t *testing.T) {
	env := kubetest.Start(t)
	for name, tc := range map[string]struct{ crd, bad string }{
		"plan": {"usageplans.usage.cantonesescribe.io", `
apiVersion: usage.cantonesescribe.io/v1alpha1
kind: UsagePlan
metadata: {name: old, finalizers: [example.com/waits]}
spec: {displayName: Old, limits: {fileSize: 0}, reset: {schedule: never}, pricing: {currency: usd},
  overage: {policy: Allow}}`},
		"quota": {"userquotas.usage.cantonesescribe.io", `
apiVersion: usage.cantonesescribe.io/v1alpha1
kind: UserQuota
metadata: {name: old, finalizers: [example.com/waits]}
spec: {userID: "-alice", timeZone: Local, planRef: {name: "-"}, overrides: {credits: 1, unlimited: [Credits]}}`},
		"team": {"usageteams.usage.cantonesescribe.io", `
apiVersion: usage.cantonesescribe.io/v1alpha1
kind: UsageTeam
metadata: {name: old, finalizers: [example.com/waits]}
spec: {displayName: Old, root: true, parentRef: {name: "-"}, weight: 0, grants: {a: {credits: 1}},
  limits: {credits: 1, dailyCost: {amount: much}}, memberDefaults: {credits: 2, dailyCost: {amount: more}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			bad := object(t, tc.bad, "")
			rules := setRules(t, env, tc.crd, nil)
			eventually(t, "the object is stored without the rules", func(ctx context.Context) bool {
				return env.Client.Create(ctx, bad) == nil
			})
			setRules(t, env, tc.crd, rules)
			again := object(t, tc.bad, "metadata: {name: new}")
			eventually(t, "the rules are in force", func(ctx context.Context) bool {
				return apierrors.IsInvalid(env.Client.Create(ctx, again.DeepCopy(), client.DryRunAll))
			})
			for _, body := range []string{`{"metadata":{"labels":{"a":"b"}}}`,
				`{"metadata":{"annotations":{"a":"b"}}}`} {
				if err := env.Client.Patch(t.Context(), bad.DeepCopy(),
					client.RawPatch(types.MergePatchType, []byte(body))); err != nil {
					t.Errorf("%s: %v", body, err)
				}
			}
			if err := env.Client.Delete(t.Context(), bad.DeepCopy()); err != nil {
				t.Fatal(err)
			}
			if err := env.Client.Patch(t.Context(), bad.DeepCopy(),
				client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))); err != nil {
				t.Errorf("its finalizer: %v", err)
			}
			if err := env.Client.Get(t.Context(), client.ObjectKeyFromObject(bad),
				bad.DeepCopy()); !apierrors.IsNotFound(err) {
				t.Errorf("it is there still: %v", err)
			}
		})
	}
}

// setRules gives a CRD another schema of spec, a free one if that is nil, and returns the one that it had.
func setRules(t *testing.T, env *kubetest.Env, name string, spec map[string]any) map[string]any {
	t.Helper()
	crd := &unstructured.Unstructured{}
	crd.SetAPIVersion("apiextensions.k8s.io/v1")
	crd.SetKind("CustomResourceDefinition")
	if err := env.Client.Get(t.Context(), client.ObjectKey{Name: name}, crd); err != nil {
		t.Fatal(err)
	}
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil {
		t.Fatal(err)
	}
	path := []string{"schema", "openAPIV3Schema", "properties", "spec"}
	version := versions[0].(map[string]any)
	before, _, err := unstructured.NestedMap(version, path...)
	if err != nil {
		t.Fatal(err)
	}
	if spec == nil {
		spec = map[string]any{
			"type": "object", "x-kubernetes-preserve-unknown-fields": true,
			"properties": map[string]any{
				"userID": map[string]any{"type": "string"}, // which selectors name
				"parentRef": map[string]any{ // which a rule of the whole object reads
					"type": "object", "properties": map[string]any{"name": map[string]any{"type": "string"}},
				},
			},
		}
	}
	if err := unstructured.SetNestedMap(version, spec, path...); err != nil {
		t.Fatal(err)
	}
	if err := unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions"); err != nil {
		t.Fatal(err)
	}
	if err := env.Client.Update(t.Context(), crd); err != nil {
		t.Fatal(err)
	}
	return before
}

func eventually(t *testing.T, what string, condition func(context.Context) bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 20*time.Second, true,
		func(ctx context.Context) (bool, error) {
			return condition(ctx), nil
		})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
