// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	batchac "k8s.io/client-go/applyconfigurations/batch/v1"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"
	metaac "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/reset"
)

const (
	// batchServiceAccount has no rights in the cluster: a reset needs the database only.
	batchServiceAccount = "usage-operator-batch"
	// The Secret that has the database's URL.
	databaseSecret    = "usage-operator-database"
	databaseSecretKey = "url"
	// The Secret with what the URL may name by path: ca.crt, and tls.crt and tls.key of a client.
	databaseTLSSecret = "usage-operator-database-tls"
	databaseTLSPath   = "/var/run/usage-operator/database-tls"
	// planLabel names the plan that a CronJob and its Jobs and pods reset.
	planLabel = v1alpha1.Group + "/plan"
)

// CronJobName is the name of a plan's reset CronJob: a hash, because Jobs append to it and a plan's name may fill the
// 52 characters by itself.
func CronJobName(plan string) string {
	sum := sha256.Sum256([]byte(plan))
	return "usage-reset-" + hex.EncodeToString(sum[:16])
}

// resetCronJob is the CronJob that closes a plan's periods. Every field that would change what it does is given, so
// that applying it again undoes any change.
func resetCronJob(plan *v1alpha1.UsagePlan, namespace, image string) *batchac.CronJobApplyConfiguration {
	labels := map[string]string{
		"app.kubernetes.io/name":       "usage-operator",
		"app.kubernetes.io/component":  "reset",
		"app.kubernetes.io/managed-by": "usage-operator",
		planLabel:                      plan.Name,
	}
	args := []string{"reset", "--plan", plan.Name}
	if plan.Spec.Default {
		// One of the plans has to look after those whose own CronJob went with their object, and there is one default
		// plan at most.
		args = append(args, "--retired")
	}
	container := coreac.Container().
		WithName("reset").
		WithImage(image).
		WithCommand("/usage-batch").
		WithArgs(args...).
		WithEnv(coreac.EnvVar().WithName("DATABASE_URL").WithValueFrom(coreac.EnvVarSource().WithSecretKeyRef(
			coreac.SecretKeySelector().WithName(databaseSecret).WithKey(databaseSecretKey)))).
		WithVolumeMounts(coreac.VolumeMount().WithName("database-tls").WithMountPath(
			databaseTLSPath).WithReadOnly(true)).
		WithResources(coreac.ResourceRequirements().
			WithRequests(corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m"),
				corev1.ResourceMemory: resource.MustParse("64Mi")}).
			WithLimits(corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")})).
		WithSecurityContext(coreac.SecurityContext().
			WithAllowPrivilegeEscalation(false).
			WithReadOnlyRootFilesystem(true).
			WithCapabilities(coreac.Capabilities().WithDrop("ALL")))
	pod := coreac.PodTemplateSpec().
		WithLabels(labels).
		WithSpec(coreac.PodSpec().
			WithRestartPolicy(corev1.RestartPolicyNever).
			WithServiceAccountName(batchServiceAccount).
			WithAutomountServiceAccountToken(false).
			WithSecurityContext(coreac.PodSecurityContext().
				WithRunAsNonRoot(true).
				WithSeccompProfile(coreac.SeccompProfile().WithType(corev1.SeccompProfileTypeRuntimeDefault))).
			WithVolumes(coreac.Volume().WithName("database-tls").WithSecret(
				coreac.SecretVolumeSource().WithSecretName(databaseTLSSecret).WithOptional(true))).
			WithContainers(container))
	return batchac.CronJob(CronJobName(plan.Name), namespace).
		WithLabels(labels).
		// Nothing blocks on the CronJob: a plan's deletion waits for nobody.
		WithOwnerReferences(metaac.OwnerReference().
			WithAPIVersion(v1alpha1.GroupVersion.String()).WithKind("UsagePlan").WithName(plan.Name).WithUID(plan.UID).
			WithController(true).WithBlockOwnerDeletion(false)).
		WithSpec(batchac.CronJobSpec().
			WithSchedule(plan.Spec.Reset.Schedule).
			WithTimeZone("Etc/UTC").
			WithConcurrencyPolicy(batchv1.ForbidConcurrent).
			WithSuspend(false).
			WithStartingDeadlineSeconds(int64(reset.StartingDeadline / time.Second)).
			WithSuccessfulJobsHistoryLimit(1).
			WithFailedJobsHistoryLimit(3).
			WithJobTemplate(batchac.JobTemplateSpec().
				WithLabels(labels).
				WithSpec(batchac.JobSpec().
					WithBackoffLimit(2).
					WithActiveDeadlineSeconds(int64(reset.ActiveDeadline / time.Second)).
					WithTemplate(pod))))
}
