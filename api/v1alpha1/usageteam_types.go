// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// TeamReference names a UsageTeam.
type TeamReference struct {
	// name of the UsageTeam.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')`,messageExpression=`"name is '" + self + "': must be the name of a UsageTeam, 1 to 63 lower case letters, digits, '-' and '.', for example newsroom"`,message="name must be the name of a UsageTeam: 1 to 63 lower case letters, digits, '-' and '.', for example newsroom"
	Name string `json:"name"`
}

// TeamLimitName names one of the limits of a team or its members.
// +kubebuilder:validation:Enum=Credits;Concurrent;Queued;DailyCost
type TeamLimitName string

// The limits that can be listed under unlimited.
const (
	TeamLimitCredits    TeamLimitName = "Credits"
	TeamLimitConcurrent TeamLimitName = "Concurrent"
	TeamLimitQueued     TeamLimitName = "Queued"
	TeamLimitDailyCost  TeamLimitName = "DailyCost"
)

// TeamDailyCost is an amount of provider cost per UTC day.
type TeamDailyCost struct {
	// amount beyond which nothing more is admitted until the next day. "0" admits nothing that costs anything.
	// +required
	Amount Decimal `json:"amount"`

	// currency of the amount, as an ISO 4217 code. Work that a plan in another currency pays for neither counts
	// towards it nor is held up.
	// +optional
	// +kubebuilder:default=USD
	// +kubebuilder:validation:MaxLength=3
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[A-Z]{3}$')`,messageExpression=`"dailyCost.currency is '" + self + "': must be an ISO 4217 code of three capital letters, for example USD"`,message="dailyCost.currency must be an ISO 4217 code of three capital letters, for example USD"
	Currency string `json:"currency,omitempty"`
}

// TeamLimits bound what is taken, whoever pays for it. What is absent is not bound here.
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule=`!has(self.credits) || !has(self.unlimited) || !('Credits' in self.unlimited)`,message="credits is given and unlimited lists Credits: remove one of them",fieldPath=".credits",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!has(self.concurrent) || !has(self.unlimited) || !('Concurrent' in self.unlimited)`,message="concurrent is given and unlimited lists Concurrent: remove one of them",fieldPath=".concurrent",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!has(self.queued) || !has(self.unlimited) || !('Queued' in self.unlimited)`,message="queued is given and unlimited lists Queued: remove one of them",fieldPath=".queued",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!has(self.dailyCost) || !has(self.unlimited) || !('DailyCost' in self.unlimited)`,message="dailyCost is given and unlimited lists DailyCost: remove one of them",fieldPath=".dailyCost",reason=FieldValueForbidden
type TeamLimits struct {
	// credits that may be used and reserved in one period.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000000
	Credits *int64 `json:"credits,omitempty"`

	// concurrent is how many jobs may run at once.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	Concurrent *int32 `json:"concurrent,omitempty"`

	// queued is how many jobs may wait; 0 refuses instead of queueing.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000
	Queued *int32 `json:"queued,omitempty"`

	// dailyCost is the provider cost per UTC day beyond which nothing more is admitted until the next day.
	// +optional
	DailyCost *TeamDailyCost `json:"dailyCost,omitempty"`

	// unlimited lists the limits that there are not. Under memberDefaults that lifts those of the teams above.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=4
	Unlimited []TeamLimitName `json:"unlimited,omitempty"`
}

// UsageTeamSpec is where a team hangs, what it pays for and what it bounds. A team says at least one of planRef,
// limits, memberDefaults and root: it would change nothing for anybody otherwise.
// +kubebuilder:validation:XValidation:rule=`has(self.planRef) || has(self.limits) || has(self.memberDefaults) || (has(self.root) && self.root)`,message="planRef, limits and memberDefaults are missing, and root is not true: give one of them, for example limits.concurrent (1 to 10000), or the team would change nothing for anybody"
// +kubebuilder:validation:XValidation:rule=`!has(self.root) || !self.root || !has(self.parentRef)`,messageExpression=`"parentRef.name is " + self.parentRef.name + " and root is true: nothing is above the root, remove one of them"`,message="parentRef is given and root is true: nothing is above the root, remove one of them",fieldPath=".parentRef",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!has(self.grants) || self.grants.size() == 0 || has(self.planRef)`,message="grants are given and planRef is missing: a team without a plan pays for nobody, give planRef or remove the grants",fieldPath=".grants",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!has(self.limits) || !has(self.limits.credits) || !has(self.memberDefaults) || !has(self.memberDefaults.credits) || self.memberDefaults.credits <= self.limits.credits`,message="memberDefaults.credits is above limits.credits: a member cannot take more than the team, lower the one or raise the other",fieldPath=".memberDefaults.credits"
// +kubebuilder:validation:XValidation:rule=`!has(self.limits) || !has(self.limits.concurrent) || !has(self.memberDefaults) || !has(self.memberDefaults.concurrent) || self.memberDefaults.concurrent <= self.limits.concurrent`,message="memberDefaults.concurrent is above limits.concurrent: a member cannot take more than the team, lower the one or raise the other",fieldPath=".memberDefaults.concurrent"
// +kubebuilder:validation:XValidation:rule=`!has(self.limits) || !has(self.limits.queued) || !has(self.memberDefaults) || !has(self.memberDefaults.queued) || self.memberDefaults.queued <= self.limits.queued`,message="memberDefaults.queued is above limits.queued: a member cannot take more than the team, lower the one or raise the other",fieldPath=".memberDefaults.queued"
// +kubebuilder:validation:XValidation:rule=`!has(self.limits) || !has(self.limits.dailyCost) || !has(self.memberDefaults) || !has(self.memberDefaults.dailyCost) || self.memberDefaults.dailyCost.currency != self.limits.dailyCost.currency || !self.memberDefaults.dailyCost.amount.matches('^[0-9]{1,9}([.][0-9]{1,6})?$') || !self.limits.dailyCost.amount.matches('^[0-9]{1,9}([.][0-9]{1,6})?$') || double(self.memberDefaults.dailyCost.amount) <= double(self.limits.dailyCost.amount)`,messageExpression=`"memberDefaults.dailyCost.amount is " + self.memberDefaults.dailyCost.amount + " and limits.dailyCost.amount " + self.limits.dailyCost.amount + ": a member cannot take more than the team, lower the one or raise the other"`,message="memberDefaults.dailyCost.amount is above limits.dailyCost.amount: a member cannot take more than the team",fieldPath=".memberDefaults.dailyCost"
type UsageTeamSpec struct {
	// displayName is the name that people see, in refusals too.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	DisplayName string `json:"displayName"`

	// parentRef names the team above this one. The root team when absent, if there is one. A user has at most three
	// teams above it, the root included.
	// +optional
	ParentRef *TeamReference `json:"parentRef,omitempty"`

	// planRef names the plan that the team pays with for everybody below it who has no nearer payer: its credits, its
	// grants, overage and period are the team's. Without one the team pays for nobody and only bounds.
	// +optional
	PlanRef *PlanReference `json:"planRef,omitempty"`

	// limits bound what all below the team take together, whoever pays.
	// +optional
	Limits *TeamLimits `json:"limits,omitempty"`

	// memberDefaults bound what each user below the team takes. Of several teams above a user the nearest that says
	// something of a limit counts, and an override of the user's UserQuota before them.
	// +optional
	MemberDefaults *TeamLimits `json:"memberDefaults,omitempty"`

	// accountCreatedAt is the anchor of the team's own periods, as a UserQuota's. When the team was first declared when
	// absent. Editing it moves the periods that follow the open one.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self >= timestamp('1970-01-01T00:00:00Z') && self < timestamp('2200-01-01T00:00:00Z')`,message="accountCreatedAt must be a time from 1970 to 2199"
	AccountCreatedAt *metav1.Time `json:"accountCreatedAt,omitempty"`

	// timeZone is the IANA time zone in which the team's periods begin. Its members' periods are their own.
	// +optional
	// +kubebuilder:default=UTC
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$') && self != 'Local'`,messageExpression=`"timeZone is '" + self + "': must be the name of an IANA time zone, for example Asia/Hong_Kong or UTC"`,message="timeZone must be the name of an IANA time zone, for example Asia/Hong_Kong or UTC"
	TimeZone string `json:"timeZone,omitempty"`

	// grants are one-time gifts of credits by name, of 1 to 63 letters, digits, '-', '_' and '.'. Each is applied once,
	// even if it is removed here and added again.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule=`self.all(name, name.size() <= 63 && name.matches('^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$'))`,message="the name of a grant must be 1 to 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, for example welcome-2025"
	Grants map[string]Grant `json:"grants,omitempty"`

	// weight is the team's share in what it and others below the same parent wait for: twice the weight is served twice
	// as often while both wait.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	Weight int32 `json:"weight,omitempty"`

	// suspended admits nothing new for anybody below the team. What runs goes on, what waits keeps waiting.
	// +optional
	// +kubebuilder:default=false
	Suspended bool `json:"suspended,omitempty"`

	// root makes this the one team that everybody without a parent is under: its limits are those of the platform. The
	// first team that is accepted as root stays it; a second one is not accepted.
	// +optional
	// +kubebuilder:default=false
	Root bool `json:"root,omitempty"`
}

// UsageTeamUsage is where a team stands in its current period. Credits are decimal strings, exact to the millisecond of
// audio; amounts without a limit are "unlimited".
type UsageTeamUsage struct {
	// used are the credits that were charged in this period for anybody below the team, whoever paid.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Used string `json:"used,omitempty"`

	// limit are the credits that all below the team may use in this period: the least of limits.credits and what the
	// team's plan gives, with grants and carry-over.
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

	// running jobs of everybody below the team.
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

	// queued jobs of everybody below the team.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Queued int32 `json:"queued"`
}

// UsageTeamEffectiveLimit is the strictest of one limit of a team and those above it.
type UsageTeamEffectiveLimit struct {
	// limit that this is about.
	// +required
	Limit TeamLimitName `json:"limit"`

	// value of it, with the currency if it is an amount of money.
	// +required
	// +kubebuilder:validation:MaxLength=32
	Value string `json:"value"`

	// team that sets it: this one or one above it.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Team string `json:"team"`
}

// UsageTeamStatus is where the team stands. It follows the database at intervals; the HTTP API has the balance of the
// moment.
type UsageTeamStatus struct {
	// observedGeneration is the metadata.generation that this status is about.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Accepted, ParentResolved, PlanResolved, WithinParent, Synced, InUse and Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// parent that the team is under, the root where parentRef is absent.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Parent string `json:"parent,omitempty"`

	// plan that the team pays with; absent when it pays for nobody.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Plan string `json:"plan,omitempty"`

	// members are the users below the team, those of the teams below it included.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Members int64 `json:"members"`

	// usage is where the team stands in the current period.
	// +optional
	Usage *UsageTeamUsage `json:"usage,omitempty"`

	// effectiveLimits are what binds all below the team together: of each limit the strictest of this team and those
	// above it. What nothing bounds is not listed.
	// +optional
	// +listType=map
	// +listMapKey=limit
	// +kubebuilder:validation:MaxItems=4
	EffectiveLimits []UsageTeamEffectiveLimit `json:"effectiveLimits,omitempty"`

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
}

// UsageTeam is a group of users and other teams: it pays for them if it has a plan, and bounds what they take together.
// Deleting a team that is in use retires it: it keeps its members and serves them as it last was.
// +kubebuilder:object:root=true
// +kubebuilder:ac:generate=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=ut,categories={usage}
// +kubebuilder:printcolumn:name="Display Name",type=string,JSONPath=`.spec.displayName`,priority=1
// +kubebuilder:printcolumn:name="Parent",type=string,JSONPath=`.status.parent`
// +kubebuilder:printcolumn:name="Plan",type=string,JSONPath=`.status.plan`
// +kubebuilder:printcolumn:name="Members",type=integer,JSONPath=`.status.members`
// +kubebuilder:printcolumn:name="Used",type=string,JSONPath=`.status.usage.used`
// +kubebuilder:printcolumn:name="Limit",type=string,JSONPath=`.status.usage.limit`
// +kubebuilder:printcolumn:name="Remaining",type=string,JSONPath=`.status.usage.remaining`
// +kubebuilder:printcolumn:name="Reserved",type=string,JSONPath=`.status.usage.reserved`,priority=1
// +kubebuilder:printcolumn:name="Running",type=string,JSONPath=`.status.usage.slots`
// +kubebuilder:printcolumn:name="Queued",type=integer,JSONPath=`.status.usage.queued`
// +kubebuilder:printcolumn:name="Resets At",type=string,JSONPath=`.status.resetsAt`
// +kubebuilder:printcolumn:name="Effective Limits",type=string,JSONPath=`.status.effective`,priority=1
// +kubebuilder:printcolumn:name="Weight",type=integer,JSONPath=`.spec.weight`,priority=1
// +kubebuilder:printcolumn:name="Root",type=boolean,JSONPath=`.spec.root`,priority=1
// +kubebuilder:printcolumn:name="Suspended",type=boolean,JSONPath=`.spec.suspended`,priority=1
// +kubebuilder:printcolumn:name="Zone",type=string,JSONPath=`.spec.timeZone`,priority=1
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule=`self.metadata.name.size() <= 63`,message="metadata.name must have at most 63 characters, because a team is named like a plan"
// +kubebuilder:validation:XValidation:rule=`!has(self.spec.parentRef) || self.spec.parentRef.name != self.metadata.name`,messageExpression=`"parentRef.name is " + self.spec.parentRef.name + ", the team itself: name another team, or remove parentRef"`,message="parentRef.name is the team itself: name another team, or remove parentRef",fieldPath=".spec.parentRef"
type UsageTeam struct {
	metav1.TypeMeta `json:",inline"`

	// metadata of the object. The name has at most 63 characters.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is where the team hangs, what it pays for and what it bounds.
	// +required
	Spec UsageTeamSpec `json:"spec"`

	// status is where the team stands.
	// +optional
	Status UsageTeamStatus `json:"status,omitzero"`
}

// UsageTeamList is a list of UsageTeam.
// +kubebuilder:object:root=true
type UsageTeamList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []UsageTeam `json:"items"`
}
