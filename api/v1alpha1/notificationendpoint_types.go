// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NotificationKind is the kind of an alert.
// +kubebuilder:validation:Enum=CreditsPercent;TeamShare;DailyCostPercent;Overdrawn;ExhaustionForecast;GrantExpiring;PeriodReset
type NotificationKind string

// NotificationSelector chooses alerts by whom they are about: by one of each list that is given.
type NotificationSelector struct {
	// plans are names of UsagePlans: alerts of whom they serve.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:XValidation:rule=`self.all(n, n.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'))`,message="each must be the name of a UsagePlan: 1 to 63 lower case letters, digits, '-' and '.', for example pro"
	Plans []string `json:"plans,omitempty"`

	// teams are names of UsageTeams: alerts of these and of whoever is below them.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:XValidation:rule=`self.all(n, n.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'))`,message="each must be the name of a UsageTeam: 1 to 63 lower case letters, digits, '-' and '.', for example newsroom"
	Teams []string `json:"teams,omitempty"`

	// users are user ids: alerts of these, and of no team.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:XValidation:rule=`self.all(n, n.matches('^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$'))`,message="each must be a user id: 1 to 63 letters, digits, '.', '_' and '-', beginning and ending with a letter or digit"
	Users []string `json:"users,omitempty"`
}

// NotificationAudience is for whom the receiver of an endpoint is.
// +kubebuilder:validation:Enum=operators;users
type NotificationAudience string

// The audiences.
const (
	// AudienceOperators get whatever the endpoint asks for.
	AudienceOperators NotificationAudience = "operators"
	// AudienceUsers get what they want to be told of.
	AudienceUsers NotificationAudience = "users"
)

// NotificationSigningMethod is how deliveries are signed.
// +kubebuilder:validation:Enum=ed25519;hmac
type NotificationSigningMethod string

// The ways to sign.
const (
	// SigningEd25519: receivers verify with the public key, and cannot sign themselves.
	SigningEd25519 NotificationSigningMethod = "ed25519"
	// SigningHMAC: receivers have the same secret.
	SigningHMAC NotificationSigningMethod = "hmac"
)

// SecretReference names a Secret in the manager's namespace.
type SecretReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// NotificationSigning is what deliveries are signed with.
// +kubebuilder:validation:XValidation:rule=`self.method != 'hmac' || has(self.secretRef)`,message="secretRef is missing: with hmac the receiver has to know the secret, so name the Secret that has it",fieldPath=".secretRef",reason=FieldValueRequired
type NotificationSigning struct {
	// method is ed25519 (signatures v1a of Standard Webhooks) or hmac (v1).
	// +optional
	// +kubebuilder:default=ed25519
	Method NotificationSigningMethod `json:"method,omitempty"`

	// secretRef names a Secret in the manager's namespace. Each of its entries, at most 4, is a key, as Standard
	// Webhooks write them: whsk_ and the base64 of an ed25519 key, or whsec_ and that of 24 to 64 bytes. All of them
	// sign, so a key is rotated by adding another one and later removing the first. Without it an ed25519 key is made.
	// +optional
	SecretRef *SecretReference `json:"secretRef,omitempty"`
}

// NotificationEndpointSpec is where alerts are sent to, which ones, and how they are signed.
// +kubebuilder:validation:XValidation:rule=`self.url.startsWith('https://') || (has(self.allowedCIDRs) && self.allowedCIDRs.size() > 0)`,messageExpression=`"url is " + self.url + ": it must be https, because without TLS only addresses in allowedCIDRs can be called"`,message="url must be https: without TLS only addresses in allowedCIDRs can be called",fieldPath=".url"
type NotificationEndpointSpec struct {
	// url that each alert is posted to. Redirects are not followed.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule=`self.matches('^https?://[^/?#@]+([/?][!-~]*)?$') && !self.contains('#')`,message="url must be http or https with a host, without user, password and fragment, for example https://hooks.example/usage"
	URL string `json:"url"`

	// kinds of alerts that are sent; all when absent.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=6
	Kinds []NotificationKind `json:"kinds,omitempty"`

	// selector says whose alerts are sent; everybody's when absent.
	// +optional
	Selector *NotificationSelector `json:"selector,omitempty"`

	// audience is for whom the receiver is: operators get whatever the endpoint asks for; users is for a receiver that
	// passes alerts on to the users whom they are about, by e-mail for example: it gets none of a team, and none that
	// its user does not want.
	// +optional
	// +kubebuilder:default=operators
	Audience NotificationAudience `json:"audience,omitempty"`

	// signing is what deliveries are signed with; an ed25519 key that is made for it when absent.
	// +optional
	// +kubebuilder:default={method: ed25519}
	Signing *NotificationSigning `json:"signing,omitempty"`

	// allowedCIDRs are networks that may be called although their addresses are not public, such as that of a receiver
	// in the cluster. They may be called without TLS too.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:XValidation:rule=`self.all(c, isCIDR(c) && cidr(c) == cidr(c).masked())`,message="each must be a network with no bits set behind its prefix, for example 10.20.0.0/16"
	AllowedCIDRs []string `json:"allowedCIDRs,omitempty"`

	// suspended sends nothing. What is raised meanwhile waits, for three days at most.
	// +optional
	// +kubebuilder:default=false
	Suspended bool `json:"suspended,omitempty"`
}

// NotificationKey is a key that deliveries are signed with.
type NotificationKey struct {
	// name of the key: that of its entry in the Secret, or one that was made up.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// publicKey verifies what an ed25519 key has signed: whpk_ and its base64. Absent of an HMAC secret.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	PublicKey string `json:"publicKey,omitempty"`
}

// NotificationEndpointStatus is how the endpoint does. It follows the database at intervals.
type NotificationEndpointStatus struct {
	// observedGeneration is the metadata.generation that this status is about.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Accepted, SigningResolved, Synced, Delivering and Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedEnable is the value of the annotation usage.cantonesescribe.io/enable that was last acted on.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ObservedEnable string `json:"observedEnable,omitempty"`

	// id of the endpoint, by which its public keys are served.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	ID string `json:"id,omitempty"`

	// keys that deliveries are signed with now, the newest first.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	Keys []NotificationKey `json:"keys,omitempty"`

	// lastSuccessTime is when the receiver last took something, to the minute.
	// +optional
	LastSuccessTime *metav1.Time `json:"lastSuccessTime,omitempty"`

	// lastFailureTime is when an attempt last failed, to the minute.
	// +optional
	LastFailureTime *metav1.Time `json:"lastFailureTime,omitempty"`

	// lastFailure is why it did.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	LastFailure string `json:"lastFailure,omitempty"`

	// waiting are the deliveries that are still to be made.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Waiting int64 `json:"waiting"`

	// dead are those that were given up, and can be sent again.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Dead int64 `json:"dead"`
}

// NotificationEndpoint is a webhook that alerts are sent to: signed, retried for three days, at least once each.
// Deleting it forgets what was to be sent to it.
// +kubebuilder:object:root=true
// +kubebuilder:ac:generate=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=ne,categories={usage}
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.spec.url`
// +kubebuilder:printcolumn:name="Delivering",type=string,JSONPath=`.status.conditions[?(@.type=="Delivering")].status`
// +kubebuilder:printcolumn:name="Waiting",type=integer,JSONPath=`.status.waiting`
// +kubebuilder:printcolumn:name="Dead",type=integer,JSONPath=`.status.dead`
// +kubebuilder:printcolumn:name="Last Success",type=date,JSONPath=`.status.lastSuccessTime`
// +kubebuilder:printcolumn:name="Last Failure",type=string,JSONPath=`.status.lastFailure`,priority=1
// +kubebuilder:printcolumn:name="Suspended",type=boolean,JSONPath=`.spec.suspended`,priority=1
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule=`self.metadata.name.size() <= 63`,message="metadata.name must have at most 63 characters, because an endpoint is named like a plan"
type NotificationEndpoint struct {
	metav1.TypeMeta `json:",inline"`

	// metadata of the object. The name has at most 63 characters.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is where alerts are sent to, which ones, and how they are signed.
	// +required
	Spec NotificationEndpointSpec `json:"spec"`

	// status is how the endpoint does.
	// +optional
	Status NotificationEndpointStatus `json:"status,omitzero"`
}

// NotificationEndpointList is a list of NotificationEndpoint.
// +kubebuilder:object:root=true
type NotificationEndpointList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []NotificationEndpoint `json:"items"`
}
