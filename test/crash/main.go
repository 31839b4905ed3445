// SPDX-License-Identifier: Apache-2.0

// Command crash proves that the ledger books everything exactly once: many clients work through the real programs on a
// real PostgreSQL with a synchronous standby, while servers and services are killed with SIGKILL and connections are
// cut in the middle of commits. At the end the clients' journals of what was acknowledged are held against the
// database.
//
// It ends with the line CRASH operations=N kills=N retries=N duplicates_suppressed=N lost=0 violations=0, and with exit
// code 0 only if lost and violations are 0. docs/development.md tells what the figures mean.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

type options struct {
	operations, kills, clients int
	seed                       uint64
	duration, timeout          time.Duration
}

func main() {
	var o options
	flag.IntVar(&o.operations, "operations", 100_000, "go on until this many operations are acknowledged")
	flag.IntVar(&o.kills, "kills", 24, "and this many processes were killed; they are spread over the operations")
	flag.DurationVar(&o.duration, "duration", 0, "and this time has passed; kills go on until then")
	flag.IntVar(&o.clients, "clients", 64, "clients at work at once")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().Unix()), "of all that is random, but for the timing")
	flag.DurationVar(&o.timeout, "timeout", 20*time.Minute, "fail if it takes longer")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "crash:", err)
		os.Exit(1) //nolint:gocritic // the deferred stop only restores the signals
	}
}

func (o options) validate() error {
	switch {
	case o.operations < 1:
		return fmt.Errorf("--operations=%d: at least 1", o.operations)
	case o.kills < 1:
		return fmt.Errorf("--kills=%d: at least 1", o.kills)
	case o.clients < 1 || o.clients > 1000:
		return fmt.Errorf("--clients=%d: between 1 and 1000", o.clients)
	case o.timeout <= o.duration:
		return fmt.Errorf("--timeout=%s: must be longer than --duration=%s", o.timeout, o.duration)
	}
	return nil
}

// errFound is the failure of a run that came to its end and found something.
var errFound = errors.New("acknowledged work was lost, or the books are wrong")

func run(ctx context.Context, o options) (err error) {
	if err := o.validate(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not done after --timeout %s", o.timeout))
	defer cancel()

	r := newReport()
	r.progressf("seed %d: until %d operations are acknowledged and %d processes killed", o.seed, o.operations, o.kills)
	s, err := startStack(ctx, filepath.Dir(self), r)
	if s != nil {
		defer func() {
			// What the answers with status 500 were is only in the logs.
			keep := err != nil || r.internal.Load() > 0
			err = errors.Join(err, s.stop(keep, filepath.Join(filepath.Dir(self), "crash-logs")))
		}()
	}
	if err != nil {
		return err
	}
	return s.play(ctx, o)
}

// play runs the whole piece: the load, the faults, the peace after them, and the verdict.
func (s *stack) play(ctx context.Context, o options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopProgress := s.report.every(progressInterval)
	defer stopProgress()

	load := s.startLoad(ctx, cancel, o)
	if err := s.disturb(ctx, o); err != nil {
		cancel(err)
	} else {
		s.report.progressf("no more faults; every client brings what it has begun to an end")
	}
	load.finish()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	stopProgress()

	v, err := s.verdict(ctx, load)
	if err != nil {
		return err
	}
	s.report.summary(v)
	if v.lost+v.violations > 0 {
		return errFound
	}
	return nil
}
