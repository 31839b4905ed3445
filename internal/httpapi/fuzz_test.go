// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/queue"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// A cursor that is taken is one that was made: it reads the same when it is written again.
func FuzzCursors(f *testing.F) {
	account := quota.AccountID{1, 2, 3}
	for _, seed := range []string{
		"", cursor(1), cursor(1 << 60), pageCursor(cursorTeams, "newsroom"), accountCursor(cursorShares, account),
		accountCursor(cursorMembers, account), accountCursor(cursorAlerts, account),
		spotCursor(queue.Spot{Account: account, Place: ledger.Place{Priority: -7, Arrived: 9}}),
		spotCursor(queue.Spot{Account: account, Parked: true}),
		placeCursor(cursorDue, reports.Place{At: time.UnixMicro(1_700_000_000_000_001), ID: quota.ID{4, 5}}),
		placeCursor(cursorRuns, reports.Place{At: time.UnixMicro(0), ID: quota.ID{6}}),
		strings.Repeat("x", 200), "aGlzdG9yeS8xLzAx", "%d",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		written := map[string]func() (string, error){
			"history": func() (string, error) { before, err := parseCursor(text); return cursor(before), err },
			"queue":   func() (string, error) { spot, err := parseSpot(text); return spotCursor(spot), err },
			"teams": func() (string, error) {
				last, err := parsePageCursor(cursorTeams, text)
				if last == "" {
					return "", err
				}
				return pageCursor(cursorTeams, last), err
			},
		}
		for _, kind := range []string{cursorShares, cursorMembers, cursorAlerts} {
			written[kind] = func() (string, error) {
				id, err := parseAccountCursor(kind, text)
				return accountCursor(kind, id), err
			}
		}
		for _, kind := range []string{cursorDue, cursorOverdue, cursorComing, cursorRuns, cursorStuck} {
			written[kind] = func() (string, error) {
				at, err := parsePlaceCursor(kind, text)
				return placeCursor(kind, at), err
			}
		}
		for kind, write := range written {
			again, err := write()
			if err == nil && again != text {
				t.Errorf("%s: %q is taken for %q", kind, text, again)
			}
			if err != nil && classify(err).Status != http.StatusBadRequest {
				t.Errorf("%s: %q is answered with %v", kind, text, err)
			}
		}
	})
}

// handlerOf is one whose fake has an answer to everything.
func handlerOf(f *testing.F) http.Handler {
	f.Helper()
	adm := admitted()
	return New((&fake{adm: adm, event: charge()}).options(f.Context(), testAuth()))
}

// Whatever a body is, a call answers it, and no one is the service's fault. That of an admission is within the bounds
// that metering relies on.
func FuzzBodies(f *testing.F) {
	for i := range operations {
		for _, body := range []string{goodBody, `{"duration_seconds":1.5}`, `{"reason":"r"}`, `[]`, `null`, `"`,
			`{"user_id":"alice","credits":1,"reason":"r"}`, exportBody, cloudExport, "{\"user_id\":\"\xff\"}"} {
			f.Add(uint8(i), body, "application/json")
		}
	}
	f.Add(uint8(6), "["+cloudExport+"]", kindCloudEvents)
	f.Add(uint8(0), goodBody, `application/json; charset="`)
	h := handlerOf(f)
	f.Fuzz(func(t *testing.T, call uint8, body, contentType string) {
		op := &operations[int(call)%len(operations)]
		if op.id == "createAdmission" { // the fake has no answer to one that is in order
			var b AdmissionRequest
			if strict([]byte(body), &b) == nil {
				checkAdmission(t, &b)
				return
			}
		}
		method, path, _ := strings.Cut(op.pattern, " ")
		if method == http.MethodGet || op.id == "checkUsage" || op.id == "checkTranscriptionLimits" {
			return
		}
		r := httptest.NewRequest(method, strings.NewReplacer("{id}", admID.String(), "{name}", "newsroom", "{user}",
			"alice").Replace(path), strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer backend")
		r.Header.Set(headerKey, "k")
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= http.StatusInternalServerError {
			t.Errorf("%s with %q: got %d: %s", op.pattern, body, w.Code, w.Body)
		}
	})
}

func checkAdmission(t *testing.T, b *AdmissionRequest) {
	t.Helper()
	req, err := parseAdmission("k", b)
	if err != nil {
		if p := classify(err); p.Status < 400 || p.Status >= 500 {
			t.Errorf("%v is answered with %d", err, p.Status)
		}
		return
	}
	if quota.UserIDs.Check(req.UserID) != nil || req.Estimate < 1 || req.FileSize < 1 ||
		req.FileSize > quota.MaxFileSize || req.Lease < quota.MinLease || req.Lease > quota.MaxLease ||
		req.Priority > quota.MaxPriority || req.Priority < -quota.MaxPriority || len(req.BodyHash) != 32 {
		t.Errorf("got through: %+v", req)
	}
}

// Whatever a query and the headers say, the call answers, and it is not the service's fault.
func FuzzQueries(f *testing.F) {
	for _, seed := range [][3]string{
		{"wait=30s&user_id=alice", "Lease the-lease", "k"}, {"limit=1&cursor=x", "Bearer reader", ""},
		{"limit=-1&reason=None", "Ticket a.b", "\x00"}, {"wait=1e9s&period=1", "bearer", "é"}, {"%zz&;", " ", ""},
		{"unread=maybe&team=..", "Basic YTpi", "k"},
	} {
		f.Add(uint8(1), seed[0], seed[1], seed[2])
	}
	h := handlerOf(f)
	f.Fuzz(func(t *testing.T, call uint8, query, authorization, key string) {
		op := &operations[int(call)%len(operations)]
		if op.streams() {
			return // its answer does not end; FuzzLastEventID is about what it reads
		}
		method, path, _ := strings.Cut(op.pattern, " ")
		// What is asked with a wait is another test's.
		if values, err := url.ParseQuery(query); method != http.MethodGet || err == nil && values.Get("wait") != "" {
			if _, err := parseWait(values.Get("wait")); err != nil && classify(err).Status >= 500 {
				t.Errorf("wait %q is answered with %v", values.Get("wait"), err)
			}
			return
		}
		path = strings.NewReplacer("{id}", admID.String(), "{name}", "newsroom").Replace(path)
		r := httptest.NewRequest(method, path, http.NoBody)
		r.URL.RawQuery = query
		r.Header["Authorization"], r.Header[headerKey] = []string{authorization}, []string{key}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= http.StatusInternalServerError && w.Code != http.StatusServiceUnavailable {
			t.Errorf("%s?%q: got %d: %s", op.pattern, query, w.Code, w.Body)
		}
	})
}
