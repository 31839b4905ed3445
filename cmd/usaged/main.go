// SPDX-License-Identifier: Apache-2.0

// Command usaged is the HTTP service: it admits, queues or refuses transcriptions and charges what they used. It holds
// no state of its own, so any number of replicas may run.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/console"
	"github.com/cantonesescribe/usage-operator/internal/httpapi"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(ledger.GCPercent)
	}
	// A second signal is not caught: it ends the process at once.
	context.AfterFunc(ctx, stop)
	if err := command(ctx, os.Args[1:], os.Getenv, os.Stderr); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return
		}
		_, _ = fmt.Fprintln(os.Stderr, "usaged:", err)
		os.Exit(1) //nolint:gocritic // the deferred stop only restores the signals
	}
}

// maxOfflineTickets is what a process can keep in mind without trouble.
const maxOfflineTickets = 100_000

// maxDeliveryWorkers is how many connections to receivers a process should have at most.
const maxDeliveryWorkers = 1000

// options are what the command line and the environment say.
type options struct {
	listen, kubeconfig        string
	databaseURL, directURL    string
	replicaURL                string
	audiences                 []string
	authenticationConfig      string
	tlsCert, tlsKey           string
	logFormat, logLevel       string
	autoRegister, allowUnsafe bool
	publicPlans               bool
	migrate, showVersion      bool
	drainDelay, drainTimeout  time.Duration
	offlineTickets            int
	deliveryWorkers           int
	callerRate                string
	addressFailures           int32
	limits                    httpapi.RateLimits
	origins                   []string
	streams                   httpapi.StreamLimits
	browsers                  *httpapi.Browsers
	signIn                    console.SignInOptions
	sessions                  access.SessionLimits
	framers                   []string
}

func parse(args []string, getenv func(string) string, out io.Writer) (options, error) {
	var o options
	flags := pflag.NewFlagSet("usaged", pflag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&o.listen, "listen", ":8080", "address that the HTTP service listens on")
	flags.StringVar(&o.databaseURL, "database-url", "",
		"PostgreSQL connection string; the environment's DATABASE_URL without it")
	flags.StringVar(&o.directURL, "direct-database-url", "",
		"connection string past a transaction pooler, for LISTEN and migrations; the environment's "+
			"DIRECT_DATABASE_URL without it, else the same as --database-url")
	flags.StringVar(&o.replicaURL, "replica-database-url", "",
		"connection string of a standby that analytics and forecasts are read from; the environment's "+
			"REPLICA_DATABASE_URL without it, else the same as --database-url")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "",
		"file that leads to the API server which checks tokens and rights; without it KUBECONFIG, else the pod's "+
			"service account")
	flags.StringSliceVar(&o.audiences, "audience", []string{"usaged"}, "audiences that a bearer token may be for")
	flags.StringVar(&o.authenticationConfig, "authentication-config", "",
		"file with an AuthenticationConfiguration, as the API server's flag of that name takes it: whose JWTs name "+
			"people; read again when it changes")
	flags.StringArrayVar(&o.origins, "cors-origin", nil,
		"origin whose pages may call from browsers, exactly as browsers send it, such as https://app.example.com; "+
			"given once for each. None without it")
	o.pageFlags(flags)
	flags.StringVar(&o.tlsCert, "tls-cert-file", "",
		"certificate to serve HTTPS with, read again when it changes; plain HTTP without it")
	flags.StringVar(&o.tlsKey, "tls-key-file", "", "key of the certificate")
	flags.BoolVar(&o.autoRegister, "auto-register", true,
		"give unknown users an account on the default plan at their first admission")
	flags.BoolVar(&o.publicPlans, "public-plans", false,
		"show the plans on offer (GET /api/v1/plans) to whoever asks, without a token")
	flags.BoolVar(&o.migrate, "migrate", false,
		"bring the database's schema up to date where it is older or missing, at the start and whenever it turns out "+
			"to be while running; needs the rights to")
	flags.BoolVar(&o.allowUnsafe, "allow-unsafe-database", false,
		"accept a server that may lose acknowledged writes (fsync, full_page_writes or synchronous_commit off)")
	flags.IntVar(&o.offlineTickets, "offline-tickets", 1000,
		"how many offline tickets this replica may have outstanding at once, for users whose plan admits work while "+
			"the database is away; 0 gives none")
	flags.IntVar(&o.deliveryWorkers, "delivery-workers", 32,
		"how many alerts this replica sends to endpoints at once, and as many to endpoints that fail or are slow; 0 "+
			"sends none, which another replica has to do then")
	flags.StringVar(&o.callerRate, "caller-rate", "0",
		"how many calls each caller may make of this replica, whoever they are about, as calls/window, such as "+
			"1000/1m; 0 for any number. What a lease or a ticket is for does not count")
	flags.Int32Var(&o.addressFailures, "address-failures", 300,
		"how many bearer tokens that are not valid each address may send this replica in a minute, before only those "+
			"that were valid already are looked at; 0 for any number")
	flags.IntVar(&o.limits.Connections, "address-connections", 4096,
		"how many connections each address may have with this replica at once; 0 for any number. A proxy is one "+
			"address, whoever is behind it")
	flags.IntVar(&o.streams.All, "max-streams", httpapi.DefaultStreamLimits.All,
		"how many streams of events may be open at this replica at once")
	flags.IntVar(&o.streams.Subject, "user-streams", httpapi.DefaultStreamLimits.Subject,
		"how many streams of events about one user, one team, or the service itself may be open at this replica at "+
			"once")
	flags.DurationVar(&o.drainDelay, "drain-delay", 0,
		"on SIGTERM, how long to go on serving while not ready, so that load balancers notice")
	flags.DurationVar(&o.drainTimeout, "drain-timeout", 20*time.Second,
		"on SIGTERM, how long requests under way may take to end")
	flags.BoolVar(&o.showVersion, "version", false, "print the version and end")
	flags.StringVar(&o.logFormat, "log-format", "json", "json or text")
	flags.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: usaged takes flags only", flags.Arg(0))
	}
	if o.showVersion {
		return o, nil
	}
	if o.databaseURL == "" {
		o.databaseURL = getenv("DATABASE_URL")
	}
	o.replicaURL = cmp.Or(o.replicaURL, getenv("REPLICA_DATABASE_URL"))
	o.directURL = cmp.Or(o.directURL, getenv("DIRECT_DATABASE_URL"), o.databaseURL)
	switch {
	case o.databaseURL == "":
		return o,
			errors.New(
				"no database: set --database-url or the environment variable DATABASE_URL, such as " +
					"postgres://usaged@db.example/usage")
	case (o.tlsCert == "") != (o.tlsKey == ""):
		return o, errors.New("--tls-cert-file and --tls-key-file belong together: set both or neither")
	case o.offlineTickets < 0 || o.offlineTickets > maxOfflineTickets:
		return o, fmt.Errorf("--offline-tickets %d: must lie between 0 and %d", o.offlineTickets, maxOfflineTickets)
	case o.deliveryWorkers < 0 || o.deliveryWorkers > maxDeliveryWorkers:
		return o, fmt.Errorf("--delivery-workers %d: must lie between 0 and %d", o.deliveryWorkers,
			maxDeliveryWorkers)
	case len(o.audiences) == 0:
		return o, errors.New("--audience must name at least one audience")
	case o.streams.All < 1:
		return o, fmt.Errorf("--max-streams %d: must be 1 or more", o.streams.All)
	case o.streams.Subject < 1:
		return o, fmt.Errorf("--user-streams %d: must be 1 or more", o.streams.Subject)
	case o.limits.Connections < 0:
		return o, fmt.Errorf("--address-connections %d: must be 0 or more", o.limits.Connections)
	case o.addressFailures < 0 || o.addressFailures > quota.MaxRateRequests:
		return o, fmt.Errorf("--address-failures %d: must lie between 0 and %d", o.addressFailures,
			quota.MaxRateRequests)
	case o.drainDelay < 0:
		return o, fmt.Errorf("--drain-delay %s: must be 0s or more", o.drainDelay)
	case o.drainTimeout <= 0:
		return o, fmt.Errorf("--drain-timeout %s: must be more than 0s", o.drainTimeout)
	}
	var err error
	if o.browsers, err = httpapi.NewBrowsers(o.origins); err != nil {
		return o, fmt.Errorf("--cors-origin: %w", err)
	}
	if err := o.checkPages(); err != nil {
		return o, err
	}
	return o, o.setRates()
}

// setRates reads the limits of calls that the flags name.
func (o *options) setRates() error {
	if o.addressFailures != 0 {
		o.limits.Failures = quota.RateLimit{Requests: o.addressFailures, Window: time.Minute}
	}
	if o.callerRate != "0" {
		calls, window, _ := strings.Cut(o.callerRate, "/")
		n, err := strconv.ParseInt(calls, 10, 32)
		d, also := time.ParseDuration(window)
		if err != nil || also != nil {
			return fmt.Errorf("--caller-rate %q: must be calls/window, such as 1000/1m, or 0", o.callerRate)
		}
		o.limits.Caller = quota.RateLimit{Requests: int32(n), Window: d}
		if o.limits.Caller == (quota.RateLimit{}) {
			return fmt.Errorf("--caller-rate %q: 0 calls must be between 1 and %d", o.callerRate, quota.MaxRateRequests)
		}
	}
	return o.limits.Caller.Check("--caller-rate")
}
