// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/oidctest"
	"github.com/cantonesescribe/usage-operator/internal/testing/portaltest"
)

const alicesStream = "/api/v1/usage/stream?user_id=alice"

// watching is what a test shows.
type watching struct {
	changed chan struct{}
	mu      sync.Mutex
	frame   metering.Frame
	alerts  [][]byte
	err     error
	stopped bool
}

func newWatching(frame metering.Frame, err error) *watching {
	w := &watching{changed: make(chan struct{}, 1)}
	w.show(frame, err)
	return w
}

func (w *watching) show(frame metering.Frame, err error, alerts ...[]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frame, w.err, w.alerts = frame, err, alerts
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *watching) Changed() <-chan struct{} { return w.changed }

func (w *watching) Look() (metering.Frame, [][]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.frame, w.alerts, w.err
}

func (w *watching) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
}

func someFrame(n int) metering.Frame {
	id := fmt.Sprint("id-", n)
	return metering.Frame{ID: id, Body: sseEvent("standing", id, fmt.Appendf(nil, `{"n":%d}`, n))}
}

// sink takes what is written, until it is full.
type sink struct {
	mu       sync.Mutex
	header   http.Header
	code     int
	body     bytes.Buffer
	full     bool
	deadline time.Time
}

func (s *sink) Header() http.Header { return s.header }

func (s *sink) WriteHeader(code int) { s.code = code }

func (s *sink) Write(b []byte) (int, error) {
	s.mu.Lock()
	full, deadline := s.full, s.deadline
	s.mu.Unlock()
	if full { // as a socket whose reader is asleep
		time.Sleep(time.Until(deadline))
		return 0, errors.New("i/o timeout")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.body.Write(b)
}

func (s *sink) Flush() {}

func (s *sink) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	return nil
}

// take returns what has been written since the last time.
func (s *sink) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.body.String()
	s.body.Reset()
	return text
}

// streaming is a stream of a handler that asks the test what to show.
type streaming struct {
	*sink
	shown *watching
	ended chan struct{}
	hang  context.CancelFunc
}

// startStream shows frame 1 first.
func startStream(t *testing.T, options Options, token, lastID string) *streaming {
	t.Helper()
	shown := newWatching(someFrame(1), nil)
	options.Watch = func(quota.Level) Watching { return shown }
	ctx, hang := context.WithCancel(t.Context())
	st := &streaming{sink: &sink{header: http.Header{}}, shown: shown, ended: make(chan struct{}), hang: hang}
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, alicesStream, http.NoBody)
	if cookie, is := strings.CutPrefix(token, cookieHeader); is {
		r.Header.Set("Cookie", cookie)
	} else {
		r.Header.Set("Authorization", token)
	}
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	h := New(options)
	go func() {
		defer close(st.ended)
		h.ServeHTTP(st, r)
	}()
	synctest.Wait()
	return st
}

func (st *streaming) over() bool {
	select {
	case <-st.ended:
		return true
	default:
		return false
	}
}

func TestStreamTellsWhatChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		draining, drain := context.WithCancel(t.Context())
		st := startStream(t, (&fake{}).options(draining, testAuth()), "Bearer reader", "")
		got := st.take()
		if st.code != 200 || st.header.Get("Content-Type") != "text/event-stream" ||
			!strings.HasPrefix(got, "retry: ") || !strings.HasSuffix(got,
			"\n\nevent: standing\nid: id-1\ndata: {\"n\":1}\n\n") {
			t.Fatalf("at first: %d %v %q", st.code, st.header, got)
		}
		step := func(what, want string) {
			t.Helper()
			synctest.Wait()
			if got := st.take(); got != want {
				t.Errorf("%s: got %q, want %q", what, got, want)
			}
		}
		st.shown.show(someFrame(1), nil)
		step("the same again", "")
		st.shown.show(someFrame(2), nil)
		step("another", "event: standing\nid: id-2\ndata: {\"n\":2}\n\n")
		st.shown.show(someFrame(2), nil, sseEvent("alert", "", []byte(`{}`)))
		step("an alert alone", "event: alert\ndata: {}\n\n")
		st.shown.show(someFrame(2), ledger.ErrUnavailable)
		step("the database is away", "")
		time.Sleep(pingEvery)
		step("after 15 s", ":\n\n")
		time.Sleep(20 * pingEvery)
		synctest.Wait()
		if got := st.take(); strings.Count(got, ":\n\n") != 20 || st.over() {
			t.Errorf("after 5 minutes: %q, over is %t", got, st.over())
		}
		drain()
		step("at the end of the service", "event: end\ndata: {\"reason\":\"shutdown\"}\n\n")
		if !st.over() || !st.shown.stopped {
			t.Error("the stream goes on")
		}
		st = startStream(t, (&fake{}).options(draining, testAuth()), "Bearer reader", "")
		if !st.over() || st.code != 503 || st.header.Get("Retry-After") == "" {
			t.Errorf("a stream that begins then: %d %v", st.code, st.header)
		}
	})
}

// The id of a standing is that of all that it says but of when, and what it says has the time of its own.
func TestStandingIsShown(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 10, 12, 0, 0, 5, time.UTC)
	account := func(name string) *quota.Account { return quota.Open(quota.AccountID{1}, name, freePlan(), now) }
	team := &metering.TeamUsage{Usage: ledger.Usage{Account: account("")}}
	team.Usage.Account.Team = &quota.Team{Name: noTime}
	for name, s := range map[string]*metering.Standing{
		eventStanding: {Usage: ledger.Usage{Account: account("alice")}},
		eventTeam:     {Usage: team.Usage, Team: team},
	} {
		var ids []string
		for range 2 {
			s.Now, team.Now = now, now
			frame, err := showStanding(s)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, frame.ID)
			_, data, _ := strings.Cut(string(frame.Body), "\ndata: ")
			var got, want map[string]any
			if err := json.Unmarshal([]byte(data), &got); err != nil {
				t.Fatalf("%s: %v", frame.Body, err)
			}
			says := any(currentUsage(s.Usage))
			if s.Team != nil {
				says = teamStanding(team)
			}
			direct, err := json.Marshal(says)
			if err != nil || json.Unmarshal(direct, &want) != nil {
				t.Fatal(err)
			}
			want["as_of"] = now.Format(time.RFC3339Nano)
			if !reflect.DeepEqual(got, want) || !strings.HasPrefix(string(frame.Body), "event: "+name+"\n") {
				t.Errorf("%s: got %v, want %v", name, got, want)
			}
			now = now.Add(time.Second)
		}
		if ids[0] != ids[1] {
			t.Errorf("%s: the ids are %v", name, ids)
		}
	}
}

func TestStreamIsResumed(t *testing.T) {
	t.Parallel()
	for id, again := range map[string]bool{
		"id-1": false, "id-2": true, "": true, "nonsense": true, strings.Repeat("x", maxEventID): true,
	} {
		synctest.Test(t, func(t *testing.T) {
			st := startStream(t, (&fake{}).options(t.Context(), testAuth()), "Bearer reader",
				id)
			if got := strings.Contains(st.take(), "id-1"); got != again {
				t.Errorf("after %.20q: sent is %t, want %t", id, got, again)
			}
			st.shown.show(someFrame(3), nil)
			synctest.Wait()
			if got := st.take(); !strings.Contains(got, "id-3") {
				t.Errorf("after %.20q: got %q", id, got)
			}
			st.hang()
			synctest.Wait()
			if !st.over() || !st.shown.stopped {
				t.Errorf("after %.20q: goes on though the caller is gone", id)
			}
		})
	}
}

func TestStreamEndsWithTheRight(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(auth *access.Auth)
		after  time.Duration
		want   string
	}{
		"the right is withdrawn": {func(auth *access.Auth) {
			auth.Authorizer = authorizer.AuthorizerFunc(
				func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
					return authorizer.DecisionNoOpinion, "", nil
				})
		}, 30 * time.Second, `"reason":"forbidden"`},
		"nobody knows": {func(auth *access.Auth) {
			auth.Authorizer = authorizer.AuthorizerFunc(
				func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
					return authorizer.DecisionNoOpinion, "", errors.New("connection refused")
				})
		}, 90 * time.Second, `"reason":"undecided"`},
		"the token is for another audience": {func(auth *access.Auth) {
			auth.Audiences = []string{"another"}
		}, 30 * time.Second, `"reason":"unauthorized"`},
	} {
		synctest.Test(t, func(t *testing.T) {
			auth := testAuth()
			st := startStream(t, (&fake{}).options(t.Context(), auth), "Bearer reader", "")
			time.Sleep(time.Minute + time.Second)
			synctest.Wait() // it has looked at the right
			tc.change(auth)
			synctest.Wait()
			st.take()
			time.Sleep(tc.after - 2*time.Second)
			synctest.Wait()
			if st.over() || strings.Contains(st.take(), "event: end") {
				t.Errorf("%s: ends early", name)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			got := st.take()
			if !st.over() || !strings.Contains(got, "event: end\n") || !strings.Contains(got, tc.want) {
				t.Errorf("%s: over is %t with %q, want %s", name, st.over(), got, tc.want)
			}
		})
	}
}

func TestStreamOfPortalToken(t *testing.T) {
	t.Parallel()
	for name, revoke := range map[string]bool{"it is revoked": true, "it expires": false} {
		synctest.Test(t, func(t *testing.T) {
			auth := testAuth()
			auth.Portal = access.NewPortal(portaltest.New(time.Time{}), nil)
			given, err := auth.Portal.Mint(t.Context(), accountID, "alice", quota.PortalRead, time.Minute,
				quota.SystemActor)
			if err != nil {
				t.Fatal(err)
			}
			st := startStream(t, (&fake{}).options(t.Context(), auth),
				"Bearer "+given.Token, "")
			if !strings.Contains(st.take(), "id-1") {
				t.Fatalf("%s: %d", name, st.code)
			}
			if revoke {
				err := auth.Portal.Revoke(t.Context(), accountID, &given.ID, quota.SystemActor)
				if err != nil {
					t.Fatal(err)
				}
			} else {
				time.Sleep(time.Minute)
			}
			time.Sleep(30 * time.Second)
			synctest.Wait()
			if got := st.take(); !st.over() || !strings.Contains(got, `"reason":"unauthorized"`) {
				t.Errorf("%s: over is %t with %q", name, st.over(), got)
			}
		})
	}
}

// A stream ends with its session, and does not keep that from ending.
func TestStreamOfSession(t *testing.T) {
	t.Parallel()
	people := peopleOf(t, &oidctest.Provider{URL: "https://id.example", CA: someCA(t)})
	for name, signsOut := range map[string]bool{"signed out": true, "over": false} {
		synctest.Test(t, func(t *testing.T) {
			auth, store := testAuth(), &sessionStore{}
			var err error
			auth.Sessions, err = access.NewSessions(store, people,
				access.SessionLimits{Idle: time.Hour, Longest: time.Hour}, "https://usage.example")
			if err != nil {
				t.Fatal(err)
			}
			id := strings.Repeat("A", 43)
			hash := sha256.Sum256([]byte(id))
			if _, err := store.BeginSession(t.Context(), ledger.Session{Hash: hash[:], Issuer: "https://id.example",
				Username: "oidc:alice", UserID: "alice"}, 5*time.Minute, time.Hour, nil); err != nil {
				t.Fatal(err)
			}
			st := startStream(t, (&fake{}).options(t.Context(), auth), cookieHeader+access.SessionCookie+"="+id, "")
			if !strings.Contains(st.take(), "id-1") {
				t.Fatalf("%s: %d", name, st.code)
			}
			time.Sleep(4 * time.Minute)
			synctest.Wait()
			if st.over() || store.touched.Load() > 0 {
				t.Errorf("%s: over is %t, and used %d times", name, st.over(), store.touched.Load())
			}
			if signsOut {
				_ = store.EndSession(t.Context(), hash[:])
			} else {
				time.Sleep(time.Minute)
			}
			time.Sleep(30 * time.Second)
			synctest.Wait()
			if got := st.take(); !st.over() || !strings.Contains(got, `"reason":"unauthorized"`) {
				t.Errorf("%s: over is %t with %q", name, st.over(), got)
			}
		})
	}
}

// someCA is a certificate that nothing is signed with.
func someCA(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

// wantCut waits for as long as a caller has to read what has just been sent, in a bubble of synctest.
func wantCut(t *testing.T, over func() bool, shown *watching) {
	t.Helper()
	time.Sleep(writeTimeout - time.Second)
	synctest.Wait()
	if over() {
		t.Error("cut too soon")
	}
	time.Sleep(time.Second)
	synctest.Wait()
	if !over() || !shown.stopped {
		t.Error("goes on though nobody reads")
	}
}

func TestSlowReadersAreCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := startStream(t, (&fake{}).options(t.Context(), testAuth()), "Bearer reader", "")
		st.mu.Lock()
		st.full = true
		st.mu.Unlock()
		st.shown.show(someFrame(2), nil)
		wantCut(t, st.over, st.shown)
	})
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	open := newOpenStreams(StreamLimits{All: 5, Subject: 2}, (&fake{}).options(t.Context(), nil).Registry)
	enter := func(subject string) (func(), *Problem) {
		leave, err := open.enter(subject)
		if err != nil {
			return nil, classify(err)
		}
		return leave, nil
	}
	leave, _ := enter("alice")
	if _, p := enter("alice"); p != nil {
		t.Fatal(p)
	}
	if _, p := enter("alice"); p == nil || p.Status != 429 || p.RetryAfter < 5 ||
		!strings.Contains(p.Detail, "about alice as many streams are open at this replica as may be: 2") {
		t.Errorf("a third one about alice: %+v", p)
	}
	leave()
	leave() // no more is free than was taken
	if _, p := enter("alice"); p != nil {
		t.Errorf("one has ended: %+v", p)
	}
	if _, p := enter("alice"); p == nil {
		t.Error("one has ended, and two are let in")
	}
	for i := range 4 {
		_, p := enter(fmt.Sprint("user-", i))
		if full := i == 3; (p != nil) != full || full && !strings.Contains(p.Detail, "may be: 5") {
			t.Errorf("stream %d: %+v", i+3, p)
		}
	}
	if got := open.count(); got != 5 {
		t.Errorf("%d are open", got)
	}
}

func TestStreamsThatDoNotBegin(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		path, token, id string
		err             error
		code            int
		want            string
	}{
		"nobody in particular": {"/api/v1/usage/stream", "Bearer reader", "", nil, 422, "user_id or team is required"},
		"two": {"/api/v1/usage/stream?user_id=alice&team=newsroom", "Bearer reader", "", nil, 422,
			"a stream is about one of them"},
		"another user": {"/api/v1/usage/stream?user_id=bob", "Bearer reader", "", nil, 403, "verb spend or get"},
		"another team": {"/api/v1/usage/stream?team=sports", "Bearer manager", "", nil, 403, "verb get or manage"},
		"no team's":    {"/api/v1/usage/stream?team=a+b", "Bearer manager", "", nil, 422, "team"},
		"a long id": {alicesStream, "Bearer reader", strings.Repeat("x", maxEventID+1), nil, 400,
			"Last-Event-ID: has 257 bytes, at most 256 may be"},
		"unknown": {alicesStream, "Bearer reader", "", quota.Unknown("alice", quota.UnknownUser), 404, "alice"},
		"away":    {alicesStream, "Bearer reader", "", ledger.ErrUnavailable, 503, "unavailable"},
		"live":    {"/api/v1/live", "Bearer manager", "", nil, 403, "verb get on resource system"},
	} {
		w := do(handler(t, &fake{err: tc.err}), request{method: "GET", path: tc.path, token: tc.token,
			headers: map[string]string{"Last-Event-ID": tc.id}})
		if w.Code != tc.code || !strings.Contains(w.Body.String(), tc.want) {
			t.Errorf("%s: got %d %s, want %d with %s", name, w.Code, w.Body, tc.code, tc.want)
		}
	}
}

// sse is an event as a client reads it.
type sse struct{ name, id, data string }

// events reads a stream of a server.
type events struct {
	t    *testing.T
	resp *http.Response
	read chan sse
	// failed is why it ended, once read is closed; nil where the service ended it.
	failed error
}

func connect(t *testing.T, url, token, lastID string) *events {
	t.Helper()
	return connectBy(t, http.DefaultClient, url, token, lastID)
}

func connectBy(t *testing.T, client *http.Client, url, token, lastID string) *events {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", token)
	r.Header.Set("Last-Event-ID", lastID)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %d %s", url, resp.StatusCode, body)
	}
	e := &events{t: t, resp: resp, read: make(chan sse, 1000)}
	go func() {
		defer close(e.read)
		var now sse
		lines := bufio.NewScanner(resp.Body)
		defer func() { e.failed = lines.Err() }()
		for lines.Scan() {
			field, value, _ := strings.Cut(lines.Text(), ": ")
			switch field {
			case "event":
				now.name = value
			case "id":
				now.id = value
			case "data":
				now.data = value
			case "":
				if now.name != "" {
					e.read <- now
				}
				now = sse{}
			}
		}
	}()
	return e
}

// next returns the next event of that name, which comes within the time.
func (e *events) next(name string, within time.Duration) (id string, data map[string]any) {
	e.t.Helper()
	late := time.After(within)
	for {
		select {
		case got, open := <-e.read:
			if !open {
				e.t.Fatalf("the stream has ended before event %s", name)
			}
			if got.name != name {
				continue
			}
			if err := json.Unmarshal([]byte(got.data), &data); err != nil {
				e.t.Fatalf("%s: %v", got.data, err)
			}
			return got.id, data
		case <-late:
			e.t.Fatalf("no event %s within %s", name, within)
		}
	}
}

// breaking is a watching whose look has a defect, from the second one on.
type breaking struct {
	*watching
	looks atomic.Int32
}

func (b *breaking) Look() (metering.Frame, [][]byte, error) {
	if b.looks.Add(1) > 1 {
		panic("by the test")
	}
	return b.watching.Look()
}

// wired is a watching that says when it was stopped.
type wired struct {
	*watching
	over chan<- struct{}
}

func (w wired) Stop() {
	w.watching.Stop()
	w.over <- struct{}{}
}

// wire is a server of streams.
type wire struct {
	*httptest.Server
	drain   context.CancelFunc
	ongoing sync.WaitGroup
	// returned has one for each handler that has, and over one for each stream that has ended.
	returned, over chan struct{}

	mu    sync.Mutex
	shown []*watching
}

func (w *wire) watch(quota.Level) Watching {
	w.mu.Lock()
	defer w.mu.Unlock()
	shown := newWatching(someFrame(1), nil)
	w.shown = append(w.shown, shown)
	return wired{shown, w.over}
}

// show shows another frame in all streams.
func (w *wire) show(frame metering.Frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, shown := range w.shown {
		shown.show(frame, nil)
	}
}

func newWire(t *testing.T, edit func(*Options)) *wire {
	t.Helper()
	draining, drain := context.WithCancel(t.Context())
	w := &wire{drain: drain, returned: make(chan struct{}, 8), over: make(chan struct{}, 8)}
	options := (&fake{}).options(draining, testAuth())
	options.Ongoing = &w.ongoing
	options.Watch = w.watch
	if edit != nil {
		edit(&options)
	}
	h := New(options)
	w.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(rw, r)
		w.returned <- struct{}{}
	}))
	t.Cleanup(func() {
		drain()
		w.Close()
		w.ongoing.Wait()
	})
	return w
}

// TestStreamOnEveryProtocol reads a stream over each protocol, has the caller go away in the one case and the service
// end in the other. Over HTTP/1 nothing of the server's is kept meanwhile.
func TestStreamOnEveryProtocol(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ secure, two bool }{
		"HTTP/1.1": {}, "HTTP/1.1 with TLS": {secure: true}, "HTTP/2": {secure: true, two: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t, nil)
			w.EnableHTTP2 = tc.two
			start := w.Start
			if tc.secure {
				start = w.StartTLS
			}
			start()
			leaves := connectBy(t, w.Client(), w.URL+alicesStream, "Bearer reader", "")
			stays := connectBy(t, w.Client(), w.URL+alicesStream, "Bearer reader", "")
			for _, e := range []*events{leaves, stays} {
				if got := e.resp.Proto; got != "HTTP/1.1" && !tc.two || got != "HTTP/2.0" && tc.two {
					t.Fatalf("speaks %s", got)
				}
				if e.resp.ContentLength != -1 || len(e.resp.TransferEncoding) > 0 ||
					e.resp.Header.Get("Content-Type") != "text/event-stream" {
					t.Errorf("got %d %v %v", e.resp.ContentLength, e.resp.TransferEncoding, e.resp.Header)
				}
				if id, _ := e.next("standing", time.Minute); id != "id-1" {
					t.Errorf("first: %s", id)
				}
			}
			if !tc.two {
				<-w.returned
				<-w.returned
			}
			_ = leaves.resp.Body.Close()
			<-w.over
			w.show(someFrame(2))
			if id, _ := stays.next("standing", time.Minute); id != "id-2" {
				t.Errorf("then: %s", id)
			}
			w.drain()
			if _, end := stays.next("end", time.Minute); end["reason"] != "shutdown" {
				t.Errorf("at last: %v", end)
			}
			if _, open := <-stays.read; open || stays.failed != nil {
				t.Errorf("after its end: %t, %v", open, stays.failed)
			}
			<-w.over
			w.ongoing.Wait()
		})
	}
}

// What a client of HTTP/1.0 gets is the same, one that asks for the header alone gets it, and what somebody sends
// behind a request changes nothing unless there is no end to it.
func TestStreamOnTheWire(t *testing.T) {
	t.Parallel()
	w := newWire(t, nil)
	w.Start()
	const (
		asks    = " HTTP/1.%d\r\nHost: usaged\r\nAuthorization: Bearer reader\r\n\r\n%s"
		another = "GET / HTTP/1.1\r\nHost: usaged\r\n\r\n"
	)
	for name, tc := range map[string]struct {
		ask  string
		body bool
	}{
		"1.0":    {fmt.Sprintf("GET "+alicesStream+asks, 0, ""), true},
		"HEAD":   {fmt.Sprintf("HEAD "+alicesStream+asks, 1, ""), false},
		"behind": {fmt.Sprintf("GET "+alicesStream+asks, 1, another), true},
	} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", w.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, tc.ask); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(conn)
		if status, err := in.ReadString('\n'); err != nil || status != "HTTP/1.1 200 OK\r\n" && name != "1.0" ||
			!strings.HasSuffix(status, " 200 OK\r\n") {
			t.Errorf("%s: %q, %v", name, status, err)
		}
		head, err := textproto.NewReader(in).ReadMIMEHeader()
		if err != nil || head.Get("Content-Type") != "text/event-stream" || head.Get("Transfer-Encoding") != "" {
			t.Errorf("%s: %v, %v", name, head, err)
		}
		if tc.body {
			if head.Get("Connection") != "close" && name != "1.0" {
				t.Errorf("%s: %v", name, head)
			}
			for _, want := range []string{"retry: ", "\n", "event: standing\n", "id: id-1\n"} {
				if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, want) {
					t.Errorf("%s: %q, %v, want %q", name, line, err, want)
				}
			}
			if _, err := io.WriteString(conn, another); err != nil { // which does not hide that the caller is gone then
				t.Fatal(err)
			}
		} else {
			_ = conn.(*net.TCPConn).CloseWrite()
			if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
				t.Errorf("%s: %q, %v", name, rest, err)
			}
		}
		_ = conn.Close()
		<-w.over
	}
	endless, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", w.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = endless.Close() }()
	ask := fmt.Sprintf("GET "+alicesStream+asks, 1, strings.Repeat(another, 1<<12))
	go func() { _, _ = io.WriteString(endless, ask) }()
	<-w.over
}

// hijackable is a sink whose connection can be taken over.
type hijackable struct {
	*sink
	hijack func() net.Conn
}

func (h *hijackable) SetReadDeadline(time.Time) error { return nil }

func (h *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.hijack(), nil, nil }

// A stream is among those that are ongoing before its connection is taken over, reads whatever its caller sends behind
// the request, and ends when the caller does not read.
func TestStreamOfAConnectionThatIsTakenOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		options := (&fake{}).options(t.Context(), testAuth())
		options.Ongoing = new(sync.WaitGroup)
		shown := newWatching(someFrame(1), nil)
		options.Watch = func(quota.Level) Watching { return shown }
		var missed, over atomic.Bool
		ours, theirs := net.Pipe()
		w := &hijackable{sink: &sink{header: http.Header{}}, hijack: func() net.Conn {
			go func() {
				options.Ongoing.Wait()
				over.Store(true)
			}()
			synctest.Wait()
			missed.Store(over.Load())
			return ours
		}}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, alicesStream, http.NoBody)
		r.Header.Set("Authorization", "Bearer reader")
		New(options).ServeHTTP(w, r)
		if missed.Load() {
			t.Error("the connection is taken over, and nothing waits for its stream")
		}
		if _, err := theirs.Write(make([]byte, 1<<10)); err != nil {
			t.Error(err)
		}
		wantCut(t, over.Load, shown)
		_ = theirs.Close()
	})
}

func TestDefectEndsOneStream(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer
	shown := newWatching(someFrame(1), nil)
	w := newWire(t, func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(&logs, nil))
		o.Watch = func(quota.Level) Watching { return &breaking{watching: shown} }
	})
	w.Start()
	e := connectBy(t, w.Client(), w.URL+alicesStream, "Bearer reader", "")
	e.next("standing", time.Minute)
	shown.show(someFrame(2), nil)
	if got, open := <-e.read; open {
		t.Errorf("got %v", got)
	}
	w.ongoing.Wait()
	if !shown.stopped || !strings.Contains(logs.String(), "by the test") {
		t.Errorf("stopped %t, logged %s", shown.stopped, &logs)
	}
}

// What one replica commits, those see who have a stream of another one, within a second; and an alert with it.
func TestStreamOnTheRealStore(t *testing.T) {
	t.Parallel()
	dsn := ledgertest.New(t)
	options, service := storeOptions(t, dsn, metering.Options{AutoRegister: true}, false, testAuth())
	options.Ongoing = new(sync.WaitGroup)
	server := httptest.NewServer(New(options))
	t.Cleanup(func() { // after the streams have ended
		server.Close()
		options.Ongoing.Wait()
	})
	another := onDatabase(t, dsn, metering.Options{AutoRegister: true}, false)

	alice := connect(t, server.URL+alicesStream, "Bearer reader", "")
	id, first := alice.next("standing", 10*time.Second)
	if id == "" || first["user_id"] != "alice" || first["used_credits"] != 0.0 {
		t.Fatalf("at first: %s %v", id, first)
	}
	// A margin for a machine that does other things; the time itself is that of the interval.
	const soon = 5 * time.Second
	adm := must(t, another, request{body: work(27), key: "one"}, 201)
	for {
		if _, now := alice.next("standing", soon); now["running"] == 1.0 && now["reserved_credits"] == 27.0 {
			break
		}
	}
	must(t, another, request{path: fmt.Sprint("/api/v1/admissions/", adm["id"], "/complete"),
		body: `{"duration_seconds":1620}`, token: fmt.Sprint("Lease ", adm["lease_token"])}, 200)
	for {
		var now map[string]any
		if id, now = alice.next("standing", soon); now["used_credits"] == 27.0 && now["running"] == 0.0 {
			break
		}
	}
	if _, alert := alice.next("alert", soon); alert["kind"] == "" || alert["message"] == "" {
		t.Errorf("told: %v", alert)
	}
	again := connect(t, server.URL+alicesStream, "Bearer reader", id)
	plan, err := service.Plans(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plan {
		if p.Default {
			p.Plan.Limits.Credits = quota.AtMost(quota.WholeCredits(77))
			if _, err := service.ApplyPlan(t.Context(), *p, "test"); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, e := range map[string]*events{"the first": alice, "the one that goes on": again} {
		if _, now := e.next("standing", soon); now["limit_credits"] != 77.0 {
			t.Errorf("%s, when the plan is another: %v", name, now)
		}
	}

	live := connect(t, server.URL+"/api/v1/live", "Bearer reader", "")
	for range 2 {
		_, now := live.next("live", soon)
		if now["replica"] != "r1" || now["database_up"] != true || now["running"] != 0.0 || now["streams"] != 3.0 ||
			now["in_flight"] != 3.0 ||
			number(now["today"].(map[string]any)["credits"]) != "27" ||
			number(now["ended"].(map[string]any)["ended"]) != "1" {
			t.Errorf("live: %v", now)
		}
	}
}

// Whatever id a client sends, it gets the standing, once, unless it has it.
func FuzzLastEventID(f *testing.F) {
	f.Add("id-1")
	f.Add("")
	f.Add("\x00")
	f.Fuzz(func(t *testing.T, id string) {
		draining, drain := context.WithCancel(t.Context())
		defer drain()
		shown := newWatching(someFrame(1), nil)
		options := (&fake{}).options(draining, testAuth())
		options.Watch = func(quota.Level) Watching { return shown }
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, alicesStream, http.NoBody)
		r.Header.Set("Authorization", "Bearer reader")
		r.Header["Last-Event-Id"] = []string{id}
		w := &cutOff{sink: sink{header: http.Header{}}, cut: drain}
		New(options).ServeHTTP(w, r)
		sent := strings.Count(w.take(), "id: id-1")
		switch {
		case len(id) > maxEventID:
			if w.code != 400 {
				t.Errorf("%q: %d", id, w.code)
			}
		case w.code != 200 || (sent == 1) == (id == "id-1") || sent > 1:
			t.Errorf("%q: %d, sent %d times", id, w.code, sent)
		}
	})
}

// cutOff has the service end once something was written.
type cutOff struct {
	sink
	cut context.CancelFunc
}

func (c *cutOff) Write(b []byte) (int, error) {
	defer c.cut()
	return c.sink.Write(b)
}
