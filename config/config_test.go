// SPDX-License-Identifier: Apache-2.0

// Package config_test holds what config/ installs against a real API server.
package config_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

// overlays are all that can be deployed.
var overlays = []string{"default", "install", "samples", "overlays/dev", "overlays/cert-manager", "overlays/prometheus"}

// foreignGroups are served by other projects' controllers, which the test's API server does not have.
var foreignGroups = []string{"cert-manager.io", "monitoring.coreos.com"}

func render(t *testing.T, folder string) (text string, objects []*unstructured.Unstructured) {
	t.Helper()
	// kubectl reads the manifests, so go would take results from its cache when they have changed: it notes what a test
	// itself looks at.
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err = kubetest.Shared(t).Kubectl(t.Context(), "kustomize", folder)
	if err != nil {
		t.Fatal(err)
	}
	for decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), len(text)); ; {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return text, objects
		} else if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, object)
	}
}

func TestEveryOverlayIsHere(t *testing.T) {
	folders, err := os.ReadDir("overlays")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		if !slices.Contains(overlays, "overlays/"+folder.Name()) {
			t.Errorf("overlays/%s is not tested", folder.Name())
		}
	}
}

// The API server accepts every object, knows every field, and has nothing to warn about: restricted pods among it.
func TestOverlaysAreValid(t *testing.T) {
	env := kubetest.Shared(t)
	warnings := &warnings{}
	config := rest.CopyConfig(env.Config)
	config.WarningHandlerWithContext = warnings
	c := env.NewClient(t, config)
	// A dry run makes no namespace that later objects could be in.
	_, objects := render(t, "rbac")
	apply(t, c, objects[slices.IndexFunc(objects,
		func(o *unstructured.Unstructured) bool { return o.GetKind() == "Namespace" })])

	for _, folder := range overlays {
		t.Run(folder, func(t *testing.T) {
			text, objects := render(t, folder)
			foreign := 0
			for _, object := range objects {
				if slices.Contains(foreignGroups, object.GroupVersionKind().Group) {
					foreign++
				} else {
					apply(t, c, object, client.DryRunAll)
				}
			}
			for _, warning := range warnings.take() {
				t.Errorf("the API server warns: %s", warning)
			}
			if foreign > 0 {
				checkForeign(t, text, foreign)
			}
		})
	}
}

func apply(t *testing.T, c client.Client, object *unstructured.Unstructured, opts ...client.ApplyOption) {
	t.Helper()
	err := c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object),
		append(opts, client.FieldOwner("test"), client.ForceOwnership)...)
	if err != nil {
		t.Errorf("%s %s: %v", object.GetKind(), object.GetName(), err)
	}
}

// checkForeign checks the objects of other projects' kinds against those projects' Go types.
func checkForeign(t *testing.T, manifests string, want int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "run", "-C", filepath.Join("..", "hack", "foreign"), ".")
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	cmd.Stdin = strings.NewReader(manifests)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || strings.TrimSpace(string(out)) != fmt.Sprint(want) {
		t.Errorf("%s of %d objects checked, %v: %s", bytes.TrimSpace(out), want, err, stderr.String())
	}
}

// warnings collects what the API server warns about.
type warnings struct {
	mu  sync.Mutex
	all []string
}

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (w *warnings) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, text)
}

func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.all = nil }()
	return w.all
}

func TestNoRightIsAWildcard(t *testing.T) {
	found := 0
	for _, folder := range overlays {
		_, objects := render(t, folder)
		for _, object := range objects {
			if object.GetKind() != "Role" && object.GetKind() != "ClusterRole" {
				continue
			}
			found++
			var role rbacv1.ClusterRole // a Role has the same rules
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &role); err != nil {
				t.Fatal(err)
			}
			for _, rule := range role.Rules {
				for _, value := range slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs, rule.NonResourceURLs) {
					if strings.Contains(value, "*") {
						t.Errorf("%s: %s %s has a wildcard: %v", folder, object.GetKind(), object.GetName(), rule)
					}
				}
				if slices.Contains(rule.Resources, "secrets") && !slices.Equal(rule.Verbs, []string{"create"}) &&
					len(rule.ResourceNames) == 0 {
					t.Errorf("%s: %s %s reaches every Secret: %v", folder, object.GetKind(), object.GetName(), rule)
				}
			}
		}
	}
	if found == 0 {
		t.Error("no role found")
	}
}

// In another namespace nothing of the usual one is left, also where it is named inside a text.
func TestNamespaceIsFollowed(t *testing.T) {
	const usual, other = "usage-operator-system", "metering"
	for _, folder := range []string{"default", "overlays/dev", "overlays/cert-manager", "overlays/prometheus"} {
		dir := t.TempDir()
		relative := func(from, to string) string {
			to, err := filepath.Abs(to)
			if err != nil {
				t.Fatal(err)
			}
			path, err := filepath.Rel(filepath.Join(dir, from), to)
			if err != nil {
				t.Fatal(err)
			}
			return path
		}
		write(t, filepath.Join(dir, "base"), "namespace: "+other+"\nresources: ["+relative("base", folder)+"]\n")
		write(t, dir, "resources: [base]\ncomponents: ["+relative("", "namespace")+"]\n")
		text, objects := render(t, dir)
		for line := range strings.Lines(text) {
			if strings.Contains(line, usual) {
				t.Errorf("%s: %s", folder, line)
			}
		}
		if !strings.Contains(text, "'system:serviceaccount:"+other+":usage-operator-manager'") {
			t.Errorf("%s: the policy for Jobs does not know the manager's account", folder)
		}
		for _, object := range objects {
			if object.GetKind() == "Namespace" && object.GetName() != other {
				t.Errorf("%s: makes namespace %s", folder, object.GetName())
			}
		}
	}
}

func write(t *testing.T, dir, kustomization string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Every pod is restricted to what it needs: these settings have to be given by ourselves, restricted or not.
func TestPodsAreHardened(t *testing.T) {
	_, objects := render(t, "overlays/dev")
	found := 0
	for _, object := range objects {
		var workload struct {
			metav1.TypeMeta   `json:",inline"`
			metav1.ObjectMeta `json:"metadata"`

			Spec struct {
				Template corev1.PodTemplateSpec `json:"template"`
			} `json:"spec"`
		}
		if object.GetKind() != "Deployment" && object.GetKind() != "StatefulSet" {
			continue
		}
		found++
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &workload); err != nil {
			t.Fatal(err)
		}
		pod := workload.Spec.Template.Spec
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			name := object.GetName() + "/" + c.Name
			if sc := c.SecurityContext; sc == nil || sc.ReadOnlyRootFilesystem == nil || !*sc.ReadOnlyRootFilesystem {
				t.Errorf("%s: the root file system can be written to", name)
			}
			if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() ||
				c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%s: requests of CPU and memory and a limit of memory are needed", name)
			}
		}
		for _, c := range pod.Containers {
			if c.ReadinessProbe == nil {
				t.Errorf("%s/%s: no readiness probe", object.GetName(), c.Name)
			}
		}
	}
	if found != 3 {
		t.Errorf("%d workloads, want manager, usaged and the database", found)
	}
}

// The Job of docs/clusters.md is accepted as it is, and finds the database as the operator's own pods do.
func TestAdoptJobOfTheDocs(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "clusters.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(page), "```yaml\n")
	text, _, found := strings.Cut(block, "```")
	job := &batchv1.Job{}
	if err := sigsyaml.UnmarshalStrict([]byte(text), job); err != nil || !found {
		t.Fatalf("found %t, %v", found, err)
	}
	env := kubetest.Shared(t)
	_, objects := render(t, "default")
	deployment := &appsv1.Deployment{}
	for _, object := range objects {
		switch {
		case object.GetKind() == "Namespace":
			apply(t, env.Client, object)
		case object.GetKind() == "Deployment" && object.GetName() == "usage-operator-manager":
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, deployment); err != nil {
				t.Fatal(err)
			}
		}
	}
	ours, theirs := job.Spec.Template.Spec, deployment.Spec.Template.Spec
	if diff := cmp.Diff(theirs.Volumes, ours.Volumes); diff != "" {
		t.Errorf("its volumes are not the manager's (-want +got):\n%s", diff)
	}
	if len(ours.Containers) != 1 || len(theirs.InitContainers) != 1 {
		t.Fatalf("%d and %d containers", len(ours.Containers), len(theirs.InitContainers))
	}
	got, want := ours.Containers[0], theirs.InitContainers[0]
	if diff := cmp.Diff(want.Env[:1], got.Env); diff != "" {
		t.Errorf("its environment is not that of the migration (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want.VolumeMounts, got.VolumeMounts); diff != "" {
		t.Errorf("its mounts are not those of the migration (-want +got):\n%s", diff)
	}
	warnings := &warnings{}
	config := rest.CopyConfig(env.Config)
	config.WarningHandlerWithContext = warnings
	if err := env.NewClient(t, config).Create(t.Context(), job, client.DryRunAll); err != nil {
		t.Error(err)
	}
	for _, warning := range warnings.take() {
		t.Errorf("the API server warns: %s", warning)
	}
}
