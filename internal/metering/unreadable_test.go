// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reset"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// Something about one user is not known to this release: a newer one wrote it, before it was rolled back. Nobody else
// notices, whoever works for many goes on past it, the user hears why, and what a UserQuota declares is repaired by
// applying it.
func TestOneUserThatCannotBeRead(t *testing.T) {
	// told has the audit log tell of the change, as whoever made it would.
	told := func(setting, value string) string {
		return fmt.Sprintf(
			`; UPDATE audit_log SET after = jsonb_set(after, '{%s}', '"%s"') WHERE action = 'quota.applied'`,
			setting, value)
	}
	const petra = ` WHERE user_id = (SELECT id FROM users WHERE user_id = 'petra')`
	for _, tc := range []struct {
		name            string
		prepare, damage string
		// undo is empty where a UserQuota repairs it.
		undo, says string
	}{
		{
			"time zone", "", `UPDATE usage_quotas SET time_zone = 'Mars/Olympus'` + petra +
				told("time_zone", "Mars/Olympus"), "",
			`time zone "Mars/Olympus"`,
		},
		{"override", "", `UPDATE usage_quotas SET unlimited_overrides = '{warp}'` + petra, "", `limit "warp"`},
		{
			"plan", `ALTER TABLE usage_quotas DROP CONSTRAINT usage_quotas_plan_name_fkey`,
			`UPDATE usage_quotas SET plan_name = 'gone'` + petra + told("plan", "gone"), "", `plan "gone" is not there`,
		},
		{
			"lots of an admission", "", `UPDATE concurrent_processing SET lots = '{"of": "another form"}'` + petra,
			`UPDATE concurrent_processing SET lots = NULL` + petra, "lots",
		},
		{
			"amounts of other currencies", "", `UPDATE usage_quotas SET other_amounts = '[]'` + petra,
			`UPDATE usage_quotas SET other_amounts = NULL` + petra, "amounts of other currencies",
		},
		{
			"kind of a lot", `ALTER TABLE credit_lots DROP CONSTRAINT credit_lots_kind_check`,
			`UPDATE credit_lots SET kind = 'prepaid'` + petra, `UPDATE credit_lots SET kind = 'grant'` + petra,
			`kind "prepaid"`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			root := w.outsider()
			declared := metering.Quota{
				ObjectUID: quota.ID{9}, ObjectName: "petra", UserID: "petra", Zone: "Asia/Hong_Kong",
				Grants: map[string]metering.Grant{"gift": {Credits: 5 * quota.Credit}},
			}
			w.quota(declared)
			job := func(user string, n byte) metering.AdmitRequest {
				req := request(user, "", quota.Credit)
				req.Key, req.ID, req.BodyHash, req.Source, req.Namespace, req.Name, req.Lease = "", quota.ID{n}, nil,
					quota.SourceJob, "ns", user, metering.JobLease
				req.Park = true
				return req
			}
			running := map[string]*ledger.Admission{}
			for i, user := range []string{"petra", "quentin"} {
				res, err := w.Admit(t.Context(), job(user, byte(i+1)))
				if err != nil {
					t.Fatal(err)
				}
				running[user] = res.Admission
				if _, err := w.Admit(t.Context(), job(user, byte(i+11))); err != nil {
					t.Fatal(err)
				}
			}
			if tc.prepare != "" {
				root.exec(tc.prepare)
			}
			root.exec(tc.damage)

			var mu sync.Mutex
			reported := map[string]string{}
			store, err := ledgerdb.Open(t.Context(), w.dsn,
				postgres.Options{AllowUnsafe: true, Now: w.now, Unreadable: func(e *ledger.UnreadableError) {
					mu.Lock()
					defer mu.Unlock()
					reported[e.UserID] = e.Error()
				}})
			if err != nil {
				t.Fatal(err)
			}
			ledgertest.Close(t, store)
			s := newService(store, metering.Options{AutoRegister: true})
			is := func(err error) bool {
				e, ok := errors.AsType[*ledger.UnreadableError](err)
				return ok && e.UserID == "petra"
			}
			// Many at once, so that they share batches and reads with the one.
			var calls sync.WaitGroup
			for i := range 20 {
				calls.Go(func() {
					if _, err := s.Admit(t.Context(),
						request(fmt.Sprintf("user-%d", i), "k", quota.Credit)); err != nil {
						t.Errorf("a bystander: %v", err)
					}
					if _, err := s.Current(t.Context(), "quentin"); err != nil {
						t.Errorf("a bystander's standing: %v", err)
					}
				})
				calls.Go(func() {
					if _, err := s.Admit(t.Context(), request("petra", fmt.Sprint(i), quota.Credit)); !is(err) {
						t.Errorf("admit: %v", err)
					}
				})
			}
			calls.Wait()
			// A standing does not look at admissions.
			if _, err := s.Current(t.Context(), "petra"); !is(err) && tc.name != "lots of an admission" {
				t.Errorf("current: %v", err)
			}
			usages, err := s.UsageOf(t.Context(), []string{"petra", "quentin"})
			if err != nil || usages["quentin"].Account == nil || len(usages) != 2 {
				t.Errorf("standings: %v, %v", usages, err)
			}
			if err := s.Reap(t.Context()); err != nil {
				t.Errorf("reap: %v", err)
			}
			live, err := store.LiveJobs(t.Context(), quota.ID{})
			if err != nil || !containsJob(live, "quentin") {
				t.Errorf("live Jobs: %d, %v", len(live), err)
			}
			if err := s.RenewJobs(t.Context(), live); err != nil {
				t.Errorf("renew: %v", err)
			}
			if _, err := s.Stuck(t.Context()); err != nil {
				t.Errorf("stuck: %v", err)
			}
			plan := plans.Free()
			plan.Limits.Concurrent = quota.AtMost(int32(2))
			if _, err := s.ApplyPlan(t.Context(), plan, "test"); err != nil {
				t.Errorf("apply a plan: %v", err)
			}
			w.wantUsage("quentin", 0, 2*quota.Credit, 2)
			w.advance(45 * 24 * time.Hour)
			res, err := newReset(store).Run(t.Context(), reset.Options{Plan: "free", Actor: "test", FullSpeed: true})
			if (err != nil) != (tc.name != "plan") || res.Accounts != 21 {
				t.Errorf("reset: %+v, %v", res, err)
			}
			mu.Lock()
			if len(reported) != 1 || !strings.Contains(reported["petra"], tc.says) {
				t.Errorf("reported %v, want petra and %q", reported, tc.says)
			}
			mu.Unlock()

			declared.Zone = "Europe/London"
			err = s.ApplyQuota(t.Context(), declared, "test")
			if tc.undo != "" {
				if !is(err) {
					t.Errorf("apply a UserQuota that repairs nothing: %v", err)
				}
				root.exec(tc.undo)
				err = s.ApplyQuota(t.Context(), declared, "test")
			}
			if err != nil {
				t.Fatalf("apply the UserQuota: %v", err)
			}
			u, err := s.Current(t.Context(), "petra")
			if err != nil || u.Account.Zone.String() != "Europe/London" || u.Account.Plan.Name != "free" ||
				u.Account.PeriodNo == 0 {
				t.Errorf("petra stands at %+v, %v", u.Account, err)
			}
			if _, err := s.SettleJob(t.Context(), running["petra"].ID, quota.Credit); err != nil {
				t.Errorf("settle: %v", err)
			}
		})
	}
}

// An admission in a state that this release does not know is nobody's concern but of those who ask for it.
func TestOneAdmissionThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	root := w.outsider()
	bad, good := w.admit("petra", "bad", quota.Credit), w.admit("quentin", "good", quota.Credit)
	root.exec(`ALTER TABLE concurrent_processing DROP CONSTRAINT concurrent_processing_state_check`)
	root.exec(`UPDATE concurrent_processing SET state = 'Paused' WHERE id = $1`, bad.Admission.ID)
	if _, err := w.Complete(t.Context(), good.Admission.Account, good.Admission.ID, quota.Credit); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"get":      second(w.Get(t.Context(), bad.Admission.ID)),
		"complete": second(w.Complete(t.Context(), bad.Admission.Account, bad.Admission.ID, quota.Credit)),
	} {
		if _, unreadable := errors.AsType[*ledger.UnreadableError](err); !unreadable {
			t.Errorf("%s: %v", name, err)
		}
	}
	if res, err := w.Admit(t.Context(), request("petra", "another", quota.Credit)); err != nil ||
		res.Admission.State != quota.Queued {
		t.Errorf("another one: %+v, %v", res, err)
	}
	root.exec(`UPDATE concurrent_processing SET state = 'Admitted' WHERE id = $1`, bad.Admission.ID)
	if _, err := w.Complete(t.Context(), bad.Admission.Account, bad.Admission.ID, quota.Credit); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

func containsJob(all []*ledger.Admission, user string) bool {
	for _, adm := range all {
		if adm.UserID == user {
			return true
		}
	}
	return false
}
