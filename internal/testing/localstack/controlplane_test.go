// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package localstack_test

import (
	"context"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/cantonesescribe/usage-operator/internal/testing/localstack"
)

func TestJobsRunOnTheFakeNode(t *testing.T) {
	dir := t.TempDir()
	ctx, processes := localstack.NewProcesses(t.Context(), dir)
	plane, err := localstack.StartControlPlane(ctx, dir, processes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := processes.StopAll(); err != nil {
			t.Error(err)
		}
		if err := plane.Stop(); err != nil {
			t.Error(err)
		}
	})
	clients, err := kubernetes.NewForConfig(plane.Config)
	if err != nil {
		t.Fatal(err)
	}

	for name, tc := range map[string]struct {
		annotations map[string]string
		want        batchv1.JobConditionType
		wantMessage string
	}{
		"by-default": {
			want: batchv1.JobComplete,
		},
		"with-a-message": {
			annotations: map[string]string{localstack.RunForAnnotation: "10ms",
				localstack.TerminationMessageAnnotation: `{"audio": "1m"}`},
			want:        batchv1.JobComplete,
			wantMessage: `{"audio": "1m"}`,
		},
		"failing": {
			annotations: map[string]string{localstack.RunForAnnotation: "10ms", localstack.ExitCodeAnnotation: "3"},
			want:        batchv1.JobFailed,
		},
	} {
		t.Run(name, func(t *testing.T) {
			jobs := clients.BatchV1().Jobs(metav1.NamespaceDefault)
			if _, err := jobs.Create(ctx, job(name, tc.annotations), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			err := localstack.Eventually(ctx, "the Job is "+string(tc.want), func(ctx context.Context) (bool, error) {
				job, err := jobs.Get(ctx, name, metav1.GetOptions{})
				if err != nil {
					return false, err
				}
				for _, c := range job.Status.Conditions {
					if c.Type == tc.want && c.Status == corev1.ConditionTrue {
						return true, nil
					}
				}
				return false, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			pods, err := clients.CoreV1().Pods(metav1.NamespaceDefault).List(ctx,
				metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + name})
			if err != nil || len(pods.Items) != 1 {
				t.Fatalf("got %d pods, %v, want one", len(pods.Items), err)
			}
			if got := pods.Items[0].Status.ContainerStatuses[0].State.Terminated.Message; got != tc.wantMessage {
				t.Errorf("termination message: got %q, want %q", got, tc.wantMessage)
			}
		})
	}
}

func job(name string, annotations map[string]string) *batchv1.Job {
	never := int32(0)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: batchv1.JobSpec{
			BackoffLimit: &never,
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Annotations: annotations},
				Spec: corev1.PodSpec{
					RestartPolicy: corev1.RestartPolicyNever,
					Containers:    []corev1.Container{{Name: "transcribe", Image: "example.com/transcribe"}},
				},
			},
		},
	}
}
