//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
)

// ownLabel marks the namespaces of the specs.
const ownLabel = "e2e.usage.cantonesescribe.io/spec"

// serviceAccount may spend in the specs' namespaces.
const serviceAccount = "transcriber"

// newUser returns a user of the spec's own: on the default plan, or the named one.
func newUser(ctx context.Context, plan string) string {
	GinkgoHelper()
	user := "user-" + rand.String(6)
	if plan != "" {
		quota := &v1alpha1.UserQuota{
			ObjectMeta: metav1.ObjectMeta{Name: user},
			Spec:       v1alpha1.UserQuotaSpec{UserID: user, PlanRef: &v1alpha1.PlanReference{Name: plan}},
		}
		Expect(k8s.Create(ctx, quota)).To(Succeed())
		kubectl(ctx, "wait", "--for=condition=Ready", "userquota/"+user, "--timeout=1m")
	}
	return user
}

// newPlan makes a plan of the spec's own out of one of the samples, whose users may make any number of calls: loads
// make more in a second than the samples allow in an hour.
func newPlan(ctx context.Context, like string, change func(spec *v1alpha1.UsagePlanSpec)) string {
	GinkgoHelper()
	sample := &v1alpha1.UsagePlan{}
	Expect(k8s.Get(ctx, client.ObjectKey{Name: like}, sample)).To(Succeed())
	plan := &v1alpha1.UsagePlan{ObjectMeta: metav1.ObjectMeta{Name: like + "-" + rand.String(5)}, Spec: sample.Spec}
	plan.Spec.Default = false
	plan.Spec.RateLimit = v1alpha1.UsagePlanRateLimit{Requests: 1_000_000, WindowSeconds: 1}
	change(&plan.Spec)
	Expect(k8s.Create(ctx, plan)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(k8s.Delete(ctx, plan)).To(Succeed()) }, NodeTimeout(timeout))
	kubectl(ctx, "wait", "--for=condition=Ready", "usageplan/"+plan.Name, "--timeout=1m")
	return plan.Name
}

// newNamespace makes a namespace whose service account transcriber may spend for the users.
func newNamespace(ctx context.Context, users ...string) string {
	GinkgoHelper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-",
		Labels: map[string]string{ownLabel: "yes"}}}
	Expect(k8s.Create(ctx, ns)).To(Succeed())
	meta := metav1.ObjectMeta{Namespace: ns.Name, Name: serviceAccount}
	for _, object := range []client.Object{
		&corev1.ServiceAccount{ObjectMeta: meta},
		&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{v1alpha1.Group}, Resources: []string{"users"}, ResourceNames: users,
				Verbs: []string{"spend"}},
		}},
		&rbacv1.RoleBinding{
			ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: serviceAccount},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: ns.Name, Name: serviceAccount}},
		},
	} {
		Expect(k8s.Create(ctx, object)).To(Succeed())
	}
	// The API server's authorizer follows RBAC's objects a moment later.
	for _, user := range users {
		Eventually(ctx, func() (bool, error) {
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
				User: "system:serviceaccount:" + ns.Name + ":" + serviceAccount,
				ResourceAttributes: &authorizationv1.ResourceAttributes{
					Namespace: ns.Name, Verb: v1alpha1.SpendVerb, Group: v1alpha1.Group,
					Resource: v1alpha1.UsersResource, Name: user,
				},
			}}
			err := k8s.Create(ctx, review)
			return review.Status.Allowed, err
		}).Should(BeTrue())
	}
	return ns.Name
}

// newJob returns a Job of the user whose pod runs the worker with the arguments; it declares one minute of audio.
func newJob(namespace, name, user string, args ...string) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, Labels: map[string]string{v1alpha1.UserLabel: user},
			Annotations: map[string]string{v1alpha1.AudioDurationAnnotation: "1m"},
		},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			ServiceAccountName:            serviceAccount,
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: new(int64(5)),
			Containers: []corev1.Container{{
				Name: "transcribe", Image: os.Getenv("WORKER_IMG"), Args: args,
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"),
						corev1.ResourceMemory: resource.MustParse("32Mi")},
					Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("96Mi")},
				},
			}},
		}}},
	}
}

// job reads the Job; for Eventually.
func job(ctx context.Context, j *batchv1.Job) func() (*batchv1.Job, error) {
	return func() (*batchv1.Job, error) {
		got := &batchv1.Job{}
		return got, k8s.Get(ctx, client.ObjectKeyFromObject(j), got)
	}
}

// haveState matches a Job by what the operator says of it.
func haveState(state string) OmegaMatcher {
	return WithTransform(func(j *batchv1.Job) string { return j.Annotations[v1alpha1.StateAnnotation] }, Equal(state))
}

// podsOf returns the Job's pods.
func podsOf(ctx context.Context, namespace, name string) []corev1.Pod {
	GinkgoHelper()
	var pods corev1.PodList
	Expect(k8s.List(ctx, &pods, client.InNamespace(namespace),
		client.MatchingLabels{batchv1.JobNameLabel: name})).To(Succeed())
	return pods.Items
}

// runningPod waits for the Job's pod to run and returns it.
func runningPod(ctx context.Context, j *batchv1.Job) *corev1.Pod {
	GinkgoHelper()
	var running *corev1.Pod
	Eventually(ctx, func() *corev1.Pod {
		for _, pod := range podsOf(ctx, j.Namespace, j.Name) {
			if pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil {
				running = &pod
			}
		}
		return running
	}).ShouldNot(BeNil(), "no pod of Job %s runs", j.Name)
	return running
}

// gone tells whether the object no longer exists.
func gone(ctx context.Context, object client.Object) func() (bool, error) {
	return func() (bool, error) {
		err := k8s.Get(ctx, client.ObjectKeyFromObject(object), object)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	}
}

// sql asks the development database.
func sql(ctx context.Context, query string) string {
	GinkgoHelper()
	out, err := trySQL(ctx, query)
	Expect(err).NotTo(HaveOccurred())
	return out
}

func trySQL(ctx context.Context, query string) (string, error) {
	out, err := tryKubectl(ctx, "--namespace", systemNamespace, "exec", "usage-operator-postgres-0", "--",
		"psql", "--username=usage", "--dbname=usage", "--no-align", "--tuples-only", "--command", query)
	return strings.TrimSpace(out), err
}

// charged is what the ledger has charged the user, in minutes of audio.
func charged(ctx context.Context, user string) func() (string, error) {
	return func() (string, error) {
		return trySQL(ctx, fmt.Sprintf(`SELECT trim_scale(coalesce(sum(e.credits), 0) / 60000.0) FROM usage_tracking e
		    JOIN users u ON u.id = e.user_id
			WHERE u.user_id = '%s' AND e.kind = 'charge'`, user))
	}
}

func lines(text string) []string { return strings.Fields(text) }

func containsAny(s string, parts ...string) bool {
	for _, part := range parts {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

// lockedBuffer is a buffer that a process writes while a spec reads.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

// String returns what was written so far.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// scaleManager waits until that many managers are ready and no other is left, and until the API server reaches their
// webhooks, which takes a moment longer.
func scaleManager(ctx SpecContext, replicas int) {
	GinkgoHelper()
	kubectl(ctx, "--namespace", systemNamespace, "scale", "deployment", "usage-operator-manager", "--replicas",
		string('0'+rune(replicas)))
	Eventually(ctx, func(g Gomega) {
		var pods corev1.PodList
		g.Expect(k8s.List(ctx, &pods, client.InNamespace(systemNamespace),
			client.MatchingLabels{"app.kubernetes.io/component": "manager"})).To(Succeed())
		g.Expect(pods.Items).To(HaveLen(replicas))
		g.Expect(ready(ctx, "manager")).To(Equal(replicas))
	}).Should(Succeed())
	if replicas == 0 {
		return
	}
	Eventually(ctx, func() error {
		_, err := tryKubectlWith(ctx, wrongPlan, "create", "--dry-run=server", "--filename", "-")
		return err
	}).Should(MatchError(ContainSubstring("spec.reset.schedule")))
}

// wrongPlan is one that nobody but the webhook knows to be wrong.
const wrongPlan = `
apiVersion: usage.cantonesescribe.io/v1alpha1
kind: UsagePlan
metadata: {name: never}
spec: {displayName: Never reset, rank: 1, limits: {credits: 1, fileSize: 1Mi, concurrent: 1},
  reset: {schedule: "0 0 31 2 *"}}
`
