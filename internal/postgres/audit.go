// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Audited is a change that the audit log tells, and the account that it is about; none if that is zero.
type Audited struct {
	Account quota.AccountID
	quota.AuditRow
}

// TellAudit writes the audit rows of changes that no batch of the engine makes, in the transaction that makes them.
func TellAudit(ctx context.Context, tx pgx.Tx, at time.Time, rows ...Audited) error {
	if len(rows) == 0 {
		return nil
	}
	var b pgx.Batch
	from := 0
	for i := range rows {
		reason := rows[i].Reason
		if reason == "" && i < len(rows)-1 {
			continue
		}
		if err := queueAudit(&b, at, rows[from:i+1]); err != nil {
			return err
		}
		if from = i + 1; reason != "" {
			b.Queue(dbsqlc.ExplainAudit, reason)
		}
	}
	return tx.SendBatch(ctx, &b).Close()
}

// queueAudit writes rows in one statement. A reason follows the last one of its own.
func queueAudit(b *pgx.Batch, at time.Time, rows []Audited) error {
	n := len(rows)
	var p dbsqlc.InsertAuditParams
	accounts := make([]*quota.ID, n)
	var persons []string
	for i := range rows {
		r := &rows[i]
		before, after, err := r.Encode()
		if err != nil {
			return err
		}
		if r.Actor.Person {
			persons = append(persons, r.Actor.Name)
		}
		if r.Account != (quota.AccountID{}) {
			accounts[i] = (*quota.ID)(&r.Account)
		}
		p.At, p.Actors, p.Persons = append(p.At, at), append(p.Actors, r.Actor.Name), append(p.Persons, r.Actor.Person)
		p.Actions, p.Kinds = append(p.Actions, string(r.Action)), append(p.Kinds, r.Action.Kind())
		p.Objects, p.Versions = append(p.Objects, r.Object), append(p.Versions, quota.AuditVersion)
		p.Before, p.After = append(p.Before, before), append(p.After, after)
	}
	if len(persons) > 0 {
		b.Queue(dbsqlc.NameActors, persons)
	}
	b.Queue(dbsqlc.InsertAudit, p.At, p.Actors, p.Persons, p.Actions, p.Kinds, p.Objects, accounts, p.Versions,
		p.Before, p.After)
	return nil
}
