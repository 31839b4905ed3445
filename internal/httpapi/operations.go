// SPDX-License-Identifier: Apache-2.0

package httpapi

import "github.com/cantonesescribe/usage-operator/internal/access"

// operation is what holds of a call before its handler sees it: which body it takes, and who may make it. The contract
// has the same, docs/http.md shows it, and a test compares the three.
type operation struct {
	// id is the contract's operationId, and pattern the route.
	id, pattern string
	// media are the kinds of body that it takes, none where it takes no body, and limit is the most bytes of one.
	media []string
	limit int64
	// verbs are the rights of which the caller needs one on the subject, which is a user or another resource. Where it
	// is held, the lease or the ticket of the admission in the path does as well.
	verbs   []string
	subject string
	held    bool
}

const (
	kindJSON        = "application/json"
	kindCloudEvent  = "application/cloudevents+json"
	kindCloudEvents = "application/cloudevents-batch+json"

	// maxBody is far more than any request of one piece of work needs, and maxBatchBody enough for maxItems uses.
	maxBody      = 64 << 10
	maxBatchBody = 1 << 20
)

var (
	onlyJSON = []string{kindJSON}
	spend    = []string{access.VerbSpend}
	read     = []string{access.VerbSpend, access.VerbGet}
	adjust   = []string{access.VerbAdjust}
	list     = []string{access.VerbList}
	manage   = []string{access.VerbManage}
	readTeam = []string{access.VerbGet, access.VerbManage}
)

// Whose quota a call is about, or what else.
const (
	bodysUser      = "the body's `user_id`"
	itemsUser      = "each use's `user_id` or `subject`"
	querysUser     = "the query's `user_id`"
	givenUser      = "the query's `user_id`, where it is given"
	admissionsUser = "the admission's user"
	eventsUser     = "the event's user"
	wholeQueue     = "the resource `queue`, in all namespaces; `manage` on the query's `team` of the resource " +
		"`teams`, where it is given"
	allTeams  = "the resource `teams`, in all namespaces"
	pathsTeam = "the team in the path, of the resource `teams`"
)

var operations = []operation{
	{"createAdmission", "POST /api/v1/admissions", onlyJSON, maxBody, spend, bodysUser, false},
	{"getAdmission", "GET /api/v1/admissions/{id}", nil, 0, read, admissionsUser, true},
	{"heartbeatAdmission", "POST /api/v1/admissions/{id}/heartbeat", nil, 0, spend, admissionsUser, true},
	{"completeAdmission", "POST /api/v1/admissions/{id}/complete", onlyJSON, maxBody, spend, admissionsUser, true},
	{"releaseAdmission", "POST /api/v1/admissions/{id}/release", nil, 0, spend, admissionsUser, true},
	{"getQueue", "GET /api/v1/queue", nil, 0, list, wholeQueue, false},
	{"createUsage", "POST /api/v1/usage", []string{kindJSON, kindCloudEvent, kindCloudEvents}, maxBatchBody, spend,
		itemsUser, false},
	{"getUsageEvent", "GET /api/v1/usage/events/{id}", nil, 0,
		[]string{access.VerbSpend, access.VerbGet, access.VerbAdjust},
		eventsUser, false},
	{"reverseUsage", "POST /api/v1/usage/{id}/reverse", onlyJSON, maxBody, adjust, eventsUser, false},
	{"createAdjustment", "POST /api/v1/usage/adjustments", onlyJSON, maxBody, adjust, bodysUser, false},
	{"checkUsage", "POST /api/v1/usage/check", onlyJSON, maxBody, read, bodysUser, false},
	{"checkTranscriptionLimits", "POST /api/v1/transcription/check-limits", onlyJSON, maxBody, read, bodysUser, false},
	{"getCurrentUsage", "GET /api/v1/usage/current", nil, 0, read, querysUser, false},
	{"getUsageHistory", "GET /api/v1/usage/history", nil, 0, read, querysUser, false},
	{"getUsageLimits", "GET /api/v1/usage/limits", nil, 0, read, givenUser, false},
	{"listTeams", "GET /api/v1/teams", nil, 0, list, allTeams, false},
	{"getTeam", "GET /api/v1/teams/{name}", nil, 0, readTeam, pathsTeam, false},
	{"getTeamUsage", "GET /api/v1/teams/{name}/usage", nil, 0, readTeam, pathsTeam, false},
	{"getTeamHistory", "GET /api/v1/teams/{name}/history", nil, 0, readTeam, pathsTeam, false},
	{"listTeamMembers", "GET /api/v1/teams/{name}/members", nil, 0, readTeam, pathsTeam, false},
	{"addTeamMember", "PUT /api/v1/teams/{name}/members/{user}", nil, 0, manage, pathsTeam, false},
	{"removeTeamMember", "DELETE /api/v1/teams/{name}/members/{user}", nil, 0, manage, pathsTeam, false},
}

// byPattern finds an operation by its route.
var byPattern = func() map[string]*operation {
	m := make(map[string]*operation, len(operations))
	for i := range operations {
		m[operations[i].pattern] = &operations[i]
	}
	return m
}()
