// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Labels and annotations that people put on a Job to say whose quota it spends and on what. The admission policy
// freezes them once the Job exists.
const (
	// UserLabel names the user whose quota a Job spends. Its value is the user id, which has the grammar of a label
	// value.
	UserLabel = Group + "/user"

	// AudioDurationAnnotation declares the length of the audio as a Go duration ("12m30s"): more than 0, whole
	// milliseconds, at most 720h. It is what is reserved, and what is charged if the Job completes without a report.
	AudioDurationAnnotation = Group + "/audio-duration"

	// FileSizeAnnotation declares the size of the audio file as a quantity ("24Mi"): more than 0, at most 1Ti.
	FileSizeAnnotation = Group + "/file-size"

	// ContainerAnnotation names the container whose termination message reports the actual duration, where no API call
	// did.
	ContainerAnnotation = Group + "/container"

	// HoldAnnotation, set to "true", is the user's own hold: the Job keeps waiting although it could be admitted.
	HoldAnnotation = Group + "/hold"

	// PriorityAnnotation orders a user's waiting Jobs: an integer from -1000 to 1000, higher first, 0 when absent.
	PriorityAnnotation = Group + "/priority"
)

// EnableAnnotation on a NotificationEndpoint that was disabled, or is left alone because it failed, has it tried again
// whenever its value changes; any value does.
const EnableAnnotation = Group + "/enable"

// Annotations that the controller writes on a Job. Nobody else may.
const (
	// StateAnnotation is the Job's admission state, one of the State constants.
	StateAnnotation = Group + "/state"

	// MessageAnnotation says why the Job waits, or what it was charged. At which place it waits it does not say: that
	// moves, and GET /api/v1/admissions/{id} tells it.
	MessageAnnotation = Group + "/message"
)

// Values of StateAnnotation.
const (
	// StateQueued: the Job waits for a slot and starts by itself.
	StateQueued = "Queued"
	// StateParked: the Job waits for something other than a slot, such as new credits; the message says what.
	StateParked = "Parked"
	// StateAdmitted: the Job holds a slot and a reservation, and runs.
	StateAdmitted = "Admitted"
	// StateSettled: the Job is over and its usage is charged.
	StateSettled = "Settled"
	// StateReleased: the Job is over and nothing was charged.
	StateReleased = "Released"
	// StateHeld: the user holds the Job back by HoldAnnotation.
	StateHeld = "Held"
	// StateUnauthorized: the Job's service account may not spend the user's quota. It waits where that is enforced, and
	// runs without being charged to the user where it is only warned of.
	StateUnauthorized = "Unauthorized"
	// StateRefused: the Job has waited for longer than its user's plan lets work wait, and does not start any more; the
	// message says for what and how long. Created anew it asks again.
	StateRefused = "Refused"
	// StateInvalid: the Job cannot be admitted as it is written; the message says which field is wrong.
	StateInvalid = "Invalid"
)

// Labels of a namespace.
const (
	// EnforcementLabel switches a namespace between the Enforcement modes. Absent means EnforcementEnforce.
	EnforcementLabel = Group + "/enforcement"

	// RequireUserLabel, set to "true", makes the namespace refuse Jobs that carry no UserLabel.
	RequireUserLabel = Group + "/require-user"
)

// Values of EnforcementLabel.
const (
	// EnforcementEnforce meters, and refuses or queues what the plan does not allow.
	EnforcementEnforce = "enforce"
	// EnforcementWarn meters and warns, and refuses nothing.
	EnforcementWarn = "warn"
	// EnforcementOff leaves the namespace's Jobs alone.
	EnforcementOff = "off"
)

// Who may spend whose quota is RBAC on a resource that exists for that purpose alone.
const (
	// SpendVerb is the verb to spend a user's quota.
	SpendVerb = "spend"
	// UsersResource is the virtual resource, in Group, whose resource names are user ids.
	UsersResource = "users"
)
