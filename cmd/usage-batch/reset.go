// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/reset"
	"github.com/cantonesescribe/usage-operator/internal/rollup"
	"github.com/cantonesescribe/usage-operator/internal/telemetry"
	"github.com/cantonesescribe/usage-operator/internal/testclock"
)

// Bounds of the reset's flags. That of --batch-size is the plan's own field's.
const (
	maxBatchSize = 10_000
	maxWorkers   = 64
)

// The exit codes of usage-batch.
const (
	exitFailed         = 1 // wrong usage, no database, or a run that ended before it had seen all
	exitAccountsFailed = 2 // the reset or the rollup has done all but some accounts, which it named
	exitWrongManifest  = 2 // the manifest to simulate is not one of a UsagePlan
	exitInterrupted    = 3 // it was asked to end, and did so in order
)

func exitCode(err error) int {
	switch {
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, reset.ErrAccountsFailed), errors.Is(err, rollup.ErrAccountsFailed):
		return exitAccountsFailed
	case notAManifest(err):
		return exitWrongManifest
	}
	return exitFailed
}

// resetOptions are the flags of the reset.
type resetOptions struct {
	*options

	plan                string
	batchSize, workers  int
	retryFor            time.Duration
	dryRun, allowFuture bool
	fullSpeed, retired  bool
	asOf                string
	logFormat, logLevel string
}

func resetCommand(shared *options, getenv func(string) string) *cobra.Command {
	o := resetOptions{options: shared}
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Close the ended periods of a plan's accounts",
		Long: "Close the ended periods of a plan's accounts. Nobody waits for it: an account that is used closes its " +
			"own periods. " +
			"Running it twice, beside itself, or again after it was killed, changes nothing more.\n\n" +
			"It ends with 0 if everything that was due is closed, 1 if it could not run or gave up, 2 if single " +
			"accounts could not " +
			"be closed (it names them; all others are), and 3 if it was asked to end by SIGTERM or SIGINT.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd, getenv)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.plan, "plan", "", "name of the plan (required)")
	flags.BoolVar(&o.retired, "retired", false,
		"reset the retired plans as well, which have no CronJob of their own any more")
	flags.IntVar(&o.batchSize, "batch-size", 0,
		"accounts that one transaction closes, 1 to 10000; the plan's reset.batchSize without it")
	flags.IntVar(&o.workers, "workers", 2, "transactions at once, 1 to 64")
	flags.DurationVar(&o.retryFor, "retry-for", 5*time.Minute,
		"how long to wait for a database that does not answer before giving up")
	flags.BoolVar(&o.dryRun, "dry-run", false, "count what would be closed, and write nothing")
	flags.BoolVar(&o.fullSpeed, "full-speed", false, "do not make way for others who are at work in the database")
	flags.StringVar(&o.asOf, "as-of", "",
		"instant (RFC 3339) to take for the present, for tests; one in the future is refused")
	flags.BoolVar(&o.allowFuture, "allow-future", false,
		"accept an --as-of in the future: the accounts' clocks then stand still until it has come; never on a "+
			"database that is in use")
	flags.StringVar(&o.logFormat, "log-format", "text", "json or text")
	flags.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	if err := cmd.MarkFlagRequired("plan"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

// clock returns the clock that --as-of asks for, nil for the database's.
func (o *resetOptions) clock() (func() time.Time, error) {
	if o.asOf == "" {
		return testclock.Now(), nil
	}
	at, err := time.Parse(time.RFC3339, o.asOf)
	if err != nil {
		return nil, fmt.Errorf("--as-of %q: must be an instant such as 2026-12-01T00:00:00Z", o.asOf)
	}
	if at.After(time.Now()) && !o.allowFuture {
		return nil,
			fmt.Errorf(
				"--as-of %s lies in the future: accounts that are reset as of then would stand still until it has come",
				o.asOf)
	}
	return func() time.Time { return at }, nil
}

func (o *resetOptions) validate(cmd *cobra.Command) error {
	switch {
	case o.plan == "":
		return errors.New("--plan: must name a plan")
	case cmd.Flags().Changed("batch-size") && (o.batchSize < 1 || o.batchSize > maxBatchSize):
		return fmt.Errorf("--batch-size %d: must lie between 1 and %d", o.batchSize, maxBatchSize)
	case o.workers < 1 || o.workers > maxWorkers:
		return fmt.Errorf("--workers %d: must lie between 1 and %d", o.workers, maxWorkers)
	case o.retryFor <= 0:
		return fmt.Errorf("--retry-for %s: must be positive", o.retryFor)
	}
	return nil
}

func (o *resetOptions) run(cmd *cobra.Command, getenv func(string) string) error {
	if err := o.validate(cmd); err != nil {
		return err
	}
	now, err := o.clock()
	if err != nil {
		return err
	}
	log, err := telemetry.NewLogger(cmd.ErrOrStderr(), o.logFormat, o.logLevel)
	if err != nil {
		return err
	}
	url, err := o.url(getenv, "DATABASE_URL")
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	store, err := ledgerdb.Open(ctx, url,
		postgres.Options{AllowUnsafe: o.allowUnsafe, Name: "usage-batch reset", Now: now})
	if err != nil {
		return err
	}
	defer store.Close()
	engine := ledger.New(store, ledger.Options{})
	service := reset.New(engine, store,
		func(err error, message string) { log.Warn(message, "error", err) })
	defer context.AfterFunc(ctx, func() { log.Info("asked to end, finishing the batches under way", "plan", o.plan) })()
	plans, err := o.plans(ctx, store)
	if err != nil {
		return err
	}
	var errs []error
	for _, plan := range plans {
		if ctx.Err() == nil {
			errs = append(errs, o.resetPlan(cmd, getenv, service, log, plan))
		}
	}
	// What the batches have left to do, to start work that waits for the credits of the new period, nobody else knows.
	engine.Drain()
	telling, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTimeout)
	defer cancel()
	if err := engine.Tell(telling, store); err != nil {
		log.Warn("notifying other processes failed; they find the changes by polling", "error", err)
	}
	return errors.Join(errs...)
}

// tellTimeout bounds how long the end of a run waits for the database to pass on what has changed.
const tellTimeout = 10 * time.Second

// plans are those to reset: the one that was named and, where asked for, those that are retired.
func (o *resetOptions) plans(ctx context.Context, store *ledgerdb.Store) ([]string, error) {
	names := []string{o.plan}
	if !o.retired {
		return names, nil
	}
	all, err := store.Plans(ctx)
	for _, p := range all {
		if p.Retired && p.Name != o.plan {
			names = append(names, p.Name)
		}
	}
	return names, err
}

func (o *resetOptions) resetPlan(
	cmd *cobra.Command, getenv func(string) string, service *reset.Service, log *slog.Logger, plan string,
) error {
	progress := newProgress(cmd.ErrOrStderr(), log, plan)
	started := time.Now()
	result, err := service.Run(cmd.Context(), reset.Options{
		Plan: plan, Actor: "usage-batch@" + cmp.Or(getenv("HOSTNAME"), hostname()), BatchSize: o.batchSize,
		Workers: o.workers, RetryFor: o.retryFor,
		DryRun: o.dryRun, FullSpeed: o.fullSpeed, Progress: progress.show,
	})
	progress.end()
	o.summarise(cmd, log, plan, result, time.Since(started))
	return err
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

func (o *resetOptions) summarise(
	cmd *cobra.Command, log *slog.Logger, plan string, r reset.Result, took time.Duration,
) {
	for _, f := range r.Failures {
		log.Error("account not closed", "plan", plan, "error", f.String())
	}
	if more := r.Failed - int64(len(r.Failures)); more > 0 {
		log.Error("further accounts not closed", "plan", plan, "accounts", more)
	}
	closed := "closed"
	if o.dryRun {
		closed = "would be closed"
	}
	_, _ = fmt.Fprintf(cmd.OutOrStdout(),
		"plan %s: %d accounts were due; %d periods of %d accounts %s, %d accounts failed, in %s\n",
		plan, r.Due, r.Periods, r.Accounts, closed, r.Failed, took.Round(time.Millisecond))
}
