// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reset"
)

// Plan returns what a UsagePlan declares. Errors name the field, its value and what would do.
func Plan(p *v1alpha1.UsagePlan) (metering.Plan, error) {
	spec := &p.Spec
	uid, uidErr := UID(p.UID)
	_, scheduleErr := reset.Schedule(spec.Reset.Schedule)
	limits, limitsErr := planLimits(&spec.Limits)
	perPeriod, perPeriodErr := money("pricing.perPeriod", spec.Pricing.PerPeriod)
	providerCost, providerCostErr := money("pricing.providerCostPerMinute", spec.Pricing.ProviderCostPerMinute)
	ceiling, ceilingErr := money("dailyCostCeiling", spec.DailyCostCeiling)
	overageMax, overagePrice, overageErr := overage(&spec.Overage)
	types, typesErr := usageTypes(spec.UsageTypes)
	finalAfter, finalAfterErr := finalAfter(spec.Period.FinalAfter)
	maxWait, maxWaitErr := maxWait(spec.MaxWait)
	if err := errors.Join(uidErr, scheduleErr, limitsErr, perPeriodErr, providerCostErr, ceilingErr, overageErr,
		typesErr, finalAfterErr, maxWaitErr); err != nil {
		return metering.Plan{}, err
	}
	return metering.Plan{
		Plan: quota.Plan{
			Name:                 p.Name,
			DisplayName:          spec.DisplayName,
			Rank:                 spec.Rank,
			Default:              spec.Default,
			Features:             slices.Clone(spec.Features),
			CalendarMonth:        spec.Period.Anchor == v1alpha1.AnchorCalendar,
			FinalAfter:           finalAfter,
			MaxWait:              maxWait,
			Weight:               spec.Weight,
			Limits:               limits,
			OverageMax:           overageMax,
			OveragePrice:         overagePrice,
			CarryOverMax:         quota.WholeCredits(spec.CarryOver.MaxCredits),
			ProviderCost:         providerCost,
			Currency:             spec.Pricing.Currency,
			PeriodPrice:          perPeriod,
			DailyCostCeiling:     quota.AtMost(ceiling),
			UsageTypes:           types,
			RateRequests:         spec.RateLimit.Requests,
			RateWindow:           time.Duration(spec.RateLimit.WindowSeconds) * time.Second,
			AlertThresholds:      slices.Sorted(slices.Values(spec.AlertThresholds)),
			AdmitWhenUnavailable: spec.DatabaseUnavailable == v1alpha1.DatabaseUnavailableAdmit,
		},
		ObjectUID:      uid,
		ResetSchedule:  spec.Reset.Schedule,
		ResetBatchSize: spec.Reset.BatchSize,
	}, nil
}

func finalAfter(d *metav1.Duration) (time.Duration, error) {
	if d == nil {
		return quota.FinalAfter, nil
	}
	return seconds("period.finalAfter", d.Duration, quota.MinFinalAfter, quota.MaxFinalAfter)
}

func maxWait(d *metav1.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	return seconds("maxWait", d.Duration, quota.MinMaxWait, quota.MaxMaxWait)
}

// seconds returns a duration of whole seconds within its bounds, which the API server checks as well.
func seconds(field string, d, least, most time.Duration) (time.Duration, error) {
	if d < least || d > most || d%time.Second != 0 {
		return 0, fmt.Errorf("%s is %s: must be whole seconds from %s to %s", field, d, least, most)
	}
	return d, nil
}

func planLimits(l *v1alpha1.UsagePlanLimits) (quota.Limits, error) {
	given := overrides(l.Credits, l.FileSize, l.AudioDuration, l.Concurrent, l.Queued, l.Unlimited)
	var missing []error
	for field, absent := range map[string]bool{
		"credits": given.Credits == nil, "fileSize": given.FileSize == nil, "audioDuration": given.Audio == nil,
		"concurrent": given.Concurrent == nil, "queued": given.Queued == nil,
	} {
		if absent {
			missing = append(missing, fmt.Errorf(
				"limits.%s is missing: give it, or list it in limits.unlimited", field))
		}
	}
	// A map has no order, a condition's message needs one.
	slices.SortFunc(missing, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return given.Apply(quota.Limits{}), errors.Join(missing...)
}

func overage(o *v1alpha1.UsagePlanOverage) (quota.Credits, quota.Money, error) {
	if o.Policy != v1alpha1.OverageAllow {
		return 0, 0, nil
	}
	if o.MaxCredits == nil || o.PricePerCredit == nil {
		return 0, 0, errors.New("overage.policy is Allow: needs overage.maxCredits and overage.pricePerCredit")
	}
	price, err := money("overage.pricePerCredit", *o.PricePerCredit)
	return quota.WholeCredits(*o.MaxCredits), price, err
}

func usageTypes(given []v1alpha1.UsagePlanUsageType) (map[string]quota.Rate, error) {
	var errs []error
	var types map[string]quota.Rate
	for _, t := range given {
		rate, err := quota.ParseRate(string(t.CreditsPerUnit))
		if err != nil {
			errs = append(errs, fmt.Errorf("usageTypes[%s].creditsPerUnit: %w", t.Name, err))
			continue
		}
		if types == nil {
			types = make(map[string]quota.Rate, len(given))
		}
		types[t.Name] = rate
	}
	return types, errors.Join(errs...)
}

func money(field string, d v1alpha1.Decimal) (quota.Money, error) {
	m, err := quota.ParseMoney(string(d))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", field, err)
	}
	return m, nil
}
