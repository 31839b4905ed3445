// SPDX-License-Identifier: Apache-2.0

package manifest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/manifest"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// The plans that the product comes with are good, and what they leave out is what the definition says.
func TestSamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../config/samples/usageplan_*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p, err := manifest.Plan(t.Context(), data)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if p.Name == "pro" && (p.Limits.Credits.Max != 500*quota.Credit || p.Limits.FileSize.Max != 500<<20 ||
			p.Currency != "USD" || p.ProviderCost != 6000 || p.FinalAfter != 72*time.Hour) {
			t.Errorf("pro: got %+v", p)
		}
	}
}

const good = `
apiVersion: usage.cantonesescribe.io/v1alpha1
kind: UsagePlan
metadata: {name: gold}
spec:
  displayName: Gold
  limits: {credits: 500, fileSize: 500Mi, concurrent: 5}
  pricing: {perPeriod: "9.99"}
  reset: {schedule: "0 3 * * *"}
`

// served is what the API server adds.
const served = `status:
  observedGeneration: 2
  conditions:
  - {type: Accepted, status: "True", reason: Accepted, message: "", lastTransitionTime: "2026-03-01T00:00:00Z"}
`

// What the API server or the webhook would refuse is refused, and named: by the schema, by rules of CEL, by the
// webhook.
func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"as it is": good, "with a comment before it": "# Sold since 2026.\n---\n" + good,
		"as of the API server": good + served,
	} {
		if _, err := manifest.Plan(t.Context(), []byte(text)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for name, tc := range map[string]struct{ from, to, want string }{
		"not YAML":        {"kind:", "kind: [", "yaml"},
		"two documents":   {"kind:", "---\nkind:", "there is more than one document"},
		"twice":           {"kind: UsagePlan", "kind: UsagePlan\nkind: UsagePlan", `key "kind" already set`},
		"no kind":         {"kind: UsagePlan\n", "", "kind is missing"},
		"no version":      {"apiVersion:", "#", "apiVersion is missing"},
		"another kind":    {"kind: UsagePlan", "kind: UserQuota", `kind: "UserQuota" must be UsagePlan`},
		"another version": {"v1alpha1", "v1", `apiVersion: "usage.cantonesescribe.io/v1" must be`},
		"no name":         {"{name: gold}", "{}", "metadata.name: Required value"},
		"a wrong name":    {"name: gold", "name: Gold", `metadata.name: Invalid value: "Gold"`},
		"unknown field":   {"displayName", "displayNames", "spec.displayNames: is no field of a UsagePlan"},
		"schema":          {"credits: 500", "credits: -1", "spec.limits.credits: Invalid value: -1"},
		"type":            {"credits: 500", "credits: many", `spec.limits.credits: Invalid value: "string"`},
		"CEL, missing":    {"credits: 500, ", "", "spec.limits.credits: Required value"},
		"CEL, format":     {`"9.99"`, `"9,99"`, "spec.pricing.perPeriod: Invalid value"},
		"CEL, message":    {"fileSize: 500Mi", "fileSize: 2Ti", "limits.fileSize is 2Ti"},
		"webhook":         {"0 3 * * *", "0 3 31 2 *", `spec.reset.schedule: Invalid value: "0 3 31 2 *"`},
	} {
		_, err := manifest.Plan(t.Context(), []byte(strings.Replace(good, tc.from, tc.to, 1)))
		if _, is := errors.AsType[*manifest.Error](err); !is || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}
