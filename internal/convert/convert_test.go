// SPDX-License-Identifier: Apache-2.0

package convert_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

const uid = types.UID("00010203-0405-0607-0809-0a0b0c0d0e0f")

var id = quota.ID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// plan is one as the API server returns it: with all defaults.
func plan(changes ...func(*v1alpha1.UsagePlanSpec)) *v1alpha1.UsagePlan {
	p := &v1alpha1.UsagePlan{
		ObjectMeta: metav1.ObjectMeta{Name: "pro", UID: uid},
		Spec: v1alpha1.UsagePlanSpec{
			DisplayName: "Pro",
			Rank:        20,
			Limits: v1alpha1.UsagePlanLimits{
				Credits: new(int64(500)), FileSize: new(resource.MustParse("500Mi")),
				AudioDuration: &metav1.Duration{Duration: 24 * time.Hour},
				Concurrent:    new(int32(5)), Queued: new(int32(100)),
			},
			Period: v1alpha1.UsagePlanPeriod{Type: v1alpha1.PeriodMonth,
				Anchor: v1alpha1.AnchorAccountCreation},
			Reset:    v1alpha1.UsagePlanReset{Schedule: "0 2 * * *", BatchSize: 500},
			Features: []string{"export"},
			Pricing: v1alpha1.UsagePlanPricing{Currency: "USD", PerPeriod: "29.99",
				ProviderCostPerMinute: "0.006"},
			Overage:             v1alpha1.UsagePlanOverage{Policy: v1alpha1.OverageBlock},
			RateLimit:           v1alpha1.UsagePlanRateLimit{Requests: 100, WindowSeconds: 3600},
			AlertThresholds:     []int32{100, 80},
			DailyCostCeiling:    "50",
			DatabaseUnavailable: v1alpha1.DatabaseUnavailableDeny,
		},
	}
	for _, change := range changes {
		change(&p.Spec)
	}
	return p
}

func converted(changes ...func(*metering.Plan)) metering.Plan {
	p := metering.Plan{
		Plan: quota.Plan{
			Name: "pro", DisplayName: "Pro", Rank: 20, Features: []string{"export"}, FinalAfter: 72 * time.Hour,
			Limits: quota.Limits{
				Credits: quota.AtMost(500 * quota.Credit), FileSize: quota.AtMost(int64(500 << 20)),
				Audio:      quota.AtMost(24 * time.Hour),
				Concurrent: quota.AtMost(int32(5)), Queued: quota.AtMost(int32(100)),
			},
			ProviderCost: 6_000, Currency: "USD", PeriodPrice: 29_990_000,
			DailyCostCeiling: quota.AtMost(quota.Money(50_000_000)),
			RateRequests:     100, RateWindow: time.Hour, AlertThresholds: []int32{80, 100},
		},
		ObjectUID: id, ResetSchedule: "0 2 * * *", ResetBatchSize: 500,
	}
	for _, change := range changes {
		change(&p)
	}
	return p
}

// TestPlanIsConvertedWhole keeps a field from being forgotten on the way: of an object in which everything is said,
// everything arrives but what the database alone knows.
func TestPlanIsConvertedWhole(t *testing.T) {
	p, err := convert.Plan(plan(func(s *v1alpha1.UsagePlanSpec) {
		s.Default, s.CarryOver.MaxCredits, s.DatabaseUnavailable = true, 10, v1alpha1.DatabaseUnavailableAdmit
		s.Period.Anchor = v1alpha1.AnchorCalendar
		s.Overage = v1alpha1.UsagePlanOverage{
			Policy: v1alpha1.OverageAllow, MaxCredits: new(int64(5)), PricePerCredit: new(v1alpha1.Decimal("0.02")),
		}
		s.UsageTypes = []v1alpha1.UsagePlanUsageType{{Name: "export", CreditsPerUnit: "0.25"}}
		s.MaxWait, s.Weight = &metav1.Duration{Duration: time.Hour}, 10
	}))
	if err != nil {
		t.Fatal(err)
	}
	if zero, want := plans.Zero(p), []string{"Version", "Past", "Retired", "Cluster"}; !slices.Equal(zero, want) {
		t.Errorf("nothing arrived in %v, want that of %v only", zero, want)
	}
}

func TestPlan(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*v1alpha1.UsagePlanSpec)
		want   func(*metering.Plan)
	}{
		"as it is": {func(*v1alpha1.UsagePlanSpec) {}, func(*metering.Plan) {}},
		"unlimited wins over defaults": {
			func(s *v1alpha1.UsagePlanSpec) {
				s.Limits.Credits, s.Limits.FileSize, s.Limits.Concurrent = nil, nil, nil
				s.Limits.Unlimited = []v1alpha1.LimitName{"Credits", "FileSize", "AudioDuration",
					"Concurrent", "Queued"}
			},
			func(p *metering.Plan) {
				p.Limits = quota.Limits{
					Credits: quota.Limit[quota.Credits]{Unlimited: true}, FileSize: quota.Limit[int64]{Unlimited: true},
					Audio: quota.Limit[time.Duration]{Unlimited: true}, Concurrent: quota.Limit[int32]{Unlimited: true},
					Queued: quota.Limit[int32]{Unlimited: true},
				}
			},
		},
		"nothing queued": {
			func(s *v1alpha1.UsagePlanSpec) { s.Limits.Queued = new(int32(0)) },
			func(p *metering.Plan) { p.Limits.Queued = quota.AtMost(int32(0)) },
		},
		"overage": {
			func(s *v1alpha1.UsagePlanSpec) {
				s.Overage = v1alpha1.UsagePlanOverage{Policy: v1alpha1.OverageAllow, MaxCredits: new(int64(100)),
					PricePerCredit: new(v1alpha1.Decimal("0.05"))}
			},
			func(p *metering.Plan) { p.OverageMax, p.OveragePrice = 100*quota.Credit, 50_000 },
		},
		"usage types": {
			func(s *v1alpha1.UsagePlanSpec) {
				s.UsageTypes = []v1alpha1.UsagePlanUsageType{{Name: "export", CreditsPerUnit: "0.25"},
					{Name: "summary", CreditsPerUnit: "0"}}
			},
			func(p *metering.Plan) { p.UsageTypes = map[string]quota.Rate{"export": 250_000, "summary": 0} },
		},
		"the rest": {
			func(s *v1alpha1.UsagePlanSpec) {
				s.Default, s.Period.Anchor, s.CarryOver.MaxCredits = true, v1alpha1.AnchorCalendar, 7
				s.DatabaseUnavailable, s.DailyCostCeiling, s.Reset.Schedule = v1alpha1.DatabaseUnavailableAdmit,
					"0", "@daily"
				s.AlertThresholds = []int32{}
				s.Period.FinalAfter = &metav1.Duration{Duration: 30 * time.Hour}
				s.MaxWait, s.Weight = &metav1.Duration{Duration: 90 * time.Minute}, 3
			},
			func(p *metering.Plan) {
				p.Default, p.CalendarMonth, p.CarryOverMax, p.AdmitWhenUnavailable = true, true, 7*quota.Credit, true
				p.FinalAfter, p.MaxWait, p.Weight = 30*time.Hour, 90*time.Minute, 3
				p.DailyCostCeiling, p.ResetSchedule, p.AlertThresholds = quota.AtMost(quota.Money(0)), "@daily", nil
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := convert.Plan(plan(tc.change))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(converted(tc.want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlanRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*v1alpha1.UsagePlanSpec)
		want   []string
	}{
		"minute of a schedule": {func(s *v1alpha1.UsagePlanSpec) { s.Reset.Schedule = "61 2 * * *" },
			[]string{"reset.schedule", "61 2 * * *"}},
		"a day that never is": {func(s *v1alpha1.UsagePlanSpec) { s.Reset.Schedule = "0 0 31 2 *" },
			[]string{"reset.schedule", "never"}},
		"zone in a schedule": {func(s *v1alpha1.UsagePlanSpec) { s.Reset.Schedule = "TZ=UTC 0 2 * * *" },
			[]string{"reset.schedule", "UTC"}},
		"money": {func(s *v1alpha1.UsagePlanSpec) { s.DailyCostCeiling = "-1" },
			[]string{"dailyCostCeiling", `"-1"`}},
		"missing limits": {func(s *v1alpha1.UsagePlanSpec) { s.Limits.Credits, s.Limits.Concurrent = nil, nil },
			[]string{"limits.credits is missing", "limits.concurrent is missing"}},
		"overage": {func(s *v1alpha1.UsagePlanSpec) { s.Overage.Policy = v1alpha1.OverageAllow },
			[]string{"overage.maxCredits"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := convert.Plan(plan(tc.change))
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want an error with %q", err, want)
				}
			}
		})
	}
}

func TestQuota(t *testing.T) {
	at := metav1.Date(2025, 1, 31, 8, 0, 0, 0, time.FixedZone("", 8*3600))
	got, err := convert.Quota(&v1alpha1.UserQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "alice", UID: uid},
		Spec: v1alpha1.UserQuotaSpec{
			UserID: "alice-1", PlanRef: &v1alpha1.PlanReference{Name: "starter"}, AccountCreatedAt: &at,
			TeamRef: &v1alpha1.TeamReference{Name: "newsroom"}, TimeZone: "Asia/Hong_Kong", Suspended: true,
			Overrides: &v1alpha1.QuotaOverrides{Concurrent: new(int32(3)),
				Unlimited: []v1alpha1.LimitName{v1alpha1.LimitCredits}},
			Grants: map[string]v1alpha1.Grant{"welcome": {Credits: 60, ExpiresAt: &at}, "sorry": {Credits: 1}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := metering.Quota{
		ObjectUID: id, ObjectName: "alice", UserID: "alice-1", PlanName: "starter",
		TeamName: "newsroom",
		Anchor:   time.Date(2025, 1, 31, 0, 0, 0, 0, time.UTC),
		Zone:     "Asia/Hong_Kong", Suspended: true,
		Overrides: quota.Overrides{Credits: &quota.Limit[quota.Credits]{Unlimited: true},
			Concurrent: new(quota.AtMost(int32(3)))},
		Grants: map[string]metering.Grant{
			"welcome": {Credits: 60 * quota.Credit, ExpiresAt: at.UTC()}, "sorry": {Credits: quota.Credit},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	empty, err := convert.Quota(&v1alpha1.UserQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "bob", UID: uid},
		Spec:       v1alpha1.UserQuotaSpec{UserID: "bob", TimeZone: "UTC"},
	})
	if diff := cmp.Diff(metering.Quota{ObjectUID: id, ObjectName: "bob", UserID: "bob", Zone: "UTC"},
		empty); err != nil || diff != "" {
		t.Errorf("without options: %v (-want +got):\n%s", err, diff)
	}
}

func TestZone(t *testing.T) {
	for _, name := range []string{"UTC", "Asia/Hong_Kong", "Pacific/Apia"} {
		if zone, err := convert.Zone(name); err != nil || zone.String() != name {
			t.Errorf("%s: got %v, %v", name, zone, err)
		}
	}
	for _, name := range []string{"Local", "", "Asia/Hongkong_", "../etc/passwd"} {
		if _, err := convert.Zone(name); err == nil || !strings.Contains(err.Error(), "IANA") {
			t.Errorf("%q: got %v, want an error that says what would do", name, err)
		}
	}
}
