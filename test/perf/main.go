// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Command perf measures how many admissions a second are made and completed, over HTTP and by the engine alone, against
// what pgbench makes of the same two transactions on the same server in the same run. `make bench` runs it.
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
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/testing/lifeline"
)

// many is the number of clients at which batching has to pay; some and one are where it must not cost.
const (
	many = 256
	some = 16
	one  = 1
)

// maxConnecting is how long all clients of pgbench may take to connect.
const maxConnecting = 30 * time.Second

type options struct {
	users, accounts  int
	duration, warmup time.Duration
	strict           bool
	only             string
}

func main() {
	var opts options
	flag.IntVar(&opts.users, "users", 10_000, "accounts that the load is spread over")
	flag.IntVar(&opts.accounts, "accounts", 100_000, "accounts of the resets and of the months' boundaries; 1000000 for the full measure")
	flag.StringVar(&opts.only, "only", "", "measure one part only: admissions, resets or boundary")
	flag.DurationVar(&opts.duration, "duration", 4*time.Second, "measured time of each trial, in whole seconds")
	flag.DurationVar(&opts.warmup, "warmup", 2*time.Second, "time before it that is not measured, in whole seconds")
	flag.BoolVar(&opts.strict, "strict", false, "fail if a goal is missed")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, opts); err != nil {
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
	case !slices.Contains([]string{"", "admissions", "resets", "boundary"}, o.only):
		return fmt.Errorf("--only=%s: admissions, resets or boundary", o.only)
	case o.duration < time.Second || o.duration%time.Second != 0:
		return fmt.Errorf("--duration=%s: a whole number of seconds, at least one", o.duration)
	case o.warmup < 0 || o.warmup%time.Second != 0:
		return fmt.Errorf("--warmup=%s: a whole number of seconds", o.warmup)
	}
	return nil
}

func run(ctx context.Context, opts options) (err error) {
	if err := opts.validate(); err != nil {
		return err
	}
	b := &bench{opts: opts, report: &report{out: os.Stdout, start: time.Now()}}
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
		b.report.progressf("%d processors, load average before the start %s", runtime.NumCPU(), strings.Join(strings.Fields(string(average))[:3], " "))
	}
	b.report.progressf("a private PostgreSQL with one plan and %d users", opts.users)
	if b.lab, err = newLab(ctx, os.Stdout, opts.users); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.lab.server.Stop()) }()
	if b.pgbench, err = newPgbench(b.lab.server.BinDir(), b.dir); err != nil {
		return err
	}
	if opts.only == "" || opts.only == "admissions" {
		if err := b.measure(ctx); err != nil {
			return err
		}
	}
	if opts.only == "" || opts.only == "resets" {
		if err := b.measureResets(ctx); err != nil {
			return fmt.Errorf("resets: %w", err)
		}
	}
	if opts.only == "" || opts.only == "boundary" {
		if err := b.measureBoundary(ctx); err != nil {
			return fmt.Errorf("the month's boundary: %w", err)
		}
	}
	if missed := b.report.summary(); missed > 0 && opts.strict {
		return fmt.Errorf("%d goals were missed", missed)
	}
	return nil
}

type bench struct {
	opts    options
	dir     string
	lab     *lab
	pgbench *pgbench
	report  *report

	uniform, hot baselines
	latency      result
}

func (b *bench) load(clients, users int) load {
	return load{clients: clients, users: users, warmup: b.opts.warmup, duration: b.opts.duration}
}

// openLoop has both sides take the same rate: half of what naive can.
func (b *bench) openLoop() load {
	l := b.load(many, b.opts.users)
	l.rate = b.uniform.naive[many].perSecond / 2
	return l
}

func (b *bench) measure(ctx context.Context) error {
	var err error
	if b.uniform, err = b.baselines(ctx, b.opts.users, one, some, many); err != nil {
		return err
	}
	if b.hot, err = b.baselines(ctx, 1, some, many); err != nil {
		return err
	}
	if b.latency, err = b.baseline(ctx, "pgbench "+prepared+", open loop", prepared, b.openLoop()); err != nil {
		return err
	}
	if err := b.measureEngine(ctx); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if err := b.measureHTTP(ctx); err != nil {
		return fmt.Errorf("over HTTP: %w", err)
	}
	return nil
}

// baselines of one distribution of the load: naive by the number of clients, and the best of all.
type baselines struct {
	naive map[int]result
	best  result
}

func (b *bench) baselines(ctx context.Context, users int, naive ...int) (baselines, error) {
	all := baselines{naive: map[int]result{}}
	tries := map[string][]int{prepared: naive}
	for _, clients := range []int{some, 64, many} {
		for _, variant := range variants {
			if variant != prepared || clients == 64 {
				tries[variant] = append(tries[variant], clients)
			}
		}
	}
	for _, variant := range variants {
		for _, clients := range tries[variant] {
			r, err := b.baseline(ctx, "pgbench "+variant, variant, b.load(clients, users))
			if err != nil {
				return baselines{}, err
			}
			if variant == prepared {
				all.naive[clients] = r
			}
			if r.perSecond > all.best.perSecond {
				all.best = r
			}
		}
	}
	return all, nil
}

func (b *bench) baseline(ctx context.Context, what, variant string, l load) (result, error) {
	// Usually enough for connecting; on a busy machine it takes longer.
	connecting := time.Duration(l.clients/100) * time.Second
	for {
		database, err := b.lab.fresh(ctx)
		if err != nil {
			return result{}, err
		}
		r, err := b.pgbench.run(ctx, b.lab.server.DSN(database), variant, l, connecting)
		if errors.Is(err, errTooShort) && connecting < maxConnecting {
			connecting += maxConnecting / 3
			b.report.progressf("again with %s for connecting: %v", connecting, err)
			continue
		}
		if err != nil {
			return result{}, err
		}
		b.report.trial(what, l, r)
		if err := b.lab.verify(ctx, database, r.pairs); err != nil {
			return result{}, err
		}
		return r, b.lab.drop(ctx, database)
	}
}

// try puts a load on a target of ours and adds what was acknowledged to pairs.
func (b *bench) try(ctx context.Context, what string, t target, l load, pairs *int) (result, error) {
	if err := b.lab.exec(ctx, "CHECKPOINT"); err != nil {
		return result{}, err
	}
	r, err := put(ctx, t, l)
	if err != nil {
		return result{}, fmt.Errorf("%s, %d clients, %d users: %w", what, l.clients, l.users, err)
	}
	*pairs += r.pairs
	b.report.trial(what, l, r)
	return r, nil
}

func (b *bench) measureEngine(ctx context.Context) (err error) {
	database, err := b.lab.fresh(ctx)
	if err != nil {
		return err
	}
	e, stop, err := startEngine(ctx, b.lab.server.DSN(database))
	if err != nil {
		return err
	}
	pairs := 0
	r, err := b.try(ctx, "engine", e, b.load(many, b.opts.users), &pairs)
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	b.report.rate("admit_engine_uniform_256", r, b.uniform.naive[many], 6)
	b.report.rate("admit_engine_uniform_256_best", r, b.uniform.best, 2)
	if err := b.verifyOurs(ctx, "engine", database, pairs); err != nil {
		return err
	}
	return b.lab.drop(ctx, database)
}

func (b *bench) measureHTTP(ctx context.Context) (err error) {
	kube := newCluster()
	defer kube.close()
	kubeconfig := filepath.Join(b.dir, "kubeconfig")
	if err := kube.writeKubeconfig(kubeconfig); err != nil {
		return err
	}
	b.report.progressf("building and starting usaged")
	uniform, err := b.lab.fresh(ctx)
	if err != nil {
		return err
	}
	service := &usaged{dir: b.dir, kubeconfig: kubeconfig}
	if err := service.build(ctx); err != nil {
		return err
	}
	if err := service.during(ctx, b.lab.server.DSN(uniform), func(ctx context.Context, t *overHTTP) error {
		pairs, err := b.uniformOverHTTP(ctx, t, kube)
		if err != nil {
			return err
		}
		return b.verifyOurs(ctx, "HTTP", uniform, pairs)
	}); err != nil {
		return err
	}
	hot, err := b.lab.fresh(ctx)
	if err != nil {
		return err
	}
	return service.during(ctx, b.lab.server.DSN(hot), func(ctx context.Context, t *overHTTP) error {
		pairs := 0
		r, err := b.tryHTTP(ctx, t, b.load(many, 1), &pairs)
		if err != nil {
			return err
		}
		b.report.rate("admit_http_hot_256_best", r, b.hot.best, 4)
		return b.lab.verify(ctx, hot, pairs)
	})
}

// uniformOverHTTP measures the load that is spread over all users, and returns how many pairs were acknowledged.
func (b *bench) uniformOverHTTP(ctx context.Context, t *overHTTP, kube *cluster) (pairs int, err error) {
	r, err := b.tryHTTP(ctx, t, b.load(many, b.opts.users), &pairs)
	if err != nil {
		return 0, err
	}
	b.report.rate("admit_http_uniform_256", r, b.uniform.naive[many], 3)
	b.report.rate("admit_http_uniform_256_best", r, b.uniform.best, 1)
	b.report.progressf("usaged asked for %d token reviews and %d access reviews, its caches answered the rest", kube.tokens.Load(), kube.spenders.Load())
	if r, err = b.tryHTTP(ctx, t, b.openLoop(), &pairs); err != nil {
		return 0, err
	}
	b.report.latency("admit_http_uniform_256_p50_ms", r.p50, b.latency.p50, 1)
	b.report.latency("admit_http_uniform_256_p99_ms", r.p99, b.latency.p99, 1)
	if r, err = b.tryHTTP(ctx, t, b.load(some, b.opts.users), &pairs); err != nil {
		return 0, err
	}
	b.report.rate("admit_http_uniform_16", r, b.uniform.naive[some], 1)
	if r, err = b.tryHTTP(ctx, t, b.load(one, b.opts.users), &pairs); err != nil {
		return 0, err
	}
	b.report.rate("admit_http_uniform_1", r, b.uniform.naive[one], 0.8)
	return pairs, nil
}

func (b *bench) tryHTTP(ctx context.Context, t *overHTTP, l load, pairs *int) (result, error) {
	what := "HTTP"
	if l.rate > 0 {
		what = "HTTP, open loop"
	}
	if err := t.warm(ctx, l); err != nil {
		return result{}, err
	}
	return b.try(ctx, what, t, l, pairs)
}

func (b *bench) verifyOurs(ctx context.Context, what, database string, pairs int) error {
	if err := b.lab.verify(ctx, database, pairs); err != nil {
		return err
	}
	if err := b.lab.checkInvariants(ctx, database); err != nil {
		return err
	}
	b.report.progressf("%s: all %d acknowledged pairs are in the database, and the invariants hold", what, pairs)
	return nil
}
