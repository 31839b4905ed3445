// SPDX-License-Identifier: Apache-2.0

// Package doctable reads the tables of the documentation, so that its examples are the test cases.
package doctable

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Row is a row of a table: its cells by the names of the columns.
type Row struct {
	// Heading is the one that the table stands under, Line the row's line in the file, from 1.
	Heading string
	Line    int
	Cells   map[string]string
}

// Read returns the rows of those tables of a Markdown file whose columns begin with the given ones. It is fatal if
// there are none.
func Read(t *testing.T, file string, columns ...string) []Row {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rows []Row
	var heading string
	var table []string // the columns of the table that the line is in
	for i, line := range strings.Split(string(text), "\n") {
		cells := split(line)
		switch {
		case strings.HasPrefix(line, "#"):
			heading, table = strings.TrimLeft(line, "# "), nil
		case cells == nil:
			table = nil
		case table == nil:
			table = cells
		case strings.HasPrefix(line, "|---") || len(table) < len(columns) ||
			!slices.Equal(table[:len(columns)], columns):
		case len(cells) != len(table):
			t.Fatalf("%s:%d: %d cells, want %d", file, i+1, len(cells), len(table))
		default:
			row := Row{Heading: heading, Line: i + 1, Cells: map[string]string{}}
			for j, column := range table {
				row.Cells[column] = cells[j]
			}
			rows = append(rows, row)
		}
	}
	if rows == nil {
		t.Fatalf("%s has no table that begins with %v", file, columns)
	}
	return rows
}

// split returns the cells of a table's line, nil for any other line.
func split(line string) []string {
	if !strings.HasPrefix(line, "|") {
		return nil
	}
	cells := strings.Split(strings.Trim(line, "|"), "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return cells
}
