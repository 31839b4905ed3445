// SPDX-License-Identifier: Apache-2.0

package console_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/console"
	"github.com/cantonesescribe/usage-operator/internal/httpapi"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/oidctest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// service is the HTTP API with the pages, over a database of the test's own, and a provider where people sign in.
type service struct {
	t        *testing.T
	url      string
	provider *oidctest.Provider
	store    *ledgerdb.Store
	config   string

	mu    sync.Mutex
	later time.Duration
}

// newService knows alice and bob. oidc:olga may list users; nobody else has a right.
func newService(t *testing.T, change func(*console.SignInOptions)) *service {
	t.Helper()
	s := &service{t: t}
	var err error
	if s.provider, err = oidctest.Start("alice", "bob", "olga"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.provider.Close)
	s.store, err = ledgerdb.Open(t.Context(), ledgertest.New(t), postgres.Options{AllowUnsafe: true, Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.store.Close)
	var config bytes.Buffer
	if err := s.provider.Configuration(&config, `{username: {claim: sub, prefix: "oidc:"}}`); err != nil {
		t.Fatal(err)
	}
	s.config = filepath.Join(t.TempDir(), "authentication.yaml")
	if err := os.WriteFile(s.config, config.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	people, err := access.OpenPeople(t.Context(), s.config)
	if err != nil {
		t.Fatal(err)
	}
	var handler http.Handler
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	sessions, err := access.NewSessions(s.store, people,
		access.SessionLimits{Idle: 30 * time.Minute, Longest: 2 * time.Hour}, s.url)
	if err != nil {
		t.Fatal(err)
	}
	opts := console.SignInOptions{Issuer: s.provider.URL, ClientID: oidctest.ClientID, ExternalURL: s.url,
		UpgradeURL: "https://app.example/billing", Scopes: []string{"openid", "profile"}}
	if change != nil {
		change(&opts)
	}
	if err := opts.Check(); err != nil {
		t.Fatal(err)
	}
	signIn, err := console.NewSignIn(opts, people, sessions, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := console.Handlers(console.Options{SignIn: signIn})
	if err != nil {
		t.Fatal(err)
	}
	signer := access.NewSigner(s.store)
	usage := metering.New(ledger.New(s.store, ledger.Options{}), s.store, signer,
		metering.Options{AutoRegister: true, Replica: "r", Log: func(error, string) {}})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = usage.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	if _, err := usage.ApplyPlan(t.Context(), plans.Free(), "test"); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"alice", "bob"} {
		if _, err := usage.RegisterUser(t.Context(), user, "", "", metering.By{Actor: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	past := reports.New(s.store, usage)
	handler = httpapi.New(httpapi.Options{
		Usage: usage, Admissions: usage, Tickets: usage, Events: usage, Users: usage, Search: past, Leases: signer,
		Database: s.store.Ping, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(), Draining: ctx,
		Pages: pages,
		Auth: &access.Auth{Audiences: authenticator.Audiences{"usaged"}, People: people, Sessions: sessions,
			Authenticator: authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
				return nil, false, nil
			}),
			Authorizer: authorizer.AuthorizerFunc(
				func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
					if a.GetUser().GetName() == "oidc:olga" {
						return authorizer.DecisionAllow, "", nil
					}
					return authorizer.DecisionNoOpinion, "", nil
				}),
		},
	})
	return s
}

func (s *service) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.later)
}

func (s *service) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later += d
}

// browser keeps cookies, and follows no redirect unless it is told to.
type browser struct {
	*http.Client
	s *service
}

func (s *service) browser() *browser {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &browser{s: s, Client: &http.Client{Jar: jar, Transport: insecure(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// insecure trusts both servers of the test, whose certificate is the same one of httptest.
func insecure() http.RoundTripper {
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	return server.Client().Transport
}

// answer is what a browser got.
type answer struct {
	*http.Response
	body string
}

func (b *browser) do(method, target string, body io.Reader, headers ...string) answer {
	b.s.t.Helper()
	if strings.HasPrefix(target, "/") {
		target = b.s.url + target
	}
	r, err := http.NewRequestWithContext(b.s.t.Context(), method, target, body)
	if err != nil {
		b.s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := b.Do(r)
	if err != nil {
		b.s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return answer{resp, string(text)}
}

func (b *browser) get(target string, headers ...string) answer {
	b.s.t.Helper()
	return b.do(http.MethodGet, target, nil, headers...)
}

// atProvider goes from a sign-in's begin to the address with the code, as a person with a password does.
func (b *browser) atProvider(begin, who string) string {
	b.s.t.Helper()
	first := b.get(begin)
	if first.StatusCode != http.StatusFound {
		b.s.t.Fatalf("%s: got %s %s", begin, first.Status, first.body)
	}
	form := b.get(first.Header.Get("Location"))
	where, err := first.Request.URL.Parse(form.Header.Get("Location"))
	if err != nil || form.StatusCode != http.StatusFound {
		b.s.t.Fatalf("the provider: got %s %s", form.Status, form.body)
	}
	page, err := form.Request.URL.Parse(where.String())
	if err != nil {
		b.s.t.Fatal(err)
	}
	page.Scheme, page.Host = form.Request.URL.Scheme, form.Request.URL.Host
	in := b.do(http.MethodPost, page.String(),
		strings.NewReader(url.Values{"username": {who}, "password": {oidctest.Password}}.Encode()),
		"Content-Type", "application/x-www-form-urlencoded")
	back, err := in.Request.URL.Parse(in.Header.Get("Location"))
	if err != nil || in.StatusCode != http.StatusFound {
		b.s.t.Fatalf("the password: got %s %s", in.Status, in.body)
	}
	code := b.get(back.String())
	if code.StatusCode != http.StatusFound {
		b.s.t.Fatalf("the code: got %s %s", code.Status, code.body)
	}
	return code.Header.Get("Location")
}

func (b *browser) signIn(who string) answer {
	b.s.t.Helper()
	in := b.get(b.atProvider("/auth/login?return=/console/users?q=a%26sort=-used", who))
	if in.StatusCode != http.StatusSeeOther {
		b.s.t.Fatalf("%s signs in: got %s %s", who, in.Status, in.body)
	}
	return in
}

func cookieOf(a answer, name string) *http.Cookie {
	for _, c := range a.Cookies() {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func (b *browser) who() (status int, user string) {
	b.s.t.Helper()
	got := b.get("/auth/session")
	var session struct {
		User     string `json:"user"`
		Username string `json:"username"`
	}
	if got.StatusCode == http.StatusOK {
		if err := json.Unmarshal([]byte(got.body), &session); err != nil || session.Username != "oidc:"+session.User {
			b.s.t.Fatalf("session: %s, %v", got.body, err)
		}
	}
	return got.StatusCode, session.User
}

func TestSigningIn(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	b := s.browser()
	if got := b.get("/auth/session"); got.StatusCode != http.StatusUnauthorized ||
		got.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("before: got %s %s", got.Status, got.body)
	}
	in := b.signIn("alice")
	if got := in.Header.Get("Location"); got != "/console/users?q=a&sort=-used" {
		t.Errorf("leads to %q", got)
	}
	cookie := cookieOf(in, access.SessionCookie)
	if cookie == nil || !strings.HasPrefix(cookie.Name, "__Host-") || !cookie.Secure || !cookie.HttpOnly ||
		cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Domain != "" || cookie.MaxAge != 7200 {
		t.Fatalf("the cookie: %+v", cookie)
	}
	if got := in.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control: %q", got)
	}
	got := b.get("/auth/session")
	var session struct {
		User      string    `json:"user"`
		Username  string    `json:"username"`
		ExpiresAt time.Time `json:"expires_at"`
		Upgrade   string    `json:"upgrade_url"`
	}
	if err := json.Unmarshal([]byte(got.body), &session); err != nil || session.User != "alice" ||
		session.Username != "oidc:alice" ||
		session.Upgrade != "https://app.example/billing" ||
		session.ExpiresAt.Sub(s.now()).Round(time.Minute) != 30*time.Minute {
		t.Errorf("the session: %s, %v", got.body, err)
	}
	if got := b.get("/api/v1/usage/current?user_id=alice"); got.StatusCode != http.StatusOK ||
		!strings.Contains(got.body, `"user_id":"alice"`) {
		t.Errorf("alice's own: got %s %s", got.Status, got.body)
	}
	if got := b.get("/api/v1/usage/current?user_id=bob"); got.StatusCode != http.StatusForbidden {
		t.Errorf("bob's by alice: got %s %s", got.Status, got.body)
	}
	if got := b.get("/api/v1/users"); got.StatusCode != http.StatusForbidden {
		t.Errorf("all users by alice: got %s %s", got.Status, got.body)
	}
	operator := s.browser()
	operator.signIn("olga")
	if got := operator.get("/api/v1/users"); got.StatusCode != http.StatusOK {
		t.Errorf("all users by olga: got %s %s", got.Status, got.body)
	}
	// The header is what counts where there are both.
	if got := b.get("/api/v1/usage/current?user_id=alice", "Authorization", "Bearer nobody's"); got.StatusCode !=
		http.StatusUnauthorized {
		t.Errorf("another's token beside the cookie: got %s %s", got.Status, got.body)
	}
	token, err := s.provider.Token(map[string]any{"sub": "bob"})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.get("/api/v1/usage/current?user_id=bob", "Authorization", "Bearer "+token); got.StatusCode !=
		http.StatusOK {
		t.Errorf("bob's token beside alice's cookie: got %s %s", got.Status, got.body)
	}
}

// Whoever reads the table can sign in by none of its rows.
func TestSessionRowsHoldNoSecret(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	b := s.browser()
	in := b.signIn("alice")
	id := cookieOf(in, access.SessionCookie).Value
	rows, err := s.store.Pool().Query(t.Context(), "SELECT row_to_json(s)::text FROM sessions AS s")
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(all) != 1 {
		t.Fatalf("rows: %q, %v", all, err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil || len(raw) != 32 {
		t.Fatalf("the id %q is not 32 bytes", id)
	}
	for _, secret := range []string{id, fmt.Sprintf("%x", raw), "eyJ"} {
		if strings.Contains(all[0], secret) {
			t.Errorf("the row has %q: %s", secret, all[0])
		}
	}
}

func TestSignInsThatAreRefused(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	// with returns the address with one of its parameters changed.
	with := func(address, name, value string) string {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		query := u.Query()
		query.Set(name, value)
		u.RawQuery = query.Encode()
		return u.String()
	}
	// keeps has the browser's cookie of the sign-in under way say something else.
	keeps := func(b *browser, change func(kept map[string]string)) {
		u, _ := url.Parse(s.url)
		for _, c := range b.Jar.Cookies(u) {
			text, err := base64.RawURLEncoding.DecodeString(c.Value)
			kept := map[string]string{}
			if err != nil || json.Unmarshal(text, &kept) != nil {
				t.Fatalf("cookie %s=%s", c.Name, c.Value)
			}
			change(kept)
			text, err = json.Marshal(kept)
			if err != nil {
				t.Fatal(err)
			}
			c.Value, c.Path, c.Secure = base64.RawURLEncoding.EncodeToString(text), "/", true
			b.Jar.SetCookies(u, []*http.Cookie{c})
		}
	}
	for name, tc := range map[string]struct {
		code int
		want string
		back func(b *browser, address string) string
	}{
		"another state": {400, "begun in this browser", func(_ *browser, a string) string {
			return with(a, "state", strings.Repeat("A", 43))
		}},
		"no state": {400, "begun in this browser", func(_ *browser, a string) string { return with(a, "state", "") }},
		"another browser": {400, "begun in this browser", func(b *browser, a string) string {
			b.Jar = s.browser().Jar
			return a
		}},
		"another state that begins alike": {400, "begun in this browser", func(_ *browser, a string) string {
			u, _ := url.Parse(a)
			return with(a, "state", u.Query().Get("state")[:8]+strings.Repeat("A", 35))
		}},
		"another nonce": {403, "its nonce is not this one", func(b *browser, a string) string {
			keeps(b, func(kept map[string]string) { kept["n"] = "another" })
			return a
		}},
		"another verifier": {403, "does not take the code", func(b *browser, a string) string {
			keeps(b, func(kept map[string]string) { kept["v"] = strings.Repeat("v", 43) })
			return a
		}},
		"a cookie that leads elsewhere": {400, "must be the path of a page", func(b *browser, a string) string {
			keeps(b, func(kept map[string]string) { kept["r"] = "https://evil.example/console" })
			return a
		}},
		"another code": {403, "does not take the code", func(_ *browser, a string) string {
			return with(a, "code", "x")
		}},
		"no code": {400, "has no code", func(_ *browser, a string) string { return with(a, "code", "") }},
		"another issuer": {400, "of issuer", func(_ *browser, a string) string {
			return with(a, "iss", "https://evil")
		}},
		"denied": {403, "let nobody in: access_denied &lt;b&gt;no&lt;/b&gt;", func(_ *browser, a string) string {
			return with(with(a, "error", "access_denied"), "error_description", "<b>no</b>")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := s.browser()
			got := b.get(tc.back(b, b.atProvider("/auth/login", "alice")))
			if got.StatusCode != tc.code || !strings.Contains(got.body, tc.want) {
				t.Errorf("got %s %s; want %d that says %q", got.Status, got.body, tc.code, tc.want)
			}
			if cookieOf(got, access.SessionCookie) != nil {
				t.Error("there is a session")
			}
		})
	}
	t.Run("replayed", func(t *testing.T) {
		b := s.browser()
		address := b.atProvider("/auth/login", "alice")
		if got := b.get(address); got.StatusCode != http.StatusSeeOther || got.Header.Get("Location") != "/console" {
			t.Fatalf("at first: got %s %s", got.Status, got.body)
		}
		if got := b.get(address); got.StatusCode != http.StatusBadRequest {
			t.Errorf("again: got %s %s", got.Status, got.body)
		}
	})
}

// A sign-in leads to the pages and nowhere else.
func TestSignInsLeadToPages(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	for back, good := range map[string]bool{
		"": true, "/console": true, "/console/": true, "/console/audit?actor=oidc:alice&sort=-at": true, "/usage": true,
		"/usage#costs": true, "https://evil.example/console": false, "//evil.example/console": false,
		`/\evil.example/console`: false, `/console\..\..\evil`: false, "/console/../../evil": false,
		"/console//evil.example": false, "/consoles": false, "/": false, "/auth/logout": false, "console": false,
		"javascript:alert(1)": false, "/console\r\nX: y": false, "/console/" + strings.Repeat("a", 1024): false,
		"https:/console": false, "/%2fevil.example/console": false, "/api/v1/users": false,
	} {
		got := s.browser().get("/auth/login?return=" + url.QueryEscape(back))
		if (got.StatusCode == http.StatusFound) != good {
			t.Errorf("%q: got %s %s", back, got.Status, got.body)
		}
	}
}

func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	b := s.browser()
	b.signIn("alice")
	use := func() int { return b.get("/api/v1/usage/current?user_id=alice").StatusCode }
	// Used every 20 minutes it lasts for two hours and no longer.
	for range 5 {
		s.advance(20 * time.Minute)
		if got := use(); got != http.StatusOK {
			t.Fatalf("in use: got %d", got)
		}
	}
	s.advance(19 * time.Minute)
	if got := use(); got != http.StatusOK {
		t.Errorf("just before its end: got %d", got)
	}
	s.advance(time.Minute)
	if got := b.get("/api/v1/usage/current?user_id=alice"); got.StatusCode != http.StatusUnauthorized ||
		!strings.Contains(got.body, "the session is over: sign in again at /auth/login") {
		t.Errorf("at its end: got %s %s", got.Status, got.body)
	}

	b.signIn("alice")
	s.advance(20 * time.Minute)
	// That somebody asks how long it lasts is no use of it.
	if got, _ := b.who(); got != http.StatusOK {
		t.Errorf("idle for 20 minutes: got %d", got)
	}
	s.advance(10 * time.Minute)
	if got := use(); got != http.StatusUnauthorized {
		t.Errorf("idle for half an hour: got %d", got)
	}
	var kept int
	count := func() int {
		if err := s.store.Pool().QueryRow(t.Context(), "SELECT count(*) FROM sessions").Scan(&kept); err != nil {
			t.Fatal(err)
		}
		return kept
	}
	b.signIn("alice")
	s.browser().signIn("bob")
	s.advance(20 * time.Minute)
	if got := use(); got != http.StatusOK {
		t.Errorf("alice, in use: got %d", got)
	}
	if err := s.store.DropSessions(t.Context()); err != nil || count() != 2 {
		t.Errorf("%d sessions are kept of two that are not over, %v", kept, err)
	}
	s.advance(10 * time.Minute)
	if err := s.store.DropSessions(t.Context()); err != nil || count() != 1 {
		t.Errorf("%d sessions are kept of one that is not over, %v", kept, err)
	}
	if got := use(); got != http.StatusOK {
		t.Errorf("alice, whose session is kept: got %d", got)
	}
}

// Whose issuer does not name people any more has no session either.
func TestSessionsEndWithTheirIssuer(t *testing.T) {
	t.Parallel()
	s, other := newService(t, nil), newService(t, nil)
	in := s.browser().signIn("alice")
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.AddCookie(cookieOf(in, access.SessionCookie))
	for config, want := range map[string]bool{s.config: true, other.config: false} {
		people, err := access.OpenPeople(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		sessions, err := access.NewSessions(s.store, people,
			access.SessionLimits{Idle: time.Hour, Longest: time.Hour}, s.url)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = sessions.Who(r, false)
		if (err == nil) != want || err != nil && !errors.Is(err, access.ErrNoSession) {
			t.Errorf("known is %t: got %v", want, err)
		}
	}
}

func TestSigningOut(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	here, there, others := s.browser(), s.browser(), s.browser()
	first := here.signIn("alice")
	there.signIn("alice")
	others.signIn("bob")
	is := func(b *browser, want int, when string) {
		t.Helper()
		if got, _ := b.who(); got != want {
			t.Errorf("%s: got %d, want %d", when, got, want)
		}
	}
	// A new sign-in ends the browser's session before: an id that somebody knows is good for nothing then.
	second := here.signIn("alice")
	old := cookieOf(first, access.SessionCookie)
	if old.Value == cookieOf(second, access.SessionCookie).Value {
		t.Error("the id stays the same")
	}
	thief := s.browser()
	u, _ := url.Parse(s.url)
	thief.Jar.SetCookies(u, []*http.Cookie{{Name: old.Name, Value: old.Value, Path: "/", Secure: true}})
	is(thief, http.StatusUnauthorized, "the id before")

	out := here.do(http.MethodPost, "/auth/logout", nil)
	gone := cookieOf(out, access.SessionCookie)
	if out.StatusCode != http.StatusNoContent || gone == nil || gone.MaxAge >= 0 {
		t.Errorf("signing out: got %s, %+v", out.Status, gone)
	}
	is(here, http.StatusUnauthorized, "signed out")
	is(there, http.StatusOK, "alice elsewhere")
	if out := here.do(http.MethodPost, "/auth/logout", nil); out.StatusCode != http.StatusNoContent {
		t.Errorf("once more: got %s", out.Status)
	}

	here.signIn("alice")
	if out := here.do(http.MethodPost, "/auth/logout?everywhere=true", nil); out.StatusCode != http.StatusNoContent {
		t.Errorf("everywhere: got %s %s", out.Status, out.body)
	}
	is(here, http.StatusUnauthorized, "here, everywhere")
	is(there, http.StatusUnauthorized, "elsewhere, everywhere")
	is(others, http.StatusOK, "bob")
}

// A page of another origin cannot use a session, whatever it has the browser send.
func TestOtherOriginsCannotUseSessions(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	b := s.browser()
	b.signIn("olga")
	const change = `{"plan":"free"}`
	for name, tc := range map[string]struct {
		headers []string
		good    bool
	}{
		"this origin":           {[]string{"Sec-Fetch-Site", "same-origin", "Origin", s.url}, true},
		"typed":                 {[]string{"Sec-Fetch-Site", "none"}, true},
		"no browser":            {nil, true},
		"an old browser here":   {[]string{"Origin", s.url}, true},
		"another site":          {[]string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, false},
		"a neighbour":           {[]string{"Sec-Fetch-Site", "same-site", "Origin", "https://evil.127.0.0.1"}, false},
		"an old browser":        {[]string{"Origin", "https://evil.example"}, false},
		"a frame in a sandbox":  {[]string{"Origin", "null"}, false},
		"another port":          {[]string{"Origin", "https://127.0.0.1:1"}, false},
		"a form of another one": {[]string{"Sec-Fetch-Site", "cross-site", "Origin", "null"}, false},
	} {
		for _, call := range []struct{ method, path, body string }{
			{http.MethodGet, "/api/v1/users", ""}, {http.MethodPatch, "/api/v1/users/alice", change},
			{http.MethodGet, "/auth/session", ""},
		} {
			got := b.do(call.method, call.path, strings.NewReader(call.body),
				append([]string{"Content-Type", "application/json"}, tc.headers...)...)
			if (got.StatusCode == http.StatusForbidden) == tc.good || tc.good && got.StatusCode != http.StatusOK {
				t.Errorf("%s: %s %s: got %s %s", name, call.method, call.path, got.Status, got.body)
			}
		}
		if !tc.good {
			got := b.do(http.MethodPost, "/auth/logout", nil, tc.headers...)
			if got.StatusCode != http.StatusForbidden {
				t.Errorf("%s: signs out: got %s", name, got.Status)
			}
		}
	}
	if got, _ := b.who(); got != http.StatusOK {
		t.Errorf("after all that: got %d", got)
	}
}

// Who signs in is whom the AuthenticationConfiguration names.
func TestSignInNeedsTheConfiguration(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	people, err := access.OpenPeople(t.Context(), s.config)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ issuer, client, want string }{
		{"https://id.example", oidctest.ClientID, "issuer https://id.example: " + s.config + " does not name it"},
		{s.provider.URL, "x", `client "x": ` + s.config + ` has only ["usage"] among the audiences`},
	} {
		_, err := console.NewSignIn(console.SignInOptions{Issuer: tc.issuer, ClientID: tc.client}, people, nil, nil)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want that it says %q", err, tc.want)
		}
	}
}

// While the provider is away nobody signs in, and who has signed in goes on.
func TestProviderIsAway(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	s.provider.SetAway(true)
	b := s.browser()
	if got := b.get("/auth/login"); got.StatusCode != http.StatusServiceUnavailable ||
		got.Header.Get("Retry-After") == "" {
		t.Errorf("away: got %s %s", got.Status, got.body)
	}
	s.provider.SetAway(false)
	b.signIn("alice")
	address := b.atProvider("/auth/login", "alice")
	s.provider.SetAway(true)
	if got := b.get(address); got.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("away at the end: got %s %s", got.Status, got.body)
	}
	if got, user := b.who(); got != http.StatusOK || user != "alice" {
		t.Errorf("who is in: got %d %q", got, user)
	}
}

func TestSignInOptions(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*console.SignInOptions)
		want   string
	}{
		"good":         {func(*console.SignInOptions) {}, ""},
		"this machine": {func(o *console.SignInOptions) { o.ExternalURL = "http://localhost:8080" }, ""},
		"loopback":     {func(o *console.SignInOptions) { o.ExternalURL = "http://127.0.0.1:8080" }, ""},
		"no client":    {func(o *console.SignInOptions) { o.ClientID = "" }, "--sign-in-client-id"},
		"no openid":    {func(o *console.SignInOptions) { o.Scopes = []string{"email"} }, "--sign-in-scope"},
		"no URL":       {func(o *console.SignInOptions) { o.ExternalURL = "" }, "--external-url"},
		"a path":       {func(o *console.SignInOptions) { o.ExternalURL += "/usage" }, "nothing behind"},
		"a script": {func(o *console.SignInOptions) { o.UpgradeURL = "javascript:alert(1)" },
			"--upgrade-url"},
		"upgrade here": {func(o *console.SignInOptions) { o.UpgradeURL = "/billing" }, "http or https URL"},
		"upgrade":      {func(o *console.SignInOptions) { o.UpgradeURL = "https://app.example/b?c=d" }, ""},
		"plain":        {func(o *console.SignInOptions) { o.ExternalURL = "http://usage.example" }, "must be https"},
	} {
		opts := console.SignInOptions{Issuer: "https://id.example", ClientID: "usage", Scopes: []string{"openid"},
			ExternalURL: "https://usage.example"}
		tc.change(&opts)
		err := opts.Check()
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
	for _, l := range []access.SessionLimits{
		{Idle: time.Minute, Longest: time.Hour}, {Idle: 2 * time.Hour, Longest: time.Hour},
		{Idle: time.Hour, Longest: 8 * 24 * time.Hour},
	} {
		if l.Check() == nil {
			t.Errorf("%+v is taken", l)
		}
	}
}
