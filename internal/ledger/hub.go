// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"slices"
	"sync"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// hub passes changes to whoever waits for them in this process, and collects those that other processes should hear of.
type hub struct {
	mu          sync.Mutex
	watchers    map[quota.AdmissionID][]chan struct{}
	subscribers map[*subscriber]struct{}
	pending     []Change
	// outgoing has a token while pending is not empty.
	outgoing chan struct{}
}

func newHub() *hub {
	return &hub{
		watchers: map[quota.AdmissionID][]chan struct{}{}, subscribers: map[*subscriber]struct{}{},
		outgoing: make(chan struct{}, 1),
	}
}

// subscriber hears of all changes, or that it has missed some.
type subscriber struct {
	changes chan Change
	// missed says that the last that it was sent is the zero Change, and that it has not made room for others since.
	missed bool
}

// subscribed is how many changes wait for a subscriber.
const subscribed = 1024

// hear passes a change on. The last place of the channel is kept for the zero Change: what comes after that while the
// channel stays full is among what the subscriber is told it has missed, for it has not read that yet. The caller holds
// the lock, so that nobody else fills the channel.
func (s *subscriber) hear(c Change) {
	switch {
	case len(s.changes) < cap(s.changes)-1:
		s.changes <- c
		s.missed = false
	case !s.missed:
		s.changes <- Change{}
		s.missed = true
	}
}

// maxPendingChanges bounds what is kept for other processes while nobody passes it on. Beyond it they are told that
// they have missed something.
const maxPendingChanges = 10_000

// publish delivers changes made here, and keeps them for the other processes.
func (h *hub) publish(changes []Change) {
	if len(changes) == 0 {
		return
	}
	for _, c := range changes {
		h.deliver(c)
	}
	h.mu.Lock()
	if h.pending = append(h.pending, changes...); len(h.pending) > maxPendingChanges {
		h.pending = h.pending[:maxPendingChanges]
		h.pending[maxPendingChanges-1] = Change{}
	}
	h.mu.Unlock()
	select {
	case h.outgoing <- struct{}{}:
	default:
	}
}

// lost has the other processes told, with what they are told next, that they have missed something.
func (h *hub) lost() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pending = append(h.pending, Change{})
}

func (h *hub) takeOutgoing() []Change {
	h.mu.Lock()
	defer h.mu.Unlock()
	changes := h.pending
	h.pending = nil
	return changes
}

// deliver wakes whoever waits for the change in this process.
func (h *hub) deliver(c Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.watchers[c.ID] {
		select {
		case w <- struct{}{}:
		default:
		}
	}
	for sub := range h.subscribers {
		sub.hear(c)
	}
}

func (h *hub) watch(id quota.AdmissionID) (changed <-chan struct{}, stop func()) {
	w := make(chan struct{}, 1)
	h.mu.Lock()
	h.watchers[id] = append(h.watchers[id], w)
	h.mu.Unlock()
	return w, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		rest := slices.DeleteFunc(h.watchers[id], func(x chan struct{}) bool { return x == w })
		if h.watchers[id] = rest; len(rest) == 0 {
			delete(h.watchers, id)
		}
	}
}

func (h *hub) subscribe(ctx context.Context) <-chan Change {
	sub := &subscriber{changes: make(chan Change, subscribed)}
	h.mu.Lock()
	h.subscribers[sub] = struct{}{}
	h.mu.Unlock()
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subscribers, sub)
		close(sub.changes)
	})
	return sub.changes
}
