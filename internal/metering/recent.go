// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
)

// maxRecent bounds how many users' standings are kept for callers who accept an older one: a few kilobytes each.
const maxRecent = 16_384

// recents are standings as they were read not long ago, for callers who say how old an answer may be.
type recents struct {
	read func(ctx context.Context, userID string) (ledger.Usage, error)
	now  func() time.Time
	of   *lru.Cache[string, *recent]
}

// recent is one reading.
type recent struct {
	// asked is when it began; what it found is not older.
	asked time.Time
	// usage and err are there once done is closed.
	done  chan struct{}
	usage ledger.Usage
	err   error
}

func newRecents(read func(ctx context.Context, userID string) (ledger.Usage, error)) *recents {
	cache, err := lru.New[string, *recent](maxRecent)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &recents{read: read, now: time.Now, of: cache}
}

// standing returns what was read at most maxAge ago, or reads it. Whoever asks while that is being read waits for the
// same answer. A failure is nobody else's: each reads for itself then.
func (r *recents) standing(ctx context.Context, userID string, maxAge time.Duration) (ledger.Usage, error) {
	if maxAge <= 0 {
		return r.read(ctx, userID)
	}
	now := r.now()
	if e, there := r.of.Get(userID); there && now.Sub(e.asked) <= maxAge {
		select {
		case <-e.done:
		case <-ctx.Done():
			return ledger.Usage{}, context.Cause(ctx)
		}
		if e.err == nil && r.now().Sub(e.asked) <= maxAge {
			return e.usage, nil
		}
		return r.read(ctx, userID)
	}
	e := &recent{asked: now, done: make(chan struct{})}
	defer close(e.done)
	r.of.Add(userID, e)
	if e.usage, e.err = r.read(ctx, userID); e.err != nil {
		r.of.Remove(userID)
	}
	return e.usage, e.err
}
