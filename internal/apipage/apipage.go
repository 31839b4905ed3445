// SPDX-License-Identifier: Apache-2.0

// Package apipage shows the HTTP contract: as JSON for programs, and as a page for people that needs nothing but its
// own style sheet.
package apipage

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cantonesescribe/usage-operator/api/openapi"
)

var (
	//go:embed page.html
	pageText string
	//go:embed page.css
	style string
)

// policy lets the page load its style sheet, and nothing else from anywhere.
const policy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handlers returns what is served, by route.
func Handlers() (map[string]http.Handler, error) { return rendered() }

// QueryParameters are the names of those that each operation takes, by its operationId.
func QueryParameters() (map[string][]string, error) {
	root, err := document()
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, group := range contractOf(root).Groups {
		for _, op := range group.Operations {
			for _, p := range op.Parameters {
				if p.In == "query" {
					out[op.ID] = append(out[op.ID], p.Name)
				}
			}
		}
	}
	return out, nil
}

// document is the contract, read once: it takes tens of milliseconds, and tests make hundreds of services.
var document = sync.OnceValues(func() (*node, error) {
	root, err := parse(openapi.Document())
	if err != nil {
		return nil, fmt.Errorf("the API document: %w", err)
	}
	return root, nil
})

// rendered are the handlers, made once.
var rendered = sync.OnceValues(func() (map[string]http.Handler, error) {
	root, err := document()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(root)
	if err != nil {
		return nil, fmt.Errorf("the API document: %w", err)
	}
	page, err := template.New("page").Funcs(template.FuncMap{"prose": prose, "line": line}).Parse(pageText)
	if err != nil {
		return nil, fmt.Errorf("the API page: %w", err)
	}
	var b bytes.Buffer
	if err := page.Execute(&b, contractOf(root)); err != nil {
		return nil, fmt.Errorf("the API page: %w", err)
	}
	return map[string]http.Handler{
		"GET /openapi.json":  served("application/json", text),
		"GET /docs":          served("text/html; charset=utf-8", b.Bytes()),
		"GET /docs/page.css": served("text/css; charset=utf-8", []byte(style)),
	}, nil
})

// served answers with what does not change while the process lives.
func served(contentType string, content []byte) http.Handler {
	hash := sha256.Sum256(content)
	tag := `"` + base64.RawURLEncoding.EncodeToString(hash[:18]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{
			"Content-Type": contentType, "Etag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": policy,
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		} {
			w.Header().Set(name, value)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
}

// contract is the document as the page shows it.
type contract struct {
	Title, Version, Summary, Description string
	Groups                               []group
	Schemas                              []schema
	Credentials                          []field
}

// group is a tag with its operations.
type group struct {
	Name, Description string
	Operations        []operation
}

type operation struct {
	ID, Method, Path, Summary, Description string
	Credentials                            []string
	Parameters                             []field
	Bodies                                 []body
	Answers                                []answer
}

// field is a parameter or a member.
type field struct {
	Name, In, Description string
	Required              bool
	Type                  kind
}

type body struct {
	Media string
	Type  kind
}

type answer struct {
	Status, Description string
	Headers             []string
	Bodies              []body
}

type schema struct {
	Name, Description string
	Type              kind
	Members           []field
}

// kind is what a value is: in words, with the schema that it is of, and its bounds.
type kind struct{ Words, Schema, Bounds string }

var methods = []string{"get", "put", "post", "delete", "patch", "head", "options"}

func contractOf(root *node) contract {
	info := root.at("info")
	c := contract{Title: info.at("title").string(), Version: info.at("version").string(),
		Summary: info.at("summary").string(), Description: info.at("description").string()}
	groups := map[string]int{}
	for i, tag := range root.at("tags").list() {
		name := tag.at("name").string()
		groups[name] = i
		c.Groups = append(c.Groups, group{Name: name, Description: tag.at("description").string()})
	}
	paths := root.at("paths")
	for _, path := range paths.names() {
		item := paths.at(path)
		for _, method := range item.names() {
			if !slices.Contains(methods, method) {
				continue
			}
			op := item.at(method)
			o := operationOf(root, item, op)
			o.Method, o.Path = strings.ToUpper(method), path
			tag := "Other"
			if tags := op.at("tags").list(); len(tags) > 0 {
				tag = tags[0].string()
			}
			i, known := groups[tag]
			if !known {
				i = len(c.Groups)
				groups[tag] = i
				c.Groups = append(c.Groups, group{Name: tag})
			}
			c.Groups[i].Operations = append(c.Groups[i].Operations, o)
		}
	}
	schemas := root.at("components", "schemas")
	for _, name := range schemas.names() {
		c.Schemas = append(c.Schemas, schemaOf(name, schemas.at(name)))
	}
	credentials := root.at("components", "securitySchemes")
	for _, name := range credentials.names() {
		c.Credentials = append(c.Credentials, field{Name: name, Description: credentials.at(name,
			"description").string()})
	}
	return c
}

func operationOf(root, item, op *node) operation {
	o := operation{ID: op.at("operationId").string(), Summary: op.at("summary").string(),
		Description: op.at("description").string()}
	security := op.at("security")
	if security == nil {
		security = root.at("security")
	}
	for _, one := range security.list() {
		o.Credentials = append(o.Credentials, strings.Join(one.names(), " and "))
	}
	for _, p := range append(slices.Clone(item.at("parameters").list()), op.at("parameters").list()...) {
		p = p.at()
		o.Parameters = append(o.Parameters, field{Name: p.at("name").string(), In: p.at("in").string(),
			Description: cmp.Or(p.at("description").string(), p.at("schema", "description").string()),
			Required:    p.at("required").string() == "true", Type: kindOf(p.members["schema"])})
	}
	o.Bodies = bodiesOf(op.at("requestBody"))
	responses := op.at("responses")
	for _, status := range responses.names() {
		r := responses.at(status)
		o.Answers = append(o.Answers, answer{Status: status, Description: r.at("description").string(),
			Headers: r.at("headers").names(), Bodies: bodiesOf(r)})
	}
	return o
}

func bodiesOf(n *node) []body {
	content := n.at("content")
	var out []body
	for _, media := range content.names() {
		out = append(out, body{Media: media, Type: kindOf(content.at(media).members["schema"])})
	}
	return out
}

func schemaOf(name string, n *node) schema {
	s := schema{Name: name, Description: n.at("description").string(), Type: kindOf(n)}
	var required []string
	for _, r := range n.at("required").list() {
		required = append(required, r.string())
	}
	members := n.at("properties")
	for _, name := range members.names() {
		raw := members.members[name]
		s.Members = append(s.Members, field{Name: name, Required: slices.Contains(required, name), Type: kindOf(raw),
			Description: describe(raw)})
	}
	return s
}

// describe returns what is said beside a reference, else what it refers to says of itself in a line.
func describe(n *node) string {
	if own := n.members["description"]; own != nil {
		return own.text
	}
	return n.at("description").string()
}

// bounds are the keywords that a value must keep to, and how they are said.
var bounds = []struct{ keyword, words string }{
	{"const", "always %s"}, {"default", "default %s"}, {"minimum", "at least %s"}, {"maximum", "at most %s"},
	{"minLength", "at least %s characters"}, {"maxLength", "at most %s characters"}, {"minItems", "at least %s items"},
	{"maxItems", "at most %s items"}, {"maxProperties", "at most %s members"}, {"pattern", "matches %s"},
}

func kindOf(n *node) kind {
	if n == nil {
		return kind{Words: "anything"}
	}
	if name := n.reference(); name != "" {
		return kind{Schema: name}
	}
	var said []string
	for _, b := range bounds {
		if v := n.at(b.keyword); v != nil {
			said = append(said, fmt.Sprintf(b.words, v.string()))
		}
	}
	k := kind{Words: cmp.Or(n.at("type").string(), "value"), Bounds: strings.Join(said, ", ")}
	for _, choice := range []string{"oneOf", "anyOf", "allOf"} {
		var names []string
		for _, one := range n.at(choice).list() {
			names = append(names, cmp.Or(one.reference(), kindOf(one).Words))
		}
		if len(names) > 0 {
			k.Words = strings.Join(names, " or ")
		}
	}
	if format := n.at("format").string(); format != "" {
		k.Words += " (" + format + ")"
	}
	if values := n.at("enum").list(); len(values) > 0 {
		var words []string
		for _, v := range values {
			words = append(words, v.string())
		}
		k.Words = "one of " + strings.Join(words, ", ")
	}
	if items := n.at("items"); items != nil {
		of := kindOf(n.members["items"])
		k.Words, k.Schema = "array of "+of.Words, of.Schema
	}
	return k
}

// prose makes paragraphs of a text, and code of what is between backticks.
func prose(text string) template.HTML {
	var b strings.Builder
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if paragraph = strings.TrimSpace(paragraph); paragraph != "" {
			b.WriteString("<p>" + string(line(paragraph)) + "</p>")
		}
	}
	return template.HTML(b.String()) //nolint:gosec // escaped by line
}

// line is prose without paragraphs.
func line(text string) template.HTML {
	var b strings.Builder
	for i, part := range strings.Split(text, "`") {
		if i%2 == 1 {
			b.WriteString("<code>" + html.EscapeString(part) + "</code>")
			continue
		}
		b.WriteString(html.EscapeString(part))
	}
	return template.HTML(b.String()) //nolint:gosec // every part is escaped
}
