// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// pollPage is how many users one query asks about.
	pollPage = 1000
	// patrolTime is in what time all users are looked at though nothing is known to have changed.
	patrolTime = 10 * time.Minute
)

// standingPoller queues the UserQuotas whose status would change or whose row somebody changed. So writes follow the
// number of objects, however much the users do. It reads where those users stand whose account was written since it
// last asked, or whose standing the time has moved; all of them at the start, and a few at each turn, so that what
// nothing tells of, such as a status that somebody has edited, is found in the end.
type standingPoller struct {
	client  client.Client
	quotas  Quotas
	records QuotaRecords
	cluster Cluster
	// interval is how often it polls.
	interval time.Duration
	// resync is how often those are looked at of whom something may change that no account tells of: that have grants,
	// which a restored database may lack, and that are not ready, for a plan that another cluster may make. resynced is
	// when they were last.
	resync   time.Duration
	resynced time.Time
	// patrol are the users that are still to be looked at though nothing is known to have changed, share how many at a
	// time, and setOut when it began.
	patrol []string
	share  int
	setOut time.Time
	wake   chan<- event.GenericEvent

	alerts alertEvents
	// mark is what the next poll asks for changes since.
	mark ledger.Mark
	// moves has all users with a UserQuota that the ledger knows, and when to look at them again though nobody changes
	// anything; zero for those that have no object here.
	moves map[string]time.Time
}

func (p *standingPoller) pollOnce(ctx context.Context) error {
	whole := time.Since(p.resynced) >= p.resync
	err := report(ctx, p.poll(ctx, whole), "read where the users stand")
	if err == nil && whole {
		p.resynced = time.Now()
	}
	return err
}

func (p *standingPoller) poll(ctx context.Context, whole bool) error {
	changes, err := p.records.QuotaChanges(ctx, p.mark)
	if err == nil && !changes.Everything && p.lost(&changes) {
		changes, err = p.records.QuotaChanges(ctx, ledger.Mark{})
	}
	if err != nil {
		return err
	}
	objects, err := p.objects(ctx, &changes, whole)
	if err != nil {
		return err
	}
	for page := range slices.Chunk(slices.Sorted(maps.Keys(objects)), pollPage) {
		if err := p.look(ctx, page, objects, whole); err != nil {
			return err
		}
	}
	if !changes.Everything {
		for _, user := range changes.Users {
			// Once more: whoever works on the object may have read the standing before it changed.
			p.moves[user] = changes.Now
		}
	}
	p.mark = changes.Mark
	return nil
}

// lost reports whether an account has a UserQuota no more that had one when it was last asked for.
func (p *standingPoller) lost(changes *ledger.QuotaChanges) bool {
	for _, user := range changes.Users {
		if _, known := p.moves[user]; !known {
			p.moves[user] = time.Time{}
		}
	}
	return len(p.moves) != changes.Owned
}

// objects returns the UserQuotas to be looked at, by user: all of them, or those of users that have changed or were to
// be looked at by now. They are only read; what is changed is a copy.
func (p *standingPoller) objects(
	ctx context.Context, changes *ledger.QuotaChanges, whole bool,
) (map[string][]*v1alpha1.UserQuota, error) {
	byUser := map[string][]*v1alpha1.UserQuota{}
	if changes.Everything {
		p.moves = make(map[string]time.Time, len(changes.Users))
		for _, user := range changes.Users {
			p.moves[user] = time.Time{}
		}
		all, err := p.list(ctx)
		for i := range all {
			byUser[all[i].Spec.UserID] = append(byUser[all[i].Spec.UserID], &all[i])
		}
		return byUser, err
	}
	users := sets.New(changes.Users...)
	for user, at := range p.moves {
		if !at.IsZero() && !at.After(changes.Now) {
			users.Insert(user)
		}
	}
	begin := time.Since(p.setOut) >= patrolTime
	if whole || begin {
		all, err := p.list(ctx)
		if err != nil {
			return nil, err
		}
		for i := range all {
			ready := meta.IsStatusConditionTrue(all[i].Status.Conditions, v1alpha1.ConditionReady)
			if whole && (!ready || len(all[i].Spec.Grants) > 0) {
				users.Insert(all[i].Spec.UserID)
			}
		}
		if begin {
			p.beginPatrol(all)
		}
	}
	n := min(p.share, len(p.patrol))
	users.Insert(p.patrol[:n]...)
	p.patrol = p.patrol[n:]
	for user := range users {
		found, err := p.list(ctx, client.MatchingFields{userIDField: user})
		if err != nil {
			return nil, err
		}
		for i := range found {
			byUser[user] = append(byUser[user], &found[i])
		}
	}
	return byUser, nil
}

func (p *standingPoller) list(ctx context.Context, which ...client.ListOption) ([]v1alpha1.UserQuota, error) {
	var found v1alpha1.UserQuotaList
	err := p.client.List(ctx, &found, append(which, client.UnsafeDisableDeepCopy)...)
	return found.Items, err
}

// beginPatrol has all users looked at, in equal shares within patrolTime. If the one before is not through, what it had
// still to look at comes sooner or later in this one.
func (p *standingPoller) beginPatrol(all []v1alpha1.UserQuota) {
	users := sets.New[string]()
	for i := range all {
		users.Insert(all[i].Spec.UserID)
	}
	p.patrol, p.setOut = users.UnsortedList(), time.Now()
	turns := max(1, int(patrolTime/p.interval)-1)
	p.share = (len(p.patrol) + turns - 1) / turns
}

// look reads where users stand, and queues those of their objects that need it.
func (p *standingPoller) look(
	ctx context.Context, users []string, objects map[string][]*v1alpha1.UserQuota, whole bool,
) error {
	usages, err := p.quotas.UsageOf(ctx, users)
	if err != nil {
		return err
	}
	had, err := p.grants(ctx, whole, users, objects)
	if err != nil {
		return err
	}
	for _, user := range users {
		usage, found := usages[user]
		if _, known := p.moves[user]; known && found && usage.Unreadable == nil {
			p.moves[user] = usage.MovesAt()
		}
		alive := sets.New[quota.ObjectUID]()
		for _, q := range objects[user] {
			if id, err := convert.UID(q.UID); err == nil {
				alive.Insert(id)
			}
		}
		for _, q := range objects[user] {
			if id, err := convert.UID(q.UID); err == nil && found && id == usage.QuotaUID && usage.Unreadable == nil {
				p.alerts.tell(q, usage.Account, usage.Now, p.resynced.IsZero())
			}
			if !had.lack(q) && (!whole || !lacksPlan(q)) && !p.stale(ctx, q, usage, found, alive) {
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
func (p *standingPoller) grants(
	ctx context.Context, whole bool, users []string, objects map[string][]*v1alpha1.UserQuota,
) (grantsHad, error) {
	var declared []string
	for _, user := range users {
		grants := func(q *v1alpha1.UserQuota) bool { return len(q.Spec.Grants) > 0 }
		if whole && slices.ContainsFunc(objects[user], grants) {
			declared = append(declared, user)
		}
	}
	if len(declared) == 0 {
		return nil, nil
	}
	had, err := p.records.Grants(ctx, declared)
	return had, err
}

// lack reports whether a UserQuota that is in force declares a grant that its user has not had.
func (had grantsHad) lack(q *v1alpha1.UserQuota) bool {
	if had == nil || len(q.Spec.Grants) == 0 || !quotaSynced(q) {
		return false
	}
	declared, err := convert.Quota(q)
	return err == nil && lacksGrant(declared, had[q.Spec.UserID])
}

// stale reports whether a UserQuota needs to be looked at. Those whose spec has not been worked on are in the queue
// anyway.
func (p *standingPoller) stale(
	ctx context.Context, q *v1alpha1.UserQuota, usage ledger.Usage, found bool, alive sets.Set[quota.ObjectUID],
) bool {
	if !q.DeletionTimestamp.IsZero() || q.Status.ObservedGeneration != q.Generation {
		return false
	}
	accepted := meta.FindStatusCondition(q.Status.Conditions, v1alpha1.ConditionAccepted)
	owned := accepted != nil && accepted.Reason == v1alpha1.ReasonOwnedByAnotherCluster
	switch {
	case found && p.cluster.foreign(usage.Home):
		says := p.cluster.describeOwned(ctx, p.cluster.ownedUser(q.Spec.UserID, usage.Home))
		return !owned || accepted.Message != says
	case owned:
		return true // no longer
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
	if !quotaSynced(q) {
		return false
	}
	declared, err := convert.Quota(q)
	if err != nil || !found || drifted(declared, usage) {
		return true
	}
	return !shows(q, usage)
}

// shows reports whether the status is what inForce would write. It is asked of all objects one after the other, so
// nothing is copied but what inForce changes in place, the list of conditions. A condition that it leaves alone stays
// the same to the bit; in the rest equal instants may be written differently.
func shows(q *v1alpha1.UserQuota, usage ledger.Usage) bool {
	would := *q
	would.Status.Conditions = slices.Clone(q.Status.Conditions)
	inForce(&would, usage)
	if !slices.Equal(would.Status.Conditions, q.Status.Conditions) {
		return false
	}
	is := q.Status
	is.Conditions, would.Status.Conditions = nil, nil
	return equality.Semantic.DeepEqual(&would.Status, &is)
}

// lacksPlan reports whether a UserQuota waits for a plan or a team. If that is made in this cluster its object wakes
// it.
func lacksPlan(q *v1alpha1.UserQuota) bool {
	resolved := meta.FindStatusCondition(q.Status.Conditions, v1alpha1.ConditionPlanResolved)
	team := meta.FindStatusCondition(q.Status.Conditions, v1alpha1.ConditionTeamResolved)
	return q.DeletionTimestamp.IsZero() && (team != nil && team.Reason == v1alpha1.ReasonTeamNotFound ||
		resolved != nil &&
			(resolved.Reason == v1alpha1.ReasonPlanNotFound || resolved.Reason == v1alpha1.ReasonNoDefaultPlan))
}

// saysUnreadable reports whether a UserQuota says that its user's account cannot be read, for that reason if one is
// given.
func saysUnreadable(q *v1alpha1.UserQuota, why string) bool {
	synced := meta.FindStatusCondition(q.Status.Conditions, v1alpha1.ConditionSynced)
	return synced != nil && synced.Reason == v1alpha1.ReasonAccountUnreadable && (why == "" || synced.Message == why)
}
