// SPDX-License-Identifier: Apache-2.0

package quota

import "net/http"

// Reason says in one word why work was refused or waits.
type Reason string

// The reasons of refusals and waits. UnknownUser and UnknownPlan are found before a decision, by whoever gathers facts.
const (
	UserSuspended    Reason = "UserSuspended"
	FileTooLarge     Reason = "FileTooLarge"
	AudioTooLong     Reason = "AudioTooLong"
	CreditsExhausted Reason = "CreditsExhausted"
	DailyCostCeiling Reason = "DailyCostCeiling"
	ConcurrencyLimit Reason = "ConcurrencyLimit"
	QueueFull        Reason = "QueueFull"
	// NotFirst means that a slot is free but that others have waited longer for it.
	NotFirst Reason = "NotFirst"
	// WaitedTooLong means that it waited for longer than the plan lets work wait.
	WaitedTooLong Reason = "WaitedTooLong"
	UnknownUser   Reason = "UnknownUser"
	UnknownPlan   Reason = "UnknownPlan"
	// RateLimited means that there were too many calls of late. It is no decision about work: none has been looked at.
	RateLimited Reason = "RateLimited"
)

// Retry says what has to happen before the same request can succeed.
type Retry string

// What a refused request waits for.
const (
	// RetryNever: nothing helps but another request, or another plan.
	RetryNever Retry = "another request or plan"
	// RetryTime: a period or a day ends.
	RetryTime Retry = "the end of the period or the day"
	// RetryJobs: other jobs of the user end.
	RetryJobs Retry = "the end of other jobs"
	// RetryRate: time passes, and calls come back with it.
	RetryRate Retry = "the time that the answer names"
	// RetryChange: somebody changes the user, or what plans there are.
	RetryChange Retry = "a change of the user or the plans"
)

// Severity says whether somebody should look.
type Severity string

// The severities of reasons, as those of Kubernetes events.
const (
	SeverityNormal  Severity = "Normal"
	SeverityWarning Severity = "Warning"
)

// LimitName names what a reason is about, as callers of the HTTP API know it.
type LimitName string

// The names of limits. A plan's longest wait, and what must be known before a decision, bind nothing that waits.
const (
	LimitSuspension    LimitName = "suspension"
	LimitFileSize      LimitName = "file_size"
	LimitAudioDuration LimitName = "audio_duration"
	LimitCredits       LimitName = "credits"
	LimitDailyCost     LimitName = "daily_cost"
	LimitConcurrent    LimitName = "concurrent"
	LimitQueued        LimitName = "queued"
	LimitWait          LimitName = "wait"
)

// ReasonInfo is what every face makes of a reason.
type ReasonInfo struct {
	Reason Reason
	// Limit is the one that it is about; empty where there is none.
	Limit LimitName
	// Title is the reason in a few words, for people.
	Title string
	// Status is the HTTP status of a refusal, of the HTTP API as of the Job webhook.
	Status   int
	Retry    Retry
	Severity Severity
}

// Reasons are all reasons. An unknown user is 404: nothing is missing that the caller could be given, as in a 403, and
// who has no right on the user is told that first.
var Reasons = []ReasonInfo{
	{UserSuspended, LimitSuspension, "User suspended", http.StatusForbidden, RetryChange, SeverityWarning},
	{FileTooLarge, LimitFileSize, "File too large", http.StatusRequestEntityTooLarge, RetryNever, SeverityWarning},
	{AudioTooLong, LimitAudioDuration, "Audio too long", http.StatusRequestEntityTooLarge, RetryNever, SeverityWarning},
	{CreditsExhausted, LimitCredits, "Credits exhausted", http.StatusTooManyRequests, RetryTime, SeverityWarning},
	{DailyCostCeiling, LimitDailyCost, "Daily cost ceiling", http.StatusTooManyRequests, RetryTime, SeverityWarning},
	{ConcurrencyLimit, LimitConcurrent, "Concurrency limit", http.StatusTooManyRequests, RetryJobs, SeverityNormal},
	{QueueFull, LimitQueued, "Queue full", http.StatusTooManyRequests, RetryJobs, SeverityWarning},
	{NotFirst, LimitConcurrent, "Not first", http.StatusTooManyRequests, RetryJobs, SeverityNormal},
	{WaitedTooLong, LimitWait, "Waited too long", http.StatusTooManyRequests, RetryNever, SeverityWarning},
	{UnknownUser, "", "Unknown user", http.StatusNotFound, RetryChange, SeverityWarning},
	{UnknownPlan, "", "Unknown plan", http.StatusNotFound, RetryChange, SeverityWarning},
	{RateLimited, "", "Rate limited", http.StatusTooManyRequests, RetryRate, SeverityWarning},
}

// Info returns the row of Reasons; one without a Status for what is no reason.
func (r Reason) Info() ReasonInfo {
	for _, info := range Reasons {
		if info.Reason == r {
			return info
		}
	}
	return ReasonInfo{Reason: r, Title: string(r), Severity: SeverityNormal}
}
