// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
)

const admissionJSON = `{"id":"0198c5f0-0000-8000-8000-000000000001","user_id":"alice","state":"Admitted",
    "estimated_credits":2.75}`

// get reads an admission of the server.
func get(t *testing.T, c *ClientWithResponses, auth RequestEditorFn) (*Admission, error) {
	t.Helper()
	r, err := c.GetAdmissionWithResponse(t.Context(), uuid.New(), nil, auth)
	if err != nil {
		return nil, err
	}
	return Answered(r, nil, r.JSON200)
}

func TestConnectFollowsTheBundle(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Connection", "close")
		_, _ = io.WriteString(w, admissionJSON)
	}))
	defer server.Close()
	bundle := filepath.Join(t.TempDir(), "ca.crt")
	right := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(bundle, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("nothing yet"))
	if _, err := Connect(server.URL, bundle); err == nil || !strings.Contains(err.Error(), "no certificate is in it") {
		t.Errorf("a bundle without certificates: got %v", err)
	}
	write(right)
	c, err := Connect(server.URL, bundle)
	if err != nil {
		t.Fatal(err)
	}
	if adm, err := get(t, c, Lease("l")); err != nil || adm.EstimatedCredits != "2.75" {
		t.Errorf("got %+v, %v", adm, err)
	}
	write([]byte("being replaced"))
	if _, err := get(t, c, Lease("l")); err == nil {
		t.Error("the bundle that is gone is still trusted")
	}
	write(right)
	if _, err := get(t, c, Lease("l")); err != nil {
		t.Errorf("the bundle is back: %v", err)
	}
	trustsNobody, err := Connect(server.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, trustsNobody, Lease("l")); err == nil {
		t.Error("a certificate that the system does not know was accepted")
	}
}

func TestConnectRefuses(t *testing.T) {
	for _, server := range []string{"", "usaged", "ftp://usaged", "http://", "http://a b"} {
		if _, err := Connect(server, ""); err == nil || !strings.Contains(err.Error(), "must be a URL") {
			t.Errorf("%q: got %v", server, err)
		}
	}
	if _, err := Connect("https://usaged", "none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no bundle: got %v", err)
	}
}

func TestCredentials(t *testing.T) {
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		http.Redirect(w, r, "http://127.0.0.1:1/elsewhere", http.StatusFound)
	}))
	defer server.Close()
	c, err := Connect(server.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	for _, token := range []string{"one", "two"} {
		if err := os.WriteFile(file, []byte(" "+token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := get(t, c, Bearer(TokenFile(file)))
		if answer, ok := errors.AsType[*Error](err); !ok || answer.Status != http.StatusFound {
			t.Errorf("a redirect: got %v", err)
		}
		if got != "Bearer "+token {
			t.Errorf("Authorization: got %q", got)
		}
	}
	if _, _ = get(t, c, Lease("mine")); got != "Lease mine" {
		t.Errorf("Authorization: got %q", got)
	}
	if _, _ = get(t, c, Ticket("mine")); got != "Ticket mine" {
		t.Errorf("Authorization: got %q", got)
	}
	if err := os.WriteFile(file, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, source := range map[string]TokenSource{
		"token: " + file + " is empty": TokenFile(file), "token: the static token is empty": StaticToken(""),
		"token: the static token has spaces": StaticToken("a secret"),
	} {
		_, err := get(t, c, Bearer(source))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		status            int
		contentType, body string
		want              string
	}{
		"problem": {
			429, "application/problem+json",
			`{"type":"about:blank","title":"Credits exhausted","status":429,"detail":"40 credits are needed",
			    "reason":"CreditsExhausted","resets_at":"2026-04-01T00:00:00Z","upgrade_plan":{"name":"pro",
			    "display_name":"Pro"}}`,
			`CreditsExhausted: 40 credits are needed; it resets at 2026-04-01T00:00:00Z; plan "pro" would allow it`,
		},
		"problem without a limit": {409, "application/problem+json",
			`{"type":"about:blank","title":"Conflict","status":409,"detail":"it is over"}`, "Conflict: it is over"},
		"a proxy's":       {502, "text/html", "<h1>Bad Gateway</h1>", "the answer was 502 Bad Gateway"},
		"of another kind": {200, "text/html", "<h1>Welcome</h1>", "the answer was 200 OK"},
		"too long": {200, "application/json", `{"id":"` + strings.Repeat("x", maxAnswer),
			"unexpected end of JSON input"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tc.contentType)
				w.WriteHeader(tc.status)
				_, _ = io.WriteString(w, tc.body)
			}))
			defer server.Close()
			c, err := Connect(server.URL, "")
			if err != nil {
				t.Fatal(err)
			}
			if adm, err := get(t, c, Lease("l")); err == nil || err.Error() != tc.want {
				t.Errorf("got %+v, %v; want the error %q", adm, err, tc.want)
			}
		})
	}
}

func TestTemporary(t *testing.T) {
	answer := func(status int, after int64) error { return &Error{Problem{Status: status, RetryAfter: after}} }
	for name, tc := range map[string]struct {
		err   error
		after time.Duration
		want  bool
	}{
		"unavailable":    {answer(503, 5), 5 * time.Second, true},
		"internal error": {answer(500, 0), 0, true},
		"gateway":        {answer(502, 0), 0, true},
		"limit":          {answer(429, 60), 0, false},
		"too many calls": {&Error{Problem{Status: 429, Reason: ReasonRateLimited, RetryAfter: 60}}, time.Minute,
			true},
		"conflict":          {answer(409, 0), 0, false},
		"forbidden":         {answer(403, 0), 0, false},
		"nobody there":      {&url.Error{Op: "Post", URL: "http://usaged", Err: syscall.ECONNREFUSED}, 0, true},
		"cut off":           {io.ErrUnexpectedEOF, 0, true},
		"reset in the body": {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, 0, true},
		"slow":              {context.DeadlineExceeded, 0, true},
		"token is replaced": {&os.PathError{Op: "open", Path: "token", Err: os.ErrNotExist}, 0, true},
		"other":             {errors.New("other"), 0, false},
	} {
		if after, ok := Temporary(tc.err); after != tc.after || ok != tc.want {
			t.Errorf("%s: got %s, %t; want %s, %t", name, after, ok, tc.after, tc.want)
		}
	}
}

// TestOutcome: what is said of an admission that has ended.
func TestOutcome(t *testing.T) {
	for want, a := range map[string]Admission{
		"Expired": {State: StateExpired},
		"Cancelled (WaitedTooLong): it waited 2m0s": {
			State: StateCancelled, Reason: "WaitedTooLong", Message: "it waited 2m0s",
		},
		"Cancelled (UnknownUser)": {State: StateCancelled, Reason: "UnknownUser"},
	} {
		if got := a.Outcome(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
