// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
)

// readings answers with the instant at which it was asked, after a while, and fails while it is told to.
type readings struct {
	mu    sync.Mutex
	takes time.Duration
	err   error
	n     int
}

func (r *readings) read(ctx context.Context, _ string) (ledger.Usage, error) {
	r.mu.Lock()
	r.n++
	takes, err, at := r.takes, r.err, time.Now()
	r.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ledger.Usage{}, ctx.Err()
	}
	return ledger.Usage{Now: at}, err
}

func (r *readings) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// No answer is older than who asked accepts, whoever read it, and who accepts none gets none.
func TestRecentIsNotOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &readings{takes: 10 * time.Millisecond}
		recents := newRecents(r.read)
		ask := func(maxAge time.Duration, reads int) {
			t.Helper()
			u, err := recents.standing(t.Context(), "alice", maxAge)
			if age := time.Since(u.Now); err != nil || (maxAge > 0 && age > maxAge) || r.count() != reads {
				t.Errorf("at most %s: got one of %s ago, %v, after %d reads, want %d", maxAge, age, err, r.count(),
					reads)
			}
		}
		ask(time.Second, 1)
		ask(time.Second, 1)
		ask(0, 2)
		time.Sleep(900 * time.Millisecond)
		ask(time.Second, 2)
		ask(500*time.Millisecond, 3)
		time.Sleep(900 * time.Millisecond)
		ask(time.Second, 3)
		time.Sleep(200 * time.Millisecond)
		ask(time.Second, 4)
		ask(time.Minute, 4)
	})
}

// Many who ask at once cause one reading. One that takes longer than they accept is answered to nobody but its reader.
func TestRecentIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &readings{takes: 100 * time.Millisecond}
		recents := newRecents(r.read)
		together := func(maxAge time.Duration, reads int) {
			t.Helper()
			before := r.count()
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					if _, err := recents.standing(t.Context(), "alice", maxAge); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if got := r.count() - before; got != reads {
				t.Errorf("at most %s: %d reads, want %d", maxAge, got, reads)
			}
		}
		together(time.Second, 1)
		time.Sleep(time.Minute)
		together(50*time.Millisecond, 50)
	})
}

// A failure is not kept, and neither is a reader who gives up anybody else's failure.
func TestRecentFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		r := &readings{takes: 100 * time.Millisecond, err: broken}
		recents := newRecents(r.read)
		if _, err := recents.standing(t.Context(), "alice", time.Minute); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		r.err = nil
		if _, err := recents.standing(t.Context(), "alice", time.Minute); err != nil {
			t.Errorf("after a failure: got %v", err)
		}
		time.Sleep(time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := recents.standing(ctx, "alice", time.Minute); !errors.Is(err, context.Canceled) {
				t.Errorf("who gives up: got %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if _, err := recents.standing(t.Context(), "alice", time.Minute); err != nil {
				t.Errorf("who waits for it: got %v", err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
	})
}

// The memory is bounded.
func TestRecentIsBounded(t *testing.T) {
	r := &readings{}
	recents := newRecents(r.read)
	for i := range maxRecent + 100 {
		if _, err := recents.standing(t.Context(), fmt.Sprintf("user-%d", i), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if n := recents.of.Len(); n != maxRecent {
		t.Errorf("%d are kept, want %d", n, maxRecent)
	}
}
