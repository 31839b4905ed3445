//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
)

// slotReturn is how long a slot may stay taken after nothing runs on it any more: the Job controller's own delay, and a
// sweep where no event told the operator.
const slotReturn = 20 * time.Second

// Users of the default plan have one slot: that it came back shows in that the next Job is admitted.
var _ = Describe("faults of Jobs", func() {
	var (
		user, namespace string
		running, next   *batchv1.Job
	)
	// start runs a Job of a user with one slot, and puts another one behind it.
	start := func(ctx context.Context, first func(*batchv1.Job), args ...string) *corev1.Pod {
		GinkgoHelper()
		user = newUser(ctx, "")
		namespace = newNamespace(ctx, user)
		running = newJob(namespace, "running", user, args...)
		if first != nil {
			first(running)
		}
		Expect(k8s.Create(ctx, running)).To(Succeed())
		pod := runningPod(ctx, running)
		next = newJob(namespace, "next", user, "sleep", "1s")
		Expect(k8s.Create(ctx, next)).To(Succeed())
		Eventually(ctx, job(ctx, next)).Should(haveState(v1alpha1.StateQueued))
		return pod
	}
	waits := func(ctx context.Context, d time.Duration) {
		GinkgoHelper()
		Consistently(ctx, job(ctx, next)).WithTimeout(d).Should(haveState(v1alpha1.StateQueued))
	}
	slotComesBack := func(ctx context.Context) {
		GinkgoHelper()
		Eventually(ctx, job(ctx, next)).WithTimeout(slotReturn).Should(
			Or(haveState(v1alpha1.StateAdmitted), haveState(v1alpha1.StateSettled)))
		Eventually(ctx, job(ctx, next)).Should(haveState(v1alpha1.StateSettled))
	}

	It("charge a Job once whose pod was deleted and retried", func(ctx SpecContext) {
		pod := start(ctx, nil, "sleep", "8s")
		Expect(k8s.Delete(ctx, pod)).To(Succeed())
		Eventually(ctx, job(ctx, running)).Should(haveState(v1alpha1.StateSettled))
		slotComesBack(ctx)
		Expect(charged(ctx, user)()).To(Equal("2"))
	}, SpecTimeout(timeout))

	It("charge nothing for a Job that failed because its pod ran out of memory", func(ctx SpecContext) {
		user = newUser(ctx, "")
		namespace = newNamespace(ctx, user)
		running = newJob(namespace, "eats", user, "eat")
		running.Spec.BackoffLimit = new(int32(0))
		Expect(k8s.Create(ctx, running)).To(Succeed())
		Eventually(ctx, job(ctx, running)).Should(haveState(v1alpha1.StateReleased))
		pods := podsOf(ctx, namespace, running.Name)
		Expect(pods).To(HaveLen(1))
		Expect(pods[0].Status.ContainerStatuses[0].State.Terminated.Reason).To(Equal("OOMKilled"))
		next = newJob(namespace, "next", user, "sleep", "1s")
		Expect(k8s.Create(ctx, next)).To(Succeed())
		slotComesBack(ctx)
		Expect(charged(ctx, user)()).To(Equal("1"))
	}, SpecTimeout(timeout))

	It("say of a Job whose image is not there that no pod has started, and why", func(ctx SpecContext) {
		user = newUser(ctx, "")
		namespace = newNamespace(ctx, user)
		running = newJob(namespace, "image", user, "exit", "0")
		running.Spec.Template.Spec.Containers[0].Image = "localhost:1/none:1"
		Expect(k8s.Create(ctx, running)).To(Succeed())
		// The kubelet pulls, fails and waits in turn: all three say the image's name or that they back off.
		Eventually(ctx, says(ctx, running)).WithTimeout(90 * time.Second).
			Should(And(ContainSubstring("no pod has started: container "), ContainSubstring("localhost:1/none:1")))
	}, SpecTimeout(timeout))

	DescribeTable("give the slot of a deleted Job back when its pod has ended, and charge nothing",
		func(ctx SpecContext, propagation metav1.DeletionPropagation) {
			pod := start(ctx, nil, "sleep", "10m")
			Expect(k8s.Delete(ctx, running, client.PropagationPolicy(propagation))).To(Succeed())
			Eventually(ctx, gone(ctx, pod)).Should(BeTrue())
			slotComesBack(ctx)
			Expect(charged(ctx, user)()).To(Equal("1"), "what the next one used")
		},
		Entry("background", SpecTimeout(timeout), metav1.DeletePropagationBackground),
		Entry("foreground", SpecTimeout(timeout), metav1.DeletePropagationForeground),
	)

	It("keep the slot of an orphaned pod until it ends, and charge it when it succeeds", func(ctx SpecContext) {
		pod := start(ctx, nil, "sleep", "25s")
		Expect(k8s.Delete(ctx, running, client.PropagationPolicy(metav1.DeletePropagationOrphan))).To(Succeed())
		Eventually(ctx, gone(ctx, running)).Should(BeTrue())
		waits(ctx, 7*time.Second)
		Eventually(ctx, func() (corev1.PodPhase, error) {
			err := k8s.Get(ctx, client.ObjectKeyFromObject(pod), pod)
			return pod.Status.Phase, err
		}).Should(Equal(corev1.PodSucceeded))
		slotComesBack(ctx)
		Eventually(ctx, charged(ctx, user)).WithTimeout(slotReturn).Should(Equal("2"))
	}, SpecTimeout(timeout))

	It("let a namespace go while the manager is away, and give the slot back when it returns", Serial,
		func(ctx SpecContext) {
			start(ctx, nil, "sleep", "10m")
			DeferCleanup(func(ctx SpecContext) { scaleManager(ctx, 2) }, NodeTimeout(timeout))
			scaleManager(ctx, 0)
			kubectl(ctx, "delete", "namespace", namespace, "--timeout=1m")
			scaleManager(ctx, 2)
			namespace = newNamespace(ctx, user)
			next = newJob(namespace, "next", user, "sleep", "1s")
			Expect(k8s.Create(ctx, next)).To(Succeed())
			slotComesBack(ctx)
			Expect(charged(ctx, user)()).To(Equal("1"))
		}, SpecTimeout(2*timeout))

	It("keep the slot while a node's kubelet is stopped in mid-job, and charge the retried Job once", Serial,
		func(ctx SpecContext) {
			pod := start(ctx, func(j *batchv1.Job) {
				for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
					j.Spec.Template.Spec.Tolerations = append(j.Spec.Template.Spec.Tolerations, corev1.Toleration{
						Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute,
						TolerationSeconds: new(int64(5)),
					})
				}
				// Rather not beside the database: what is tested is the loss of the transcription's node.
				j.Spec.Template.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
					PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{
						{Weight: 100, PodAffinityTerm: corev1.PodAffinityTerm{
							LabelSelector: &metav1.LabelSelector{
								MatchLabels: map[string]string{"app.kubernetes.io/component": "postgres"}},
							Namespaces: []string{systemNamespace}, TopologyKey: corev1.LabelHostname,
						}}},
				}}
			}, "sleep", "20s")
			DeferCleanup(func(ctx SpecContext) { node(ctx, pod.Spec.NodeName, "systemctl", "start", "kubelet") },
				NodeTimeout(timeout))
			node(ctx, pod.Spec.NodeName, "systemctl", "stop", "kubelet")
			Eventually(ctx, func() (bool, error) {
				err := k8s.Get(ctx, client.ObjectKeyFromObject(pod), pod)
				return pod.DeletionTimestamp != nil, err
			}).WithTimeout(2*time.Minute).Should(BeTrue(), "the pod is not evicted")
			// Nobody knows whether it still runs: it does.
			waits(ctx, 10*time.Second)
			node(ctx, pod.Spec.NodeName, "systemctl", "start", "kubelet")
			Eventually(ctx, job(ctx, running)).WithTimeout(3 * time.Minute).Should(haveState(v1alpha1.StateSettled))
			slotComesBack(ctx)
			Expect(charged(ctx, user)()).To(Equal("2"))
			Eventually(ctx, ready).WithArguments(ctx, "manager").Should(Equal(2))
			Eventually(ctx, ready).WithArguments(ctx, "usaged").Should(Equal(2))
		}, SpecTimeout(4*timeout))
})

var _ = Describe("faults of the product", Serial, func() {
	It("admit the next Job within 25 s after the leading manager was killed", func(ctx SpecContext) {
		user := newUser(ctx, "")
		namespace := newNamespace(ctx, user)
		var lease coordinationv1.Lease
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: "usage-operator-manager"},
			&lease)).To(Succeed())
		holder := *lease.Spec.HolderIdentity
		leader, _, _ := strings.Cut(holder, "_")
		killProcess(ctx, leader, "manager")
		killed := time.Now()
		j := newJob(namespace, "after", user, "sleep", "1s")
		j.Spec.Suspend = new(true) // the webhook may have been asked of the one that was killed
		Expect(k8s.Create(ctx, j)).To(Succeed())
		Eventually(ctx, job(ctx, j)).WithTimeout(25 * time.Second).Should(
			Or(haveState(v1alpha1.StateAdmitted), haveState(v1alpha1.StateSettled)))
		AddReportEntry("from the kill to the next admission", time.Since(killed).Round(time.Millisecond).String())
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(&lease), &lease)).To(Succeed())
		Expect(*lease.Spec.HolderIdentity).NotTo(Equal(holder))
		Eventually(ctx, ready).WithArguments(ctx, "manager").Should(Equal(2))
	}, SpecTimeout(timeout))

	It("fail no call and charge nothing twice while usaged is rolled under load", func(ctx SpecContext) {
		load := startLoad(ctx, 40*time.Second)
		kubectl(ctx, "--namespace", systemNamespace, "rollout", "restart", "deployment/usage-operator-usaged")
		kubectl(ctx, "--namespace", systemNamespace, "rollout", "status", "deployment/usage-operator-usaged",
			"--timeout=2m")
		load.check(ctx)
	}, SpecTimeout(2*timeout))

	It("lose nothing that was acknowledged when PostgreSQL is killed under load", func(ctx SpecContext) {
		load := startLoad(ctx, 40*time.Second)
		killProcess(ctx, "usage-operator-postgres-0", "postgres")
		load.check(ctx)
		Eventually(ctx, ready).WithArguments(ctx, "manager").Should(Equal(2))
		Eventually(ctx, ready).WithArguments(ctx, "usaged").Should(Equal(2))
	}, SpecTimeout(2*timeout))

	It("keep what is stored when the CRDs are installed again", func(ctx SpecContext) {
		before := kubectl(ctx, "get", "usageplans,userquotas", "--output",
			"jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid} {.spec}{\"\\n\"}{end}")
		runMake(ctx, "install")
		Expect(kubectl(ctx, "get", "usageplans,userquotas", "--output",
			"jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid} {.spec}{\"\\n\"}{end}")).
			To(Equal(before))
	}, SpecTimeout(timeout))
})

var _ = Describe("the reset CronJob", func() {
	It("fires by itself and closes a period that has ended", func(ctx SpecContext) {
		plan := &v1alpha1.UsagePlan{}
		Expect(k8s.Get(ctx, client.ObjectKey{Name: "starter"}, plan)).To(Succeed())
		plan = &v1alpha1.UsagePlan{ObjectMeta: metav1.ObjectMeta{Name: "minutely-" + rand.String(5)}, Spec: plan.Spec}
		plan.Spec.Reset.Schedule = "* * * * *"
		Expect(k8s.Create(ctx, plan)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(k8s.Delete(ctx, plan)).To(Succeed()) }, NodeTimeout(timeout))
		kubectl(ctx, "wait", "--for=condition=Ready", "usageplan/"+plan.Name, "--timeout=1m")
		// An account whose period ends in a moment. Four years ago there was this day of the year as well.
		ends := time.Now().Add(20 * time.Second).Truncate(time.Second)
		user := "user-" + rand.String(6)
		quota := &v1alpha1.UserQuota{ObjectMeta: metav1.ObjectMeta{Name: user}, Spec: v1alpha1.UserQuotaSpec{
			UserID: user, PlanRef: &v1alpha1.PlanReference{Name: plan.Name},
			AccountCreatedAt: new(metav1.NewTime(ends.AddDate(-4, 0, 0))),
		}}
		Expect(k8s.Create(ctx, quota)).To(Succeed())
		closed := func() (string, error) {
			return trySQL(ctx, fmt.Sprintf(`SELECT count(*) FROM usage_periods p JOIN users u ON u.id = p.user_id WHERE
			    u.user_id = '%s' AND p.period_end = '%s'`,
				user, ends.UTC().Format(time.RFC3339)))
		}
		Expect(closed()).To(Equal("0"))
		Eventually(ctx, closed).WithTimeout(2 * time.Minute).Should(Equal("1"))
		var jobs batchv1.JobList
		Eventually(ctx, func(g Gomega) {
			g.Expect(k8s.List(ctx, &jobs, client.InNamespace(systemNamespace),
				client.MatchingLabels{v1alpha1.Group + "/plan": plan.Name})).To(Succeed())
			g.Expect(jobs.Items).To(ContainElement(
				WithTransform(func(j batchv1.Job) int32 { return j.Status.Succeeded }, BeNumerically(">=", 1))))
		}).Should(Succeed())
		picture(ctx, "--namespace", systemNamespace, "get", "cronjobs,jobs")
	}, SpecTimeout(3*timeout))
})

// killProcess sends SIGKILL to the pod's processes of that name, on its node.
func killProcess(ctx context.Context, pod, process string) {
	GinkgoHelper()
	p := &corev1.Pod{}
	Expect(k8s.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: pod}, p)).To(Succeed())
	uid := string(p.UID)
	// systemd's slices have underscores.
	out := node(ctx, p.Spec.NodeName, "sh", "-c", fmt.Sprintf(
		`for pid in $(pgrep -x %s); do if grep -qE '%s|%s' /proc/$pid/cgroup; then kill -9 $pid && echo $pid; fi; done`,
		process, uid, strings.ReplaceAll(uid, "-", "_")))
	Expect(strings.TrimSpace(out)).NotTo(BeEmpty(), "pod %s has no process %s", pod, process)
}

// runningLoad is a pod that calls usaged all the time.
type runningLoad struct {
	user string
	job  *batchv1.Job
}

// startLoad returns when the load runs; it begins new work for the duration.
func startLoad(ctx context.Context, duration time.Duration) runningLoad {
	GinkgoHelper()
	user := newUser(ctx, newPlan(ctx, "pro", func(*v1alpha1.UsagePlanSpec) {}))
	namespace := newNamespace(ctx, user)
	copyBundle(ctx, namespace)
	j := newJob(namespace, "load", user, "load",
		"--server=https://usage-operator-usaged."+systemNamespace+".svc", "--ca-file=/var/run/usaged/ca.crt",
		"--token-file=/var/run/usaged/token",
		"--user="+user, "--for="+duration.String(), "--clients=4")
	// It spends over HTTP, not as a Job.
	j.Labels, j.Annotations, j.Spec.BackoffLimit = nil, nil, new(int32(0))
	pod := &j.Spec.Template.Spec
	pod.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "usaged", MountPath: "/var/run/usaged"}}
	pod.Volumes = []corev1.Volume{usagedVolume()}
	Expect(k8s.Create(ctx, j)).To(Succeed())
	runningPod(ctx, j)
	Eventually(ctx, charged(ctx, user)).ShouldNot(Equal("0"))
	return runningLoad{user, j}
}

// check waits for the end of the load: each call was acknowledged, and each piece of work charged once.
func (l runningLoad) check(ctx context.Context) {
	GinkgoHelper()
	var logs string
	Eventually(ctx, func(g Gomega) {
		j, err := job(ctx, l.job)()
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(j.Status.Succeeded + j.Status.Failed).To(BeNumerically("==", 1))
		logs = kubectl(ctx, "--namespace", l.job.Namespace, "logs", "job/"+l.job.Name)
		g.Expect(j.Status.Succeeded).To(BeNumerically("==", 1), logs)
	}).WithTimeout(3 * time.Minute).Should(Succeed())
	AddReportEntry("load", logs)
	completed := sql(ctx, fmt.Sprintf(`SELECT count(*) FROM usage_tracking e JOIN users u ON u.id = e.user_id WHERE
	    u.user_id = '%s' AND e.kind = 'charge'`, l.user))
	Expect(logs).To(ContainSubstring(`"completed":` + completed + `,`))
}

// copyBundle copies the certificates that usaged is verified with into the namespace, as a platform team does.
func copyBundle(ctx context.Context, namespace string) {
	GinkgoHelper()
	bundle := &corev1.ConfigMap{}
	Expect(k8s.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: "usage-operator-ca"}, bundle)).To(Succeed())
	bundle.ObjectMeta = metav1.ObjectMeta{Namespace: namespace, Name: bundle.Name}
	Expect(k8s.Create(ctx, bundle)).To(Succeed())
}

// usagedVolume has what a caller of usaged needs: ca.crt and token.
func usagedVolume() corev1.Volume {
	return corev1.Volume{Name: "usaged",
		VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "usaged", Path: "token"}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "usage-operator-ca"}}},
		}}}}
}
