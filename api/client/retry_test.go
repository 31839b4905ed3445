// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRetry(t *testing.T) {
	busy := func(after int64) error { return &Error{Problem{Status: 503, Title: "busy", RetryAfter: after}} }
	for name, tc := range map[string]struct {
		answers []error
		limit   time.Duration
		want    string
		// least and most are how long it takes.
		least, most time.Duration
		calls       int
	}{
		"at once":          {[]error{nil}, 0, "", 0, 0, 1},
		"refused for good": {[]error{&Error{Problem{Status: 404, Title: "unknown"}}}, 0, "unknown", 0, 0, 1},
		"later":            {[]error{busy(0), busy(0), nil}, 0, "", 500 * time.Millisecond, 750 * time.Millisecond, 3},
		"when it is asked": {[]error{busy(7), nil}, 0, "", 7 * time.Second, 10500 * time.Millisecond, 2},
		"not so late":      {[]error{busy(90), nil}, 0, "given up after 1m0s: busy", 0, 0, 1},
		"longer":           {[]error{busy(90), nil}, time.Hour, "", 90 * time.Second, 135 * time.Second, 2},
		"limit in the call": {[]error{busy(0), context.DeadlineExceeded}, time.Second, "given up after 1s: busy",
			200 * time.Millisecond, time.Second, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls, began := 0, time.Now()
				_, err := Retry(t.Context(), Retries{Limit: tc.limit}, func(ctx context.Context) (string, error) {
					err := tc.answers[min(calls, len(tc.answers)-1)]
					calls++
					if errors.Is(err, context.DeadlineExceeded) {
						<-ctx.Done()
					}
					return "", err
				})
				if (err == nil) != (tc.want == "") || (err != nil && err.Error() != tc.want) || calls != tc.calls {
					t.Errorf("got %v after %d calls, want %q after %d", err, calls, tc.want, tc.calls)
				}
				if d := time.Since(began); d < tc.least || d > tc.most {
					t.Errorf("it took %s, want %s to %s", d, tc.least, tc.most)
				}
			})
		})
	}
}

func TestRetryStops(t *testing.T) {
	stopped := errors.New("stopped")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		_, err := Retry(ctx, Retries{Waiting: func(error) { cancel(stopped) }}, func(context.Context) (string, error) {
			return "", io.ErrUnexpectedEOF
		})
		if !errors.Is(err, stopped) {
			t.Errorf("got %v", err)
		}
	})
}

// doer answers with the statuses, one after the other, and keeps the bodies that it got.
type doer struct {
	statuses []int
	bodies   []string
}

func (d *doer) Do(r *http.Request) (*http.Response, error) {
	body := ""
	if r.Body != nil {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = string(data)
	}
	status := d.statuses[min(len(d.bodies), len(d.statuses)-1)]
	d.bodies = append(d.bodies, body)
	if status == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	text := `{"status":429,"reason":"CreditsExhausted"}`
	if status != http.StatusTooManyRequests {
		text = "what is here"
	} else if len(d.bodies) == 1 {
		text = `{"status":429,"reason":"RateLimited","retry_after":1}`
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(text))}, nil
}

// Only what may be done twice is sent twice.
func TestWithRetries(t *testing.T) {
	for name, tc := range map[string]struct {
		method, path, key string
		statuses          []int
		want, calls       int
	}{
		"read":              {"GET", "/api/v1/usage/current", "", []int{503, 0, 200}, 200, 3},
		"replaced":          {"PUT", "/api/v1/teams/t/members/a", "", []int{500, 204}, 204, 2},
		"with a key":        {"POST", "/api/v1/admissions", "k", []int{502, 201}, 201, 2},
		"without a key":     {"POST", "/api/v1/admissions", "", []int{502, 201}, 502, 1},
		"settled":           {"POST", "/api/v1/admissions/1/complete", "", []int{504, 200}, 200, 2},
		"a batch":           {"POST", "/api/v1/usage", "", []int{504, 207}, 207, 2},
		"something else":    {"POST", "/api/v1/users/alice/portal-tokens", "", []int{503, 201}, 503, 1},
		"not found":         {"GET", "/api/v1/usage/current", "", []int{404}, 404, 1},
		"too often":         {"GET", "/api/v1/usage/current", "", []int{429, 200}, 200, 2},
		"a limit":           {"GET", "/api/v1/usage/current", "", []int{503, 429, 200}, 429, 2},
		"away for too long": {"GET", "/api/v1/usage/current", "", []int{503}, 503, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &doer{statuses: tc.statuses}
				c, err := NewClient("http://usaged", WithHTTPClient(d),
					WithRetries(Retries{Limit: 5 * time.Second / 4}))
				if err != nil {
					t.Fatal(err)
				}
				r, err := http.NewRequestWithContext(t.Context(), tc.method, "http://usaged"+tc.path,
					strings.NewReader("body"))
				if err != nil {
					t.Fatal(err)
				}
				if tc.key != "" {
					r.Header.Set("Idempotency-Key", tc.key)
				}
				if tc.statuses[0] == http.StatusTooManyRequests {
					c.Client.(*repeating).retries.Limit = time.Minute
				}
				resp, err := c.Client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = resp.Body.Close() }()
				text, err := io.ReadAll(resp.Body)
				if err != nil || len(text) == 0 || resp.StatusCode != tc.want {
					t.Errorf("got %d, %q, %v; want %d", resp.StatusCode, text, err, tc.want)
				}
				if name == "away for too long" && len(d.bodies) >= 2 {
					return // how often depends on the random part of the pauses
				}
				if len(d.bodies) != tc.calls {
					t.Errorf("%d calls, want %d", len(d.bodies), tc.calls)
				}
				for i, body := range d.bodies {
					if body != "body" {
						t.Errorf("attempt %d had the body %q", i+1, body)
					}
				}
			})
		})
	}
}

func TestTokens(t *testing.T) {
	for _, token := range []string{"", "a b", "a\n", "ü"} {
		if _, err := StaticToken(token)(t.Context()); err == nil {
			t.Errorf("%q is taken for a token", token)
		}
	}
	if token, err := StaticToken("a.b.c")(t.Context()); err != nil || token != "a.b.c" {
		t.Errorf("got %q, %v", token, err)
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]Number{
		0: "0", 1: "0.001", time.Millisecond: "0.001", 1500 * time.Microsecond: "0.002", time.Second: "1",
		90*time.Minute + 250*time.Millisecond: "5400.25",
	} {
		if got := Seconds(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}
