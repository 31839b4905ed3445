// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

func changed(n uint64) Change {
	c := Change{State: quota.Admitted}
	binary.BigEndian.PutUint64(c.ID[8:], n+1)
	return c
}

// However slowly a subscriber reads, it hears of each change, or hears after it that it has missed some.
func TestSubscribersHearOfAllOrThatTheyMissedSome(t *testing.T) {
	for _, reads := range []int{0, 1, subscribed - 1, subscribed} {
		h := newHub()
		changes := h.subscribe(t.Context())
		unheard := map[Change]bool{}
		missed := 0
		read := func() {
			c := <-changes
			if delete(unheard, c); c == (Change{}) {
				missed++
				clear(unheard)
			}
		}
		for n := range uint64(3 * subscribed) {
			c := changed(n)
			unheard[c] = true
			h.publish([]Change{c})
			if n == 2*subscribed {
				for range min(reads, len(changes)) {
					read()
				}
			}
		}
		for len(changes) > 0 {
			read()
		}
		if len(unheard) > 0 || missed == 0 {
			t.Errorf("%d read in between: of %d changes it was told neither that nor that some were missed (%d times)",
				reads, len(unheard), missed)
		}
		// Whoever is quick again hears all again, and nothing else.
		h.publish([]Change{changed(1 << 20)})
		if len(changes) != 1 || <-changes != changed(1<<20) {
			t.Errorf("%d read in between: not told of what came after", reads)
		}
	}
}

// failing passes nothing on as long as it says so.
type failing struct {
	Notifier

	err  error
	sent chan []Change
}

func (f *failing) Notify(_ context.Context, changes []Change) error {
	f.sent <- changes
	return f.err
}

// What could not be passed on to other processes, or was too much to keep for them, they are told they have missed.
func TestOtherProcessesAreToldThatTheyMissedSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, f := newHub(), &failing{err: errors.New("no"), sent: make(chan []Change)}
		go h.notify(t.Context(), f, func(error, string) {})
		h.publish([]Change{changed(1)})
		if sent := <-f.sent; len(sent) != 1 || sent[0] != changed(1) {
			t.Fatalf("sent %v", sent)
		}
		synctest.Wait()
		f.err = nil
		h.publish([]Change{changed(2)})
		if sent := <-f.sent; len(sent) != 2 || sent[0] != (Change{}) || sent[1] != changed(2) {
			t.Errorf("sent %v, want that some were missed, and the new one", sent)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h, f := newHub(), &failing{err: context.Canceled, sent: make(chan []Change)}
		ctx, cancel := context.WithCancel(t.Context())
		go h.notify(ctx, f, func(error, string) { t.Error("logged that it was ended") })
		h.publish([]Change{changed(1)})
		synctest.Wait()
		time.Sleep(notifyInterval)
		cancel()
		<-f.sent
		synctest.Wait()
		if left := h.takeOutgoing(); len(left) != 1 || left[0] != (Change{}) {
			t.Errorf("left %v to tell at its end, want that some were missed", left)
		}
	})
	h := newHub()
	for n := range uint64(maxPendingChanges + 3) {
		h.publish([]Change{changed(n)})
	}
	if sent := h.takeOutgoing(); len(sent) != maxPendingChanges || sent[len(sent)-1] != (Change{}) {
		t.Errorf("%d are kept, the last is %v", len(sent), sent[len(sent)-1])
	}
}
