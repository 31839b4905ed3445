// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Command perf measures how many admissions a second are made and completed, over HTTP and by the engine alone, against
// what pgbench makes of the same two transactions on the same server in the same run. `make bench` runs it, and
// docs/performance.md tells what the figures mean.
//
// Every figure is a line `BENCH <name> <ours> <baseline> <ratio> <goal>`. Afterwards it checks that everything that was
// acknowledged is in the database and that the books balance. A missed goal fails only with --strict: the figures of a
// busy machine say little.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/testing/lifeline"
)

// many is the number of clients at which batching has to pay; some and one are where it must not cost.
const (
	many = 256
	some = 16
	one  = 1
)

type options struct {
	users, events, accounts          int
	duration, warmup, snapshot, soak time.Duration
	only                             string
	profile, before                  string
	strict                           bool
}

func main() {
	var opts options
	bare := flag.String("bare", "",
		"only serve the bare handler that check_http is compared with, on this address; the program starts itself "+
			"with it")
	flood := flag.String("flood", "",
		"only send the flood of rate_limited_flood_p99_ms to this address, for --duration; the program starts itself "+
			"with it")
	status := flag.Int("flood-status", 0, "status that the flood's calls are answered with")
	flag.StringVar(&opts.only, "run", "",
		"measure only the figures whose name matches this regular expression, and the baselines that they need")
	flag.IntVar(&opts.users, "users", 10_000, "accounts that the load is spread over")
	flag.IntVar(&opts.accounts, "accounts", 100_000,
		"accounts of the resets and of the months' boundaries; 1000000 for the full measure")
	flag.IntVar(&opts.events, "events", 10_000_000,
		"admissions and events that are there before admit_engine_full_256 is measured")
	flag.DurationVar(&opts.duration, "duration", 4*time.Second, "measured time of each trial, in whole seconds")
	flag.DurationVar(&opts.warmup, "warmup", 2*time.Second, "time before it that is not measured, in whole seconds")
	flag.DurationVar(&opts.snapshot, "snapshot", time.Minute,
		"how long another session holds its snapshot for the figures beside one")
	flag.DurationVar(&opts.soak, "soak", 0,
		"measure also whether usaged's memory stays flat for so long; ten minutes are a good choice")
	flag.StringVar(&opts.profile, "profile", "",
		"folder to write CPU profiles of the engine's trials to, with what each statement took of the database's time")
	flag.StringVar(&opts.before, "before", "",
		"usaged of before there were teams, for tree_none_http_256: `go build -o PATH ./cmd/usaged` in a work tree "+
			"of that commit")
	flag.BoolVar(&opts.strict, "strict", false, "fail if a goal is missed")
	flag.Parse()

	if os.Getenv("GOGC") == "" {
		// The engine's trials run in this process, and are to have what usaged has.
		debug.SetGCPercent(ledger.GCPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	work := func() error { return run(ctx, opts) }
	switch {
	case *bare != "":
		work = func() error { return serveBare(ctx, *bare) }
	case *flood != "":
		work = func() error { return sendFlood(ctx, *flood, *status, opts.duration) }
	}
	if err := work(); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "perf:", err)
		os.Exit(1) //nolint:gocritic // the deferred stop only restores the signals
	}
}

func (o options) validate() error {
	switch {
	case o.users < many:
		return fmt.Errorf("--users=%d: at least %d, one for each client", o.users, many)
	case o.accounts < many:
		return fmt.Errorf("--accounts=%d: at least %d, one for each client", o.accounts, many)
	case o.events < o.users:
		return fmt.Errorf("--events=%d: at least one for each of the %d users", o.events, o.users)
	case o.duration < time.Second || o.duration%time.Second != 0:
		return fmt.Errorf("--duration=%s: a whole number of seconds, at least one", o.duration)
	case o.warmup < 0 || o.warmup%time.Second != 0:
		return fmt.Errorf("--warmup=%s: a whole number of seconds", o.warmup)
	case o.snapshot < 2*(o.warmup+o.duration):
		return fmt.Errorf("--snapshot=%s: at least twice a trial, %s", o.snapshot, 2*(o.warmup+o.duration))
	case o.soak != 0 && o.soak < time.Minute:
		return fmt.Errorf("--soak=%s: at least a minute", o.soak)
	}
	return nil
}

func run(ctx context.Context, opts options) (err error) {
	if err := opts.validate(); err != nil {
		return err
	}
	only, err := regexp.Compile(opts.only)
	if err != nil {
		return fmt.Errorf("--run: %w", err)
	}
	chosen := choose(only, opts.soak > 0)
	if len(chosen) == 0 {
		return fmt.Errorf("--run=%s: no figure has such a name", opts.only)
	}
	// Before the first figure: the last ones would find it out after a quarter of an hour.
	if slices.ContainsFunc(chosen, func(s scenario) bool { return s.cluster }) {
		if _, err := controlPlanePrograms(); err != nil {
			return err
		}
	}
	b := &bench{opts: opts, report: &report{out: os.Stdout, start: time.Now()}, measured: map[string]result{}}
	if b.dir, err = os.MkdirTemp("", "usage-operator-perf-"); err != nil {
		return err
	}
	forget, err := lifeline.Folder(b.dir)
	if err != nil {
		return errors.Join(err, os.RemoveAll(b.dir))
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir), forget()) }()

	// What else the machine does shows in every figure.
	if average, err := os.ReadFile("/proc/loadavg"); err == nil {
		b.report.progressf("%d processors, load average before the start %s", runtime.NumCPU(),
			strings.Join(strings.Fields(string(average))[:3], " "))
	}
	b.report.progressf("a private PostgreSQL with one plan and %d users", opts.users)
	if b.lab, err = newLab(ctx, os.Stdout, opts.users, opts.profile != ""); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.lab.server.Stop()) }()
	if b.pgbench, err = newPgbench(b.lab.server.BinDir(), b.dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, s := range chosen {
		if err := s.measure(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", s.figures[0], err)
		}
	}
	if missed := b.report.summary(); missed > 0 && opts.strict {
		return fmt.Errorf("%d goals were missed", missed)
	}
	return nil
}
