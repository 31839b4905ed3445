// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
)

// Ready says why by what is wrong, not by what could not be told because of that.
func TestSumUp(t *testing.T) {
	const yes, no, unknown = metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown
	for name, tc := range map[string]struct {
		first, second metav1.ConditionStatus
		want          string
	}{
		"all true":          {yes, yes, v1alpha1.ReasonReady},
		"the first false":   {no, no, "First"},
		"the second false":  {yes, no, "Second"},
		"unknown and false": {unknown, no, "Second"},
		"false and unknown": {no, unknown, "First"},
		"both unknown":      {unknown, unknown, "First"},
		"not there":         {yes, "", v1alpha1.ReasonProgressing},
		"not there, false":  {"", no, "Second"},
	} {
		var list []metav1.Condition
		for kind, status := range map[string]metav1.ConditionStatus{"First": tc.first, "Second": tc.second} {
			if status != "" {
				meta.SetStatusCondition(&list, metav1.Condition{Type: kind, Status: status, Reason: kind})
			}
		}
		conditions{&list, 1}.sumUp("ready", "First", "Second")
		got := meta.FindStatusCondition(list, v1alpha1.ConditionReady)
		if got.Reason != tc.want || (got.Status == yes) != (tc.want == v1alpha1.ReasonReady) {
			t.Errorf("%s: got %s %s, want %s", name, got.Status, got.Reason, tc.want)
		}
	}
}

// What was read before the last write does not write over it.
func TestStaleStatusIsNotWritten(t *testing.T) {
	c := kubetest.Shared(t).Client
	q := &v1alpha1.UserQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "stale"}, Spec: v1alpha1.UserQuotaSpec{UserID: "stale"},
	}
	if err := c.Create(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Delete(context.Background(), q); err != nil {
			t.Error(err)
		}
	})
	stale := q.DeepCopy()
	write := func(before *v1alpha1.UserQuota, plan string) error {
		after := before.DeepCopy()
		after.Status.Plan = plan
		return writeStatus(t.Context(), c, before, after)
	}
	if err := write(q, "pro"); err != nil {
		t.Fatal(err)
	}
	if err := write(stale, "free"); !errors.Is(err, errStale) {
		t.Errorf("got %v, want %v", err, errStale)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(q), q); err != nil || q.Status.Plan != "pro" {
		t.Errorf("plan %q, %v, want what was written first", q.Status.Plan, err)
	}
	if res, err := later(reconcile.Result{}, errors.Join(errStale)); err != nil || res.RequeueAfter == 0 {
		t.Errorf("got %+v, %v, want another try soon", res, err)
	}
}
