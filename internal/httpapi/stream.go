// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// pingEvery keeps proxies from taking silence for the end, and finds callers who are gone.
	pingEvery = 15 * time.Second
	// pingsPerCheck is how many pings lie between two looks at the caller's right: 30 s.
	pingsPerCheck = 2
	// undecidedChecks is how often in a row nobody may know of the right before the stream ends.
	undecidedChecks = 3
	// writeTimeout is how long a caller may take to read what is sent.
	writeTimeout = 10 * time.Second
	// reconnect is the least time after which browsers connect again, up to five times of it: replicas that end should
	// not have all of their callers come back at once.
	reconnect = time.Second
	// maxBehind is how many bytes a caller may send behind its request, over HTTP/1, before that ends the stream.
	maxBehind = 16 << 10
	// maxEventID is the longest id that is looked at; those of this service are shorter.
	maxEventID = 256
)

// The events of streams: members of UsageStream and LiveStream.
const (
	eventStanding = "standing"
	eventTeam     = "team"
	eventAlert    = "alert"
	eventLive     = "live"
	eventEnd      = "end"
)

// asOf begins the member of a standing that says when it was, and noTime is that member of the zero time.
const (
	asOf   = `"as_of":`
	noTime = asOf + `"0001-01-01T00:00:00Z"`
)

// StreamLimits bound the streams of one process. Both are more than 0.
type StreamLimits struct {
	// All are all of them, and Subject those about one user, one team, or the service itself.
	All, Subject int
}

// DefaultStreamLimits are enough for the tabs of a person, and for a replica with a gigabyte.
var DefaultStreamLimits = StreamLimits{All: 20_000, Subject: 16}

// Watching is how one user or team is watched; *metering.Watch is one.
type Watching interface {
	Changed() <-chan struct{}
	Look() (frame metering.Frame, alerts [][]byte, err error)
	Stop()
}

// openStreams counts the streams that are open.
type openStreams struct {
	limits StreamLimits

	mu  sync.Mutex
	of  map[string]int
	all int
}

func newOpenStreams(limits StreamLimits, registry prometheus.Registerer) *openStreams {
	limits.All = cmp.Or(limits.All, DefaultStreamLimits.All)
	limits.Subject = cmp.Or(limits.Subject, DefaultStreamLimits.Subject)
	o := &openStreams{limits: limits, of: map[string]int{}}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "usaged_http_streams", Help: "Streams of server-sent events that are open.",
	}, func() float64 { return float64(o.count()) }))
	return o
}

func (o *openStreams) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all
}

// enter counts another stream about a subject, or refuses it.
func (o *openStreams) enter(subject string) (leave func(), err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.of[subject] >= o.limits.Subject:
		return nil, tooManyStreams("about %s as many streams are open at this replica as may be: %d", subject,
			o.limits.Subject)
	case o.all >= o.limits.All:
		return nil, tooManyStreams("as many streams are open at this replica as may be: %d", o.limits.All)
	}
	o.of[subject]++
	o.all++
	return sync.OnceFunc(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.all--
		if o.of[subject]--; o.of[subject] == 0 {
			delete(o.of, subject)
		}
	}), nil
}

func tooManyStreams(format string, args ...any) error {
	p := *classify(problem(http.StatusTooManyRequests, "too-many-streams", format, args...))
	p.RetryAfter = wholeSeconds(retrySoon) + rand.Int64N(wholeSeconds(retrySoon)+1)
	return &problemError{p}
}

// stream is an answer that goes on.
type stream struct {
	server *server
	ctx    context.Context //nolint:containedctx // the answer is written after the handler has returned
	// first is what is sent before anything has happened.
	first []byte
	// right says whether the caller may still see it.
	right func(ctx context.Context) error
	// next has a token once look has something to send, or why there is nothing any more.
	next <-chan struct{}
	look func(ctx context.Context) (events []byte, end *StreamEnd)
	// stop is called when it ends.
	stop func()
}

// VisitStreamUsageResponse writes the stream.
func (st *stream) VisitStreamUsageResponse(w http.ResponseWriter) error { return st.write(w) }

// VisitStreamLiveResponse writes the stream.
func (st *stream) VisitStreamLiveResponse(w http.ResponseWriter) error { return st.write(w) }

// write answers with a stream. It has no error: whoever could be told is gone.
//
// A connection of HTTP/1 is taken over from the server. The server would keep its goroutine, with the stack of a whole
// request, and its buffers for as long as the stream is open, which is most of the memory that a stream takes. Those of
// HTTP/2 are shared by all requests of a connection, so there the handler goes on.
func (st *stream) write(w http.ResponseWriter) error {
	rc, r := http.NewResponseController(w), callerFrom(st.ctx).request
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	if r.ProtoMajor == 1 {
		h.Set("Transfer-Encoding", "identity") // not in chunks: the stream ends where its connection does
	}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		st.stop()
		return nil
	}
	_ = rc.SetReadDeadline(time.Time{}) // the bound of a request; that it is not supported is a test's
	_ = rc.Flush()
	// Counted while the connection is the server's still: once it is not, the server waits for it no longer, and who
	// waits for those that are ongoing must find it among them.
	st.server.ongoing.Add(1)
	if conn, _, err := rc.Hijack(); err == nil {
		st.server.live.inFlight.Add(1) // as it was until the handler returned
		go func() {
			defer st.server.ongoing.Done()
			defer st.server.live.inFlight.Add(-1)
			st.own(conn)
		}()
		return nil
	}
	st.server.ongoing.Done()
	st.run(st.ctx, func(events []byte) error {
		_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := w.Write(events); err != nil {
			return err
		}
		return rc.Flush()
	})
	return nil
}

// own writes the stream to a connection that nobody else has any more.
func (st *stream) own(conn net.Conn) {
	defer func() {
		if p := recover(); p != nil {
			st.server.log.Error("a stream ended by a defect", "panic", p, "stack", string(debug.Stack()))
		}
		_ = conn.Close()
	}()
	ctx, gone := context.WithCancel(context.WithoutCancel(st.ctx))
	defer gone()
	go func() {
		// What a caller sends behind its request is thrown away, so that its end is noticed. Where it was left unread
		// the kernel would answer our own end with a reset, and the last event could be lost to it.
		defer gone()
		into := make([]byte, 64)
		for behind := 0; behind < maxBehind; {
			n, err := conn.Read(into)
			if err != nil {
				return
			}
			behind += n
		}
	}()
	st.run(ctx, func(events []byte) error {
		_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err := conn.Write(events)
		return err
	})
}

// run sends events until the caller is gone or may see them no longer, or the service ends.
func (st *stream) run(ctx context.Context, send func(events []byte) error) {
	defer st.stop()
	begin := fmt.Appendf(nil, "retry: %d\n\n", (reconnect + rand.N(4*reconnect)).Milliseconds())
	if send(append(begin, st.first...)) != nil {
		return
	}
	st.first = nil
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	undecided := 0
	for pings := 1; ; {
		select {
		case <-ctx.Done():
			return
		case <-st.server.draining.Done():
			_ = send(endEvent(&StreamEnd{Reason: StreamEndReasonShutdown}))
			return
		case <-st.next:
			events, end := st.look(ctx)
			if end != nil {
				events = append(bytes.Clone(events), endEvent(end)...)
			}
			if len(events) > 0 && send(events) != nil || end != nil {
				return
			}
		case <-ping.C:
			if pings++; pings > pingsPerCheck {
				pings = 1
				if end := st.checked(ctx, &undecided); end != nil {
					_ = send(endEvent(end))
					return
				}
			}
			if send([]byte(":\n\n")) != nil {
				return
			}
		}
	}
}

// checked looks at the caller's credential and right once more, and says why the stream ends; nil if it does not.
func (st *stream) checked(ctx context.Context, undecided *int) *StreamEnd {
	c := callerFrom(ctx)
	fresh, err := st.server.identify(c.request.WithContext(ctx), true)
	if err == nil && (fresh.user == nil || fresh.user.GetName() != c.user.GetName()) {
		err = unauthorized("the token is somebody else's now")
	}
	if err == nil {
		fresh.operation, fresh.rates, fresh.request = c.operation, c.rates, c.request
		err = st.right(context.WithValue(ctx, callerKey{}, fresh))
	}
	if err == nil {
		*undecided = 0
		return nil
	}
	p := classify(err)
	switch p.Status {
	case http.StatusUnauthorized, http.StatusBadRequest:
		return &StreamEnd{Reason: StreamEndReasonUnauthorized, Detail: p.Detail}
	case http.StatusForbidden:
		return &StreamEnd{Reason: StreamEndReasonForbidden, Detail: p.Detail}
	}
	if *undecided++; *undecided < undecidedChecks {
		return nil
	}
	return &StreamEnd{Reason: StreamEndReasonUndecided, Detail: p.Detail}
}

// sseEvent is one event as it is sent. data is JSON in one line.
func sseEvent(name, id string, data []byte) []byte {
	b := make([]byte, 0, len(name)+len(id)+len(data)+24)
	b = append(append(b, "event: "...), name...)
	if id != "" {
		b = append(append(b, "\nid: "...), id...)
	}
	b = append(append(b, "\ndata: "...), data...)
	return append(b, "\n\n"...)
}

func endEvent(end *StreamEnd) []byte {
	data, err := json.Marshal(end)
	if err != nil {
		return nil // a struct of strings can be encoded
	}
	return sseEvent(eventEnd, "", data)
}

// StreamUsage implements GET /api/v1/usage/stream.
func (s *server) StreamUsage(ctx context.Context, r StreamUsageRequestObject) (StreamUsageResponseObject, error) {
	of, right, err := s.watchable(ctx, r.Params.UserId, r.Params.Team)
	if err != nil {
		return nil, err
	}
	if len(r.Params.LastEventID) > maxEventID {
		return nil, problem(http.StatusBadRequest, "malformed-request",
			"Last-Event-ID: has %d bytes, at most %d may be", len(r.Params.LastEventID), maxEventID)
	}
	if err := s.serving(ctx); err != nil {
		return nil, unavailable(retryNow, "this replica is about to end: another one answers")
	}
	leave, err := s.open.enter(fmt.Sprintf("%s %q", of.Kind, of.Name))
	if err != nil {
		return nil, err
	}
	watch := s.watch(of)
	stop := func() {
		watch.Stop()
		leave()
	}
	// The first look is waited for: what it finds wrong has a status of its own.
	select {
	case <-watch.Changed():
	case <-ctx.Done():
		stop()
		return nil, ctx.Err()
	}
	last := r.Params.LastEventID
	frame, _, err := watch.Look()
	if err != nil {
		stop()
		return nil, err
	}
	first := frame.Body
	if frame.ID == last {
		first = nil
	}
	last = frame.ID
	return &stream{server: s, ctx: ctx, right: right, stop: stop, next: watch.Changed(), first: first,
		look: func(context.Context) ([]byte, *StreamEnd) {
			frame, alerts, err := watch.Look()
			if err != nil {
				p := classify(err)
				if p.Status < http.StatusInternalServerError {
					return nil, &StreamEnd{Reason: StreamEndReasonGone, Detail: p.Detail}
				}
				return nil, nil // it is read again
			}
			var events []byte
			if frame.ID != last {
				events, last = frame.Body, frame.ID
			}
			for _, a := range alerts {
				events = append(slices.Clip(events), a...)
			}
			return events, nil
		}}, nil
}

// watchable says whom a stream is about, and what right that takes.
func (s *server) watchable(
	ctx context.Context, userID, team string,
) (of quota.Level, right func(context.Context) error, err error) {
	if team != "" && userID != "" {
		return of, nil, invalid("user_id: %.64q and team: %.64q are given, a stream is about one of them", userID, team)
	}
	if team != "" {
		of = quota.Level{Kind: quota.LevelTeam, Name: team}
		right = func(ctx context.Context) error { return s.mayOn(ctx, readTeam, access.ResourceTeams, team) }
		if err := checkTeam("team", team); err != nil {
			return of, nil, err
		}
		return of, right, right(ctx)
	}
	if userID == "" {
		switch who := callerFrom(ctx).user.(type) {
		case *access.Person:
			userID = who.UserID
		case *access.PortalUser:
			userID = who.UserID
		}
	}
	if userID == "" {
		return of, nil, invalid("user_id or team is required: the caller is no user whom a stream could be about")
	}
	if err := checkUserID(userID); err != nil {
		return of, nil, err
	}
	right = func(ctx context.Context) error {
		_, err := s.right(ctx, userID)
		return err
	}
	return quota.Level{Kind: quota.LevelUser, Name: userID}, right, s.may(ctx, userID)
}

// Shown is how standings and alerts are shown in streams.
func Shown() metering.Show { return metering.Show{Standing: showStanding, Alert: showAlert} }

// showStanding makes the event of a standing. Its id is made of all that it says but of when.
func showStanding(s *metering.Standing) (metering.Frame, error) {
	var says any
	name := eventStanding
	if s.Team != nil {
		name, says = eventTeam, teamStanding(s.Team)
	} else {
		u := currentUsage(s.Usage)
		u.AsOf = time.Time{}
		says = u
	}
	timeless, err := json.Marshal(says)
	if err != nil {
		return metering.Frame{}, err
	}
	at, err := json.Marshal(s.Now)
	if err != nil {
		return metering.Frame{}, err
	}
	// It is encoded once, and the time put in afterwards: no string in JSON can hold a member, for its quotes would be
	// escaped.
	data := bytes.Replace(timeless, []byte(noTime), append([]byte(asOf), at...), 1)
	sum := sha256.Sum256(timeless)
	id := base64.RawURLEncoding.EncodeToString(sum[:12])
	return metering.Frame{ID: id, Body: sseEvent(name, id, data)}, nil
}

func showAlert(a *ledger.Alert) ([]byte, error) {
	data, err := json.Marshal(encodeAlert(a, nil))
	return sseEvent(eventAlert, "", data), err
}

func teamStanding(u *metering.TeamUsage) TeamStanding {
	on := quota.Over(u.Usage.Account, u.Above)
	out := TeamStanding{
		Team: u.Usage.Account.Team.Name, Levels: levelStandings(on, u.Now), EffectiveLimits: []EffectiveLimit{},
	}
	if u.Usage.Account.Plan.Sells() {
		out.Plan = planName(u.Usage.Account.Plan)
	}
	for _, e := range on.Strictest() {
		out.EffectiveLimits = append(out.EffectiveLimits, effectiveLimit(e))
	}
	return out
}
