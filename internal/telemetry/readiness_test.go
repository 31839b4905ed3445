// SPDX-License-Identifier: Apache-2.0

package telemetry_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/telemetry"
)

// What is shared may fail once it has been well; what is the process's own may not.
func TestReadiness(t *testing.T) {
	var own, shared error
	handler := telemetry.Readiness(
		telemetry.Check{Name: "own", Ask: func(context.Context) error { return own }},
		telemetry.Check{Name: "shared", Ask: func(context.Context) error { return shared }, Once: true},
	)
	broken := errors.New("broken")
	for _, tc := range []struct {
		name        string
		own, shared error
		status      int
		text, long  string
	}{
		{"never reached", nil, broken, 503, "[+]own ok\n[-]shared failed: broken\n",
			"[+]own ok\n[-]shared failed: broken\n"},
		{"own broken", broken, broken, 503, "[-]own failed: broken\n[-]shared failed: broken\n",
			"[-]own failed: broken\n[-]shared failed: broken\n"},
		{"well", nil, nil, 200, "ok\n", "[+]own ok\n[+]shared ok\n"},
		{"degraded", nil, broken, 200, "ok\n", "[+]own ok\n[!]shared degraded: broken\n"},
		{"own broken again", broken, nil, 503, "[-]own failed: broken\n", "[-]own failed: broken\n[+]shared ok\n"},
		{"well again", nil, nil, 200, "ok\n", "[+]own ok\n[+]shared ok\n"},
	} {
		own, shared = tc.own, tc.shared
		for path, want := range map[string]string{"/readyz": tc.text, "/readyz?verbose": tc.long} {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody))
			if w.Code != tc.status || w.Body.String() != want {
				t.Errorf("%s: %s: %d %q, want %d %q", tc.name, path, w.Code, w.Body, tc.status, want)
			}
		}
	}
}
