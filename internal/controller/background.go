// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/loop"
)

// turnTimeout bounds a turn of the controllers' background work, which goes through everything that there is.
const turnTimeout = 10 * time.Minute

// leading is a task of the replica that leads: one is enough.
type leading struct {
	loop.Task

	observe loop.Observer
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (leading) NeedLeaderElection() bool { return true }

// Start implements manager.Runnable.
func (l leading) Start(ctx context.Context) error {
	l.Run(ctx, l.observe)
	return nil
}
