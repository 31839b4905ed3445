// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
)

func TestUserQuotaValidation(t *testing.T) {
	t.Parallel()
	const (
		userID = "userID must be 1 to 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or " +
			"digit"
		planRef   = "planRef.name must be the name of a UsagePlan"
		zone      = "must be the name of an IANA time zone, for example Asia/Hong_Kong or UTC"
		fileSize  = "must be a whole number of bytes, more than 0 and at most 1Ti, for example 25Mi"
		duration  = "must be a duration in hours, minutes, seconds and milliseconds, more than 0 and at most 720h"
		grantName = "the name of a grant must be 1 to 63 letters, digits, '-', '_' and '.'"
		remove    = "remove one of them"
	)
	grants := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "grant-%d: {credits: 1}, ", i)
		}
		return "spec: {grants: {" + b.String() + "}}"
	}
	testValidation(t, quota, map[string]validationCase{
		"as it is":        {},
		"no spec":         {"spec: null", []string{"spec: Required"}},
		"no user":         {"spec: {userID: null}", []string{"spec.userID: Required"}},
		"user all signs":  {patch: "spec: {userID: A1.b_c-D}"},
		"user of one":     {patch: "spec: {userID: a}"},
		"user of 63":      {patch: "spec: {userID: " + long(63) + "}"},
		"user too long":   {"spec: {userID: " + long(64) + "}", []string{"spec.userID: Too long", "63"}},
		"user empty":      {"spec: {userID: ''}", []string{"spec.userID", userID}},
		"user with @":     {"spec: {userID: alice@example.com}", []string{"spec.userID", "alice@example.com", userID}},
		"user with space": {"spec: {userID: 'alice '}", []string{"spec.userID", userID}},
		"user with line":  {`spec: {userID: "alice\n"}`, []string{"spec.userID", userID}},
		"user dash first": {"spec: {userID: -alice}", []string{"spec.userID", userID}},
		"user dot last":   {"spec: {userID: alice.}", []string{"spec.userID", userID}},

		"plan":       {patch: "spec: {planRef: {name: pro.2025}}"},
		"plan of 63": {patch: "spec: {planRef: {name: " + long(63) + "}}"},
		"plan too long": {"spec: {planRef: {name: " + long(64) + "}}",
			[]string{"spec.planRef.name: Too long", "63"}},
		"plan without name": {"spec: {planRef: {}}", []string{"spec.planRef.name: Required"}},
		"plan empty":        {"spec: {planRef: {name: ''}}", []string{"spec.planRef.name", planRef}},
		"plan upper case":   {"spec: {planRef: {name: Pro}}", []string{"spec.planRef.name", "Pro", planRef}},

		"created":           {patch: "spec: {accountCreatedAt: '2025-01-31T08:00:00Z'}"},
		"created with zone": {patch: "spec: {accountCreatedAt: '2025-01-31T08:00:00+08:00'}"},
		"created no time":   {"spec: {accountCreatedAt: '2025-01-31'}", []string{"spec.accountCreatedAt", "date-time"}},
		"created 1969": {"spec: {accountCreatedAt: '1969-12-31T23:59:59Z'}",
			[]string{"spec.accountCreatedAt", "must be a time from 1970 to 2199"}},
		"created 2200": {"spec: {accountCreatedAt: '2200-01-01T00:00:00Z'}",
			[]string{"spec.accountCreatedAt", "must be a time from 1970 to 2199"}},

		"zone":           {patch: "spec: {timeZone: America/Argentina/Buenos_Aires}"},
		"zone with sign": {patch: "spec: {timeZone: Etc/GMT+8}"},
		"zone offset":    {"spec: {timeZone: '+08:00'}", []string{"spec.timeZone", "timeZone is '+08:00': " + zone}},
		"zone local":     {"spec: {timeZone: Local}", []string{"spec.timeZone", zone}},
		"zone path":      {"spec: {timeZone: ../../etc/passwd}", []string{"spec.timeZone", zone}},
		"zone empty":     {"spec: {timeZone: ''}", []string{"spec.timeZone", zone}},
		"zone long":      {"spec: {timeZone: " + long(65) + "}", []string{"spec.timeZone: Too long", "64"}},

		"no overrides": {patch: "spec: {overrides: {}}"},
		"all overrides": {
			patch: "spec: {overrides: {credits: 0, fileSize: 1Gi, audioDuration: 1h, concurrent: 3, queued: 0}}"},
		"all unlimited": {
			patch: "spec: {overrides: {unlimited: [Credits, FileSize, AudioDuration, Concurrent, Queued]}}"},
		"unlimited unknown": {"spec: {overrides: {unlimited: [Money]}}",
			[]string{"spec.overrides.unlimited[0]: Unsupported value"}},
		"unlimited twice": {"spec: {overrides: {unlimited: [Queued, Queued]}}",
			[]string{"spec.overrides.unlimited[1]: Duplicate value"}},
		"unlimited six": {"spec: {overrides: {unlimited: [" + strings.Repeat("Queued, ", 6) + "]}}",
			[]string{"spec.overrides.unlimited: Too many"}},
		"override credits both": {"spec: {overrides: {credits: 1, unlimited: [Credits]}}",
			[]string{"spec.overrides.credits: Forbidden", "overrides.unlimited lists Credits", remove}},
		"override size both": {"spec: {overrides: {fileSize: 1Mi, unlimited: [FileSize]}}",
			[]string{"spec.overrides.fileSize: Forbidden", "overrides.fileSize is 1Mi and", remove}},
		"override audio both": {"spec: {overrides: {audioDuration: 24h, unlimited: [AudioDuration]}}",
			[]string{"spec.overrides.audioDuration: Forbidden", "overrides.audioDuration is 24h and", remove}},
		"override slots both": {"spec: {overrides: {concurrent: 1, unlimited: [Concurrent]}}",
			[]string{"spec.overrides.concurrent: Forbidden", remove}},
		"override queued both": {"spec: {overrides: {queued: 100, unlimited: [Queued]}}",
			[]string{"spec.overrides.queued: Forbidden", remove}},
		"override credits below": {"spec: {overrides: {credits: -1}}",
			[]string{"spec.overrides.credits", "greater than or equal to 0"}},
		"override credits above": {"spec: {overrides: {credits: 10000001}}",
			[]string{"spec.overrides.credits", "less than or equal to 10000000"}},
		"override size 0": {"spec: {overrides: {fileSize: '0'}}",
			[]string{"spec.overrides.fileSize", "overrides.fileSize is 0: " + fileSize}},
		"override size above": {"spec: {overrides: {fileSize: 2Ti}}", []string{"spec.overrides.fileSize", fileSize}},
		"override size long": {"spec: {overrides: {fileSize: '1" + long(32) + "'}}",
			[]string{"spec.overrides.fileSize: Too long"}},
		"override audio 0": {"spec: {overrides: {audioDuration: 0ms}}",
			[]string{"spec.overrides.audioDuration", "overrides.audioDuration is 0ms: " + duration}},
		"override audio above": {"spec: {overrides: {audioDuration: 721h}}",
			[]string{"spec.overrides.audioDuration", duration}},
		"override audio long": {"spec: {overrides: {audioDuration: " + long(33) + "}}",
			[]string{"spec.overrides.audioDuration: Too long"}},
		"override slots 0": {"spec: {overrides: {concurrent: 0}}",
			[]string{"spec.overrides.concurrent", "greater than or equal to 1"}},
		"override slots above": {"spec: {overrides: {concurrent: 10001}}",
			[]string{"spec.overrides.concurrent", "less than or equal to 10000"}},
		"override queued below": {"spec: {overrides: {queued: -1}}",
			[]string{"spec.overrides.queued", "greater than or equal to 0"}},
		"override queued above": {"spec: {overrides: {queued: 10001}}",
			[]string{"spec.overrides.queued", "less than or equal to 10000"}},

		"grant": {
			patch: "spec: {grants: {Welcome-2025.a_b: {credits: 10000000, expiresAt: '2099-01-01T00:00:00Z'}}}"},
		"grant name of 63":    {patch: "spec: {grants: {" + long(63) + ": {credits: 1}}}"},
		"grant name too long": {"spec: {grants: {" + long(64) + ": {credits: 1}}}", []string{"spec.grants", grantName}},
		"grant name empty":    {"spec: {grants: {'': {credits: 1}}}", []string{"spec.grants", grantName}},
		"grant name spaces":   {"spec: {grants: {a b: {credits: 1}}}", []string{"spec.grants", grantName}},
		"grant no credits":    {"spec: {grants: {a: {}}}", []string{"spec.grants.a.credits: Required"}},
		"grant of 0": {"spec: {grants: {a: {credits: 0}}}",
			[]string{"spec.grants.a.credits", "greater than or equal to 1"}},
		"grant above": {"spec: {grants: {a: {credits: 10000001}}}",
			[]string{"spec.grants.a.credits", "less than or equal to 10000000"}},
		"grant expires 1969": {"spec: {grants: {a: {credits: 1, expiresAt: '1969-01-01T00:00:00Z'}}}",
			[]string{"spec.grants[a].expiresAt", "must be a time from 1970 to 2199"}},
		"grant expires 2200": {"spec: {grants: {a: {credits: 1, expiresAt: '2200-01-01T00:00:00Z'}}}",
			[]string{"spec.grants[a].expiresAt", "must be a time from 1970 to 2199"}},
		"64 grants": {patch: grants(64)},
		"65 grants": {grants(65), []string{"spec.grants: Too many", "64"}},
		"suspended": {patch: "spec: {suspended: true}"},
	})
}

func TestUserQuotaChanges(t *testing.T) {
	t.Parallel()
	env := kubetest.Shared(t)
	const granted = "spec: {grants: {welcome: {credits: 60}}}"
	for name, tc := range map[string]validationCase{
		"nothing": {},
		"another user": {"spec: {userID: bob}",
			[]string{"spec.userID", "userID is alice and cannot be changed: create another UserQuota"}},
		"another plan":   {patch: "spec: {planRef: {name: pro}}"},
		"another anchor": {patch: "spec: {accountCreatedAt: '2025-01-31T08:00:00Z'}"},
		"another grant":  {patch: "spec: {grants: {second: {credits: 5}}}"},
		"grant removed":  {patch: "spec: {grants: null}"},
		"grant raised": {"spec: {grants: {welcome: {credits: 61}}}",
			[]string{"spec.grants[welcome]", "add another one under a new name"}},
		"grant expires": {"spec: {grants: {welcome: {expiresAt: '2099-01-01T00:00:00Z'}}}",
			[]string{"spec.grants[welcome]", "add another one under a new name"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			was := object(t, quota, granted)
			if err := env.Client.Create(t.Context(), was); err != nil {
				t.Fatal(err)
			}
			changes := object(t, "{apiVersion: usage.cantonesescribe.io/v1alpha1, kind: UserQuota}", tc.patch)
			was.Object = merge(was.Object, changes.Object)
			check(t, env.Client.Update(t.Context(), was), tc.want)
		})
	}
}

func TestUserQuotaDefaults(t *testing.T) {
	t.Parallel()
	env := kubetest.Shared(t)
	got := object(t, quota, "")
	if err := env.Client.Create(t.Context(), got, client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	if got, want := field(t, got, "spec"), `{"suspended":false,"timeZone":"UTC","userID":"alice"}`; got != want {
		t.Errorf("spec is %s, want %s", got, want)
	}
}

func TestUserQuotaIsSelectedByUser(t *testing.T) {
	t.Parallel()
	env := kubetest.Shared(t)
	for _, user := range []string{"select-me", "select-me", "not-me"} {
		q := &v1alpha1.UserQuota{ObjectMeta: metav1.ObjectMeta{GenerateName: "select-"},
			Spec: v1alpha1.UserQuotaSpec{UserID: user}}
		if err := env.Client.Create(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	var got v1alpha1.UserQuotaList
	if err := env.Client.List(t.Context(), &got, client.MatchingFields{"spec.userID": "select-me"}); err != nil {
		t.Fatal(err)
	}
	if len(got.Items) != 2 {
		t.Errorf("selected %d quotas, want the 2 of the user", len(got.Items))
	}
}

// A Go client that sets what a person would set must not trip over the zero values of the rest.
func TestTypedObjectsAreAccepted(t *testing.T) {
	t.Parallel()
	env := kubetest.Shared(t)
	plan := &v1alpha1.UsagePlan{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "typed-"},
		Spec: v1alpha1.UsagePlanSpec{
			DisplayName:     "Typed",
			AlertThresholds: []int32{},
			Limits: v1alpha1.UsagePlanLimits{
				Credits: ptr.To[int64](0),
				Queued:  ptr.To[int32](0),
				Unlimited: []v1alpha1.LimitName{v1alpha1.LimitFileSize, v1alpha1.LimitConcurrent,
					v1alpha1.LimitAudioDuration},
			},
		},
	}
	if err := env.Client.Create(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	if plan.Spec.AlertThresholds == nil || len(plan.Spec.AlertThresholds) != 0 {
		t.Errorf("alertThresholds were given as empty and came back as %v", plan.Spec.AlertThresholds)
	}
	if got := ptr.Deref(plan.Spec.Limits.Queued, -1); got != 0 {
		t.Errorf("limits.queued was given as 0 and came back as %d", got)
	}
	// What was read can be written again, in the form that Go gives to durations.
	plan.Spec.Rank = 1
	if err := env.Client.Update(t.Context(), plan); err != nil {
		t.Errorf("update what was read: %v", err)
	}
}
