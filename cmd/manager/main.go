// SPDX-License-Identifier: Apache-2.0

// Command manager runs the controllers of UsagePlans, UserQuotas and Jobs, and the admission webhooks.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/cantonesescribe/usage-operator/internal/version"
)

func main() {
	if err := run(ctrl.SetupSignalHandler(), os.Args[1:], os.Getenv); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "manager:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, getenv func(string) string) error {
	o, err := parse(args, getenv)
	if err != nil {
		return err
	}
	if o.showVersion {
		fmt.Println("manager", version.String())
		return nil
	}
	return serve(ctx, o)
}
