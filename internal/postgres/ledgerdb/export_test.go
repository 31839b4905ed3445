// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"context"
	"regexp"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// HotStatements are the statements of batches and of the look at a standing, by name: what they ask and what they
// write.
func (s *Store) HotStatements(t *testing.T) map[string]string {
	t.Helper()
	var trip postgres.RoundTrip
	one := []quota.ID{{1}}
	b := &batch{locked: map[quota.AccountID]bool{}, busy: map[quota.AccountID]bool{}, plans: map[string]*quota.Plan{},
		above: []quota.AccountID{{1}}}
	for _, wait := range []bool{false, true} {
		keys := ledger.Keys{
			Accounts: []quota.AccountID{{1}}, Admissions: []quota.AdmissionID{{1}}, Events: []quota.EventID{{1}},
			Plans: []string{"free"}, Wait: wait,
			Idempotency: []ledger.AccountKey{{Account: one[0], Key: "k"}}, Searches: []ledger.Search{{Account: one[0]}},
		}
		if err := s.ask(t.Context(), &trip, b, &keys); err != nil {
			t.Fatal(err)
		}
	}
	out, plans := map[string]ledger.Usage{}, map[*quota.Account]readdb.ServedBy{}
	if err := s.AskStandings(t.Context(), &trip, []string{"alice"}, out, plans); err != nil {
		t.Fatal(err)
	}
	trip.Tell(func(q *dbsqlc.Queries) error {
		_, err := q.ReadAbove(context.Background(), one)
		return err
	})
	trip.Tell(func(q *dbsqlc.Queries) error {
		_, err := q.LoadPeriods(context.Background(), dbsqlc.LoadPeriodsParams{})
		return err
	})
	trip.Tell(func(q *dbsqlc.Queries) error {
		_, err := q.PeriodsBefore(context.Background(), dbsqlc.PeriodsBeforeParams{})
		return err
	})
	account, lot, period := &quota.Account{Plan: &quota.Plan{}}, &quota.Lot{}, &quota.ClosedPeriod{}
	adm, event := &ledger.Admission{}, &ledger.Event{}
	w := &writes{
		accounts: []*ledger.Ledger{{Account: account}}, currencies: []*ledger.Ledger{{Account: account}},
		settings: []dbsqlc.UpdateSettingsParams{{}},
		lots:     []lotRow{{Lot: lot}}, newPeriods: []periodRow{{ClosedPeriod: period}},
		periods:       []periodRow{{ClosedPeriod: period}},
		newAdmissions: []*ledger.Admission{adm}, ended: []*ledger.Admission{adm},
		explained: []*ledger.Admission{adm}, renewed: []*ledger.Admission{adm},
		others: []*ledger.Admission{adm}, events: []*ledger.Event{event}, reversals: []*ledger.Event{event},
		keys: []ledger.Made{{Event: event}}, offline: one,
		audit: []auditRow{{AuditRow: &quota.AuditRow{Actor: quota.Actor{Person: true}}}},
	}
	w.queue(&trip)

	name := regexp.MustCompile(`^-- name: (\w+) :`)
	statements := map[string]string{}
	for _, q := range trip.QueuedQueries {
		statements[name.FindStringSubmatch(q.SQL)[1]] = q.SQL
	}
	return statements
}

// ErrFixed is for tests of what a batch must not change.
var ErrFixed = errFixed
