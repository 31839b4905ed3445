// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/loop"
)

// The pauses of Patiently: the first, and the longest of those that double.
const (
	firstPatience = 200 * time.Millisecond
	maxPatience   = 10 * time.Second
)

// Patiently does something again, with growing pauses, while the database does not answer, or asks for it, for so long
// at most or until ctx ends. told, unless it is nil, hears of each error before that. What the database refused for its
// data is not done again.
func Patiently(ctx context.Context, atMost time.Duration, told func(error), do func() error) error {
	deadline := time.Now().Add(atMost)
	for pause := firstPatience; ; pause = min(2*pause, maxPatience) {
		err := do()
		again := errors.Is(err, ErrRetry) || errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrData)
		if !again || ctx.Err() != nil {
			return err
		}
		if time.Now().Add(pause).After(deadline) {
			return fmt.Errorf("gave up after %s: %w", atMost, err)
		}
		if told != nil {
			told(err)
		}
		loop.Pause(ctx, pause)
	}
}
