// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/events"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

func TestAlertsAreToldByEventsOnce(t *testing.T) {
	now := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	recorder := events.NewFakeRecorder(10)
	alerts := alertEvents{events: recorder}
	a := &quota.Account{ID: quota.AccountID{1}, UserID: "alice"}
	alert := func(threshold int32, state quota.AlertState) quota.RaisedAlert {
		return quota.RaisedAlert{AlertKey: quota.AlertKey{Kind: quota.AlertCreditsPercent, Threshold: threshold},
			State: state, Limit: int64(30 * quota.Credit), Until: now.Add(time.Hour)}
	}
	steps := []struct {
		what  string
		open  []quota.RaisedAlert
		at    time.Duration
		first bool
		want  string
	}{
		{what: "what the process before has told", open: []quota.RaisedAlert{alert(50, quota.AlertOpen)}, first: true},
		{what: "a new one, and one that is open no more",
			open: []quota.RaisedAlert{alert(50, quota.AlertLapsed), alert(80, quota.AlertOpen)},
			want: "Warning CreditsPercent 80 % of the 30 credits of this period are used"},
		{what: "the same again", open: []quota.RaisedAlert{alert(50, quota.AlertLapsed), alert(80, quota.AlertOpen)}},
		{what: "what is over", open: []quota.RaisedAlert{alert(100, quota.AlertOpen)}, at: time.Hour},
	}
	for _, s := range steps {
		a.Alerts = &quota.Raised{List: s.open}
		alerts.tell(&v1alpha1.UserQuota{}, a, now.Add(s.at), s.first)
		got := ""
		select {
		case got = <-recorder.Events:
		default:
		}
		if !strings.HasPrefix(got, s.want) || s.want == "" && got != "" {
			t.Errorf("%s: told %q, want %q", s.what, got, s.want)
		}
	}
}
