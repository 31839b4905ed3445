// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// ruleGroups is as much of a rule file as ours have.
type ruleGroups struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []struct {
			Alert       string            `json:"alert"`
			Expr        string            `json:"expr"`
			For         string            `json:"for"`
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"rules"`
	} `json:"groups"`
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// The rules are given twice, for the Prometheus operator and for Prometheus itself, and are about metrics that there
// are.
func TestAlertRules(t *testing.T) {
	plain, err := filepath.Glob("prometheus/plain/*.yaml")
	if err != nil || len(plain) == 0 {
		t.Fatal("no rule files: ", err)
	}
	code := source(t)
	for _, path := range plain {
		var rules ruleGroups
		readYAML(t, path, &rules)
		var operator struct {
			APIVersion string         `json:"apiVersion"`
			Kind       string         `json:"kind"`
			Metadata   map[string]any `json:"metadata"`
			Spec       ruleGroups     `json:"spec"`
		}
		readYAML(t, filepath.Join("prometheus", filepath.Base(path)), &operator)
		if diff := cmp.Diff(rules, operator.Spec); diff != "" || operator.Kind != "PrometheusRule" ||
			operator.APIVersion != "monitoring.coreos.com/v1" {
			t.Errorf("%s differs from the %s %s (-plain +operator):\n%s", path, operator.APIVersion,
				operator.Kind, diff)
		}
		for _, group := range rules.Groups {
			if group.Name == "" || len(group.Rules) == 0 {
				t.Errorf("%s: group %q is empty", path, group.Name)
			}
			for _, rule := range group.Rules {
				if _, err := time.ParseDuration(rule.For); err != nil {
					t.Errorf("%s: for: %v", rule.Alert, err)
				}
				if rule.Alert == "" || rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" ||
					rule.Annotations["description"] == "" {
					t.Errorf("%s: %q needs a name, a severity, a summary and a description", path, rule.Alert)
				}
				names := regexp.MustCompile(`\busaged?_[a-z_]+`).FindAllString(rule.Expr, -1)
				if len(names) == 0 || strings.Count(rule.Expr, "(") != strings.Count(rule.Expr, ")") {
					t.Errorf("%s: %q is no expression about our metrics", rule.Alert, rule.Expr)
				}
				for _, name := range names {
					if !strings.Contains(code, `"`+name+`"`) {
						t.Errorf("%s: there is no metric %s", rule.Alert, name)
					}
				}
			}
		}
	}
}

// source is the text of the programs, in which every metric has its name as a string.
func source(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir("../internal", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
