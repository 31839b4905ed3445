//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
)

var _ = Describe("Refused at apply", func() {
	DescribeTable("is a Job, in the documented words",
		func(ctx SpecContext, change func(j *batchv1.Job), message string) {
			user := newUser(ctx, "free")
			j := newJob(newTeam(ctx, user), "refused", user, "exit", "0")
			change(j)
			Expect(k8s.Create(ctx, j)).To(MatchError(ContainSubstring(message)))
			Expect(gone(ctx, j)()).To(BeTrue(), "nothing is left behind")
			shows(ctx, user, "0", "30")
		},
		Entry("with a file above the plan's limit",
			func(j *batchv1.Job) { j.Annotations[v1alpha1.FileSizeAnnotation] = "26Mi" },
			`(plan "free"); plan "starter" would have allowed it`, SpecTimeout(2*time.Minute)),
		Entry("with more audio than there are credits",
			func(j *batchv1.Job) { j.Annotations[v1alpha1.AudioDurationAnnotation] = "31m" },
			`31 credits are needed, 30 of 30 remain in this period (0 used, 0 reserved) (plan "free"); `+
				`the period ends and credits reset at `, SpecTimeout(2*time.Minute)),
		Entry("that does not declare its audio",
			func(j *batchv1.Job) { delete(j.Annotations, v1alpha1.AudioDurationAnnotation) },
			"metadata.annotations[usage.cantonesescribe.io/audio-duration]: is required: "+
				"declare the length of the audio",
			SpecTimeout(2*time.Minute)),
		Entry("that declares it wrongly",
			func(j *batchv1.Job) { j.Annotations[v1alpha1.AudioDurationAnnotation] = "long" },
			`metadata.annotations[usage.cantonesescribe.io/audio-duration]: 'long' must be a duration such as 12m30s`,
			SpecTimeout(2*time.Minute)),
		Entry("with a label that is no user id", func(j *batchv1.Job) { j.Labels[v1alpha1.UserLabel] = "" },
			`metadata.labels[usage.cantonesescribe.io/user]: '' is not a user id`, SpecTimeout(2*time.Minute)),
		Entry("whose service account may not spend",
			func(j *batchv1.Job) { j.Spec.Template.Spec.ServiceAccountName = intern },
			`spec.template.spec.serviceAccountName: service account 'intern' of namespace '`,
			SpecTimeout(2*time.Minute)),
		Entry("with parallelism above one", func(j *batchv1.Job) { j.Spec.Parallelism = new(int32(2)) },
			`spec.parallelism: is 2, the limit is 1`, SpecTimeout(2*time.Minute)),
		Entry("with completions above one", func(j *batchv1.Job) { j.Spec.Completions = new(int32(2)) },
			`spec.completions: is 2, the limit is 1`, SpecTimeout(2*time.Minute)),
		Entry("that gives the operator's answer itself",
			func(j *batchv1.Job) { j.Annotations[v1alpha1.StateAnnotation] = v1alpha1.StateAdmitted },
			`metadata.annotations[usage.cantonesescribe.io/state]: is written by usage-operator only`,
			SpecTimeout(2*time.Minute)),
	)

	It("is a Job without a user where the namespace requires one", func(ctx SpecContext) {
		namespace := newNamespace(ctx, "nobody")
		kubectl(ctx, "label", "namespace", namespace, v1alpha1.RequireUserLabel+"=true")
		Eventually(ctx, func() error { return k8s.Create(ctx, unrelated(namespace), client.DryRunAll) }).Should(
			MatchError(ContainSubstring(
				"metadata.labels[usage.cantonesescribe.io/user]: is required in namespace '" + namespace + "'")))
	}, SpecTimeout(2*time.Minute))

	It("is not a UserQuota whose plan is not there yet: its status says so", func(ctx SpecContext) {
		name := "user-" + rand.String(6)
		q := &v1alpha1.UserQuota{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       v1alpha1.UserQuotaSpec{UserID: name, PlanRef: &v1alpha1.PlanReference{Name: "platinum"}},
		}
		Expect(k8s.Create(ctx, q)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(k8s.Delete(ctx, q)).To(Succeed()) })
		Eventually(ctx, func() (string, error) {
			return tryKubectl(ctx, "get", "userquota", name, "--output",
				`jsonpath={.status.conditions[?(@.type=="Ready")].reason}`)
		}).Should(Equal("PlanNotFound"))
	}, SpecTimeout(3*time.Minute))
})

var _ = Describe("A Job that waits", func() {
	It("keeps its user, what it declares, and its suspension until it is admitted", func(ctx SpecContext) {
		user := newUser(ctx, "free")
		namespace := newTeam(ctx, user)
		first := newJob(namespace, "first", user, "sleep", "1h")
		Expect(k8s.Create(ctx, first)).To(Succeed())
		Eventually(ctx, job(ctx, first)).Should(haveState(v1alpha1.StateAdmitted))
		waits := newJob(namespace, "waits", user, "exit", "0")
		Expect(k8s.Create(ctx, waits)).To(Succeed())
		Eventually(ctx, says(ctx, waits)).Should(Equal(
			"Queued: the limit of 1 running at once is reached; it starts by itself in its turn"))
		picture(ctx, "--namespace", namespace, "describe", "job", waits.Name)
		for change, message := range map[string]string{
			`{"metadata":{"labels":{"usage.cantonesescribe.io/user":"somebody"}}}`: "is '" + user +
				"' and cannot be changed to 'somebody'",
			`{"metadata":{"labels":{"usage.cantonesescribe.io/user":null}}}`: "is '" + user +
				"' and cannot be changed to ''",
			`{"metadata":{"annotations":{"usage.cantonesescribe.io/audio-duration":"2m"}}}`: "cannot be changed once " +
				"the Job exists",
			`{"metadata":{"annotations":{"usage.cantonesescribe.io/state":"Admitted"}}}`: "written by usage-operator",
			`{"spec":{"suspend":false}}`: "spec.suspend: cannot be set to false by '",
		} {
			_, err := tryKubectl(ctx, "--namespace", namespace, "patch", "job", waits.Name, "--type=merge",
				"--patch", change)
			Expect(err).To(MatchError(ContainSubstring(message)), change)
		}
		Expect(podsOf(ctx, namespace, waits.Name)).To(BeEmpty())
	}, SpecTimeout(4*time.Minute))
})

var _ = Describe("While the webhook is down", func() {
	It("unrelated Jobs run, and nothing slips through", func(ctx SpecContext) {
		user := newUser(ctx, "free")
		namespace := newTeam(ctx, user)
		off := newNamespace(ctx, user)
		kubectl(ctx, "label", "namespace", off, v1alpha1.EnforcementLabel+"="+v1alpha1.EnforcementOff)
		scaleManager(ctx, 0)
		DeferCleanup(func(ctx SpecContext) { scaleManager(ctx, 2) }, NodeTimeout(3*time.Minute))

		for _, j := range []*batchv1.Job{unrelated(namespace), unrelated(off)} {
			Expect(k8s.Create(ctx, j)).To(Succeed())
			Eventually(ctx, condition(ctx, j)).Should(Equal(batchv1.JobComplete))
			Expect(job(ctx, j)()).To(And(HaveField("Spec.Suspend", HaveValue(BeFalse())),
				HaveField("Annotations", Not(HaveKey(v1alpha1.StateAnnotation)))))
		}

		Expect(k8s.Create(ctx, newTranscription(namespace, "slips", user, "exit", "0"))).To(MatchError(And(
			ContainSubstring(
				"spec.suspend: is false, it must be true when a Job that spends the quota of user '"+user+"'"),
			ContainSubstring("the webhook that would do so is not reachable"),
		)))
		patient := newTranscription(namespace, "patient", user, "exit", "0")
		patient.Spec.Suspend = new(true)
		Expect(k8s.Create(ctx, patient)).To(Succeed())
		_, err := tryKubectl(ctx, "--namespace", namespace, "patch", "job", patient.Name, "--type=merge", "--patch",
			`{"spec":{"suspend":false}}`)
		Expect(err).To(MatchError(ContainSubstring("spec.suspend: cannot be set to false by '")))

		scaleManager(ctx, 2)
		Eventually(ctx, says(ctx, patient)).Should(Equal("Settled: " + toneCredits + " credits were charged"))
		shows(ctx, user, toneCredits, "29.979")
	}, SpecTimeout(10*time.Minute))
})
