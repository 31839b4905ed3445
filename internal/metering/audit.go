// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Audit returns the plan as the audit log tells it. Its name is that of the row's object, and the versions before have
// rows of their own.
func (p *Plan) Audit() quota.AuditPlan {
	a := quota.AuditPlan{
		Version:              p.Version,
		DisplayName:          p.DisplayName,
		Rank:                 p.Rank,
		Default:              p.Default,
		Retired:              p.Retired,
		Features:             p.Features,
		CalendarMonth:        p.CalendarMonth,
		FinalAfter:           int64(p.FinalAfter / time.Second),
		MaxWait:              int64(p.MaxWait / time.Second),
		Weight:               max(p.Weight, 1),
		Credits:              p.Limits.Credits,
		FileSize:             p.Limits.FileSize,
		Audio:                quota.AudioMilliseconds(p.Limits.Audio),
		Concurrent:           p.Limits.Concurrent,
		Queued:               p.Limits.Queued,
		OverageMax:           p.OverageMax,
		OveragePrice:         p.OveragePrice,
		CarryOverMax:         p.CarryOverMax,
		ProviderCost:         p.ProviderCost,
		Currency:             p.Currency,
		PeriodPrice:          p.PeriodPrice,
		DailyCostCeiling:     p.DailyCostCeiling,
		RateRequests:         p.RateRequests,
		RateWindow:           int64(p.RateWindow / time.Second),
		UsageTypes:           p.UsageTypes,
		AlertThresholds:      p.AlertThresholds,
		AdmitWhenUnavailable: p.AdmitWhenUnavailable,
		ResetSchedule:        p.ResetSchedule,
		ResetBatchSize:       p.ResetBatchSize,
	}
	if p.ObjectUID != (quota.ObjectUID{}) {
		a.ObjectUID = new(p.ObjectUID)
	}
	if p.Cluster != (quota.ID{}) {
		a.Home = new(p.Cluster)
	}
	return a
}
