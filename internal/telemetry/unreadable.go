// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
)

// remindAfter is when an account that cannot be read is logged again.
const remindAfter = 10 * time.Minute

// Unreadable returns what to call for each read of an account that this release cannot read: it counts them, and logs
// each account now and then.
func Unreadable(registry prometheus.Registerer, log *slog.Logger) func(*ledger.UnreadableError) {
	reads := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "usage_unreadable_reads_total",
		Help: "Reads of accounts that this release cannot read, because a newer one or somebody else wrote them. The " +
			"log names them.",
	})
	registry.MustRegister(reads)
	var mu sync.Mutex
	logged := map[string]time.Time{}
	return func(err *ledger.UnreadableError) {
		reads.Inc()
		mu.Lock()
		defer mu.Unlock()
		if time.Since(logged[err.UserID]) < remindAfter {
			return
		}
		logged[err.UserID] = time.Now()
		log.ErrorContext(context.Background(), "a user is left out of everything until what is stored can be read",
			"user", err.UserID, "error", err)
	}
}
