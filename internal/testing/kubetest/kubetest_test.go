// SPDX-License-Identifier: Apache-2.0

package kubetest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
)

func TestMain(m *testing.M) {
	kubetest.Main(m,
		kubetest.WithControllerManager(),
		kubetest.WithServiceAccountAdmission(),
		kubetest.WithManifests("internal/testing/kubetest/testdata/manifest.yaml",
			"internal/testing/kubetest/testdata/kustomization"),
	)
}

func TestServiceAccountHasNoMoreThanItsRights(t *testing.T) {
	t.Parallel()
	env := kubetest.Shared(t)
	ns := env.Namespace(t)

	err := env.NewClient(t, env.ServiceAccount(t, ns, "nobody")).List(t.Context(), &v1alpha1.UsagePlanList{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "system:serviceaccount:"+ns+":nobody") {
		t.Errorf("list plans as a service account without rights: got %v, want Forbidden with its name", err)
	}
	err = env.NewClient(t, env.Impersonate("somebody")).List(t.Context(), &v1alpha1.UsagePlanList{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `"somebody"`) {
		t.Errorf("list plans as a user without rights: got %v, want Forbidden with its name", err)
	}
}

func TestTokenIsForItsAudienceOnly(t *testing.T) {
	t.Parallel()
	env := kubetest.Shared(t)
	ns := env.Namespace(t)
	token := env.Token(t, ns, "caller", "usaged")

	for audience, want := range map[string]bool{"usaged": true, "other": false} {
		review := &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{audience}}}
		if err := env.Client.Create(t.Context(), review); err != nil {
			t.Fatal(err)
		}
		if got := review.Status.Authenticated; got != want {
			t.Errorf("token for audience usaged reviewed for %s: authenticated %v, want %v (%s)", audience, got, want,
				review.Status.Error)
		}
	}
}

func TestControllerManagerRunsJobs(t *testing.T) {
	t.Parallel()
	env := kubetest.Shared(t)
	ns := env.Namespace(t, map[string]string{v1alpha1.EnforcementLabel: v1alpha1.EnforcementOff})
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "job"},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers:    []corev1.Container{{Name: "main", Image: "example.com/none"}},
		}}},
	}
	if err := env.Client.Create(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	pods := &corev1.PodList{}
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true,
		func(ctx context.Context) (bool, error) {
			err := env.Client.List(ctx, pods, client.InNamespace(ns))
			return len(pods.Items) == 1, err
		})
	if err != nil {
		t.Fatalf("wait for the Job's pod: %v", err)
	}
	if got := pods.Items[0].Spec.ServiceAccountName; got != "default" {
		t.Errorf("the pod's service account is %q, want default: the admission plug-in does not run", got)
	}
}

func TestManifestsAreApplied(t *testing.T) {
	t.Parallel()
	env := kubetest.Shared(t)
	for _, name := range []string{"from-file", "prefix-from-kustomization"} {
		got := &corev1.ConfigMap{}
		if err := env.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: name}, got); err != nil {
			t.Error(err)
		}
	}
}

func TestClientRefusesUnknownFields(t *testing.T) {
	t.Parallel()
	env := kubetest.Shared(t)
	file := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(file, []byte(`
apiVersion: usage.cantonesescribe.io/v1alpha1
kind: UsagePlan
metadata: {name: unknown-field}
spec: {displayName: x, limits: {unlimited: [Credits, FileSize, Concurrent], seats: 3}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := env.Kubectl(t.Context(), "create", "-f", file); err == nil ||
		!strings.Contains(err.Error(), "spec.limits.seats") {
		t.Errorf("create a plan with an unknown field: got %v, want an error that names it", err)
	}
}

func TestStartWithoutPrograms(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("KUBEBUILDER_ASSETS", dir)
	failed := make(chan string, 1)
	// Fatalf ends the goroutine that it is called on.
	go func() {
		defer close(failed)
		kubetest.Start(recorder{TB: t, fatal: failed})
	}()
	got := <-failed
	if want := dir + " (from KUBEBUILDER_ASSETS)"; !strings.Contains(got, want) || strings.Contains(got, "\n") {
		t.Errorf("start without programs: got %q, want one line with %q", got, want)
	}
}

// recorder is a test that hands its failure over instead of failing.
type recorder struct {
	testing.TB
	fatal chan<- string
}

func (r recorder) Helper() {}

func (r recorder) Fatalf(format string, args ...any) {
	r.fatal <- fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// A busy API server ends a watch whenever it likes.
func TestFollowGoesOnWhereAWatchEnded(t *testing.T) {
	t.Parallel()
	shared := kubetest.Shared(t)
	ns := shared.Namespace(t)
	env, config := *shared, rest.CopyConfig(shared.Config)
	var watches atomic.Int32
	config.Wrap(func(through http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			resp, err := through.RoundTrip(r)
			if err == nil && r.URL.Query().Get("watch") == "true" && watches.Add(1) == 1 {
				resp.Body = &firstLine{ReadCloser: resp.Body}
			}
			return resp, err
		})
	})
	env.Client = env.NewClient(t, config)
	names := make(chan string, 3)
	env.Follow(t, &corev1.ConfigMapList{}, func(change watch.Event) {
		if created, ok := change.Object.(*corev1.ConfigMap); ok && created.Name != "kube-root-ca.crt" {
			names <- created.Name
		}
	}, client.InNamespace(ns))
	for _, name := range []string{"a", "b", "c"} {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
		if err := shared.Client.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"a", "b", "c"} {
		if got := <-names; got != want {
			t.Errorf("%s was seen, want %s", got, want)
		}
	}
	if n := watches.Load(); n != 2 {
		t.Errorf("%d watches, want that the first one ended and another went on", n)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// firstLine is a body that ends after its first line.
type firstLine struct {
	io.ReadCloser
	ended bool
}

func (f *firstLine) Read(p []byte) (int, error) {
	if f.ended {
		return 0, io.EOF
	}
	n, err := f.ReadCloser.Read(p[:1])
	f.ended = n == 1 && p[0] == '\n'
	return n, err
}
