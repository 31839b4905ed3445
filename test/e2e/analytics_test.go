//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/util/rand"
)

var _ = Describe("the rollup CronJob", func() {
	It("adds up what was used, and the sums equal the ledger", func(ctx SpecContext) {
		user := newUser(ctx, "free")
		namespace := newTeam(ctx, user)
		j := newTranscription(namespace, "counted", user, "sleep", "1s")
		Expect(k8s.Create(ctx, j)).To(Succeed())
		Eventually(ctx, says(ctx, j)).Should(Equal("Settled: " + toneCredits + " credits were charged"))

		run := "rollup-" + rand.String(5)
		kubectl(ctx, "--namespace", systemNamespace, "create", "job", run, "--from=cronjob/usage-operator-rollup")
		DeferCleanup(func(ctx SpecContext) {
			kubectl(ctx, "--namespace", systemNamespace, "delete", "job", run)
		}, NodeTimeout(timeout))
		kubectl(ctx, "--namespace", systemNamespace, "wait", "--for=condition=Complete", "job/"+run, "--timeout=2m")
		Expect(kubectl(ctx, "--namespace", systemNamespace, "logs", "job/"+run)).To(
			ContainSubstring("0 accounts failed"))
		Expect(sql(ctx, fmt.Sprintf(`SELECT sum(s.events) || ' ' || sum(s.credits) || ' ' || sum(s.admissions)
			FROM usage_analytics AS s JOIN users AS u ON u.id = s.user_id WHERE u.user_id = '%s'`, user))).
			To(Equal("1 1234 1"))
	}, SpecTimeout(5*timeout))
})
