// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/rollupdb"
	"github.com/cantonesescribe/usage-operator/internal/rollup"
	"github.com/cantonesescribe/usage-operator/internal/telemetry"
	"github.com/cantonesescribe/usage-operator/internal/testclock"
)

// rollupOptions are the flags of the rollup.
type rollupOptions struct {
	*options

	batchSize           int
	retryFor            time.Duration
	rebuild, fullSpeed  bool
	logFormat, logLevel string
}

func rollupCommand(shared *options, getenv func(string) string) *cobra.Command {
	o := rollupOptions{options: shared}
	cmd := &cobra.Command{
		Use:   "rollup",
		Short: "Bring the sums of what users have used up to date",
		Long: "Bring the sums of what users have used up to date, from which analytics are answered. It makes the " +
			"days anew on which something has changed. Running it twice, beside itself, or again after it was " +
			"killed, changes nothing more.\n\n" +
			"It ends with 0 if all sums are up to date, 1 if it could not run or gave up, 2 if single accounts could " +
			"not be rolled up (it names them; all others are), and 3 if it was asked to end by SIGTERM or SIGINT.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd, getenv)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&o.batchSize, "batch-size", 0, "accounts that one transaction rolls up at most, 1 to 10000; "+
		"0 leaves it to the run: 200, and for a rebuild at full speed as many as are cheapest")
	flags.DurationVar(&o.retryFor, "retry-for", 5*time.Minute,
		"how long to wait for a database that does not answer before giving up")
	flags.BoolVar(&o.rebuild, "rebuild", false, "make the sums of all accounts anew, not only those that have changed")
	flags.BoolVar(&o.fullSpeed, "full-speed", false,
		"do not make way for others at work in the database: two transactions at once, those of a rebuild large")
	flags.StringVar(&o.logFormat, "log-format", "text", "json or text")
	flags.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func (o *rollupOptions) validate() error {
	switch {
	case o.batchSize < 0 || o.batchSize > maxBatchSize:
		return fmt.Errorf("--batch-size %d: must lie between 0 and %d", o.batchSize, maxBatchSize)
	case o.retryFor <= 0:
		return fmt.Errorf("--retry-for %s: must be positive", o.retryFor)
	}
	return nil
}

func (o *rollupOptions) run(cmd *cobra.Command, getenv func(string) string) error {
	if err := o.validate(); err != nil {
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
	db, err := postgres.Open(ctx, url,
		postgres.Options{AllowUnsafe: o.allowUnsafe, Name: "usage-batch rollup", Now: testclock.Now()})
	if err != nil {
		return err
	}
	defer db.Close()
	defer context.AfterFunc(ctx, func() { log.Info("asked to end, giving up the transaction under way") })()
	started, told := time.Now(), time.Now()
	res, err := rollup.Run(ctx, rollupdb.New(readdb.New(db)), rollup.Options{
		BatchSize: o.batchSize, RetryFor: o.retryFor, Rebuild: o.rebuild, FullSpeed: o.fullSpeed,
		Progress: func(r rollup.Result) {
			if time.Since(told) >= logInterval {
				told = time.Now()
				log.Info("rolling up", "accounts", r.Accounts, "days", r.Days, "rows", r.Rows, "failed", r.Failed)
			}
		},
	})
	for _, f := range res.Failures {
		log.Error("account not rolled up", "error", f.String())
	}
	if more := res.Failed - int64(len(res.Failures)); more > 0 {
		log.Error("further accounts not rolled up", "accounts", more)
	}
	_, _ = fmt.Fprintf(cmd.OutOrStdout(), "%d accounts rolled up: %d days in %d rows, %d accounts failed, in %s\n",
		res.Accounts, res.Days, res.Rows, res.Failed, time.Since(started).Round(time.Millisecond))
	return err
}
