// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package localstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/testing/freeport"
	"github.com/cantonesescribe/usage-operator/internal/testing/lifeline"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgserver"
)

// SystemNamespace is where the product's own service accounts are.
const SystemNamespace = "usage-operator-system"

// The product's programs, as they are called in Processes and in the folder of Options.
const (
	Manager = "manager"
	Usaged  = "usaged"
	Batch   = "usage-batch"
)

// Options of a stack.
type Options struct {
	// Root is the repository's folder.
	Root string
	// Programs is the folder with the product's programs.
	Programs string
	// UsagedAddress is where usaged listens, on the loopback interface; a free port of it if empty.
	UsagedAddress string
	// Usaged are flags for usaged besides those that it needs.
	Usaged []string
	// Progress is told what is done next.
	Progress func(what string)
}

// Stack is the whole product on one machine.
type Stack struct {
	// Plane is the Kubernetes control plane.
	Plane *ControlPlane
	// Processes are all programs but etcd, kube-apiserver and PostgreSQL.
	Processes *Processes
	// DatabaseURL is the connection string that the product's programs have.
	DatabaseURL string
	// UsagedURL is where the HTTP service answers.
	UsagedURL string
	// MetricsURL is where the manager's metrics are.
	MetricsURL string

	opts     Options
	dir      string
	postgres *pgserver.Server
	forget   func() error
	progress func(string)
}

// Start brings everything up. The returned context is cancelled when one of the programs ends unasked; its cause says
// which one and shows the end of its log.
func Start(ctx context.Context, opts Options) (_ context.Context, _ *Stack, err error) {
	s := &Stack{opts: opts, progress: opts.Progress}
	if s.progress == nil {
		s.progress = func(string) {}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "usage-operator-stack-"); err != nil {
		return nil, nil, err
	}
	if s.forget, err = lifeline.Folder(s.dir); err != nil {
		return nil, nil, err
	}
	ctx, s.Processes = NewProcesses(ctx, s.dir)

	for _, phase := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"starting PostgreSQL, durable as in production, on a free port", s.startPostgres},
		{"starting etcd, kube-apiserver, kube-controller-manager, kube-scheduler and a fake node", s.startControlPlane},
		{"migrating the database (usage-batch migrate)", s.migrate},
		{
			"installing CRDs, RBAC, admission policies and webhooks, and starting manager and usaged with the " +
				"service accounts' own rights", s.startProduct},
	} {
		s.progress(phase.what)
		if err := phase.do(ctx); err != nil {
			// The end of a process explains more than the call that it broke.
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return nil, nil, err
		}
	}
	return ctx, s, nil
}

// ClockFile says how far the programs' time is ahead of the machine's, such as 744h, if they were built with the tag
// testclock. Nobody has written it yet.
func (s *Stack) ClockFile() string { return filepath.Join(s.dir, "clock") }

// Dir holds the logs of all programs, their kubeconfigs and certificates.
func (s *Stack) Dir() string { return s.dir }

// Postgres is the database server.
func (s *Stack) Postgres() *pgserver.Server { return s.postgres }

// Stop ends every process and removes every file. It may be called at any point of Start.
func (s *Stack) Stop() error {
	var errs []error
	if s.Processes != nil {
		errs = append(errs, s.Processes.StopAll())
	}
	if s.Plane != nil {
		errs = append(errs, s.Plane.Stop())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Stop())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	if s.forget != nil {
		errs = append(errs, s.forget())
	}
	return errors.Join(errs...)
}

// Batch is the command line of usage-batch with the given arguments.
func (s *Stack) Batch(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.opts.Programs, Batch), args...)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+s.DatabaseURL)
	return cmd
}

func (s *Stack) startPostgres(ctx context.Context) error {
	var err error
	if s.postgres, err = pgserver.Start(ctx, pgserver.Options{Durable: true}); err != nil {
		return err
	}
	s.DatabaseURL = s.postgres.DSN("postgres")
	return nil
}

func (s *Stack) startControlPlane(ctx context.Context) error {
	var err error
	s.Plane, err = StartControlPlane(ctx, s.dir, s.Processes)
	return err
}

func (s *Stack) migrate(ctx context.Context) error {
	if out, err := s.Batch(ctx, "migrate").CombinedOutput(); err != nil {
		return fmt.Errorf("%s migrate: %w: %s", Batch, err, out)
	}
	return nil
}

func (s *Stack) startProduct(ctx context.Context) error {
	certs := filepath.Join(s.dir, "webhook")
	ca, err := WriteServingCert(certs)
	if err != nil {
		return err
	}
	var ports [4]int
	for i := range ports {
		if ports[i], err = freeport.Get(); err != nil {
			return err
		}
	}
	address := func(i int) string { return "127.0.0.1:" + strconv.Itoa(ports[i]) }
	webhook, health, metrics := ports[0], address(1), address(2)
	usaged := cmp.Or(s.opts.UsagedAddress, address(3))

	err = s.Plane.Install(ctx, filepath.Join(s.opts.Root, "config", "default"),
		"https://127.0.0.1:"+strconv.Itoa(webhook), ca)
	if err != nil {
		return err
	}
	if err := s.startAs(ctx, Manager, "usage-operator-manager",
		"--webhook-cert-dir="+certs,
		"--webhook-port="+strconv.Itoa(webhook),
		"--health-probe-bind-address="+health,
		"--metrics-bind-address="+metrics,
	); err != nil {
		return err
	}
	if err := s.startAs(ctx, Usaged, "usage-operator-usaged",
		append([]string{"--listen=" + usaged}, s.opts.Usaged...)...); err != nil {
		return err
	}
	s.UsagedURL, s.MetricsURL = "http://"+usaged, "https://"+metrics+"/metrics"
	client := &http.Client{Timeout: time.Second}
	if err := Eventually(ctx, "manager is ready (log: "+s.Processes.Log(Manager)+")",
		Answers(client, "http://"+health+"/readyz")); err != nil {
		return err
	}
	return Eventually(ctx, "usaged is ready (log: "+s.Processes.Log(Usaged)+")", Answers(client, s.UsagedURL+"/readyz"))
}

// startAs starts one of the product's programs with the rights of its service account in the cluster.
func (s *Stack) startAs(ctx context.Context, program, account string, args ...string) error {
	kubeconfig := filepath.Join(s.dir, program+".kubeconfig")
	if err := s.Plane.WriteKubeconfig(ctx, account, kubeconfig); err != nil {
		return err
	}
	env := []string{"DATABASE_URL=" + s.DatabaseURL, "KUBECONFIG=" + kubeconfig, "POD_NAMESPACE=" + SystemNamespace,
		"USAGE_TEST_CLOCK=" + s.ClockFile()}
	return s.Processes.Start(program, filepath.Join(s.opts.Programs, program), env, args...)
}
