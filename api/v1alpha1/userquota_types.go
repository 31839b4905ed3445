// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PlanReference names a UsagePlan.
type PlanReference struct {
	// name of the UsagePlan.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')`,message="planRef.name must be the name of a UsagePlan: 1 to 63 lower case letters, digits, '-' and '.', for example pro"
	Name string `json:"name"`
}

// QuotaOverrides replace limits of the plan for one user. What is absent is as the plan says.
// +kubebuilder:validation:XValidation:rule=`!has(self.credits) || !has(self.unlimited) || !('Credits' in self.unlimited)`,message="overrides.credits is given and overrides.unlimited lists Credits: remove one of them",fieldPath=".credits",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!has(self.fileSize) || !has(self.unlimited) || !('FileSize' in self.unlimited)`,messageExpression=`"overrides.fileSize is " + string(self.fileSize) + " and overrides.unlimited lists FileSize: remove one of them"`,message="overrides.fileSize is given and overrides.unlimited lists FileSize: remove one of them",fieldPath=".fileSize",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!has(self.audioDuration) || !has(self.unlimited) || !('AudioDuration' in self.unlimited)`,messageExpression=`"overrides.audioDuration is " + self.audioDuration + " and overrides.unlimited lists AudioDuration: remove one of them"`,message="overrides.audioDuration is given and overrides.unlimited lists AudioDuration: remove one of them",fieldPath=".audioDuration",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!has(self.concurrent) || !has(self.unlimited) || !('Concurrent' in self.unlimited)`,message="overrides.concurrent is given and overrides.unlimited lists Concurrent: remove one of them",fieldPath=".concurrent",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!has(self.queued) || !has(self.unlimited) || !('Queued' in self.unlimited)`,message="overrides.queued is given and overrides.unlimited lists Queued: remove one of them",fieldPath=".queued",reason=FieldValueForbidden
type QuotaOverrides struct {
	// credits that the user gets for each period instead of the plan's.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000000
	Credits *int64 `json:"credits,omitempty"`

	// fileSize is the largest audio file that one job may declare: more than 0, at most 1Ti, whole bytes.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule=`isQuantity(string(self)) && quantity(string(self)).isInteger() && quantity(string(self)).isGreaterThan(quantity('0')) && !quantity(string(self)).isGreaterThan(quantity('1Ti'))`,messageExpression=`"overrides.fileSize is " + string(self) + ": must be a whole number of bytes, more than 0 and at most 1Ti, for example 25Mi"`,message="overrides.fileSize must be a whole number of bytes, more than 0 and at most 1Ti, for example 25Mi"
	FileSize *resource.Quantity `json:"fileSize,omitempty"`

	// audioDuration is the longest audio that one job may declare: more than 0, at most 720h, whole milliseconds.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule=`self.size() > 0 && self.matches('^([0-9]{1,5}([.][0-9]{1,3})?h)?([0-9]{1,7}([.][0-9]{1,3})?m)?([0-9]{1,9}([.][0-9]{1,3})?s)?([0-9]{1,10}ms)?$') && duration(self) > duration('0s') && duration(self) <= duration('720h')`,messageExpression=`"overrides.audioDuration is " + self + ": must be a duration in hours, minutes, seconds and milliseconds, more than 0 and at most 720h, for example 1h30m"`,message="overrides.audioDuration must be a duration in hours, minutes, seconds and milliseconds, more than 0 and at most 720h, for example 1h30m"
	AudioDuration *metav1.Duration `json:"audioDuration,omitempty"`

	// concurrent is how many of the user's jobs may run at once.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	Concurrent *int32 `json:"concurrent,omitempty"`

	// queued is how many of the user's jobs may wait for a slot; 0 refuses instead of queueing.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000
	Queued *int32 `json:"queued,omitempty"`

	// unlimited lists the limits that this user does not have, whatever the plan says.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=5
	Unlimited []LimitName `json:"unlimited,omitempty"`
}

// Grant is a one-time gift of credits. It is applied once per user and name, therefore it cannot be changed afterwards.
// +kubebuilder:validation:XValidation:rule=`self == oldSelf`,message="a grant is applied once and cannot be changed: leave it as it was and add another one under a new name"
type Grant struct {
	// credits that the user gets on top of those of the plan.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000000
	Credits int64 `json:"credits"`

	// expiresAt is when what is left of the grant lapses; it never does when absent.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self >= timestamp('1970-01-01T00:00:00Z') && self < timestamp('2200-01-01T00:00:00Z')`,message="expiresAt of a grant must be a time from 1970 to 2199"
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`
}

// UserQuotaSpec is what one user has beyond or instead of the plan.
type UserQuotaSpec struct {
	// userID is the user's id, as it stands in the usage.cantonesescribe.io/user label of the user's jobs: 1 to 63
	// letters, digits, '-', '_' and '.', beginning and ending with a letter or digit. It cannot be changed.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$')`,message="userID must be 1 to 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, as in the label of the user's jobs"
	// +kubebuilder:validation:XValidation:rule=`self == oldSelf`,messageExpression=`"userID is " + oldSelf + " and cannot be changed: create another UserQuota for the other user"`,message="userID cannot be changed: create another UserQuota for the other user"
	UserID string `json:"userID"`

	// planRef names the user's plan. The default plan when absent.
	// +optional
	PlanRef *PlanReference `json:"planRef,omitempty"`

	// teamRef names the team that the user is a member of. Absent, membership is given over HTTP, and a user without
	// any is under the root team if there is one.
	// +optional
	TeamRef *TeamReference `json:"teamRef,omitempty"`

	// accountCreatedAt is when the user's account was created, the anchor of the user's periods: an account created on
	// the 31st renews on the last day of shorter months. The user's first use when absent. Editing it moves the periods
	// that follow the open one.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self >= timestamp('1970-01-01T00:00:00Z') && self < timestamp('2200-01-01T00:00:00Z')`,message="accountCreatedAt must be a time from 1970 to 2199"
	AccountCreatedAt *metav1.Time `json:"accountCreatedAt,omitempty"`

	// timeZone is the IANA time zone in which the user's periods begin.
	// +optional
	// +kubebuilder:default=UTC
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$') && self != 'Local'`,messageExpression=`"timeZone is '" + self + "': must be the name of an IANA time zone, for example Asia/Hong_Kong or UTC"`,message="timeZone must be the name of an IANA time zone, for example Asia/Hong_Kong or UTC"
	TimeZone string `json:"timeZone,omitempty"`

	// overrides replace limits of the plan for this user.
	// +optional
	Overrides *QuotaOverrides `json:"overrides,omitempty"`

	// grants are one-time gifts of credits by name, of 1 to 63 letters, digits, '-', '_' and '.'. Each is applied once,
	// even if it is removed here and added again.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule=`self.all(name, name.size() <= 63 && name.matches('^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$'))`,message="the name of a grant must be 1 to 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, for example welcome-2025"
	Grants map[string]Grant `json:"grants,omitempty"`

	// suspended admits nothing new for the user. What runs goes on, what waits keeps waiting.
	// +optional
	// +kubebuilder:default=false
	Suspended bool `json:"suspended,omitempty"`
}

// UserQuotaUsage is where a user stands in the current period. Credits are decimal strings, exact to the millisecond of
// audio; amounts without a limit are "unlimited".
type UserQuotaUsage struct {
	// used are the credits that were charged in this period.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Used string `json:"used,omitempty"`

	// limit are the credits that the user may use in this period, grants and carry-over included.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Limit string `json:"limit,omitempty"`

	// remaining are the credits that are neither used nor reserved.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Remaining string `json:"remaining,omitempty"`

	// reserved are the credits that running jobs have declared.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Reserved string `json:"reserved,omitempty"`

	// running jobs of the user.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Running int32 `json:"running"`

	// concurrentLimit is how many may run at once; absent when that is unlimited.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ConcurrentLimit *int32 `json:"concurrentLimit,omitempty"`

	// slots are the running jobs and their limit for display, as in "1/2".
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Slots string `json:"slots,omitempty"`

	// queued jobs of the user.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Queued int32 `json:"queued"`
}

// UserQuotaPeriod is a period that has ended.
type UserQuotaPeriod struct {
	// start of the period.
	// +optional
	Start *metav1.Time `json:"start,omitempty"`

	// end of the period, the first moment that is no longer part of it.
	// +optional
	End *metav1.Time `json:"end,omitempty"`

	// used are the credits that were charged in it.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Used string `json:"used,omitempty"`

	// finalAt is when it takes no more charges of late work.
	// +optional
	FinalAt *metav1.Time `json:"finalAt,omitempty"`
}

// LevelKind is what a node of the tree is.
// +kubebuilder:validation:Enum=User;Team
type LevelKind string

// The kinds of nodes.
const (
	LevelUser LevelKind = "User"
	LevelTeam LevelKind = "Team"
)

// Level names a user or a team.
type Level struct {
	// kind is User or Team.
	// +required
	Kind LevelKind `json:"kind"`

	// name is the user's id or the name of the team.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
}

// UserQuotaEffectiveLimit is the strictest of one limit of a user and the teams above.
type UserQuotaEffectiveLimit struct {
	// limit that this is about.
	// +required
	Limit TeamLimitName `json:"limit"`

	// value of it, with the currency if it is an amount of money.
	// +required
	// +kubebuilder:validation:MaxLength=32
	Value string `json:"value"`

	// level whose limit it is: the user, or a team above.
	// +required
	Level Level `json:"level"`
}

// UserQuotaStatus is where the user stands. It follows the database at intervals; the HTTP API has the balance of the
// moment.
type UserQuotaStatus struct {
	// observedGeneration is the metadata.generation that this status is about.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Accepted, PlanResolved, TeamResolved, Synced and Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// plan that the user is on.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Plan string `json:"plan,omitempty"`

	// team right above the user: that of teamRef, else one that was given over HTTP, else the root. Absent when the
	// user is alone.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Team string `json:"team,omitempty"`

	// payer is who pays for new work: the nearest team above that has a plan, else the user. Absent when the user is
	// alone.
	// +optional
	Payer *Level `json:"payer,omitempty"`

	// usage is where the user stands in the current period.
	// +optional
	Usage *UserQuotaUsage `json:"usage,omitempty"`

	// effectiveLimits are what binds a user below teams: of each limit the strictest of the user and the teams above,
	// each for what it counts. What nothing bounds is not listed; absent when the user is alone.
	// +optional
	// +listType=map
	// +listMapKey=limit
	// +kubebuilder:validation:MaxItems=4
	EffectiveLimits []UserQuotaEffectiveLimit `json:"effectiveLimits,omitempty"`

	// effective are the effective limits for display, as in "100 credits, 5 running, 50 USD a day".
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Effective string `json:"effective,omitempty"`

	// periodStart is when the current period began.
	// +optional
	PeriodStart *metav1.Time `json:"periodStart,omitempty"`

	// resetsAt is when the current period ends and the credits are renewed.
	// +optional
	ResetsAt *metav1.Time `json:"resetsAt,omitempty"`

	// lastPeriod is the period before the current one.
	// +optional
	LastPeriod *UserQuotaPeriod `json:"lastPeriod,omitempty"`
}

// UserQuota is what one user has beyond or instead of the plan, and where that user stands. Users without one are on
// the default plan and live in the database only.
// +kubebuilder:object:root=true
// +kubebuilder:ac:generate=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=uq,categories={usage}
// +kubebuilder:selectablefield:JSONPath=`.spec.userID`
// +kubebuilder:printcolumn:name="User",type=string,JSONPath=`.spec.userID`
// +kubebuilder:printcolumn:name="Plan",type=string,JSONPath=`.status.plan`
// +kubebuilder:printcolumn:name="Team",type=string,JSONPath=`.status.team`,priority=1
// +kubebuilder:printcolumn:name="Payer",type=string,JSONPath=`.status.payer.name`,priority=1
// +kubebuilder:printcolumn:name="Used",type=string,JSONPath=`.status.usage.used`
// +kubebuilder:printcolumn:name="Limit",type=string,JSONPath=`.status.usage.limit`
// +kubebuilder:printcolumn:name="Remaining",type=string,JSONPath=`.status.usage.remaining`
// +kubebuilder:printcolumn:name="Reserved",type=string,JSONPath=`.status.usage.reserved`,priority=1
// +kubebuilder:printcolumn:name="Running",type=string,JSONPath=`.status.usage.slots`
// +kubebuilder:printcolumn:name="Queued",type=integer,JSONPath=`.status.usage.queued`
// +kubebuilder:printcolumn:name="Resets At",type=string,JSONPath=`.status.resetsAt`
// +kubebuilder:printcolumn:name="Effective Limits",type=string,JSONPath=`.status.effective`,priority=1
// +kubebuilder:printcolumn:name="Last Used",type=string,JSONPath=`.status.lastPeriod.used`,priority=1
// +kubebuilder:printcolumn:name="Suspended",type=boolean,JSONPath=`.spec.suspended`,priority=1
// +kubebuilder:printcolumn:name="Zone",type=string,JSONPath=`.spec.timeZone`,priority=1
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type UserQuota struct {
	metav1.TypeMeta `json:",inline"`

	// metadata of the object. Its name is free; userID says whose quota it is.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is what the user has beyond or instead of the plan.
	// +required
	Spec UserQuotaSpec `json:"spec"`

	// status is where the user stands.
	// +optional
	Status UserQuotaStatus `json:"status,omitzero"`
}

// UserQuotaList is a list of UserQuota.
// +kubebuilder:object:root=true
type UserQuotaList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []UserQuota `json:"items"`
}
