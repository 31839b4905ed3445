// SPDX-License-Identifier: Apache-2.0

package middleware_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/api/client"
	"github.com/cantonesescribe/usage-operator/api/client/middleware"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/usagedtest"
)

// site is a service whose handlers are metered.
type site struct {
	*usagedtest.Usaged
	*httptest.Server

	t  *testing.T
	mu sync.Mutex
	// failures are what the middleware told.
	failures []error
}

func newSite(t *testing.T, h http.HandlerFunc, change func(o *middleware.Options)) *site {
	t.Helper()
	s := &site{Usaged: usagedtest.New(t, "t"), t: t}
	api, err := client.Connect(s.Usaged.URL(), "")
	if err != nil {
		t.Fatal(err)
	}
	o := middleware.Options{
		Meter: &client.Meter{API: api, Token: client.StaticToken("t")},
		User:  func(r *http.Request) string { return r.Header.Get("X-User") },
		Failed: func(_ *http.Request, err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.failures = append(s.failures, err)
		},
	}
	if change != nil {
		change(&o)
	}
	metered, err := middleware.New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(metered(h))
	t.Cleanup(s.Server.Close)
	return s
}

// answer is what a request got.
type answer struct {
	status int
	header http.Header
	body   string
}

// get asks as alice, or as who is given.
func (s *site) get(who ...string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.Server.URL, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("X-User", strings.Join(append(who, "alice")[:1], ""))
	resp, err := s.Server.Client().Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// told returns what the middleware told, and forgets it.
func (s *site) told() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := errors.Join(s.failures...)
	s.failures = nil
	if err == nil {
		return ""
	}
	return err.Error()
}

// settled waits until nothing is under way.
func (s *site) settled() { s.Server.Close() }

func credits(n client.Number) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		metered := middleware.Used(r.Context(), client.UsageRecord{Credits: n})
		_, _ = fmt.Fprint(w, metered)
	}
}

func TestRecords(t *testing.T) {
	s := newSite(t, credits("1.5"), nil)
	for range 2 { // each request is a use of its own
		if got := s.get(); got.status != http.StatusOK || got.body != "true" {
			t.Errorf("got %+v", got)
		}
	}
	if got := s.get(""); got.body != "false" {
		t.Errorf("a request of nobody is metered: %+v", got)
	}
	if told := s.told(); told != "" {
		t.Error(told)
	}
	s.settled()
	s.Standing(3*quota.Credit, 0, 0)
}

func TestRecordsOnceForAKey(t *testing.T) {
	s := newSite(t, credits("1"), func(o *middleware.Options) {
		o.Key = func(*http.Request) string { return "order-7" }
		o.UsageType = "export"
	})
	s.get()
	s.get()
	s.settled()
	if told := s.told(); told != "" {
		t.Error(told)
	}
	s.Standing(quota.Credit, 0, 0)
}

// Who has nothing left is told so as the service itself would.
func TestRefuses(t *testing.T) {
	for enforcement, want := range map[middleware.Enforcement]struct {
		status int
		header string
		told   string
		used   quota.Credits
	}{
		middleware.Enforce: {http.StatusTooManyRequests, "", "", 30 * quota.Credit},
		middleware.Warn:    {http.StatusOK, "CreditsExhausted", "CreditsExhausted: ", 60 * quota.Credit},
		middleware.Off:     {http.StatusOK, "", "", 0},
	} {
		t.Run(string(enforcement), func(t *testing.T) {
			s := newSite(t, credits("30"), func(o *middleware.Options) { o.Enforcement = enforcement })
			if got := s.get(); got.status != http.StatusOK {
				t.Fatalf("got %+v", got)
			}
			got := s.get()
			if got.status != want.status || got.header.Get(middleware.WarningHeader) != want.header {
				t.Errorf("got %+v; want %d, warning %q", got, want.status, want.header)
			}
			if told := s.told(); (told == "") != (want.told == "") || !strings.Contains(told, want.told) {
				t.Errorf("it told %q, want %q", told, want.told)
			}
			if want.status == http.StatusTooManyRequests {
				var p client.Problem
				if err := json.Unmarshal([]byte(got.body), &p); err != nil {
					t.Fatalf("%v: %s", err, got.body)
				}
				if p.Reason != client.ReasonCreditsExhausted || p.Limit != "30" || p.Remaining != "0" ||
					p.ResetsAt.IsZero() || p.Status != http.StatusTooManyRequests ||
					got.header.Get("Content-Type") != "application/problem+json" ||
					got.header.Get("Retry-After") == "" {
					t.Errorf("got %+v, %v", p, got.header)
				}
			}
			s.settled()
			if want.used > 0 {
				s.Standing(want.used, 0, 0)
			}
		})
	}
}

func TestEstimates(t *testing.T) {
	s := newSite(t, credits("1"), func(o *middleware.Options) {
		o.Estimate = func(*http.Request) middleware.Estimate { return middleware.Estimate{FileSize: 1 << 30} }
	})
	if got := s.get(); got.status != http.StatusRequestEntityTooLarge ||
		!strings.Contains(got.body, `"reason":"FileTooLarge"`) {
		t.Errorf("got %+v", got)
	}
	s.settled()
}

// A slot is not what a request needs.
func TestSlotsDoNotCount(t *testing.T) {
	s := newSite(t, credits("1"), nil)
	api, err := client.Connect(s.Usaged.URL(), "")
	if err != nil {
		t.Fatal(err)
	}
	m := client.Meter{API: api, Token: client.StaticToken("t")}
	if _, err := m.Do(t.Context(), client.Work{UserID: "alice", Audio: time.Second, FileSize: 1},
		func(context.Context) (time.Duration, error) {
			if got := s.get(); got.status != http.StatusOK {
				t.Errorf("got %+v", got)
			}
			return 0, nil
		}); err != nil {
		t.Fatal(err)
	}
	s.settled()
	s.Standing(quota.Credit, 0, 0)
}

// While the service is away a request is refused or let through, as it is set. Whoever sent it does not learn why.
func TestServiceAway(t *testing.T) {
	for _, open := range []bool{false, true} {
		s := newSite(t, credits("1"), func(o *middleware.Options) {
			o.FailOpen, o.CheckTimeout, o.RecordTimeout = open, 50*time.Millisecond, 50*time.Millisecond
		})
		s.Usaged.Kill()
		got := s.get()
		want := http.StatusServiceUnavailable
		if open {
			want = http.StatusOK
		}
		if got.status != want || strings.Contains(got.body, "127.0.0.1") {
			t.Errorf("open %t: got %+v", open, got)
		}
		s.settled()
		told := s.told()
		if !strings.Contains(told, `check the quota of user "alice"`) ||
			strings.Contains(told, `the use by user "alice" is not known to be recorded`) != open {
			t.Errorf("open %t: it told %q", open, told)
		}
		s.Usaged.Start()
	}
}

// The middleware's own missing right is not the caller's.
func TestNoRight(t *testing.T) {
	s := newSite(t, credits("1"), nil)
	if got := s.get("bob"); got.status != http.StatusServiceUnavailable || strings.Contains(got.body, "transcriber") {
		t.Errorf("got %+v", got)
	}
	s.settled()
	if told := s.told(); !strings.Contains(told, `may not spend or get for user "bob"`) {
		t.Errorf("it told %q", told)
	}
}

// What was used is recorded when the client is gone, and when the handler panics.
func TestRecordsWhateverHappens(t *testing.T) {
	leave := make(chan context.CancelFunc, 1)
	s := newSite(t, func(_ http.ResponseWriter, r *http.Request) {
		middleware.Used(r.Context(), client.UsageRecord{Credits: "1"})
		if r.URL.Path == "/panic" {
			panic(http.ErrAbortHandler)
		}
		(<-leave)()
		<-r.Context().Done()
	}, nil)
	for _, path := range []string{"/panic", "/leave"} {
		ctx, cancel := context.WithCancel(t.Context())
		leave <- cancel
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-User", "alice")
		if resp, err := s.Server.Client().Do(r); err == nil {
			t.Errorf("%s: got %d", path, resp.StatusCode)
			_ = resp.Body.Close()
		}
		if path == "/panic" {
			<-leave
		}
		cancel()
	}
	s.settled()
	if told := s.told(); told != "" {
		t.Error(told)
	}
	s.Standing(2*quota.Credit, 0, 0)
}

// A handler can flush, set deadlines and hijack, through the controller and by the interfaces.
func TestKeepsTheResponseWriter(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		middleware.Used(r.Context(), client.UsageRecord{Credits: "1"})
		c := http.NewResponseController(w)
		_, flushes := w.(http.Flusher)
		later := time.Now().Add(time.Minute)
		err := errors.Join(c.SetReadDeadline(later), c.SetWriteDeadline(later), c.EnableFullDuplex(), c.Flush())
		conn, buffer, hijackErr := c.Hijack()
		if !flushes || err != nil || hijackErr != nil {
			t.Errorf("flushes %t, %v, %v", flushes, err, hijackErr)
			return
		}
		defer func() { _ = conn.Close() }()
		writeHijacked(buffer)
	}, nil)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-User", "alice")
	resp, err := s.Server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, _ := io.ReadAll(resp.Body); string(body) != "hijacked" {
		t.Errorf("got %q", body)
	}
	// A hijacked connection is nobody's to wait for.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		usage, err := s.Service.Current(t.Context(), "alice")
		if err != nil {
			t.Fatal(err)
		}
		if usage.Account.Used == quota.Credit {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s credits are recorded", usage.Account.Used)
		}
	}
}

// writeHijacked goes on with the chunked answer that the flush began.
func writeHijacked(buffer *bufio.ReadWriter) {
	_, _ = buffer.WriteString("8\r\nhijacked\r\n0\r\n\r\n")
	_ = buffer.Flush()
}

func TestOptions(t *testing.T) {
	meter := &client.Meter{API: &client.ClientWithResponses{}, Token: client.StaticToken("t")}
	user := func(*http.Request) string { return "" }
	for want, o := range map[string]middleware.Options{
		`Enforcement: "strict" must be enforce, warn or off`: {Enforcement: "strict"},
		"Meter, with its API and its Token, is required":     {User: user},
		"User is required": {Meter: meter},
		"CheckTimeout -1s and RecordTimeout 0s must not be negative": {Meter: meter, User: user,
			CheckTimeout: -time.Second},
	} {
		if _, err := middleware.New(o); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
