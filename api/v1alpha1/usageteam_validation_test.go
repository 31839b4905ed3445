// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
)

const team = `
apiVersion: usage.cantonesescribe.io/v1alpha1
kind: UsageTeam
metadata: {generateName: team-}
spec: {displayName: Newsroom, limits: {concurrent: 5}}`

func TestUsageTeamValidation(t *testing.T) {
	t.Parallel()
	const (
		teamName  = "must be the name of a UsageTeam, 1 to 63 lower case letters"
		zone      = "must be the name of an IANA time zone, for example Asia/Hong_Kong or UTC"
		grantName = "the name of a grant must be 1 to 63 letters, digits, '-', '_' and '.'"
		decimal   = "must be a decimal number in quotes, not negative"
		remove    = "remove one of them"
		above     = "a member cannot take more than the team"
	)
	grants := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "grant-%d: {credits: 1}, ", i)
		}
		return "spec: {planRef: {name: pro}, grants: {" + b.String() + "}}"
	}
	cases := map[string]validationCase{
		"as it is":   {},
		"no spec":    {"spec: null", []string{"spec: Required"}},
		"name of 63": {patch: "metadata: {generateName: null, name: " + long(63) + "}"},
		"name too long": {"metadata: {generateName: null, name: " + long(64) + "}",
			[]string{"metadata.name must have at most 63 characters"}},
		"no display name":    {"spec: {displayName: null}", []string{"spec.displayName: Required"}},
		"empty display name": {`spec: {displayName: ""}`, []string{"spec.displayName", "at least 1"}},
		"display name of 63": {patch: "spec: {displayName: " + long(63) + "}"},
		"long display name":  {"spec: {displayName: " + long(64) + "}", []string{"spec.displayName: Too long", "63"}},

		"nothing at all": {"spec: {limits: null}",
			[]string{"spec", "planRef, limits and memberDefaults are missing, and root is not true", "1 to 10000"}},
		"nothing but a weight": {"spec: {limits: null, weight: 2, suspended: true, root: false}",
			[]string{"planRef, limits and memberDefaults are missing"}},
		"a plan alone":        {patch: "spec: {limits: null, planRef: {name: pro}}"},
		"defaults alone":      {patch: "spec: {limits: null, memberDefaults: {credits: 60}}"},
		"root alone":          {patch: "spec: {limits: null, root: true}"},
		"no limit in limits":  {"spec: {limits: {concurrent: null}}", []string{"spec.limits", "at least 1 properties"}},
		"no default in those": {"spec: {memberDefaults: {}}", []string{"spec.memberDefaults", "at least 1 properties"}},

		"parent": {patch: "spec: {parentRef: {name: company.hk}}"},
		"own parent": {"{metadata: {generateName: null, name: newsroom}, spec: {parentRef: {name: newsroom}}}",
			[]string{"spec.parentRef", "parentRef.name is newsroom, the team itself: name another team"}},
		"parent without name": {"spec: {parentRef: {}}", []string{"spec.parentRef.name: Required"}},
		"parent empty":        {"spec: {parentRef: {name: ''}}", []string{"spec.parentRef.name", teamName}},
		"parent upper case":   {"spec: {parentRef: {name: News}}", []string{"spec.parentRef.name", "'News'", teamName}},
		"parent too long": {"spec: {parentRef: {name: " + long(64) + "}}",
			[]string{"spec.parentRef.name: Too long", "63"}},
		"root": {patch: "spec: {root: true}"},
		"root with parent": {"spec: {root: true, parentRef: {name: company}}",
			[]string{"spec.parentRef: Forbidden", "parentRef.name is company and root is true", remove}},

		"plan":          {patch: "spec: {planRef: {name: pro.2025}}"},
		"plan too long": {"spec: {planRef: {name: " + long(64) + "}}", []string{"spec.planRef.name: Too long", "63"}},
		"plan no name":  {"spec: {planRef: {}}", []string{"spec.planRef.name: Required"}},
		"plan upper case": {"spec: {planRef: {name: Pro}}",
			[]string{"spec.planRef.name", "Pro", "must be the name of a UsagePlan"}},

		"weight of 1":       {patch: "spec: {weight: 1}"},
		"weight of 1000000": {patch: "spec: {weight: 1000000}"},
		"weight of 0":       {"spec: {weight: 0}", []string{"spec.weight", "0", "greater than or equal to 1"}},
		"weight negative":   {"spec: {weight: -1}", []string{"spec.weight", "-1", "greater than or equal to 1"}},
		"weight beyond": {"spec: {weight: 1000001}",
			[]string{"spec.weight", "1000001", "less than or equal to 1000000"}},

		"created":     {patch: "spec: {accountCreatedAt: '2025-01-31T08:00:00+08:00'}"},
		"created day": {"spec: {accountCreatedAt: '2025-01-31'}", []string{"spec.accountCreatedAt", "date-time"}},
		"created 1969": {"spec: {accountCreatedAt: '1969-12-31T23:59:59Z'}",
			[]string{"spec.accountCreatedAt", "must be a time from 1970 to 2199"}},
		"created 2200": {"spec: {accountCreatedAt: '2200-01-01T00:00:00Z'}",
			[]string{"spec.accountCreatedAt", "must be a time from 1970 to 2199"}},
		"zone":        {patch: "spec: {timeZone: America/Argentina/Buenos_Aires}"},
		"zone offset": {"spec: {timeZone: '+08:00'}", []string{"spec.timeZone", "timeZone is '+08:00': " + zone}},
		"zone local":  {"spec: {timeZone: Local}", []string{"spec.timeZone", zone}},
		"zone long":   {"spec: {timeZone: " + long(65) + "}", []string{"spec.timeZone: Too long", "64"}},

		"grant": {patch: "spec: {planRef: {name: pro}, " +
			"grants: {Welcome-2025.a_b: {credits: 10000000, expiresAt: '2099-01-01T00:00:00Z'}}}"},
		"no grants and no plan": {patch: "spec: {grants: {}}"},
		"grants without a plan": {"spec: {grants: {a: {credits: 1}, b: {credits: 2}}}",
			[]string{"spec.grants: Forbidden", "grants are given and planRef is missing", "give planRef"}},
		"grant name empty": {"spec: {planRef: {name: pro}, grants: {'': {credits: 1}}}",
			[]string{"spec.grants", grantName}},
		"grant name too long": {"spec: {planRef: {name: pro}, grants: {" + long(64) + ": {credits: 1}}}",
			[]string{"spec.grants", grantName}},
		"grant of 0": {"spec: {planRef: {name: pro}, grants: {a: {credits: 0}}}",
			[]string{"spec.grants.a.credits", "greater than or equal to 1"}},
		"64 grants": {patch: grants(64)},
		"65 grants": {grants(65), []string{"spec.grants: Too many", "64"}},

		"defaults as the limits": {patch: "spec: {limits: {credits: 100, concurrent: 5, queued: 7, dailyCost: " +
			"{amount: '1.50'}}, memberDefaults: {credits: 100, concurrent: 5, queued: 7, dailyCost: {amount: '1.5'}}}"},
		"default credits above": {"spec: {limits: {credits: 100}, memberDefaults: {credits: 101}}",
			[]string{"spec.memberDefaults.credits", "memberDefaults.credits is above limits.credits", above}},
		"default slots above": {"spec: {memberDefaults: {concurrent: 6}}",
			[]string{"spec.memberDefaults.concurrent", "memberDefaults.concurrent is above limits.concurrent", above}},
		"default queued above": {"spec: {limits: {queued: 0}, memberDefaults: {queued: 1}}",
			[]string{"spec.memberDefaults.queued", "memberDefaults.queued is above limits.queued", above}},
		"default cost above": {
			"spec: {limits: {dailyCost: {amount: '9.5'}}, memberDefaults: {dailyCost: {amount: '10'}}}",
			[]string{"spec.memberDefaults.dailyCost", "memberDefaults.dailyCost.amount is 10 and " +
				"limits.dailyCost.amount 9.5", above},
		},
		"default cost in another currency": {patch: "spec: {limits: {dailyCost: {amount: '9'}}, " +
			"memberDefaults: {dailyCost: {amount: '700', currency: JPY}}}"},
		"default without limit": {patch: "spec: {memberDefaults: {credits: 10000000, unlimited: [Queued]}}"},
	}
	// Both lists of limits have the same rules.
	for _, of := range []string{"limits", "memberDefaults"} {
		add := func(name, patch string, want ...string) {
			for i := range want {
				want[i] = strings.ReplaceAll(want[i], "spec.limits", "spec."+of)
			}
			cases[of+" "+name] = validationCase{"spec: {limits: {concurrent: null, " + patch + "}}", want}
			if of != "limits" {
				cases[of+" "+name] = validationCase{"spec: {limits: null, " + of + ": {" + patch + "}}", want}
			}
		}
		add("of all kinds", "credits: 0, concurrent: 1, queued: 0, dailyCost: {amount: '0', currency: HKD}")
		add("the largest", "credits: 10000000, concurrent: 10000, queued: 10000, "+
			"dailyCost: {amount: '999999999.999999'}")
		add("unlimited", "unlimited: [Credits, Concurrent, Queued, DailyCost]")
		add("credits negative", "credits: -1", "spec.limits.credits", "-1", "greater than or equal to 0")
		add("credits beyond", "credits: 10000001", "spec.limits.credits", "less than or equal to 10000000")
		add("slots 0", "concurrent: 0", "spec.limits.concurrent", "greater than or equal to 1")
		add("slots beyond", "concurrent: 10001", "spec.limits.concurrent", "less than or equal to 10000")
		add("queued negative", "queued: -1", "spec.limits.queued", "greater than or equal to 0")
		add("queued beyond", "queued: 10001", "spec.limits.queued", "less than or equal to 10000")
		add("cost without amount", "dailyCost: {}", "spec.limits.dailyCost.amount: Required")
		add("cost negative", "dailyCost: {amount: '-1'}", "spec.limits.dailyCost.amount", decimal)
		add("cost in words", "dailyCost: {amount: much}", "spec.limits.dailyCost.amount", decimal)
		add("cost too long", "dailyCost: {amount: '"+strings.Repeat("1", 17)+"'}",
			"spec.limits.dailyCost.amount: Too long", "16")
		add("currency", "dailyCost: {amount: '1', currency: usd}", "spec.limits.dailyCost.currency",
			"dailyCost.currency is 'usd': must be an ISO 4217 code")
		add("currency too long", "dailyCost: {amount: '1', currency: USDT}", "spec.limits.dailyCost.currency: Too long")
		add("unlimited unknown", "unlimited: [FileSize]", "spec.limits.unlimited[0]: Unsupported value")
		add("unlimited twice", "unlimited: [Queued, Queued]", "spec.limits.unlimited[1]: Duplicate value")
		add("unlimited five", "unlimited: ["+strings.Repeat("Queued, ", 5)+"]", "spec.limits.unlimited: Too many")
		for field, name := range map[string]string{
			"credits: 1": "Credits", "concurrent: 1": "Concurrent", "queued: 1": "Queued",
			"dailyCost: {amount: '1'}": "DailyCost",
		} {
			at, _, _ := strings.Cut(field, ":")
			add("both "+at, field+", unlimited: ["+name+"]", "spec.limits."+at+": Forbidden",
				at+" is given and unlimited lists "+name, remove)
		}
	}
	testValidation(t, team, cases)
}

func TestUserQuotaTeam(t *testing.T) {
	t.Parallel()
	testValidation(t, quota, map[string]validationCase{
		"team":       {patch: "spec: {teamRef: {name: newsroom.hk}}"},
		"team of 63": {patch: "spec: {teamRef: {name: " + long(63) + "}}"},
		"too long":   {"spec: {teamRef: {name: " + long(64) + "}}", []string{"spec.teamRef.name: Too long", "63"}},
		"no name":    {"spec: {teamRef: {}}", []string{"spec.teamRef.name: Required"}},
		"upper case": {"spec: {teamRef: {name: News}}",
			[]string{"spec.teamRef.name", "name is 'News': must be the name of a UsageTeam"}},
	})
}

func TestUsageTeamChanges(t *testing.T) {
	t.Parallel()
	env := kubetest.Shared(t)
	const granted = "spec: {planRef: {name: pro}, grants: {welcome: {credits: 60}}}"
	for name, tc := range map[string]validationCase{
		"nothing":         {},
		"another parent":  {patch: "spec: {parentRef: {name: company}}"},
		"another plan":    {patch: "spec: {planRef: {name: starter}}"},
		"becomes root":    {patch: "spec: {root: true}"},
		"grant added":     {patch: "spec: {grants: {second: {credits: 5}}}"},
		"plan and grants": {patch: "spec: {planRef: null, grants: null}"},
		"plan removed":    {"spec: {planRef: null}", []string{"spec.grants: Forbidden", "planRef is missing"}},
		"grant raised": {"spec: {grants: {welcome: {credits: 61}}}",
			[]string{"spec.grants[welcome]", "add another one under a new name"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			was := object(t, team, granted)
			if err := env.Client.Create(t.Context(), was); err != nil {
				t.Fatal(err)
			}
			var changes map[string]any
			if err := yaml.Unmarshal([]byte(tc.patch), &changes); err != nil {
				t.Fatal(err)
			}
			was.Object = merge(was.Object, changes)
			check(t, env.Client.Update(t.Context(), was), tc.want)
		})
	}
}

func TestUsageTeamDefaults(t *testing.T) {
	t.Parallel()
	env := kubetest.Shared(t)
	got := object(t, team, "spec: {limits: {dailyCost: {amount: '50'}}}")
	if err := env.Client.Create(t.Context(), got, client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	const want = `{"displayName":"Newsroom","limits":{"concurrent":5,"dailyCost":{"amount":"50","currency":"USD"}},` +
		`"root":false,"suspended":false,"timeZone":"UTC","weight":1}`
	if got := field(t, got, "spec"); got != want {
		t.Errorf("spec is %s, want %s", got, want)
	}
}

// A Go client that sets what a person would set must not trip over the zero values of the rest.
func TestTypedTeamIsAccepted(t *testing.T) {
	t.Parallel()
	env := kubetest.Shared(t)
	typed := &v1alpha1.UsageTeam{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "typed-"},
		Spec: v1alpha1.UsageTeamSpec{
			DisplayName: "Typed", Root: true, Limits: &v1alpha1.TeamLimits{Queued: new(int32(0))},
		},
	}
	if err := env.Client.Create(t.Context(), typed, client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	if typed.Spec.Weight != 1 || typed.Spec.TimeZone != "UTC" || *typed.Spec.Limits.Queued != 0 {
		t.Errorf("what came back is %+v", typed.Spec)
	}
}
