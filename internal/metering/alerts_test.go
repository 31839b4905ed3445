// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// alerting is the default plan with percentages at which its users are told.
func alerting(changes ...func(*metering.Plan)) metering.Plan {
	p := plans.Free(changes...)
	p.AlertThresholds = []int32{80, 100}
	return p
}

func (w *world) alerts(of quota.Level, unread bool) []ledger.Alert {
	w.t.Helper()
	page, err := reports.New(w.store, w.Service).Alerts(w.t.Context(), of, quota.AlertID{}, unread, reports.MaxPage)
	if err != nil {
		w.t.Fatalf("alerts: %v", err)
	}
	return page.Alerts
}

func userLevel(name string) quota.Level { return quota.Level{Kind: quota.LevelUser, Name: name} }

// wantAlerts compares what was told, the newest first: kind, threshold, period, how often it was re-armed, and whether
// it is resolved.
func (w *world) wantAlerts(of quota.Level, want ...string) []ledger.Alert {
	w.t.Helper()
	all, got := w.alerts(of, false), []string{}
	for i := range all {
		a := &all[i]
		line := fmt.Sprintf("%s %d of %d #%d", a.Kind, a.Threshold, a.PeriodNo, a.Number)
		if !a.ResolvedAt.IsZero() {
			line += " resolved"
		}
		got = append(got, line)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("alerts of %s (-want +got):\n%s", of, diff)
	}
	return all
}

func TestAlertsAreToldOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.plan(alerting())
	alice := userLevel("alice")
	w.record(use("alice", "a", 23))
	w.alerts(alice, false)
	w.advance(time.Second)
	w.record(use("alice", "b", 1))
	w.record(use("alice", "b", 1)) // again: nothing is charged
	first := w.wantAlerts(alice, "CreditsPercent 80 of 0 #0")
	if a := first[0]; a.Used != int64(24*quota.Credit) || a.Limit != int64(30*quota.Credit) || a.Plan != "free" ||
		a.Level != alice || a.Severity() != quota.AlertWarning || !a.RaisedAt.Equal(w.now()) || a.Seq == 0 ||
		!a.Until.Equal(w.usage("alice").Account.Period.End) {
		t.Errorf("got %+v", a)
	}

	// A reversal closes what a charge opens again, as the same one.
	w.advance(time.Second)
	over := w.record(use("alice", "c", 7))
	w.wantAlerts(alice, w.bothOf("Overdrawn 0 of 0 #0", "CreditsPercent 100 of 0 #0", "CreditsPercent 80 of 0 #0")...)
	w.advance(time.Second)
	w.reverse(over.Event, "undo")
	w.wantAlerts(alice, w.bothOf("Overdrawn 0 of 0 #0 resolved", "CreditsPercent 100 of 0 #0 resolved",
		"CreditsPercent 80 of 0 #0")...)
	w.record(use("alice", "d", 6))
	w.wantAlerts(alice, w.bothOf("Overdrawn 0 of 0 #0 resolved", "CreditsPercent 100 of 0 #0",
		"CreditsPercent 80 of 0 #0")...)

	// A limit that rises above the use re-arms them; the next charge tells.
	w.plan(alerting(func(p *metering.Plan) { p.Limits.Credits = quota.AtMost(100 * quota.Credit) }))
	w.advance(time.Second)
	w.record(use("alice", "e", 1))
	w.wantAlerts(alice, w.bothOf("Overdrawn 0 of 0 #0 resolved", "CreditsPercent 100 of 0 #0 resolved",
		"CreditsPercent 80 of 0 #0 resolved")...)
	w.record(use("alice", "f", 50))
	w.wantAlerts(alice, append([]string{"CreditsPercent 80 of 0 #1"}, w.bothOf("Overdrawn 0 of 0 #0 resolved",
		"CreditsPercent 100 of 0 #0 resolved", "CreditsPercent 80 of 0 #0 resolved")...)...)

	// A new period does so too: whatever is open is over with it, whether or not anything has touched the account.
	w.advance(31 * 24 * time.Hour)
	w.wantAlerts(alice, append([]string{"CreditsPercent 80 of 0 #1 resolved"}, w.bothOf("Overdrawn 0 of 0 #0 resolved",
		"CreditsPercent 100 of 0 #0 resolved", "CreditsPercent 80 of 0 #0 resolved")...)...)
	w.record(use("alice", "g", 1))
	if got := w.alerts(alice, false); got[0].Kind != quota.AlertPeriodReset || got[0].PeriodNo != 0 ||
		got[0].Closed.Used != 81*quota.Credit {
		t.Errorf("the reset's arrival: %+v", got[0])
	}
	w.advance(time.Second)
	w.record(use("alice", "h", 79))
	if got := w.alerts(alice, false); got[0].Kind != quota.AlertCreditsPercent || got[0].PeriodNo != 1 ||
		got[0].Number != 0 {
		t.Errorf("in the new period: %+v", got[0])
	}
}

// bothOf puts two that were told of at once into the order of their ids, as a page has them.
func (w *world) bothOf(x, y string, rest ...string) []string {
	for _, a := range w.alerts(userLevel("alice"), false) {
		if a.Kind == quota.AlertOverdrawn {
			return append([]string{x, y}, rest...)
		}
		if a.Kind == quota.AlertCreditsPercent && a.Threshold == 100 {
			return append([]string{y, x}, rest...)
		}
	}
	return rest
}

// Whatever becomes of a commit, what it tells is told once; and an acknowledgement is the first one's.
func TestAlertsSurviveTrouble(t *testing.T) {
	t.Parallel()
	f := &faulty{}
	w := newWorldOn(t, f)
	w.plan(alerting())
	fail := times(2, ledger.ErrUnknownOutcome)
	f.commit = func(_ ledger.Keys, really func() error) error { return errors.Join(really(), fail()) }
	w.record(use("alice", "a", 25))
	told := w.wantAlerts(userLevel("alice"), "CreditsPercent 80 of 0 #0")
	for _, who := range []string{"first", "second"} {
		if err := w.AcknowledgeAlert(t.Context(), told[0].ID, who); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.alerts(userLevel("alice"), false)[0]; got.AcknowledgedBy != "first" || got.AcknowledgedAt.IsZero() {
		t.Errorf("acknowledged: %+v", got)
	}
	if unread := w.alerts(userLevel("alice"), true); len(unread) > 0 {
		t.Errorf("unread: %v", unread)
	}
	_, err := reports.New(w.store, w.Service).Alert(t.Context(), quota.AlertID{7})
	if !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("an alert that there is not: %v", err)
	}
}

func TestGrantsThatEndAreToldOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.quota(metering.Quota{ObjectUID: quota.ID{1}, ObjectName: "alice", UserID: "alice", Zone: "UTC",
		Grants: map[string]metering.Grant{
			"welcome": {Credits: 5 * quota.Credit, ExpiresAt: w.now().Add(10 * 24 * time.Hour)},
			"forever": {Credits: 5 * quota.Credit},
		}})
	due := func(want int) {
		t.Helper()
		found, err := w.store.Due(t.Context(), ledger.DueGrant, quota.AccountID{}, 10)
		if err != nil || len(found) != want {
			t.Fatalf("%d accounts are due, want %d, %v", len(found), want, err)
		}
	}
	due(0)
	w.advance(4 * 24 * time.Hour)
	due(1)
	for range 2 {
		if err := w.TellOfGrants(t.Context()); err != nil {
			t.Fatal(err)
		}
		due(0)
	}
	told := w.wantAlerts(userLevel("alice"), "GrantExpiring 0 of 0 #0")
	if a := told[0]; a.Subject != "welcome" || a.Limit != int64(5*quota.Credit) || a.Used != 0 ||
		!a.Until.Equal(w.now().Add(6*24*time.Hour)) {
		t.Errorf("got %+v", a)
	}
	w.advance(6 * 24 * time.Hour)
	w.wantAlerts(userLevel("alice"), "GrantExpiring 0 of 0 #0 resolved")
	due(0)
}

func TestTeamsAreTold(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	w.plan(alerting())
	team := capped("newsroom", "")
	team.Caps.Credits = new(quota.AtMost(10 * quota.Credit))
	team.MemberDefaults.Credits = new(quota.AtMost(5 * quota.Credit))
	w.declare(team)
	w.record(use("alice", "a", 1))
	w.join("newsroom", "alice")
	w.record(use("alice", "b", 3))
	w.wantAlerts(userLevel("alice"), "TeamShare 80 of 0 #0")
	newsroom := quota.Level{Kind: quota.LevelTeam, Name: "newsroom"}
	if all := w.alerts(newsroom, false); len(all) > 0 {
		t.Errorf("below the team's threshold: %+v", all)
	}
	w.record(use("alice", "c", 7))
	if all := w.alerts(newsroom, false); len(all) != 2 || all[0].Kind != quota.AlertTeamShare ||
		all[0].Level != newsroom {
		t.Errorf("the team: %+v", all)
	}

	// A cap that is raised resolves them at once, for that is a change of the team's own.
	team.Caps.Credits = new(quota.AtMost(100 * quota.Credit))
	w.declare(team)
	for _, a := range w.alerts(newsroom, false) {
		if a.ResolvedAt.IsZero() {
			t.Errorf("after the cap was raised: %+v", a)
		}
	}
	_, err := reports.New(w.store, w.Service).Alerts(t.Context(), quota.Level{Kind: quota.LevelTeam, Name: "none"},
		quota.AlertID{}, false, 1)
	if !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("a team that there is not: %v", err)
	}
}
