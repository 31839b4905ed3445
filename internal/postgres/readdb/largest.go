// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// Largest implements reports.LargestStore.
func (s *Store) Largest(
	ctx context.Context, account quota.AccountID, from, to reports.Day, most int,
) ([]reports.LargeWork, error) {
	rows, err := s.Queries().LargestWork(ctx, dbsqlc.LargestWorkParams{
		Account: quota.ID(account), FromDay: time.Time(from), ToDay: time.Time(to), Most: int32(most),
	})
	work := make([]reports.LargeWork, len(rows))
	for i := range rows {
		work[i] = largeWork((*dbsqlc.LargestPaidRow)(&rows[i]))
	}
	return work, postgres.MapError(err)
}

// LargestPaid implements reports.LargestStore.
func (s *Store) LargestPaid(
	ctx context.Context, payer quota.AccountID, from, to reports.Day, most int,
) ([]reports.LargeWork, error) {
	rows, err := s.Queries().LargestPaid(ctx, dbsqlc.LargestPaidParams{
		Payer: quota.ID(payer), FromDay: time.Time(from), ToDay: time.Time(to), Most: int32(most),
	})
	work := make([]reports.LargeWork, len(rows))
	for i := range rows {
		work[i] = largeWork(&rows[i])
	}
	return work, postgres.MapError(err)
}

func largeWork(r *dbsqlc.LargestPaidRow) reports.LargeWork {
	w := reports.LargeWork{
		Event: quota.EventID(r.ID), UserID: r.ExternalID, UsageType: r.UsageType, Plan: r.PlanName, At: r.At.UTC(),
		Credits: quota.Credits(r.Credits), Audio: milliseconds(r.AudioMs),
	}
	var f reports.Figures
	f.Owe(r.Currency, 0, quota.Money(r.PriceMicros))
	f.Owe(r.CostCurrency, quota.Money(r.CostMicros), 0)
	w.Amounts = f.Amounts
	if r.Source != "" {
		w.Admission = quota.AdmissionID(r.ID)
		w.Event = ledger.ChargeID(quota.AccountID(r.UserID), w.Admission)
	}
	if quota.Source(r.Source) == quota.SourceJob {
		w.JobNamespace, w.JobName = r.Namespace, r.Name
	}
	return w
}
