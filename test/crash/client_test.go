// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// serve answers one request after the other, and tells the bodies that it was sent.
func serve(t *testing.T, answers ...http.HandlerFunc) (*client, *[]string) {
	t.Helper()
	var bodies []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		bodies = append(bodies, r.Header.Get("Idempotency-Key")+" "+string(body))
		answers[min(len(bodies), len(answers))-1](w, r)
	}))
	t.Cleanup(server.Close)
	return &client{http: server.Client(), urls: []string{server.URL}, report: newReport(),
		random: rand.New(rand.NewPCG(1, 2))}, &bodies
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// hangUp ends the connection without an answer.
func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// cutShort ends it in the middle of one.
func cutShort(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "100")
	_, _ = io.WriteString(w, `{"id":`)
	panic(http.ErrAbortHandler)
}

func TestCallUntilAnswered(t *testing.T) {
	c, bodies := serve(t, hangUp, cutShort, status(503, `{}`), status(500, `{}`),
		status(201, `{"id":"x","state":"Admitted"}`))
	a, err := c.call(t.Context(), request{method: http.MethodPost, path: "/p", key: "k", body: "{}"})
	if err != nil || a.ID != "x" || a.State != admitted || !a.uncertain {
		t.Errorf("got %+v, %v", a, err)
	}
	if want := slices.Repeat([]string{"k {}"}, 5); !slices.Equal(*bodies, want) {
		t.Errorf("sent: got %q, want %q", *bodies, want)
	}
	r := c.report
	if r.operations.Load() != 1 || r.retries.Load() != 4 || r.internal.Load() != 1 {
		t.Errorf("counted %d operations, %d retries, %d internal errors; want 1, 4, 1", r.operations.Load(),
			r.retries.Load(), r.internal.Load())
	}
}

func TestRefusalsAreNoOperations(t *testing.T) {
	c, _ := serve(t, status(429, `{}`))
	a, err := c.call(t.Context(), request{method: http.MethodPost, path: "/p"})
	if err != nil || a.uncertain || c.report.operations.Load() != 0 || c.report.refusals.Load() != 1 {
		t.Errorf("got %+v, %v, %d operations, %d refusals", a, err, c.report.operations.Load(),
			c.report.refusals.Load())
	}
}

func TestCallThatNoRepetitionChanges(t *testing.T) {
	c, bodies := serve(t, status(400, `{"detail":"no such field"}`))
	if _, err := c.call(t.Context(), request{method: http.MethodPost, path: "/p"}); err == nil ||
		!strings.Contains(err.Error(), "no such field") {
		t.Errorf("got %v", err)
	}
	if len(*bodies) != 1 {
		t.Errorf("sent %d times", len(*bodies))
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		status(503, `{}`)(w, r)
	})
	if _, err := c.call(ctx, request{method: http.MethodPost, path: "/p"}); err == nil {
		t.Error("no error")
	}
}

func TestPlanHasAPromotion(t *testing.T) {
	s := &stack{}
	for seed := range uint64(50) {
		for _, kills := range []int{1, 5, 12, 40} {
			plan := s.plan(rand.New(rand.NewPCG(seed, 0)), kills)
			if len(plan) < kills || !slices.ContainsFunc(plan[:kills],
				func(k kill) bool { return strings.Contains(k.what, "promoted") }) {
				t.Fatalf("seed %d, %d kills: no promotion among them", seed, kills)
			}
		}
	}
}
