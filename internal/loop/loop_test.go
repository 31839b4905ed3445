// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		var turns []time.Duration
		var told []error
		failure := errors.New("no")
		task := Task{
			Name: "look", Period: 10 * time.Second, Timeout: 25 * time.Second,
			Do: func(turn context.Context) error {
				turns = append(turns, time.Since(began))
				switch len(turns) {
				case 1:
					return nil
				case 2:
					return failure
				case 3:
					<-turn.Done() // hangs
					return turn.Err()
				}
				cancel()
				return errors.New("ended in the middle of its turn")
			},
		}
		task.Run(ctx, func(name string, period time.Duration, err error) {
			if name != "look" || period != 10*time.Second {
				t.Errorf("told of %q, every %s", name, period)
			}
			told = append(told, err)
		})
		// At once, after a period each, and after one that took longer than a period at once.
		if want := []time.Duration{0, 10 * time.Second, 20 * time.Second,
			45 * time.Second}; !slices.Equal(turns, want) {
			t.Errorf("turns at %v, want %v", turns, want)
		}
		// Who stops a task is no failure of it.
		if want := []error{nil, failure, context.DeadlineExceeded}; !slices.Equal(told, want) {
			t.Errorf("told of %v, want %v", told, want)
		}
	})
}

func TestTaskJitters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var last time.Time
		var gaps []time.Duration
		Task{
			Name: "look", Period: time.Minute, Jitter: 10 * time.Second, Timeout: time.Minute,
			Do: func(context.Context) error {
				if !last.IsZero() {
					gaps = append(gaps, time.Since(last))
				}
				if last = time.Now(); len(gaps) == 50 {
					cancel()
				}
				return nil
			},
		}.Run(ctx, nil)
		least, most := slices.Min(gaps), slices.Max(gaps)
		if least < time.Minute || most >= 70*time.Second || most-least < time.Second {
			t.Errorf("between %s and %s, want 1m0s and up to 10s more", least, most)
		}
	})
}

func TestTaskIsTriedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		Task{
			Name: "look", Period: 6 * time.Hour, Timeout: time.Minute,
			Do: func(context.Context) error {
				if time.Since(began) > 0 {
					cancel()
				}
				return errors.New("no")
			},
		}.Run(ctx, nil)
		if got := time.Since(began); got != time.Minute {
			t.Errorf("tried again after %s, want 1m0s", got)
		}
	})
}

// Whoever wakes a task has it done at once, and no later for that.
func TestTaskIsWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		wake := make(chan struct{}, 1)
		var turns []time.Duration
		Task{
			Name: "look", Period: 10 * time.Second, Timeout: time.Minute, Wake: wake,
			Do: func(context.Context) error {
				switch turns = append(turns, time.Since(began)); len(turns) {
				case 1:
					time.AfterFunc(3*time.Second, func() { wake <- struct{}{} })
				case 2:
					wake <- struct{}{} // while it is under way
				case 4:
					cancel()
				}
				return nil
			},
		}.Run(ctx, nil)
		if want := []time.Duration{0, 3 * time.Second, 3 * time.Second,
			13 * time.Second}; !slices.Equal(turns, want) {
			t.Errorf("turns at %v, want %v", turns, want)
		}
	})
}
