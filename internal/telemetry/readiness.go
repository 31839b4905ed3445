// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// readyTimeout bounds the checks of one probe.
const readyTimeout = 2 * time.Second

// Check is one thing that a readiness probe looks at.
type Check struct {
	Name string
	// Ask returns what is wrong, or nil.
	Ask func(context.Context) error
	// Once says that it is enough to have been well once: later trouble makes the process degraded, not unready. It is
	// for what all replicas share, such as the database: to take all of them out of their Service would help nobody,
	// for what they can do without it could not be reached any more. A process that never got there must not take
	// another one's place.
	Once bool
}

// Readiness answers readiness probes: 200 if each check is well, or has been and that is enough, else 503. The text
// says what is wrong; with the query `verbose` it tells of every check, and of what is degraded as well.
func Readiness(checks ...Check) http.Handler {
	was := make([]atomic.Bool, len(checks))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		verbose := r.URL.Query().Has("verbose")
		status, text := http.StatusOK, &strings.Builder{}
		for i, check := range checks {
			if check.Once && was[i].Load() && !verbose {
				continue
			}
			switch err := check.Ask(ctx); {
			case err == nil:
				was[i].Store(true)
				_, _ = fmt.Fprintf(text, "[+]%s ok\n", check.Name)
			case check.Once && was[i].Load():
				_, _ = fmt.Fprintf(text, "[!]%s degraded: %v\n", check.Name, err)
			default:
				status = http.StatusServiceUnavailable
				_, _ = fmt.Fprintf(text, "[-]%s failed: %v\n", check.Name, err)
			}
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(status)
		if status == http.StatusOK && !verbose {
			text.Reset()
			_, _ = text.WriteString("ok\n")
		}
		_, _ = w.Write([]byte(text.String()))
	})
}
