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
	var b pgx.Batch
	if len(persons) > 0 {
		b.Queue(dbsqlc.NameActors, persons)
	}
	b.Queue(dbsqlc.InsertAudit, p.At, p.Actors, p.Persons, p.Actions, p.Kinds, p.Objects, accounts, p.Versions,
		p.Before, p.After)
	return tx.SendBatch(ctx, &b).Close()
}
