// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"net/http"
	"strings"

	"github.com/cantonesescribe/usage-operator/internal/access"
)

// operation is what holds of a call before its handler sees it: which body it takes, and who may make it. The contract
// has the same, docs/http.md shows it, and a test compares the three.
type operation struct {
	// id is the contract's operationId, and pattern the route.
	id, pattern string
	body
	// verbs are the rights of which the caller needs one on the subject, which is a user or another resource, and also
	// are those who need none.
	verbs   []string
	subject string
	also    also
}

// body is what a call may have in its body.
type body struct {
	// media are the kinds that are taken, none where there must be no body, and limit is the most bytes of one.
	media []string
	limit int64
	// optional bodies may be missing.
	optional bool
}

// also are who may make a call without a right.
type also uint8

const (
	// nobody is for calls that always take a right.
	nobody also = 0
	// holder is whoever has the lease or the ticket of the admission in the path.
	holder also = 1 << (iota - 1)
	// self is the person who is the user that the call is about; where it only reads, whoever has a portal token of
	// that user as well.
	self
	// checker is whoever has a portal token of scope check.
	checker
	// everybody is whoever is known; and, of what is public where the service's settings say so, whoever is not.
	everybody
)

// has reports whether all of those are among them.
func (a also) has(those also) bool { return a&those == those }

const (
	kindJSON        = "application/json"
	kindCloudEvent  = "application/cloudevents+json"
	kindCloudEvents = "application/cloudevents-batch+json"

	// maxBody is far more than any request of one piece of work needs, and maxBatchBody enough for maxItems uses.
	maxBody      = 64 << 10
	maxBatchBody = 1 << 20
)

var (
	noBody   = body{}
	jsonBody = body{media: []string{kindJSON}, limit: maxBody}
	// explanation says why, and nothing else, so it may be missing.
	explanation = body{media: []string{kindJSON}, limit: maxBody, optional: true}
	usesBody    = body{media: []string{kindJSON, kindCloudEvent, kindCloudEvents}, limit: maxBatchBody}

	spend    = []string{access.VerbSpend}
	read     = []string{access.VerbSpend, access.VerbGet}
	adjust   = []string{access.VerbAdjust}
	list     = []string{access.VerbList}
	manage   = []string{access.VerbManage}
	get      = []string{access.VerbGet}
	grant    = []string{access.VerbGrant}
	admin    = []string{access.VerbAdmin}
	analyse  = []string{access.VerbAnalytics}
	readTeam = []string{access.VerbGet, access.VerbManage}
)

// Whose quota a call is about, or what else.
const (
	bodysUser      = "the body's `user_id`"
	itemsUser      = "each use's `user_id` or `subject`"
	querysUser     = "the query's `user_id`"
	queriedUsers   = "the query's `user_id`; on all users, in all namespaces, where it is not given"
	givenUser      = "the query's `user_id`, where it is given"
	admissionsUser = "the admission's user"
	eventsUser     = "the event's user"
	wholeQueue     = "the resource `queue`, in all namespaces; `manage` on the query's `team` of the resource " +
		"`teams`, where it is given"
	allTeams   = "the resource `teams`, in all namespaces"
	alertsOf   = "the alert's user; `get` or `manage` on the alert's team of the resource `teams`, where it is a team's"
	pathsTeam  = "the team in the path, of the resource `teams`"
	allUsers   = "the resource `users`, in all namespaces"
	wholeAudit = "the resource `audit`, in all namespaces"
	noUser     = "nothing"
	pathsUser  = "the user in the path"

	sentToAll = "the resource `deliveries`, in all namespaces; `manage` on the query's `team` of the resource " +
		"`teams`, where it is given"
	sentTo = "the resource `deliveries`, in all namespaces; `manage` on the delivery's team of the resource `teams`, " +
		"where it is a team's"
	platforms = "the resource `deliveries`, in all namespaces"
	keysOf    = "the endpoint's id in the path, of the resource `notificationkeys`"
	watched   = "the query's `user_id`, where it is given; `get` or `manage` on the query's `team` of the resource " +
		"`teams`, where that is"
	wholeSystem = "the resource `system`, in all namespaces"
)

var operations = []operation{
	{"createAdmission", "POST /api/v1/admissions", jsonBody, spend, bodysUser, nobody},
	{"listAdmissions", "GET /api/v1/admissions", noBody, read, queriedUsers, self},
	{"getAdmission", "GET /api/v1/admissions/{id}", noBody, read, admissionsUser, holder | self},
	{"heartbeatAdmission", "POST /api/v1/admissions/{id}/heartbeat", noBody, spend, admissionsUser, holder},
	{"completeAdmission", "POST /api/v1/admissions/{id}/complete", jsonBody, spend, admissionsUser, holder},
	{"releaseAdmission", "POST /api/v1/admissions/{id}/release", noBody, spend, admissionsUser, holder},
	{"forceReleaseAdmission", "POST /api/v1/admissions/{id}/force-release", jsonBody, adjust, admissionsUser, nobody},
	{"getQueue", "GET /api/v1/queue", noBody, list, wholeQueue, nobody},
	{"createUsage", "POST /api/v1/usage", usesBody, spend, itemsUser, nobody},
	{"listUsageEvents", "GET /api/v1/usage/events", noBody, read, querysUser, self},
	{"getUsageEvent", "GET /api/v1/usage/events/{id}", noBody,
		[]string{access.VerbSpend, access.VerbGet, access.VerbAdjust},
		eventsUser, self},
	{"reverseUsage", "POST /api/v1/usage/{id}/reverse", jsonBody, adjust, eventsUser, nobody},
	{"createAdjustment", "POST /api/v1/usage/adjustments", jsonBody, adjust, bodysUser, nobody},
	{"checkUsage", "POST /api/v1/usage/check", jsonBody, read, bodysUser, self | checker},
	{"checkTranscriptionLimits", "POST /api/v1/transcription/check-limits", jsonBody, read, bodysUser, self | checker},
	{"getCurrentUsage", "GET /api/v1/usage/current", noBody, read, querysUser, self},
	{"getUsageHistory", "GET /api/v1/usage/history", noBody, read, querysUser, self},
	{"getNotificationPreferences", "GET /api/v1/usage/notification-preferences", noBody, read, querysUser, self},
	{"putNotificationPreferences", "PUT /api/v1/usage/notification-preferences", jsonBody, admin, querysUser, self},
	{"getUsageStats", "GET /api/v1/usage/stats", noBody, read, querysUser, self},
	{"getUsageAnalytics", "GET /api/v1/analytics/usage", noBody, read, querysUser, self},
	{"getUsageActivity", "GET /api/v1/analytics/activity", noBody, read, querysUser, self},
	{"getUsageEngagement", "GET /api/v1/analytics/engagement", noBody, read, querysUser, self},
	{"getLargestWork", "GET /api/v1/analytics/largest", noBody, read, querysUser, self},
	{"getUsageForecast", "GET /api/v1/usage/forecast", noBody, read, querysUser, self},
	{"getUsageTotals", "GET /api/v1/analytics/totals", noBody, analyse, allUsers, nobody},
	{"getPlanUtilisation", "GET /api/v1/analytics/utilisation", noBody, analyse, allUsers, nobody},
	{"getMargins", "GET /api/v1/analytics/margins", noBody, analyse, allUsers, nobody},
	{"listSpenders", "GET /api/v1/analytics/spenders", noBody, analyse, allUsers, nobody},
	{"getCohorts", "GET /api/v1/analytics/cohorts", noBody, analyse, allUsers, nobody},
	{"getWork", "GET /api/v1/analytics/work", noBody, analyse, allUsers, nobody},
	{"getTotalsForecast", "GET /api/v1/analytics/forecast", noBody, analyse, allUsers, nobody},
	{"getUsageAdvice", "GET /api/v1/usage/advice", noBody, read, querysUser, self},
	{"getPlanAdvice", "GET /api/v1/analytics/advice", noBody, analyse, allUsers, nobody},
	{"getChurnScore", "GET /api/v1/analytics/churn", noBody, analyse, allUsers, nobody},
	{"simulatePlan", "POST /api/v1/analytics/simulate", jsonBody, analyse, allUsers, nobody},
	{"getUsageWhatIf", "GET /api/v1/usage/what-if", noBody, read, querysUser, self},
	{"listUsageAlerts", "GET /api/v1/usage/alerts", noBody, read, querysUser, self},
	{"acknowledgeUsageAlert", "POST /api/v1/usage/alerts/{id}/acknowledge", noBody, read, alertsOf, self},
	{"getUsageLimits", "GET /api/v1/usage/limits", noBody, read, givenUser, self},
	{"listPlans", "GET /api/v1/plans", noBody, nil, noUser, everybody},
	{"listUsers", "GET /api/v1/users", noBody, list, allUsers, nobody},
	{"createUser", "POST /api/v1/users", jsonBody, admin, bodysUser, nobody},
	{"getUser", "GET /api/v1/users/{id}", noBody, read, pathsUser, self},
	{"updateUser", "PATCH /api/v1/users/{id}", jsonBody, admin, pathsUser, nobody},
	{"putUserGrant", "PUT /api/v1/users/{id}/grants/{name}", jsonBody, grant, pathsUser, nobody},
	{"resetUser", "POST /api/v1/users/{id}/reset", jsonBody, admin, pathsUser, nobody},
	{"listResets", "GET /api/v1/resets", noBody, list, allUsers, nobody},
	{"listResetRuns", "GET /api/v1/reset-runs", noBody, list, allUsers, nobody},
	{"listAuditEntries", "GET /api/v1/audit", noBody, list, wholeAudit, nobody},
	{"listTeams", "GET /api/v1/teams", noBody, list, allTeams, nobody},
	{"getTeam", "GET /api/v1/teams/{name}", noBody, readTeam, pathsTeam, nobody},
	{"getTeamUsage", "GET /api/v1/teams/{name}/usage", noBody, readTeam, pathsTeam, nobody},
	{"getTeamHistory", "GET /api/v1/teams/{name}/history", noBody, readTeam, pathsTeam, nobody},
	{"getTeamForecast", "GET /api/v1/teams/{name}/forecast", noBody, readTeam, pathsTeam, nobody},
	{"getTeamAnalytics", "GET /api/v1/teams/{name}/analytics", noBody, readTeam, pathsTeam, nobody},
	{"getTeamLargestWork", "GET /api/v1/teams/{name}/largest", noBody, readTeam, pathsTeam, nobody},
	{"listTeamAlerts", "GET /api/v1/teams/{name}/alerts", noBody, readTeam, pathsTeam, nobody},
	{"listTeamMembers", "GET /api/v1/teams/{name}/members", noBody, readTeam, pathsTeam, nobody},
	{"addTeamMember", "PUT /api/v1/teams/{name}/members/{user}", explanation, manage, pathsTeam, nobody},
	{"removeTeamMember", "DELETE /api/v1/teams/{name}/members/{user}", explanation, manage, pathsTeam, nobody},
	{"streamUsage", "GET /api/v1/usage/stream", noBody, read, watched, self},
	{"streamLive", "GET /api/v1/live", noBody, get, wholeSystem, nobody},
	{"listClusters", "GET /api/v1/clusters", noBody, get, wholeSystem, nobody},
	{"createPortalToken", "POST /api/v1/users/{id}/portal-tokens", jsonBody, get, pathsUser, nobody},
	{"revokePortalTokens", "DELETE /api/v1/users/{id}/portal-tokens", noBody, get, pathsUser, nobody},
	{"revokePortalToken", "DELETE /api/v1/users/{id}/portal-tokens/{tokenId}", noBody, get, pathsUser, nobody},
	{"listTeamEndpoints", "GET /api/v1/teams/{name}/notification-endpoints", noBody, readTeam, pathsTeam, nobody},
	{"getTeamEndpoint", "GET /api/v1/teams/{name}/notification-endpoints/{endpoint}", noBody, readTeam, pathsTeam,
		nobody},
	{"putTeamEndpoint", "PUT /api/v1/teams/{name}/notification-endpoints/{endpoint}", jsonBody, manage,
		pathsTeam, nobody},
	{"deleteTeamEndpoint", "DELETE /api/v1/teams/{name}/notification-endpoints/{endpoint}", explanation, manage,
		pathsTeam, nobody},
	{"testTeamEndpoint", "POST /api/v1/teams/{name}/notification-endpoints/{endpoint}/test", noBody, manage, pathsTeam,
		nobody},
	{"rotateTeamEndpointKey", "POST /api/v1/teams/{name}/notification-endpoints/{endpoint}/keys", explanation,
		manage, pathsTeam, nobody},
	{"testEndpoint", "POST /api/v1/notification-endpoints/{endpoint}/test", noBody, admin, platforms, nobody},
	{"getNotificationKeys", "GET /api/v1/notification-keys/{id}", noBody, get, keysOf, nobody},
	{"listDeliveries", "GET /api/v1/deliveries", noBody, list, sentToAll, nobody},
	{"resendDelivery", "POST /api/v1/deliveries/{id}/resend", jsonBody, admin, sentTo, nobody},
}

// inPortal reports whether portal tokens are good for the operation, and whether only those of scope check are.
func (o *operation) inPortal() (taken, checks bool) {
	checks = o.also.has(checker)
	reads := o.also.has(self) && strings.HasPrefix(o.pattern, http.MethodGet+" ")
	return checks || o.also.has(everybody) || reads, checks
}

// streams reports whether the operation's answer goes on.
func (o *operation) streams() bool { return strings.HasPrefix(o.id, "stream") }

// byPattern finds an operation by its route.
var byPattern = func() map[string]*operation {
	m := make(map[string]*operation, len(operations))
	for i := range operations {
		m[operations[i].pattern] = &operations[i]
	}
	return m
}()
