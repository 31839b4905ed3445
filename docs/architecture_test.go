// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/cantonesescribe/usage-operator/internal/testing/doctable"
)

const (
	module = "github.com/cantonesescribe/usage-operator"
	page   = "architecture.md"
)

// rule is one of depguard's.
type rule struct {
	Mode  string   `json:"list-mode"` //nolint:tagliatelle // the linter's name
	Files []string `json:"files"`
	Allow []string `json:"allow"`
	Deny  []struct {
		Package string `json:"pkg"`
	} `json:"deny"`
}

// covers reports whether the rule is about what is in a folder and is no test.
func (r rule) covers(dir string) bool {
	within := func(pattern string) bool { return strings.HasPrefix("**/"+dir+"/", strings.TrimSuffix(pattern, "**")) }
	covered := false
	for _, pattern := range r.Files {
		switch excluded, not := strings.CutPrefix(pattern, "!"); {
		case not && within(excluded):
			return false
		case !not:
			covered = covered || within(pattern)
		}
	}
	return covered
}

// TestMap compares the map with the folders, and what it says of each with the rules that the linter has for it.
func TestMap(t *testing.T) {
	rules := linterRules(t)
	got := map[string][2]string{}
	for _, row := range doctable.Read(t, page, "package", "is responsible for", "may enter", "must not know") {
		got[strings.Trim(row.Cells["package"], "`")] = [2]string{row.Cells["may enter"], row.Cells["must not know"]}
		if row.Cells["is responsible for"] == "" {
			t.Errorf("%s:%d: the package is responsible for nothing", page, row.Line)
		}
	}
	want := map[string][2]string{}
	for dir := range packages(t) {
		enter, unknown := doors(rules, dir)
		want[dir] = [2]string{enter, unknown}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("folders and rules (-) differ from the map (+):\n%s", diff)
	}
}

// TestEveryRoomHasItsRule keeps a new package from being open to all: only programs and test helpers may enter what
// they like.
func TestEveryRoomHasItsRule(t *testing.T) {
	rules := linterRules(t)
	for dir := range packages(t) {
		if strings.HasPrefix(dir, "cmd/") || strings.HasPrefix(dir, "internal/testing/") {
			continue
		}
		if enter, _ := doors(rules, dir); enter == anything {
			t.Errorf("no rule of depguard in .golangci.yml says what %s may import", dir)
		}
	}
}

// named is the name of a function or method in a walk.
var named = regexp.MustCompile("`([a-z0-9-]+\\.[A-Za-z.]+)`")

// TestWalks looks for every function that a walk names.
func TestWalks(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, walks, _ := strings.Cut(string(text), "\n## Walks\n")
	walks, _, _ = strings.Cut(walks, "\n## ")
	declared := map[string]bool{}
	for dir, files := range packages(t) {
		for _, name := range files {
			declare(t, declared, path.Base(dir), name)
		}
	}
	each := strings.Split(walks, "\n### ")[1:]
	if len(each) != 5 {
		t.Errorf("%d walks, want an admit, a Job, a plan, a reset and a rollup", len(each))
	}
	for _, walk := range each {
		title, _, _ := strings.Cut(walk, "\n")
		names := named.FindAllStringSubmatch(walk, -1)
		if len(names) < 5 {
			t.Errorf("%s: names %d functions", title, len(names))
		}
		for _, m := range names {
			if !declared[m[1]] {
				t.Errorf("%s: there is no %s", title, m[1])
			}
		}
	}
}

// TestWords keeps the glossary in order, and to one meaning a word.
func TestWords(t *testing.T) {
	var words []string
	for _, row := range doctable.Read(t, page, "word", "meaning") {
		words = append(words, row.Cells["word"])
	}
	if want := slices.Compact(slices.Sorted(slices.Values(words))); !slices.Equal(words, want) {
		t.Errorf("the words are not in order, or one is there twice: %v", cmp.Diff(want, words))
	}
}

func linterRules(t *testing.T) map[string]rule {
	t.Helper()
	text, err := os.ReadFile("../.golangci.yml")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Linters struct {
			Settings struct {
				Depguard struct {
					Rules map[string]rule `json:"rules"`
				} `json:"depguard"`
			} `json:"settings"`
		} `json:"linters"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	rules := config.Linters.Settings.Depguard.Rules
	if len(rules) == 0 {
		t.Fatal(".golangci.yml has no rules of depguard")
	}
	return rules
}

const (
	anything = "anything of ours"
	helpers  = module + "/internal/testing"
)

// outside are the names on the map of what is not ours.
var outside = map[string]string{
	"k8s.io": "Kubernetes", "sigs.k8s.io": "Kubernetes", "github.com/jackc": "SQL", helpers: "`internal/testing`",
}

// doors returns the cells of a package by the rules that cover it.
func doors(rules map[string]rule, dir string) (enter, unknown string) {
	closed := false
	ours, without, only := map[string]bool{}, map[string]bool{}, []string{}
	for _, r := range rules {
		if !r.covers(dir) {
			continue
		}
		strict := r.Mode == "strict"
		closed = closed || strict
		for _, d := range r.Deny {
			if d.Package == module {
				closed = true
			} else {
				without[outside[d.Package]] = true
			}
		}
		if strict {
			only = append(only, "anything but the standard library")
		}
		for _, a := range slices.Sorted(slices.Values(r.Allow)) {
			switch short, inside := strings.CutPrefix(a, module+"/"); {
			case inside && !slices.Contains(r.Files, "**/"+short+"/**"): // not itself
				ours["`"+short+"`"] = true
			case !inside && a != "$gostd":
				only = append(only, "`"+a+"`")
			}
		}
	}
	enter = strings.Join(slices.Sorted(maps.Keys(ours)), ", ")
	switch {
	case !closed:
		enter = anything
	case enter == "":
		enter = "nothing of ours"
	}
	if closed {
		delete(without, outside[helpers]) // it is ours
	}
	unknown = strings.Join(append(only, slices.Sorted(maps.Keys(without))...), ", ")
	if unknown == "" {
		unknown = "nothing"
	}
	return enter, unknown
}

// packages returns the Go files, tests left out, of each package below api, cmd and internal.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, root := range []string{"api", "cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join("..", root), func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
				dir := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(name), ".."+string(filepath.Separator)))
				found[dir] = append(found[dir], name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// declare adds the functions and methods of a file, as package.Name and package.Type.Method.
func declare(t *testing.T, declared map[string]bool, pkg, file string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range parsed.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			declared[pkg+"."+receiver(f)+f.Name.Name] = true
		}
	}
}

// receiver returns the type that a method belongs to, with a dot.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	typ := f.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if generic, ok := typ.(*ast.IndexExpr); ok {
		typ = generic.X
	}
	if name, ok := typ.(*ast.Ident); ok {
		return name.Name + "."
	}
	return ""
}
