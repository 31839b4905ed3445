// SPDX-License-Identifier: Apache-2.0

package convert_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// TestReasonsMeanOneThing compares the reasons of conditions with those of refusals and waits, which stand in
// quota.Reasons. A Job shows the latter where objects show the former, so no word may be in both, and both are written
// alike.
func TestReasonsMeanOneThing(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "../../api/v1alpha1/shared_types.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	conditions := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Reason") {
			return true
		}
		reason, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		if other, there := conditions[reason]; there {
			t.Errorf("%s and %s are both %q", spec.Names[0].Name, other, reason)
		}
		conditions[reason] = spec.Names[0].Name
		return true
	})
	if len(conditions) < 15 {
		t.Fatalf("only %d reasons of conditions were found", len(conditions))
	}
	words := map[string]bool{}
	for reason := range conditions {
		words[reason] = true
	}
	for _, info := range quota.Reasons {
		if name, there := conditions[string(info.Reason)]; there {
			t.Errorf("%q is a reason of refusals, and of conditions as %s", info.Reason, name)
		}
		words[string(info.Reason)] = true
	}
	for word := range words {
		if word == "" || word[0] < 'A' || word[0] > 'Z' || strings.ContainsAny(word, " -_.") {
			t.Errorf("%q is not written in CamelCase", word)
		}
	}
}
