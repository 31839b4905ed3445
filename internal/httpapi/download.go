// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"time"
)

// The formats of answers that are tables.
const (
	formatJSON  = "json"
	formatCSV   = "csv"
	formatLines = "ndjson"
)

// asRows reports whether an answer is asked for as rows, in CSV or as lines, and not as a document.
func asRows(format string) (bool, error) {
	switch format {
	case "", formatJSON:
		return false, nil
	case formatCSV, formatLines:
		return true, nil
	}
	return false, invalid("format: %.40q must be json, csv or ndjson", format)
}

// column is a column of a download; its value is text or a whole number.
type column[T any] struct {
	name string
	of   func(*T) any
}

// download is a table on its way to whoever asked for it. It is read a page at a time and written before the next one
// is read, so that neither the process nor the database holds more than a page, however long the table is and however
// slowly it is taken.
type download struct {
	ctx    context.Context //nolint:containedctx // of the call whose answer it is
	format string
	// pages are the rows as they are written; the first one has the header too.
	pages iter.Seq2[[]byte, error]
}

// newDownload makes a download of pages of rows. Each row also has asOf, the moment up to which it is complete.
func newDownload[T any](
	ctx context.Context, format string, asOf time.Time, columns []column[T], pages iter.Seq2[[]T, error],
) download {
	stamp := ""
	if !asOf.IsZero() {
		stamp = asOf.UTC().Format(time.RFC3339Nano)
	}
	columns = append(slices.Clip(columns), column[T]{"as_of", func(*T) any { return stamp }})
	encode := linesOf(columns)
	if format == formatCSV {
		encode = csvOf(columns)
	}
	return download{ctx: ctx, format: format, pages: func(yield func([]byte, error) bool) {
		first := true
		for rows, err := range pages {
			var page []byte
			if err == nil {
				page, err = encode(rows, first)
			}
			if first = false; !yield(page, err) || err != nil {
				return
			}
		}
		if first {
			yield(encode(nil, true))
		}
	}}
}

// csvOf returns what writes rows as CSV, below a header where one is asked for.
func csvOf[T any](columns []column[T]) func(rows []T, header bool) ([]byte, error) {
	record := make([]string, len(columns))
	return func(rows []T, header bool) ([]byte, error) {
		var out bytes.Buffer
		w := csv.NewWriter(&out)
		if header {
			for i, c := range columns {
				record[i] = c.name
			}
			_ = w.Write(record) // a buffer takes everything, and Error tells
		}
		for i := range rows {
			for n, c := range columns {
				record[n] = fmt.Sprint(c.of(&rows[i]))
			}
			_ = w.Write(record)
		}
		w.Flush()
		return out.Bytes(), w.Error()
	}
}

// linesOf returns what writes each row as a line of JSON.
func linesOf[T any](columns []column[T]) func(rows []T, header bool) ([]byte, error) {
	return func(rows []T, _ bool) ([]byte, error) {
		var out bytes.Buffer
		lines := json.NewEncoder(&out)
		for i := range rows {
			line := make(map[string]any, len(columns))
			for _, c := range columns {
				line[c.name] = c.of(&rows[i])
			}
			if err := lines.Encode(line); err != nil {
				return nil, err
			}
		}
		return out.Bytes(), nil
	}
}

// write sends the pages. What fails before anything was sent is an error. What fails later breaks the connection, so
// that nobody takes a part for the whole.
func (d download) write(w http.ResponseWriter) error {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // the bound of a request; that it is not supported is a test's
	begun := false
	for page, err := range d.pages {
		if err == nil && d.ctx.Err() != nil {
			err = d.ctx.Err()
		}
		if err != nil && !begun {
			return err
		}
		if err == nil && len(page) == 0 {
			continue
		}
		if err == nil {
			if !begun {
				d.head(w)
				begun = true
			}
			_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout))
			_, err = w.Write(page)
		}
		if err == nil {
			if flushed := rc.Flush(); !errors.Is(flushed, http.ErrNotSupported) {
				err = flushed
			}
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	if !begun {
		d.head(w)
	}
	return nil
}

func (d download) head(w http.ResponseWriter) {
	kind := "application/x-ndjson"
	if d.format == formatCSV {
		kind = "text/csv; charset=utf-8"
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
}

// VisitGetUsageTotalsResponse writes the rows.
func (d download) VisitGetUsageTotalsResponse(w http.ResponseWriter) error { return d.write(w) }
