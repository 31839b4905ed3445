//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
)

var _ = Describe("A transcription wrapped by usage-run", func() {
	It("is admitted as declared, charged what it really is, and kubectl says so", func(ctx SpecContext) {
		user := newUser(ctx, "free")
		namespace := newTeam(ctx, user)
		j := newTranscription(namespace, "interview", user, "sleep", "1s")
		Expect(k8s.Create(ctx, j)).To(Succeed())
		Expect(j.Spec.Suspend).To(HaveValue(BeTrue()), "the webhook suspends it")
		Eventually(ctx, says(ctx, j)).Should(Equal("Settled: " + toneCredits + " credits were charged"))
		Expect(condition(ctx, j)()).To(Equal(batchv1.JobComplete))
		pods := podsOf(ctx, namespace, j.Name)
		Expect(pods).To(HaveLen(1))
		Expect(logs(ctx, namespace, pods[0].Name)).To(And(
			ContainSubstring("admitted: 1.234s of audio, 10 credits reserved for %s by Job %s", user, j.UID),
			ContainSubstring(toneCredits+" credits are recorded, charged when the Job is over"),
		))
		shows(ctx, user, toneCredits, "29.979")
	}, SpecTimeout(5*time.Minute))

	It("is charged once for all the pods that its Job tries", func(ctx SpecContext) {
		user := newUser(ctx, "free")
		namespace := newTeam(ctx, user)
		ends := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "ends"},
			Data: map[string]string{"code": "1"}}
		Expect(k8s.Create(ctx, ends)).To(Succeed())
		j := newTranscription(namespace, "second-try", user, "exit", "$(CODE)")
		j.Spec.BackoffLimit = new(int32(3))
		container := &j.Spec.Template.Spec.Containers[0]
		// The first pod reports its use although it fails, and the second one reports it again.
		container.Env = append(container.Env,
			corev1.EnvVar{Name: "USAGE_CHARGE_ON_FAILURE", Value: "true"},
			corev1.EnvVar{Name: "CODE", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: ends.Name}, Key: "code",
			}}})
		Expect(k8s.Create(ctx, j)).To(Succeed())
		Eventually(ctx, job(ctx, j)).Should(HaveField("Status.Failed", BeEquivalentTo(1)))
		ends.Data["code"] = "0"
		Expect(k8s.Update(ctx, ends)).To(Succeed())
		Eventually(ctx, says(ctx, j)).Should(Equal("Settled: " + toneCredits + " credits were charged"))
		Expect(condition(ctx, j)()).To(Equal(batchv1.JobComplete))
		Expect(len(podsOf(ctx, namespace, j.Name))).To(BeNumerically(">=", 2))
		shows(ctx, user, toneCredits, "29.979")
	}, SpecTimeout(6*time.Minute))

	It("needs no Job: the pod's label says whose quota it spends", func(ctx SpecContext) {
		user := newUser(ctx, "free")
		namespace := newTeam(ctx, user)
		var said string
		pods := make([]*corev1.Pod, 2)
		for i := range pods {
			pods[i] = newPod(namespace, fmt.Sprintf("pod-%d", i), "sleep", "5s")
			pods[i].Labels = map[string]string{v1alpha1.UserLabel: user}
			wrap(&pods[i].Spec)
			Expect(k8s.Create(ctx, pods[i])).To(Succeed())
		}
		// The plan has one slot: one of them waits for the other.
		for _, p := range pods {
			Eventually(ctx, phase(ctx, p)).Should(Equal(corev1.PodSucceeded))
			text := logs(ctx, namespace, p.Name)
			Expect(text).To(ContainSubstring(toneCredits + " credits are charged"))
			said += text
		}
		Expect(said).To(ContainSubstring("queued, position 1 of 1 (ConcurrencyLimit)"))
		shows(ctx, user, "0.041", "29.959")
	}, SpecTimeout(5*time.Minute))

	It("is refused over HTTP when its service account may not spend", func(ctx SpecContext) {
		user := newUser(ctx, "free")
		namespace := newTeam(ctx, user)
		pod := newPod(namespace, "not-mine", "exit", "0")
		pod.Spec.ServiceAccountName = intern
		wrap(&pod.Spec, "--user="+user)
		Expect(k8s.Create(ctx, pod)).To(Succeed())
		Eventually(ctx, phase(ctx, pod)).Should(Equal(corev1.PodFailed))
		Expect(pod.Status.ContainerStatuses[0].State.Terminated.ExitCode).To(BeEquivalentTo(77))
		Expect(logs(ctx, namespace, pod.Name)).To(
			ContainSubstring(`system:serviceaccount:%s:intern may not spend for user "%s"`, namespace, user))
		shows(ctx, user, "0", "30")
	}, SpecTimeout(4*time.Minute))
})

var _ = Describe("Five Jobs of a user", func() {
	It("run strictly one after the other where the plan has one slot", func(ctx SpecContext) {
		user := newUser(ctx, "free")
		namespace := newTeam(ctx, user)
		jobs := make([]*batchv1.Job, 5)
		for i := range jobs {
			jobs[i] = newTranscription(namespace, fmt.Sprintf("one-%d", i), user, "sleep", "2s")
			jobs[i].Annotations[v1alpha1.AudioDurationAnnotation] = "1m"
			Expect(k8s.Create(ctx, jobs[i])).To(Succeed())
		}
		Eventually(ctx, says(ctx, jobs[4])).Should(
			Equal("Queued: the limit of 1 running at once is reached; it starts by itself in its turn"))
		picture(ctx, "--namespace", namespace, "get", "jobs")
		type run struct{ from, to time.Time }
		var runs []run
		for _, j := range jobs {
			Eventually(ctx, says(ctx, j)).Should(HavePrefix("Settled: "))
			for _, p := range podsOf(ctx, namespace, j.Name) {
				t := p.Status.ContainerStatuses[0].State.Terminated
				Expect(t).NotTo(BeNil(), "the container of %s", p.Name)
				runs = append(runs, run{t.StartedAt.Time, t.FinishedAt.Time})
			}
		}
		Expect(runs).To(HaveLen(5))
		Expect(slices.IsSortedFunc(runs, func(a, b run) int { return a.from.Compare(b.from) })).To(BeTrue(),
			"in the order in which they came: %v", runs)
		for i := 1; i < len(runs); i++ {
			Expect(runs[i].from).NotTo(BeTemporally("<", runs[i-1].to),
				"run %d began before the one before had ended", i)
		}
		shows(ctx, user, "0.103", "29.897")
	}, SpecTimeout(10*time.Minute))

	It("run at once where it has five", func(ctx SpecContext) {
		user := newUser(ctx, "pro")
		namespace := newTeam(ctx, user)
		jobs := make([]*batchv1.Job, 5)
		for i := range jobs {
			jobs[i] = newTranscription(namespace, fmt.Sprintf("many-%d", i), user, "sleep", "1h")
			Expect(k8s.Create(ctx, jobs[i])).To(Succeed())
		}
		for _, j := range jobs {
			runningPod(ctx, j)
		}
		// All of them still do.
		for _, j := range jobs {
			Expect(runningPod(ctx, j).Status.Phase).To(Equal(corev1.PodRunning))
		}
		picture(ctx, "--namespace", namespace, "get", "jobs,pods")
		for _, j := range jobs {
			Expect(k8s.Delete(ctx, j, client.PropagationPolicy(metav1.DeletePropagationBackground))).To(Succeed())
		}
		shows(ctx, user, "0", "500") // they were ended before they were done
	}, SpecTimeout(5*time.Minute))
})
