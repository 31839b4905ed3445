// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os/exec"
	"strconv"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/testing/localstack"
)

const (
	namespace = "crash"
	// How many users there are of each kind. Those of the Jobs are on the plan tight, too.
	looseUsers, tightUsers, poorUsers, jobUsers = 2000, 8, 8, 2
	// rollEvery is how far apart the ends of the poor users' periods are.
	rollEvery = 15 * time.Second

	// liveJobs is how many Jobs there are at most that are not over.
	liveJobs    = 4
	jobInterval = 2 * time.Second
)

//go:embed cluster.yaml
var manifests []byte

// cluster is what the run has in Kubernetes.
type cluster struct {
	plane   *localstack.ControlPlane
	clients *kubernetes.Clientset
	// tokens of the clients, for usaged.
	tokens []string

	mu   sync.Mutex
	jobs map[string]jobEntry // by UID
}

// jobEntry is a Job that the API server has taken.
type jobEntry struct {
	name     string
	declared int64 // ms
}

func tight(i int) string { return "tight-" + strconv.Itoa(i) }
func poor(i int) string  { return "poor-" + strconv.Itoa(i) }
func loose(i int) string { return "loose-" + strconv.Itoa(i) }

// declare makes plans, teams, quotas, an endpoint and rights, and waits until the manager has taken them.
func declare(ctx context.Context, plane *localstack.ControlPlane, endpoint string) (*cluster, error) {
	c := &cluster{plane: plane, jobs: map[string]jobEntry{}}
	var err error
	if c.clients, err = kubernetes.NewForConfig(plane.Config); err != nil {
		return nil, err
	}
	objects := bytes.NewBuffer(bytes.Clone(manifests))
	userQuota := func(user, plan string, since time.Time) {
		fmt.Fprintf(objects,
			"---\napiVersion: %s\nkind: UserQuota\nmetadata: {name: %s}\nspec: {userID: %s, planRef: {name: %s}, "+
				"accountCreatedAt: %q}\n",
			v1alpha1.GroupVersion, user, user, plan, since.UTC().Format(time.RFC3339))
	}
	now := time.Now()
	for i := range tightUsers {
		userQuota(tight(i), "tight", now)
	}
	for i := range jobUsers {
		userQuota(jobUser(i), "tight", now)
	}
	for i := range poorUsers {
		// The anniversary of their account is soon.
		userQuota(poor(i), "poor", now.Add(30*time.Second+time.Duration(i)*rollEvery).AddDate(-1, 0, 0))
	}
	objects.WriteString(teamObjects(now))
	objects.WriteString(endpoint)
	if err := c.kubectl(ctx, objects.Bytes(), "apply", "--server-side", "--filename=-"); err != nil {
		return nil, err
	}
	if err := c.kubectl(ctx, nil, "wait", "--for=condition=Ready", "--timeout=120s",
		"usageplans,userquotas,usageteams,notificationendpoints", "--all"); err != nil {
		return nil, err
	}
	for i := range 2 {
		token, err := plane.Token(ctx, namespace, fmt.Sprintf("client-%d", i), "usaged")
		if err != nil {
			return nil, err
		}
		c.tokens = append(c.tokens, token)
	}
	return c, nil
}

func jobUser(i int) string { return "job-" + strconv.Itoa(i) }

func (c *cluster) kubectl(ctx context.Context, stdin []byte, args ...string) error {
	cmd := exec.CommandContext(ctx, c.plane.Kubectl(),
		append([]string{"--kubeconfig=" + c.plane.Kubeconfig}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// submitJobs keeps a handful of Jobs in the cluster until done is closed.
func (c *cluster) submitJobs(ctx context.Context, done <-chan struct{}) error {
	tick := time.NewTicker(jobInterval)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		live, err := c.unsettledJobs(ctx)
		if err != nil {
			return err
		}
		if len(live) >= liveJobs {
			continue
		}
		if err := c.submitJob(ctx, n); err != nil {
			return err
		}
	}
}

func (c *cluster) submitJob(ctx context.Context, n int) error {
	declared := time.Duration(n%7+1) * time.Minute
	annotations := map[string]string{localstack.RunForAnnotation: "1s"}
	if n%5 == 4 {
		annotations[localstack.ExitCodeAnnotation] = "1"
	}
	suspended, never := true, int32(0)
	job, err := c.clients.BatchV1().Jobs(namespace).Create(ctx, &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name:   fmt.Sprintf("job-%d", n),
			Labels: map[string]string{v1alpha1.UserLabel: jobUser(n % jobUsers)},
			Annotations: map[string]string{v1alpha1.AudioDurationAnnotation: declared.String(),
				v1alpha1.FileSizeAnnotation: "1Mi"},
		},
		Spec: batchv1.JobSpec{
			// The webhook would do it, unless the manager was just killed.
			Suspend: &suspended, BackoffLimit: &never,
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Annotations: annotations},
				Spec: corev1.PodSpec{
					ServiceAccountName: "client-0", RestartPolicy: corev1.RestartPolicyNever,
					Containers: []corev1.Container{{Name: "transcribe", Image: "example.com/transcribe:crash"}},
				},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create a Job: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jobs[string(job.UID)] = jobEntry{name: job.Name, declared: declared.Milliseconds()}
	return nil
}

// unsettledJobs names those whose end the controller has not booked.
func (c *cluster) unsettledJobs(ctx context.Context) ([]string, error) {
	list, err := c.clients.BatchV1().Jobs(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the Jobs: %w", err)
	}
	var live []string
	for i := range list.Items {
		state := list.Items[i].Annotations[v1alpha1.StateAnnotation]
		if state != v1alpha1.StateSettled && state != v1alpha1.StateReleased {
			live = append(live, list.Items[i].Name+" "+state)
		}
	}
	return live, nil
}

// outcomes tells of every Job whether it completed (true) or failed; one that did neither is missing.
func (c *cluster) outcomes(ctx context.Context) (map[string]bool, error) {
	list, err := c.clients.BatchV1().Jobs(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the Jobs: %w", err)
	}
	outcomes := map[string]bool{}
	for i := range list.Items {
		for _, condition := range list.Items[i].Status.Conditions {
			if condition.Status == corev1.ConditionTrue &&
				(condition.Type == batchv1.JobComplete || condition.Type == batchv1.JobFailed) {
				outcomes[string(list.Items[i].UID)] = condition.Type == batchv1.JobComplete
			}
		}
	}
	return outcomes, nil
}
