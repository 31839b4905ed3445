// SPDX-License-Identifier: Apache-2.0

package console_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/console"
)

func served(t *testing.T, opts console.Options) http.Handler {
	t.Helper()
	routes, err := console.Handlers(opts)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for pattern, handler := range routes {
		mux.Handle(pattern, handler)
	}
	return mux
}

// got is an answer.
type got struct {
	code   int
	header http.Header
	body   string
}

func get(h http.Handler, path string, headers ...string) got {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return got{w.Code, w.Header(), w.Body.String()}
}

const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors "

func TestPagesAreServed(t *testing.T) {
	h := served(t, console.Options{Framers: []string{"https://app.example.com", "http://localhost:5173"}})
	const framed = policy + "https://app.example.com http://localhost:5173"
	for path, want := range map[string]struct{ kind, policy string }{
		"/console":                     {"text/html; charset=utf-8", policy + "'none'"},
		"/console/users/alice":         {"text/html; charset=utf-8", policy + "'none'"},
		"/usage":                       {"text/html; charset=utf-8", framed},
		"/usage/costs":                 {"text/html; charset=utf-8", framed},
		"/assets/console.js":           {"text/javascript; charset=utf-8", "default-src 'none'"},
		"/assets/console.css":          {"text/css; charset=utf-8", "default-src 'none'"},
		"/assets/usage.js":             {"text/javascript; charset=utf-8", "default-src 'none'"},
		"/assets/licenses.txt":         {"text/plain; charset=utf-8", "default-src 'none'"},
		"/widget.js":                   {"text/javascript; charset=utf-8", "default-src 'none'"},
		"/console?filter=%3Cscript%3E": {"text/html; charset=utf-8", policy + "'none'"},
	} {
		resp := get(h, path)
		if resp.code != http.StatusOK || resp.body == "" {
			t.Errorf("%s: got %d, %d bytes", path, resp.code, len(resp.body))
			continue
		}
		for name, value := range map[string]string{
			"Content-Type": want.kind, "Content-Security-Policy": want.policy, "X-Content-Type-Options": "nosniff",
			"Referrer-Policy": "no-referrer", "Cache-Control": "no-cache", "Vary": "Accept-Encoding",
		} {
			if got := resp.header.Get(name); got != value {
				t.Errorf("%s: %s: got %q, want %q", path, name, got, value)
			}
		}
		if got := resp.header.Get("Permissions-Policy"); !strings.Contains(got, "camera=(), ") {
			t.Errorf("%s: Permissions-Policy: got %q", path, got)
		}
		origin, apart := "", "same-origin"
		if path == "/widget.js" {
			origin, apart = "*", "cross-origin"
		}
		if got := resp.header.Get("Cross-Origin-Resource-Policy"); got != apart {
			t.Errorf("%s: Cross-Origin-Resource-Policy: got %q, want %q", path, got, apart)
		}
		if got := resp.header.Get("Access-Control-Allow-Origin"); got != origin {
			t.Errorf("%s: Access-Control-Allow-Origin: got %q, want %q", path, got, origin)
		}

		tag := resp.header.Get("ETag")
		if again := get(h, path, "If-None-Match", tag); again.code != http.StatusNotModified {
			t.Errorf("%s: asked again with %s: got %d", path, tag, again.code)
		}
		zipped := get(h, path, "Accept-Encoding", "br, gzip;q=0.8")
		unzipped, err := gzip.NewReader(strings.NewReader(zipped.body))
		if err != nil || zipped.header.Get("Content-Encoding") != "gzip" || zipped.header.Get("ETag") == tag {
			t.Errorf("%s: compressed: %v, %v", path, zipped.header, err)
			continue
		}
		if got, err := io.ReadAll(unzipped); err != nil || string(got) != resp.body {
			t.Errorf("%s: unpacked it is another: %d bytes, %v", path, len(got), err)
		}
		if refused := get(h, path, "Accept-Encoding", "gzip;q=0"); refused.header.Get("Content-Encoding") != "" {
			t.Errorf("%s: compressed for who does not take it", path)
		}
	}
	for _, path := range []string{"/assets/", "/assets/console.html", "/assets/../console.js", "/assets/nothing.js"} {
		if resp := get(h, path); resp.code == http.StatusOK {
			t.Errorf("%s: got %d", path, resp.code)
		}
	}
}

// The policy lets nothing run that stands in a page.
func TestPagesHaveNothingInline(t *testing.T) {
	h := served(t, console.Options{})
	inline := regexp.MustCompile(`(?i)<script[^>]*>[^<]|<style|\son[a-z]+=|\sstyle=|javascript:|https?://[^w]`)
	for _, path := range []string{"/console", "/usage"} {
		if found := inline.FindString(get(h, path).body); found != "" {
			t.Errorf("%s: has %q", path, found)
		}
	}
	if got := get(h, "/usage").header.Get("Content-Security-Policy"); got != policy+"'none'" {
		t.Errorf("without a list: %q", got)
	}
}

func TestFramersAreOrigins(t *testing.T) {
	for _, origin := range []string{"*", "https://*.example.com", "https://app.example.com/", "app.example.com",
		"https://a.example; script-src *", "https://a.example https://b.example", "data:", "'self'", ""} {
		if _, err := console.Handlers(console.Options{Framers: []string{origin}}); err == nil {
			t.Errorf("%q is taken", origin)
		}
	}
	err := console.CheckFramers(make([]string, 51))
	if err == nil || !strings.Contains(err.Error(), "the limit is 50") {
		t.Errorf("51 origins: %v", err)
	}
}

func TestNobodySignsInWhereThatIsNotSetUp(t *testing.T) {
	h := served(t, console.Options{})
	for _, path := range []string{"/auth/login", "/auth/callback", "/auth/session"} {
		resp := get(h, path)
		if resp.code != http.StatusNotFound || !strings.Contains(resp.body, "--sign-in-issuer") {
			t.Errorf("%s: got %d %s", path, resp.code, resp.body)
		}
	}
}
