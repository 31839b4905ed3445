// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cantonesescribe/usage-operator/internal/clusters"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/testclock"
)

func adoptCommand(o *options, getenv func(string) string) *cobra.Command {
	var adoption clusters.Adoption
	var jobs string
	cmd := &cobra.Command{
		Use:   "adopt",
		Short: "Move what one cluster declared to another one",
		Long: "Move the plans, and what UserQuotas declared about users, from one cluster to another one on the same " +
			"database. They stay " +
			"in force as they are, until objects of the new cluster take them over; the old cluster's objects are " +
			"not accepted any more. " +
			"Clusters are given by name or UID.\n\n" +
			"Jobs do not move between clusters. With --jobs=auto the admissions of the old cluster's Jobs stay with " +
			"it, and end with " +
			"their Jobs, unless it has not been seen for 10 minutes: then they move, and the new cluster, which has " +
			"no such Jobs, " +
			"charges what their pods have reported and returns their slots.\n\n" +
			"It can be run again after it was interrupted: what has been moved is not moved twice.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			adoption.Jobs = clusters.JobsPolicy(jobs)
			adoption.Actor = "usage-batch@" + cmp.Or(getenv("HOSTNAME"), hostname())
			url, err := o.url(getenv, "DATABASE_URL")
			if err != nil {
				return err
			}
			return o.adopt(cmd.Context(), cmd.OutOrStdout(), url, adoption)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&adoption.From, "from", "", "name or UID of the cluster whose they are (required)")
	flags.StringVar(&adoption.To, "to", "", "name or UID of the cluster whose they become (required)")
	flags.StringVar(&jobs, "jobs", string(clusters.JobsAuto),
		"auto, keep or move: what becomes of the admissions of the old cluster's Jobs")
	flags.BoolVar(&adoption.DryRun, "dry-run", false, "count what would be moved, and write nothing")
	for _, name := range []string{"from", "to"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flags are defined above
		}
	}
	return cmd
}

func (o *options) adopt(ctx context.Context, out io.Writer, url string, adoption clusters.Adoption) error {
	store, err := ledgerdb.Open(ctx, url,
		postgres.Options{AllowUnsafe: o.allowUnsafe, Name: "usage-batch adopt", Now: testclock.Now()})
	if err != nil {
		return err
	}
	defer store.Close()
	done, err := clusters.Adopt(ctx, store, adoption)
	if err == nil || len(done.Moved.Plans)+len(done.Moved.Teams) > 0 || done.Moved.Quotas > 0 || done.Moved.Jobs > 0 {
		tellAdopted(out, &done, adoption.DryRun)
	}
	return err
}

func inBrackets(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}

func tellAdopted(out io.Writer, a *clusters.Adopted, dryRun bool) {
	verb := "moved"
	if dryRun {
		verb = "would be moved"
	}
	_, _ = fmt.Fprintf(out,
		"%s from cluster %s to cluster %s: %d plans%s, %d teams%s, %d UserQuotas, %d admissions of Jobs\n",
		verb, &a.From, &a.To, len(a.Moved.Plans), inBrackets(a.Moved.Plans), len(a.Moved.Teams),
		inBrackets(a.Moved.Teams), a.Moved.Quotas, a.Moved.Jobs)
	if a.Left.Jobs > 0 {
		_, _ = fmt.Fprintf(out,
			"%d admissions of Jobs stay with cluster %s, which was last seen %s ago: they end with their Jobs. "+
				"If that cluster is gone for good, run this again with --jobs=move\n",
			a.Left.Jobs, &a.From, a.From.Silent.Round(time.Second))
	}
}
