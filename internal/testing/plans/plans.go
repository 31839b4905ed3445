// SPDX-License-Identifier: Apache-2.0

// Package plans makes plans for tests.
package plans

import (
	"reflect"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Free returns the default plan that most tests need: 30 credits a month, files of 25 MiB, 24 h of audio, one job at a
// time and 100 in the queue, no overage and no carry-over. The changes are made to it in order.
func Free(changes ...func(*metering.Plan)) metering.Plan {
	return changed(metering.Plan{
		Plan: quota.Plan{
			Name: "free", DisplayName: "Free", Default: true, Currency: "USD", ProviderCost: 6_000,
			Limits: quota.Limits{
				Credits: quota.AtMost(30 * quota.Credit), FileSize: quota.AtMost[int64](25 << 20),
				Audio:      quota.AtMost(24 * time.Hour),
				Concurrent: quota.AtMost[int32](1), Queued: quota.AtMost[int32](100),
			},
			DailyCostCeiling: quota.AtMost[quota.Money](50_000_000), RateRequests: 100, RateWindow: time.Hour,
		},
		ObjectUID: quota.ObjectUID{1}, ResetSchedule: "0 2 * * *", ResetBatchSize: 500,
	}, changes)
}

// Full returns a plan of which every field says something, so that whatever loses one on its way is seen. It is the
// default plan and a retired one at once: a test changes what it cannot use.
func Full(changes ...func(*metering.Plan)) metering.Plan {
	return changed(metering.Plan{
		Plan: quota.Plan{
			Name: "full", DisplayName: "The full", Version: 3, Rank: 10, Default: true, Retired: true,
			Past: []quota.PastTerms{{Until: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
				Terms: quota.Terms{Version: 2}}},
			Features: []string{"diarization"}, CalendarMonth: true, FinalAfter: 36 * time.Hour,
			MaxWait: 6 * time.Hour, Weight: 10,
			Limits: quota.Limits{
				Credits: quota.AtMost(60 * quota.Credit), FileSize: quota.AtMost[int64](25 << 20),
				Audio:      quota.AtMost(time.Hour),
				Concurrent: quota.AtMost[int32](1), Queued: quota.AtMost[int32](10),
			},
			OverageMax: 5 * quota.Credit, OveragePrice: 20_000, CarryOverMax: 10 * quota.Credit, ProviderCost: 6_000,
			Currency: "USD", PeriodPrice: 9_990_000, DailyCostCeiling: quota.AtMost[quota.Money](50_000_000),
			RateRequests: 100, RateWindow: time.Hour, UsageTypes: map[string]quota.Rate{"export": 250_000},
			AlertThresholds: []int32{80, 100}, AdmitWhenUnavailable: true,
		},
		ObjectUID: quota.ObjectUID{0xf0}, Cluster: quota.ClusterUID{0xc0}, ResetSchedule: "0 2 * * *",
		ResetBatchSize: 500,
	}, changes)
}

func changed(p metering.Plan, changes []func(*metering.Plan)) metering.Plan {
	for _, change := range changes {
		change(&p)
	}
	return p
}

// Zero returns the names of the fields of a plan that say nothing.
func Zero(p metering.Plan) []string { return zero(reflect.ValueOf(p)) }

func zero(v reflect.Value) []string {
	var names []string
	for field, value := range v.Fields() {
		switch value.Interface().(type) {
		case quota.Plan, quota.Limits:
			names = append(names, zero(value)...)
		default:
			if value.IsZero() {
				names = append(names, field.Name)
			}
		}
	}
	return names
}
