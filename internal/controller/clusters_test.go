// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// storedPlans are the plans that the ledger has.
type storedPlans struct {
	declarations

	rows []*metering.Plan
}

// declarations is Plans by a name that does not meet the method's.
type declarations = Plans

func (s *storedPlans) Plans(context.Context) ([]*metering.Plan, error) { return s.rows, nil }

// ownedQuotas is a ledger in which every user is some cluster's.
type ownedQuotas struct {
	Quotas

	home    quota.ClusterUID
	applied int
}

func (o *ownedQuotas) UsageOf(_ context.Context, userIDs []string) (map[string]ledger.Usage, error) {
	usages := map[string]ledger.Usage{}
	for _, user := range userIDs {
		usages[user] = ledger.Usage{Home: o.home}
	}
	return usages, nil
}

func (o *ownedQuotas) ApplyQuota(context.Context, metering.Quota, string) error {
	o.applied++
	return &ledger.OwnedError{Subject: "the user", Cluster: o.home}
}

// Of the plans that have no object in this cluster only its own are missed: not those of another one, though nothing
// would come of it, nor what is retired or was never an object's.
func TestPlansOfOthersAreNotMissed(t *testing.T) {
	env := kubetest.Shared(t)
	ours, theirs := quota.ClusterUID{1}, quota.ClusterUID{2}
	row := func(name string, home quota.ClusterUID, change ...func(*metering.Plan)) *metering.Plan {
		return new(plans.Free(append(change, func(p *metering.Plan) { p.Name, p.Cluster = name, home })...))
	}
	wake := make(chan event.GenericEvent, 10)
	sweeper := &planSweeper{client: env.Client, cluster: Cluster{UID: ours}, wake: wake, plans: &storedPlans{
		rows: []*metering.Plan{
			row("theirs", theirs), row("first-ones", quota.ClusterUID{}), row("gone", ours),
			row("retired", ours, func(p *metering.Plan) { p.Retired = true }),
			row("by-hand", ours, func(p *metering.Plan) { p.ObjectUID = quota.ObjectUID{} }),
		},
	}}
	if err := sweeper.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(wake)
	var missed []string
	for e := range wake {
		missed = append(missed, e.Object.GetName())
	}
	if len(missed) != 1 || missed[0] != "gone" {
		t.Errorf("missed %v, want the one that is gone", missed)
	}
}

// What another cluster's UserQuota declares about a user is not even tried to be replaced.
func TestQuotasOfOthersAreNotApplied(t *testing.T) {
	quotas := &ownedQuotas{home: quota.ClusterUID{2}}
	r := &userQuotaReconciler{quotas: quotas, cluster: Cluster{UID: quota.ClusterUID{1}}}
	q := &v1alpha1.UserQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "alice", UID: "0d8c4bd2-6b2c-4b34-9d9e-9c44b35f3a11"},
		Spec:       v1alpha1.UserQuotaSpec{UserID: "alice", TimeZone: "UTC"},
	}
	if err := r.sync(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	accepted := meta.FindStatusCondition(q.Status.Conditions, v1alpha1.ConditionAccepted)
	if accepted == nil || accepted.Reason != v1alpha1.ReasonOwnedByAnotherCluster {
		t.Errorf("Accepted is %+v", accepted)
	}
	if quotas.applied > 0 {
		t.Error("it was applied")
	}
}
