// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cantonesescribe/usage-operator/api/client"
	"github.com/cantonesescribe/usage-operator/internal/testing/usagedtest"
)

// told watches until the stream ends, and returns what each event said.
func told(t *testing.T, url string) (events []string, err error) {
	t.Helper()
	api, err := client.Connect(url, "")
	if err != nil {
		t.Fatal(err)
	}
	token := client.Bearer(client.StaticToken("eyJ..."))
	for e, err := range client.Watch(t.Context(), api, client.StreamUsageParams{UserId: "alice"}, token) {
		if err != nil {
			return events, err
		}
		events = append(events, fmt.Sprint(e.Standing.UsedCredits, e.Alert.Kind))
	}
	return events, nil
}

// What is lost is asked for again behind what was seen last, and what is refused is not.
func TestWatchGoesOn(t *testing.T) {
	t.Parallel()
	answers := []struct {
		want   string // Last-Event-ID
		status int
		body   string
	}{
		{"", 503, `{"title":"Service Unavailable","status":503}`},
		{"", 200, "retry: 5000\n\nevent: standing\nid: a\ndata: {\"used_credits\":1}\n\n" +
			":\n\nevent: standing\nid: b\ndata: {\"us"},
		{"a", 200, "event: weather\nid: w\ndata: {}\n\nevent: alert\ndata: {\"kind\":\"Overdrawn\"}\n\n" +
			"event: end\ndata: {\"reason\":\"shutdown\"}\n\n"},
		{"w", 200, "event: standing\nid: c\ndata: {\"used_credits\":2}\n\n"},
		{"c", 200, "event: end\ndata: {\"reason\":\"forbidden\",\"detail\":\"no right any more\"}\n\n"},
	}
	var calls atomic.Int32
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(calls.Add(1)) - 1
		if n >= len(answers) {
			t.Errorf("%d calls", n+1)
			return
		}
		a := answers[n]
		if got := r.Header.Get("Last-Event-ID"); got != a.want {
			t.Errorf("call %d is behind %q, want %q", n, got, a.want)
		}
		kind := "text/event-stream"
		if a.status != 200 {
			kind = "application/problem+json"
		}
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(a.status)
		_, _ = w.Write([]byte(a.body))
	}))
	defer service.Close()
	events, err := told(t, service.URL)
	ended, is := errors.AsType[*client.StreamEndedError](err)
	if !is || ended.Reason != client.StreamEndReasonForbidden || !strings.Contains(err.Error(), "no right any more") {
		t.Errorf("ended by %v", err)
	}
	if got := strings.Join(events, " "); got != "1 Overdrawn 2" {
		t.Errorf("told %q", got)
	}
}

func TestWatchIsRefused(t *testing.T) {
	t.Parallel()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"title":"Forbidden","status":403,"detail":"bob may not"}`))
	}))
	defer service.Close()
	events, err := told(t, service.URL)
	if refusal, is := errors.AsType[*client.Error](err); !is || refusal.Status != 403 || len(events) > 0 {
		t.Errorf("got %v, %v", events, err)
	}
}

// On the real service: a charge is told, also by the one that comes up behind one that was killed.
func TestWatchOnTheService(t *testing.T) {
	t.Parallel()
	usaged := usagedtest.New(t, "eyJ...")
	api, err := client.Connect(usaged.URL(), "")
	if err != nil {
		t.Fatal(err)
	}
	meter := &client.Meter{API: api, Token: client.StaticToken("eyJ...")}
	charge := func(key string) {
		t.Helper()
		use := client.UsageRecord{UserId: "alice", UsageType: "transcription", DurationSeconds: "60"}
		if _, err := meter.Record(t.Context(), key, use); err != nil {
			t.Fatal(err)
		}
	}
	var standings []string
	params := client.StreamUsageParams{UserId: "alice"}
	for e, err := range client.Watch(t.Context(), api, params, client.Bearer(client.StaticToken("eyJ..."))) {
		if err != nil {
			t.Fatal(err)
		}
		used := string(e.Standing.UsedCredits)
		if slices.Contains(standings, used) {
			continue // the account was made
		}
		standings = append(standings, used)
		switch used {
		case "0":
			charge("first")
			continue
		case "1":
			usaged.Kill()
			usaged.Start()
			charge("second")
			continue
		}
		break
	}
	if got := strings.Join(standings, " "); got != "0 1 2" {
		t.Errorf("told %q", got)
	}
}
