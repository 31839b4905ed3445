// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"cmp"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// The columns of rows are made here; readdb reads them.

// limitColumn is a limit's column, in which NULL means unlimited.
func limitColumn[C int32 | int64, T ~int32 | ~int64](l quota.Limit[T]) *C {
	if l.Unlimited {
		return nil
	}
	return new(C(l.Max))
}

func timeColumn(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC().Truncate(time.Microsecond))
}

func idColumn(id quota.ID) *quota.ID {
	if id == (quota.ID{}) {
		return nil
	}
	return &id
}

// planParams is the inverse of readdb.MeteringPlan. What counts a plan's changes, and whether it is on offer, is not
// declared.
func planParams(p *metering.Plan) dbsqlc.InsertPlanParams {
	return dbsqlc.InsertPlanParams{
		Name: p.Name, ObjectUid: idColumn(p.ObjectUID), HomeCluster: idColumn(p.Cluster), DisplayName: p.DisplayName,
		IsDefault: p.Default, Rank: p.Rank,
		Features: orEmpty(p.Features), CalendarMonth: p.CalendarMonth,
		FinalAfterSeconds: finalAfter(p.FinalAfter),
		MaxWaitSeconds:    presentIf(p.MaxWait > 0, int32(p.MaxWait/time.Second)),
		Weight:            max(p.Weight, 1),
		CreditsLimit:      limitColumn[int64](p.Limits.Credits),
		FileSizeLimit:     limitColumn[int64](p.Limits.FileSize),
		AudioMsLimit:      limitColumn[int64](quota.AudioMilliseconds(p.Limits.Audio)),
		ConcurrentLimit:   limitColumn[int32](p.Limits.Concurrent),
		QueuedLimit:       limitColumn[int32](p.Limits.Queued),
		OverageMax:        int64(p.OverageMax), OveragePriceMicros: int64(p.OveragePrice),
		CarryOverMax:       int64(p.CarryOverMax),
		ProviderCostMicros: int64(p.ProviderCost), Currency: p.Currency, PeriodPriceMicros: int64(p.PeriodPrice),
		DailyCostCeilingMicros: limitColumn[int64](p.DailyCostCeiling),
		RateRequests:           p.RateRequests, RateWindowSeconds: int32(p.RateWindow / time.Second),
		AlertThresholds: orEmpty(p.AlertThresholds), AdmitWhenUnavailable: p.AdmitWhenUnavailable,
		ResetSchedule: p.ResetSchedule, ResetBatchSize: p.ResetBatchSize, UsageTypes: usageTypesColumn(p.UsageTypes),
	}
}

// finalAfter is the column of how long after its end a period takes late charges.
func finalAfter(d time.Duration) int32 { return int32(cmp.Or(d, quota.FinalAfter) / time.Second) }

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// usageTypesColumn keeps the prices of a plan's usage types as an object of whole numbers.
func usageTypesColumn(types map[string]quota.Rate) json.RawMessage {
	if len(types) == 0 {
		return json.RawMessage("{}")
	}
	b, err := json.Marshal(types)
	if err != nil {
		panic(err) // names and integers can always be encoded
	}
	return b
}

// settingsParams are the columns of an account that a UserQuota declares.
func settingsParams(a *quota.Account, s ledger.Settings) dbsqlc.UpdateSettingsParams {
	p := dbsqlc.UpdateSettingsParams{
		PlanName: presentIf(a.Plan.Sells(), a.Plan.Name), QuotaUid: idColumn(s.QuotaUID),
		HomeCluster: idColumn(s.Home), Suspended: a.Suspended,
		AnchorAt: a.Anchor.UTC().Truncate(time.Microsecond), TimeZone: s.ZoneName, UserID: a.ID,
		UnlimitedOverrides: []string{},
		MemberOf:           idColumn(s.MemberOf), MemberDeclared: s.MemberDeclared,
	}
	if s.QuotaName != "" {
		p.QuotaName = &s.QuotaName
	}
	o := a.Overrides
	p.CreditsOverride = overrideColumn[int64](&p, o.Credits, readdb.UnlimitedCredits)
	p.FileSizeOverride = overrideColumn[int64](&p, o.FileSize, readdb.UnlimitedFileSize)
	if o.Audio != nil {
		p.AudioMsOverride = overrideColumn[int64](&p, new(quota.AudioMilliseconds(*o.Audio)), readdb.UnlimitedAudio)
	}
	p.ConcurrentOverride = overrideColumn[int32](&p, o.Concurrent, readdb.UnlimitedConcurrent)
	p.QueuedOverride = overrideColumn[int32](&p, o.Queued, readdb.UnlimitedQueued)
	return p
}

func overrideColumn[C int32 | int64, T ~int32 | ~int64](
	p *dbsqlc.UpdateSettingsParams, o *quota.Limit[T], name string,
) *C {
	if o == nil {
		return nil
	}
	if o.Unlimited {
		p.UnlimitedOverrides = append(p.UnlimitedOverrides, name)
	}
	return limitColumn[C](*o)
}

// teamParams is the inverse of readdb.TeamOf and readdb.TeamSettingsOf.
func teamParams(l *ledger.Ledger) dbsqlc.UpsertTeamParams {
	team, s := l.Account.Team, l.Team
	p := dbsqlc.UpsertTeamParams{
		ID: l.Account.ID, Name: team.Name, CapCurrency: s.Currency, DisplayName: s.DisplayName,
		ObjectUid: idColumn(s.ObjectUID), HomeCluster: idColumn(s.Home), Weight: team.Weight, IsRoot: s.Root,
		Retired: s.Retired, Now: l.Now, UnlimitedMembers: []string{},
	}
	var none []string // a bound that there is not is none of the team's own
	p.CreditsCap = capColumn[int64](team.Caps.Credits, "", &none)
	p.ConcurrentCap = capColumn[int32](team.Caps.Concurrent, "", &none)
	p.QueuedCap = capColumn[int32](team.Caps.Queued, "", &none)
	p.DailyCostCapMicros, _ = ceilingColumn(team.Caps.DailyCost, &none)
	members := &team.MemberDefaults
	p.MemberCredits = capColumn[int64](members.Credits, readdb.UnlimitedCredits, &p.UnlimitedMembers)
	p.MemberConcurrent = capColumn[int32](members.Concurrent, readdb.UnlimitedConcurrent, &p.UnlimitedMembers)
	p.MemberQueued = capColumn[int32](members.Queued, readdb.UnlimitedQueued, &p.UnlimitedMembers)
	p.MemberDailyCostMicros, p.MemberCostCurrency = ceilingColumn(members.DailyCost, &p.UnlimitedMembers)
	return p
}

// capColumn is a bound's column, in which NULL means none. That it is lifted is said by its name elsewhere.
func capColumn[C int32 | int64, T ~int32 | ~int64](limit *quota.Limit[T], name string, lifted *[]string) *C {
	if limit == nil {
		return nil
	}
	if limit.Unlimited {
		*lifted = append(*lifted, name)
	}
	return limitColumn[C](*limit)
}

func ceilingColumn(c *quota.Ceiling, lifted *[]string) (amount *int64, currency *string) {
	if c == nil {
		return nil, nil
	}
	amount = capColumn[int64](&c.Limit, readdb.UnlimitedDailyCost, lifted)
	return amount, presentIf(amount != nil, c.Currency)
}

func metadataColumn(metadata map[string]string) []byte {
	if len(metadata) == 0 {
		return nil
	}
	b, err := json.Marshal(metadata)
	if err != nil {
		panic(err) // text can always be encoded
	}
	return b
}

// presentIf returns a value, or NULL unless it is there.
func presentIf[T any](there bool, value T) *T {
	if there {
		return &value
	}
	return nil
}

func otherAmountsColumn(other *quota.OtherAmounts) []byte {
	if other == nil {
		return nil
	}
	out := make(map[string]readdb.Amounts, len(other.List))
	for _, m := range other.List {
		out[m.Currency] = readdb.Amounts{
			Cost: int64(m.Cost), Charged: int64(m.Charged),
			DayCost: int64(m.DayCost), ReservedCost: int64(m.ReservedCost),
		}
	}
	b, err := json.Marshal(out)
	if err != nil {
		panic(err) // names and integers can always be encoded
	}
	return b
}

func sharesColumn(shares []quota.Share) []byte {
	if len(shares) == 0 {
		return nil
	}
	out := make([]readdb.Share, len(shares))
	for i, s := range shares {
		out[i] = readdb.Share{Lot: pgtype.UUID{Bytes: s.Lot, Valid: true}, Credits: int64(s.Credits)}
	}
	b, err := json.Marshal(out)
	if err != nil {
		panic(err) // ids and integers can always be encoded
	}
	return b
}

func heldColumn(levels []quota.Held) []byte {
	if len(levels) == 0 {
		return nil
	}
	out := make([]readdb.Held, len(levels))
	for i := range levels {
		h := &levels[i]
		out[i] = readdb.Held{
			Account: pgtype.UUID{Bytes: h.Account, Valid: true}, PeriodNo: h.PeriodNo, AdmittedSeq: h.AdmittedSeq,
			EndedSeq:  presentIf(h.EndedSeq != 0, h.EndedSeq),
			Remaining: limitColumn[int64](h.Seen.Remaining), Concurrent: limitColumn[int32](h.Seen.Concurrent),
			Used: int64(h.Seen.Used), Reserved: int64(h.Seen.Reserved), Active: h.Seen.Active,
		}
	}
	b, err := json.Marshal(out)
	if err != nil {
		panic(err) // ids and integers can always be encoded
	}
	return b
}

func bookingsColumn(levels []quota.Booking) []byte {
	if len(levels) == 0 {
		return nil
	}
	out := make([]readdb.Booking, len(levels))
	for i, b := range levels {
		out[i] = readdb.Booking{
			Account: pgtype.UUID{Bytes: b.Account, Valid: true}, PeriodNo: b.PeriodNo, Seq: b.Seq, Void: b.Void,
		}
	}
	b, err := json.Marshal(out)
	if err != nil {
		panic(err) // ids and integers can always be encoded
	}
	return b
}

func creditsColumn(c *quota.Credits) *int64 {
	if c == nil {
		return nil
	}
	return new(int64(*c))
}

func rateColumn(rate *quota.Rate) *int64 {
	if rate == nil {
		return nil
	}
	return new(int64(*rate))
}
