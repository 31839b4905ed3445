// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const pgbenchOutput = `pgbench (15.18 (Debian 15.18-0+deb12u1))
progress: 1.0 s, 100.0 tps, lat 3.905 ms stddev 1.132, 0 failed
progress: 2.0 s, 4000.0 tps, lat 3.905 ms stddev 1.132, 0 failed
progress: 3.0 s, 4100.0 tps, lat 3.905 ms stddev 1.132, 0 failed
number of transactions actually processed: 8200
number of failed transactions: 0 (0.000%)
tps = 2733.1 (without initial connection time)
`

func TestParsePgbench(t *testing.T) {
	got, err := parsePgbench(pgbenchOutput, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	if want := (result{pairs: 8200, perSecond: 4050}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := parsePgbench(pgbenchOutput, 2, 2); !errors.Is(err, errTooShort) {
		t.Errorf("too few seconds: got error %v, want %v", err, errTooShort)
	}
	failed := strings.Replace(pgbenchOutput, "failed transactions: 0", "failed transactions: 7", 1)
	if _, err := parsePgbench(failed, 1, 2); err == nil || !strings.Contains(err.Error(), "7 transactions failed") {
		t.Errorf("failed transactions: got error %v", err)
	}
}

func TestReadLatencies(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"log.1":   "0 1 1000000 0 1000 0\n0 2 2500 0 1001 500000\n",
		"log.1.1": "1 1 4000 0 1002 0 150\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readLatencies(dir, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	// The first one started at 999 s, so the warm-up ends at 1001 s.
	if diff := cmp.Diff([]time.Duration{2500 * time.Microsecond, 4 * time.Millisecond}, got); diff != "" {
		t.Errorf("latencies (-want +got):\n%s", diff)
	}
}

// Of 24 values no more than six are below the median of all with a probability of 1.1 %, and no more than seven with
// one of 3.2 %.
func TestMedianOf(t *testing.T) {
	var values []float64
	for i := range 24 {
		values = append(values, float64((7*i)%24+1))
	}
	if median, low, high := medianOf(values); median != 12.5 || low != 7 || high != 18 {
		t.Errorf("got %g, between %g and %g, want 12.5, between 7 and 18", median, low, high)
	}
	if median, low, high := medianOf(values[:5]); median != 3 || !math.IsInf(low, -1) || !math.IsInf(high, 1) {
		t.Errorf("five values: got %g, between %g and %g, want 3 and no bounds", median, low, high)
	}
}

func TestEveryUserHasOneClient(t *testing.T) {
	for _, clients := range []int{1, 16, 256} {
		l := load{clients: clients, users: 1000}
		seen := map[int]int{}
		for client := range clients {
			first, count, step := l.own(client)
			for i := range count {
				seen[first+i*step]++
			}
		}
		for user := 1; user <= l.users; user++ {
			if seen[user] != 1 {
				t.Fatalf("%d clients: user %d belongs to %d of them, want 1", clients, user, seen[user])
			}
		}
		if len(seen) != l.users {
			t.Errorf("%d clients: got %d users, want %d", clients, len(seen), l.users)
		}
	}
}

// service plays usaged: an admission for a token, its completion for the lease.
type service struct {
	admitted, completed atomic.Int64
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	authorization := r.Header.Get("Authorization")
	switch {
	case r.URL.Path == "/api/v1/usage/check" && strings.HasPrefix(authorization, "Bearer "+tokenPrefix):
		_, _ = fmt.Fprint(w, "{}")
	case r.URL.Path == "/api/v1/admissions" && strings.HasPrefix(authorization, "Bearer "+tokenPrefix) &&
		r.Header.Get("Idempotency-Key") != "":
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprintf(w, `{"id":"a-%d","state":"Admitted","lease_token":"l"}`, s.admitted.Add(1))
	case strings.HasSuffix(r.URL.Path, "/complete") && authorization == "Lease l":
		s.completed.Add(1)
		_, _ = fmt.Fprint(w, `{"id":"a","state":"Settled"}`)
	default:
		http.Error(w, "refused", http.StatusForbidden)
	}
}

func TestLoadOverHTTP(t *testing.T) {
	for name, rate := range map[string]float64{"closed loop": 0, "open loop": 500} {
		t.Run(name, func(t *testing.T) {
			s := &service{}
			server := httptest.NewServer(s)
			defer server.Close()
			target := newOverHTTP([]string{server.Listener.Addr().String()}, 4)
			defer target.close()
			l := load{clients: 4, users: 10, duration: time.Second, rate: rate}
			if err := target.warm(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			r, err := put(t.Context(), target, l)
			if err != nil {
				t.Fatal(err)
			}
			if int64(r.pairs) != s.completed.Load() || s.admitted.Load() != s.completed.Load() {
				t.Errorf("got %d pairs, the service has %d admitted and %d completed", r.pairs, s.admitted.Load(),
					s.completed.Load())
			}
			if r.perSecond <= 0 || r.p50 <= 0 || r.p99 < r.p50 {
				t.Errorf("got %+v, want figures", r)
			}
			// A Poisson process of 500 in a second stays within 10 standard deviations.
			if rate > 0 && (r.pairs < 280 || r.pairs > 720) {
				t.Errorf("got %d pairs in a second, want about %v", r.pairs, rate)
			}
		})
	}
}

func TestSpread(t *testing.T) {
	count := func(s spread) map[int]int {
		pick, seen := load{clients: 1, users: 1000, spread: s}.picker(0), map[int]int{}
		for range 20_000 {
			user := pick()
			if user < 1 || user > 1000 {
				t.Fatalf("%s: user %d of 1000", s, user)
			}
			seen[user]++
		}
		return seen
	}
	if seen := count(hot); len(seen) != 1 {
		t.Errorf("hot: %d users", len(seen))
	}
	// The first user has some 18 per cent, and twice as much as the second one.
	if seen := count(zipf); seen[1] < 3000 || seen[1] < 3*seen[2]/2 || seen[1] > 3*seen[2] || len(seen) < 500 {
		t.Errorf("zipf: the first has %d, the second %d, of %d users", seen[1], seen[2], len(seen))
	}
	if seen := count(uniform); len(seen) < 990 || seen[1] > 60 {
		t.Errorf("uniform: %d users, the first has %d", len(seen), seen[1])
	}
}

func TestChoose(t *testing.T) {
	for _, tc := range []struct {
		only string
		soak bool
		want int
	}{{"", false, len(scenarios) - 1}, {"", true, len(scenarios)}, {"^admit_engine_uniform_256$", false, 1},
		{"soak", false, 0}, {"soak", true, 1}, {"nothing", true, 0}} {
		if got := choose(regexp.MustCompile(tc.only), tc.soak); len(got) != tc.want {
			t.Errorf("--run=%q, soak %t: got %d scenarios, want %d", tc.only, tc.soak, len(got), tc.want)
		}
	}
}

func TestBareHandler(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(answerBare))
	defer server.Close()
	target := newOverHTTP([]string{server.Listener.Addr().String()}, 1)
	defer target.close()
	if err := (checks{target, 0}).pair(t.Context(), 0, 7); err != nil {
		t.Error(err)
	}
}

func TestLoadStopsAtTheFirstError(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	target := newOverHTTP([]string{server.Listener.Addr().String()}, 2)
	defer target.close()
	_, err := put(t.Context(), target, load{clients: 2, users: 2, duration: time.Minute})
	if err == nil || !strings.Contains(err.Error(), "status 404, want 201") {
		t.Errorf("got error %v, want the status", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("told to stop"))
	if _, err := put(ctx, target, load{clients: 1, users: 1, duration: time.Minute}); err == nil {
		t.Error("a cancelled load succeeded")
	}
}
