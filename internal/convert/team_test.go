// SPDX-License-Identifier: Apache-2.0

package convert_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// team is one as the API server returns it, in which everything is said that can be said together.
func team(changes ...func(*v1alpha1.UsageTeamSpec)) *v1alpha1.UsageTeam {
	at := metav1.Date(2025, 1, 31, 8, 0, 0, 0, time.FixedZone("", 8*3600))
	t := &v1alpha1.UsageTeam{
		ObjectMeta: metav1.ObjectMeta{Name: "newsroom", UID: uid},
		Spec: v1alpha1.UsageTeamSpec{
			DisplayName: "Newsroom", ParentRef: &v1alpha1.TeamReference{Name: "company"},
			PlanRef: &v1alpha1.PlanReference{Name: "pro"},
			Limits: &v1alpha1.TeamLimits{
				Credits: new(int64(100)), Concurrent: new(int32(5)), Queued: new(int32(0)),
				DailyCost: &v1alpha1.TeamDailyCost{Amount: "9.5", Currency: "HKD"},
			},
			MemberDefaults: &v1alpha1.TeamLimits{
				Credits: new(int64(60)), Concurrent: new(int32(2)), Queued: new(int32(3)),
				DailyCost: &v1alpha1.TeamDailyCost{Amount: "1", Currency: "USD"},
			},
			AccountCreatedAt: &at, TimeZone: "Asia/Hong_Kong", Weight: 3, Suspended: true,
			Grants: map[string]v1alpha1.Grant{"welcome": {Credits: 60, ExpiresAt: &at}, "sorry": {Credits: 1}},
		},
	}
	for _, change := range changes {
		change(&t.Spec)
	}
	return t
}

func convertedTeam(changes ...func(*metering.Team)) metering.Team {
	at := time.Date(2025, 1, 31, 0, 0, 0, 0, time.UTC)
	t := metering.Team{
		Team: quota.Team{
			Name: "newsroom", Weight: 3,
			Caps: quota.Caps{
				Credits: new(quota.AtMost(100 * quota.Credit)), Concurrent: new(quota.AtMost(int32(5))),
				Queued:    new(quota.AtMost(int32(0))),
				DailyCost: &quota.Ceiling{Limit: quota.AtMost(quota.Money(9_500_000)), Currency: "HKD"},
			},
			MemberDefaults: quota.Caps{
				Credits: new(quota.AtMost(60 * quota.Credit)), Concurrent: new(quota.AtMost(int32(2))),
				Queued:    new(quota.AtMost(int32(3))),
				DailyCost: &quota.Ceiling{Limit: quota.AtMost(quota.Money(1_000_000)), Currency: "USD"},
			},
		},
		ObjectUID: id, DisplayName: "Newsroom", Parent: "company", PlanName: "pro", Anchor: at,
		Zone: "Asia/Hong_Kong", Suspended: true,
		Grants: map[string]metering.Grant{
			"welcome": {Credits: 60 * quota.Credit, ExpiresAt: at}, "sorry": {Credits: quota.Credit},
		},
	}
	for _, change := range changes {
		change(&t)
	}
	return t
}

// TestTeamIsConvertedWhole keeps a field from being forgotten on the way: everything that is said arrives, but for the
// cluster, which whoever converts knows.
func TestTeamIsConvertedWhole(t *testing.T) {
	all := team(func(s *v1alpha1.UsageTeamSpec) { s.Root = true })
	for field, value := range reflect.ValueOf(all.Spec).Fields() {
		if value.IsZero() {
			t.Errorf("the test says nothing in spec.%s", field.Name)
		}
	}
	got, err := convert.Team(all)
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range []any{got, got.Team, got.Caps, got.MemberDefaults} {
		for field, value := range reflect.ValueOf(of).Fields() {
			if value.IsZero() && field.Name != "Cluster" {
				t.Errorf("nothing arrived in %s of %T", field.Name, of)
			}
		}
	}
}

func TestTeam(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*v1alpha1.UsageTeamSpec)
		want   func(*metering.Team)
	}{
		"as it is": {func(*v1alpha1.UsageTeamSpec) {}, func(*metering.Team) {}},
		"as little as may be": {
			func(s *v1alpha1.UsageTeamSpec) {
				*s = v1alpha1.UsageTeamSpec{DisplayName: "Platform", TimeZone: "UTC", Weight: 1, Root: true}
			},
			func(m *metering.Team) {
				*m = metering.Team{Team: quota.Team{Name: "newsroom", Weight: 1}, ObjectUID: id,
					DisplayName: "Platform", Zone: "UTC", Root: true}
			},
		},
		"unlimited": {
			func(s *v1alpha1.UsageTeamSpec) {
				s.MemberDefaults = &v1alpha1.TeamLimits{
					Unlimited: []v1alpha1.TeamLimitName{"Credits", "Concurrent", "Queued", "DailyCost"},
				}
			},
			func(m *metering.Team) {
				m.MemberDefaults = quota.Caps{
					Credits:    &quota.Limit[quota.Credits]{Unlimited: true},
					Concurrent: &quota.Limit[int32]{Unlimited: true}, Queued: &quota.Limit[int32]{Unlimited: true},
					DailyCost: &quota.Ceiling{Limit: quota.Limit[quota.Money]{Unlimited: true}},
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := convert.Team(team(tc.change))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(convertedTeam(tc.want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTeamRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*v1alpha1.UsageTeamSpec)
		want   []string
	}{
		"zone": {func(s *v1alpha1.UsageTeamSpec) { s.TimeZone = "Mars/Base" }, []string{"timeZone", "Mars/Base"}},
		"money": {func(s *v1alpha1.UsageTeamSpec) { s.Limits.DailyCost.Amount = "-1" },
			[]string{"limits.dailyCost.amount", `"-1"`}},
		"currency": {func(s *v1alpha1.UsageTeamSpec) { s.MemberDefaults.DailyCost.Currency = "usd" },
			[]string{"memberDefaults.dailyCost.currency", `"usd"`, "USD"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := convert.Team(team(tc.change))
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want an error with %q", err, want)
				}
			}
		})
	}
}
