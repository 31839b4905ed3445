// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
)

// Everything about samples and columns is in one test, because both need to know all objects of the API server.
func TestSamplesAndColumns(t *testing.T) {
	env := kubetest.Start(t)
	if _, err := env.Kubectl(t.Context(), "apply", "--kustomize", "../../config/samples"); err != nil {
		t.Fatal(err)
	}

	t.Run("the plans have the published numbers", func(t *testing.T) {
		var list v1alpha1.UsagePlanList
		if err := env.Client.List(t.Context(), &list); err != nil {
			t.Fatal(err)
		}
		type row struct {
			Default     bool
			Rank        int32
			Credits     int64
			FileSize    int64
			Concurrent  int32
			CostPerMin  v1alpha1.Decimal
			DailyCost   v1alpha1.Decimal
			Requests    int32
			Window      int32
			Schedule    string
			PeriodStart v1alpha1.PeriodAnchor
		}
		got := map[string]row{}
		for _, p := range list.Items {
			got[p.Name] = row{
				p.Spec.Default, p.Spec.Rank, ptr.Deref(p.Spec.Limits.Credits, -1), p.Spec.Limits.FileSize.Value(),
				ptr.Deref(p.Spec.Limits.Concurrent, -1), p.Spec.Pricing.ProviderCostPerMinute, p.Spec.DailyCostCeiling,
				p.Spec.RateLimit.Requests, p.Spec.RateLimit.WindowSeconds, p.Spec.Reset.Schedule, p.Spec.Period.Anchor,
			}
		}
		const mi = 1 << 20
		want := map[string]row{
			"free":       {true, 0, 30, 25 * mi, 1, "0.006", "50", 100, 3600, "0 2 * * *", "AccountCreation"},
			"starter":    {false, 10, 150, 100 * mi, 2, "0.006", "50", 100, 3600, "0 2 * * *", "AccountCreation"},
			"pro":        {false, 20, 500, 500 * mi, 5, "0.006", "50", 100, 3600, "0 2 * * *", "AccountCreation"},
			"enterprise": {false, 30, 2000, 1024 * mi, 10, "0.006", "50", 100, 3600, "0 2 * * *", "AccountCreation"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("plans (-want +got):\n%s", diff)
		}
	})

	giveStatus(t, env)
	for name, tc := range map[string]struct {
		args []string
		want []string
	}{
		"plans": {
			[]string{"usageplans"},
			[]string{
				"NAME|DEFAULT|RANK|CREDITS|FILE SIZE|CONCURRENT|USERS|NEXT RESET|READY|AGE",
				"free|true|0|30|25Mi|1|7|2030-01-02T02:00:00Z|True|AGE",
				"pro|false|20|500|500Mi|5|AGE",
			},
		},
		"plans wide": {
			[]string{"up", "-o", "wide"},
			[]string{
				"NAME|DISPLAY NAME|DEFAULT|RANK|CREDITS|FILE SIZE|CONCURRENT|UNLIMITED|USERS|NEXT RESET|LAST " +
					"RESET|READY|MESSAGE|AGE",
				"free|Free|true|0|30|25Mi|1|7|2030-01-02T02:00:00Z|Succeeded|True|as declared|AGE",
			},
		},
		"quotas": {
			[]string{"userquotas"},
			[]string{
				"NAME|USER|PLAN|USED|LIMIT|REMAINING|RUNNING|QUEUED|RESETS AT|READY|AGE",
				"alice|alice|starter|12.5|210|195|1/3|0|2030-01-31T08:00:00Z|True|AGE",
			},
		},
		"quotas wide": {
			[]string{"uq", "-o", "wide"},
			[]string{
				"NAME|USER|PLAN|TEAM|PAYER|USED|LIMIT|REMAINING|RESERVED|RUNNING|QUEUED|RESETS AT|" +
					"EFFECTIVE LIMITS|LAST USED|SUSPENDED|ZONE|READY|MESSAGE|AGE",
				"alice|alice|starter|12.5|210|195|2.5|1/3|0|2030-01-31T08:00:00Z|7.25|false|Asia/Hong_Kong|True|" +
					"as declared|AGE",
			},
		},
		"one user": {
			[]string{"userquotas", "--field-selector", "spec.userID=alice", "--no-headers"},
			[]string{"alice|alice|starter|12.5|210|195|1/3|0|2030-01-31T08:00:00Z|True|AGE"},
		},
		"teams": {
			[]string{"usageteams"},
			[]string{
				"NAME|PARENT|PLAN|MEMBERS|USED|LIMIT|REMAINING|RUNNING|QUEUED|RESETS AT|READY|AGE",
				"newsroom|platform|pro|12|80.5|100|9.5|5/5|3|2030-01-31T08:00:00Z|True|AGE",
			},
		},
		"teams wide": {
			[]string{"ut", "-o", "wide"},
			[]string{
				"NAME|DISPLAY NAME|PARENT|PLAN|MEMBERS|USED|LIMIT|REMAINING|RESERVED|RUNNING|QUEUED|RESETS AT|" +
					"EFFECTIVE LIMITS|WEIGHT|ROOT|SUSPENDED|ZONE|READY|MESSAGE|AGE",
				"newsroom|Newsroom|platform|pro|12|80.5|100|9.5|10|5/5|3|2030-01-31T08:00:00Z|" +
					"100 credits, 50 USD a day|2|false|false|UTC|True|as declared|AGE",
			},
		},
		"all kinds by category": {
			[]string{"usage", "-o", "name"},
			[]string{"usageplan.usage.cantonesescribe.io/free", "userquota.usage.cantonesescribe.io/alice",
				"usageteam.usage.cantonesescribe.io/newsroom"},
		},
	} {
		t.Run("kubectl get "+name, func(t *testing.T) {
			got, err := kubectlGet(t.Context(), env, tc.args...)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tc.want {
				if !strings.Contains("\n"+got, "\n"+want+"\n") {
					t.Errorf("no line %q in\n%s", want, got)
				}
			}
		})
	}

	t.Run("kubectl wait", func(t *testing.T) {
		if _, err := env.Kubectl(t.Context(), "wait", "--for=condition=Ready", "--timeout=10s", "usageplan/free",
			"userquota/alice"); err != nil {
			t.Error(err)
		}
	})
}

var (
	gaps = regexp.MustCompile(`  +`)
	age  = regexp.MustCompile(`(?m)[|][0-9]+[ms0-9]*$`)
)

// kubectlGet runs kubectl get. Columns are separated by |, empty ones left out, and ages are AGE.
func kubectlGet(ctx context.Context, env *kubetest.Env, args ...string) (string, error) {
	out, err := env.Kubectl(ctx, append([]string{"get"}, args...)...)
	return age.ReplaceAllString(gaps.ReplaceAllString(out, "|"), "|AGE"), err
}

// giveStatus writes the status of plan free, quota alice and a team as the operator does.
func giveStatus(t *testing.T, env *kubetest.Env) {
	t.Helper()
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonReady,
		Message: "as declared"}
	at := func(month time.Month, day, hour int) *metav1.Time {
		return new(metav1.Date(2030, month, day, hour, 0, 0, 0, time.UTC))
	}

	var plan v1alpha1.UsagePlan
	update(t, env, "free", &plan, func() {
		meta.SetStatusCondition(&plan.Status.Conditions, ready)
		plan.Status.Users, plan.Status.NextResetTime = 7, at(time.January, 2, 2)
		plan.Status.LastReset = &v1alpha1.UsagePlanResetRun{State: "Succeeded", StartTime: *at(time.January, 1, 2)}
	})
	var quota v1alpha1.UserQuota
	update(t, env, "alice", &quota, func() {
		meta.SetStatusCondition(&quota.Status.Conditions, ready)
		quota.Status.Plan, quota.Status.ResetsAt = "starter", at(time.January, 31, 8)
		quota.Status.LastPeriod = &v1alpha1.UserQuotaPeriod{Used: "7.25"}
		quota.Status.Usage = &v1alpha1.UserQuotaUsage{
			Used: "12.5", Limit: "210", Remaining: "195", Reserved: "2.5",
			Running: 1, ConcurrentLimit: ptr.To[int32](3), Slots: fmt.Sprintf("%d/%d", 1, 3),
		}
	})
	team := v1alpha1.UsageTeam{
		ObjectMeta: metav1.ObjectMeta{Name: "newsroom"},
		Spec: v1alpha1.UsageTeamSpec{
			DisplayName: "Newsroom", Weight: 2, PlanRef: &v1alpha1.PlanReference{Name: "pro"},
		},
	}
	if err := env.Client.Create(t.Context(), &team); err != nil {
		t.Fatal(err)
	}
	update(t, env, "newsroom", &team, func() {
		meta.SetStatusCondition(&team.Status.Conditions, ready)
		team.Status.Parent, team.Status.Plan, team.Status.Members = "platform", "pro", 12
		team.Status.Effective = "100 credits, 50 USD a day"
		team.Status.ResetsAt = at(time.January, 31, 8)
		team.Status.EffectiveLimits = []v1alpha1.UsageTeamEffectiveLimit{
			{Limit: v1alpha1.TeamLimitCredits, Value: "100", Team: "newsroom"},
			{Limit: v1alpha1.TeamLimitDailyCost, Value: "50 USD", Team: "platform"},
		}
		team.Status.Usage = &v1alpha1.UsageTeamUsage{
			Used: "80.5", Limit: "100", Remaining: "9.5", Reserved: "10",
			Running: 5, ConcurrentLimit: new(int32(5)), Slots: "5/5", Queued: 3,
		}
	})
}

func update(t *testing.T, env *kubetest.Env, name string, into client.Object, change func()) {
	t.Helper()
	if err := env.Client.Get(t.Context(), client.ObjectKey{Name: name}, into); err != nil {
		t.Fatal(err)
	}
	change()
	if err := env.Client.Status().Update(t.Context(), into); err != nil {
		t.Fatalf("status of %s: %v", name, err)
	}
}
