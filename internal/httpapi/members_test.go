// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestDuplicateMembers(t *testing.T) {
	many := func(last string) string {
		var b strings.Builder
		for i := range 40 {
			fmt.Fprintf(&b, `"Member%d":[{"x":%d},"x"],`, i, i)
		}
		return "{" + b.String() + last + "}"
	}
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	long := strings.Repeat("x", 99)
	for body, want := range map[string]string{
		`{"user_id":"alice","user_id":"bob"}`:      `at byte 20: the member "user_id" is there twice`,
		`{"user_id":"alice","User_ID":"bob"}`:      `"User_ID" is there twice`,
		`{"user_id":"alice","user_\u0069d":"bob"}`: `"user_id" is there twice`,
		`{"a\"b":1,"a\u0022b":2}`:                  `"a\"b" is there twice`,
		`[{"a":1},{"b":{"c":{},"d":[],"c":null}}]`: `"c" is there twice`,
		`{"a":{"metadata":{"k":"1","k":"2"}}}`:     `"k" is there twice`,
		`{"":1,"":2}`:                              `"" is there twice`,
		"{\"k\":1,\"\u212a\":2}":                   "\"\u212a\" is there twice",
		many(`"member17":1`):                       `"member17" is there twice`,
		nested(33):                                 "at byte 33: nested deeper than the limit of 32",
		`{"` + long + `":1,"` + long + `":1}`:      `"` + long[:64] + `" is`,

		`{"a":{"a":{"a":["a","a",{"a":"a"}]}},"b":"a\"a"}`: "",
		`[{"a":1},{"a":1}]`:                    "",
		`{"metadata":{"K":"1","k":"2"},"k":3}`: "",
		`{"metadata":"x","inner":{"k":1}}`:     "",
		many(`"member40":1`):                   "",
		nested(32):                             "",
		`"a"`:                                  "", `1`: "", `{}`: "", `{"\\":1,"\\\\":2}`: "",
	} {
		if !json.Valid([]byte(body)) {
			t.Fatalf("%s is no JSON", body)
		}
		err := checkMembers([]byte(body))
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%.120s: got %v, want %q", body, err, want)
		}
	}
}

// Every call with a body refuses a member that is there twice.
func TestDuplicateMembersOverHTTP(t *testing.T) {
	h := handler(t, &fake{})
	for i := range operations {
		op := &operations[i]
		if len(op.media) == 0 {
			continue
		}
		method, path, _ := strings.Cut(op.pattern, " ")
		path = strings.ReplaceAll(path, "{id}", admID.String())
		if op.subject == querysUser {
			path += "?user_id=alice"
		}
		resp := do(h, request{method: method, path: path,
			body: `{"user_id":"alice","file_size_bytes":1,"user_id":"alice"}`})
		if resp.Code != http.StatusBadRequest || !strings.Contains(resp.Body.String(), `\"user_id\" is there twice`) {
			t.Errorf("%s: got %d: %s", op.pattern, resp.Code, resp.Body)
		}
	}
}

// What the decoder reads does not depend on which of two members it takes, because there are no two.
func FuzzDuplicateMembers(f *testing.F) {
	for _, seed := range []string{
		goodBody, `{"a":1,"a":2}`, `{"a":{"b":[{"c":"\""}]}}`, `{"\u0061":1,"a":2}`, `[[{}]]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !json.Valid(data) {
			return
		}
		if strings.Contains(string(data), freeNames) {
			return // whose names may differ by case
		}
		if got, want := checkMembers(data) != nil, hasDuplicate(t, data); got != want {
			t.Errorf("%q: refused %t, want %t", data, got, want)
		}
	})
}

// hasDuplicate says the same by the tokens of the standard library.
func hasDuplicate(t *testing.T, data []byte) bool {
	t.Helper()
	type level struct {
		object, value bool
		names         []string
	}
	var stack []*level
	d := json.NewDecoder(bytes.NewReader(data))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return false
		}
		if err != nil {
			return false
		}
		var top *level
		if len(stack) > 0 {
			top = stack[len(stack)-1]
		}
		if delim, ok := token.(json.Delim); ok {
			switch delim {
			case '{', '[':
				if top != nil {
					top.value = false
				}
				if len(stack) == maxDepth {
					return true
				}
				stack = append(stack, &level{object: delim == '{'})
			default:
				stack = stack[:len(stack)-1]
			}
			continue
		}
		if top == nil || !top.object {
			continue
		}
		if top.value {
			top.value = false
			continue
		}
		name := token.(string)
		for _, other := range top.names {
			if strings.EqualFold(other, name) {
				return true
			}
		}
		top.names, top.value = append(top.names, name), true
	}
}

func BenchmarkMembers(b *testing.B) {
	data := []byte(goodBody)
	b.Run("valid", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !json.Valid(data) {
				b.Fatal("no JSON")
			}
		}
	})
	b.Run("members", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := checkMembers(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
