// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
)

// The audit log tells every change that is neither an admission nor an event: who, when, what, before and after. Its
// rows outlive what they tell about, and are to be sealed one day. So they are written once, in one format that says
// its version, and they know no person: a user is the account's id, a caller who may be a person is known to the table
// of actors only, and texts that people write (reasons, names of grants and of objects) stand where they can be erased,
// in the rows that the ids here lead to.
//
// What a row says before and after is one of the structs of this file, which of them its action decides. Their JSON has
// units in its names: credits are whole units of 1/60000 credit as everywhere, money is in micro-units, ids are UUIDs
// in their text form, instants are in UTC. docs/audit.md shows them all.

// AuditVersion is the version of the format that this release writes, and the only one that it reads. Version 1 was the
// one before there were versions: what the release before this one writes, the database itself brings to version 2.
const AuditVersion = 2

// AuditAction says what happened.
type AuditAction string

// The actions of the audit log.
const (
	AuditRegistered    AuditAction = "account.registered"
	AuditUserChanged   AuditAction = "account.changed"
	AuditQuotaApplied  AuditAction = "quota.applied"
	AuditQuotaRemoved  AuditAction = "quota.removed"
	AuditQuotaClaimed  AuditAction = "quota.claimed"
	AuditQuotaAdopted  AuditAction = "quota.adopted"
	AuditGrantGiven    AuditAction = "grant.given"
	AuditPeriodClosed  AuditAction = "period.closed"
	AuditUsageReversed AuditAction = "usage.reversed"
	AuditUsageAdjusted AuditAction = "usage.adjusted"
	AuditTicketSettled AuditAction = "ticket.settled"
	AuditPlanCreated   AuditAction = "plan.created"
	AuditPlanChanged   AuditAction = "plan.changed"
	AuditPlanRetired   AuditAction = "plan.retired"
	AuditPlanClaimed   AuditAction = "plan.claimed"
	AuditPlanAdopted   AuditAction = "plan.adopted"
	AuditJobAdopted    AuditAction = "admission.adopted"
	AuditMemberAdded   AuditAction = "member.added"
	AuditMemberRemoved AuditAction = "member.removed"
	AuditTeamCreated   AuditAction = "team.created"
	AuditTeamChanged   AuditAction = "team.changed"
	AuditTeamRetired   AuditAction = "team.retired"
	AuditTeamClaimed   AuditAction = "team.claimed"
	AuditTeamAdopted   AuditAction = "team.adopted"
	AuditPortalMinted  AuditAction = "portal.minted"
	AuditPortalRevoked AuditAction = "portal.revoked"

	AuditEndpointCreated    AuditAction = "endpoint.created"
	AuditEndpointChanged    AuditAction = "endpoint.changed"
	AuditEndpointDeleted    AuditAction = "endpoint.deleted"
	AuditEndpointRotated    AuditAction = "endpoint.rotated"
	AuditPreferencesChanged AuditAction = "preferences.changed"
	AuditAdmissionReleased  AuditAction = "admission.released"
	AuditDeliveryResent     AuditAction = "delivery.resent"
)

const (
	auditKindAccount    = "Account"
	auditKindAdmission  = "Admission"
	auditKindUsageEvent = "UsageEvent"
	auditKindUsagePlan  = "UsagePlan"
	auditKindUsageTeam  = "UsageTeam"
	auditKindPortal     = "PortalToken"
	auditKindEndpoint   = "NotificationEndpoint"
	auditKindDelivery   = "Delivery"
)

// auditForm says of what kind the object of an action is, and which struct tells what it was before and is after; nil:
// none.
type auditForm struct {
	kind          string
	before, after AuditState
}

var auditForms = map[AuditAction]auditForm{
	AuditRegistered:    {auditKindAccount, nil, AuditSettings{}},
	AuditUserChanged:   {auditKindAccount, AuditSettings{}, AuditSettings{}},
	AuditQuotaApplied:  {auditKindAccount, AuditSettings{}, AuditSettings{}},
	AuditQuotaRemoved:  {auditKindAccount, AuditSettings{}, AuditSettings{}},
	AuditQuotaClaimed:  {auditKindAccount, AuditSettings{}, AuditSettings{}},
	AuditQuotaAdopted:  {auditKindAccount, AuditSettings{}, AuditSettings{}},
	AuditGrantGiven:    {auditKindAccount, nil, AuditGrant{}},
	AuditPeriodClosed:  {auditKindAccount, nil, AuditPeriod{}},
	AuditUsageReversed: {auditKindUsageEvent, AuditBalance{}, AuditBalance{}},
	AuditUsageAdjusted: {auditKindUsageEvent, AuditBalance{}, AuditBalance{}},
	AuditTicketSettled: {auditKindAdmission, nil, AuditTicket{}},
	AuditPlanCreated:   {auditKindUsagePlan, nil, AuditPlan{}},
	AuditPlanChanged:   {auditKindUsagePlan, AuditPlan{}, AuditPlan{}},
	AuditPlanRetired:   {auditKindUsagePlan, AuditPlan{}, AuditPlan{}},
	AuditPlanClaimed:   {auditKindUsagePlan, AuditPlan{}, AuditPlan{}},
	AuditPlanAdopted:   {auditKindUsagePlan, AuditPlan{}, AuditPlan{}},
	AuditJobAdopted:    {auditKindAdmission, AuditJob{}, AuditJob{}},
	AuditMemberAdded:   {auditKindAccount, AuditSettings{}, AuditSettings{}},
	AuditMemberRemoved: {auditKindAccount, AuditSettings{}, AuditSettings{}},
	AuditTeamCreated:   {auditKindUsageTeam, nil, AuditTeam{}},
	AuditTeamChanged:   {auditKindUsageTeam, AuditTeam{}, AuditTeam{}},
	AuditTeamRetired:   {auditKindUsageTeam, AuditTeam{}, AuditTeam{}},
	AuditTeamClaimed:   {auditKindUsageTeam, AuditTeam{}, AuditTeam{}},
	AuditTeamAdopted:   {auditKindUsageTeam, AuditTeam{}, AuditTeam{}},
	AuditPortalMinted:  {auditKindPortal, nil, AuditPortal{}},
	AuditPortalRevoked: {auditKindPortal, AuditPortal{}, nil},

	AuditEndpointCreated:    {auditKindEndpoint, nil, AuditEndpoint{}},
	AuditEndpointChanged:    {auditKindEndpoint, AuditEndpoint{}, AuditEndpoint{}},
	AuditEndpointDeleted:    {auditKindEndpoint, AuditEndpoint{}, nil},
	AuditEndpointRotated:    {auditKindEndpoint, AuditEndpoint{}, AuditEndpoint{}},
	AuditPreferencesChanged: {auditKindAccount, AuditPreferences{}, AuditPreferences{}},
	AuditAdmissionReleased:  {auditKindAdmission, AuditRelease{}, AuditRelease{}},
	AuditDeliveryResent:     {auditKindDelivery, AuditDelivery{}, AuditDelivery{}},
}

// AuditActions returns all actions, in order.
func AuditActions() []AuditAction { return slices.Sorted(maps.Keys(auditForms)) }

// AuditKinds returns the kinds of objects that actions change, in order.
func AuditKinds() []string {
	return []string{
		auditKindAccount, auditKindAdmission, auditKindDelivery, auditKindEndpoint, auditKindPortal,
		auditKindUsageEvent, auditKindUsagePlan, auditKindUsageTeam,
	}
}

// Kind returns the kind of object that the action changes; empty for what is no action.
func (a AuditAction) Kind() string { return auditForms[a].kind }

// Actor is who made a change.
type Actor struct {
	// Name of a part of this product, or the name by which Kubernetes knows a caller.
	Name string
	// Person says that the name may be a person's. Such a name never enters the log: it is kept in the table of actors,
	// and the log has its id there.
	Person bool
}

// SystemActor is who makes the changes that nobody asks for.
var SystemActor = Actor{Name: "system"}

// CallerActor returns the caller whom Kubernetes knows by that name. What begins with "system:" is a program, a service
// account most of the time: Kubernetes keeps these names for itself. Any other may be a person's.
func CallerActor(username string) Actor {
	return Actor{Name: username, Person: !strings.HasPrefix(username, "system:")}
}

// AuditRow tells one change.
type AuditRow struct {
	Actor  Actor
	Action AuditAction
	// Object is what was changed: the id of an account, an admission, an event, an endpoint or a portal token, or the
	// name of a plan or a team.
	Object string
	// Before and After are what the action asks for; nil where it asks for nothing.
	Before, After AuditState
	// Reason is why, in the words of who did it; empty where nobody was asked. It never enters the log: it is kept in
	// the table of reasons, by the row's id.
	Reason string
}

// AuditState is what a row says of its object before or after the change: one of the structs below.
type AuditState interface{ auditState() }

// AuditPlan is a plan as its object declares it. FinalAfter, MaxWait, Audio and RateWindow are in the units that the
// names say; a MaxWait of 0 is none.
type AuditPlan struct {
	Version              int64           `json:"version"`
	ObjectUID            *ObjectUID      `json:"object_uid"`
	Home                 *ClusterUID     `json:"home_cluster"`
	DisplayName          string          `json:"display_name"`
	Rank                 int32           `json:"rank"`
	Default              bool            `json:"default"`
	Retired              bool            `json:"retired"`
	Features             []string        `json:"features"`
	CalendarMonth        bool            `json:"calendar_month"`
	FinalAfter           int64           `json:"final_after_seconds"`
	MaxWait              int64           `json:"max_wait_seconds"`
	Weight               int32           `json:"weight"`
	Credits              Limit[Credits]  `json:"credits_units"`
	FileSize             Limit[int64]    `json:"file_size_bytes"`
	Audio                Limit[int64]    `json:"audio_ms"`
	Concurrent           Limit[int32]    `json:"concurrent"`
	Queued               Limit[int32]    `json:"queued"`
	OverageMax           Credits         `json:"overage_max_units"`
	OveragePrice         Money           `json:"overage_price_micros"`
	CarryOverMax         Credits         `json:"carry_over_max_units"`
	ProviderCost         Money           `json:"provider_cost_micros"`
	Currency             string          `json:"currency"`
	PeriodPrice          Money           `json:"period_price_micros"`
	DailyCostCeiling     Limit[Money]    `json:"daily_cost_ceiling_micros"`
	RateRequests         int32           `json:"rate_requests"`
	RateWindow           int64           `json:"rate_window_seconds"`
	UsageTypes           map[string]Rate `json:"usage_types_microcredits"`
	AlertThresholds      []int32         `json:"alert_thresholds_percent"`
	AdmitWhenUnavailable bool            `json:"admit_when_unavailable"`
	ResetSchedule        string          `json:"reset_schedule"`
	ResetBatchSize       int32           `json:"reset_batch_size"`
}

// AuditSettings are what a UserQuota decides about an account, and what else is changed over HTTP.
type AuditSettings struct {
	// QuotaUID is the object that owns the settings; nil: none.
	QuotaUID *ObjectUID `json:"quota_uid"`
	// Home is the cluster that declared them or has adopted them; nil: none, or the first one without being named.
	Home      *ClusterUID    `json:"home_cluster"`
	Plan      string         `json:"plan"`
	Suspended bool           `json:"suspended"`
	Anchor    time.Time      `json:"anchor"`
	TimeZone  string         `json:"time_zone"`
	Overrides AuditOverrides `json:"overrides"`
	// MemberOf is the account of the team that the user is in; nil: none. MemberDeclared says that the UserQuota names
	// it.
	MemberOf       *AccountID `json:"member_of"`
	MemberDeclared bool       `json:"member_declared"`
}

// AuditOverrides are a user's own limits; nil where the plan's holds.
type AuditOverrides struct {
	Credits    *Limit[Credits] `json:"credits_units,omitempty"`
	FileSize   *Limit[int64]   `json:"file_size_bytes,omitempty"`
	Audio      *Limit[int64]   `json:"audio_ms,omitempty"`
	Concurrent *Limit[int32]   `json:"concurrent,omitempty"`
	Queued     *Limit[int32]   `json:"queued,omitempty"`
}

// AuditAccount is the id of an account. It is written as all ids are, and read as the list of its bytes too, which the
// first releases of the format wrote of a team's.
type AuditAccount AccountID

// MarshalText returns the text form.
func (id AuditAccount) MarshalText() ([]byte, error) { return AccountID(id).MarshalText() }

// UnmarshalJSON reads the text form or a list of bytes.
func (id *AuditAccount) UnmarshalJSON(document []byte) error {
	if !bytes.HasPrefix(document, []byte("[")) {
		return json.Unmarshal(document, (*AccountID)(id))
	}
	var list []uint16 // a list of uint8 would be a text for the decoder
	if err := json.Unmarshal(document, &list); err != nil {
		return err
	}
	if len(list) != len(id) || slices.Max(list) > math.MaxUint8 {
		return fmt.Errorf("%.80q are no %d bytes of an id", document, len(id))
	}
	for i, b := range list {
		id[i] = byte(b)
	}
	return nil
}

// AuditTeam is a team as its object declares it. The names of the teams are no persons'.
type AuditTeam struct {
	Account AuditAccount `json:"account"`
	// ObjectUID is the UsageTeam that declared it; nil: none yet in the cluster that has adopted it. Home is that
	// cluster; nil: the first one without being named.
	ObjectUID   *ObjectUID  `json:"object_uid"`
	Home        *ClusterUID `json:"home_cluster"`
	DisplayName string      `json:"display_name"`
	// Parent is the account of the team that it names as its parent; nil: none.
	Parent  *AccountID `json:"parent"`
	Root    bool       `json:"root"`
	Retired bool       `json:"retired"`
	// Plan is empty where the team pays for nobody.
	Plan      string    `json:"plan"`
	Weight    int32     `json:"weight"`
	Suspended bool      `json:"suspended"`
	Anchor    time.Time `json:"anchor"`
	TimeZone  string    `json:"time_zone"`
	// Currency of the team's own amounts as long as it has no plan.
	Currency       string    `json:"currency"`
	Caps           AuditCaps `json:"caps"`
	MemberDefaults AuditCaps `json:"member_defaults"`
}

// AuditCaps are what bounds a team or its members; nil where nothing does.
type AuditCaps struct {
	Credits    *Limit[Credits] `json:"credits_units,omitempty"`
	Concurrent *Limit[int32]   `json:"concurrent,omitempty"`
	Queued     *Limit[int32]   `json:"queued,omitempty"`
	DailyCost  *Limit[Money]   `json:"daily_cost_micros,omitempty"`
	// DailyCostCurrency is that of DailyCost.
	DailyCostCurrency string `json:"daily_cost_currency,omitzero"`
}

// AuditGrant is a grant that became a lot, whose name the lot has.
type AuditGrant struct {
	Lot     LotID   `json:"lot"`
	Credits Credits `json:"credits_units"`
	// ExpiresAt is nil for a grant that never expires.
	ExpiresAt *time.Time `json:"expires_at"`
}

// AuditPeriod is what of a period late work can change after it was closed, as it was then. What cannot change stands
// in the period's row for ever.
type AuditPeriod struct {
	No           int64     `json:"period_no"`
	Start        time.Time `json:"start"`
	End          time.Time `json:"end"`
	Used         Credits   `json:"used_units,omitzero"`
	Reserved     Credits   `json:"reserved_units,omitzero"`
	PlanUsed     Credits   `json:"plan_used_units,omitzero"`
	PlanReserved Credits   `json:"plan_reserved_units,omitzero"`
	Cost         Money     `json:"cost_micros,omitzero"`
	Charged      Money     `json:"charged_micros,omitzero"`
	CarryOver    Credits   `json:"carry_over_units,omitzero"`
	// OtherCost and OtherCharged are those in other currencies than the period's, by currency.
	OtherCost    map[string]Money `json:"other_cost_micros,omitzero"`
	OtherCharged map[string]Money `json:"other_charged_micros,omitzero"`
}

// AuditBalance is what an admin's correction changes. How much was corrected, and why, stands in the event.
type AuditBalance struct {
	PeriodNo  int64          `json:"period_no"`
	Used      Credits        `json:"used_units"`
	Charged   Money          `json:"charged_micros"`
	Remaining Limit[Credits] `json:"remaining_units"`
	// Currency of Charged; empty where it was not recorded. OtherCharged is what is charged in others, by currency.
	Currency     string           `json:"currency,omitzero"`
	OtherCharged map[string]Money `json:"other_charged_micros,omitzero"`
}

// AuditTicket is what an offline ticket promised and what became of it.
type AuditTicket struct {
	Ticket      TicketID  `json:"ticket"`
	Replica     string    `json:"replica"`
	IssuedAt    time.Time `json:"issued_at"`
	ExpiresAt   time.Time `json:"expires_at"`
	Estimate    Credits   `json:"estimate_units"`
	Actual      Credits   `json:"actual_units"`
	Plan        string    `json:"plan"`
	PlanVersion int64     `json:"plan_version"`
	Offline     bool      `json:"offline"`
}

// AuditJob is what adoption changes of a Job's admission.
type AuditJob struct {
	Cluster ClusterUID `json:"cluster"`
}

// AuditPortal is a portal token. Whose it is says the row's account.
type AuditPortal struct {
	Scope     PortalScope `json:"scope"`
	ExpiresAt time.Time   `json:"expires_at"`
}

// AuditEndpoint is a notification endpoint, but for its URL, which may have a secret in it, its name, and the users
// whose alerts it gets.
type AuditEndpoint struct {
	// Team is whose own it is; nil of the platform's, of which Home has the object.
	Team      *AccountID  `json:"team"`
	Home      *ClusterUID `json:"home_cluster"`
	Version   int64       `json:"version"`
	Kinds     []AlertKind `json:"kinds"`
	Audience  string      `json:"audience"`
	Signing   string      `json:"signing"`
	Suspended bool        `json:"suspended"`
	// Keys are how many it signs with.
	Keys int32 `json:"keys"`
}

// AuditPreferences are the kinds of alerts that a user does not want to be told of.
type AuditPreferences struct {
	Muted []AlertKind `json:"muted"`
}

// AuditRelease is an admission that somebody else than its holder released. The reason is in the admission's row.
type AuditRelease struct {
	State    State   `json:"state"`
	Reserved Credits `json:"reserved_units"`
}

// AuditDelivery is an alert on its way to an endpoint, which somebody has sent again.
type AuditDelivery struct {
	State    string `json:"state"`
	Attempts int32  `json:"attempts"`
}

func (AuditPlan) auditState()     {}
func (AuditSettings) auditState() {}
func (AuditTeam) auditState()     {}
func (AuditGrant) auditState()    {}
func (AuditPeriod) auditState()   {}
func (AuditBalance) auditState()  {}
func (AuditTicket) auditState()   {}
func (AuditJob) auditState()      {}
func (AuditPortal) auditState()   {}

func (AuditEndpoint) auditState()    {}
func (AuditPreferences) auditState() {}
func (AuditRelease) auditState()     {}
func (AuditDelivery) auditState()    {}

// Audit returns the overrides as the log tells them.
func (o Overrides) Audit() AuditOverrides {
	a := AuditOverrides{Credits: o.Credits, FileSize: o.FileSize, Concurrent: o.Concurrent, Queued: o.Queued}
	if o.Audio != nil {
		a.Audio = new(AudioMilliseconds(*o.Audio))
	}
	return a
}

// Audit returns the bounds as the log tells them.
func (c Caps) Audit() AuditCaps {
	a := AuditCaps{Credits: c.Credits, Concurrent: c.Concurrent, Queued: c.Queued}
	if c.DailyCost != nil {
		a.DailyCost, a.DailyCostCurrency = &c.DailyCost.Limit, c.DailyCost.Currency
	}
	return a
}

// AudioMilliseconds returns the limit of a job's audio as columns and the log hold it.
func AudioMilliseconds(l Limit[time.Duration]) Limit[int64] {
	return Limit[int64]{Max: l.Max.Milliseconds(), Unlimited: l.Unlimited}
}

// AuditTime returns an instant as the log tells it: in UTC, to the microsecond, which is what the database keeps.
func AuditTime(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// Audit returns the totals of the period as they are now.
func (p *ClosedPeriod) Audit() AuditPeriod {
	return AuditPeriod{
		No: p.No, Start: AuditTime(p.Period.Start), End: AuditTime(p.Period.End), Used: p.Used, Reserved: p.Reserved,
		PlanUsed: p.PlanUsed, PlanReserved: p.PlanReserved, Cost: p.Cost, Charged: p.Charged, CarryOver: p.CarryOver,
		OtherCost:    p.Other.above(func(m Amounts) Money { return m.Cost }),
		OtherCharged: p.Other.above(func(m Amounts) Money { return m.Charged }),
	}
}

// Audit returns the lot as the grant that made it.
func (l *Lot) Audit() AuditGrant {
	g := AuditGrant{Lot: l.ID, Credits: l.Credits}
	if !l.ExpiresAt.IsZero() {
		g.ExpiresAt = new(AuditTime(l.ExpiresAt))
	}
	return g
}

// AuditBalance returns what a correction changes about the account. The account must have been rolled to now.
func (a *Account) AuditBalance(now time.Time) AuditBalance {
	return AuditBalance{
		PeriodNo: a.PeriodNo, Used: a.Used, Charged: a.Charged, Remaining: a.Remaining(now), Currency: a.Currency,
		OtherCharged: a.Other.above(func(m Amounts) Money { return m.Charged }),
	}
}

// Encode returns the documents of what the row says before and after; nil where its action asks for nothing. It fails
// for an action that is not known, and for a row that tells something else than its action asks for.
func (r *AuditRow) Encode() (before, after []byte, err error) {
	form, known := auditForms[r.Action]
	if !known {
		return nil, nil, fmt.Errorf("audit row of %s: there is no action %q", r.Object, r.Action)
	}
	if before, err = encodeAudit(r.Before, form.before); err != nil {
		return nil, nil, fmt.Errorf("audit row %s of %s: before: %w", r.Action, r.Object, err)
	}
	if after, err = encodeAudit(r.After, form.after); err != nil {
		return nil, nil, fmt.Errorf("audit row %s of %s: after: %w", r.Action, r.Object, err)
	}
	return before, after, nil
}

func encodeAudit(state, form AuditState) ([]byte, error) {
	if reflect.TypeOf(state) != reflect.TypeOf(form) {
		return nil, fmt.Errorf("%T must be %T", state, form)
	}
	if state == nil {
		return nil, nil
	}
	return json.Marshal(state)
}

// DecodeAudit is Encode's inverse, for a row of that version. Fields that a document does not have are zero: a release
// that did not know them wrote it. It fails for fields, actions and versions that this release does not know.
func DecodeAudit(version int, action AuditAction, before, after []byte) (was, is AuditState, err error) {
	form, known := auditForms[action]
	switch {
	case version != AuditVersion:
		return nil, nil, fmt.Errorf("version %d of the format, this reads version %d", version, AuditVersion)
	case !known:
		return nil, nil, fmt.Errorf("there is no action %q", action)
	}
	if was, err = decodeAudit(before, form.before); err != nil {
		return nil, nil, fmt.Errorf("before: %w", err)
	}
	if is, err = decodeAudit(after, form.after); err != nil {
		return nil, nil, fmt.Errorf("after: %w", err)
	}
	return was, is, nil
}

func decodeAudit(document []byte, form AuditState) (AuditState, error) {
	switch {
	case document == nil && form == nil:
		return nil, nil
	case document == nil:
		return nil, fmt.Errorf("nothing, it must be %T", form)
	case form == nil:
		return nil, fmt.Errorf("%.40q, it must be nothing", document)
	}
	state := reflect.New(reflect.TypeOf(form))
	d := json.NewDecoder(bytes.NewReader(document))
	d.DisallowUnknownFields()
	if err := d.Decode(state.Interface()); err != nil {
		return nil, err
	}
	return state.Elem().Interface().(AuditState), nil //nolint:forcetypeassert // forms are nothing else
}

// AuditDifference is a field of which two documents tell different things.
type AuditDifference struct{ Field, Want, Got string }

// DiffAudit compares two documents, in the order of their fields and in those that both have: an older release knew
// fewer.
func DiffAudit(want, got []byte) ([]AuditDifference, error) {
	var w, g map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(want, &w), json.Unmarshal(got, &g)); err != nil {
		return nil, err
	}
	var differences []AuditDifference
	for _, field := range slices.Sorted(maps.Keys(w)) {
		value, told := g[field]
		if told && !sameJSON(w[field], value) {
			differences = append(differences, AuditDifference{Field: field, Want: string(w[field]), Got: string(value)})
		}
	}
	return differences, nil
}

// sameJSON reports whether two values are equal, however they are written: an instant may have zeros at its end, and an
// account be told by the list of its bytes.
func sameJSON(x, y json.RawMessage) bool {
	var s, t time.Time
	if json.Unmarshal(x, &s) == nil && json.Unmarshal(y, &t) == nil {
		return s.Equal(t)
	}
	var a, b AuditAccount
	if json.Unmarshal(x, &a) == nil && json.Unmarshal(y, &b) == nil && a != (AuditAccount{}) {
		return a == b
	}
	var v, w any
	return json.Unmarshal(x, &v) == nil && json.Unmarshal(y, &w) == nil && reflect.DeepEqual(v, w)
}
