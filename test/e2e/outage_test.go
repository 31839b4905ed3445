//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
)

// outageTime is how long the database is stopped: several times as long as probes take to turn a pod away, and long
// enough for the run of a CronJob that runs each minute to fall into it.
const outageTime = 2 * time.Minute

var _ = Describe("an outage of the database", Serial, func() {
	It("keeps the Services up: tickets are given, Jobs are created and wait, and all is charged once afterwards",
		func(ctx SpecContext) {
			user := newUser(ctx, newPlan(ctx, "starter", func(spec *v1alpha1.UsagePlanSpec) {
				spec.DatabaseUnavailable = v1alpha1.DatabaseUnavailableAdmit
				spec.Limits.Concurrent = new(int32(20))
			}))
			namespace := newTeam(ctx, user)
			meetBothReplicas(ctx, namespace, user)
			before, err := charged(ctx, user)()
			Expect(err).NotTo(HaveOccurred())
			waiting := newUser(ctx, "starter")
			jobs := newNamespace(ctx, waiting)

			DeferCleanup(func(ctx SpecContext) {
				scaleDatabase(ctx, 1)
				// What could not be compared with the database meanwhile is, at the next resync.
				kubectl(ctx, "wait", "--for=condition=Ready", "usageplans,userquotas", "--all", "--timeout=2m")
			}, NodeTimeout(2*timeout))
			scaleDatabase(ctx, 0)
			stopped := time.Now()
			cron := &batchv1.CronJob{
				ObjectMeta: metav1.ObjectMeta{Namespace: jobs, Name: "minutely"},
				Spec:       batchv1.CronJobSpec{Schedule: "* * * * *", ConcurrencyPolicy: batchv1.ForbidConcurrent},
			}
			scheduled := newJob(jobs, "", waiting, "sleep", "1s")
			cron.Spec.JobTemplate.Labels, cron.Spec.JobTemplate.Annotations = scheduled.Labels, scheduled.Annotations
			cron.Spec.JobTemplate.Spec = scheduled.Spec
			Expect(k8s.Create(ctx, cron)).To(Succeed())
			// By then every probe has failed that is going to.
			Consistently(ctx, func(g Gomega) {
				g.Expect(ready(ctx, "usaged")).To(Equal(2))
				g.Expect(ready(ctx, "manager")).To(Equal(2))
			}).WithTimeout(30 * time.Second).Should(Succeed())

			// Over HTTP, by way of the Service: a ticket, on which the work runs.
			offline := newPod(namespace, "offline", "sleep", "1s")
			wrap(&offline.Spec, "--user="+user, "--settle-timeout=10m")
			Expect(k8s.Create(ctx, offline)).To(Succeed())
			Eventually(ctx, func() (string, error) {
				return tryKubectl(ctx, "--namespace", namespace, "logs", offline.Name)
			}).Should(ContainSubstring("record the use"), "it has run, and waits to be charged")

			// As Jobs: they do not say suspend, and are created and wait all the same.
			during := newJob(jobs, "during", waiting, "sleep", "1s")
			Expect(k8s.Create(ctx, during)).To(Succeed())
			Expect(during.Spec.Suspend).To(HaveValue(BeTrue()))
			var run *batchv1.Job
			Eventually(ctx, func(g Gomega) {
				var list batchv1.JobList
				g.Expect(k8s.List(ctx, &list, client.InNamespace(jobs))).To(Succeed())
				for i := range list.Items {
					if metav1.IsControlledBy(&list.Items[i], cron) {
						run = &list.Items[i]
					}
				}
				g.Expect(run).NotTo(BeNil(), "no run of the CronJob yet")
			}).WithTimeout(outageTime).Should(Succeed())
			Expect(run.Spec.Suspend).To(HaveValue(BeTrue()))
			// one run is enough
			kubectl(ctx, "--namespace", jobs, "patch", "cronjob", cron.Name, "--patch", `{"spec": {"suspend": true}}`)
			Consistently(ctx, func(g Gomega) {
				for _, j := range []*batchv1.Job{during, run} {
					got, err := job(ctx, j)()
					g.Expect(err).NotTo(HaveOccurred())
					g.Expect(got.Spec.Suspend).To(HaveValue(BeTrue()), "%s runs without an admission", j.Name)
					g.Expect(podsOf(ctx, jobs, j.Name)).To(BeEmpty())
				}
				g.Expect(ready(ctx, "usaged")).To(Equal(2))
				g.Expect(ready(ctx, "manager")).To(Equal(2))
			}).WithTimeout(max(time.Second, time.Until(stopped.Add(outageTime)))).Should(Succeed())
			picture(ctx, "--namespace", systemNamespace, "get", "pods,endpointslices")

			scaleDatabase(ctx, 1)
			Eventually(ctx, phase(ctx, offline)).Should(Equal(corev1.PodSucceeded))
			for _, j := range []*batchv1.Job{during, run} {
				Eventually(ctx, job(ctx, j)).Should(haveState(v1alpha1.StateSettled))
			}
			Expect(charged(ctx, waiting)()).To(Equal("2"))
			Expect(charged(ctx, user)()).NotTo(Equal(before))
			Expect(sql(ctx, `SELECT count(*) FROM audit_log a JOIN users u ON u.id = a.user_id WHERE a.action =
			    'ticket.settled' AND u.user_id = '`+user+`'`)).
				To(Equal("1"))
		}, SpecTimeout(4*timeout))
})

// scaleDatabase stops the development database, or starts it again on its volume, and waits until that has happened.
func scaleDatabase(ctx context.Context, replicas int) {
	GinkgoHelper()
	kubectl(ctx, "--namespace", systemNamespace, "scale", "statefulset", "usage-operator-postgres", "--replicas",
		string('0'+rune(replicas)))
	Eventually(ctx, func(g Gomega) {
		var pods corev1.PodList
		g.Expect(k8s.List(ctx, &pods, client.InNamespace(systemNamespace),
			client.MatchingLabels{"app.kubernetes.io/component": "postgres"})).To(Succeed())
		g.Expect(pods.Items).To(HaveLen(replicas))
		g.Expect(ready(ctx, "postgres")).To(Equal(replicas))
	}).Should(Succeed())
}

// meetBothReplicas has the user served by each replica of usaged, for only such users get tickets. The Service chooses
// one for each connection: that ten pods all meet the same one happens once in 512 times.
func meetBothReplicas(ctx context.Context, namespace, user string) {
	GinkgoHelper()
	const pods = 10
	j := newJob(namespace, "meet", user, "load",
		"--server=https://usage-operator-usaged."+systemNamespace+".svc", "--ca-file=/var/run/usaged/ca.crt",
		"--token-file=/var/run/usaged/token",
		"--user="+user, "--for=2s", "--clients=1")
	j.Labels, j.Annotations = nil, nil
	j.Spec.Parallelism, j.Spec.Completions = new(int32(pods)), new(int32(pods))
	pod := &j.Spec.Template.Spec
	pod.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "usaged", MountPath: "/var/run/usaged"}}
	pod.Volumes = []corev1.Volume{usagedVolume()}
	Expect(k8s.Create(ctx, j)).To(Succeed())
	Eventually(ctx, condition(ctx, j)).Should(Equal(batchv1.JobComplete))
}
