// SPDX-License-Identifier: Apache-2.0

// Command usage-batch does the work around the service that is run to its end: it migrates the database, closes the
// periods of a plan and rolls up what was used (as the CronJobs do), and checks the ledger against its invariants.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/invariants"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/version"
)

// retryInterval is how often a database that does not answer is tried.
const retryInterval = time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(os.Getenv).ExecuteContext(ctx); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "usage-batch:", err)
		os.Exit(exitCode(err)) //nolint:gocritic // the deferred stop only restores the signals
	}
}

// options are what all subcommands share.
type options struct {
	databaseURL string
	allowUnsafe bool
}

// url returns the database's URL, from the flag or else the environment.
func (o *options) url(getenv func(string) string, environment ...string) (string, error) {
	values := []string{o.databaseURL}
	for _, name := range environment {
		values = append(values, getenv(name))
	}
	url := cmp.Or(values...)
	if url == "" {
		return "",
			errors.New(
				"no database: set --database-url or the environment variable DATABASE_URL, such as " +
					"postgres://usage@db.example/usage")
	}
	return url, nil
}

func command(getenv func(string) string) *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:           "usage-batch",
		Short:         "Migrate, reset, roll up and check the usage ledger, and move what is a cluster's",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentFlags().StringVar(&o.databaseURL, "database-url", "",
		"PostgreSQL connection string; the environment's DATABASE_URL without it")
	root.PersistentFlags().BoolVar(&o.allowUnsafe, "allow-unsafe-database", false,
		"accept a server that may lose acknowledged writes (fsync, full_page_writes or synchronous_commit off)")
	root.AddCommand(migrateCommand(&o, getenv), checkCommand(&o, getenv), resetCommand(&o, getenv),
		rollupCommand(&o, getenv), adoptCommand(&o, getenv), simulateCommand(&o, getenv))
	return root
}

func migrateCommand(o *options, getenv func(string) string) *cobra.Command {
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's schema to this release",
		Long: "Bring the database's schema to this release. Several may run at once, and again: what is done is not " +
			"done twice. " +
			"The connection must lead past a transaction pooler; DIRECT_DATABASE_URL is taken before DATABASE_URL.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if patience < 0 {
				return fmt.Errorf("--wait %s: must be 0s or more", patience)
			}
			url, err := o.url(getenv, "DIRECT_DATABASE_URL", "DATABASE_URL")
			if err != nil {
				return err
			}
			// Opened first for the sake of its check: an unsafe server is to be refused before anything is written to
			// it.
			store, err := openPatiently(cmd, url,
				postgres.Options{AllowUnsafe: o.allowUnsafe, AnySchema: true}, patience)
			if err != nil {
				return err
			}
			store.Close()
			if err := postgres.Migrate(cmd.Context(), url); err != nil {
				return err
			}
			cmd.Println("the schema is up to date")
			return nil
		},
	}
	cmd.Flags().DurationVar(&patience, "wait", 0,
		"how long to try to reach a database that does not answer yet; once without it")
	return cmd
}

// openPatiently opens the database, again every second while it does not answer and patience lasts.
func openPatiently(
	cmd *cobra.Command, url string, opts postgres.Options, patience time.Duration,
) (*ledgerdb.Store, error) {
	deadline := time.Now().Add(patience)
	for {
		store, err := ledgerdb.Open(cmd.Context(), url, opts)
		if !errors.Is(err, ledger.ErrUnavailable) || time.Until(deadline) < retryInterval {
			return store, err
		}
		cmd.PrintErrln("trying again in", retryInterval, "because:", err)
		select {
		case <-cmd.Context().Done():
			return nil, err
		case <-time.After(retryInterval):
		}
	}
}

func checkCommand(o *options, getenv func(string) string) *cobra.Command {
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the ledger against its invariants",
		Long: "Check the ledger against its invariants, in one snapshot and beside a running service. It prints " +
			"each violation and fails if there is one.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if grace < 0 {
				return fmt.Errorf("--lease-grace %s: must be 0s or more", grace)
			}
			url, err := o.url(getenv, "DATABASE_URL")
			if err != nil {
				return err
			}
			config, err := pgx.ParseConfig(url)
			if err != nil {
				return fmt.Errorf("database URL: %w", err)
			}
			conn, err := pgx.ConnectConfig(cmd.Context(), config)
			if err != nil {
				return fmt.Errorf("the database cannot be reached: %w", err)
			}
			defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(cmd.Context()))) }()
			if err := postgres.CheckSchema(cmd.Context(), conn.PgConn()); err != nil {
				return fmt.Errorf("%w: run `usage-batch migrate` on it", err)
			}
			var checks []invariants.Option
			if grace > 0 {
				checks = append(checks, invariants.WithLeases(time.Time{}, grace))
			}
			violations, err := invariants.Check(cmd.Context(), conn, checks...)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			for _, v := range violations {
				_, _ = fmt.Fprintln(out, v)
			}
			_, _ = fmt.Fprintf(out, "%d violations of the ledger's invariants\n", len(violations))
			if len(violations) > 0 {
				return fmt.Errorf("the ledger violates its invariants %d times", len(violations))
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&grace, "lease-grace", 0,
		"also check that nothing outlives its lease by more than this: the service's reaper looks every 5s, so a "+
			"minute is ample where it runs; 0 does not check")
	return cmd
}
