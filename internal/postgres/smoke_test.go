// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

func TestSmoke(t *testing.T) {
	t.Parallel()
	s, err := postgres.Open(t.Context(), ledgertest.New(t), postgres.Options{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	p := metering.Plan{Plan: quota.Plan{Name: "free", DisplayName: "Free", Default: true, Currency: "USD", RateRequests: 100, RateWindow: 3600e9,
		CarryOverMax: quota.WholeCredits(5), ProviderCost: 6000,
		Limits: quota.Limits{Credits: quota.AtMost(quota.WholeCredits(60)), FileSize: quota.AtMost[int64](1 << 30), Audio: quota.Limits{}.Audio,
			Concurrent: quota.AtMost[int32](1), Queued: quota.AtMost[int32](10)}, DailyCostCeiling: quota.Limit[quota.Money]{Unlimited: true}},
		ObjectUID: quota.ID{1}, ResetSchedule: "0 2 * * *", ResetBatchSize: 500}
	p.Limits.Audio.Unlimited = true
	svc := metering.New(s, metering.Options{AutoRegister: true})
	go svc.Run(t.Context())
	for range 2 {
		st, err := svc.ApplyPlan(t.Context(), p, "me")
		if err != nil || st.Version != 1 {
			t.Fatal(st, err)
		}
	}
	if err := svc.ApplyQuota(t.Context(), metering.Quota{ObjectUID: quota.ID{7}, ObjectName: "alice", UserID: "alice", Zone: "Asia/Hong_Kong",
		Grants: map[string]metering.Grant{"gift": {Credits: quota.WholeCredits(3)}}}, "me"); err != nil {
		t.Fatal(err)
	}
	var ids []quota.ID
	for i := range 3 {
		r, err := svc.Admit(t.Context(), metering.AdmitRequest{UserID: "alice", Key: string(rune('a' + i)), Source: quota.SourceAPI, Estimate: quota.WholeCredits(4), Queue: true})
		if err != nil || r.Admission == nil {
			t.Fatalf("%+v %v", r, err)
		}
		ids = append(ids, r.Admission.ID)
	}
	for _, id := range ids {
		a, err := svc.Get(t.Context(), id)
		t.Log(a.State, a.Position, a.Waiting, a.Alloc, err)
		if _, err := svc.Complete(t.Context(), quota.ID{}, id, quota.WholeCredits(3)); err != nil {
			t.Fatal(err)
		}
	}
	u, err := svc.Current(t.Context(), "alice")
	if err != nil || u.Account.Used != quota.WholeCredits(9) || u.Account.Reserved != 0 {
		t.Fatalf("%+v %v", u.Account, err)
	}
	t.Logf("%+v", u.Account)
}
