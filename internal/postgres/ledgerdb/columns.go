// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/jackc/pgx/v5"
)

// column is one parameter of a set-based statement: its name, which is that of a field of the parameters that sqlc
// generates for the statement, and where the values of the rows come from.
type column[R any] struct {
	name   string
	typ    reflect.Type
	values func(rows []R) any
}

func col[R, T any](name string, get func(r R) T) column[R] {
	return column[R]{name: name, typ: reflect.TypeFor[T](), values: func(rows []R) any {
		values := make([]T, len(rows))
		for i, r := range rows {
			values[i] = get(r)
		}
		return values
	}}
}

// statement writes many rows at once.
type statement[R any] struct {
	sql     string
	columns []column[R]
}

// newStatement puts the columns into the order of the statement's parameters, which is that of the fields of the struct
// P that sqlc generates for them. It panics unless there is exactly one column of the right type for each field.
func newStatement[P, R any](sql string, columns ...column[R]) *statement[R] {
	params := reflect.TypeFor[P]()
	if len(columns) != params.NumField() {
		panic(fmt.Sprintf("%s has %d fields, not %d", params, params.NumField(), len(columns)))
	}
	s := &statement[R]{sql: sql}
	for f := range params.Fields() {
		at := slices.IndexFunc(columns, func(c column[R]) bool { return c.name == f.Name })
		if at < 0 {
			panic(fmt.Sprintf("%s: no column for %s", params, f.Name))
		}
		// sqlc does not know which of the rows may be NULL, so a column may have pointers to what the field has.
		if t := columns[at].typ; t != f.Type.Elem() && t != reflect.PointerTo(f.Type.Elem()) {
			panic(fmt.Sprintf("%s.%s is %s, the column has %s", params, f.Name, f.Type, t))
		}
		s.columns = append(s.columns, columns[at])
	}
	return s
}

// queue queues the statement if there are rows.
func (s *statement[R]) queue(q *pgx.Batch, rows []R) {
	if len(rows) == 0 {
		return
	}
	args := make([]any, len(s.columns))
	for i, c := range s.columns {
		args[i] = c.values(rows)
	}
	q.Queue(s.sql, args...)
}
