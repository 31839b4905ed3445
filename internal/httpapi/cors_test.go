// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
)

const page = "https://app.example.com"

func fromBrowsers(t *testing.T, origins ...string) http.Handler {
	t.Helper()
	browsers, err := NewBrowsers(origins)
	if err != nil {
		t.Fatal(err)
	}
	options := (&fake{usage: ledger.Usage{Account: alice(), Now: noon}}).options(t.Context(), testAuth())
	options.Browsers = browsers
	return New(options)
}

func TestPagesOfListedOriginsMayCall(t *testing.T) {
	t.Parallel()
	h := fromBrowsers(t, page, "http://localhost:5173")
	preflight := request{method: "OPTIONS", path: "/api/v1/usage/check", token: "-", headers: map[string]string{
		"Origin": page, "Access-Control-Request-Method": "POST",
		"Access-Control-Request-Headers": "authorization,content-type",
	}}
	w := do(h, preflight)
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": page, "Access-Control-Allow-Methods": "POST",
		"Access-Control-Allow-Headers": "authorization,content-type", "Access-Control-Max-Age": "600",
		"Access-Control-Allow-Credentials": "",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("before a call, without a token: %s is %q, want %q", name, got, want)
		}
	}
	if w.Code != 204 || !strings.Contains(w.Header().Get("Vary"), "Origin") {
		t.Errorf("before a call: got %d %v", w.Code, w.Header())
	}

	for name, tc := range map[string]struct {
		token string
		code  int
	}{"allowed": {"Bearer reader", 200}, "nobody": {"-", 401}, "without the right": {"Bearer nobody", 403}} {
		w := do(h, request{method: "GET", path: "/api/v1/usage/current?user_id=alice", token: tc.token,
			headers: map[string]string{"Origin": "http://localhost:5173"}})
		shown := w.Header().Get("Access-Control-Expose-Headers")
		if w.Code != tc.code || w.Header().Get("Access-Control-Allow-Origin") != "http://localhost:5173" ||
			!strings.Contains(w.Header().Get("Vary"), "Origin") ||
			w.Header().Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: got %d %v", name, w.Code, w.Header())
		}
		for _, header := range []string{"Ratelimit", "Ratelimit-Policy", "Retry-After", "Etag"} {
			if !strings.Contains(shown, header) {
				t.Errorf("%s: pages cannot read %s, only %s", name, header, shown)
			}
		}
	}
}

func TestPagesOfOtherOriginsMayNot(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.Handler{
		"others are listed": fromBrowsers(t, page), "none is": fromBrowsers(t),
	} {
		for _, origin := range []string{"https://evil.example", "https://app.example.com.evil.example",
			"http://app.example.com", "https://app.example.com:8443", "null", "https://sub.app.example.com"} {
			for _, q := range []request{
				{method: "OPTIONS", path: "/api/v1/usage/check", token: "-", headers: map[string]string{
					"Origin": origin, "Access-Control-Request-Method": "POST",
				}},
				{method: "GET", path: "/api/v1/usage/current?user_id=alice", token: "Bearer reader",
					headers: map[string]string{"Origin": origin}},
			} {
				if w := do(h, q); w.Header().Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s: %s by %s may see the answer", name, q.method, origin)
				}
			}
		}
	}
}

func TestOriginsThatAreNone(t *testing.T) {
	t.Parallel()
	for origin, want := range map[string]string{
		"*":                         `origin "*": a wildcard lets in pages that nobody has listed`,
		"https://*.example.com":     "a wildcard",
		"app.example.com":           "must be scheme://host",
		"https://app.example.com/":  "nothing behind",
		"https://app.example.com?x": "nothing behind",
		"https://me@example.com":    "nothing behind",
		"https://App.example.com":   `in lower case, as "https://app.example.com"`,
		"https://example.com:443":   `leave the scheme's own port out, as "https://example.com"`,
		"https://example.com:":      "missing",
		"https://":                  "must be scheme://host",
		"ftp://example.com":         "with http or https",
		"null":                      "must be scheme://host",
		"":                          "must be scheme://host",
		"https://exa mple.com":      "invalid character",
	} {
		if _, err := NewBrowsers([]string{page, origin}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", origin, err, want)
		}
	}
	if _, err := NewBrowsers(make([]string, maxOrigins+1)); err == nil ||
		!strings.Contains(err.Error(), "101 origins are given, the limit is 100") {
		t.Errorf("too many: %v", err)
	}
}

// Whatever is listed, only what is listed may see an answer.
func FuzzOrigins(f *testing.F) {
	f.Add(page, page)
	f.Add(page, "https://app.example.com.evil.example")
	f.Add("https://[::1]:8080", "https://[::1]")
	f.Add("*", "null")
	f.Fuzz(func(t *testing.T, listed, origin string) {
		browsers, err := NewBrowsers([]string{listed})
		if err != nil {
			return
		}
		if u, err := url.Parse(listed); err != nil || u.Scheme+"://"+u.Host != listed {
			t.Fatalf("%q is taken for an origin", listed)
		}
		h := browsers.before(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNoContent)
		}))
		for _, method := range []string{"GET", "OPTIONS"} {
			q := request{method: method, path: "/", headers: map[string]string{"Origin": origin}}
			if method == "OPTIONS" {
				q.headers["Access-Control-Request-Method"] = "POST"
			}
			if got := do(h, q).Header().Get("Access-Control-Allow-Origin"); got != "" &&
				!strings.EqualFold(got, listed) || got != "" && got != origin {
				t.Errorf("%q is listed, and %q may see the answer", listed, origin)
			}
		}
	})
}
