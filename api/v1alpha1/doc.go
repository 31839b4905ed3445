// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds the usage.cantonesescribe.io/v1alpha1 API: UsagePlan, what a plan allows, UserQuota, what one
// user has beyond or instead of it, and UsageTeam, what many users share.
//
// The types carry their own validation (bounds and CEL rules in the CRDs), so that a wrong object is refused by the API
// server itself, whether or not the operator runs. Only what needs a look-up (a cron schedule, a time zone) is left to
// the webhook. There is no logic here and nothing but apimachinery is imported.
//
// +kubebuilder:object:generate=true
// +kubebuilder:ac:generate=true
// +groupName=usage.cantonesescribe.io
package v1alpha1
