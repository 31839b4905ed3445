//go:build e2e

// SPDX-License-Identifier: Apache-2.0

// Package e2e plays the product on a real cluster: real kubelets, real pods, the image as it is deployed. `make
// test-e2e` makes the cluster, builds and loads the images and runs it; the build tag keeps it out of `make test`.
package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
)

const (
	systemNamespace = "usage-operator-system"

	// interval is how often a condition is looked at; timeout is how long a condition that is not about time may take
	// on a loaded machine.
	interval = 250 * time.Millisecond
	timeout  = 2 * time.Minute
)

var (
	// k8s is an administrator's client, without a cache.
	k8s client.WithWatch
	// root is the repository.
	root string
)

func TestE2E(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyPollingInterval(interval)
	SetDefaultEventuallyTimeout(timeout)
	EnforceDefaultTimeoutsWhenUsingContexts()
	RunSpecs(t, "usage-operator on a cluster")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	ctrllog.SetLogger(GinkgoLogr)
	for _, name := range []string{"KUBECONFIG", "KUBECTL", "IMG", "POSTGRES_IMG", "WORKER_IMG"} {
		if os.Getenv(name) == "" {
			AbortSuite(name +
				" is not set: run the suite by `make test-e2e`, which makes a cluster and loads the images")
		}
	}
	wd, err := os.Getwd()
	Expect(err).NotTo(HaveOccurred())
	root = filepath.Join(wd, "..", "..")
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	Expect(err).NotTo(HaveOccurred())
	scheme := runtime.NewScheme()
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(v1alpha1.AddToScheme(scheme)).To(Succeed())
	k8s, err = client.NewWithWatch(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())

	By("deploying the product")
	// What an earlier run left on a cluster that is used again would run on, with the image of that time.
	kubectl(ctx, "delete", "namespace", "--selector", ownLabel, "--timeout", "2m")
	undeploy(ctx)
	deploy(ctx)
	kubectl(ctx, "apply", "--kustomize", filepath.Join(root, "config", "samples"))
	kubectl(ctx, "wait", "--for=condition=Ready", "usageplans,userquotas", "--all", "--timeout=1m")
}, NodeTimeout(10*time.Minute))

var _ = AfterEach(func(ctx SpecContext) {
	if CurrentSpecReport().Failed() {
		collect(ctx, CurrentSpecReport().LeafNodeText)
	}
}, NodeTimeout(2*time.Minute))

// After everything that was done to it, the ledger agrees with itself, and the product leaves the cluster without a
// trace.
var _ = AfterSuite(func(ctx SpecContext) {
	if k8s == nil {
		return
	}
	By("checking the ledger's invariants")
	out, err := tryKubectl(ctx, "--namespace", systemNamespace, "exec", "deployment/usage-operator-manager",
		"--container", "manager", "--",
		"/usage-batch", "check")
	if err != nil {
		collect(ctx, "invariants")
	}
	Expect(err).NotTo(HaveOccurred(), out)
	AddReportEntry("invariants", out)
	kubectl(ctx, "delete", "namespace", "--selector", ownLabel, "--timeout", "2m")
	By("taking the product away")
	undeploy(ctx)
	Expect(leftovers(ctx)).To(BeEmpty())
}, NodeTimeout(10*time.Minute))

// leftovers are the objects in the cluster that the product made.
func leftovers(ctx context.Context) []string {
	GinkgoHelper()
	var left []string
	for _, kind := range []string{
		"customresourcedefinitions", "clusterroles", "clusterrolebindings", "validatingadmissionpolicies",
		"validatingadmissionpolicybindings",
		"mutatingwebhookconfigurations", "validatingwebhookconfigurations", "namespaces",
	} {
		for _, name := range lines(kubectl(ctx, "get", kind, "--output", "name")) {
			if containsAny(name, "usage-", "usage.cantonesescribe.io") {
				left = append(left, name)
			}
		}
	}
	return left
}

// ready tells whether as many pods of the component are ready as there should be.
func ready(ctx context.Context, component string) (int, error) {
	var pods corev1.PodList
	if err := k8s.List(ctx, &pods, client.InNamespace(systemNamespace),
		client.MatchingLabels{"app.kubernetes.io/component": component}); err != nil {
		return 0, err
	}
	n := 0
	for i := range pods.Items {
		for _, c := range pods.Items[i].Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && pods.Items[i].DeletionTimestamp == nil {
				n++
			}
		}
	}
	return n, nil
}
