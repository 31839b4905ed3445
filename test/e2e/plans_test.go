//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
)

var _ = Describe("plans", func() {
	It("become Ready, each with its reset CronJob, right after the deployment", func(ctx SpecContext) {
		var plans v1alpha1.UsagePlanList
		Expect(k8s.List(ctx, &plans)).To(Succeed())
		// Those of other specs go, with their CronJobs, whenever they go.
		plans.Items = slices.DeleteFunc(plans.Items,
			func(p v1alpha1.UsagePlan) bool { return p.DeletionTimestamp != nil })
		Expect(len(plans.Items)).To(BeNumerically(">=", 4))
		for _, plan := range plans.Items {
			Expect(meta.IsStatusConditionTrue(plan.Status.Conditions, v1alpha1.ConditionReady)).To(BeTrue(), plan.Name)
			var resets batchv1.CronJobList
			Expect(k8s.List(ctx, &resets, client.InNamespace(systemNamespace),
				client.MatchingLabels{v1alpha1.Group + "/plan": plan.Name})).To(Succeed())
			Expect(resets.Items).To(HaveLen(1), plan.Name)
		}
		picture(ctx, "get", "usageplans,userquotas")
		picture(ctx, "--namespace", systemNamespace, "get", "deployments,pods,cronjobs,poddisruptionbudgets")
	}, SpecTimeout(timeout))

	It("are refused when they are wrong, by the webhook behind its Service and the schema", func(ctx SpecContext) {
		// What only the webhook knows proves that the API server reaches it and trusts its certificate.
		Expect(apply(ctx, wrongPlan)).To(MatchError(ContainSubstring("spec.reset.schedule")))
		Expect(apply(ctx, `
apiVersion: usage.cantonesescribe.io/v1alpha1
kind: UsagePlan
metadata: {name: negative}
spec: {displayName: Negative, rank: 1, limits: {credits: -1, fileSize: 1Mi, concurrent: 1}}
`)).To(MatchError(ContainSubstring("spec.limits.credits")))
	}, SpecTimeout(timeout))

	It("run a Job of a user and charge what it declared", func(ctx SpecContext) {
		user := newUser(ctx, "")
		j := newJob(newNamespace(ctx, user), "first", user, "sleep", "1s")
		Expect(k8s.Create(ctx, j)).To(Succeed())
		Eventually(ctx, job(ctx, j)).Should(haveState(v1alpha1.StateSettled))
		Expect(charged(ctx, user)()).To(Equal("1"))
		picture(ctx, "--namespace", j.Namespace, "get", "jobs,pods")
	}, SpecTimeout(timeout))
})
