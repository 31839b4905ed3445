// SPDX-License-Identifier: Apache-2.0

package quota_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Files that say again, each in its own language, how names are written and how large things may be.
const (
	contract    = "api/openapi/openapi.yaml"
	planCRD     = "config/crd/bases/usage.cantonesescribe.io_usageplans.yaml"
	quotaCRD    = "config/crd/bases/usage.cantonesescribe.io_userquotas.yaml"
	teamCRD     = "config/crd/bases/usage.cantonesescribe.io_usageteams.yaml"
	endpointCRD = "config/crd/bases/usage.cantonesescribe.io_notificationendpoints.yaml"
	jobPolicy   = "config/policy/jobs.yaml"
	recording   = "docs/recording.md"

	spec   = "spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/"
	schema = "components/schemas/"
)

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// member returns what stands at a path of a YAML file, in which ~1 is a slash of a name.
func member(t *testing.T, file, path string) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(readFile(t, file)), &v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	for part := range strings.SplitSeq(path, "/") {
		switch in := v.(type) {
		case map[string]any:
			v = in[strings.ReplaceAll(part, "~1", "/")]
		case []any:
			if i, err := strconv.Atoi(part); err == nil && i < len(in) {
				v = in[i]
			} else {
				v = nil
			}
		default:
			v = nil
		}
	}
	if v == nil {
		t.Errorf("%s has nothing at %s", file, path)
	}
	return v
}

func TestGrammarsInTheirPlaces(t *testing.T) {
	for _, tc := range []struct {
		grammar    *quota.Grammar
		name, file string
		// said is how the file says the pattern, and how often; path is where the greatest length stands, if anywhere.
		said  string
		times int
		path  string
	}{
		// Once for user ids and once for names of grants.
		{quota.UserIDs, "user id", contract, "pattern: '%s'", 2, schema + "UserID/maxLength"},
		{quota.GrantNames, "grant", contract, "pattern: '%s'", 2, schema + "GrantName/maxLength"},
		{quota.UserIDs, "user id", quotaCRD, "rule: self.matches('%s')", 1, spec + "userID/maxLength"},
		{quota.UserIDs, "user id", jobPolicy, "variables.user.matches('%s')", 1, ""},
		{quota.UserIDs, "user id", "config/policy/cronjobs.yaml", "variables.user.matches('%s')", 1, ""},
		{quota.UserIDs, "user id", "internal/postgres/migrations/00001_ledger.sql", "CHECK (user_id ~ '%s')", 1, ""},
		{quota.GrantNames, "grant", quotaCRD, "self.all(name, name.size() <= 63 && name.matches('%s'))", 1, ""},
		// Once for planRef and once for teamRef, in a team for parentRef and planRef.
		{quota.PlanNames, "plan", quotaCRD, "rule: self.matches('%s')", 2, spec + "planRef/properties/name/maxLength"},
		{quota.TeamNames, "team", quotaCRD, "rule: self.matches('%s')", 2, spec + "teamRef/properties/name/maxLength"},
		{quota.TeamNames, "team", teamCRD, "rule: self.matches('%s')", 2,
			spec + "parentRef/properties/name/maxLength"},
		{quota.PlanNames, "plan", teamCRD, "rule: self.matches('%s')", 2, spec + "planRef/properties/name/maxLength"},
		{quota.TeamNames, "team", teamCRD, "rule: self.metadata.name.size() <= 63%.0s", 1, ""},
		{quota.GrantNames, "grant", teamCRD, "self.all(name, name.size() <= 63 && name.matches('%s'))", 1, ""},
		// Of plans and of teams, which are written alike.
		{quota.PlanNames, "plan", endpointCRD, "self.all(n, n.matches('%s'))", 2, ""},
		{quota.UserIDs, "user id", endpointCRD, "self.all(n, n.matches('%s'))", 1, ""},
		{quota.TeamNames, "endpoint", "internal/postgres/migrations/00019_deliveries.sql",
			"CHECK (name ~ '%s')", 1, ""},
		{quota.Currencies, "currency", teamCRD, "rule: self.matches('%s')", 2,
			spec + "limits/properties/dailyCost/properties/currency/maxLength"},
		{quota.PlanNames, "plan", planCRD, "rule: self.metadata.name.size() <= 63%.0s", 1, ""},
		{
			quota.ClusterNames, "cluster", "internal/postgres/migrations/00011_clusters.sql",
			"CHECK (name ~ '%s')", 1, "",
		},
		{quota.UsageTypes, "usage type", planCRD, "rule: self.matches('%s')", 1,
			spec + "usageTypes/items/properties/name/maxLength"},
		{quota.UsageTypes, "usage type", contract, "%.0s", -1, schema + "UsageRecord/properties/usage_type/maxLength"},
		{quota.Currencies, "currency", planCRD, "rule: self.matches('%s')", 1,
			spec + "pricing/properties/currency/maxLength"},
		{quota.Currencies, "currency", "internal/postgres/migrations/00001_ledger.sql",
			"CHECK (currency ~ '%s')", 1, ""},
		{quota.Currencies, "currency", "internal/postgres/migrations/00005_resets.sql",
			"CHECK (currency ~ '%s')", 1, ""},
		{quota.MetadataKeys, "metadata key", recording, "(1 to 63 of `A-Za-z0-9._/-`)%.0s", 1, ""},
	} {
		pattern, most := tc.grammar.Pattern()
		said := fmt.Sprintf(tc.said, pattern)
		if got := strings.Count(readFile(t, tc.file), said); tc.times >= 0 && got != tc.times {
			t.Errorf("%s: %s stands %d times in %s, want %d", tc.name, said, got, tc.file, tc.times)
		}
		if tc.path == "" {
			continue
		}
		if got := member(t, tc.file, tc.path); got != float64(most) {
			t.Errorf("%s: %s of %s is %v, want %d", tc.name, tc.path, tc.file, got, most)
		}
	}
}

func TestBoundsInTheirPlaces(t *testing.T) {
	number := func(n any) float64 {
		f, err := strconv.ParseFloat(fmt.Sprint(n), 64)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, tc := range []struct {
		file, path string
		want       any
	}{
		{contract, schema + "AdmissionRequest/properties/file_size_bytes/maximum", quota.MaxFileSize},
		{contract, schema + "CheckRequest/properties/file_size_bytes/maximum", quota.MaxFileSize},
		{contract, schema + "UsageRecord/properties/file_size_bytes/maximum", quota.MaxFileSize},
		{contract, schema + "UsageRecord/properties/tokens/maximum", quota.MaxTokens},
		{contract, schema + "UsageRecord/properties/quantity/maximum", quota.MaxQuantity},
		{contract, schema + "UsageRecord/properties/key/maxLength", quota.MaxKey},
		{contract, schema + "UsageRecord/properties/metadata/maxProperties", quota.MaxMetadata},
		{contract, schema + "UsageRecord/properties/metadata/additionalProperties/maxLength", quota.MaxMetadataValue},
		{contract, schema + "AdmissionRequest/properties/priority/maximum", quota.MaxPriority},
		{contract, schema + "AdmissionRequest/properties/priority/minimum", -quota.MaxPriority},
		{contract, schema + "ReverseRequest/properties/reason/maxLength", quota.MaxReason},
		{contract, schema + "AdjustmentRequest/properties/reason/maxLength", quota.MaxReason},
		{contract, "components/parameters/IdempotencyKey/schema/maxLength", quota.MaxKey},
		{contract, "paths/~1api~1v1~1admissions/post/parameters/0/schema/maxLength", quota.MaxKey},
		{contract, "paths/~1api~1v1~1usage/post/parameters/0/schema/maxLength", quota.MaxKey},
		{planCRD, spec + "limits/properties/credits/maximum", quota.MaxPlanCredits},
		{planCRD, spec + "limits/properties/concurrent/maximum", quota.MaxSlots},
		{planCRD, spec + "limits/properties/queued/maximum", quota.MaxSlots},
		{planCRD, spec + "overage/properties/maxCredits/maximum", quota.MaxPlanCredits},
		{planCRD, spec + "carryOver/properties/maxCredits/maximum", quota.MaxPlanCredits},
		{planCRD, spec + "usageTypes/maxItems", quota.MaxUsageTypes},
		{quotaCRD, spec + "overrides/properties/credits/maximum", quota.MaxPlanCredits},
		{quotaCRD, spec + "overrides/properties/concurrent/maximum", quota.MaxSlots},
		{quotaCRD, spec + "overrides/properties/queued/maximum", quota.MaxSlots},
		{quotaCRD, spec + "grants/maxProperties", quota.MaxGrants},
		{teamCRD, spec + "weight/maximum", quota.MaxWeight},
		{teamCRD, spec + "limits/properties/credits/maximum", quota.MaxPlanCredits},
		{teamCRD, spec + "limits/properties/concurrent/maximum", quota.MaxSlots},
		{teamCRD, spec + "limits/properties/queued/maximum", quota.MaxSlots},
		{teamCRD, spec + "memberDefaults/properties/credits/maximum", quota.MaxPlanCredits},
		{teamCRD, spec + "memberDefaults/properties/concurrent/maximum", quota.MaxSlots},
		{teamCRD, spec + "memberDefaults/properties/queued/maximum", quota.MaxSlots},
		{teamCRD, spec + "grants/maxProperties", quota.MaxGrants},
		{teamCRD, spec + "grants/additionalProperties/properties/credits/maximum", quota.MaxPlanCredits},
		{quotaCRD, spec + "grants/additionalProperties/properties/credits/maximum", quota.MaxPlanCredits},
	} {
		if got := member(t, tc.file, tc.path); got == nil || number(got) != number(tc.want) {
			t.Errorf("%s of %s is %v, want %v", tc.path, tc.file, got, tc.want)
		}
	}
}

// What is no number of its own is said in words, or within an expression.
func TestBoundsInWords(t *testing.T) {
	audio := fmt.Sprintf("%d (%d h)", int(quota.MaxAudio.Seconds()), int(quota.MaxAudio.Hours()))
	credit := strings.TrimSuffix(quota.MaxRecordCredits.String(), ".0")
	longest := fmt.Sprintf("duration('%dh')", int(quota.MaxAudio.Hours()))
	largest := "quantity('" + strconv.FormatInt(quota.MaxFileSize>>40, 10) + "Ti')"
	key := fmt.Sprintf("1 to %d bytes of visible characters without spaces", quota.MaxKey)
	lease := fmt.Sprintf("%.0f to %.0f, %.0f unless given", quota.MinLease.Seconds(), quota.MaxLease.Seconds(),
		quota.DefaultLease.Seconds())
	age := fmt.Sprintf("at most %d days ago and %.0f minutes ahead", quota.MaxRecordAge/(24*time.Hour),
		quota.MaxRecordAhead.Minutes())
	final := fmt.Sprintf("duration(self) >= duration('%.0fh') && duration(self) <= duration('%.0fh')",
		quota.MinFinalAfter.Hours(), quota.MaxFinalAfter.Hours())
	wait := fmt.Sprintf("duration(self) >= duration('%.0fm') && duration(self) <= duration('%.0fh')",
		quota.MinMaxWait.Minutes(), quota.MaxMaxWait.Hours())
	for _, tc := range []struct {
		file, said string
		times      int
	}{
		{contract, audio, 3},
		{contract, lease, 1},
		{contract, age, 1},
		{contract, key, 4},
		{contract, "0 to " + credit, 1},
		{contract, "at most " + credit, 1},
		{contract, fmt.Sprintf("At most %d keys of 1 to 63 characters", quota.MaxMetadata), 1},
		{contract, fmt.Sprintf("values of at most %d bytes, %d KiB as JSON", quota.MaxMetadataValue,
			quota.MaxMetadataBytes>>10), 1},
		{contract, "0 to " + quota.MaxMoney.Sub(1).String(), 1},
		{planCRD, longest, 3}, // limits.audioDuration, maxWait and period.finalAfter
		{planCRD, final, 1},
		{planCRD, wait, 1},
		{planCRD, largest, 1},
		{planCRD, "double(self) <= " + quota.MaxRate.String() + ".0", 1},
		{quotaCRD, longest, 1},
		{quotaCRD, largest, 1},
		{jobPolicy, longest, 1},
		{jobPolicy, largest, 1},
		{jobPolicy, fmt.Sprintf("int(variables.priority) >= %d && int(variables.priority) <= %d", -quota.MaxPriority,
			quota.MaxPriority), 1},
		{recording, fmt.Sprintf("0 to %d;", int(quota.MaxAudio.Seconds())), 1},
		{recording, fmt.Sprintf("units, 1 to %d;", quota.MaxQuantity), 1},
		{recording, fmt.Sprintf("0 to %d each", quota.MaxFileSize), 1},
		{recording, fmt.Sprintf("%d bytes together", quota.MaxKey-1), 1},
		{recording, fmt.Sprintf("`reason` of 1 to %d", quota.MaxReason), 1},
		{"docs/http.md", key, 1},
		{"docs/usage-run.md", fmt.Sprintf("1 to %d bytes of visible characters without spaces",
			quota.MaxKey-len("#1000")), 1},
		{
			"internal/postgres/migrations/00005_resets.sql",
			fmt.Sprintf("final_after_seconds BETWEEN %.0f AND %.0f", quota.MinFinalAfter.Seconds(),
				quota.MaxFinalAfter.Seconds()), 1,
		},
		{
			"internal/postgres/migrations/00014_max_wait.sql",
			fmt.Sprintf("max_wait_seconds BETWEEN %.0f AND %.0f", quota.MinMaxWait.Seconds(),
				quota.MaxMaxWait.Seconds()), 1,
		},
		{
			"internal/postgres/migrations/00016_tree.sql", fmt.Sprintf("weight BETWEEN 1 AND %d", quota.MaxWeight),
			3, // of a team, of a plan's users and of whoever has a turn
		},
		{planCRD, fmt.Sprintf("maximum: %d minimum: 1", quota.MaxWeight), 2}, // weight and rateLimit.requests
	} {
		text := strings.Join(strings.Fields(readFile(t, tc.file)), " ")
		if got := strings.Count(text, tc.said); got != tc.times {
			t.Errorf("%q stands %d times in %s, want %d", tc.said, got, tc.file, tc.times)
		}
	}
}

// The contract names every reason, and the docs say what each one is to its callers.
func TestReasonsInTheirPlaces(t *testing.T) {
	var table strings.Builder
	table.WriteString(
		"| reason | title | status | the same request can succeed after | Job event |\n|---|---|---|---|---|\n")
	named := []any{}
	for _, r := range quota.Reasons {
		fmt.Fprintf(&table, "| `%s` | %s | %d | %s | %s |\n", r.Reason, r.Title, r.Status, r.Retry, r.Severity)
		named = append(named, string(r.Reason))
		if info := r.Reason.Info(); info != r || r.Title == "" || r.Retry == "" || r.Severity == "" || r.Status < 400 ||
			r.Status > 499 {
			t.Errorf("the row of %s is not complete, or another one is found before: %+v", r.Reason, info)
		}
		if (quota.Decision{Reason: r.Reason}).Message() == string(r.Reason) {
			t.Errorf("%s has no sentence for people", r.Reason)
		}
	}
	if got := member(t, contract, schema+"Reason/enum"); !slices.Equal(got.([]any), named) {
		t.Errorf("the contract has the reasons %v, want %v", got, named)
	}
	if docs := "docs/http.md"; !strings.Contains(readFile(t, docs), "\n\n"+table.String()+"\n") {
		t.Errorf("%s does not have this table:\n%s", docs, &table)
	}
}

// Whoever writes such a pattern means a grammar that should stand here.
func TestNoGrammarElsewhere(t *testing.T) {
	allowed := map[string]bool{
		"internal/quota/grammar.go":                  true,
		"api/v1alpha1/userquota_types.go":            true, // the CRDs' markers, compared above
		"api/v1alpha1/usageteam_types.go":            true,
		"api/v1alpha1/notificationendpoint_types.go": true,
	}
	for _, root := range []string{"api", "cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join("../..", root), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			name := filepath.ToSlash(strings.TrimPrefix(path, "../../"))
			if data, err := os.ReadFile(path); err != nil || allowed[name] {
				return err
			} else if strings.Contains(string(data), "A-Za-z0-9") {
				t.Errorf("%s has a grammar of its own: refer to quota's", name)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestKeys(t *testing.T) {
	long := strings.Repeat("k", quota.MaxKey)
	for key, want := range map[string]struct{ own, any bool }{
		"k": {true, true}, long: {true, true}, long + "k": {}, "": {}, "épisode-4": {true, true},
		"a/b?c=d#1": {true, true},
		"a b":       {false, true}, "/exporter 7 8": {false, true}, " 7": {}, "/exporter ": {}, "a\tb": {}, "a\x00": {},
		"/e \x01": {},
		"\xff":    {}, "a\u00a0b": {}, "/e \xff": {},
	} {
		if got := quota.CheckKey(key) == nil; got != want.own {
			t.Errorf("%q as a caller's key: got %t (%v), want %t", key, got, quota.CheckKey(key), want.own)
		}
		if got := quota.CheckAnyKey(key) == nil; got != want.any {
			t.Errorf("%q as any key: got %t (%v), want %t", key, got, quota.CheckAnyKey(key), want.any)
		}
	}
	if key, err := quota.EventKey("/exporter", "a b"); err != nil || key != "/exporter a b" {
		t.Errorf("got %q, %v", key, err)
	}
	for reason, want := range map[string]bool{
		"sent twice": true, strings.Repeat("語", quota.MaxReason): true,
		strings.Repeat("語", quota.MaxReason+1): false,
		"":                                     false, " \u3000": false, "a\nb": false, "\xff": false,
	} {
		if got := quota.CheckReason(reason) == nil; got != want {
			t.Errorf("reason %.20q: got %t, want %t", reason, got, want)
		}
	}
}
