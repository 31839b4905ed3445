// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// alertEvents tells of what users and teams were newly told, by events of their objects. It is told where they stand as
// often as their pollers look. What is open when the process begins was told by the one before.
type alertEvents struct {
	events events.EventRecorder
	// told are the open alerts that were told of, by the name of the user or the team.
	told map[string]map[quota.AlertID]bool
}

// tell makes an event of the object for each alert that is open by now and was not told of; none if it is the first
// look at all.
func (t *alertEvents) tell(object runtime.Object, a *quota.Account, now time.Time, first bool) {
	name := a.Level().Name
	if a.Alerts == nil { // as nearly all are
		delete(t.told, name)
		return
	}
	open := map[quota.AlertID]bool{}
	for _, r := range a.Alerts.Open(now) {
		id := r.ID(a.ID)
		open[id] = true
		if first || t.told[name][id] {
			continue
		}
		kind := corev1.EventTypeNormal
		if r.Severity() != quota.AlertInfo {
			kind = corev1.EventTypeWarning
		}
		t.events.Eventf(object, nil, kind, string(r.Kind), "Alert", "%s", r.Summary())
	}
	if t.told == nil {
		t.told = map[string]map[quota.AlertID]bool{}
	}
	t.told[name] = open
}
