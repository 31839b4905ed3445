// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// LimitName names one of the limits of a plan or an override.
// +kubebuilder:validation:Enum=Credits;FileSize;AudioDuration;Concurrent;Queued
type LimitName string

// The limits that can be listed under unlimited.
const (
	LimitCredits       LimitName = "Credits"
	LimitFileSize      LimitName = "FileSize"
	LimitAudioDuration LimitName = "AudioDuration"
	LimitConcurrent    LimitName = "Concurrent"
	LimitQueued        LimitName = "Queued"
)

// Decimal is a non-negative decimal number with at most nine digits before and six after the point, written as a string
// so that no parser on the way rounds it. Amounts of money have this form: one millionth is the smallest amount.
// +kubebuilder:validation:MaxLength=16
// +kubebuilder:validation:XValidation:rule=`self.matches('^[0-9]{1,9}([.][0-9]{1,6})?$')`,message="must be a decimal number in quotes, not negative, with at most 9 digits before and 6 after the point, for example \"0.006\""
type Decimal string

// Condition types. All of them are True when all is well, except InUse and WithinParent, which are neither good nor
// bad.
const (
	// ConditionAccepted says whether the object as written is the one in force. It is False where another object,
	// accepted before, already has its place (the default plan, the user id) and where a value is no good that the CRD
	// cannot judge.
	ConditionAccepted = "Accepted"

	// ConditionSynced says whether the database holds what the spec says.
	ConditionSynced = "Synced"

	// ConditionResetScheduled says whether the plan's reset CronJob is as the spec says. UsagePlan only.
	ConditionResetScheduled = "ResetScheduled"

	// ConditionInUse says whether any user is on the plan, or anybody below the team; its message counts them, and
	// of a plan names at most ten. UsagePlan and UsageTeam.
	ConditionInUse = "InUse"

	// ConditionPlanResolved says whether the plan that the user is on, or that the team pays with, could be found.
	// UserQuota and UsageTeam.
	ConditionPlanResolved = "PlanResolved"

	// ConditionTeamResolved says whether the team that teamRef names could be found. It is absent where teamRef is.
	// UserQuota only.
	ConditionTeamResolved = "TeamResolved"

	// ConditionParentResolved says whether the team above this one could be found, and the way up leads to a top that
	// is not too far. UsageTeam only.
	ConditionParentResolved = "ParentResolved"

	// ConditionWithinParent says whether the team's own limits can be reached at all below those of the teams above it.
	// It is False where one of those is stricter, which is allowed and binds. UsageTeam only.
	ConditionWithinParent = "WithinParent"

	// ConditionSigningResolved says whether there are keys to sign with, in the Secret that secretRef names or made.
	// NotificationEndpoint only.
	ConditionSigningResolved = "SigningResolved"

	// ConditionDelivering says whether what is sent arrives. It is False where attempts fail or none is made, which
	// Ready does not go by: the object is in force. NotificationEndpoint only.
	ConditionDelivering = "Delivering"

	// ConditionReady sums the others up: True when the object is in force. Wait for this one.
	ConditionReady = "Ready"
)

// Reasons of ConditionAccepted.
const (
	// ReasonAccepted: the object is in force.
	ReasonAccepted = "Accepted"
	// ReasonConflict: another object was there first; the message names it.
	ReasonConflict = "Conflict"
	// ReasonOwnedByAnotherCluster: another cluster on the same database declares the plan, or something about the user;
	// the message names it. Accepted by itself once that was adopted, or for a UserQuota given up.
	ReasonOwnedByAnotherCluster = "OwnedByAnotherCluster"
	// ReasonInvalid: a value is no good that the CRD cannot judge, such as a schedule or a time zone; the message names
	// it.
	ReasonInvalid = "Invalid"
)

// Reasons of ConditionSynced.
const (
	// ReasonSynced: the database holds what the spec says.
	ReasonSynced = "Synced"
	// ReasonNotAccepted: the object is not in force, therefore nothing of it is written.
	ReasonNotAccepted = "NotAccepted"
	// ReasonDatabaseUnavailable: the database cannot be reached, or cannot do its work; tried again with back-off.
	ReasonDatabaseUnavailable = "DatabaseUnavailable"
	// ReasonAccountUnreadable: what is stored about the user is not known to this release; tried again when it can be
	// read.
	ReasonAccountUnreadable = "AccountUnreadable"
	// ReasonDatabaseSchema: the database's schema is older than this release needs, or not there; tried again with
	// back-off.
	ReasonDatabaseSchema = "DatabaseSchemaOutdated"
	// ReasonSyncFailed: the database refused the write; the message has its answer.
	ReasonSyncFailed = "SyncFailed"
)

// Reasons of ConditionResetScheduled.
const (
	// ReasonScheduled: the CronJob is as the spec says.
	ReasonScheduled = "Scheduled"
	// ReasonCronJobFailed: the CronJob could not be written; the message has the API server's answer.
	ReasonCronJobFailed = "CronJobFailed"
)

// Reasons of ConditionInUse.
const (
	// ReasonInUse: users are on the plan, or below the team.
	ReasonInUse = "InUse"
	// ReasonUnused: no user is on the plan, or below the team.
	ReasonUnused = "Unused"
)

// Reasons of ConditionPlanResolved.
const (
	// ReasonPlanResolved: the plan that planRef names is in force.
	ReasonPlanResolved = "PlanResolved"
	// ReasonDefaultPlan: planRef is absent and the user is on the default plan.
	ReasonDefaultPlan = "DefaultPlan"
	// ReasonPlanRetired: the plan's object was deleted; it keeps serving this user as it last was.
	ReasonPlanRetired = "PlanRetired"
	// ReasonPlanNotFound: there never was a plan of the name in planRef.
	ReasonPlanNotFound = "PlanNotFound"
	// ReasonNoDefaultPlan: planRef is absent and no plan is the default.
	ReasonNoDefaultPlan = "NoDefaultPlan"
)

// Reasons of ConditionPlanResolved of a UsageTeam.
const (
	// ReasonNoPlan: planRef is absent, so the team pays for nobody.
	ReasonNoPlan = "NoPlan"
)

// Reasons of ConditionTeamResolved.
const (
	// ReasonTeamResolved: the user is a member of the team that teamRef names.
	ReasonTeamResolved = "TeamResolved"
	// ReasonTeamRetired: the team's object was deleted; it goes on for this user as it last was, and takes nobody else.
	ReasonTeamRetired = "TeamRetired"
	// ReasonTeamNotFound: there is no team of the name in teamRef that takes members.
	ReasonTeamNotFound = "TeamNotFound"
)

// Reasons of ConditionParentResolved.
const (
	// ReasonParentResolved: the team that parentRef names is there, or the root where it names none.
	ReasonParentResolved = "ParentResolved"
	// ReasonParentRetired: the object of the team above was deleted; it goes on for this team as it last was.
	ReasonParentRetired = "ParentRetired"
	// ReasonNoParent: nothing is above the team.
	ReasonNoParent = "NoParent"
	// ReasonParentNotFound: there is no team of the name in parentRef that takes others.
	ReasonParentNotFound = "ParentNotFound"
	// ReasonCycle: the team would be above itself; the message has the way.
	ReasonCycle = "Cycle"
	// ReasonTooDeep: a user would have more than three teams above it; the message has the way.
	ReasonTooDeep = "TooDeep"
)

// Reasons of ConditionWithinParent.
const (
	// ReasonWithinParent: no limit of the team is above one of the teams above it.
	ReasonWithinParent = "WithinParent"
	// ReasonAboveParent: one is, so that other one binds; the message names both.
	ReasonAboveParent = "AboveParent"
)

// Reasons of ConditionSigningResolved.
const (
	// ReasonSigningResolved: there are keys to sign with.
	ReasonSigningResolved = "SigningResolved"
	// ReasonSecretNotFound: there is no Secret of the name in secretRef in the manager's namespace.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonSecretForbidden: the manager may not read the Secret.
	ReasonSecretForbidden = "SecretForbidden"
	// ReasonKeyInvalid: an entry of the Secret is no key; the message names it.
	ReasonKeyInvalid = "KeyInvalid"
)

// Reasons of ConditionDelivering.
const (
	// ReasonDelivering: the last attempt succeeded, or there was none yet.
	ReasonDelivering = "Delivering"
	// ReasonFailing: the last attempts failed; they are made again by themselves.
	ReasonFailing = "Failing"
	// ReasonDisabled: the receiver said that it is gone. Nothing is sent to it until the spec changes, or
	// EnableAnnotation.
	ReasonDisabled = "Disabled"
	// ReasonSuspended: the spec says that nothing is sent.
	ReasonSuspended = "Suspended"
)

// Reasons of ConditionReady. When it is False its reason is that of the first condition that is not True.
const (
	// ReasonReady: the object is in force.
	ReasonReady = "Ready"
	// ReasonProgressing: the latest spec has not been worked on yet.
	ReasonProgressing = "Progressing"
)
