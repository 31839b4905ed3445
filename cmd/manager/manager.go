// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/go-logr/logr"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	webhookserver "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/certs"
	"github.com/cantonesescribe/usage-operator/internal/clusters"
	"github.com/cantonesescribe/usage-operator/internal/controller"
	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/loop"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/deliverydb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/reset"
	"github.com/cantonesescribe/usage-operator/internal/telemetry"
	"github.com/cantonesescribe/usage-operator/internal/testclock"
	"github.com/cantonesescribe/usage-operator/internal/webhook"
)

// probeTimeout bounds how long a probe may take to be sent.
const probeTimeout = 10 * time.Second

// containerName is the manager's in its Deployment.
const containerName = "manager"

// serve runs everything until ctx ends.
func serve(ctx context.Context, o *options) error {
	handler, err := telemetry.NewLogger(os.Stderr, o.logFormat, o.logLevel)
	if err != nil {
		return err
	}
	ctrl.SetLogger(logr.FromSlogHandler(handler.Handler()))
	log := ctrl.Log.WithName("metering")
	store, err := ledgerdb.Open(ctx, o.databaseURL, postgres.Options{
		Now:         testclock.Now(),
		AllowUnsafe: o.allowUnsafe, Migrate: o.migrate, ListenURL: o.directURL,
		Reachable:  telemetry.Database(ctrlmetrics.Registry, handler),
		Unreadable: telemetry.Unreadable(ctrlmetrics.Registry, handler),
	})
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	defer store.Close()
	loops := telemetry.Loops(ctrlmetrics.Registry)
	engine := ledger.New(store, ledger.Options{})
	svc := metering.New(engine, store, access.NewSigner(store), metering.Options{
		AutoRegister: o.autoRegister, Metrics: telemetry.NewMetering(ctrlmetrics.Registry), Loops: loops,
		Log: func(err error, message string) { log.Error(err, message) },
	})

	mgr, err := newManager(o)
	if err != nil {
		return err
	}
	if o.image, err = resetImage(ctx, mgr.GetAPIReader(), o); err != nil {
		return err
	}
	if err := mgr.Add(everywhere(svc.Run)); err != nil {
		return err
	}
	home, err := register(ctx, mgr, store, loops, o)
	if err != nil {
		return err
	}
	resets := reset.New(engine, store, func(err error, message string) { log.Error(err, message) })
	if err := setup(mgr, svc, store, resets, home, loops, o); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

func newManager(o *options) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	restConfig, err := ctrl.GetConfig()
	if err != nil {
		return nil, err
	}
	// A thousand Jobs at once are a normal morning. The API server's own priority and fairness divides it among all who
	// ask; a limit here would make starts wait behind what only tells.
	restConfig.QPS = -1

	tlsOptions := []func(*tls.Config){func(c *tls.Config) {
		c.MinVersion = tls.VersionTLS12
		if !o.enableHTTP2 {
			c.NextProtos = []string{"http/1.1"}
		}
	}}
	serving, keep, err := servingTLS(restConfig, scheme, o, tlsOptions)
	if err != nil {
		return nil, err
	}
	metrics := server.Options{BindAddress: o.metrics, SecureServing: o.metricsSecure, CertDir: o.metricsCertDir,
		TLSOpts: tlsOptions}
	if o.metricsCertDir == "" {
		metrics.TLSOpts = serving
	}
	if o.metricsSecure {
		metrics.FilterProvider = filters.WithAuthenticationAndAuthorization
	}
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme: scheme,
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			// Of the cluster's CronJobs only our own are ours to see.
			&batchv1.CronJob{}: {Namespaces: map[string]cache.Config{o.namespace: {}}},
		}},
		Metrics:                metrics,
		HealthProbeBindAddress: "0", // see probes
		WebhookServer: webhookserver.NewServer(
			webhookserver.Options{Port: o.webhookPort, CertDir: o.webhookCertDir, TLSOpts: serving}),
		LeaderElection:                o.leaderElect,
		LeaderElectionID:              "usage-operator-manager",
		LeaderElectionNamespace:       o.namespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &o.lease,
		RenewDeadline:                 &o.renew,
		RetryPeriod:                   &o.retry,
	})
	if err != nil || keep == nil {
		return mgr, err
	}
	return mgr, mgr.Add(keep)
}

// servingTLS adds to the options where the servers' certificate comes from, and returns what keeps it, unless it is
// given as files.
func servingTLS(
	config *rest.Config, scheme *runtime.Scheme, o *options, opts []func(*tls.Config),
) ([]func(*tls.Config), everywhere, error) {
	if o.webhookCertDir != "" {
		return opts, nil, nil
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, nil, err
	}
	keeper := certs.NewKeeper(c, o.namespace)
	return append(slices.Clone(opts), func(c *tls.Config) { c.GetCertificate = keeper.GetCertificate }), keeper.Run, nil
}

// resetImage is the image of the reset CronJobs: the manager's own, whatever set or rewrote it.
func resetImage(ctx context.Context, reader client.Reader, o *options) (string, error) {
	if o.image != "" || o.podName == "" {
		return cmp.Or(o.image, "usage-operator:dev"), nil
	}
	pod := &corev1.Pod{}
	if err := reader.Get(ctx, client.ObjectKey{Namespace: o.namespace, Name: o.podName}, pod); err != nil {
		return "", fmt.Errorf("find out the image of the reset CronJobs (or set --image): %w", err)
	}
	for _, c := range pod.Spec.Containers {
		if c.Name == containerName {
			return c.Image, nil
		}
	}
	return "", fmt.Errorf("pod %s/%s has no container %q whose image the reset CronJobs could run: set --image",
		o.namespace, o.podName, containerName)
}

// register finds out which cluster this is and makes it known in the ledger. Whoever leads says that it is there.
func register(
	ctx context.Context, mgr ctrl.Manager, store clusters.Registry, loops loop.Observer, o *options,
) (*clusters.Home, error) {
	uid, err := controller.ClusterUID(ctx, mgr.GetAPIReader())
	if err != nil {
		return nil, err
	}
	log := ctrl.Log.WithName("cluster")
	home, err := clusters.Register(ctx, store, clusters.Options{
		UID: uid, Name: o.clusterName, Loops: loops, Log: func(err error, message string) { log.Error(err, message) },
		Claimed: func(owned clusters.Owned) {
			log.Info("what names no cluster is this one's", "plans", owned.Plans, "teams", owned.Teams,
				"quotas", owned.Quotas, "jobs", owned.Jobs)
		},
	})
	if err != nil {
		return nil, err
	}
	text := home.UID().String()
	log.Info("this cluster is known in the ledger", "uid", text, "name", home.Name())
	telemetry.Cluster(ctrlmetrics.Registry, text, home.Name())
	return home, mgr.Add(manager.RunnableFunc(home.Lead))
}

// setup registers controllers, webhooks and probes.
func setup(
	mgr ctrl.Manager, svc *metering.Service, store *ledgerdb.Store, resets *reset.Service, home *clusters.Home,
	loops loop.Observer, o *options,
) error {
	cluster := controller.Cluster{UID: home.UID(), Names: home}
	for name, register := range map[string]func() error{
		"UsagePlan controller": func() error {
			return controller.SetupUsagePlan(mgr, svc, resets, controller.UsagePlanOptions{
				Cluster: cluster, Namespace: o.namespace, Image: o.image, ResyncInterval: o.resync, Loops: loops,
			})
		},
		"watch over the resets": func() error {
			return controller.SetupResetMetrics(mgr, svc, resets, o.resync, loops)
		},
		"watch over the rollup": func() error {
			return controller.SetupRollupMetrics(mgr, store, o.resync, loops)
		},
		"UserQuota controller": func() error {
			return controller.SetupUserQuota(mgr, svc, store, controller.UserQuotaOptions{
				Cluster: cluster, StatusInterval: o.statusInterval, ResyncInterval: o.resync, Loops: loops,
			})
		},
		"UsageTeam controller": func() error {
			return controller.SetupUsageTeam(mgr, svc, controller.UsageTeamOptions{
				Cluster: cluster, StatusInterval: o.statusInterval, ResyncInterval: o.resync, Loops: loops,
			})
		},
		"NotificationEndpoint controller": func() error {
			endpoints := delivery.New(deliverydb.New(store.Store), delivery.Options{})
			return controller.SetupNotificationEndpoint(mgr, endpoints, controller.NotificationEndpointOptions{
				Cluster: cluster, Namespace: o.namespace, StatusInterval: o.statusInterval, ResyncInterval: o.resync,
				Loops: loops,
			})
		},
		"Job controller": func() error {
			from := controller.JobLedger{Meter: svc, Queue: svc, Records: store}
			return controller.SetupJob(mgr, from, controller.JobOptions{
				Cluster: home.UID(), StartTimeout: o.startTimeout, Loops: loops,
			})
		},
		"UsagePlan webhook": func() error { return webhook.SetupUsagePlan(mgr) },
		"UserQuota webhook": func() error { return webhook.SetupUserQuota(mgr) },
		"UsageTeam webhook": func() error { return webhook.SetupUsageTeam(mgr) },
		"Job webhook":       func() error { return webhook.SetupJob(mgr, svc) },
		"probes":            func() error { return probes(mgr, store.Ping, o.health) },
	} {
		if err := register(); err != nil {
			return fmt.Errorf("set up the %s: %w", name, err)
		}
	}
	return nil
}

// probes serves /healthz and /readyz. The manager's own server cannot tell what is degraded and no reason to be
// unready.
func probes(mgr ctrl.Manager, ping func(context.Context) error, address string) error {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return fmt.Errorf("--health-probe-bind-address %s: %w", address, err)
	}
	webhooks := mgr.GetWebhookServer().StartedChecker()
	mux := http.NewServeMux()
	mux.Handle("/healthz", telemetry.Readiness())
	mux.Handle("/readyz", telemetry.Readiness(
		telemetry.Check{Name: "webhooks", Ask: func(context.Context) error { return webhooks(nil) }},
		telemetry.Check{Name: "database", Ask: ping, Once: true},
	))
	return mgr.Add(&manager.Server{
		Name: "health probe", Listener: listener, Server: &http.Server{Handler: mux, ReadHeaderTimeout: probeTimeout},
	})
}

// everywhere runs on each replica, whether or not it leads: the webhooks ask the same service.
type everywhere func(context.Context) error

// Start implements manager.Runnable.
func (run everywhere) Start(ctx context.Context) error { return run(ctx) }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (everywhere) NeedLeaderElection() bool { return false }
