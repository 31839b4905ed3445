// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/job"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// The paths of the Job webhook. New Jobs have one for each mode of a namespace: config/webhook-job selects by the
// namespace's label, so the handlers need not look it up.
const (
	JobEnforcePath     = "/jobs/enforce"
	JobWarnPath        = "/jobs/warn"
	JobKeepRunningPath = "/jobs/keep-running"
)

// checkTimeout is well below the webhook's own: a slow database must not keep a Job from being created suspended.
const checkTimeout = 2 * time.Second

// JobChecker says what the user's quota would decide on a Job. It reserves nothing.
type JobChecker interface {
	Check(
		ctx context.Context, userID string, req quota.Request, maxAge time.Duration,
	) (metering.CheckResult, error)
	// CountRefusal is told of what is refused because of that.
	CountRefusal(res *metering.CheckResult, asked quota.Credits)
}

// SetupJob registers the webhook for Jobs that carry the user label.
func SetupJob(mgr manager.Manager, svc JobChecker) error {
	server := mgr.GetWebhookServer()
	server.Register(JobEnforcePath, &admission.Webhook{Handler: &jobHandler{svc: svc, enforce: true}})
	server.Register(JobWarnPath, &admission.Webhook{Handler: &jobHandler{svc: svc}})
	server.Register(JobKeepRunningPath, &admission.Webhook{Handler: admission.HandlerFunc(keepRunning)})
	return nil
}

// keepRunning leaves suspend at false in an update that would stop a Job that runs. Only such updates get here.
func keepRunning(context.Context, admission.Request) admission.Response {
	return patchSuspend(true, false).WithWarnings(
		"spec.suspend: is left at false: usage-operator has started the Job, and its pod " +
			"would be deleted; to pause the Job set annotation " + v1alpha1.HoldAnnotation + ": \"true\"")
}

// jobHandler has one side effect: what it refuses is counted, unless it is a dry run.
type jobHandler struct {
	svc     JobChecker
	enforce bool
}

// Handle suspends a new Job and refuses early what its user's quota does not allow; or only warns.
func (h *jobHandler) Handle(ctx context.Context, req admission.Request) admission.Response {
	if req.Operation != admissionv1.Create {
		return admission.Allowed("")
	}
	var object batchv1.Job
	if err := json.Unmarshal(req.Object.Raw, &object); err != nil {
		return admission.Errored(http.StatusBadRequest, fmt.Errorf("decode the Job: %w", err))
	}
	refusal := h.check(ctx, &object, h.enforce && (req.DryRun == nil || !*req.DryRun))
	if !h.enforce {
		response := admission.Allowed("")
		if refusal != nil {
			response = response.WithWarnings("usage-operator would refuse this Job in a namespace that enforces: " +
				refusal.Message)
		}
		return response
	}
	if refusal != nil {
		return admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{Result: refusal}}
	}
	if object.Spec.Suspend != nil && *object.Spec.Suspend {
		return admission.Allowed("")
	}
	// A patch of its own instead of a comparison: fields of a newer API that this program does not know stay untouched.
	return patchSuspend(object.Spec.Suspend != nil, true)
}

// patchSuspend sets suspend, which is there already or is not.
func patchSuspend(present, suspend bool) admission.Response {
	response := admission.Allowed("")
	operation := "add"
	if present {
		operation = "replace"
	}
	response.PatchType = new(admissionv1.PatchTypeJSONPatch)
	response.Patch = fmt.Appendf(nil, `[{"op":%q,"path":"/spec/suspend","value":%t}]`, operation, suspend)
	return response
}

// check returns why the Job would be refused, or nil where it would not or where that cannot be told: the controller
// decides in its turn.
func (h *jobHandler) check(ctx context.Context, object *batchv1.Job, counts bool) *metav1.Status {
	declared, err := job.Parse(object.Labels, object.Annotations)
	if err != nil {
		return nil // What is wrong with it is the policy's to say.
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	res, err := h.svc.Check(ctx, declared.UserID,
		quota.Request{Estimate: declared.Estimate, FileSize: declared.FileSize, Queue: true}, 0)
	if reason := quota.ReasonOf(err); reason != "" {
		return status(reason, err.Error())
	}
	if err != nil {
		logf.FromContext(ctx).Error(err, "The quota could not be checked early, the Job will wait for the controller",
			"user", declared.UserID)
		return nil
	}
	if res.Decision.Outcome != quota.Refuse {
		return nil
	}
	if counts {
		h.svc.CountRefusal(&res, declared.Estimate)
	}
	return status(res.Decision.Reason, refusal(declared.UserID, res))
}

// statusReasons are what Kubernetes calls the statuses of refusals.
var statusReasons = map[int]metav1.StatusReason{
	http.StatusForbidden: metav1.StatusReasonForbidden, http.StatusNotFound: metav1.StatusReasonNotFound,
	http.StatusTooManyRequests:       metav1.StatusReasonTooManyRequests,
	http.StatusRequestEntityTooLarge: metav1.StatusReasonRequestEntityTooLarge,
}

// status is a refusal with the status that the HTTP API has for its reason.
func status(reason quota.Reason, message string) *metav1.Status {
	code := reason.Info().Status
	return &metav1.Status{Status: metav1.StatusFailure, Code: int32(code), Reason: statusReasons[code],
		Message: message}
}

// refusal says what the limit is, what remains, when it resets and which plan would have allowed it.
func refusal(userID string, res metering.CheckResult) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: user %q: %s", res.Decision.Reason, userID, res.Decision.Message())
	whose := ""
	if on := res.On; on.User() != nil {
		if payer := on.Payer(); payer != on.User() {
			whose = " of " + payer.Level().String()
		}
		if plan := on.Payer().Plan; plan != nil {
			fmt.Fprintf(&text, " (plan %q%s)", plan.Name, whose)
		}
		if res.Decision.Reason == quota.CreditsExhausted {
			fmt.Fprintf(&text, "; the period ends and credits reset at %s",
				on.At(res.Decision.Level).Period.End.UTC().Format(time.RFC3339))
		}
	}
	if res.Decision.Reason == quota.DailyCostCeiling && !res.Decision.RetryAt.IsZero() {
		fmt.Fprintf(&text, "; the day ends at %s", res.Decision.RetryAt.UTC().Format(time.RFC3339))
	}
	if res.Upgrade != nil {
		whom := strings.Replace(whose, "of", "for", 1)
		fmt.Fprintf(&text, "; plan %q%s would have allowed it", res.Upgrade.Name, whom)
	}
	return text.String()
}
