// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// table collects the rows of one set-based statement, column by column.
type table struct {
	rows    int
	columns []any
}

// add appends a value to a column. The columns of a row are given in the order of the statement's parameters.
func add[T any](t *table, column int, value T) {
	if column == len(t.columns) {
		t.columns = append(t.columns, &[]T{})
	}
	values := t.columns[column].(*[]T) //nolint:forcetypeassert // a column has one type
	*values = append(*values, value)
}

// row appends to the columns of a table in order.
type row struct {
	*table

	column int
}

func (t *table) row() *row {
	t.rows++
	return &row{table: t}
}

func put[T any](r *row, value T) {
	add(r.table, r.column, value)
	r.column++
}

func (t *table) queue(q *pgx.Batch, sql string) {
	if t.rows > 0 {
		q.Queue(sql, t.columns...)
	}
}

// writes collects what a batch changes.
type writes struct {
	accounts, lots, newPeriods, periods, newAdmissions, ended, renewed, admissions, events, keys, reversals, audit table

	// offline are the admissions that an offline ticket made, or got out of the queue.
	offline  []quota.ID
	settings []dbsqlc.UpdateSettingsParams
}

func (w *writes) collect(l *metering.Ledger, was loaded, admissions map[quota.ID]quota.Admission) error {
	if l.Touched {
		w.account(l)
		for i := range l.Account.Lots {
			if lot := &l.Account.Lots[i]; was.lots[lot.ID] != *lot {
				w.lot(l, lot)
			}
		}
	}
	if l.SettingsTouched {
		w.settings = append(w.settings, settingsParams(l.Account, l.Settings))
	}
	fresh := map[int64]bool{}
	for _, p := range l.NewPeriods {
		fresh[p.No] = true
		w.newPeriod(l, p)
	}
	for no, p := range l.ChangedPeriods {
		if !fresh[no] {
			w.period(l, p)
		}
	}
	made := map[quota.ID]bool{}
	for _, adm := range l.NewAdmissions {
		made[adm.ID] = true
		w.newAdmission(l, adm)
		if adm.Offline {
			w.offline = append(w.offline, adm.ID)
		}
	}
	for id, adm := range l.ChangedAdmissions {
		if !made[id] {
			if was := admissions[id]; adm.Offline && !was.Offline {
				w.offline = append(w.offline, id)
			}
			w.changedAdmission(admissions[id], adm)
		}
	}
	for i := range l.Charges {
		if err := w.event(chargeEvent(l, &l.Charges[i])); err != nil {
			return err
		}
	}
	for i := range l.NewEvents {
		if err := w.made(&l.NewEvents[i]); err != nil {
			return err
		}
	}
	for i := range l.Audit {
		if err := w.auditRow(l.Now, l.Account.ID, &l.Audit[i]); err != nil {
			return err
		}
	}
	return nil
}

// batch queues the statements.
func (w *writes) batch() *pgx.Batch {
	q := &pgx.Batch{}
	w.newPeriods.queue(q, dbsqlc.InsertPeriods)
	w.periods.queue(q, dbsqlc.UpdatePeriods)
	w.lots.queue(q, dbsqlc.UpsertLots)
	w.newAdmissions.queue(q, dbsqlc.InsertAdmissions)
	if len(w.offline) > 0 {
		q.Queue(dbsqlc.MarkOffline, w.offline)
	}
	w.ended.queue(q, dbsqlc.EndAdmissions)
	w.renewed.queue(q, dbsqlc.RenewLeases)
	w.admissions.queue(q, dbsqlc.UpdateAdmissions)
	w.events.queue(q, dbsqlc.InsertEvents)
	w.keys.queue(q, dbsqlc.InsertKeys)
	w.reversals.queue(q, dbsqlc.InsertReversals)
	w.audit.queue(q, dbsqlc.InsertAudit)
	for i := range w.settings {
		p := &w.settings[i]
		q.Queue(dbsqlc.UpdateSettings, p.PlanName, p.QuotaUid, p.QuotaName, p.CreditsOverride, p.FileSizeOverride,
			p.AudioMsOverride, p.ConcurrentOverride, p.QueuedOverride, p.UnlimitedOverrides, p.Suspended, p.AnchorAt,
			p.TimeZone, p.UserID)
	}
	w.accounts.queue(q, dbsqlc.UpdateAccounts)
	return q
}

func (w *writes) account(l *metering.Ledger) {
	a, r := l.Account, w.accounts.row()
	put(r, a.ID)
	put(r, a.PeriodNo)
	put(r, a.Period.Start)
	put(r, a.Period.End)
	put(r, int64(a.Used))
	put(r, int64(a.Reserved))
	put(r, int64(a.PlanUsed))
	put(r, int64(a.PlanReserved))
	put(r, int64(a.Cost))
	put(r, int64(a.Charged))
	put(r, a.Day)
	put(r, int64(a.DayCost))
	put(r, int64(a.ReservedCost))
	put(r, a.Active)
	put(r, a.Queued)
	put(r, a.Parked)
	put(r, a.Seq)
	put(r, l.Now)
}

func (w *writes) lot(l *metering.Ledger, lot *quota.Lot) {
	r := w.lots.row()
	put(r, lot.ID)
	put(r, l.Account.ID)
	put(r, string(lot.Kind))
	put(r, lot.Name)
	put(r, int64(lot.Credits))
	put(r, int64(lot.Used))
	put(r, int64(lot.Reserved))
	put(r, timeColumn(lot.ExpiresAt))
	put(r, l.Now)
}

func (w *writes) newPeriod(l *metering.Ledger, p *quota.ClosedPeriod) {
	r := w.newPeriods.row()
	put(r, l.Account.ID)
	put(r, p.No)
	put(r, p.Period.Start)
	put(r, p.Period.End)
	put(r, int64(p.Used))
	put(r, int64(p.Reserved))
	put(r, int64(p.PlanUsed))
	put(r, int64(p.PlanReserved))
	put(r, int64(p.Cost))
	put(r, int64(p.Charged))
	put(r, p.PlanName)
	put(r, p.PlanVersion)
	put(r, column[int64](p.PlanLimit))
	put(r, int64(p.CarryOver))
	put(r, int64(p.CarryOverMax))
	put(r, l.Now)
	put(r, finalAfter(p.Grace))
	put(r, cmp.Or(p.Currency, l.Account.Plan.Currency))
}

func (w *writes) period(l *metering.Ledger, p *quota.ClosedPeriod) {
	r := w.periods.row()
	put(r, l.Account.ID)
	put(r, p.No)
	put(r, int64(p.Used))
	put(r, int64(p.Reserved))
	put(r, int64(p.PlanUsed))
	put(r, int64(p.PlanReserved))
	put(r, int64(p.Cost))
	put(r, int64(p.Charged))
	put(r, int64(p.CarryOver))
}

func (w *writes) newAdmission(l *metering.Ledger, adm *metering.Admission) {
	r := w.newAdmissions.row()
	put(r, adm.ID)
	put(r, l.Account.ID)
	put(r, string(adm.Source))
	put(r, adm.Namespace)
	put(r, adm.Name)
	put(r, adm.RequestedBy)
	put(r, adm.BodyHash)
	put(r, string(adm.State))
	put(r, string(adm.Reason))
	put(r, int64(adm.Request.Estimate))
	put(r, adm.Request.FileSize)
	put(r, adm.Priority)
	put(r, adm.Enforced)
	put(r, adm.Parked)
	put(r, adm.EverParked)
	admitted := !adm.AdmittedAt.IsZero()
	putIf(r, admitted, adm.PeriodNo)
	put(r, timeColumn(adm.PeriodEnd))
	put(r, int64(adm.Alloc.Plan))
	put(r, sharesColumn(adm.Alloc.Lots))
	put(r, int64(adm.EstimatedCost))
	put(r, int64(adm.ProviderCost))
	put(r, creditsColumn(adm.Reported))
	put(r, creditsColumn(adm.Actual))
	put(r, adm.Late)
	put(r, adm.CreatedAt)
	put(r, timeColumn(adm.AdmittedAt))
	put(r, timeColumn(adm.EndedAt))
	put(r, adm.Lease.Milliseconds())
	put(r, adm.LeaseUntil)
	put(r, adm.ArrivedSeq)
	putIf(r, admitted, adm.AdmittedSeq)
	putIf(r, !adm.EndedAt.IsZero(), adm.EndedSeq)
	putSeen(r, adm)
}

// changedAdmission chooses the narrowest statement that writes what differs. What an admission holds and has seen is set
// together with AdmittedSeq, and later only given up.
func (w *writes) changedAdmission(before quota.Admission, adm *metering.Admission) {
	held := before.AdmittedSeq == adm.AdmittedSeq && before.Alloc.Plan == adm.Alloc.Plan && slices.Equal(before.Alloc.Lots, adm.Alloc.Lots) &&
		before.Parked == adm.Parked && before.EverParked == adm.EverParked && before.Reported == adm.Reported
	switch {
	case held && before.LeaseUntil.Equal(adm.LeaseUntil):
		w.endedAdmission(adm)
	case held && before.State == adm.State && before.Reason == adm.Reason:
		r := w.renewed.row()
		put(r, adm.ID)
		put(r, adm.LeaseUntil)
	default:
		w.admission(adm)
	}
}

func (w *writes) endedAdmission(adm *metering.Admission) {
	r := w.ended.row()
	put(r, adm.ID)
	put(r, string(adm.State))
	put(r, string(adm.Reason))
	put(r, creditsColumn(adm.Actual))
	put(r, adm.Late)
	put(r, timeColumn(adm.EndedAt))
	putIf(r, !adm.EndedAt.IsZero(), adm.EndedSeq)
}

func (w *writes) admission(adm *metering.Admission) {
	r := w.admissions.row()
	put(r, adm.ID)
	put(r, string(adm.State))
	put(r, string(adm.Reason))
	put(r, adm.Parked)
	put(r, adm.EverParked)
	admitted := !adm.AdmittedAt.IsZero()
	putIf(r, admitted, adm.PeriodNo)
	put(r, timeColumn(adm.PeriodEnd))
	put(r, int64(adm.Alloc.Plan))
	put(r, sharesColumn(adm.Alloc.Lots))
	put(r, int64(adm.EstimatedCost))
	put(r, int64(adm.ProviderCost))
	put(r, creditsColumn(adm.Reported))
	put(r, creditsColumn(adm.Actual))
	put(r, adm.Late)
	put(r, timeColumn(adm.AdmittedAt))
	put(r, timeColumn(adm.EndedAt))
	put(r, adm.LeaseUntil)
	putIf(r, admitted, adm.AdmittedSeq)
	putIf(r, !adm.EndedAt.IsZero(), adm.EndedSeq)
	putSeen(r, adm)
}

func putSeen(r *row, adm *metering.Admission) {
	admitted, seen := !adm.AdmittedAt.IsZero(), &adm.Seen
	var remaining *int64
	var concurrent *int32
	if admitted {
		remaining, concurrent = column[int64](seen.Remaining), column[int32](seen.Concurrent)
	}
	put(r, remaining)
	put(r, concurrent)
	putIf(r, admitted, int64(seen.Used))
	putIf(r, admitted, int64(seen.Reserved))
	putIf(r, admitted, seen.Active)
}

// putIf appends NULL unless the value is there.
func putIf[T any](r *row, there bool, value T) {
	if there {
		put(r, &value)
		return
	}
	put[*T](r, nil)
}

// chargeEvent is the event of an admission's charge.
func chargeEvent(l *metering.Ledger, c *metering.ChargeRow) *metering.Event {
	adm, kind := c.Admission, metering.EventCharge
	if c.Adjustment {
		kind = metering.EventAdjustment
	}
	return &metering.Event{
		ID: ChargeID(l.Account.ID, adm.ID), Account: l.Account.ID, Kind: kind, UsageType: quota.UsageTranscription,
		Admission: adm.ID, OccurredAt: adm.EndedAt, RecordedAt: l.Now, PeriodNo: c.PeriodNo, Seq: c.Seq, Credits: c.Credits,
		Alloc: c.Alloc, Overage: c.Overage, Price: c.Price, Cost: c.Cost, Currency: c.Plan.Currency,
		Duration: c.Credits.Audio(), FileSize: adm.Request.FileSize, Quantity: 1, PlanName: c.Plan.Name, PlanVersion: c.Plan.Version,
		Late: adm.Late,
	}
}

// ChargeID is the id of the one charge that an admission can have.
func ChargeID(account, admission quota.ID) quota.ID {
	return quota.NameID("charge", account, pgtype.UUID{Bytes: admission, Valid: true}.String())
}

func (w *writes) auditRow(now time.Time, account quota.ID, a *metering.AuditRow) error {
	before, err := jsonColumn(a.Before)
	if err != nil {
		return fmt.Errorf("audit %s %s: before: %w", a.Action, a.Name, err)
	}
	after, err := jsonColumn(a.After)
	if err != nil {
		return fmt.Errorf("audit %s %s: after: %w", a.Action, a.Name, err)
	}
	r := w.audit.row()
	put(r, now)
	put(r, a.Actor)
	put(r, a.Action)
	put(r, a.Kind)
	put(r, a.Name)
	put(r, idColumn(account))
	put(r, before)
	put(r, after)
	return nil
}

func jsonColumn(v any) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	return json.Marshal(v)
}
