// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/httpapi"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/manifest"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/outlook"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/deliverydb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/rollupdb"
	"github.com/cantonesescribe/usage-operator/internal/queue"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/telemetry"
	"github.com/cantonesescribe/usage-operator/internal/testclock"
	"github.com/cantonesescribe/usage-operator/internal/version"
)

const (
	headerTimeout = 10 * time.Second
	// requestTimeout is above the longest long poll.
	requestTimeout = 90 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaders     = 32 << 10

	// Bounds of what is asked of the API server; caches answer nearly everything.
	reviewQPS, reviewBurst = 200, 400
)

// command serves until ctx ends, then lets what is under way finish.
func command(ctx context.Context, args []string, getenv func(string) string, out io.Writer) error {
	o, err := parse(args, getenv, out)
	if err != nil {
		return err
	}
	if o.showVersion {
		_, err := fmt.Fprintln(out, "usaged", version.String())
		return err
	}
	log, err := telemetry.NewLogger(out, o.logFormat, o.logLevel)
	if err != nil {
		return err
	}
	auth, err := newAuth(ctx, o)
	if err != nil {
		return err
	}
	registry := telemetry.NewRegistry()
	store, err := ledgerdb.Open(ctx, o.databaseURL, postgres.Options{
		Now:         testclock.Now(),
		AllowUnsafe: o.allowUnsafe, Migrate: o.migrate, ListenURL: o.directURL,
		Reachable:  telemetry.Database(registry, log),
		Unreadable: telemetry.Unreadable(registry, log),
	})
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	defer store.Close()
	replica, err := os.Hostname() // of a pod, its name
	if err != nil {
		return err
	}
	auth.Portal = access.NewPortal(store, nil)
	pages, err := newPages(o, auth, store, log)
	if err != nil {
		return err
	}
	signer, loops := access.NewSigner(store), telemetry.Loops(registry)
	failed := func(err error, message string) { log.Error(message, "error", err) }
	service := metering.New(ledger.New(store, ledger.Options{}), store, signer, metering.Options{
		AutoRegister: o.autoRegister, OfflineTickets: o.offlineTickets, Replica: replica,
		Metrics: telemetry.NewMetering(registry), Loops: loops, Log: failed,
	})

	sending, err := newSending(ctx, o, store, delivery.Options{
		Sender: delivery.NewSender(delivery.SenderOptions{}), Loops: loops, Log: failed,
		Observe: telemetry.Deliveries(registry),
	}, log)
	if err != nil {
		return err
	}
	watcher := metering.NewWatcher(service, httpapi.Shown())

	if _, err := service.Plans(ctx); err != nil {
		return fmt.Errorf("the database cannot be used: %w", err)
	}

	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", o.listen, err)
	}
	log.Info("serving", "address", listener.Addr().String(), "tls", o.tlsCert != "")
	past := reports.New(store, service)
	if o.replicaURL != "" {
		replica, err := postgres.Open(ctx, o.replicaURL, postgres.Options{ReadOnly: true, Now: testclock.Now(),
			Reachable: func(up bool, cause error) {
				log.Info("the replica that analytics are read from", "reachable", up, "cause", cause)
			}})
		if err != nil {
			return fmt.Errorf("--replica-database-url: %w", err)
		}
		defer replica.Close()
		past = reports.NewBeside(store, readdb.New(replica), service)
	}
	foresight := outlook.Watch{
		Store: rollupdb.New(store.Store), Forecasts: past, Alerts: service, Loops: loops, Log: failed,
	}
	return run(ctx, o, log, listener, httpapi.Options{
		Usage: service, Admissions: service, Intervene: service, Tickets: service, Events: service,
		Teams:   service,
		History: past, Alerts: past, Users: service, Search: past, Resets: past, PublicPlans: o.publicPlans,
		TeamReports: past, Analytics: past, Largest: past, Operators: past, Forecasts: past, Simulations: past,
		Advice: past, ReadPlan: manifest.Plan, Queue: queue.New(store),
		Notifications: sending.Service, Deliveries: sending.Service, Leases: signer, Auth: auth,
		Database: store.Ping, Log: log,
		Registry: registry, Limits: httpapi.NewRateLimiter(o.limits, registry), Browsers: o.browsers,
		Watch: func(of quota.Level) httpapi.Watching { return watcher.Watch(of) }, Work: service.Work,
		Gauges: metering.NewGauges(store).Read, Clusters: store.Clusters,
		Streams: o.streams, Replica: replica, Pages: pages,
	}, func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		if auth.People != nil {
			group.Go(func() error {
				auth.People.Follow(ctx, loops, failed)
				return nil
			})
		}
		group.Go(func() error {
			auth.Portal.Follow(ctx, loops, failed)
			return nil
		})
		if auth.Sessions != nil {
			group.Go(func() error {
				auth.Sessions.Follow(ctx, loops, failed)
				return nil
			})
		}
		group.Go(func() error { return sending.run(ctx) })
		group.Go(func() error {
			watcher.Run(ctx)
			return nil
		})
		group.Go(func() error { return service.Run(ctx) })
		group.Go(func() error {
			foresight.Run(ctx)
			return nil
		})
		return group.Wait()
	})
}

// sending is what brings alerts to endpoints.
type sending struct {
	*delivery.Service

	// queue is nil where other replicas do it.
	queue *deliverydb.Queue
}

func newSending(
	ctx context.Context, o options, store *ledgerdb.Store, opts delivery.Options, log *slog.Logger,
) (*sending, error) {
	deliveries := deliverydb.New(store.Store)
	s := &sending{Service: delivery.New(deliveries, opts)}
	if o.deliveryWorkers == 0 {
		return s, nil
	}
	store.OnAlert(s.Wake)
	var err error
	s.queue, err = deliveries.OpenQueue(ctx, o.directURL, o.deliveryWorkers, log)
	return s, err
}

// run sends until ctx ends.
func (s *sending) run(ctx context.Context) error {
	if s.queue == nil {
		return nil
	}
	var group errgroup.Group
	group.Go(func() error {
		s.Relay(ctx)
		return nil
	})
	group.Go(func() error { return s.queue.Run(ctx, s.Attempt) })
	return group.Wait()
}

func newAuth(ctx context.Context, o options) (*access.Auth, error) {
	config, err := restConfig(o.kubeconfig)
	if err != nil {
		return nil,
			fmt.Errorf(
				"no API server to check tokens with: set --kubeconfig or the environment variable KUBECONFIG, or run "+
					"in "+
					"a pod: %w", err)
	}
	config.QPS, config.Burst = reviewQPS, reviewBurst
	config.UserAgent = "usaged"
	auth, err := access.NewAuth(config, o.audiences)
	if err != nil || o.authenticationConfig == "" {
		return auth, err
	}
	if auth.People, err = access.OpenPeople(ctx, o.authenticationConfig); err != nil {
		return nil, fmt.Errorf("--authentication-config: %w", err)
	}
	return auth, nil
}

func restConfig(path string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
}

// run serves on the listener, with the background work beside it, until ctx ends or one of them fails. The background
// work ends last: what is under way needs it.
func run(
	ctx context.Context, o options, log *slog.Logger, listener net.Listener, opts httpapi.Options,
	background func(context.Context) error,
) error {
	running, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	group, ctx := errgroup.WithContext(ctx)
	opts.Draining, opts.Ongoing = ctx, new(sync.WaitGroup)
	server := &http.Server{
		Handler: httpapi.New(opts), ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout,
		WriteTimeout: requestTimeout,
		IdleTimeout:  idleTimeout, MaxHeaderBytes: maxHeaders,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	if o.tlsCert != "" {
		watcher, err := certwatcher.New(o.tlsCert, o.tlsKey)
		if err != nil {
			return errors.Join(fmt.Errorf("--tls-cert-file %s, --tls-key-file %s: %w", o.tlsCert, o.tlsKey, err),
				listener.Close())
		}
		server.TLSConfig = &tls.Config{GetCertificate: watcher.GetCertificate, MinVersion: tls.VersionTLS12}
		group.Go(func() error { return watcher.Start(ctx) })
	}
	group.Go(func() error {
		if err := background(running); err != nil && running.Err() == nil {
			return fmt.Errorf("background work ended: %w", err)
		}
		return nil
	})
	if opts.Limits != nil {
		listener = opts.Limits.Listen(listener)
	}
	group.Go(func() error {
		if err := serve(server, listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		defer stopBackground()
		return drain(context.WithoutCancel(ctx), o, log, server, opts.Ongoing)
	})
	return group.Wait()
}

func serve(server *http.Server, listener net.Listener) error {
	if server.TLSConfig != nil {
		return server.ServeTLS(listener, "", "")
	}
	return server.Serve(listener)
}

// drain lets load balancers notice, then takes no more and waits for what is under way.
func drain(
	ctx context.Context, o options, log *slog.Logger, server *http.Server, streams *sync.WaitGroup,
) error {
	log.Info("draining", "delay", o.drainDelay.String(), "timeout", o.drainTimeout.String())
	time.Sleep(o.drainDelay)
	ctx, cancel := context.WithTimeout(ctx, o.drainTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("requests were still under way after --drain-timeout %s: %w", o.drainTimeout,
			err), server.Close())
	}
	over := make(chan struct{})
	go func() {
		streams.Wait()
		close(over)
	}()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("streams were still open after --drain-timeout %s", o.drainTimeout)
	}
}
