// SPDX-License-Identifier: Apache-2.0

package apipage

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/cantonesescribe/usage-operator/api/openapi"
)

func get(t *testing.T, route, tag string) *httptest.ResponseRecorder {
	t.Helper()
	handlers, err := Handlers()
	if err != nil {
		t.Fatal(err)
	}
	method, path, _ := strings.Cut(route, " ")
	r := httptest.NewRequest(method, path, http.NoBody)
	r.Header.Set("If-None-Match", tag)
	w := httptest.NewRecorder()
	handlers[route].ServeHTTP(w, r)
	return w
}

// What is served for programs is what is written, in its order.
func TestDocument(t *testing.T) {
	w := get(t, "GET /openapi.json", "")
	var got, want any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(openapi.Document()), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the document is another one (-want +got):\n%s", diff)
	}
	text := w.Body.String()
	if strings.Index(text, `"openapi"`) > strings.Index(text, `"info"`) ||
		strings.Index(text, `"paths"`) > strings.Index(text, `"components"`) {
		t.Error("the document is in another order")
	}
	again := get(t, "GET /openapi.json", w.Header().Get("ETag"))
	if again.Code != http.StatusNotModified || again.Body.Len() > 0 {
		t.Errorf("the same again: got %d with %d bytes", again.Code, again.Body.Len())
	}
}

// The page has every operation, parameter and schema, what it links to is there, and it asks nobody else for anything.
func TestPage(t *testing.T) {
	w := get(t, "GET /docs", "")
	page := w.Body.String()
	root, err := parse(openapi.Document())
	if err != nil {
		t.Fatal(err)
	}
	has := func(text string) {
		t.Helper()
		if !strings.Contains(page, text) {
			t.Errorf("the page does not have %s", text)
		}
	}
	operations := 0
	for _, path := range root.at("paths").names() {
		has("<code>" + path + "</code>")
		for _, method := range root.at("paths", path).names() {
			if op := root.at("paths", path, method); op.at("operationId") != nil {
				operations++
				has(`<article id="` + op.at("operationId").string() + `">`)
			}
		}
	}
	for _, name := range root.at("components", "schemas").names() {
		has(`<article id="schema-` + name + `">`)
		for _, member := range root.at("components", "schemas", name, "properties").names() {
			has("<code>" + member + "</code>")
		}
	}
	if operations < 25 {
		t.Errorf("only %d operations", operations)
	}
	for _, link := range regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		switch target, local := strings.CutPrefix(link[1], "#"); {
		case local && !strings.Contains(page, ` id="`+target+`"`):
			t.Errorf("nothing has the id %q", target)
		case !local && link[1] != "/docs/page.css" && link[1] != "/openapi.json":
			t.Errorf("the page leads to %s", link[1])
		}
	}
	if strings.Contains(page, "<script") || strings.Contains(page, "style=") || strings.Contains(style, "url(") ||
		strings.Contains(style, "@import") {
		t.Error("the page needs what its policy forbids")
	}
	if got := w.Header().Get("Content-Security-Policy"); got != policy {
		t.Errorf("policy: got %q", got)
	}
	if got := get(t, "GET /docs/page.css", ""); got.Code != http.StatusOK || got.Body.String() != style ||
		got.Header().Get("Content-Type") != "text/css; charset=utf-8" {
		t.Errorf("the style sheet: got %d, %v", got.Code, got.Header())
	}
}

func TestProse(t *testing.T) {
	got := prose("Less < `a<b>` & more.\n\nSecond `\"x\"`.")
	want := "<p>Less &lt; <code>a&lt;b&gt;</code> &amp; more.</p><p>Second <code>&#34;x&#34;</code>.</p>"
	if string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
