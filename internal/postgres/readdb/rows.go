// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// The names by which unlimited_overrides says that an override lifts a limit.
const (
	UnlimitedCredits    = "credits"
	UnlimitedFileSize   = "file_size"
	UnlimitedAudio      = "audio"
	UnlimitedConcurrent = "concurrent"
	UnlimitedQueued     = "queued"
)

var unlimitedNames = []string{UnlimitedCredits, UnlimitedFileSize, UnlimitedAudio, UnlimitedConcurrent, UnlimitedQueued}

// limit reads a column in which NULL means unlimited.
func limit[T ~int32 | ~int64, C int32 | int64](column *C) quota.Limit[T] {
	if column == nil {
		return quota.Limit[T]{Unlimited: true}
	}
	return quota.AtMost(T(*column))
}

func fromMilliseconds(l quota.Limit[int64]) quota.Limit[time.Duration] {
	return quota.Limit[time.Duration]{Max: time.Duration(l.Max) * time.Millisecond, Unlimited: l.Unlimited}
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

func idOf(id *quota.ID) quota.ID {
	if id == nil {
		return quota.ID{}
	}
	return *id
}

// PlanOf reads a plan. The terms of its earlier versions are not in its row.
func PlanOf(r *dbsqlc.UserPlanLimit) *quota.Plan {
	return &quota.Plan{
		Name: r.Name, DisplayName: r.DisplayName, Version: r.Version, Rank: r.Rank, Default: r.IsDefault,
		Retired:  r.Retired,
		Features: r.Features, CalendarMonth: r.CalendarMonth,
		FinalAfter: time.Duration(r.FinalAfterSeconds) * time.Second,
		MaxWait:    time.Duration(numberOf(r.MaxWaitSeconds)) * time.Second,
		Weight:     r.Weight,
		Limits: quota.Limits{
			Credits:    limit[quota.Credits](r.CreditsLimit),
			FileSize:   limit[int64](r.FileSizeLimit),
			Audio:      fromMilliseconds(limit[int64](r.AudioMsLimit)),
			Concurrent: limit[int32](r.ConcurrentLimit),
			Queued:     limit[int32](r.QueuedLimit),
		},
		OverageMax: quota.Credits(r.OverageMax), OveragePrice: quota.Money(r.OveragePriceMicros),
		CarryOverMax: quota.Credits(r.CarryOverMax), ProviderCost: quota.Money(r.ProviderCostMicros),
		Currency: r.Currency, PeriodPrice: quota.Money(r.PeriodPriceMicros),
		DailyCostCeiling: limit[quota.Money](r.DailyCostCeilingMicros),
		RateRequests:     r.RateRequests, RateWindow: time.Duration(r.RateWindowSeconds) * time.Second,
		AlertThresholds: r.AlertThresholds, AdmitWhenUnavailable: r.AdmitWhenUnavailable,
		UsageTypes: usageTypesOf(r.UsageTypes),
	}
}

func usageTypesOf(column json.RawMessage) map[string]quota.Rate {
	var types map[string]quota.Rate
	if err := json.Unmarshal(column, &types); err != nil || len(types) == 0 {
		return nil
	}
	return types
}

// MeteringPlan reads a plan with what the operator knows of it besides.
func MeteringPlan(r *dbsqlc.UserPlanLimit) *metering.Plan {
	return &metering.Plan{
		Plan: *PlanOf(r), ObjectUID: idOf(r.ObjectUid), Cluster: idOf(r.HomeCluster), ResetSchedule: r.ResetSchedule,
		ResetBatchSize: r.ResetBatchSize,
	}
}

// Account reads an account's row, without its plan and lots. What this release does not know of its settings is left
// out, and the error says so.
func (s *Store) Account(
	r *dbsqlc.UsageQuota, userID string, home quota.ClusterUID,
) (*quota.Account, ledger.Settings, *ledger.UnreadableError) {
	var unreadable *ledger.UnreadableError
	zone, err := s.zone(r.TimeZone)
	if err != nil {
		zone, unreadable = time.UTC, &ledger.UnreadableError{UserID: userID,
			What: fmt.Sprintf("time zone %q: %v", r.TimeZone, err), Declared: true}
	}
	for _, name := range r.UnlimitedOverrides {
		if !slices.Contains(unlimitedNames, name) {
			unreadable = &ledger.UnreadableError{UserID: userID, What: fmt.Sprintf("an override of the limit %q", name),
				Declared: true}
		}
	}
	settings := ledger.Settings{
		QuotaUID: idOf(r.QuotaUid), ZoneName: r.TimeZone, Home: home, MemberOf: idOf(r.MemberOf),
		MemberDeclared: r.MemberDeclared,
	}
	if r.QuotaName != nil {
		settings.QuotaName = *r.QuotaName
	}
	other, err := otherAmountsOf(r.OtherAmounts)
	if err != nil {
		unreadable = &ledger.UnreadableError{UserID: userID, What: err.Error()}
	}
	alerts, err := quota.ParseRaised(Text(r.Alerts))
	if err != nil {
		unreadable = &ledger.UnreadableError{UserID: userID, What: err.Error()}
	}
	return &quota.Account{
		ID: r.UserID, UserID: userID, Overrides: overridesOf(r), Suspended: r.Suspended,
		Anchor: r.AnchorAt.UTC(), Zone: zone, Alerts: alerts,
		Balance: quota.Balance{
			Period: quota.Period{Start: r.PeriodStart.UTC(), End: r.PeriodEnd.UTC()}, PeriodNo: r.PeriodNo,
			Used: quota.Credits(r.Used), Reserved: quota.Credits(r.Reserved),
			PlanUsed: quota.Credits(r.PlanUsed), PlanReserved: quota.Credits(r.PlanReserved),
			Amounts: quota.Amounts{
				Currency: Text(r.Currency), Cost: quota.Money(r.CostMicros), Charged: quota.Money(r.ChargedMicros),
				DayCost: quota.Money(r.DayCostMicros), ReservedCost: quota.Money(r.ReservedCostMicros),
			},
			Other: other, Day: r.Day.UTC(),
			Active: r.Active, Queued: r.Queued, Parked: r.Parked, Seq: r.Seq,
		},
	}, settings, unreadable
}

// AuditSettings reads what a UserQuota has decided about an account, as the audit log tells it.
func AuditSettings(r *dbsqlc.UsageQuota) quota.AuditSettings {
	s := quota.AuditSettings{
		Plan: Text(r.PlanName), Suspended: r.Suspended, Anchor: quota.AuditTime(r.AnchorAt), TimeZone: r.TimeZone,
		Overrides: overridesOf(r).Audit(),
	}
	if r.QuotaUid != nil {
		s.QuotaUID = new(quota.ObjectUID(*r.QuotaUid))
	}
	if r.HomeCluster != nil {
		s.Home = new(quota.ClusterUID(*r.HomeCluster))
	}
	if r.MemberOf != nil {
		s.MemberOf = new(quota.AccountID(*r.MemberOf))
	}
	s.MemberDeclared = r.MemberDeclared
	return s
}

func overridesOf(r *dbsqlc.UsageQuota) quota.Overrides {
	return quota.Overrides{
		Credits:    overrideOf[quota.Credits](r.CreditsOverride, r.UnlimitedOverrides, UnlimitedCredits),
		FileSize:   overrideOf[int64](r.FileSizeOverride, r.UnlimitedOverrides, UnlimitedFileSize),
		Audio:      audioOverride(r),
		Concurrent: overrideOf[int32](r.ConcurrentOverride, r.UnlimitedOverrides, UnlimitedConcurrent),
		Queued:     overrideOf[int32](r.QueuedOverride, r.UnlimitedOverrides, UnlimitedQueued),
	}
}

func overrideOf[T ~int32 | ~int64, C int32 | int64](column *C, unlimited []string, name string) *quota.Limit[T] {
	switch {
	case slices.Contains(unlimited, name):
		return &quota.Limit[T]{Unlimited: true}
	case column != nil:
		return new(quota.AtMost(T(*column)))
	}
	return nil
}

func audioOverride(r *dbsqlc.UsageQuota) *quota.Limit[time.Duration] {
	ms := overrideOf[int64](r.AudioMsOverride, r.UnlimitedOverrides, UnlimitedAudio)
	if ms == nil {
		return nil
	}
	return new(fromMilliseconds(*ms))
}

// LotOf reads a lot. One of a kind that this release does not know comes with an error.
func LotOf(r *dbsqlc.CreditLot) (quota.Lot, error) {
	var err error
	if kind := quota.LotKind(r.Kind); kind != quota.LotGrant && kind != quota.LotCarryOver {
		err = fmt.Errorf("lot %s of kind %q", quota.LotID(r.ID), r.Kind)
	}
	return quota.Lot{
		ID: r.ID, Kind: quota.LotKind(r.Kind), Name: r.Name, Credits: quota.Credits(r.Credits),
		Used:     quota.Credits(r.Used),
		Reserved: quota.Credits(r.Reserved), ExpiresAt: timeOf(r.ExpiresAt),
	}, err
}

// PeriodOf reads a closed period.
func PeriodOf(r *dbsqlc.UsagePeriod) (*quota.ClosedPeriod, error) {
	other, err := otherAmountsOf(r.OtherAmounts)
	if err != nil {
		err = fmt.Errorf("period %d: %w", r.PeriodNo, err)
	}
	return &quota.ClosedPeriod{
		No: r.PeriodNo, Period: quota.Period{Start: r.PeriodStart.UTC(), End: r.PeriodEnd.UTC()},
		Used: quota.Credits(r.Used), Reserved: quota.Credits(r.Reserved),
		PlanUsed: quota.Credits(r.PlanUsed), PlanReserved: quota.Credits(r.PlanReserved),
		Cost: quota.Money(r.CostMicros), Charged: quota.Money(r.ChargedMicros),
		PlanLimit: limit[quota.Credits](r.PlanCredits), PlanName: r.PlanName, PlanVersion: r.PlanVersion,
		CarryOver: quota.Credits(r.CarryOver), CarryOverMax: quota.Credits(r.CarryOverMax),
		Grace: time.Duration(r.FinalAfterSeconds) * time.Second, Currency: Text(r.Currency),
		Other:        other,
		OveragePrice: (*quota.Money)(r.OveragePriceMicros),
	}, err
}

// Amounts is how a column keeps those of a currency besides the row's own, under the names of the row's columns.
type Amounts struct {
	Cost         int64 `json:"cost_micros"`
	Charged      int64 `json:"charged_micros"`
	DayCost      int64 `json:"day_cost_micros,omitempty"`
	ReservedCost int64 `json:"reserved_cost_micros,omitempty"`
}

func otherAmountsOf(column []byte) (*quota.OtherAmounts, error) {
	if column == nil {
		return nil, nil
	}
	var in map[string]Amounts
	if err := json.Unmarshal(column, &in); err != nil {
		return nil, fmt.Errorf("amounts of other currencies: %w", err)
	}
	other := &quota.OtherAmounts{}
	for _, currency := range slices.Sorted(maps.Keys(in)) {
		m := in[currency]
		other.List = append(other.List, quota.Amounts{
			Currency: currency, Cost: quota.Money(m.Cost), Charged: quota.Money(m.Charged),
			DayCost: quota.Money(m.DayCost), ReservedCost: quota.Money(m.ReservedCost),
		})
	}
	return other, nil
}

// Text reads a column in which NULL means the empty text.
func Text(column *string) string {
	if column == nil {
		return ""
	}
	return *column
}

// Share is how a column keeps a part of an allocation.
type Share struct {
	Lot     pgtype.UUID `json:"lot"`
	Credits int64       `json:"credits"`
}

func sharesOf(column []byte) ([]quota.Share, error) {
	if column == nil {
		return nil, nil
	}
	var in []Share
	if err := json.Unmarshal(column, &in); err != nil {
		return nil, fmt.Errorf("lots: %w", err)
	}
	out := make([]quota.Share, len(in))
	for i, s := range in {
		out[i] = quota.Share{Lot: s.Lot.Bytes, Credits: quota.Credits(s.Credits)}
	}
	return out, nil
}

// TeamOf reads what only a team has. One without a plan gets the one that sells nothing.
func TeamOf(a *quota.Account, r *dbsqlc.Team) {
	memberCurrency := r.CapCurrency
	if r.MemberCostCurrency != nil {
		memberCurrency = *r.MemberCostCurrency
	}
	a.Team = &quota.Team{
		Name: r.Name, Weight: r.Weight,
		Caps: capsOf(r.CapCurrency, r.CreditsCap, r.ConcurrentCap, r.QueuedCap, r.DailyCostCapMicros, nil),
		MemberDefaults: capsOf(memberCurrency, r.MemberCredits, r.MemberConcurrent, r.MemberQueued,
			r.MemberDailyCostMicros, r.UnlimitedMembers),
	}
	if a.Plan == nil {
		a.Plan = quota.CapOnly(r.CapCurrency)
	}
}

// TeamSettingsOf reads what a UsageTeam declares about a team besides.
func TeamSettingsOf(r *dbsqlc.Team) ledger.TeamSettings {
	return ledger.TeamSettings{
		ObjectUID: idOf(r.ObjectUid), Home: idOf(r.HomeCluster), DisplayName: r.DisplayName,
		Root: r.IsRoot, Retired: r.Retired, Currency: r.CapCurrency,
	}
}

// AuditTeam reads what a UsageTeam has decided about a team, as the audit log tells it.
func AuditTeam(t *dbsqlc.Team, r *dbsqlc.UsageQuota) quota.AuditTeam {
	l := ledger.Ledger{
		Account: &quota.Account{
			ID: r.UserID, Plan: &quota.Plan{Name: Text(r.PlanName)}, Suspended: r.Suspended, Anchor: r.AnchorAt,
		},
		Settings: ledger.Settings{ZoneName: r.TimeZone, MemberOf: idOf(r.MemberOf)},
		Team:     new(TeamSettingsOf(t)),
	}
	TeamOf(l.Account, t)
	return l.AuditTeam()
}

// UnlimitedDailyCost is the name by which unlimited_members says that there is no daily ceiling; those of the other
// limits are an override's.
const UnlimitedDailyCost = "daily_cost"

func capsOf(
	currency string, credits *int64, concurrent, queued *int32, dailyCost *int64, unlimited []string,
) quota.Caps {
	caps := quota.Caps{
		Credits: capOf[quota.Credits](credits), Concurrent: capOf[int32](concurrent), Queued: capOf[int32](queued),
	}
	if most := capOf[quota.Money](dailyCost); most != nil {
		caps.DailyCost = &quota.Ceiling{Limit: *most, Currency: currency}
	}
	for _, name := range unlimited {
		switch name {
		case UnlimitedCredits:
			caps.Credits = &quota.Limit[quota.Credits]{Unlimited: true}
		case UnlimitedConcurrent:
			caps.Concurrent = &quota.Limit[int32]{Unlimited: true}
		case UnlimitedQueued:
			caps.Queued = &quota.Limit[int32]{Unlimited: true}
		case UnlimitedDailyCost:
			caps.DailyCost = &quota.Ceiling{Limit: quota.Limit[quota.Money]{Unlimited: true}}
		}
	}
	return caps
}

func capOf[T ~int32 | ~int64, C int32 | int64](column *C) *quota.Limit[T] {
	if column == nil {
		return nil
	}
	return new(quota.AtMost(T(*column)))
}

// Held is how a column keeps what an admission holds above its user. What it saw remaining, and the slots, are missing
// where they were unlimited.
type Held struct {
	Account     pgtype.UUID `json:"account"`
	PeriodNo    int64       `json:"period_no"`
	AdmittedSeq int64       `json:"admitted_seq"`
	EndedSeq    *int64      `json:"ended_seq,omitempty"`
	Remaining   *int64      `json:"seen_remaining,omitempty"`
	Concurrent  *int32      `json:"seen_concurrent,omitempty"`
	Used        int64       `json:"seen_used"`
	Reserved    int64       `json:"seen_reserved"`
	Active      int32       `json:"seen_active"`
}

func heldOf(column []byte) ([]quota.Held, error) {
	if column == nil {
		return nil, nil
	}
	var in []Held
	if err := json.Unmarshal(column, &in); err != nil {
		return nil, fmt.Errorf("levels: %w", err)
	}
	out := make([]quota.Held, len(in))
	for i, h := range in {
		out[i] = quota.Held{
			Account: h.Account.Bytes, PeriodNo: h.PeriodNo, AdmittedSeq: h.AdmittedSeq, EndedSeq: numberOf(h.EndedSeq),
			Seen: quota.Seen{
				Remaining: limit[quota.Credits](h.Remaining), Concurrent: limit[int32](h.Concurrent),
				Used: quota.Credits(h.Used), Reserved: quota.Credits(h.Reserved), Active: h.Active,
			},
		}
	}
	return out, nil
}

// Booking is how a column keeps where an event is booked above its user.
type Booking struct {
	Account  pgtype.UUID `json:"account"`
	PeriodNo int64       `json:"period_no"`
	Seq      int64       `json:"seq"`
	Void     bool        `json:"void,omitempty"`
}

func bookingsOf(column []byte) ([]quota.Booking, error) {
	if column == nil {
		return nil, nil
	}
	var in []Booking
	if err := json.Unmarshal(column, &in); err != nil {
		return nil, fmt.Errorf("levels: %w", err)
	}
	out := make([]quota.Booking, len(in))
	for i, b := range in {
		out[i] = quota.Booking{Account: b.Account.Bytes, PeriodNo: b.PeriodNo, Seq: b.Seq, Void: b.Void}
	}
	return out, nil
}

var states = []quota.State{quota.Queued, quota.Admitted, quota.Settled, quota.Released, quota.Expired, quota.Cancelled}

// AdmissionOf reads an admission of the user, without its place in the queue. What this release does not know of it
// is a ledger.UnreadableError.
func AdmissionOf(r *dbsqlc.ConcurrentProcessing, userID string) (*ledger.Admission, error) {
	lots, err := sharesOf(r.Lots)
	levels, badLevels := heldOf(r.Levels)
	switch {
	case err != nil:
	case badLevels != nil:
		err = badLevels
	case !slices.Contains(states, quota.State(r.State)):
		err = fmt.Errorf("state %q", r.State)
	case r.Source != string(quota.SourceAPI) && r.Source != string(quota.SourceJob):
		err = fmt.Errorf("source %q", r.Source)
	}
	if err != nil {
		what := fmt.Sprintf("admission %s: %v", quota.AdmissionID(r.ID), err)
		return nil, &ledger.UnreadableError{UserID: userID, What: what}
	}
	adm := &ledger.Admission{
		Admission: quota.Admission{
			ID: r.ID, Account: r.UserID, Source: quota.Source(r.Source), State: quota.State(r.State),
			Reason:   quota.Reason(r.Reason),
			Request:  quota.Request{Estimate: quota.Credits(r.Estimate), FileSize: r.FileSize},
			Priority: r.Priority, Enforced: r.Enforced, Offline: r.Offline, PeriodEnd: timeOf(r.PeriodEnd),
			Alloc:         quota.Allocation{Plan: quota.Credits(r.PlanPart), Lots: lots},
			EstimatedCost: quota.Money(r.EstimatedCostMicros), ProviderCost: quota.Money(r.ProviderCostMicros),
			Currency: Text(r.Currency),
			Reported: creditsOf(r.Reported), Actual: creditsOf(r.Actual), Late: r.Late, Parked: r.Parked,
			EverParked: r.EverParked,
			CreatedAt:  r.CreatedAt.UTC(), AdmittedAt: timeOf(r.AdmittedAt), EndedAt: timeOf(r.EndedAt),
			RequeuedAt: timeOf(r.RequeuedAt), WaitedFor: quota.Reason(Text(r.WaitedFor)),
			MaxWait: time.Duration(numberOf(r.MaxWaitMs)) * time.Millisecond,
			Lease:   time.Duration(r.LeaseMs) * time.Millisecond, LeaseUntil: r.LeaseUntil.UTC(),
			ArrivedSeq: r.ArrivedSeq, AdmittedSeq: numberOf(r.AdmittedSeq), EndedSeq: numberOf(r.EndedSeq),
		},
		UserID: userID, Namespace: r.Namespace, Name: r.Name, RequestedBy: r.RequestedBy, BodyHash: r.BodyHash,
		Cluster: idOf(r.ClusterUid), ReleaseReason: Text(r.ReleaseReason),
	}
	adm.PeriodNo = numberOf(r.PeriodNo)
	if r.AdmittedAt != nil {
		adm.Payer, adm.Levels = payerOf(r.PayerID, r.UserID), levels
		adm.Seen = quota.Seen{
			Remaining: limit[quota.Credits](r.SeenRemaining), Concurrent: limit[int32](r.SeenConcurrent),
			Used: quota.Credits(numberOf(r.SeenUsed)), Reserved: quota.Credits(numberOf(r.SeenReserved)),
			Active: numberOf(r.SeenActive),
		}
	}
	return adm, nil
}

// payerOf returns who pays, zero if it is the user itself; so it is where a row is from before there were payers.
func payerOf(payer *quota.ID, user quota.ID) quota.AccountID {
	if payer == nil || *payer == user {
		return quota.AccountID{}
	}
	return *payer
}

func numberOf[T int32 | int64](column *T) T {
	if column == nil {
		return 0
	}
	return *column
}

func creditsOf(column *int64) *quota.Credits {
	if column == nil {
		return nil
	}
	return new(quota.Credits(*column))
}
