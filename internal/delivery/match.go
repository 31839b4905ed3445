// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"slices"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Pending is an alert of which it is not known yet to whom it goes.
type Pending struct {
	ID   quota.AlertID
	Kind quota.AlertKind
	Plan string
	// User it is about, empty if it is about a team. Teams are that team, and those above the user or the team.
	User  string
	Teams []string
	// Muted says that the user does not want to be told of it.
	Muted bool
}

// Match is an alert that an endpoint gets.
type Match struct {
	Endpoint EndpointID
	Alert    quota.AlertID
}

// DeliveryID returns the id of the alert's delivery to the endpoint, which follows from both.
func (m Match) DeliveryID() ID {
	return quota.NameID("delivery", quota.AccountID(m.Endpoint), m.Alert.String())
}

// Route says who gets which of the alerts.
func Route(alerts []Pending, endpoints []Endpoint) []Match {
	var all []Match
	for i := range alerts {
		for j := range endpoints {
			if endpoints[j].Wants(&alerts[i]) {
				all = append(all, Match{Endpoint: endpoints[j].ID, Alert: alerts[i].ID})
			}
		}
	}
	return all
}

// Wants reports whether the endpoint gets an alert: a team's own gets those of the team and of whom is below it, and
// one that brings alerts to users none of a team, and none that the user does not want.
func (e *Endpoint) Wants(a *Pending) bool {
	within := func(chosen []string, value string) bool { return len(chosen) == 0 || slices.Contains(chosen, value) }
	if e.Audience == ForUsers && (a.User == "" || a.Muted) {
		return false
	}
	return (e.Team == "" || slices.Contains(a.Teams, e.Team)) &&
		(len(e.Kinds) == 0 || slices.Contains(e.Kinds, a.Kind)) &&
		within(e.Plans, a.Plan) && within(e.Users, a.User) &&
		(len(e.Teams) == 0 || slices.ContainsFunc(e.Teams, func(t string) bool { return slices.Contains(a.Teams, t) }))
}
