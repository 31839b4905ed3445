// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Package localstack brings up everything that the product needs on one machine: a Kubernetes control plane whose Jobs
// really run (on a fake node), PostgreSQL, and the product's own programs as processes. The demo, the benchmarks and
// the tests that need more than an API server stand on it.
package localstack

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/cantonesescribe/usage-operator/internal/testing/freeport"
	"github.com/cantonesescribe/usage-operator/internal/testing/lifeline"
)

// What steers a pod on the fake node, as annotations of the pod.
const (
	// RunForAnnotation is how long the pod's containers run, as a duration; 1s without it.
	RunForAnnotation = "demo.usage.cantonesescribe.io/run-for"
	// ExitCodeAnnotation is the containers' exit code; 0 without it.
	ExitCodeAnnotation = "demo.usage.cantonesescribe.io/exit-code"
	// TerminationMessageAnnotation is what the containers leave as their termination message.
	TerminationMessageAnnotation = "demo.usage.cantonesescribe.io/termination-message"

	nodeName = "fake-node"

	pollInterval = 50 * time.Millisecond
	readyTimeout = 2 * time.Minute
)

//go:embed stages.yaml
var stages []byte

// ControlPlane is a Kubernetes control plane with one fake node.
type ControlPlane struct {
	// Config is an administrator's.
	Config *rest.Config
	// Kubeconfig is a file with the same rights.
	Kubeconfig string

	assets    string
	env       *envtest.Environment
	processes *Processes
	forget    func() error
}

// StartControlPlane starts etcd, kube-apiserver, kube-controller-manager, kube-scheduler and a fake node, with all
// their files in dir. The programs are those in the folder that KUBEBUILDER_ASSETS names.
func StartControlPlane(ctx context.Context, dir string, processes *Processes) (_ *ControlPlane, err error) {
	c := &ControlPlane{
		assets: os.Getenv("KUBEBUILDER_ASSETS"), Kubeconfig: filepath.Join(dir, "kubeconfig"), processes: processes,
	}
	if c.assets == "" {
		return nil,
			errors.New(
				"KUBEBUILDER_ASSETS names no folder with the control plane: run this through make, or set it to what " +
					"hack/controlplane/build.sh prints")
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	if err := c.startAPIServer(dir); err != nil {
		return nil, fmt.Errorf("start etcd and kube-apiserver: %w", err)
	}
	if err := c.startControllers(dir); err != nil {
		return nil, err
	}
	return c, c.waitReady(ctx)
}

// Kubectl is the path of kubectl.
func (c *ControlPlane) Kubectl() string { return filepath.Join(c.assets, "kubectl") }

// Stop ends etcd and kube-apiserver; the others belong to the caller's Processes and are stopped before.
func (c *ControlPlane) Stop() error {
	if c.env == nil {
		return nil
	}
	err := c.env.Stop()
	c.env = nil
	if c.forget != nil {
		err = errors.Join(err, c.forget())
	}
	return err
}

func (c *ControlPlane) startAPIServer(dir string) error {
	etcdDir, certDir := filepath.Join(dir, "etcd"), filepath.Join(dir, "kube-apiserver")
	for _, d := range []string{etcdDir, certDir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	c.env = &envtest.Environment{
		BinaryAssetsDirectory:    c.assets,
		ControlPlaneStartTimeout: readyTimeout,
		ControlPlaneStopTimeout:  stopGrace,
	}
	c.env.ControlPlane.Etcd = &envtest.Etcd{DataDir: etcdDir}
	server := c.env.ControlPlane.GetAPIServer()
	server.CertDir = certDir
	log, err := os.Create(c.processes.Log("kube-apiserver"))
	if err != nil {
		return err
	}
	server.Out, server.Err = log, log
	// envtest switches ServiceAccount admission off, since it has no controller that makes the accounts. Here is one.
	server.Configure().Disable("disable-admission-plugins")

	c.Config, err = c.env.Start()
	if err != nil {
		return err
	}
	if c.forget, err = lifeline.Children("etcd", "kube-apiserver"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), c.Config.CAData, 0o600); err != nil {
		return err
	}
	return os.WriteFile(c.Kubeconfig, c.env.KubeConfig, 0o600)
}

func (c *ControlPlane) startControllers(dir string) error {
	stagesFile := filepath.Join(dir, "stages.yaml")
	if err := os.WriteFile(stagesFile, stages, 0o600); err != nil {
		return err
	}
	if err := c.processes.StartControllerManager(c.assets, dir, c.Kubeconfig,
		filepath.Join(dir, "kube-apiserver")); err != nil {
		return err
	}
	flags, err := controllerFlags("kube-scheduler", dir, c.Kubeconfig)
	if err != nil {
		return err
	}
	if err := c.processes.Start("kube-scheduler", filepath.Join(c.assets, "kube-scheduler"), nil,
		flags...); err != nil {
		return err
	}
	port, err := freeport.Get()
	if err != nil {
		return err
	}
	return c.processes.Start("kwok", filepath.Join(c.assets, "kwok"), nil,
		"--kubeconfig="+c.Kubeconfig,
		"--config="+stagesFile,
		"--manage-all-nodes=true",
		"--node-lease-duration-seconds=40",
		"--cidr=10.244.0.0/16",
		"--node-ip=127.0.0.1",
		"--server-address=127.0.0.1:"+strconv.Itoa(port))
}

// waitReady returns once a Job can run: its namespace has a service account and there is a node that is ready.
func (c *ControlPlane) waitReady(ctx context.Context) error {
	clients, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		return err
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName,
		Labels: map[string]string{corev1.LabelHostname: nodeName}}}
	if _, err := clients.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("register the fake node: %w", err)
	}
	return Eventually(ctx, "the fake node is ready and the service accounts exist",
		func(ctx context.Context) (bool, error) {
			node, err := clients.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			_, err = clients.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return false, nil
			}
			return len(node.Spec.Taints) == 0 && nodeReady(node), err
		})
}

func nodeReady(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Eventually calls condition until it is true; an error ends the wait.
func Eventually(ctx context.Context, what string, condition func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not within %s: %s", readyTimeout, what))
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		ok, err := condition(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("while waiting until %s: %w", what, err)
		case ok:
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Answers tells whether a GET of the URL is answered with 200, for use with Eventually.
func Answers(client *http.Client, url string) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return false, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return false, nil //nolint:nilerr // not listening yet
		}
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	}
}
