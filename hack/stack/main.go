// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Command stack brings the whole product up on this machine: `stack run` leaves it running until Ctrl-C, `stack year`
// too, after a year of a hundred users, and `stack demo` plays a story on it. It expects the product's programs beside
// itself and the control plane's in the folder that KUBEBUILDER_ASSETS names: `make` sees to both.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/cantonesescribe/usage-operator/internal/testing/freeport"
	"github.com/cantonesescribe/usage-operator/internal/testing/localstack"
	"github.com/cantonesescribe/usage-operator/internal/testing/oidctest"
)

const usage = "usage: stack demo | run [FLAG OF USAGED]... | year [FLAG OF USAGED]..."

func main() {
	// Where there is no curl the demo's commands find this program under its name.
	if filepath.Base(os.Args[0]) == "curl" {
		os.Exit(curl(os.Args[1:], os.Stdout, os.Stderr))
	}
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second Ctrl-C is not caught: it ends us at once, and the watchdog the rest.
	context.AfterFunc(ctx, stop)

	out := newPrinter(os.Stdout)
	err := run(ctx, out, os.Args[1:])
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	if err != nil {
		out.failure(err.Error())
		os.Exit(1) //nolint:gocritic // the deferred stop only restores the signals
	}
	if slices.Equal(os.Args[1:], []string{"demo"}) {
		out.text("The pages: `make run` leaves this stack up and prints the addresses of /console and /usage.")
	}
}

func run(ctx context.Context, out *printer, args []string) (err error) {
	if len(args) == 0 || !slices.Contains([]string{"demo", "run", "year"}, args[0]) ||
		(args[0] == "demo" && len(args) > 1) {
		return errors.New(usage)
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, "config", "default")); err != nil {
		return fmt.Errorf("run this in the repository's folder: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	customers, err := startPeople()
	if err != nil {
		return err
	}
	defer customers.stop()
	port, err := freeport.Get()
	if err != nil {
		return err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	ctx, stack, err := localstack.Start(ctx, localstack.Options{
		Root: root, Programs: filepath.Dir(self), Progress: out.progress, UsagedAddress: address,
		Usaged: append(customers.flags(address), args[1:]...),
	})
	if err != nil {
		return err
	}
	defer func() {
		out.progress("stopping every process and removing " + stack.Dir())
		err = errors.Join(err, stack.Stop())
	}()
	out.progress("everything is up")
	if args[0] == "year" {
		if err := playYear(ctx, out, stack); err != nil {
			return err
		}
	}
	if args[0] != "demo" {
		if err := letOperate(ctx, stack, root); err != nil {
			return err
		}
		return wait(ctx, out, stack, customers, args[0] == "year")
	}
	if err := demo(ctx, out, stack, customers, root); err != nil {
		return errors.Join(err, keepLogs(out, stack, filepath.Join(filepath.Dir(self), "demo-logs")))
	}
	return nil
}

// letOperate gives olga the rights of whoever runs the service.
func letOperate(ctx context.Context, stack *localstack.Stack, root string) error {
	return kubectl(ctx, stack, "", "apply", "-f", filepath.Join(root, "hack", "demo", "operator.yaml"))
}

// keepLogs saves what explains a failure from being removed with the rest.
func keepLogs(out *printer, stack *localstack.Stack, folder string) error {
	logs, err := filepath.Glob(filepath.Join(stack.Dir(), "*.log"))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, log := range append(logs, filepath.Join(stack.Postgres().Dir(), "postgres.log")) {
		text, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(log)), text, 0o600); err != nil {
			return err
		}
	}
	out.progress("the programs' logs are kept in " + folder)
	return nil
}

func wait(ctx context.Context, out *printer, stack *localstack.Stack, customers *people, played bool) error {
	declare := "  kubectl apply -k config/samples && kubectl apply -f hack/demo/users.yaml"
	if played {
		declare = "  kubectl get usageplans,usageteams,userquotas"
	}
	out.text(strings.Join([]string{
		"",
		"  export KUBECONFIG=" + stack.Plane.Kubeconfig,
		"  export PATH=" + filepath.Dir(stack.Plane.Kubectl()) + ":$PATH",
		"  export USAGED=" + stack.UsagedURL,
		"  export DATABASE_URL='" + stack.DatabaseURL + "'",
		"  export USAGE_TEST_CLOCK=" + stack.ClockFile(),
		"",
		"  metrics of usaged   " + stack.UsagedURL + "/metrics (needs a token)",
		"  metrics of manager  " + stack.MetricsURL + " (needs a token)",
		"  logs                " + stack.Dir() + "/*.log",
		"  console             " + stack.UsagedURL + "/console  sign in as olga, password '" + oidctest.Password + "'",
		"  usage page          " + stack.UsagedURL + "/usage    sign in as mina or petra, with the same password",
		"                      Chromium keeps the session of a page without TLS; that of the provider, at",
		"                      " + customers.URL + ", is of an authority that browsers do not know and warn of:",
		"                      go on, or have them trust " + customers.authority(),
		"",
		declare,
		"  TOKEN=$(kubectl -n transcripts create token transcriber --audience=usaged)",
		"  bin/usage-batch rollup    # before analytics: pods run nothing here, those of the CronJobs neither",
		"",
		"Ctrl-C stops everything and leaves nothing behind.",
	}, "\n"))
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}
