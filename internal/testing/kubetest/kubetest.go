// SPDX-License-Identifier: Apache-2.0

// Package kubetest gives tests a real API server and etcd with this project's CRDs, and on request a
// kube-controller-manager, webhooks and admission policies.
//
// The programs come from the folder in KUBEBUILDER_ASSETS, else from hack/controlplane/build.sh. A control plane that
// cannot be started fails the tests that need it; none is skipped. All that is started ends with the test binary,
// however that ends.
package kubetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2/textlogger"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/testing/lifeline"
	"github.com/cantonesescribe/usage-operator/internal/testing/localstack"
)

const (
	startTimeout = 2 * time.Minute
	stopTimeout  = 20 * time.Second
	pollInterval = 50 * time.Millisecond
)

// Env is a running control plane.
type Env struct {
	// Config is a cluster administrator's.
	Config *rest.Config

	// Kubeconfig is the name of a file with the same, for programs that the test starts.
	Kubeconfig string

	// Scheme holds the types that Client knows.
	Scheme *runtime.Scheme

	// Client reads and writes as the administrator, without a cache. Values are validated strictly: an unknown field is
	// an error.
	Client client.WithWatch

	// Webhooks has the address and the certificates that a manager has to serve webhooks with; see WithWebhooks.
	Webhooks envtest.WebhookInstallOptions

	dir     string
	kubectl string
	opts    options
	control *envtest.Environment
	// processes run beside the API server while running lasts; both nil without any.
	processes *localstack.Processes
	running   context.Context //nolint:containedctx // its cause tells which of the processes ended, and why
	forget    []func() error
}

func start(opts []Option) (_ *Env, err error) {
	env := &Env{}
	for _, opt := range opts {
		opt(&env.opts)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, env.stop())
		}
	}()
	// Standard error is shown only for packages that fail. Without a logger controller-runtime complains in its place.
	logf.SetLogger(textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(os.Stderr))))

	root, err := repositoryRoot()
	if err != nil {
		return nil, err
	}
	programs := []string{"etcd", "kube-apiserver", "kubectl"}
	if env.opts.controllerManager {
		programs = append(programs, "kube-controller-manager")
	}
	assets, err := findAssets(root, programs...)
	if err != nil {
		return nil, err
	}
	env.kubectl = filepath.Join(assets, "kubectl")
	if err := env.makeFolder(); err != nil {
		return nil, err
	}
	if err := env.makeScheme(); err != nil {
		return nil, err
	}
	if err := env.startControlPlane(root, assets); err != nil {
		return nil, err
	}
	if env.opts.controllerManager {
		if err := env.startControllerManager(assets); err != nil {
			return nil, err
		}
	}
	for _, path := range env.opts.manifests {
		if err := env.apply(filepath.Join(root, path)); err != nil {
			return nil, err
		}
	}
	return env, nil
}

func (e *Env) makeFolder() (err error) {
	if e.dir, err = os.MkdirTemp("", "kubetest-"); err != nil {
		return err
	}
	forget, err := lifeline.Folder(e.dir)
	if err != nil {
		return err
	}
	e.forget = append(e.forget, forget)
	for _, name := range []string{"etcd", "apiserver", "kubectl"} {
		if err := os.Mkdir(filepath.Join(e.dir, name), 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (e *Env) makeScheme() error {
	e.Scheme = runtime.NewScheme()
	for _, add := range append([]func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme},
		e.opts.scheme...) {
		if err := add(e.Scheme); err != nil {
			return err
		}
	}
	return nil
}

func (e *Env) startControlPlane(root, assets string) error {
	e.control = &envtest.Environment{
		Scheme:                   e.Scheme,
		CRDDirectoryPaths:        []string{filepath.Join(root, "config", "crd", "bases")},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: startTimeout,
		ControlPlaneStopTimeout:  stopTimeout,
	}
	for _, path := range e.opts.webhooks {
		e.control.WebhookInstallOptions.Paths = append(e.control.WebhookInstallOptions.Paths, filepath.Join(root, path))
	}
	e.control.ControlPlane.KubectlPath = e.kubectl
	e.control.ControlPlane.Etcd = &envtest.Etcd{Path: filepath.Join(assets, "etcd"),
		DataDir: filepath.Join(e.dir, "etcd")}
	server := e.control.ControlPlane.GetAPIServer()
	server.Path, server.CertDir = filepath.Join(assets, "kube-apiserver"), filepath.Join(e.dir, "apiserver")
	if e.opts.serviceAccountAdmission {
		server.Configure().Disable("disable-admission-plugins")
	}

	var err error
	e.Config, err = e.control.Start()
	// Whatever runs by now has to be registered, whether or not all went well.
	if forget, childErr := lifeline.Children("etcd", "kube-apiserver"); childErr != nil {
		err = errors.Join(err, childErr)
	} else {
		e.forget = append(e.forget, forget)
	}
	if err != nil {
		return fmt.Errorf("start the control plane of %s: %w", assets, err)
	}
	e.Webhooks = e.control.WebhookInstallOptions
	e.Kubeconfig = filepath.Join(e.dir, "kubeconfig")
	if err := os.WriteFile(e.Kubeconfig, e.control.KubeConfig, 0o600); err != nil {
		return err
	}
	e.Client, err = e.newClient(e.Config)
	return err
}

func (e *Env) startControllerManager(assets string) error {
	if err := os.WriteFile(filepath.Join(e.dir, "ca.crt"), e.Config.CAData, 0o600); err != nil {
		return err
	}
	e.running, e.processes = localstack.NewProcesses(context.Background(), e.dir)
	return e.processes.StartControllerManager(assets, e.dir, e.Kubeconfig, e.control.ControlPlane.APIServer.CertDir)
}

func (e *Env) apply(path string) error {
	flag := "--filename"
	if _, err := os.Stat(filepath.Join(path, "kustomization.yaml")); err == nil {
		flag = "--kustomize"
	}
	_, err := e.Kubectl(context.Background(), "apply", "--server-side", flag, path)
	return err
}

func (e *Env) stop() error {
	var errs []error
	if e.processes != nil {
		errs = append(errs, e.processes.StopAll())
	}
	if e.control != nil {
		errs = append(errs, e.control.Stop())
	}
	if e.dir != "" {
		errs = append(errs, os.RemoveAll(e.dir))
	}
	for _, forget := range e.forget {
		errs = append(errs, forget())
	}
	return errors.Join(errs...)
}

func (e *Env) newClient(config *rest.Config) (client.WithWatch, error) {
	c, err := client.NewWithWatch(config, client.Options{Scheme: e.Scheme})
	if err != nil {
		return nil, err
	}
	return strict{client.WithFieldValidation(c, metav1.FieldValidationStrict), c}, nil
}

// strict is a client with field validation that can watch as well.
type strict struct {
	client.Client
	watcher client.WithWatch
}

// Watch implements client.WithWatch.
func (s strict) Watch(ctx context.Context, list client.ObjectList, opts ...client.ListOption) (watch.Interface, error) {
	return s.watcher.Watch(ctx, list, opts...)
}

// NewClient returns a client like Client that authenticates by config.
func (e *Env) NewClient(tb testing.TB, config *rest.Config) client.WithWatch {
	tb.Helper()
	c, err := e.newClient(config)
	if err != nil {
		tb.Fatalf("kubetest: a client for %s: %v", config.Host, err)
	}
	return c
}

// Namespace creates a namespace of the test's own, with the given labels, and returns its name. Its default service
// account is there when Namespace returns, so that pods can be created in it. It stays until the control plane stops.
func (e *Env) Namespace(tb testing.TB, labels ...map[string]string) string {
	tb.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-", Labels: map[string]string{}}}
	for _, l := range labels {
		maps.Copy(ns.Labels, l)
	}
	if err := e.Client.Create(tb.Context(), ns); err != nil {
		tb.Fatalf("kubetest: create a namespace: %v", err)
	}
	e.ensureServiceAccount(tb, ns.Name, "default")
	return ns.Name
}

// ensureServiceAccount creates a service account unless it exists, or waits for it where a controller makes it.
func (e *Env) ensureServiceAccount(tb testing.TB, namespace, name string) {
	tb.Helper()
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if e.opts.controllerManager && name == "default" {
		err := wait.PollUntilContextTimeout(tb.Context(), pollInterval, startTimeout, true,
			func(ctx context.Context) (bool, error) {
				err := e.Client.Get(ctx, client.ObjectKeyFromObject(sa), sa)
				return err == nil, client.IgnoreNotFound(err)
			})
		if err != nil {
			// The cause tells whether the controller that makes it has ended.
			tb.Fatalf("kubetest: wait for service account %s/%s: %v", namespace, name,
				errors.Join(err, context.Cause(e.running)))
		}
		return
	}
	if err := e.Client.Create(tb.Context(), sa); err != nil && !apierrors.IsAlreadyExists(err) {
		tb.Fatalf("kubetest: create service account %s/%s: %v", namespace, name, err)
	}
}

// Token returns a token of the service account, which is created if need be, for the audiences; for the API server if
// there are none. It is a real one: a TokenReview knows it.
func (e *Env) Token(tb testing.TB, namespace, serviceAccount string, audiences ...string) string {
	tb.Helper()
	e.ensureServiceAccount(tb, namespace, serviceAccount)
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: serviceAccount}}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	if err := e.Client.SubResource("token").Create(tb.Context(), sa, request); err != nil {
		tb.Fatalf("kubetest: request a token for service account %s/%s: %v", namespace, serviceAccount, err)
	}
	return request.Status.Token
}

// ServiceAccount returns a configuration that authenticates by a token of the service account, which is created if need
// be. Give it rights by RBAC as in any cluster.
func (e *Env) ServiceAccount(tb testing.TB, namespace, name string) *rest.Config {
	tb.Helper()
	config := rest.AnonymousClientConfig(e.Config)
	config.BearerToken = e.Token(tb, namespace, name)
	return config
}

// Impersonate returns a configuration of the administrator who acts as somebody else.
func (e *Env) Impersonate(user string, groups ...string) *rest.Config {
	config := rest.CopyConfig(e.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	return config
}

// Kubectl runs kubectl as the administrator and returns what it printed. What it wrote to standard error is in the
// error.
func (e *Env) Kubectl(ctx context.Context, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, e.kubectl, append([]string{
		"--kubeconfig", e.Kubeconfig, "--cache-dir", filepath.Join(e.dir, "kubectl"),
	}, args...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err,
			strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
