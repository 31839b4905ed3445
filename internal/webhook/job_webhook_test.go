// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// verdict is a JobChecker with one answer.
type verdict struct {
	result metering.CheckResult
	err    error
	// counted are the refusals that it was told of.
	counted *int
}

func (v verdict) CountRefusal(*metering.CheckResult, quota.Credits) { *v.counted++ }

func (v verdict) Check(context.Context, string, quota.Request, time.Duration) (metering.CheckResult, error) {
	return v.result, v.err
}

// A refusal has the status of its reason, the same as over HTTP, whether it was decided or found out before.
func TestRefusalsHaveTheStatusOfTheirReason(t *testing.T) {
	object, err := json.Marshal(&batchv1.Job{ObjectMeta: metav1.ObjectMeta{
		Labels:      map[string]string{v1alpha1.UserLabel: "alice"},
		Annotations: map[string]string{v1alpha1.AudioDurationAnnotation: "1m"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	create := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: object},
	}}
	for _, info := range quota.Reasons {
		counted := 0
		for how, v := range map[string]verdict{
			"decided": {
				result:  metering.CheckResult{Decision: quota.Decision{Reason: info.Reason}},
				counted: &counted,
			},
			"found out": {err: quota.Unknown("alice", info.Reason)},
		} {
			got := (&jobHandler{svc: v, enforce: true}).Handle(t.Context(), create)
			if got.Allowed || int(got.Result.Code) != info.Status || got.Result.Reason == "" ||
				!strings.Contains(got.Result.Message, "alice") {
				t.Errorf("%s %s: got %+v, want status %d", info.Reason, how, got, info.Status)
			}
			warned := (&jobHandler{svc: v}).Handle(t.Context(), create)
			if !warned.Allowed || len(warned.Warnings) != 1 {
				t.Errorf("%s %s where it is only warned of: got %+v", info.Reason, how, warned)
			}
			dry := create
			dry.DryRun = new(true)
			if got := (&jobHandler{svc: v, enforce: true}).Handle(t.Context(), dry); got.Allowed {
				t.Errorf("%s %s as a dry run: got %+v", info.Reason, how, got)
			}
		}
		// One was refused in earnest by a decision about an account.
		if counted != 1 {
			t.Errorf("%s: %d refusals were counted, want 1", info.Reason, counted)
		}
	}
}
