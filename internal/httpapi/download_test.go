// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bufio"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

type line struct{ n int }

var lineColumns = []column[line]{
	{"n", func(l *line) any { return l.n }},
	{"text", func(*line) any { return `so, "it" is` }},
}

// downloaded serves a download of pages, and returns the answer to a call.
func downloaded(t *testing.T, format string, pages iter.Seq2[[]line, error]) *http.Response {
	t.Helper()
	srv := httptest.NewServer(measuredForTest(func(w http.ResponseWriter, r *http.Request) {
		asOf := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		if err := newDownload(r.Context(), format, asOf, lineColumns, pages).write(w); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(srv.Close)
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// measuredForTest is a handler behind the writer that every handler has.
func measuredForTest(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h(&statusRecorder{ResponseWriter: w, status: http.StatusOK}, r)
	})
}

// What has been read is sent before the next page is read.
func TestDownloadsAreStreamed(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	read := 0
	resp := downloaded(t, formatCSV, func(yield func([]line, error) bool) {
		for read = range 3 {
			if read > 0 {
				<-next
			}
			if !yield([]line{{n: read}}, nil) {
				return
			}
		}
	})
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	for _, want := range []string{
		"n,text,as_of", `0,"so, ""it"" is",2026-03-01T00:00:00Z`, `1,"so, ""it"" is",2026-03-01T00:00:00Z`,
		`2,"so, ""it"" is",2026-03-01T00:00:00Z`,
	} {
		// Were the rows written at the end, the second line would never come: nobody asks for the next page.
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("got %q, %v, want %q", lines.Text(), lines.Err(), want)
		}
		if strings.Contains(want, "so") && !strings.HasPrefix(want, "2") {
			next <- struct{}{}
		}
	}
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("behind the end: %q, %v", lines.Text(), lines.Err())
	}
}

// What fails before anything is sent is a problem, what fails later breaks the connection; no rows are a header.
func TestDownloadsThatFail(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	failing := func(at int) iter.Seq2[[]line, error] {
		return func(yield func([]line, error) bool) {
			for n := range at {
				if !yield([]line{{n: n}}, nil) {
					return
				}
			}
			yield(nil, gone)
		}
	}
	for name, tc := range map[string]struct {
		format string
		pages  iter.Seq2[[]line, error]
		code   int
		body   string
		broken bool
	}{
		"at once": {formatCSV, failing(0), 503, "gone\n", false},
		"later": {formatLines, failing(1), 200,
			`{"as_of":"2026-03-01T00:00:00Z","n":0,"text":"so, \"it\" is"}` + "\n", true},
		"no rows":  {formatCSV, func(func([]line, error) bool) {}, 200, "n,text,as_of\n", false},
		"no lines": {formatLines, func(func([]line, error) bool) {}, 200, "", false},
		"an empty page": {formatCSV, func(yield func([]line, error) bool) { yield(nil, nil) }, 200,
			"n,text,as_of\n", false},
	} {
		resp := downloaded(t, tc.format, tc.pages)
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != tc.code || string(body) != tc.body || (err != nil) != tc.broken {
			t.Errorf("%s: got %d %q, %v", name, resp.StatusCode, body, err)
		}
	}
}
