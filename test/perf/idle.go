// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/freeport"
	"github.com/cantonesescribe/usage-operator/internal/testing/lifeline"
	"github.com/cantonesescribe/usage-operator/internal/testing/localstack"
)

const (
	// idleQuotas are the UserQuotas. So many of their users have a Job that runs, and idleQueue that wait behind it.
	idleQuotas = 20_000
	idleUsers  = 500
	idleQueue  = 100
	// idleSettle is given to the manager once all it had to write is written, idleTime is measured.
	idleSettle = time.Minute
	idleTime   = time.Minute
	// idlePatience bounds how long the manager may take to write what it has to.
	idlePatience = 40 * time.Minute
	// idleBudget is what it may take, in percent of one processor.
	idleBudget = 3
	idlePlan   = "bench"
	idleSpace  = "bench"

	managerProgram = "github.com/cantonesescribe/usage-operator/cmd/manager"
)

// idle measures what the manager takes of a processor, and of the database, while nothing happens: 20,000 UserQuotas,
// 500 Jobs that run and 50,000 that wait, on a real API server.
func (b *bench) idle(ctx context.Context) (err error) {
	b.report.progressf("an API server with %d UserQuotas and %d Jobs", idleQuotas, idleUsers*(1+idleQueue))
	cluster, err := b.controlPlane()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.stop()) }()
	database, err := b.lab.fresh(ctx)
	if err != nil {
		return err
	}
	if err := b.idleFill(ctx, cluster.client, b.lab.server.DSN(database)); err != nil {
		return err
	}
	ctx, processes := localstack.NewProcesses(ctx, b.dir)
	defer func() { err = errors.Join(err, processes.StopAll()) }()
	if err := b.startManager(ctx, processes, cluster.kubeconfig, b.lab.server.DSN(database)); err != nil {
		return err
	}
	if err := b.idleSettled(ctx, cluster.client); err != nil {
		return err
	}
	manager, err := processes.PID(localstack.Manager)
	if err != nil {
		return err
	}
	var before, after [2]time.Duration
	started := time.Now()
	for _, at := range []*[2]time.Duration{&before, &after} {
		if at[0], err = processorTime(manager); err != nil {
			return err
		}
		if at[1], err = processorTime(b.lab.server.PID()); err != nil {
			return err
		}
		if at == &before {
			select {
			case <-time.After(idleTime):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	for i, name := range []string{"poll_idle_cpu", "poll_idle_cpu_database"} {
		percent := 100 * (after[i] - before[i]).Seconds() / time.Since(started).Seconds()
		b.report.figure(figure{name: name, ours: percent, baseline: idleBudget, ratio: idleBudget / percent, goal: 1})
	}
	return nil
}

// controlPlane is etcd and an API server, without any controllers: whatever happens there, the manager does.
type controlPlane struct {
	client     client.Client
	config     *rest.Config
	kubeconfig string
	stop       func() error
}

// controlPlanePrograms returns the folder with the binaries of etcd and the API server.
func controlPlanePrograms() (string, error) {
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		return "", errors.New("KUBEBUILDER_ASSETS names no folder with the control plane: " +
			"run this by `make bench BENCHFLAGS='-run ...'`, or set it to what hack/controlplane/build.sh prints")
	}
	return assets, nil
}

func (b *bench) controlPlane() (_ *controlPlane, err error) {
	assets, err := controlPlanePrograms()
	if err != nil {
		return nil, err
	}
	env := &envtest.Environment{
		BinaryAssetsDirectory: assets,
		CRDDirectoryPaths:     []string{filepath.Join("config", "crd", "bases")}, ErrorIfCRDPathMissing: true,
		ControlPlaneStartTimeout: 2 * time.Minute, ControlPlaneStopTimeout: time.Minute,
	}
	c := &controlPlane{kubeconfig: filepath.Join(b.dir, "controlplane.kubeconfig"), stop: env.Stop}
	config, err := env.Start()
	defer func() {
		if err != nil {
			err = errors.Join(err, env.Stop())
		}
	}()
	if err != nil {
		return nil, fmt.Errorf("start etcd and kube-apiserver: %w", err)
	}
	forget, err := lifeline.Children("etcd", "kube-apiserver")
	if err != nil {
		return nil, err
	}
	c.stop = func() error { return errors.Join(env.Stop(), forget()) }
	if err := os.WriteFile(c.kubeconfig, env.KubeConfig, 0o600); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	c.config = rest.CopyConfig(config)
	c.config.QPS = -1
	c.client, err = client.New(c.config, client.Options{Scheme: scheme})
	return c, err
}

// prepare declares a plan with so many slots and places in the queue, in the ledger too, and lets the bench's Jobs
// spend anybody's quota.
func prepare(ctx context.Context, c client.Client, service *metering.Service, slots, queued int32) error {
	plan := &v1alpha1.UsagePlan{ObjectMeta: metav1.ObjectMeta{Name: idlePlan}, Spec: v1alpha1.UsagePlanSpec{
		DisplayName: "Bench", Default: true, AlertThresholds: []int32{80},
		Limits: v1alpha1.UsagePlanLimits{
			Credits: new(int64(1_000_000)), FileSize: new(resource.MustParse("25Mi")), Concurrent: &slots,
			Queued: &queued,
		},
	}}
	for _, object := range []client.Object{
		plan,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: idleSpace}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "spend"}, Rules: []rbacv1.PolicyRule{
			{
				APIGroups: []string{v1alpha1.Group}, Resources: []string{v1alpha1.UsersResource},
				Verbs: []string{v1alpha1.SpendVerb},
			},
		}},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "spend"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "spend"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: idleSpace, Name: "default"}},
		},
	} {
		if err := c.Create(ctx, object); err != nil {
			return err
		}
	}
	declared, err := convert.Plan(plan)
	if err != nil {
		return err
	}
	_, err = service.ApplyPlan(ctx, declared, "bench")
	return err
}

// idleFill makes the objects, and has the ledger know the Jobs.
func (b *bench) idleFill(ctx context.Context, c client.Client, dsn string) error {
	store, err := ledgerdb.Open(ctx, dsn, postgres.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	engine := ledger.New(store, ledger.Options{})
	service := metering.New(engine, store, access.NewSigner(store), metering.Options{AutoRegister: true})
	if err := prepare(ctx, c, service, 1, 2*idleQueue); err != nil {
		return err
	}
	// One after the other for each user, so that all know their places.
	if err := everyone(some, idleUsers, func(_, user int) error {
		for n := range 1 + idleQueue {
			if err := idleJob(ctx, c, service, user, n); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return everyone(some, idleQuotas, func(_, user int) error {
		name := "user-" + strconv.Itoa(user)
		return c.Create(ctx, &v1alpha1.UserQuota{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.UserQuotaSpec{UserID: name},
		})
	})
}

// idleJob makes the n-th Job of a user: the first runs, the others wait. It says what the manager would tell it, which
// would take the manager minutes.
func idleJob(ctx context.Context, c client.Client, service *metering.Service, user, n int) error {
	state, message := v1alpha1.StateAdmitted, "1 credits are reserved"
	if n > 0 {
		state = v1alpha1.StateQueued
		message = "the limit of 1 running at once is reached; it starts by itself in its turn"
	}
	name := "user-" + strconv.Itoa(user)
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: idleSpace, Name: fmt.Sprintf("%s-%d", name, n),
			Labels: map[string]string{v1alpha1.UserLabel: name},
			Annotations: map[string]string{
				v1alpha1.AudioDurationAnnotation: "1m",
				v1alpha1.StateAnnotation:         state, v1alpha1.MessageAnnotation: message,
			},
		},
		Spec: batchv1.JobSpec{Suspend: new(n > 0), Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers:    []corev1.Container{{Name: "main", Image: "example.com/transcriber"}},
		}}},
	}
	if err := c.Create(ctx, job); err != nil {
		return err
	}
	id, err := convert.UID(job.UID)
	if err != nil {
		return err
	}
	res, err := service.Admit(ctx, metering.AdmitRequest{
		UserID: name, ID: quota.AdmissionID(id), Source: quota.SourceJob, Namespace: job.Namespace, Name: job.Name,
		RequestedBy: "system:serviceaccount:bench:default", Estimate: quota.Credit, Queue: true, Park: true,
		Lease: metering.JobLease,
	})
	switch {
	case err != nil:
		return err
	case res.Admission == nil || (res.Admission.State == quota.Queued) != (n > 0):
		return fmt.Errorf("Job %s: %s", job.Name, res.Decision.Message())
	case n > 0:
		return nil
	}
	job.Status.StartTime, job.Status.Active, job.Status.Ready = new(metav1.Now()), 1, new(int32(1))
	return c.Status().Update(ctx, job)
}

func (b *bench) startManager(
	ctx context.Context, processes *localstack.Processes, kubeconfig, dsn string,
) error {
	b.report.progressf("building the manager")
	path := filepath.Join(b.dir, localstack.Manager)
	out, err := exec.CommandContext(ctx, "go", "build", "-o", path, managerProgram).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the manager: %w: %s", err, lastLines(string(out)))
	}
	certs := filepath.Join(b.dir, "webhook")
	if _, err := localstack.WriteServingCert(certs); err != nil {
		return err
	}
	health, err := freeport.Get()
	if err != nil {
		return err
	}
	webhook, err := freeport.Get()
	if err != nil {
		return err
	}
	address := "127.0.0.1:" + strconv.Itoa(health)
	env := []string{"DATABASE_URL=" + dsn, "KUBECONFIG=" + kubeconfig, "POD_NAMESPACE=" + idleSpace}
	if err := processes.Start(localstack.Manager, path, env, "--leader-elect=false", "--log-level=warn",
		"--metrics-bind-address=0", "--webhook-cert-dir="+certs, "--webhook-port="+strconv.Itoa(webhook),
		"--health-probe-bind-address="+address); err != nil {
		return err
	}
	ready := localstack.Answers(http.DefaultClient, "http://"+address+"/readyz")
	return localstack.Eventually(ctx, "the manager is ready", ready)
}

// idleSettled returns a while after every UserQuota has a status.
func (b *bench) idleSettled(ctx context.Context, c client.Client) error {
	late := fmt.Errorf("the manager has not written all statuses after %s", idlePatience)
	ctx, cancel := context.WithTimeoutCause(ctx, idlePatience, late)
	defer cancel()
	for {
		// Listing them all is work for the API server, which has the manager's to do.
		wait := 20 * time.Second
		settled, err := withStatus(ctx, c)
		if err != nil {
			return err
		}
		b.report.progressf("%d of %d UserQuotas have a status", settled, idleQuotas)
		if settled == idleQuotas {
			wait = idleSettle
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if settled == idleQuotas {
			return nil
		}
	}
}

// withStatus counts the UserQuotas that have a status, page by page: all at once are more than a busy API server gets
// out in time.
func withStatus(ctx context.Context, c client.Client) (settled int, err error) {
	var page v1alpha1.UserQuotaList
	for {
		if err := c.List(ctx, &page, client.Limit(1000), client.Continue(page.Continue)); err != nil {
			return 0, err
		}
		for i := range page.Items {
			if page.Items[i].Status.Usage != nil {
				settled++
			}
		}
		if page.Continue == "" {
			return settled, nil
		}
	}
}

// processorTime is what a process and its children, there or gone, have taken.
func processorTime(pid int) (time.Duration, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	var ticks int64
	found := false
	for _, entry := range entries {
		number, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "stat"))
		if err != nil {
			continue // it has ended, and is in its parent's account
		}
		// The name, in brackets, may contain anything.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		own := number == pid
		if !own && fields[1] != strconv.Itoa(pid) {
			continue
		}
		found = found || own
		last := 13 // user and system time
		if own {
			last = 15 // and those of the children that are gone
		}
		for _, field := range fields[11:last] {
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/%d/stat: %w", number, err)
			}
			ticks += n
		}
	}
	if !found {
		return 0, fmt.Errorf("there is no process %d", pid)
	}
	// Linux counts them in hundredths of a second, whatever the kernel's own tick is.
	return time.Duration(ticks) * (time.Second / 100), nil
}
