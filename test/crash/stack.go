// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/testing/cutproxy"
	"github.com/cantonesescribe/usage-operator/internal/testing/lifeline"
	"github.com/cantonesescribe/usage-operator/internal/testing/localstack"
)

const replicas = 3

// stack is all that runs.
type stack struct {
	report   *report
	dir      string
	programs string
	forget   func() error

	database  *database
	plane     *localstack.ControlPlane
	processes *localstack.Processes
	cluster   *cluster
	receiver  *receiver

	usaged  [replicas]*program
	urls    [replicas]string
	manager *program
	// ways are the proxies of the programs, those of usaged first.
	ways  []*cutproxy.Proxy
	batch string // the DSN of usage-batch
	// members is the store of whoever moves users to other teams, moved how often that got through.
	members *ledgerdb.Store
	moved   int
}

// startStack brings everything up. The stack is to be stopped also where it failed.
func startStack(ctx context.Context, programs string, r *report) (*stack, error) {
	s := &stack{report: r, programs: programs}
	var err error
	if s.dir, err = os.MkdirTemp("", "usage-operator-crash-"); err != nil {
		return nil, err
	}
	if s.forget, err = lifeline.Folder(s.dir); err != nil {
		return s, err
	}
	r.progressf("PostgreSQL with fsync, and a synchronous standby")
	if s.database, err = startDatabase(ctx); err != nil {
		return s, err
	}
	if out, err := s.run(ctx, s.database.dsn(), "migrate"); err != nil {
		return s, fmt.Errorf("usage-batch migrate: %w: %s", err, out)
	}
	r.progressf("a Kubernetes control plane")
	ctx, s.processes = localstack.NewProcesses(ctx, s.dir)
	if s.plane, err = localstack.StartControlPlane(ctx, s.dir, s.processes); err != nil {
		return s, err
	}
	r.progressf("the manager and %d replicas of usaged, each with its own way to the database", replicas)
	if err := s.startProduct(ctx); err != nil {
		return s, err
	}
	s.receiver = newReceiver()
	if s.cluster, err = declare(ctx, s.plane, s.receiver.object()); err != nil {
		return s, err
	}
	return s, s.startMover(ctx)
}

// run runs usage-batch to its end.
func (s *stack) run(ctx context.Context, dsn string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.programs, localstack.Batch), args...)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+dsn)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (s *stack) startProduct(ctx context.Context) error {
	certs := filepath.Join(s.dir, "webhook")
	ca, err := localstack.WriteServingCert(certs)
	if err != nil {
		return err
	}
	webhook, err := quietAddress()
	if err != nil {
		return err
	}
	health, err := quietAddress()
	if err != nil {
		return err
	}
	root := filepath.Dir(s.programs)
	if err := s.plane.Install(ctx, filepath.Join(root, "config", "default"), "https://"+webhook, ca); err != nil {
		return err
	}
	for i := range s.usaged {
		address, err := quietAddress()
		if err != nil {
			return err
		}
		s.urls[i] = "http://" + address
		if s.usaged[i], err = s.program(ctx, localstack.Usaged, fmt.Sprintf("usaged-%d", i), "usage-operator-usaged",
			"--listen="+address, "--log-format=text"); err != nil {
			return err
		}
	}
	_, port, _ := strings.Cut(webhook, ":")
	// Without leader election a new manager is at work at once, which makes more of it to kill.
	if s.manager, err = s.program(ctx, localstack.Manager, localstack.Manager, "usage-operator-manager",
		"--leader-elect=false", "--status-interval=2s", "--metrics-bind-address=0",
		"--health-probe-bind-address="+health,
		"--webhook-port="+port, "--webhook-cert-dir="+certs, "--log-format=text"); err != nil {
		return err
	}
	way, dsn, err := s.database.proxy()
	if err != nil {
		return err
	}
	s.ways, s.batch = append(s.ways, way), dsn
	client := &http.Client{Timeout: time.Second}
	for _, url := range append(s.urls[:], "http://"+health) {
		if err := localstack.Eventually(ctx, url+" is ready (logs: "+s.dir+")",
			localstack.Answers(client, url+"/readyz")); err != nil {
			return err
		}
	}
	return nil
}

// program starts one of the product's with the rights of its service account and a way of its own to the database.
func (s *stack) program(ctx context.Context, binary, name, account string, args ...string) (*program, error) {
	way, dsn, err := s.database.proxy()
	if err != nil {
		return nil, err
	}
	s.ways = append(s.ways, way)
	kubeconfig := filepath.Join(s.dir, name+".kubeconfig")
	if err := s.plane.WriteKubeconfig(ctx, account, kubeconfig); err != nil {
		return nil, err
	}
	p := &program{
		name: name, path: filepath.Join(s.programs, binary), log: filepath.Join(s.dir, name+".log"), args: args,
		env: []string{"DATABASE_URL=" + dsn, "KUBECONFIG=" + kubeconfig, "POD_NAMESPACE=" + localstack.SystemNamespace},
		unasked: func(name string, after time.Duration, err error) {
			s.report.violationf("%s ended by itself after %s: %v", name, after.Round(time.Second), err)
		},
	}
	return p, p.start()
}

// stop ends everything, and keeps the logs in the folder if that is asked for.
func (s *stack) stop(keep bool, logs string) error {
	var errs []error
	for _, p := range append(s.usaged[:], s.manager) {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	if s.receiver != nil {
		s.receiver.Close()
	}
	if s.members != nil {
		s.members.Close()
	}
	if s.processes != nil {
		errs = append(errs, s.processes.StopAll())
	}
	if s.plane != nil {
		errs = append(errs, s.plane.Stop())
	}
	if keep {
		errs = append(errs, s.keepLogs(logs))
	}
	if s.database != nil {
		errs = append(errs, s.database.stop())
	}
	errs = append(errs, os.RemoveAll(s.dir))
	if s.forget != nil {
		errs = append(errs, s.forget())
	}
	return errors.Join(errs...)
}

func (s *stack) keepLogs(folder string) error {
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(s.dir, "*.log"))
	if err != nil {
		return err
	}
	for _, path := range found {
		if err := copyFile(path, filepath.Join(folder, filepath.Base(path))); err != nil {
			return err
		}
	}
	if s.database != nil {
		for i, server := range s.database.servers() {
			if err := copyFile(filepath.Join(server.Dir(), "postgres.log"),
				filepath.Join(folder, fmt.Sprintf("postgres-%d.log", i+1))); err != nil {
				return err
			}
		}
	}
	s.report.progressf("the logs of all programs are kept in %s", folder)
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
