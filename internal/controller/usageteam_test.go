// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

func newTeam(name, parent string, edits ...func(*v1alpha1.UsageTeam)) *v1alpha1.UsageTeam {
	team := &v1alpha1.UsageTeam{ObjectMeta: metav1.ObjectMeta{Name: name}}
	team.Spec.DisplayName, team.Spec.Limits = name, &v1alpha1.TeamLimits{Concurrent: new(int32(5))}
	if parent != "" {
		team.Spec.ParentRef = &v1alpha1.TeamReference{Name: parent}
	}
	for _, edit := range edits {
		edit(team)
	}
	return team
}

func teamPlan(name string) func(*v1alpha1.UsageTeam) {
	return func(t *v1alpha1.UsageTeam) { t.Spec.PlanRef = &v1alpha1.PlanReference{Name: name} }
}

func teamCredits(n int64) func(*v1alpha1.UsageTeam) {
	return func(t *v1alpha1.UsageTeam) { t.Spec.Limits.Credits = &n }
}

func rootTeam(t *v1alpha1.UsageTeam) { t.Spec.Root = true }

func memberQuota(user, team string) *v1alpha1.UserQuota {
	q := newQuota(user, user, "")
	q.Spec.TeamRef = &v1alpha1.TeamReference{Name: team}
	return q
}

// shows waits until what is shown of an object is as wanted.
func shows[O client.Object, S any](c *cluster, obj O, show func(O) S, want S) {
	c.Helper()
	c.eventually(func() string {
		if err := c.client.Get(c.Context(), client.ObjectKeyFromObject(obj), obj); err != nil {
			return err.Error()
		}
		return cmp.Diff(want, show(obj))
	})
}

func TestTeamStands(t *testing.T) {
	c := newCluster(t)
	free, pro := newPlan("free", 30, true), newPlan("pro", 500, false)
	platform := newTeam("platform", "", rootTeam)
	newsroom := newTeam("newsroom", "", teamPlan("pro"), teamCredits(100))
	alice, bob := memberQuota("alice", "newsroom"), memberQuota("bob", "newsroom")
	c.create(free, pro, platform, newsroom, alice, bob)
	c.ready(platform, newsroom, alice, bob)
	c.wants(newsroom, v1alpha1.ConditionParentResolved, metav1.ConditionTrue, v1alpha1.ReasonParentResolved, "platform")
	c.wants(newsroom, v1alpha1.ConditionPlanResolved, metav1.ConditionTrue, v1alpha1.ReasonPlanResolved, "pro")
	c.wants(platform, v1alpha1.ConditionPlanResolved, metav1.ConditionTrue, v1alpha1.ReasonNoPlan)
	c.wants(platform, v1alpha1.ConditionParentResolved, metav1.ConditionTrue, v1alpha1.ReasonNoParent)
	c.wants(newsroom, v1alpha1.ConditionInUse, metav1.ConditionTrue, v1alpha1.ReasonInUse, "users below the team: 2")
	shows(c, platform, func(t *v1alpha1.UsageTeam) int64 { return t.Status.Members }, 2)

	res, err := c.service.Admit(t.Context(), metering.AdmitRequest{
		UserID: "alice", Key: "one", Source: quota.SourceAPI, Estimate: 60 * quota.Credit, Lease: time.Minute,
	})
	if err != nil || res.Admission == nil {
		t.Fatalf("%+v, %v", res, err)
	}
	usage := func(t *v1alpha1.UsageTeam) v1alpha1.UsageTeamUsage {
		u := *t.Status.Usage
		u.ConcurrentLimit = nil
		return u
	}
	shows(c, newsroom, usage, v1alpha1.UsageTeamUsage{Used: "0", Limit: "100", Remaining: "40", Reserved: "60",
		Running: 1, Slots: "1/1"})
	if _, err := c.service.Complete(t.Context(), quota.ID{}, res.Admission.ID, 50*quota.Credit); err != nil {
		t.Fatal(err)
	}
	shows(c, newsroom, usage, v1alpha1.UsageTeamUsage{Used: "50", Limit: "100", Remaining: "50", Reserved: "0",
		Slots: "0/1"})
	shows(c, platform, usage, v1alpha1.UsageTeamUsage{Used: "50", Limit: "unlimited", Remaining: "unlimited",
		Reserved: "0", Slots: "0/5"})
	want := []v1alpha1.UsageTeamEffectiveLimit{
		{Limit: "Credits", Value: "100", Team: "newsroom"}, {Limit: "Concurrent", Value: "1", Team: "newsroom"},
		{Limit: "Queued", Value: "100", Team: "newsroom"}, {Limit: "DailyCost", Value: "50 USD", Team: "newsroom"},
	}
	if diff := cmp.Diff(want, newsroom.Status.EffectiveLimits); diff != "" || newsroom.Status.Plan != "pro" ||
		newsroom.Status.Parent != "platform" || newsroom.Status.ResetsAt == nil ||
		newsroom.Status.Effective != "100 credits, 1 running, 100 waiting, 50 USD a day" {
		t.Errorf("%+v\n%s", newsroom.Status, diff)
	}
	// Bob, who has done nothing, sees what is left for him and who pays.
	shows(c, bob, func(q *v1alpha1.UserQuota) []string {
		if q.Status.Payer == nil {
			return nil
		}
		return []string{q.Status.Team, q.Status.Payer.Name, q.Status.Usage.Used, q.Status.Effective}
	}, []string{"newsroom", "newsroom", "0", "100 credits, 1 running, 100 waiting, 50 USD a day"})

	// One who leaves is no member, and pays again.
	c.change(bob, func() { bob.Spec.TeamRef = nil })
	shows(c, newsroom, func(t *v1alpha1.UsageTeam) int64 { return t.Status.Members }, 1)
	shows(c, bob, func(q *v1alpha1.UserQuota) []string { return []string{q.Status.Team, q.Status.Payer.Name} },
		[]string{"platform", "bob"})
	c.ready(newsroom, platform, bob)
}

func TestTeamWaitsForParentAndPlan(t *testing.T) {
	c := newCluster(t)
	desk, alice := newTeam("desk", "newsroom", teamPlan("pro")), memberQuota("alice", "desk")
	c.create(newPlan("free", 30, true), desk)
	c.wants(desk, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonParentNotFound, "newsroom")
	c.create(alice)
	c.wants(alice, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonTeamNotFound, "desk")
	newsroom := newTeam("newsroom", "")
	c.create(newsroom)
	c.ready(newsroom)
	c.wants(desk, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonPlanNotFound, "pro")
	c.create(newPlan("pro", 500, false))
	c.ready(desk, alice)
	c.wants(alice, v1alpha1.ConditionTeamResolved, metav1.ConditionTrue, v1alpha1.ReasonTeamResolved, "desk")
	shows(c, newsroom, func(t *v1alpha1.UsageTeam) int64 { return t.Status.Members }, 1)
}

// Without the webhook the ledger judges the tree.
func TestTeamsThatHaveNoPlace(t *testing.T) {
	c := newCluster(t)
	a, b, d := newTeam("a", ""), newTeam("b", "a"), newTeam("d", "b")
	c.create(newPlan("free", 30, true), a)
	c.ready(a)
	c.create(b)
	c.ready(b)
	c.create(d)
	c.ready(d)
	deep := newTeam("deep", "d")
	c.create(deep)
	c.wants(deep, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonTooDeep,
		"deep below d below b below a")
	c.remove(deep) // without a root there would be a place for it, and then none for another root
	c.change(a, func() { a.Spec.ParentRef = &v1alpha1.TeamReference{Name: "b"} })
	c.wants(a, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonCycle, "a below b below a")
	c.change(a, func() { a.Spec.ParentRef = nil })
	c.ready(a)
	root := newTeam("platform", "", rootTeam)
	c.create(root)
	c.wants(root, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonTooDeep, "below platform")
	c.change(d, func() { d.Spec.ParentRef = &v1alpha1.TeamReference{Name: "a"} })
	c.ready(d, root)
	second := newTeam("second", "", rootTeam)
	c.create(second)
	c.wants(second, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonConflict, "platform",
		"set root to false in one of them")
	c.remove(root)
	c.ready(second)
}

func TestTeamAboveItsParent(t *testing.T) {
	c := newCluster(t)
	newsroom, desk := newTeam("newsroom", "", teamCredits(100)), newTeam("desk", "newsroom", teamCredits(200))
	c.create(newPlan("free", 30, true), newsroom, desk)
	c.ready(newsroom, desk)
	c.wants(desk, v1alpha1.ConditionWithinParent, metav1.ConditionFalse, v1alpha1.ReasonAboveParent,
		"team desk: limits.credits is 200 and that of team newsroom above it is 100, which binds")
	c.change(newsroom, func() { newsroom.Spec.Limits.Credits = new(int64(300)) })
	c.wants(desk, v1alpha1.ConditionWithinParent, metav1.ConditionTrue, v1alpha1.ReasonWithinParent)
}

func TestDeletedTeamIsRetired(t *testing.T) {
	c := newCluster(t)
	newsroom, desk := newTeam("newsroom", "", teamCredits(100)), newTeam("desk", "newsroom")
	alice := memberQuota("alice", "newsroom")
	c.create(newPlan("free", 30, true), newsroom)
	c.ready(newsroom)
	c.create(desk, alice)
	c.ready(desk, alice)
	c.remove(newsroom)
	c.wants(desk, v1alpha1.ConditionParentResolved, metav1.ConditionTrue, v1alpha1.ReasonParentRetired, "newsroom")
	c.ready(desk, alice)
	c.wants(alice, v1alpha1.ConditionTeamResolved, metav1.ConditionTrue, v1alpha1.ReasonTeamRetired, "newsroom",
		"takes nobody else")
	if u := c.usage("alice"); u.Above[0] == nil || u.Above[0].Team.Name != "newsroom" {
		t.Errorf("alice is below %+v", u.Above)
	}
	bob := memberQuota("bob", "newsroom")
	c.create(bob)
	c.wants(bob, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonTeamNotFound, "newsroom", "retired")
	back := newTeam("newsroom", "", teamCredits(50))
	c.create(back)
	c.ready(back, bob)
	for _, q := range []*v1alpha1.UserQuota{alice, bob} {
		c.wants(q, v1alpha1.ConditionTeamResolved, metav1.ConditionTrue, v1alpha1.ReasonTeamResolved, "newsroom")
	}
	c.wants(desk, v1alpha1.ConditionParentResolved, metav1.ConditionTrue, v1alpha1.ReasonParentResolved)

	// While nobody watches it is found later.
	c.stop()
	c.remove(back)
	c.start()
	c.wants(desk, v1alpha1.ConditionParentResolved, metav1.ConditionTrue, v1alpha1.ReasonParentRetired)
}

// However much its members do, a team's status is written once per interval at most, and not at all while nothing
// happens; a row that somebody changed is as declared again.
func TestTeamStatusFollowsAtIntervals(t *testing.T) {
	c := newCluster(t)
	newsroom, alice := newTeam("newsroom", "", teamCredits(1000)), memberQuota("alice", "newsroom")
	c.create(newPlan("free", 900, true), newsroom)
	c.ready(newsroom)
	c.create(alice)
	c.ready(alice)
	shows(c, newsroom, func(t *v1alpha1.UsageTeam) int64 { return t.Status.Members }, 1)
	var writes atomic.Int32
	var seen atomic.Value
	c.env.Follow(t, &v1alpha1.UsageTeamList{}, func(change watch.Event) {
		if team, ok := change.Object.(*v1alpha1.UsageTeam); ok {
			writes.Add(1)
			seen.Store(team.Status.Usage.Used)
		}
	})
	const jobs = 60
	began := time.Now()
	for n := range jobs {
		res, err := c.service.Admit(t.Context(), metering.AdmitRequest{
			UserID: "alice", Key: fmt.Sprint(n), Source: quota.SourceAPI, Estimate: quota.Credit, Lease: time.Minute,
		})
		if err != nil || res.Admission == nil {
			t.Fatalf("%+v, %v", res, err)
		}
		if _, err := c.service.Complete(t.Context(), quota.ID{}, res.Admission.ID, quota.Credit); err != nil {
			t.Fatal(err)
		}
	}
	shows(c, newsroom, func(t *v1alpha1.UsageTeam) string { return t.Status.Usage.Used }, "60")
	c.eventually(func() string { return cmp.Diff(any("60"), seen.Load()) })
	most := int32(time.Since(began)/interval) + 2
	if writes := writes.Load(); writes > most {
		t.Errorf("%d writes in %s, at most %d", writes, time.Since(began), most)
	}
	c.exec("UPDATE usage_quotas SET suspended = true WHERE user_id = (SELECT id FROM teams WHERE name = 'newsroom')")
	c.eventually(func() string {
		u, err := c.service.TeamUsage(t.Context(), []string{"newsroom"})
		if got := u["newsroom"]; err != nil || got.Usage.Account.Suspended {
			return fmt.Sprintf("the team is not as declared: %v", err)
		}
		return ""
	})
	if !strings.Contains(newsroom.Status.Effective, "5 running") {
		t.Errorf("effective %q", newsroom.Status.Effective)
	}
}
