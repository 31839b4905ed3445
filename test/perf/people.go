// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/testing/oidctest"
)

const (
	// streams are open at once, one of each user.
	streams = 10_000
	// streamMemory is what one may take, in KiB.
	streamMemory = 32
	// streamRate is how many pairs the others make in a second meanwhile, each of which two streams' events tell of.
	streamRate = 200
	// streamRounds are measured without streams, and then beside them. The medians are compared.
	streamRounds = 3
	// openers open streams at once.
	openers = 64
	// pagesPairs are how many pairs of turns with pages and without are compared, pagesTurn how long each is, which is
	// how long it takes until all pages have got a ping, and pagesSettle how long what opening them leaves to do is
	// waited for.
	pagesPairs, pagesTurn, pagesSettle = 6, 15 * time.Second, 3 * time.Second
	// tellings are how often a stream is waited for after a charge, and tellingBudget how long that may take, in ms.
	tellings, tellingBudget = 60, 1000
)

// peoplesChecks is a target of pre-flight checks in which each client asks for one user, by a token of its own.
type peoplesChecks struct {
	*overHTTP

	token func(client int) string
}

func (t peoplesChecks) warm(ctx context.Context, l load) error {
	for client := range l.clients {
		if err := errors.Join(t.connect(ctx, client), t.pair(ctx, client, 0)); err != nil {
			return err
		}
	}
	return nil
}

func (t peoplesChecks) pair(ctx context.Context, client, _ int) error {
	return t.post(ctx, client, "/api/v1/usage/check", "Bearer "+t.token(client), workFor(client+1), http.StatusOK,
		&struct{}{})
}

// jwtCheck compares people's checks, by tokens of an OpenID provider, with those of service accounts.
func (b *bench) jwtCheck(ctx context.Context) (err error) {
	names := make([]string, some)
	for i := range names {
		names[i] = fmt.Sprint("user-", i+1)
	}
	provider, err := oidctest.Start(names...)
	if err != nil {
		return err
	}
	defer provider.Close()
	tokens := make([]string, some)
	for i, name := range names {
		if tokens[i], err = provider.Token(map[string]any{"sub": name}); err != nil {
			return err
		}
	}
	config := filepath.Join(b.dir, "authentication.yaml")
	var text strings.Builder
	if err := provider.Configuration(&text, `{username: {claim: sub, prefix: "oidc:"}}`); err != nil {
		return err
	}
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		return err
	}
	s, err := b.startWith(ctx, "people", "--authentication-config="+config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	var sums [2]float64
	for range turns {
		for i, token := range []func(int) string{func(client int) string { return tokens[client] }, token} {
			what := [...]string{"checks by people", "checks by service accounts"}[i]
			r, err := b.try(ctx, what, peoplesChecks{s.target, token}, b.load(some, uniform), &books{})
			if err != nil {
				return err
			}
			sums[i] += r.perSecond
		}
	}
	b.report.rate("jwt_check", result{perSecond: sums[0] / turns}, result{perSecond: sums[1] / turns}, 1)
	return nil
}

// memoryMetrics are of the whole process, and of its parts.
var memoryMetrics = [...]string{"process_resident_memory_bytes", "go_memstats_stack_inuse_bytes",
	"go_memstats_heap_inuse_bytes", "go_memstats_heap_alloc_bytes", "go_memstats_next_gc_bytes"}

func (t *overHTTP) memory(ctx context.Context) (of [len(memoryMetrics)]float64, err error) {
	for i, name := range memoryMetrics {
		if of[i], err = t.metric(ctx, name); err != nil {
			return of, err
		}
	}
	return of, nil
}

// streams10k measures what open streams take, and what they do to admissions.
func (b *bench) streams10k(ctx context.Context) (err error) {
	s, err := b.startWith(ctx, "streams", "--address-connections=0")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	l := b.load(some, uniform)
	l.rate = streamRate
	rounds := func(what string) (time.Duration, error) {
		var all []time.Duration
		for range streamRounds {
			r, err := b.try(ctx, what, s.target, l, s.books)
			if err != nil {
				return 0, err
			}
			all = append(all, r.p99)
		}
		slices.Sort(all)
		return all[streamRounds/2], nil
	}
	alone, err := rounds("HTTP, open loop")
	if err != nil {
		return err
	}
	before, err := s.target.memory(ctx)
	if err != nil {
		return err
	}
	b.report.progressf("opening %d streams", streams)
	closeAll, err := openStreams(ctx, s.target.addresses[0], streams)
	if err != nil {
		return err
	}
	defer closeAll()
	after, err := s.target.memory(ctx)
	if err != nil {
		return err
	}
	for i, name := range memoryMetrics {
		b.report.progressf("%s: %.1f KiB for each stream", name, (after[i]-before[i])/streams/1024)
	}
	each := (after[0] - before[0]) / streams / 1024
	b.report.figure(figure{name: "stream_10k_memory_kib", ours: each, baseline: streamMemory,
		ratio: streamMemory / each, goal: 1})
	beside, err := rounds("HTTP, open loop, beside 10,000 streams")
	if err != nil {
		return err
	}
	b.report.latency("stream_10k_p99_ms", beside, alone, 1/1.1)
	if err := b.check(ctx, "streams", s.database, s.books); err != nil {
		return err
	}
	late, err := b.told(ctx, s.target) // charges are in no books
	if err != nil {
		return err
	}
	b.within("stream_told_p99_ms", late.Seconds()*1000, tellingBudget)
	return nil
}

// others is a target of the users behind the first so many.
type others struct {
	*overHTTP

	behind int
}

func (t others) warm(ctx context.Context, l load) error {
	l.users += t.behind
	return t.overHTTP.warm(ctx, l)
}

func (t others) pair(ctx context.Context, client, user int) error {
	return t.overHTTP.pair(ctx, client, t.behind+user)
}

// pages10k measures what open pages cost admissions: two of each user of the first half, beside as many admissions
// as can be. First those of the other half, whom no page shows; then those of all, so that each makes one event on the
// average. Compared is what usaged and the database take of the processors for a pair, in turns with pages and without
// them: opening so many takes seconds, within which rates of shared machines change by more than what is looked for.
func (b *bench) pages10k(ctx context.Context) (err error) {
	s, err := b.startWith(ctx, "pages", "--address-connections=0")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	watched := b.opts.users / 2
	all := b.load(many, uniform)
	all.warmup, all.duration = 0, pagesTurn
	unseen := all
	unseen.users -= watched
	measure := func(name, where string, t target, l load) (each float64, err error) {
		before, err := b.serving(ctx, s.target)
		if err != nil {
			return 0, err
		}
		r, err := b.try(ctx, "HTTP, of "+name+where, t, l, s.books)
		if err != nil {
			return 0, err
		}
		after, err := b.serving(ctx, s.target)
		return spent{int64(r.pairs), after}.each(spent{0, before}), err
	}
	unseenCosts, allCosts := turnCosts{times: 1}, turnCosts{times: 1}
	turn := func(open bool) (ofUnseen, ofAll float64, err error) {
		where := ""
		if open {
			closeAll, err := openStreams(ctx, s.target.addresses[0], watched)
			if err != nil {
				return 0, 0, err
			}
			defer closeAll()
			where = ", beside 10,000 pages"
		}
		settling := unseen
		settling.duration = pagesSettle
		if _, err := measure("others, at first", where, others{s.target, watched}, settling); err != nil {
			return 0, 0, err
		}
		if ofUnseen, err = measure("others", where, others{s.target, watched}, unseen); err != nil {
			return 0, 0, err
		}
		ofAll, err = measure("all", where, s.target, all)
		return ofUnseen, ofAll, err
	}
	if _, _, err := turn(false); err != nil { // what is new then is not measured
		return err
	}
	for _, open := range inPairs(pagesPairs) {
		ofUnseen, ofAll, err := turn(open)
		if err != nil {
			return err
		}
		unseenCosts.add(open, ofUnseen)
		allCosts.add(open, ofAll)
	}
	b.report.turns("pages_10k_cost", unseenCosts, 0.95)
	b.report.turns("pages_10k_shown_cost", allCosts, 0.95)
	return b.check(ctx, "pages", s.database, s.books)
}

// serving is what usaged and the database have taken of the processors.
func (b *bench) serving(ctx context.Context, t *overHTTP) (time.Duration, error) {
	service, err := t.metric(ctx, "process_cpu_seconds_total")
	if err != nil {
		return 0, err
	}
	database, err := processorTime(b.lab.server.PID())
	return time.Duration(service*float64(time.Second)) + database, err
}

// openStreams opens as many streams as are measured, in turn of each of the first so many users, and returns once all
// have told where their users stand. What they tell from then on is read and thrown away.
func openStreams(ctx context.Context, address string, users int) (closeAll func(), err error) {
	var (
		mu      sync.Mutex
		conns   []net.Conn
		reading sync.WaitGroup
	)
	closeAll = func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.Close()
		}
		reading.Wait()
	}
	err = everyone(openers, streams, func(client, n int) error {
		c, events, err := openStream(ctx, address, client, (n-1)%users+1)
		if c != nil {
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
		if err != nil {
			return err
		}
		reading.Go(func() { _, _ = io.Copy(io.Discard, events) })
		return nil
	})
	if err != nil {
		closeAll()
	}
	return closeAll, err
}

// openStream opens a user's stream, and returns once it has told where the user stands.
func openStream(ctx context.Context, address string, client, user int) (net.Conn, io.Reader, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	if err := c.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return c, nil, err
	}
	if _, err := fmt.Fprintf(c, "GET /api/v1/usage/stream?user_id=user-%d HTTP/1.1\r\nHost: usaged\r\n"+
		"Authorization: Bearer %s\r\n\r\n", user, token(client)); err != nil {
		return c, nil, err
	}
	// Small, for there are many of them in this process.
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil) //nolint:bodyclose // the connection is closed
	if err != nil {
		return c, nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return c, nil, fmt.Errorf("the stream of user-%d: status %d", user, resp.StatusCode)
	}
	if err := standing(resp.Body); err != nil {
		return c, nil, fmt.Errorf("the stream of user-%d: %w", user, err)
	}
	return c, resp.Body, c.SetDeadline(time.Time{})
}

// standing reads a stream up to the next event that says where its user stands.
func standing(events io.Reader) error {
	for {
		if line, err := readLine(events); err != nil || strings.HasPrefix(line, "event: standing") {
			return err
		}
	}
}

// told measures how long after a charge was answered, and so committed, a stream of its user tells of it.
func (b *bench) told(ctx context.Context, t *overHTTP) (time.Duration, error) {
	c, events, err := openStream(ctx, t.addresses[0], 0, streams)
	if c != nil {
		defer func() { _ = c.Close() }()
	}
	if err != nil {
		return 0, err
	}
	use := fmt.Sprintf(`{"user_id":"user-%d","usage_type":"api_call","credits":1}`, streams)
	var latencies []time.Duration
	for range tellings {
		if err := t.post(ctx, 0, "/api/v1/usage", "Bearer "+token(0), use, http.StatusCreated,
			&struct{}{}); err != nil {
			return 0, err
		}
		began := time.Now()
		if err := standing(events); err != nil {
			return 0, err
		}
		latencies = append(latencies, time.Since(began))
	}
	return percentile(latencies, 99), nil
}

// readLine reads up to the next end of a line, and no further.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := r.Read(b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
}
