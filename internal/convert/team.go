// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"errors"
	"fmt"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Team returns what a UsageTeam declares. Errors name the field, its value and what would do.
func Team(t *v1alpha1.UsageTeam) (metering.Team, error) {
	spec := &t.Spec
	uid, uidErr := UID(t.UID)
	_, zoneErr := Zone(spec.TimeZone)
	limits, limitsErr := TeamLimits("limits", spec.Limits)
	defaults, defaultsErr := TeamLimits("memberDefaults", spec.MemberDefaults)
	if err := errors.Join(uidErr, zoneErr, limitsErr, defaultsErr); err != nil {
		return metering.Team{}, err
	}
	declared := metering.Team{
		Team:        quota.Team{Name: t.Name, Caps: limits, MemberDefaults: defaults, Weight: spec.Weight},
		ObjectUID:   uid,
		DisplayName: spec.DisplayName,
		Root:        spec.Root,
		Zone:        spec.TimeZone,
		Suspended:   spec.Suspended,
		Grants:      grants(spec.Grants),
	}
	if ref := spec.ParentRef; ref != nil {
		declared.Parent = ref.Name
	}
	if ref := spec.PlanRef; ref != nil {
		declared.PlanName = ref.Name
	}
	if at := spec.AccountCreatedAt; at != nil {
		declared.Anchor = at.UTC()
	}
	return declared, nil
}

// TeamLimits collects the limits of a team or its members, each given or in the list of what has no limit. Errors name
// what is wrong below the field.
func TeamLimits(field string, l *v1alpha1.TeamLimits) (quota.Caps, error) {
	var c quota.Caps
	if l == nil {
		return c, nil
	}
	o := overrides(l.Credits, nil, nil, l.Concurrent, l.Queued, nil)
	c.Credits, c.Concurrent, c.Queued = o.Credits, o.Concurrent, o.Queued
	if cost := l.DailyCost; cost != nil {
		amount, err := money(field+".dailyCost.amount", cost.Amount)
		if err != nil {
			return quota.Caps{}, err
		}
		if err := quota.Currencies.Check(cost.Currency); err != nil {
			return quota.Caps{}, fmt.Errorf("%s.dailyCost.currency %w", field, err)
		}
		c.DailyCost = &quota.Ceiling{Limit: quota.AtMost(amount), Currency: cost.Currency}
	}
	for _, name := range l.Unlimited {
		switch name {
		case v1alpha1.TeamLimitCredits:
			c.Credits = &quota.Limit[quota.Credits]{Unlimited: true}
		case v1alpha1.TeamLimitConcurrent:
			c.Concurrent = &quota.Limit[int32]{Unlimited: true}
		case v1alpha1.TeamLimitQueued:
			c.Queued = &quota.Limit[int32]{Unlimited: true}
		case v1alpha1.TeamLimitDailyCost:
			c.DailyCost = &quota.Ceiling{Limit: quota.Limit[quota.Money]{Unlimited: true}}
		}
	}
	return c, nil
}

// AboveParent says that a team's own limit is above one of a team above it.
func AboveParent(team, over string, e quota.Excess) string {
	return fmt.Sprintf("team %s: limits.%s is %s and that of team %s above it is %s, which binds", team,
		teamLimitFields[e.Limit], e.Own, over, e.Over)
}

var teamLimitFields = map[quota.LimitName]string{
	quota.LimitCredits: "credits", quota.LimitConcurrent: "concurrent", quota.LimitQueued: "queued",
	quota.LimitDailyCost: "dailyCost",
}

// TeamLimitNames are the limits of a team as objects name them.
var TeamLimitNames = map[quota.LimitName]v1alpha1.TeamLimitName{
	quota.LimitCredits: v1alpha1.TeamLimitCredits, quota.LimitConcurrent: v1alpha1.TeamLimitConcurrent,
	quota.LimitQueued: v1alpha1.TeamLimitQueued, quota.LimitDailyCost: v1alpha1.TeamLimitDailyCost,
}
