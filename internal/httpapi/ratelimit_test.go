// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

// limitedTo returns a fake whose user's plan lets so many calls through.
func limitedTo(limit quota.RateLimit) *fake {
	a := alice()
	a.Plan.RateRequests, a.Plan.RateWindow = limit.Requests, limit.Window
	return &fake{usage: ledger.Usage{Account: a, Now: noon}, adm: admitted(), event: charge(),
		admit: metering.AdmitResult{Admission: admitted()}}
}

// limited is the handler with those limits, and what it refuses with them.
func limited(t *testing.T, f *fake, limits RateLimits) (http.Handler, *RateLimiter) {
	t.Helper()
	options := f.options(t.Context(), testAuth())
	options.Limits = NewRateLimiter(limits, prometheus.NewRegistry())
	return New(options), options.Limits
}

// counted fails unless so many calls were refused by those limits.
func counted(t *testing.T, l *RateLimiter, scope string, want float64) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(l.refused)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "usage_rate_limited_total" {
		t.Fatalf("got %v, %v", families, err)
	}
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == scope {
			if got := m.GetCounter().GetValue(); got != want {
				t.Errorf("scope %s: %v calls were refused, want %v", scope, got, want)
			}
			return
		}
	}
	t.Errorf("scope %s is not counted", scope)
}

var current = request{method: "GET", path: "/api/v1/usage/current?user_id=alice"}

// known makes the user's first call, and waits until the limit is known.
func known(t *testing.T, h http.Handler) {
	t.Helper()
	if w := do(h, current); w.Code != 200 || w.Header().Get(headerLeft) != "" {
		t.Errorf("before the limit is known: got %d, RateLimit %q", w.Code, w.Header().Get(headerLeft))
	}
	synctest.Wait()
}

// says fails unless the answer has the status, and says that of its limits.
func says(t *testing.T, w *httptest.ResponseRecorder, status int, policy, left string) {
	t.Helper()
	if w.Code != status || w.Header().Get(headerPolicy) != policy || w.Header().Get(headerLeft) != left {
		t.Errorf("got %d, RateLimit-Policy %s, RateLimit %s; want %d, %s, %s", w.Code,
			w.Header().Get(headerPolicy), w.Header().Get(headerLeft), status, policy, left)
	}
}

// Exactly at the limit, and exactly at the instant that Retry-After names.
func TestUserRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, l := limited(t, limitedTo(quota.RateLimit{Requests: 3, Window: time.Minute}), RateLimits{})
		const policy = `"user";q=3;w=60`
		known(t, h)
		says(t, do(h, current), 200, policy, `"user";r=1;t=20`)
		says(t, do(h, current), 200, policy, `"user";r=0;t=20`)
		time.Sleep(500 * time.Millisecond)
		w := do(h, current)
		says(t, w, 429, policy, `"user";r=0;t=20`)
		next := time.Now().Add(19_500 * time.Millisecond).UTC()
		if got := w.Header().Get("Retry-After"); got != "20" {
			t.Errorf("Retry-After: got %s, want 20: 19.5 s, rounded up", got)
		}
		p := decode(t, w)
		for member, want := range map[string]any{
			"type": problemTypes + "rate-limited", "title": "Rate limited", "reason": "RateLimited",
			"status": json.Number("429"), "limit": json.Number("3"), "remaining": json.Number("0"), "unit": "calls",
			"requested": json.Number("1"), "retry_after": json.Number("20"),
			"resets_at": next.Format(time.RFC3339Nano),
			"detail": `the plan of user "alice" allows 3 calls in 1m0s, and all of them are used: the next is let ` +
				"through at " + roundUp(next).Format(time.RFC3339),
		} {
			if p[member] != want {
				t.Errorf("%s: got %v, want %v", member, p[member], want)
			}
		}
		time.Sleep(time.Until(next) - 1)
		says(t, do(h, current), 429, policy, `"user";r=0;t=1`)
		time.Sleep(time.Nanosecond)
		says(t, do(h, current), 200, policy, `"user";r=0;t=20`)
		says(t, do(h, current), 429, policy, `"user";r=0;t=20`)
		counted(t, l, scopeUser, 3)
	})
}

// What a user's calls are: those that name the user. What was admitted can be brought to its end, and those who act for
// everybody are nobody.
func TestWhatCountsForAUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := limitedTo(quota.RateLimit{Requests: 1, Window: time.Hour})
		h, _ := limited(t, f, RateLimits{})
		known(t, h)
		bodies := map[string]string{"createAdmission": goodBody, "checkUsage": goodBody,
			"checkTranscriptionLimits": goodBody, "createUsage": exportBody,
			"completeAdmission": `{"duration_seconds":60}`}
		var refused []string
		for _, o := range operations {
			if !slices.Contains(o.verbs, "spend") {
				continue
			}
			method, path, _ := strings.Cut(o.pattern, " ")
			id := admID.String()
			if o.subject == eventsUser {
				id = eventID.String()
			}
			path = strings.ReplaceAll(path, "{id}", id)
			if strings.HasPrefix(o.subject, "the query's") {
				path += "?user_id=alice"
			}
			q := request{method: method, path: path, body: bodies[o.id], token: "Bearer backend"}
			if o.streams() { // which would go on
				q.token = "-"
			}
			if w := do(h, q); w.Code == 429 || w.Header().Get(headerLeft) != "" {
				t.Errorf("%s for everybody: got %d, RateLimit %s", o.id, w.Code, w.Header().Get(headerLeft))
			}
			q.token = "Bearer spender"
			if do(h, q).Code == 429 {
				refused = append(refused, "`"+o.pattern+"`")
			}
		}
		data, err := os.ReadFile("../../docs/http.md")
		if err != nil {
			t.Fatal(err)
		}
		if said := strings.Join(refused, ", "); len(refused) != 20 || !strings.Contains(string(data), said) {
			t.Errorf("docs/http.md does not say that these count for a user:\n%s", said)
		}
	})
}

// A call is one for each of its users, however many uses it brings, and of the others none is lost.
func TestBatchIsOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := limitedTo(quota.RateLimit{Requests: 2, Window: time.Minute})
		h, l := limited(t, f, RateLimits{})
		known(t, h)
		batch := func(token string, users ...string) request {
			var uses []string
			for i, user := range users {
				uses = append(uses, fmt.Sprintf(`{"key":"k%d","user_id":%q,"usage_type":"export"}`, i, user))
			}
			return request{path: "/api/v1/usage", token: token, body: "[" + strings.Join(uses, ",") + "]", key: "-"}
		}
		says(t, do(h, batch("Bearer exporter", "alice", "alice", "alice")), 207, `"user";q=2;w=60`, `"user";r=0;t=30`)
		w := do(h, batch("Bearer exporter", "alice", "bob", "alice"))
		says(t, w, 207, `"user";q=2;w=60`, `"user";r=0;t=30`)
		var got struct {
			Items []struct {
				Status int `json:"status"`
			} `json:"items"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Items) != 3 ||
			got.Items[0].Status != 429 || got.Items[1].Status != 201 || got.Items[2].Status != 429 {
			t.Errorf("got %+v, %v", got, err)
		}
		if len(f.uses) != 1 || f.uses[0].UserID != "bob" {
			t.Errorf("these uses went on: %+v", f.uses)
		}
		counted(t, l, scopeUser, 1)
	})
}

// slowPlans is asked for the limit of a plan, and answers when it is told.
type slowPlans struct {
	*fake

	answer chan error
}

func (s slowPlans) Current(ctx context.Context, userID string) (ledger.Usage, error) {
	select {
	case err := <-s.answer:
		if err != nil {
			return ledger.Usage{}, err
		}
	case <-ctx.Done():
		return ledger.Usage{}, ctx.Err()
	}
	return s.fake.Current(ctx, userID)
}

// Who is not known is let through; that counts as soon as the limit is known, and while nobody can say what it is now,
// the last one stays.
func TestLimitIsLearnedBesideTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := limitedTo(quota.RateLimit{Requests: 10, Window: 100 * time.Second})
		options := f.options(t.Context(), testAuth())
		slow := slowPlans{f, make(chan error)}
		options.Usage, options.Limits = slow, NewRateLimiter(RateLimits{}, prometheus.NewRegistry())
		h := New(options)
		check := request{path: "/api/v1/usage/check", body: goodBody}
		for range 4 {
			says(t, do(h, check), 200, "", "")
		}
		slow.answer <- nil
		synctest.Wait()
		says(t, do(h, check), 200, `"user";q=10;w=100`, `"user";r=5;t=10`)

		// The plan is changed, and the database away: five seconds later the limit is asked for, in vain.
		f.usage.Account.Plan.RateRequests = 20
		time.Sleep(relearn)
		says(t, do(h, check), 200, `"user";q=10;w=100`, `"user";r=4;t=5`)
		slow.answer <- ledger.ErrUnavailable
		synctest.Wait()
		says(t, do(h, check), 200, `"user";q=10;w=100`, `"user";r=3;t=5`)
		time.Sleep(relearn)
		says(t, do(h, check), 200, `"user";q=10;w=100`, `"user";r=3;t=10`)
		slow.answer <- nil
		synctest.Wait()
		// 70 s have to pass until all is free again, and one call takes five of them now.
		says(t, do(h, check), 200, `"user";q=20;w=100`, `"user";r=5;t=5`)
	})
}

func TestCallerRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := limitedTo(quota.RateLimit{Requests: 100, Window: time.Hour})
		h, l := limited(t, f, RateLimits{Caller: quota.RateLimit{Requests: 2, Window: time.Second}})
		backend := request{method: "GET", path: current.path, token: "Bearer backend"}
		says(t, do(h, backend), 200, `"caller";q=2;w=1`, `"caller";r=1;t=1`)
		says(t, do(h, backend), 200, `"caller";q=2;w=1`, `"caller";r=0;t=1`)
		w := do(h, backend)
		says(t, w, 429, `"caller";q=2;w=1`, `"caller";r=0;t=1`)
		const detail = "a caller, here system:serviceaccount:transcripts:backend, may make 2 calls in 1s"
		if p := decode(t, w); p["reason"] != "RateLimited" || !strings.HasPrefix(p["detail"].(string), detail) {
			t.Errorf("got %v", p)
		}
		// Whatever is called, and with whatever body: nothing of it is looked at.
		if w := do(h, request{method: "POST", path: admPath + "/heartbeat", token: "Bearer backend"}); w.Code != 429 {
			t.Errorf("a heartbeat with its token: got %d, want 429", w.Code)
		}
		for range 5 {
			w := do(h, request{method: "POST", path: admPath + "/heartbeat", token: "Lease " + lease})
			says(t, w, 200, "", "")
		}
		// Another caller has calls of its own, and both of its limits are told.
		do(h, current)
		synctest.Wait()
		says(t, do(h, current), 200, `"user";q=100;w=3600, "caller";q=2;w=1`, `"user";r=98;t=36, "caller";r=0;t=1`)
		time.Sleep(500 * time.Millisecond)
		says(t, do(h, backend), 200, `"caller";q=2;w=1`, `"caller";r=0;t=1`)
		counted(t, l, scopeCaller, 2)
	})
}

// An address that guesses tokens is no longer asked about, but for those that were valid; others are not concerned.
func TestFailuresOfAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := limitedTo(quota.RateLimit{})
		h, l := limited(t, f, RateLimits{Failures: quota.RateLimit{Requests: 3, Window: time.Minute}})
		from := func(address, token string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodGet, current.path, nil)
			r.RemoteAddr = address
			r.Header.Set("Authorization", token)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		const guesser, other = "192.0.2.7:4711", "192.0.2.8:4711"
		for i, step := range []struct {
			address, token string
			want           int
		}{
			{guesser, "Bearer spender", 200},
			{guesser, "Bearer guess-1", 401},
			{guesser, "Bearer guess-2", 401},
			{guesser, "Bearer abroad", 401},
			{guesser, "Bearer guess-4", 429},
			{guesser, "bearer guess-5", 429},
			{guesser, "Bearer backend", 429}, // nobody has seen it be valid
			{guesser, "Bearer spender", 200},
			{other, "Bearer backend", 200},
			{guesser, "Bearer backend", 200}, // now somebody has
			{other, "Bearer guess-6", 401},
		} {
			if w := from(step.address, step.token); w.Code != step.want {
				t.Errorf("step %d, %s: got %d, want %d: %s", i, step.token, w.Code, step.want, w.Body)
			}
		}
		w := from(guesser, "Bearer guess-7")
		if p := decode(t, w); w.Header().Get("Retry-After") != "20" || p["reason"] != "RateLimited" ||
			!strings.Contains(p["detail"].(string), "192.0.2.7") {
			t.Errorf("got Retry-After %s, %v", w.Header().Get("Retry-After"), p)
		}
		time.Sleep(20*time.Second - 1)
		if w := from(guesser, "Bearer guess-8"); w.Code != 429 {
			t.Errorf("just before Retry-After: got %d", w.Code)
		}
		time.Sleep(time.Nanosecond)
		if w := from(guesser, "Bearer guess-9"); w.Code != 401 {
			t.Errorf("at Retry-After: got %d", w.Code)
		}
		// A token that could not be checked is no guess.
		for range 5 {
			if w := from("192.0.2.9:1", "Bearer broken"); w.Code != 503 {
				t.Errorf("while the API server is away: got %d", w.Code)
			}
		}
		counted(t, l, scopeAddress, 5)
	})
}

func TestAddressOf(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:1234":            "192.0.2.1",
		"[::ffff:192.0.2.1]:1234":   "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64",
		"[2001:db8:1:2::9]:443":     "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80":         "fe80::/64",
		"pipe":                      "pipe",
	} {
		if got := addressOf(remote); got != want {
			t.Errorf("%s: got %s, want %s", remote, got, want)
		}
	}
}

func TestConnectionsOfAnAddress(t *testing.T) {
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := NewRateLimiter(RateLimits{Connections: 2}, prometheus.NewRegistry())
	server := &http.Server{ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l.Listen(inner)) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	// served reports whether a new connection is answered, and returns it.
	served := func() (net.Conn, bool) {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = conn.Write([]byte("GET / HTTP/1.1\r\nHost: usaged\r\n\r\n"))
		answer := make([]byte, len("HTTP/1.1 204"))
		_, err = conn.Read(answer)
		return conn, err == nil && string(answer) == "HTTP/1.1 204"
	}
	first, ok := served()
	_, also := served()
	if !ok || !also {
		t.Fatal("two connections are not served")
	}
	if _, ok := served(); ok {
		t.Error("a third one is served")
	}
	counted(t, l, scopeAddress, 1)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	// The server notices in its own time.
	for deadline := time.Now().Add(30 * time.Second); !func() bool { _, ok := served(); return ok }(); {
		if time.Now().After(deadline) {
			t.Fatal("a connection that was closed still counts")
		}
	}
}

// What is full is forgotten, and nothing else is, however many there are.
func TestBudgetsAreBounded(t *testing.T) {
	limit := quota.RateLimit{Requests: 1, Window: time.Minute}
	var b budgets
	for i := range maxBudgets {
		b.take(strconv.Itoa(i), limit, 0)
	}
	if a := b.take("one too many", limit, 0); !a.Taken || a.Limit != (quota.RateLimit{}) || len(b.of) != maxBudgets {
		t.Errorf("without room: got %+v, %d are kept", a, len(b.of))
	}
	if a := b.take("0", limit, time.Minute-1); a.Taken {
		t.Error("somebody was forgotten before all had come back")
	}
	for i := range maxBudgets {
		b.take("new"+strconv.Itoa(i), limit, 2*time.Minute)
	}
	if a := b.take("new0", limit, 2*time.Minute); a.Taken || len(b.of) > maxBudgets {
		t.Errorf("after a while: got %+v, %d are kept", a, len(b.of))
	}
}

// A refused call leaves nothing in the database, and its key is as good as new.
func TestRateLimitOnTheRealStore(t *testing.T) {
	dsn := ledgertest.New(t)
	options, service := storeOptions(t, dsn, metering.Options{AutoRegister: true}, false, testAuth())
	var now atomic.Int64
	options.Limits = NewRateLimiter(RateLimits{}, options.Registry)
	options.Limits.now = func() time.Duration { return time.Duration(now.Load()) }
	plans, err := service.Plans(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plans {
		if p.Default {
			p := *p
			p.RateRequests, p.RateWindow = 2, time.Minute
			if _, err := service.ApplyPlan(t.Context(), p, "test"); err != nil {
				t.Fatal(err)
			}
		}
	}
	db, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.WithoutCancel(t.Context())) })
	rows := func() (n int) {
		t.Helper()
		if err := db.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM concurrent_processing) +
			(SELECT count(*) FROM usage_tracking) + (SELECT count(*) FROM audit_log) +
			(SELECT sum(seq) FROM usage_quotas)`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	h := New(options)
	must(t, h, request{body: work(1), key: "zeroth", token: "Bearer backend"}, 201)
	must(t, h, request{body: work(1), key: "first"}, 202)
	for learned := false; !learned; runtime.Gosched() {
		options.Limits.users.mu.Lock()
		learned = options.Limits.users.of["alice"].known
		options.Limits.users.mu.Unlock()
	}
	w := do(h, request{body: work(1), key: "second"})
	says(t, w, 202, `"user";q=2;w=60`, `"user";r=0;t=30`)
	before := rows()
	for _, q := range []request{
		{body: work(1), key: "third"}, {body: work(1), key: "first"},
		{path: "/api/v1/usage", body: exportBody, key: "u"},
	} {
		w := do(h, q)
		says(t, w, 429, `"user";q=2;w=60`, `"user";r=0;t=30`)
		if got := w.Header().Get("Retry-After"); got != "30" {
			t.Errorf("Retry-After: got %s", got)
		}
	}
	now.Store(int64(30*time.Second - 1))
	must(t, h, request{body: work(1), key: "third"}, 429)
	if after := rows(); after != before {
		t.Errorf("%d rows and changes before the refused calls, %d after them", before, after)
	}
	now.Add(1)
	must(t, h, request{body: work(1), key: "third"}, 202)
	must(t, h, request{body: work(1), key: "third"}, 429)
}
