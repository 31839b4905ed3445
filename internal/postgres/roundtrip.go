// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
)

// RoundTrip collects statements that are sent together. Each stands beside its reader: a function that calls one of
// sqlc's methods and keeps what it returns. It runs twice. The first time the method finds a database that only takes
// note of the statement and its parameters, the second time one that answers with the rows that the server has sent.
type RoundTrip struct{ pgx.Batch }

// errAsked ends the first run of a reader.
var errAsked = errors.New("the statement has been queued")

// Ask queues the statement of a reader, which may also decide that there is nothing to ask.
func (t *RoundTrip) Ask(read func(q *dbsqlc.Queries) error) error {
	before := t.Len()
	err := read(dbsqlc.New(asking{&t.Batch}))
	if t.Len() == before {
		return err
	}
	t.QueuedQueries[before].Query(func(rows pgx.Rows) error { return read(dbsqlc.New(answering{rows})) })
	return nil
}

// Tell queues a statement of sqlc's that answers nothing.
func (t *RoundTrip) Tell(write func(q *dbsqlc.Queries) error) {
	_ = write(dbsqlc.New(asking{&t.Batch}))
}

// sender is a connection or a pool of them.
type sender interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Send sends the statements and runs their readers, in the order in which they were queued, up to the first that fails.
func (t *RoundTrip) Send(ctx context.Context, to sender) error {
	return to.SendBatch(ctx, &t.Batch).Close()
}

// asking is a database that queues what it is asked.
type asking struct{ batch *pgx.Batch }

func (a asking) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	a.batch.Queue(sql, args...)
	return pgconn.CommandTag{}, errAsked
}

func (a asking) Query(_ context.Context, sql string, args ...any) (pgx.Rows, error) {
	a.batch.Queue(sql, args...)
	return nil, errAsked
}

func (a asking) QueryRow(_ context.Context, sql string, args ...any) pgx.Row {
	a.batch.Queue(sql, args...)
	return noRow{}
}

type noRow struct{}

func (noRow) Scan(...any) error { return errAsked }

// answering is a database that has answered already.
type answering struct{ rows pgx.Rows }

func (a answering) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	a.rows.Close()
	return a.rows.CommandTag(), a.rows.Err()
}

func (a answering) Query(context.Context, string, ...any) (pgx.Rows, error) { return a.rows, nil }

func (a answering) QueryRow(context.Context, string, ...any) pgx.Row { return firstRow(a) }

// firstRow reads the only row of an answer.
type firstRow struct{ rows pgx.Rows }

func (f firstRow) Scan(dest ...any) error {
	defer f.rows.Close()
	if !f.rows.Next() {
		if err := f.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	return f.rows.Scan(dest...)
}
