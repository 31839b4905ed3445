// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// pollPage is how many users one query asks about.
const pollPage = 1000

// standingPoller reads where all users with a UserQuota stand, and queues the objects whose status would change or
// whose row somebody changed. So writes follow the number of objects, however much the users do.
type standingPoller struct {
	client   client.Client
	quotas   Quotas
	interval time.Duration
	// resync is how often grants are looked at as well.
	resync time.Duration
	wake   chan<- event.GenericEvent
}

// NeedLeaderElection is true: the controller that it feeds runs on the leader.
func (*standingPoller) NeedLeaderElection() bool { return true }

// Start polls until ctx ends.
func (p *standingPoller) Start(ctx context.Context) error {
	var resynced time.Time
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		whole := time.Since(resynced) >= p.resync
		err := p.poll(ctx, whole)
		report(ctx, err, "read where the users stand")
		if err == nil && whole {
			resynced = time.Now()
		}
	}, p.interval)
	return nil
}

func (p *standingPoller) poll(ctx context.Context, whole bool) error {
	var list v1alpha1.UserQuotaList
	// Only read; what is changed is a copy.
	if err := p.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	alive := sets.New[quota.ID]()
	for i := range list.Items {
		if id, err := convert.UID(list.Items[i].UID); err == nil {
			alive.Insert(id)
		}
	}
	for page := range slices.Chunk(list.Items, pollPage) {
		users := sets.New[string]()
		for i := range page {
			users.Insert(page[i].Spec.UserID)
		}
		usages, err := p.quotas.UsageOf(ctx, sets.List(users))
		if err != nil {
			return err
		}
		had, err := p.grants(ctx, whole, page)
		if err != nil {
			return err
		}
		for i := range page {
			q := &page[i]
			usage, found := usages[q.Spec.UserID]
			if !had.lack(q) && !stale(q, usage, found, alive) {
				continue
			}
			if err := enqueue(ctx, p.wake, q); err != nil {
				return err
			}
		}
	}
	return nil
}

// grantsHad are the names of the grants that users have had; nil where it was not asked for.
type grantsHad map[string][]string

// grants reads what those users have had of grants whose UserQuotas declare some.
func (p *standingPoller) grants(ctx context.Context, whole bool, page []v1alpha1.UserQuota) (grantsHad, error) {
	users := sets.New[string]()
	for i := range page {
		if whole && len(page[i].Spec.Grants) > 0 {
			users.Insert(page[i].Spec.UserID)
		}
	}
	if len(users) == 0 {
		return nil, nil
	}
	had, err := p.quotas.GrantsOf(ctx, sets.List(users))
	return had, err
}

// lack reports whether a UserQuota that is in force declares a grant that its user has not had.
func (had grantsHad) lack(q *v1alpha1.UserQuota) bool {
	if had == nil || len(q.Spec.Grants) == 0 || !settled(q) {
		return false
	}
	declared, err := convert.Quota(q)
	return err == nil && lacksGrant(declared, had[q.Spec.UserID])
}

// stale reports whether a UserQuota needs to be looked at. Those whose spec has not been worked on are in the queue
// anyway.
func stale(q *v1alpha1.UserQuota, usage ledger.Usage, found bool, alive sets.Set[quota.ID]) bool {
	if !q.DeletionTimestamp.IsZero() || q.Status.ObservedGeneration != q.Generation {
		return false
	}
	accepted := meta.FindStatusCondition(q.Status.Conditions, v1alpha1.ConditionAccepted)
	switch {
	case accepted != nil && accepted.Reason == v1alpha1.ReasonConflict:
		// The object that was there first is gone.
		return !found || !alive.Has(usage.QuotaUID)
	case accepted != nil && accepted.Reason == v1alpha1.ReasonInvalid:
		return false // until its spec changes
	}
	if found && usage.Unreadable != nil {
		return !saysUnreadable(q, usage.Unreadable.Error())
	}
	if saysUnreadable(q, "") {
		return true // no longer
	}
	if !settled(q) {
		return false
	}
	declared, err := convert.Quota(q)
	if err != nil || !found || drifted(declared, usage) {
		return true
	}
	would := q.DeepCopy()
	inForce(would, usage)
	return !equality.Semantic.DeepEqual(would.Status, q.Status)
}

// saysUnreadable reports whether a UserQuota says that its user's account cannot be read, for that reason if one is
// given.
func saysUnreadable(q *v1alpha1.UserQuota, why string) bool {
	synced := meta.FindStatusCondition(q.Status.Conditions, v1alpha1.ConditionSynced)
	return synced != nil && synced.Reason == v1alpha1.ReasonAccountUnreadable && (why == "" || synced.Message == why)
}
