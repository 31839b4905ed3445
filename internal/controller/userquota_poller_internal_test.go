// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// Whatever somebody else writes into a status is seen, and so is whatever the ledger says otherwise: an object as the
// API server returns it is compared, and stays as it is.
func TestShows(t *testing.T) {
	now := time.Date(2026, time.March, 14, 12, 0, 0, 0, time.UTC)
	plan := plans.Free().Plan
	plan.Default = true
	usage := func() ledger.Usage {
		account := quota.Open(quota.ID{1}, "alice", &plan, now)
		account.Used = 3 * quota.Credit
		return ledger.Usage{
			Account: account, Now: now,
			Last: &quota.ClosedPeriod{Period: quota.Period{Start: now.AddDate(0, -1, 0), End: now}, Used: quota.Credit},
		}
	}
	object := func() *v1alpha1.UserQuota {
		t.Helper()
		q := &v1alpha1.UserQuota{
			ObjectMeta: metav1.ObjectMeta{Name: "alice", Generation: 3},
			Spec:       v1alpha1.UserQuotaSpec{UserID: "alice"},
		}
		inForce(q, usage())
		text, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		stored := &v1alpha1.UserQuota{}
		if err := json.Unmarshal(text, stored); err != nil {
			t.Fatal(err)
		}
		return stored
	}
	for name, change := range map[string]func(q *v1alpha1.UserQuota){
		"generation":  func(q *v1alpha1.UserQuota) { q.Generation++ },
		"observed":    func(q *v1alpha1.UserQuota) { q.Status.ObservedGeneration-- },
		"message":     func(q *v1alpha1.UserQuota) { q.Status.Conditions[0].Message = "hello" },
		"condition":   func(q *v1alpha1.UserQuota) { q.Status.Conditions[0].Status = metav1.ConditionFalse },
		"fewer":       func(q *v1alpha1.UserQuota) { q.Status.Conditions = q.Status.Conditions[1:] },
		"plan":        func(q *v1alpha1.UserQuota) { q.Status.Plan = "pro" },
		"used":        func(q *v1alpha1.UserQuota) { q.Status.Usage.Used = "0" },
		"slots":       func(q *v1alpha1.UserQuota) { q.Status.Usage.Slots = "7/7" },
		"no usage":    func(q *v1alpha1.UserQuota) { q.Status.Usage = nil },
		"end":         func(q *v1alpha1.UserQuota) { q.Status.ResetsAt.Time = q.Status.ResetsAt.Add(time.Second) },
		"no end":      func(q *v1alpha1.UserQuota) { q.Status.ResetsAt = nil },
		"last period": func(q *v1alpha1.UserQuota) { q.Status.LastPeriod.Used = "2" },
		"payer":       func(q *v1alpha1.UserQuota) { q.Status.Payer = &v1alpha1.Level{Kind: "Team", Name: "x"} },
		"limits": func(q *v1alpha1.UserQuota) {
			q.Status.EffectiveLimits = []v1alpha1.UserQuotaEffectiveLimit{{Value: "1"}}
		},
	} {
		q := object()
		change(q)
		if shows(q, usage()) {
			t.Errorf("%s: it is not seen that the status was changed", name)
		}
	}
	for name, change := range map[string]func(u *ledger.Usage){
		"used":    func(u *ledger.Usage) { u.Account.Used += quota.Credit },
		"running": func(u *ledger.Usage) { u.Account.Active++ },
		"plan":    func(u *ledger.Usage) { other := plan; other.Name = "pro"; u.Account.Plan = &other },
		"period":  func(u *ledger.Usage) { u.Account.Period.End = u.Account.Period.End.Add(time.Hour) },
		"last":    func(u *ledger.Usage) { u.Last = nil },
	} {
		u := usage()
		change(&u)
		if shows(object(), u) {
			t.Errorf("%s: it is not seen that the ledger says otherwise", name)
		}
	}
	q := object()
	zone := time.FixedZone("elsewhere", 3600)
	q.Status.ResetsAt.Time = q.Status.ResetsAt.In(zone)
	before := q.DeepCopy()
	if !shows(q, usage()) {
		t.Error("what the ledger says is taken for something else")
	}
	if diff := cmp.Diff(before, q); diff != "" {
		t.Errorf("the object, which the cache shares, was changed:\n%s", diff)
	}
}

// Everybody is looked at within the patrol's time, however many there are.
func TestPatrol(t *testing.T) {
	for users, share := range map[int]int{0: 0, 1: 1, 119: 1, 120: 2, 20_000: 169} {
		p := &standingPoller{interval: 5 * time.Second}
		all := make([]v1alpha1.UserQuota, users)
		for i := range all {
			all[i].Spec.UserID = strconv.Itoa(i)
		}
		p.beginPatrol(all)
		if len(p.patrol) != users || p.share != share || p.share*int(patrolTime/p.interval) < users {
			t.Errorf("%d users: %d to be looked at, %d at a time, want %d", users, len(p.patrol), p.share, share)
		}
	}
}
