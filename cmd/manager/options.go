// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client/config"

	"github.com/cantonesescribe/usage-operator/internal/controller"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

type options struct {
	databaseURL, directURL     string
	allowUnsafe, autoRegister  bool
	migrate                    bool
	namespace, image           string
	clusterName                string
	statusInterval, resync     time.Duration
	startTimeout               time.Duration
	leaderElect                bool
	lease, renew, retry        time.Duration
	health                     string
	metrics, metricsCertDir    string
	metricsSecure, enableHTTP2 bool
	webhookPort                int
	webhookCertDir             string
	logFormat, logLevel        string
	podName                    string
	showVersion                bool
}

// The lease is shorter than controller-runtime's 15 s: after a manager was killed another one leads within 17 s. How
// long a leader tries to renew it is not: where the API server is slow, that would only make managers restart.
const (
	defaultLease = 12 * time.Second
	defaultRenew = 10 * time.Second
	defaultRetry = 2 * time.Second
)

// parse reads the command line, and the environment where a flag is absent.
func parse(args []string, getenv func(string) string) (*options, error) {
	o := &options{}
	flags := o.flags()
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.showVersion {
		return o, nil
	}
	o.databaseURL = cmp.Or(o.databaseURL, getenv("DATABASE_URL"))
	o.directURL = cmp.Or(o.directURL, getenv("DIRECT_DATABASE_URL"), o.databaseURL)
	o.namespace = cmp.Or(o.namespace, getenv("POD_NAMESPACE"))
	o.podName = getenv("POD_NAME")
	if err := o.check(); err != nil {
		return nil, err
	}
	return o, nil
}

// flags are those of the command line, with what they are without it.
func (o *options) flags() *flag.FlagSet {
	flags := flag.NewFlagSet("manager", flag.ContinueOnError)
	flags.StringVar(&o.databaseURL, "database-url", "",
		"PostgreSQL connection string; the environment's DATABASE_URL without it")
	flags.StringVar(&o.directURL, "direct-database-url", "",
		"connection string past a transaction pooler, for LISTEN; the environment's DIRECT_DATABASE_URL without it, "+
			"else the same as --database-url")
	flags.BoolVar(&o.allowUnsafe, "allow-unsafe-database", false,
		"accept a database server that may lose acknowledged writes in a crash")
	flags.BoolVar(&o.migrate, "migrate", false,
		"bring the database's schema up to date where it is older or missing, at the start and whenever it turns out "+
			"to be while running; needs the rights to")
	flags.BoolVar(&o.autoRegister, "auto-register", true,
		"give unknown users an account on the default plan at their first use, instead of refusing them")
	flags.StringVar(&o.namespace, "namespace", "",
		"namespace of the reset CronJobs and of the leader election; the environment's POD_NAMESPACE without it")
	flags.StringVar(&o.image, "image", "",
		"image of the reset CronJobs; without it that of the pod that POD_NAME in the environment names, else "+
			"usage-operator:dev")
	flags.StringVar(&o.clusterName, "cluster-name", "",
		"name of this cluster among those that share the database; the UID of its namespace kube-system without it")
	flags.DurationVar(&o.statusInterval, "status-interval", controller.DefaultStatusInterval,
		"how often what has changed about the standing of users is read into their UserQuotas' status")
	flags.DurationVar(&o.resync, "resync-interval", controller.DefaultResyncInterval,
		"how often plans and UserQuotas are compared with the database as a whole, grants and owners included")
	flags.DurationVar(&o.startTimeout, "job-start-timeout", controller.DefaultStartTimeout,
		"how long an admitted Job may hold its slot without a pod that has started, before it goes back to the queue")
	flags.BoolVar(&o.leaderElect, "leader-elect", true, "let one of several replicas run the controllers")
	flags.DurationVar(&o.lease, "leader-elect-lease-duration", defaultLease,
		"how long the others wait for a leader that does not answer")
	flags.DurationVar(&o.renew, "leader-elect-renew-deadline", defaultRenew,
		"how long a leader that cannot renew its lease goes on")
	flags.DurationVar(&o.retry, "leader-elect-retry-period", defaultRetry, "how often the lease is tried for")
	flags.StringVar(&o.health, "health-probe-bind-address", ":8081", "address of /healthz and /readyz")
	flags.StringVar(&o.metrics, "metrics-bind-address", ":8443", "address of /metrics; 0 serves none")
	flags.BoolVar(&o.metricsSecure, "metrics-secure", true,
		"serve metrics by HTTPS, to callers with the right to get /metrics only")
	flags.StringVar(&o.metricsCertDir, "metrics-cert-dir", "",
		"folder with the metrics' tls.crt and tls.key; without it the certificate that the manager makes, or with "+
			"--webhook-cert-dir one made up")
	flags.IntVar(&o.webhookPort, "webhook-port", 9443, "port of the admission webhooks")
	flags.StringVar(&o.webhookCertDir, "webhook-cert-dir", "",
		"folder with the webhooks' tls.crt and tls.key, read again when they change; without it the manager makes "+
			"and rotates the certificates of the webhooks and of usaged by itself")
	flags.BoolVar(&o.enableHTTP2, "enable-http2", false, "offer HTTP/2 on the metrics and webhook servers")
	flags.StringVar(&o.logFormat, "log-format", "json", "json or text")
	flags.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.BoolVar(&o.showVersion, "version", false, "print the version and end")
	config.RegisterFlags(flags)
	return flags
}

// check says which option cannot be used, and why.
func (o *options) check() error {
	switch {
	case o.databaseURL == "":
		return errors.New("no database: set --database-url or DATABASE_URL")
	case o.namespace == "":
		return errors.New("no namespace for the reset CronJobs: set --namespace or POD_NAMESPACE")
	case o.webhookPort < 1 || o.webhookPort > 65535:
		return fmt.Errorf("--webhook-port is %d: must lie between 1 and 65535", o.webhookPort)
	case o.statusInterval < time.Second:
		return fmt.Errorf("--status-interval is %s: must be at least 1s", o.statusInterval)
	case o.startTimeout < time.Second:
		return fmt.Errorf("--job-start-timeout is %s: must be at least 1s", o.startTimeout)
	case o.retry <= 0 || o.renew <= o.retry || o.lease <= o.renew:
		return fmt.Errorf(
			"--leader-elect-retry-period is %s, --leader-elect-renew-deadline %s, --leader-elect-lease-duration %s: "+
				"each must be longer than the one before, and the first above 0", o.retry, o.renew, o.lease)
	case o.resync < time.Second:
		return fmt.Errorf("--resync-interval is %s: must be at least 1s", o.resync)
	}
	if o.clusterName != "" {
		if err := quota.ClusterNames.Check(o.clusterName); err != nil {
			return fmt.Errorf("--cluster-name %w", err)
		}
	}
	return nil
}
