// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/cantonesescribe/usage-operator/api/client"
)

const (
	// callTimeout bounds one call; a call that waits has what it waits on top.
	callTimeout = 15 * time.Second

	firstPause, longestPause = 200 * time.Millisecond, 10 * time.Second
	// spread is how much of a pause that the service asked for is added at random, so that not all come back at once.
	spread = 0.5
)

// attempt makes one call.
type attempt[T any] func(ctx context.Context) (*T, error)

// persist makes a call until it is answered, refused for good, or the limit is over, whose last error it returns then.
// It says when it begins to wait, not each time.
func persist[T any](
	ctx context.Context, limit time.Duration, log func(string, ...any), what string, timeout time.Duration,
	call attempt[T],
) (*T, error) {
	told := false
	pauses := &backoff.ExponentialBackOff{
		InitialInterval: firstPause, MaxInterval: longestPause, Multiplier: backoff.DefaultMultiplier,
		RandomizationFactor: backoff.DefaultRandomizationFactor,
	}
	// Cut off as well as counted: a call under way must not outlive the limit.
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	result, err := backoff.Retry(bounded, func() (*T, error) {
		once, done := context.WithTimeout(bounded, timeout)
		defer done()
		result, err := call(once)
		if err == nil {
			return result, nil
		}
		after, temporary := client.Temporary(err)
		if !temporary {
			return nil, backoff.Permanent(err)
		}
		if last == nil || bounded.Err() == nil {
			last = err
		}
		if after == 0 {
			return nil, err
		}
		return nil, &laterError{err, &backoff.RetryAfterError{Duration: after +
			time.Duration(rand.Float64()*spread*float64(after))}}
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(limit),
		backoff.WithNotify(func(err error, _ time.Duration) {
			if !told {
				log("%s: %v; trying again for up to %s", what, err, limit)
				told = true
			}
		}))
	switch {
	case err == nil:
		if told {
			log("%s: done", what)
		}
		return result, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case bounded.Err() != nil && last != nil:
		err = last
	}
	if later, ok := err.(*laterError); ok { //nolint:errorlint // as it was made above
		err = later.error
	}
	if _, temporary := client.Temporary(err); temporary {
		err = fmt.Errorf("given up after %s: %w", limit, err)
	}
	return nil, err
}

// laterError is an error after which the service has asked for a pause.
type laterError struct {
	error

	pause *backoff.RetryAfterError
}

func (e *laterError) Unwrap() []error { return []error{e.error, e.pause} }
