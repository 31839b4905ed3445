// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// A batch ends with one round trip that writes what differs from what it loaded. collect compares, each difference
// becomes a row of one of the statements below, and each of these is sent once for all rows of all accounts.

type (
	lotRow struct {
		account quota.AccountID
		now     time.Time
		*quota.Lot
	}
	periodRow struct {
		account quota.AccountID
		now     time.Time
		*quota.ClosedPeriod
	}
	placeRow struct {
		account quota.AccountID
		parent  quota.AccountID
	}
	turnRow struct {
		account quota.AccountID
		parent  *quota.ID
		*ledger.Turn
	}
	alertRow struct {
		l *ledger.Ledger
		*quota.AlertChange
	}
	auditRow struct {
		account       quota.AccountID
		now           time.Time
		before, after []byte
		*quota.AuditRow
	}
)

// share is a user's part of what a team's period has used.
type share struct {
	team   quota.AccountID
	period int64
	user   quota.AccountID
}

// shareRow is what a batch adds to one.
type shareRow struct {
	share

	used quota.Credits
}

// writes are the rows that a batch changes.
type writes struct {
	newUsers, newAccounts                            []*ledger.Ledger
	accounts, currencies                             []*ledger.Ledger
	settings                                         []dbsqlc.UpdateSettingsParams
	teams                                            []dbsqlc.UpsertTeamParams
	lots                                             []lotRow
	newPeriods, periods                              []periodRow
	newAdmissions, ended, explained, renewed, others []*ledger.Admission
	events, reversals                                []*ledger.Event
	keys                                             []ledger.Made
	audit                                            []auditRow
	placed                                           []placeRow
	turns                                            []turnRow
	raised, resolved                                 []alertRow
	remembered                                       []*ledger.Ledger
	// shares are what the events add to each member's share, by what is shared.
	shares map[share]quota.Credits
	// offline are the admissions that an offline ticket made, or got out of the queue.
	offline []quota.ID
}

var (
	currencyColumn = col("Currencies", func(l *ledger.Ledger) string { return l.Account.Currency })

	insertUsers = newStatement[dbsqlc.InsertUsersParams](dbsqlc.InsertUsers,
		col("Ids", func(l *ledger.Ledger) quota.ID { return l.Account.ID }),
		col("UserIds", func(l *ledger.Ledger) string { return l.Account.UserID }),
	)
	insertAccounts = newStatement[dbsqlc.InsertAccountsParams](dbsqlc.InsertAccounts,
		col("Ids", func(l *ledger.Ledger) quota.ID { return l.Account.ID }),
		col("PlanNames", func(l *ledger.Ledger) *string {
			return presentIf(l.Account.Plan.Sells(), l.Account.Plan.Name)
		}),
		col("Anchors", func(l *ledger.Ledger) time.Time { return l.Account.Anchor }),
		col("PeriodStarts", func(l *ledger.Ledger) time.Time { return l.Account.Period.Start }),
		col("PeriodEnds", func(l *ledger.Ledger) time.Time { return l.Account.Period.End }),
		col("DecidedAt", func(l *ledger.Ledger) time.Time { return l.Now }),
		currencyColumn,
	)
	updateCurrencies = newStatement[dbsqlc.UpdateCurrenciesParams](dbsqlc.UpdateCurrencies,
		col("Ids", func(l *ledger.Ledger) quota.ID { return l.Account.ID }),
		currencyColumn,
		col("OtherAmounts", func(l *ledger.Ledger) []byte { return otherAmountsColumn(l.Account.Other) }),
	)
	updateAccounts = newStatement[dbsqlc.UpdateAccountsParams](dbsqlc.UpdateAccounts,
		col("Ids", func(l *ledger.Ledger) quota.ID { return l.Account.ID }),
		col("PeriodNos", func(l *ledger.Ledger) int64 { return l.Account.PeriodNo }),
		col("PeriodStarts", func(l *ledger.Ledger) time.Time { return l.Account.Period.Start }),
		col("PeriodEnds", func(l *ledger.Ledger) time.Time { return l.Account.Period.End }),
		col("Used", func(l *ledger.Ledger) int64 { return int64(l.Account.Used) }),
		col("Reserved", func(l *ledger.Ledger) int64 { return int64(l.Account.Reserved) }),
		col("PlanUsed", func(l *ledger.Ledger) int64 { return int64(l.Account.PlanUsed) }),
		col("PlanReserved", func(l *ledger.Ledger) int64 { return int64(l.Account.PlanReserved) }),
		col("Costs", func(l *ledger.Ledger) int64 { return int64(l.Account.Cost) }),
		col("Charged", func(l *ledger.Ledger) int64 { return int64(l.Account.Charged) }),
		col("Days", func(l *ledger.Ledger) time.Time { return l.Account.Day }),
		col("DayCosts", func(l *ledger.Ledger) int64 { return int64(l.Account.DayCost) }),
		col("ReservedCosts", func(l *ledger.Ledger) int64 { return int64(l.Account.ReservedCost) }),
		col("Active", func(l *ledger.Ledger) int32 { return l.Account.Active }),
		col("Queued", func(l *ledger.Ledger) int32 { return l.Account.Queued }),
		col("Parked", func(l *ledger.Ledger) int32 { return l.Account.Parked }),
		col("Seqs", func(l *ledger.Ledger) int64 { return l.Account.Seq }),
		col("DecidedAt", func(l *ledger.Ledger) time.Time { return l.Now }),
	)
	placeAccounts = newStatement[dbsqlc.PlaceAccountsParams](dbsqlc.PlaceAccounts,
		col("Ids", func(r placeRow) quota.ID { return r.account }),
		col("Parents", func(r placeRow) *quota.ID { return idColumn(r.parent) }),
	)
	upsertLots = newStatement[dbsqlc.UpsertLotsParams](dbsqlc.UpsertLots,
		col("Ids", func(r lotRow) quota.ID { return r.ID }),
		col("Accounts", func(r lotRow) quota.ID { return r.account }),
		col("Kinds", func(r lotRow) string { return string(r.Kind) }),
		col("Names", func(r lotRow) string { return r.Name }),
		col("Credits", func(r lotRow) int64 { return int64(r.Credits) }),
		col("Used", func(r lotRow) int64 { return int64(r.Used) }),
		col("Reserved", func(r lotRow) int64 { return int64(r.Reserved) }),
		col("ExpiresAt", func(r lotRow) *time.Time { return timeColumn(r.ExpiresAt) }),
		col("CreatedAt", func(r lotRow) time.Time { return r.now }),
	)

	// periodTotals are what late work changes about a closed period.
	periodTotals = []column[periodRow]{
		col("Accounts", func(r periodRow) quota.ID { return r.account }),
		col("Nos", func(r periodRow) int64 { return r.No }),
		col("Used", func(r periodRow) int64 { return int64(r.Used) }),
		col("Reserved", func(r periodRow) int64 { return int64(r.Reserved) }),
		col("PlanUsed", func(r periodRow) int64 { return int64(r.PlanUsed) }),
		col("PlanReserved", func(r periodRow) int64 { return int64(r.PlanReserved) }),
		col("Costs", func(r periodRow) int64 { return int64(r.Cost) }),
		col("Charged", func(r periodRow) int64 { return int64(r.Charged) }),
		col("OtherAmounts", func(r periodRow) []byte { return otherAmountsColumn(r.Other) }),
		col("CarryOvers", func(r periodRow) int64 { return int64(r.CarryOver) }),
	}
	updatePeriods = newStatement[dbsqlc.UpdatePeriodsParams](dbsqlc.UpdatePeriods, periodTotals...)
	insertPeriods = newStatement[dbsqlc.InsertPeriodsParams](dbsqlc.InsertPeriods, append([]column[periodRow]{
		col("Starts", func(r periodRow) time.Time { return r.Period.Start }),
		col("Ends", func(r periodRow) time.Time { return r.Period.End }),
		col("PlanNames", func(r periodRow) string { return r.PlanName }),
		col("PlanVersions", func(r periodRow) int64 { return r.PlanVersion }),
		col("PlanCredits", func(r periodRow) *int64 { return limitColumn[int64](r.PlanLimit) }),
		col("CarryOverMaxs", func(r periodRow) int64 { return int64(r.CarryOverMax) }),
		col("ClosedAt", func(r periodRow) time.Time { return r.now }),
		col("FinalAfterSeconds", func(r periodRow) int32 { return finalAfter(r.Grace) }),
		col("Currencies", func(r periodRow) *string { return presentIf(r.Currency != "", r.Currency) }),
		col("OveragePrices", func(r periodRow) *int64 {
			if r.OveragePrice == nil {
				return nil
			}
			return new(int64(*r.OveragePrice))
		}),
	}, periodTotals...)...)

	admissionID = col("Ids", func(a *ledger.Admission) quota.ID { return a.ID })
	// admissionEnd is what ends an admission that was admitted, the most frequent change by far.
	admissionEnd = []column[*ledger.Admission]{
		col("States", func(a *ledger.Admission) string { return string(a.State) }),
		col("Reasons", func(a *ledger.Admission) string { return string(a.Reason) }),
		col("Actuals", func(a *ledger.Admission) *int64 { return creditsColumn(a.Actual) }),
		col("Late", func(a *ledger.Admission) bool { return a.Late }),
		col("EndedAt", func(a *ledger.Admission) *time.Time { return timeColumn(a.EndedAt) }),
		col("EndedSeqs", func(a *ledger.Admission) *int64 { return presentIf(!a.EndedAt.IsZero(), a.EndedSeq) }),
		col("Levels", func(a *ledger.Admission) []byte { return heldColumn(a.Levels) }),
	}
	admissionLease = col("LeaseUntil", func(a *ledger.Admission) time.Time { return a.LeaseUntil })
	// admissionLife is everything that an admission's life can change.
	admissionLife = append([]column[*ledger.Admission]{
		admissionID, admissionLease,
		col("Parked", func(a *ledger.Admission) bool { return a.Parked }),
		col("EverParked", func(a *ledger.Admission) bool { return a.EverParked }),
		col("PeriodNos", func(a *ledger.Admission) *int64 { return presentIf(admitted(a), a.PeriodNo) }),
		col("PeriodEnds", func(a *ledger.Admission) *time.Time { return timeColumn(a.PeriodEnd) }),
		col("PlanParts", func(a *ledger.Admission) int64 { return int64(a.Alloc.Plan) }),
		col("Lots", func(a *ledger.Admission) []byte { return sharesColumn(a.Alloc.Lots) }),
		col("EstimatedCosts", func(a *ledger.Admission) int64 { return int64(a.EstimatedCost) }),
		col("ProviderCosts", func(a *ledger.Admission) int64 { return int64(a.ProviderCost) }),
		col("Currencies", func(a *ledger.Admission) *string { return presentIf(a.Currency != "", a.Currency) }),
		col("Reported", func(a *ledger.Admission) *int64 { return creditsColumn(a.Reported) }),
		col("AdmittedAt", func(a *ledger.Admission) *time.Time { return timeColumn(a.AdmittedAt) }),
		col("ArrivedSeqs", func(a *ledger.Admission) int64 { return a.ArrivedSeq }),
		col("AdmittedSeqs", func(a *ledger.Admission) *int64 { return presentIf(admitted(a), a.AdmittedSeq) }),
		col("SeenRemaining", func(a *ledger.Admission) *int64 {
			if !admitted(a) {
				return nil
			}
			return limitColumn[int64](a.Seen.Remaining)
		}),
		col("SeenConcurrent", func(a *ledger.Admission) *int32 {
			if !admitted(a) {
				return nil
			}
			return limitColumn[int32](a.Seen.Concurrent)
		}),
		col("SeenUsed", func(a *ledger.Admission) *int64 { return presentIf(admitted(a), int64(a.Seen.Used)) }),
		col("SeenReserved", func(a *ledger.Admission) *int64 { return presentIf(admitted(a), int64(a.Seen.Reserved)) }),
		col("Payers", func(a *ledger.Admission) quota.ID { return cmp.Or(a.Payer, a.Account) }),
		col("SeenActive", func(a *ledger.Admission) *int32 { return presentIf(admitted(a), a.Seen.Active) }),
	}, admissionEnd...)
	endAdmissions = newStatement[dbsqlc.EndAdmissionsParams](dbsqlc.EndAdmissions,
		append([]column[*ledger.Admission]{admissionID}, admissionEnd...)...)
	explainReleases = newStatement[dbsqlc.ExplainReleasesParams](dbsqlc.ExplainReleases, admissionID,
		col("Reasons", func(a *ledger.Admission) string { return a.ReleaseReason }))
	renewLeases = newStatement[dbsqlc.RenewLeasesParams](dbsqlc.RenewLeases, admissionID, admissionLease)
	// What is new has never gone back to the queue, nor waited for too long.
	updateAdmissions = newStatement[dbsqlc.UpdateAdmissionsParams](dbsqlc.UpdateAdmissions,
		append([]column[*ledger.Admission]{
			col("RequeuedAt", func(a *ledger.Admission) *time.Time { return timeColumn(a.RequeuedAt) }),
			col("WaitedFor", func(a *ledger.Admission) *string {
				return presentIf(a.WaitedFor != "", string(a.WaitedFor))
			}),
			col("MaxWaitMs", func(a *ledger.Admission) *int64 {
				return presentIf(a.MaxWait > 0, a.MaxWait.Milliseconds())
			}),
		}, admissionLife...)...)
	insertAdmissions = newStatement[dbsqlc.InsertAdmissionsParams](dbsqlc.InsertAdmissions,
		append([]column[*ledger.Admission]{
			col("Accounts", func(a *ledger.Admission) quota.ID { return a.Account }),
			col("Sources", func(a *ledger.Admission) string { return string(a.Source) }),
			col("Namespaces", func(a *ledger.Admission) string { return a.Namespace }),
			col("Names", func(a *ledger.Admission) string { return a.Name }),
			col("RequestedBy", func(a *ledger.Admission) string { return a.RequestedBy }),
			col("BodyHashes", func(a *ledger.Admission) []byte { return a.BodyHash }),
			col("Estimates", func(a *ledger.Admission) int64 { return int64(a.Request.Estimate) }),
			col("FileSizes", func(a *ledger.Admission) int64 { return a.Request.FileSize }),
			col("Priorities", func(a *ledger.Admission) int32 { return a.Priority }),
			col("Enforced", func(a *ledger.Admission) bool { return a.Enforced }),
			col("CreatedAt", func(a *ledger.Admission) time.Time { return a.CreatedAt }),
			col("LeaseMs", func(a *ledger.Admission) int64 { return a.Lease.Milliseconds() }),
			col("Clusters", func(a *ledger.Admission) *quota.ID { return idColumn(a.Cluster) }),
		}, admissionLife...)...)

	insertEvents = newStatement[dbsqlc.InsertEventsParams](dbsqlc.InsertEvents,
		col("Ids", func(e *ledger.Event) quota.ID { return e.ID }),
		col("RecordedAt", func(e *ledger.Event) time.Time { return e.RecordedAt }),
		col("Accounts", func(e *ledger.Event) quota.ID { return e.Account }),
		col("Periods", func(e *ledger.Event) int64 { return e.PeriodNo }),
		col("Kinds", func(e *ledger.Event) string { return string(e.Kind) }),
		col("UsageTypes", func(e *ledger.Event) string { return e.UsageType }),
		col("Admissions", func(e *ledger.Event) *quota.ID { return idColumn(e.Admission) }),
		col("IdempotencyKeys", func(e *ledger.Event) *string { return presentIf(e.Key != "", e.Key) }),
		col("Reverses", func(e *ledger.Event) *quota.ID { return idColumn(e.Reverses) }),
		col("RefundLots", func(e *ledger.Event) *quota.ID { return idColumn(e.RefundLot) }),
		col("OccurredAt", func(e *ledger.Event) time.Time { return e.OccurredAt }),
		col("Credits", func(e *ledger.Event) int64 { return int64(e.Credits) }),
		col("PlanParts", func(e *ledger.Event) int64 { return int64(e.Alloc.Plan) }),
		col("Overages", func(e *ledger.Event) int64 { return int64(e.Overage) }),
		col("Lots", func(e *ledger.Event) []byte { return sharesColumn(e.Alloc.Lots) }),
		col("Durations", func(e *ledger.Event) int64 { return e.Duration.Milliseconds() }),
		col("FileSizes", func(e *ledger.Event) int64 { return e.FileSize }),
		col("Tokens", func(e *ledger.Event) int64 { return e.Tokens }),
		col("Quantities", func(e *ledger.Event) int64 { return e.Quantity }),
		col("Units", func(e *ledger.Event) *int64 { return rateColumn(e.Rate) }),
		col("Prices", func(e *ledger.Event) int64 { return int64(e.Price) }),
		col("Costs", func(e *ledger.Event) int64 { return int64(e.Cost) }),
		col("Currencies", func(e *ledger.Event) string { return e.Currency }),
		col("CostCurrencies", func(e *ledger.Event) string { return e.CostCurrency }),
		col("PlanNames", func(e *ledger.Event) string { return e.PlanName }),
		col("PlanVersions", func(e *ledger.Event) int64 { return e.PlanVersion }),
		col("Late", func(e *ledger.Event) bool { return e.Late }),
		col("Seqs", func(e *ledger.Event) int64 { return e.Seq }),
		col("Metadata", func(e *ledger.Event) []byte { return metadataColumn(e.Metadata) }),
		col("RecordedBy", func(e *ledger.Event) string { return e.RecordedBy }),
		col("Reasons", func(e *ledger.Event) string { return e.Reason }),
		col("Levels", func(e *ledger.Event) []byte { return bookingsColumn(e.Levels) }),
		col("Void", func(e *ledger.Event) *bool { return presentIf(e.Void != (e.RefundLot != quota.LotID{}), e.Void) }),
		col("Payers", func(e *ledger.Event) quota.ID { return cmp.Or(e.Payer, e.Account) }),
	)
	addShares = newStatement[dbsqlc.AddSharesParams](dbsqlc.AddShares,
		col("Teams", func(r shareRow) quota.ID { return r.team }),
		col("Periods", func(r shareRow) int64 { return r.period }),
		col("Users", func(r shareRow) quota.ID { return r.user }),
		col("Used", func(r shareRow) int64 { return int64(r.used) }),
	)
	insertKeys = newStatement[dbsqlc.InsertKeysParams](dbsqlc.InsertKeys,
		col("Accounts", func(m ledger.Made) quota.ID { return m.Account }),
		col("Keys", func(m ledger.Made) string { return m.Key }),
		col("MadeAt", func(m ledger.Made) time.Time { return m.RecordedAt }),
		col("BodyHashes", func(m ledger.Made) []byte { return m.BodyHash }),
		col("Events", func(m ledger.Made) quota.ID { return m.ID }),
	)
	insertReversals = newStatement[dbsqlc.InsertReversalsParams](dbsqlc.InsertReversals,
		col("Events", func(e *ledger.Event) quota.ID { return e.Reverses }),
		col("Accounts", func(e *ledger.Event) quota.ID { return e.Account }),
		col("Reversals", func(e *ledger.Event) quota.ID { return e.ID }),
		col("ReversedAt", func(e *ledger.Event) time.Time { return e.RecordedAt }),
	)
	upsertTurns = newStatement[dbsqlc.UpsertTurnsParams](dbsqlc.UpsertTurns,
		col("Accounts", func(r turnRow) quota.ID { return r.account }),
		col("Parents", func(r turnRow) *quota.ID { return r.parent }),
		col("StartUnits", func(r turnRow) int64 { return r.Start.Units }),
		col("StartParts", func(r turnRow) int64 { return r.Start.Part }),
		col("NowUnits", func(r turnRow) int64 { return r.Now.Units }),
		col("NowParts", func(r turnRow) int64 { return r.Now.Part }),
		col("Weights", func(r turnRow) int32 { return max(1, r.Weight) }),
		col("Runnable", func(r turnRow) bool { return r.Runnable }),
	)
	alertID      = col("Ids", func(r alertRow) quota.ID { return r.ID(r.l.Account.ID) })
	insertAlerts = newStatement[dbsqlc.InsertAlertsParams](dbsqlc.InsertAlerts,
		alertID,
		col("Accounts", func(r alertRow) quota.ID { return r.l.Account.ID }),
		col("Periods", func(r alertRow) int64 { return r.PeriodNo }),
		col("Kinds", func(r alertRow) string { return string(r.Kind) }),
		col("Thresholds", func(r alertRow) int32 { return r.Threshold }),
		col("Subjects", func(r alertRow) string { return r.Subject }),
		col("Numbers", func(r alertRow) int32 { return r.Number }),
		col("Severities", func(r alertRow) string { return string(r.Severity()) }),
		col("Used", func(r alertRow) int64 { return r.Used }),
		col("Limits", func(r alertRow) *int64 { return presentIf(!r.Unlimited, r.Limit) }),
		col("Currencies", func(r alertRow) *string { return presentIf(r.Currency != "", r.Currency) }),
		col("PlanNames", func(r alertRow) *string {
			return presentIf(r.l.Account.Plan.Sells(), r.l.Account.Plan.Name)
		}),
		col("RaisedAt", func(r alertRow) time.Time { return r.l.Now }),
		col("Seqs", func(r alertRow) int64 { return r.l.Account.Seq }),
		col("EndsAt", func(r alertRow) time.Time { return r.Until }),
		col("ExpectedAt", func(r alertRow) *time.Time { return presentIf(!r.Expected.IsZero(), r.Expected) }),
	)
	resolveAlerts = newStatement[dbsqlc.ResolveAlertsParams](dbsqlc.ResolveAlerts,
		alertID,
		col("ResolvedAt", func(r alertRow) *time.Time { return presentIf(r.State != quota.AlertOpen, r.l.Now) }),
	)
	rememberAlerts = newStatement[dbsqlc.RememberAlertsParams](dbsqlc.RememberAlerts,
		col("Ids", func(l *ledger.Ledger) quota.ID { return l.Account.ID }),
		col("Alerts", func(l *ledger.Ledger) string { return l.Account.Alerts.String() }),
	)
	insertAudit = newStatement[dbsqlc.InsertAuditParams](dbsqlc.InsertAudit,
		col("At", func(r auditRow) time.Time { return r.now }),
		col("Actors", func(r auditRow) string { return r.Actor.Name }),
		col("Persons", func(r auditRow) bool { return r.Actor.Person }),
		col("Actions", func(r auditRow) string { return string(r.Action) }),
		col("Kinds", func(r auditRow) string { return r.Action.Kind() }),
		col("Objects", func(r auditRow) string { return r.Object }),
		col("Accounts", func(r auditRow) *quota.ID { return idColumn(r.account) }),
		col("Versions", func(auditRow) int16 { return quota.AuditVersion }),
		col("Before", func(r auditRow) []byte { return r.before }),
		col("After", func(r auditRow) []byte { return r.after }),
	)
)

func admitted(a *ledger.Admission) bool { return !a.AdmittedAt.IsZero() }

// errFixed says that a batch has changed what is written once and for all.
var errFixed = errors.New("this never changes once it is stored")

// collect takes note of what differs in a ledger from what was loaded.
func (w *writes) collect(l *ledger.Ledger, was *loaded) error {
	if l.New {
		if l.Account.Plan != nil {
			w.open(l)
		}
		return w.tell(l)
	}
	if l.Team != nil && (*l.Team != was.team || l.Account.Team != was.bounds) {
		w.teams = append(w.teams, teamParams(l))
	}
	settings := was.unreadable || l.Account.Plan.Name != was.plan || l.Settings != was.settings ||
		l.Account.Suspended != was.suspended ||
		!l.Account.Anchor.Equal(was.anchor) || !l.Account.Overrides.Equal(was.overrides)
	if settings {
		w.settings = append(w.settings, settingsParams(l.Account, l.Settings))
	}
	lots := len(w.lots)
	for i := range l.Account.Lots {
		lot := &l.Account.Lots[i]
		before, there := was.lots[lot.ID]
		if before == *lot {
			continue
		}
		if before.Credits, before.Used, before.Reserved = lot.Credits, lot.Used, lot.Reserved; there && before != *lot {
			return fmt.Errorf("lot %s: what it is has changed: %w", lot.ID, errFixed)
		}
		w.lots = append(w.lots, lotRow{account: l.Account.ID, now: l.Now, Lot: lot})
	}
	alerts := w.alert(l, was.alerts)
	if settings || lots < len(w.lots) || was.below || alerts || l.Account.Balance != was.balance {
		w.accounts = append(w.accounts, l)
	}
	if l.Account.Currency != was.balance.Currency || l.Account.Other != was.balance.Other {
		w.currencies = append(w.currencies, l)
	}
	if err := w.collectPeriods(l, was.periods); err != nil {
		return err
	}
	for _, adm := range l.Admissions {
		before, there := was.admissions[adm.ID]
		if adm.Offline && !before.Offline {
			w.offline = append(w.offline, adm.ID)
		}
		if !there {
			w.newAdmissions = append(w.newAdmissions, adm)
			continue
		}
		if err := w.change(&before, adm); err != nil {
			return err
		}
	}
	w.book(l)
	return w.tell(l)
}

// alert takes note of what the account is told of, and reports whether it remembers anything else than before.
func (w *writes) alert(l *ledger.Ledger, was *quota.Raised) bool {
	for i := range l.Alerts {
		row := alertRow{l: l, AlertChange: &l.Alerts[i]}
		if row.New {
			w.raised = append(w.raised, row)
		} else {
			w.resolved = append(w.resolved, row)
		}
	}
	if l.Account.Alerts == was {
		return false
	}
	w.remembered = append(w.remembered, l)
	return true
}

// open takes note of a new account. A team is declared at once, with its grants; a user is later.
func (w *writes) open(l *ledger.Ledger) {
	w.newAccounts = append(w.newAccounts, l)
	if l.Team == nil {
		w.newUsers = append(w.newUsers, l)
		return
	}
	w.teams = append(w.teams, teamParams(l))
	w.settings = append(w.settings, settingsParams(l.Account, l.Settings))
	for i := range l.Account.Lots {
		w.lots = append(w.lots, lotRow{account: l.Account.ID, now: l.Now, Lot: &l.Account.Lots[i]})
	}
}

func (w *writes) collectPeriods(l *ledger.Ledger, was map[int64]quota.ClosedPeriod) error {
	for no, p := range l.Closed {
		row := periodRow{account: l.Account.ID, now: l.Now, ClosedPeriod: p}
		before, there := was[no]
		if !there {
			w.newPeriods = append(w.newPeriods, row)
			continue
		}
		if before == *p {
			continue
		}
		before.Used, before.Reserved, before.PlanUsed, before.PlanReserved = p.Used, p.Reserved, p.PlanUsed,
			p.PlanReserved
		before.Cost, before.Charged, before.Other, before.CarryOver = p.Cost, p.Charged, p.Other, p.CarryOver
		if before != *p {
			return fmt.Errorf("period %d: what held when it was closed has changed: %w", no, errFixed)
		}
		w.periods = append(w.periods, row)
	}
	return nil
}

// change chooses the narrowest statement that writes what differs about an admission.
func (w *writes) change(before *quota.Admission, adm *ledger.Admission) error {
	if before.Equal(&adm.Admission) {
		return nil
	}
	if adm.ReleaseReason != "" {
		w.explained = append(w.explained, adm)
	}
	renewed, ended := *before, *before
	renewed.LeaseUntil = adm.LeaseUntil
	ended.State, ended.Reason, ended.Actual, ended.Late = adm.State, adm.Reason, adm.Actual, adm.Late
	ended.EndedAt, ended.EndedSeq, ended.Levels = adm.EndedAt, adm.EndedSeq, adm.Levels
	switch {
	case ended.Equal(&adm.Admission):
		w.ended = append(w.ended, adm)
	case renewed.Equal(&adm.Admission):
		w.renewed = append(w.renewed, adm)
	case !before.SameRequest(&adm.Admission):
		return fmt.Errorf("admission %s: what was asked for has changed: %w", adm.ID, errFixed)
	default:
		w.others = append(w.others, adm)
	}
	return nil
}

// turn takes note of an account's turn: also of one that cannot be read, for it is nobody's any more.
func (w *writes) turn(l *ledger.Ledger, was *dbsqlc.QueueTurn) {
	if l.Cut {
		return
	}
	row := turnRow{account: l.Account.ID, Turn: &l.Turn}
	if up := l.Above[0]; up != nil {
		row.parent = new(quota.ID(up.Account.ID))
	}
	if was == nil {
		if l.Turn.Turn == (quota.Turn{}) && !l.Turn.Runnable && (row.parent == nil || l.Account.Queued == 0) {
			return
		}
	} else if l.Turn.Turn == turnOf(was) && l.Turn.Runnable == was.Runnable && max(1, l.Turn.Weight) == was.Weight &&
		idOf(row.parent) == idOf(was.ParentID) {
		return
	}
	w.turns = append(w.turns, row)
}

func (w *writes) book(l *ledger.Ledger) {
	for _, m := range l.Booked {
		w.events = append(w.events, m.Event)
		if m.Key != "" {
			w.keys = append(w.keys, m)
		}
		if m.Kind == ledger.EventReversal {
			w.reversals = append(w.reversals, m.Event)
		}
		w.shareOut(m.Event)
	}
}

// shareOut takes note of what an event adds to its user's share in each of the teams that it is booked on.
func (w *writes) shareOut(e *ledger.Event) {
	for i := range e.Levels {
		on := &e.Levels[i]
		if on.Void {
			continue
		}
		used := e.Credits
		if e.Kind == ledger.EventReversal {
			used = -used
		}
		if w.shares == nil {
			w.shares = map[share]quota.Credits{}
		}
		w.shares[share{team: on.Account, period: on.PeriodNo, user: e.Account}] += used
	}
}

// shareRows returns the shares in any order: whoever changes one has the team's account locked.
func (w *writes) shareRows() []shareRow {
	rows := make([]shareRow, 0, len(w.shares))
	for of, used := range w.shares {
		rows = append(rows, shareRow{share: of, used: used})
	}
	return rows
}

func (w *writes) tell(l *ledger.Ledger) error {
	for i := range l.Audit {
		row, err := newAuditRow(l.Account.ID, l.Now, &l.Audit[i])
		if err != nil {
			return err
		}
		w.audit = append(w.audit, row)
	}
	return nil
}

// newAuditRow encodes what happened at that time to the account, or to none.
func newAuditRow(account quota.AccountID, now time.Time, r *quota.AuditRow) (auditRow, error) {
	before, after, err := r.Encode()
	return auditRow{account: account, now: now, before: before, after: after, AuditRow: r}, err
}

// queueAudit queues what writes the rows, in their order: persons are made known to the actors first, and a reason
// follows its row.
func queueAudit(q *pgx.Batch, rows []auditRow) {
	var persons []string
	for _, r := range rows {
		if r.Actor.Person {
			persons = append(persons, r.Actor.Name)
		}
	}
	if len(persons) > 0 {
		q.Queue(dbsqlc.NameActors, persons)
	}
	from := 0
	for i := range rows {
		if rows[i].Reason != "" {
			insertAudit.queue(q, rows[from:i+1])
			q.Queue(dbsqlc.ExplainAudit, rows[i].Reason)
			from = i + 1
		}
	}
	insertAudit.queue(q, rows[from:])
}

// queue queues the statements.
func (w *writes) queue(t *postgres.RoundTrip) {
	q := &t.Batch
	insertUsers.queue(q, w.newUsers)
	insertAccounts.queue(q, w.newAccounts)
	insertPeriods.queue(q, w.newPeriods)
	updatePeriods.queue(q, w.periods)
	upsertLots.queue(q, w.lots)
	insertAdmissions.queue(q, w.newAdmissions)
	if len(w.offline) > 0 {
		q.Queue(dbsqlc.MarkOffline, w.offline)
	}
	endAdmissions.queue(q, w.ended)
	explainReleases.queue(q, w.explained)
	renewLeases.queue(q, w.renewed)
	updateAdmissions.queue(q, w.others)
	insertEvents.queue(q, w.events)
	if len(w.shares) > 0 {
		addShares.queue(q, w.shareRows())
	}
	insertKeys.queue(q, w.keys)
	insertReversals.queue(q, w.reversals)
	queueAudit(q, w.audit)
	for _, p := range w.settings {
		t.Tell(func(q *dbsqlc.Queries) error { return q.UpdateSettings(context.Background(), p) })
	}
	for _, p := range w.teams {
		t.Tell(func(q *dbsqlc.Queries) error { return q.UpsertTeam(context.Background(), p) })
	}
	updateAccounts.queue(q, w.accounts)
	updateCurrencies.queue(q, w.currencies)
	insertAlerts.queue(q, w.raised)
	resolveAlerts.queue(q, w.resolved)
	rememberAlerts.queue(q, w.remembered)
	placeAccounts.queue(q, w.placed)
	upsertTurns.queue(q, w.turns)
}
