// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// auditRowsBefore are rows as the release before the format had a version wrote them, and what becomes of them.
// $ACCOUNT stands for alice's account, $LOT for her grant, and $PERSON for the id by which the log knows jane.
var auditRowsBefore = []struct {
	actor, action, kind, object string
	before, after               string
	wantActor, wantObject       string
	wantBefore, wantAfter       string
}{
	{
		actor:      "system",
		action:     "account.registered",
		kind:       "Account",
		object:     "alice",
		after:      `{"plan":"free","anchor":"2026-03-10T12:00:00.5Z","time_zone":"UTC"}`,
		wantActor:  "system",
		wantObject: "$ACCOUNT",
		wantAfter: `{"quota_uid":null,"plan":"free","suspended":false,"anchor":"2026-03-10T12:00:00.5Z",
			"time_zone":"UTC","overrides":{}}`,
	},
	{
		actor:  "usage-operator",
		action: "quota.applied",
		kind:   "Account",
		object: "alice",
		before: `{"object":"","plan":"free","overrides":{"Credits":null,"FileSize":null,"Audio":null,"Concurrent":null,
			"Queued":null},"suspended":false,"anchor":"2026-03-10T12:00:00Z","time_zone":"UTC"}`,
		after: `{"object":"alice","plan":"pro","overrides":{"Credits":{"Max":90000,"Unlimited":false},
			"FileSize":{"Max":5,"Unlimited":false},"Audio":{"Max":60000000000,"Unlimited":false},"Concurrent":null,
			"Queued":{"Max":0,"Unlimited":true}},"suspended":true,
			"anchor":"2026-03-10T12:00:00Z","time_zone":"Asia/Tokyo"}`,
		wantActor:  "usage-operator",
		wantObject: "$ACCOUNT",
		wantBefore: `{"quota_uid":null,"plan":"free","suspended":false,"anchor":"2026-03-10T12:00:00Z",
			"time_zone":"UTC","overrides":{}}`,
		wantAfter: `{"plan":"pro","suspended":true,"anchor":"2026-03-10T12:00:00Z","time_zone":"Asia/Tokyo",
			"overrides":{"credits_units":90000,"file_size_bytes":5,"audio_ms":60000,"queued":"unlimited"}}`,
	},
	{
		actor: "system", action: "period.closed", kind: "Account", object: "alice",
		after: `{"period_no":3,"start":"2026-03-10T12:00:00Z","end":"2026-04-10T12:00:00Z","used":1234567,"reserved":0,
			"carry_over":60000}`,
		wantActor: "system", wantObject: "$ACCOUNT",
		wantAfter: `{"period_no":3,"start":"2026-03-10T12:00:00Z","end":"2026-04-10T12:00:00Z","used_units":1234567,
			"reserved_units":0,"carry_over_units":60000}`,
	},
	{
		actor: "usage-operator", action: "grant.given", kind: "Account", object: "alice",
		after:     `{"grant":"gift for alice","credits":"0.333","expires_at":"0001-01-01T00:00:00Z"}`,
		wantActor: "usage-operator", wantObject: "$ACCOUNT",
		wantAfter: `{"lot":"$LOT","credits_units":19999,"expires_at":null}`,
	},
	{
		actor: "jane@example.com", action: "usage.reversed", kind: "UsageEvent",
		object: "0198a1b2-0000-7000-8000-000000000001",
		before: `{"period_no":0,"used":"12.5","charged":"0.000001","remaining":"17.5"}`,
		after: `{"period_no":0,"used":"10","charged":"0","remaining":"20","credits":"2.5","reason":"for alice",
			"reverses":"0198a1b2-0000-7000-8000-000000000002","refund":"reversal"}`,
		wantActor: "$PERSON", wantObject: "0198a1b2-0000-7000-8000-000000000001",
		wantBefore: `{"period_no":0,"used_units":750000,"charged_micros":1,"remaining_units":1050000}`,
		wantAfter:  `{"period_no":0,"used_units":600000,"charged_micros":0,"remaining_units":1200000}`,
	},
	{
		actor: "system:serviceaccount:billing:admin", action: "usage.adjusted", kind: "UsageEvent",
		object:    "0198a1b2-0000-7000-8000-000000000003",
		before:    `{"period_no":0,"used":"0","charged":"0"}`,
		after:     `{"period_no":0,"used":"-1.5","charged":"0","credits":"1","reason":"why"}`,
		wantActor: "system:serviceaccount:billing:admin", wantObject: "0198a1b2-0000-7000-8000-000000000003",
		wantBefore: `{"period_no":0,"used_units":0,"charged_micros":0,"remaining_units":"unlimited"}`,
		wantAfter:  `{"period_no":0,"used_units":-90000,"charged_micros":0,"remaining_units":"unlimited"}`,
	},
	{
		actor:  "jane@example.com",
		action: "ticket.settled",
		kind:   "Admission",
		object: "0198a1b2000070008000000000000004",
		after: `{"ticket":"0198a1b2000070008000000000000005","replica":"usaged-1",
			"issued_at":"2026-03-10T12:00:00.123456789Z","expires_at":"2026-03-11T12:00:00Z","estimate":60000,
			"actual":1,"plan":"free","plan_version":2,"offline":true}`,
		wantActor:  "$PERSON",
		wantObject: "0198a1b2-0000-7000-8000-000000000004",
		wantAfter: `{"ticket":"0198a1b2-0000-7000-8000-000000000005","replica":"usaged-1",
			"issued_at":"2026-03-10T12:00:00.123456789Z","expires_at":"2026-03-11T12:00:00Z","estimate_units":60000,
			"actual_units":1,"plan":"free","plan_version":2,"offline":true}`,
	},
	{
		actor:  "usage-operator",
		action: "plan.retired",
		kind:   "UsagePlan",
		object: "old",
		before: `{"Name":"old","ObjectUid":[1,152,161,178,0,0,112,0,128,0,0,0,0,0,0,10],"Version":1,"DisplayName":"Old",
			"IsDefault":false,"Retired":false,"Rank":3,"Features":["diarization"],"CalendarMonth":true,
			"CreditsLimit":3600000,"FileSizeLimit":null,"AudioMsLimit":3600000,"ConcurrentLimit":1,"QueuedLimit":null,
			"OverageMax":1,"OveragePriceMicros":2,"CarryOverMax":3,"ProviderCostMicros":4,"Currency":"USD",
			"PeriodPriceMicros":5,"DailyCostCeilingMicros":null,"RateRequests":100,"RateWindowSeconds":3600,
			"AlertThresholds":[80,100],"AdmitWhenUnavailable":true,"ResetSchedule":"0 2 * * *","ResetBatchSize":500,
			"UpdatedAt":"2026-03-10T12:00:00Z","UsageTypes":{"export":250000},"FinalAfterSeconds":259200}`,
		// A release further back did not know all columns.
		after: `{"Name":"old","ObjectUid":null,"Version":2,"Retired":true,"Features":null,
			"UpdatedAt":"2026-03-10T12:00:00Z"}`,
		wantActor:  "usage-operator",
		wantObject: "old",
		wantBefore: `{"version":1,"object_uid":"0198a1b2-0000-7000-8000-00000000000a","display_name":"Old","rank":3,
			"default":false,"retired":false,"features":["diarization"],"calendar_month":true,
			"final_after_seconds":259200,"credits_units":3600000,"file_size_bytes":"unlimited","audio_ms":3600000,
			"concurrent":1,"queued":"unlimited",
			"overage_max_units":1,"overage_price_micros":2,"carry_over_max_units":3,"provider_cost_micros":4,
			"currency":"USD","period_price_micros":5,"daily_cost_ceiling_micros":"unlimited","rate_requests":100,
			"rate_window_seconds":3600,"usage_types_microcredits":{"export":250000},"alert_thresholds_percent":[80,100],
			"admit_when_unavailable":true,"reset_schedule":"0 2 * * *","reset_batch_size":500}`,
		wantAfter: `{"version":2,"object_uid":null,"retired":true,"features":null}`,
	},
}

// TestAuditRowsOfTheReleaseBefore writes what the release before this one did, before the migration and after it, and
// finds it in the format of this one, which the codec reads.
func TestAuditRowsOfTheReleaseBefore(t *testing.T) {
	t.Parallel()
	for name, migrated := range map[string]bool{"stored before": false, "written during the roll-out": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newCorruptible(t)
			alice := f.register("alice")
			gift := quota.Lot{
				ID: quota.NewLotID(
					alice,
					quota.LotGrant,
					"gift for alice",
				),
				Kind:    quota.LotGrant,
				Name:    "gift for alice",
				Credits: 19_999,
			}
			f.change(ledger.Keys{Accounts: []quota.AccountID{alice}}, func(_ ledger.Batch, l *ledger.Ledger) {
				l.Account.Lots = append(l.Account.Lots, gift)
			})
			f.exec("DELETE FROM audit_log")
			if !migrated {
				f.exec(
					"DROP TRIGGER audit_log_version ON audit_log; DELETE FROM goose_db_version WHERE version_id >= 13",
				)
			}
			for _, r := range auditRowsBefore {
				f.exec(`INSERT INTO audit_log (actor, action, object_kind, object_name, user_id, before, after)
					VALUES ($1, $2, $3, $4, $5, NULLIF($6, '')::jsonb, NULLIF($7, '')::jsonb)`,
					r.actor, r.action, r.kind, r.object, alice, r.before, r.after)
			}
			if err := postgres.Migrate(t.Context(), f.dsn); err != nil {
				t.Fatal(err)
			}

			var jane string
			if err := f.Pool().QueryRow(t.Context(), "SELECT id FROM actors").Scan(&jane); err != nil {
				t.Fatalf("the only person: %v", err)
			}
			names := strings.NewReplacer(
				"$ACCOUNT",
				quota.AccountID(alice).String(),
				"$LOT",
				gift.ID.String(),
				"$PERSON",
				"person:"+jane,
			)
			rows, err := f.Pool().
				Query(t.Context(),
					"SELECT actor, action, object_name, version, before, after FROM audit_log ORDER BY id")
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			for _, r := range auditRowsBefore {
				var actor, object string
				var action quota.AuditAction
				var version int
				var before, after []byte
				if !rows.Next() {
					t.Fatal(rows.Err())
				}
				if err := rows.Scan(&actor, &action, &object, &version, &before, &after); err != nil {
					t.Fatal(err)
				}
				if actor != names.Replace(r.wantActor) || object != names.Replace(r.wantObject) {
					t.Errorf("%s: by %s of %s, want %s of %s", action, actor, object, r.wantActor, r.wantObject)
				}
				want := []any{document(t, names.Replace(r.wantBefore)), document(t, names.Replace(r.wantAfter))}
				if diff := cmp.Diff(want, []any{document(t, string(before)), document(t, string(after))}); diff != "" {
					t.Errorf("%s (-want +got):\n%s", action, diff)
				}
				if _, _, err := quota.DecodeAudit(version, action, before, after); err != nil {
					t.Errorf("%s: %v", action, err)
				}
			}
		})
	}
}

func document(t *testing.T, text string) (value any) {
	t.Helper()
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatal(err)
	}
	return value
}

// TestPersonsAreActors has the same person act in two accounts, and once more: the log knows one id.
func TestPersonsAreActors(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, user := range []string{"alice", "bob"} {
		account := f.register(user)
		for range 2 {
			f.change(ledger.Keys{Accounts: []quota.AccountID{account}}, func(_ ledger.Batch, l *ledger.Ledger) {
				for _, actor := range []quota.Actor{quota.CallerActor("jane@example.com"), quota.SystemActor} {
					gift := quota.Lot{ExpiresAt: l.Now.Add(time.Hour)}
					l.Tell(actor, quota.AuditGrantGiven, nil, gift.Audit())
				}
			})
		}
	}
	var got string
	if err := f.Pool().
		QueryRow(t.Context(), `SELECT string_agg(coalesce(a.name, l.actor), ' ' ORDER BY l.id) FROM audit_log AS l
		LEFT JOIN actors AS a ON l.actor = 'person:' || a.id WHERE action = 'grant.given'`).
		Scan(&got); err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimSpace(strings.Repeat("jane@example.com system ", 4)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
