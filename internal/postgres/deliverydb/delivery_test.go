// SPDX-License-Identifier: Apache-2.0

package deliverydb_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/clusters"
	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// From the charge to a signature that the receiver can verify.
func TestAlertIsDelivered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rc := newReceiver(t, nil)
	e := w.declare("ops", rc.URL)
	w.declare("others", rc.URL, func(e *delivery.Endpoint) { e.Users = []string{"bob"} })
	w.run()
	w.charge("alice", 24)
	w.eventually(func() error {
		if n := len(rc.all()); n != 1 {
			return fmt.Errorf("%d requests, want 1", n)
		}
		return nil
	})
	g := rc.all()[0]
	if g.subject != "user/alice" || g.kind != "CreditsPercent" || !g.verifiedBy(e.Keys[0].Public()) {
		t.Errorf("got %+v", g)
	}
	w.eventually(func() error {
		if all := w.deliveries(delivery.Filter{}); len(all) != 1 || all[0].State != delivery.Delivered ||
			all[0].Alert.String() != g.id || all[0].Attempts != 1 || all[0].LastStatus != 200 {
			return fmt.Errorf("got %+v", all)
		}
		return nil
	})
}

// A receiver that fails gets the same id again; a redirect is a failure, and where it leads to is not called.
func TestRetries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rc := newReceiver(t, func(n int, rw http.ResponseWriter, r *http.Request) {
		switch n {
		case 1:
			rw.WriteHeader(http.StatusInternalServerError)
		case 2:
			http.Redirect(rw, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
		case 3:
			<-r.Context().Done() // hangs
		}
	})
	w.declare("ops", rc.URL)
	w.run()
	w.charge("alice", 24)
	for n := 1; n <= 3; n++ {
		w.eventually(func() error {
			all := w.deliveries(delivery.Filter{})
			if len(all) != 1 || all[0].Attempts != n || all[0].State != delivery.Waiting {
				return fmt.Errorf("after %d: %+v", n, all)
			}
			return nil
		})
		text := w.deliveries(delivery.Filter{})[0].LastError
		if want := []string{"answered 500", "redirect", "did not answer in time"}[n-1]; !strings.Contains(text, want) {
			t.Errorf("attempt %d: %q, want that it says %q", n, text, want)
		}
		w.advance(time.Hour)
	}
	w.eventually(func() error {
		if all := w.deliveries(delivery.Filter{State: delivery.Delivered}); len(all) != 1 || all[0].Attempts != 4 {
			return fmt.Errorf("got %+v", all)
		}
		return nil
	})
	for _, g := range rc.all() {
		if g.id != rc.all()[0].id {
			t.Errorf("another id: %s", g.id)
		}
	}
	if len(w.refused) > 0 {
		t.Errorf("%v were about to be called", w.refused)
	}
}

// 410 disables the endpoint, and a change of what is declared enables it.
func TestGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rc := newReceiver(t, status(http.StatusGone))
	w.declare("ops", rc.URL)
	w.run()
	w.charge("alice", 24)
	w.eventually(func() error {
		s, err := w.Endpoint(t.Context(), "", "ops")
		if err == nil && (s.State.DisabledAt.IsZero() || !strings.Contains(s.State.DisabledReason, "410")) {
			err = fmt.Errorf("not disabled: %+v", s.State)
		}
		return err
	})
	w.charge("alice", 6) // nothing is made for it
	rc.answers(nil)
	again := w.declare("ops", rc.URL+"/new")
	if !again.State.DisabledAt.IsZero() {
		t.Error("it is still disabled")
	}
	w.advance(time.Minute)
	w.eventually(func() error {
		if all := w.deliveries(delivery.Filter{State: delivery.Delivered}); len(all) == 0 {
			return errors.New("nothing was delivered")
		}
		return nil
	})
}

// What nobody takes for three days is dead, can be seen, and be sent again under the id that it had.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rc := newReceiver(t, status(http.StatusServiceUnavailable))
	w.declare("ops", rc.URL)
	w.run()
	w.charge("alice", 24)
	w.eventually(func() error {
		if all := w.deliveries(delivery.Filter{}); len(all) != 1 || all[0].Attempts == 0 {
			return fmt.Errorf("no attempt: %+v", all)
		}
		return nil
	})
	w.advance(delivery.Keep + time.Hour)
	w.eventually(func() error {
		if err := w.store.Tidy(t.Context()); err != nil {
			return err
		}
		dead := w.deliveries(delivery.Filter{State: delivery.Dead, Endpoint: "ops"})
		if len(dead) != 1 || !strings.Contains(dead[0].LastError, "503") {
			return fmt.Errorf("got %+v", w.deliveries(delivery.Filter{}))
		}
		return nil
	})
	if s, err := w.Endpoint(t.Context(), "", "ops"); err != nil || s.Dead != 1 || s.Waiting != 0 {
		t.Errorf("got %+v, %v", s, err)
	}
	rc.answers(nil)
	before := len(rc.all())
	if _, err := w.Resend(t.Context(), w.deliveries(delivery.Filter{})[0].ID, "oda", ""); err == nil {
		t.Error("it was sent again for no reason")
	}
	d, err := w.Resend(t.Context(), w.deliveries(delivery.Filter{})[0].ID, "oda", "they are back")
	if err != nil || d.State != delivery.Waiting || d.ResentBy != "oda" {
		t.Errorf("got %+v, %v", d, err)
	}
	// What waits already is not sent again, which nobody needs to be told.
	if d, err := w.Resend(t.Context(), d.ID, "otto", "to be sure"); err != nil || d.ResentBy != "oda" {
		t.Errorf("got %+v, %v", d, err)
	}
	w.audited("delivery.resent", 1, fmt.Sprintf(`{"state": "dead", "attempts": %d}`, d.Attempts),
		fmt.Sprintf(`{"state": "waiting", "attempts": %d}`, d.Attempts))
	var reason string
	if err := w.ledger.Pool().QueryRow(t.Context(), `SELECT r.reason FROM audit_reasons AS r
		JOIN audit_log AS l ON l.id = r.audit_id WHERE l.object_name = $1`, d.ID.String()).Scan(&reason); err != nil ||
		reason != "they are back" {
		t.Errorf("got %q, %v", reason, err)
	}
	w.advance(maxPause)
	w.eventually(func() error {
		if all := w.deliveries(delivery.Filter{State: delivery.Delivered}); len(all) != 1 {
			return fmt.Errorf("got %+v", w.deliveries(delivery.Filter{}))
		}
		return nil
	})
	if after := rc.all(); after[len(after)-1].id != after[0].id || len(after) <= before {
		t.Errorf("%d requests before, %d after", before, len(after))
	}
	if _, err := w.Resend(t.Context(), delivery.ID{9}, "oda", "they are back"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("one that there is not: %v", err)
	}
}

const maxPause = time.Hour

// Two processes that look at the same alerts make one delivery of each, and one that ends in the middle leaves its
// attempts to the other.
func TestFanOutIsOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rc := newReceiver(t, nil)
	w.declare("ops", rc.URL)
	const users = 30
	stop := w.run()
	w.run()
	for n := range users {
		w.charge(fmt.Sprint("user", n), 24)
		if n == users/2 {
			stop()
		}
	}
	w.eventually(func() error {
		if all := w.deliveries(delivery.Filter{State: delivery.Delivered}); len(all) != users {
			return fmt.Errorf("%d delivered, want %d", len(all), users)
		}
		return nil
	})
	seen := map[string]bool{}
	for _, g := range rc.all() {
		seen[g.id] = true
	}
	if len(seen) != users {
		t.Errorf("%d ids, want %d", len(seen), users)
	}
}

// Keys that are rotated sign together.
func TestRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rc := newReceiver(t, nil)
	first := w.declare("ops", rc.URL).Keys[0]
	if _, _, err := w.Rotate(t.Context(), "", "ops", "oda", ""); err != nil {
		t.Fatal(err)
	}
	s, err := w.Endpoint(t.Context(), "", "ops")
	if err != nil || len(s.Keys) != 2 {
		t.Fatalf("got %+v, %v", s, err)
	}
	if _, outcome, err := w.Test(t.Context(), "", "ops"); err != nil || !outcome.OK() {
		t.Fatalf("got %+v, %v", outcome, err)
	}
	g := rc.all()[0]
	for _, key := range s.Keys {
		if !g.verifiedBy(key.Public()) {
			t.Errorf("key %s has not signed", key.Name)
		}
	}
	w.advance(25 * time.Hour)
	s, err = w.Endpoint(t.Context(), "", "ops")
	if err != nil || len(s.Keys) != 1 || s.Keys[0].Name == first.Name {
		t.Errorf("a day later: %+v, %v", s.Keys, err)
	}
}

// What one endpoint has waiting is no more than its window in River, and does not hold others up.
func TestDeadEndpointIsAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hangs := newReceiver(t, func(_ int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	rc := newReceiver(t, nil)
	w.declare("dead", hangs.URL)
	w.declare("alive", rc.URL)
	const users = 60
	for n := range users {
		w.charge(fmt.Sprint("user", n), 24)
	}
	w.run()
	w.eventually(func() error {
		if n := len(w.deliveries(delivery.Filter{Endpoint: "alive", State: delivery.Delivered})); n != users {
			return fmt.Errorf("%d delivered, want %d", n, users)
		}
		return nil
	})
	// The dead one is left alone, however much waits for it. River marks jobs as done in batches, after what they have
	// done.
	w.eventually(func() error {
		var queued, jobs int
		err := w.ledger.Pool().QueryRow(t.Context(), `SELECT count(*), (SELECT count(*) FROM river.river_job
			WHERE finalized_at IS NULL) FROM deliveries WHERE queued_at IS NOT NULL`).Scan(&queued, &jobs)
		if err == nil && max(queued, jobs) > 0 {
			err = fmt.Errorf("%d attempts queued, %d jobs, want none", queued, jobs)
		}
		return err
	})
	// Each attempt that fails makes room for another, until there have been enough.
	if n, most := len(hangs.all()), delivery.Window+delivery.Failing-1; n > most {
		t.Errorf("%d attempts at the dead one, want at most %d", n, most)
	}
	// It comes back: all of it is delivered.
	hangs.answers(nil)
	w.advance(maxPause)
	w.eventually(func() error {
		if n := len(w.deliveries(delivery.Filter{Endpoint: "dead", State: delivery.Delivered})); n != users {
			return fmt.Errorf("%d delivered, want %d", n, users)
		}
		return nil
	})
}

func TestEndpointsOfTeamsAndClusters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := &delivery.Endpoint{Team: "newsroom", Name: "chat", URL: "https://hooks.example/x", Signing: delivery.HMAC}
	if _, _, err := w.PutTeamEndpoint(t.Context(), e, "oda", ""); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("a team that there is not: %v", err)
	}
	if _, err := w.ledger.Pool().Exec(t.Context(),
		"INSERT INTO teams (id, name, cap_currency) VALUES (gen_random_uuid(), 'newsroom', 'USD')"); err != nil {
		t.Fatal(err)
	}
	s, made, err := w.PutTeamEndpoint(t.Context(), e, "oda", "")
	if err != nil || made == nil || len(s.Keys) != 1 || made.SecretText() != s.Keys[0].SecretText() {
		t.Fatalf("got %+v, %v, %v", s, made, err)
	}
	again, made, err := w.PutTeamEndpoint(t.Context(), e, "oda", "")
	if err != nil || made != nil || again.State.Version != 1 || again.Keys[0].Name != s.Keys[0].Name {
		t.Errorf("again: %+v, %v, %v", again, made, err)
	}
	e.Kinds = []quota.AlertKind{quota.AlertOverdrawn}
	if s, _, err := w.PutTeamEndpoint(t.Context(), e, "oda", ""); err != nil || s.State.Version != 2 ||
		s.ID != again.ID {
		t.Errorf("changed: %+v, %v", s, err)
	}
	for n := 1; n < delivery.MaxTeamEndpoints; n++ {
		e.Name = fmt.Sprint("chat", n)
		if _, _, err := w.PutTeamEndpoint(t.Context(), e, "oda", ""); err != nil {
			t.Fatal(err)
		}
	}
	e.Name = "more"
	if _, _, err := w.PutTeamEndpoint(t.Context(), e, "oda", ""); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("too many: %v", err)
	}
	if all, err := w.TeamEndpoints(t.Context(), "newsroom"); err != nil || len(all) != delivery.MaxTeamEndpoints {
		t.Errorf("%d, %v", len(all), err)
	}
	if err := w.DeleteTeamEndpoint(t.Context(), "newsroom", "chat", "oda", ""); err != nil {
		t.Error(err)
	}
	if _, err := w.Endpoint(t.Context(), "newsroom", "chat"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("after it was deleted: %v", err)
	}

	// The platform's are those of the cluster that has their objects.
	w.declare("ops", "https://hooks.example/x")
	other := &delivery.Endpoint{Name: "ops", URL: "https://hooks.example/y", Signing: delivery.Ed25519,
		Audience: delivery.ForOperators, Cluster: quota.ClusterUID{2}}
	if _, err := w.Declare(t.Context(), other, nil); !isOwned(err) {
		t.Errorf("another cluster's: %v", err)
	}
	if err := w.Retire(t.Context(), "ops", quota.ClusterUID{2}); !isOwned(err) {
		t.Errorf("another cluster's: %v", err)
	}
	if _, err := w.ledger.MoveTeams(t.Context(), clusters.Move{From: quota.ClusterUID{1}, To: quota.ClusterUID{2},
		Actor: "oda"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Declare(t.Context(), other, nil); err != nil {
		t.Errorf("once it was adopted: %v", err)
	}
	if err := w.Retire(t.Context(), "ops", quota.ClusterUID{2}); err != nil {
		t.Error(err)
	}
}

func isOwned(err error) bool {
	_, ok := errors.AsType[*ledger.OwnedError](err)
	return ok
}

// What a user does not want to be told of goes to no endpoint for users, and to all others; nor does what is a team's.
func TestPreferences(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rc := newReceiver(t, nil)
	w.declare("ops", rc.URL)
	w.declare("mail", rc.URL, func(e *delivery.Endpoint) { e.Audience = delivery.ForUsers })
	w.charge("alice", 1)
	w.charge("bob", 1)
	for range 2 {
		p, err := w.PutPreferences(t.Context(), "alice", []quota.AlertKind{quota.AlertPeriodReset,
			quota.AlertCreditsPercent}, "alice@example.com")
		want := []quota.AlertKind{quota.AlertCreditsPercent, quota.AlertPeriodReset}
		if err != nil || !slices.Equal(p.Muted, want) || p.UpdatedAt.IsZero() {
			t.Errorf("got %+v, %v, want %v", p, err, want)
		}
		w.advance(time.Second)
	}
	w.charge("alice", 24)
	w.charge("bob", 24)
	w.run()
	w.eventually(func() error {
		all := w.deliveries(delivery.Filter{State: delivery.Delivered})
		got := map[string]int{}
		for i := range all {
			got[all[i].Endpoint]++
		}
		if got["ops"] != 2 || got["mail"] != 1 {
			return fmt.Errorf("got %v", got)
		}
		return nil
	})
	told := map[string]int{}
	for _, g := range rc.all() {
		told[g.subject]++
	}
	if told["user/alice"] != 1 || told["user/bob"] != 2 {
		t.Errorf("got %v", told)
	}
	for muted, want := range map[quota.AlertKind]string{"Lost": `muted: "Lost" must be one of CreditsPercent`,
		quota.AlertOverdrawn: "muted: Overdrawn is there twice"} {
		_, err := w.PutPreferences(t.Context(), "alice", []quota.AlertKind{muted, muted}, "oda")
		if !errors.Is(err, ledger.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := w.PutPreferences(t.Context(), "nobody", nil, "oda"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
	if p, err := w.Preferences(t.Context(), "bob"); err != nil || p.Muted == nil || len(p.Muted) > 0 ||
		!p.UpdatedAt.IsZero() {
		t.Errorf("of who has said nothing: %+v, %v", p, err)
	}
	// Once, by a person whom the log does not name.
	w.audited("preferences.changed", 1, `{"muted": []}`, `{"muted": ["CreditsPercent", "PeriodReset"]}`)
}

// What is changed about endpoints is in the audit log, without what may be secret or somebody's name.
func TestEndpointsAreAudited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mutes := func(e *delivery.Endpoint) {
		e.Users, e.Kinds = []string{"alice"}, []quota.AlertKind{quota.AlertOverdrawn}
	}
	w.declare("ops", "https://127.0.0.1/secret", mutes)
	w.declare("ops", "https://127.0.0.1/secret", mutes)
	w.declare("ops", "https://127.0.0.1/other", mutes)
	if _, _, err := w.Rotate(t.Context(), "", "ops", "oda@example.com", ""); err != nil {
		t.Fatal(err)
	}
	if err := w.Retire(t.Context(), "ops", quota.ClusterUID{1}); err != nil {
		t.Fatal(err)
	}
	const is = `{"keys": %d, "team": null, "kinds": ["Overdrawn"], "signing": "ed25519", "version": %d, ` +
		`"audience": "operators", "suspended": false, "home_cluster": "01000000-0000-0000-0000-000000000000"}`
	w.audited("endpoint.created", 1, "", fmt.Sprintf(is, 1, 1))
	w.audited("endpoint.changed", 1, fmt.Sprintf(is, 1, 1), fmt.Sprintf(is, 1, 2))
	w.audited("endpoint.rotated", 1, fmt.Sprintf(is, 1, 2), fmt.Sprintf(is, 2, 2))
	w.audited("endpoint.deleted", 1, fmt.Sprintf(is, 2, 2), "")
}

// Why somebody changed an endpoint of a team's own is kept beside the audit log, where they say so.
func TestReasonsOfEndpoints(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.ledger.Pool().Exec(t.Context(),
		"INSERT INTO teams (id, name, cap_currency) VALUES (gen_random_uuid(), 'newsroom', 'USD')"); err != nil {
		t.Fatal(err)
	}
	e := &delivery.Endpoint{Team: "newsroom", Name: "chat", URL: "https://hooks.example/x", Signing: delivery.HMAC}
	put := func(reason string) error {
		_, _, err := w.PutTeamEndpoint(t.Context(), e, "oda", reason)
		return err
	}
	rotate := func(reason string) error {
		_, _, err := w.Rotate(t.Context(), "newsroom", "chat", "oda", reason)
		return err
	}
	forget := func(reason string) error { return w.DeleteTeamEndpoint(t.Context(), "newsroom", "chat", "oda", reason) }
	for _, act := range []func(string) error{put, rotate, forget} {
		if err := act("of two\nlines"); !errors.Is(err, ledger.ErrInvalid) {
			t.Errorf("a reason of two lines: %v", err)
		}
	}
	err := errors.Join(put("they asked"), put("changes nothing"))
	e.Suspended = true
	if err := errors.Join(err, put("it is loud"), rotate("it leaked"), rotate(""), forget("it is old")); err != nil {
		t.Fatal(err)
	}
	rows, err := w.ledger.Pool().Query(t.Context(), `SELECT l.action || ': ' || coalesce(r.reason, '')
		FROM audit_log AS l LEFT JOIN audit_reasons AS r ON r.audit_id = l.id
		WHERE l.object_kind = 'NotificationEndpoint' ORDER BY l.id`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if want := []string{
		"endpoint.created: they asked", "endpoint.changed: it is loud", "endpoint.rotated: it leaked",
		"endpoint.rotated: ", "endpoint.deleted: it is old",
	}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}
