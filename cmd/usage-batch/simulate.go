// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cantonesescribe/usage-operator/internal/advice"
	"github.com/cantonesescribe/usage-operator/internal/manifest"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/testclock"
)

// maxManifest is the most bytes of a manifest.
const maxManifest = 1 << 20

func simulateCommand(o *options, getenv func(string) string) *cobra.Command {
	var ofPlan, output string
	cmd := &cobra.Command{
		Use:   "simulate plan.yaml",
		Short: "Say what the last 90 days would have been on a plan that need not exist",
		Long: "Say what the last 90 days would have been on a plan that need not exist: who fits, what it brings in, " +
			"what it costs and what it refuses. The file has the manifest of a UsagePlan, - reads it from standard " +
			"input; it is judged as the API server would judge it. Nothing is changed.\n\n" +
			"It ends with 0 if the plan was tried, 1 if it could not be, 2 if the manifest is not one of a UsagePlan " +
			"(it names each field), and 3 if it was asked to end by SIGTERM or SIGINT.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("--output %q: must be json, or left out for a table", output)
			}
			data, err := readManifest(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			plan, err := manifest.Plan(cmd.Context(), data)
			if err != nil {
				return err
			}
			url, err := o.url(getenv, "DATABASE_URL")
			if err != nil {
				return err
			}
			db, err := postgres.Open(cmd.Context(), url,
				postgres.Options{AllowUnsafe: o.allowUnsafe, Name: "usage-batch simulate", Now: testclock.Now()})
			if err != nil {
				return err
			}
			defer db.Close()
			done, err := reports.New(readdb.New(db), nil).Simulate(cmd.Context(), plan, ofPlan, 0)
			if err != nil {
				return err
			}
			if output == "json" {
				lines := json.NewEncoder(cmd.OutOrStdout())
				lines.SetIndent("", "  ")
				return lines.Encode(simulatedDocument(&done))
			}
			return tellSimulated(cmd.OutOrStdout(), &done)
		},
	}
	cmd.Flags().StringVar(&ofPlan, "of-plan", "", "the plan whose users it is tried for; all users without it")
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a table without it")
	return cmd
}

func readManifest(stdin io.Reader, path string) ([]byte, error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // it was only read
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxManifest+1))
	if err == nil && len(data) > maxManifest {
		err = fmt.Errorf("%s: has more than %d bytes", path, maxManifest)
	}
	return data, err
}

// simulatedUsers are users by what would have refused some of their work.
type simulatedUsers struct {
	Reason quota.Reason `json:"reason"`
	Users  int64        `json:"users"`
}

// simulatedOutcome is an outcome with exact amounts: credits in 1/60000, money in micro-units.
type simulatedOutcome struct {
	Currency           string `json:"currency"`
	Users              int64  `json:"users"`
	Periods            int64  `json:"periods"`
	ServedMs           int64  `json:"served_ms"`
	OverageMs          int64  `json:"overage_ms"`
	RefusedMs          int64  `json:"refused_ms"`
	PeriodPriceMicros  int64  `json:"period_price_micros"`
	OveragePriceMicros int64  `json:"overage_price_micros"`
	RevenueMicros      int64  `json:"revenue_micros"`
	CostMicros         int64  `json:"cost_micros"`
	MarginMicros       int64  `json:"margin_micros"`
}

type simulatedAnswer struct {
	Plan         string             `json:"plan"`
	OfPlan       string             `json:"of_plan,omitempty"`
	From         string             `json:"from"`
	To           string             `json:"to"`
	Outcome      simulatedOutcome   `json:"outcome"`
	UsersThatFit int64              `json:"users_that_fit"`
	Refused      []simulatedUsers   `json:"refused"`
	Present      []simulatedOutcome `json:"present"`
	AsOf         time.Time          `json:"as_of"`
}

func simulatedDocument(s *reports.Simulated) simulatedAnswer {
	out := simulatedAnswer{
		Plan: s.Plan.Name, OfPlan: s.OfPlan, From: s.From.String(), To: s.To.String(), Outcome: exactly(&s.Outcome),
		UsersThatFit: s.Fits, Refused: refusedOf(s), Present: []simulatedOutcome{}, AsOf: s.AsOf,
	}
	for i := range s.Present {
		out.Present = append(out.Present, exactly(&s.Present[i]))
	}
	return out
}

func exactly(o *advice.Outcome) simulatedOutcome {
	return simulatedOutcome{
		Currency: o.Currency, Users: o.Users, Periods: o.Periods, ServedMs: int64(o.Served),
		OverageMs: int64(o.Overage), RefusedMs: int64(o.Refused), PeriodPriceMicros: int64(o.PeriodPrice),
		OveragePriceMicros: int64(o.OveragePrice), RevenueMicros: int64(o.Revenue()), CostMicros: int64(o.Cost),
		MarginMicros: int64(o.Margin()),
	}
}

// refusedOf are the reasons in the order of quota.Reasons.
func refusedOf(s *reports.Simulated) []simulatedUsers {
	out := []simulatedUsers{}
	for _, info := range quota.Reasons {
		if n := s.Refused[info.Reason]; n > 0 {
			out = append(out, simulatedUsers{info.Reason, n})
		}
	}
	return out
}

// tellSimulated writes a table: the plan beside those that the users are on.
func tellSimulated(out io.Writer, s *reports.Simulated) error {
	whose := "all users"
	if s.OfPlan != "" {
		whose = "users on " + s.OfPlan
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(out, "%s, %s to %s, for %s who pay for themselves, as of %s\n\n", s.Plan.Name, s.From, s.To,
		whose, s.AsOf.UTC().Format(time.RFC3339))
	_, _ = fmt.Fprintln(w, "ON\tUSERS\tPERIODS\tSERVED\tOVERAGE\tREFUSED\tREVENUE\tCOST\tMARGIN\tCURRENCY")
	row := func(name string, o *advice.Outcome) {
		_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, o.Users, o.Periods, o.Served, o.Overage,
			o.Refused, o.Revenue(), o.Cost, o.Margin(), o.Currency)
	}
	row(s.Plan.Name, &s.Outcome)
	for i := range s.Present {
		row("present plans", &s.Present[i])
	}
	err := w.Flush()
	_, _ = fmt.Fprintf(out, "\n%d of %d users fit\n", s.Fits, s.Outcome.Users)
	for _, r := range refusedOf(s) {
		_, _ = fmt.Fprintf(out, "%d do not: %s\n", r.Users, r.Reason)
	}
	return err
}

// notAManifest reports whether an error is about what a manifest says.
func notAManifest(err error) bool {
	_, is := errors.AsType[*manifest.Error](err)
	return is
}
