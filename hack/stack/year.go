// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/testing/localstack"
	"github.com/cantonesescribe/usage-operator/internal/testing/year"
)

// playYear plays the year that ends now. The programs take the time from the player meanwhile, and then have the
// machine's again.
func playYear(ctx context.Context, out *printer, stack *localstack.Stack) error {
	end := time.Now()
	tell := func(now time.Time) error {
		// Renamed into its place, so that nobody reads half of it and has the present.
		next := stack.ClockFile() + ".next"
		if err := os.WriteFile(next, []byte(time.Until(now).String()), 0o600); err != nil {
			return err
		}
		return os.Rename(next, stack.ClockFile())
	}
	if err := tell(year.Start(end)); err != nil {
		return err
	}
	out.progress("playing a year of a hundred users")
	if err := kubectl(ctx, stack, year.Objects, "apply", "-f", "-"); err != nil {
		return err
	}
	if err := kubectl(ctx, stack, "", "wait", "--for=condition=Ready", "--timeout=30s",
		"usageplans,usageteams,userquotas", "--all"); err != nil {
		return err
	}
	if err := year.Play(ctx, year.Options{DSN: stack.DatabaseURL, End: end, Tell: tell}); err != nil {
		return err
	}
	if err := tell(time.Now()); err != nil {
		return err
	}
	if err := kubectl(ctx, stack, year.Jobs, "apply", "-f", "-"); err != nil {
		return err
	}
	return kubectl(ctx, stack, "", "-n", "transcripts", "wait", "--for=jsonpath={.status.active}=1", "--timeout=30s",
		"job/interview-lam")
}

// kubectl runs it, with an input.
func kubectl(ctx context.Context, stack *localstack.Stack, input string, args ...string) error {
	cmd := exec.CommandContext(ctx, stack.Plane.Kubectl(), append([]string{"--kubeconfig=" + stack.Plane.Kubeconfig},
		args...)...)
	cmd.Stdin = strings.NewReader(input)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, text)
	}
	return nil
}
