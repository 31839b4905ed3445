// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"errors"
	"net/url"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/clusters"
	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/deliverydb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// TestAuditTellsEveryField changes every field of what the audit log tells about, one by one, and finds that the log
// tells something else then. A field that is added to one of the types is covered by that: it is told, or listed here
// with the reason.
func TestAuditTellsEveryField(t *testing.T) {
	t.Parallel()
	plan := plans.Full()
	limit := quota.AtMost(quota.Credit)
	account := &ledger.Ledger{
		Account: &quota.Account{
			Plan: &quota.Plan{Name: "pro"}, Anchor: time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC),
			Overrides: quota.Overrides{
				Credits: &limit, FileSize: new(quota.AtMost[int64](1)), Audio: new(quota.AtMost(time.Second)),
				Concurrent: new(quota.AtMost[int32](1)), Queued: new(quota.AtMost[int32](1)),
			},
		},
		Settings: ledger.Settings{QuotaUID: quota.ID{1}, QuotaName: "alice", ZoneName: "UTC"},
	}
	period := &quota.ClosedPeriod{Other: &quota.OtherAmounts{List: []quota.Amounts{{Currency: "EUR", Cost: 1}}}}
	lot := &quota.Lot{ExpiresAt: time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)}
	for name, tc := range map[string]struct {
		// of is what is changed, a pointer, and tell what the log says of it.
		of   any
		tell func() quota.AuditState
		// without are the fields that the log leaves out.
		without []string
	}{
		"plan": {
			of: &plan, tell: func() quota.AuditState { return plan.Audit() },
			// The name is the object's, and what was before has rows of its own.
			without: []string{"Name", "Past"},
		},
		"settings": {
			of: &account.Settings, tell: func() quota.AuditState { return account.AuditSettings() },
			// It may be a person's. The object's UID says which it was.
			without: []string{"QuotaName"},
		},
		"overrides": {of: &account.Account.Overrides, tell: func() quota.AuditState { return account.AuditSettings() }},
		"period": {
			of: period, tell: func() quota.AuditState { return period.Audit() },
			// These never change: usage_periods has them for ever.
			without: []string{
				"PlanLimit", "PlanName", "PlanVersion", "CarryOverMax", "Grace", "Currency", "OveragePrice",
			},
		},
		"grant": {
			of: lot, tell: func() quota.AuditState { return lot.Audit() },
			// A grant is new, so nothing of it is used, and its name stands in the lot: people choose it.
			without: []string{"Kind", "Name", "Used", "Reserved"},
		},
		"ticket": {
			of:   &metering.Ticket{},
			tell: nil,
			// Who it was for and who asked stand in the row. The rest became the admission.
			without: []string{"UserID", "Account", "Key", "BodyHash", "FileSize", "Namespace", "Name", "RequestedBy"},
		},
	} {
		tell := tc.tell
		if ticket, ok := tc.of.(*metering.Ticket); ok {
			tell = func() quota.AuditState { return metering.TicketAudit(ticket) }
		}
		var left []string
		eachField(reflect.ValueOf(tc.of).Elem(), "", func(field string, v reflect.Value) {
			before, was := tell(), reflect.New(v.Type()).Elem()
			was.Set(v)
			change(t, v)
			if cmp.Equal(before, tell()) {
				left = append(left, field)
			}
			v.Set(was)
		})
		slices.Sort(left)
		slices.Sort(tc.without)
		if diff := cmp.Diff(tc.without, left); diff != "" {
			t.Errorf("%s: what the log leaves out (-want +got):\n%s", name, diff)
		}
	}
}

// eachField calls back for each field that is no struct of ours.
func eachField(v reflect.Value, name string, each func(name string, v reflect.Value)) {
	switch v.Interface().(type) {
	case metering.Plan, quota.Plan, quota.Limits, ledger.Settings, quota.Overrides, quota.ClosedPeriod, quota.Period,
		quota.Lot, metering.Ticket:
		for field, value := range v.Fields() {
			eachField(value, field.Name, each)
		}
	default:
		each(name, v)
	}
}

// change makes v say something else.
func change(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int32:
		v.SetInt(v.Int() + 1)
	case reflect.Int64:
		// Enough for a duration that is told in whole seconds.
		v.SetInt(v.Int() + int64(time.Second))
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Array:
		v.Index(3).SetUint(v.Index(3).Uint() + 1)
	case reflect.Pointer, reflect.Slice, reflect.Map:
		if !v.IsZero() {
			v.SetZero()
			return
		}
		if v.Kind() == reflect.Slice {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Struct:
		if at, ok := reflect.TypeAssert[time.Time](v); ok {
			v.Set(reflect.ValueOf(at.Add(time.Hour)))
			return
		}
		v.FieldByName("Unlimited").SetBool(!v.FieldByName("Unlimited").Bool())
	default:
		t.Fatalf("nothing else is known for a %s", v.Type())
	}
}

// wishes makes, changes and deletes an endpoint, sends an alert to it again, and says what a user wants to be told of.
func (o *outage) wishes(user, by, path string) {
	o.t.Helper()
	store := o.open(o.t).Store
	sending := delivery.New(deliverydb.New(store), delivery.Options{})
	e := &delivery.Endpoint{Name: "ops", URL: "https://hooks.example/" + url.PathEscape(path), Users: []string{user},
		Signing: delivery.Ed25519, Audience: delivery.ForUsers, Cluster: quota.ClusterUID{1}}
	for _, e.Suspended = range []bool{false, true} {
		if _, err := sending.Declare(o.t.Context(), e, nil); err != nil {
			o.t.Fatal(err)
		}
	}
	_, _, err := sending.Rotate(o.t.Context(), "", e.Name, by, path)
	_, failed := sending.PutPreferences(o.t.Context(), user, []quota.AlertKind{quota.AlertOverdrawn}, by)
	id := delivery.ID{7}
	done, inserted := store.Pool().Exec(o.t.Context(), `INSERT INTO deliveries (id, endpoint_id, alert_id, state,
		created_at, expires_at, next_attempt_at, finished_at)
		SELECT $1, e.id, a.id, 'dead', a.raised_at, a.ends_at, a.raised_at, a.raised_at
		FROM notification_endpoints AS e CROSS JOIN usage_alerts AS a LIMIT 1`, id)
	if inserted != nil || done.RowsAffected() != 1 {
		o.t.Fatalf("%s: %v", done, inserted)
	}
	_, unsent := sending.Resend(o.t.Context(), id, by, path)
	if err := errors.Join(err, failed, unsent, sending.Retire(o.t.Context(), e.Name, e.Cluster)); err != nil {
		o.t.Fatal(err)
	}
}

// TestAuditKnowsNobody has persons do, and have done to them, whatever the log tells about, and looks for their names
// in it.
func TestAuditKnowsNobody(t *testing.T) {
	t.Parallel()
	const user, jane, reason = "wanda.wong", "jane@example.com", "wanda.wong complained to jane@example.com"
	o := newOutage(t)
	r := o.replica(100)
	r.knows(user)
	o.quota(metering.Quota{
		ObjectUID: quota.ID{9}, ObjectName: user, UserID: user, PlanName: "pro", Zone: "Asia/Hong_Kong",
		Overrides: quota.Overrides{Credits: new(quota.AtMost(90 * quota.Credit))},
		Grants:    map[string]metering.Grant{"for-" + user: {Credits: quota.Credit}},
	})
	use := func(key string) metering.RecordResult {
		t.Helper()
		res, err := o.Record(t.Context(), metering.RecordRequest{
			UserID:     user,
			Key:        key,
			BodyHash:   []byte{1},
			Use:        quota.Use{Type: quota.UsageTranscription, Audio: time.Minute},
			RecordedBy: jane,
		})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	reverse := func(res metering.RecordResult, key string) {
		t.Helper()
		if _, err := o.Reverse(t.Context(), metering.ReverseRequest{
			Account: res.On.User().ID, Event: res.Event.ID, Key: key, BodyHash: []byte{2}, Reason: reason, Actor: jane,
		}); err != nil {
			t.Fatal(err)
		}
	}
	first, second := use("first"), use("second")
	reverse(first, "undo")
	if _, err := o.Adjust(t.Context(), metering.AdjustRequest{
		UserID: user, Key: "adjust", BodyHash: []byte{3}, Credits: quota.Credit, Reason: reason, Actor: jane,
	}); err != nil {
		t.Fatal(err)
	}
	// After the period is final, a reversal gives a grant.
	o.advance(40 * 24 * time.Hour)
	reverse(second, "undo-late")

	if err := o.RemoveQuota(t.Context(), quota.ID{9}, "test"); err != nil {
		t.Fatal(err)
	}
	if err := o.RetirePlan(t.Context(), "pro", quota.ID{}, "test"); err != nil {
		t.Fatal(err)
	}
	team := capped("newsroom", "")
	for range 2 {
		if _, err := o.ApplyTeam(t.Context(), team, "test"); err != nil {
			t.Fatal(err)
		}
		team.Suspended = !team.Suspended
	}
	team.Suspended = false
	if _, err := o.ApplyTeam(t.Context(), team, "test"); err != nil {
		t.Fatal(err)
	}
	by := metering.By{Actor: jane, Reason: reason}
	for _, suspended := range []bool{true, false, false} {
		if err := o.ChangeUser(t.Context(), user, metering.UserChange{Suspended: &suspended}, by); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(o.AddMember(t.Context(), "newsroom", user, by),
		o.RemoveMember(t.Context(), "newsroom", user, by),
		o.RetireTeam(t.Context(), "newsroom", quota.ClusterUID{}, "test")); err != nil {
		t.Fatal(err)
	}

	keeper, ok := o.store.(access.PortalStore)
	if !ok {
		t.Fatalf("%T keeps no portal tokens", o.store)
	}
	portal, account := access.NewPortal(keeper, nil), first.On.User().ID
	if _, err := portal.Mint(t.Context(), account, user, quota.PortalRead, time.Minute,
		quota.CallerActor(jane)); err != nil {
		t.Fatal(err)
	}
	if err := portal.Revoke(t.Context(), account, nil, quota.CallerActor(jane)); err != nil {
		t.Fatal(err)
	}

	o.wishes(user, jane, reason)
	held, err := o.Admit(t.Context(), request(user, "held", quota.Credit))
	if err != nil || held.Admission == nil {
		t.Fatalf("got %+v, %v", held, err)
	}
	if _, err := o.ForceRelease(t.Context(), account, held.Admission.ID, reason, jane); err != nil {
		t.Fatal(err)
	}

	req := request(user, "offline", quota.Credit)
	req.RequestedBy, req.Name = jane, user
	r.knows(user)
	o.away()
	res, err := r.Admit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	ticket, ok, err := r.VerifyTicket(t.Context(), res.Ticket)
	if err != nil || !ok {
		t.Fatalf("the ticket is not valid: %v", err)
	}
	o.back(r)
	r.complete(ticket, quota.Credit)

	o.changeHands(user)
	for _, action := range quota.AuditActions() {
		if n := count(t, o.dsn, "SELECT count(*) FROM audit_log WHERE action = '"+string(action)+"'"); n == 0 {
			t.Errorf("nothing was told of %s", action)
		}
	}
	for _, name := range []string{user, jane, "complained"} {
		if n := count(
			t,
			o.dsn,
			"SELECT count(*) FROM audit_log AS l WHERE to_jsonb(l)::text ILIKE '%"+name+"%'",
		); n != 0 {
			t.Errorf("%d audit rows name %s", n, name)
		}
	}
	for action, want := range map[quota.AuditAction]int{
		quota.AuditUserChanged: 2, // the two that changed something
		quota.AuditMemberAdded: 1, quota.AuditMemberRemoved: 1, quota.AuditEndpointRotated: 1,
	} {
		if n := count(t, o.dsn, "SELECT count(*) FROM audit_reasons AS r JOIN audit_log AS l ON l.id = r.audit_id "+
			"WHERE l.action = '"+string(action)+"' AND r.reason = '"+reason+"'"); n != want {
			t.Errorf("%d rows of %s have their reason, want %d", n, action, want)
		}
	}
	const janes = "SELECT count(*) FROM audit_log AS l JOIN actors AS a ON l.actor = 'person:' || a.id " +
		"WHERE a.name = '" + jane + "'"
	if n := count(t, o.dsn, janes); n != 15 {
		t.Errorf("%d audit rows are jane's, want two reversals, the grant of one, an adjustment, a ticket, a user "+
			"suspended and not, a portal token given out and revoked, a team joined and left, a key added, "+
			"preferences, an alert sent again and a release", n)
	}
}

// changeHands has one cluster claim what names none, the user's UserQuota and a Job among it, and another one adopt it.
func (o *outage) changeHands(user string) {
	o.t.Helper()
	store, ok := o.store.(interface {
		clusters.Registry
		clusters.Adopter
	})
	if !ok {
		o.t.Fatalf("%T knows no clusters", o.store)
	}
	o.quota(metering.Quota{ObjectUID: quota.ID{8}, ObjectName: user, UserID: user, Zone: "UTC"})
	job := request(user, "", quota.Credit)
	job.ID, job.Source, job.Name, job.BodyHash, job.Park = quota.ID{0x0b}, quota.SourceJob, user, nil, true
	if _, err := o.Admit(o.t.Context(), job); err != nil {
		o.t.Fatal(err)
	}
	blue, green := quota.ID{1}, quota.ID{2}
	for _, uid := range []quota.ID{blue, green} {
		if _, err := clusters.Register(o.t.Context(), store, clusters.Options{UID: uid}); err != nil {
			o.t.Fatal(err)
		}
	}
	if _, err := store.ClaimUnowned(o.t.Context(), blue, "usage-operator"); err != nil {
		o.t.Fatal(err)
	}
	m := clusters.Move{From: blue, To: green, Actor: "usage-batch@pod"}
	_, plans := store.MovePlans(o.t.Context(), m)
	_, teams := store.MoveTeams(o.t.Context(), m)
	_, _, quotas := store.MoveQuotas(o.t.Context(), m, quota.ID{}, 100)
	_, _, _, jobs := store.MoveJobs( //nolint:dogsled // only whether it works
		o.t.Context(), m, quota.ID{}, 100)
	if err := errors.Join(plans, teams, quotas, jobs); err != nil {
		o.t.Fatal(err)
	}
}
