// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const unlimited = "unlimited"

// inForce writes the status of a UserQuota that the database holds as it is declared, and where its user stands.
func inForce(q *v1alpha1.UserQuota, u ledger.Usage) {
	conds := conditions{&q.Status.Conditions, q.Generation}
	conds.set(v1alpha1.ConditionAccepted, true, v1alpha1.ReasonAccepted,
		fmt.Sprintf("this is the UserQuota of user %s", q.Spec.UserID))
	conds.set(v1alpha1.ConditionSynced, true, v1alpha1.ReasonSynced, "the database holds what the spec says")
	plan := u.Account.Plan
	switch {
	case plan.Retired:
		conds.set(v1alpha1.ConditionPlanResolved, true, v1alpha1.ReasonPlanRetired,
			fmt.Sprintf(
				"plan %s is retired, because its UsagePlan was deleted: it goes on serving this user as it last was",
				plan.Name))
	case q.Spec.PlanRef == nil:
		conds.set(v1alpha1.ConditionPlanResolved, true, v1alpha1.ReasonDefaultPlan,
			fmt.Sprintf("the user is on the default plan, %s", plan.Name))
	default:
		conds.set(v1alpha1.ConditionPlanResolved, true, v1alpha1.ReasonPlanResolved,
			fmt.Sprintf("the user is on plan %s", plan.Name))
	}
	switch {
	case q.Spec.TeamRef == nil:
	case u.Retired:
		conds.set(v1alpha1.ConditionTeamResolved, true, v1alpha1.ReasonTeamRetired, fmt.Sprintf(
			"team %s is retired, because its UsageTeam was deleted: it goes on for this user as it last was, "+
				"and takes nobody else", q.Spec.TeamRef.Name))
	default:
		conds.set(v1alpha1.ConditionTeamResolved, true, v1alpha1.ReasonTeamResolved,
			fmt.Sprintf("the user is a member of team %s", q.Spec.TeamRef.Name))
	}
	stand(&q.Status, u)
	sumUpQuota(q)
}

func sumUpQuota(q *v1alpha1.UserQuota) {
	q.Status.ObservedGeneration = q.Generation
	parts := []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionPlanResolved, v1alpha1.ConditionSynced}
	if q.Spec.TeamRef == nil {
		meta.RemoveStatusCondition(&q.Status.Conditions, v1alpha1.ConditionTeamResolved)
	} else {
		parts = slices.Insert(parts, 1, v1alpha1.ConditionTeamResolved)
	}
	conditions{&q.Status.Conditions, q.Generation}.sumUp("the UserQuota is in force", parts...)
}

// stand writes where the user stands.
func stand(status *v1alpha1.UserQuotaStatus, u ledger.Usage) {
	a, on := u.Account, u.Chain()
	limits := on.Limits()
	usage := &v1alpha1.UserQuotaUsage{
		Used:      a.Used.String(),
		Limit:     credits(on.Levels(u.Now)[0].Allowance),
		Remaining: credits(on.Remaining(u.Now)),
		Reserved:  a.Reserved.String(),
		Running:   a.Active,
		Queued:    a.Queued,
	}
	usage.ConcurrentLimit, usage.Slots = slotsOf(a.Active, limits.Concurrent)
	status.Plan, status.Usage = a.Plan.Name, usage
	standInTree(status, on, u.Now)
	status.PeriodStart, status.ResetsAt = timestamp(a.Period.Start), timestamp(a.Period.End)
	status.LastPeriod = nil
	if last := u.Last; last != nil {
		status.LastPeriod = &v1alpha1.UserQuotaPeriod{
			Start: timestamp(last.Period.Start), End: timestamp(last.Period.End), Used: last.Used.String(),
			FinalAt: timestamp(last.FinalAt()),
		}
	}
}

// standInTree writes which team the user is in, who pays, and what binds. Of who is alone nothing is written.
func standInTree(status *v1alpha1.UserQuotaStatus, chain quota.Chain, now time.Time) {
	status.Team, status.Payer, status.EffectiveLimits, status.Effective = "", nil, nil, ""
	if chain.Alone() {
		return
	}
	level := func(l quota.Level) v1alpha1.Level {
		return v1alpha1.Level{Kind: v1alpha1.LevelKind(l.Kind), Name: l.Name}
	}
	status.Team, status.Payer = chain.Accounts()[1].Team.Name, new(level(chain.Payer().Level()))
	var shown []string
	for _, e := range chain.Effective(now) {
		status.EffectiveLimits = append(status.EffectiveLimits, v1alpha1.UserQuotaEffectiveLimit{
			Limit: convert.TeamLimitNames[e.Limit], Value: e.Value, Level: level(e.Level),
		})
		shown = append(shown, inWords(e.Limit, e.Value))
	}
	status.Effective = strings.Join(shown, ", ")
}

// forget takes out what is said about a user whom this object has no say about.
func forget(status *v1alpha1.UserQuotaStatus) {
	*status = v1alpha1.UserQuotaStatus{ObservedGeneration: status.ObservedGeneration, Conditions: status.Conditions}
}

func credits(l quota.Limit[quota.Credits]) string {
	if l.Unlimited {
		return unlimited
	}
	return l.Max.String()
}

// drifted reports whether the account differs from what its UserQuota declares, because somebody changed the row, or
// because the default plan is another one. Grants, which are given once, are looked at by lacksGrant.
func drifted(declared metering.Quota, u ledger.Usage) bool {
	a := u.Account
	onPlan := a.Plan.Name == declared.PlanName
	if declared.PlanName == "" {
		onPlan = a.Plan.Default || a.Plan.Retired
	}
	zone := "UTC"
	if a.Zone != nil {
		zone = a.Zone.String()
	}
	inTeam := declared.TeamName == "" || u.Above[0] != nil && u.Above[0].Team.Name == declared.TeamName
	return u.QuotaUID != declared.ObjectUID || !inTeam || !onPlan || a.Suspended != declared.Suspended ||
		zone != declared.Zone ||
		!declared.Anchor.IsZero() && !a.Anchor.Equal(declared.Anchor) ||
		!equality.Semantic.DeepEqual(a.Overrides, declared.Overrides)
}
