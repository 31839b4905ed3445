// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/loop"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Relay passes changes between this process and the others until ctx ends. It tells log what it could not do, except
// that the database is away: the store says that, once.
func (e *Engine) Relay(ctx context.Context, through Notifier, log func(err error, message string)) {
	var both sync.WaitGroup
	both.Go(func() { e.hub.listen(ctx, through, log) })
	both.Go(func() { e.hub.notify(ctx, through, log) })
	both.Wait()
}

// Tell passes on what has changed here since the last time.
func (e *Engine) Tell(ctx context.Context, through Notifier) error {
	changes := e.hub.takeOutgoing()
	if len(changes) == 0 {
		return nil
	}
	return through.Notify(ctx, changes)
}

// Watch returns a channel that has a token once the admission has changed, here or in another process, until stop is
// called.
func (e *Engine) Watch(admission quota.AdmissionID) (changed <-chan struct{}, stop func()) {
	return e.hub.watch(admission)
}

// Subscribe returns the changes that others' operations bring to admissions (a freed slot starts who waits for it),
// here or in another process, until ctx ends. A slow receiver misses some, and is told so by the zero Change: it must
// look for itself then. What another process could not pass on nobody tells, so it looks now and then as well.
func (e *Engine) Subscribe(ctx context.Context) <-chan Change { return e.hub.subscribe(ctx) }

// listenPause is the first pause between attempts to listen and maxListenPause the longest, give or take a half, so
// that replicas do not come back all at once.
const listenPause, maxListenPause = 500 * time.Millisecond, 5 * time.Second

// listen hears of other replicas' changes. While the connection is down, polls stand in for it.
func (h *hub) listen(ctx context.Context, through Notifier, log func(error, string)) {
	for lost := 0; ctx.Err() == nil; {
		began := time.Now()
		err := through.Listen(ctx, h.deliver)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > maxListenPause {
			lost = 0
		}
		// The first time says it all: it may be another server than the one that the store reports on.
		if lost++; lost == 1 {
			log(err, "listening for changes failed, polls stand in for it until it succeeds")
		}
		d := min(maxListenPause, listenPause<<min(lost, 4))
		loop.Pause(ctx, d/2+rand.N(d))
	}
}

// notifyInterval collects changes so that notifications, which serialise commits in PostgreSQL, stay few and outside
// the hot transactions.
const notifyInterval = 20 * time.Millisecond

func (h *hub) notify(ctx context.Context, through Notifier, log func(error, string)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.outgoing:
		}
		loop.Pause(ctx, notifyInterval)
		if changes := h.takeOutgoing(); len(changes) > 0 {
			err := through.Notify(ctx, changes)
			if err == nil {
				continue
			}
			h.lost()
			if ctx.Err() == nil && !errors.Is(err, ErrUnavailable) {
				log(err, "notifying other processes failed; they find the changes by polling")
			}
		}
	}
}
