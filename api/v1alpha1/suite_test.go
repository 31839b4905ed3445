// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

// Objects that are accepted, which the tests change by a JSON merge patch.
const (
	plan = `
apiVersion: usage.cantonesescribe.io/v1alpha1
kind: UsagePlan
metadata: {generateName: plan-}
spec: {displayName: Plan, limits: {credits: 30, fileSize: 25Mi, concurrent: 1}}`

	quota = `
apiVersion: usage.cantonesescribe.io/v1alpha1
kind: UserQuota
metadata: {generateName: quota-}
spec: {userID: alice}`
)

// object returns the object with the patch applied, both as YAML.
func object(t *testing.T, base, patch string) *unstructured.Unstructured {
	t.Helper()
	var changed, changes map[string]any
	for text, into := range map[string]*map[string]any{base: &changed, patch: &changes} {
		asJSON, err := yaml.YAMLToJSON([]byte(text))
		if err == nil {
			err = json.Unmarshal(asJSON, into)
		}
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
	}
	// Through JSON once more, since unstructured wants int64 where it is a whole number.
	text, err := json.Marshal(merge(changed, changes))
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	return u
}

// merge applies a JSON merge patch (RFC 7396).
func merge(base, patch map[string]any) map[string]any {
	if base == nil {
		base = map[string]any{}
	}
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(base, k)
		case map[string]any:
			inner, _ := base[k].(map[string]any)
			base[k] = merge(inner, v)
		default:
			base[k] = v
		}
	}
	return base
}

// field is the value at a path such as "spec.limits.queued", as JSON.
func field(t *testing.T, u *unstructured.Unstructured, path string) string {
	t.Helper()
	value, found, err := unstructured.NestedFieldNoCopy(u.Object, strings.Split(path, ".")...)
	if err != nil {
		t.Fatal(err)
	}
	if !found {
		return ""
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// validationCase is one change of an object that is otherwise accepted. It is accepted if want is empty; else the
// refusal contains every text in want: the field, and what a person has to do about it.
type validationCase struct {
	patch string
	want  []string
}

func testValidation(t *testing.T, base string, cases map[string]validationCase) {
	t.Helper()
	env := kubetest.Shared(t)
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A dry run passes the same validation and leaves nothing for other tests to stumble over.
			err := env.Client.Create(t.Context(), object(t, base, tc.patch), client.DryRunAll)
			check(t, err, tc.want)
		})
	}
}

func check(t *testing.T, err error, want []string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	if !apierrors.IsInvalid(err) {
		t.Fatalf("got %v, want it refused as invalid with %q", err, want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("refusal %q does not contain %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "no such key") || strings.Contains(err.Error(), "evaluating rule") {
		t.Errorf("refusal %q is about a rule that failed to run", err)
	}
}

// long is a text of n characters.
func long(n int) string { return strings.Repeat("a", n) }

// list is a YAML list of n different texts.
func list(n int) string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf("item-%d", i)
	}
	return "[" + strings.Join(items, ", ") + "]"
}
