//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
)

const (
	// toneFile is a real recording of 1.234 s in the worker's image, and toneCredits what that costs, as people read
	// it.
	toneFile    = "/tone.mp3"
	toneCredits = "0.021"

	// intern is a service account that may spend for nobody.
	intern = "intern"

	secretsFolder = "/var/run/secrets/usage.cantonesescribe.io"
	bundleName    = "usage-operator-ca"
)

// newTeam makes a namespace in which pods can reach usaged, with a service account that may spend for the users and one
// that may not.
func newTeam(ctx context.Context, users ...string) string {
	GinkgoHelper()
	namespace := newNamespace(ctx, users...)
	Expect(k8s.Create(ctx, &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: intern}})).To(Succeed())
	bundle := &corev1.ConfigMap{}
	Expect(k8s.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: bundleName}, bundle)).To(Succeed())
	Expect(k8s.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: bundleName},
		Data: bundle.Data})).To(Succeed())
	return namespace
}

// wrap puts usage-run with these flags around the command of a pod, as its documentation says. The audio is the
// recording.
func wrap(spec *corev1.PodSpec, flags ...string) {
	container := &spec.Containers[0]
	container.Command = append(append([]string{"/usage-run", "--audio=" + toneFile}, flags...), "--", "/worker")
	container.Env = append(container.Env, corev1.EnvVar{Name: "USAGE_CA_FILE", Value: secretsFolder + "/ca.crt"})
	container.VolumeMounts = append(container.VolumeMounts,
		corev1.VolumeMount{Name: "usage", MountPath: secretsFolder, ReadOnly: true},
		corev1.VolumeMount{Name: "podinfo", MountPath: "/etc/podinfo", ReadOnly: true})
	spec.Volumes = append(spec.Volumes,
		corev1.Volume{Name: "usage", VolumeSource: corev1.VolumeSource{
			Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "usaged"}},
				{ConfigMap: &corev1.ConfigMapProjection{
					LocalObjectReference: corev1.LocalObjectReference{Name: bundleName},
					Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
				}},
			}}}},
		corev1.Volume{Name: "podinfo", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
			Items: []corev1.DownwardAPIVolumeFile{
				{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}},
		}}})
}

// newTranscription returns a Job whose pod runs the wrapped worker; it declares ten minutes of audio.
func newTranscription(namespace, name, user string, args ...string) *batchv1.Job {
	j := newJob(namespace, name, user, args...)
	j.Annotations[v1alpha1.AudioDurationAnnotation] = "10m"
	j.Spec.BackoffLimit = new(int32(0))
	wrap(&j.Spec.Template.Spec)
	return j
}

// newPod returns a pod without a Job that runs the wrapped worker.
func newPod(namespace, name string, args ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       newJob(namespace, name, "", args...).Spec.Template.Spec,
	}
}

// says is what the operator says of a Job: its state and the message.
func says(ctx context.Context, j *batchv1.Job) func() (string, error) {
	return func() (string, error) {
		got, err := job(ctx, j)()
		return strings.TrimSpace(got.Annotations[v1alpha1.StateAnnotation] + ": " +
			got.Annotations[v1alpha1.MessageAnnotation]), err
	}
}

// condition returns the Job's terminal condition, if it has one.
func condition(ctx context.Context, j *batchv1.Job) func() (batchv1.JobConditionType, error) {
	return func() (batchv1.JobConditionType, error) {
		got, err := job(ctx, j)()
		for _, c := range got.Status.Conditions {
			if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
				return c.Type, err
			}
		}
		return "", err
	}
}

// phase returns where a pod is; the pod is read anew.
func phase(ctx context.Context, p *corev1.Pod) func() (corev1.PodPhase, error) {
	return func() (corev1.PodPhase, error) {
		err := k8s.Get(ctx, client.ObjectKeyFromObject(p), p)
		return p.Status.Phase, err
	}
}

// logs of a pod, for what usage-run says.
func logs(ctx context.Context, namespace, pod string) string {
	GinkgoHelper()
	return kubectl(ctx, "--namespace", namespace, "logs", pod)
}

// shows waits until `kubectl get userquotas` says that the user has used and still has that many credits, and runs
// nothing.
func shows(ctx context.Context, user, used, remaining string) {
	GinkgoHelper()
	Eventually(ctx, func() (string, error) {
		text, err := tryKubectl(ctx, "get", "userquotas", user, "--no-headers")
		columns := strings.Fields(text)
		if err != nil || len(columns) < 7 {
			return text, err
		}
		return fmt.Sprintf("used %s, remaining %s, running %s", columns[3], columns[5], columns[6]), nil
	}).Should(HavePrefix("used %s, remaining %s, running 0/", used, remaining))
	picture(ctx, "get", "userquotas", user)
}

// unrelated is a Job that has nothing to do with any quota.
func unrelated(namespace string) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "unrelated"},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{
				{Name: "work", Image: os.Getenv("WORKER_IMG"), Args: []string{"exit", "0"}}},
		}}},
	}
}
