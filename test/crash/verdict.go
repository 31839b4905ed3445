// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/postgres/invariants"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/localstack"
)

const (
	// reapInterval is usaged's. A slot comes back within it of the end of its lease; reapGrace is for a busy machine.
	reapInterval, reapGrace = 5 * time.Second, 5 * time.Second
)

// verdict is what the comparison found.
type verdict struct {
	lost, violations int
	texts            []string
	// checked says what was looked at.
	checked string
}

func (v *verdict) losef(format string, args ...any) {
	v.lost++
	v.texts = append(v.texts, "LOST "+fmt.Sprintf(format, args...))
}

func (v *verdict) violatef(format string, args ...any) {
	v.violations++
	v.texts = append(v.texts, "VIOLATION "+fmt.Sprintf(format, args...))
}

// row is an admission as the database has it, with its charges.
type row struct {
	ID, User, Source, State string
	Estimate                int64
	Actual                  *int64
	EndedAt                 *time.Time
	Charges                 []int64
}

// ledger is what the database holds in the end.
type ledger struct {
	rows   map[string]*row
	events []*event
	// accounts are the internal ids of users.
	accounts map[string]quota.ID
	periods  int
}

// verdict waits until nothing is under way any more and compares.
func (s *stack) verdict(ctx context.Context, l *load) (v verdict, err error) {
	for _, text := range s.report.violations {
		v.violatef("%s", text)
	}
	conn, err := pgx.Connect(ctx, s.database.dsn())
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := s.waitForSlots(ctx, conn, &v); err != nil {
		return v, err
	}
	outcomes, err := s.waitForJobs(ctx, &v)
	if err != nil {
		return v, err
	}
	s.report.progressf("comparing the journals with the database, and checking the invariants")
	// The service itself needs no such indexes: it never reads all of a user's admissions, nor events by admission.
	if _, err := conn.Exec(ctx, `CREATE INDEX ON concurrent_processing (user_id, admitted_seq);
		CREATE INDEX ON usage_tracking (admission_id); ANALYZE`); err != nil {
		return v, err
	}
	books, err := read(ctx, conn)
	if err != nil {
		return v, err
	}
	journal, uses := l.journal()
	compare(journal, books, &v)
	compareUses(uses, books.events, &v)
	compareJobs(s.cluster.jobs, outcomes, books, &v)
	inTeams, err := compareTeams(ctx, conn, &v)
	if err != nil {
		return v, err
	}
	alerts, err := s.compareDeliveries(ctx, conn, &v)
	if err != nil {
		return v, err
	}
	contradictions, err := invariants.Check(ctx, conn)
	if err != nil {
		return v, err
	}
	for _, c := range contradictions {
		v.violatef("%s", c)
	}
	v.checked = fmt.Sprintf(
		"compared: %d admissions asked for, %d uses recorded, %d Jobs, with %d admissions of %d users in the "+
			"database, %d of them booked below teams; %d periods ended and users changed their team %d times "+
			"meanwhile; %d alerts delivered",
		len(journal), len(uses), len(s.cluster.jobs), len(books.rows), len(books.accounts), inTeams, books.periods,
		s.moved, alerts)
	return v, nil
}

// waitForSlots waits until nothing that came over HTTP is live, and holds each lease to its end.
func (s *stack) waitForSlots(ctx context.Context, conn *pgx.Conn, v *verdict) error {
	s.report.progressf("waiting for the last leases to end")
	// What lapsed while the database was away may come back only now.
	healthy := time.Now()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		var live int
		var over []string
		err := conn.QueryRow(ctx, `SELECT count(*), coalesce(array_agg(id::text || ' (' || state || ')')
		    FILTER (WHERE greatest(lease_until, $1) < clock_timestamp() - $2::interval), '{}')
		    FROM concurrent_processing WHERE state IN ('Queued', 'Admitted') AND source = 'api'`,
			healthy, reapInterval+reapGrace).Scan(&live, &over)
		if err != nil {
			return err
		}
		for _, who := range over {
			v.violatef("I6: admission %s outlived its lease and a reap interval by more than %s", who, reapGrace)
		}
		if live == 0 || len(over) > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (s *stack) waitForJobs(ctx context.Context, v *verdict) (map[string]bool, error) {
	s.report.progressf("waiting for the last Jobs to be settled")
	var live []string
	err := localstack.Eventually(ctx, "all Jobs are settled", func(ctx context.Context) (bool, error) {
		var err error
		live, err = s.cluster.unsettledJobs(ctx)
		return len(live) == 0, err
	})
	if err != nil && len(live) == 0 {
		return nil, err
	}
	if err != nil {
		v.violatef("Jobs that were not settled in the end: %s", strings.Join(live, ", "))
	}
	return s.cluster.outcomes(ctx)
}

func read(ctx context.Context, conn *pgx.Conn) (*ledger, error) {
	l := &ledger{rows: map[string]*row{}, accounts: map[string]quota.ID{}}
	rows, err := conn.Query(ctx, `SELECT c.id::text, u.user_id, c.source, c.state, c.estimate, c.actual, c.ended_at,
	    (SELECT array_agg(e.credits ORDER BY e.seq) FROM usage_tracking AS e WHERE e.admission_id = c.id)
	    FROM concurrent_processing AS c JOIN users AS u ON u.id = c.user_id`)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByPos[row])
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		l.rows[r.ID] = r
	}
	rows, err = conn.Query(ctx, `SELECT e.id::text, u.user_id, e.kind, coalesce(e.reverses::text, ''), e.credits
	    FROM usage_tracking AS e JOIN users AS u ON u.id = e.user_id WHERE e.admission_id IS NULL`)
	if err != nil {
		return nil, err
	}
	if l.events, err = pgx.CollectRows(rows, pgx.RowToAddrOfStructByPos[event]); err != nil {
		return nil, err
	}
	rows, err = conn.Query(ctx, "SELECT user_id, id FROM users")
	if err != nil {
		return nil, err
	}
	var user string
	var id uuid.UUID
	if _, err := pgx.ForEachRow(rows, []any{&user, &id}, func() error {
		l.accounts[user] = quota.ID(id)
		return nil
	}); err != nil {
		return nil, err
	}
	return l, conn.QueryRow(ctx, "SELECT count(*) FROM usage_periods").Scan(&l.periods)
}

// compare holds what the clients were told against the database.
func compare(journal []*entry, books *ledger, v *verdict) {
	known := map[string]bool{}
	for _, e := range journal {
		id := e.id
		if id == "" {
			// What may have been booked without the client's knowledge has the id that follows from the key.
			id = uuid.UUID(quota.NameID("admission", books.accounts[e.user], e.key)).String()
		}
		known[id] = true
		e.compare(books.rows[id], v)
	}
	for id, r := range books.rows {
		if r.Source == string(quota.SourceAPI) && !known[id] {
			v.violatef("admission %s of user %s (%s): nobody asked for it", id, r.User, r.State)
		}
	}
}

func (e *entry) compare(r *row, v *verdict) {
	who := fmt.Sprintf("user %s, key %s, admission %s", e.user, e.key, e.id)
	switch {
	case r == nil && e.id != "":
		v.losef("%s: acknowledged, and not in the database", who)
		return
	case r == nil:
		return
	case e.refused && !e.uncertain:
		v.violatef("%s: refused, and in the database as %s", who, r.State)
	case r.User != e.user || r.Estimate != e.estimate:
		v.violatef("%s: the database has it for user %s with %d ms, asked for were %d ms", who, r.User, r.Estimate,
			e.estimate)
	}
	e.compareCharge(who, r, v)
	switch {
	case (e.ended == released || e.ended == cancelled) && r.State != e.ended:
		v.losef("%s: acknowledged as %s, and %s in the database", who, e.ended, r.State)
	case r.State == expired && r.EndedAt != nil && r.EndedAt.Before(e.held):
		v.violatef("%s: expired %s before the lease that was acknowledged", who, e.held.Sub(*r.EndedAt))
	}
}

func (e *entry) compareCharge(who string, r *row, v *verdict) {
	switch {
	case e.isCharged && len(r.Charges) == 0:
		v.losef("%s: acknowledged as charged %d ms, and no charge in the database (%s)", who, e.settled, r.State)
	case e.isCharged && !slices.Equal(r.Charges, []int64{e.settled}):
		v.violatef("%s: acknowledged as charged %d ms, charged were %v", who, e.settled, r.Charges)
	case e.isCharged && (r.State != settled || r.Actual == nil || *r.Actual != e.settled):
		v.losef("%s: acknowledged as charged %d ms, and the admission is %s", who, e.settled, r.State)
	case !e.isCharged && (len(r.Charges) > 1 || (len(r.Charges) == 1 && !slices.Contains(e.asked, r.Charges[0]))):
		v.violatef("%s: charged %v, asked for were %v", who, r.Charges, e.asked)
	}
}

// compareJobs holds how the Jobs ended against the database: what completed is charged as declared, what failed is not.
func compareJobs(jobs map[string]jobEntry, outcomes map[string]bool, books *ledger, v *verdict) {
	for uid, job := range jobs {
		completed, over := outcomes[uid]
		r := books.rows[uid]
		var want []int64
		if completed {
			want = []int64{job.declared}
		}
		switch {
		case !over || r == nil:
			v.losef("Job %s (%s): it is over: %t, it has an admission: %t", job.name, uid, over, r != nil)
		case !slices.Equal(r.Charges, want):
			v.violatef("Job %s (%s, completed: %t): charged %v, want %v", job.name, uid, completed, r.Charges, want)
		}
	}
	for id, r := range books.rows {
		if _, ok := jobs[id]; r.Source == string(quota.SourceJob) && !ok {
			v.violatef("admission %s of user %s (%s): no such Job was created", id, r.User, r.State)
		}
	}
}
