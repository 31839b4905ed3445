// SPDX-License-Identifier: Apache-2.0

// Package loop runs what has to happen again and again in the background.
package loop

import (
	"context"
	"math/rand/v2"
	"time"
)

// Observer is told the end of each turn of a task: its error, nil for success. It must not block.
type Observer func(task string, period time.Duration, err error)

// Task is done again and again, by whoever calls Run.
type Task struct {
	// Name of the task in metrics and logs, in lower case with dashes.
	Name string
	// Period is what lies between the starts of two turns, more than 0. A turn that takes longer is followed by the
	// next at once.
	Period time.Duration
	// Jitter is added to each period, at random between 0 and it, so that replicas do not all come at one moment.
	Jitter time.Duration
	// Timeout bounds a turn, whose context ends then. It is the time after which doing it again is better than waiting.
	Timeout time.Duration
	// Wake, unless it is nil, has a turn begin at once. What comes while a turn is under way is followed by another.
	Wake <-chan struct{}
	// Do is one turn. What it could not do is its error; it logs what people have to know.
	Do func(ctx context.Context) error
}

// retryAfter is how soon a turn that failed is followed by the next, if that is not due before.
const retryAfter = time.Minute

// Run does the task at once and then after each period, until ctx ends; after a turn that failed it waits for a minute
// at most. observe, which may be nil, is told how each turn went.
func (t Task) Run(ctx context.Context, observe Observer) {
	for ctx.Err() == nil {
		next := time.Now().Add(t.Period)
		if t.Jitter > 0 {
			next = next.Add(rand.N(t.Jitter))
		}
		turn, cancel := context.WithTimeout(ctx, t.Timeout)
		err := t.Do(turn)
		cancel()
		if observe != nil && ctx.Err() == nil {
			observe(t.Name, t.Period, err)
		}
		wait := time.Until(next)
		if err != nil {
			wait = min(wait, retryAfter)
		}
		pause(ctx, wait, t.Wake)
	}
}

// Pause waits for d, or until ctx ends.
func Pause(ctx context.Context, d time.Duration) { pause(ctx, d, nil) }

func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-t.C:
	}
}
