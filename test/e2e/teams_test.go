//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
)

// declareTeam applies a team of the spec's own and waits until it is in force.
func declareTeam(ctx context.Context, spec v1alpha1.UsageTeamSpec) *v1alpha1.UsageTeam {
	GinkgoHelper()
	team := &v1alpha1.UsageTeam{ObjectMeta: metav1.ObjectMeta{Name: "team-" + rand.String(6)}, Spec: spec}
	team.Spec.DisplayName = team.Name
	Expect(k8s.Create(ctx, team)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) {
		Expect(client.IgnoreNotFound(k8s.Delete(ctx, team))).To(Succeed())
		Eventually(ctx, gone(ctx, team)).Should(BeTrue())
	})
	kubectl(ctx, "wait", "--for=condition=Ready", "usageteam/"+team.Name, "--timeout=1m")
	return team
}

// Serial, because a root is above every other spec's users.
var _ = Describe("teams", Serial, func() {
	It("of two share 100 credits", func(ctx SpecContext) {
		team := declareTeam(ctx, v1alpha1.UsageTeamSpec{
			PlanRef: &v1alpha1.PlanReference{Name: "pro"}, Limits: &v1alpha1.TeamLimits{Credits: new(int64(100))},
		})
		users := []string{newUser(ctx, "free"), newUser(ctx, "free")}
		for _, user := range users {
			quota := &v1alpha1.UserQuota{ObjectMeta: metav1.ObjectMeta{Name: user}}
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(quota), quota)).To(Succeed())
			before := quota.DeepCopy()
			quota.Spec.TeamRef = &v1alpha1.TeamReference{Name: team.Name}
			Expect(k8s.Patch(ctx, quota, client.MergeFrom(before))).To(Succeed())
			Eventually(ctx, func() (string, error) {
				err := k8s.Get(ctx, client.ObjectKeyFromObject(quota), quota)
				return quota.Status.Team, err
			}).Should(Equal(team.Name))
		}
		namespace := newNamespace(ctx, users...)
		of := func(name, user, length string) *batchv1.Job {
			j := newJob(namespace, name, user, "sleep", "10s")
			j.Annotations[v1alpha1.AudioDurationAnnotation] = length
			return j
		}
		first := of("first", users[0], "60m")
		Expect(k8s.Create(ctx, first)).To(Succeed())
		Eventually(ctx, job(ctx, first)).Should(haveState(v1alpha1.StateAdmitted))
		Expect(k8s.Create(ctx, of("much", users[1], "50m"))).To(MatchError(And(
			ContainSubstring(fmt.Sprintf("team %q", team.Name)), ContainSubstring("40 of 100 remain"))))
		second := of("second", users[1], "40m")
		Expect(k8s.Create(ctx, second)).To(Succeed())
		for _, j := range []*batchv1.Job{first, second} {
			Eventually(ctx, job(ctx, j)).Should(haveState(v1alpha1.StateSettled))
		}
		Eventually(ctx, func() (string, error) {
			err := k8s.Get(ctx, client.ObjectKeyFromObject(team), team)
			if err != nil || team.Status.Usage == nil {
				return "", err
			}
			return fmt.Sprint(team.Status.Members, team.Status.Usage.Used, team.Status.Usage.Remaining), nil
		}).Should(Equal(fmt.Sprint(int64(2), "100", "0")))
		picture(ctx, "get", "usageteams,userquotas")
	}, SpecTimeout(2*timeout))

	It("take turns by weight under a root with one slot", func(ctx SpecContext) {
		plan := func(weight int32) string {
			from := &v1alpha1.UsagePlan{}
			Expect(k8s.Get(ctx, client.ObjectKey{Name: "pro"}, from)).To(Succeed())
			p := &v1alpha1.UsagePlan{ObjectMeta: metav1.ObjectMeta{Name: "plan-" + rand.String(6)}, Spec: from.Spec}
			p.Spec.Weight = weight
			Expect(k8s.Create(ctx, p)).To(Succeed())
			DeferCleanup(func(ctx SpecContext) { Expect(k8s.Delete(ctx, p)).To(Succeed()) })
			Eventually(ctx, func() (bool, error) {
				err := k8s.Get(ctx, client.ObjectKeyFromObject(p), p)
				return meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionReady), err
			}).Should(BeTrue())
			return p.Name
		}
		once, twice := plan(1), plan(2)
		users := []string{newUser(ctx, once), newUser(ctx, once), newUser(ctx, twice)}
		namespace := newNamespace(ctx, users...)
		declareTeam(ctx, v1alpha1.UsageTeamSpec{Root: true, Limits: &v1alpha1.TeamLimits{Concurrent: new(int32(1))}})
		// Whoever comes to an empty queue takes the slot, which is nobody's turn. So one Job holds it, for as long as
		// it takes all others to be waiting: which of many the controller sees first is not in their creator's hands.
		holder := newJob(namespace, "holder", users[0], "sleep", "10m")
		Expect(k8s.Create(ctx, holder)).To(Succeed())
		Eventually(ctx, job(ctx, holder)).Should(haveState(v1alpha1.StateAdmitted))
		var waiting []*batchv1.Job
		for i, user := range users {
			for n := range []int{1, 2, 4}[i] {
				j := newJob(namespace, fmt.Sprintf("%s-%d", user, n), user, "sleep", "3s")
				Expect(k8s.Create(ctx, j)).To(Succeed())
				waiting = append(waiting, j)
			}
		}
		for _, j := range waiting {
			Eventually(ctx, job(ctx, j)).Should(haveState(v1alpha1.StateQueued))
		}
		Expect(k8s.Delete(ctx, holder, client.PropagationPolicy(metav1.DeletePropagationBackground))).To(Succeed())
		var jobs batchv1.JobList
		Eventually(ctx, func() (int, error) {
			err := k8s.List(ctx, &jobs, client.InNamespace(namespace))
			done := 0
			for i := range jobs.Items {
				if jobs.Items[i].Status.CompletionTime != nil {
					done++
				}
			}
			return done, err
		}).Should(Equal(len(waiting)))
		slices.SortFunc(jobs.Items, func(a, b batchv1.Job) int {
			return a.Status.StartTime.Compare(b.Status.StartTime.Time)
		})
		turns := map[string]int{}
		for _, j := range jobs.Items[:4] {
			turns[j.Labels[v1alpha1.UserLabel]]++
		}
		Expect(turns).To(Equal(map[string]int{users[0]: 1, users[1]: 1, users[2]: 2}))
		picture(ctx, "get", "usageteams")
	}, SpecTimeout(3*timeout))
})
