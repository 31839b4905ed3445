// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
)

const (
	// suspectAfter is how long nobody may be answered, while somebody waits, before the server is asked whether it is
	// there.
	suspectAfter = time.Second
	watchEvery   = suspectAfter / 4
	// probeTimeout bounds the question.
	probeTimeout = 2 * time.Second
	// While the server is away it is asked again after probePause, twice as long each time up to maxProbePause, give or
	// take a half: replicas that lost it together do not come back together.
	probePause, maxProbePause = 100 * time.Millisecond, 2 * time.Second
	// trialTime is how long callers who try whether the server can work again may take to find out that it cannot.
	trialTime = 10 * time.Second
	// maxConnecting is how many connections one process opens at once, so that a server that has just come back is not
	// met by all of everybody's at the same instant.
	maxConnecting = 4
)

// gate keeps callers from waiting for a server that cannot be reached, or cannot work. As soon as a connection fails,
// nothing is answered for a while, or the server answers that it cannot do its work, one prober asks the server. If
// that fails the gate is shut: what is under way is cut off, and whoever asks for a connection is refused at once,
// until the prober is answered.
//
// Some trouble the prober cannot see, such as a full disk: that the server told a caller so, while nobody else could
// write, is enough to shut the gate. Then callers themselves try, now and then, whether it has passed.
//
// The pool tells the gate, as a tracer and by its hooks, all that it needs to know; only that something was written
// tells the Store.
type gate struct {
	// probe asks the server for an answer, on a connection of its own.
	probe func(context.Context) error
	// repair mends the cause of an outage if it can, or returns it, with why it could not.
	repair func(ctx context.Context, cause error) error
	// told hears of each change, and of what an outage that is about the schema turns out to be.
	told func(up bool, cause error)
	// reset drops the pool's connections.
	reset func()

	connecting chan struct{}
	// answered is when the server last answered anybody, and written when it last wrote something, in Unix nanoseconds.
	answered, written atomic.Int64
	// trial is true while callers try whether the server can write again; outcome says that one of them knows.
	trial   atomic.Bool
	outcome chan struct{}
	ctx     context.Context //nolint:containedctx // it ends the background work of Close
	stop    context.CancelFunc
	running sync.WaitGroup

	mu sync.Mutex
	// up is done while the gate is shut, and its cause says why; cut shuts it.
	up      context.Context //nolint:containedctx // it is about the database, not about a call
	cut     context.CancelCauseFunc
	probing bool
	// trouble is what the server last said of itself to a caller, while nobody could write; nil if nothing, or if it
	// has passed.
	trouble    error
	troubledAt time.Time
	// away is the cause of the outage, nil if there is none.
	away error
	// asked is when the last probe was answered.
	asked time.Time
	// underway are the operations that have not ended, held those of them that have a connection.
	underway map[*operation]struct{}
	held     map[*pgx.Conn]*operation
}

type operation struct{ since time.Time }

type (
	operationKey struct{}
	connectKey   struct{}
)

var (
	_ pgx.QueryTracer       = (*gate)(nil)
	_ pgx.BatchTracer       = (*gate)(nil)
	_ pgx.ConnectTracer     = (*gate)(nil)
	_ pgxpool.AcquireTracer = (*gate)(nil)
	_ pgxpool.ReleaseTracer = (*gate)(nil)
)

func newGate(
	probe func(context.Context) error, repair func(ctx context.Context, cause error) error,
	told func(up bool, cause error),
) *gate {
	if told == nil {
		told = func(bool, error) {}
	}
	g := &gate{
		probe: probe, repair: repair, told: told, connecting: make(chan struct{}, maxConnecting),
		outcome:  make(chan struct{}, 1),
		underway: map[*operation]struct{}{}, held: map[*pgx.Conn]*operation{},
	}
	g.ctx, g.stop = context.WithCancel(context.Background())
	g.up, g.cut = context.WithCancelCause(context.Background())
	return g
}

// attach makes the pool that config describes ask the gate.
func (g *gate) attach(config *pgxpool.Config) {
	config.ConnConfig.Tracer = g
	config.BeforeConnect = func(ctx context.Context, _ *pgx.ConnConfig) error { return g.takeTurn(ctx) }
	config.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) {
		err := g.pass()
		return err == nil, err
	}
	config.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool {
		return p.IdleDuration > time.Second && g.pass() == nil
	}
}

// start begins to watch over the pool, until close.
func (g *gate) start(pool *pgxpool.Pool) {
	g.reset = pool.Reset
	g.told(true, nil)
	g.running.Go(g.watch)
}

func (g *gate) close() {
	g.mu.Lock()
	g.stop()
	g.mu.Unlock()
	g.running.Wait()
}

// state returns the context that is done while the gate is shut.
func (g *gate) state() context.Context {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.up
}

// pass returns why nobody is let through, or nil.
func (g *gate) pass() error { return context.Cause(g.state()) }

// takeTurn waits until another connection may be opened. TraceConnectEnd passes the turn on.
func (g *gate) takeTurn(ctx context.Context) error {
	up := g.state()
	if up.Err() != nil {
		return context.Cause(up)
	}
	select {
	case g.connecting <- struct{}{}:
		return nil
	case <-up.Done():
		return context.Cause(up)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watch looks for operations that are not answered.
func (g *gate) watch() {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-ticker.C:
		}
		if time.Since(time.Unix(0, g.answered.Load())) > suspectAfter && g.waited() > suspectAfter {
			g.suspect()
		}
	}
}

// waited is how long the oldest operation has been under way.
func (g *gate) waited() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	var longest time.Duration
	for op := range g.underway {
		longest = max(longest, time.Since(op.since))
	}
	return longest
}

// suspect has the prober ask the server, unless it does already or has just had an answer.
func (g *gate) suspect() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.probing || g.ctx.Err() != nil || time.Since(g.asked) < watchEvery {
		return
	}
	g.probing = true
	g.running.Go(g.ask)
}

// ask probes the server until it answers and works. It is the only one that opens and shuts the gate.
func (g *gate) ask() {
	told := ""
	for pause := probePause; ; pause = min(2*pause, maxProbePause) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(g.ctx, probeTimeout)
		err := g.probe(ctx)
		cancel()
		lost := !g.answers(err)
		if lost && g.away == nil && !isVerdict(err) && g.answered.Load() > began.UnixNano() {
			lost = false // a slow answer to the prober is no outage while others are answered
		}
		if !lost {
			err = g.tryOut()
		}
		if g.ctx.Err() != nil {
			return
		}
		if err == nil {
			g.open()
			return
		}
		first := g.away == nil
		g.shut(err, lost)
		if cause := g.repair(g.ctx, err); cause != nil {
			err = cause
			g.shut(err, false)
		}
		// Other causes have texts that change from one attempt to the next.
		if text := schemaText(err); first || text != told && text != "" {
			told = text
			g.told(false, err)
		}
		select {
		case <-g.ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}

// isVerdict tells what a server says that answers, and is none that we can work with.
func isVerdict(err error) bool {
	return schemaText(err) != "" || errors.Is(err, errReadOnly) || errors.Is(err, ErrUnsafe)
}

// answers reports whether what a probe came to is an answer of a server that works, or will for those who are
// connected.
func (g *gate) answers(err error) bool {
	if err == nil {
		return true
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	// One that lets nobody new in, perhaps since a password was changed, may serve those who are in.
	return pgErr.Code == tooManyConnections ||
		class(pgErr.Code) == "28" && time.Since(time.Unix(0, g.answered.Load())) < suspectAfter
}

// tryOut returns what the server cannot do although it answers. While that keeps the gate shut, callers try it.
func (g *gate) tryOut() error {
	g.mu.Lock()
	if g.written.Load() > g.troubledAt.UnixNano() {
		g.trouble = nil
	}
	if g.trouble == nil || g.away == nil {
		defer g.mu.Unlock()
		return g.trouble
	}
	select {
	case <-g.outcome:
	default:
	}
	g.trouble = nil
	g.trial.Store(true)
	g.letThrough()
	g.mu.Unlock()
	select {
	case <-g.outcome:
	case <-time.After(trialTime):
	case <-g.ctx.Done():
	}
	g.trial.Store(false)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.trouble
}

// heard takes note of an error that the server has answered with.
func (g *gate) heard(err error) {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || !isServerState(pgErr.Code) && !isOtherDatabase(pgErr.Code) {
		return
	}
	if isServerState(pgErr.Code) && (g.trial.Load() || time.Since(time.Unix(0, g.written.Load())) > suspectAfter) {
		g.mu.Lock()
		g.trouble, g.troubledAt = err, time.Now()
		g.mu.Unlock()
		g.tell()
	}
	g.suspect()
}

// wrote takes note that the server has written something.
func (g *gate) wrote() {
	g.written.Store(time.Now().UnixNano())
	if g.trial.Load() {
		g.tell()
	}
}

// tell ends a trial.
func (g *gate) tell() {
	select {
	case g.outcome <- struct{}{}:
	default:
	}
}

// letThrough makes callers pass. It is called with the lock.
func (g *gate) letThrough() {
	if g.up.Err() != nil {
		g.up, g.cut = context.WithCancelCause(context.Background())
	}
}

func (g *gate) open() {
	g.mu.Lock()
	was := g.away != nil
	g.letThrough()
	g.away, g.trouble = nil, nil
	g.probing, g.asked = false, time.Now()
	g.answered.Store(g.asked.UnixNano())
	g.mu.Unlock()
	if was {
		g.told(true, nil)
	}
}

// shut refuses callers from now on, because of cause. If the server is lost what is under way is cut off, too: nothing
// will come of it.
func (g *gate) shut(cause error, lost bool) {
	g.mu.Lock()
	g.away = cause
	g.letThrough() // what is shut already has the cause of before
	g.cut(fmt.Errorf("%w: %w", ledger.ErrUnavailable, cause))
	var conns []*pgx.Conn
	if lost {
		conns = slices.Collect(maps.Keys(g.held))
	}
	g.mu.Unlock()
	for _, conn := range conns {
		_ = conn.PgConn().Conn().Close() // whoever reads from it learns of it
	}
	if lost {
		g.reset()
	}
}

// schemaText is what there is to tell of an outage that an old schema is the cause of, and empty for others.
func schemaText(cause error) string {
	if _, old := errors.AsType[*ledger.SchemaError](cause); old {
		return cause.Error()
	}
	return ""
}

// TraceConnectStart has an attempt to connect given up when the gate is shut.
func (g *gate) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(g.state(), cancel)
	return context.WithValue(ctx, connectKey{}, func() { stop(); cancel() })
}

// TraceConnectEnd lets the next one connect.
func (g *gate) TraceConnectEnd(ctx context.Context, data pgx.TraceConnectEndData) {
	<-g.connecting
	if end, ok := ctx.Value(connectKey{}).(func()); ok {
		end()
	}
	if data.Err != nil && !g.answers(data.Err) {
		g.suspect()
	}
}

// TraceAcquireStart notes that an operation begins.
func (g *gate) TraceAcquireStart(
	ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireStartData,
) context.Context {
	op := &operation{since: time.Now()}
	g.mu.Lock()
	g.underway[op] = struct{}{}
	g.mu.Unlock()
	return context.WithValue(ctx, operationKey{}, op)
}

// TraceAcquireEnd notes which connection an operation has got.
func (g *gate) TraceAcquireEnd(ctx context.Context, _ *pgxpool.Pool, data pgxpool.TraceAcquireEndData) {
	op, _ := ctx.Value(operationKey{}).(*operation)
	g.mu.Lock()
	defer g.mu.Unlock()
	if data.Err != nil || data.Conn == nil {
		delete(g.underway, op)
		return
	}
	g.held[data.Conn] = op
}

// TraceRelease notes that an operation has ended.
func (g *gate) TraceRelease(_ *pgxpool.Pool, data pgxpool.TraceReleaseData) {
	if !data.Conn.IsClosed() {
		g.answered.Store(time.Now().UnixNano())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.underway, g.held[data.Conn])
	delete(g.held, data.Conn)
}

// TraceQueryStart is there because a tracer must have it.
func (g *gate) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd hears what the server says of itself.
func (g *gate) TraceQueryEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	if data.Err != nil {
		g.heard(data.Err)
	}
}

// TraceBatchStart is there because a tracer must have it.
func (g *gate) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

// TraceBatchQuery hears what the server says of itself.
func (g *gate) TraceBatchQuery(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchQueryData) {
	if data.Err != nil {
		g.heard(data.Err)
	}
}

// TraceBatchEnd hears what the server says of itself before the first statement.
func (g *gate) TraceBatchEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchEndData) {
	if data.Err != nil {
		g.heard(data.Err)
	}
}
