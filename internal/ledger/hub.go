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
	subscribers map[chan Change]struct{}
	pending     []Change
	// outgoing has a token while pending is not empty.
	outgoing chan struct{}
}

func newHub() *hub {
	return &hub{
		watchers: map[quota.AdmissionID][]chan struct{}{}, subscribers: map[chan Change]struct{}{},
		outgoing: make(chan struct{}, 1),
	}
}

// maxPendingChanges bounds what is kept for other processes while nobody passes it on: they poll anyway.
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
	if len(h.pending) < maxPendingChanges {
		h.pending = append(h.pending, changes...)
	}
	h.mu.Unlock()
	select {
	case h.outgoing <- struct{}{}:
	default:
	}
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
		select {
		case sub <- c:
		default:
		}
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
	sub := make(chan Change, 1024)
	h.mu.Lock()
	h.subscribers[sub] = struct{}{}
	h.mu.Unlock()
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subscribers, sub)
		close(sub)
	})
	return sub
}
