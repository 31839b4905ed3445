// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// teamInForce writes the status of a UsageTeam that the database holds as it is declared, and where it stands. What is
// known of the team that it names as its parent is nil if it names none.
func teamInForce(team *v1alpha1.UsageTeam, u *metering.TeamUsage, parent *metering.TeamUsage) {
	conds := conditions{&team.Status.Conditions, team.Generation}
	conds.set(v1alpha1.ConditionAccepted, true, v1alpha1.ReasonAccepted, "the team is in force")
	conds.set(v1alpha1.ConditionSynced, true, v1alpha1.ReasonSynced, "the database holds what the spec says")
	account := u.Usage.Account
	switch {
	case !account.Plan.Sells():
		conds.set(v1alpha1.ConditionPlanResolved, true, v1alpha1.ReasonNoPlan,
			"there is no spec.planRef: the team pays for nobody")
	case account.Plan.Retired:
		conds.set(v1alpha1.ConditionPlanResolved, true, v1alpha1.ReasonPlanRetired, fmt.Sprintf(
			"plan %s is retired, because its UsagePlan was deleted: it goes on serving this team as it last was",
			account.Plan.Name))
	default:
		conds.set(v1alpha1.ConditionPlanResolved, true, v1alpha1.ReasonPlanResolved,
			fmt.Sprintf("the team pays with plan %s", account.Plan.Name))
	}
	switch {
	case u.TeamStatus.Parent == "":
		conds.set(v1alpha1.ConditionParentResolved, true, v1alpha1.ReasonNoParent, "nothing is above the team")
	case parent != nil && parent.Retired:
		conds.set(v1alpha1.ConditionParentResolved, true, v1alpha1.ReasonParentRetired, fmt.Sprintf(
			"team %s is retired, because its UsageTeam was deleted: it goes on for this team as it last was",
			u.TeamStatus.Parent))
	default:
		conds.set(v1alpha1.ConditionParentResolved, true, v1alpha1.ReasonParentResolved,
			fmt.Sprintf("the team is below team %s", u.TeamStatus.Parent))
	}
	withinParent(conds, u)
	if u.Members > 0 || u.Teams > 0 {
		conds.set(v1alpha1.ConditionInUse, true, v1alpha1.ReasonInUse, fmt.Sprintf(
			"users below the team: %d, %d of them directly; teams directly below it: %d", u.Members, u.DirectMembers,
			u.Teams))
	} else {
		conds.set(v1alpha1.ConditionInUse, false, v1alpha1.ReasonUnused, "nobody is below the team")
	}
	standOfTeam(&team.Status, u)
	sumUpTeam(team)
}

// withinParent tells which of the team's own limits cannot be reached, because a team above it has a stricter one.
func withinParent(conds conditions, u *metering.TeamUsage) {
	var above []string
	team := u.Usage.Account.Team
	for _, over := range u.Above {
		if over == nil {
			break
		}
		for _, e := range team.Caps.Above(&over.Team.Caps) {
			above = append(above, convert.AboveParent(team.Name, over.Team.Name, e))
		}
	}
	if len(above) > 0 {
		conds.set(v1alpha1.ConditionWithinParent, false, v1alpha1.ReasonAboveParent, strings.Join(above, "; "))
		return
	}
	conds.set(v1alpha1.ConditionWithinParent, true, v1alpha1.ReasonWithinParent,
		"no limit of the team is above one of a team above it")
}

func sumUpTeam(team *v1alpha1.UsageTeam) {
	team.Status.ObservedGeneration = team.Generation
	conditions{&team.Status.Conditions, team.Generation}.sumUp("the team is in force", v1alpha1.ConditionAccepted,
		v1alpha1.ConditionParentResolved, v1alpha1.ConditionPlanResolved, v1alpha1.ConditionSynced)
}

// standOfTeam writes where the team stands.
func standOfTeam(status *v1alpha1.UsageTeamStatus, u *metering.TeamUsage) {
	a := u.Usage.Account
	own := a.TeamLimits(u.Now)
	usage := &v1alpha1.UsageTeamUsage{
		Used: a.Used.String(), Limit: credits(own.Credits), Remaining: credits(own.Remaining),
		Reserved: a.Reserved.String(), Running: a.Active, Queued: a.Queued,
	}
	usage.ConcurrentLimit, usage.Slots = slotsOf(a.Active, own.Concurrent)
	status.Usage, status.Members, status.Parent, status.Plan = usage, u.Members, u.TeamStatus.Parent, ""
	if a.Plan.Sells() {
		status.Plan = a.Plan.Name
	}
	status.EffectiveLimits, status.Effective = effectiveOfTeam(u)
	status.PeriodStart, status.ResetsAt = timestamp(a.Period.Start), timestamp(a.Period.End)
}

// slotsOf returns how many may run at once, and that with how many do.
func slotsOf(running int32, most quota.Limit[int32]) (*int32, string) {
	if most.Unlimited {
		return nil, fmt.Sprintf("%d/%s", running, unlimited)
	}
	return new(most.Max), fmt.Sprintf("%d/%d", running, most.Max)
}

func effectiveOfTeam(u *metering.TeamUsage) ([]v1alpha1.UsageTeamEffectiveLimit, string) {
	var list []v1alpha1.UsageTeamEffectiveLimit
	var shown []string
	add := func(name quota.LimitName, free bool, value, team string) {
		if free {
			return
		}
		list = append(list,
			v1alpha1.UsageTeamEffectiveLimit{Limit: convert.TeamLimitNames[name], Value: value, Team: team})
		shown = append(shown, inWords(name, value))
	}
	l := &u.Limits
	add(quota.LimitCredits, l.Credits.Unlimited, l.Credits.Max.String(), l.Credits.Team)
	add(quota.LimitConcurrent, l.Concurrent.Unlimited, strconv.Itoa(int(l.Concurrent.Max)), l.Concurrent.Team)
	add(quota.LimitQueued, l.Queued.Unlimited, strconv.Itoa(int(l.Queued.Max)), l.Queued.Team)
	// The currency of the team's own amounts, else the first by name: a status has room for one.
	currencies := slices.Sorted(maps.Keys(l.DailyCost))
	if i := slices.Index(currencies, u.Usage.Account.Currency); i > 0 {
		currencies[0] = currencies[i]
	}
	if len(currencies) > 0 {
		cost := l.DailyCost[currencies[0]]
		add(quota.LimitDailyCost, cost.Unlimited, cost.Max.String()+" "+currencies[0], cost.Team)
	}
	return list, strings.Join(shown, ", ")
}

// inWords returns a limit as it is shown in a column.
func inWords(name quota.LimitName, value string) string {
	switch name {
	case quota.LimitConcurrent:
		return value + " running"
	case quota.LimitQueued:
		return value + " waiting"
	case quota.LimitDailyCost:
		return value + " a day"
	default:
		return value + " credits"
	}
}

// forgetTeam takes out what is said about a team that this object has no say about.
func forgetTeam(status *v1alpha1.UsageTeamStatus) {
	*status = v1alpha1.UsageTeamStatus{
		ObservedGeneration: status.ObservedGeneration, Conditions: status.Conditions,
	}
}

// teamDrifted reports whether the team differs from what its object declares, because somebody changed a row.
func teamDrifted(declared *metering.Team, u *metering.TeamUsage) bool {
	a := u.Usage.Account
	plan := ""
	if a.Plan.Sells() {
		plan = a.Plan.Name
	}
	zone := "UTC"
	if a.Zone != nil {
		zone = a.Zone.String()
	}
	return u.Retired || u.Root != declared.Root || u.QuotaUID != declared.ObjectUID ||
		u.DisplayName != declared.DisplayName || u.Weight != max(1, declared.Weight) || plan != declared.PlanName ||
		a.Suspended != declared.Suspended || zone != declared.Zone ||
		declared.Parent != "" && u.TeamStatus.Parent != declared.Parent ||
		!declared.Anchor.IsZero() && !a.Anchor.Equal(declared.Anchor) ||
		capsDiffer(&declared.Caps, &a.Team.Caps) || capsDiffer(&declared.MemberDefaults, &a.Team.MemberDefaults)
}

// capsDiffer tells limits apart that bind differently: one that is absent and one that is unlimited do not.
func capsDiffer(a, b *quota.Caps) bool {
	return limitsDiffer(a.Credits, b.Credits) || limitsDiffer(a.Concurrent, b.Concurrent) ||
		limitsDiffer(a.Queued, b.Queued) || costBound(a) != costBound(b) || costBound(a) && *a.DailyCost != *b.DailyCost
}

func costBound(c *quota.Caps) bool { return c.DailyCost != nil && !c.DailyCost.Unlimited }

func limitsDiffer[T ~int32 | ~int64](a, b *quota.Limit[T]) bool {
	free := func(l *quota.Limit[T]) bool { return l == nil || l.Unlimited }
	return free(a) != free(b) || !free(a) && a.Max != b.Max
}
