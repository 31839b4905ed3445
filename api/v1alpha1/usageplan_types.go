// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// UsagePlanLimits are what a plan allows one user. Credits, file size and concurrent jobs are decisions that a plan has
// to take: each is either given or listed in unlimited.
// +kubebuilder:validation:XValidation:rule=`has(self.credits) || (has(self.unlimited) && 'Credits' in self.unlimited)`,message="limits.credits is missing: give the credits per period (0 to 10000000, 1 credit is 1 minute of audio), or list Credits in limits.unlimited",fieldPath=".credits",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule=`!has(self.credits) || !has(self.unlimited) || !('Credits' in self.unlimited)`,message="limits.credits is given and limits.unlimited lists Credits: remove one of them",fieldPath=".credits",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`has(self.fileSize) || (has(self.unlimited) && 'FileSize' in self.unlimited)`,message="limits.fileSize is missing: give the largest audio file (more than 0, at most 1Ti, for example 25Mi), or list FileSize in limits.unlimited",fieldPath=".fileSize",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule=`!has(self.fileSize) || !has(self.unlimited) || !('FileSize' in self.unlimited)`,messageExpression=`"limits.fileSize is " + string(self.fileSize) + " and limits.unlimited lists FileSize: remove one of them"`,message="limits.fileSize is given and limits.unlimited lists FileSize: remove one of them",fieldPath=".fileSize",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`has(self.concurrent) || (has(self.unlimited) && 'Concurrent' in self.unlimited)`,message="limits.concurrent is missing: give the jobs that may run at once (1 to 10000), or list Concurrent in limits.unlimited",fieldPath=".concurrent",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule=`!has(self.concurrent) || !has(self.unlimited) || !('Concurrent' in self.unlimited)`,message="limits.concurrent is given and limits.unlimited lists Concurrent: remove one of them",fieldPath=".concurrent",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!has(self.audioDuration) || self.audioDuration in ['24h', '24h0m0s'] || !has(self.unlimited) || !('AudioDuration' in self.unlimited)`,messageExpression=`"limits.audioDuration is " + self.audioDuration + " and limits.unlimited lists AudioDuration: remove one of them"`,message="limits.audioDuration is given and limits.unlimited lists AudioDuration: remove one of them",fieldPath=".audioDuration",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!has(self.queued) || self.queued == 100 || !has(self.unlimited) || !('Queued' in self.unlimited)`,message="limits.queued is given and limits.unlimited lists Queued: remove one of them",fieldPath=".queued",reason=FieldValueForbidden
type UsagePlanLimits struct {
	// credits that a user gets for each period. One credit is one minute of audio.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000000
	Credits *int64 `json:"credits,omitempty"`

	// fileSize is the largest audio file that one job may declare: more than 0, at most 1Ti, whole bytes.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule=`isQuantity(string(self)) && quantity(string(self)).isInteger() && quantity(string(self)).isGreaterThan(quantity('0')) && !quantity(string(self)).isGreaterThan(quantity('1Ti'))`,messageExpression=`"limits.fileSize is " + string(self) + ": must be a whole number of bytes, more than 0 and at most 1Ti, for example 25Mi"`,message="limits.fileSize must be a whole number of bytes, more than 0 and at most 1Ti, for example 25Mi"
	FileSize *resource.Quantity `json:"fileSize,omitempty"`

	// audioDuration is the longest audio that one job may declare: more than 0, at most 720h, whole milliseconds.
	// Listing AudioDuration in unlimited lifts it, the default included.
	// +optional
	// +kubebuilder:default="24h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule=`self.size() > 0 && self.matches('^([0-9]{1,5}([.][0-9]{1,3})?h)?([0-9]{1,7}([.][0-9]{1,3})?m)?([0-9]{1,9}([.][0-9]{1,3})?s)?([0-9]{1,10}ms)?$') && duration(self) > duration('0s') && duration(self) <= duration('720h')`,messageExpression=`"limits.audioDuration is " + self + ": must be a duration in hours, minutes, seconds and milliseconds, more than 0 and at most 720h, for example 1h30m"`,message="limits.audioDuration must be a duration in hours, minutes, seconds and milliseconds, more than 0 and at most 720h, for example 1h30m"
	AudioDuration *metav1.Duration `json:"audioDuration,omitempty"`

	// concurrent is how many of a user's jobs may run at once.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	Concurrent *int32 `json:"concurrent,omitempty"`

	// queued is how many of a user's jobs may wait for a slot; 0 refuses instead of queueing. Listing Queued in
	// unlimited lifts it, the default included.
	// +optional
	// +kubebuilder:default=100
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000
	Queued *int32 `json:"queued,omitempty"`

	// unlimited lists the limits that this plan does not have.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=5
	Unlimited []LimitName `json:"unlimited,omitempty"`
}

// PeriodType is the length of a period.
// +kubebuilder:validation:Enum=Month
type PeriodType string

// PeriodMonth makes a period one month long.
const PeriodMonth PeriodType = "Month"

// PeriodAnchor is where a user's periods begin.
// +kubebuilder:validation:Enum=AccountCreation;Calendar
type PeriodAnchor string

const (
	// AnchorAccountCreation begins each user's periods on the day and hour of the month at which the account was
	// created.
	AnchorAccountCreation PeriodAnchor = "AccountCreation"
	// AnchorCalendar begins all periods at midnight of the first of the month in the user's time zone.
	AnchorCalendar PeriodAnchor = "Calendar"
)

// UsagePlanPeriod says when a user's credits are renewed.
type UsagePlanPeriod struct {
	// type is the length of a period.
	// +optional
	// +kubebuilder:default=Month
	Type PeriodType `json:"type,omitempty"`

	// anchor is where a user's periods begin: at the account's creation, or on the first of each calendar month.
	// +optional
	// +kubebuilder:default=AccountCreation
	Anchor PeriodAnchor `json:"anchor,omitempty"`

	// finalAfter is how long after its end a period takes the charges of work that was admitted in it: 1h to 720h,
	// whole seconds. Later ones are adjustments in the open period. A period keeps what was in force when it closed.
	// +optional
	// +kubebuilder:default="72h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule=`self.matches('^([0-9]{1,3}h)?([0-9]{1,5}m)?([0-9]{1,7}s)?$') && self.size() > 0 && duration(self) >= duration('1h') && duration(self) <= duration('720h')`,messageExpression=`"period.finalAfter is '" + self + "': must be a duration in hours, minutes and seconds, from 1h to 720h, for example 72h"`,message="period.finalAfter must be a duration in hours, minutes and seconds, from 1h to 720h, for example 72h"
	FinalAfter *metav1.Duration `json:"finalAfter,omitempty"`
}

// UsagePlanReset configures the CronJob that closes periods which nobody has touched. Balances never depend on it:
// whoever touches an account first closes what is due.
type UsagePlanReset struct {
	// schedule of the CronJob in UTC: five fields as for cron, or @hourly, @daily, @weekly, @monthly.
	// +optional
	// +kubebuilder:default="0 2 * * *"
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule=`self.matches('^([^ ]+ +){4}[^ ]+$') || self in ['@hourly', '@daily', '@midnight', '@weekly', '@monthly']`,messageExpression=`"reset.schedule is '" + self + "': must have the five fields of cron (minute, hour, day, month, weekday; always UTC, without TZ=), for example '0 2 * * *'"`,message="reset.schedule must have the five fields of cron (minute, hour, day, month, weekday; always UTC, without TZ=), for example '0 2 * * *'"
	Schedule string `json:"schedule,omitempty"`

	// batchSize is how many accounts one transaction of the reset closes.
	// +optional
	// +kubebuilder:default=500
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	BatchSize int32 `json:"batchSize,omitempty"`
}

// UsagePlanPricing says what a plan costs the user and what a minute of audio costs the provider.
type UsagePlanPricing struct {
	// currency of all amounts of this plan, as an ISO 4217 code.
	// +optional
	// +kubebuilder:default=USD
	// +kubebuilder:validation:MaxLength=3
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[A-Z]{3}$')`,message="pricing.currency must be an ISO 4217 code of three capital letters, for example USD"
	Currency string `json:"currency,omitempty"`

	// perPeriod is the plan's price for one period.
	// +optional
	// +kubebuilder:default="0"
	PerPeriod Decimal `json:"perPeriod,omitempty"`

	// providerCostPerMinute is what transcribing one minute of audio costs the provider. The daily cost ceiling counts
	// it.
	// +optional
	// +kubebuilder:default="0.006"
	ProviderCostPerMinute Decimal `json:"providerCostPerMinute,omitempty"`
}

// OveragePolicy says what happens when a user's credits are used up.
// +kubebuilder:validation:Enum=Block;Allow
type OveragePolicy string

const (
	// OverageBlock refuses or parks work beyond the credits.
	OverageBlock OveragePolicy = "Block"
	// OverageAllow admits work beyond the credits, up to a cap and at a price.
	OverageAllow OveragePolicy = "Allow"
)

// UsagePlanOverage says what happens when a user's credits are used up.
// +kubebuilder:validation:XValidation:rule=`self.policy != 'Allow' || has(self.maxCredits)`,message="overage.maxCredits is missing: overage.policy Allow needs the most credits per period beyond the plan (1 to 10000000)",fieldPath=".maxCredits",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule=`self.policy != 'Allow' || has(self.pricePerCredit)`,message="overage.pricePerCredit is missing: overage.policy Allow needs the price of one credit beyond the plan, for example \"0.05\"",fieldPath=".pricePerCredit",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule=`self.policy != 'Block' || !has(self.maxCredits)`,message="overage.maxCredits has no meaning with overage.policy Block: remove it, or set overage.policy to Allow",fieldPath=".maxCredits",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`self.policy != 'Block' || !has(self.pricePerCredit)`,message="overage.pricePerCredit has no meaning with overage.policy Block: remove it, or set overage.policy to Allow",fieldPath=".pricePerCredit",reason=FieldValueForbidden
type UsagePlanOverage struct {
	// policy is Block, or Allow with a cap and a price.
	// +optional
	// +kubebuilder:default=Block
	Policy OveragePolicy `json:"policy,omitempty"`

	// maxCredits is how many credits per period a user may use beyond the plan's.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000000
	MaxCredits *int64 `json:"maxCredits,omitempty"`

	// pricePerCredit is what one credit beyond the plan's costs the user.
	// +optional
	PricePerCredit *Decimal `json:"pricePerCredit,omitempty"`
}

// UsagePlanCarryOver says what becomes of credits that a period leaves over.
type UsagePlanCarryOver struct {
	// maxCredits is how many unused credits move to the next period, at most; 0 lets them lapse.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000000
	MaxCredits int64 `json:"maxCredits,omitempty"`
}

// UsagePlanRateLimit bounds a user's calls of the HTTP API.
type UsagePlanRateLimit struct {
	// requests that a user may make in one window.
	// +optional
	// +kubebuilder:default=100
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	Requests int32 `json:"requests,omitempty"`

	// windowSeconds is the length of the window.
	// +optional
	// +kubebuilder:default=3600
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	WindowSeconds int32 `json:"windowSeconds,omitempty"`
}

// UsagePlanUsageType prices a type of use that is recorded directly, without an admission.
type UsagePlanUsageType struct {
	// name of the usage type, as the callers of the HTTP API send it. A transcription is always charged by its audio.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[a-z][a-z0-9_]{0,31}$')`,messageExpression=`"usageTypes.name is '" + self + "': must begin with a small letter and consist of at most 32 small letters, digits and underscores, for example video_export"`,message="usageTypes.name must begin with a small letter and consist of at most 32 small letters, digits and underscores, for example video_export"
	// +kubebuilder:validation:XValidation:rule=`!(self in ['transcription', 'adjustment'])`,messageExpression=`"usageTypes.name is '" + self + "': a transcription is charged by its audio and an adjustment as its author says, neither can have a price"`,message="usageTypes.name must be neither transcription nor adjustment"
	Name string `json:"name"`

	// creditsPerUnit is what one unit costs the user, at most "1000000". A record is one unit unless it gives a
	// quantity.
	// +optional
	// +kubebuilder:default="0"
	// +kubebuilder:validation:XValidation:rule=`!self.matches('^[0-9]{1,9}([.][0-9]{1,6})?$') || double(self) <= 1000000.0`,messageExpression=`"usageTypes.creditsPerUnit is " + self + ": must be at most 1000000"`,message="usageTypes.creditsPerUnit must be at most 1000000"
	CreditsPerUnit Decimal `json:"creditsPerUnit,omitempty"`
}

// DatabaseUnavailablePolicy says what to answer while the database cannot be reached.
// +kubebuilder:validation:Enum=Deny;Admit
type DatabaseUnavailablePolicy string

const (
	// DatabaseUnavailableDeny admits nothing while the database cannot be reached.
	DatabaseUnavailableDeny DatabaseUnavailablePolicy = "Deny"
	// DatabaseUnavailableAdmit admits while the database cannot be reached and charges afterwards.
	DatabaseUnavailableAdmit DatabaseUnavailablePolicy = "Admit"
)

// UsagePlanSpec is what a plan allows, when it renews and what it costs.
type UsagePlanSpec struct {
	// displayName is the name that people see, in refusals and upgrade hints too.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	DisplayName string `json:"displayName"`

	// default makes this the plan of every user who has no other. The first plan that is accepted as default stays it;
	// a second one is not accepted.
	// +optional
	// +kubebuilder:default=false
	Default bool `json:"default,omitempty"`

	// rank orders the plans for upgrades: of two plans that would allow a job the one of lower rank is suggested.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Rank int32 `json:"rank,omitempty"`

	// limits are what the plan allows one user.
	// +required
	Limits UsagePlanLimits `json:"limits"`

	// period says when a user's credits are renewed.
	// +optional
	// +kubebuilder:default={}
	Period UsagePlanPeriod `json:"period,omitzero"`

	// reset configures the CronJob that closes periods which nobody has touched.
	// +optional
	// +kubebuilder:default={}
	Reset UsagePlanReset `json:"reset,omitzero"`

	// features that the plan includes, as the frontend knows them.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	Features []string `json:"features,omitempty"`

	// pricing says what the plan costs the user and what a minute of audio costs the provider.
	// +optional
	// +kubebuilder:default={}
	Pricing UsagePlanPricing `json:"pricing,omitzero"`

	// overage says what happens when a user's credits are used up.
	// +optional
	// +kubebuilder:default={policy: Block}
	Overage UsagePlanOverage `json:"overage,omitzero"`

	// carryOver says what becomes of credits that a period leaves over.
	// +optional
	// +kubebuilder:default={}
	CarryOver UsagePlanCarryOver `json:"carryOver,omitzero"`

	// usageTypes are the types of use that can be recorded besides transcription, export and api_call, and what they
	// cost. The latter two cost nothing unless they are listed.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	UsageTypes []UsagePlanUsageType `json:"usageTypes,omitempty"`

	// rateLimit bounds a user's calls of the HTTP API.
	// +optional
	// +kubebuilder:default={}
	RateLimit UsagePlanRateLimit `json:"rateLimit,omitzero"`

	// alertThresholds are the percentages of the credits at which a user is told; an empty list tells nobody anything.
	// +optional
	// +listType=set
	// +kubebuilder:default={80,100}
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:items:Minimum=1
	// +kubebuilder:validation:items:Maximum=100
	AlertThresholds []int32 `json:"alertThresholds,omitzero"`

	// dailyCostCeiling is the provider cost per user and UTC day, in pricing.currency, beyond which nothing more is
	// admitted until the next day. "0" admits nothing that costs anything.
	// +optional
	// +kubebuilder:default="50"
	DailyCostCeiling Decimal `json:"dailyCostCeiling,omitempty"`

	// maxWait is how long work may wait, for a slot or for credits: 1m to 720h, whole seconds. What has waited for
	// longer is refused, with what it waited for. A change applies to what waits already. Without it work waits as long
	// as it has to.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule=`self.matches('^([0-9]{1,3}h)?([0-9]{1,5}m)?([0-9]{1,7}s)?$') && self.size() > 0 && duration(self) >= duration('1m') && duration(self) <= duration('720h')`,messageExpression=`"maxWait is '" + self + "': must be a duration in hours, minutes and seconds, from 1m to 720h, for example 6h"`,message="maxWait must be a duration in hours, minutes and seconds, from 1m to 720h, for example 6h"
	MaxWait *metav1.Duration `json:"maxWait,omitempty"`

	// weight is the share of each of the plan's users in what they and others below the same team wait for: twice the
	// weight is served twice as often while both wait. A user's own limits come first, whatever the weight.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	Weight int32 `json:"weight,omitempty"`

	// databaseUnavailable says what to answer while the database cannot be reached.
	// +optional
	// +kubebuilder:default=Deny
	DatabaseUnavailable DatabaseUnavailablePolicy `json:"databaseUnavailable,omitempty"`
}

// ResetState says how a run of the reset stands.
// +kubebuilder:validation:Enum=Running;Succeeded;Failed;Interrupted;Lost
type ResetState string

// UsagePlanResetRun is one run of the reset.
type UsagePlanResetRun struct {
	// state of the run. Failed: accounts could not be closed, or it gave up. Interrupted: it was asked to end. Lost: it
	// was killed. What a run left over is closed by the next, or by whoever uses the account.
	// +required
	State ResetState `json:"state"`

	// startTime is when the run began.
	// +required
	StartTime metav1.Time `json:"startTime,omitzero"`

	// completionTime is when it ended, however it did.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`

	// accounts of which the run closed periods.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Accounts int64 `json:"accounts"`

	// periods that it closed; an account that has slept for months has several.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Periods int64 `json:"periods"`

	// failures are the accounts that could not be closed. The run's log names them.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failures int64 `json:"failures"`

	// message says why the run did not succeed.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// UsagePlanStatus is what the operator has seen and done.
type UsagePlanStatus struct {
	// observedGeneration is the metadata.generation that this status is about.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Accepted, Synced, ResetScheduled, InUse and Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// version of the plan in the database. Every change of the plan raises it, every charge names the one it was made
	// under.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Version int64 `json:"version,omitempty"`

	// users that are on the plan.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Users int64 `json:"users"`

	// nextResetTime is when the reset CronJob runs next.
	// +optional
	NextResetTime *metav1.Time `json:"nextResetTime,omitempty"`

	// lastResetTime is when a reset last closed all that was due.
	// +optional
	LastResetTime *metav1.Time `json:"lastResetTime,omitempty"`

	// lastReset is the run of the reset that started last.
	// +optional
	LastReset *UsagePlanResetRun `json:"lastReset,omitempty"`

	// cronJobName is the name of the reset CronJob in the operator's namespace.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	CronJobName string `json:"cronJobName,omitempty"`
}

// UsagePlan is what a plan allows its users. The platform team owns it; most users are on one without any object of
// their own. Deleting a plan retires it: it keeps serving the users it has.
// +kubebuilder:object:root=true
// +kubebuilder:ac:generate=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=up,categories={usage}
// +kubebuilder:printcolumn:name="Display Name",type=string,JSONPath=`.spec.displayName`,priority=1
// +kubebuilder:printcolumn:name="Default",type=boolean,JSONPath=`.spec.default`
// +kubebuilder:printcolumn:name="Rank",type=integer,JSONPath=`.spec.rank`
// +kubebuilder:printcolumn:name="Credits",type=integer,JSONPath=`.spec.limits.credits`
// +kubebuilder:printcolumn:name="File Size",type=string,JSONPath=`.spec.limits.fileSize`
// +kubebuilder:printcolumn:name="Concurrent",type=integer,JSONPath=`.spec.limits.concurrent`
// +kubebuilder:printcolumn:name="Unlimited",type=string,JSONPath=`.spec.limits.unlimited`,priority=1
// +kubebuilder:printcolumn:name="Users",type=integer,JSONPath=`.status.users`
// +kubebuilder:printcolumn:name="Next Reset",type=string,JSONPath=`.status.nextResetTime`
// +kubebuilder:printcolumn:name="Last Reset",type=string,JSONPath=`.status.lastReset.state`,priority=1
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule=`self.metadata.name.size() <= 63`,message="metadata.name must have at most 63 characters, because a plan's name is the value of labels"
type UsagePlan struct {
	metav1.TypeMeta `json:",inline"`

	// metadata of the object. The name has at most 63 characters.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is what the plan allows, when it renews and what it costs.
	// +required
	Spec UsagePlanSpec `json:"spec"`

	// status is what the operator has seen and done.
	// +optional
	Status UsagePlanStatus `json:"status,omitzero"`
}

// UsagePlanList is a list of UsagePlan.
// +kubebuilder:object:root=true
type UsagePlanList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []UsagePlan `json:"items"`
}
