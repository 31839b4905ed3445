// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	webhookserver "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
	"github.com/cantonesescribe/usage-operator/internal/webhook"
)

// warnings collects what the API server warns of.
type warnings struct{ texts []string }

func (w *warnings) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	w.texts = append(w.texts, text)
}

// declarations starts a control plane with the webhooks of plans, quotas and teams, and returns a client whose warnings
// are heard.
func declarations(t *testing.T) (client.Client, *warnings) {
	t.Helper()
	env := kubetest.Start(t, kubetest.WithWebhooks("config/webhook/manifests.yaml"))
	mgr, err := ctrl.NewManager(env.Config, ctrl.Options{
		Scheme: env.Scheme, Metrics: metricsserver.Options{BindAddress: "0"},
		WebhookServer: webhookserver.NewServer(webhookserver.Options{
			Host: env.Webhooks.LocalServingHost, Port: env.Webhooks.LocalServingPort,
			CertDir: env.Webhooks.LocalServingCertDir,
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, setup := range []func(ctrl.Manager) error{webhook.SetupUsagePlan, webhook.SetupUserQuota,
		webhook.SetupUsageTeam} {
		if err := setup(mgr); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	started := func(context.Context) (bool, error) { return mgr.GetWebhookServer().StartedChecker()(nil) == nil, nil }
	if err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, time.Minute, true, started); err != nil {
		t.Fatalf("wait for the webhook server: %v", err)
	}
	heard := &warnings{}
	config := rest.CopyConfig(env.Config)
	config.WarningHandlerWithContext = heard
	return env.NewClient(t, config), heard
}

func TestDeclarations(t *testing.T) {
	c, heard := declarations(t)
	plan := func(edit func(*v1alpha1.UsagePlan)) client.Object {
		p := &v1alpha1.UsagePlan{
			ObjectMeta: metav1.ObjectMeta{Name: "pro"},
			Spec: v1alpha1.UsagePlanSpec{DisplayName: "Pro", AlertThresholds: []int32{80},
				Limits: v1alpha1.UsagePlanLimits{
					Credits: new(int64(500)), FileSize: new(resource.MustParse("1Gi")), Concurrent: new(int32(5)),
				}},
		}
		edit(p)
		return p
	}
	zone := func(name string) client.Object {
		return &v1alpha1.UserQuota{ObjectMeta: metav1.ObjectMeta{Name: "alice"},
			Spec: v1alpha1.UserQuotaSpec{UserID: "alice", TimeZone: name}}
	}
	schedule := func(text string) client.Object {
		return plan(func(p *v1alpha1.UsagePlan) { p.Spec.Reset.Schedule = text })
	}
	for name, tc := range map[string]struct {
		obj  client.Object
		want []string
	}{
		"plan":                   {schedule("0 2 * * *"), nil},
		"plan with a descriptor": {schedule("@daily"), nil},
		"plan with ranges":       {schedule("*/15 0-6 1,15 JAN-JUN MON"), nil},
		"minute out of range": {schedule("60 2 * * *"),
			[]string{"spec.reset.schedule", `"60 2 * * *"`, "above maximum"}},
		"a day that never comes":   {schedule("0 0 30 2 *"), []string{"spec.reset.schedule", "never run"}},
		"quota":                    {zone("Asia/Hong_Kong"), nil},
		"quota without a zone":     {zone(""), nil},
		"a zone that is not there": {zone("Asia/Atlantis"), []string{"spec.timeZone", "Asia/Atlantis", "IANA"}},
		"the machine's own zone":   {zone("Local"), []string{"timeZone", "Local"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.Create(t.Context(), tc.obj, client.DryRunAll)
			if (err == nil) != (tc.want == nil) {
				t.Fatalf("got %v, want an error with %q", err, tc.want)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want an error with %q", err, want)
				}
			}
		})
	}

	t.Run("what has no effect yet is warned of", func(t *testing.T) {
		first := plan(func(p *v1alpha1.UsagePlan) { p.Name, p.Spec.Default = "first", true })
		if err := c.Create(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Delete(context.WithoutCancel(t.Context()), first); err != nil {
				t.Error(err)
			}
		})
		refers := func(planRef, teamRef string) client.Object {
			return &v1alpha1.UserQuota{ObjectMeta: metav1.ObjectMeta{Name: "bob"}, Spec: v1alpha1.UserQuotaSpec{
				UserID: "bob", PlanRef: &v1alpha1.PlanReference{Name: planRef},
				TeamRef: &v1alpha1.TeamReference{Name: teamRef},
			}}
		}
		// The cache may not have seen the plan yet.
		heardOf := func(of func() client.Object, want ...string) {
			t.Helper()
			err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 20*time.Second, true,
				func(ctx context.Context) (bool, error) {
					heard.texts = nil
					if err := c.Create(ctx, of(), client.DryRunAll); err != nil {
						return false, err
					}
					return len(heard.texts) == len(want) && !slices.ContainsFunc(want, func(text string) bool {
						return !strings.Contains(strings.Join(heard.texts, "\n"), text)
					}), nil
				})
			if err != nil {
				t.Errorf("want %q, warnings %q: %v", want, heard.texts, err)
			}
		}
		heardOf(func() client.Object { return refers("first", "desk") },
			"spec.teamRef.name: there is no UsageTeam desk")
		heardOf(func() client.Object { return refers("second", "desk") },
			"spec.planRef.name: there is no UsagePlan second", "UsageTeam desk")
		heardOf(func() client.Object { return plan(func(p *v1alpha1.UsagePlan) { p.Spec.Default = true }) },
			"spec.default: plan first is the default already")
		heardOf(func() client.Object { return plan(func(*v1alpha1.UsagePlan) {}) })
	})

	t.Run("deleting a plan warns if it is in use", func(t *testing.T) {
		p := plan(func(p *v1alpha1.UsagePlan) { p.Spec.Default = true }).(*v1alpha1.UsagePlan)
		if err := c.Create(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		heard.texts = nil
		if err := c.Delete(t.Context(), p, client.DryRunAll); err != nil || len(heard.texts) > 0 {
			t.Errorf("unused: %v, warnings %q", err, heard.texts)
		}
		before := p.DeepCopy()
		p.Status.Users = 3
		meta.SetStatusCondition(&p.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionInUse, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonInUse,
		})
		if err := c.Status().Patch(t.Context(), p, client.MergeFrom(before)); err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if len(heard.texts) != 1 || !strings.Contains(heard.texts[0], "3 users are on plan pro") ||
			!strings.Contains(heard.texts[0], "default") {
			t.Errorf("warnings %q", heard.texts)
		}
	})
}
