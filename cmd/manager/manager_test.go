// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/testing/cutproxy"
	"github.com/cantonesescribe/usage-operator/internal/testing/freeport"
	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
)

const namespace = "usage-operator-system"

// The process with the rights of its service account, as config/rbac gives them, brings a plan and a quota into force.
func TestManagerHasTheRightsThatItNeeds(t *testing.T) {
	env := kubetest.Start(t, kubetest.WithManifests("config/rbac"))
	health, webhooks := port(t), port(t)
	dsn := pgtest.New(t, postgres.Migrate)
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := cutproxy.Start(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	if dsn, err = proxy.DSN(dsn); err != nil {
		t.Fatal(err)
	}
	environment := map[string]string{"DATABASE_URL": dsn, "POD_NAMESPACE": namespace}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{
			"--kubeconfig=" + kubeconfig(t, env), "--webhook-port=" + strconv.Itoa(webhooks),
			"--health-probe-bind-address=127.0.0.1:" + strconv.Itoa(health), "--metrics-bind-address=127.0.0.1:0",
			"--status-interval=1s",
			"--allow-unsafe-database",
		}, func(key string) string { return environment[key] })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	// readyz asks until the text of a manager that is ready has a part.
	readyz := func(part string) {
		t.Helper()
		eventually(t, done, func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet,
				fmt.Sprintf("http://127.0.0.1:%d/readyz?verbose", health), http.NoBody)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err == nil && (resp.StatusCode != http.StatusOK || !strings.Contains(string(text), part)) {
				err = fmt.Errorf("readyz: %s: %s", resp.Status, text)
			}
			return err
		})
	}
	readyz("[+]database ok")
	// Without its database it goes on to answer webhooks, so it stays ready.
	proxy.Refuse(true)
	proxy.CutAll()
	readyz("[!]database degraded: the database cannot be reached")
	proxy.Refuse(false)
	readyz("[+]database ok")

	plan := &v1alpha1.UsagePlan{
		ObjectMeta: metav1.ObjectMeta{Name: "free"},
		Spec: v1alpha1.UsagePlanSpec{DisplayName: "Free", Default: true, AlertThresholds: []int32{80},
			Limits: v1alpha1.UsagePlanLimits{
				Credits: new(int64(30)), FileSize: new(resource.MustParse("25Mi")), Concurrent: new(int32(1)),
			}},
	}
	quota := &v1alpha1.UserQuota{ObjectMeta: metav1.ObjectMeta{Name: "alice"},
		Spec: v1alpha1.UserQuotaSpec{UserID: "alice"}}
	for _, obj := range []client.Object{plan, quota} {
		if err := env.Client.Create(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, done, func(ctx context.Context) error {
		for _, obj := range []client.Object{plan, quota} {
			if err := env.Client.Get(ctx, client.ObjectKeyFromObject(obj), obj); err != nil {
				return err
			}
		}
		for name, conditions := range map[string][]metav1.Condition{"plan": plan.Status.Conditions,
			"quota": quota.Status.Conditions} {
			if !meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionReady) {
				return fmt.Errorf("the %s is not ready: %+v", name, conditions)
			}
		}
		return nil
	})
	if err := env.Client.Delete(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
}

func TestParseRefuses(t *testing.T) {
	environment := func(string) string { return "" }
	for want, args := range map[string][]string{
		"DATABASE_URL":  nil,
		"POD_NAMESPACE": {"--database-url=postgres://db/usage"},
		"--status-interval": {"--database-url=postgres://db/usage", "--namespace=x",
			"--status-interval=0s"},
		"--webhook-port is 99999: must lie between 1 and 65535": {"--database-url=postgres://db/usage",
			"--namespace=x", "--webhook-port=99999"},
		"--resync-interval": {"--database-url=postgres://db/usage", "--namespace=x",
			"--resync-interval=1ms"},
		"--job-start-timeout": {"--database-url=postgres://db/usage", "--namespace=x",
			"--job-start-timeout=0s"},
		"--cluster-name": {"--database-url=postgres://db/usage", "--namespace=x", "--cluster-name=a/b"},
		"extra":          {"extra"},
		"--leader-elect-renew-deadline": {"--database-url=postgres://db/usage", "--namespace=x",
			"--leader-elect-renew-deadline=1s"},
	} {
		if _, err := parse(args, environment); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", args, err, want)
		}
	}
}

func TestResetImageIsThePods(t *testing.T) {
	pod := func(container string) client.Reader {
		return fake.NewClientBuilder().WithObjects(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "manager-0"},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "mesh", Image: "mesh:1"},
				{Name: container, Image: "mirror.example/usage-operator:v2"}}},
		}).Build()
	}
	for name, tc := range map[string]struct {
		options   options
		container string
		want      string
	}{
		"the flag goes first": {options{image: "mine:1", podName: "manager-0"}, "manager", "mine:1"},
		"the pod's own":       {options{podName: "manager-0"}, "manager", "mirror.example/usage-operator:v2"},
		"outside a pod":       {options{}, "manager", "usage-operator:dev"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.options.namespace = namespace
			if got, err := resetImage(t.Context(), pod(tc.container), &tc.options); err != nil || got != tc.want {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
	for _, o := range []options{{namespace: namespace, podName: "gone"}, {namespace: namespace, podName: "manager-0"}} {
		if got, err := resetImage(t.Context(), pod("other"), &o); err == nil ||
			!strings.Contains(err.Error(), "--image") {
			t.Errorf("pod %s: got %q, %v, want an error that says what to set", o.podName, got, err)
		}
	}
}

func eventually(t *testing.T, done chan error, check func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true,
		func(ctx context.Context) (bool, error) {
			select {
			case err := <-done:
				done <- nil
				return false, fmt.Errorf("the manager ended: %w", err)
			default:
			}
			last = check(ctx)
			return last == nil, nil
		})
	if err != nil {
		t.Fatalf("%v: %v", err, last)
	}
}

func kubeconfig(t *testing.T, env *kubetest.Env) string {
	t.Helper()
	account := env.ServiceAccount(t, namespace, "usage-operator-manager")
	path := filepath.Join(t.TempDir(), "kubeconfig")
	err := clientcmd.WriteToFile(clientcmdapi.Config{
		CurrentContext: "test",
		Contexts:       map[string]*clientcmdapi.Context{"test": {Cluster: "test", AuthInfo: "test"}},
		Clusters: map[string]*clientcmdapi.Cluster{
			"test": {Server: account.Host, CertificateAuthorityData: account.CAData}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"test": {Token: account.BearerToken}},
	}, path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func port(t *testing.T) int {
	t.Helper()
	p, err := freeport.Get()
	if err != nil {
		t.Fatal(err)
	}
	return p
}
